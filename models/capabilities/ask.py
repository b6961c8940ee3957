"""How a trained model is asked: in eval mode, in blocks of one size, with what it has to be told.

Images are made in blocks of one size (`models.device.block_of`), the last one filled up, whatever number is asked for: matrix products of
another shape round differently, so only a fixed shape makes image i depend on its noise alone, to the last bit. (A projection searches a
block at once.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from models.base import Classifies, Field, LatentModel, Maps
from models.capabilities.told import Told, arguments, condition_of
from models.data.batches import quantised
from models.device import arithmetic, block_of, sent
from models.errors import UserError
from models.registry import MODELS

FETCHED = 64 * 2**20  # bytes of results that are fetched from the device together
SEARCHED = 16  # images that are searched at a time, each from several starts, with gradients
TRACE = (0, 1, 2, 5, 20)  # steps after which the way to an answer is shown
Capability = Literal["sample", "encode", "decode"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the block, without gradients, as exact as the model was trained; every module's own mode is restored afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), arithmetic(device_of(model), model.fast if isinstance(model, LatentModel) else False):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def device_of(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def in_blocks(function: Callable[..., Tensor], device: torch.device, *inputs: Tensor) -> Tensor:
    """Apply `function` to blocks of exactly `block_of(device)` rows of the inputs on `device`; the result is on the CPU, float or uint8."""
    block = block_of(device)
    made: list[Tensor] = []
    fetched: list[Tensor] = []
    for parts in zip(*(rows.split(block) for rows in inputs), strict=True):
        count = len(parts[0])
        full = [torch.cat([part, part[-1:].expand(block - count, *part.shape[1:])]) if count < block else part for part in parts]
        result = function(*(sent(part, device) for part in full))[:count]
        made.append(result if result.dtype == torch.uint8 else result.float())
        if len(made) * made[0].nbytes >= FETCHED:
            fetched.append(torch.cat(made).cpu())
            made.clear()
    return torch.cat([*fetched, *([torch.cat(made).cpu()] if made else [])])


def ask(model: LatentModel, capability: Capability, given: Tensor, shown: Tensor | None = None) -> Tensor:
    """`model.sample`, `encode` or `decode`: what it is given (B, ...), and what is shown (B, ...) where it has to be told."""
    kind = condition_of(model) if shown is not None else None
    told = {kind: shown} if kind and kind in arguments(model, capability) else {}
    made: Tensor = getattr(model, capability)(given, **told)
    return made


def ask_in_blocks(model: LatentModel, capability: Capability, given: Tensor, told: Told | None = None) -> Tensor:
    """`ask` in blocks: (N, ...) and what is shown, a row for each, if anything -> (N, ...), on the CPU."""
    rows = [given] if told is None else [given, told.values]
    return in_blocks(partial(ask, model, capability), device_of(model), *rows)


def pictures_in_blocks(function: Callable[..., Tensor], device: torch.device, *inputs: Tensor) -> np.ndarray:
    """The same for a function that makes images: uint8 (N, H, W, C)."""
    return in_blocks(lambda *parts: quantised(function(*parts)), device, *inputs).numpy()


def variants_in_blocks(function: Callable[..., Tensor], device: torch.device, noise: Tensor, *given: Tensor) -> np.ndarray:
    """What `function` makes of each of the N items `given` with every noise (K, D), or with those of its own (N, K, D).

    uint8 (N, K, H, W, C).
    """
    number, count = len(given[0]), noise.shape[-2]
    rows = [each.repeat_interleave(count, 0) for each in given]
    made = pictures_in_blocks(function, device, *rows, noise.expand(number, -1, -1).flatten(0, 1))
    return made.reshape(number, count, *made.shape[1:])


def mapped(model: Maps, noise: Tensor) -> Tensor:
    """The codes that a model maps noise (N, ...) to, in blocks: (N, latent), on the CPU."""
    assert isinstance(model, nn.Module)
    with evaluating(model):
        return in_blocks(model.map, device_of(model), noise)


def images_from(model: LatentModel, points: Tensor, space: Literal["code", "noise"], told: Told | None = None) -> np.ndarray:
    """Codes or noise (N, ...), and what is asked for, if anything -> uint8 (N, H, W, C)."""
    rows = [points] if told is None else [points, told.values]
    with evaluating(model):
        return pictures_in_blocks(partial(ask, model, "sample" if space == "noise" else "decode"), device_of(model), *rows)


def stepwise(model: LatentModel, method: str, iterations: int | None) -> Callable[..., Tensor]:
    """A method of the model that finds its answers in so many steps; None: in as many as it was trained with.

    Raises UserError where a number is given and the model takes none.
    """
    way: Callable[..., Tensor] = getattr(model, method)
    if iterations is None:
        return way
    if "iterations" not in arguments(model, method):
        where = type(model).__module__.rpartition(".")[2]
        raise UserError("this model's answers are found at once, not step by step", where, "leave --iterations and --trace out")
    if not 0 <= iterations <= 10_000:
        raise UserError(f"{iterations} iterations", "--iterations", "give a number from 0 to 10,000")
    return partial(way, iterations=iterations)


def size_of(model: LatentModel, *capabilities: str) -> tuple[int, int]:
    """(height, width) of the images that a method of the model makes; of several, the largest of those that it has, if any."""
    shapes = [require_images(model, capability).shape for capability in capabilities if getattr(model, capability, None)] or [
        model.spec.shape
    ]
    return max(shape[1] for shape in shapes), max(shape[2] for shape in shapes)


# --- what a model can be asked --------------------------------------------------------------------------------------------------------


def require(model: LatentModel, capability: type, verb: str) -> None:
    """Raise UserError where the model lacks a capability."""
    if not isinstance(model, capability):
        raise UserError(
            f"this model cannot {verb}",
            type(model).__module__.rpartition(".")[2],
            f"`lgm models` lists the models; take one that can {verb}",
        )


def models_with(*methods: str) -> str:
    """The models of the zoo that have all these methods, for a message."""
    return ", ".join(name for name, entry in MODELS.entries().items() if set(methods) <= set(entry.methods()))


def require_of_part(part: LatentModel, capability: type, where: str, name: str) -> None:
    """Raise UserError where a model that is to be a part lacks a capability, or can be asked only with a condition."""
    if not isinstance(part, capability):
        verbs = " and ".join(sorted(key for key in vars(capability) if not key.startswith("_") and callable(getattr(capability, key))))
        raise UserError(f"a {name} cannot {verbs}", where, "give the run of a model that can (`lgm models`)")
    if condition_of(part) is not None:
        raise UserError(f"a {name} has to be told what images show", where, "give the run of a model without condition")


def require_images(model: LatentModel, capability: str) -> Field:
    """What a method of the model gives. Raises UserError where that is no image."""
    made = model.gives(capability)
    if made.kind != "image":
        where = type(model).__module__.rpartition(".")[2]
        raise UserError(f"what it {capability}s is no image, but a {made.kind}", where, "take the run of a model that makes images")
    return made


def require_alike(model: LatentModel, capability: Capability, verb: str) -> None:
    """Raise UserError where what the model makes cannot be compared with its own images, because it is of another kind or shape."""
    made, own = model.gives(capability), model.spec.fields["image"]
    if (made.kind, made.shape) != (own.kind, own.shape):
        what = f"this model makes {made.kind} {made.shape} from {own.kind} {own.shape}, so it cannot {verb}"
        raise UserError(what, type(model).__module__.rpartition(".")[2], "take a model that makes images like its own")


def classifies(model: LatentModel) -> TypeGuard[Classifies]:
    """Whether the model has a classifier of its own for what it has to be told."""
    kind = condition_of(model)
    return kind is not None and isinstance(model, Classifies) and model.target == kind


def classified(model: LatentModel, images: Tensor) -> Told | None:
    """What images (N, C, H, W) in [-1, 1] most likely show in the eyes of the model's own classifier.

    None for a model that has no classifier of what it has to be told. Call it in eval mode.
    """
    return read_by(model, images) if classifies(model) else None


def read_by(classifier: Classifies, images: Tensor) -> Told:
    """What images (N, C, H, W) in [-1, 1] most likely show in the eyes of a model that classifies. Call it in eval mode."""
    assert isinstance(classifier, LatentModel)
    logits = in_blocks(classifier.classify, device_of(classifier), images)
    return Told(classifier.target, classifier.spec, (logits > 0).float() if classifier.target == "attributes" else logits.argmax(1))
