"""What a trained model makes: samples, reconstructions, projections, interpolations - in blocks, and laid out as pictures.

Images are made in blocks of `BLOCK` items, the last one filled up, whatever number is asked for: matrix products of another shape round
differently, so only a fixed shape makes image i depend on its noise alone, to the last bit. (A projection searches a block at once.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from math import inf, sqrt
from typing import Literal, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from models.base import Classifies, Encodes, LatentModel, Samples
from models.data.batches import to_float, to_uint8
from models.errors import UserError
from models.randomness import image_noise

BLOCK = 16
GAP = 2  # pixels between the images of a grid, and around them


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
    """What a model has to be told besides noise, image or code: `label`, `identity`, `attributes`, or nothing.

    It is what its methods take and what it was trained with; a file may hold a model that takes labels under one option only.
    """
    asks = {name for capability in ("sample", "encode", "decode") for name in _arguments(model, capability)}
    return next((name for name in ("label", "identity", "attributes") if name in asks and name in model.needs), None)


def _arguments(model: LatentModel, capability: str) -> frozenset[str]:
    return frozenset(signature(getattr(model, capability)).parameters) if hasattr(model, capability) else frozenset()


def asked(model: LatentModel, items: Iterable[int], examples: Tensor | None = None) -> Tensor | None:
    """What samples show where nobody says, or None for a model without condition.

    What `examples` (M,) or (M, A) show in turn, item i as example i mod M. Without examples the classes (or identities) in turn, item i
    class i mod K: (N,) int64; but no attribute, (N, A) zeros, because few combinations of them occur.
    """
    kind, numbers = condition_of(model), torch.tensor(list(items), dtype=torch.int64)
    if kind is not None and examples is not None:
        return examples[numbers % len(examples)]
    if kind == "attributes":
        return torch.zeros(len(numbers), len(model.spec.attributes))
    count = {"label": len(model.spec.classes), "identity": model.spec.identities}.get(kind or "")
    return numbers % count if count else None


Capability = Literal["sample", "encode", "decode"]


def ask(model: LatentModel, capability: Capability, given: Tensor, condition: Tensor | None) -> Tensor:
    """`model.sample`, `encode` or `decode`: what it is given (B, ...), and what is shown (B, ...) where it has to be told."""
    kind = condition_of(model) if condition is not None else None
    told = {kind: condition} if kind and kind in _arguments(model, capability) else {}
    made: Tensor = getattr(model, capability)(given, **told)
    return made


def ask_in_blocks(model: LatentModel, capability: Capability, given: Tensor, condition: Tensor | None, device: torch.device) -> Tensor:
    """`ask` in blocks: (N, ...) and what is shown (N, ...), if anything -> (N, ...), on the CPU."""
    if condition is None:
        return in_blocks(lambda x: ask(model, capability, x, None), device, given)
    return in_blocks(lambda x, c: ask(model, capability, x, c), device, given, condition)


def samples_of(model: LatentModel, noise: Tensor, condition: Tensor | None, device: torch.device) -> Tensor:
    """Noise (N, ...) and what is asked for (N, ...), if anything -> (N, C, H, W) in [-1, 1], on the CPU; in blocks."""
    return ask_in_blocks(model, "sample", noise, condition, device)


def reconstructions_of(model: LatentModel, images: Tensor, condition: Tensor | None, device: torch.device) -> Tensor:
    """Through encoder and decoder: (N, C, H, W) in [-1, 1], and what they show (N, ...), if anything -> the same shape, on the CPU."""

    def again(x: Tensor, c: Tensor | None = None) -> Tensor:
        return ask(model, "decode", ask(model, "encode", x, c), c)

    return in_blocks(again, device, images) if condition is None else in_blocks(again, device, images, condition)


def classifies(model: LatentModel) -> TypeGuard[Classifies]:
    """Whether the model has a classifier of its own for what it has to be told."""
    kind = condition_of(model)
    return kind is not None and isinstance(model, Classifies) and model.target == kind


def classified(model: LatentModel, images: Tensor, device: torch.device) -> Tensor | None:
    """What images (N, C, H, W) in [-1, 1] most likely show, as `ask` takes it, in the eyes of the model's own classifier.

    None for a model that has no classifier of what it has to be told. Call it in eval mode.
    """
    kind = condition_of(model)
    if not classifies(model):
        return None
    logits = in_blocks(model.classify, device, images)
    return (logits > 0).float() if kind == "attributes" else logits.argmax(1)


def truncated(noise: Tensor, limit: float) -> Tensor:
    """Noise as from N(0, 1) cut off at plus and minus `limit` (Brock et al. 2019, the truncation trick); same shape and dtype.

    Where Brock et al. draw again what falls outside, this keeps each number's rank: z -> F^-1(F(-T) + F(z) (F(T) - F(-T))), F the normal
    distribution function. So it is a function of the number alone, and an image changes gently while the limit falls.
    """
    z = noise.double()
    # Below zero, where F is small and so keeps all its digits; the map is odd. (torch.special.ndtr loses them, erfc does not.)
    rank = torch.erfc(z.abs() / sqrt(2)) / 2
    edge = torch.erfc(torch.tensor(limit / sqrt(2), dtype=torch.float64)) / 2
    cut = torch.special.ndtri(edge + rank * (1 - 2 * edge)).clamp(-limit, 0)
    return torch.copysign(cut, z).to(noise.dtype)


def check_truncation(limit: float) -> float:
    """`limit`. Raises UserError unless noise can be cut off there."""
    if not 0 < limit < inf:
        raise UserError(f"truncation {limit}", "--truncation", "give a number above 0, such as 0.7; leave it out for none")
    return limit


def require(model: LatentModel, capability: type, verb: str) -> None:
    """Raise UserError where the model lacks a capability."""
    if not isinstance(model, capability):
        raise UserError(
            f"this model cannot {verb}",
            type(model).__module__.rpartition(".")[2],
            f"`lgm models` lists the models; take one that can {verb}",
        )


def require_of_part(part: LatentModel, capability: type, where: str, name: str) -> None:
    """Raise UserError where a model that is to be a part lacks a capability, or can be asked only with a condition."""
    if not isinstance(part, capability):
        verbs = " and ".join(sorted(key for key in vars(capability) if not key.startswith("_") and callable(getattr(capability, key))))
        raise UserError(f"a {name} cannot {verbs}", where, "give the run of a model that can (`lgm models`)")
    if condition_of(part) is not None:
        raise UserError(f"a {name} has to be told what images show", where, "give the run of a model without condition")


def sample(
    model: LatentModel,
    count: int,
    seed: int,
    first: int = 0,
    batch: int = 256,
    condition: Tensor | None = None,
    truncation: float | None = None,
    examples: Tensor | None = None,
) -> Iterator[np.ndarray]:
    """Yield samples `first` to `first + count` as uint8 (up to `batch`, H, W, C). Image i depends on (seed, i) and on what follows alone.

    Args:
        condition: what all of them show, () int64 or (A,) float32; None for what `asked` says.
        truncation: cut the noise off there, see `truncated`.
        examples: for `asked`.
    """
    require(model, Samples, "sample")
    device = next(model.parameters()).device
    ahead = first % BLOCK  # blocks start at multiples of BLOCK, so that image i has the same place in the same block every time
    step = max(batch // BLOCK, 1) * BLOCK
    for start in range(first - ahead, first + count, step):
        stop = min(start + step, first + count)
        noise = image_noise(seed, range(start, stop), model.noise_shape)
        noise = noise if truncation is None else truncated(noise, truncation)
        shown = asked(model, range(start, stop), examples) if condition is None else condition.expand(stop - start, *condition.shape)
        with evaluating(model):
            made = to_uint8(samples_of(model, noise, shown, device)).numpy()
        yield made[max(first - start, 0) :]


def reconstruct(model: LatentModel, images: np.ndarray, condition: Tensor | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Encode and decode uint8 (N, H, W, C), which show `condition` (N, ...), where the model has to be told.

    Returns the reconstructions, uint8 of the same shape, and each image's mean squared error (N,) in units where black is 0 and white 1.
    """
    require(model, Encodes, "reconstruct")
    device = next(model.parameters()).device
    original = to_float(torch.from_numpy(images))
    with evaluating(model):
        again = reconstructions_of(model, original, condition, device)
    error = ((again - original) / 2).square().flatten(1).mean(1)
    return to_uint8(again).numpy(), error.numpy()


@dataclass(frozen=True)
class Projection:
    """Noise found for images, and what the model makes of it.

    Attributes:
        noise: (N, *noise_shape) float32.
        error: (N,) mean squared error of the images made from it, black 0, white 1.
        images: uint8 (N, H, W, C), the images made from it.
        condition: what they were asked to show, (N,) or (N, A); None for a model without condition.
    """

    noise: Tensor
    error: np.ndarray
    images: np.ndarray
    condition: Tensor | None = None


def project(
    model: LatentModel,
    images: np.ndarray,
    *,
    condition: Tensor | None = None,
    known: np.ndarray | None = None,
    steps: int = 300,
    restarts: int = 4,
    lr: float = 0.1,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Projection:
    """Search the noise z of each image by gradient: min ||x - sample(z)||^2, from `restarts` random starts at once, the best kept.

    A weak pull towards |z|^2 = dim keeps z where the generator was trained. The learning rate falls to zero along a cosine. Image i's
    starts depend on (seed, i) alone; `BLOCK` images are searched at a time.

    Args:
        images: uint8 (N, H, W, C) of the model's shape.
        condition: what each image shows, (N,) or (N, A), for a model that has to be told.
        known: bool (N, H, W), at least one of each image: only these pixels count, in the search and in the error.
        progress: called with (steps done, steps in all).
    """
    require(model, Samples, "project")
    device = next(model.parameters()).device
    blocks = range(0, len(images), BLOCK)
    found = []
    for number, first in enumerate(blocks):
        target = to_float(torch.from_numpy(images[first : first + BLOCK])).to(device).repeat_interleave(restarts, 0)
        start = image_noise(seed, range(first * restarts, first * restarts + len(target)), model.noise_shape, "project").to(device)
        shown = None if condition is None else condition[first : first + BLOCK].to(device).repeat_interleave(restarts, 0)
        weight = None if known is None else _weights(known[first : first + BLOCK]).to(device).repeat_interleave(restarts, 0)

        def advance(step: int, done: int = number * steps) -> None:
            progress(done + step, len(blocks) * steps)

        found.append(_search(model, target, start, shown, weight, restarts, steps, lr, advance))
    noise, error = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Projection(noise, error.numpy(), images_from(model, noise, "noise", condition), condition)


def _weights(known: np.ndarray) -> Tensor:
    """(N, H, W) bool -> (N, 1, H, W) float32, 0 where a pixel is not known, and such that a mean over all is one over the known."""
    weight = torch.from_numpy(known).float().unsqueeze(1)
    return weight / weight.mean((1, 2, 3), keepdim=True)


def _search(
    model: LatentModel,
    target: Tensor,
    start: Tensor,
    condition: Tensor | None,
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
                squares = ((ask(model, "sample", noise, condition) - target) / 2).square()
                error = (squares if weight is None else squares * weight).flatten(1).mean(1)
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
            progress(step + 1)
    count = len(target) // restarts
    chosen = best_error.view(count, restarts).argmin(1) + torch.arange(count, device=target.device) * restarts
    return best_noise[chosen].cpu(), best_error[chosen].cpu()


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


def images_from(model: LatentModel, points: Tensor, space: Literal["code", "noise"], condition: Tensor | None = None) -> np.ndarray:
    """Latents or noise (N, ...), and what is asked for (N, ...), if anything -> uint8 (N, H, W, C)."""
    device = next(model.parameters()).device
    with evaluating(model):
        return to_uint8(ask_in_blocks(model, "sample" if space == "noise" else "decode", points, condition, device)).numpy()


def grid(images: np.ndarray | Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Lay uint8 images (N, H, W, C) out in rows of `columns`, or of all where they are fewer: one picture, uint8 (height, width, C)."""
    images = np.asarray(images)
    count, height, width, channels = images.shape
    columns = min(columns, count)
    picture = np.full((*grid_size(count, columns, (height, width)), channels), 255, dtype=np.uint8)
    for n, image in enumerate(images):
        top, left = GAP + (n // columns) * (height + GAP), GAP + (n % columns) * (width + GAP)
        picture[top : top + height, left : left + width] = image
    return picture


def grid_size(count: int, columns: int, size: tuple[int, int], lists: int = 1) -> tuple[int, int]:
    """Height and width of the grid of `lists` lists of `count` images of `size` (height, width), each list beginning a row of its own."""
    columns = min(columns, count)
    rows = lists * -(-count // columns)
    return rows * (size[0] + GAP) + GAP, columns * (size[1] + GAP) + GAP


def columns_for(count: int) -> int:
    """As many columns as make the grid about square."""
    return max(1, int(np.ceil(np.sqrt(count))))


def pairs(above: np.ndarray, below: np.ndarray, columns: int) -> np.ndarray:
    """A grid in which every row of `above` (N, H, W, C) has the matching row of `below` under it."""
    rows = [part[start : start + columns] for start in range(0, len(above), columns) for part in (above, below)]
    blank = np.full_like(above[:1], 255)
    padded = [np.concatenate([row, np.repeat(blank, columns - len(row), 0)]) if len(row) < columns else row for row in rows]
    return grid(np.concatenate(padded), columns)


def rows(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """A grid in which every list of images (N, H, W, C) begins a row of its own."""
    columns = min(columns, max(map(len, images)))
    blank = np.full_like(images[0][:1], 255)
    filled = [np.concatenate([part, np.repeat(blank, -len(part) % columns, 0)]) for part in images]
    return grid(np.concatenate(filled), columns)
