"""GAN: a generator and a discriminator of fully connected layers, playing against each other.

Paper: Goodfellow et al., Generative Adversarial Nets, 2014. The preset `paper` is its MNIST recipe (goodfeli/adversarial: mnist.yaml): a
maxout discriminator with dropout, SGD with momentum at a learning rate of 0.1. Three things differ: the noise is normal instead of uniform,
the momentum stays at 0.5 instead of rising to 0.7, and the learning rate stays. The default is what has proved itself since: leaky ReLU,
batch norm in the generator, Adam, and the non-saturating loss. In the game's own loss, E log(1 - D(G(z))), the generator's slope vanishes
while the discriminator is sure of itself, as it is at the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, LatentModel, Player, Preset, Range, Stage, Turn
from models.losses import fake_loss, judged_right, real_loss, saturating_loss
from models.nets.augment import differentiable
from models.nets.mlp import MaxoutDiscriminator, MlpDecoder, MlpEncoder, leaky


class GAN(LatentModel):
    @dataclass(frozen=True)
    class Config:
        latent: Annotated[int, Range(1, 8192)] = 100  # dimensions of the noise
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (1024, 512, 256)  # hidden layers of the generator, the image's side first
        norm: Literal["batch", "none"] = "batch"  # in the generator
        discriminator: Literal["leaky", "maxout"] = "leaky"  # leaky ReLU, or the paper's maxout units with dropout
        discriminator_widths: Annotated[tuple[int, ...], Range(1, 8192)] = (512, 256)  # its hidden layers
        loss: Literal["non-saturating", "saturating"] = "non-saturating"  # the generator's: -log D(G(z)), or log(1 - D(G(z)))
        optimizer: Literal["adam", "sgd"] = "adam"  # of both players
        lr: Annotated[float, Range(0, 10)] = 2e-4  # learning rate of both players
        momentum: Annotated[float, Range(0, 0.999)] = 0.5  # SGD's momentum, and Adam's first beta
        schedule: Literal["constant", "linear", "cosine", "exponential", "steps"] = "constant"  # of the learning rates
        augment: Literal["none", "shift", "full"] = "none"  # differentiable augmentation of what the discriminator sees

    config: Config
    averaged = ("generator",)
    presets = {
        "quick": Preset(400_000, about="a look within a few minutes"),
        "default": Preset(3_000_000),
        "paper": Preset(
            15_000_000,
            batch=100,
            options={
                "widths": (1200, 1200),
                "norm": "none",
                "discriminator": "maxout",
                "discriminator_widths": (240, 240),
                "optimizer": "sgd",
                "lr": 0.1,
            },
            about="maxout units, dropout, SGD with momentum",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        modern = config.discriminator == "leaky"
        self.generator = MlpDecoder(spec, config.widths, config.latent, leaky if modern else nn.ReLU, config.norm)
        self.discriminator = (
            MlpEncoder(spec, config.discriminator_widths, 1, leaky) if modern else MaxoutDiscriminator(spec, config.discriminator_widths)
        )
        if not modern:
            for network, reach in ((self.generator, 0.05), (self.discriminator, 0.005)):
                for parameter in network.parameters():
                    nn.init.uniform_(parameter, -reach, reach)

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        modules = {"discriminator": self.discriminator, "generator": self.generator}
        return {
            name: Player((module,), c.lr, c.optimizer, betas=(c.momentum, 0.999), momentum=c.momentum, schedule=c.schedule)
            for name, module in modules.items()
        }

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("adversarial", self.turns, players=("discriminator", "generator")),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        fake = self.sample(self.noise(batch))
        on_real, on_fake = self.judge(batch.image), self.judge(fake.detach())
        yield Turn({"discriminator": real_loss(on_real) + fake_loss(on_fake)}, {"right": judged_right(on_real, on_fake)})
        loss = real_loss if self.config.loss == "non-saturating" else saturating_loss
        yield Turn({"generator": loss(self.judge(fake))})

    def judge(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, 1); large means real."""
        return self.discriminator(differentiable(image, self.config.augment))

    # --- capabilities ---

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.config.latent,)

    def sample(self, noise: Tensor) -> Tensor:
        """(B, latent) -> (B, C, H, W) in [-1, 1]."""
        return torch.tanh(self.generator(noise))
