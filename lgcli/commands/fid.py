"""lgm fid"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lgcli import options as o


def fid(
    a: Annotated[str, typer.Argument(metavar="A", help="A folder of images, a data set (mnist:test), a run, or saved statistics.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other side.")],
    number: Annotated[int, typer.Option("-n", "--number", parser=o.count, metavar="N", help="Images drawn from a run.")] = 10_000,
    seed: o.Seed = 0,
    features: o.Features = "inception",
    weights: o.Weights = None,
    resize: o.Resize = "tensorflow",
    precision: o.FeaturePrecision = "fp32",
    batch: o.FeatureBatch = 64,
    workers: o.Workers = 0,
    save_stats: Annotated[
        Path | None,
        typer.Option("--save-stats", metavar="FILE", help="Keep A's statistics there (.safetensors), to be given as A or B later."),
    ] = None,
    no_cache: o.NoCache = False,
    skip_bad: o.SkipBad = False,
    data_root: o.DataRoot = None,
    device: o.Device = None,
    raw: o.Raw = False,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """The Fréchet distance (FID) of two sets of images, with the recipe that it depends on."""
    from lgcli import render
    from models import evaluation
    from models.errors import UserError

    if save_stats is not None:
        if save_stats.suffix != evaluation.STATISTICS:
            raise UserError("statistics are written as safetensors", f"--save-stats {save_stats}", "give a name that ends in .safetensors")
        o.free_path(save_stats, force, "--save-stats")
    with render.progress() as advance:
        found = evaluation.fid(
            a,
            b,
            save_stats=save_stats,
            number=number,
            seed=seed,
            features=features,
            weights=weights,
            resize=resize,
            precision=precision,
            batch=batch,
            workers=workers,
            cached=not no_cache,
            skip_bad=skip_bad,
            data_root=o.root(data_root),
            device=device,
            raw=raw,
            warn=render.warn,
            progress=advance,
        )
    render.fid(found, json)
