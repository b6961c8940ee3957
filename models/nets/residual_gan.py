"""The residual generator and critic of Gulrajani et al., Improved Training of Wasserstein GANs, 2017 (igul222: gan_cifar_resnet.py).

Sized from the data: at 32x32 they are the original's, three blocks that double the resolution from 4x4, and a critic of four blocks that
halves it twice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import DataSpec
from models.nets.conv import Norm, ToMaps, constrained, halvings, norms_for


class ClassBatchNorm(nn.Module):
    """Batch norm with a gain and a bias of its own for every class.

    (B, C, H, W) and labels (B,) int64, or shares of the classes (B, K) float -> (B, C, H, W).
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Parameter(torch.ones(classes, channels))
        self.bias = nn.Parameter(torch.zeros(classes, channels))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        gain, bias = (table[label] if not label.is_floating_point() else label @ table for table in (self.gain, self.bias))
        return torch.addcmul(bias[:, :, None, None], self.norm(x), gain[:, :, None, None])


class UpBlock(nn.Module):
    """shortcut(x) + f(x) at another resolution: norm, ReLU, enlarge, 3x3 convolution, norm, ReLU, 3x3 convolution.

    (B, before, h, w) -> (B, after, *size). Enlarged by repeating pixels. `classes` above 0 makes the norms conditional.
    """

    def __init__(self, before: int, after: int, size: tuple[int, int], norm: Norm, classes: int) -> None:
        super().__init__()
        self.size = size
        plain = norm == "batch" and not classes
        self.first: nn.Module = ClassBatchNorm(before, classes) if classes else nn.Sequential(*norms_for(norm, before))
        self.second: nn.Module = ClassBatchNorm(after, classes) if classes else nn.Sequential(*norms_for(norm, after))
        self.enlarged = nn.Conv2d(before, after, 3, 1, 1, bias=not plain)
        self.last = nn.Conv2d(after, after, 3, 1, 1)
        self.shortcut = nn.Conv2d(before, after, 1)
        self.conditional = classes > 0

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        given = (label,) if self.conditional else ()
        inner = F.interpolate(F.relu(self.first(x, *given)), self.size)
        inner = self.last(F.relu(self.second(self.enlarged(inner), *given)))
        return F.interpolate(self.shortcut(x), self.size) + inner  # a 1x1 convolution before or after enlarging is the same


class DownBlock(nn.Module):
    """shortcut(x) + f(x), f being norm, ReLU, 3x3 convolution, norm, ReLU, 3x3 convolution; averaged over 2x2 pixels where it `halves`.

    (B, before, H, W) -> (B, after, H / 2, W / 2). The critic's `first` block begins with the convolution, because images need no ReLU.
    """

    def __init__(self, before: int, after: int, norm: Norm, halves: bool, first: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = [] if first else [*norms_for(norm, before), nn.ReLU()]
        layers += [constrained(nn.Conv2d(before, after, 3, 1, 1), norm), *norms_for(norm, after), nn.ReLU(inplace=True)]
        self.branch = nn.Sequential(*layers, constrained(nn.Conv2d(after, after, 3, 1, 1), norm))
        self.shortcut = constrained(nn.Conv2d(before, after, 1), norm) if before != after or halves else nn.Identity()
        self.halves = halves

    def forward(self, x: Tensor) -> Tensor:
        if not self.halves:
            return self.shortcut(x) + self.branch(x)
        return self.shortcut(F.avg_pool2d(x, 2)) + F.avg_pool2d(self.branch(x), 2)


class ResidualGenerator(nn.Module):
    """(B, latent), and labels (B,) or shares (B, K) where it has classes -> (B, C, H, W), unbounded (the model applies tanh)."""

    def __init__(self, spec: DataSpec, width: int, latent: int, *, norm: Norm = "batch", classes: int = 0) -> None:
        super().__init__()
        sizes = halvings(spec.size, _halvings_down_to(spec, 8))[::-1]
        self.start = nn.Sequential(nn.Linear(latent, width * sizes[0][0] * sizes[0][1]), ToMaps(width, *sizes[0]))
        self.blocks = nn.ModuleList(UpBlock(width, width, size, norm, classes) for size in sizes[1:])
        self.end = nn.Sequential(*norms_for(norm, width), nn.ReLU(inplace=True), nn.Conv2d(width, spec.channels, 3, 1, 1))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        x = self.start(latent)
        for block in self.blocks:
            x = block(x, label)
        return self.end(x)


class ResidualCritic(nn.Module):
    """(B, C, H, W) -> (B, outputs): blocks that halve the resolution to about 8 pixels, two that keep it, the mean, a linear layer."""

    def __init__(self, spec: DataSpec, width: int, *, outputs: int = 1, norm: Norm = "none") -> None:
        super().__init__()
        halvings = _halvings_down_to(spec, 12)
        blocks = [DownBlock(spec.channels, width, norm, halves=True, first=True)]
        blocks += [DownBlock(width, width, norm, halves=True) for _ in range(halvings - 1)]
        self.blocks = nn.Sequential(*blocks, *(DownBlock(width, width, norm, halves=False) for _ in range(2)))
        self.head = constrained(nn.Linear(width, outputs), norm)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(F.relu(self.blocks(image)).mean((2, 3)))


def start_glorot(network: nn.Module) -> None:
    """The original's start: Glorot's uniform, sqrt(2) more for convolutions after a ReLU; biases zero, batch norm's gains one."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            spatial = not isinstance(module, nn.Linear) and module.kernel_size != (1, 1)
            nn.init.xavier_uniform_(module.weight, gain=2**0.5 if spatial else 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.ones_(module.weight)


def _halvings_down_to(spec: DataSpec, least: int) -> int:
    """How often the shorter side is halved while it is at least `least`, once at least."""
    shorter, steps = min(spec.size), 0
    while shorter >= least:
        shorter, steps = shorter // 2, steps + 1
    return max(steps, 1)
