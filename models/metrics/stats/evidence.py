"""What a metric is given: all that one pass over each side has collected, and nothing that it did not ask for in its NEEDS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from models.errors import ContractError
from models.metrics.stats.moments import Moments

if TYPE_CHECKING:
    from models.metrics.features.base import Features


@dataclass(frozen=True)
class Collected:
    """One side of a comparison. A field is None where no metric of the evaluation needs it."""

    count: int  # images
    moments: Moments | None = None  # of the features
    features: Tensor | None = None  # (N, D) float32
    logits: Tensor | None = None  # (N, K) float32
    labels: Tensor | None = None  # (N,) or (N, A): what the images show, or were asked to show
    sharpness: float | None = None  # mean over the images of the Laplacian's variance


@dataclass(frozen=True)
class Evidence:
    """Both sides, and what metrics that look beyond them need. A side is None where the evaluation has only the other."""

    real: Collected | None
    generated: Collected | None
    seed: int = 0
    trained: Any = None  # the loaded model, for metrics that run it
    features: Features | None = None  # the network behind the features
    held_out: Any = None  # images with their labels (Items) that the run was not trained on, where there are such
    training: Any = None  # those that it was trained on, where they are at hand; of the model's shape, as all images here
    count: int = 0  # images that a metric which draws its own should draw
    seen: bool = False  # whether the classifier behind the features has learned from these very real images

    def get(self, need: str) -> Any:
        """The value of `real.features`, `generated.moments`, ...: a name as in NEEDS. Raises ContractError where it was not collected."""
        side, _, field = need.partition(".")
        value = getattr(getattr(self, side), field, None)
        if value is None:
            raise ContractError("this was not collected", need, "name it in the metric's NEEDS")
        return value

    def both(self, field: str) -> tuple[Any, Any]:
        """`field` of the real and of the generated side."""
        return self.get(f"real.{field}"), self.get(f"generated.{field}")
