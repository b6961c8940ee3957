"""Sides of a comparison: images that the metrics look at, block by block, so that memory does not depend on how many there are. No torch.

Both classes are what `models.metrics.features.base.Source` asks for, and both can be read from several threads.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

import numpy as np

from models.data.dataset import DataRequest, ImageData
from models.data.folder import LISTED, list_folder
from models.data.images import BadImage, decode
from models.errors import UserError, printable


class FolderSource:
    """The images of a folder, recursively, decoded when they are asked for: each keeps its own size, and one channel where it is grey.

    Args:
        request: its name, split, background and skip_bad count; size, fit and channels belong to training.

    Attributes:
        labels, classes: of the image files, as `ImageData` has them; the other kinds of labels no folder has.

    Raises UserError where the folder is missing or holds no image.
    """

    parallel = True

    def __init__(self, request: DataRequest) -> None:
        listing = list_folder(request)
        self.request, self.name = request, str(request)
        self.paths, self.notes = listing.paths(), listing.notes
        self.labels, self.classes = listing.labels, listing.classes
        self.attributes: np.ndarray | None = None
        self.attribute_names: tuple[str, ...] = ()
        self.identities: np.ndarray | None = None
        self._reasons: dict[int, str] = {}  # of files that were left out
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Image files; with skip_bad, `load` may give fewer."""
        return len(self.paths)

    @property
    def bad(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of the files that were left out so far."""
        with self._lock:
            return tuple((self.paths[index], self._reasons[index]) for index in sorted(self._reasons))

    def load(self, start: int, stop: int) -> list[np.ndarray]:
        """Images start .. stop - 1, uint8 (H, W, 1 or 3).

        Raises UserError naming the file where one cannot be used; with skip_bad it is left out, unless no image remains at all.
        """
        images = []
        for index in range(start, min(stop, len(self))):
            try:
                images.append(decode(self.paths[index], background=self.request.background))
            except BadImage as error:
                self._leave_out(index, str(error))
        return images

    def _leave_out(self, index: int, reason: str) -> None:
        check = f"`lgm data check {printable(self.request)}` lists all that are bad"
        if not self.request.skip_bad:
            fix = f"repair or remove it, or leave unreadable images out with --skip-bad; {check}"
            raise UserError(f"the image cannot be used ({reason})", self.paths[index], fix)
        with self._lock:
            self._reasons[index] = reason
            all_bad = len(self._reasons) == len(self)
        if all_bad:
            lines = [f"{printable(path)}: {printable(why)}" for path, why in self.bad[:LISTED]]
            raise UserError(f"0 of {len(self):,} images can be used", self.name, "\n    ".join([f"repair them; {check}", *lines]))

    def fingerprint(self) -> str:
        """sha256 over the files' bytes, in order: names and dates do not count. Raises UserError where a file cannot be read."""
        digest = hashlib.sha256(repr((len(self), self.request.background, self.request.skip_bad)).encode())
        for path in self.paths:
            try:
                with open(path, "rb") as file:
                    digest.update(hashlib.sha256(file.read()).digest())
            except OSError as error:
                raise UserError(f"the image cannot be read ({error.strerror or error})", path, "check its permissions") from error
        return digest.hexdigest()


class ArraySource:
    """A decoded data set, or samples that were drawn: `images` is uint8 (N, H, W, 1 or 3), in memory or memory-mapped.

    `data` is the data set whose images they are, where its labels should be at hand.
    """

    parallel = True

    def __init__(self, name: str, images: np.ndarray, data: ImageData | None = None) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise ValueError(f"{name}: images must be uint8 (N, H, W, 1 or 3), not {images.dtype} {images.shape}")
        self.name, self.images, self.data = name, images, data

    def __len__(self) -> int:
        return len(self.images)

    def load(self, start: int, stop: int) -> Sequence[np.ndarray]:
        """Images start .. stop - 1, uint8 (H, W, 1 or 3), as views."""
        return list(self.images[start:stop])

    def fingerprint(self) -> str:
        """sha256 over shape and pixels."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        for start in range(0, len(self), 4096):  # in blocks: the array may be memory-mapped
            digest.update(np.ascontiguousarray(self.images[start : start + 4096]).data)
        return digest.hexdigest()
