"""Features in the unit of pixels: as if they varied among images as much as these do."""

from __future__ import annotations

from torch import Tensor


def spread(x: Tensor) -> Tensor:
    """The mean squared distance of a batch's items from their mean, without gradient: (B, ...) -> scalar."""
    flat = x.detach().flatten(1)
    return (flat - flat.mean(0)).square().sum(1).mean().clamp_min(1e-12)


def half_square(difference: Tensor) -> Tensor:
    """Half the squared length of each row, the mean over the rows: (B, F) -> scalar."""
    return difference.square().sum(1).mean() / 2
