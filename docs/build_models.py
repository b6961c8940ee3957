"""Writes docs/models.md from the zoo's docstrings and options: python docs/build_models.py"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from models.registry import MODELS  # noqa: E402


def page() -> str:
    lines = ["# Models", "", "Written by `docs/build_models.py` from the files in `models/zoo/`; `lgm models NAME` shows the same.", ""]
    for name, entry in MODELS.entries().items():
        lines += [f"## {name}", "", entry.docstring, "", "| option | default | takes | what it is |", "|---|---|---|---|"]
        for option in entry.options():
            cells = (f"`{option.name}`", f"`{option.default}`", option.takes, option.help)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    (HERE / "models.md").write_text(page())
