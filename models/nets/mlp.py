"""Fully connected nets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from models.base import DataSpec


def mlp(sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU, norm: Literal["none", "batch"] = "none") -> nn.Sequential:
    """Linear layers of the given sizes, input first; activation (and batch norm before it) after all but the last.

    (B, sizes[0]) -> (B, sizes[-1]).
    """
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(sizes[:-1]):
        layers += [nn.Linear(wide, narrow), *([nn.BatchNorm1d(narrow)] if norm == "batch" else []), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def leaky() -> nn.Module:
    """The activation of most discriminators, and of what is trained like one."""
    return nn.LeakyReLU(0.2)


class ResidualMlp(nn.Module):
    """x + net(x): (B, D) -> (B, D). The net is an MLP with batch norm; its last layer starts small, so the whole starts as the identity."""

    def __init__(self, dimensions: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.net = mlp([dimensions, *hidden, dimensions], norm="batch")
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(0.01)
            last.bias.mul_(0.01)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


class Maxout(nn.Module):
    """The largest of several linear functions for each output: (B, before) -> (B, after). Goodfellow et al., Maxout Networks, 2013."""

    def __init__(self, before: int, after: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(before, after * pieces)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, (-1, self.pieces)).amax(2)


class MaxoutDiscriminator(nn.Module):
    """The first GAN's discriminator: maxout layers, dropout before each linear layer, one logit. (B, C, H, W) -> (B, 1)."""

    def __init__(self, spec: DataSpec, widths: Sequence[int], pieces: int = 5, dropout: tuple[float, float] = (0.2, 0.5)) -> None:
        super().__init__()
        sizes = [spec.channels * spec.height * spec.width, *widths]
        layers: list[nn.Module] = [nn.Flatten()]
        for n, (before, after) in enumerate(pairwise(sizes)):
            layers += [nn.Dropout(dropout[0] if n == 0 else dropout[1]), Maxout(before, after, pieces)]
        self.net = nn.Sequential(*layers, nn.Dropout(dropout[1]), nn.Linear(sizes[-1], 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)


class MlpEncoder(nn.Module):
    """Images to vectors through fully connected layers: (B, C, H, W) -> (B, latent). Batch norm, if any, follows each hidden layer."""

    def __init__(
        self,
        spec: DataSpec,
        widths: Sequence[int],
        latent: int,
        activation: Callable[[], nn.Module] = nn.Tanh,
        norm: Literal["none", "batch"] = "none",
    ) -> None:
        super().__init__()
        self.features = widths[-1]
        layers = mlp([spec.channels * spec.height * spec.width, *widths, latent], activation, norm)
        self.trunk, self.head = nn.Sequential(nn.Flatten(), layers[:-1]), layers[-1]

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.trunk(image))


class MlpDecoder(nn.Module):
    """Vectors to images through fully connected layers: (B, latent) -> (B, C, H, W), unbounded (the model applies tanh)."""

    def __init__(
        self,
        spec: DataSpec,
        widths: Sequence[int],
        latent: int,
        activation: Callable[[], nn.Module] = nn.Tanh,
        norm: Literal["none", "batch"] = "none",
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(
            mlp([latent, *reversed(widths), spec.channels * spec.height * spec.width], activation, norm), nn.Unflatten(1, spec.shape)
        )

    def forward(self, latent: Tensor) -> Tensor:
        return self.net(latent)
