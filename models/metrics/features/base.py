"""What the metrics look with, and what they look at: the protocols of feature networks and of the sides of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor


class Features(Protocol):
    """A frozen network that turns images into feature vectors."""

    @property
    def name(self) -> str:
        """`inception`, or `classifier:RUN`."""
        ...

    @property
    def digest(self) -> str:
        """sha256 (hexadecimal) over the weights: the same for the same weights, whatever file they came in."""
        ...

    @property
    def dimensions(self) -> int:
        """D, the length of a feature vector."""
        ...

    @property
    def classes(self) -> int:
        """K, the number of logits."""
        ...

    def recipe(self) -> dict[str, Any]:
        """All that a feature vector depends on besides the image (name, digest, resize, precision, ...), as JSON-able values."""
        ...

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        """The network's input for uint8 (H, W, 1 or 3) images, whose sizes may differ. On the CPU; several threads may call it at once."""
        ...

    def apply(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D) and logits (B, K) of what `prepare` made: float32, on the CPU, without gradient."""
        ...

    def look(self, images: Tensor) -> Tensor:
        """Features (B, D) of float images (B, C, H, W) in [-1, 1] that are not rounded to bytes: for small steps between images."""
        ...


class Source(Protocol):
    """A side of a comparison: images in a fixed order."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def parallel(self) -> bool:
        """Whether `load` may be called from several threads at once, in any order."""
        ...

    def __len__(self) -> int: ...

    def load(self, start: int, stop: int) -> Sequence[np.ndarray]:
        """Images start .. stop - 1, uint8 (H, W, 1 or 3); fewer where the source leaves unreadable ones out. Raises UserError."""
        ...
