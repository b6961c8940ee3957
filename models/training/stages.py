"""How a run's images are divided among its stages."""

from __future__ import annotations

import math
from collections.abc import Sequence

from models.base import Stage
from models.config import RunConfig
from models.training.checkpoint import Header

FEW = 200  # steps of a stage: with Adam a weight moves by about the learning rate a step, so by 0.2 at 1e-3, hardly more than it began with
SHORT = 0.1  # of the longest stage's share: a stage below is meant to be short


def borders(config: RunConfig, stages: Sequence[Stage], start: Header | None = None) -> tuple[int, ...]:
    """Images seen at the end of each stage: whole batches, at least one a stage, in proportion to the stages' shares.

    A stage of share 0 ends where it begins. A resumed run keeps its borders; another number of images moves the end of the last stage
    that has images of its own, and of what follows it.
    """
    shares = [stage.share for stage in stages]
    last = max((number for number, share in enumerate(shares) if share), default=-1)
    if start is not None and (config.images == start.config.images or last < 0):
        return start.borders
    wanted = [config.images * sum(shares[: number + 1]) / (sum(shares) or 1) for number in range(len(shares))]
    ends, end = [], 0
    for number, stage in enumerate(stages):
        batch = stage.batch or config.batch
        if start is not None and start.borders[number] != start.borders[-1]:
            end = start.borders[number]
        elif stage.share:
            steps = (wanted[number] - end) / batch
            end += max(1, math.ceil(steps - 1e-9) if number == last else round(steps)) * batch
        ends.append(end)
    return tuple(ends)


def short(config: RunConfig, stages: Sequence[Stage]) -> tuple[str, ...]:
    """A warning where a stage that is not meant to be short is too short to show anything, with the number of images that it takes."""
    ends = borders(config, stages)
    steps = [(end - begin) // (stage.batch or config.batch) for begin, end, stage in zip((0, *ends), ends, stages)]
    longest = max(stage.share for stage in stages)
    meant = [(count, stage.name) for count, stage in zip(steps, stages) if count and stage.share >= SHORT * longest]
    count, name = min(meant, default=(FEW, ""))
    if count >= FEW:
        return ()
    thousands = math.ceil(ends[-1] * FEW / count / 1000)
    return (f"the stage {name!r} has {count} steps, too few to learn much: give --images {thousands}k for {FEW}, or a smaller --batch",)
