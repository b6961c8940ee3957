"""lgm sample"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lgcli import options as o


def sample(
    run: o.Run,
    number: o.Count = 64,
    seed: o.Seed = 0,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="The grid's file.", show_default="RUN's name-samples.png")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write single images here instead.", show_default=False)] = None,
    batch: Annotated[int, typer.Option(parser=o.count, metavar="N", help="Images held in memory at a time; changes no image.")] = 256,
    columns: Annotated[int | None, typer.Option(parser=o.count, metavar="N", help="Columns of the grid.", show_default="square")] = None,
    device: o.Device = "auto",
    raw: o.Raw = False,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Draw new images: a grid, or single files. Image i depends on the seed alone."""
    import numpy as np

    from lgcli import render
    from models import api, results
    from models.errors import UserError

    if out is not None and output is not None:
        raise UserError("both -o and --out", "--out", "give -o FILE for a grid, or --out DIR for single images")
    trained = api.load(run, device=device, raw=raw)
    if out is None:
        path = o.picture_path(output, f"{api.name_of(run)}-samples", force)
        results.write_grid(np.concatenate(list(trained.sample_blocks(number, seed, batch=batch))), path, columns)
        render.result({"grid": str(path), "images": number, "seed": seed}, f"{path}", json)
        return
    o.free_path(out, force, "--out")
    with render.progress("sampling", number) as advance:
        files = results.write_singles(trained.sample_blocks(number, seed, batch=batch), out, advance)
    render.result({"folder": str(out), "images": number, "seed": seed, "files": files}, f"{out}: {number} images", json)
