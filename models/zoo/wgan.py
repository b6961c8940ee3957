"""WGAN: a GAN whose critic estimates the Wasserstein distance, kept Lipschitz by clipping its weights.

Paper: Arjovsky et al., Wasserstein GAN, 2017 (martinarjovsky/WassersteinGAN: main.py). The critic moves `critic_steps` times for each move
of the generator, and its weights are cut off at `weight_clip` after every step. RMSprop, because momentum makes the critic unstable.
`warm_up=100` is the original's: 100 critic steps for each of the generator's first 25 moves and for every 500th after that.

`distance` in the log is the critic's estimate; it falls as samples get better, which a GAN's losses do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, LatentModel, Player, Preset, Range, Stage, Turn
from models.losses import wasserstein_estimate
from models.nets.augment import differentiable
from models.nets.conv import ConvDecoder, ConvDiscriminator
from models.nets.mlp import MlpDecoder


class WGAN(LatentModel):
    @dataclass(frozen=True)
    class Config:
        latent: Annotated[int, Range(1, 8192)] = 100  # dimensions of the noise
        network: Literal["conv", "mlp"] = "conv"  # the generator: DCGAN's, or fully connected with hidden layers of 512
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (64, 128, 256, 512)  # channels; small images use the first few
        generator_norm: Literal["batch", "none"] = "batch"  # in the convolutional generator
        norm: Literal["batch", "layer", "none"] = "batch"  # in the critic
        critic_steps: Annotated[int, Range(1, 1000)] = 5  # critic steps for each of the generator's
        warm_up: Annotated[int, Range(0, 10_000)] = 0  # critic steps for the generator's first 25 moves and every 500th; 0: as many as else
        weight_clip: Annotated[float, Range(1e-6, 1e3)] = 0.01  # largest absolute value of the critic's weights
        lr: Annotated[float, Range(0, 10)] = 2e-4  # learning rate of both players
        schedule: Literal["constant", "linear", "cosine", "exponential", "steps"] = "constant"  # of the learning rates
        augment: Literal["none", "shift", "full"] = "none"  # differentiable augmentation of what the critic sees

    config: Config
    averaged = ("generator",)
    presets = {
        "quick": Preset(300_000, batch=64, options={"widths": (32, 64, 128, 256), "lr": 1e-3}, about="a look within a few minutes"),
        "default": Preset(3_000_000, batch=64),
        "paper": Preset(30_000_000, batch=64, options={"warm_up": 100, "lr": 5e-5}, about="the original's schedule and learning rate"),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        if config.network == "mlp":
            self.generator: nn.Module = MlpDecoder(spec, (512, 512, 512), config.latent, nn.ReLU)
        else:
            self.generator = ConvDecoder(spec, config.widths, config.latent, norm=config.generator_norm)
        self.critic = ConvDiscriminator(spec, config.widths, norm=config.norm)

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        return {
            "critic": Player((self.critic,), c.lr, "rmsprop", schedule=c.schedule, weight_clip=c.weight_clip),
            "generator": Player((self.generator,), c.lr, "rmsprop", schedule=c.schedule),
        }

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("adversarial", self.turns, players=("critic", "generator")),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        moves = generator_moves(clock.step, self.config.critic_steps, self.config.warm_up)
        with torch.set_grad_enabled(moves):  # the critic alone needs no graph of the generator
            fake = self.sample(self.noise(batch))
        distance = wasserstein_estimate(self.judge(batch.image), self.judge(fake.detach()))
        yield Turn({"critic": -distance}, {"distance": distance})
        if moves:
            yield Turn({"generator": -self.judge(fake).mean()})

    def judge(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> scores (B, 1); large means real."""
        return self.critic(differentiable(image, self.config.augment))

    # --- capabilities ---

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.config.latent,)

    def sample(self, noise: Tensor) -> Tensor:
        """(B, latent) -> (B, C, H, W) in [-1, 1]."""
        return torch.tanh(self.generator(noise))


def generator_moves(step: int, critic_steps: int, warm_up: int) -> bool:
    """Whether the generator moves after the critic's step number `step`, counted from 0.

    With `warm_up` the generator's moves 0 to 24 and every 500th come after that many critic steps, all others after `critic_steps`.
    """
    if not warm_up:
        return (step + 1) % critic_steps == 0
    if step < 25 * warm_up:
        return (step + 1) % warm_up == 0
    place = step - 25 * warm_up + warm_up + 24 * critic_steps  # as if the first 25 moves had been one long and 24 short ones
    place %= warm_up + 499 * critic_steps  # 500 moves, the long one first
    return place >= warm_up - 1 and (place - warm_up + 1) % critic_steps == 0
