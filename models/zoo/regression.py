"""Regression: the one answer to a question that is nearest to all that it may have; a U-Net.

The plainest model of an image that belongs to another one, and what the others have to be compared with: where a question has several
answers, it learns the median (or the mean) of them, which is a blur. Ronneberger et al., U-Net, 2015; Isola et al., pix2pix, 2017, show
what becomes of L1 alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor

from models.base import Batch, Clock, DataSpec, Player, Preset, Range, Stage, Turn
from models.nets.questions import Answering
from models.nets.unet import networks_for


class Regression(Answering):
    @dataclass(frozen=True)
    class Config:
        task: Literal["inpaint", "colourise", "upscale", "pairs"] = "inpaint"  # what is asked: see docs/answers.md
        mask: Literal["any", "box", "center", "half", "random", "stroke"] = "any"  # the holes that inpaint learns to fill
        factor: Annotated[int, Range(2, 64)] = 4  # how much smaller upscale's images are
        network: Literal["unet", "mlp"] = "unet"  # unet (sized from the data), mlp (pictures of a few pixels)
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (32, 64, 128, 256)  # channels; small images use the first few
        error: Literal["absolute", "squared"] = "absolute"  # of an answer: the median of all that there are, or their mean
        lr: Annotated[float, Range(0, 10)] = 1e-3  # learning rate
        schedule: Literal["constant", "linear", "cosine"] = "cosine"  # of the learning rate

    config: Config
    averaged = ("encoder", "decoder")
    presets = {
        "quick": Preset(50_000, batch=16, about="a first look"),
        "default": Preset(400_000, batch=16),
        "paper": Preset(
            600_000,
            batch=16,
            options={"widths": (64, 128, 256, 512), "lr": 2e-4, "schedule": "constant"},
            about="the widths and the learning rate of pix2pix, whose L1 it is",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec, noise=0)
        self.encoder, self.decoder = networks_for(config.network, self.asking.seen, config.widths, 0, self.asking.wanted.shape[0])

    # --- objective ---

    def players(self) -> dict[str, Player]:
        return {"answers": Player((self.encoder, self.decoder), lr=self.config.lr, schedule=self.config.schedule)}

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("regression", self.turns, players=("answers",)),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        question = self.asking.of(batch)
        answer = self.decoder(self.encoder(question.shown))
        yield Turn({"answers": question.error(answer, self.config.error == "squared").mean()})

    # --- capabilities ---

    def answer(self, shown: Tensor, noise: Tensor) -> Tensor:
        """There is one to each question; the noise is empty, (B, 0)."""
        answer: Tensor = self.decoder(self.encoder(shown))
        return answer
