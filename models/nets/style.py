"""A generator driven by styles, the encoder that reads them, and the sizes through which both grow.

Karras et al., A Style-Based Generator Architecture for GANs, 2019; the encoder is that of Pidhorskyi et al., Adversarial Latent
Autoencoders, 2020 (podgorskiy/ALAE: net.py). Level 0 is the smallest size, about 4x4; each further one doubles it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import DataSpec
from models.nets.conv import halvings
from models.nets.equalised import SLOPE, EqualConv, EqualLinear

GROUPS = ("coarse", "middle", "fine")


def sizes_for(spec: DataSpec) -> list[tuple[int, int]]:
    """(height, width) at each level, the image's own last: 4, 8, 16, 32 for 32x32; 7, 14, 28 for 28x28."""
    shorter, steps = min(spec.size), 0
    while shorter >= 8:
        shorter, steps = shorter // 2, steps + 1
    return halvings(spec.size, steps)[::-1]


def channels_for(levels: int, width: int, widest: int) -> list[int]:
    """Channels at each level: `width` at the image's own size, twice as many at half of it, and so on up to `widest`."""
    return [min(widest, width * 2 ** (levels - 1 - level)) for level in range(levels)]


def groups_for(levels: int) -> dict[str, tuple[int, ...]]:
    """The layers, two a level, that are called coarse, middle and fine: those of two levels, of two more, and the rest, where there are
    so many; every group gets a level before one gets a second (StyleGAN's figure 3: 4 to 8, 16 to 32, from 64)."""
    coarse = 2 if levels > 3 else 1
    middle = min(2, max(levels - coarse - 1, 0))
    borders = (0, 2 * coarse, 2 * (coarse + middle), 2 * levels)
    return {name: tuple(range(borders[n], borders[n + 1])) for n, name in enumerate(GROUPS) if borders[n] < borders[n + 1]}


class Standardised(torch.autograd.Function):
    """Maps with their mean and deviation over the pixels taken out, and what was taken out: means and variances.

    (B, C, H, W) -> (B, C, H, W), (B, C, 1, 1), (B, C, 1, 1), float32. A map that hardly varies stays small, or its noise would be all that
    is left. The gradient is written out (and has one in turn), because `torch.var_mean` and the gradient of `mean` took a quarter of a step
    on a CPU where channels run fastest.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = x.float().mean((2, 3), keepdim=True)
        rest = x - mean
        variance = rest.square().mean((2, 3), keepdim=True)
        rest = rest.mul_((variance + 1e-5).rsqrt())
        ctx.save_for_backward(rest, variance)
        ctx.set_materialize_grads(False)
        return rest, mean, variance

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> Tensor:
        rest, variance = ctx.saved_tensors
        of_rest, of_mean, of_variance = slopes
        scale, pixels = (variance + 1e-5).rsqrt(), rest[0, 0].numel()
        zero = torch.zeros_like(variance)
        along, shift = zero, zero  # multiples of the maps, and constants
        if of_mean is not None:
            shift = shift + of_mean / pixels
        if of_variance is not None:
            along = along + 2 / pixels * of_variance / scale
        if of_rest is None:
            return along * rest + shift
        along = along - scale * (of_rest * rest).mean((2, 3), keepdim=True)
        shift = shift - scale * of_rest.mean((2, 3), keepdim=True)
        return torch.addcmul(torch.addcmul(shift, scale, of_rest), along, rest)


standardised = Standardised.apply


class Blur(nn.Module):
    """Each map through [1 2 1] / 4 both ways, black around it: (B, C, H, W) -> (B, C, H, W)."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        ramp = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(ramp, ramp), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.kernel.expand(channels, 1, -1, -1), padding=1, groups=channels)


def enlarged(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size)


class StyleLayer(nn.Module):
    """What follows a convolution: noise, bias, leaky ReLU, and a style that sets each map's mean and deviation.

    (B, C, H, W) and codes (B, latent) -> (B, C, H, W). In eval mode the noise is always the same.
    """

    still_noise: Tensor

    def __init__(self, channels: int, size: tuple[int, int], latent: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.style = EqualLinear(latent, 2 * channels, gain=1.0)
        self.register_buffer("still_noise", torch.randn(1, 1, *size))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        noise = torch.randn(len(x), 1, *x.shape[2:], device=x.device, dtype=x.dtype) if self.training else self.still_noise
        x = F.leaky_relu(x + self.strength * noise + self.bias, SLOPE)
        scale, shift = self.style(code)[:, :, None, None].chunk(2, 1)
        return standardised(x)[0] * (scale + 1) + shift


class StyleGenerator(nn.Module):
    """Codes for each layer to images: (B, 2 levels, latent) -> (B, C, h, w) at the size of a level, not bounded.

    While a level is new, `blend`, from 0 to 1, says how much of its picture is shown, the rest being that of the level before.
    """

    def __init__(self, spec: DataSpec, width: int, widest: int, latent: int) -> None:
        super().__init__()
        self.sizes = sizes_for(spec)
        channels = channels_for(len(self.sizes), width, widest)
        self.start = nn.Parameter(torch.randn(1, channels[0], *self.sizes[0]))  # of ones, nothing would be left once the mean is out
        self.enlarging = nn.ModuleList(EqualConv(before, after, bias=False) for before, after in pairwise(channels))
        self.blur = Blur()
        self.keeping = nn.ModuleList(EqualConv(wide, wide, bias=False) for wide in channels)
        both = [(wide, size) for wide, size in zip(channels, self.sizes, strict=True) for _ in range(2)]
        self.layers = nn.ModuleList(StyleLayer(wide, size, latent) for wide, size in both)
        self.to_image = nn.ModuleList(EqualConv(wide, spec.channels, 1, gain=1.0) for wide in channels)

    def forward(self, codes: Tensor, level: int, blend: float) -> Tensor:
        x = before = self.start.expand(len(codes), -1, -1, -1)
        for n in range(level + 1):
            before = x
            x = self.blur(self.enlarging[n - 1](enlarged(x, self.sizes[n]))) if n else x
            x = self.layers[2 * n](x, codes[:, 2 * n])
            x = self.layers[2 * n + 1](self.keeping[n](x), codes[:, 2 * n + 1])
        image = self.to_image[level](x).float()
        if blend == 1:
            return image
        smaller = self.to_image[level - 1](before).float()
        return torch.lerp(enlarged(smaller, self.sizes[level]), image, blend)


class ReadingBlock(nn.Module):
    """A level of the encoder: (B, before, H, W) -> (B, after, H // 2, W // 2), and what it says of the code (B, latent).

    Mean and deviation of each map, read behind either convolution, are all that is said of the image; they are taken out of the maps then.
    """

    def __init__(self, before: int, after: int, latent: int) -> None:
        super().__init__()
        self.first, self.blur, self.second = EqualConv(before, before), Blur(), EqualConv(before, after)
        self.read_first, self.read_second = (EqualLinear(2 * wide, latent, gain=1.0) for wide in (before, after))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, said = self.read(F.leaky_relu(self.first(x), SLOPE), self.read_first)
        x, more = self.read(F.leaky_relu(F.avg_pool2d(self.second(self.blur(x)), 2), SLOPE), self.read_second)
        return x, said + more

    def read(self, x: Tensor, reader: nn.Module) -> tuple[Tensor, Tensor]:
        x, mean, variance = standardised(x)
        deviation = (variance + 1e-8).sqrt()  # without the 1e-8 the slope of a flat map's is infinite
        return x, reader(torch.cat([mean, deviation], 1).flatten(1))


class StyleEncoder(nn.Module):
    """Images at the size of a level to codes, the sum of what all levels below say: (B, C, h, w) -> (B, latent)."""

    def __init__(self, spec: DataSpec, width: int, widest: int, latent: int) -> None:
        super().__init__()
        channels = channels_for(len(sizes_for(spec)), width, widest)
        self.from_image = nn.ModuleList(EqualConv(spec.channels, wide, 1) for wide in channels)
        smaller: Sequence[int] = [channels[0], *channels[:-1]]
        self.blocks = nn.ModuleList(ReadingBlock(before, after, latent) for before, after in zip(channels, smaller, strict=True))

    def forward(self, image: Tensor, level: int, blend: float) -> Tensor:
        x, code = self.blocks[level](F.leaky_relu(self.from_image[level](image), SLOPE))
        if blend < 1:
            code = blend * code
            x = torch.lerp(F.leaky_relu(self.from_image[level - 1](F.avg_pool2d(image, 2)), SLOPE).float(), x, blend)
        for n in reversed(range(level)):
            x, said = self.blocks[n](x)
            code = code + said
        return code
