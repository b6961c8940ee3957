"""lgm data: list, describe, check and pack data sets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lgcli import complete
from lgcli import options as o
from lgcli.guard import guarded
from models.config import RunConfig

if TYPE_CHECKING:
    from models.data.dataset import DataRequest
    from models.data.folder import Report

PANEL = "Look"

data = typer.Typer(help="List the data sets, describe one, check its files, or pack it.", invoke_without_command=True)

Data = Annotated[
    str,
    typer.Argument(metavar="DATA", help="A data set, NAME:test, a folder of images, or a packed set.", autocompletion=complete.data),
]


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
    """Decode every file, of a packed set also its digests, and list the bad ones by path. Exit code 1 where there are any."""
    from lgcli import render
    from models.data.load import check as look

    found = look(_request(data, skip_bad=True, **settings))
    if json:
        render.document({**dataclasses.asdict(found), "bad": [{"file": file, "reason": reason} for file, reason in found.bad]})
    else:
        _show(found)
    if found.bad:
        raise typer.Exit(1)


@o.options_of(RunConfig, "size", "fit", "channels", "background", "skip_bad", "data_root")
def pack(
    data: Data,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder that is made. DIR/train and DIR/test are the splits of DIR.")],
    *,
    raw: Annotated[bool, typer.Option("--raw", help="Store pixels, not image files: more room, no decoding.")] = False,
    shard: Annotated[str, typer.Option(metavar="SIZE", help="Bytes of a shard: 64M, 1G.")] = "64M",
    json: o.Json = False,
    **settings: Any,
) -> None:
    """Pack a data set into tar shards (WebDataset's format) with an index, to train from without having it in memory."""
    from lgcli import render
    from models.data.cache import read_bytes
    from models.data.load import source_to_pack
    from models.data.packed import write

    most = read_bytes(shard, "--shard")
    source = source_to_pack(_request(data, **settings), raw)
    with render.progress() as advance:
        found = write.pack(source, out, most, lambda done, total: advance("packing", done, total))
    size = sum(one.bytes for one in found.shards)
    told = {"path": str(out), "count": found.count, "shards": len(found.shards), "bytes": size, "digest": found.digest()}
    for note in found.notes:
        render.warn(note)
    render.result(told, f"{out}: {found.count:,} items in {len(found.shards):,} shards, {size / 1e6:,.1f} MB", json)


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete it all; what is needed will be made or fetched again.")] = False,
    json: o.Json = False,
) -> None:
    """Show what is kept so that it need not be decoded or fetched again, and how much of it may be (LGM_CACHE_LIMIT)."""
    from lgcli import render
    from models.data import cache as kept

    if clear:
        freed = kept.clear()
        render.result({"freed": freed}, f"{freed / 1e6:,.1f} MB freed", json)
        return
    found, most = kept.entries(), kept.limit()
    sums = {kind: [entry.bytes for entry in found if entry.kind == kind] for kind in kept.KINDS}
    total = sum(entry.bytes for entry in found)
    if json:
        kinds = {kind: {"entries": len(sizes), "bytes": sum(sizes)} for kind, sizes in sums.items()}
        render.document({"folder": str(kept.cache_folder()), "limit": most, "bytes": total, **kinds})
        return
    print(kept.cache_folder())
    for kind, about in kept.KINDS.items():
        print(f"  {kind:<8} {sum(sums[kind]) / 1e6:>10,.1f} MB  {about} ({len(sums[kind]):,})")
    print(f"  {'in all':<8} {total / 1e6:>10,.1f} MB  of {most / 1e6:,.0f} ({kept.VARIABLE})")


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


for command in (info, check, pack, cache):
    data.command(command.__name__)(guarded(command))
