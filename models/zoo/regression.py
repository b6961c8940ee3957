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

from models.base import Batch, Clock, DataSpec, Field, LatentModel, Player, Preset, Range, Stage, Turn
from models.nets.questions import Asking, pairs_clause
from models.nets.unet import networks_for


class Regression(LatentModel):
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
        super().__init__(config, spec)
        self.asking = Asking(config.task, config.mask, spec)
        self.needs = self.asking.needs
        self.encoder, self.decoder = networks_for(config.network, self.asking.seen, config.widths, 0, self.asking.wanted.shape[0])
        if config.task == "inpaint":
            self.holes, self.completion_noise = config.mask, (0,)
        else:
            self.translation_noise = (0,)

    @staticmethod
    def pairs_by(config: Config) -> str:
        return pairs_clause(config.task, config.factor)

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

    def gives(self, capability: str) -> Field:
        return self.asking.gives(capability)

    def translate(self, image: Tensor, noise: Tensor) -> Tensor:
        """Images (B, C, h, w) -> their answers (B, C', H, W) in [-1, 1]; the noise is empty, (B, 0)."""
        answer: Tensor = self.decoder(self.encoder(self.asking.shown(image)))
        return answer.float().clamp(-1, 1)

    def complete(self, image: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        """Images (B, C, H, W) and masks (B, 1, H, W), 1 in the hole -> whole images in [-1, 1]; the noise is empty, (B, 0)."""
        question = self.asking.with_hole(image, mask)
        return question.whole(self.decoder(self.encoder(question.shown)))
