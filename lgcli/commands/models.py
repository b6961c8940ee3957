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
WIDE = 100  # characters: narrower terminals have no room for all columns


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

    render.show(*map(Text, render.paragraphs(f"{entry.name}: {entry.docstring}\n")))
    if entry.sources():
        render.show(Text(f"data (--data NAME=DATA): {', '.join(entry.sources())}\n"))
    for name, about in entry.parts().items():
        render.show(Text(f"part (--part {name}=RUN): {about}\n"))
    wide = render.width() >= WIDE
    presets = _table("presets (--preset NAME)", ("name", "images", "batch", "about", "options") if wide else ("name", "about"))
    for name, preset in entry.presets().items():
        count, batch, assigned = f"{preset.images:,}", str(preset.batch), " ".join(as_assignments(preset.options))
        stacked = _lines(f"{count} images, batch {batch}", preset.about, assigned)
        presets.add_row(name, *map(Text, (count, batch, preset.about, assigned) if wide else [stacked]))
    options = _table("options (--set KEY=VALUE)", ("key", "default", "takes", "what it is") if wide else ("key", "default; what it takes"))
    for one in entry.options():
        stacked = _lines(f"{one.default}; {one.takes}", one.help)
        options.add_row(one.name, *map(Text, (one.default, one.takes, one.help) if wide else [stacked]))
    how_long = Text(f"how long on this machine: lgm train {entry.name} --data DATA --preset NAME --dry-run")
    render.show(presets, how_long, "", options)


def _lines(*parts: str) -> str:
    """One below the other, for a terminal that has no room for columns."""
    return "\n".join(filter(None, parts))


def _table(title: str, columns: Sequence[str]) -> Table:
    from rich.table import Column

    from lgcli import render

    return render.table(*(Column(name, overflow="fold") for name in columns), title=title)
