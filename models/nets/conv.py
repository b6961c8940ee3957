"""Strided convolutional nets in the manner of DCGAN, sized from the data: any height and width, square or not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from models.base import DataSpec
from models.nets.halving import DoublingConv, HalvingConv

Norm = Literal["batch", "layer", "spectral", "none"]


def norms_for(norm: Norm, channels: int) -> list[nn.Module]:
    """The layer that follows a convolution: batch norm, layer norm over all of an item's channels and pixels, or none."""
    if norm == "batch":
        return [nn.BatchNorm2d(channels)]
    return [nn.GroupNorm(1, channels)] if norm == "layer" else []


def constrained(layer: nn.Module, norm: Norm) -> nn.Module:
    """The layer itself, its weight divided by its largest singular value where that is asked for (Miyato et al. 2018)."""
    return spectral_norm(layer) if norm == "spectral" else layer


def halvings(size: tuple[int, int], steps: int) -> list[tuple[int, int]]:
    """The sizes that `steps` stride-2 convolutions pass through, the image's own first: 28 -> 28, 14, 7. None falls below 1."""
    sizes = [size]
    for _ in range(steps):
        height, width = sizes[-1]
        sizes.append((max(height // 2, 1), max(width // 2, 1)))
    return sizes


def depth_for(spec: DataSpec, widths: Sequence[int]) -> int:
    """How many of `widths` are used: halve while the shorter side is at least 8, so that 28 and 32 take 2 or 3 steps and 64 takes 4."""
    shorter, steps = min(spec.size), 0
    while shorter >= 8 and steps < len(widths):
        shorter, steps = shorter // 2, steps + 1
    return max(steps, 1)


class ToVector(nn.Module):
    """(B, C, H, W) -> (B, H * W * C): the channels run fastest, as they lie in memory in channels_last, so nothing is copied."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1).flatten(1)


class ToMaps(nn.Module):
    """(B, H * W * C) -> (B, C, H, W) of the given shape, in channels_last: the way back from `ToVector`."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.shape = (height, width, channels)

    def forward(self, vector: Tensor) -> Tensor:
        return vector.unflatten(1, self.shape).permute(0, 3, 1, 2)


class ConvEncoder(nn.Module):
    """Images to vectors: 4x4 convolutions of stride 2, each with batch norm and ReLU, then a linear head.

    (B, C, H, W) -> (B, latent). `widths` are the channels; small images use only the first few.
    """

    def __init__(self, spec: DataSpec, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        steps = depth_for(spec, widths)
        height, width = halvings(spec.size, steps)[-1]
        channels = [spec.channels, *widths[:steps]]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [HalvingConv(before, after, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.features = channels[-1] * height * width
        self.trunk = nn.Sequential(*layers, ToVector())
        self.head = nn.Linear(self.features, latent)
        self.apply(start_small)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.trunk(image))


class ConvDecoder(nn.Module):
    """Vectors to images, the encoder's mirror: a linear layer, then transposed convolutions of stride 2; DCGAN's generator.

    (B, latent) -> (B, C, H, W), unbounded (the model applies tanh). An odd side that the encoder rounded down comes back exactly.
    """

    def __init__(
        self, spec: DataSpec, widths: Sequence[int], latent: int, *, norm: Literal["batch", "none"] = "batch", kernel: Literal[4, 5] = 4
    ) -> None:
        super().__init__()
        sizes, channels = _rising(spec, widths)
        steps = len(sizes) - 1
        height, width = sizes[0]
        self.start = nn.Sequential(
            nn.Linear(latent, channels[0] * height * width, bias=norm == "none"),
            ToMaps(channels[0], height, width),
            *norms_for(norm, channels[0]),
            nn.ReLU(inplace=True),
        )
        layers: list[nn.Module] = []
        for n in range(steps):
            last = n == steps - 1
            layers.append(_doubling(channels[n], channels[n + 1], kernel, sizes[n], sizes[n + 1], bias=last or norm == "none"))
            if not last:
                layers += [*norms_for(norm, channels[n + 1]), nn.ReLU(inplace=True)]
        self.net = nn.Sequential(*layers)
        self.apply(start_small)

    def forward(self, latent: Tensor) -> Tensor:
        return self.net(self.start(latent))


class RefiningDecoder(nn.Module):
    """Adds to a picture what it lacks: transposed convolutions of stride 2 as in `ConvDecoder`, each of which sees that picture as well.

    (B, latent) and the picture (B, C, H, W) -> (B, C, H, W), unbounded, zero at the start. What the picture shows at twice a layer's
    resolution comes as four times as many channels; so also the last layer sees every pixel, at the cost of half as many.
    """

    def __init__(self, spec: DataSpec, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        sizes, channels = _rising(spec, widths)
        steps = len(sizes) - 1
        self.start = nn.Sequential(nn.Linear(latent, channels[0] * sizes[0][0] * sizes[0][1], bias=False), ToMaps(channels[0], *sizes[0]))
        self.see = nn.ModuleList(nn.Conv2d(4 * spec.channels, channels[n], 3, 1, 1, bias=False) for n in range(steps))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels[n]) for n in range(steps))
        self.enlarge = nn.ModuleList(
            _doubling(channels[n], channels[n + 1], 4, sizes[n], sizes[n + 1], bias=n == steps - 1) for n in range(steps)
        )
        self.apply(start_small)
        start_at_zero(self.enlarge[-1])

    def forward(self, latent: Tensor, picture: Tensor) -> Tensor:
        pictures = [picture]  # at falling resolutions, rounded down as the layers' sizes are
        for _ in self.see[1:]:
            pictures.append(F.avg_pool2d(pictures[-1], 2))
        x = self.start(latent)
        for see, norm, enlarge in zip(self.see, self.norms, self.enlarge, strict=True):
            seen = pictures.pop()[:, :, : 2 * x.shape[2], : 2 * x.shape[3]]
            x = enlarge(F.relu(norm(x + see(F.pixel_unshuffle(seen, 2)))))
        return x


def _rising(spec: DataSpec, widths: Sequence[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """The sizes and the channels that a decoder passes through, the image's own last: those of `ConvEncoder`, backwards."""
    steps = depth_for(spec, widths)
    return halvings(spec.size, steps)[::-1], [*reversed(widths[:steps]), spec.channels]


def _doubling(channels: int, out: int, kernel: int, before: tuple[int, int], after: tuple[int, int], bias: bool) -> nn.Module:
    """A transposed convolution of stride 2 whose output has the size `after`: sides twice those `before`, or one more."""
    tall, wide = (longer - 2 * shorter for shorter, longer in zip(before, after, strict=True))
    if kernel == 4:
        return DoublingConv(channels, out, (tall, wide), bias)
    padding, more = zip(*((1, 0) if odd else (2, 1) for odd in (tall, wide)), strict=True)
    return nn.ConvTranspose2d(channels, out, kernel, 2, padding, output_padding=more, bias=bias)


class ConvDiscriminator(nn.Module):
    """DCGAN's discriminator: strided convolutions with leaky ReLU, a norm in all but the first, and a linear layer.

    (B, C, H, W) -> (B, outputs), logits or scores.
    """

    def __init__(self, spec: DataSpec, widths: Sequence[int], *, outputs: int = 1, norm: Norm = "batch", kernel: Literal[4, 5] = 4) -> None:
        super().__init__()
        steps = depth_for(spec, widths)
        channels = [spec.channels, *widths[:steps]]
        height, width = spec.size
        layers: list[nn.Module] = []
        for n, (before, after) in enumerate(pairwise(channels)):
            first = n == 0
            bias = first or norm != "batch"
            halving = HalvingConv(before, after, bias) if kernel == 4 else nn.Conv2d(before, after, kernel, 2, 2, bias=bias)
            layers += [constrained(halving, norm), *([] if first else norms_for(norm, after)), nn.LeakyReLU(0.2, inplace=True)]
            height, width = ((side - kernel % 2) // 2 + kernel % 2 for side in (height, width))
        self.net = nn.Sequential(*layers, ToVector(), constrained(nn.Linear(channels[-1] * height * width, outputs), norm))
        if norm != "spectral":  # which fixes the scale itself
            self.apply(start_small)

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)


def start_at_zero(layer: nn.Module) -> None:
    """Weights and bias zero: what the layer is added to starts alone."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def start_small(module: nn.Module) -> None:
    """DCGAN's start: weights from N(0, 0.02), batch norm's gains from N(1, 0.02), biases zero. For `network.apply`.

    A decoder then starts grey. At torch's own start its output is large (the scale of a transposed convolution is taken from its few
    outputs), and images that are mostly black drive tanh to -1 everywhere, where it has no slope and stays.
    """
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
