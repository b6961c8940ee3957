"""Where things lie: paths that mean the same from any working directory, and the folder of a run that names none."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.data.load import parse, settled
from models.registry import MODELS
from models.training.hub import is_remote

RUNS = "runs"


def anywhere(data: str) -> str:
    """What `--data` said, so that it means the same from any working directory: folders' paths become absolute."""
    return str(settled(parse(data)))


def absolute(values: Mapping[str, Any]) -> dict[str, Any]:
    """The paths among a run's settings, so that they mean the same from any working directory."""
    found: dict[str, Any] = {"data_root": _absolute(values["data_root"])} if values.get("data_root") else {}
    if values.get("parts"):
        found["parts"] = {name: _absolute(run) for name, run in values["parts"].items()}
    return found


def first_run(model: str, *data: str) -> Path:
    """The folder of a first run of this model on these data, those of its sources in order; each is named once."""
    texts = [re.sub(r"[^\[\]+;=:]*/([^/\[\]+;=:]+)", r"\1", anywhere(text)) for text in dict.fromkeys(data)]  # of a path its last name
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", "-".join(texts)).strip("-")[:100].strip("-") or "data"
    return Path(RUNS) / f"{MODELS.find(model).name}-{name}"


def new_run(model: str, *data: str) -> Path:
    """The same, numbered where that is taken."""
    path = first = first_run(model, *data)
    number = 1
    while path.exists():
        number += 1
        path = first.with_name(f"{first.name}-{number}")
    return path


def _absolute(path: str | os.PathLike[str]) -> str:
    return str(path if is_remote(path) else Path(path).expanduser().absolute())
