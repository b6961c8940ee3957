"""The `lgm` command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

import models


def _refuse_a_shadow() -> None:
    """Started with `python -m lgcli` from a folder that has a package `models` of its own, Python would take that one for ours."""
    ours = Path(__file__).resolve().parent.parent / "models"
    found = getattr(models, "__file__", None)
    if found is None or Path(found).resolve().parent != ours:
        where = found or next(iter(getattr(models, "__path__", ["?"])))
        print(f"error: another package named models hides lgm's own: {where}\n  fix: start lgm from another folder", file=sys.stderr)
        raise SystemExit(2)


_refuse_a_shadow()

from lgcli.commands import data, evaluate, fid, info, inpaint, interpolate, project, reconstruct, sample, train, zoo  # noqa: E402
from lgcli.guard import guarded  # noqa: E402
from models.version import __version__  # noqa: E402

app = typer.Typer(
    name="lgm",
    help="Train and use latent generative models of images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"lgm {__version__}")
        raise typer.Exit


@app.callback()
def _app(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version.")) -> None:
    pass


COMMANDS: dict[str, Callable[..., Any]] = {
    "train": train.train,
    "sample": sample.sample,
    "reconstruct": reconstruct.reconstruct,
    "inpaint": inpaint.inpaint,
    "interpolate": interpolate.interpolate,
    "project": project.project,
    "fid": fid.fid,
    "evaluate": evaluate.evaluate,
    "info": info.info,
    "models": zoo.models,
}
for name, command in COMMANDS.items():
    app.command(name)(guarded(command))
app.add_typer(data.app, name="data")


def main() -> None:
    app()


if __name__ == "__main__":
    main()
