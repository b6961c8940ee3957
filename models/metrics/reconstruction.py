"""Reconstructions: MSE, PSNR, SSIM, the FID of the reconstructions against their originals, and whether a classifier sees the same in both.

Pixels count from 0 (black) to 1 (white). PSNR is that of the mean error over all images. SSIM is Wang et al., Image Quality Assessment:
From Error Visibility to Structural Similarity, 2004: Gaussian windows of 11 pixels and deviation 1.5, on each channel, then averaged; where
a side of the image is shorter, the windows are as wide as that side. The images are those of `--data`, by default held-out ones, chosen at
random where there are more than `-n`; a conditional model is told what they show by their own labels.

The least that can be asked of a code of K numbers is what the first K principal components of the training images do (`stats.components`):
their error on the same images stands beside the model's, where the code is a vector shorter than the image and than their number.

Where a classifier looks (`--features classifier:RUN`), `agreement` is the share of reconstructions that it names as their originals, or the
share of attributes in which it reads both alike; `agreement_by_chance` is the same of two of the originals, drawn at random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import Encodes
from models.data.dataset import ImageData
from models.data.sources import ItemSource
from models.metrics.class_balance import class_shares
from models.metrics.features.extract import extract
from models.metrics.stats import components
from models.metrics.stats.evidence import Evidence
from models.metrics.stats.frechet import frechet_distance
from models.metrics.stats.moments import Moments
from models.randomness import some

NEEDS = frozenset({"held_out", "training", "features"})
_BATCH = 256
_VALUES = 2**21  # of images whose similarity is computed at once; each takes 8 bytes a dozen times


@dataclass(frozen=True)
class Config:
    pass


def lacks(e: Evidence) -> str:
    return "" if isinstance(e.trained.model, Encodes) else "it does not encode and decode"


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"mse", "pca_mse", "psnr", "ssim", "fid", "agreement", "agreement_by_chance"} of held-out images; PSNR infinite where it is 0.

    No "pca_mse" where principal components are no match for the code; the last two where a classifier looks.
    """
    assert e.features is not None
    chosen = some(e.count, len(e.held_out), e.seed, "reconstruction")
    linear = _linear(e, chosen[:1])
    moments = (Moments(e.features.dimensions), Moments(e.features.dimensions))
    errors, others, similarities = [], [], []
    target = getattr(e.features, "target", None)
    named: tuple[list[Tensor], list[Tensor]] = ([], [])
    for start in range(0, len(chosen), _BATCH):
        items = chosen[start : start + _BATCH]
        part = e.held_out.rows("image", items)
        again, error = e.trained.reconstruct(part, told=e.trained.truth(e.held_out, items))
        errors.append(error)
        if linear is not None:
            others.append(linear.errors(part))
        similarities.append(ssim(part, again).numpy())
        for images, sums, answers in zip((part, again), moments, named, strict=True):
            for block in extract(ItemSource(ImageData("reconstructions", images)), e.features):
                sums.add(block.features)
                if target:
                    answers.append(block.logits)
    mse = float(np.concatenate(errors).mean())
    return {
        "mse": mse,
        **({"pca_mse": float(np.concatenate(others).mean())} if others else {}),
        "psnr": 10 * math.log10(1 / mse) if mse else math.inf,
        "ssim": float(np.concatenate(similarities).mean()),
        "fid": frechet_distance(*moments),
        **(agreement(target, *map(torch.cat, named)) if target else {}),
    }


def agreement(target: str, before: Tensor, after: Tensor) -> dict[str, float]:
    """How often a classifier of `target` answers alike: logits (N, K) of images and of their reconstructions."""
    if target == "attributes":
        said, again = before > 0, after > 0
        share = said.double().mean(0)
        chance = share**2 + (1 - share) ** 2
        return {"agreement": float((said == again).double().mean()), "agreement_by_chance": float(chance.mean())}
    alike = (before.argmax(1) == after.argmax(1)).double().mean()
    return {"agreement": float(alike), "agreement_by_chance": float(class_shares(before).square().sum())}


def _linear(e: Evidence, item: np.ndarray) -> components.Components | None:
    """As many principal components of training images as the code of an item has numbers, or None where they are no match for it."""
    code = e.trained.encode(e.held_out.rows("image", item), told=e.trained.truth(e.held_out, item))[0]
    channels, height, width = e.training.fields["image"].shape
    chosen = some(components.most((height, width, channels)), len(e.training), e.seed, "principal components")
    if code.ndim != 1 or len(code) >= min(len(chosen), channels * height * width):
        return None
    return components.fit(e.training.rows("image", chosen), len(code))


def ssim(images: np.ndarray, others: np.ndarray) -> Tensor:
    """Structural similarity of uint8 images (N, H, W, C) with others of the same shape: (N,) float64 in [-1, 1], 1 where they are equal."""
    step = max(1, _VALUES // math.prod(images.shape[1:]))
    return torch.cat([_ssim(images[n : n + step], others[n : n + step]) for n in range(0, len(images), step)])


def _ssim(images: np.ndarray, others: np.ndarray) -> Tensor:
    a, b = (torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2).double() / 255 for x in (images, others))
    side = min(11, *a.shape[2:])
    ramp = torch.exp(-(torch.arange(side, dtype=torch.float64) - (side - 1) / 2).square() / (2 * 1.5**2))
    window = torch.outer(ramp, ramp) / ramp.sum() ** 2

    def local_mean(x: Tensor) -> Tensor:
        return F.conv2d(x, window.expand(x.shape[1], 1, side, side), groups=x.shape[1])

    mean_a, mean_b = local_mean(a), local_mean(b)
    var_a, var_b = local_mean(a * a) - mean_a**2, local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similar = (2 * mean_a * mean_b + c1) * (2 * covariance + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return similar.flatten(1).mean(1)
