"""What images show: from anyone's words (`sneaker`, `3`, `smile=1`), or from the data's own labels, to what a model is told.

A conditional model is told by `label` (a class), by `identity` (the number of a person or thing) or by `attributes` (a vector of 0 and 1).
`Told` is what it is told of some images, and what is handed on from the command line to the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from operator import index
from typing import Any, TypeAlias, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import DataSpec, LatentModel
from models.data.items import Items
from models.data.sources import FolderSource
from models.errors import UserError, nearest, printable

# A class's name or number (an identity's number), or several; a text that is no class's name is split at its commas, and a name counts
# before a number. For models that are told by attributes: name -> 0 or 1, what is not named is 0; or several of these.
Words: TypeAlias = Union[str, int, Mapping[str, Any], Sequence[str | int | Mapping[str, Any]], np.ndarray, "Told"]
LABELS = ("label", "attributes")  # the fields that have names
TRUTH = "true"  # `--label true`: what the data say


@dataclass(frozen=True, eq=False)
class Told:
    """What images show: one row for each image, or one for all.

    Attributes:
        kind: label, identity or attributes.
        spec: of the data that the model has learned from; it has the names.
        values: (N,) int64; or (N, A) float32 of 0 and 1 for attributes; or, for what lies between classes, shares of them (N, K) float32.
    """

    kind: str
    spec: DataSpec
    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | Sequence[int] | np.ndarray | Tensor) -> Told:
        return replace(self, values=self.values[rows])

    @property
    def names(self) -> list[str]:
        """For people: a class's name, `identity 12`, or the attributes that are 1."""
        return [self._name(value) for value in self.values]

    @property
    def stems(self) -> list[str]:
        """The beginnings of names of files that show it; empty for attributes."""
        return [self._stem(int(value)) if self.kind != "attributes" else "" for value in self.values]

    @property
    def different(self) -> Told:
        """The same rows, each once, in the order in which they come first."""
        rows = {tuple(np.atleast_1d(value.numpy()).tolist()): number for number, value in reversed(list(enumerate(self.values)))}
        return self[sorted(rows.values())]

    def for_each(self, count: int) -> Told:
        """A row for each of `count` images. Raises UserError where there are neither as many nor one."""
        if len(self) not in (1, count):
            raise UserError(f"{len(self)} for {count} images", f"--{argument_of(self.kind)}", "give one for all, or one for each image")
        return replace(self, values=self.values.expand(count, *self.values.shape[1:]))

    def soft(self) -> Told:
        """The same as what can be mixed: shares of the classes or identities (N, K), or attributes (N, A); float32."""
        if self.kind == "attributes":
            return self
        return replace(self, values=F.one_hot(self.values, number_of(self.kind, self.spec)).float())

    def _name(self, value: Tensor) -> str:
        if self.kind == "attributes":
            return " ".join(name for name, given in zip(self.spec.attributes, value.tolist(), strict=True) if given) or "no attribute"
        return f"identity {int(value)}" if self.kind == "identity" else self.spec.classes[int(value)]

    def _stem(self, number: int) -> str:
        digits = len(str(number_of(self.kind, self.spec) - 1))
        slug = re.sub(r"[^\w.-]+", "-", self._name(torch.tensor(number))).strip("-.")[:40]  # a class may be called t-shirt/top
        named = self.kind == "label" and slug not in ("", str(number))
        return f"{number:0{digits}}" + (f"-{slug}" if named else "")


# --- what a model has to be told ------------------------------------------------------------------------------------------------------


def condition_of(model: LatentModel) -> str | None:
    """What a model has to be told besides noise, image or code: `label`, `identity`, `attributes`, or nothing.

    It is what its methods take and what it was trained with; a file may hold a model that takes labels under one option only.
    """
    asks = {name for capability in ("sample", "encode", "decode") for name in arguments(model, capability)}
    return next((name for name in ("label", "identity", "attributes") if name in asks and name in model.needs), None)


def arguments(model: LatentModel, capability: str) -> frozenset[str]:
    """The names of what a method of the model takes; empty where it has no such method."""
    return frozenset(signature(getattr(model, capability)).parameters) if getattr(model, capability, None) else frozenset()


def has_to_tell(model: LatentModel, *capabilities: str) -> bool:
    """Whether one of these methods takes what images show."""
    return any(condition_of(model) in arguments(model, capability) for capability in capabilities)


def argument_of(kind: str | None) -> str:
    """The option of the commands that says what is shown: `label`, for identities as well, or `attributes`."""
    return "attributes" if kind == "attributes" else "label"


def number_of(kind: str | None, spec: DataSpec) -> int:
    """How many classes or identities there are to choose from; 0 for attributes and for models without condition."""
    return {"label": len(spec.classes), "identity": spec.identities}.get(kind or "", 0)


def untold(model: LatentModel) -> UserError:
    kind = condition_of(model)
    what = f"nobody says which {kind} the images show"
    return UserError(what, f"--{argument_of(kind)}", "say it: this model has to be told")


# --- from words -----------------------------------------------------------------------------------------------------------------------


def resolve(model: LatentModel, words: Words | None) -> Told | None:
    """What words ask of a model, in the order asked; None where there are none.

    Raises UserError for what the model cannot be asked, with the nearest match.
    """
    if words is None:
        return None
    if (kind := condition_of(model)) is None:
        raise UserError("this model takes no condition, it was trained without", f"--{_argument_for(words)}", "leave it out")
    return in_words_of(kind, model.spec, words)


def _argument_for(words: Words) -> str:
    """The option of the commands by which words like these are said."""
    if isinstance(words, Told):
        return argument_of(words.kind)
    return "attributes" if any(isinstance(word, Mapping) for word in listed(words)) else "label"


def in_words_of(kind: str, spec: DataSpec, words: Words) -> Told:
    """What words say of images in the classes, people or attributes of `spec`, in the order given. Raises UserError as `resolve` does."""
    words = words if isinstance(words, Told) else listed(words)  # once: an iterator has its words only once
    several, by = [*words.values] if isinstance(words, Told) else words, _argument_for(words)
    if not several:
        raise UserError("nothing is named", f"--{argument_of(kind)}", "give a class's name or number, or attributes; or leave it out")
    if by != argument_of(kind):
        raise UserError(f"this model is asked by {kind}, not by {by}", f"--{by}", f"use --{argument_of(kind)}")
    if isinstance(words, Told):
        if (words.kind, *map(words.spec.names, LABELS)) != (kind, *map(spec.names, LABELS)) or words.spec.identities > spec.identities:
            raise UserError(f"this says which {words.kind} of other data are shown", f"--{by}", "say it in words of this model's data")
        return words
    if by == "attributes":
        return Told(kind, spec, torch.stack([_bits(spec, word) for word in several]))
    numbers = [number for word in several for number in _numbers(kind, spec, word)]
    if not numbers:
        raise UserError("no label is named", "--label", "give a class's name or number")
    return Told(kind, spec, torch.tensor(numbers))


def listed(words: Any) -> list[Any]:
    """Words one by one: a text, attributes by name and a number are one."""
    one = isinstance(words, (str, Mapping)) or not isinstance(words, Iterable) or getattr(words, "ndim", 1) == 0
    return [words] if one else [*words]


def of_command(
    model: LatentModel,
    label: Sequence[str] | None,
    attributes: Sequence[str] | None,
    truth: Words | None = None,
    trusting: bool = True,
    together: bool = False,
) -> Told | None:
    """What the words of --label and --attributes say, or the data.

    Args:
        truth: what the data say (see `truth`), or None.
        trusting: whether the data are believed where no word is said; with the one word `true`, unless that is a class, they always are.
        together: whether all words of --attributes are one row; otherwise each is one.
    """
    kind = condition_of(model)
    asked = list(label or []) == [TRUTH] and kind is not None and TRUTH not in model.spec.classes
    if asked and truth is None:
        raise UserError(f"the images come without {kind}", "--label true", "name it, or take items of labelled data (mnist:test)")
    if truth is not None and (asked or (trusting and not label and not attributes)):
        return resolve(model, truth)
    by_label = resolve(model, list(label) if label else None)
    rows = [parse_attributes(attributes)] if together else [parse_attributes([word]) for word in attributes or ()]
    return resolve(model, [row for row in rows if row is not None] or None) or by_label


def parse_attributes(words: Sequence[str] | None) -> dict[str, str] | None:
    """`smile=1,glasses=0`, in one word or several, as name -> value; None without words. Raises UserError for what is not like that."""
    if not words:
        return None
    found: dict[str, str] = {}
    for part in (part.strip() for word in words for part in word.split(",")):
        name, equals, value = part.rpartition("=")
        if not equals or not name:
            raise UserError(f"{printable(part)!r} is not NAME=0 or NAME=1", "--attributes", "write it as --attributes smile=1,glasses=0")
        name, value = name.strip(), value.strip()
        if found.setdefault(name, value) != value:
            raise UserError(f"{printable(name)} is to be {found[name]} and {printable(value)}", "--attributes", "say it once")
    return found


# --- where nobody says ----------------------------------------------------------------------------------------------------------------


def every(model: LatentModel, limit: int | None = None) -> Told | None:
    """The classes or identities in order, the first `limit` of them; None for a model that is not asked by them."""
    kind = condition_of(model)
    count = number_of(kind, model.spec)
    return Told(kind, model.spec, torch.arange(count)[:limit]) if kind and count else None


def in_turn(model: LatentModel, items: Iterable[int], examples: Told | None = None) -> Told | None:
    """What samples show where nobody says, or None for a model without condition.

    What `examples` show in turn, item i as example i mod their number. Without examples the classes (or identities) in turn, item i class
    i mod K; but no attribute, because few combinations of them occur.
    """
    kind, numbers = condition_of(model), torch.tensor(list(items), dtype=torch.int64)
    if kind is None:
        return None
    if examples is not None:
        return examples[numbers % len(examples)]
    if kind == "attributes":
        return Told(kind, model.spec, torch.zeros(len(numbers), len(model.spec.attributes)))
    count = number_of(kind, model.spec)
    return Told(kind, model.spec, numbers % count) if count else None


# --- from data ------------------------------------------------------------------------------------------------------------------------


def truth(model: LatentModel, data: Items, items: Iterable[int]) -> Words | None:
    """What the data say that these items show, in words: class names, identities or attributes. None where they do not say.

    Classes and attributes go by their names, because other data may number them otherwise.
    """
    kind, spec, rows = condition_of(model), model.spec, np.array(list(items), np.int64)
    if kind == "attributes":
        columns = _columns(spec, data)
        bits = None if columns is None else data.rows("attributes", rows)[:, columns]
        return None if bits is None else [dict(zip(spec.attributes, row.tolist(), strict=True)) for row in bits]
    if kind is None or kind not in data.fields or (kind == "label" and not data.fields["label"].names):
        return None
    numbers: list[int] = data.rows(kind, rows).tolist()
    return [data.fields["label"].names[number] for number in numbers] if kind == "label" else numbers


def of_all(model: LatentModel, data: Items | FolderSource) -> Told | None:
    """What all items show. None where the data do not say, or name something that the model does not know. Names count, as for `truth`."""
    kind, spec = condition_of(model), model.spec
    field = data.fields.get(kind or "")
    values: np.ndarray | None = None
    if kind == "attributes" and (columns := _columns(spec, data)) is not None:
        values = data.all("attributes")[:, columns].astype(np.float32)
    elif kind == "label" and field is not None and field.names and set(field.names) <= set(spec.classes):
        values = np.array([spec.classes.index(name) for name in field.names])[data.all("label")]
    elif kind == "identity" and field is not None and field.count <= spec.identities:
        values = data.all("identity").astype(np.int64)
    return None if values is None or kind is None else Told(kind, spec, torch.from_numpy(values))


def _columns(spec: DataSpec, data: Items | FolderSource) -> list[int] | None:
    """Where the model's attributes stand among the data's, or None where some are missing."""
    names = data.fields["attributes"].names if "attributes" in data.fields else ()
    if "attributes" not in data.fields or not set(spec.attributes) <= set(names):
        return None
    return [names.index(name) for name in spec.attributes]


# --- words, one by one ----------------------------------------------------------------------------------------------------------------


def _numbers(kind: str, spec: DataSpec, word: Any) -> list[int]:
    """The classes or identities that one word names."""
    if not isinstance(word, str):
        try:
            return [_in_range(kind, spec, index(word))]
        except TypeError:
            raise UserError(f"{printable(word)!r} is no label", "--label", "give a class's name or number") from None
    names = {} if kind == "identity" else {name: number for number, name in enumerate(spec.classes)}
    parts = [word] if word in names else [part.strip() for part in word.split(",") if part.strip()]
    return [names[part] if part in names else _in_range(kind, spec, _as_number(kind, spec, part)) for part in parts]


def _as_number(kind: str, spec: DataSpec, word: str) -> int:
    if word.isascii() and word.isdigit() and len(word) < 12:
        return int(word)
    if kind == "identity":
        raise UserError(f"{printable(word)!r} is no identity", "--label", f"give a number from 0 to {spec.identities - 1}")
    raise UserError(f"unknown label {printable(word)!r}", "--label", printable(nearest(word, spec.classes)))


def _in_range(kind: str, spec: DataSpec, number: int) -> int:
    count = number_of(kind, spec)
    if not 0 <= number < count:
        things, name = ("identities", "") if kind == "identity" else ("classes", ", or a class's name")
        raise UserError(f"label {number} of {count} {things}", "--label", f"give a number from 0 to {count - 1}{name}")
    return number


def _bits(spec: DataSpec, asked: Any) -> Tensor:
    """(A,) float32: the attributes that are asked for."""
    value = torch.zeros(len(spec.attributes))
    for column, given in columns(spec.attributes, asked).items():
        value[column] = given
    return value


def columns(names: Sequence[str], asked: Any) -> dict[int, int]:
    """Where the attributes that are asked for, as name -> 0 or 1, stand among `names`, and which of the two is asked. Raises UserError."""
    if not isinstance(asked, Mapping):
        raise UserError(f"{printable(asked)!r} among attributes", "--attributes", "give all of them as name -> 0 or 1")
    found = {}
    for name, given in asked.items():
        if name not in names:
            raise UserError(f"unknown attribute {printable(name)!r}", "--attributes", printable(nearest(name, names)))
        if given not in (0, 1, "0", "1"):
            raise UserError(f"{name}={printable(given)} is neither 0 nor 1", "--attributes", f"write {name}=0 or {name}=1")
        found[names.index(name)] = int(given)
    return found
