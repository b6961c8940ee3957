"""Naming what images show: classes, people or attributes, and how often that is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw

from models.base import Classifies, LatentModel
from models.capabilities import pictures, verb
from models.capabilities.ask import device_of, evaluating, in_blocks, models_with
from models.data.batches import to_float
from models.data.items import Items
from models.errors import UserError

if TYPE_CHECKING:
    from models.capabilities.trained import Trained

BLOCK = 256  # images that are fetched at a time
LARGEST = 40  # classes of a confusion matrix that is drawn
_CELL = 22  # pixels


@dataclass(frozen=True)
class Judged:
    """What a classifier says of a data set whose labels are known.

    Attributes:
        names: of the classes, people or attributes.
        probabilities: (N, K). truth: (N,) numbers, or (N, A) in {0, 1}.
        accuracy: the share of right answers. confusion: (K, K), rows are the truth, columns what is said; None for attributes.
        each: of each class how many of its images are named right, of each attribute how often the answer is; NaN where there is none.
    """

    names: tuple[str, ...]
    probabilities: np.ndarray
    truth: np.ndarray
    accuracy: float
    confusion: np.ndarray | None
    each: np.ndarray


@verb
def classify(trained: Trained, images: np.ndarray) -> np.ndarray:
    """What images (N, H, W, C) uint8 show: probabilities (N, K) float32 of each class (they sum to 1), or of each attribute.

    Raises UserError for a model that does not classify.
    """
    model = require_classifier(trained.model)
    assert isinstance(model, Classifies)
    with evaluating(trained.model):
        logits = in_blocks(model.classify, device_of(trained.model), to_float(torch.from_numpy(images))).float()
    return (torch.sigmoid(logits) if model.target == "attributes" else torch.softmax(logits, 1)).numpy()


def names_of(model: LatentModel) -> tuple[str, ...]:
    """What a classifier's answers are called, in order."""
    target, spec = target_of(require_classifier(model)), model.spec
    if target == "identity":
        return tuple(map(str, range(spec.identities)))
    return spec.classes if target == "label" else spec.attributes


@verb
def judge(trained: Trained, data: Items, most: int | None = None, advance: Callable[[int, int], None] = lambda done, total: None) -> Judged:
    """How often the classifier is right about the first `most` items of data, or about all. Raises UserError where these do not say.

    Classes and attributes go by their names, people by their numbers. `advance` is told images done, and how many there are.
    """
    target, names = target_of(require_classifier(trained.model)), names_of(trained.model)
    count = min(len(data), most or len(data))
    index = np.arange(count)
    truth = _truth(data, target, names, index)
    found = []
    for start in range(0, count, BLOCK):
        found.append(classify(trained, data.rows("image", index[start : start + BLOCK])))
        advance(min(start + BLOCK, count), count)
    probabilities = np.concatenate(found)
    if target == "attributes":
        right = (probabilities > 0.5) == truth
        return Judged(names, probabilities, truth, float(right.mean()), None, right.mean(0))
    said = probabilities.argmax(1)
    confusion = np.zeros((len(names), len(names)), np.int64)
    np.add.at(confusion, (truth, said), 1)
    with np.errstate(invalid="ignore"):
        each = confusion.diagonal() / confusion.sum(1)
    return Judged(names, probabilities, truth, float((said == truth).mean()), confusion, each)


def require_classifier(model: LatentModel) -> LatentModel:
    """The model itself. Raises UserError for one that does not classify."""
    if not isinstance(model, Classifies) or not model.target:
        where = type(model).__module__.rpartition(".")[2]
        raise UserError("this model does not classify", where, f"take a run of one that does: {models_with('classify')}")
    return model


def says(data: Items, model: LatentModel) -> bool:
    """Whether data say what a classifier tells."""
    return target_of(model) in data.fields


def target_of(model: LatentModel) -> str:
    """What a classifier tells: label, identity or attributes."""
    return str(getattr(model, "target", ""))


def _truth(data: Items, target: str, names: tuple[str, ...], index: np.ndarray) -> np.ndarray:
    """What the data say of the items, in the classifier's numbers. Raises UserError where they say something else."""
    if target not in data.fields:
        raise UserError(f"these data have no {target}", data.name, "classify them without asking how often it is right, or take others")
    field, rows = data.fields[target], data.rows(target, index)
    if target == "identity":
        if field.count > len(names):
            raise UserError(f"{field.count} people, the classifier knows {len(names)}", data.name, "take the data that it was trained on")
        return rows
    asked, known = (field.names, names) if target == "label" else (names, field.names)
    if unknown := [name for name in asked if name not in known]:
        what = f"the classifier does not know {unknown[0]!r}" if target == "label" else f"these data do not say {unknown[0]!r}"
        raise UserError(what, data.name, "take data with the classes or attributes that it was trained on")
    if target == "label":
        return np.array([names.index(name) for name in field.names], np.int64)[rows]
    return rows[:, [field.names.index(name) for name in names]]


def picture(found: Judged) -> np.ndarray:
    """A confusion matrix, uint8 (H, W, 1): each row's shares, the darker the more; rows are the truth. Raises UserError for too many."""
    if found.confusion is None or len(found.names) > LARGEST:
        what = "attributes have no confusion matrix" if found.confusion is None else f"{len(found.names)} classes are too many to draw"
        raise UserError(what, "-o", "leave it out; --json has the numbers")
    count = len(found.names)
    font = pictures.font()
    labels = [name if len(name) <= 18 else f"{name[:17]}." for name in found.names]
    side = 8 + int(max(font.getlength(label) for label in labels))
    image = Image.new("L", (side + count * _CELL + 8, side + count * _CELL + 8), 255)
    draw = ImageDraw.Draw(image)
    shares = found.confusion / np.maximum(found.confusion.sum(1, keepdims=True), 1)
    for row, label in enumerate(labels):
        top = side + row * _CELL
        draw.text((side - 4 - font.getlength(label), top + 5), label, fill=0, font=font)
        upright = Image.new("L", (side, _CELL), 255)
        ImageDraw.Draw(upright).text((4, 5), label, fill=0, font=font)
        image.paste(upright.rotate(90, expand=True), (top, 0))
        for column in range(count):
            share = float(shares[row, column])
            left = side + column * _CELL
            draw.rectangle((left, top, left + _CELL - 2, top + _CELL - 2), fill=round(255 - 215 * share**0.5))
            if share >= 0.005:
                text = f"{100 * share:.0f}"
                draw.text((left + (_CELL - 2 - font.getlength(text)) / 2, top + 5), text, fill=255 if share > 0.25 else 0, font=font)
    return np.asarray(image)[..., None]
