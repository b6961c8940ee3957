"""config.json: a run's complete configuration, for people. The toolkit itself goes by what stands in the checkpoints."""

from __future__ import annotations

import json
import os
from pathlib import Path

from models import layout
from models.config import RunConfig, to_json
from models.errors import printable


def write(run: Path, config: RunConfig) -> None:
    """Write the record so that it is complete or as before."""
    temporary = run / f".{layout.CONFIG}.tmp"
    temporary.write_text(to_json(config) + "\n")
    os.replace(temporary, run / layout.CONFIG)


def edited(run: Path, written: RunConfig) -> tuple[str, ...]:
    """A warning where the record is not what was `written`: that counts for nothing, but whoever has edited it should know."""
    path = run / layout.CONFIG
    try:
        found = json.loads(path.read_text())
        found = {"parts": {}, **found} if isinstance(found, dict) else found  # before there were parts, nothing was written of them
        saved = json.loads(to_json(written))
        wrong = [] if isinstance(found, dict) else ["it is no object"]
        wrong = wrong or [key for key in saved if key not in RunConfig.FREE and found.get(key) != saved[key]]
    except (OSError, ValueError) as error:
        wrong = [printable(error)]
    return (f"{path} is not what was written ({', '.join(wrong)}); the checkpoint's configuration is used",) if wrong else ()
