"""lgm evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lgcli import options as o


def evaluate(
    run: o.Run,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="What to compare with, and to reconstruct.", show_default="the run's own data")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="fid, kid, inception-score, prdc, sharpness, diversity, class-diversity, class-balance, reconstruction, accuracy, "
            "path-length.",
            show_default="all that the run allows",
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="METRIC.KEY=VALUE", help="An option of a metric, such as kid.subset=500; repeatable."),
    ] = None,
    number: Annotated[
        int,
        typer.Option(
            "-n", "--number", parser=o.count, metavar="N", help="Images drawn from the run, and real ones beside them (FID: all)."
        ),
    ] = 10_000,
    seed: o.Seed = 0,
    features: o.Features = "inception",
    weights: o.Weights = None,
    resize: o.Resize = "tensorflow",
    precision: o.FeaturePrecision = "fp32",
    batch: o.FeatureBatch = 64,
    workers: o.Workers = 0,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="The report's file.", show_default="RUN/evaluation.json")
    ] = None,
    force: o.Force = False,
    no_cache: o.NoCache = False,
    skip_bad: o.SkipBad = False,
    data_root: o.DataRoot = None,
    device: o.Device = None,
    raw: o.Raw = False,
    json: o.Json = False,
) -> None:
    """Measure a run: FID, KID, precision and recall, sharpness, diversity and more, as a table and as RUN/evaluation.json."""
    from lgcli import render
    from models import evaluation

    if output is not None:
        o.free_path(output, force, "-o")
    target = evaluation.report_path(run, output)  # before the work begins
    with render.progress() as advance:
        found = evaluation.evaluate(
            run,
            data=data,
            metrics=evaluation.parse_metrics(metrics),
            options=evaluation.parse_options(assignments or []),
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
    if render.speaks():
        evaluation.write_report(found, run, output)
    render.evaluation(found, str(target), json)
