"""What a trained model makes: samples, reconstructions, projections, interpolations - in blocks, and laid out as pictures.

Images are made in blocks of `BLOCK` items, the last one filled up, whatever number is asked for: matrix products of another shape round
differently, so only a fixed shape makes image i depend on its noise alone, to the last bit. (A projection is a search over all its images.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from models.base import Encodes, LatentModel, Samples
from models.data.batches import to_float, to_uint8
from models.errors import UserError
from models.randomness import image_noise

BLOCK = 16


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the block, without gradients; every module's own mode is restored afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def in_blocks(function: Callable[..., Tensor], device: torch.device, *inputs: Tensor) -> Tensor:
    """Apply `function` to blocks of exactly `BLOCK` rows of the inputs on `device`; the result lies on the CPU."""
    made = []
    for parts in zip(*(rows.split(BLOCK) for rows in inputs), strict=True):
        count = len(parts[0])
        full = [torch.cat([part, part[-1:].expand(BLOCK - count, *part.shape[1:])]) if count < BLOCK else part for part in parts]
        made.append(function(*(part.to(device) for part in full))[:count].float().cpu())
    return torch.cat(made)


def condition_of(model: LatentModel) -> str | None:
    """What a model's `sample` has to be told besides the noise: `label`, `identity`, `attributes`, or nothing.

    It is what `sample` takes and what the model was trained with; a file may hold a model that takes labels under one option only.
    """
    asks = signature(model.sample).parameters if isinstance(model, Samples) else ()
    return next((name for name in ("label", "identity", "attributes") if name in asks and name in model.needs), None)


def asked(model: LatentModel, items: Iterable[int]) -> Tensor | None:
    """What samples show where nobody says: the classes (or identities) in turn, item i class i mod K: (N,) int64. None: unconditional."""
    count = {"label": len(model.spec.classes), "identity": model.spec.identities}.get(condition_of(model) or "")
    return torch.tensor([item % count for item in items]) if count else None


def samples_of(model: LatentModel, noise: Tensor, condition: Tensor | None, device: torch.device) -> Tensor:
    """`model.sample` in blocks: noise (N, ...) and what is asked for (N, ...), if anything -> (N, C, H, W) in [-1, 1], on the CPU."""
    if condition is None:
        return in_blocks(model.sample, device, noise)  # type: ignore[arg-type]
    name = condition_of(model) or ""
    return in_blocks(lambda z, c: model.sample(z, **{name: c}), device, noise, condition)  # type: ignore[operator]


def require(model: LatentModel, capability: type, verb: str) -> None:
    """Raise UserError where the model lacks a capability."""
    if not isinstance(model, capability):
        raise UserError(
            f"this model cannot {verb}",
            type(model).__module__.rpartition(".")[2],
            f"`lgm models` lists the models; take one that can {verb}",
        )


def sample(model: LatentModel, count: int, seed: int, first: int = 0, batch: int = 256) -> Iterator[np.ndarray]:
    """Yield samples `first` to `first + count` as uint8 (up to `batch`, H, W, C). Image i depends on (seed, i) alone."""
    require(model, Samples, "sample")
    device = next(model.parameters()).device
    ahead = first % BLOCK  # blocks start at multiples of BLOCK, so that image i has the same place in the same block every time
    step = max(batch // BLOCK, 1) * BLOCK
    for start in range(first - ahead, first + count, step):
        stop = min(start + step, first + count)
        noise = image_noise(seed, range(start, stop), model.noise_shape)
        with evaluating(model):
            made = to_uint8(samples_of(model, noise, asked(model, range(start, stop)), device)).numpy()
        yield made[max(first - start, 0) :]


def reconstruct(model: LatentModel, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Encode and decode uint8 (N, H, W, C).

    Returns the reconstructions, uint8 of the same shape, and each image's mean squared error (N,) in units where black is 0 and white 1.
    """
    require(model, Encodes, "reconstruct")
    device = next(model.parameters()).device
    original = to_float(torch.from_numpy(images))
    with evaluating(model):
        again = in_blocks(lambda x: model.decode(model.encode(x)), device, original)  # type: ignore[operator]
    error = ((again - original) / 2).square().flatten(1).mean(1)
    return to_uint8(again).numpy(), error.numpy()


@dataclass(frozen=True)
class Projection:
    """Noise found for images, (N, *noise_shape), and the mean squared error of the images made from it (N,), black 0, white 1."""

    noise: Tensor
    error: np.ndarray


def project(
    model: LatentModel,
    images: np.ndarray,
    *,
    steps: int = 300,
    restarts: int = 4,
    lr: float = 0.1,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Projection:
    """Search the noise z of each image by gradient: min ||x - sample(z)||^2, from `restarts` random starts at once, the best kept.

    A weak pull towards |z|^2 = dim keeps z where the generator was trained. The learning rate falls to zero along a cosine.

    Args:
        images: uint8 (N, H, W, C) of the model's shape.
        progress: called with (steps done, steps in all).
    """
    require(model, Samples, "project")
    device = next(model.parameters()).device
    target = to_float(torch.from_numpy(images)).to(device).repeat_interleave(restarts, 0)
    start = image_noise(seed, range(len(target)), model.noise_shape, "project")
    noise = start.to(device).requires_grad_()
    optimizer = torch.optim.Adam([noise], lr=lr)
    best_error, best_noise = torch.full((len(target),), float("inf"), device=device), noise.detach().clone()
    size = noise[0].numel()
    with evaluating(model):
        for step in range(steps + 1):
            with torch.enable_grad():
                error = ((model.sample(noise) - target) / 2).square().flatten(1).mean(1)  # type: ignore[operator]
                length = noise.square().flatten(1).sum(1) / size
                loss = (error + 1e-3 * (length - 1).square()).sum()
            with torch.no_grad():
                better = error < best_error
                best_error = torch.where(better, error.detach(), best_error)
                best_noise[better] = noise.detach()[better]
            if step == steps:
                break
            optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + np.cos(np.pi * step / steps))
            loss.backward(inputs=[noise])
            optimizer.step()
            optimizer.zero_grad()
            progress(step + 1, steps)
    chosen = best_error.view(len(images), restarts).argmin(1) + torch.arange(len(images), device=device) * restarts
    return Projection(best_noise[chosen].cpu(), best_error[chosen].cpu().numpy())


def blend(a: Tensor, b: Tensor, steps: int, path: Literal["lerp", "slerp"]) -> Tensor:
    """(steps, ...) points from `a` to `b`, both ends included; `slerp` goes along the great circle, and changes the length evenly."""
    share = torch.linspace(0, 1, steps).view(-1, *[1] * a.ndim)
    if path == "lerp":
        return torch.lerp(a.unsqueeze(0), b.unsqueeze(0), share)
    length_a, length_b = a.norm().clamp_min(1e-12), b.norm().clamp_min(1e-12)
    angle = torch.arccos(((a / length_a) * (b / length_b)).sum().clamp(-1, 1))
    if float(angle.sin()) < 1e-4:  # (anti)parallel: no great circle, or no angle at all
        return torch.lerp(a.unsqueeze(0), b.unsqueeze(0), share)
    direction = (torch.sin((1 - share) * angle) * (a / length_a) + torch.sin(share * angle) * (b / length_b)) / angle.sin()
    return direction * torch.lerp(length_a, length_b, share)


def images_from(model: LatentModel, points: Tensor, space: Literal["code", "noise"]) -> np.ndarray:
    """Latents or noise (N, ...) -> uint8 (N, H, W, C)."""
    device = next(model.parameters()).device
    make = model.decode if space == "code" else model.sample
    with evaluating(model):
        return to_uint8(in_blocks(make, device, points)).numpy()  # type: ignore[arg-type]


def grid(images: np.ndarray | Sequence[np.ndarray], columns: int, gap: int = 2, background: int = 255) -> np.ndarray:
    """Lay uint8 images (N, H, W, C) out in rows of `columns`: one picture, uint8 (height, width, C)."""
    images = np.asarray(images)
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    picture = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), background, dtype=np.uint8)
    for n, image in enumerate(images):
        top, left = gap + (n // columns) * (height + gap), gap + (n % columns) * (width + gap)
        picture[top : top + height, left : left + width] = image
    return picture


def columns_for(count: int) -> int:
    """As many columns as make the grid about square."""
    return max(1, int(np.ceil(np.sqrt(count))))


def pairs(above: np.ndarray, below: np.ndarray, columns: int) -> np.ndarray:
    """A grid in which every row of `above` (N, H, W, C) has the matching row of `below` under it."""
    rows = [part[start : start + columns] for start in range(0, len(above), columns) for part in (above, below)]
    blank = np.full_like(above[:1], 255)
    padded = [np.concatenate([row, np.repeat(blank, columns - len(row), 0)]) if len(row) < columns else row for row in rows]
    return grid(np.concatenate(padded), columns)
