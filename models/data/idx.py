"""Reader for the idx files of MNIST and its relatives: a big-endian header and raw bytes. No torch here.

Header: two zero bytes, a type code (0x08: unsigned byte), the number of dimensions, then one 32-bit size per dimension.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from models.data.dataset import DataRequest, ImageData
from models.data.download import find_or_fetch, torchvision_set
from models.errors import UserError

_UNSIGNED_BYTE = 0x08
_REPLACE = "delete the file and let lgm fetch it again, or copy a good one there"


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of an idx file (plain or .gz) with that many dimensions.

    The sizes in the header are compared with the file before anything is allocated. Raises UserError naming the file.
    """
    try:
        opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as file:
            return _read(file, path, dimensions)
    except (OSError, EOFError, zlib.error) as error:  # gzip: BadGzipFile is an OSError
        raise UserError(f"the idx file cannot be read ({error})", path, _REPLACE) from error


def _read(file: IO[bytes], path: Path, dimensions: int) -> np.ndarray:
    header = file.read(4)
    if len(header) < 4 or header[:2] != b"\0\0":
        raise UserError(f"not an idx file: it starts with {header!r}", path, _REPLACE)
    kind, found = header[2], header[3]
    if kind != _UNSIGNED_BYTE or found != dimensions:
        wanted = f"type 0x{_UNSIGNED_BYTE:02x} with {dimensions} dimensions"
        raise UserError(f"an idx file of type 0x{kind:02x} with {found} dimensions, expected {wanted}", path, _REPLACE)
    raw = file.read(4 * dimensions)
    if len(raw) < 4 * dimensions:
        raise UserError("the idx file ends inside its header", path, _REPLACE)
    shape = struct.unpack(f">{dimensions}i", raw)
    wanted_bytes = 1
    for length in shape:  # plain integers: they cannot overflow
        if length < 0:
            raise UserError(f"the idx header has a negative size {shape}", path, _REPLACE)
        wanted_bytes *= length
    # A gzip stream expands by at most about 1032, so a plain bound on its size exists as well.
    possible = path.stat().st_size * (1100 if path.suffix == ".gz" else 1)
    if wanted_bytes > possible:
        raise UserError(f"the idx header announces {shape}, which is more than the file holds", path, _REPLACE)
    data = file.read(wanted_bytes + 1)
    if len(data) != wanted_bytes:
        more = "more" if len(data) > wanted_bytes else "fewer"
        raise UserError(f"the idx header announces {shape}, but {more} bytes follow", path, _REPLACE)
    return np.frombuffer(bytearray(data), np.uint8).reshape(shape)  # bytearray: a writable array


def load_mnist_like(request: DataRequest, folder: str, dataset: str, classes: Sequence[str]) -> ImageData:
    """A data set in MNIST's four files under `root/<folder>/raw`; `dataset` is the torchvision class that can fetch it."""
    prefix = "train" if request.split == "train" else "t10k"
    names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    image_file, label_file = find_or_fetch(
        request, names, (f"{folder}/raw", "raw", "."), lambda root: torchvision_set(dataset, root, train=request.split == "train")
    )
    images, labels = read_idx(image_file, 3), read_idx(label_file, 1)
    if len(images) != len(labels):
        raise UserError(f"{len(labels):,} labels for {len(images):,} images", label_file, _REPLACE)
    if not len(images) or 0 in images.shape:
        raise UserError("no images in this file", image_file, _REPLACE)
    if labels.max() >= len(classes):
        raise UserError(f"label {labels.max()} in a set of {len(classes)} classes", label_file, _REPLACE)
    return ImageData(name=str(request), images=images[..., None], labels=labels.astype(np.int64), classes=tuple(classes))
