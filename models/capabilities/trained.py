"""A trained model: what every verb is asked of."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.base import DataSpec, LatentModel, Samples
from models.capabilities import ask, inputs, told, verbs
from models.capabilities.inputs import Gathered
from models.capabilities.pictures import shown
from models.capabilities.told import Told, Words
from models.data.batches import to_float
from models.data.items import Items
from models.data.sources import FolderSource
from models.errors import UserError
from models.randomness import numpy_generator

if TYPE_CHECKING:
    from models.training.checkpoint import Header


@dataclass(frozen=True)
class Trained:
    """A trained model and its checkpoint's header. Images are uint8 arrays (N, height, width, channels).

    Every verb of `models.capabilities` is a method: `sample`, `reconstruct`, `encode`, `project`, `interpolate`, `way`, `inpaint`, ...

    What images show is said by `told=`: a class's name or number, attributes by name ({"smile": 1}), or a list of these, one for each image
    (see `models.capabilities.told`). Where nobody says, a sample shows what `examples` do, in turn (see `like`).
    """

    model: LatentModel
    header: Header
    device: torch.device
    examples: Told | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A verb, bound to this model."""
        if name.startswith("_") or name not in verbs():
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        method: Callable[..., Any] = verbs()[name].__get__(self)

        @functools.wraps(method)
        def asked(*arguments: Any, **options: Any) -> Any:
            return shown(method(*arguments, **options))

        return asked

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *verbs()})

    # what it is told

    @property
    def condition(self) -> str | None:
        """What the model is asked for, and told of images: `label`, `identity`, `attributes`, or None for a model without condition."""
        return told.condition_of(self.model)

    @property
    def classifies(self) -> bool:
        """Whether the model has a classifier of its own for what it has to be told."""
        return ask.classifies(self.model)

    def in_turn(self, items: Iterable[int]) -> Told | None:
        """What the samples of these numbers show where nobody says, or None for a model without condition."""
        return told.in_turn(self.model, items, self.examples)

    def like(self, data: Items | FolderSource, seed: int) -> Trained:
        """This model, whose samples show what the data's items do where nobody says: each item's condition once, in an order that the seed
        draws, then all of them again. Without `examples` where the data do not say, or name something that the model does not know.
        """
        shown = told.of_all(self.model, data)
        if shown is not None:
            shown = shown[numpy_generator(seed, "conditions").permutation(len(shown))]
        return dataclasses.replace(self, examples=shown)

    def truth(self, data: Items, items: Iterable[int]) -> Words | None:
        """What the data say that these items show, as `told=` takes it; None where they do not say."""
        return told.truth(self.model, data, items)

    def shown_by(self, images: np.ndarray, words: Words | None, *capabilities: str) -> Told | None:
        """What each image shows: as said, or as the model's own classifier sees it.

        None for a model without condition; and where nobody says, for one whose `capabilities`, methods that will be called, do not ask.
        Raises UserError where nobody says what has to be known.
        """
        if (said := told.resolve(self.model, words)) is not None:
            return said.for_each(len(images))
        if self.condition is None or (capabilities and not told.has_to_tell(self.model, *capabilities)):
            return None
        with ask.evaluating(self.model):
            seen = ask.classified(self.model, to_float(torch.from_numpy(images)))
        if seen is None:
            raise told.untold(self.model)
        return seen

    # what it is shown

    def data(self, text: str, data_root: str | None = None) -> Items:
        """A data set as the model takes it."""
        return inputs.data(self, text, data_root)

    def images(self, sources: Iterable[str | Path], data_root: str | None = None, spec: DataSpec | None = None) -> np.ndarray:
        """Image files and data-set items ("mnist:test:17") as the model takes them: uint8 (N, H, W, C); of another source by its `spec`."""
        return np.stack([one.image for one in inputs.read(self, sources, data_root, spec)])

    def gather(self, sources: Sequence[str], limit: int, data_root: str | None = None, spec: DataSpec | None = None) -> Gathered:
        """Files and items, or the first `limit` images of the one data set or folder that is named; for another source, give its `spec`."""
        return inputs.gather(self, sources, limit, data_root, spec)

    # what it can do

    def require_samples(self) -> None:
        """Raise UserError where the model cannot sample images, or what samples is not trained yet."""
        ask.require(self.model, Samples, "sample")
        ask.require_images(self.model, "sample")
        stage = next((s for s in self.model.stages() if s.name == self.header.stage), None)
        if stage is not None and not stage.samples:
            raise UserError(
                f"the run is still in its stage {stage.name!r}, what samples is not trained yet",
                self.header.path or "",
                "let the training go on (lgm train --resume RUN); lgm reconstruct works already",
            )
