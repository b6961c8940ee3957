"""Shards that others wrote, in WebDataset's format: their index is made when they are first used, and kept in the cache folder. No torch.

Members in a row whose names agree up to the first dot belong to one item. Its image is `KEY.png` (jpg, webp, npy, ...), the image of a
pair's other side `KEY.target.png`; `KEY.cls` is its class, `KEY.txt` a sentence. What else there is counts for nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.data import cache
from models.data.images import SUFFIXES, BadImage, read_header
from models.data.items import Field
from models.data.labels import numbered, tokens
from models.data.packed import manifest as m
from models.data.packed.read import raw_image
from models.data.packed.stores import Store
from models.errors import UserError, printable
from models.version import __version__

_IMAGES = (*SUFFIXES, ".npy")
_TEXTS = {"cls": "label", "txt": "caption"}
_MOST_TEXT = 2**16  # bytes of a class or sentence


class Indexed:
    """A store of shards without index, with the index that was made of them in a folder of the cache."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.name, self.remote, self._store, self._folder = store.name, store.remote, store, folder
        self.names, self.size, self.stamp, self.path, self.expect = store.names, store.size, store.stamp, store.path, store.expect
        self.read_if_there = store.read_if_there

    def read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            what = f"the index of the shards cannot be read ({error.strerror or error})"
            raise UserError(what, self._folder / name, "run the same command again: it is made anew") from error


def indexed(store: Store, names: Sequence[str], skip_bad: bool) -> tuple[m.Manifest, Indexed]:
    """The manifest of other people's shards, and a store that has their index, from the cache or made now, which reads every shard once.

    Raises UserError where a shard is no tar file, is damaged, or has no images.
    """
    key = repr((__version__, m.FORMAT, store.name, skip_bad, [(name, store.stamp(name)) for name in names]))
    folder = cache.cache_folder() / "indexes" / hashlib.sha256(key.encode()).hexdigest()
    with cache.locked(folder):
        if not (folder / m.NAME).exists():
            try:
                with cache.making(folder) as made:
                    made.mkdir()
                    _make(store, names, skip_bad, made)
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
    at: dict[str, tuple[int, int]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    crc: dict[str, int] = field(default_factory=dict)


@dataclass
class _Found:
    """What a shard holds."""

    name: str
    bytes: int
    sha256: str
    items: list[_Item]


def _make(store: Store, names: Sequence[str], skip_bad: bool, folder: Path) -> None:
    sizes: dict[str, Counter[tuple[int, int]]] = {}
    channels: dict[str, Counter[int]] = {}
    shards, without, bad = [], 0, 0
    for name in names:
        size = store.size(name)
        path = store.path(name, size)
        items = []
        for item in _items(path, f"{store.name}/{name}", size):
            if "image" not in item.at:
                without += 1
                continue
            try:
                looked = {key: _look(path, *place) for key, place in item.at.items()}
            except BadImage as error:
                if not skip_bad:
                    where = f"{store.name}/{name}: {printable(item.key)}"
                    raise UserError(f"an image cannot be used ({error})", where, "leave such images out with --skip-bad") from error
                bad += 1
                continue
            for key, (height, width, count, crc) in looked.items():
                item.crc[key] = crc
                sizes.setdefault(key, Counter())[height, width] += 1
                channels.setdefault(key, Counter())[count] += 1
            items.append(item)
        if items:
            shards.append(_Found(name, size, _sha256(path), items))
    every = [item for shard in shards for item in shard.items]
    if not every:
        what = "no images in these shards"
        raise UserError(what, store.name, f"an item's image is called KEY.png (or {', '.join(s[1:] for s in _IMAGES[1:8])}, ...)")
    images = [key for key in ("image", "target") if all(key in item.at for item in every)]
    fields: dict[str, Field] = {key: Field("image") for key in images}
    values: dict[str, np.ndarray] = {}
    if all("label" in item.texts for item in every):
        classes, values["label"] = numbered([item.texts["label"] for item in every])
        fields["label"] = Field("number", names=classes, count=len(classes))
    if all("caption" in item.texts for item in every):
        fields["caption"], values["caption"] = tokens([item.texts["caption"] for item in every])
    notes = [f"{without:,} items without an image were left out"] if without else []
    notes += [f"{bad:,} unreadable images were left out (--skip-bad)"] if bad else []
    pictures = {
        key: m.Pictures(tuple((*size, n) for size, n in sizes[key].most_common()), channels[key][1], max(channels[key])) for key in images
    }
    told, start = [], 0
    for shard in shards:
        stop = start + len(shard.items)
        at = {key: np.array([(*item.at[key], item.crc[key]) for item in shard.items], np.int64) for key in images}
        index = m.Index(at, {key: rows[start:stop] for key, rows in values.items()}, tuple(item.key for item in shard.items)).to_bytes()
        (folder / m.index_name(shard.name)).write_bytes(index)
        told.append(m.Shard(shard.name, stop - start, shard.bytes, shard.sha256, hashlib.sha256(index).hexdigest()))
        start = stop
    (folder / m.NAME).write_text(m.Manifest(store.name, fields, pictures, tuple(told), tuple(notes)).to_json(), encoding="utf-8")


def _items(path: Path, where: str, size: int) -> Iterator[_Item]:
    """The items of a shard in order."""
    try:
        with tarfile.open(path, "r:") as tar, open(path, "rb") as file:
            members = (_member(tar, member) for member in tar)
            for key, group in itertools.groupby((one for one in members if one), key=lambda one: one[0]):
                item = _Item(key)
                for _, suffix, offset, length in group:
                    if offset + length > size:
                        raise tarfile.ReadError("it ends too early")
                    _, dot, kind = suffix.rpartition(".")
                    name = suffix[: -len(kind) - 1] if dot else "image"
                    if f".{kind}" in _IMAGES:
                        item.at.setdefault(name, (offset, length))
                    elif suffix in _TEXTS and length <= _MOST_TEXT:
                        file.seek(offset)
                        item.texts[_TEXTS[suffix]] = file.read(length).decode("utf-8", "replace").strip()
                yield item
    except (tarfile.TarError, EOFError, ValueError) as error:
        what = f"no readable tar file ({printable(error, 80)})"
        raise UserError(what, where, "shards are plain tar files: unpack a compressed one (gunzip), fetch a damaged one again") from error


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[str, str, int, int] | None:
    """Key, suffix in small letters, offset and length of a member that is a file."""
    tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
    folder, slash, name = member.name.rpartition("/")
    key, dot, suffix = name.partition(".")
    if not member.isreg() or member.issparse() or not key or not dot:
        return None
    return f"{folder}{slash}{key}", suffix.lower(), member.offset_data, member.size


def _look(path: Path, offset: int, length: int) -> tuple[int, int, int, int]:
    """Height, width and channels of an image, from its header, and the CRC-32 of its bytes. Raises BadImage."""
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read(length)
    if data.startswith(b"\x93NUMPY"):
        array = raw_image(data)
        if array.ndim != 3:
            raise BadImage(f"an array of shape {array.shape}")
        return array.shape[0], array.shape[1], array.shape[2], zlib.crc32(data)
    found = read_header(data)
    return found.height, found.width, found.channels, zlib.crc32(data)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
