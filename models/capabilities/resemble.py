"""The same person, or thing, again: all that is not who it is comes from noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from models.base import Resembles
from models.capabilities import verb
from models.capabilities.ask import device_of, evaluating, models_with, pictures_in_blocks
from models.capabilities.inputs import checked
from models.data.batches import to_float
from models.errors import UserError
from models.randomness import check_seed, image_noise

if TYPE_CHECKING:
    from models.capabilities.trained import Trained


@verb
def resemble(trained: Trained, images: np.ndarray, count: int = 8, seed: int = 0) -> np.ndarray:
    """`count` images of who is in each uint8 image (N, H, W, C): uint8 (N, count, H, W, C). Number k of each has the noise of sample k.

    Raises UserError, also for a model that cannot.
    """
    model = trained.model
    if not isinstance(model, Resembles):
        where = type(model).__module__.rpartition(".")[2]
        raise UserError("this model cannot draw somebody again", where, f"take a run of one that can: {models_with('resemble')}")
    if count < 1:
        raise UserError(f"{count} samples", "-n", "ask for 1 or more")
    shown = to_float(torch.from_numpy(checked(trained, images)))
    noise = image_noise(check_seed(seed), range(count), model.noise_shape)
    assert isinstance(model, nn.Module)
    with evaluating(model):
        rows = shown.repeat_interleave(count, 0), noise.repeat(len(shown), *[1] * len(model.noise_shape))
        made = pictures_in_blocks(model.resemble, device_of(model), *rows)
    return made.reshape(len(images), count, *made.shape[1:])
