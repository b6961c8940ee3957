"""lgm models: reads the zoo's files without importing them, so it needs no torch."""

from __future__ import annotations

from typing import Annotated

import typer

from lgcli import options as o


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show one model's paper and options.", show_default=False)] = None,
    json: o.Json = False,
) -> None:
    """List the models, or describe one: what it is, its paper, its options."""
    from lgcli import render
    from models.registry import MODELS

    if name is None:
        render.listing("models", {n: e.summary for n, e in MODELS.entries().items()}, json)
        return
    render.model(MODELS.find(name), json)
