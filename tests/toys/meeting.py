"""All that the contract offers, in a model as small as can be: three sources, two parts, two stages that differ, an output of another kind.

Images of `here` are taken to images of `there`, which have another size and other channels, by a bridge between the codes of two frozen
auto-encoders; items meet by chance. `again` is a second draw of `here`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, Encodes, Field, LatentModel, Part, Player, Preset, Range, Stage, Turn, Whole


class Meeting(LatentModel):
    @dataclass(frozen=True)
    class Config:
        lr: Annotated[float, Range(0, 10)] = 0.01  # of both players

    config: Config
    sources = ("here", "there", "again")
    draws = {"again": "here"}
    takes = {
        "near": Part((Encodes,), "an auto-encoder of the images of here", source="here"),
        "far": Part((Encodes,), "an auto-encoder of the images of there", source="there"),
    }
    needs = frozenset({"image", "label", "there.image", "there.label", "again.image"})
    averaged = ("bridge",)
    presets = {name: Preset(96, batch=8) for name in ("quick", "default", "paper")}

    def __init__(self, config: Config, spec: DataSpec, parts: Mapping[str, LatentModel]) -> None:
        super().__init__(config, spec, parts)
        with torch.no_grad():
            near = self.part("near").encode(torch.zeros(1, *spec.shape)).shape[1]
            far = self.part("far").encode(torch.zeros(1, *spec["there"].shape)).shape[1]
        self.bridge = nn.Sequential(nn.Linear(near, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, far))
        self.judge = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.register_buffer("centre", torch.zeros(far))
        self.register_buffer("times", torch.zeros(3))  # steps, images and progress, as the clock has told them last

    def part(self, name: str) -> Any:
        return self.parts[name]

    def players(self) -> dict[str, Player]:
        return {"judge": Player((self.judge,), lr=self.config.lr), "bridge": Player((self.bridge,), lr=self.config.lr, schedule="linear")}

    def stages(self) -> tuple[Stage, ...]:
        small = Stage(
            "small",
            self.looking,
            ("judge",),
            size=(8, 4),
            batch=4,
            settings={"judge": {"lr": self.config.lr / 4, "optimizer": "sgd"}},
            needs=frozenset({"image", "again.image"}),
        )
        return small, Stage("whole", self.crossing, ("judge", "bridge"), share=2, prepare=self.measure)

    def told(self, batch: Batch, clock: Clock) -> None:
        self.times.copy_(torch.tensor([clock.step, clock.images, clock.progress]))

    def looking(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        self.told(batch, clock)
        assert batch.image.shape[1:] == (self.spec.channels, 8, 4)
        seen = torch.stack([batch.image.mean((1, 2, 3)), batch["again"].image.mean((1, 2, 3)), torch.randn(len(batch))], 1)
        yield Turn({"judge": self.judge(seen).square().mean()}, {"progress": torch.tensor(clock.progress)})

    def measure(self, whole: Whole) -> None:
        self.centre.copy_(torch.cat([self.part("far").encode(batch.image) for batch in whole["there"]]).mean(0))

    def crossing(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        self.told(batch, clock)
        there = batch["there"]
        same = (batch.label == there.label).float()
        with torch.no_grad():
            near, far = self.part("near").encode(batch.image), self.part("far").encode(there.image)
        yield Turn({"judge": self.judge(torch.stack([same, near[:, 0], far[:, 0]], 1)).square().mean()})
        apart = self.bridge(near) + self.centre - far
        yield Turn({"bridge": (apart.square().mean(1) * (1 + same)).mean() + 0.01 * self.part("far").decode(far + 0 * apart).mean()})

    def gives(self, capability: str) -> Field:
        return self.spec["there"].fields["image"] if capability == "translate" else super().gives(capability)

    def translate(self, image: Tensor) -> Tensor:
        """Images of `here` to images of `there`: (B, C, H, W) -> (B, C', H', W') in [-1, 1]."""
        made: Tensor = self.part("far").decode(self.bridge(self.part("near").encode(image)) + self.centre)
        return made
