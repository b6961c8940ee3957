"""lgm report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lgcli import complete
from lgcli import options as o

PANEL = "Look"


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.", autocompletion=complete.runs)],
    output: Annotated[Path | None, typer.Option("-o", metavar="FILE", help="The page, .html.", show_default="RUN/report.html")] = None,
    card: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a model card there instead, .md.", show_default=False)] = None,
    data_root: o.DataRoot = None,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Make one page of a run: what it is, its grids over time, curves, evaluation, and how to go on; or a model card."""
    from lgcli import render
    from models.data.images import atomic_file
    from models.errors import UserError
    from models.runs import report as reports

    if output is not None and card is not None:
        raise UserError("both -o and --card", "--card", "give one of them")
    target = card or output or run / "report.html"
    suffix = ".md" if card else ".html"
    if target.suffix.lower() != suffix:
        raise UserError(f"{'a card' if card else 'a page'} is written as {suffix}", target, f"give a name that ends in {suffix}")
    if card or output:  # that of the run's own folder is made anew
        o.free_path(target, force, "--card" if card else "-o")
    facts = reports.gather(run, o.root(data_root))
    if card:
        with atomic_file(target) as file:
            file.write(reports.card(facts).encode("utf-8"))
    else:
        reports.write(facts, target)
    for one in facts.missing:
        render.note(f"not shown: {one}")
    render.result({"file": str(target), "missing": facts.missing}, str(target), json)
