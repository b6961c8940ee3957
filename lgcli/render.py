"""Everything that lgm prints. Results go to stdout, progress and chatter to stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import json as json_module
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from models.capabilities.told import Told
    from models.capabilities.trained import Trained
    from models.data.folder import Report
    from models.registry import Entry
    from models.training import events

_PLAIN_SECONDS = 10.0  # between two plain lines of losses when nobody watches a terminal
_LISTED = 20  # items of a list that people are shown
_TITLE = 20  # characters of what a bar is for: beside them a narrow terminal has room for the time left


def result(values: Mapping[str, Any], text: str, json: bool) -> None:
    """A command's result: one JSON document, or text."""
    print(json_module.dumps(values, allow_nan=False) if json else text)


def mapping(values: Mapping[str, Any], json: bool) -> None:
    """Names and values, nested ones indented."""
    if json:
        print(json_module.dumps(values, allow_nan=False))
        return
    _out().print(_tree(values))


def listing(title: str, entries: Mapping[str, str], json: bool, footer: str = "") -> None:
    if json:
        print(json_module.dumps(entries))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, summary in entries.items():
        table.add_row(name, Text(summary))
    _out().print(table)
    if footer:
        _out().print(Text(footer))


def model(entry: Entry, json: bool) -> None:
    """A model's docstring, presets and options."""
    if json:
        presets = {name: dataclasses.asdict(preset) for name, preset in entry.presets().items()}
        options = [dataclasses.asdict(option) for option in entry.options()]
        made_of = {"sources": entry.sources(), "parts": entry.parts()}
        print(json_module.dumps({"name": entry.name, "about": entry.docstring, **made_of, "presets": presets, "options": options}))
        return
    from models.config import as_assignments

    out = _out()
    out.print(Text(f"{entry.name}: {entry.docstring}\n"))
    if entry.sources():
        out.print(Text(f"data (--data NAME=DATA): {', '.join(entry.sources())}\n"))
    for name, about in entry.parts().items():
        out.print(Text(f"part (--part {name}=RUN): {about}\n"))
    table = Table(box=None, pad_edge=False, title="presets (--preset NAME)", title_justify="left")
    for column in ("name", "images", "batch", "about", "options"):
        table.add_column(column, overflow="fold")
    for name, preset in entry.presets().items():
        table.add_row(name, f"{preset.images:,}", str(preset.batch), Text(preset.about), Text(" ".join(as_assignments(preset.options))))
    out.print(table)
    out.print()
    table = Table(box=None, pad_edge=False, title="options (--set KEY=VALUE)", title_justify="left")
    for column in ("key", "default", "takes", "what it is"):
        table.add_column(column, overflow="fold")
    for option in entry.options():
        table.add_row(*(Text(x) for x in (option.name, option.default, option.takes, option.help)))
    out.print(table)


def report(found: Report, json: bool) -> bool:
    """What `lgm data check` found. Returns whether every file was good."""
    if json:
        print(json_module.dumps({**dataclasses.asdict(found), "bad": [{"file": f, "reason": r} for f, r in found.bad]}))
        return not found.bad
    from models.errors import printable

    height, width, channels = found.shape
    print(
        f"{printable(found.name)}: {found.count:,} good images, used as {width}x{height}, {channels} channel{'s' if channels > 1 else ''}"
    )
    for title, counts in (("modes", found.modes), ("sizes", dict(list(found.sizes.items())[:8])), ("frames", found.frames)):
        if len(counts) > 1 or title == "modes":
            print(f"  {title}: {', '.join(f'{name} ({number:,})' for name, number in counts.items())}")
    if found.classes:
        print(f"  classes: {', '.join(map(printable, found.classes[:20]))}{' ...' if len(found.classes) > 20 else ''}")
    for note in found.notes:
        print(f"  note: {printable(note)}")
    for path, reason in found.bad:
        print(f"  bad: {printable(path)}: {printable(reason)}")
    print(f"{len(found.bad) or 'no'} bad file{'' if len(found.bad) == 1 else 's'}")
    return not found.bad


def errors_table(names: Sequence[str], errors: Sequence[float], written: Mapping[str, str], json: bool) -> None:
    """The error of each reconstructed or projected image, their mean, and what was written: kind -> path."""
    mean = sum(errors) / len(errors)
    if json:
        listed = [{"image": n, "error": e} for n, e in zip(names, errors, strict=True)]
        print(json_module.dumps({**written, "mean_error": mean, "images": listed}))
        return
    for name, error in zip(names, errors, strict=True):
        print(f"{error:.5f}  {name}")
    print("\n".join([f"{mean:.5f}  mean squared error (black 0, white 1)", *written.values()]))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows under their columns' names."""
    shown = Table(box=None, pad_edge=False)
    for column in columns:
        shown.add_column(column)
    for row in rows:
        shown.add_row(*row)
    _out().print(shown)


def speaks() -> bool:
    """Whether this process prints and writes: of several ranks, the first does."""
    return os.environ.get("RANK", "0") == "0"


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


def note(message: str) -> None:
    """What a user did not ask for and should know."""
    print(f"note: {message}", file=sys.stderr, flush=True)


def note_if_guessed(trained: Trained, told: Told | None) -> None:
    """Says that the model's own classifier says what the images show, where nobody else does."""
    if trained.classifies and told is None:
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
        what_is_done, BarColumn(), MofNCompleteColumn(table_column=_whole()), _time_left(), console=console, transient=True
    ) as bars:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(printable(what, _TITLE), total=total)
            bars.update(tasks[what], completed=done)

        yield advance


def fid(found: Mapping[str, Any], json: bool) -> None:
    """A Fréchet distance and what it depends on."""
    if not speaks():
        return
    if json:
        print(json_module.dumps(found, allow_nan=False))
        return
    out = _out()
    out.print(Text(f"FID {_digits(found['fid'])}", style="bold"))
    for name in ("a", "b"):
        side = found[name]
        first = f", the first {side['first_image']}" if side["first_image"] else ""
        out.print(Text(f"  {name.upper()}: {side['name']}, {side['images']:,} images{first}"))
    out.print(Text(f"  recipe: {_recipe(found['recipe'])}"))


def evaluation(found: Mapping[str, Any], path: str, json: bool) -> None:
    """The values of all metrics as a table, with four digits; the report at `path` has all of them."""
    if not speaks():
        return
    if json:
        print(json_module.dumps(found, allow_nan=False))
        return
    out = _out()
    table = Table(box=None, pad_edge=False)
    for column in ("metric", "value", ""):
        table.add_column(column, justify="right" if column == "value" else "left")
    for metric, values in found["metrics"].items():
        for number, (name, value) in enumerate(values.items()):
            table.add_row(metric if not number else "", "not finite" if value is None else _digits(value), name)
    for title in ("not_for_this_model", "not_measured"):
        for metric, reason in found[title].items():
            table.add_row(metric, "-", Text(f"{title.replace('_', ' ')}: {reason}"))
    out.print(table)
    images = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in found["recipe"]["images"].items())
    out.print(Text(f"images: {images}"))
    for title in ("data", "reconstructed"):
        if found[title] is not None:
            out.print(Text(f"{title}: {found[title]}"))
    out.print(Text(f"recipe: {_recipe(found['recipe'])}"))
    print(path)


def _recipe(recipe: Mapping[str, Any]) -> str:
    shown = {key: str(value)[:12] if key == "digest" else value for key, value in recipe.items() if key not in ("images", "options")}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def _digits(value: float) -> str:
    """Four significant digits, and all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.4g}"


# --- training ---------------------------------------------------------------------------------------------------------------------------


def training(happening: Iterator[events.Event], json: bool) -> None:
    """Show a run as it happens: JSON lines, a live display on a terminal, or plain lines. Rank 0 speaks for all."""
    speaks = os.environ.get("RANK", "0") == "0"
    view = _Silent() if not speaks else _JsonLines() if json else _Display() if Console(stderr=True).is_terminal else _Lines()
    with view:
        for event in happening:
            try:
                view.show(event)
            except BrokenPipeError:  # nobody listens any more: save, and end
                view.show = _Silent().show  # type: ignore[method-assign]
                sys.stdout = open(os.devnull, "w")
                os.kill(os.getpid(), signal.SIGHUP)
    from models.training.events import Finished

    if speaks and not json and isinstance(event, Finished):
        print(event.run)


class _Silent:
    def show(self, event: events.Event) -> None:
        pass

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class _JsonLines(_Silent):
    """One JSON object a line on stdout; `event` names its kind."""

    def show(self, event: events.Event) -> None:
        kind = type(event).__name__.lower()
        print(json_module.dumps({"event": kind, **dataclasses.asdict(event)}), flush=True)


class _Lines(_Silent):
    """Plain lines on stderr, losses at most every few seconds."""

    def __init__(self) -> None:
        self.total, self.last = 0, 0.0

    def show(self, event: events.Event) -> None:
        from models.training import events as e

        if isinstance(event, e.Started):
            self.total = event.total
        if isinstance(event, e.Logged):
            if time.monotonic() - self.last < _PLAIN_SECONDS:
                return
            self.last = time.monotonic()
        if not isinstance(event, e.Progressed):
            print(describe(event, self.total), file=sys.stderr, flush=True)


class _Display(_Silent):
    """The live display of a terminal: a bar for the run, under it the stage and the losses, and the newest pictures."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar = Progress(
            SpinnerColumn("line"),  # of ASCII alone
            BarColumn(),  # on a narrow terminal the bar shrinks; what the other columns say stays
            TextColumn("{task.fields[count]} images"),
            TextColumn("{task.fields[rate]}/s"),
            _time_left(),
            console=self.console,
        )
        self.task = self.bar.add_task("", total=None, count="0", rate="-")
        self.stage = "starting"
        self.losses: Mapping[str, float] = {}
        self.measures = ""
        self.pictures: dict[str, str] = {}
        self.total = 0
        self.live = Live(self._picture(), console=self.console, refresh_per_second=5)

    def __enter__(self) -> _Display:
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.update(self._picture())
        self.live.stop()

    def show(self, event: events.Event) -> None:
        from models.training import events as e

        if isinstance(event, e.Started):
            self.total = event.total
            self.bar.update(self.task, total=event.total)
        elif isinstance(event, e.StageStarted):
            self.stage = f"{event.number}/{event.stages} {event.stage}"
        elif isinstance(event, (e.Progressed, e.Logged)):
            rate = f"{event.rate:,.0f}"
            self.bar.update(self.task, completed=event.images, count=f"{event.images:,} of {self.total:,}", rate=rate)
        if isinstance(event, e.Logged):
            self.losses = event.losses
        elif isinstance(event, e.Validated):
            self.measures = describe(event, self.total)
        elif isinstance(event, e.Drawn):
            self.pictures[event.kind] = event.path
        if isinstance(event, (e.Started, e.Warned, e.Finished)):
            self.live.console.print(Text(describe(event, self.total), style="yellow" if isinstance(event, e.Warned) else ""))
        self.live.update(self._picture())

    def _picture(self) -> Group:
        losses = "  ".join([self.stage, *(f"{name} {value:.4g}" for name, value in self.losses.items())])
        pictures = [Text(f"newest {kind}: {path}", overflow="fold") for kind, path in self.pictures.items()]
        measures = [Text(self.measures)] if self.measures else []
        return Group(self.bar, Text(losses), *measures, *pictures)


def describe(event: events.Event, total: int) -> str:
    """One plain line for an event."""
    from models.training import events as e

    match event:
        case e.Started():
            verb = "resuming" if event.resumed else "training"
            return f"{verb} {event.model} on {event.data}, {event.total:,} images, device {event.device}: {event.run}"
        case e.StageStarted():
            return f"stage {event.number}/{event.stages} {event.stage}: images {event.images:,} to {event.ends:,}"
        case e.Logged():
            losses = ", ".join(f"{name} {value:.4g}" for name, value in event.losses.items())
            left = (total - event.images) / event.rate if event.rate else 0
            return f"{event.images:,} of {total:,} images, {event.rate:,.0f}/s, {_clock(left)} left: {losses}"
        case e.Validated():
            measures = ", ".join(f"{name} {value:.4g}" for name, value in event.measures.items())
            return f"{event.images:,} of {total:,} images, measured on {event.held_out:,} held-out images: {measures}"
        case e.Drawn():
            return f"{event.kind} grid: {event.path}"
        case e.Saved():
            return f"saved: {event.path}"
        case e.Warned():
            return f"warning: {event.message}" + (f"\n  fix: {event.fix}" if event.fix else "")
        case e.Finished():
            if event.already:
                return f"already at {event.images:,} images, nothing to do: {event.run}"
            return f"finished: {event.images:,} images in {_clock(event.seconds)}: {event.run}"
    return str(event)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _time_left() -> TimeRemainingColumn:
    return TimeRemainingColumn(table_column=_whole())


def _whole() -> Column:
    """A column that is shown whole on a narrow terminal, where others shrink."""
    return Column(no_wrap=True)


def _out() -> Console:
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


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
