"""The `lgm` command."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import typer

import lgcli

if (_other := lgcli.shadow()) is not None:  # before anything of ours imports it
    print(f"error: another package named models hides lgm's own: {_other}\n  fix: start lgm from another folder", file=sys.stderr)
    raise SystemExit(2)

from lgcli.commands import data, evaluate, fid, info, inpaint, interpolate, project, reconstruct, sample, train, zoo
from lgcli.guard import guarded
from models.version import __version__

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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the encoding lacks (an accent, a file's name) is escaped, and no reason to fail
            stream.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
