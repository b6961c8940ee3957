"""U-Nets whose decoder is told a code (Ronneberger et al. 2015; Isola et al. 2017): encoded once, decoded with many codes.

What the decoder takes of the encoder's maps is added, so it is computed once however many codes are tried. There is no batch norm: an
image's answer does not depend on what else is asked, and no statistics are learned while a code is searched for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import DataSpec
from models.nets.conv import depth_for, halvings, start_at_zero
from models.nets.halving import DoublingConv, HalvingConv
from models.nets.mlp import leaky, mlp

Network = Literal["unet", "mlp"]


class Features(NamedTuple):
    """What is known of an image.

    Attributes:
        gist: (B, F), or a map (B, F, h, w): the smallest and deepest features.
        skips: what a decoder adds at rising resolutions, the picture's own last.
    """

    gist: Tensor
    skips: tuple[Tensor, ...] = ()

    def detach(self) -> Features:
        return Features(self.gist.detach(), tuple(skip.detach() for skip in self.skips))

    def shaken(self, deviation: float) -> Features:
        """The gist with noise added."""
        return self._replace(gist=self.gist + deviation * torch.randn_like(self.gist))


class UNetEncoder(nn.Module):
    """Images (B, K, H, W) to `Features`. `widths` are the channels; small images use only the first few.

    Args:
        out: channels of the images that are made of them.
    """

    def __init__(self, seen: DataSpec, widths: Sequence[int], out: int) -> None:
        super().__init__()
        channels = [seen.channels, *widths[: depth_for(seen, widths)]]
        self.halve = nn.ModuleList(HalvingConv(before, after) for before, after in pairwise(channels))
        self.norms = nn.ModuleList(group_norm(after) for after in channels[1:])
        self.tell = nn.ModuleList(nn.Conv2d(after, after, 3, 1, 1) for after in channels[1:-1])
        self.glance = nn.Conv2d(seen.channels, out, 1)
        self.features = channels[-1] * math.prod(halvings(seen.size, len(channels) - 1)[-1])
        start_at_zero(self.glance)
        with torch.no_grad():  # at first an answer looks like what is shown
            self.glance.weight[:, :out] = torch.eye(out).view(out, out, 1, 1) if seen.channels >= out else 1 / seen.channels

    def forward(self, shown: Tensor) -> Features:
        maps, x = [], shown
        for halve, norm in zip(self.halve, self.norms, strict=True):
            x = F.leaky_relu(norm(halve(x)), 0.2)
            maps.append(x)
        told = [tell(level) for tell, level in zip(self.tell, maps)]
        return Features(x, (*reversed(told), self.glance(shown)))


class UNetDecoder(nn.Module):
    """`Features` and a code (B, latent) to images (B, C, H, W), unbounded. At every resolution the code scales and shifts the channels.

    With a `latent` of 0 there is no code.
    """

    def __init__(self, seen: DataSpec, widths: Sequence[int], latent: int, out: int) -> None:
        super().__init__()
        steps = depth_for(seen, widths)
        sizes, channels = halvings(seen.size, steps)[::-1], [*reversed(widths[:steps]), out]
        self.norms = nn.ModuleList(group_norm(before, affine=not latent) for before in channels[:-1])
        self.styles = nn.ModuleList(nn.Linear(latent, 2 * before) for before in channels[:-1] if latent)
        self.enlarge = nn.ModuleList(
            DoublingConv(before, after, (tall[0] - 2 * low[0], tall[1] - 2 * low[1]))
            for (before, after), (low, tall) in zip(pairwise(channels), pairwise(sizes))
        )

    def forward(self, features: Features, code: Tensor | None = None) -> Tensor:
        x = features.gist
        for level, (norm, enlarge, skip) in enumerate(zip(self.norms, self.enlarge, features.skips, strict=True)):
            x = norm(x)
            if code is not None and self.styles:
                scale, shift = self.styles[level](code).unsqueeze(2).unsqueeze(3).chunk(2, 1)
                x = torch.addcmul(shift, x, 1 + scale)
            x = enlarge(F.leaky_relu(x, 0.2)) + skip
        return x


class MlpQuestion(nn.Module):
    """Images (B, K, H, W) to `Features` through fully connected layers, for pictures of a few pixels."""

    def __init__(self, seen: DataSpec, widths: Sequence[int]) -> None:
        super().__init__()
        self.features = widths[-1]
        self.net = nn.Sequential(nn.Flatten(), mlp([math.prod(seen.shape), *widths], leaky), leaky())

    def forward(self, shown: Tensor) -> Features:
        return Features(self.net(shown))


class MlpAnswer(nn.Module):
    """`Features` and a code (B, latent) to images (B, C, H, W) through fully connected layers."""

    def __init__(self, seen: DataSpec, widths: Sequence[int], latent: int, out: int) -> None:
        super().__init__()
        shape = (out, *seen.size)
        self.net = nn.Sequential(mlp([widths[-1] + latent, *reversed(widths), math.prod(shape)], leaky), nn.Unflatten(1, shape))

    def forward(self, features: Features, code: Tensor | None = None) -> Tensor:
        return self.net(features.gist if code is None else torch.cat([features.gist, code.to(features.gist.dtype)], 1))


Encoder = UNetEncoder | MlpQuestion
Decoder = UNetDecoder | MlpAnswer


def networks_for(network: Network, seen: DataSpec, widths: Sequence[int], latent: int, out: int) -> tuple[Encoder, Decoder]:
    """What looks at what is shown, `seen`, and what makes images of `out` channels of that and of a code of `latent` numbers, if any."""
    if network == "mlp":
        return MlpQuestion(seen, widths), MlpAnswer(seen, widths, latent, out)
    return UNetEncoder(seen, widths, out), UNetDecoder(seen, widths, latent, out)


def group_norm(channels: int, affine: bool = True) -> nn.Module:
    """Eight groups of channels, or as many as divide them."""
    return nn.GroupNorm(math.gcd(8, channels), channels, affine=affine)
