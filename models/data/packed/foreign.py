"""Shards that others wrote, in WebDataset's format: their index is made when they are first used, and kept in the cache folder. No torch.

Members in a row whose names agree up to the first dot belong to one item. Its image is `KEY.png` (jpg, webp, npy, ...), the image of a
pair's other side `KEY.target.png`; `KEY.cls` is its class, `KEY.txt` a sentence. What else there is counts for nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from models.data import cache
from models.data.folder import cores
from models.data.images import SUFFIXES, BadImage, decode, is_grey
from models.data.items import Field
from models.data.labels import numbered, tokens
from models.data.packed import manifest as m
from models.data.packed.read import raw_image
from models.data.packed.stores import Store
from models.errors import UserError, printable
from models.version import __version__

_IMAGES = (*SUFFIXES, ".npy")
_TEXTS = {"cls": "label", "txt": "caption"}
_MOST_TEXT = 1024  # bytes of a class or sentence; what is longer is cut
_BLOCK = 256  # items that are decoded at a time


class Indexed:
    """A store of shards without index, with the index that was made of them in a folder of the cache."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.name, self.remote, self._folder = store.name, store.remote, folder
        self.names, self.size, self.stamp, self.expect = store.names, store.size, store.stamp, store.expect
        self.path, self.now_known = store.path, store.now_known

    def read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            what = f"the index of the shards cannot be read ({error.strerror or error})"
            raise UserError(what, self._folder / name, "run the same command again: it is made anew") from error

    def read_if_there(self, name: str) -> bytes | None:
        return self.read(name) if (self._folder / name).exists() else None


def indexed(store: Store, names: Sequence[str], skip_bad: bool) -> tuple[m.Manifest, Indexed]:
    """The manifest of other people's shards, and a store that has their index, from the cache or made now, which decodes every image once.

    Raises UserError where a shard is no tar file, is damaged, has no images, or one that cannot be used and is not to be left out.
    """
    stamps = {name: store.stamp(name) for name in names}
    key = repr((__version__, m.FORMAT, store.name, skip_bad, sorted(stamps.items())))
    folder = cache.cache_folder() / "indexes" / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
    with cache.locked(folder):
        if not (folder / m.NAME).exists():
            try:
                with cache.making(folder) as made:
                    made.mkdir()
                    _Maker(store, made, skip_bad).make(stamps)
            except OSError as error:
                what = f"the index of the shards cannot be kept ({error.strerror or error})"
                raise UserError(what, folder.parent, "free some space, or set LGM_CACHE to another folder") from error
    cache.used(folder)
    found = Indexed(store, folder)
    return m.Manifest.from_json(found.read(m.NAME), folder / m.NAME), found


@dataclass
class _Item:
    """One item's members: where its images lie, and its texts."""

    key: str
    at: dict[str, tuple[int, int]] = field(default_factory=dict)  # offset and bytes
    texts: dict[str, str] = field(default_factory=dict)


class _Seen(NamedTuple):
    """What decoding said of one image."""

    height: int
    width: int
    channels: int
    grey: bool
    crc: int


class _Maker:
    """Makes the index of some shards. Of each item it keeps a few numbers, its key, class and caption."""

    def __init__(self, store: Store, folder: Path, skip_bad: bool) -> None:
        self.store, self.folder, self.skip_bad = store, folder, skip_bad
        self.sizes: dict[str, Counter[tuple[int, int]]] = {}
        self.channels: dict[str, int] = {}
        self.grey: Counter[str] = Counter()
        self.have: Counter[str] = Counter()  # how many items have an image, a text
        self.texts: dict[str, list[str]] = {name: [] for name in _TEXTS.values()}
        self.shards: list[tuple[str, int, str, int]] = []  # name, bytes, sha256, items
        self.at: list[tuple[dict[str, np.ndarray], tuple[str, ...]]] = []  # of each shard
        self.without, self.count = 0, 0
        self.bad: list[tuple[str, str]] = []

    def make(self, stamps: Mapping[str, str]) -> None:
        for name, stamp in stamps.items():
            self._look_at(name, stamp)
        if not self.count:
            what = "no images in these shards"
            raise UserError(what, self.store.name, f"an item's image is called KEY.png (or {', '.join(s[1:] for s in _IMAGES[1:8])}, ...)")
        images = [key for key in ("image", "target") if self.have[key] == self.count]
        fields: dict[str, Field] = {key: Field("image") for key in images}
        values: dict[str, np.ndarray] = {}
        if self.have["label"] == self.count:
            classes, values["label"] = numbered(self.texts["label"])
            fields["label"] = Field("number", names=classes, count=len(classes))
        if self.have["caption"] == self.count:
            fields["caption"], values["caption"] = tokens(self.texts["caption"])
        pictures = {
            key: m.Pictures(tuple((*size, n) for size, n in self.sizes[key].most_common()), self.grey[key], self.channels[key])
            for key in images
        }
        notes: tuple[str, ...] = (f"{self.without:,} items without an image were left out",) if self.without else ()
        notes += (f"{len(self.bad):,} unreadable images were left out (--skip-bad)",) if self.bad else ()
        shards, start = [], 0
        for (name, size, sha256, count), (at, keys) in zip(self.shards, self.at, strict=True):
            rows = {key: found[start : start + count] for key, found in values.items()}
            index = m.Index.of({key: at[key] for key in images}, rows, keys).to_bytes()
            (self.folder / m.index_name(name)).write_bytes(index)
            shards.append(m.Shard(name, count, size, sha256, hashlib.sha256(index).hexdigest()))
            start += count
        found = m.Manifest(printable(self.store.name), fields, pictures, tuple(shards), notes, tuple(self.bad))
        (self.folder / m.NAME).write_text(found.to_json(), encoding="utf-8")

    def _look_at(self, name: str, stamp: str) -> None:
        """One shard: it is read once for its members and their images, and once for its sha256."""
        store, where = self.store, f"{self.store.name}/{name}"
        size = store.size(name)
        path = store.path(name, size, stamp)
        at: dict[str, list[tuple[int, int, int]]] = {"image": [], "target": []}
        keys: list[str] = []
        try:
            with open(path, "rb") as file, ThreadPoolExecutor(cores()) as pool:
                items = _items(path, file, where, size)
                while block := list(itertools.islice(items, _BLOCK)):
                    for item, seen in zip(block, pool.map(lambda item: _seen(file, item), block)):
                        self._add(item, seen, where, at, keys)
            sha256 = cache.sha256_of(path)
        except OSError as error:
            raise UserError(f"the shard cannot be read ({error.strerror or error})", where, "bring it back, or name others") from error
        store.now_known(name, size, stamp, sha256)
        if keys:
            self.shards.append((name, size, sha256, len(keys)))
            self.at.append(({key: np.array(places, np.int64) for key, places in at.items()}, tuple(keys)))

    def _add(
        self, item: _Item, seen: dict[str, _Seen] | BadImage, where: str, at: dict[str, list[tuple[int, int, int]]], keys: list[str]
    ) -> None:
        if "image" not in item.at:
            self.without += 1
            return
        if isinstance(seen, BadImage):
            member = f"{where}: {printable(item.key)}"
            if not self.skip_bad:
                raise UserError(f"an image cannot be used ({seen})", member, "leave such images out with --skip-bad")
            self.bad.append((member, printable(seen)))
            return
        for key, one in seen.items():
            at[key].append((*item.at[key], one.crc))
            self.sizes.setdefault(key, Counter())[one.height, one.width] += 1
            self.channels[key] = max(self.channels.get(key, 1), one.channels)
            self.grey[key] += one.grey
            self.have[key] += 1
        for name, text in item.texts.items():
            self.texts[name].append(sys.intern(text))
            self.have[name] += 1
        keys.append(printable(item.key))
        self.count += 1


def _items(path: Path, file: IO[bytes], where: str, size: int) -> Iterator[_Item]:
    """The items of a shard in order."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = (_member(tar, member) for member in tar)
            for key, group in itertools.groupby((one for one in members if one), key=lambda one: one[0]):
                item = _Item(key)
                for _, suffix, offset, length in group:
                    if length < 0 or offset + length > size:
                        raise tarfile.ReadError("it ends too early")
                    _place(item, suffix, offset, length, file)
                yield item
            # tarfile takes a damaged header for the end of the archive, which is a block of zeros.
            if os.pread(file.fileno(), tarfile.BLOCKSIZE, tar.offset) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it is damaged or cut off behind its last member")
    except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        what = f"no readable tar file ({printable(error, 80)})"
        raise UserError(what, where, "shards are plain tar files: unpack a compressed one (gunzip), fetch a damaged one again") from error


def _place(item: _Item, suffix: str, offset: int, length: int, file: IO[bytes]) -> None:
    """Note a member of an item, if it counts. An encoded image goes before an array, which may be anything."""
    name, _, kind = suffix.rpartition(".")
    name = name or "image"
    if f".{kind}" in _IMAGES and name in ("image", "target"):
        if name not in item.at or kind != "npy":
            item.at[name] = (offset, length)
    elif suffix in _TEXTS:
        item.texts[_TEXTS[suffix]] = os.pread(file.fileno(), min(length, _MOST_TEXT), offset).decode("utf-8", "replace").strip()


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[str, str, int, int] | None:
    """Key, suffix in small letters, offset and length of a member that is a file."""
    tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
    folder, slash, name = member.name.rpartition("/")
    key, dot, suffix = name.partition(".")
    if not member.isreg() or member.issparse() or not key or not dot:
        return None
    return f"{folder}{slash}{key}", suffix.lower(), member.offset_data, member.size


def _seen(file: IO[bytes], item: _Item) -> dict[str, _Seen] | BadImage:
    """What the images of an item are, decoded; or why one of them cannot be used."""
    found = {}
    try:
        for key, (offset, length) in item.at.items():
            data = os.pread(file.fileno(), length, offset)
            raw = data.startswith(b"\x93NUMPY")
            array = raw_image(data) if raw else decode(data)
            if array.ndim != 3:
                raise BadImage(f"an array of shape {array.shape}")
            height, width, channels = array.shape
            found[key] = _Seen(height, width, channels, not raw and is_grey(array), zlib.crc32(data))
    except BadImage as error:
        return error
    return found
