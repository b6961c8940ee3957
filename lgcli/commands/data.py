"""lgm data: list, describe and check data sets."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lgcli import options as o
from lgcli.guard import guarded

app = typer.Typer(help="List the data sets, describe one, or check its files.", invoke_without_command=True)

Data = Annotated[str, typer.Argument(metavar="DATA", help="A data set, NAME:test, or a folder of images.")]


@app.callback()
def listing(context: typer.Context, json: o.Json = False) -> None:
    if context.invoked_subcommand is None:
        guarded(_list)(json)


def _list(json: bool) -> None:
    from lgcli import render
    from models.registry import SETS

    render.listing("data sets", {n: e.summary for n, e in SETS.entries().items()}, json, "and any folder of images: --data path/to/folder")


def info(data: Data, size: o.Size = None, skip_bad: o.SkipBad = False, data_root: o.DataRoot = None, json: o.Json = False) -> None:
    """Show a data set's size, channels, classes and counts."""
    from lgcli import render
    from models.data.load import describe, load

    render.mapping(describe(load(_request(data, size, skip_bad, data_root))), json)


def check(data: Data, data_root: o.DataRoot = None, json: o.Json = False) -> None:
    """Decode every file and list the bad ones by path. Exit code 1 where there are any."""
    from lgcli import render
    from models.data.load import check as look

    if not render.report(look(_request(data, None, True, data_root)), json):
        raise typer.Exit(1)


def _request(data: str, size: Any, skip_bad: bool, data_root: Any) -> Any:
    from models.data.load import parse

    return parse(data, size=size, skip_bad=skip_bad, root=data_root)


for command in (info, check):
    app.command(command.__name__)(guarded(command))
