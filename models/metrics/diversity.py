"""Mean distance between the features of two images: small where the model makes the same image again and again.

The generated images' value, the real ones' and the ratio, which is about 1 where the model varies as much as the data do. All pairs of a
side are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.errors import UserError
from models.metrics.stats.evidence import Evidence
from models.metrics.stats.neighbours import Points, mean_distance

NEEDS = frozenset({"real.features", "generated.features"})


@dataclass(frozen=True)
class Config:
    pass


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"diversity", "diversity_real", "diversity_ratio"}, in the features' units; no ratio where all real images are the same.

    Raises UserError where a side has a single image.
    """
    real, generated = e.both("features")
    if min(len(real), len(generated)) < 2:
        what = f"no pairs among {len(real):,} real and {len(generated):,} generated images"
        raise UserError(what, "diversity", "give at least two images on each side")
    mine, its = mean_distance(Points(generated)), mean_distance(Points(real))
    return {"diversity": mine, "diversity_real": its, **({"diversity_ratio": mine / its} if its else {})}
