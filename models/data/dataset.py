"""What a data set is to lgm: one uint8 array and the labels that come with it. Also the request that asks for one. No torch here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

SPLITS = ("train", "test")


@dataclass(frozen=True)
class DataRequest:
    """Which data a user asked for, and how images are to be fitted."""

    name: str  # a set's name ("mnist") or the path of a folder of images
    split: str = "train"  # "train" or "test"
    root: Path | None = None  # where named sets lie (--data-root, or the variable LGM_DATA)
    size: tuple[int, int] | None = None  # (height, width) wanted; None: the set's own
    fit: str = "crop"  # crop | pad | stretch: how another aspect ratio is brought to `size`
    channels: str = "auto"  # auto | 1 | 3
    background: tuple[int, int, int] = (255, 255, 255)  # what transparent pixels are composited on
    skip_bad: bool = False  # leave unreadable files out instead of refusing the folder
    download: bool = True  # fetch a named set that is not there
    workers: int = 0  # threads that decode; 0: one per core

    def __str__(self) -> str:
        return self.name if self.split == "train" else f"{self.name}:{self.split}"


@dataclass(frozen=True)
class ImageData:
    """A decoded data set.

    `images` is one C-contiguous uint8 array of shape (N, height, width, channels), in memory or memory-mapped. All labels are optional.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None = None  # (N,) int64, index into `classes`
    classes: tuple[str, ...] = ()
    attributes: np.ndarray | None = None  # (N, A) uint8, 0 or 1
    attribute_names: tuple[str, ...] = ()
    factors: np.ndarray | None = None  # (N, F) float32 in [-1, 1]: continuous labels such as pose
    factor_names: tuple[str, ...] = ()
    identities: np.ndarray | None = None  # (N,) int64, who is shown
    files: tuple[str, ...] = ()  # where each image came from, if it was a file
    notes: tuple[str, ...] = ()  # what the user should know: skipped files, mixed modes, animations
    bad: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # (path, reason) of files left out

    def __post_init__(self) -> None:
        count = len(self.images)
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] not in (1, 3):
            raise ValueError(f"{self.name}: images must be uint8 (N, H, W, 1 or 3), not {self.images.dtype} {self.images.shape}")
        for name in ("labels", "attributes", "factors", "identities"):
            values = getattr(self, name)
            if values is not None and len(values) != count:
                raise ValueError(f"{self.name}: {len(values)} {name} for {count} images")
        for name, names in (("attributes", self.attribute_names), ("factors", self.factor_names)):
            values = getattr(self, name)
            if values is not None and values.shape[1:] != (len(names),):
                raise ValueError(f"{self.name}: {name} of shape {values.shape} for {len(names)} names")

    def __len__(self) -> int:
        return len(self.images)

    def replace(self, **changes: Any) -> ImageData:
        return replace(self, **changes)

    def fingerprint(self) -> str:
        """sha256 over pixels and labels: two data sets with the same fingerprint train the same model."""
        digest = hashlib.sha256(repr((self.images.shape, self.classes, self.attribute_names, self.factor_names)).encode())
        for start in range(0, len(self.images), 4096):  # in blocks: the array may be memory-mapped
            digest.update(np.ascontiguousarray(self.images[start : start + 4096]).data)
        for values in (self.labels, self.attributes, self.factors, self.identities):
            if values is not None:
                digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()
