"""lgm data: list, describe and check data sets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lgcli import options as o
from lgcli.guard import guarded
from models.config import RunConfig

if TYPE_CHECKING:
    from models.data.dataset import DataRequest
    from models.data.folder import Report

PANEL = "Look"

data = typer.Typer(help="List the data sets, describe one, or check its files.", invoke_without_command=True)

Data = Annotated[str, typer.Argument(metavar="DATA", help="A data set, NAME:test, or a folder of images.")]


@data.callback()
def listing(context: typer.Context, json: o.Json = False) -> None:
    if context.invoked_subcommand is None:
        guarded(_list)(json)


def _list(json: bool) -> None:
    from lgcli import render
    from models.registry import SETS

    render.listing({n: e.summary for n, e in SETS.entries().items()}, json, "and any folder of images: --data path/to/folder")


@o.options_of(RunConfig, "size", "skip_bad", "data_root")
def info(data: Data, *, json: o.Json = False, **settings: Any) -> None:
    """Show a data set's size, channels, classes and counts."""
    from lgcli import render
    from models.data.load import describe, load

    render.mapping(describe(load(_request(data, **settings))), json)


@o.options_of(RunConfig, "data_root")
def check(data: Data, *, json: o.Json = False, **settings: Any) -> None:
    """Decode every file and list the bad ones by path. Exit code 1 where there are any."""
    from lgcli import render
    from models.data.load import check as look

    found = look(_request(data, skip_bad=True, **settings))
    if json:
        render.document({**dataclasses.asdict(found), "bad": [{"file": file, "reason": reason} for file, reason in found.bad]})
    else:
        _show(found)
    if found.bad:
        raise typer.Exit(1)


def _request(data: str, data_root: str | None = None, **settings: Any) -> DataRequest:
    from models.data.load import parse

    return parse(data, root=Path(data_root) if data_root else None, **settings)


def _show(found: Report) -> None:
    """What was found in a set's files."""
    from models.errors import printable

    height, width, channels = found.shape
    print(
        f"{printable(found.name)}: {found.count:,} good images, used as {width}x{height}, {channels} channel{'s' if channels > 1 else ''}"
    )
    for title, counts in (("modes", found.modes), ("sizes", dict(list(found.sizes.items())[:8])), ("frames", found.frames)):
        if len(counts) > 1 or title == "modes":
            print(f"  {title}: {', '.join(f'{name} ({number:,})' for name, number in counts.items())}")
    if found.classes:
        print(f"  classes: {', '.join(map(printable, found.classes[:20]))}{' ...' if len(found.classes) > 20 else ''}")
    for note in found.notes:
        print(f"  note: {printable(note)}")
    for path, reason in found.bad:
        print(f"  bad: {printable(path)}: {printable(reason)}")
    print(f"{len(found.bad) or 'no'} bad file{'' if len(found.bad) == 1 else 's'}")


for command in (info, check):
    data.command(command.__name__)(guarded(command))
