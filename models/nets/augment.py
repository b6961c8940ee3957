"""Augmentation as pure functions on the device. They draw from torch's global generator, which the loop seeds anew before every step."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import DataSpec

Augmentation = Literal["none", "shift", "flip"]


def harmless(spec: DataSpec) -> Augmentation:
    """The augmentation that leaves the meaning of such images alone.

    `shift` is safe for all of them. `flip` (which shifts as well) is for colour images, because a grey one may well be a scan of writing;
    and not where a class is named by one character or by a number, because then the images show writing (SVHN's digits).
    """
    writing = any(len(name) == 1 or name.isdecimal() for name in spec.classes)
    return "flip" if spec.channels == 3 and not writing else "shift"


def mirrors(spec: DataSpec, how: Literal["auto", "none", "flip"]) -> bool:
    """Whether a model mirrors what it learns from; `auto`: where that is harmless."""
    return how == "flip" or (how == "auto" and harmless(spec) == "flip")


def augment(image: Tensor, how: Augmentation) -> Tensor:
    """(B, C, H, W) -> the same shape and memory format. Shifts by up to a tenth of the side, but at least a pixel."""
    if how == "none":
        return image
    return shift_and_flip(image, (max(image.shape[2] // 10, 1), max(image.shape[3] // 10, 1)), flip=how == "flip")


def shift_and_flip(image: Tensor, most: tuple[int, int], flip: bool) -> Tensor:
    """Move each image by up to `most` (down, across) pixels either way, repeating its edge; with `flip`, mirror one of two on average.

    (B, C, H, W) -> (B, C, H, W), channels_last, differentiable.
    """
    count, channels, height, width = image.shape

    def moved(length: int, limit: int) -> Tensor:
        by = torch.randint(-limit, limit + 1, (count, 1), device=image.device)
        return (torch.arange(length, device=image.device) + by).clamp(0, length - 1)

    rows, columns = moved(height, most[0]), moved(width, most[1])
    if flip:
        columns = torch.where(torch.rand(count, 1, device=image.device) < 0.5, columns, width - 1 - columns)
    first = torch.arange(count, device=image.device).view(-1, 1, 1) * (height * width)
    place = first + rows.unsqueeze(2) * width + columns.unsqueeze(1)
    pixels = image.permute(0, 2, 3, 1).reshape(-1, channels)  # a view of a channels_last image
    return pixels.index_select(0, place.view(-1)).view(count, height, width, channels).permute(0, 3, 1, 2)


def mirrored(image: Tensor) -> Tensor:
    """(B, C, H, W) with about half of the images mirrored, differentiable."""
    return torch.where(torch.rand(len(image), 1, 1, 1, device=image.device) < 0.5, image, image.flip(3))


Policy = Literal["none", "shift", "full"]


def differentiable(image: Tensor, policy: Policy) -> Tensor:
    """What a discriminator is shown, real and fake alike, so that it cannot learn a small data set by heart: (B, C, H, W) -> the same.

    `shift` moves each image by up to an eighth of the side, zeros come in; `full` also changes brightness, saturation and contrast and
    cuts out a square of half the side. The gradient goes through. Zhao et al., Differentiable Augmentation, 2020.
    """
    if policy == "none":
        return image
    if policy == "full":
        image = _recoloured(image)
    image = _moved(image)
    return _cut(image) if policy == "full" else image


def _recoloured(image: Tensor) -> Tensor:
    share = torch.rand(3, len(image), 1, 1, 1, device=image.device)
    image = image + (share[0] - 0.5)
    grey = image.mean(1, keepdim=True)
    image = grey + (image - grey) * (2 * share[1])
    level = image.mean((1, 2, 3), keepdim=True)
    return level + (image - level) * (share[2] + 0.5)


def _moved(image: Tensor) -> Tensor:
    count, channels, height, width = image.shape
    down, across = max(height // 8, 1), max(width // 8, 1)
    framed = F.pad(image, (across, across, down, down)).permute(0, 2, 3, 1)
    rows = torch.arange(height, device=image.device) + torch.randint(0, 2 * down + 1, (count, 1), device=image.device)
    columns = torch.arange(width, device=image.device) + torch.randint(0, 2 * across + 1, (count, 1), device=image.device)
    first = torch.arange(count, device=image.device).view(-1, 1, 1) * (framed.shape[1] * framed.shape[2])
    place = first + rows.unsqueeze(2) * framed.shape[2] + columns.unsqueeze(1)
    pixels = framed.reshape(-1, channels).index_select(0, place.view(-1))
    return pixels.view(count, height, width, channels).permute(0, 3, 1, 2)


def _cut(image: Tensor) -> Tensor:
    count, _, height, width = image.shape

    def outside(length: int) -> Tensor:
        centre = torch.randint(0, length, (count, 1), device=image.device)
        return (torch.arange(length, device=image.device) - centre).abs() > length // 4

    kept = outside(height).unsqueeze(2) | outside(width).unsqueeze(1)
    return image * kept.unsqueeze(1)
