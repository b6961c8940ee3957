"""Runs that are started again, with the same words, after something has failed: they go on from their newest checkpoint.

torchrun does so after a rank has failed (`--max-restarts N`), Slurm with a job that is queued again. Both also start again what has been
refused, so the run that lies there has to be the one that is asked for.
"""

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

_HERE = {"device", "compile", "workers", "data_root", "save_every", "sample_every", "keep"}  # where and how it is watched, not what it is


def check_can_be_found(out: str | os.PathLike[str] | None) -> None:
    """Raise UserError where torchrun may start the run again, which could not tell then which folder is its own."""
    if out is None and _number("TORCHELASTIC_MAX_RESTARTS"):
        raise UserError("torchrun may start this run again, which then has to find its folder", "--out", "name the folder: --out RUN")


def is_begun(run: Path, asked: Mapping[str, Any], epochs: float | None = None, again: bool = False) -> bool:
    """Whether processes before these have begun the run with the same words.

    Args:
        asked: fields of RunConfig, as the run was asked for; of `epochs` the number of images follows.
        again: whether torchrun has started these processes in the place of others.
    """
    if not (again or _number("SLURM_RESTART_COUNT")) or not checkpoint.numbered(run / checkpoint.FOLDER):
        return False
    begun, now = (dataclasses.asdict(c) for c in (checkpoint.newest_valid(run)[0].config, check(RunConfig, dict(asked), "train")))
    follows = {"images"} if epochs is not None else set()
    follows |= {"log_every"} - set(asked)
    return all(_plain(begun[key]) == _plain(now[key]) for key in now.keys() - _HERE - follows)


def _number(name: str) -> int:
    """What the environment says; 0 where it says nothing."""
    return int(os.environ.get(name) or 0)


def _plain(value: Any) -> str:
    """As JSON, in which a tuple and the list that it was read as are the same."""
    return json.dumps(value, sort_keys=True)
