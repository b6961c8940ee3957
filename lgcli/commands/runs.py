"""lgm runs"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lgcli import options as o
from models.errors import printable

if TYPE_CHECKING:
    from models.runs.shelf import Shelved

PANEL = "Look"


def runs(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where runs lie.")] = Path("runs"),
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this model.", show_default=False)] = None,
    data: Annotated[str | None, typer.Option(metavar="TEXT", help="Only runs on data with this in their name.", show_default=False)] = None,
    sort: Annotated[
        str, typer.Option(metavar="KEY", help="name, model, data, images, state, age, size, or a metric (fid), the smallest first.")
    ] = "name",
    json: o.Json = False,
) -> None:
    """List the runs that lie in a folder: how far they are, what they lose and measure, how much room they take."""
    import time

    from lgcli import render
    from models.runs.shelf import chosen, shelf

    found = chosen(shelf(folder), model, data, sort)
    if json:
        render.document({"runs": [{**dataclasses.asdict(run), "path": str(run.path)} for run in found]})
        return
    if not found:
        print(f"no runs in {folder}" if model is None and data is None else f"no such runs in {folder}")
        return
    _show(found, time.time(), sort)


def _show(found: Sequence[Shelved], now: float, sort: str) -> None:
    """A table of as many columns as the terminal has room for, the least important ones left out first."""
    from rich.text import Text

    from lgcli import render

    shown = next((name for name in (sort, "fid", "kid") if any(name in run.metrics for run in found)), "")
    columns: dict[str, Callable[[Shelved], str]] = {
        "run": lambda run: run.name,
        "model": lambda run: run.model,
        "data": lambda run: _last(run.data),
        "images": lambda run: f"{render.short(run.images)} of {render.short(run.of)}" if run.of else render.short(run.images),
        "state": lambda run: run.state,
        **({shown: lambda run: render.digits(run.metrics[shown]) if shown in run.metrics else ""} if shown else {}),
        "losses": lambda run: ", ".join(f"{name.removesuffix(' loss')} {render.digits(v)}" for name, v in _losses(run)),
        "age": lambda run: _ago(now - run.changed),
        "size": lambda run: f"{run.bytes / 1e6:,.0f} MB",
    }
    cells = {title: [make(run) for run in found] for title, make in columns.items()}
    widths = {title: max(len(title), *map(len, texts)) for title, texts in cells.items()}
    widths["run"] = min(widths["run"], 24)  # longer names are folded
    for title in ("losses", "age", "data", "size", "model", shown):
        if sum(widths.values()) + 2 * len(widths) > render.width() and title in cells:
            del cells[title], widths[title]
    table = render.table()
    for title in cells:
        numbers = title in ("size", "images", shown)
        table.add_column(title, justify="right" if numbers else "left", no_wrap=title != "run", overflow="fold")
    for row in zip(*cells.values()):
        table.add_row(*map(Text, row))
    total, saved = sum(run.bytes for run in found), sum(run.checkpoints for run in found)
    render.show(table, Text(f"{len(found):,} runs, {total / 1e6:,.0f} MB, of which checkpoints take {saved / 1e6:,.0f} MB"))
    for run in found:
        if run.note:
            render.show(Text(f"  {run.name}: {'trained by ' if run.state == 'running' else ''}{run.note}"))


def _losses(run: Shelved) -> list[tuple[str, float]]:
    """What the players minimise, not all that is logged."""
    named = [(name, value) for name, value in run.losses.items() if name.endswith(" loss")]
    return named[:3]


def _last(data: str) -> str:
    """Paths without what is before their last name, and no more of it than a table has room for."""
    return printable(re.sub(r"[^\[\]+;=:]*/([^/\[\]+;=:]+)", r"\1", data), 28)


def _ago(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
