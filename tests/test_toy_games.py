"""Eight Gaussians on a circle: that each objective, played with small nets and its own optimizers, brings samples to the data.

Points are images of two pixels. Where a model's networks are convolutional, fully connected ones take their place: what is tried is the
game. The distance is the exact Wasserstein distance between a few hundred samples and as many points, by optimal assignment.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, LatentModel
from models.config import check
from models.nets.mlp import mlp
from models.registry import model_class
from models.training.turn import Mover

MODES, RADIUS, DEVIATION = 8, 0.7, 0.04
POINTS, BATCH, SHOWN = 2048, 128, 256
NAMES = tuple(map(str, range(MODES)))
CPU = torch.device("cpu")


def eight_gaussians(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points (N, 1, 1, 2) and which Gaussian each comes from, in turn (N,)."""
    dice = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % MODES
    angle = label * (2 * math.pi / MODES)
    points = RADIUS * torch.stack([angle.cos(), angle.sin()], 1) + DEVIATION * torch.randn(count, 2, generator=dice)
    return points.view(-1, 1, 1, 2), label


def distance(some: Tensor, others: Tensor) -> float:
    """The mean way from each of the points to its partner, where the partners are chosen so that it is shortest."""
    ways = torch.cdist(some.flatten(1).double(), others.flatten(1).double())
    return float(ways[linear_sum_assignment(ways)].mean())


def judge(answers: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), mlp([2, 64, 64, answers], lambda: nn.LeakyReLU(0.2)))


def painter(inputs: int) -> nn.Module:
    return nn.Sequential(mlp([inputs, 64, 64, 2]), nn.Unflatten(1, (1, 1, 2)))


class Points(LatentModel):
    """An auto-encoder whose code is the point itself."""

    def encode(self, image: Tensor) -> Tensor:
        return image.flatten(1)

    def decode(self, latent: Tensor) -> Tensor:
        return latent.view(-1, 1, 1, 2)


def built(name: str, **options: Any) -> LatentModel:
    """The model with nets for points: its own where they are fully connected, and such in place of convolutions."""
    cls = model_class(name)
    config = check(cls.Config, options, "test")
    torch.manual_seed(0)
    if name in ("vae", "aegan", "wae", "gan", "bigan"):
        return cls(config, DataSpec.of_images(1, 1, 2, NAMES))
    if name == "latent-constraints":
        spec = DataSpec.of_images(1, 1, 2, NAMES)
        return cls(config, spec, {"vae": Points(None, spec)})
    model = cls(config, DataSpec.of_images(1, 8, 8, NAMES))
    told = MODES if name.startswith("c") else 0
    if name == "cvae":
        model.encoder, model.decoder = judge(4 * config.latent), painter(config.latent + told)
    else:
        model.generator = painter(config.latent + told)
    if name == "cvae-gan":
        model.encoder, model.classifier = judge(4 * config.latent), judge(config.features)
    if name in ("dcgan", "cgan", "cvae-gan"):
        model.discriminator = judge(getattr(config, "features", 1))
    if name.startswith("wgan"):
        model.critic = judge(1)
    return model


def batch_of(points: Tensor, label: Tensor, index: Tensor) -> Batch:
    data = {"image": points, "label": label}
    return Batch(index, lambda key, index: data[key][index], CPU)


def batches(points: Tensor, label: Tensor) -> Iterator[Batch]:
    dice = torch.Generator().manual_seed(2)
    while True:
        yield batch_of(points, label, torch.randint(len(points), (BATCH,), generator=dice))


def play(model: LatentModel, steps: int) -> None:
    """All stages, with the model's own optimizers."""
    points, label = eight_gaussians(POINTS, 1)
    stream, share = batches(points, label), sum(stage.share for stage in model.stages())
    for stage in model.stages():
        model.eval()
        if stage.prepare:
            with torch.no_grad():
                stage.prepare([batch_of(points, label, torch.arange(POINTS))])
        mover = Mover(model, stage.players)
        for player in mover.players.values():
            for module in player.modules:
                module.train()
        for step in range(round(steps * stage.share / share)):
            mover.schedule(Clock(step, progress=step / steps))
            for number, turn in enumerate(stage.turns(next(stream), Clock(step))):
                mover.apply(turn, number)
    model.eval()


@torch.no_grad()
def far(model: Any, conditional: bool) -> float:
    """How far samples are from fresh points; of a conditional model the mean over the classes, each with its own points."""
    points, label = eight_gaussians(SHOWN, 3)
    noise = torch.randn(SHOWN, *model.noise_shape, generator=torch.Generator().manual_seed(4))
    if not conditional:
        return distance(model.sample(noise), points)
    samples = model.sample(noise, label)
    return sum(distance(samples[label == k], points[label == k]) for k in range(MODES)) / MODES


POINT_NETS = {"network": "mlp", "widths": (64, 64), "latent": 2}


@pytest.mark.parametrize(
    ("name", "steps", "options"),
    [
        ("vae", 500, {**POINT_NETS, "sigma": 0.1, "lr": 5e-3}),
        ("cvae", 400, {"latent": 2, "sigma": 0.03, "components": False}),
        (
            "wae",
            800,
            {
                **POINT_NETS,
                "hidden": (64, 64),
                "reconstruction_weight": 100.0,
                "penalty_weight": 5.0,
                "density_trick": False,
                "components": False,
            },
        ),
        ("wae", 500, {**POINT_NETS, "penalty": "mmd", "penalty_weight": 10.0, "reconstruction_weight": 20.0}),
        ("aegan", 800, {**POINT_NETS, "hidden": (64, 64)}),
        ("gan", 800, {"widths": (64, 64), "latent": 4, "discriminator_widths": (64, 64), "lr": 1e-3}),
        ("bigan", 1500, {"hidden": (64, 64), "latent": 4, "lr": 1e-3}),
        ("dcgan", 1000, {"latent": 4, "lr": 2e-3}),
        ("cgan", 400, {"latent": 4, "lr": 1e-3}),
        ("wgan", 1500, {"latent": 4, "lr": 1e-3, "weight_clip": 0.1, "critic_steps": 3}),
        ("wgan-gp", 1500, {"latent": 4, "lr": 2e-3, "penalty_weight": 0.1, "critic_steps": 3}),
        ("cvae-gan", 400, {"latent": 2, "features": 16}),
        ("latent-constraints", 600, {"hidden": (64, 64), "distance_weight": 0.0, "keep_weight": 0.0, "critic_steps": 2, "lr": 2e-3}),
    ],
    ids=str,
)
def test_samples_come_to_the_data(name: str, steps: int, options: dict[str, Any]) -> None:
    """A cloud of the mean and covariance of the data is 0.29 away from it, nearly half as far as samples at the start."""
    model, conditional = built(name, **options), name in ("cgan", "cvae", "cvae-gan", "latent-constraints")
    before = far(model.eval(), conditional)
    play(model, steps)
    after = far(model, conditional)
    assert after < 0.45 * before, (before, after)
