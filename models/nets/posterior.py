"""Gaussian posteriors: what an encoder says of an image's code, and draws from it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.nets.conditions import join

LIMIT = 10.0  # of a log-variance; unbounded, exp() overflows sooner or later


def bounded(log_variance: Tensor) -> Tensor:
    """A log-variance kept within `LIMIT`, any shape, in float32: nearly itself where it is small, with a slope that falls slowly beyond.

    Cut off hard, one that has gone beyond the limit would have no gradient, and so no way back.
    """
    log_variance = log_variance.float()
    return log_variance * torch.rsqrt(1 + (log_variance / LIMIT).square())


def drawn(mean: Tensor, log_variance: Tensor) -> Tensor:
    """A code from N(mean, exp(log_variance)), differentiable (Kingma and Welling 2014, eq. 10): (B, D) twice -> (B, D)."""
    return torch.addcmul(mean, (log_variance / 2).exp(), torch.randn_like(mean))


def conditional_posterior(encoder: nn.Module, heads: nn.Linear, image: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of the code, (B, D) each, float32: images (B, C, H, W), and what they show (B, K).

    What is shown is joined to the encoder's features, `heads` makes 2 D numbers of both. Under the KL's pressure, plain ReLUs between
    them died; hence the leaky one.
    """
    mean, log_variance = heads(join(F.leaky_relu(encoder(image), 0.2), shown)).float().chunk(2, 1)
    return mean, bounded(log_variance)
