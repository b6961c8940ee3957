"""Small photographs: 50,000 + 10,000 colour images of 32x32, 10 classes (airplane to truck).

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009), University of Toronto. Licence: none stated.
Layout: the binary version, `cifar-10-batches-bin/*.bin` under the data root; fetched where absent. The Python version is pickled, and lgm
never unpickles.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.data.dataset import DataRequest, ImageData
from models.data.download import checked_file, data_root, get, unpack_folder
from models.errors import UserError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER, PICKLED = "cifar-10-batches-bin", "cifar-10-batches-py"
URL, MD5 = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
_RECORD = 1 + 3 * 32 * 32  # the label, then the red, green and blue planes


def load(request: DataRequest) -> ImageData:
    """uint8 (N, 32, 32, 3) with labels. Raises UserError where files are absent or damaged, or only the pickled version is there."""
    paths = _find(request)
    if not paths:
        _fetch(request)
        paths = _find(request)
    parts = [_read(path) for path in paths]
    if not parts:
        raise UserError("the archive did not hold the expected files", data_root(request) / FOLDER, "remove the folder and try again")
    records = np.concatenate(parts)
    images = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    official = 50_000 if request.split == "train" else 10_000
    notes = () if len(images) == official else (f"a partial copy: {len(images):,} of {official:,} images are here",)
    return ImageData(name=str(request), images=images, labels=records[:, 0].astype(np.int64), classes=CLASSES, notes=notes)


def _find(request: DataRequest) -> list[Path]:
    here = data_root(request) / FOLDER
    here = here if here.is_dir() else data_root(request)
    return [path for name in FILES[request.split] for path in [here / name] if path.is_file()]


def _fetch(request: DataRequest) -> None:
    """Fetch the binary version. Where only pickles lie there and nothing can be fetched, say why they are not used."""

    def fetch(root: Path) -> None:
        archive = checked_file(URL, root, "cifar-10-binary.tar.gz", MD5)
        unpack_folder(archive, FOLDER, root)
        archive.unlink()

    pickled = data_root(request) / PICKLED
    if pickled.exists():
        fix = f"get the binary version ({URL}) and unpack it to {FOLDER}/ next to it"
        raise UserError("this is CIFAR-10's Python version, which is pickled, and lgm never unpickles files", pickled, fix)
    get(request, fetch, [f"{FOLDER}/{name}" for name in FILES[request.split]])


def _read(path: Path) -> np.ndarray:
    """The records of one file, uint8 (N, 3073)."""
    fix = "delete the file's folder and let lgm fetch it again, or copy a good one there"
    size = path.stat().st_size
    if not size or size % _RECORD:
        raise UserError(f"{size:,} bytes are not a whole number of records of {_RECORD:,} bytes", path, fix)
    records = np.fromfile(path, np.uint8).reshape(-1, _RECORD)
    if records[:, 0].max() >= len(CLASSES):
        raise UserError(f"label {records[:, 0].max()} in a set of {len(CLASSES)} classes", path, fix)
    return records
