"""A network that walks through a latent space: cGML's Z."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from models.nets.conv import ToVector


class Explorer(nn.Module):
    """Where a code should go next: features (B, F...) and a code (B, latent) -> (B, latent), and how far that is, (B, 1).

    Args:
        features, latent: how many numbers features and codes have.
        times: with one or more, the network is told which of so many steps it is, and says nothing of how far.
    """

    def __init__(self, features: int, latent: int, hidden: Sequence[int], times: int = 0) -> None:
        super().__init__()
        self.time = nn.Embedding(times, hidden[0]) if times else None
        self.see, self.stand = nn.Linear(features, hidden[0]), nn.Linear(latent, hidden[0])
        self.trunk = nn.Sequential(nn.ReLU(), *_layers(hidden))
        self.next, self.far = nn.Linear(hidden[-1], latent), None if times else nn.Linear(hidden[-1], 1)
        self.vector = ToVector()

    def forward(self, gist: Tensor, code: Tensor, time: int = 0) -> tuple[Tensor, Tensor | None]:
        x = self.see(self.vector(gist) if gist.ndim == 4 else gist) + self.stand(code)
        if self.time is not None:
            x = x + self.time.weight[time]
        x = self.trunk(x)
        return self.next(x).float(), None if self.far is None else F.softplus(self.far(x).float())


def _layers(hidden: Sequence[int]) -> list[nn.Module]:
    return [layer for before, after in pairwise(hidden) for layer in (nn.Linear(before, after), nn.ReLU())]
