"""Discriminators of patches: what is real is said place by place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from models.base import DataSpec
from models.nets.conv import depth_for
from models.nets.halving import HalvingConv
from models.nets.mlp import leaky, mlp
from models.nets.unet import Network, group_norm


class PatchDiscriminator(nn.Module):
    """A logit for every patch of an image (Isola et al. 2017): strided convolutions, and one that looks at neighbours. (B, K, H, W) ->
    (B, 1, h, w)."""

    def __init__(self, seen: DataSpec, widths: Sequence[int]) -> None:
        super().__init__()
        channels = [seen.channels, *widths[: depth_for(seen, widths)]]
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate(pairwise(channels)):
            layers += [HalvingConv(before, after), *([group_norm(after)] if level else []), leaky()]
        self.net = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)


def judge_for(network: Network, seen: DataSpec, widths: Sequence[int]) -> nn.Module:
    """What judges questions with answers, `seen`: (B, K, H, W) -> logits (B, 1, ...)."""
    if network == "mlp":
        return nn.Sequential(nn.Flatten(), mlp([math.prod(seen.shape), *widths, 1], leaky))
    return PatchDiscriminator(seen, widths)
