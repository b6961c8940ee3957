"""The curves of a log, drawn by matplotlib, which belongs to the extra `report`.

Every logged number has a panel of its own, because losses of several players have different scales; several runs share the panels.
matplotlib is asked for figures by themselves: no window is opened, and nothing of a user's session is changed.
"""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.data.images import atomic_file
from models.errors import UserError
from models.runs import history
from models.runs.history import Curve

PANEL = (3.4, 2.2)  # inches
COLUMNS = 3
MOST = 24  # panels
MISSING = "pip install matplotlib"


def available() -> bool:
    """Whether curves can be drawn here."""
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        return False
    return True


def write(path: Path, runs: Mapping[str, Path]) -> Path:
    """The curves of some runs, each under a name, as a PNG. Raises UserError where matplotlib or a log is missing."""
    with atomic_file(path) as file:
        file.write(_drawn(runs, "png"))
    return path


def svg(runs: Mapping[str, Path]) -> str:
    """The same as SVG, to stand in a page. Raises UserError."""
    text = _drawn(runs, "svg").decode("utf-8")
    return text[text.index("<svg") :]


def _drawn(runs: Mapping[str, Path], kind: str) -> bytes:
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise UserError("curves are drawn by matplotlib, which is not installed", "curves", MISSING) from error
    from matplotlib import rc_context

    found = {name: history.curves(run) for name, run in runs.items()}
    titles = list(dict.fromkeys(title for curves in found.values() for title, curve in curves.items() if len(curve.images) > 1))[:MOST]
    if not titles:
        raise UserError("the log has no curve yet", ", ".join(map(str, runs.values())), "let it train for a while")
    columns = min(COLUMNS, len(titles))
    rows = -(-len(titles) // columns)
    settings: Any = {"font.size": 8, "svg.hashsalt": "lgm", "svg.fonttype": "none"}
    settings |= {"axes.spines.top": False, "axes.spines.right": False}
    with rc_context(settings):
        figure = figures.Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
        for number, title in enumerate(titles):
            axes = figure.add_subplot(rows, columns, number + 1)
            for name, curves in found.items():
                if title in curves:
                    _line(axes, curves[title], name, len(curves[title].images) < 60)
            axes.set_title(title, fontsize=9)
            axes.xaxis.set_major_formatter(_counted)
            axes.grid(alpha=0.2, linewidth=0.5)
            if len(found) > 1 and not number:
                axes.legend(fontsize=7, frameon=False)
        out = io.BytesIO()
        figure.savefig(out, format=kind, dpi=110, transparent=kind == "svg", metadata={"Date": None} if kind == "svg" else {})
    return out.getvalue()


def _line(axes: Any, curve: Curve, name: str, few: bool) -> None:
    """One curve; where its values are positive and span more than two orders of magnitude, on a logarithmic scale."""
    axes.plot(curve.images, curve.values, label=name, linewidth=1.1, marker="." if few else "", markersize=3)
    low, high = min(curve.values), max(curve.values)
    if low > 0 and math.log10(high / low) > 2:
        axes.set_yscale("log")


def _counted(images: float, position: int | None = None) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(images) >= size:
            return f"{images / size:g}{unit}"
    return f"{images:g}"
