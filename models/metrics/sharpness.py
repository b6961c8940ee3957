"""Sharpness: the variance of the image's Laplacian, which blur makes small; the generated images' mean beside the real ones'.

Paper: Tolstikhin et al., Wasserstein Auto-Encoders, 2018, section 4. Luminance (0.299 R + 0.587 G + 0.114 B) in [0, 1] is filtered with
[0 1 0; 1 -4 1; 0 1 0] where that fits into the image, and the variances are averaged over the images (the authors' code keeps the least of
its images). The value depends on the resolution, so only images of the same size compare; noise counts as sharp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.metrics.stats.evidence import Evidence

NEEDS = frozenset({"real.sharpness", "generated.sharpness"})
_LUMINANCE = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Config:
    pass


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"sharpness", "sharpness_real", "sharpness_ratio"}: >= 0; no ratio where the real images are flat."""
    real, generated = e.both("sharpness")
    return {"sharpness": generated, "sharpness_real": real, **({"sharpness_ratio": generated / real} if real else {})}


def laplacian_variance(images: Sequence[np.ndarray]) -> np.ndarray:
    """The variance of each image's Laplacian: B arrays uint8 (H, W, 1 or 3), whose sizes may differ -> (B,) float64.

    0 for an image with a side below 3, into which the filter does not fit.
    """
    return np.array([_variance(image) for image in images])


def _variance(image: np.ndarray) -> float:
    grey = image[..., 0].astype(np.float64) if image.shape[2] == 1 else image @ _LUMINANCE
    inner = grey[1:-1, 1:-1]
    if not inner.size:
        return 0.0
    edges = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return float(edges.var()) / 255**2
