"""The `lgm` command."""

from __future__ import annotations

import importlib
import io
import pkgutil
import sys

import typer

import lgcli

if (_other := lgcli.shadow()) is not None:  # before anything of ours imports it
    print(f"error: another package named models hides lgm's own: {_other}\n  fix: start lgm from another folder", file=sys.stderr)
    raise SystemExit(2)

from lgcli import commands
from lgcli.guard import guarded
from models.version import __version__

PANELS = ("Train", "Use a trained model", "Measure", "Look")  # of `lgm --help`, from top to bottom

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


def _add_commands() -> None:
    """Every file of `lgcli/commands/` is a command: a function of the file's name, or a Typer with commands of its own; see its PANEL."""
    found = [importlib.import_module(f"{commands.__name__}.{file.name}") for file in pkgutil.iter_modules(commands.__path__)]
    for module in sorted(found, key=lambda module: (PANELS.index(module.PANEL), module.__name__)):
        name = module.__name__.rpartition(".")[2]
        command = getattr(module, name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=module.PANEL)
        else:
            app.command(name.replace("_", "-"), rich_help_panel=module.PANEL)(guarded(command))


_add_commands()


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the encoding lacks (an accent, a file's name) is escaped, and no reason to fail
            stream.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
