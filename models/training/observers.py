"""What looks at a run while it trains: at its own cadence, and without disturbing it.

An observer is given what it may see, and answers with events. It moves no weight and draws from no stream of random numbers that a step
reads, so that a run ends with the same bits whoever watches. Only the rank that writes has observers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models import layout
from models.base import Completes, Encodes, LatentModel, Samples, Stage, Translates, Validates
from models.capabilities import complete, inpaint, pictures, translate
from models.capabilities.ask import evaluating
from models.capabilities.reconstruct import reconstructions
from models.capabilities.sample import draw
from models.capabilities.told import Told, condition_of
from models.config import RunConfig
from models.data.batches import Batches
from models.data.images import save_png
from models.device import autocast
from models.errors import UserError
from models.training.alarm import CollapseAlarm, advice
from models.training.events import Drawn, Event, Validated, Warned

SAMPLES, RECONSTRUCTIONS, ANSWERED, COLUMNS = 64, 32, 8, 8  # images in the grids that a run draws, and in a row of them
VALIDATED = 128  # held-out images a batch


@dataclass(frozen=True)
class View:
    """What an observer may see.

    Attributes:
        images: seen so far, in the whole run.
        stage: in which the run stands; progress: of the stage, 0 to 1.
        model: as trained; inside `with averaged():` it generates from its moving averages.
        record: appends a line to the run's journal.
    """

    images: int
    stage: Stage
    progress: float
    model: LatentModel
    averaged: Callable[[], AbstractContextManager[None]]
    record: Callable[[Mapping[str, Any]], None]


class Observer:
    """Base of what looks at a run. `every` is its cadence in images; it looks at the end of every stage as well."""

    every: int

    def look(self, view: View) -> Iterator[Event]:
        """What there is to say now."""
        raise NotImplementedError

    def hear(self, images: int, losses: Mapping[str, float]) -> Iterator[Event]:
        """What there is to say of a line of the log: the mean losses up to `images`. Most observers have no ear for it."""
        yield from ()


class Grids(Observer):
    """Samples of fixed noise, and what becomes of the first images; and the alarm for samples that become alike.

    Args:
        config: its `sample_every` is the cadence.
        model: for what its Config offers against a collapse.
        batches: whose leading source's first images are shown.
        folder: of the pictures.
    """

    def __init__(self, config: RunConfig, model: LatentModel, batches: Batches, folder: Path) -> None:
        self.every, self._seed, self._folder = config.sample_every, config.seed, folder
        self._data, self._first = batches.data, batches.at(np.arange(min(SAMPLES, len(batches))))
        self._alarm = CollapseAlarm(self._images(SAMPLES), advice(model.config, config.model))

    def look(self, view: View) -> Iterator[Event]:
        kind = condition_of(view.model)
        told = Told(kind, view.model.spec, getattr(self._first, kind).cpu()) if kind else None  # what the first images show
        shown = again = made = None
        with view.averaged():
            if isinstance(view.model, Encodes):
                shown = self._images(RECONSTRUCTIONS)
                again, _ = reconstructions(view.model, shown, None if told is None else told[: len(shown)])
            if isinstance(view.model, Samples) and view.stage.samples:
                examples = told if kind == "attributes" else None
                made = np.concatenate(list(draw(view.model, SAMPLES, self._seed, examples=examples)))
            translated = self._translated(view.model) if isinstance(view.model, Translates) else None
            completed = self._completed(view.model) if isinstance(view.model, Completes) else None
        if made is not None and len(view.stage.players) > 1:  # one player alone plays no game
            yield from _warned(view.images, self._alarm.look(made, view.progress, again))
        if shown is not None and again is not None:
            yield self._drawn(view.images, "reconstruction", pictures.pairs(shown, again, COLUMNS))
        if made is not None:
            yield self._drawn(view.images, "sample", pictures.grid(made, COLUMNS))
        if translated is not None:
            yield self._drawn(view.images, "translation", translated)
        if completed is not None:
            yield self._drawn(view.images, "completion", completed)

    def hear(self, images: int, losses: Mapping[str, float]) -> Iterator[Event]:
        yield from _warned(images, self._alarm.hear(losses))

    def _translated(self, model: LatentModel) -> np.ndarray:
        """A row for each of the first images, itself, what belongs to it where the data say, and what it becomes: one picture."""
        originals = self._images(ANSWERED)
        made = translate.through(model, originals, translate.noises(model, COLUMNS - 1, self._seed))
        if "target" in model.needs:
            made = np.concatenate([self._data.rows("target", np.arange(len(originals)))[:, None], made[:, :-1]], 1)
        return translate.picture(originals, made)

    def _completed(self, model: LatentModel) -> np.ndarray:
        """A row for each of the first images: itself, with a hole, and completed in several ways."""
        originals = self._images(ANSWERED)
        holes = complete.learned_holes(model, range(len(originals)), self._seed)
        made = complete.through(model, originals, holes, complete.noises(model, COLUMNS - 2, self._seed))
        return inpaint.picture(originals, holes, list(made.swapaxes(0, 1)))

    def _images(self, number: int) -> np.ndarray:
        """The leading source's first images: uint8 (N, H, W, C)."""
        return self._data.rows("image", np.arange(min(number, len(self._data))))

    def _drawn(self, images: int, kind: str, picture: np.ndarray) -> Event:
        path = self._folder / f"{kind}-{images:09d}.png"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_png(picture, path)
        except (OSError, UserError) as error:
            return Warned(images, f"a picture could not be written: {error}")
        return Drawn(images, kind, str(path))


class HeldOut(Observer):
    """The averaged model's `validate` on images that it was not trained on, in the run's precision; a line of the journal, too.

    Args:
        config: its `sample_every` is the cadence.
        batches: of the held-out images.
    """

    def __init__(self, config: RunConfig, batches: Batches) -> None:
        self.every, self._precision, self._batches = config.sample_every, config.precision, batches

    def look(self, view: View) -> Iterator[Event]:
        assert isinstance(view.model, Validates)
        batches = self._batches.in_order(VALIDATED, size=view.stage.size)
        with view.averaged(), evaluating(view.model), autocast(self._batches.device, self._precision):
            measures = {name: float(value) for name, value in view.model.validate(batches).items()}
        count = len(self._batches)
        view.record({"images": view.images, "stage": view.stage.name, "held out": count, "measures": measures})
        yield Validated(view.images, view.stage.name, count, measures)


def _warned(images: int, alarm: tuple[str, str] | None) -> Iterator[Event]:
    if alarm is not None:
        yield Warned(images, *alarm)


def usual(config: RunConfig, model: LatentModel, batches: Batches, run: Path, held_out: Batches | None = None) -> tuple[Observer, ...]:
    """The observers that every run has: its grids and, where there are held-out images, the model's own measures on them."""
    grids = Grids(config, model, batches, run / layout.SAMPLES)
    return (grids,) if held_out is None else (grids, HeldOut(config, held_out))
