"""Linear probe: can a linear function of its code tell what an image shows?

A support vector machine for each class against all others, with the squared hinge loss, learns from training images; the share of held-out
images whose largest answer is right (Pidhorskyi et al. 2020, table 1; the objective is that of scikit-learn's LinearSVC). Features are
shifted and scaled to mean 0 and deviation 1, so that one `cost` serves all of them. `short` are codes, `long` the encoder's last hidden
layer, `components` as many principal components of the training images, the least that a code should beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from models.config import Range
from models.metrics.stats import probing
from models.metrics.stats.evidence import Evidence

NEEDS = frozenset({"held_out", "training"})
lacks = probing.lacks


@dataclass(frozen=True)
class Config:
    training: Annotated[int, Range(10, 10**7)] = 60_000  # training images at most
    cost: Annotated[float, Range(1e-9, 1e9)] = 0.02  # C, of an image's squared hinge loss against half the squared length of the weights
    iterations: Annotated[int, Range(1, 10**6)] = 300  # of L-BFGS at most


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"short", "long", "components", "chance"}, each from 0 to 1; those that the model has."""
    return probing.measured(e, config.training, partial(support_vectors, cost=config.cost, iterations=config.iterations))


def support_vectors(features: probing.Features, labels: Tensor, cost: float = 0.02, iterations: int = 300) -> Tensor:
    """What a linear machine of each class makes of the held-out items: features (N, D) and (M, D), labels (N,) -> labels (M,)."""
    mean, deviation = features[0].mean(0), features[0].std(0).clamp_min(1e-6)
    known, asked = (F.pad((x - mean) / deviation, (0, 1), value=1.0) for x in features)  # the last one is the bias
    sides = 2.0 * F.one_hot(labels).float() - 1

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = torch.from_numpy(flat).float().view(known.shape[1], -1)
        short = (1 - sides * (known @ weights)).clamp_min(0)
        slope = weights - 2 * cost * (known.T @ (sides * short))
        loss = 0.5 * float(weights.double().square().sum()) + cost * float(short.double().square().sum())
        return loss, slope.double().numpy().ravel()

    start = np.zeros(known.shape[1] * sides.shape[1])
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    return (asked @ torch.from_numpy(found.x).float().view(known.shape[1], -1)).argmax(1)
