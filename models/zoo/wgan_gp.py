"""WGAN-GP: a Wasserstein GAN whose critic is kept Lipschitz by a penalty on its gradient, one-centred between real and fake images.

Paper: Gulrajani et al., Improved Training of Wasserstein GANs, 2017 (igul222/improved_wgan_training); the preset `paper` is its CIFAR-10
residual net. The penalty is on each image by itself, so the critic must not have batch norm; layer norm is fine, and the generator may
have what it likes.

With `classes=true` (labelled data) the generator draws the class that it is asked for, and the critic gets a second head that names the
class (an auxiliary classifier, as in the table's supervised half): it learns on real images with weight 1, and the generator is paid for
images that it names right with weight 0.1.

`distance` in the log is the critic's estimate of the Wasserstein distance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, LatentModel, Player, Preset, Range, Stage, Turn
from models.losses import one_centred_penalty, wasserstein_estimate
from models.nets.augment import differentiable
from models.nets.conditions import as_vector
from models.nets.conv import ConvDecoder, ConvDiscriminator
from models.nets.residual_gan import ResidualCritic, ResidualGenerator, start_glorot


class WGANGP(LatentModel):
    @dataclass(frozen=True)
    class Config:
        latent: Annotated[int, Range(1, 8192)] = 128  # dimensions of the noise
        network: Literal["conv", "residual"] = "conv"  # DCGAN's nets, or the paper's residual ones
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (64, 128, 256, 512)  # channels of the conv nets; small images use a few
        width: Annotated[int, Range(1, 8192)] = 128  # channels of the residual nets
        generator_norm: Literal["batch", "none"] = "batch"  # in the generator
        norm: Literal["layer", "none"] = "none"  # in the critic
        classes: bool = False  # the generator draws a given class, the critic names it; needs labels
        class_weight: Annotated[float, Range(0, 1e6)] = 1.0  # of the critic's classification of real images
        class_reward: Annotated[float, Range(0, 1e6)] = 0.1  # of the generator's images being classified as what they should be
        critic_steps: Annotated[int, Range(1, 1000)] = 5  # critic steps for each of the generator's
        generator_batches: Annotated[int, Range(1, 16)] = 1  # the generator's images in its step, in batches
        penalty_weight: Annotated[float, Range(0, 1e6)] = 10.0  # of the gradient penalty
        dequantise: bool = False  # add less than a level of uniform noise to real images
        lr: Annotated[float, Range(0, 10)] = 2e-4  # learning rate of both players
        beta1: Annotated[float, Range(0, 0.999)] = 0.0  # Adam's first beta; the second is 0.9
        schedule: Literal["constant", "linear", "cosine", "exponential", "steps"] = "linear"  # of the learning rates
        augment: Literal["none", "shift", "full"] = "none"  # differentiable augmentation of what the critic sees

    config: Config
    averaged = ("generator",)
    presets = {
        "quick": Preset(300_000, batch=64, options={"widths": (32, 64, 128, 256), "lr": 2e-3}, about="a look within a few minutes"),
        "default": Preset(3_000_000, batch=64),
        "paper": Preset(
            32_000_000,
            batch=64,
            options={"network": "residual", "generator_batches": 2, "dequantise": True},
            about="the CIFAR-10 residual net, 100,000 generator steps",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        classes = len(spec.classes) if config.classes else 0
        if config.classes:
            self.needs = frozenset({"image", "label"})
        if config.network == "residual":
            normed = classes if config.generator_norm == "batch" else 0
            self.generator: nn.Module = ResidualGenerator(
                spec, config.width, config.latent + classes, norm=config.generator_norm, classes=normed
            )
            self.critic: nn.Module = ResidualCritic(spec, config.width, outputs=1 + classes, norm=config.norm)
        else:
            self.generator = ConvDecoder(spec, config.widths, config.latent + classes, norm=config.generator_norm)
            self.critic = ConvDiscriminator(spec, config.widths, outputs=1 + classes, norm=config.norm)
        start_glorot(self.generator)
        start_glorot(self.critic)

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        modules = {"critic": self.critic, "generator": self.generator}
        return {name: Player((module,), c.lr, betas=(c.beta1, 0.9), schedule=c.schedule) for name, module in modules.items()}

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("adversarial", self.turns, players=("critic", "generator")),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        c = self.config
        real = batch.image + torch.rand_like(batch.image) / 128 if c.dequantise else batch.image
        label = batch.label if c.classes else None
        moves = (clock.step + 1) % c.critic_steps == 0
        with torch.set_grad_enabled(moves and c.generator_batches == 1):  # the critic alone needs no graph of the generator
            fake = self.sample(self.noise(batch), label)
        (on_real, named), (on_fake, _) = self.judge(real), self.judge(fake.detach())
        distance = wasserstein_estimate(on_real, on_fake)
        penalty = one_centred_penalty(lambda image: self.judge(image)[0], real, fake)
        loss, logs = c.penalty_weight * penalty - distance, {"distance": distance, "penalty": penalty}
        if label is not None:
            loss = loss + c.class_weight * F.cross_entropy(named.float(), label)
            logs["real images named right"] = (named.argmax(1) == label).float().mean()
        yield Turn({"critic": loss}, logs)

        if moves:
            if c.generator_batches > 1:
                more = [self.noise(batch) for _ in range(c.generator_batches - 1)]
                label = label.repeat(c.generator_batches) if label is not None else None
                fake = self.sample(torch.cat([self.noise(batch), *more]), label)
            score, named = self.judge(fake)
            loss, logs = -score.float().mean(), {}
            if label is not None:
                loss = loss + c.class_reward * F.cross_entropy(named.float(), label)
                logs = {"fakes named right": (named.argmax(1) == label).float().mean()}
            yield Turn({"generator": loss}, logs)

    def judge(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> scores (B,), large means real, and the classes' logits (B, K), K = 0 without classes."""
        answers = self.critic(differentiable(image, self.config.augment))
        return answers[:, 0], answers[:, 1:]

    # --- capabilities ---

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.config.latent,)

    def sample(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, latent), and with `classes` labels (B,), or shares of the classes (B, K) -> (B, C, H, W) in [-1, 1]."""
        if label is None:
            return torch.tanh(self.generator(noise))
        asked = torch.cat([noise, as_vector(self.spec, label)], 1)
        return torch.tanh(self.generator(asked, label) if self.config.network == "residual" else self.generator(asked))
