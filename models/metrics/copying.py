"""Copying: do samples lie nearer to the training images than images do that the model has never seen?

A model that has learned its images by heart scores well by every other metric. Each sample's distance to the nearest training image is
compared with each held-out image's (Meehan, Chaudhuri and Dasgupta, A Non-Parametric Test to Detect Data-Copying in Generative Models,
2020, without their cells): the share of pairs in which the sample is nearer. 0.5 for new images of the same distribution, 1 for copies;
near 0 for samples that are like no image at all, which is no praise either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from models.config import Range
from models.data.items import Chosen, Items
from models.data.sources import ItemSource
from models.errors import UserError, printable
from models.metrics.features.base import Features
from models.metrics.features.extract import extract
from models.metrics.stats.evidence import Evidence
from models.metrics.stats.neighbours import Points, squared_distances
from models.randomness import some

NEEDS = frozenset({"generated.features", "features", "held_out", "training"})


@dataclass(frozen=True)
class Config:
    training: Annotated[int, Range(1, 10**7)] = 10_000  # training images at most that a copy is looked for among


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"copying"} in [0, 1]; {"nearest", "nearest_real"}: mean distances to the nearest training image, of samples and of held-out images.

    Raises UserError where the held-out images are the training images themselves.
    """
    if e.held_out.fingerprint() == e.training.fingerprint():
        what = "there are no held-out images, and training images are copies of themselves"
        raise UserError(what, printable(e.held_out.name), "compare with images that the run has not seen (--data)")
    assert e.features is not None
    learned = _features(e.training, config.training, e.seed, e.features)
    others = _features(e.held_out, e.count, e.seed, e.features)
    return copying(learned, e.get("generated.features"), others)


def copying(training: Tensor, generated: Tensor, held_out: Tensor) -> dict[str, float]:
    """The values of `measure`, of features (N, D), (M, D) and (K, D)."""
    (samples, _), (others, _) = nearest(training, generated), nearest(training, held_out)
    ordered = others.sort().values
    nearer, not_farther = (len(ordered) - torch.searchsorted(ordered, samples, right=right) for right in (True, False))
    share = (nearer + not_farther).double().mean() / (2 * len(ordered))  # a tie counts half
    return {"copying": float(share), "nearest": float(samples.mean()), "nearest_real": float(others.mean())}


def nearest(training: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """How far the nearest training image is, and which: features (N, D) and (M, D) -> (M,) float64, (M,) int64."""
    known = Points(training)
    asked = Points(images, known.centre)
    least, which = torch.full((len(images),), torch.inf, dtype=torch.float64), torch.zeros(len(images), dtype=torch.int64)
    for rows, x, x_norms in asked.blocks():
        for columns, y, y_norms in known.blocks():
            distance, at = squared_distances(x, x_norms, y, y_norms).min(1)
            nearer = distance < least[rows]
            least[rows] = torch.where(nearer, distance, least[rows])
            which[rows] = torch.where(nearer, at + columns.start, which[rows])
    return least.sqrt(), which


def _features(items: Items, limit: int, seed: int, features: Features) -> Tensor:
    index = some(limit, len(items), seed, "copying")
    chosen = ItemSource(Chosen(items, index, items.name))
    return torch.cat([block.features for block in extract(chosen, features)])
