"""What a packed set says of itself: `manifest.json`, and an index beside each shard.

A shard `shard-000000.tar` has members NUMBER.png (or whatever image it is; NUMBER.npy where pixels are stored raw), NUMBER.cls with the
number of the class, NUMBER.json with what else is known, and NUMBER.target.png for the second image of a pair. Its index
`shard-000000.safetensors` says where each image begins, and repeats all labels: `at/image` (N, 3) int64, offset, bytes and their CRC-32;
`label` (N,) and so on, as `Items.rows` gives them; `file/text` and `file/ends`, the names that the images had. The manifest lists fields,
sizes, shards and the sha256 of each file; its own sha256 stands for the content.

Both may come from anybody: what does not fit is refused, with the name of the file.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from models.data.images import MAX_PIXELS
from models.data.items import Field
from models.errors import UserError, printable

NAME = "manifest.json"
KIND = "lgm packed set"
FORMAT = 1
IMAGES = ("image", "clip")  # kinds of fields that are members of a shard, one each
DTYPES: dict[str, Any] = {"number": np.int64, "tokens": np.int64, "flags": np.uint8, "vector": np.float32}  # of the others' rows
_AGAIN = "pack the data again (`lgm data pack`)"
_DIMENSIONS = {"image": 0, "clip": 4, "vector": 1, "number": 0, "flags": 1, "tokens": 1}  # of an item; an image's are not told
_MOST = 2**31  # of anything that is counted
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    name: str
    count: int  # items
    bytes: int
    sha256: str
    index: str  # sha256 of its index

    @property
    def index_name(self) -> str:
        return index_name(self.name)


@dataclass(frozen=True)
class Pictures:
    """What is known of one field of images."""

    sizes: tuple[tuple[int, int, int], ...]  # (height, width, how many), the most frequent first
    grey: int  # how many are files with one channel, or three that are equal
    channels: int  # 3 where any is stored in colour


@dataclass(frozen=True)
class Manifest:
    """A packed set, but for its items."""

    name: str  # of the data that were packed
    fields: Mapping[str, Field]  # an image's shape depends on how it is asked for, and is not told here
    pictures: Mapping[str, Pictures]  # of each field of images
    shards: tuple[Shard, ...]
    notes: tuple[str, ...] = ()
    bad: tuple[tuple[str, str], ...] = field(default=())  # (path, reason) of images that were left out

    @property
    def count(self) -> int:
        return sum(shard.count for shard in self.shards)

    def digest(self) -> str:
        """sha256 over the content: where it came from, and what its shards are called, do not count."""
        shards = [(shard.count, shard.sha256, shard.index) for shard in self.shards]
        return hashlib.sha256(repr((sorted(self.fields.items()), shards)).encode()).hexdigest()

    def to_json(self) -> str:
        return json.dumps({"kind": KIND, "format": FORMAT, "count": self.count, "digest": self.digest(), **asdict(self)}, indent=1)

    @staticmethod
    def from_json(text: str | bytes, where: object) -> Manifest:
        """Raises UserError naming `where` it was read."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"the manifest is no JSON ({printable(error, 80)})", where, _AGAIN) from error
        if not isinstance(values, dict) or values.get("kind") != KIND:
            raise UserError("not the manifest of a packed set", where, f"name another folder, or {_AGAIN}")
        if values.get("format") != FORMAT:
            what = f"packed in format {printable(values.get('format'), 20)}, this lgm reads {FORMAT}"
            raise UserError(what, where, f"upgrade lgm, or {_AGAIN}")
        try:
            found = _from(values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"the manifest is damaged ({type(error).__name__}: {printable(error, 80)})", where, _AGAIN) from error
        if found.digest() != values.get("digest"):
            raise UserError("the manifest is damaged: its digest is another one", where, _AGAIN)
        return found


def of_others(text: bytes) -> bool:
    """Whether a file called like a manifest is a sound one of another program."""
    try:
        return json.loads(text).get("kind") != KIND
    except (AttributeError, ValueError, RecursionError):
        return False


def index_name(shard: str) -> str:
    return f"{shard.removesuffix('.tar')}.safetensors"


def _from(values: dict[str, Any]) -> Manifest:
    fields = {_text(key): _field(value) for key, value in values["fields"].items()}
    pictures = {_text(key): _pictures(value) for key, value in values["pictures"].items()}
    shards = tuple(_shard(value) for value in values["shards"])
    if "image" not in fields or fields["image"].kind != "image" or not shards:
        raise ValueError("no images")
    if {key for key, one in fields.items() if one.kind == "image"} != set(pictures):
        raise ValueError("the sizes of images")
    bad = tuple((_text(path), _text(reason)) for path, reason in values["bad"])
    return Manifest(_text(values["name"]), fields, pictures, shards, tuple(map(_text, values["notes"])), bad)


def _shard(value: dict[str, Any]) -> Shard:
    found = Shard(
        _text(value["name"]), _count(value["count"]), _count(value["bytes"], 2**50), _sha256(value["sha256"]), _sha256(value["index"])
    )
    if "/" in found.name or not found.name.endswith(".tar"):
        raise ValueError("the name of a shard")
    if not 0 < found.count <= found.bytes // 1024:  # a header and a block each
        raise ValueError("the size of a shard")
    return found


def _pictures(value: dict[str, Any]) -> Pictures:
    sizes = tuple((_count(height), _count(width), _count(many)) for height, width, many in value["sizes"])
    if not sizes or not all(0 < height * width <= MAX_PIXELS for height, width, _ in sizes):
        raise ValueError("the sizes of images")
    return Pictures(sizes, _count(value["grey"]), {1: 1, 3: 3}[value["channels"]])


def _field(value: dict[str, Any]) -> Field:
    kind, shape, names = value["kind"], tuple(map(_count, value["shape"])), tuple(map(_text, value["names"]))
    if _DIMENSIONS[kind] != len(shape) or 0 in shape or np.prod(shape, dtype=object) > 3 * MAX_PIXELS:
        raise ValueError("the shape of a field")
    count = _count(value["count"], 2**24)
    if kind in ("number", "tokens") and not count:
        raise ValueError("the count of a field")
    if len(names) not in (
        0,
        {"number": count, "tokens": count, "flags": shape[0] if shape else 0, "vector": shape[0] if shape else 0}.get(kind, 0),
    ):
        raise ValueError("the names of a field")
    return Field(kind, shape, names, count)


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError("a text was expected")
    value.encode()  # a lone surrogate is no text
    return value


def _count(value: Any, most: int = _MOST) -> int:
    if type(value) is not int or not 0 <= value < most:
        raise ValueError("a number was expected")
    return value


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError("a sha256 was expected")
    return value


# --- the index of a shard ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Index:
    """Where the images of a shard lie, and all else that is known of them."""

    at: Mapping[str, np.ndarray]  # field of images -> (N, 3) int64: offset, bytes, their CRC-32
    values: Mapping[str, np.ndarray]  # other field -> its rows
    names: tuple[np.ndarray, np.ndarray] | None = None  # the names that the images had, one behind the other, and where each ends

    @property
    def files(self) -> tuple[str, ...]:
        """The names that the images had."""
        if self.names is None:
            return ()
        text, ends = self.names[0].tobytes(), [0, *self.names[1].tolist()]
        return tuple(text[a:b].decode("utf-8", "replace") for a, b in itertools.pairwise(ends))

    @staticmethod
    def of(at: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray], files: tuple[str, ...] = ()) -> Index:
        if not any(files):
            return Index(at, values)
        texts = [file.encode("utf-8", "replace") for file in files]
        return Index(at, values, (np.frombuffer(b"".join(texts), np.uint8), np.cumsum([len(text) for text in texts], dtype=np.int64)))

    def to_bytes(self) -> bytes:
        from safetensors.numpy import save

        arrays = {**{f"at/{key}": value for key, value in self.at.items()}, **self.values}
        if self.names is not None:
            arrays["file/text"], arrays["file/ends"] = self.names
        return bytes(save({key: np.ascontiguousarray(value) for key, value in arrays.items()}))

    @staticmethod
    def from_bytes(data: bytes, shard: Shard, fields: Mapping[str, Field], where: object) -> Index:
        """Raises UserError where it does not fit the shard."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(data)
            at = {key: arrays[f"at/{key}"] for key, one in fields.items() if one.kind in IMAGES}
            values = {key: arrays[key] for key, one in fields.items() if one.kind not in IMAGES}
            names = (arrays["file/text"], arrays["file/ends"]) if "file/ends" in arrays else None
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"the index is damaged ({type(error).__name__}: {printable(error, 80)})", where, _AGAIN) from error
        fits = all(_in_shard(places, shard) for places in at.values())
        fits = fits and all(_fits(rows, fields[key], shard.count) for key, rows in values.items())
        if not fits or (names is not None and not _name(*names, shard.count)):
            raise UserError("the index does not fit the shard", where, _AGAIN)
        return Index(at, values, names)


def _in_shard(at: np.ndarray, shard: Shard) -> bool:
    if at.dtype != np.int64 or at.shape != (shard.count, 3):
        return False
    return bool((at >= 0).all() and (at[:, 1] <= shard.bytes).all() and (at[:, 0] <= shard.bytes - at[:, 1]).all())


def _fits(values: np.ndarray, told: Field, count: int) -> bool:
    if values.dtype != DTYPES[told.kind] or values.shape != (count, *told.shape):
        return False
    most = {"number": told.count, "tokens": told.count, "flags": 2}.get(told.kind)
    return most is None or bool((values >= 0).all() and (values < most).all())


def _name(text: np.ndarray, ends: np.ndarray, count: int) -> bool:
    if text.dtype != np.uint8 or text.ndim != 1 or ends.dtype != np.int64 or ends.shape != (count,):
        return False
    return bool((np.diff(ends, prepend=0) >= 0).all() and ends[-1] <= len(text))
