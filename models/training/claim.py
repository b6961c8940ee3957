"""A run's folder: whether it can be written, whether there is room, and the lock against a second trainer."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from models import layout
from models.errors import UserError
from models.training import checkpoint


def check_free(run: Path) -> None:
    """Look whether a run may be trained in this folder, and leave nothing behind. Data take long to load: ask before, `claimed` makes sure.

    Raises UserError where the folder cannot be written, and where another process trains in it.
    """
    lock = run / layout.LOCK
    try:
        _probe(next(place for place in (run / checkpoint.FOLDER, run, *run.parents) if place.exists()))
        held = open(lock) if lock.exists() else None
    except OSError as error:
        raise _unwritable(run, error) from error
    if held is not None:
        with held:
            _lock(held, run, exclusive=False)


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Create the run's folder, prove that it can be written, and lock it against a second trainer.

    The lock is the kernel's: it goes with the process, however that ends. A folder that was made here goes as well where what is asked for
    turns out to be impossible (UserError) before anything was saved.
    """
    new = not run.exists()
    try:
        (run / checkpoint.FOLDER).mkdir(parents=True, exist_ok=True)
        _probe(run / checkpoint.FOLDER)
        lock = open(run / layout.LOCK, "a+")
    except OSError as error:
        raise _unwritable(run, error) from error
    with lock:
        _lock(lock, run, exclusive=True)
        lock.truncate(0)
        lock.write(f"host {socket.gethostname()}, pid {os.getpid()}\n")
        lock.flush()
        try:
            yield
        except UserError:
            if new and not checkpoint.numbered(run / checkpoint.FOLDER):
                shutil.rmtree(run, ignore_errors=True)
            raise


def too_full(run: Path, weights: int, keep: int) -> tuple[str, ...]:
    """A warning where the disk has no room for the checkpoints of a model of `weights` bytes, of which `keep` are kept."""
    needed = (keep + 1) * 3 * weights  # weights and Adam's two moments
    free = shutil.disk_usage(run).free
    if free >= needed:
        return ()
    return (f"{free / 2**20:,.0f} MiB are free where {keep + 1} checkpoints may take {needed / 2**20:,.0f} MiB: {run}",)


def _probe(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"lgm")


def _unwritable(run: Path, error: OSError) -> UserError:
    return UserError(f"cannot write there ({error.strerror})", run, "choose another folder with --out")


def _lock(file: TextIO, run: Path, exclusive: bool) -> None:
    """Take the lock until the file is closed. Raises UserError, which says who has it, where another process does."""
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        raise UserError(f"another process trains here ({file.read().strip()})", run, "wait for it, or choose another --out") from error
