"""Filling holes in images with what a model makes of the rest.

A model that encodes and decodes is asked again and again (Bao et al., CVAE-GAN, 2017): x <- M x' + (1 - M) x, x' = decode(encode(x, c), c),
M = 1 in the hole. What is known is put back each time, so the code is drawn towards images that agree with it.

The hole starts as the mean of the known pixels, channel by channel: of all flat fills that is the nearest to what is known, and it has no
edge, line or colour of its own that the encoder could take for a part of the picture, as black or noise would.

A model that only samples is searched for the noise whose sample agrees with the known pixels (see `models.generate.project`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import generate
from models.base import Encodes, LatentModel, Samples
from models.data.batches import to_float, to_uint8


@dataclass(frozen=True)
class Inpainting:
    """Completed images.

    Attributes:
        images: uint8 (T, N, H, W, C), after each of T iterations; T = 1 by projection. Outside of the holes they are the originals.
        error: (T, N) mean squared error inside the hole, black 0, white 1.
        start_error: (N,) the same of the mean of the known pixels, with which the holes start.
        condition: what the images were said to show, (N,) or (N, A), in the last iteration; None for a model without condition.
        projected: whether they were found by projection.
    """

    images: np.ndarray
    error: np.ndarray
    start_error: np.ndarray
    condition: Tensor | None = None
    projected: bool = False


def inpaint(
    model: LatentModel,
    images: np.ndarray,
    holes: np.ndarray,
    *,
    iterations: int = 10,
    condition: Tensor | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **search: Any,
) -> Inpainting:
    """Fill `holes` of uint8 images (N, H, W, C) of the model's shape.

    Args:
        holes: bool (N, H, W), True where the image is not known; in each image some pixels, and not all.
        iterations: how often encoder and decoder are asked; of no account to a model without encoder.
        condition: what each image shows, (N,) or (N, A). Where a model that has to be told is not, its own classifier is asked before each
            iteration, because it sees more the better the hole is filled.
        progress: called with (iterations or steps done, in all).
        search: settings of `models.generate.project`, for a model without encoder.

    Raises UserError where the model can neither encode nor sample.
    """
    if not isinstance(model, (Encodes, Samples)):
        generate.require(model, Encodes, "inpaint")
    device = next(model.parameters()).device
    original, hole = to_float(torch.from_numpy(images)), torch.from_numpy(holes.copy()).unsqueeze(1)
    x = torch.where(hole, _known_mean(original, hole), original)
    start = _error(x, original, hole)

    if not isinstance(model, Encodes):
        with generate.evaluating(model):
            told = generate.classified(model, x, device) if condition is None else condition
        found = generate.project(model, images, condition=told, known=~holes, progress=progress, **search)
        x = torch.where(hole, to_float(torch.from_numpy(found.images)), original)
        return Inpainting(to_uint8(x).numpy()[None], _error(x, original, hole)[None], start, told, projected=True)

    made, errors, told = [], [], condition
    with generate.evaluating(model):
        for done in range(iterations):
            if condition is None:
                told = generate.classified(model, x, device)
            x = torch.where(hole, generate.reconstructions_of(model, x, told, device), original)
            made.append(to_uint8(x).numpy())
            errors.append(_error(x, original, hole))
            progress(done + 1, iterations)
    return Inpainting(np.stack(made), np.stack(errors), start, told)


def _known_mean(images: Tensor, hole: Tensor) -> Tensor:
    """The mean of each image's known pixels: (N, C, H, W) and (N, 1, H, W) -> (N, C, 1, 1)."""
    return (images * ~hole).sum((2, 3), keepdim=True) / (~hole).sum((2, 3), keepdim=True)


def _error(images: Tensor, originals: Tensor, hole: Tensor) -> np.ndarray:
    """Mean squared error over the hole's pixels and all channels, black 0, white 1: (N, C, H, W) twice, (N, 1, H, W) -> (N,)."""
    squares = ((images - originals) / 2).square().mean(1, keepdim=True) * hole
    return (squares.sum((1, 2, 3)) / hole.sum((1, 2, 3))).numpy()
