"""Class balance: does a classifier see all classes among the samples, and as often as one another?

The classifier is the one of `--features classifier:RUN`. Total variation is half the sum, over the K classes, of what the share of samples
taken for that class differs from 1/K: 0 where all are equally frequent, 1 - 1/K where one is all there is. Where the data's classes are not
equally frequent, compare it with `real_total_variation`, the same on the real images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.metrics.stats.evidence import Evidence

NEEDS = frozenset({"generated.logits", "real.logits"})
SEEN = 0.1  # of a class's fair share, 1 / K: with that many samples it counts as seen


@dataclass(frozen=True)
class Config:
    pass


def lacks(e: Evidence) -> str:
    target = getattr(e.features, "target", None)
    return "" if target in ("label", "identity") else "a classifier of classes has to judge: --features classifier:RUN"


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"classes_seen", "total_variation", "real_total_variation"}."""
    shares, real = class_shares(e.get("generated.logits")), class_shares(e.get("real.logits"))
    return {
        "classes_seen": float((shares >= SEEN / len(shares)).sum()),
        "total_variation": off_balance(shares),
        "real_total_variation": off_balance(real),
    }


def class_shares(logits: Tensor) -> Tensor:
    """Logits (N, K) -> the share of items whose largest logit is each class's (K,), in float64."""
    return torch.bincount(logits.argmax(1), minlength=logits.shape[1]).double() / len(logits)


def off_balance(shares: Tensor) -> float:
    """Total variation of shares (K,) from 1 / K."""
    return float((shares - 1 / len(shares)).abs().sum() / 2)
