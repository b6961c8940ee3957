"""Images to what belongs to them, in another domain or of another kind, several of each: one for each draw of the noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from models.base import DataSpec, LatentModel, Translates, TranslatesBack
from models.capabilities import verb
from models.capabilities.ask import device_of, evaluating, models_with, stepwise, variants_in_blocks
from models.capabilities.inputs import checked
from models.capabilities.pictures import Captions, alike, grid
from models.data.batches import to_float
from models.errors import UserError
from models.randomness import check_seed, image_noise

if TYPE_CHECKING:
    from models.capabilities.trained import Trained


@verb
def translate(
    trained: Trained, images: np.ndarray, count: int = 8, seed: int = 0, *, back: bool = False, iterations: int | None = None
) -> np.ndarray:
    """`count` translations of each uint8 image (N, H, W, C): uint8 (N, count, H', W', C'). Number k of every image has the same noise.

    Args:
        back: the images are of the other domain, and come to that of the leading source.
        iterations: of a model whose answers are found step by step; None: as many as it was trained with.

    Raises UserError, also for a model that does not translate.
    """
    noise = noises(trained.model, count, seed, back)
    return through(trained.model, checked(trained, images, source_of(trained.model, back)), noise, back, iterations)


def noises(model: LatentModel, count: int, seed: int, back: bool = False) -> Tensor:
    """The noises of `count` translations (count, D); number k depends on the seed and k alone.

    Raises UserError, for a model that does not translate as well; it names those that do.
    """
    where = type(model).__module__.rpartition(".")[2]
    if not isinstance(model, Translates):
        able = models_with("translate")
        raise UserError("this model cannot translate", where, f"take a run of one that can: {able}")
    assert isinstance(model, LatentModel)
    if back and not isinstance(model, TranslatesBack):
        raise UserError("this model translates in one direction only", f"{where}, --back", "leave --back out")
    if count < 1:
        raise UserError(f"{count} variants", "--variants", "ask for 1 or more")
    shape = model.return_noise if back and isinstance(model, TranslatesBack) else model.translation_noise
    return image_noise(check_seed(seed), range(count), shape, "translate")


def through(model: LatentModel, images: np.ndarray, noise: Tensor, back: bool = False, iterations: int | None = None) -> np.ndarray:
    """Every image (N, H, W, C) with every noise (K, D), or with those of its own (N, K, D), uint8: (N, K, H', W', C')."""
    way = stepwise(model, "translate_back" if back else "translate", iterations)
    with evaluating(model):
        return variants_in_blocks(way, device_of(model), noise, to_float(torch.from_numpy(images)))


def picture(
    originals: np.ndarray, made: np.ndarray | Sequence[np.ndarray], captions: Captions | None = None, scale: int | None = None
) -> np.ndarray:
    """A row for each image (N, H, W, C): itself, and what it became (K, H', W', C')."""
    first, *others = alike(originals, *made)
    return grid([image for own, its in zip(first, others, strict=True) for image in (own, *its)], 1 + len(made[0]), captions, scale)


def source_of(model: LatentModel, back: bool) -> DataSpec:
    """Of the images that are translated."""
    return model.spec[model.sources[1]] if back else model.spec
