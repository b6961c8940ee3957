"""Class balance: does a classifier see all classes among the samples, and as often as among the real images?

The classifier is the one of `--features classifier:RUN`. Total variation is half the sum, over the K classes, of how far the share of
samples taken for that class is from the share of real images: 0 where both are the same, 1 where no class is seen on both sides. Chance
alone makes it about the root of K / (pi n) for n images a side, and less where some classes are rare.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.metrics.stats.evidence import Evidence

NEEDS = frozenset({"generated.logits", "real.logits"})
SEEN = 0.1  # of a class's share of the real images: with that many samples it counts as seen


@dataclass(frozen=True)
class Config:
    pass


def lacks(e: Evidence) -> str:
    target = getattr(e.features, "target", None)
    return "" if target in ("label", "identity") else "a classifier of classes has to judge: --features classifier:RUN"


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"classes_seen", "real_classes_seen", "total_variation"}: numbers of classes, and a distance from 0 to 1."""
    shares, real = class_shares(e.get("generated.logits")), class_shares(e.get("real.logits"))
    return {
        "classes_seen": float(((real > 0) & (shares >= SEEN * real)).sum()),
        "real_classes_seen": float((real > 0).sum()),
        "total_variation": float((shares - real).abs().sum() / 2),
    }


def class_shares(logits: Tensor) -> Tensor:
    """Logits (N, K) -> the share of items whose largest logit is each class's (K,), in float64."""
    return torch.bincount(logits.argmax(1), minlength=logits.shape[1]).double() / len(logits)
