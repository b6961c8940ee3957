"""The user's cache folder: what is kept there so that it need not be made or fetched again, and how much of it. No torch here.

`decoded` and `shards` may be deleted at any time: whoever needs an entry makes it again, and whoever has it open keeps it. What has not
been used for longest goes first where more than LGM_CACHE_LIMIT would be kept; `indexes` are small, cost much to make, and go by hand
only. Every entry is one file or folder that appears whole, under its name, or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.errors import UserError

KINDS = {"decoded": "decoded images", "shards": "shards of remote sets", "indexes": "indexes of other people's shards"}
VARIABLE = "LGM_CACHE_LIMIT"
USUAL_LIMIT = 20 * 10**9  # bytes
_MAKING = ".making-"  # how the name of something begins that is not whole yet
_A_DAY = 86_400  # seconds
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Entry:
    """Something that is kept."""

    kind: str
    path: Path
    bytes: int
    used: float  # when it was last asked for, seconds since 1970


def cache_folder() -> Path:
    """Where lgm may keep large temporary data: LGM_CACHE, else `lgm` in the user's cache folder."""
    if chosen := os.environ.get("LGM_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lgm"


def limit() -> int:
    """How many bytes may be kept: LGM_CACHE_LIMIT (such as 50G; 0 keeps nothing), else 20 GB. Raises UserError where it is no size."""
    text = os.environ.get(VARIABLE, "").strip()
    return read_bytes(text, VARIABLE) if text else USUAL_LIMIT


def read_bytes(text: str, where: str) -> int:
    """`500M`, `1.5GB` or `0` as a number of bytes. Raises UserError."""
    number, unit = text.strip().upper().removesuffix("B"), ""
    if number[-1:] in _UNITS:
        number, unit = number[:-1], number[-1:]
    try:
        found = int(float(number) * _UNITS[unit])
    except (ValueError, OverflowError):
        found = -1
    if not 0 <= found < 2**63:
        raise UserError(f"{text!r} is not a size", where, "write a number of bytes, such as 500M or 20G")
    return found


def entries() -> list[Entry]:
    """All that is kept and may go, what was used last coming first."""
    found = [_entry(kind, path) for kind in KINDS for path in _paths(cache_folder() / kind)]
    return sorted((entry for entry in found if entry), key=lambda entry: -entry.used)


def used(path: Path) -> None:
    """Say that an entry was asked for."""
    with contextlib.suppress(OSError):
        os.utime(path)


def make_room(size: int) -> bool:
    """Remove what has not been used for longest until `size` more bytes may be kept; False where they never may."""
    most = limit()
    if size > most:
        return False
    kept = [entry for entry in entries() if entry.kind != "indexes"]
    total = sum(entry.bytes for entry in kept)
    while kept and total + size > most:
        oldest = kept.pop()
        remove(oldest.path)
        total -= oldest.bytes
    return True


def remove(path: Path) -> None:
    """Delete an entry, if it is there. Whoever has it open keeps what he has."""
    if not os.path.lexists(path):
        return
    if path.is_dir() and not path.is_symlink():
        gone = path.with_name(f"{_MAKING}{secrets.token_hex(8)}")
        with contextlib.suppress(OSError):  # at once for all who look, then its files
            os.replace(path, gone)
            shutil.rmtree(gone, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def clear() -> int:
    """Delete everything that may go, also what was left half-made; returns how many bytes that were."""
    found = entries()
    for entry in found:
        remove(entry.path)
    for kind in KINDS:
        for path in (cache_folder() / kind).glob(f"{_MAKING}*"):
            remove(path)
    return sum(entry.bytes for entry in found)


@contextlib.contextmanager
def making(path: Path) -> Iterator[Path]:
    """A new place beside `path` (of the same suffix) to write a file or folder to; it is renamed to `path` when the block ends well.

    A failure leaves nothing. Where somebody else was faster, his stays. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_MAKING}{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        try:
            os.replace(temporary, path)
        except OSError:
            if not path.exists():  # a folder cannot be renamed to one that is there
                raise
    finally:
        if temporary.exists():
            remove(temporary)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only process in this block for this entry: others wait, and find what was made. Where no lock can be had, all go on."""
    lock = path.with_name(f".lock-{path.name[:40]}")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, ImportError):
            import fcntl

            if not lock.parent.is_dir():
                lock.parent.mkdir(parents=True, exist_ok=True)
            while True:
                with contextlib.ExitStack() as attempt:
                    file = attempt.enter_context(open(lock, "a"))
                    fcntl.flock(file, fcntl.LOCK_EX)
                    with contextlib.suppress(FileNotFoundError):  # it was deleted meanwhile
                        if os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                            stack.push(attempt.pop_all())
                            stack.callback(lock.unlink, missing_ok=True)
                            break
        yield


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Of a file's content, read a block at a time. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _paths(folder: Path) -> list[Path]:
    """The entries of a kind, and what somebody began more than a day ago and has not finished."""
    try:
        shown = [path for path in folder.iterdir() if not path.name.startswith(".lock-")]
        return [path for path in shown if not path.name.startswith(_MAKING) or path.stat().st_mtime < time.time() - _A_DAY]
    except OSError:
        return []


def _entry(kind: str, path: Path) -> Entry | None:
    try:
        size = sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size
        return Entry(kind, path, size, path.stat().st_mtime)
    except OSError:  # it went while we looked
        return None
