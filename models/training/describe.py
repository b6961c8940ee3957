"""Looking at a run, before it begins and afterwards."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from models.data.load import describe
from models.device import pick
from models.training import checkpoint, hub
from models.training.build import build
from models.training.expected import expected
from models.training.places import new_run
from models.training.plan import ask, complete
from models.training.stages import borders


def describe_plan(
    model: str,
    data: str | Mapping[str, str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    measure: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """What `train` would do with the same arguments: configuration, networks with their sizes, stages, data. Writes nothing.

    With `measure` also how long it would take here, stage by stage and in all, from some real steps: a few seconds.
    """
    device = pick(settings.get("device"))
    planned = complete(ask(model, data, **settings))
    config = planned.config
    built = build(dataclasses.replace(config, compile=False), planned.spec, torch.device("cpu"), planned.headers)
    stages = built.stages()
    seconds = expected(planned, device) if measure else {}
    return {
        "run": str(out or new_run(model, config.data, *config.sources.values())),
        "device": str(device),
        "configuration": dataclasses.asdict(config),
        "stages": [
            {"name": stage.name, "until images": end, "players": list(stage.players)}
            | ({"seconds": round(seconds[stage.name], 1)} if seconds else {})
            for stage, end in zip(stages, borders(config, stages), strict=True)
        ],
        **({"seconds": round(sum(seconds.values()), 1)} if seconds else {}),
        "networks": _sizes(built),
        "data": describe(planned.data),
        **({"further data": {name: describe(other) for name, other in planned.others.items()}} if planned.others else {}),
    }


def describe_run(run: str | os.PathLike[str]) -> dict[str, Any]:
    """What a run or checkpoint says of itself, once its digest was verified: a damaged file is not worth describing.

    Raises UserError where the file is damaged or foreign.
    """
    run = hub.local(run)
    return checkpoint.of_newest(run, partial(_describe_checkpoint, Path(run)))


def _describe_checkpoint(folder: Path, path: Path) -> dict[str, Any]:
    header = checkpoint.read_header(path)
    checkpoint.check_belongs(header, folder)
    weights = checkpoint.part(checkpoint.read_tensors(path), "model")
    kept = [str(p) for _, p in sorted(checkpoint.numbered(folder / checkpoint.FOLDER).items())] if folder.is_dir() else [str(path)]
    return {
        "checkpoint": str(path),
        "model": header.model,
        "stage": header.stage,
        "images": header.images,
        "of images": header.borders[-1],
        "parameters": sum(tensor.numel() for tensor in weights.values()),
        "height": header.spec.height,
        "width": header.spec.width,
        "channels": header.spec.channels,
        "classes": list(header.spec.classes),
        "configuration": dataclasses.asdict(header.config),
        "environment": dict(header.environment),
        "parts": {name: part.model for name, part in header.parts.items()},
        "data fingerprint": header.fingerprint,
        "written by lgm": header.lgm,
        "checkpoints": kept,
    }


def _sizes(model: torch.nn.Module) -> dict[str, int]:
    """Sub-network -> number of parameters, and their total."""
    sizes = {name: size for name, child in model.named_children() if (size := sum(p.numel() for p in child.parameters()))}
    return {**sizes, "total": sum(sizes.values())}
