"""lgm info"""

from __future__ import annotations

from lgcli import options as o

PANEL = "Look"


def info(run: o.Run, json: o.Json = False) -> None:
    """Show what a run or a checkpoint is: model, configuration, data, progress, files."""
    from lgcli import render
    from models import api

    render.mapping(api.describe_run(run), json)
