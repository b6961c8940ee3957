"""What a packed set says of itself: `manifest.json`, and an index beside each shard.

A shard `shard-000000.tar` has members NUMBER.png (or whatever image it is; NUMBER.npy where pixels are stored raw), NUMBER.cls with the
number of the class, NUMBER.json with what else is known, and NUMBER.target.png for the second image of a pair. Its index
`shard-000000.safetensors` says where each image begins, and repeats all labels: `at/image` (N, 3) int64, offset, bytes and their CRC-32;
`label` (N,) and so on, as `Items.rows` gives them; `file/text` and `file/ends`, the names that the images had. The manifest lists fields,
sizes, shards and the sha256 of each file; its own sha256 stands for the content.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from models.data.items import Field
from models.errors import UserError, printable

NAME = "manifest.json"
KIND = "lgm packed set"
FORMAT = 1
IMAGES = ("image", "clip")  # kinds of fields that are members of a shard, one each
MOST_ITEMS = 2**31  # of a shard
_AGAIN = "pack the data again (`lgm data pack`)"
_KINDS = ("image", "clip", "vector", "number", "flags", "tokens")


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
    notes: tuple[str, ...] = field(default=())

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
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"the manifest is damaged ({type(error).__name__}: {printable(error, 80)})", where, _AGAIN) from error
        if found.digest() != values.get("digest"):
            raise UserError("the manifest is damaged: its digest is another one", where, _AGAIN)
        return found


def index_name(shard: str) -> str:
    return f"{shard.removesuffix('.tar')}.safetensors"


def _from(values: dict[str, Any]) -> Manifest:
    fields = {str(key): _field(value) for key, value in values["fields"].items()}
    pictures = {
        str(key): Pictures(
            tuple((int(h), int(w), int(n)) for h, w, n in value["sizes"]), int(value["grey"]), {1: 1, 3: 3}[value["channels"]]
        )
        for key, value in values["pictures"].items()
    }
    shards = tuple(Shard(**shard) for shard in values["shards"])
    for shard in shards:
        if not (isinstance(shard.name, str) and shard.name == shard.name.strip() and "/" not in shard.name and "\\" not in shard.name):
            raise ValueError("the name of a shard")
        if not (0 < shard.count < MOST_ITEMS and 0 < shard.bytes < 2**62):
            raise ValueError("the size of a shard")
    if "image" not in fields or any(key not in pictures for key, one in fields.items() if one.kind == "image"):
        raise ValueError("no images")
    return Manifest(str(values["name"]), fields, pictures, shards, tuple(map(str, values["notes"])))


def _field(value: dict[str, Any]) -> Field:
    if value["kind"] not in _KINDS:
        raise ValueError("the kind of a field")
    return Field(value["kind"], tuple(map(int, value["shape"])), tuple(map(str, value["names"])), int(value["count"]))


# --- the index of a shard ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Index:
    """Where the images of a shard lie, and all else that is known of them."""

    at: Mapping[str, np.ndarray]  # field of images -> (N, 3) int64: offset, bytes, their CRC-32
    values: Mapping[str, np.ndarray]  # other field -> its rows
    files: tuple[str, ...] = ()  # the names that the images had

    def to_bytes(self) -> bytes:
        arrays = {**{f"at/{key}": value for key, value in self.at.items()}, **self.values}
        if self.files:
            texts = [file.encode("utf-8", "surrogateescape") for file in self.files]
            arrays["file/text"] = np.frombuffer(b"".join(texts) or b"\0", np.uint8)
            arrays["file/ends"] = np.cumsum([len(text) for text in texts], dtype=np.int64)
        from safetensors.numpy import save

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
            files = _files(arrays) if "file/ends" in arrays else ()
        except (SafetensorError, KeyError, ValueError, IndexError) as error:
            raise UserError(f"the index is damaged ({type(error).__name__}: {printable(error, 80)})", where, _AGAIN) from error
        places_fit = all(
            a.dtype == np.int64 and a.shape == (shard.count, 3) and (a >= 0).all() and (a[:, 0] <= shard.bytes - a[:, 1]).all()
            for a in at.values()
        )
        if not places_fit or not all(_fits(value, fields[key], shard.count) for key, value in values.items()):
            raise UserError("the index does not fit the shard", where, _AGAIN)
        return Index(at, values, files)


def _files(arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    text, ends = arrays["file/text"].tobytes(), [0, *arrays["file/ends"].tolist()]
    return tuple(text[a:b].decode("utf-8", "surrogateescape") for a, b in itertools.pairwise(ends))


def _fits(values: np.ndarray, told: Field, count: int) -> bool:
    dtype = {"number": np.int64, "tokens": np.int64, "flags": np.uint8, "vector": np.float32}[told.kind]
    if values.dtype != dtype or values.shape != (count, *told.shape):
        return False
    most = {"number": told.count, "tokens": told.count, "flags": 2}.get(told.kind)
    return most is None or bool((values >= 0).all() and (values < most).all())
