"""Classification: how often a model that classifies is right about held-out images.

`accuracy` is the share of right answers, of all classes (or people) or of all attributes; `mean` that of the mean class or attribute, in
which rare ones count as much as frequent ones; `worst` the least of them. `commonest` is the accuracy of always giving the most frequent
answer: what nobody should fall below. `lgm classify` shows what is taken for what.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.base import Classifies
from models.data.items import Chosen
from models.metrics.stats.evidence import Evidence
from models.randomness import some

NEEDS = frozenset({"held_out"})


@dataclass(frozen=True)
class Config:
    pass


def lacks(e: Evidence) -> str:
    model = e.trained.model
    return "" if isinstance(model, Classifies) and model.target else "it does not classify"


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"accuracy", "mean", "worst", "commonest"}, from 0 to 1. Raises UserError where the held-out images do not say what they show."""
    chosen = some(e.count, len(e.held_out), e.seed, "classification")
    found = e.trained.judge(Chosen(e.held_out, chosen, e.held_out.name))
    each = found.each[~np.isnan(found.each)]
    if found.confusion is None:
        shares = found.truth.mean(0)
        commonest = float(np.maximum(shares, 1 - shares).mean())
    else:
        commonest = float(found.confusion.sum(1).max() / len(found.truth))
    return {"accuracy": found.accuracy, "mean": float(each.mean()), "worst": float(each.min()), "commonest": commonest}
