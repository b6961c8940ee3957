"""What a run has written about itself: its configuration, its log, its evaluation, its grids. No torch here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import UserError, printable
from models.layout import CHECKPOINTS, CONFIG, EVALUATION, LOG, SAMPLES, images_of

_PICTURE = re.compile(r"([a-z]+)-(\d{9,})\.png")
_TAIL = 2**16  # bytes of a log that its last lines are looked for in


@dataclass(frozen=True)
class Curve:
    """One logged number over the images seen, in order."""

    images: list[int]
    values: list[float]


def is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or (folder / CHECKPOINTS).is_dir()


def config(folder: Path) -> dict[str, Any]:
    """The run's configuration, as it was written for people. Raises UserError where it is missing or damaged."""
    found = _object(folder / CONFIG)
    if not isinstance(found.get("model"), str) or not isinstance(found.get("data"), str):
        raise UserError("the record of a run is damaged: it names no model or data", folder / CONFIG, "see `lgm info`")
    return found


def evaluation(folder: Path) -> dict[str, Any] | None:
    """The report of `lgm evaluate`, or None where there is none, or none that can be read."""
    try:
        found = _object(folder / EVALUATION)
    except UserError:
        return None
    return found if isinstance(found.get("metrics"), dict) and isinstance(found.get("recipe", {}), dict) else None


def metrics(folder: Path) -> dict[str, float]:
    """The measured numbers by name: a metric with one number of its own name goes by it (`fid`), others by both (`swap.auc`)."""
    return _flat((evaluation(folder) or {}).get("metrics", {}))


def lines(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of the log, in order; what is torn or no line of a log is left out."""
    try:
        with open(folder / LOG, encoding="utf-8", errors="replace") as file:
            for text in file:
                if (line := _line(text)) is not None:
                    yield line
    except OSError:
        return


def last_line(folder: Path) -> dict[str, Any]:
    """The newest line of the log that has losses, or an empty one; the rest of the log is not read."""
    try:
        with open(folder / LOG, "rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - _TAIL, 0))
            tail = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return {}
    return next((line for text in reversed(tail) if (line := _line(text)) is not None and "losses" in line), {})


def losses_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of the log."""
    return _numbers(line.get("losses"))


def curves(folder: Path) -> dict[str, Curve]:
    """Every number of the log by its name: losses, measures on held-out images, images a second."""
    found: dict[str, Curve] = {}
    for line in lines(folder):
        values = {**_numbers(line.get("losses")), **{f"held out: {name}": v for name, v in _numbers(line.get("measures")).items()}}
        for name, value in values.items():
            curve = found.setdefault(name, Curve([], []))
            curve.images.append(line["images"])
            curve.values.append(value)
    return found


def grids(folder: Path) -> dict[str, dict[int, Path]]:
    """The pictures that were drawn while training: kind -> images seen -> file, ascending."""
    found: dict[str, dict[int, Path]] = {}
    for path in sorted((folder / SAMPLES).glob("*.png")):
        if named := _PICTURE.fullmatch(path.name):
            found.setdefault(named[1], {})[int(named[2])] = path
    return {kind: dict(sorted(paths.items())) for kind, paths in sorted(found.items())}


def checkpoints(folder: Path) -> dict[int, Path]:
    """Images seen -> file of each checkpoint, ascending."""
    try:
        found = {images: path for path in (folder / CHECKPOINTS).iterdir() if (images := images_of(path)) is not None}
    except OSError:
        return {}
    return dict(sorted(found.items()))


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", path, "name the folder of a run") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"no JSON ({printable(error, 80)})", path, "see `lgm info`") from error
    if not isinstance(found, dict):
        raise UserError("no record of a run", path, "name the folder of a run")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _line(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("images"), int) else None


def _numbers(values: Any) -> dict[str, float]:
    """The finite numbers of a mapping."""
    pairs = values.items() if isinstance(values, Mapping) else ()
    return {str(k): float(v) for k, v in pairs if isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)}


def _flat(values: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {(name if key == name else f"{name}.{key}"): v for key, v in _numbers(value).items()}
        else:
            found |= _numbers({name: value})
    return found
