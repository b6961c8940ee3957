"""How long a run will take on this machine: some real steps of each of its stages, on some of its images, before it begins."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch

from models.data.batches import Batches
from models.data.items import Chosen, Items
from models.device import settle
from models.training import loop
from models.training.build import build
from models.training.job import unseen
from models.training.observers import HeldOut, usual
from models.training.plan import Plan
from models.training.start import fill_parts

SECONDS = 2.0  # of steps that are measured, in all stages together; besides, each has a first step, a preparation and a look
SOME = 2048  # images that stages are prepared with, or that a model is measured on: what that takes grows with their number


def expected(planned: Plan, device: torch.device, seconds: float = SECONDS) -> dict[str, float]:
    """Stage -> seconds that it will take: its preparation, steps, grids and measurements. Loading the data and saving are left out.

    Nothing stays of it. It is measured without compilation, and as one process.
    """
    settle(device, planned.config.fast)
    config = dataclasses.replace(planned.config, compile=False)
    model = build(config, planned.spec, device, planned.headers)
    fill_parts(model, planned.parts)
    held_out, _ = unseen(config, model, planned.data, device)
    batches = Batches(_some(planned.data), device, {name: _some(items) for name, items in planned.others.items()})
    longer = len(planned.data) / len(batches)
    measured = None if held_out is None else Batches(_some(held_out.data), device)
    with tempfile.TemporaryDirectory(prefix="lgm-dry-run-") as folder:
        observers = usual(config, model, batches, Path(folder), measured)
        job = loop.Job(config, model, batches, "", Path(folder), device, observers=observers)
        paces = loop.rehearsed(job, seconds)
    found: dict[str, float] = {}
    for pace in paces:
        found[pace.stage] = pace.preparing * longer + pace.step * pace.steps
        for kind, every, look in pace.looks:
            more = len(held_out) / len(measured) if kind is HeldOut and held_out is not None and measured is not None else 1.0
            found[pace.stage] += look * more * (1 + pace.images // every)
    return found


def _some(items: Items) -> Items:
    """Some of many items, from everywhere among them, so that all classes are there."""
    index = np.linspace(0, len(items) - 1, min(SOME, len(items))).astype(np.int64)
    return Chosen(items, index, str(items.name))
