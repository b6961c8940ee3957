"""Runs that a new one is built around: finding them, reading them, and what follows from them for its data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from models.base import LatentModel
from models.config import RunConfig
from models.data.clauses import in_shape
from models.data.load import parse
from models.errors import UserError, nearest, printable
from models.training import checkpoint, hub
from models.training.build import build_part, source_of
from models.training.checkpoint import PartHeader
from models.training.places import anywhere


@dataclass(frozen=True)
class Taken:
    """A part: what its checkpoint says of it, and its weights, averaged where there is an average."""

    header: PartHeader
    config: RunConfig
    tensors: Mapping[str, torch.Tensor]


def take_all(cls: type[LatentModel], asked: Mapping[str, str], options: Collection[str]) -> dict[str, Taken]:
    """The runs that were named as parts, by the parts' names. Raises UserError where the model takes no such part, cannot do without one,
    or has one that cannot serve, and where options are set that a part decides."""
    for name in asked:
        if not cls.takes:
            raise UserError(f"this model takes no {printable(name)}", f"--part {printable(name)}", "leave it out")
        if name not in cls.takes:
            raise UserError(f"this model takes no part {printable(name)!r}", f"--part {printable(name)}", nearest(name, cls.takes))
    for name, part in cls.takes.items():
        if name not in asked and not part.optional:
            raise UserError(f"the part {name!r} is missing: {part.about}", f"--part {name}", f"give a run: --part {name}=RUN")
    places = {name: Path(hub.local(run)).expanduser() for name, run in asked.items()}
    return {name: checkpoint.of_newest(place, partial(_take, cls, name, asked[name], options)) for name, place in places.items()}


def _take(cls: type[LatentModel], name: str, run: str, options: Collection[str], path: Path) -> Taken:
    asked, flag = cls.takes[name], f"--part {name}={run}"
    header = checkpoint.read_header(path)
    with torch.device("meta"):
        bare = build_part(header.as_part(), asked, flag)
    if decided := sorted(set(options) & set(asked.decides)):
        raise UserError(f"{', '.join(decided)}: the part decides it", flag, "leave these options out")
    tensors = checkpoint.read_tensors(path)
    weights = checkpoint.part(tensors, "model") | checkpoint.part(tensors, "average")
    checkpoint.match(checkpoint.shapes_of(bare.state_dict()), checkpoint.shapes_of(weights), path)
    return Taken(header.as_part(), header.config, weights)


def shown(cls: type[LatentModel], parts: Mapping[str, Taken], data: str) -> dict[str, Any]:
    """How the leading source's images have to come so that they fit the part that looks at them, where nobody says otherwise: as they came
    to its own run, if `data` are the same."""
    for name, taken in parts.items():
        if source_of(cls, name) == cls.sources[0]:
            spec, config = taken.header.spec, taken.config
            found: dict[str, Any] = {"size": config.size, "channels": config.channels, "fit": config.fit, "background": config.background}
            if anywhere(data) != config.data:
                request = in_shape(parse(data), spec.size, spec.channels)
                found |= {"size": request.size, "channels": request.channels}
            found |= {"data_root": config.data_root or None}
            return {key: value for key, value in found.items() if value is not None}
    return {}
