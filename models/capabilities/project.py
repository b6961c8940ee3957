"""Searching the noise whose samples come nearest to images. It needs no encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from models.base import LatentModel, Samples
from models.capabilities import verb
from models.capabilities.ask import SEARCHED, ask, device_of, evaluating, images_from, require, require_alike
from models.capabilities.inputs import checked
from models.capabilities.told import Told, Words
from models.data.batches import to_float
from models.data.images import atomic_file
from models.randomness import image_noise

if TYPE_CHECKING:
    from models.capabilities.trained import Trained


@dataclass(frozen=True)
class Projection:
    """Noise found for images, and what the model makes of it.

    Attributes:
        noise: (N, *noise_shape) float32.
        error: (N,) mean squared error of the images made from it, black 0, white 1.
        images: uint8 (N, H, W, C), the images made from it.
        told: what they were asked to show; None for a model without condition.
    """

    noise: Tensor
    error: np.ndarray
    images: np.ndarray
    told: Told | None = None

    def write(self, path: Path) -> Path:
        """As safetensors: `noise` (N, ...), `error` (N,), and what it was asked to show, if anything, as `condition` (N, ...)."""
        tensors = {"noise": self.noise, "error": torch.from_numpy(self.error)}
        if self.told is not None:
            tensors["condition"] = self.told.values
        with atomic_file(path) as file:
            file.write(to_bytes({name: value.contiguous() for name, value in tensors.items()}, {"kind": "lgm projection"}))
        return path


@verb
def project(trained: Trained, images: np.ndarray, *, told: Words | None = None, **settings: Any) -> Projection:
    """Noise whose samples are as near as possible to uint8 images (N, H, W, C); settings (`steps`, `restarts`, ...) as for `search`.

    A conditional model has to be told what the images show, as for `reconstruct`. Raises UserError.
    """
    trained.require_samples()
    shown = checked(trained, images)
    return search(trained.model, shown, told=trained.shown_by(shown, told, "sample"), **settings)


def search(
    model: LatentModel,
    images: np.ndarray,
    *,
    told: Told | None = None,
    known: np.ndarray | None = None,
    steps: int = 300,
    restarts: int = 4,
    lr: float = 0.1,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Projection:
    """Search the noise z of each image by gradient: min ||x - sample(z)||^2, from `restarts` random starts at once, the best kept.

    A weak pull towards |z|^2 = dim keeps z where the generator was trained. The learning rate falls to zero along a cosine. Image i's
    starts depend on (seed, i) alone; `SEARCHED` images are searched at a time.

    Args:
        images: uint8 (N, H, W, C) of the model's shape.
        told: what each image shows, for a model that has to be told.
        known: bool (N, H, W), at least one of each image: only these pixels count, in the search and in the error.
        progress: called with (steps done, steps in all).
    """
    require(model, Samples, "project")
    require_alike(model, "sample", "project")
    device = device_of(model)
    blocks = range(0, len(images), SEARCHED)
    found = []
    for number, first in enumerate(blocks):
        target = to_float(torch.from_numpy(images[first : first + SEARCHED])).to(device).repeat_interleave(restarts, 0)
        start = image_noise(seed, range(first * restarts, first * restarts + len(target)), model.noise_shape, "project").to(device)
        shown = None if told is None else told.values[first : first + SEARCHED].to(device).repeat_interleave(restarts, 0)
        weight = None if known is None else _weights(known[first : first + SEARCHED]).to(device).repeat_interleave(restarts, 0)

        def advance(step: int, done: int = number * steps) -> None:
            progress(done + step, len(blocks) * steps)

        found.append(_descend(model, target, start, shown, weight, restarts, steps, lr, advance))
    noise, error = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Projection(noise, error.numpy(), images_from(model, noise, "noise", told), told)


def _weights(known: np.ndarray) -> Tensor:
    """(N, H, W) bool -> (N, 1, H, W) float32, 0 where a pixel is not known, and such that a mean over all is one over the known."""
    weight = torch.from_numpy(known).float().unsqueeze(1)
    return weight / weight.mean((1, 2, 3), keepdim=True)


def _descend(
    model: LatentModel,
    target: Tensor,
    start: Tensor,
    shown: Tensor | None,
    weight: Tensor | None,
    restarts: int,
    steps: int,
    lr: float,
    progress: Callable[[int], None],
) -> tuple[Tensor, Tensor]:
    """The best noise of each image and its error, on the CPU. All inputs have `restarts` rows for each image."""
    noise = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([noise], lr=lr)
    best_error, best_noise = torch.full((len(target),), float("inf"), device=target.device), start.clone()
    size = noise[0].numel()
    with evaluating(model):
        for step in range(steps + 1):
            with torch.enable_grad():
                squares = ((ask(model, "sample", noise, shown) - target) / 2).square()
                error = (squares if weight is None else squares * weight).flatten(1).mean(1)
                length = noise.square().flatten(1).sum(1) / size
                loss = (error + 1e-3 * (length - 1).square()).sum()
            with torch.no_grad():
                better = error < best_error
                best_error = torch.where(better, error.detach(), best_error)
                best_noise = torch.where(better.view(-1, *[1] * (noise.ndim - 1)), noise.detach(), best_noise)
            if step == steps:
                break
            optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + np.cos(np.pi * step / steps))
            loss.backward(inputs=[noise])
            optimizer.step()
            optimizer.zero_grad()
            progress(step + 1)
    count = len(target) // restarts
    chosen = best_error.view(count, restarts).argmin(1) + torch.arange(count, device=target.device) * restarts
    return best_noise[chosen].cpu(), best_error[chosen].cpu()
