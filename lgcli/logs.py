"""`lgm train --log csv|tensorboard|wandb`: the run's numbers for those who look at them elsewhere. The journal (log.jsonl) stays the truth.

Each is told the events of a run, and begins anew at the images that a resumed run goes on from: no point stands twice.
"""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from models.errors import UserError, nearest

Log = Callable[[Any], None]


def opened(kinds: Sequence[str]) -> list[Log]:
    """A listener for each kind. Raises UserError for one that is unknown, or whose package is not installed."""
    makers: dict[str, Callable[[], Log]] = {"csv": Csv, "tensorboard": TensorBoard, "wandb": Wandb}
    for kind in kinds:
        if kind not in makers:
            raise UserError(f"unknown log {kind!r}", "--log", nearest(kind, makers))
    return [makers[kind]() for kind in dict.fromkeys(kinds)]


def _package(name: str, kind: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{kind} is not installed", f"--log {kind}", f"pip install {kind}") from error


def _numbers(event: Any) -> dict[str, Any]:
    """What an event has to say, by name."""
    from models.training import events as e

    if isinstance(event, e.Logged):
        return {**event.losses, "images a second": event.rate}
    if isinstance(event, e.Validated):
        return {f"held out: {name}": value for name, value in event.measures.items()}
    return {}


class Csv:
    """log.csv in the run's folder: a line for every line of the journal, a column for every number."""

    def __init__(self) -> None:
        self.run = Path()

    def __call__(self, event: Any) -> None:
        from models.runs import history
        from models.training import events as e

        if isinstance(event, e.Started):
            self.run = Path(event.run)
        if not _numbers(event) and not isinstance(event, e.Finished):
            return
        rows: dict[int, dict[str, float]] = {}
        for name, curve in history.curves(self.run).items():
            for images, value in zip(curve.images, curve.values):
                rows.setdefault(images, {})[name] = value
        text = io.StringIO()
        names = list(dict.fromkeys(name for row in rows.values() for name in row))
        lines = csv.DictWriter(text, ["images", *names])
        lines.writeheader()
        lines.writerows({"images": images, **row} for images, row in sorted(rows.items()))
        (self.run / "log.csv").write_text(text.getvalue(), encoding="utf-8")


class TensorBoard:
    """Event files in RUN/tensorboard; what lies behind the point of resuming is dropped."""

    def __init__(self) -> None:
        _package("tensorboard", "tensorboard")
        self.writer: Any = None

    def __call__(self, event: Any) -> None:
        from models.training import events as e

        if isinstance(event, e.Started):
            from torch.utils.tensorboard import SummaryWriter

            behind = event.images + 1 if event.resumed else None
            self.writer = SummaryWriter(str(Path(event.run) / "tensorboard"), purge_step=behind)
        for name, value in _numbers(event).items():
            self.writer.add_scalar(name, value, event.images)
        if isinstance(event, e.Drawn):
            self.writer.add_image(event.kind, _picture(event.path), event.images, dataformats="HWC")
        if isinstance(event, e.Finished):
            self.writer.close()


class Wandb:
    """A run of Weights & Biases, which goes on under the same id. WANDB_MODE=offline keeps it on this machine."""

    def __init__(self) -> None:
        self.package = _package("wandb", "wandb")
        self.folder = Path()
        self.run: Any = None
        self.last = -1  # the last step that it has

    def __call__(self, event: Any) -> None:
        from models.training import events as e

        if isinstance(event, e.Started):
            self.folder = Path(event.run)
        found = _numbers(event)
        if isinstance(event, e.Drawn):
            found = {f"{event.kind} grid": self.package.Image(event.path)}
        if found:
            run = self._begun()
            if event.images > self.last:  # what it has already it would not take again
                run.log(found, step=event.images)
        if isinstance(event, e.Finished) and self.run is not None:
            self.run.finish()

    def _begun(self) -> Any:
        """The run there, begun at the first number: the record of the configuration lies in the folder by then."""
        from models.runs import history

        if self.run is None:
            config = history.config(self.folder)
            name = self.folder.resolve().name
            self.run = self.package.init(project="lgm", name=name, id=_id(self.folder), resume="allow", dir=str(self.folder), config=config)
            self.last = int(getattr(self.run, "step", 0) or 0) - 1
        return self.run


def _id(run: Path) -> str:
    import hashlib

    return hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]


def _picture(path: str) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
