"""Runs on the Hugging Face hub: `hf://USER/NAME`, or `hf://USER/NAME@REVISION`, where a command takes a run.

huggingface_hub is the extra `hub`. Only a checkpoint and the records beside it are fetched; the checkpoint's own digest is verified when
it is read, and nothing is executed.
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import Any

from models import layout
from models.errors import UserError, printable

PREFIX = "hf://"
FETCHED = (layout.CONFIG, layout.EVALUATION, f"{layout.CHECKPOINTS}/*.safetensors")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def package() -> Any:
    """huggingface_hub. Raises UserError where it is not installed."""
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise UserError("the hub needs huggingface_hub, which is not installed", PREFIX, "pip install huggingface_hub") from error


def is_remote(run: str | os.PathLike[str]) -> bool:
    return str(run).startswith(PREFIX)


def names_run(text: str) -> bool:
    """Whether a text that may name data as well names a run; data in a store of the hub are hf://datasets/USER/NAME."""
    return is_remote(text) and _NAME.fullmatch(text.removeprefix(PREFIX)) is not None


def parse(text: str) -> tuple[str, str | None]:
    """``hf://USER/NAME@REVISION`` as repository and revision. Raises UserError."""
    name = text.removeprefix(PREFIX)
    if not _NAME.fullmatch(name):
        raise UserError("not the name of a run on the hub", printable(text), "write hf://USER/NAME, or hf://USER/NAME@REVISION")
    repository, _, revision = name.partition("@")
    return repository, revision or None


def local(run: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """A run as it is, or the folder that one of the hub was fetched to. Raises UserError where that cannot be done."""
    if not is_remote(run):
        return run
    repository, revision = parse(str(run))
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        return Path(package().snapshot_download(repository, revision=revision, allow_patterns=list(FETCHED), endpoint=endpoint))
    except UserError:
        raise
    except Exception as error:  # of many kinds: no network, no such repository or revision, no permission
        fix = "check the name, the revision and the connection"
        raise UserError(f"the hub does not give it ({_short(error)})", printable(run), fix) from error


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {printable(str(error).strip().splitlines()[0] if str(error).strip() else '', 160)}"
