"""Precision, recall, density and coverage: whether the generated images are plausible, and whether they are all there is.

A side's manifold is the union of balls around its images' features, each reaching to the k-th nearest of the side's other images; a ball
includes its rim. Precision is the share of generated images within the real manifold, recall the share of real ones within the generated
(Kynkaanniemi et al., Improved Precision and Recall Metric, 2019). Density counts how many real balls a generated image lies in, over k;
coverage is the share of real balls with a generated image in them (Naeem et al., Reliable Fidelity and Diversity Metrics, 2020). The first
paper takes k = 3, as does torch-fidelity, the second k = 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from models.config import Range
from models.errors import UserError
from models.metrics.stats.evidence import Evidence
from models.metrics.stats.neighbours import TOLERANCE, Points, kth_neighbour, squared_distances

NEEDS = frozenset({"real.features", "generated.features"})


@dataclass(frozen=True)
class Config:
    k: Annotated[int, Range(1, 1000)] = 5  # a ball reaches to the k-th nearest neighbour


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"precision", "recall", "coverage"} in [0, 1] and {"density"} >= 0. Raises UserError where a side has no k-th neighbour."""
    real, generated = e.both("features")
    fewest = min(len(real), len(generated))
    if config.k >= fewest:
        what = f"no {config.k} neighbours for an image among {len(real):,} real and {len(generated):,} generated"
        fix = f"--set prdc.k={fewest - 1}, or give more images" if fewest >= 2 else "give at least two images on each side"
        raise UserError(what, "prdc.k", fix)
    return manifolds(real, generated, config.k)


def manifolds(real: Tensor, generated: Tensor, k: int) -> dict[str, float]:
    """All four values for features (N, D) and (M, D), both with more than k rows. Time grows with (N + M)^2, memory with N + M."""
    x = Points(real)
    y = Points(generated, x.centre)
    x_radius, y_radius = kth_neighbour(x, k), kth_neighbour(y, k)
    covered = torch.zeros(len(x), dtype=torch.bool)  # real balls with a generated image
    recalled = torch.zeros(len(x), dtype=torch.bool)  # real images in a generated ball
    precise = torch.zeros(len(y), dtype=torch.bool)  # generated images in a real ball
    pairs = 0  # of a generated image and a real ball that it lies in
    for rows, a, a_norms in x.blocks():
        for columns, b, b_norms in y.blocks():
            distances = squared_distances(a, a_norms, b, b_norms, TOLERANCE)
            inside = distances <= x_radius[rows, None]
            pairs += int(inside.sum())
            covered[rows] |= inside.any(1)
            precise[columns] |= inside.any(0)
            recalled[rows] |= (distances <= y_radius[columns]).any(1)
    return {
        "precision": float(precise.double().mean()),
        "recall": float(recalled.double().mean()),
        "density": pairs / (k * len(y)),
        "coverage": float(covered.double().mean()),
    }
