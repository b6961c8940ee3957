"""Holes that a model learns to fill: drawn for a whole batch at once, from the step's own random stream.

They are of the kinds that `lgm inpaint --mask` draws (`models.capabilities.masks`, which draws each from a seed and a number instead).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Kind = Literal["any", "box", "center", "half", "random", "stroke"]
_LINES = 4  # of a stroke


def draw_holes(kind: Kind, count: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Holes of so many images of `size` (height, width): (count, 1, H, W) float32, 1 in the hole. `any` draws a kind for each image."""
    if kind != "any":
        return _DRAWN[kind](count, size, device)
    kinds = torch.stack([draw(count, size, device) for draw in _DRAWN.values()])
    chosen = torch.randint(len(_DRAWN), (count,), device=device)
    return kinds[chosen, torch.arange(count, device=device)]


def _box(count: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """A rectangle of about a quarter of the area, anywhere, at most twice as long (in shares of the sides) as wide."""
    stretch, place = 2 ** (torch.rand(count, 1, device=device) - 0.5), torch.rand(count, 2, device=device)
    inside = torch.ones((), device=device)
    for axis, (side, share) in enumerate(zip(size, (0.5 * stretch, 0.5 / stretch))):
        part = (side * share).round().clamp(1, max(1, side - 1))
        start = (place[:, axis : axis + 1] * (side - part + 1)).floor()
        along = torch.arange(side, device=device)
        within = ((along >= start) & (along < start + part)).float()  # (count, side)
        inside = inside * within.view(count, 1, *((-1, 1) if axis == 0 else (1, -1)))
    return inside


def _center(count: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """The middle half of each side."""
    hole = torch.zeros(1, 1, *size, device=device)
    top, left = size[0] // 4, size[1] // 4
    hole[:, :, top : size[0] - top, left : size[1] - left] = 1
    return hole.repeat(count, 1, 1, 1)


def _half(count: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """The left, right, upper or lower half."""
    height, width = size
    halves = torch.zeros(4, 1, *size, device=device)
    halves[0, :, :, : width // 2] = 1
    halves[1, :, :, -(width // 2) :] = 1
    halves[2, :, : height // 2] = 1
    halves[3, :, -(height // 2) :] = 1
    return halves[torch.randint(4, (count,), device=device)]


def _random(count: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Each pixel with probability 1/2."""
    return (torch.rand(count, 1, *size, device=device) < 0.5).float()


def _stroke(count: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Four straight lines between random points, each about a tenth of the shorter side thick."""
    y, x = (torch.arange(side, device=device, dtype=torch.float32) for side in size)
    pixels = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1)  # (H, W, 2)
    last = torch.stack([y[-1], x[-1]])
    a, b = (torch.rand(2, count, _LINES, 1, 1, 2, device=device) * last).unbind()
    radius = (min(size) * (0.04 + 0.03 * torch.rand(count, _LINES, 1, 1, device=device))).clamp_min(0.75)
    way = b - a
    share = (((pixels - a) * way).sum(-1) / way.square().sum(-1).clamp_min(1e-9)).clamp(0, 1)  # the nearest point of the line
    near = (pixels - a - share.unsqueeze(-1) * way).norm(dim=-1) <= radius
    return near.any(1, keepdim=True).float()


_DRAWN = {"box": _box, "center": _center, "half": _half, "random": _random, "stroke": _stroke}
