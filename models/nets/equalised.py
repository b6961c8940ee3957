"""Layers whose weights all have about the size 1, so that one learning rate moves them all alike, and nets made of them.

Karras et al., Progressive Growing of GANs, 2018, section 4.1: weights start as N(0, 1) and are scaled by gain / sqrt(fan in) wherever they
are used. `rate` makes a layer learn that many times as fast (StyleGAN's `lrmul`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import DataSpec

SLOPE = 0.2  # of the leaky ReLU below zero


class EqualLinear(nn.Module):
    """(B, before) -> (B, after)."""

    def __init__(self, before: int, after: int, gain: float = sqrt(2), rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before) / rate)
        self.bias = nn.Parameter(torch.zeros(after))
        self.scale, self.rate = gain / sqrt(before) * rate, rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualConv(nn.Module):
    """A convolution of stride 1 that keeps the size: (B, before, H, W) -> (B, after, H, W)."""

    def __init__(self, before: int, after: int, kernel: int = 3, gain: float = sqrt(2), bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(after)) if bias else None
        self.scale, self.padding = gain / sqrt(before * kernel**2), kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class PixelNorm(nn.Module):
    """Each vector divided by the root of its mean square: (B, D) -> (B, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def mapping(dimensions: int, depth: int, rate: float) -> nn.Sequential:
    """StyleGAN's mapping network: noise, brought to the sphere, through `depth` layers, leaky ReLU after each. (B, D) -> (B, D)."""
    layers = [layer for _ in range(depth) for layer in (EqualLinear(dimensions, dimensions, rate=rate), nn.LeakyReLU(SLOPE))]
    return nn.Sequential(PixelNorm(), *layers)


def code_critic(dimensions: int, linear: bool, depth: int = 3, rate: float = 0.1) -> nn.Sequential:
    """Codes (B, D) -> logits (B, 1). `linear` leaves out what lies between the layers, so that it is an affine function."""
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers += [EqualLinear(dimensions, dimensions, rate=rate), *([] if linear else [nn.LeakyReLU(SLOPE)])]
    return nn.Sequential(*layers, EqualLinear(dimensions, 1, gain=1.0, rate=rate))


class EqualMlpEncoder(nn.Module):
    """Images to vectors through fully connected layers, leaky ReLU after each, the last included: (B, C, H, W) -> (B, latent)."""

    def __init__(self, spec: DataSpec, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        self.features = widths[-1]
        sizes = [spec.channels * spec.height * spec.width, *widths]
        layers = [layer for wide, narrow in pairwise(sizes) for layer in (EqualLinear(wide, narrow), nn.LeakyReLU(SLOPE))]
        self.trunk = nn.Sequential(nn.Flatten(), *layers)
        self.head = nn.Sequential(EqualLinear(widths[-1], latent), nn.LeakyReLU(SLOPE))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.trunk(image))


class EqualMlpDecoder(nn.Module):
    """Vectors to images through fully connected layers, the last one linear: (B, latent) -> (B, C, H, W), not bounded."""

    def __init__(self, spec: DataSpec, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        layers = [
            layer for narrow, wide in pairwise([latent, *reversed(widths)]) for layer in (EqualLinear(narrow, wide), nn.LeakyReLU(SLOPE))
        ]
        last = EqualLinear(widths[0], spec.channels * spec.height * spec.width, gain=1.0)
        self.net = nn.Sequential(*layers, last, nn.Unflatten(1, spec.shape))

    def forward(self, latent: Tensor) -> Tensor:
        return self.net(latent)
