"""lgm train"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from lgcli import complete
from lgcli import options as o
from lgcli.logs import Log
from models.config import RunConfig, parse_assignments
from models.errors import UserError

PANEL = "Train"

Model = Annotated[
    str | None,
    typer.Argument(metavar="[MODEL]", help="A model's name; `lgm models` lists them.", show_default=False, autocompletion=complete.models),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[SOURCE=]DATA",
        help="A data set (`lgm data`), NAME:test, or a folder of images; once for each source of a model that has several.",
        autocompletion=complete.data,
        show_default=False,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(metavar="FILE.csv", help="Labels of a folder's images: file name, then classes, attributes, ...", show_default=False),
]
Parts = Annotated[
    list[str] | None,
    typer.Option(
        "--part",
        metavar="NAME=RUN",
        help="A trained run that the model is built around, or hf://USER/NAME; repeatable.",
        show_default=False,
    ),
]
Base = Annotated[
    str | None, typer.Option(metavar="RUN", help="The same as --part base=RUN.", show_default=False, autocompletion=complete.runs)
]
Resume = Annotated[
    Path | None,
    typer.Option(metavar="RUN", help="Go on with a run where it stopped.", show_default=False, autocompletion=complete.runs),
]
Out = Annotated[Path | None, typer.Option(metavar="RUN", help="The run's folder; by default runs/MODEL-DATA.", show_default=False)]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the model (`lgm models MODEL`); repeatable.")
]
Augment = Annotated[
    str | None,
    typer.Option(help="Of what a model learns from: none, shift, full (small data sets), as it offers.", show_default="model's"),
]
Map = Annotated[
    str | None,
    typer.Option("--map", metavar="CLASS=CLASS,...", help="For cross-domain: classes that belong together.", show_default="equal names"),
]
Task = Annotated[
    str | None,
    typer.Option("--task", metavar="TASK", help="For models that answer questions: inpaint, colourise, upscale or pairs."),
]
Pairs = Annotated[
    str | None,
    typer.Option(
        metavar="FIELD", help="For cross-domain: what matching images share: label, attributes, identity or none.", show_default="label"
    ),
]
Epochs = Annotated[float | None, typer.Option(metavar="N", help="Passes over the data, instead of --images.", show_default=False)]
AcceptData = Annotated[bool, typer.Option("--accept-data", help="Resume although the data have changed.")]
Logs = Annotated[
    list[str] | None,
    typer.Option("--log", metavar="PROGRAM", help="Hand the numbers on to csv, tensorboard or wandb; repeatable.", show_default=False),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be trained, and stop.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Events as JSON lines on stdout.")]


GROUPS = {
    "Data": ("data", "labels", "size", "fit", "channels", "background", "skip_bad", "held_out", "data_root"),
    "The model": ("parts", "base", "assignments", "augment", "map_", "pairs", "task"),
    "Training": ("preset", "images", "epochs", "batch", "seed", "average_images", "out", "resume", "accept_data"),
    "The machine": ("device", "precision", "fast", "compile", "workers", "sync_batch_norm"),
    "Watching": ("log", "log_every", "sample_every", "save_every", "keep", "json", "dry_run"),
}


@o.in_groups(GROUPS)
@o.options_of(RunConfig)
def train(
    model: Model = None,
    data: Data = None,
    labels: Labels = None,
    parts: Parts = None,
    base: Base = None,
    resume: Resume = None,
    out: Out = None,
    assignments: Assignments = None,
    augment: Augment = None,
    map_: Map = None,
    pairs: Pairs = None,
    task: Task = None,
    epochs: Epochs = None,
    *,
    log: Logs = None,
    accept_data: AcceptData = False,
    dry_run: DryRun = False,
    json: JsonLines = False,
    **settings: Any,
) -> None:
    """Train a model, or go on with a run."""
    from lgcli import logs

    listeners = logs.opened(log or [])
    runs = _named_runs([*(parts or []), *([f"base={base}"] if base else [])])
    sources = _named_data(data or [], labels)
    options = partial(_options, assignments=assignments or [], flags={"augment": augment, "map": map_, "pairs": pairs, "task": task})
    if resume is None:
        if accept_data:
            raise UserError("--accept-data goes with --resume", "--accept-data", "leave it out")
        settings |= {"parts": runs} if runs else {}
        _begin(model, sources, options, settings, epochs, out, dry_run, json, listeners)
    else:
        if model or out or epochs is not None or runs:
            raise UserError("--resume goes on with a run as it is", f"--resume {resume}", "leave MODEL, --out, --epochs and --part out")
        _go_on(resume, sources, options, settings, accept_data, dry_run, json, listeners)


def _begin(
    model: str | None,
    sources: dict[str, str],
    options: Callable[[type], dict[str, Any]],
    settings: dict[str, Any],
    epochs: float | None,
    out: Path | None,
    dry_run: bool,
    json: bool,
    logs: Sequence[Log],
) -> None:
    """A new run, or what it would be. `options` takes a model's Config."""
    if epochs is not None and "images" in settings:
        raise UserError("both --images and --epochs", "--epochs", "give one of them")
    if model is None or not (sources or settings.get("parts")):
        missing = "a model" if model is None else "--data"
        raise UserError(f"{missing} is missing", "lgm train", "write lgm train MODEL --data DATA, or lgm train --resume RUN")

    from models.registry import MODELS, model_class

    MODELS.find(model)  # a mistyped name should not wait for torch
    settings |= {"out": out, "epochs": epochs, "options": options(model_class(model).Config)}

    from lgcli import display, render
    from models import api

    if dry_run:
        found = api.describe_plan(model, sources, measure=True, **settings)
        if not json:  # people are told a time, and that first
            for stage in found["stages"]:
                stage["takes"] = render.duration(stage.pop("seconds"))
            found = {"takes": f"{render.duration(found.pop('seconds'))} on this machine, as some real steps say", **found}
        render.mapping(found, json)
    else:
        display.training(api.stream(model, sources, **settings), json, logs)


def _go_on(
    run: Path,
    sources: dict[str, str],
    options: Callable[[type], dict[str, Any]],
    settings: dict[str, Any],
    accept_data: bool,
    dry_run: bool,
    json: bool,
    logs: Sequence[Log],
) -> None:
    """A run that has begun. What it trains is not known yet, so `options` goes along as it is."""
    if dry_run:
        raise UserError(
            "a dry run shows a run that has not begun", f"--resume {run}", "lgm info shows the run; leave --dry-run out to go on"
        )

    from lgcli import display
    from models import api

    settings |= {"data": sources} if sources else {}
    display.training(api.resume(run, accept_data=accept_data, options=options, **settings), json, logs)


def _named_data(words: list[str], labels: Path | None) -> dict[str, str]:
    """`--data` as source -> data; the leading source, which needs no name, is "". `--labels` is a clause of its data."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, rest = word.partition("=")
        named = bool(equals) and re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None and not os.path.exists(word)
        source, text = (name, rest) if named else ("", word)
        if source in found:
            which = f"for {source}" if source else "without a name"
            raise UserError(f"two --data {which}", f"--data {word}", "name the source of each: --data NAME=DATA")
        found[source] = text
    if labels is not None:
        if not found:
            raise UserError("labels without images", f"--labels {labels}", "give the folder of the images with --data")
        if "" not in found and len(found) > 1:
            raise UserError(
                "labels for one of several sources", f"--labels {labels}", "write them behind it: --data NAME='FOLDER[labels=FILE.csv]'"
            )
        from models.data.clauses import labelled_by
        from models.data.load import parse

        source = "" if "" in found else next(iter(found))
        found[source] = str(labelled_by(parse(found[source]), str(labels)))
    return found


def _named_runs(words: list[str]) -> dict[str, str]:
    """`--part` as name -> run."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, run = word.partition("=")
        if not equals or not name or not run:
            raise UserError(f"{word!r} is not NAME=RUN", "--part", "write it as --part base=runs/vae-glyphs")
        if name in found:
            raise UserError(f"two runs for the part {name!r}", f"--part {word}", "give one of them")
        found[name] = run
    return found


def _options(config: type, assignments: list[str], flags: Mapping[str, str | None]) -> dict[str, Any]:
    """What `--set` says, and flags that stand for an option of some models, as typed fields of a model's Config."""
    options = parse_assignments(config, assignments)
    for name, text in flags.items():
        if text is not None:
            options |= parse_assignments(config, [f"{name}={text}"], f"--{name}")
    return options
