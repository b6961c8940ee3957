"""Perceptual path length (PPL): how far the features move where the noise moves a little. Small and even means a smooth latent space.

Paper: Karras et al., A Style-Based Generator Architecture for GANs, 2019, section 4.1, in the features of the evaluation instead of VGG's:
for pairs of random noises, |features(G(z(t + epsilon))) - features(G(z(t)))|^2 / epsilon^2 on the great circle between them, at a random t.
Where a model maps noise to codes and decodes these, the straight way between two codes is measured as well: that mapping may even out what
the noise's Gaussian presses together. Its unit is that of the features, so it compares runs that were measured with the same features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from models.base import LatentModel, Maps
from models.capabilities.ask import ask_in_blocks, device_of, evaluating, in_blocks
from models.capabilities.told import Told
from models.config import Range
from models.device import full_precision
from models.metrics.stats.evidence import Evidence
from models.randomness import image_noise

NEEDS = frozenset({"sample", "features"})
_BATCH = 64


@dataclass(frozen=True)
class Config:
    pairs: Annotated[int, Range(2, 10**7)] = 2000  # of noises
    epsilon: Annotated[float, Range(1e-6, 0.5)] = 1e-3  # step along the way, whose length is 1
    trim: Annotated[float, Range(0, 0.49)] = 0.01  # share of the largest and of the smallest distances that are left out


def lacks(e: Evidence) -> str:
    precision = "fp32" if e.features is None else e.features.recipe().get("precision", "fp32")
    return "" if precision == "fp32" else f"small steps drown in the rounding of {precision} features: --precision fp32"


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"ppl", "median"}: mean and median of the distances that are left, >= 0, in squared units of the features.

    Of a model that maps noise to codes also {"ppl_code", "median_code"}, on straight ways between these codes.
    """
    found = _along(e, config, _through_noise)
    if isinstance(e.trained.model, Maps):
        found |= {f"{name}_code": value for name, value in _along(e, config, _through_codes).items()}
    return found


def _along(e: Evidence, config: Config, images_at: Callable[..., Tensor]) -> dict[str, float]:
    assert e.features is not None
    model, seed = e.trained.model, e.seed
    distances = []
    for start in range(0, config.pairs, _BATCH):
        rows = range(start, min(start + _BATCH, config.pairs))
        a, b = (image_noise(seed, rows, model.noise_shape, f"path {end}") for end in "ab")
        share = torch.special.ndtr(image_noise(seed, rows, (1,), "path share"))  # uniform in (0, 1), from the row's own stream
        share = share.view(-1, *[1] * (a.ndim - 1))
        told = e.trained.in_turn(rows)
        ends = []
        with evaluating(model), full_precision():  # a square of epsilon divides what rounding has moved
            for t in (share, share + config.epsilon):
                ends.append(e.features.look(images_at(model, told, a, b, t)).double())
        distances.append((ends[1] - ends[0]).square().sum(1) / config.epsilon**2)
    ordered = torch.cat(distances).sort().values
    cut = int(len(ordered) * config.trim)
    left = ordered[cut : len(ordered) - cut]
    return {"ppl": float(left.mean()), "median": float(left[(len(left) - 1) // 2] + left[len(left) // 2]) / 2}


def _through_noise(model: LatentModel, told: Told | None, a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    return ask_in_blocks(model, "sample", great_circle(a, b, share), told)


def _through_codes(model: Any, told: Told | None, a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    return in_blocks(lambda a, b, share: model.decode(torch.lerp(model.map(a), model.map(b), share)), device_of(model), a, b, share)


def great_circle(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """The points at `share` (N, 1, ...) of the way from each row of `a` (N, ...) to that of `b` on the sphere; lengths change evenly."""
    length_a, length_b = (x.flatten(1).norm(dim=1).view(-1, *[1] * (a.ndim - 1)).clamp_min(1e-12) for x in (a, b))
    unit_a, unit_b = a / length_a, b / length_b
    angle = torch.arccos((unit_a * unit_b).flatten(1).sum(1).clamp(-1 + 1e-6, 1 - 1e-6)).view_as(length_a)
    direction = (torch.sin((1 - share) * angle) * unit_a + torch.sin(share * angle) * unit_b) / torch.sin(angle)
    return direction * torch.lerp(length_a, length_b, share)
