"""A map of codes that decides, number by number, how much of the noise it keeps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.nets.mlp import mlp


class GatedMap(nn.Module):
    """(1 - g) noise + g delta, where g in (0, 1) and delta are what a net makes of condition and noise: (B, C) and (B, D) -> (B, D).

    Engel et al., Latent Constraints, 2018 (their generator). The squared distance from the noise is g^2 (noise - delta)^2: a penalty on it
    closes the gate wherever the noise does no harm.
    """

    def __init__(self, condition: int, dimensions: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.net = mlp([condition + dimensions, *hidden, 2 * dimensions])

    def forward(self, condition: Tensor, noise: Tensor) -> Tensor:
        gate, delta = self.net(torch.cat([condition, noise], 1)).float().chunk(2, 1)  # codes keep their precision under autocast
        return torch.lerp(noise, delta, torch.sigmoid(gate))
