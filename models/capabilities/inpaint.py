"""Filling holes in images with what a model makes of the rest.

A model that encodes and decodes is asked again and again (Bao et al., CVAE-GAN, 2017): x <- M x' + (1 - M) x, x' = decode(encode(x, c), c),
M = 1 in the hole. What is known is put back each time, so the code is drawn towards images that agree with it.

The hole starts as the mean of the known pixels, channel by channel: of all flat fills that is the nearest to what is known, and it has no
edge, line or colour of its own that the encoder could take for a part of the picture, as black or noise would.

A model that only samples is searched for the noise whose sample agrees with the known pixels (see `project.search`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from models.base import Encodes, LatentModel, Samples
from models.capabilities import masks, verb
from models.capabilities.ask import classified, evaluating, require, require_alike
from models.capabilities.inputs import checked
from models.capabilities.pictures import Captions, grid
from models.capabilities.project import search as find
from models.capabilities.reconstruct import through
from models.capabilities.told import Told, Words, has_to_tell, resolve, untold
from models.data.batches import to_float, to_uint8
from models.errors import UserError

if TYPE_CHECKING:
    from models.capabilities.trained import Trained


@dataclass(frozen=True)
class Inpainting:
    """Completed images.

    Attributes:
        images: uint8 (T, N, H, W, C), after each of T iterations; T = 1 by projection. Outside of the holes they are the originals.
        error: (T, N) mean squared error inside the hole, black 0, white 1.
        start_error: (N,) the same of the mean of the known pixels, with which the holes start.
        told: what the images were said to show in the last iteration; None for a model without condition.
        projected: whether they were found by projection.
    """

    images: np.ndarray
    error: np.ndarray
    start_error: np.ndarray
    told: Told | None = None
    projected: bool = False


@verb
def inpaint(
    trained: Trained,
    images: np.ndarray,
    holes: np.ndarray | str,
    *,
    iterations: int = 10,
    seed: int = 0,
    told: Words | None = None,
    **settings: Any,
) -> Inpainting:
    """Fill holes in uint8 images (N, H, W, C) with what the model makes of the rest; `.images[-1]` are the completed images.

    Args:
        holes: bool (N, H, W), or (H, W) for all, True in the hole; or a kind of mask to draw: box, center, half, random, stroke.
        iterations: how often encoder and decoder are asked. A model without encoder is searched by projection instead.
        seed: of drawn masks, and of a projection's starts.
        told: what the images show, as for `reconstruct`. Where nobody says, a classifier of the model's own is asked before each iteration,
            because it sees more the better the hole is filled.
        settings: `steps`, `restarts` and `lr` of a projection, and `progress`, called with (done, in all).

    Raises UserError, also for a mask of another size, without hole, or without anything else.
    """
    if not 1 <= iterations <= 10_000:
        raise UserError(f"{iterations} iterations", "--iterations", "give a number from 1 to 10,000")
    shown = checked(trained, images)
    holes = masks.of_images(holes, len(shown), trained.model.spec.size, seed)
    if isinstance(trained.model, Encodes):
        require_alike(trained.model, "decode", "inpaint")
        settings = {key: value for key, value in settings.items() if key == "progress"}
    elif isinstance(trained.model, Samples):
        trained.require_samples()
        require_alike(trained.model, "sample", "inpaint")
        settings |= {"seed": seed}
    else:
        require(trained.model, Encodes, "inpaint")
    said = resolve(trained.model, told)
    asking = ("encode", "decode") if isinstance(trained.model, Encodes) else ("sample",)
    if said is None and has_to_tell(trained.model, *asking) and not trained.classifies:
        raise untold(trained.model)
    return fill(trained.model, shown, holes, iterations=iterations, told=None if said is None else said.for_each(len(shown)), **settings)


def fill(
    model: LatentModel,
    images: np.ndarray,
    holes: np.ndarray,
    *,
    iterations: int = 10,
    told: Told | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **search: Any,
) -> Inpainting:
    """Fill `holes` (N, H, W), True where the image is not known, of uint8 images (N, H, W, C) of the model's shape.

    In each image some pixels are known, and not all. `told` and `progress` as for `inpaint`; `search` are settings of `project.search`.
    """
    original, hole = to_float(torch.from_numpy(images)), torch.from_numpy(holes.copy()).unsqueeze(1)
    x = torch.where(hole, _known_mean(original, hole), original)
    start = _error(x, original, hole)

    if not isinstance(model, Encodes):
        with evaluating(model):
            shown = classified(model, x) if told is None else told
        found = find(model, images, told=shown, known=~holes, progress=progress, **search)
        x = torch.where(hole, to_float(torch.from_numpy(found.images)), original)
        return Inpainting(to_uint8(x).numpy()[None], _error(x, original, hole)[None], start, shown, projected=True)

    made, errors, shown = [], [], told
    asks = told is None and has_to_tell(model, "encode", "decode")
    with evaluating(model):
        for done in range(iterations):
            if asks:
                shown = classified(model, x)
            x = torch.where(hole, through(model, x, shown), original)
            made.append(to_uint8(x).numpy())
            errors.append(_error(x, original, hole))
            progress(done + 1, iterations)
    return Inpainting(np.stack(made), np.stack(errors), start, shown)


def picture(
    originals: np.ndarray, holes: np.ndarray, completed: Sequence[np.ndarray], captions: Captions | None = None, scale: int | None = None
) -> np.ndarray:
    """A row for each image: the original, the same with its hole (N, H, W) in middle grey, and each of the completed (N, H, W, C)."""
    masked = np.where(holes[..., None], np.uint8(128), originals)
    columns = [originals, masked, *completed]
    return grid(np.stack(columns, 1).reshape(-1, *originals.shape[1:]), len(columns), captions, scale)


def _known_mean(images: Tensor, hole: Tensor) -> Tensor:
    """The mean of each image's known pixels: (N, C, H, W) and (N, 1, H, W) -> (N, C, 1, 1)."""
    return (images * ~hole).sum((2, 3), keepdim=True) / (~hole).sum((2, 3), keepdim=True)


def _error(images: Tensor, originals: Tensor, hole: Tensor) -> np.ndarray:
    """Mean squared error over the hole's pixels and all channels, black 0, white 1: (N, C, H, W) twice, (N, 1, H, W) -> (N,)."""
    squares = ((images - originals) / 2).square().mean(1, keepdim=True) * hole
    return (squares.sum((1, 2, 3)) / hole.sum((1, 2, 3))).numpy()
