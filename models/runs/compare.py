"""Runs side by side: what differs in their configurations, their metrics, samples of the same noise, curves in one picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from models import api
from models.base import Samples
from models.capabilities import pictures
from models.device import pick
from models.errors import LgmError, UserError, printable
from models.runs import history

LABEL = 18  # pixels of a row's name above it: a run's name may be long


@dataclass(frozen=True)
class Comparison:
    """What differs (key -> a value for each run; None: it has none), and what was measured (metric -> the same)."""

    runs: tuple[str, ...]
    configurations: dict[str, list[Any]]
    metrics: dict[str, list[float | None]]


def named(runs: Sequence[Path]) -> dict[str, Path]:
    """Runs by short names that differ: as much of the end of their paths as that takes. Raises UserError for what is no run."""
    for run in runs:
        if not history.is_run(run):
            raise UserError("no run", run, "name the folder that `lgm train` wrote")
    parts = [run.resolve().parts for run in runs]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return {printable(name): run for name, run in zip(names, runs)}
    raise UserError("the same run twice", runs[0], "name each once")


def compare(runs: Mapping[str, Path]) -> Comparison:
    """What differs between runs, from their records. Raises UserError where one cannot be read."""
    flat = [_flat(history.config(run)) for run in runs.values()]
    keys = dict.fromkeys(key for one in flat for key in one)
    configurations = {key: [one.get(key) for one in flat] for key in keys}
    measured = [history.metrics(run) for run in runs.values()]
    return Comparison(
        tuple(runs),
        {key: values for key, values in configurations.items() if any(value != values[0] for value in values)},
        {name: [one.get(name) for one in measured] for name in dict.fromkeys(name for one in measured for name in one)},
    )


def samples(
    runs: Mapping[str, Path], number: int, seed: int, device: str | None = None, scale: int | None = None
) -> tuple[np.ndarray, list[str]]:
    """A picture with a row of samples for each run, of the noises 0 to `number` - 1 of the seed: uint8 (H, W, C).

    Small images are enlarged, `scale` times or until they can be seen. Runs that cannot sample have no row; what they say is returned as
    well. Raises UserError where none can.
    """
    rows: dict[str, np.ndarray] = {}
    reasons = []
    pick(device)  # a device that there is not is no fault of the runs
    for name, run in runs.items():
        try:
            trained = api.load(run, device=device)
            if not isinstance(trained.model, Samples):
                raise UserError("this model cannot sample", name)
            rows[name] = trained.sample(number, seed)
        except LgmError as error:
            reasons.append(f"{name}: {error.what}")
    if not rows:
        raise UserError("none of these runs can sample", "; ".join(reasons), "leave -o out")
    alike = pictures.alike(*rows.values())
    times = scale or pictures.LEGIBLE // alike[0].shape[2]
    pictures.check_grid(number, alike[0].shape[1:3], number, len(rows), scale=times)
    return np.concatenate([titled(pictures.grid(images, number, scale=times), name) for name, images in zip(rows, alike)]), reasons


def titled(picture: np.ndarray, text: str) -> np.ndarray:
    """A picture uint8 (H, W, C) with a line of text above it."""
    strip = Image.new("L", (picture.shape[1], LABEL), 255)
    ImageDraw.Draw(strip).text((pictures.GAP, 2), text, fill=0, font=pictures.font(13))
    return np.concatenate([np.asarray(strip)[..., None].repeat(picture.shape[2], 2), picture])


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}".removeprefix("options."): value}
    return found


def as_json(found: Comparison) -> dict[str, Any]:
    return dataclasses.asdict(found)
