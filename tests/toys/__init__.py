"""Models that only tests have, found by name like any of the zoo; and what children do with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import support

HERE = Path(__file__).parent


@contextmanager
def found(folder: Path = HERE, package: str = "toys") -> Iterator[None]:
    """Inside the block the models of `folder`, an importable package, are in the registry as well."""
    from models.registry import Entry, Registry

    original = Registry.entries

    def entries(self: Registry) -> dict[str, Entry]:
        files = [path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")] if self.kind == "model" else []
        return original(self) | {path.stem.replace("_", "-"): Entry(path.stem.replace("_", "-"), path, package) for path in files}

    Registry.entries = entries  # type: ignore[method-assign]
    try:
        yield
    finally:
        Registry.entries = original  # type: ignore[method-assign]


def meeting_settings(places: Mapping[str, Path], **changes: Any) -> dict[str, Any]:
    """A tiny run of `meeting` on the folders and runs of the fixture `places`: 8 steps of 4 images, then 8 of 8."""
    tiny = {**support.tiny("vae"), "options": {"lr": 0.02}, "parts": {"near": str(places["near"]), "far": str(places["far"])}}
    return {**tiny, "save_every": 8, **changes}


def train(model: str, data: Any, out: str, settings: Mapping[str, Any]) -> list[Any]:
    with found():
        return support.train(model, data, out, settings)


def train_and_die(images: int, model: str, data: Any, out: str, settings: Mapping[str, Any]) -> None:
    with found():
        support.train_and_die(images, model, data, out, settings)


def resume(run: str, changes: Mapping[str, Any] | None = None) -> list[Any]:
    with found():
        return support.resume(run, changes)
