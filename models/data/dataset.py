"""Decoded images in one array, with the labels that come with them. Also the request that asks for data. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from models.data.images import resized
from models.data.items import Field, Items

SPLITS = ("train", "test")


@dataclass(frozen=True)
class DataRequest:
    """Which data a user asked for, and how images are to be fitted."""

    name: str  # a set's name ("mnist") or the path of a folder of images
    split: str = "train"  # "train" or "test"
    clauses: tuple[tuple[str, str], ...] = ()  # what stands in brackets behind it: see `models.data.clauses`
    joined: tuple[DataRequest, ...] = ()  # the sets that follow behind a +
    root: Path | None = None  # where named sets lie (--data-root, or the variable LGM_DATA)
    size: tuple[int, int] | None = None  # (height, width) wanted; None: the set's own
    fit: str = "crop"  # crop | pad | stretch: how another aspect ratio is brought to `size`
    channels: str = "auto"  # auto | 1 | 3
    background: tuple[int, int, int] = (255, 255, 255)  # what transparent pixels are composited on
    skip_bad: bool = False  # leave unreadable files out instead of refusing the folder
    download: bool = True  # fetch a named set that is not there
    workers: int = 0  # threads that decode; 0: one per core

    def __str__(self) -> str:
        """The request in the words of `models.data.load`."""
        brackets = f"[{';'.join(f'{key}={value}' for key, value in self.clauses)}]" if self.clauses else ""
        return "+".join([self.name + ("" if self.split == "train" else f":{self.split}") + brackets, *map(str, self.joined)])

    @property
    def plain(self) -> DataRequest:
        """The set itself, without what is done with it."""
        return replace(self, clauses=(), joined=())

    def each(self, change: Callable[[DataRequest], DataRequest]) -> DataRequest:
        """`change` made to this set and to all that are joined to it."""
        return replace(change(self), joined=tuple(one.each(change) for one in self.joined))

    def everywhere(self, **changes: Any) -> DataRequest:
        """Other fields, of this set and of all that are joined to it."""
        return self.each(lambda one: replace(one, **changes))


@dataclass(frozen=True)
class ImageData(Items):
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
    root: str = ""  # the folder that was read for them
    notes: tuple[str, ...] = ()  # what the user should know: skipped files, mixed modes, animations
    bad: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # (path, reason) of files left out
    more: Mapping[str, tuple[Field, np.ndarray]] = field(default_factory=dict)  # fields of other kinds: captions, say
    known: str = field(default="", repr=False)  # the fingerprint, where that has been computed before

    def __post_init__(self) -> None:
        count = len(self.images)
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] not in (1, 3):
            raise ValueError(f"{self.name}: images must be uint8 (N, H, W, 1 or 3), not {self.images.dtype} {self.images.shape}")
        for name in ("labels", "attributes", "factors", "identities"):
            values = getattr(self, name)
            if values is not None and len(values) != count:
                raise ValueError(f"{self.name}: {len(values)} {name} for {count} images")
        for name, (_, values) in self.more.items():
            if len(values) != count:
                raise ValueError(f"{self.name}: {len(values)} rows of {name} for {count} images")
        for name, names in (("attributes", self.attribute_names), ("factors", self.factor_names)):
            values = getattr(self, name)
            if values is not None and values.shape[1:] != (len(names),):
                raise ValueError(f"{self.name}: {name} of shape {values.shape} for {len(names)} names")

    def __len__(self) -> int:
        return len(self.images)

    def replace(self, **changes: Any) -> ImageData:
        return replace(self, **{"known": "", **changes})

    @cached_property
    def fields(self) -> Mapping[str, Field]:  # type: ignore[override]
        _, height, width, channels = self.images.shape
        found = {"image": Field("image", (channels, height, width))}
        if self.labels is not None:
            found["label"] = Field("number", names=self.classes, count=len(self.classes))
        if self.attributes is not None:
            found["attributes"] = Field("flags", (len(self.attribute_names),), self.attribute_names)
        if self.factors is not None:
            found["factors"] = Field("vector", (len(self.factor_names),), self.factor_names)
        if self.identities is not None:
            found["identity"] = Field("number", count=int(self.identities.max()) + 1)
        return found | {key: described for key, (described, _) in self.more.items()}

    @cached_property
    def _arrays(self) -> Mapping[str, np.ndarray | None]:
        known = {"label": self.labels, "attributes": self.attributes, "factors": self.factors, "identity": self.identities}
        return {"image": self.images, **known, **{key: values for key, (_, values) in self.more.items()}}

    def rows(self, key: str, index: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        values = self._arrays.get(key)
        if values is None:
            raise self.lacks(key)
        return resized(values[index], size) if key == "image" else values[index]

    def fingerprint(self) -> str:
        """sha256 over pixels and labels: two data sets with the same fingerprint train the same model."""
        return self.known or self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.images.shape, self.classes, self.attribute_names, self.factor_names)).encode())
        for start in range(0, len(self.images), 4096):  # in blocks: the array may be memory-mapped
            digest.update(np.ascontiguousarray(self.images[start : start + 4096]).data)
        for values in (self.labels, self.attributes, self.factors, self.identities):
            if values is not None:
                digest.update(np.ascontiguousarray(values).data)
        for key, (described, values) in sorted(self.more.items()):
            digest.update(repr((key, described)).encode())
            digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()
