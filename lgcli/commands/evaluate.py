"""lgm evaluate"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lgcli import options as o
from models.config import EvaluationConfig
from models.registry import METRICS

PANEL = "Measure"


@o.options_of(EvaluationConfig)
def evaluate(
    run: o.Run,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="What to compare with, and to reconstruct.", show_default="the run's own data")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="NAME,...", help=f"{', '.join(METRICS.entries())}.", show_default="all that the run allows")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="METRIC.KEY=VALUE", help="An option of a metric, such as kid.subset=500; repeatable."),
    ] = None,
    *,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="The report's file.", show_default="RUN/evaluation.json")
    ] = None,
    force: o.Force = False,
    json: o.Json = False,
    **settings: Any,
) -> None:
    """Measure a run: FID, KID, precision and recall, sharpness, diversity and more, as a table and as RUN/evaluation.json."""
    from lgcli import render
    from models import evaluation

    if output is not None:
        o.free_path(output, force, "-o")
    target = evaluation.report_path(run, output)  # before the work begins
    chosen, options = evaluation.parse_metrics(metrics), evaluation.parse_options(assignments or [])
    with render.progress() as advance:
        found = evaluation.evaluate(run, data=data, metrics=chosen, options=options, warn=render.warn, progress=advance, **settings)
    if render.speaks():
        evaluation.write_report(found, run, output)
        _show(found, target, json)


def _show(found: Mapping[str, Any], report: Path, json: bool) -> None:
    """The values of all metrics as a table, with four digits; the report has all of them."""
    from rich.table import Column
    from rich.text import Text

    from lgcli import render

    if json:
        render.document(found)
        return
    table = render.table("metric", Column("value", justify="right"), "")
    for metric, values in found["metrics"].items():
        for number, (name, value) in enumerate(values.items()):
            table.add_row(metric if not number else "", "not finite" if value is None else render.digits(value), name)
    for title in ("not_for_this_model", "not_measured"):
        for metric, reason in found[title].items():
            table.add_row(metric, "-", Text(f"{title.replace('_', ' ')}: {reason}"))
    images = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in found["recipe"]["images"].items())
    render.show(table, Text(f"images: {images}"))
    for title in ("data", "reconstructed"):
        if found[title] is not None:
            render.show(Text(f"{title}: {found[title]}"))
    render.show(Text(f"recipe: {render.recipe(found['recipe'])}"))
    print(report)
