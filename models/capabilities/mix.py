"""Images of two codes: some layers of one, all others of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from models.base import LatentModel, Maps, Mixes
from models.capabilities import inputs, verb
from models.capabilities.ask import device_of, evaluating, mapped, models_with, pictures_in_blocks
from models.capabilities.reconstruct import codes_of
from models.errors import UserError, nearest, printable
from models.randomness import image_noise

if TYPE_CHECKING:
    from models.capabilities.trained import Trained

End = int | np.ndarray  # a seed, or an image (H, W, C) uint8


@verb
def mix(trained: Trained, rows: Sequence[End], columns: Sequence[End], layers: str | Sequence[int] | None = None) -> np.ndarray:
    """Each of `rows` with what `layers` of each of `columns` say: uint8 (rows, columns, H, W, C).

    Args:
        rows, columns: seeds, as those of `sample`, and images (H, W, C).
        layers: those that the column decides; by numbers, or in words as for `parse_layers`; None: the model's first group.

    Raises UserError, also for a model that does not mix.
    """
    chosen = parse_layers(trained.model, layers) if layers is None or isinstance(layers, str) else list(layers)
    return crossed(trained.model, codes(trained.model, rows), codes(trained.model, columns), chosen)


@verb
def alone(trained: Trained, ends: Sequence[End]) -> np.ndarray:
    """Seeds and images as the model makes them without mixing: uint8 (N, H, W, C)."""
    found = codes(trained.model, ends)
    return mixed(trained.model, found, found, [])


def codes(model: LatentModel, ends: Sequence[End]) -> Tensor:
    """The codes of images and of seeds (N, latent), on the CPU. Raises UserError where the model has none for a seed."""
    require_mixes(model)
    found = []
    for end in ends:
        if not isinstance(end, int):
            found.append(codes_of(model, end[None].copy(), None))
        elif isinstance(model, Maps):
            found.append(mapped(model, image_noise(end, [0], model.noise_shape)))
        else:
            raise UserError(f"seed {end}: this model makes no codes of noise", "mix", "give images")
    return torch.cat(found)


def parse_layers(model: LatentModel, words: str | None) -> list[int]:
    """``coarse``, ``0-3`` or ``middle,7`` as numbers of layers, ascending; None: the first group. Raises UserError naming what there is."""
    require_mixes(model)
    assert isinstance(model, Mixes)
    groups = model.layer_groups
    words = next(iter(groups)) if words is None else words
    count = 1 + max(layer for group in groups.values() for layer in group)
    found: set[int] = set()
    for word in filter(None, (part.strip() for part in words.split(","))):
        first, dash, last = word.partition("-")
        if word in groups:
            found |= set(groups[word])
        elif first.isascii() and first.isdigit() and (last.isascii() and last.isdigit() if dash else True):
            begin, end = int(first[:6]), int((last or first)[:6])
            if not begin <= end < count:
                raise UserError(f"layers {word} of {count}", "--layers", f"give numbers from 0 to {count - 1}, the smaller first")
            found |= set(range(begin, end + 1))
        else:
            raise UserError(f"unknown layers {printable(word)!r}", "--layers", f"{nearest(word, groups)}, or numbers such as 0-3")
    if not found:
        raise UserError("no layers are named", "--layers", f"give {', '.join(groups)}, or numbers such as 0-3")
    return sorted(found)


def read_ends(trained: Trained, words: Sequence[str], number: int, data_root: str | None = None) -> tuple[list[str], list[End], list[str]]:
    """Seeds, image files and items, or the first `number` images of the one data set or folder that is named: their names, they, and
    their captions."""
    if len(words) == 1 and not words[0].removeprefix("seed:").isdigit():
        found = inputs.gather(trained, words, number, data_root)
        return found.names, list(found.images), found.captions
    ends, _, captions = zip(*(inputs.end(trained, word, data_root) for word in words), strict=True)
    return list(words), list(ends), list(captions)


def require_mixes(model: LatentModel) -> None:
    """Raise UserError for a model that cannot mix; it names those that can."""
    if not isinstance(model, Mixes):
        where = type(model).__module__.rpartition(".")[2]
        raise UserError("this model cannot mix", where, f"take a run of one that can: {models_with('mix')}")


def crossed(model: LatentModel, one: Tensor, other: Tensor, layers: Sequence[int]) -> np.ndarray:
    """Each of some codes (N, latent) with each of others (M, latent), which decide `layers`: uint8 (N, M, H, W, C)."""
    made = mixed(model, one.repeat_interleave(len(other), 0), other.repeat(len(one), 1), layers)
    return made.reshape(len(one), len(other), *made.shape[1:])


def mixed(model: LatentModel, one: Tensor, other: Tensor, layers: Sequence[int]) -> np.ndarray:
    """Codes (N, latent) twice -> uint8 (N, H, W, C): `layers` are those of `other`."""
    assert isinstance(model, Mixes)
    with evaluating(model):
        return pictures_in_blocks(lambda a, b: model.mix(a, b, layers), device_of(model), one, other)
