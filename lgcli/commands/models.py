"""lgm models: reads the zoo's files without importing them, so it needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lgcli import options as o

if TYPE_CHECKING:
    from rich.table import Table

    from models.registry import Entry

PANEL = "Look"


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one model's paper and options.", show_default=False)] = None,
    json: o.Json = False,
) -> None:
    """List the models, or describe one: what it is, its paper, its options."""
    from lgcli import render
    from models.registry import MODELS

    if name is None:
        render.listing({n: e.summary for n, e in MODELS.entries().items()}, json)
    elif json:
        render.document(_record(MODELS.find(name)))
    else:
        _describe(MODELS.find(name))


def _record(entry: Entry) -> dict[str, object]:
    """A model's docstring, presets and options."""
    return {
        "name": entry.name,
        "about": entry.docstring,
        "sources": entry.sources(),
        "parts": entry.parts(),
        "presets": {name: dataclasses.asdict(preset) for name, preset in entry.presets().items()},
        "options": [dataclasses.asdict(option) for option in entry.options()],
    }


def _describe(entry: Entry) -> None:
    """The same for people."""
    from rich.text import Text

    from lgcli import render
    from models.config import as_assignments

    render.show(Text(f"{entry.name}: {entry.docstring}\n"))
    if entry.sources():
        render.show(Text(f"data (--data NAME=DATA): {', '.join(entry.sources())}\n"))
    for name, about in entry.parts().items():
        render.show(Text(f"part (--part {name}=RUN): {about}\n"))
    presets = _table("presets (--preset NAME)", ("name", "images", "batch", "about", "options"))
    for name, preset in entry.presets().items():
        presets.add_row(name, f"{preset.images:,}", str(preset.batch), Text(preset.about), Text(" ".join(as_assignments(preset.options))))
    options = _table("options (--set KEY=VALUE)", ("key", "default", "takes", "what it is"))
    for option in entry.options():
        options.add_row(*(Text(words) for words in (option.name, option.default, option.takes, option.help)))
    render.show(presets, "", options)


def _table(title: str, columns: Sequence[str]) -> Table:
    from rich.table import Column

    from lgcli import render

    return render.table(*(Column(name, overflow="fold") for name in columns), title=title)
