"""lgm compare"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lgcli import complete
from lgcli import options as o

if TYPE_CHECKING:
    from models.runs.compare import Comparison

PANEL = "Look"


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two runs or more.", autocompletion=complete.runs)],
    number: Annotated[int, typer.Option("-n", "--number", parser=o.some, metavar="N", help="Samples of each.")] = 10,
    seed: o.Seed = 0,
    scale: o.Scale = None,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="Samples of the same noises, a row for each run, .png.", show_default=False)
    ] = None,
    curves: Annotated[Path | None, typer.Option(metavar="FILE", help="All their curves, .png (matplotlib).", show_default=False)] = None,
    device: o.Device = None,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Show what differs between runs: configurations and metrics, and, as pictures, samples of the same noise and curves."""
    from lgcli import render
    from models.errors import UserError
    from models.runs.compare import as_json, named
    from models.runs.compare import compare as look

    if len(runs) < 2:
        raise UserError("one run", "RUN...", "name two or more; `lgm report RUN` shows one")
    for path, flag in ((output, "-o"), (curves, "--curves")):
        if path is not None:
            o.free_path(o.png(path, flag), force, flag)
    if output is not None and curves is not None and output.resolve() == curves.resolve():
        raise UserError("two pictures of one name", f"--curves {curves}", "give each a name of its own")
    by_name = named(runs)
    found = look(by_name)
    written: dict[str, Any] = {}
    if output is not None:
        from models.capabilities import pictures
        from models.runs.compare import samples

        picture, reasons = samples(by_name, number, seed, device, scale)
        for reason in reasons:
            render.note(reason)
        written["samples"] = str(pictures.write(picture, output))
    if curves is not None:
        from models.runs.curves import write

        written["curves"] = str(write(curves, by_name))
    if json:
        render.document({**as_json(found), **written})
        return
    _show(found)
    for path in written.values():
        print(path)


def _show(found: Comparison) -> None:
    """Two tables, a column for each run where there is room."""
    from rich.table import Column
    from rich.text import Text

    from lgcli import render

    for title, rows in (("configuration", found.configurations), ("metrics", found.metrics)):
        if not rows:
            render.show(Text(f"{title}: the same" if title == "configuration" else "nothing was measured: lgm evaluate RUN"))
            continue
        cells = [[key, *map(_said, values)] for key, values in rows.items()]
        widths = [max(map(len, column)) for column in zip([title, *found.runs], *cells)]
        if sum(widths) + 2 * (len(widths) - 1) <= render.width():
            table = render.table(Column(title, style="bold"), *(Column(name, no_wrap=True) for name in found.runs))
            for row in cells:
                table.add_row(*map(Text, row))
        else:  # no room for a column for each: one below the other
            table = render.table(Column(title, style="bold"), Column("run", overflow="fold"), Column("value", overflow="fold"))
            for key, *values in cells:
                for n, (name, value) in enumerate(zip(found.runs, values)):
                    table.add_row("" if n else key, Text(name), Text(value))
        render.show(table, Text(""))


def _said(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
