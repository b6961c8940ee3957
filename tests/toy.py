"""A model that has everything the loop must cope with, and nothing else: dropout, batch norm, a history buffer, two players, two stages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import support
import torch
from torch import nn

from models.base import Batch, Clock, DataSpec, LatentModel, Player, Stage, Turn
from models.config import RunConfig
from models.data.batches import Batches, spec_of
from models.randomness import seed_torch
from models.training import checkpoint, events, loop
from models.training.distributed import Ranks
from models.training.observers import usual


@dataclass(frozen=True)
class Config:
    lr: float = 0.01  # of both players


class Toy(LatentModel):
    Config = Config

    def __init__(self, config: Config = Config(), spec: DataSpec = DataSpec.of_images(1, 16, 16)) -> None:  # noqa: B008
        super().__init__(config, spec)
        size = spec.channels * spec.height * spec.width
        self.embed = nn.Linear(size, 6)
        self.critic = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(8, 1))
        self.generator = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6))
        self.averaged = ("generator",)
        self.register_buffer("history", torch.zeros(4, 6))  # the mean embeddings of the last batches
        self.register_buffer("centre", torch.zeros(6))

    def players(self) -> dict[str, Player]:
        lr = self.config.lr
        return {
            "embed": Player((self.embed,), lr=lr, schedule="linear", clip=1.0),
            "critic": Player((self.critic,), lr=lr, optimizer="rmsprop"),
            "generator": Player((self.generator,), lr=lr, betas=(0.5, 0.9)),
        }

    def stages(self) -> tuple[Stage, ...]:
        second = Stage("game", self.game, ("critic", "generator"), share=2, prepare=self.measure)
        return Stage("embedding", self.embedding, ("embed",)), second

    def embedding(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        code = self.embed(batch.image.flatten(1))
        yield Turn({"embed": (code - torch.randn_like(code)).square().mean()}, {"size": code.norm()})

    def measure(self, batches: Iterable[Batch]) -> None:
        self.centre.copy_(torch.cat([self.embed(batch.image.flatten(1)) for batch in batches]).mean(0))

    def game(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        real = (self.embed(batch.image.flatten(1)) - self.centre).detach()
        fake = self.generator(self.noise(batch))
        judged = self.critic(fake.detach() + self.history.mean(0))
        yield Turn({"critic": judged.mean() - self.critic(real).mean()})
        if clock.step % 2 == 0:
            yield Turn({"generator": -self.critic(fake).mean() + self.critic(fake).square().mean()})
        self.history.copy_(torch.cat([self.history[1:], real.mean(0, keepdim=True)]))

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (3,)


def job(run: Path, model: type[LatentModel] = Toy, ranks: Ranks = Ranks(), resume: bool = False, **changes: Any) -> loop.Job:  # noqa: B008
    """A run of the toy on 64 tiny images: 12 steps of 8, the stage border is at 32. `changes` are fields of RunConfig, or `fused`."""
    more = {"fused": changes.pop("fused", True)}
    settings = {"images": 96, "batch": 8, "log_every": 16, "sample_every": 40, "save_every": 24, "average_images": 32, **changes}
    config = RunConfig(model="toy", data="tiny", **settings)
    data = support.image_data()
    seed_torch(torch.device("cpu"), config.seed, "init")
    built = model(model.Config(**config.options), spec_of(data))
    if resume:
        header, tensors, _ = checkpoint.newest_valid(run)
        checkpoint.load_state(built, checkpoint.part(tensors, "model"))
        more |= {"start": header, "tensors": tensors}
    batches = Batches(data, torch.device("cpu"))
    watching = usual(config, built, batches, run) if ranks.writes else ()
    return loop.Job(config, built, batches, data.fingerprint(), run, torch.device("cpu"), ranks, observers=watching, **more)


def train(run: Path, model: type[LatentModel] = Toy, **changes: Any) -> list[events.Event]:
    return list(loop.train(job(run, model, **changes)))


def kill_at(images: int, run: Path, resume: bool = False) -> None:
    """In a child: train, and die by SIGKILL right after the step that reaches `images`."""
    with support.dying_at(images):
        train(run, resume=resume)
