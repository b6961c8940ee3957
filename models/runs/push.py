"""Putting a run on the Hugging Face hub: its newest checkpoint, configuration, evaluation, a grid of samples, and a model card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from models import layout
from models.errors import UserError, printable
from models.runs import history, report
from models.training import checkpoint, hub


def files_of(run: Path) -> dict[str, Path | bytes]:
    """What is pushed: path in the repository -> file, or content. Raises UserError where the newest checkpoint is damaged."""
    newest = checkpoint.of_newest(run, _verified)
    found: dict[str, Path | bytes] = {f"{checkpoint.FOLDER}/{newest.name}": newest}
    for name in (layout.CONFIG, layout.EVALUATION):
        if (run / name).is_file():
            found[name] = run / name
    card = report.card(report.gather(run))
    if samples := history.grids(run).get("sample"):
        found["samples.png"] = samples[max(samples)]
        card = card.replace("\n## Use\n", "\n![samples](samples.png)\n\n## Use\n", 1)
    found["README.md"] = card.encode("utf-8")
    return found


def _verified(path: Path) -> Path:
    checkpoint.read_tensors(path)  # the digest
    return path


def push(run: Path, repository: str, private: bool = False, message: str = "") -> str:
    """Make a commit of the run on the hub, in a repository that is made where it is missing; returns its address.

    Raises UserError where the run is damaged, or the hub refuses.
    """
    if "@" in repository:
        raise UserError("a push has no revision", repository, "write USER/NAME")
    name, _ = hub.parse(f"{hub.PREFIX}{repository.removeprefix(hub.PREFIX)}")
    files = files_of(run)
    package = hub.package()
    api: Any = package.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    operations = [
        package.CommitOperationAdd(path_in_repo=path, path_or_fileobj=content if isinstance(content, bytes) else str(content))
        for path, content in files.items()
    ]
    try:
        api.create_repo(name, private=private, exist_ok=True)
        made = api.create_commit(name, operations, commit_message=message or f"A run of lgm: {run.resolve().name}")
    except Exception as error:  # of many kinds: no network, no token, no permission
        fix = "log in (hf auth login), check the name and the connection"
        raise UserError(f"the hub refuses ({type(error).__name__}: {printable(error, 160)})", name, fix) from error
    return str(made.commit_url)
