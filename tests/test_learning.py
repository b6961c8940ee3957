"""Every auto-encoder learns each built-in set within a few steps of real training, as seen in eval mode.

At torch's own start of the weights some ended in black: images that are mostly black drove tanh to -1, where it has no slope, and a code
that said nothing left the decoder outside of what its batch norms knew. The losses, taken in train mode, did not show it.
Those that start at principal components are no worse after these steps, on images that they have not seen.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import pytest
import torch
from support import required_parts

from models.base import Clock, Encodes
from models.capabilities.reconstruct import reconstructions
from models.capabilities.told import Told, condition_of
from models.config import check
from models.data.batches import Batches, spec_of
from models.data.dataset import ImageData
from models.randomness import seed_torch
from models.registry import MODELS, model_class
from models.training.turn import Mover

CPU = torch.device("cpu")
SETS = {"glyphs": (16, 32), "street": (16, 32), "faces": (8, 16, 32)}  # widths
# Those that map noise to codes compare codes, not images, and a BiGAN compares nothing: tests/objectives and toy games say what they learn.
NAMES = [
    name
    for name, cls in ((name, model_class(name)) for name in sorted(MODELS.entries()))
    if issubclass(cls, Encodes) and not hasattr(cls, "map") and name != "bigan" and not required_parts(name) and len(cls.sources) == 1
]


class Pace(NamedTuple):
    """How long a model learns here; `options` are its own."""

    steps: int = 150
    batch: int = 16
    options: Mapping[str, Any] = {}


# CVAE-GAN's decoder plays a game besides, and at its own KL weight it takes more than a test can wait for.
PACES = {"cvae-gan": Pace(340, 32, {"kl_weight": 1.0})}


@lru_cache
def split(name: str, which: str) -> ImageData:
    made: ImageData = importlib.import_module(f"models.data.sets.{name}").generate(256 if which == "train" else 64, which)
    return made


@pytest.mark.parametrize(("name", "data"), [(name, data) for name in NAMES for data in SETS])
def test_an_auto_encoder_learns_each_built_in_set_in_eval_mode(name: str, data: str) -> None:
    train, test, pace = split(data, "train"), split(data, "test"), PACES.get(name, Pace())
    cls = model_class(name)
    seed_torch(CPU, 0, "init")
    model = cls(check(cls.Config, {"widths": SETS[data], **pace.options}, "test"), spec_of(train)).to(memory_format=torch.channels_last)
    if lacking := model.needs - model.spec.provides:
        pytest.skip(f"{data} have no {', '.join(lacking)}")
    stage = max(model.stages(), key=lambda stage: "decoder" in stage.players or stage.share)
    batches = Batches(train, CPU)
    if stage.prepare:
        seed_torch(CPU, 0, "prepare")
        stage.prepare(batches.whole(32))
    kind = condition_of(model)
    told = Told(kind, model.spec, getattr(Batches(test, CPU).at(range(len(test))), kind)) if kind else None
    _, start = reconstructions(model, test.images, told)
    mover = Mover(model, stage.players)
    stream = batches.stream(0, pace.batch, 0)
    for step in range(pace.steps):
        seed_torch(CPU, 0, "step", step)
        mover.schedule(Clock(step, progress=step / pace.steps))
        for number, turn in enumerate(stage.turns(next(stream), Clock(step))):
            mover.apply(turn, number)
    _, error = reconstructions(model, test.images, told)
    dull = ((test.images / 255.0 - train.images.mean(0) / 255.0) ** 2).mean()  # the error of the mean image
    assert error.mean() < 0.85 * dull
    if getattr(model, "components", None) is not None:
        assert start.mean() < 0.3 * dull
        assert error.mean() < 0.3 * dull
        if name != "wae":  # whose codes are drawn to the prior, at the cost of some of that
            assert error.mean() < 1.1 * start.mean()
