"""What the shell's completion offers: models, data sets, runs, and paths. No torch here: it has to be quick."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path


def models(incomplete: str) -> list[str]:
    """Names of models."""
    from models.registry import MODELS

    return [name for name in sorted(MODELS.entries()) if name.startswith(incomplete)]


def data(incomplete: str) -> list[str]:
    """Names of data sets, and paths."""
    from models.registry import SETS

    return [*(name for name in sorted(SETS.entries()) if name.startswith(incomplete)), *_paths(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Those in runs/, if that is what is being typed, and paths."""
    from models.runs.history import is_run

    usual = [path for path in sorted(glob.glob("runs/*")) if is_run(Path(path))] if "runs/".startswith(incomplete) else []
    return [*usual, *(path for path in _paths(incomplete) if path not in (*usual, "runs/"))]


def _paths(incomplete: str) -> Iterator[str]:
    for path in sorted(glob.glob(f"{glob.escape(os.path.expanduser(incomplete))}*")):
        yield f"{path}/" if os.path.isdir(path) else path
