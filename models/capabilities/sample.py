"""Drawing new images. Image i depends on the seed, on i, and on what is asked for alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from math import inf, sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from models.base import LatentModel, Maps, Samples
from models.capabilities import verb
from models.capabilities.ask import ask, device_of, evaluating, pictures_in_blocks, require
from models.capabilities.told import Told, Words, in_turn, resolve
from models.device import block_of
from models.errors import UserError
from models.randomness import check_seed, image_noise

if TYPE_CHECKING:
    from models.capabilities.trained import Trained


@verb
def sample(
    trained: Trained, count: int, seed: int = 0, first: int = 0, *, told: Words | None = None, truncation: float | None = None
) -> np.ndarray:
    """`count` samples, uint8 (count, H, W, C). Image i depends on the seed, on `first` + i, and on what is asked alone.

    Args:
        told: what a conditional model draws: a class's name or number (an identity's number), or attributes, name -> 0 or 1; or several:
            then `count` of each, one after the other, from the same noises. Where nothing is said, image i shows class i mod K (no
            attribute), or what `trained.examples` say.
        truncation: less variety, fewer failures: cut the noise off at plus and minus this, or, where the model maps noise to codes, draw
            the codes towards their mean, to this share of their distance from it (docs/sampling.md).

    Raises UserError for what the model cannot be asked.
    """
    return np.concatenate(list(sample_blocks(trained, count, seed, first, told=told, truncation=truncation)))


@verb
def sample_blocks(
    trained: Trained,
    count: int,
    seed: int = 0,
    first: int = 0,
    batch: int = 256,
    *,
    told: Words | None = None,
    truncation: float | None = None,
) -> Iterator[np.ndarray]:
    """The same, `batch` images at a time, for numbers that should not be in memory at once. The batch changes no image."""
    trained.require_samples()
    if count < 1:
        raise UserError(f"{count} samples", "-n", "ask for 1 or more")
    if truncation is not None and not 0 < truncation < inf:
        raise UserError(f"truncation {truncation}", "--truncation", "give a number above 0, such as 0.7; leave it out for none")
    check_seed(seed)
    asked = resolve(trained.model, told)
    each = [None] if asked is None else [asked[n : n + 1] for n in range(len(asked))]
    return chain.from_iterable(draw(trained.model, count, seed, first, batch, one, truncation, trained.examples) for one in each)


def draw(
    model: LatentModel,
    count: int,
    seed: int,
    first: int = 0,
    batch: int = 256,
    told: Told | None = None,
    truncation: float | None = None,
    examples: Told | None = None,
) -> Iterator[np.ndarray]:
    """Yield samples `first` to `first + count` as uint8 (up to `batch`, H, W, C). Image i depends on (seed, i) and on what follows alone.

    Args:
        told: the one row that all of them show; None for what `told.in_turn` says.
        truncation: cut the noise off there, see `truncated`.
        examples: for `told.in_turn`.
    """
    require(model, Samples, "sample")
    device = device_of(model)
    block = block_of(device)
    ahead = first % block  # blocks start at multiples of their size, so that image i has the same place in the same block every time
    step = max(batch // block, 1) * block
    for start in range(first - ahead, first + count, step):
        stop = min(start + step, first + count)
        noise = image_noise(seed, range(start, stop), model.noise_shape)
        shown = in_turn(model, range(start, stop), examples) if told is None else told.for_each(stop - start)
        with evaluating(model):
            if truncation is not None and isinstance(model, Maps):
                made = pictures_in_blocks(partial(_drawn_to_the_mean, model, truncation), device, noise)
            else:
                noise = noise if truncation is None else truncated(noise, truncation)
                rows = [noise] if shown is None else [noise, shown.values]
                made = pictures_in_blocks(partial(ask, model, "sample"), device, *rows)
        yield made[max(first - start, 0) :]


def _drawn_to_the_mean(model: Maps, share: float, noise: Tensor) -> Tensor:
    """Images of codes as far from the mean code as `share` says, 1 leaving them where they are (Karras et al. 2019, appendix B)."""
    return model.decode(torch.lerp(model.code_mean, model.map(noise), share))


def truncated(noise: Tensor, limit: float) -> Tensor:
    """Noise as from N(0, 1) cut off at plus and minus `limit` (Brock et al. 2019, the truncation trick); same shape and dtype.

    Where Brock et al. draw again what falls outside, this keeps each number's rank: z -> F^-1(F(-T) + F(z) (F(T) - F(-T))), F the normal
    distribution function. So it is a function of the number alone, and an image changes gently while the limit falls.
    """
    z = noise.double()
    # Below zero, where F is small and so keeps all its digits; the map is odd. (torch.special.ndtr loses them, erfc does not.)
    rank = torch.erfc(z.abs() / sqrt(2)) / 2
    edge = torch.erfc(torch.tensor(limit / sqrt(2), dtype=torch.float64)) / 2
    cut = torch.special.ndtri(edge + rank * (1 - 2 * edge)).clamp(-limit, 0)
    return torch.copysign(cut, z).to(noise.dtype)
