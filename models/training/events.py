"""What a training run tells its caller. The library never prints: the command line renders these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """Something happened after `images` images had been seen."""

    images: int


@dataclass(frozen=True)
class Started(Event):
    run: str  # the run's folder
    model: str
    data: str
    total: int  # images of the whole run
    device: str
    resumed: bool


@dataclass(frozen=True)
class StageStarted(Event):
    stage: str
    number: int  # from 1
    stages: int
    ends: int  # images seen at its end


@dataclass(frozen=True)
class Progressed(Event):
    total: int
    rate: float  # images per second, of the last moments


@dataclass(frozen=True)
class Logged(Event):
    stage: str
    losses: Mapping[str, float]  # means since the last line of the log
    rate: float


@dataclass(frozen=True)
class Validated(Event):
    stage: str
    held_out: int  # images that it was measured on
    measures: Mapping[str, float]  # what the model's `validate` found


@dataclass(frozen=True)
class Drawn(Event):
    kind: str  # "sample" or "reconstruction"
    path: str


@dataclass(frozen=True)
class Saved(Event):
    path: str


@dataclass(frozen=True)
class Warned(Event):
    message: str
    fix: str = ""


@dataclass(frozen=True)
class Finished(Event):
    run: str
    seconds: float
    already: bool = False  # the run had nothing left to do
