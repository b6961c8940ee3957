"""lgm fid"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lgcli import options as o
from models.config import EvaluationConfig

PANEL = "Measure"


@o.options_of(EvaluationConfig)
def fid(
    a: Annotated[str, typer.Argument(metavar="A", help="A folder of images, a data set (mnist:test), a run, or saved statistics.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other side.")],
    *,
    save_stats: Annotated[
        Path | None,
        typer.Option("--save-stats", metavar="FILE", help="Keep A's statistics there (.safetensors), to be given as A or B later."),
    ] = None,
    force: o.Force = False,
    json: o.Json = False,
    **settings: Any,
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
        found = evaluation.fid(a, b, save_stats=save_stats, warn=render.warn, progress=advance, **settings)
    if render.speaks():
        _show(found, json)


def _show(found: Mapping[str, Any], json: bool) -> None:
    """The distance and what it depends on."""
    from rich.text import Text

    from lgcli import render

    if json:
        render.document(found)
        return
    render.show(Text(f"FID {render.digits(found['fid'])}", style="bold"))
    for name in ("a", "b"):
        side = found[name]
        first = f", the first {side['first_image']}" if side["first_image"] else ""
        render.show(Text(f"  {name.upper()}: {side['name']}, {side['images']:,} images{first}"))
    render.show(Text(f"  recipe: {render.recipe(found['recipe'])}"))
