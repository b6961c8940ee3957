"""Decoded images, kept in the cache folder where decoding (or drawing) was slow: train, resume and evaluate then map them into memory at
once, and all processes of a machine share them. No torch here.

An entry belongs to exactly these files (names, sizes, times), this way of fitting them, and this version of what decodes; whatever changes
makes another entry. Its fingerprint is kept with it, so that a start reads no pixel. What cannot be kept is decoded anew, as if there
were no cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from models.data import cache, drawing, folder, images
from models.data.dataset import DataRequest, ImageData
from models.version import __version__

SLOW = 2.0  # seconds: what takes less is decoded anew
_CODE = [Path(str(module.__file__)) for module in (drawing, folder, images)]  # what draws, cuts and decodes
_ABOUT = "about.json"
_ARRAYS = ("images", "labels", "attributes", "factors", "identities")
_TEXTS = ("classes", "attribute_names", "factor_names", "files", "notes")


def kept(
    request: DataRequest, made_from: Callable[[], Iterable[str]], decode: Callable[[], ImageData], module: Path | None = None
) -> ImageData:
    """What `decode` gives, from the cache where it lies there.

    Args:
        request: the set and how its images are to be fitted.
        made_from: the files and folders whose content decides what comes out, in order.
        decode: decodes; what it raises is raised.
        module: the source file of a named set, whose code decides as well.
    """
    if not cache.limit():
        return decode()
    path = cache.cache_folder() / "decoded" / _key(request, made_from(), module)
    if (found := _read(path)) is not None:
        return found
    with cache.locked(path):
        if (found := _read(path)) is not None:  # somebody else made it while we waited
            return found
        started = time.monotonic()
        made = decode()
        if time.monotonic() - started < SLOW or made.more or made.images.nbytes > cache.limit():
            return made
        with contextlib.suppress(OSError):  # a full disk, no permission
            _write(path, made)
        return _read(path) or made


def _key(request: DataRequest, files: Iterable[str], module: Path | None) -> str:
    digest = hashlib.sha256(repr((__version__, PIL.__version__, np.__version__)).encode())
    digest.update(repr((request.name, request.split, request.size, request.fit, request.channels, request.background)).encode())
    digest.update(repr(request.skip_bad).encode())
    for file in files:
        try:
            found = os.stat(file)
            digest.update(repr((file, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)).encode())
        except OSError as error:
            digest.update(repr((file, error.errno)).encode())
    for source in (*_CODE, *([module] if module else [])):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _write(path: Path, data: ImageData) -> None:
    with cache.making(path) as folder:
        folder.mkdir()
        for name in _ARRAYS:
            if (values := getattr(data, name)) is not None:
                np.save(folder / f"{name}.npy", values)
        about = {name: getattr(data, name) for name in (*_TEXTS, "name", "root", "bad")}
        about["bytes"] = {path.name: path.stat().st_size for path in folder.iterdir()}
        (folder / _ABOUT).write_text(json.dumps({**about, "fingerprint": data.fingerprint()}), encoding="utf-8", errors="surrogateescape")
        if not cache.make_room(sum(file.stat().st_size for file in folder.iterdir())):
            raise OSError("more than may be kept")


def _read(path: Path) -> ImageData | None:
    """The entry, its images mapped into memory; None where there is none, or one that cannot be read, which is removed."""
    try:
        about: dict[str, Any] = json.loads((path / _ABOUT).read_text(encoding="utf-8", errors="surrogateescape"))
        if {file.name: file.stat().st_size for file in path.iterdir() if file.name != _ABOUT} != about["bytes"]:
            raise ValueError("a file was cut off")  # to look at what is not there of a mapped file kills the process
        arrays: dict[str, Any] = {
            # "c": whoever writes to them writes to a copy of his own.
            name: np.asarray(np.load(path / f"{name}.npy", mmap_mode="c" if name == "images" else None, allow_pickle=False))
            for name in _ARRAYS
            if (path / f"{name}.npy").exists()
        }
        texts: dict[str, Any] = {name: tuple(about[name]) for name in _TEXTS}
        bad = tuple((str(file), str(reason)) for file, reason in about["bad"])
        found = ImageData(name=about["name"], root=about["root"], bad=bad, known=about["fingerprint"], **texts, **arrays)
    except FileNotFoundError:
        cache.remove(path)  # nothing, or an entry that lacks a file
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        cache.remove(path)
        return None
    cache.used(path)
    return found
