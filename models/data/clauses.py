"""What may stand in brackets behind a data set: ``mnist[label=0,1,2;first=500]``. No torch here.

| clause | what it does |
|---|---|
| `label=0,1,2` | keeps these classes, by name or number; they are numbered anew |
| `identity=0-89`, `identity=3,5` | keeps these people, who keep their numbers |
| `NAME=1`, `NAME=0` | keeps the items whose attribute NAME is so |
| `first=500`, `last=500` | keeps the first, or the last, 500 items |
| `labels=FILE.csv` | labels a folder from a table: see `models.data.labels` |
| `target=FOLDER` | pairs: each image's target is the one of the same name in FOLDER |
| `input=grey`, `input=small:4`, `input=masked` | pairs: the image is the target without colour, a quarter as large, or with a hole |
| `input=left`, `input=right` | pairs: each file shows both side by side, A\\|B |

They are carried out from left to right.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from models.data.dataset import DataRequest, ImageData
from models.data.folder import DEFAULT_SIZE, NATIVE_LIMIT, list_folder
from models.data.images import BadImage, fit, read_header, resized, to_channels
from models.data.items import Chosen, Field, Items, Paired, Relabelled, Side
from models.data.labels import labelled, table_of
from models.data.packed.place import load as packed
from models.data.packed.place import place_of
from models.data.packed.read import Packed
from models.errors import UserError, nearest, printable
from models.registry import SETS

KEYS = ("label", "identity", "first", "last", "labels", "target", "input")  # and the names of the data's attributes
Clauses = tuple[tuple[str, str], ...]
RULES = ("grey", "small", "masked", "left", "right")
_PATHS = ("labels", "target")
_HOLE = 0.5  # side of the masked square, as a share of the image's
_BLANK = 127  # what fills it


def parse(text: str, whole: str) -> Clauses:
    """``label=0,1;first=500`` as pairs. Raises UserError naming `whole`, what the user typed."""
    pairs = [[part.strip() for part in clause.partition("=")[::2]] for clause in text.split(";") if clause.strip()]
    for key, value in pairs:
        if not key or not value:
            fix = "write KEY=VALUE, several with ; between, as in mnist[label=0,1;first=500]"
            raise UserError("brackets without KEY=VALUE", printable(whole), fix)
    # Paths are made absolute at once, so that the text means the same wherever it is read again.
    return tuple((key, os.path.abspath(os.path.expanduser(value)) if key in _PATHS else value) for key, value in pairs)


def labelled_by(request: DataRequest, path: str) -> DataRequest:
    """`request`, a folder, with the labels of a table as its first clause. Raises UserError where that cannot be written."""
    if request.joined:
        raise UserError("labels for several sets at once", f"--labels {path}", f"write it behind its own: 'FOLDER[labels={path}]+OTHER'")
    if ";" in path or "]" in path:
        raise UserError("a path with ; or ] cannot stand in brackets", f"--labels {path}", "give the table another name")
    return replace(request, clauses=(*parse(f"labels={path}", path), *request.clauses))


def in_shape(request: DataRequest, size: tuple[int, int], channels: int) -> DataRequest:
    """`request`, so that its images have this shape once its clauses are carried out; what becomes grey keeps the channels it came with."""

    def one(request: DataRequest) -> DataRequest:
        (height, width), wanted = size, str(channels)
        for key, value in request.clauses:
            rule, _, factor = value.partition(":")
            if key == "input" and rule == "small" and factor.isdigit():
                height, width = height * int(factor), width * int(factor)
            if key == "input" and rule == "grey":
                wanted = request.channels
        return replace(request, size=(height, width), channels=wanted)

    return request.each(one)


def applied(request: DataRequest, load_plain: Callable[[DataRequest], Items], load: Callable[[DataRequest], Items]) -> Items:
    """The set of a request, and then its clauses. Raises UserError.

    Args:
        load_plain: loads the set itself; load: loads another set that a clause names.
    """
    whole = request.plain
    if ("input", "left") in request.clauses or ("input", "right") in request.clauses:
        whole = replace(whole, size=_own_size(whole))  # a filter would mix the halves where they meet
    data: Items = load_plain(whole)
    for position, (key, value) in enumerate(request.clauses):
        so_far = str(replace(request, clauses=request.clauses[: position + 1], joined=()))
        if key == "label":
            data = _of_classes(data, value, so_far)
        elif key == "identity":
            data = _of_people(data, value, so_far)
        elif key in ("first", "last"):
            data = _first_or_last(data, key, value, so_far)
        elif key == "labels":
            data = _labelled(data, request, value, so_far)
        elif key == "target":
            data = _with_targets(_whole_folder(data, so_far), _targets(request, value, load), request.skip_bad, value, so_far)
        elif key == "input":
            halves = value in ("left", "right")
            data = _side_by_side(data, request, value, so_far) if halves else derived(data, value, so_far)
        elif "attributes" in data.fields and key in data.fields["attributes"].names:
            data = _of_attribute(data, key, value, so_far)
        else:
            names = data.fields["attributes"].names if "attributes" in data.fields else ()
            raise UserError(f"unknown clause {printable(key)!r}", so_far, nearest(key, [*KEYS, *names]))
    return data


# --- some of the items ------------------------------------------------------------------------------------------------------------------


def _of_classes(data: Items, value: str, name: str) -> Items:
    if "label" not in data.fields:
        raise UserError("these data have no classes", name, "leave label= out, or give labels=FILE.csv before it")
    names = data.fields["label"].names
    kept = set()
    for word in [value] if value in names else [part.strip() for part in value.split(",") if part.strip()]:
        number = data.fields["label"].number_of(word)
        if number is None:
            raise UserError(f"unknown class {printable(word)!r}", name, f"{nearest(word, names)}; or a number from 0 to {len(names) - 1}")
        kept.add(number)
    return Chosen(data, _some(np.isin(data.all("label"), sorted(kept)), name), name, sorted(kept))


def _of_people(data: Items, value: str, name: str) -> Items:
    if "identity" not in data.fields:
        raise UserError("these data do not say whom they show", name, "leave identity= out, or take data with identities (`lgm data info`)")
    count, kept = data.fields["identity"].count, set[int]()
    for word in filter(None, (part.strip() for part in value.split(","))):
        first, dash, last = word.partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdigit() and int(end[:12]) < count for end in ends) or int(ends[0]) > int(ends[1]):
            raise UserError(f"unknown people {printable(word)!r}", name, f"give numbers from 0 to {count - 1}, or a range such as 0-9")
        kept |= set(range(int(ends[0]), int(ends[1]) + 1))
    return Chosen(data, _some(np.isin(data.all("identity"), sorted(kept)), name), name)


def _of_attribute(data: Items, key: str, value: str, name: str) -> Items:
    if value not in ("0", "1"):
        raise UserError(f"{printable(key)}={printable(value)} is neither 0 nor 1", name, f"write {key}=0 or {key}=1")
    column = data.fields["attributes"].names.index(key)
    return Chosen(data, _some(data.all("attributes")[:, column] == int(value), name), name)


def _first_or_last(data: Items, which: str, value: str, name: str) -> Items:
    if not (value.isascii() and value.isdigit() and 0 < int(value[:12]) <= len(data)):
        raise UserError(f"the {which} {printable(value)} of {len(data):,} items", name, f"give a number from 1 to {len(data)}")
    begin = 0 if which == "first" else len(data) - int(value)
    return Chosen(data, np.arange(begin, begin + int(value)), name)


def _some(which: np.ndarray, name: str) -> np.ndarray:
    index = np.flatnonzero(which)
    if not len(index):
        raise UserError("no item is left", name, "ask for others")
    return index


# --- pairs ------------------------------------------------------------------------------------------------------------------------------


def _targets(request: DataRequest, folder: str, load: Callable[[DataRequest], Items]) -> ImageData:
    """The images of another folder; of the same split, where it has that."""
    if not os.path.isdir(folder):
        raise UserError("no such folder", folder, "name the folder of the targets")
    split = request.split if os.path.isdir(os.path.join(folder, request.split)) else "train"
    found = load(replace(request.plain, name=folder, split=split))
    if not isinstance(found, ImageData):
        raise UserError("a packed set cannot be the targets of another", folder, "pack the pairs: lgm data pack 'FOLDER[target=FOLDER]'")
    return found


def _with_targets(data: ImageData, targets: ImageData, skip_bad: bool, folder: str, name: str) -> Items:
    """Each image with the one of the same name, suffixes aside, under another folder."""

    def stems(files: Iterable[str], root: str) -> list[str]:
        return [os.path.splitext(os.path.relpath(file, root))[0] for file in files]

    names = stems(targets.files, targets.root)
    places = {one: number for number, one in enumerate(names)}
    if len(places) < len(names):
        twice = next(one for one, count in Counter(names).items() if count > 1)
        raise UserError(f"two targets are called {printable(twice)}", folder, "keep one of them")
    bad = set(stems((path for path, _ in targets.bad), targets.root))
    mine = stems(data.files, data.root)
    kept = [number for number, one in enumerate(mine) if not (skip_bad and one in bad)]
    if missing := [mine[number] for number in kept if mine[number] not in places]:
        what = f"{len(missing):,} of {len(mine):,} images have no target, the first is {printable(missing[0])}"
        raise UserError(what, name, f"put a file of the same name into {printable(folder)}, in the same sub-folder")
    some = Chosen(data, np.array(kept, np.int64), name)
    at = np.array([places[mine[number]] for number in kept], np.int64)
    wanted = Side(targets.fields["image"], lambda index: targets.rows("image", at[index]))
    how = f"target {targets.fingerprint()} {at.tolist()}"
    made = Paired(some, name, Side(data.fields["image"], lambda index: some.rows("image", index)), wanted, how)
    made.bad, made.notes = (*data.bad, *targets.bad), tuple(dict.fromkeys((*data.notes, *targets.notes)))
    return made


def derived(data: Items, value: str, name: str) -> Items:
    """Pairs whose input is made from the target."""
    rule, _, number = value.partition(":")
    channels, height, width = data.fields["image"].shape

    def rows(index: np.ndarray) -> np.ndarray:
        return data.rows("image", index)

    whole = Side(data.fields["image"], rows)
    if rule not in RULES or (number and rule != "small"):
        raise UserError(f"unknown input {printable(value)!r}", name, f"{nearest(rule, RULES)} (small takes a factor: small:4)")
    if rule == "grey":
        return Paired(data, name, Side(Field("image", (1, height, width)), lambda index: to_channels(rows(index), 1)), whole, value)
    if rule == "small":
        factor = int(number) if number.isascii() and number.isdigit() and len(number) < 4 else 0
        if factor < 2 or height % factor or width % factor:
            what = f"{width}x{height} cannot be made {printable(number) or '?'} times smaller"
            raise UserError(what, name, "give a factor that divides both sides: small:4")
        size = (height // factor, width // factor)
        return Paired(data, name, Side(Field("image", (channels, *size)), lambda index: resized(rows(index), size)), whole, value)
    top, left = round(height * (1 - _HOLE) / 2), round(width * (1 - _HOLE) / 2)

    def masked(index: np.ndarray) -> np.ndarray:
        found = rows(index).copy()
        found[:, top : height - top, left : width - left] = _BLANK
        return found

    return Paired(data, name, Side(whole.field, masked), whole, value)


def _own_size(request: DataRequest) -> tuple[int, int] | None:
    """(height, width) of a folder's first image; None for a named set, which has one size."""
    if request.name in SETS.entries():
        return None
    if (place := place_of(request)) is not None:
        return packed(place, request).manifest.pictures["image"].sizes[0][:2]
    try:
        found = read_header(list_folder(request).paths()[0], background=request.background)
    except BadImage:
        return None  # loading the folder says more
    return found.height, found.width


def _side_by_side(data: Items, request: DataRequest, value: str, name: str) -> Items:
    """Pairs that stand side by side in one image, each half brought to the asked size."""
    channels, height, width = data.fields["image"].shape
    half = width // 2
    if width % 2:
        raise UserError(f"images {width} wide have no halves", name, "give files that show two images of the same width side by side")
    size = request.size or ((height, half) if max(height, half) <= NATIVE_LIMIT else DEFAULT_SIZE)

    def side(start: int) -> Side:
        def rows(index: np.ndarray) -> np.ndarray:
            found = data.rows("image", index)[:, :, start : start + half]
            if size == (height, half):
                return np.ascontiguousarray(found)
            return np.stack([fit(np.ascontiguousarray(one), size, request.fit, background=request.background) for one in found])

        return Side(Field("image", (channels, *size)), rows)

    left, right = side(0), side(half)
    return Paired(data, name, *((left, right) if value == "left" else (right, left)), how=f"{value} {request.fit} {request.background}")


def _labelled(data: Items, request: DataRequest, path: str, name: str) -> Items:
    """`data`, a folder or a packed one, with the labels of a table."""
    if not isinstance(data, Packed):
        return labelled(_whole_folder(data, name), path, name)
    if not any(names := data.names()):
        raise UserError(
            "these images have no names", name, "pack a folder of files, or the labels with it: lgm data pack 'FOLDER[labels=...]'"
        )
    return Relabelled(data, name, table_of([(one, f"{request.split}/{one}") for one in names], path))


def _whole_folder(data: Items, name: str) -> ImageData:
    """`data` as it was decoded from files. Raises UserError where it was not, or not all of it is there any more."""
    if not isinstance(data, ImageData) or not data.files:
        raise UserError("this goes with a folder of images, as its first clause", name, "name a folder, and put this clause first")
    return data
