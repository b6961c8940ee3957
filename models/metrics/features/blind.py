"""No network: features of length 0, for passes that look at pixels alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Blind:
    """`Features` that see nothing."""

    name, digest, dimensions, classes = "none", "", 0, 0

    def recipe(self) -> dict[str, Any]:
        return {}

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        return torch.empty(len(images), 0)

    def apply(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        return batch, batch

    def look(self, images: Tensor) -> Tensor:
        return torch.empty(len(images), 0)
