"""Strided convolutional nets in the manner of DCGAN, sized from the data: any height and width, square or not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from models.base import DataSpec


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
            layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.features = channels[-1] * height * width
        self.trunk = nn.Sequential(*layers, ToVector())
        self.head = nn.Linear(self.features, latent)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.trunk(image))


class ConvDecoder(nn.Module):
    """Vectors to images, the encoder's mirror: a linear layer, then 4x4 transposed convolutions of stride 2.

    (B, latent) -> (B, C, H, W), unbounded (the model applies tanh). An odd side that the encoder rounded down comes back exactly.
    """

    def __init__(self, spec: DataSpec, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        steps = depth_for(spec, widths)
        sizes = halvings(spec.size, steps)[::-1]
        channels = [*reversed(widths[:steps]), spec.channels]
        height, width = sizes[0]
        self.start = nn.Sequential(
            nn.Linear(latent, channels[0] * height * width, bias=False),
            ToMaps(channels[0], height, width),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(inplace=True),
        )
        layers: list[nn.Module] = []
        for n in range(steps):
            odd = (sizes[n + 1][0] - 2 * sizes[n][0], sizes[n + 1][1] - 2 * sizes[n][1])
            last = n == steps - 1
            layers.append(nn.ConvTranspose2d(channels[n], channels[n + 1], 4, 2, 1, output_padding=odd, bias=last))
            if not last:
                layers += [nn.BatchNorm2d(channels[n + 1]), nn.ReLU(inplace=True)]
        self.net = nn.Sequential(*layers)

    def forward(self, latent: Tensor) -> Tensor:
        return self.net(self.start(latent))


class ConvDiscriminator(nn.Module):
    """Images to one logit: strided convolutions with leaky ReLU, batch norm in all but the first, as in DCGAN. (B, C, H, W) -> (B,)."""

    def __init__(self, spec: DataSpec, widths: Sequence[int]) -> None:
        super().__init__()
        steps = depth_for(spec, widths)
        height, width = halvings(spec.size, steps)[-1]
        layers: list[nn.Module] = [nn.Conv2d(spec.channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for before, after in pairwise(widths[:steps]):
            layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2, inplace=True)]
        self.net = nn.Sequential(*layers, ToVector(), nn.Linear(widths[steps - 1] * height * width, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image).squeeze(1)
