"""The terminal in the README: runs these commands, and draws what they print as docs/pictures/terminal.svg.

    python docs/reproduce/recording.py

rich draws it. Of many lines the first and the last are kept.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import tempfile
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text
from typer.testing import CliRunner

from lgcli.app import app

PICTURE = Path(__file__).parent.parent / "pictures" / "terminal.svg"
WIDTH, LINES = 96, 7  # columns; lines that are kept of one command
COMMANDS = (
    "lgm models",
    "lgm train vae --data glyphs --images 26k --dry-run",
    "lgm train vae --data glyphs --images 26k --out runs/vae",
    "lgm train aegan --data glyphs --preset small --images 130k --out runs/aegan",
    "lgm reconstruct runs/vae glyphs:test -n 4 --captions",
    "lgm runs",
)


def run(command: str) -> list[str]:
    """The lines that a command prints, shortened. Raises RuntimeError where it fails."""
    result = CliRunner(env={"COLUMNS": str(WIDTH), "LINES": "40"}).invoke(app, shlex.split(command)[1:])
    if result.exit_code:
        raise RuntimeError(f"{command}: {result.output}")
    lines = [line.rstrip() for line in result.output.rstrip().splitlines()]
    return lines if len(lines) <= LINES else [*lines[: LINES - 3], "...", *lines[-2:]]


def drawn(commands: Sequence[str]) -> str:
    """A terminal in which these commands were run, in the working folder, as SVG that asks for nothing from elsewhere."""
    console = Console(record=True, width=WIDTH, file=StringIO(), highlight=False)
    for command in commands:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")), *map(Text, run(command)), "", sep="\n")
    svg = console.export_svg(title="lgm", theme=MONOKAI, unique_id="lgm")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S)  # they would be fetched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PICTURE)
    path = parser.parse_args().out.absolute()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        text = drawn(COMMANDS)
    path.write_text(text, encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
