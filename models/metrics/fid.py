"""Frechet distance of the features' Gaussians (FID): how far the generated images are from the real ones, 0 is best.

Paper: Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, 2017. Covariances are divided by
N - 1, as in numpy.cov and torch-fidelity. The value has a bias that falls with the number of images, so values are comparable only at the
same number; a single image counts as a Gaussian of covariance 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.metrics.stats.evidence import Evidence
from models.metrics.stats.frechet import frechet_distance

NEEDS = frozenset({"real.moments", "generated.moments"})


@dataclass(frozen=True)
class Config:
    pass


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"fid"}: >= 0, in squared units of the features. Raises UserError where a side is empty or the features are of different kinds."""
    real, generated = e.both("moments")
    return {"fid": frechet_distance(real, generated)}
