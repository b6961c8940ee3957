"""Folders of images: what is in them, which class each image has, and decoding all of them into one array. No torch here."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from models.data.cache import cache_folder
from models.data.dataset import DataRequest, ImageData
from models.data.images import SUFFIXES, BadImage, Header, decode_with_info, fit, is_grey, kind_of_file, read_header, to_channels
from models.errors import UserError, printable

NATIVE_LIMIT = 256  # images of one common size are kept as they are up to this many pixels a side
DEFAULT_SIZE = (64, 64)
SPLIT_FOLDERS = frozenset({"train", "test", "val", "valid", "validation"})
LISTED = 10  # bad files that an error message shows

Item = TypeVar("Item")
Result = TypeVar("Result")

_IGNORED = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # besides everything that starts with a dot (.DS_Store, ._photo.jpg)


@dataclass(frozen=True)
class Listing:
    """The image files of a folder, before any is opened."""

    root: Path
    files: tuple[str, ...]  # relative to `root`, sorted by bytes: the same order on every machine
    labels: np.ndarray | None  # (N,) int64, or None where the folder has no classes
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    def paths(self) -> list[str]:
        return [os.path.join(self.root, name) for name in self.files]


@dataclass(frozen=True)
class Outcome:
    """What became of one file: `bad` holds the reason why it cannot be used, or is empty."""

    bad: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)  # (height, width) of the upright image in the file
    frames: int = 1
    grey: bool = False  # once in shape, also in three channels


@dataclass(frozen=True)
class Plan:
    """The shape that all images of a folder will get."""

    size: tuple[int, int]
    channels: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What `lgm data check` found: every file was decoded, nothing was kept."""

    name: str
    count: int  # images that can be used
    shape: tuple[int, int, int]  # (height, width, channels) that they get
    classes: tuple[str, ...] = ()
    bad: tuple[tuple[str, str], ...] = ()  # (path, reason)
    notes: tuple[str, ...] = ()
    modes: dict[str, int] = field(default_factory=dict)  # Pillow's pixel formats
    sizes: dict[str, int] = field(default_factory=dict)  # "640x480" (width x height) -> images
    frames: dict[int, int] = field(default_factory=dict)  # frames in a file -> files


def load_folder(request: DataRequest) -> ImageData:
    """Decode the folder `request.name` into one array.

    Sub-folders are classes where all images lie in at least two of them. Raises UserError where the folder is missing or holds no image,
    and, without `request.skip_bad`, where any image cannot be used.
    """
    listing = list_folder(request)
    paths = listing.paths()
    plan = make_plan(paths, request)
    images, outcomes = _decode_planned(paths, plan, request)
    if request.skip_bad:
        # A damaged file may have a readable header. The result must be the same as if it had not been there, so it has no say.
        better = _replanned(plan, paths, outcomes, request)
        if better.size != plan.size:
            del images
            images, outcomes = _decode_planned(paths, better, request)
        plan = better
    images, kept, bad = without_bad(images, paths, outcomes, request)
    plan = _settled(plan, outcomes, request)
    if plan.channels < images.shape[3]:
        images = _first_channel(images)
    return ImageData(
        name=str(request),
        images=images,
        labels=None if listing.labels is None else listing.labels[kept],
        classes=listing.classes,
        files=tuple(paths[i] for i in kept),
        root=str(listing.root),
        notes=(*listing.notes, *plan.notes, *_notes_on(outcomes), *skipped_note(bad)),
        bad=bad,
    )


def check_folder(request: DataRequest) -> Report:
    """Decode every image of the folder and report on them. Raises UserError only where there is no image to look at."""
    listing = list_folder(request)
    paths = listing.paths()
    plan = make_plan(paths, request)
    outcomes = decode_all(paths, None, request, _finisher(plan, request))
    plan = _settled(_replanned(plan, paths, outcomes, request), outcomes, request)
    good = [o for o in outcomes if not o.bad]
    return Report(
        name=str(request),
        count=len(good),
        shape=(*plan.size, plan.channels),
        classes=listing.classes,
        bad=tuple((path, o.bad) for path, o in zip(paths, outcomes) if o.bad),
        notes=(*listing.notes, *plan.notes, *_notes_on(outcomes)),
        modes=dict(Counter(o.mode for o in good).most_common()),
        sizes=dict(Counter(f"{o.size[1]}x{o.size[0]}" for o in good).most_common()),
        frames=dict(sorted(Counter(o.frames for o in good).items())),
    )


# ---- which files ---------------------------------------------------------------------------------------------------------------------


def list_folder(request: DataRequest) -> Listing:
    """Find the images of `request`: recursive, sorted by bytes, without opening any."""
    root, notes = _split_folder(request)
    files, skipped, others = _walk(root)
    if not files:
        found = ", ".join(f"{suffix} ({n})" for suffix, n in others.most_common(8)) or "no files at all"
        raise UserError(
            f"no images in this folder; suffixes found: {found}; accepted: {' '.join(SUFFIXES)}",
            root,
            "; ".join(["name the folder that holds the images", *skipped[:3]]),
        )
    if others:
        notes.append("files with other suffixes were not looked at: " + ", ".join(f"{s} ({n})" for s, n in others.most_common(5)))
    notes += _shortened(skipped, "more entries skipped")
    tops = [name.split(os.sep, 1)[0] if os.sep in name else None for name in files]
    classes = sorted({top for top in tops if top is not None}, key=os.fsencode)
    labelled = len(classes) >= 2 and None not in tops
    if labelled:
        index = {name: i for i, name in enumerate(classes)}
        labels = np.array([index[top] for top in tops if top is not None], np.int64)
        empty = [name for name in _visible_folders(root) if name not in index]
        notes += _shortened([f"sub-folder without images, not a class: {printable(name)}" for name in empty], "more empty sub-folders")
        return Listing(root, tuple(files), labels, tuple(printable(name) for name in classes), tuple(notes))
    if len(classes) >= 2:
        notes.append("no classes: some images lie outside of the sub-folders")
    return Listing(root, tuple(files), None, (), tuple(notes))


def _split_folder(request: DataRequest) -> tuple[Path, list[str]]:
    """The folder to read. `train/` counts as a split (not as a class) where its neighbours are splits too."""
    root = Path(request.name).expanduser()
    if not root.is_dir():
        what = "not a folder" if root.exists() else "no such folder"
        raise UserError(what, root, "name a folder of images, or a data set of `lgm data`")
    chosen = root / request.split
    if request.split == "train" and not (chosen.is_dir() and set(_visible_folders(root)) <= SPLIT_FOLDERS):
        return root, []
    if not chosen.is_dir():
        raise UserError(
            f"the folder has no sub-folder {request.split!r}", root, f"create {request.split}/ in it, or leave out :{request.split}"
        )
    return chosen, [f"read from the sub-folder {request.split}/"]


def _visible_folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        names = [e.name for e in entries if not _ignored(e.name) and e.is_dir(follow_symlinks=False)]
    return sorted((n for n in names if os.path.splitext(n)[1].lower() not in SUFFIXES), key=os.fsencode)


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _IGNORED


def _walk(root: Path) -> tuple[list[str], list[str], Counter[str]]:
    """Relative paths of image files, sorted by bytes; reasons for skipped entries; how often each other suffix was seen.

    Links to files are followed wherever they lead: whole data sets are made of links into a store. Links to folders are not: inside the
    root they would repeat images or never end, and outside of it nobody knows where they end.
    """
    files: list[str] = []
    skipped: list[str] = []
    others: Counter[str] = Counter()
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                found = sorted(entries, key=lambda e: os.fsencode(e.name))
        except OSError as error:
            skipped.append(f"folder skipped ({error.strerror}): {printable(folder or root)}")
            continue
        for entry in found:
            name = os.path.join(folder, entry.name)
            suffix = os.path.splitext(entry.name)[1].lower()
            if _ignored(entry.name):
                continue
            if reason := _skip_reason(entry, suffix):
                skipped.append(f"{reason}, skipped: {printable(name)}")
            elif entry.is_dir(follow_symlinks=False):
                pending.append(name)
            elif suffix in SUFFIXES:
                files.append(name)
            else:
                others[printable(suffix, 20) or "(none)"] += 1
    files.sort(key=os.fsencode)
    return files, skipped, others


def _skip_reason(entry: os.DirEntry[str], suffix: str) -> str:
    """Why an entry of a folder is left out, or an empty string. Opens nothing, so a FIFO or a device cannot block."""
    if entry.is_symlink():
        if not os.path.exists(entry.path):
            return "dangling link"
        if os.path.isdir(entry.path):
            return f"link to a folder ({printable(os.path.realpath(entry.path))})"
    if suffix not in SUFFIXES:
        return ""
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        return error.strerror or "not accessible"
    return "" if stat.S_ISREG(mode) else f"{kind_of_file(mode)} named like an image"


def _shortened(lines: Sequence[str], rest: str, limit: int = 5) -> list[str]:
    return [*lines[:limit], *([f"{len(lines) - limit} {rest}"] if len(lines) > limit else [])]


# ---- which shape ---------------------------------------------------------------------------------------------------------------------


def make_plan(paths: Sequence[str], request: DataRequest) -> Plan:
    """Choose size and channels: as requested, else from the headers of all images that have a readable one. See `_settled`."""
    size, channels = request.size, None if request.channels == "auto" else int(request.channels)
    if size and channels:
        return Plan(size, channels)

    def header(path: str) -> Header | None:
        try:
            return read_header(path, background=request.background)
        except BadImage:
            return None  # decoding will meet it again and report it

    headers = [h for h in _in_threads(header, paths, request.workers) if h]
    notes: list[str] = []
    if channels is None:
        channels = 1 if {h.channels for h in headers} == {1} else 3
    if size is None:
        size, notes = usual_size(Counter((h.height, h.width) for h in headers), request.fit)
    return Plan(size, channels, tuple(notes))


def usual_size(sizes: Counter[tuple[int, int]], fit: str) -> tuple[tuple[int, int], list[str]]:
    """What images of these sizes, (height, width), are brought to where nobody says: their own where they agree and are small, else 64x64.

    And a note that says so, where they are changed.
    """
    size = next(iter(sizes)) if len(sizes) == 1 and max(next(iter(sizes))) <= NATIVE_LIMIT else DEFAULT_SIZE
    if not sizes or set(sizes) == {size}:
        return size, []
    (height, width), _ = sizes.most_common(1)[0]
    found = f"{width}x{height}" if len(sizes) == 1 else f"{len(sizes):,} sizes, most often {width}x{height}"
    return size, [f"{found}: brought to {size[1]}x{size[0]} by --fit {fit} (choose with --size)"]


def _replanned(plan: Plan, paths: Sequence[str], outcomes: Sequence[Outcome], request: DataRequest) -> Plan:
    """The plan without the bad files, which are known after decoding."""
    good = [path for path, o in zip(paths, outcomes) if not o.bad]
    return make_plan(good, request) if 0 < len(good) < len(paths) else plan


def _settled(plan: Plan, outcomes: Sequence[Outcome], request: DataRequest) -> Plan:
    """The plan with the channels that the pixels ask for: a header does not tell grey that is stored in colour (R = G = B)."""
    grey = [o.grey for o in outcomes if not o.bad]
    if request.channels != "auto" or plan.channels == 1 or not any(grey):
        return plan
    if all(grey):
        note = "all images are grey, also those stored in colour (R = G = B): one channel is kept (--channels 3 keeps three)"
        return replace(plan, channels=1, notes=(note, *plan.notes))
    note = f"{sum(grey):,} grey and {len(grey) - sum(grey):,} colour images: all become colour (--channels 1 makes all grey)"
    return replace(plan, notes=(note, *plan.notes))


def _first_channel(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, 1) of grey ones with three equal channels."""
    out = allocate((*images.shape[:3], 1))
    np.copyto(out, images[..., :1])
    return out


def _decode_planned(paths: Sequence[str], plan: Plan, request: DataRequest) -> tuple[np.ndarray, list[Outcome]]:
    images = allocate((len(paths), *plan.size, plan.channels))
    return images, decode_all(paths, images, request, _finisher(plan, request))


def _finisher(plan: Plan, request: DataRequest) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: to_channels(fit(array, plan.size, request.fit, background=request.background), plan.channels)


# ---- decoding ------------------------------------------------------------------------------------------------------------------------


def decode_all(
    paths: Sequence[str], out: np.ndarray | None, request: DataRequest, finish: Callable[[np.ndarray], np.ndarray]
) -> list[Outcome]:
    """Decode every file, bring it into shape with `finish`, and store it in `out` (N, H, W, C) if there is one. Never raises BadImage."""

    def one(index: int) -> Outcome:
        try:
            decoded = decode_with_info(paths[index], background=request.background)
            ready = finish(decoded.array)
        except BadImage as error:
            return Outcome(bad=str(error))
        if out is not None:
            out[index] = ready
        return Outcome("", decoded.mode, decoded.array.shape[:2], decoded.frames, is_grey(ready))

    return _in_threads(one, range(len(paths)), request.workers)


def _in_threads(function: Callable[[Item], Result], items: Sequence[Item], workers: int, block: int = 16) -> list[Result]:
    """[function(item) for item in items] in order, in threads (Pillow frees the interpreter lock); blocks keep the overhead low."""
    workers = min(workers or cores(), -(-len(items) // block))
    if workers <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        blocks = pool.map(lambda start: [function(item) for item in items[start : start + block]], range(0, len(items), block))
        return list(itertools.chain.from_iterable(blocks))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def without_bad(
    images: np.ndarray, paths: Sequence[str], outcomes: Sequence[Outcome], request: DataRequest
) -> tuple[np.ndarray, np.ndarray, tuple[tuple[str, str], ...]]:
    """Refuse bad files, or with `request.skip_bad` leave them out.

    Returns the images that stay (N', H, W, C), their indices (N',) and (path, reason) of the others. Raises UserError where there are bad
    files and they were not to be skipped, or where no image is left.
    """
    bad = tuple((path, o.bad) for path, o in zip(paths, outcomes) if o.bad)
    kept = np.array([i for i, o in enumerate(outcomes) if not o.bad], np.int64)
    if bad and (not request.skip_bad or not len(kept)):
        check = f"`lgm data check {printable(request)}` lists all of them"
        fix = (
            f"repair or remove them ({check})"
            if not len(kept)
            else f"repair or remove them, or leave them out (lgm train --skip-bad); {check}"
        )
        listed = [f"{printable(path)}: {printable(reason)}" for path, reason in bad[:LISTED]]
        lines = "\n    ".join([*listed, *([f"and {len(bad) - LISTED:,} more"] if len(bad) > LISTED else [])])
        raise UserError(f"{len(bad):,} of {len(paths):,} images cannot be used", request.name, f"{fix}\n    {lines}")
    if bad:
        for new, old in enumerate(kept):  # in place: a second copy might not fit into memory
            if new != old:
                images[new] = images[old]
        images = images[: len(kept)]
    return images, kept, bad


def skipped_note(bad: Sequence[tuple[str, str]]) -> list[str]:
    if not bad:
        return []
    names = ", ".join(printable(path, 80) for path, _ in bad[:3])
    return [f"{len(bad):,} unreadable images left out (--skip-bad): {names}{', ...' if len(bad) > 3 else ''}"]


def _notes_on(outcomes: Iterable[Outcome]) -> list[str]:
    frames = [o.frames for o in outcomes if o.frames > 1]
    return [f"{len(frames):,} animations or multi-page files: the first of up to {max(frames):,} frames was taken"] if frames else []


# ---- memory --------------------------------------------------------------------------------------------------------------------------


def allocate(shape: tuple[int, int, int, int]) -> np.ndarray:
    """An uint8 array for a data set: in memory, or in a file of the cache folder when it would take more than half of the memory.

    The file is unlinked at once where the system allows it, so nothing is left behind however the program ends. Raises UserError where
    the disk has no room (found here, because writing to a mapped file on a full disk kills the process).
    """
    size = int(np.prod(shape, dtype=np.int64))
    if size <= memory_bytes() // 2:
        return np.zeros(shape, np.uint8)
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix="images-", suffix=".tmp", dir=folder, delete=os.name == "posix") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.uint8, "r+" if hasattr(os, "posix_fallocate") else "w+", shape=shape)
    except OSError as error:
        raise UserError(
            f"{size / 2**30:.1f} GiB of images are more than half of the memory, and no file can hold them ({error.strerror or error})",
            folder,
            "free some space, set LGM_CACHE to a folder on a larger disk, or ask for smaller images with --size",
        ) from error


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or the container's limit where that is lower."""
    limits = []
    with contextlib.suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(Path(name).read_text()))
    return min(limits, default=8 << 30)
