"""DCGAN: a GAN of strided convolutions with batch norm in both networks.

Paper: Radford et al., Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks, 2016; the preset
`paper` follows its 64x64 faces (Newmu/dcgan_code: faces/train_uncond_dcgan.py), with normal instead of uniform noise.

Weights start from N(0, 0.02). The discriminator sees real and fake images in separate batches: its batch norm would otherwise tell it the
mixture. There is no norm at its input nor at the generator's output, where it made the original oscillate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from models.base import Batch, Clock, DataSpec, LatentModel, Player, Preset, Range, Stage, Turn
from models.losses import fake_loss, judged_right, real_loss
from models.nets.augment import differentiable
from models.nets.conv import ConvDecoder, ConvDiscriminator


class DCGAN(LatentModel):
    @dataclass(frozen=True)
    class Config:
        latent: Annotated[int, Range(1, 8192)] = 100  # dimensions of the noise
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (64, 128, 256, 512)  # channels; small images use the first few
        kernel: Literal[4, 5] = 4  # side of the convolutions' kernels; the paper's is 5
        generator_norm: Literal["batch", "none"] = "batch"  # in the generator
        norm: Literal["batch", "layer", "spectral", "none"] = "batch"  # in the discriminator
        lr: Annotated[float, Range(0, 10)] = 2e-4  # learning rate of both players
        schedule: Literal["constant", "linear", "cosine", "exponential", "steps"] = "constant"  # of the learning rates
        weight_decay: Annotated[float, Range(0, 1)] = 0.0  # L2, on both players
        augment: Literal["none", "shift", "full"] = "none"  # differentiable augmentation of what the discriminator sees

    config: Config
    averaged = ("generator",)
    presets = {
        "quick": Preset(150_000, options={"widths": (32, 64, 128, 256)}, about="a look within a few minutes"),
        "default": Preset(1_200_000),
        "paper": Preset(
            8_750_000,
            options={"widths": (128, 256, 512, 1024), "kernel": 5, "weight_decay": 1e-5},
            about="5x5 kernels, 128 to 1024 channels, 25 passes over 350,000 faces",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.generator = ConvDecoder(spec, config.widths, config.latent, norm=config.generator_norm, kernel=config.kernel)
        self.discriminator = ConvDiscriminator(spec, config.widths, norm=config.norm, kernel=config.kernel)

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        modules = {"discriminator": self.discriminator, "generator": self.generator}
        return {
            name: Player((module,), c.lr, betas=(0.5, 0.999), weight_decay=c.weight_decay, schedule=c.schedule)
            for name, module in modules.items()
        }

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("adversarial", self.turns, players=("discriminator", "generator")),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        fake = self.sample(self.noise(batch))
        on_real, on_fake = self.judge(batch.image), self.judge(fake.detach())
        yield Turn({"discriminator": real_loss(on_real) + fake_loss(on_fake)}, {"right": judged_right(on_real, on_fake)})
        yield Turn({"generator": real_loss(self.judge(fake))})

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
