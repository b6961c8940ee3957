"""What images are said to show: from a user's words (`sneaker`, `3`, `smile=1`) to what a model's `sample`, `encode` and `decode` take.

A conditional model is asked by `label` (a class), by `identity` (the number of a person or thing) or by `attributes` (a vector of 0 and 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import DataSpec
from models.data.items import Items
from models.data.sources import FolderSource
from models.errors import UserError, nearest, printable

Label = str | int | Sequence[str | int] | np.ndarray
Attributes = Mapping[str, Any] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Condition:
    """One thing that images can be asked to show.

    Attributes:
        name: for people: a class's name, `identity 12`, or the attributes that are 1.
        stem: begins the names of files that show it; empty for attributes.
        value: what `sample` takes for one image: () int64, or (A,) float32 of 0 and 1 for attributes.
    """

    name: str
    stem: str
    value: Tensor


def number_of(kind: str | None, spec: DataSpec) -> int:
    """How many classes or identities there are to choose from; 0 for attributes and for models without condition."""
    return {"label": len(spec.classes), "identity": spec.identities}.get(kind or "", 0)


def argument_of(kind: str | None) -> str:
    """The argument of Python, and the option of the commands, that says what is shown: `label`, for identities as well, or `attributes`."""
    return "attributes" if kind == "attributes" else "label"


def each(kind: str | None, spec: DataSpec, limit: int | None = None) -> list[Condition]:
    """The classes or identities in order, the first `limit` of them."""
    return [_numbered(kind, spec, number) for number in range(number_of(kind, spec))[:limit]]


def default(kind: str | None, spec: DataSpec) -> Condition | None:
    """What the first sample shows where nobody says: the first class or identity, no attribute. None for models without condition."""
    return _with_attributes(spec, {}) if kind == "attributes" else next(iter(each(kind, spec, 1)), None)


def resolve(kind: str | None, spec: DataSpec, label: Label | None = None, attributes: Attributes | None = None) -> list[Condition]:
    """What `label` or `attributes` ask a model of that kind for, in the order asked. Empty where neither is given.

    Args:
        label: a class's name or number, or several. A text that is no class's name is split at its commas; a name counts before a number.
            For models that are asked by identity, its number.
        attributes: name -> 0 or 1, what is not named is 0; or several of these.

    Raises UserError for what the model cannot be asked, with the nearest match.
    """
    for flag, given, fits in (("label", label, kind in ("label", "identity")), ("attributes", attributes, kind == "attributes")):
        if given is not None and not fits:
            if kind is None:
                raise UserError("this model takes no condition, it was trained without", f"--{flag}", "leave it out")
            raise UserError(f"this model is asked by {kind}, not by {flag}", f"--{flag}", f"use --{argument_of(kind)}")
    if attributes is not None:
        several = [attributes] if isinstance(attributes, Mapping) else attributes
        return [_with_attributes(spec, asked) for asked in several]
    if label is None:
        return []
    words = list(label) if isinstance(label, Iterable) and not isinstance(label, str) else [label]
    numbers = [number for word in words for number in _numbers(kind, spec, word)]
    if not numbers:
        raise UserError("no label is named", "--label", "give a class's name or number")
    return [_numbered(kind, spec, number) for number in numbers]


def named(kind: str | None, spec: DataSpec, value: Tensor) -> Condition:
    """The condition of one value: () int64, or (A,) of 0 and 1 for attributes."""
    if kind == "attributes":
        return _with_attributes(spec, {name: int(given) for name, given in zip(spec.attributes, value.tolist(), strict=True)})
    return _numbered(kind, spec, int(value))


def soft(kind: str | None, spec: DataSpec, condition: Condition) -> Tensor:
    """A condition's value as one that can be mixed with others: shares of the classes or identities (K,), or attributes (A,); float32."""
    return condition.value if kind == "attributes" else F.one_hot(condition.value, number_of(kind, spec)).float()


TRUTH = "true"  # `--label true`: what the data say


def told(
    kind: str | None,
    spec: DataSpec,
    label: Sequence[str] | None,
    attributes: Sequence[str] | None,
    truth: list[Any] | None,
    trusting: bool = True,
) -> dict[str, Any]:
    """What images show, as the arguments `label` and `attributes` of Python: from the words of a command, or from the data.

    Args:
        label, attributes: the words of --label and --attributes.
        truth: what the data say, or None (see `truth`).
        trusting: whether the data are believed where no word is said; with the one word `true`, unless that is a class, they always are.
    """
    asked = list(label or []) == [TRUTH] and kind is not None and TRUTH not in spec.classes
    if asked and truth is None:
        raise UserError(f"the images come without {kind}", "--label true", "name it, or take items of labelled data (mnist:test)")
    if truth is not None and (asked or (trusting and not label and not attributes)):
        return {argument_of(kind): truth}
    return {"label": label or None, "attributes": parse_attributes(attributes)}


def parse_attributes(words: Sequence[str] | None) -> dict[str, str] | None:
    """`smile=1,glasses=0`, in one word or several, as name -> value; None without words. Raises UserError for what is not like that."""
    if not words:
        return None
    found = {}
    for part in (part.strip() for word in words for part in word.split(",")):
        name, equals, value = part.rpartition("=")
        if not equals or not name:
            raise UserError(f"{printable(part)!r} is not NAME=0 or NAME=1", "--attributes", "write it as --attributes smile=1,glasses=0")
        found[name.strip()] = value.strip()
    return found


def truth(kind: str | None, spec: DataSpec, data: Items, items: Iterable[int]) -> list[Any] | None:
    """What the data say that these items show, as `resolve` takes it: class names, identities or attributes. None where they do not say.

    Classes and attributes go by their names, because other data may number them otherwise.
    """
    index = np.array(list(items), np.int64)
    if kind == "attributes":
        columns = _columns(spec, data)
        rows = None if columns is None else data.rows("attributes", index)[:, columns]
        return None if rows is None else [dict(zip(spec.attributes, row.tolist(), strict=True)) for row in rows]
    if kind is None or kind not in data.fields or (kind == "label" and not data.fields["label"].names):
        return None
    numbers = data.rows(kind, index).tolist()
    return [data.fields["label"].names[number] for number in numbers] if kind == "label" else numbers


def examples(kind: str | None, spec: DataSpec, data: Items | FolderSource) -> Tensor | None:
    """What all items show, as a model of that kind is told it: (N,) int64, or (N, A) float32 for attributes.

    None where the data do not say, or name something that the model does not know. Classes and attributes go by their names.
    """
    if kind == "attributes":
        columns = _columns(spec, data)
        return None if columns is None else torch.from_numpy(data.all("attributes")[:, columns].astype(np.float32))
    field = data.fields.get(kind or "")
    if kind == "label" and field is not None and field.names and set(field.names) <= set(spec.classes):
        return torch.from_numpy(np.array([spec.classes.index(name) for name in field.names])[data.all("label")])
    if kind == "identity" and field is not None and field.count <= spec.identities:
        return torch.from_numpy(data.all("identity").astype(np.int64))
    return None


def _columns(spec: DataSpec, data: Items | FolderSource) -> list[int] | None:
    """Where the model's attributes stand among the data's, or None where some are missing."""
    names = data.fields["attributes"].names if "attributes" in data.fields else ()
    if "attributes" not in data.fields or not set(spec.attributes) <= set(names):
        return None
    return [names.index(name) for name in spec.attributes]


def _numbered(kind: str | None, spec: DataSpec, number: int) -> Condition:
    value, digits = torch.tensor(number), len(str(number_of(kind, spec) - 1))
    if kind == "identity":
        return Condition(f"identity {number}", f"{number:0{digits}}", value)
    name = spec.classes[number]
    slug = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:40]  # a class may be called t-shirt/top
    return Condition(name, f"{number:0{digits}}" + (f"-{slug}" if slug not in ("", str(number)) else ""), value)


def _numbers(kind: str | None, spec: DataSpec, word: str | int) -> list[int]:
    """The classes or identities that one word names."""
    if not isinstance(word, str):
        return [_in_range(kind, spec, index(word))]
    names = {} if kind == "identity" else {name: number for number, name in enumerate(spec.classes)}
    parts = [word] if word in names else [part.strip() for part in word.split(",") if part.strip()]
    return [names[part] if part in names else _in_range(kind, spec, _as_number(kind, spec, part)) for part in parts]


def _as_number(kind: str | None, spec: DataSpec, word: str) -> int:
    if word.isascii() and word.isdigit() and len(word) < 12:
        return int(word)
    if kind == "identity":
        raise UserError(f"{printable(word)!r} is no identity", "--label", f"give a number from 0 to {spec.identities - 1}")
    raise UserError(f"unknown label {printable(word)!r}", "--label", printable(nearest(word, spec.classes)))


def _in_range(kind: str | None, spec: DataSpec, number: int) -> int:
    count = number_of(kind, spec)
    if not 0 <= number < count:
        things, name = ("identities", "") if kind == "identity" else ("classes", ", or a class's name")
        raise UserError(f"label {number} of {count} {things}", "--label", f"give a number from 0 to {count - 1}{name}")
    return number


def _with_attributes(spec: DataSpec, asked: Mapping[str, Any]) -> Condition:
    value = torch.zeros(len(spec.attributes))
    for name, given in asked.items():
        if name not in spec.attributes:
            raise UserError(f"unknown attribute {printable(name)!r}", "--attributes", printable(nearest(name, spec.attributes)))
        if given not in (0, 1, "0", "1"):
            raise UserError(f"{name}={printable(given)} is neither 0 nor 1", "--attributes", f"write {name}=0 or {name}=1")
        value[spec.attributes.index(name)] = int(given)
    named = [name for name, set_ in zip(spec.attributes, value.tolist(), strict=True) if set_]
    return Condition(" ".join(named) or "no attribute", "", value)
