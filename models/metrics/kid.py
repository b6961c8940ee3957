"""Kernel distance of the features (KID): as FID, but without a bias from few images; mean and deviation over subsets.

Paper: Binkowski et al., Demystifying MMD GANs, 2018: the unbiased estimate of the squared maximum mean discrepancy under the kernel
k(x, y) = (x.y / D + 1)^3, averaged over random subsets drawn without replacement. An unbiased estimate of something near 0 is below 0
half of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from models.config import Range
from models.errors import UserError
from models.metrics.stats.evidence import Evidence
from models.randomness import numpy_generator

NEEDS = frozenset({"real.features", "generated.features"})


@dataclass(frozen=True)
class Config:
    subset: Annotated[int, Range(2, 10**6)] = 1000  # images of each side in a subset
    subsets: Annotated[int, Range(1, 10**6)] = 100  # how many are drawn; the deviation is over them


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"kid", "kid_std"}. Raises UserError where a side has fewer images than a subset."""
    real, generated = e.both("features")
    fewest = min(len(real), len(generated))
    if config.subset > fewest:
        what = f"a subset of {config.subset:,} is larger than a side: {len(real):,} real and {len(generated):,} generated images"
        fix = f"--set kid.subset={fewest}, or give more images" if fewest >= 2 else "give at least two images on each side"
        raise UserError(what, "kid.subset", fix)
    whole = config.subset == len(real) == len(generated)  # then there is but one subset
    values = []
    for number in range(1 if whole else config.subsets):
        dice = numpy_generator(e.seed, "kid", number)
        x, y = (side[torch.from_numpy(dice.choice(len(side), config.subset, replace=False))] for side in (real, generated))
        values.append(polynomial_mmd(x, y))
    return {"kid": float(np.mean(values)), "kid_std": float(np.std(values))}


def polynomial_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased estimate of MMD^2 between the rows of x (M, D) and y (N, D), both at least 2, under the cubic kernel; in float64."""
    x, y = x.double(), y.double()
    return _mean_of_pairs(x) + _mean_of_pairs(y) - 2 * float(_kernel(x, y).mean())


def _mean_of_pairs(x: Tensor) -> float:
    kernel = _kernel(x, x)
    return float(kernel.sum() - kernel.trace()) / (len(x) * (len(x) - 1))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    base = (x @ y.T).div_(x.shape[1]).add_(1)
    return base * base * base
