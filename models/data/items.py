"""What a data set is to lgm: items that all have the same fields, fetched by key and position; and sets made of other sets. No torch here.

A decoded folder is one implementation (`models.data.dataset.ImageData`). `Chosen` is some items of a set, `Joined` several sets one after
the other, `Paired` a set with a second image for each item. None of them copies an image before it is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.data.images import resized
from models.errors import UserError

Kind = Literal["image", "clip", "vector", "number", "flags", "tokens"]


@dataclass(frozen=True)
class Field:
    """One key of an item, described as data.

    Attributes:
        kind: `image`; `clip`, images in a row; `vector`, real numbers; `number`, one of `count` things; `flags`, each 0 or 1;
            `tokens`, numbers of words, 0 behind the last.
        shape: of one item, as a model gets it: image (C, H, W), clip (T, C, H, W), vector (D,), flags (A,), tokens (L,), number ().
        names: of the things that a number names, of a vector's numbers, of the flags, of the words.
        count: how many things a number can name; its names need not be known.
    """

    kind: Kind
    shape: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    count: int = 0

    def number_of(self, word: str) -> int | None:
        """The number of a thing by its name, else by its number in digits; None where it is neither."""
        if word in self.names:
            return self.names.index(word)
        number = int(word) if word.isascii() and word.isdigit() and len(word) < 10 else -1
        return number if 0 <= number < len(self.names) else None


class Items:
    """A data set. Its `rows` may be asked from several threads.

    Attributes:
        name: what messages call it.
        fields: what every item has, by key; `image` is the best-known one.
        files: where each item came from, if that is a file. notes: what the user should know. bad: (path, reason) of files left out.
        pieces: the positions at which the pieces begin that lie together on a disk (P,), ascending from 0; None where any item is as near
            as any other. Training goes through pieces, not through all items at once (`models.data.order`).
    """

    name: str
    fields: Mapping[str, Field]
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    bad: tuple[tuple[str, str], ...] = ()
    pieces: np.ndarray | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def rows(self, key: str, index: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """One field of the items at `index` (B,), in that order.

        Images are uint8 (B, H, W, C), resized to `size` (height, width) where that is given, clips (B, T, H, W, C); a number, (B,), and
        tokens are int64, flags uint8, vectors float32.
        """
        raise NotImplementedError

    def all(self, key: str) -> np.ndarray:
        """One field of all items, in order; of images rather ask for some."""
        return self.rows(key, np.arange(len(self)))

    def expect(self, index: np.ndarray) -> None:
        """Be told that the pieces of these items (B,) will be asked for soon, in that order."""

    def fingerprint(self) -> str:
        """sha256 over all fields: two data sets with the same fingerprint train the same model."""
        digest = hashlib.sha256(repr((len(self), sorted(self.fields.items()))).encode())
        for key in sorted(self.fields):
            for start in range(0, len(self), 4096):  # in blocks: images may not fit into memory
                index = np.arange(start, min(start + 4096, len(self)))
                digest.update(np.ascontiguousarray(self.rows(key, index)).data)
        return digest.hexdigest()

    def lacks(self, key: str) -> UserError:
        """The error of a field that is not there."""
        return UserError(f"the data have no {key}", self.name, "choose data with labels of that kind (`lgm data info DATA`)")


class View(Items):
    """A set as another one sees it, which has the same items; what a view does not say of them is the other's."""

    def __init__(self, of: Items, name: str, fields: Mapping[str, Field]) -> None:
        self.of, self.name, self.fields = of, name, dict(fields)
        self.files, self.notes, self.bad, self.pieces = of.files, of.notes, of.bad, of.pieces

    def __len__(self) -> int:
        return len(self.of)

    def expect(self, index: np.ndarray) -> None:
        self.of.expect(index)

    def rows(self, key: str, index: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        if key not in self.fields:
            raise self.lacks(key)
        return self.of.rows(key, index, size)


class Chosen(View):
    """Some items of a set.

    Args:
        of: the set.
        index: the items' positions in it, in order (N,).
        name: what messages call it.
        kept: the numbers of the classes that remain, ascending, where only these do: they are numbered anew, from 0.
    """

    def __init__(self, of: Items, index: np.ndarray, name: str, kept: Sequence[int] | None = None) -> None:
        names = () if kept is None else tuple(of.fields["label"].names[k] for k in kept)
        super().__init__(of, name, of.fields if kept is None else {**of.fields, "label": Field("number", names=names, count=len(names))})
        self.index, self._kept = index, None if kept is None else np.array(kept)
        self.files = tuple(of.files[i] for i in index) if of.files else ()
        self.pieces = None
        if of.pieces is not None and (np.diff(index) > 0).all():
            begun = np.unique(np.searchsorted(index, of.pieces))
            self.pieces = begun[begun < len(index)]

    def __len__(self) -> int:
        return len(self.index)

    def expect(self, index: np.ndarray) -> None:
        self.of.expect(self.index[index])

    def fingerprint(self) -> str:
        """sha256 over which items of which set these are."""
        kept = None if self._kept is None else self._kept.tolist()
        return _digest("chosen", self.of.fingerprint(), kept, hashlib.sha256(self.index.astype("<i8").data).hexdigest())

    def rows(self, key: str, index: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        found = self.of.rows(key, self.index[index], size)
        return np.searchsorted(self._kept, found) if key == "label" and self._kept is not None else found


class Joined(Items):
    """Several sets, one after the other. They share the fields that all of them have.

    Classes are told apart by their names, and are numbered in the order in which they first come; identities are all different ones. All
    other fields must be described alike. Raises UserError where a field has another kind, shape or other names in one of them.
    """

    def __init__(self, sets: Sequence[Items], name: str) -> None:
        self.sets, self.name = tuple(sets), name
        self._starts = np.cumsum([0, *map(len, sets)])
        self._renumbered: dict[str, list[np.ndarray]] = {}
        self.files = tuple(file for one in sets for file in one.files) if all(one.files for one in sets) else ()
        self.notes = tuple(dict.fromkeys(note for one in sets for note in one.notes))
        self.bad = tuple(bad for one in sets for bad in one.bad)
        shared = [key for key in sets[0].fields if all(key in one.fields for one in sets)]
        self.fields = {key: self._joined(key) for key in shared}
        if any(one.pieces is not None for one in sets):
            self.pieces = np.concatenate([_pieces_of(one) + start for one, start in zip(sets, self._starts)])

    def _joined(self, key: str) -> Field:
        fields = [one.fields[key] for one in self.sets]
        first = fields[0]
        if any(field.kind != first.kind or field.shape != first.shape for field in fields):
            both = " and ".join(str(field.shape or field.kind) for field in fields)
            raise UserError(f"{key} is {both} in sets that are joined", self.name, "give --size and --channels, or sets that are alike")
        if first.kind != "number":
            if any(field.names != first.names for field in fields):
                raise UserError(f"{key} has other names in sets that are joined", self.name, "join sets with the same ones")
            return first
        if not all(field.names for field in fields):  # identities: nobody says that two sets show the same people
            offsets = np.cumsum([0, *(field.count for field in fields)])
            self._renumbered[key] = [np.arange(field.count) + offset for field, offset in zip(fields, offsets)]
            return Field("number", count=int(offsets[-1]))
        names = tuple(dict.fromkeys(name for field in fields for name in field.names))
        self._renumbered[key] = [np.array([names.index(name) for name in field.names]) for field in fields]
        return Field("number", names=names, count=len(names))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def expect(self, index: np.ndarray) -> None:
        whose = np.searchsorted(self._starts, index, side="right") - 1
        for number in dict.fromkeys(whose.tolist()):
            self.sets[number].expect(index[whose == number] - self._starts[number])

    def fingerprint(self) -> str:
        """sha256 over which sets these are."""
        return _digest("joined", *(one.fingerprint() for one in self.sets))

    def rows(self, key: str, index: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        if key not in self.fields:
            raise self.lacks(key)
        whose = np.searchsorted(self._starts, index, side="right") - 1
        found: np.ndarray | None = None
        for number in np.unique(whose):
            here = whose == number
            rows = self.sets[number].rows(key, index[here] - self._starts[number], size)
            rows = self._renumbered[key][number][rows].astype(np.int64) if key in self._renumbered else rows
            found = np.empty((len(index), *rows.shape[1:]), rows.dtype) if found is None else found
            found[here] = rows
        return self.sets[0].rows(key, index, size) if found is None else found  # an empty index still has a shape


class Relabelled(View):
    """A set with other labels: `given`, field by field with its rows. The images, and what is not labelled anew, stay; classes do not."""

    def __init__(self, of: Items, name: str, given: Mapping[str, tuple[Field, np.ndarray]]) -> None:
        others = {key: told for key, told in of.fields.items() if key != "label"}
        super().__init__(of, name, others | {key: told for key, (told, _) in given.items()})
        self._given = given

    def rows(self, key: str, index: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        return self._given[key][1][index] if key in self._given else super().rows(key, index, size)

    def fingerprint(self) -> str:
        """sha256 over the set and the labels."""
        given = [
            (key, told, hashlib.sha256(np.ascontiguousarray(values).data).hexdigest())
            for key, (told, values) in sorted(self._given.items())
        ]
        return _digest("relabelled", self.of.fingerprint(), given)


class Unlabelled(View):
    """The images of a set, of which nobody says anything else."""

    def __init__(self, of: Items) -> None:
        super().__init__(of, of.name, {"image": of.fields["image"]})

    def fingerprint(self) -> str:
        """sha256 over which set it is."""
        return _digest("unlabelled", self.of.fingerprint())


@dataclass(frozen=True)
class Side:
    """One of a pair's images: its field, and its rows at an index (B,), uint8 (B, H, W, C)."""

    field: Field
    rows: Callable[[np.ndarray], np.ndarray]


class Paired(View):
    """A set whose items have two images: `image`, what a model is given, and `target`, what it is to make of it; else as in `of`.

    `how` says how they come from it, so that other pairs of the same set have another fingerprint.
    """

    def __init__(self, of: Items, name: str, given: Side, wanted: Side, how: str) -> None:
        super().__init__(of, name, {**of.fields, "image": given.field, "target": wanted.field})
        self._how = how
        self._sides = {"image": given, "target": wanted}

    def fingerprint(self) -> str:
        """sha256 over the set and how pairs are made of it."""
        return _digest("paired", self.of.fingerprint(), self._how, sorted(self.fields.items()))

    def rows(self, key: str, index: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        side = self._sides.get(key)
        return super().rows(key, index, size) if side is None else resized(side.rows(index), size)


_PIECE = 4096  # items of a piece, of a set that has no pieces of its own and is joined to one that has


def _pieces_of(items: Items) -> np.ndarray:
    return np.arange(0, len(items), _PIECE) if items.pieces is None else items.pieces


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
