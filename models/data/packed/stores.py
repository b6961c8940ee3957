"""Where shards lie: a folder of this machine, or a store that fsspec reaches (`s3://`, `hf://`, `https://`), whose shards are fetched whole
into the cache folder before they are read. No torch here.

A fetch that fails is tried again, after 0.5, 1, 2 and 4 seconds, and one that stands still is given up after LGM_STORE_TIMEOUT seconds
(60); then a UserError says so. fsspec comes with torch; what it needs for a kind of store (s3fs, say) is the user's to install.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from models.data import cache
from models.errors import UserError, printable

ATTEMPTS = 5
PAUSE = 0.5  # seconds before the second attempt, twice as many before the next
FETCHERS = 4  # shards that are fetched at a time
_BLOCK = 2**20  # bytes that are asked for at a time
_TIMEOUT = "LGM_STORE_TIMEOUT"
_WEB = "requests aiohttp"
_PACKAGES = {"s3": "s3fs", "hf": "huggingface_hub", "gs": "gcsfs", "http": _WEB, "https": _WEB, "az": "adlfs"}  # of each kind of store
_STAMPS = ("size", "ETag", "etag", "LastModified", "mtime", "created", "sha256", "blob_id", "lfs")  # what stores tell of a file's version

_SHA256 = re.compile("[0-9a-f]{64}")
_RUNNING: set[_Fetch] = set()

T = TypeVar("T")


class Store(Protocol):
    """Shards and the files beside them, by name."""

    name: str
    remote: bool

    def names(self) -> list[str]:
        """The files that lie here, sorted. Raises UserError where that cannot be told."""
        ...

    def size(self, name: str) -> int:
        """Bytes. Raises UserError where there is no such file."""
        ...

    def stamp(self, name: str) -> str:
        """Text that changes when the file does."""
        ...

    def read(self, name: str) -> bytes:
        """The whole of a small file. Raises UserError."""
        ...

    def read_if_there(self, name: str) -> bytes | None:
        """The same, or None where there is no such file."""
        ...

    def path(self, name: str, size: int, known: str) -> Path:
        """A shard as a file of this machine. `known` is its sha256, which it must have, or its `stamp` as long as nobody knows that.

        Raises UserError where it cannot be had, or is another one (remote ones).
        """
        ...

    def now_known(self, name: str, size: int, before: str, sha256: str) -> None:
        """Be told the sha256 of a shard that was asked for by its version."""
        ...

    def expect(self, shards: Sequence[tuple[str, int, str]]) -> None:
        """Be told which shards (name, size, sha256) will be asked for soon."""
        ...


def store_of(place: str) -> Store:
    """The store of a folder, or of a URL. Raises UserError where it cannot be reached."""
    return RemoteStore(place) if "://" in place else Folder(Path(place))


class Folder:
    """A folder of this machine."""

    remote = False

    def __init__(self, folder: Path) -> None:
        self.name, self._folder = str(folder), folder

    def names(self) -> list[str]:
        try:
            return sorted(entry.name for entry in os.scandir(self._folder) if entry.is_file())
        except OSError as error:
            raise self._cannot(error, "") from error

    def size(self, name: str) -> int:
        try:
            return os.stat(self._folder / name).st_size
        except OSError as error:
            raise self._cannot(error, name) from error

    def stamp(self, name: str) -> str:
        try:
            found = os.stat(self._folder / name)
        except OSError as error:
            raise self._cannot(error, name) from error
        return repr((found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))

    def read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise self._cannot(error, name) from error

    def read_if_there(self, name: str) -> bytes | None:
        return self.read(name) if (self._folder / name).exists() else None

    def path(self, name: str, size: int, known: str) -> Path:
        return self._folder / name

    def now_known(self, name: str, size: int, before: str, sha256: str) -> None:
        pass

    def expect(self, shards: Sequence[tuple[str, int, str]]) -> None:
        """Have the system read them ahead, from front to back: items are asked for in a mixed order, which a disk is slow at."""
        if hasattr(os, "posix_fadvise"):
            threading.Thread(target=self._advise, args=([name for name, _, _ in shards],), name="lgm-ahead", daemon=True).start()

    def _advise(self, names: Sequence[str]) -> None:
        for name in names:
            with contextlib.suppress(OSError), open(self._folder / name, "rb") as file:  # whoever reads it will say what is wrong
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def _cannot(self, error: OSError, name: str) -> UserError:
        return UserError(f"cannot be read ({error.strerror or error})", self._folder / name, "bring it back, or name another folder")


class RemoteStore:
    """A store that fsspec reaches. Shards are kept in the cache folder, by what is in them; several processes share them."""

    remote = True

    def __init__(self, url: str) -> None:
        self.name = url.rstrip("/")
        kind = url.partition("://")[0]
        try:
            self._fs, self._root = importlib.import_module("fsspec.core").url_to_fs(url)
        except (ImportError, ValueError) as error:
            package = _PACKAGES.get(kind, "fsspec")
            what = f"{kind}:// cannot be reached ({printable(error, 120)})"
            raise UserError(what, url, f"pip install {package}, or name a folder") from error
        except Exception as error:  # a store may raise anything
            raise self._cannot(error, "") from error
        self._fetches: dict[str, _Fetch] = {}
        self._lock = threading.Lock()
        self._gate = threading.BoundedSemaphore(FETCHERS)
        self._moved = time.monotonic()  # when the last bytes came

    def names(self) -> list[str]:
        found = self._patiently("", lambda: self._fs.ls(self._root, detail=True))
        return sorted(str(one["name"]).rpartition("/")[2] for one in found if one["type"] == "file")

    def size(self, name: str) -> int:
        found = self._patiently(name, lambda: self._fs.info(self._at(name))).get("size")
        if not isinstance(found, int):
            raise UserError(
                "the store does not say how long it is", f"{self.name}/{name}", "pack the data (`lgm data pack`), or name a folder"
            )
        return found

    def stamp(self, name: str) -> str:
        found = self._patiently(name, lambda: self._fs.info(self._at(name)))
        return repr([(key, str(found[key])) for key in _STAMPS if key in found])

    def read(self, name: str) -> bytes:
        return bytes(self._patiently(name, lambda: self._fs.cat_file(self._at(name))))

    def read_if_there(self, name: str) -> bytes | None:
        def ask() -> bytes | None:
            try:
                return bytes(self._fs.cat_file(self._at(name)))
            except FileNotFoundError:
                return None

        return self._patiently(name, ask)

    def path(self, name: str, size: int, known: str) -> Path:
        place = self._place(name, size, known)
        if not _whole(place, size):
            self._wait(name, self._fetch(name, size, known))
        cache.used(place)
        return place

    def now_known(self, name: str, size: int, before: str, sha256: str) -> None:
        with contextlib.suppress(OSError):  # it went meanwhile, and will be fetched again
            os.replace(self._place(name, size, before), self._place(name, size, sha256))

    def expect(self, shards: Sequence[tuple[str, int, str]]) -> None:
        room = cache.limit() // max(int(os.environ.get("LOCAL_WORLD_SIZE") or 1), 1)  # the ranks of a machine share it
        for name, size, sha256 in shards:
            room -= size
            if room < 0:  # what is fetched would push out what is still needed
                return
            place = self._place(name, size, sha256)
            if _whole(place, size):
                cache.used(place)
            else:
                self._fetch(name, size, sha256)

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _place(self, name: str, size: int, known: str) -> Path:
        content = known if _SHA256.fullmatch(known) else hashlib.sha256(repr((self.name, name, size, known)).encode()).hexdigest()
        return cache.cache_folder() / "shards" / f"{content}.tar"

    def _fetch(self, name: str, size: int, known: str) -> _Fetch:
        """Begin to fetch a shard, unless somebody of this process does so already."""
        with self._lock:
            running = self._fetches.get(name)
            if running is None or running.over.is_set():
                running = self._fetches[name] = _Fetch()
                # A daemon: a store that never answers must not keep the process alive.
                threading.Thread(target=self._run, args=(running, name, size, known), name="lgm-fetch", daemon=True).start()
                _RUNNING.add(running)
            return running

    def _wait(self, name: str, fetch: _Fetch) -> None:
        patience = _patience()
        begun = time.monotonic()
        while not fetch.over.wait(min(patience, 0.5)):
            if fetch.behind_others:  # another process fetches it
                begun = time.monotonic()
            if time.monotonic() - max(begun, self._moved) > patience:
                fetch.given_up = True
                raise self._silent(name, patience)
        if fetch.error is not None:
            raise fetch.error

    def _silent(self, name: str, patience: float) -> UserError:
        what = f"the store has sent nothing for {patience:g} seconds"
        return UserError(what, f"{self.name}/{name}", f"run the same command again later; {_TIMEOUT} says how long to wait")

    def _run(self, fetch: _Fetch, name: str, size: int, known: str) -> None:
        place = self._place(name, size, known)
        try:
            with self._gate:
                fetch.behind_others = True
                with cache.locked(place):
                    fetch.behind_others = False
                    if _whole(place, size):
                        return
                    if not cache.make_room(size):
                        what = f"a shard of {size:,} bytes is more than the cache may keep"
                        raise UserError(what, f"{self.name}/{name}", f"set {cache.VARIABLE} to more")
                    self._again(name, lambda: self._download(name, place, size, known, fetch), lambda: fetch.given_up)
        except BaseException as error:  # raised again where the shard is waited for
            fetch.error = error
        finally:
            fetch.over.set()
            _RUNNING.discard(fetch)

    def _download(self, name: str, place: Path, size: int, known: str, fetch: _Fetch) -> None:
        digest = hashlib.sha256()
        with contextlib.ExitStack() as stack:
            with _of_this_machine(place):
                temporary = stack.enter_context(cache.making(place))
                file = stack.enter_context(open(temporary, "wb", buffering=0))
            remote = stack.enter_context(self._fs.open(self._at(name), "rb"))
            while block := remote.read(_BLOCK):
                self._moved = time.monotonic()
                digest.update(block)
                with _of_this_machine(place):
                    file.write(block)
                if fetch.given_up:
                    raise OSError("given up")
            if file.tell() != size:
                raise OSError(f"{file.tell():,} bytes came, {size:,} were announced")
            if _SHA256.fullmatch(known) and digest.hexdigest() != known:
                raise OSError("its sha256 is not the manifest's")

    def _patiently(self, name: str, ask: Callable[[], T]) -> T:
        """What `ask` gives, asked again where it fails, and given up where it gives nothing. Raises UserError."""
        found: list[T] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                found.append(self._again(name, ask))
            except BaseException as error:  # raised again by who waits
                failed.append(error)

        thread = threading.Thread(target=run, name="lgm-ask", daemon=True)
        thread.start()
        patience = _patience()
        thread.join(patience + sum(PAUSE * 2**n for n in range(ATTEMPTS - 1)))
        if thread.is_alive():
            raise self._silent(name, patience)
        if failed:
            raise failed[0]
        return found[0]

    def _again(self, name: str, ask: Callable[[], T], over: Callable[[], bool] = lambda: False) -> T:
        """What `ask` gives, asked again where it fails. Raises UserError."""
        pause = PAUSE
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return ask()
            except (UserError, FileNotFoundError, PermissionError) as error:
                raise error if isinstance(error, UserError) else self._cannot(error, name) from error
            except Exception as error:  # a store may raise anything
                if attempt == ATTEMPTS or over():
                    raise self._cannot(error, name) from error
            time.sleep(pause)
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    def _cannot(self, error: BaseException, name: str) -> UserError:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"{type(error).__name__}: {printable(error, 160)}"
        where = f"{self.name}/{name}" if name else self.name
        fix = "check the address and the connection, then run the same command again"
        return UserError(f"the store does not give it ({reason})", where, fix)


class _Fetch:
    """A shard on its way."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.error: BaseException | None = None
        self.given_up = False
        self.behind_others = False  # another process has the lock of this shard


def _patience() -> float:
    """Seconds without a byte after which a store is given up."""
    text = os.environ.get(_TIMEOUT) or "60"
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found < 1e6:
        raise UserError(f"{text!r} is not a number of seconds", _TIMEOUT, "write one, such as 60")
    return found


def _whole(place: Path, size: int) -> bool:
    """Whether a shard lies in the cache in its length. One that was cut off (the machine lost its power) is removed."""
    try:
        found = place.stat().st_size
    except OSError:
        return False
    if found != size:
        cache.remove(place)
    return found == size


@atexit.register
def _stop_fetching() -> None:
    """What is still on its way when the process ends leaves nothing behind, if the store answers within two seconds."""
    end = time.monotonic() + 2
    for fetch in list(_RUNNING):
        fetch.given_up = True
    for fetch in list(_RUNNING):
        fetch.over.wait(max(end - time.monotonic(), 0))


@contextlib.contextmanager
def _of_this_machine(place: Path) -> Iterator[None]:
    """What fails in this block is the cache's disk, and to ask the store again would not help."""
    try:
        yield
    except OSError as error:
        what = f"a shard cannot be kept ({error.strerror or error})"
        raise UserError(what, place.parent, "free some space, or set LGM_CACHE to a folder on another disk") from error
