"""The runs that lie in a folder: what they are, how far they are, whether somebody trains there. No torch; no checkpoint is read whole."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models import layout
from models.errors import UserError, nearest, printable
from models.runs import history

DEEP = 3  # folders below the one that is named in which runs are looked for
_END = re.compile(rb'"data_offsets":\[(\d+),(\d+)\]')
_SORTS = ("name", "model", "data", "images", "state", "age", "size")


@dataclass(frozen=True)
class Shelved:
    """One run, as its folder tells without loading anything.

    `state` is new (nothing saved), running, stopped, finished or damaged; `note` says who trains there, or what is damaged.
    """

    name: str  # its folder, from the one that was asked for
    path: Path
    model: str
    data: str
    images: int  # seen: by the newest checkpoint, of a run that is running by its log
    of: int  # images of the whole run
    state: str
    note: str
    losses: dict[str, float] = field(default_factory=dict)  # the newest ones
    metrics: dict[str, float] = field(default_factory=dict)
    changed: float = 0.0  # seconds since 1970
    bytes: int = 0  # of all its files
    checkpoints: int = 0  # bytes of these


def shelf(folder: Path) -> list[Shelved]:
    """All runs in a folder (or the folder itself, if it is one), by name. Raises UserError where there is no such folder."""
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise UserError(what, folder, "name the folder that runs lie in; `lgm train` makes runs/")
    return [_look(run, folder) for run in sorted(_runs(folder, DEEP), key=lambda path: os.fsencode(path))]


def chosen(runs: Sequence[Shelved], model: str | None = None, data: str | None = None, sort: str = "name") -> list[Shelved]:
    """Those of a model, and with a text in what they were trained on; in the order of a column, or of a metric (the smallest first).

    Raises UserError for a column that none of them has.
    """
    kept = [run for run in runs if model in (None, run.model) and (data is None or data in run.data)]
    if sort in _SORTS:
        keys = {"age": lambda run: -run.changed, "size": lambda run: -run.bytes, "images": lambda run: -run.images}
        return sorted(kept, key=keys.get(sort, lambda run: (getattr(run, sort, ""), run.name)))
    names = {name for run in runs for name in run.metrics}
    if sort not in names:
        raise UserError(f"no run has {printable(sort)!r}", "--sort", nearest(sort, [*_SORTS, *names]))
    return sorted(kept, key=lambda run: run.metrics.get(sort, float("inf")))


def _runs(folder: Path, deep: int) -> Iterator[Path]:
    if history.is_run(folder):
        yield folder
        return
    try:
        with os.scandir(folder) as entries:
            inside = [Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")] if deep else []
    except OSError:  # a folder that may not be read holds no runs for us
        return
    for path in inside:
        yield from _runs(path, deep - 1)


def _look(run: Path, folder: Path) -> Shelved:
    name = printable(run.relative_to(folder)) if run != folder else printable(run.name or run)
    kept = history.checkpoints(run)
    sizes, changed = _files(run)
    saved = sum(size for path, size in sizes.items() if path.startswith(layout.CHECKPOINTS + os.sep))
    last, images = history.last_line(run), max(kept, default=0)
    more = {
        "losses": history.losses_of(last),
        "metrics": history.metrics(run),
        "changed": changed,
        "bytes": sum(sizes.values()),
        "checkpoints": saved,
    }
    trains = _trains(run)
    try:
        config = history.config(run)
    except UserError as error:
        return Shelved(name, run, "?", "?", images, 0, "damaged", error.what, **more)  # type: ignore[arg-type]
    of = config.get("images")
    of = of if isinstance(of, int) and not isinstance(of, bool) else 0
    state, note = ("running", trains) if trains else ("new", "") if not kept else ("finished", "") if images >= of else ("stopped", "")
    images = max(images, last.get("images", 0)) if trains else images
    if kept and not trains and (wrong := _damage(kept[images])):
        state, note = "damaged", wrong
    return Shelved(name, run, printable(config["model"]), printable(config["data"]), images, of, state, note, **more)  # type: ignore[arg-type]


def _trains(run: Path) -> str:
    """Who trains there ("host X, pid N"), as the lock says; "" where nobody does."""
    try:
        import fcntl

        with open(run / layout.LOCK, encoding="utf-8", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return printable(file.read().strip()) or "somebody"
    except (OSError, ImportError):
        pass
    return ""


def _damage(path: Path) -> str:
    """What is wrong with the length of a checkpoint; its content `lgm info` verifies."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            ends = [int(found[1]) for found in _END.findall(file.read(min(length, size)))]
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    return "" if ends and 8 + length + max(ends) == size else f"{path.name} is incomplete"


def _files(run: Path) -> tuple[dict[str, int], float]:
    """Bytes of each file of a run, by its path inside, and when the newest was written."""
    sizes: dict[str, int] = {}
    newest = 0.0
    for folder, _, names in os.walk(run):
        for name in names:
            path = os.path.join(folder, name)
            try:
                found = os.stat(path)
            except OSError:  # it went while we looked
                continue
            sizes[os.path.relpath(path, run)] = found.st_size
            newest = max(newest, found.st_mtime)
    return sizes, newest
