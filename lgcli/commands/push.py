"""lgm push"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lgcli import complete
from lgcli import options as o

PANEL = "Look"


def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.", autocompletion=complete.runs)],
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="On the Hugging Face hub; made where it is missing.")],
    private: Annotated[bool, typer.Option("--private", help="Nobody else may see it, if it is made.")] = False,
    message: Annotated[str, typer.Option(metavar="TEXT", help="Of the commit.", show_default=False)] = "",
    json: o.Json = False,
) -> None:
    """Share a run on the Hugging Face hub, with a model card; hf://USER/NAME is then a run for every command that asks a model."""
    from lgcli import render
    from models.runs.push import push as share

    address = share(run, repository, private, message)
    name = repository.removeprefix("hf://")
    render.result({"address": address, "run": f"hf://{name}"}, f"{address}\nlgm sample hf://{name}", json)
