"""A training run as it happens: a live display on a terminal, plain lines where nobody watches, or JSON lines."""

from __future__ import annotations

import dataclasses
import json as json_module
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from lgcli.render import speaks, time_left

if TYPE_CHECKING:
    from models.training import events

_PLAIN_SECONDS = 10.0  # between two plain lines of losses when nobody watches a terminal


def training(happening: Iterator[events.Event], json: bool, logs: Sequence[Callable[[events.Event], None]] = ()) -> None:
    """Show a run as it happens: JSON lines, a live display on a terminal, or plain lines. Rank 0 speaks for all, also to `logs`."""
    view = _Silent() if not speaks() else _JsonLines() if json else _Display() if Console(stderr=True).is_terminal else _Lines()
    with view:
        for event in happening:
            for log in logs if speaks() else ():
                log(event)
            try:
                view.show(event)
            except BrokenPipeError:  # nobody listens any more: save, and end
                view.show = _Silent().show  # type: ignore[method-assign]
                sys.stdout = open(os.devnull, "w")
                os.kill(os.getpid(), signal.SIGHUP)
    from models.training.events import Finished

    if speaks() and isinstance(event, Finished):
        if not event.already:
            _draw_curves(event.run)
        if not json:
            print(event.run)


def _draw_curves(run: str) -> None:
    """curves.png in the run's folder, where matplotlib is at hand."""
    from models import layout
    from models.errors import LgmError
    from models.runs import curves

    if not curves.available():
        return
    try:
        curves.write(Path(run) / layout.CURVES, {Path(run).name: Path(run)})
    except LgmError as error:  # a log with one line, a full disk: no reason to say that a finished run has failed
        print(f"note: no curves were drawn ({error.what})", file=sys.stderr)


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
        self.total, self.ends, self.last = 0, 0, 0.0

    def show(self, event: events.Event) -> None:
        from models.training import events as e

        if isinstance(event, e.Started):
            self.total = event.total
        if isinstance(event, e.StageStarted):
            self.ends = event.ends
        if isinstance(event, e.Logged):
            if time.monotonic() - self.last < _PLAIN_SECONDS:
                return
            self.last = time.monotonic()
        if not isinstance(event, e.Progressed):
            print(describe(event, self.total, self.ends), file=sys.stderr, flush=True)


class _Display(_Silent):
    """The live display of a terminal: a bar for the run, under it the stage and the losses, and the newest pictures."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar = Progress(
            SpinnerColumn("line"),  # of ASCII alone
            BarColumn(),  # on a narrow terminal the bar shrinks; what the other columns say stays
            TextColumn("{task.fields[count]} images"),
            TextColumn("{task.fields[rate]}/s"),
            time_left(),
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


def describe(event: events.Event, total: int, ends: int = 0) -> str:
    """One plain line for an event of a run of `total` images, whose stage ends after `ends`: another one may be many times as fast."""
    from models.training import events as e

    match event:
        case e.Started():
            verb = "resuming" if event.resumed else "training"
            return f"{verb} {event.model} on {event.data}, {event.total:,} images, device {event.device}: {event.run}"
        case e.StageStarted():
            return f"stage {event.number}/{event.stages} {event.stage}: images {event.images:,} to {event.ends:,}"
        case e.Logged():
            losses = ", ".join(f"{name} {value:.4g}" for name, value in event.losses.items())
            left = _clock(((ends or total) - event.images) / event.rate if event.rate else 0)
            until = "left" if ends in (0, total) else "to the next stage"
            return f"{event.images:,} of {total:,} images, {event.rate:,.0f}/s, {left} {until}: {losses}"
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
