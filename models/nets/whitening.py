"""Statistics of a set of codes: there and back."""

from __future__ import annotations

import torch
from torch import Tensor

from models.nets.precision import full_precision


def whiten(codes: Tensor, full: bool, deviations: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,), scale (D, D) and whitened codes (N, D), such that codes = mean + whitened @ scale.T.

    `full` takes the whole covariance (scale is its Cholesky factor), otherwise each dimension has its own deviation. Where codes are means
    of Gaussians with these `deviations` (N, D), the covariance is that of draws from them. Computed in doubles on the CPU, because not
    every device has them; returned as float32 on the codes' device.
    """
    exact = codes.detach().cpu().double()
    mean = exact.mean(0)
    centred = exact - mean
    own = torch.zeros_like(mean) if deviations is None else deviations.detach().cpu().double().square().mean(0)
    if full:
        scale = torch.linalg.cholesky(centred.T @ centred / len(codes) + own.diag() + 1e-6 * torch.eye(codes.shape[1]))
    else:
        scale = ((centred.square().mean(0) + own).sqrt() + 1e-6).diag()
    standard = rescaled(centred, scale)
    return tuple(t.float().contiguous().to(codes.device) for t in (mean, scale, standard))  # type: ignore[return-value]


def rescaled(differences: Tensor, scale: Tensor) -> Tensor:
    """Differences of codes (B, D), from the mean or from each other, as differences of whitened codes; in their own precision."""
    return torch.linalg.solve_triangular(scale, differences.T, upper=False).T


def unwhiten(white: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """The way back from `whiten`: whitened codes (B, D) -> codes (B, D), in float32 also under autocast, like the codes of the data."""
    with full_precision(white.device):
        return torch.addmm(mean, white.float(), scale.T)
