"""Sides of a comparison: images that the metrics look at, block by block, so that memory does not depend on how many there are. No torch.

All classes are what `models.metrics.features.base.Source` asks for, and all can be read from several threads.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

import numpy as np

from models.data.dataset import DataRequest
from models.data.folder import LISTED, list_folder
from models.data.images import BadImage, decode
from models.data.items import Field, Items
from models.data.packed.read import Packed
from models.errors import UserError, printable


class FolderSource:
    """The images of a folder, recursively, decoded when they are asked for: each keeps its own size, and one channel where it is grey.

    Args:
        request: its name, split, background and skip_bad count; size, fit and channels belong to training.

    Attributes:
        fields: the classes of the image files, as `Items` has them; the images themselves differ in size and are no field.

    Raises UserError where the folder is missing or holds no image.
    """

    parallel = True

    def __init__(self, request: DataRequest) -> None:
        listing = list_folder(request)
        self.request, self.name = request, str(request)
        self.paths, self.notes = listing.paths(), listing.notes
        self._labels = listing.labels
        named = {} if listing.labels is None else {"label": Field("number", names=listing.classes, count=len(listing.classes))}
        self.fields: dict[str, Field] = named
        self._reasons: dict[int, str] = {}  # of files that were left out
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Image files; with skip_bad, `load` may give fewer."""
        return len(self.paths)

    def all(self, key: str) -> np.ndarray:
        """The label of every image file, in order: (N,) int64."""
        assert key == "label" and self._labels is not None
        return self._labels

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


class ItemSource:
    """The images of a data set."""

    parallel = True

    def __init__(self, data: Items) -> None:
        self.name, self.data = data.name, data

    def __len__(self) -> int:
        return len(self.data)

    def load(self, start: int, stop: int) -> Sequence[np.ndarray]:
        """Images start .. stop - 1, uint8 (H, W, 1 or 3)."""
        return list(self.data.rows("image", np.arange(start, min(stop, len(self)))))

    def fingerprint(self) -> str:
        """That of the data set."""
        return self.data.fingerprint()


class PackedSource(ItemSource):
    """The images of a packed set, each in its own size, as those of a folder are."""

    def __init__(self, data: Packed) -> None:
        super().__init__(data)
        self._packed = data

    def load(self, start: int, stop: int) -> Sequence[np.ndarray]:
        """Images start .. stop - 1, uint8 (H, W, 1 or 3)."""
        return self._packed.originals(np.arange(start, min(stop, len(self))))

    def fingerprint(self) -> str:
        """That of the data set, and that its images keep their sizes."""
        return f"{self._packed.fingerprint()} originals"
