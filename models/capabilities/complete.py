"""Filling holes by a model that has learned to: several completions of each, one for each draw of the noise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from models.base import Completes, LatentModel
from models.capabilities import masks, verb
from models.capabilities.ask import device_of, evaluating, models_with, stepwise, variants_in_blocks
from models.capabilities.inputs import checked
from models.data.batches import to_float
from models.errors import UserError
from models.randomness import check_seed, image_noise

if TYPE_CHECKING:
    from models.capabilities.trained import Trained

FIXED = ("center", "half")  # kinds of holes of which there are a few only, so that one sees whether a mask is among them


@verb
def complete(
    trained: Trained, images: np.ndarray, holes: np.ndarray | str, count: int = 5, seed: int = 0, *, iterations: int | None = None
) -> np.ndarray:
    """`count` completions of each uint8 image (N, H, W, C): uint8 (N, count, H, W, C). Number k of every image has the same noise.

    Args:
        holes: bool (N, H, W), or (H, W) for all, True in the hole; or a kind of mask to draw: box, center, half, random, stroke.
        iterations: of a model whose answers are found step by step; None: as many as it was trained with.

    Raises UserError, also for a model that completes nothing, and for holes that it has not learned to fill.
    """
    noise = noises(trained.model, count, seed)
    shown = checked(trained, images)
    return through(trained.model, shown, masks.of_images(holes, len(shown), trained.model.spec.size, seed), noise, iterations)


def noises(model: LatentModel, count: int, seed: int) -> Tensor:
    """The noises of `count` completions (count, D); number k depends on the seed and k alone."""
    if not isinstance(model, Completes):
        where = type(model).__module__.rpartition(".")[2]
        raise UserError("this model cannot complete images", where, f"take a run of one that can: {models_with('complete')}")
    if count < 1:
        raise UserError(f"{count} variants", "--variants", "ask for 1 or more")
    return image_noise(check_seed(seed), range(count), model.completion_noise, "complete")


def through(model: LatentModel, images: np.ndarray, holes: np.ndarray, noise: Tensor, iterations: int | None = None) -> np.ndarray:
    """Every image (N, H, W, C) with its hole (N, H, W) and every noise (K, D), or with those of its own (N, K, D), uint8: (N, K, H, W, C).

    What was known is as it was.
    """
    check_learned(model, holes)
    way = stepwise(model, "complete", iterations)
    real, hole = to_float(torch.from_numpy(images)), torch.from_numpy(holes.copy()).unsqueeze(1).float()
    with evaluating(model):
        made = variants_in_blocks(way, device_of(model), noise, real, hole)
    return np.where(holes[:, None, ..., None], made, images[:, None])


def check_learned(model: LatentModel, holes: np.ndarray) -> None:
    """Raise UserError where holes (N, H, W) are not of the kind that the model was trained with, as far as that can be seen."""
    kind = getattr(model, "holes", "")
    if kind not in FIXED:
        return
    height, width = size = holes.shape[1:]
    allowed = [masks.center(np.random.default_rng(0), size)] if kind == "center" else masks.halves((height, width))
    for number, hole in enumerate(holes):
        if not any(np.array_equal(hole, one) for one in allowed):
            what = f"the run was trained to fill holes of the kind {kind!r}, this is another one"
            raise UserError(what, f"mask {number}", f"give --mask {kind}, or train with --set mask=any")


def learned_holes(model: LatentModel, numbers: Iterable[int], seed: int) -> np.ndarray:
    """Holes of the kind that a model has learned to fill, (N, H, W) bool; of all kinds in turn, where it has learned any."""
    assert isinstance(model, Completes)
    kinds = list(masks.KINDS) if model.holes == "any" else [model.holes]
    return np.concatenate([masks.draw(kinds[number % len(kinds)], seed, [int(number)], model.spec.size) for number in numbers])
