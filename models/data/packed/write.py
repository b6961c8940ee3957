"""Packing: from a folder or any other data set to shards. No torch here.

A folder's files go in as they are, or decoded and fitted (`raw`); images of other sets as PNG or raw. The set is made beside the place
where it will lie and appears there whole; nobody takes half a set for one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from models.data.dataset import DataRequest
from models.data.folder import LISTED, Plan, cores, list_folder, make_plan
from models.data.images import BadImage, decode_with_info, fit, is_grey, png_bytes, to_channels
from models.data.items import Field, Items
from models.data.labels import table_of
from models.data.packed import manifest as m
from models.errors import UserError, printable

SHARD = 64 * 10**6  # bytes
_BLOCK = 256  # items that are prepared at a time
_SUFFIX = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}  # of formats that are not called like it

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Member:
    """One image of an item, as it will lie in a shard."""

    suffix: str
    data: bytes
    size: tuple[int, int] = (0, 0)  # (height, width)
    channels: int = 3
    grey: bool = False  # in a file, where three equal channels mean one


@dataclass(frozen=True)
class Packable:
    """One item."""

    images: Mapping[str, Member]
    values: Mapping[str, Any]  # the other fields' rows
    file: str = ""


@dataclass
class Source:
    """What is packed: its fields, and its items once, in order."""

    name: str
    fields: Mapping[str, Field]
    count: int
    items: Iterable[Packable]
    notes: list[str] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(
        default_factory=list
    )  # (path, reason) of images that were left out, once the items were gone through


def of_folder(request: DataRequest, raw: bool, table: str = "") -> Source:
    """The images of a folder, as their files are, or `raw`: decoded and brought to one shape; with labels of a table, if any.

    Raises UserError, also while it is read.
    """
    listing = list_folder(request)
    paths = listing.paths()
    plan = make_plan(paths, request) if raw else None
    fields: dict[str, Field] = {"image": Field("image")}
    rows: dict[str, np.ndarray] = {}
    if table:
        names = [(name, f"{request.split}/{name}") for name in (file.replace(os.sep, "/") for file in listing.files)]
        for key, (told, values) in table_of(names, table).items():
            fields[key], rows[key] = told, values
    elif listing.labels is not None:
        fields["label"], rows["label"] = Field("number", names=listing.classes, count=len(listing.classes)), listing.labels
    notes = [*listing.notes, *(plan.notes if plan else ())]
    source = Source(str(request), fields, len(paths), (), notes)

    def one(place: int) -> Packable | BadImage:
        try:
            values = {key: found[place] for key, found in rows.items()}
            return Packable({"image": _file(paths[place], plan, request)}, values, listing.files[place])
        except BadImage as error:
            return error

    def items() -> Iterator[Packable]:
        bad = source.bad
        for place, made in enumerate(_in_threads(one, range(len(paths)), request.workers)):
            if isinstance(made, Packable):
                yield made
                continue
            bad.append((paths[place], str(made)))
            if not request.skip_bad and len(bad) == LISTED:
                break
        if bad and not request.skip_bad:
            lines = "\n    ".join(f"{printable(path)}: {printable(reason)}" for path, reason in bad)
            what = f"{'at least ' if len(bad) == LISTED else ''}{len(bad)} of {len(paths):,} images cannot be used"
            check = f"`lgm data check {printable(request)}` lists all of them"
            raise UserError(what, request.name, f"repair or remove them, or leave them out with --skip-bad; {check}\n    {lines}")
        if bad:
            source.notes.append(f"{len(bad):,} unreadable images were left out (--skip-bad)")

    source.items = items()
    return source


def _file(path: str, plan: Plan | None, request: DataRequest) -> Member:
    """One file: as it is, or in the plan's shape."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BadImage(f"cannot be opened: {error.strerror or error}") from error
    decoded = decode_with_info(data, background=request.background)
    if plan is None:
        array = decoded.array
        return Member(_SUFFIX.get(decoded.format, decoded.format.lower()), data, array.shape[:2], array.shape[2], is_grey(array))
    array = to_channels(fit(decoded.array, plan.size, request.fit, background=request.background), plan.channels)
    return replace(_raw(array), grey=is_grey(array))


def of_items(data: Items, raw: bool) -> Source:
    """Any data set: its images as PNG, or `raw`."""
    encode = _raw if raw else _png
    images = [key for key, one in data.fields.items() if one.kind in m.IMAGES]
    others = [key for key in data.fields if key not in images]
    fields = {key: Field("image") if one.kind == "image" else one for key, one in data.fields.items()}
    root = getattr(data, "root", "")
    names = [os.path.relpath(file, root) for file in data.files] if root else [""] * len(data)

    def items() -> Iterator[Packable]:
        for start in range(0, len(data), _BLOCK):
            index = np.arange(start, min(start + _BLOCK, len(data)))
            rows = {key: data.rows(key, index) for key in data.fields}
            how = {key: _raw if data.fields[key].kind == "clip" else encode for key in images}
            members = {key: list(_in_threads(how[key], rows[key])) for key in images}
            for n in range(len(index)):
                yield Packable({key: members[key][n] for key in images}, {key: rows[key][n] for key in others}, names[start + n])

    return Source(data.name, fields, len(data), items(), list(data.notes))


def _raw(array: np.ndarray) -> Member:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), (1, 0), allow_pickle=False)
    return Member("npy", buffer.getvalue(), array.shape[-3:-1], array.shape[-1])


def _png(array: np.ndarray) -> Member:
    return Member("png", png_bytes(array), array.shape[:2], array.shape[2])


def _in_threads(function: Callable[[T], U], items: Iterable[T], workers: int = 0) -> Iterator[U]:
    """function(item) for each item, in order, in threads, a few items ahead and no further."""
    threads = workers or cores()
    ahead: deque[Future[U]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > 4 * threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


# --- writing ----------------------------------------------------------------------------------------------------------------------------


def pack(source: Source, out: Path, shard: int = SHARD, progress: Callable[[int, int], None] = lambda done, total: None) -> m.Manifest:
    """Write a packed set to `out`, which must not be there, or be empty. `progress` is told items done, and how many there may be.

    Raises UserError where something lies there, where another process packs to it, and where the disk refuses; then nothing is left.
    """
    if shard < 1:
        raise UserError(f"shards of {shard} bytes", "--shard", "give a size such as 64M")
    out = Path(os.path.realpath(out))  # of a link, or of ".", what it leads to
    with _claimed(out) as folder:
        try:
            writer = _Writer(folder, source.fields, shard)
            for done, item in enumerate(source.items, start=1):
                writer.add(item)
                if done % _BLOCK == 0:
                    progress(done, source.count)
            found = writer.finish(source)
            (folder / m.NAME).write_text(found.to_json(), encoding="utf-8")
            for path in folder.iterdir():  # on the disk before the name is
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
            os.rename(folder, out)  # also over an empty folder
        except OSError as error:
            raise UserError(
                f"the set cannot be written ({error.strerror or error})", out, "free some space, or choose another place"
            ) from error
    return found


@contextlib.contextmanager
def _claimed(out: Path) -> Iterator[Path]:
    """An empty folder beside `out` that this process alone works in; it is gone in the end, unless it was renamed."""
    import fcntl

    folder = out.with_name(f".{out.name}.packing")
    try:
        if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
            raise UserError("something lies there already", out, "choose another place")
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"cannot write there ({error.strerror or error})", out.parent, "choose another place") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.fstat(lock).st_ino == os.stat(folder).st_ino  # not one that was renamed meanwhile
        except OSError:
            mine = False
        if not mine:
            raise UserError("another process packs to this place", out, "wait for it, or choose another place")
        try:
            for path in folder.iterdir():  # of a process that was killed
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield folder
        finally:
            if folder.exists() and os.fstat(lock).st_ino == os.stat(folder).st_ino:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


class _Writer:
    """Fills shards."""

    def __init__(self, folder: Path, fields: Mapping[str, Field], shard: int) -> None:
        self.folder, self.fields, self.most = folder, fields, shard
        self.count = 0
        self.shards: list[m.Shard] = []
        self.sizes: dict[str, Counter[tuple[int, int]]] = {key: Counter() for key, one in fields.items() if one.kind in m.IMAGES}
        self.grey: Counter[str] = Counter()
        self.channels: dict[str, int] = dict.fromkeys(self.sizes, 1)
        self.now: _Shard | None = None

    def add(self, item: Packable) -> None:
        shard = self.now = self.now or _Shard(self.folder, f"shard-{len(self.shards):06d}.tar", self.fields)
        shard.add(f"{self.count:09d}", item)
        self.count += 1
        for key, member in item.images.items():
            self.sizes[key][member.size] += 1
            self.grey[key] += member.grey
            self.channels[key] = max(self.channels[key], member.channels)
        if shard.length >= self.most:
            self._close()

    def finish(self, source: Source) -> m.Manifest:
        self._close()
        if not self.shards:
            raise UserError("no image to pack", source.name, "name other data")
        pictures = {
            key: m.Pictures(tuple((*size, n) for size, n in sizes.most_common()), self.grey[key], self.channels[key])
            for key, sizes in self.sizes.items()
            if self.fields[key].kind == "image"
        }
        fields = dict(self.fields)
        notes, bad = tuple(map(printable, source.notes)), tuple((printable(path), printable(reason)) for path, reason in source.bad)
        return m.Manifest(printable(source.name), fields, pictures, tuple(self.shards), notes, bad)

    def _close(self) -> None:
        if self.now is not None:
            self.shards.append(self.now.close())
            self.now = None


class _Shard:
    """One tar file that is being written, and its index."""

    def __init__(self, folder: Path, name: str, fields: Mapping[str, Field]) -> None:
        self.folder, self.name, self.fields = folder, name, fields
        self.file = _Hashed(open(folder / name, "wb"))
        self.tar = tarfile.open(fileobj=self.file, mode="w", format=tarfile.USTAR_FORMAT)  # type: ignore[call-overload]
        self.at: dict[str, list[tuple[int, int, int]]] = {key: [] for key, one in fields.items() if one.kind in m.IMAGES}
        self.values: dict[str, list[Any]] = {key: [] for key, one in fields.items() if one.kind not in m.IMAGES}
        self.files: list[str] = []

    @property
    def length(self) -> int:
        """Bytes written."""
        return int(self.tar.offset)

    def add(self, key: str, item: Packable) -> None:
        for name, member in item.images.items():
            called = f"{key}.{member.suffix}" if name == "image" else f"{key}.{name}.{member.suffix}"
            self.at[name].append(self._write(called, member.data))
        if "label" in item.values:
            self._write(f"{key}.cls", str(int(item.values["label"])).encode())
        if told := {name: self._in_words(name, value) for name, value in item.values.items() if name != "label"}:
            self._write(f"{key}.json", json.dumps(told).encode())
        for name, value in item.values.items():
            self.values[name].append(value)
        self.files.append(item.file)

    def _in_words(self, name: str, value: Any) -> Any:
        """A label for other programs: what has names by these."""
        told = self.fields[name]
        if told.kind in ("flags", "vector"):
            return {word: number for word, number in zip(told.names, np.asarray(value).tolist())} or np.asarray(value).tolist()
        if told.kind == "tokens":
            return " ".join(told.names[number] for number in np.asarray(value).tolist() if number)
        return int(value)

    def _write(self, name: str, data: bytes) -> tuple[int, int, int]:
        header = tarfile.TarInfo(name)
        header.size = len(data)
        begin = int(self.tar.offset) + tarfile.BLOCKSIZE
        self.tar.addfile(header, io.BytesIO(data))
        return begin, len(data), zlib.crc32(data)

    def close(self) -> m.Shard:
        self.tar.close()
        size = self.file.tell()
        sha256 = self.file.close()
        at = {key: np.array(places, np.int64).reshape(-1, 3) for key, places in self.at.items()}
        values = {key: np.array(rows, m.DTYPES[self.fields[key].kind]) for key, rows in self.values.items()}
        index = m.Index.of(at, values, tuple(self.files)).to_bytes()
        (self.folder / m.index_name(self.name)).write_bytes(index)
        return m.Shard(self.name, len(self.files), size, sha256, hashlib.sha256(index).hexdigest())


class _Hashed:
    """A file that is written from front to back, and its sha256."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self._size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self._size += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._size

    def close(self) -> str:
        self._file.close()
        return self._digest.hexdigest()
