"""Writes docs/models.md from the zoo's docstrings and options: python docs/build_models.py"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from models.config import as_assignments  # noqa: E402
from models.registry import MODELS  # noqa: E402


def page() -> str:
    lines = ["# Models", "", "Written by `docs/build_models.py` from the files in `models/zoo/`; `lgm models NAME` shows the same.", ""]
    for name, entry in MODELS.entries().items():
        presets = [
            (f"`{preset}`", f"{p.images:,}", f"{p.batch}", p.about, " ".join(f"`{o}`" for o in as_assignments(p.options)))
            for preset, p in entry.presets().items()
        ]
        options = [(f"`{o.name}`", f"`{o.default}`", o.takes, o.help) for o in entry.options()]
        lines += [f"## {name}", "", entry.docstring, ""]
        lines += [f"Data: `--data NAME=DATA` for {', '.join(f'`{one}`' for one in entry.sources())}.", ""] if entry.sources() else []
        lines += [line for part, about in entry.parts().items() for line in (f"Part: `--part {part}=RUN`, {about}.", "")]
        lines += table(("preset", "images", "batch", "about", "options"), presets)
        lines += table(("option", "default", "takes", "what it is"), options)
    return "\n".join(lines)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [titles, *rows]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return [lines[0], "|" + "---|" * len(titles), *lines[1:], ""]


if __name__ == "__main__":
    (HERE / "models.md").write_text(page())
