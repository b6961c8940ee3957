"""Runs that torchrun starts again after a rank has failed (`torchrun --max-restarts N`): they go on from their newest checkpoint."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.config import RunConfig, check
from models.errors import UserError
from models.training import checkpoint


def check_can_be_found(out: str | os.PathLike[str] | None) -> None:
    """Raise UserError where torchrun may start the run again, which could not tell then which folder is its own."""
    if out is None and _number("TORCHELASTIC_MAX_RESTARTS"):
        raise UserError("torchrun may start this run again, which then has to find its folder", "--out", "name the folder: --out RUN")


def to_go_on_with(out: str | os.PathLike[str] | None, asked: Mapping[str, Any]) -> Path | None:
    """The run that the processes before these have begun with the same words, where there is one and torchrun has started them again.

    Args:
        asked: fields of RunConfig, as the run was asked for.
    """
    if out is None or not _number("TORCHELASTIC_RESTART_COUNT") or not checkpoint.numbered(Path(out) / checkpoint.FOLDER):
        return None
    begun, now = (dataclasses.asdict(c) for c in (checkpoint.newest_valid(Path(out))[0].config, check(RunConfig, dict(asked), "train")))
    free = {*RunConfig.FREE, *({"log_every"} - set(asked))}  # which follows from the number of images
    return Path(out) if all(_plain(begun[key]) == _plain(now[key]) for key in now if key not in free) else None


def _number(name: str) -> int:
    """What torchrun says; 0 where nobody says anything."""
    return int(os.environ.get(name) or 0)


def _plain(value: Any) -> str:
    """As JSON, in which a tuple and the list that it was read as are the same."""
    return json.dumps(value, sort_keys=True)
