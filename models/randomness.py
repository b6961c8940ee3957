"""Randomness as a pure function of (seed, purpose, position): nothing to save, nothing to restore, bit-exact resume.

Seeds are derived by sha256, because Python's `hash` differs between processes. Streams whose values must not depend on the batch size
(an image's noise, the order of an epoch) come from numpy's Philox, one stream an item; a training step's noise and dropout come from
torch's own generator, seeded anew before every step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from models.errors import UserError


def check_seed(seed: int) -> int:
    """`seed` itself. Raises UserError unless it is one."""
    if not 0 <= seed < 2**64:
        raise UserError(f"seed {seed}", "--seed", "a seed is a whole number from 0 to 2^64 - 1")
    return seed


def derive(seed: int, *purpose: object) -> int:
    """A 128-bit integer that depends on all arguments and on nothing else."""
    return int.from_bytes(hashlib.sha256(repr((seed, *purpose)).encode()).digest()[:16], "little")


def numpy_generator(seed: int, *purpose: object) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=derive(seed, *purpose)))


def seed_torch(device: torch.device, seed: int, *purpose: object) -> None:
    """Seed the global generators that a step on `device` draws from. (torch's CPU generator uses 32 bits of a seed.)"""
    value = derive(seed, *purpose) % 2**32
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.init()
        torch.cuda.default_generators[device.index or 0].manual_seed(value)  # cuda.manual_seed knows the current device only
    elif device.type == "mps":
        torch.mps.manual_seed(value)


def image_noise(seed: int, items: Iterable[int], shape: tuple[int, ...], purpose: str = "sample") -> Tensor:
    """N(0, I) noise of shape (len(items), *shape), float32 on the CPU; item i's values depend on (seed, purpose, i) only."""
    rows = [numpy_generator(seed, purpose, int(item)).standard_normal(shape, dtype=np.float32) for item in items]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, *shape)


def some(count: int, total: int, seed: int, *purpose: object) -> np.ndarray:
    """`count` of the numbers from 0 to `total` - 1, in order, or all of them where there are fewer: int64."""
    return np.sort(numpy_generator(seed, *purpose).permutation(total)[:count])


def epoch_order(seed: int, epoch: int, count: int, source: str = "") -> np.ndarray:
    """The order in which an epoch visits the `count` items of a source, the leading one where none is named: (count,) int64."""
    return numpy_generator(seed, "order", epoch, *([source] if source else [])).permutation(count)
