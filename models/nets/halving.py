"""Convolutions that halve a map, and transposed ones that double it (kernel 4, stride 2): torch's own, faster on a CPU for small maps.

Where channels are many, much of a convolution's time on a CPU goes into rearranging the weights. Written as one matrix
product - the patches as rows, the weights as they lie in memory in channels_last - such a layer took two thirds of the time, forward and
backward (256 to 512 channels, 8x8 to 4x4). Parameters, their names and the result, up to rounding, are those of `nn.Conv2d` and
`nn.ConvTranspose2d`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL = 4
FEW, MANY = 16, 2**20  # pixels of the small map at most, weights at least, for the product to pay


class HalvingConv(nn.Conv2d):
    """(B, in, H, W) -> (B, out, H // 2, W // 2)."""

    def __init__(self, channels: int, out: int, bias: bool = True) -> None:
        super().__init__(channels, out, KERNEL, 2, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        batch, _, height, width = input.shape
        if height % 2 or width % 2 or not _pays(input, self.weight, height * width // 4):
            return super().forward(input)
        made = F.linear(_Patches.apply(input), _rows(self.weight), self.bias)
        return made.view(batch, height // 2, width // 2, -1).permute(0, 3, 1, 2)


class DoublingConv(nn.ConvTranspose2d):
    """(B, in, H, W) -> (B, out, 2 H, 2 W), and one pixel more along the sides that are to be odd."""

    def __init__(self, channels: int, out: int, odd: tuple[int, int] = (0, 0), bias: bool = True) -> None:
        super().__init__(channels, out, KERNEL, 2, 1, output_padding=odd, bias=bias)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        batch, channels, height, width = input.shape
        if any(self.output_padding) or not _pays(input, self.weight, height * width):
            return super().forward(input, output_size)
        patches = input.permute(0, 2, 3, 1).reshape(-1, channels) @ _rows(self.weight)
        made = _Sums.apply(patches, (batch, self.out_channels, 2 * height, 2 * width))
        return made if self.bias is None else made + self.bias.view(-1, 1, 1)


def _pays(maps: Tensor, weight: Tensor, pixels: int) -> bool:
    plain = maps.device.type == "cpu" and maps.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and pixels <= FEW and weight.numel() >= MANY and maps.is_contiguous(memory_format=torch.channels_last)


def _rows(weight: Tensor) -> Tensor:
    """(A, B, 4, 4) -> (A, 16 B), the kernel's pixels first, as they lie in channels_last: nothing is copied."""
    return weight.permute(0, 2, 3, 1).flatten(1)


class _Patches(torch.autograd.Function):
    """Maps (B, C, 2h, 2w), a border of zeros around them -> their 4x4 patches two pixels apart, (B h w, 16 C). The transpose of `_Sums`."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        ctx.shape = maps.shape
        batch, channels, height, width = maps.shape
        framed = F.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        b, y, x, c = framed.stride()
        patches = framed.as_strided((batch, height // 2, width // 2, KERNEL, KERNEL, channels), (b, 2 * y, 2 * x, y, x, c))
        return patches.reshape(-1, KERNEL * KERNEL * channels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sums.apply(gradients[0], ctx.shape)


class _Sums(torch.autograd.Function):
    """Patches (B h w, 16 C), laid over one another two pixels apart and added -> maps (B, C, 2h, 2w)."""

    @staticmethod
    def forward(ctx: Any, patches: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
        batch, channels, height, width = shape
        patches = patches.view(batch, height // 2, width // 2, KERNEL, KERNEL, channels)
        framed = patches.new_zeros(batch, height + 2, width + 2, channels)
        for y in range(KERNEL):
            for x in range(KERNEL):
                framed[:, y : y + height : 2, x : x + width : 2] += patches[:, :, :, y, x]
        return framed[:, 1:-1, 1:-1].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Patches.apply(gradients[0]), None
