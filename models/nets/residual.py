"""Residual nets (He et al., Deep Residual Learning for Image Recognition, 2016), sized from the data: any height and width."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from models.base import DataSpec

SMALL = 12  # pixels: the resolution is halved until the shorter side is below that: 28 -> 14 -> 7, 32 -> 16 -> 8


class ResidualBlock(nn.Module):
    """relu(shortcut(x) + f(x)) with two 3x3 convolutions in f: (B, before, H, W) -> (B, after, H / stride, W / stride), rounded up.

    The shortcut averages where the resolution falls and is a 1x1 convolution where the width changes.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        layers: list[nn.Module] = [nn.AvgPool2d(stride, ceil_mode=True)] if stride > 1 else []
        if before != after:
            layers += [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after)]
        self.shortcut = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.branch(x), inplace=True)


class ResidualEncoder(nn.Module):
    """Images to vectors: a 3x3 convolution, residual blocks at falling resolutions, the mean over the pixels.

    (B, C, H, W) -> (B, widths[-1]).

    Args:
        widths: channels of the resolutions, the last one at the lowest. Small images use only the last few; large ones come down to the
            first by 3x3 convolutions of stride 2.
        blocks: residual blocks at each of them, counted from the lowest too; the first number is repeated for those that have none.
    """

    def __init__(self, spec: DataSpec, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        halvings, shorter = 0, min(spec.size)
        while shorter >= SMALL:
            shorter, halvings = shorter // 2, halvings + 1
        widths = list(widths)[-halvings - 1 :]
        blocks = [*[blocks[0]] * (len(widths) - len(blocks)), *blocks][-len(widths) :]
        layers: list[nn.Module] = []
        channels, early = spec.channels, halvings + 1 - len(widths)
        for n in range(max(early, 1)):
            layers += [
                nn.Conv2d(channels, widths[0], 3, 2 if n < early else 1, 1, bias=False),
                nn.BatchNorm2d(widths[0]),
                nn.ReLU(inplace=True),
            ]
            channels = widths[0]
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for n in range(max(count, 1) if level else count):  # a resolution has to be reached by a block
                layers.append(ResidualBlock(channels, width, 2 if level and not n else 1))
                channels = width
        self.features = widths[-1]
        self.net = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image).mean((2, 3))
