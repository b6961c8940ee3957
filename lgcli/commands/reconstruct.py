"""lgm reconstruct"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lgcli import options as o


def reconstruct(
    run: o.Run,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES...|DATA", help="Image files, items (mnist:test:17), or one data set or folder.")
    ],
    number: o.Count = 32,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="The grid's file.", show_default="RUN's name-reconstructions.png")
    ] = None,
    data_root: o.DataRoot = None,
    device: o.Device = "auto",
    raw: o.Raw = False,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Encode and decode images: originals above reconstructions, and the error of each."""
    from lgcli import render
    from models import api, results

    trained = api.load(run, device=device, raw=raw)
    names, originals, _ = trained.gather(images, number, o.root(data_root))
    path = o.picture_path(output, f"{api.name_of(run)}-reconstructions", force)
    again, errors = trained.reconstruct(originals)
    results.write_pairs(originals, again, path)
    render.errors_table(names, errors.tolist(), {"grid": str(path)}, json)
