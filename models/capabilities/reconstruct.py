"""Images to codes, and through encoder and decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from models.base import Encodes, LatentModel
from models.capabilities import verb
from models.capabilities.ask import ask, ask_in_blocks, device_of, evaluating, in_blocks, require, require_alike
from models.capabilities.inputs import checked
from models.capabilities.told import Told, Words
from models.data.batches import to_float, to_uint8

if TYPE_CHECKING:
    from models.capabilities.trained import Trained


@verb
def reconstruct(trained: Trained, images: np.ndarray, *, told: Words | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Reconstructions of uint8 images (N, H, W, C), and each image's mean squared error (N,), black 0, white 1.

    A conditional model has to be told what the images show: one for all, or one for each. Where nobody says, a classifier of its own says
    what is most likely, if it has one. Raises UserError.
    """
    require(trained.model, Encodes, "reconstruct")
    shown = checked(trained, images)
    return reconstructions(trained.model, shown, trained.shown_by(shown, told, "encode", "decode"))


@verb
def encode(trained: Trained, images: np.ndarray, *, told: Words | None = None) -> Tensor:
    """The images' codes (N, latent...), float32 on the CPU. A conditional model has to be told what they show, as for `reconstruct`."""
    require(trained.model, Encodes, "encode")
    shown = checked(trained, images)
    return codes_of(trained.model, shown, trained.shown_by(shown, told, "encode", "decode"))


def reconstructions(model: LatentModel, images: np.ndarray, told: Told | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Encode and decode uint8 (N, H, W, C), where the model has to be told what they show.

    Returns the reconstructions, uint8 of the same shape, and each image's mean squared error (N,) in units where black is 0 and white 1.
    """
    require(model, Encodes, "reconstruct")
    require_alike(model, "decode", "reconstruct")
    original = to_float(torch.from_numpy(images))
    with evaluating(model):
        made = through(model, original, told)
    error = ((made - original) / 2).square().flatten(1).mean(1)
    return to_uint8(made).numpy(), error.numpy()


def through(model: LatentModel, images: Tensor, told: Told | None) -> Tensor:
    """Through encoder and decoder: (N, C, H, W) in [-1, 1], and what they show, if anything -> the same shape, on the CPU; in blocks."""

    def block(x: Tensor, shown: Tensor | None = None) -> Tensor:
        return ask(model, "decode", ask(model, "encode", x, shown), shown)

    return in_blocks(block, device_of(model), *([images] if told is None else [images, told.values]))


def codes_of(model: LatentModel, images: np.ndarray, told: Told | None) -> Tensor:
    """uint8 (N, H, W, C) -> codes (N, latent...) on the CPU."""
    with evaluating(model):
        return ask_in_blocks(model, "encode", to_float(torch.from_numpy(images)), told)
