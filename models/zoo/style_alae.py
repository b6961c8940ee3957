"""Style-ALAE: an adversarial latent auto-encoder with the generator of StyleGAN, grown from 4x4 pixels up.

Paper: Pidhorskyi et al., Adversarial Latent Autoencoders, 2020, and its code (podgorskiy/ALAE); what it learns is the same as in `alae`.
The generator is StyleGAN's (Karras et al. 2019): a code w sets mean and deviation of every map in every layer. The encoder collects means
and deviations of its maps, layer by layer, into w. Training begins at about 4x4 pixels; each stage doubles the size and fades the new
layers in (Karras et al., Progressive Growing of GANs, 2018). In nine of ten of the adversary's steps two codes are mixed at a random layer.

Before the last stage, samples and reconstructions are as coarse as what has been trained. Any size will do; 32, 64, ... halve without rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import cos, pi
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import Batch, Clock, DataSpec, LatentModel, Player, Preset, Range, Stage, Turn
from models.losses import fake_loss, judged_right, r1_penalty, real_loss
from models.nets.augment import mirrored, mirrors
from models.nets.equalised import code_critic, mapping
from models.nets.moving import follow
from models.nets.style import StyleEncoder, StyleGenerator, enlarged, groups_for, sizes_for


class StyleALAE(LatentModel):
    code_mean: Tensor
    level: Tensor
    blend: Tensor

    @dataclass(frozen=True)
    class Config:
        latent: Annotated[int, Range(1, 8192)] = 128  # dimensions of the noise and of the code
        width: Annotated[int, Range(1, 8192)] = 16  # channels at the images' own size; twice as many at half of it, and so on
        widest: Annotated[int, Range(1, 8192)] = 128  # channels at most
        mapping: Annotated[int, Range(1, 100)] = 4  # layers from noise to code
        mixing: Annotated[float, Range(0, 1)] = 0.9  # how often two codes are mixed in the adversary's steps
        growth: Annotated[float, Range(0, 0.95)] = 0.4  # of the run's images, for all sizes below the full one; 0: no growth
        fade: Annotated[float, Range(0, 1)] = 0.5  # of a stage, for fading its new layers in
        batches: Annotated[tuple[int, ...], Range(2, 100_000)] = (64, 32, 16)  # images a step at each size, smallest first; the last stays
        lrs: Annotated[tuple[float, ...], Range(0, 10)] = (6e-3,)  # learning rates at each size, the same way
        reciprocity_weight: Annotated[float, Range(0, 1e6)] = 1.0  # of the mean squared distance of E(G(w)) from w
        penalty_weight: Annotated[float, Range(0, 1e6)] = 1.0  # gamma: of half the squared slope of the discriminator at real images
        penalty_every: Annotated[int, Range(1, 1000)] = 4  # steps from one penalty to the next, which then counts as many times
        flip: bool = True  # mirror half of the images, where they are colour images that are no writing

    config: Config
    averaged = ("mapping", "generator", "encoder")
    presets = {
        "quick": Preset(200_000, options={"widest": 64}, about="faces at 32x32 in an hour of one core"),
        "default": Preset(1_000_000, about="64x64 in a night on two cores"),
        "paper": Preset(
            15_000_000,
            options={
                "latent": 256,
                "width": 64,
                "widest": 256,
                "mapping": 8,
                "growth": 0.4,
                "batches": (512, 256, 128, 64, 32),
                "lrs": (1.5e-3,),
                "penalty_weight": 10.0,
                "penalty_every": 1,
            },
            about="CelebA at 128x128, 80 epochs",
        ),
        "paper-ffhq": Preset(
            18_000_000,
            options={
                "latent": 512,
                "width": 16,
                "widest": 512,
                "mapping": 8,
                "growth": 0.43,
                "batches": (512, 256, 128, 64, 32),
                "lrs": (1.5e-3, 1.5e-3, 1.5e-3, 1.5e-3, 1.5e-3, 1.5e-3, 2e-3, 3e-3),
                "penalty_weight": 10.0,
                "penalty_every": 1,
            },
            about="FFHQ at 1024x1024, 300 epochs",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.sizes = sizes_for(spec)
        self.layer_groups = groups_for(len(self.sizes))
        self.mirrors = config.flip and mirrors(spec, "auto")
        self.mapping = mapping(config.latent, config.mapping, rate=0.1)
        self.generator = StyleGenerator(spec, config.width, config.widest, config.latent)
        self.encoder = StyleEncoder(spec, config.width, config.widest, config.latent)
        self.discriminator = code_critic(config.latent, linear=True)
        self.register_buffer("code_mean", torch.zeros(config.latent))
        self.register_buffer("level", torch.tensor(0 if config.growth else len(self.sizes) - 1))  # what has been trained, for all who ask
        self.register_buffer("blend", torch.tensor(1.0))

    # --- objective ---

    def players(self) -> dict[str, Player]:
        teams = {"encoder": (self.encoder, self.discriminator), "generator": (self.mapping, self.generator)}
        return {name: Player(modules, self.config.lrs[-1], betas=(0.0, 0.99)) for name, modules in teams.items()}

    def stages(self) -> tuple[Stage, ...]:
        c, last = self.config, len(self.sizes) - 1
        levels = range(last + 1) if c.growth else [last]
        stages = []
        for level in levels:
            share = 1 - c.growth if level == last and last else c.growth / last if last else 1.0
            lr = c.lrs[min(level, len(c.lrs) - 1)]
            batch = c.batches[min(level, len(c.batches) - 1)]
            height, width = self.sizes[level]
            stages.append(
                Stage(
                    f"{width}x{height}",
                    partial(self.level_turns, level),
                    ("encoder", "generator"),
                    share,
                    size=None if level == last else (height, width),
                    batch=batch,
                    settings={name: {"lr": lr} for name in ("encoder", "generator")},
                )
            )
        return tuple(stages)

    def level_turns(self, level: int, batch: Batch, clock: Clock) -> Iterator[Turn]:
        c = self.config
        blend = blend_at(clock.progress, c.fade) if level and c.growth else 1.0
        self.level.fill_(level)
        self.blend.fill_(blend)
        real = mirrored(batch.image) if self.mirrors else batch.image
        if blend < 1:  # the new layers' share of the picture is that of the finer half of the image
            real = torch.lerp(enlarged(F.avg_pool2d(real, 2), self.sizes[level]), real, blend)

        def judge(image: Tensor) -> Tensor:
            return self.discriminator(self.encoder(image, level, blend))

        with torch.no_grad():
            fake = self.generator(self.mixed(batch, level), level, blend)
        on_real, on_fake = judge(real), judge(fake)
        loss, logs = real_loss(on_real) + fake_loss(on_fake), {"right": judged_right(on_real, on_fake)}
        if c.penalty_weight and clock.step % c.penalty_every == 0:
            penalty = logs["penalty"] = r1_penalty(judge, real)
            loss = loss + c.penalty_weight * c.penalty_every * penalty
        yield Turn({"encoder": loss}, logs)

        yield Turn({"generator": real_loss(judge(self.generator(self.mixed(batch, level), level, blend)))})

        code = self.map(self.noise(batch))
        error = (self.encoder(self.generator(self.for_layers(code), level, blend), level, blend).float() - code.detach()).square().mean()
        loss = c.reciprocity_weight * error
        yield Turn({"encoder": loss, "generator": loss}, {"reciprocity": error})

    def mixed(self, batch: Batch, level: int) -> Tensor:
        """Codes of new noise for every layer, mostly those of two noises on either side of a random layer: (B, layers, latent)."""
        code, other = self.map(self.noise(batch)), self.map(self.noise(batch))
        follow(self.code_mean, code)
        border = torch.randint(1, 2 * level + 2, (1,), device=code.device)
        alone = torch.rand(1, device=code.device) >= self.config.mixing
        kept = alone | (torch.arange(2 * len(self.sizes), device=code.device) < border)
        return torch.where(kept[:, None], self.for_layers(code), self.for_layers(other))

    def for_layers(self, code: Tensor) -> Tensor:
        """The same code for every layer: (B, latent) -> (B, layers, latent)."""
        return code.unsqueeze(1).expand(-1, 2 * len(self.sizes), -1)

    # --- capabilities ---

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.config.latent,)

    def map(self, noise: Tensor) -> Tensor:
        """z to w: (B, latent) -> (B, latent)."""
        return self.mapping(noise)

    def encode(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, latent)."""
        level = int(self.level)
        return self.encoder(F.interpolate(image, self.sizes[level], mode="area"), level, float(self.blend))

    def decode(self, latent: Tensor) -> Tensor:
        """(B, latent) -> (B, C, H, W) in [-1, 1]."""
        return self.decode_layers(self.for_layers(latent))

    def sample(self, noise: Tensor) -> Tensor:
        """(B, latent) -> (B, C, H, W) in [-1, 1]."""
        return self.decode(self.map(noise))

    def mix(self, latent: Tensor, other: Tensor, layers: Sequence[int]) -> Tensor:
        """Images of codes, `layers` having those of `other` ones: (B, latent) twice -> (B, C, H, W) in [-1, 1]."""
        chosen = torch.zeros(2 * len(self.sizes), 1, dtype=torch.bool, device=latent.device)
        chosen[list(layers)] = True
        return self.decode_layers(torch.where(chosen, self.for_layers(other), self.for_layers(latent)))

    def decode_layers(self, codes: Tensor) -> Tensor:
        """(B, layers, latent) -> (B, C, H, W) in [-1, 1]."""
        image = self.generator(codes, int(self.level), float(self.blend))
        return enlarged(image, self.spec.size).clamp(-1, 1)


def blend_at(progress: float, fade: float) -> float:
    """How much of a new level is shown: from 0 along half a cosine to 1, which is reached at `fade` of the stage."""
    return 0.5 - 0.5 * cos(pi * progress / fade) if progress < fade else 1.0
