"""A packed set as a data set: what is asked for is read from its shards at that moment, and nothing else is in memory. No torch here."""

from __future__ import annotations

import hashlib
import io
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

import numpy as np

from models.data.dataset import DataRequest
from models.data.folder import usual_size
from models.data.images import MAX_CUT, MAX_PIXELS, BadImage, decode, fit, resized, to_channels
from models.data.items import Field, Items
from models.data.packed.manifest import DTYPES, IMAGES, Index, Manifest, Pictures, Shard
from models.data.packed.stores import Store
from models.errors import UserError, printable

_OPEN = 32  # files that are held open: those of two windows (`models.data.order`)
_INDEXES = 64  # indexes of shards that are held in memory
_NPY = b"\x93NUMPY"
# How numpy writes an array of bytes; nothing else is read, so that nothing of a header has to be evaluated.
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '[|<>]?u1', 'fortran_order': False, 'shape': \(([0-9]{1,9}(?:, ?[0-9]{1,9}){1,3}),?\), ?\} *\n", re.S
)


@dataclass(frozen=True)
class Shape:
    """What the images of a field are brought to."""

    size: tuple[int, int]  # (height, width)
    channels: int
    header: bytes  # how a raw image begins that has this shape already


class Packed(Items):
    """A packed set.

    Args:
        manifest: what it says of itself. store: where its shards lie.
        request: how its images are to be fitted.
        checked: look first whether every shard of a folder is there.

    Raises UserError where a shard is missing or has another length, and where images cannot be brought to what is asked for.
    """

    def __init__(self, manifest: Manifest, store: Store, request: DataRequest, checked: bool = True) -> None:
        self.name, self.manifest, self.store, self.request = str(request), manifest, store, request
        self._shards = manifest.shards
        self._starts = np.cumsum([0, *(shard.count for shard in manifest.shards)])
        self.pieces = self._starts[:-1]
        if checked:
            self._check_lengths()
        notes: list[str] = []
        self._shapes = {key: self._shape(key, notes) for key, one in manifest.fields.items() if one.kind == "image"}
        self.fields = {
            key: Field("image", (self._shapes[key].channels, *self._shapes[key].size)) if one.kind == "image" else one
            for key, one in manifest.fields.items()
        }
        self.notes, self.bad = (*manifest.notes, *notes), manifest.bad
        self._file = lru_cache(maxsize=_OPEN)(self._opened)
        self._index = lru_cache(maxsize=_INDEXES)(self._read_index)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, key: str, index: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        if key not in self.fields:
            raise self.lacks(key)
        told = self.fields[key]
        if told.kind == "image":
            shape = self._shapes[key]
            out = np.empty((len(index), *shape.size, shape.channels), np.uint8)
        elif told.kind == "clip":
            frames, channels, *sides = told.shape
            out = np.empty((len(index), frames, *sides, channels), np.uint8)
        else:
            out = np.empty((len(index), *told.shape), DTYPES[told.kind])
        for number, here in self._by_shard(index):
            items = index[here] - self._starts[number]
            if told.kind in IMAGES:
                self._pixels(number, key, items, out, here)
            else:
                out[here] = self._index(number).values[key][items]
        return resized(out, size) if told.kind == "image" else out

    def all(self, key: str) -> np.ndarray:
        if key not in self.fields or key in self.images:
            return super().all(key)
        return np.concatenate([self._index(number).values[key] for number in range(len(self._shards))])

    def originals(self, index: np.ndarray) -> list[np.ndarray]:
        """The images of the items at `index` (B,) as they were packed, each in its own size and channels: uint8 (H, W, 1 or 3)."""
        whose = np.searchsorted(self._starts, index, side="right") - 1
        found = []
        for number, item in zip(whose.tolist(), index.tolist()):
            offset, length, _ = self._index(number).at["image"][item - int(self._starts[number])].tolist()
            found.append(self._decoded(self._member(number, offset, length), self._shards[number], "image", offset))
        return found

    def expect(self, index: np.ndarray) -> None:
        numbers = np.searchsorted(self._starts, index, side="right") - 1
        shards = [self._shards[number] for number in dict.fromkeys(numbers.tolist())]
        self.store.expect([(shard.name, shard.bytes, shard.sha256) for shard in shards])

    def fingerprint(self) -> str:
        """sha256 over the manifest's digest and the shape that images are brought to; no shard is read."""
        how = (self.request.fit, self.request.background)
        return hashlib.sha256(repr((self.manifest.digest(), sorted(self.fields.items()), how)).encode()).hexdigest()

    @property
    def images(self) -> list[str]:
        """The fields that are members of a shard."""
        return [key for key, one in self.fields.items() if one.kind in IMAGES]

    def first_of(self, shard: int) -> int:
        """The position of a shard's first item."""
        return int(self._starts[shard])

    def names_of(self, shard: int) -> tuple[str, ...]:
        """The names that the images of a shard had, or "" where nobody knows."""
        return self._index(shard).files or ("",) * self._shards[shard].count

    def damaged(self, shard: int, place: int) -> str:
        """What is wrong with an item of a shard; "" where it is as it was packed, and can be used."""
        told = self._shards[shard]
        try:
            for key in self.images:
                offset, length, crc = self._index(shard).at[key][place].tolist()
                data = self._member(shard, offset, length)
                if zlib.crc32(data) != crc:
                    return "its bytes have changed"
                self._made(data, self._shapes.get(key), told, key, offset, None)
        except UserError as error:
            return error.what
        return ""

    def names(self) -> list[str]:
        """Those of all images."""
        return [name for shard in range(len(self._shards)) for name in self.names_of(shard)]

    def _by_shard(self, index: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """The shards that items at `index` (B,) lie in, and where in `index` those of each stand."""
        whose = np.searchsorted(self._starts, index, side="right") - 1
        order = np.argsort(whose, kind="stable")
        numbers, first = np.unique(whose[order], return_index=True)
        yield from zip(numbers.tolist(), np.split(order, first[1:]))

    # --- shapes ---

    def _shape(self, key: str, notes: list[str]) -> Shape:
        """What a field's images are brought to: as for a folder, see `models.data.folder.make_plan`."""
        own, leading = self.manifest.pictures[key], self.manifest.pictures["image"]
        follows = key == "image" or {s[:2] for s in own.sizes} == {s[:2] for s in leading.sizes}
        size = self.request.size if follows else None
        if not follows and len(own.sizes) > 1:
            raise UserError(f"{key} has images of {len(own.sizes)} sizes", self.name, "pack the pairs again, at one size (--size)")
        if not follows and self.request.size not in (None, leading.sizes[0][:2]):
            raise UserError(
                f"{key} has another size than the images, and pairs are not resized", "--size", "pack them at the size you want"
            )
        if size is None and not follows:
            size = own.sizes[0][:2]
        elif size is None:
            size, said = usual_size(Counter({s[:2]: s[2] for s in own.sizes}), self.request.fit)
            notes += said if key == "image" else []
        self._check_cuts(own, size)
        total = sum(n for _, _, n in own.sizes)
        channels = 1 if own.channels == 1 or own.grey == total else 3
        if self.request.channels != "auto" and (key == "image" or own.channels == leading.channels):
            channels = int(self.request.channels)
        return Shape(size, channels, _npy_header((*size, channels)))

    def _check_cuts(self, own: Pictures, size: tuple[int, int]) -> None:
        """Raises UserError where an image is too long for a crop: better now than when its turn comes."""
        for height, width, _ in own.sizes:
            cut = (height / width) / (size[0] / size[1])
            if self.request.fit == "crop" and max(cut, 1 / cut) > MAX_CUT:
                what = f"{width}x{height} is too long for a crop to {size[1]}x{size[0]}: it would show less than 1/{MAX_CUT:g}"
                raise UserError(what, self.name, "give --fit pad, or pack the data again without this image")

    # --- shards ---

    def _check_lengths(self) -> None:
        """Every shard of a folder has to be there in its length (a store's are compared when they are fetched); the rest `check` says."""
        for shard in () if self.store.remote else self._shards:
            if (size := self.store.size(shard.name)) != shard.bytes:
                what = f"the shard is damaged: it has {size:,} bytes, the manifest says {shard.bytes:,}"
                raise UserError(what, f"{self.store.name}/{shard.name}", "bring it back, or pack the data again (`lgm data pack`)")

    def _opened(self, number: int) -> IO[bytes]:
        shard = self._shards[number]
        for attempt in (1, 2):
            try:
                return open(self.store.path(shard.name, shard.bytes, shard.sha256), "rb", buffering=0)
            except OSError as error:
                if attempt == 2 or not (self.store.remote and isinstance(error, FileNotFoundError)):  # another process made room there
                    raise self._cannot(shard, error.strerror or str(error)) from error
        raise AssertionError("the second attempt returns or raises")

    def _read_index(self, number: int) -> Index:
        shard = self._shards[number]
        where = f"{self.store.name}/{shard.index_name}"
        data = self.store.read(shard.index_name)
        if hashlib.sha256(data).hexdigest() != shard.index:
            raise UserError("the index is damaged: its sha256 is not the manifest's", where, "pack the data again (`lgm data pack`)")
        return Index.from_bytes(data, shard, self.manifest.fields, where)

    def _pixels(self, number: int, key: str, items: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
        """Read the images of some items of a shard into `out` at `places`."""
        shard, file = self._shards[number], self._file(number)
        shape = self._shapes.get(key)
        header = shape.header if shape else _npy_header(out.shape[1:])
        pixels = out[0].nbytes
        for place, (offset, length) in zip(places.tolist(), self._index(number).at[key][items, :2].tolist()):
            if length == len(header) + pixels:  # perhaps raw, and in shape: read it where it belongs
                start = bytearray(len(header))
                self._read(file, shard, offset, [start, memoryview(out[place]).cast("B")])
                if start == header:
                    continue
            out[place] = self._made(self._member(number, offset, length), shape, shard, key, offset, out.shape[1:])

    def _member(self, number: int, offset: int, length: int) -> bytes:
        """One member of a shard, whole."""
        data = bytearray(length)
        self._read(self._file(number), self._shards[number], offset, [data])
        return bytes(data)

    def _read(self, file: IO[bytes], shard: Shard, offset: int, into: list[bytearray | memoryview]) -> None:
        wanted = sum(len(part) for part in into)
        try:
            found = _preadv(file, into, offset)
        except OSError as error:
            raise self._cannot(shard, error.strerror or str(error)) from error
        if found != wanted:
            raise self._cannot(shard, "it ends too early")

    def _made(self, data: bytes, shape: Shape | None, shard: Shard, key: str, offset: int, wanted: tuple[int, ...] | None) -> np.ndarray:
        """An encoded or raw image in shape, or a clip."""
        array = self._decoded(data, shard, key, offset)
        try:
            if shape is not None and array.ndim == 3:
                fitted = fit(array, shape.size, self.request.fit, background=self.request.background)
                return to_channels(fitted, shape.channels)
            if shape is not None or wanted not in (None, array.shape):
                raise BadImage(f"an array of shape {array.shape} among others of {wanted}")
            return array
        except BadImage as error:
            raise self._bad(error, shard, key, offset) from error

    def _decoded(self, data: bytes, shard: Shard, key: str, offset: int) -> np.ndarray:
        try:
            return raw_image(data) if data.startswith(_NPY) else decode(data, background=self.request.background)
        except BadImage as error:
            raise self._bad(error, shard, key, offset) from error

    def _bad(self, error: BadImage, shard: Shard, key: str, offset: int) -> UserError:
        where = f"{self.store.name}/{shard.name}, at byte {offset:,}"
        return UserError(f"{key} of an item cannot be used ({error})", where, f"see `lgm data check {printable(self.name)}`")

    def _cannot(self, shard: Shard, reason: str) -> UserError:
        fix = "bring it back, then run the same command again"
        return UserError(f"the shard cannot be read ({reason})", f"{self.store.name}/{shard.name}", fix)


def raw_image(data: bytes) -> np.ndarray:
    """The array of a .npy member: uint8 (H, W, 1 or 3), or (T, H, W, C). Raises BadImage; nothing is unpickled."""
    found = _NPY_HEADER.match(data)
    shape = tuple(int(number) for number in found[1].split(b",")) if found else ()
    if found is None or (len(shape) > 2 and shape[-1] not in (1, 3)):
        raise BadImage("not an array of uint8 (height, width, 1 or 3)")
    count = int(np.prod(shape, dtype=object))
    if not 0 < count <= 3 * MAX_PIXELS or len(data) - found.end() != count:
        raise BadImage("its shape does not fit its length")
    array = np.frombuffer(data, np.uint8, offset=found.end()).reshape(shape)
    return array[..., None] if array.ndim == 2 else array


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """How numpy's file of a uint8 array of this shape begins."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)})
    return buffer.getvalue()


def _preadv(file: IO[bytes], into: list[bytearray | memoryview], offset: int) -> int:
    """Read at a place, without moving in the file: several threads share it."""
    if hasattr(os, "preadv"):
        return os.preadv(file.fileno(), into, offset)
    with open(file.name, "rb") as own:  # no such call on this system
        own.seek(offset)
        return sum(own.readinto(part) or 0 for part in into)
