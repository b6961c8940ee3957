"""What the commands print with. Results go to stdout, progress and chatter to stderr."""

from __future__ import annotations

import contextlib
import json as json_module
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from models.capabilities.told import Told
    from models.capabilities.trained import Trained

_LISTED = 20  # items of a list that people are shown
_TITLE = 20  # characters of what a bar is for: beside them a narrow terminal has room for the time left


def document(values: Mapping[str, Any]) -> None:
    """One JSON document."""
    print(json_module.dumps(values, allow_nan=False))


def show(*things: RenderableType) -> None:
    """Texts and tables, one below the other."""
    for thing in things:
        _out().print(thing)


def paragraphs(text: str) -> list[str]:
    """A text whose lines end where its source had no more room, as lines for a terminal of another width: one for each paragraph, and for
    each line that begins with a space or a bullet. Where nobody watches, the lines stay as they are."""
    if not _watched():
        return [text]
    found: list[str] = []
    for line in text.split("\n"):
        goes_on = line and found and found[-1] and not line.startswith((" ", "* ", "- "))
        found[-1:] = [f"{found[-1]} {line}"] if goes_on else [*found[-1:], line]
    return found


def table(*columns: str | Column, title: str = "") -> Table:
    """An empty table without lines around it."""
    return Table(*columns, box=None, pad_edge=False, title=title or None, title_justify="left")


def result(values: Mapping[str, Any], text: str, json: bool) -> None:
    """A command's result: one JSON document, or text."""
    if json:
        document(values)
    else:
        print(text)


def mapping(values: Mapping[str, Any], json: bool) -> None:
    """Names and values, nested ones indented."""
    if json:
        document(values)
    else:
        show(_tree(values))


def listing(entries: Mapping[str, str], json: bool, footer: str = "") -> None:
    """Names and a line about each."""
    if json:
        document(entries)
        return
    lines = table(Column(style="bold", no_wrap=True), Column(overflow="fold"))
    lines.show_header = False
    for name, summary in entries.items():
        lines.add_row(name, Text(summary))
    show(lines, *([Text(footer)] if footer else []))


def errors_table(names: Sequence[str], errors: Sequence[float], written: Mapping[str, str], json: bool) -> None:
    """The error of each reconstructed or projected image, their mean, and what was written: kind -> path."""
    mean = sum(errors) / len(errors)
    if json:
        listed = [{"image": n, "error": e} for n, e in zip(names, errors, strict=True)]
        document({**written, "mean_error": mean, "images": listed})
        return
    for name, error in zip(names, errors, strict=True):
        print(f"{error:.5f}  {name}")
    print("\n".join([f"{mean:.5f}  mean squared error (black 0, white 1)", *written.values()]))


def speaks() -> bool:
    """Whether this process prints and writes: of several ranks, the first does."""
    return os.environ.get("RANK", "0") == "0"


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


def note(message: str) -> None:
    """What a user did not ask for and should know."""
    print(f"note: {message}", file=sys.stderr, flush=True)


def note_if_guessed(trained: Trained, told: Told | None, *capabilities: str) -> None:
    """Says that the model's own classifier says what the images show, where nobody else does and one of these methods has to know."""
    from models.capabilities.told import has_to_tell

    if trained.classifies and told is None and has_to_tell(trained.model, *capabilities):
        note(f"nobody says which {trained.condition} the images show: the model's own classifier does")


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar with the time left on stderr, on a terminal only, for everything that is done; yields the function that moves it.

    It takes what is done ("sampling", the source that is read), how much of it is done, and how much there is in all.
    """
    from models.errors import printable

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, done, total: None
        return
    what_is_done = TextColumn("{task.description}", markup=False)
    with Progress(
        what_is_done, BarColumn(), MofNCompleteColumn(table_column=_whole()), time_left(), console=console, transient=True
    ) as bars:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(printable(what, _TITLE), total=total)
            bars.update(tasks[what], completed=done)

        yield advance


def recipe(values: Mapping[str, Any]) -> str:
    """What a measured number depends on, in one line."""
    shown = {key: str(value)[:12] if key == "digest" else value for key, value in values.items() if key not in ("images", "options")}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def digits(value: float) -> str:
    """Four significant digits, and all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.4g}"


def short(number: int) -> str:
    """A count as people say it: 950, 1.2k, 3.5M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def duration(seconds: float) -> str:
    """A time as people say it that nobody knows exactly: about 40 s, 14 min, 5 h, 3 days."""
    for most, size, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < most:
            return f"about {max(1, round(seconds / size))} {unit}"
    return f"about {round(seconds / 86400):,} days"


def width() -> int:
    """Characters in a line of the terminal; 80 where there is none."""
    return _out().width


def time_left() -> TimeRemainingColumn:
    return TimeRemainingColumn(table_column=_whole())


def _whole() -> Column:
    """A column that is shown whole on a narrow terminal, where others shrink."""
    return Column(no_wrap=True)


def _out() -> Console:
    return Console(highlight=False, soft_wrap=not _watched())


def _watched() -> bool:
    return sys.stdout.isatty()


def _tree(values: Any, indent: int = 0) -> Text:
    lines = Text()
    for name, value in values.items():
        pad = "  " * indent
        if isinstance(value, Mapping) and value:
            lines.append(f"{pad}{name}:\n").append_text(_tree(value, indent + 1))
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
            lines.append(f"{pad}{name}:\n")
            for item in value[:_LISTED]:
                lines.append(f"{pad}  {', '.join(f'{k} {_number(v)}' for k, v in item.items())}\n")
            if len(value) > _LISTED:
                lines.append(f"{pad}  {_others(value)}\n")
        elif value not in (None, [], (), {}, ""):
            lines.append(f"{pad}{name}: {_number(value)}\n")
    return lines


def _number(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join([*map(_number, value[:_LISTED]), *([_others(value)] if len(value) > _LISTED else [])])
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _others(values: Sequence[Any]) -> str:
    return f"and {len(values) - _LISTED:,} more (--json lists them all)"
