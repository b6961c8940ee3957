"""House numbers from street photographs: 73,257 + 26,032 colour images of 32x32, 10 classes.

Source: Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning" (2011), Stanford and Google.
Licence: non-commercial use only. Layout: torchvision's, `train_32x32.mat` and `test_32x32.mat` under the data root; fetched where absent.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

from models.data.dataset import DataRequest, ImageData
from models.data.download import find_or_fetch, torchvision_set
from models.errors import UserError, printable

CLASSES = tuple("0123456789")


def made_from(request: DataRequest) -> list[str]:
    """The file that decides what `load` gives."""
    return [str(_file(request))]


def load(request: DataRequest) -> ImageData:
    """uint8 (N, 32, 32, 3) with the centre digit as label. Raises UserError where the file is absent or damaged, or scipy is missing."""
    images, labels = _read(_file(request))
    return ImageData(name=str(request), images=images, labels=labels, classes=CLASSES)


def _file(request: DataRequest) -> Path:
    """The split's file, after fetching it where it is absent."""
    name = f"{request.split}_32x32.mat"
    [path] = find_or_fetch(request, [name], (".", "svhn", "SVHN"), lambda root: torchvision_set("SVHN", root, split=request.split))
    return path


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    fix = "delete the file and let lgm fetch it again, or copy a good one there"
    try:
        contents = importlib.import_module("scipy.io").loadmat(str(path), variable_names=["X", "y"])
        images, labels = contents["X"], contents["y"].reshape(-1)
    except ImportError as error:
        raise UserError("reading SVHN's .mat files needs scipy", path, "pip install scipy") from error
    except Exception as error:  # scipy raises many kinds on a damaged file
        raise UserError(f"the .mat file cannot be read ({printable(error)})", path, fix) from error
    if images.dtype != np.uint8 or images.shape[:3] != (32, 32, 3) or images.ndim != 4 or images.shape[3] != len(labels):
        raise UserError(f"expected uint8 X (32, 32, 3, N) and N labels, found {images.dtype} {images.shape} and {len(labels)}", path, fix)
    digits = labels.astype(np.int64)
    if not len(digits) or digits.min() < 0 or digits.max() > 10:
        raise UserError("the labels are not between 1 and 10", path, fix)
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), digits % 10  # the file calls the digit 0 "10"
