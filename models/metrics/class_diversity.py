"""Diversity within classes: small where a conditional model makes the same image of a class again and again.

The mean distance between the features of two images of one class, the mean over the classes; of the samples, whose class is the one that
was asked for, and of the real images. A model that collapses to one image for each class may be named right every time; here it is near 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from models.errors import UserError
from models.metrics.stats.evidence import Evidence
from models.metrics.stats.neighbours import Points, mean_distance

NEEDS = frozenset({"real.features", "real.labels", "generated.features", "generated.labels"})


@dataclass(frozen=True)
class Config:
    pass


def lacks(e: Evidence) -> str:
    condition = e.trained.condition
    if condition is None:
        return "its samples cannot be asked to show a class"
    return "attributes are no classes" if condition == "attributes" else ""


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"class_diversity"}, and where the real images have such labels {"class_diversity_real", "class_diversity_ratio"}; features' units.

    Raises UserError where no class has two samples.
    """
    mine = within(e.get("generated.features"), e.get("generated.labels"))
    if mine is None:
        raise UserError("no class has two samples", "class-diversity", "give more images (-n)")
    found = {"class_diversity": mine}
    if e.real is not None and e.real.labels is not None and (its := within(e.get("real.features"), e.real.labels)):
        found |= {"class_diversity_real": its, "class_diversity_ratio": mine / its}
    return found


def within(features: Tensor, labels: Tensor) -> float | None:
    """Features (N, D), labels (N,) -> the mean distance of two of a class, averaged over classes of two or more; None without such."""
    groups = [features[labels == label] for label in labels.unique()]
    distances = [mean_distance(Points(group)) for group in groups if len(group) > 1]
    return sum(distances) / len(distances) if distances else None
