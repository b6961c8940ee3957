"""One nearest neighbour: does the nearest training image, by its code, show what the image shows?

The share of held-out images for which it does (Pidhorskyi et al. 2020, table 1). Distances are Euclidean. `short` are codes, `long` the
encoder's last hidden layer, `components` as many principal components of the training images, the least that a code should beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from models.config import Range
from models.metrics.stats import probing
from models.metrics.stats.evidence import Evidence

NEEDS = frozenset({"held_out", "training"})
_BLOCK = 512  # images whose neighbours are looked for at once
lacks = probing.lacks


@dataclass(frozen=True)
class Config:
    training: Annotated[int, Range(10, 10**7)] = 60_000  # training images at most


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"short", "long", "components", "chance"}, each from 0 to 1; those that the model has."""
    return probing.measured(e, config.training, nearest)


def nearest(features: probing.Features, labels: Tensor) -> Tensor:
    """The label of the nearest training item: features (N, D) and (M, D), labels (N,) -> (M,)."""
    known, asked = features
    lengths = known.square().sum(1)
    return torch.cat([labels[(lengths - 2 * block @ known.T).argmin(1)] for block in asked.split(_BLOCK)])
