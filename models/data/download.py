"""Finding the files of named data sets, and fetching them where they are absent. No torch here: torchvision is imported to fetch only.

The loaders of torchvision do the fetching, because they know the addresses and check every file's hash. Reading the files is our own
work: torchvision's readers would import torch and partly unpickle.
"""

from __future__ import annotations

import importlib
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from models.data.cache import cache_folder
from models.data.dataset import DataRequest
from models.errors import UserError, printable


def data_root(request: DataRequest) -> Path:
    """The folder of named sets: --data-root, else LGM_DATA, else `data` in lgm's cache folder."""
    if request.root is not None:
        return Path(request.root).expanduser()
    chosen = os.environ.get("LGM_DATA")
    return Path(chosen).expanduser() if chosen else cache_folder() / "data"


def find(request: DataRequest, names: Sequence[str], folders: Sequence[str]) -> list[Path] | None:
    """The paths of all `names` (plain, or with .gz) in the first of `folders` under the data root that has them all, or None."""
    for folder in folders:
        here = data_root(request) / folder
        found = [next((p for p in (here / n, here / f"{n}.gz") if p.is_file()), None) for n in names]
        paths = [p for p in found if p is not None]
        if len(paths) == len(names):
            return paths
    return None


def find_or_fetch(request: DataRequest, names: Sequence[str], folders: Sequence[str], fetch: Callable[[Path], None]) -> list[Path]:
    """The paths of a set's files; `fetch(root)` is called once where they are absent.

    Raises UserError saying which files belong where, when they are absent and cannot be fetched.
    """
    paths = find(request, names, folders)
    if paths is None:
        get(request, fetch, [f"{folders[0]}/{name}" for name in names])
        paths = find(request, names, folders)
    if paths is None:
        raise absent(request, "the download ended, but the files are still not there", [f"{folders[0]}/{name}" for name in names])
    return paths


def get(request: DataRequest, fetch: Callable[[Path], None], wanted: Sequence[str]) -> None:
    """Run `fetch(root)`; every failure becomes a UserError that says which files (`wanted`, relative to the root) belong where."""
    if not request.download:
        raise absent(request, "it is not there and downloads are off", wanted)
    root = data_root(request)
    try:
        root.mkdir(parents=True, exist_ok=True)
        fetch(root)
    except UserError:
        raise
    except ImportError as error:
        raise absent(request, f"it is not there, and fetching it needs a package ({printable(error)})", wanted) from error
    except Exception as error:  # URLError, timeouts, hash mismatch (RuntimeError), quota pages, disk full, damaged archives
        raise absent(request, f"it is not there and the download failed ({printable(error) or type(error).__name__})", wanted) from error


def absent(request: DataRequest, reason: str, wanted: Sequence[str]) -> UserError:
    """The error for a set that is not there: what is missing, under which root, and what to put where."""
    root = data_root(request)
    files = ", ".join(wanted)
    return UserError(
        f"cannot load data set {str(request)!r}: {reason}", root, f"put {files} under {printable(root)}, or name another --data-root"
    )


def torchvision_set(dataset: str, root: Path, **options: Any) -> None:
    """Fetch a set with torchvision's loader of that name, which checks hashes and unpacks."""
    getattr(importlib.import_module("torchvision.datasets"), dataset)(str(root), download=True, **options)


def torchvision_files(dataset: str, folder: Path) -> None:
    """Fetch the files that torchvision's loader of that name lists on Google Drive into `folder`, checking hashes; unpacks nothing."""
    files = getattr(importlib.import_module("torchvision.datasets"), dataset).file_list
    fetch = importlib.import_module("torchvision.datasets.utils").download_file_from_google_drive
    for identifier, md5, name in files:
        fetch(identifier, str(folder), name, md5)


def checked_file(url: str, root: Path, name: str, md5: str) -> Path:
    """Fetch one file to `root/name`, checking its md5. A file with another hash is removed."""
    path = root / name
    try:
        importlib.import_module("torchvision.datasets.utils").download_url(url, str(root), name, md5)
    except BaseException:  # including Ctrl-C: half a file must not look like the whole one
        path.unlink(missing_ok=True)
        raise
    return path


def unpack_folder(archive: Path, folder: str, root: Path) -> None:
    """Unpack `folder` of a zip or tar archive into `root`: through a temporary folder, so that it is there complete or not at all.

    Nothing lands outside: `filter="data"` refuses `..`, links and devices; zipfile drops `..` and makes no links.
    """
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=root) as temporary:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(temporary)
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(temporary, filter="data")
        os.replace(Path(temporary) / folder, root / folder)
