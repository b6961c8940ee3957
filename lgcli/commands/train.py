"""lgm train"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from lgcli import options as o
from models.errors import UserError


def train(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="A model's name; `lgm models` lists them.", show_default=False)
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SOURCE=]DATA",
            help="A data set (`lgm data`), NAME:test, or a folder of images; once for each source of a model that has several.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Labels of a folder's images: file name, then classes, attributes, ...", show_default=False),
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with a run where it stopped.", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN", help="The run's folder; by default runs/MODEL-DATA.", show_default=False)
    ] = None,
    preset: Annotated[str | None, typer.Option(help="quick, default, paper, or another of the model's.", show_default="default")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the model (`lgm models MODEL`); repeatable.")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(help="Of what a model learns from: none, shift, full (small data sets), as it offers.", show_default="model's"),
    ] = None,
    images: Annotated[
        int | None, typer.Option(parser=o.count, metavar="N", help="Images to see, e.g. 600k.", show_default="preset's")
    ] = None,
    epochs: Annotated[float | None, typer.Option(metavar="N", help="The same in passes over the data.", show_default=False)] = None,
    batch: Annotated[int | None, typer.Option(parser=o.count, metavar="N", help="Images a step.", show_default="preset's")] = None,
    seed: Annotated[int | None, typer.Option(parser=o.seed, metavar="N", help="Same seed, same weights.", show_default="0")] = None,
    device: o.Device = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.", show_default="fp32")] = None,
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the networks first.", show_default="no-compile")
    ] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Threads that prepare batches ahead.", show_default="0")] = None,
    size: o.Size = None,
    fit: Annotated[str | None, typer.Option(help="crop, pad or stretch to the size.", show_default="crop")] = None,
    channels: Annotated[str | None, typer.Option(help="auto, 1 or 3.", show_default="auto")] = None,
    background: Annotated[
        Any,
        typer.Option(parser=o.colour, metavar="COLOUR", help="What transparent pixels lie on.", show_default="white"),
    ] = None,
    skip_bad: o.SkipBad = False,
    parts: Annotated[
        list[str] | None,
        typer.Option("--part", metavar="NAME=RUN", help="A trained run that the model is built around; repeatable.", show_default=False),
    ] = None,
    base: Annotated[Path | None, typer.Option(metavar="RUN", help="The same as --part base=RUN.", show_default=False)] = None,
    sample_every: Annotated[
        int | None, typer.Option(parser=o.count, metavar="N", help="Images between grids.", show_default="a 20th")
    ] = None,
    save_every: Annotated[
        int | None, typer.Option(parser=o.count, metavar="N", help="Images between saves.", show_default="a 10th")
    ] = None,
    log_every: Annotated[
        int | None, typer.Option(parser=o.count, metavar="N", help="Images between log lines.", show_default="a 500th")
    ] = None,
    keep: Annotated[int | None, typer.Option(metavar="N", help="Checkpoints kept, at least 2.", show_default="2")] = None,
    average_images: Annotated[
        int | None, typer.Option("--average", metavar="N", help="Half-life of the moving average in images; 0: none.", show_default="50000")
    ] = None,
    data_root: o.DataRoot = None,
    accept_data: Annotated[bool, typer.Option("--accept-data", help="Resume although the data have changed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be trained, and stop.")] = False,
    json_lines: Annotated[bool, typer.Option("--json", help="Events as JSON lines on stdout.")] = False,
) -> None:
    """Train a model, or go on with a run."""
    settings: dict[str, Any] = {
        "preset": preset,
        "images": images,
        "batch": batch,
        "seed": seed,
        "device": device,
        "precision": precision,
        "compile": compiled,
        "workers": workers,
        "size": size,
        "fit": fit,
        "channels": channels,
        "background": background,
        "skip_bad": skip_bad or None,
        "parts": _named_runs([*(parts or []), *([f"base={base}"] if base else [])]) or None,
        "sample_every": sample_every,
        "save_every": save_every,
        "log_every": log_every,
        "keep": keep,
        "average_images": average_images,
        "data_root": o.root(data_root),
    }
    settings = {key: value for key, value in settings.items() if value is not None}
    if epochs is not None and images is not None:
        raise UserError("both --images and --epochs", "--epochs", "give one of them")
    sources = _named_data(data or [], labels)
    if resume is None and (model is None or not (sources or settings.get("parts"))):
        missing = "a model" if model is None else "--data"
        raise UserError(f"{missing} is missing", "lgm train", "write lgm train MODEL --data DATA, or lgm train --resume RUN")
    if resume is not None and dry_run:
        raise UserError(
            "a dry run shows a run that has not begun", f"--resume {resume}", "lgm info shows the run; leave --dry-run out to go on"
        )
    if accept_data and resume is None:
        raise UserError("--accept-data goes with --resume", "--accept-data", "leave it out")
    if resume is not None and (model or out or epochs is not None or base or parts):
        raise UserError("--resume goes on with a run as it is", f"--resume {resume}", "leave MODEL, --out, --epochs and --part out")

    from lgcli import render

    if resume is not None:
        from models import api

        if sources:
            settings["data"] = sources
        settings["options"] = lambda config: _options(config, assignments, augment)
        render.training(api.resume(resume, accept_data=accept_data, **settings), json_lines)
        return

    from models.registry import MODELS, model_class

    assert model is not None
    MODELS.find(model)  # a mistyped name should not wait for torch
    options = _options(model_class(model).Config, assignments, augment)

    from models import api

    if dry_run:
        render.mapping(api.describe_plan(model, sources, out=out, epochs=epochs, options=options, **settings), json_lines)
        return
    render.training(api.stream(model, sources, out=out, epochs=epochs, options=options, **settings), json_lines)


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


def _options(config: type, assignments: list[str] | None, augment: str | None) -> dict[str, Any]:
    """What `--set` and `--augment` say, as typed fields of a model's Config."""
    from models.config import parse_assignments

    options = parse_assignments(config, assignments or [])
    if augment is None:
        return options
    return options | parse_assignments(config, [f"augment={augment}"], "--augment")
