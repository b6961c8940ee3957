"""pix2pix: a conditional GAN from images to images; a discriminator of patches sees the question and the answer.

Paper: Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, 2017: G and D play for log D(x, y) +
log(1 - D(x, G(x, z))), with the non-saturating loss of G, and G pays error_weight * |y - G(x, z)| as well. The L1 term carries what is
large, the discriminator what is sharp.

Differences: z is N(0, I) and scales and shifts the channels of G, as everywhere in lgm (the paper's z is dropout, which it found to be
ignored, and so is this one where the L1 term is heavy); group norm instead of batch norm; the nets are sized from the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from models.base import Batch, Clock, DataSpec, Player, Preset, Range, Stage, Turn
from models.losses import fake_loss, judged_right, real_loss
from models.nets.patch import judge_for
from models.nets.questions import Answering
from models.nets.unet import networks_for


class Pix2Pix(Answering):
    @dataclass(frozen=True)
    class Config:
        task: Literal["inpaint", "colourise", "upscale", "pairs"] = "inpaint"  # what is asked: see docs/answers.md
        mask: Literal["any", "box", "center", "half", "random", "stroke"] = "any"  # the holes that inpaint learns to fill
        factor: Annotated[int, Range(2, 64)] = 4  # how much smaller upscale's images are
        network: Literal["unet", "mlp"] = "unet"  # unet (sized from the data), mlp (pictures of a few pixels)
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (32, 64, 128, 256)  # channels of the generator; small images use the first few
        judge_widths: Annotated[tuple[int, ...], Range(1, 8192)] = (32, 64, 128)  # channels of the discriminator
        latent: Annotated[int, Range(1, 8192)] = 16  # dimensions of the noise
        error_weight: Annotated[float, Range(0, 1e6)] = 100.0  # of the L1 distance, a mean over pixels in [-1, 1]
        lr: Annotated[float, Range(0, 10)] = 5e-4  # learning rate
        schedule: Literal["constant", "linear", "cosine"] = "cosine"  # of the learning rate

    config: Config
    averaged = ("encoder", "decoder")
    presets = {
        "quick": Preset(50_000, batch=16, about="a first look"),
        "default": Preset(400_000, batch=16),
        "paper": Preset(
            80_000,
            batch=1,
            options={"widths": (64, 128, 256, 512), "judge_widths": (64, 128, 256), "lr": 2e-4, "schedule": "constant"},
            about="200 epochs of 400 facades, one at a time",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec, noise=config.latent)
        seen, out = self.asking.seen, self.asking.wanted.shape[0]
        self.encoder, self.decoder = networks_for(config.network, seen, config.widths, config.latent, out)
        self.discriminator = judge_for(config.network, self.asking.answered, config.judge_widths)

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        modules = {"discriminator": (self.discriminator,), "generator": (self.encoder, self.decoder)}
        return {name: Player(parts, c.lr, betas=(0.5, 0.999), schedule=c.schedule) for name, parts in modules.items()}

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("conditional GAN", self.turns, players=("discriminator", "generator")),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        question = self.asking.of(batch)
        made = self.decoder(self.encoder(question.shown), torch.randn(len(batch), self.config.latent, device=batch.device))

        on_real = self.discriminator(question.with_answer(question.wanted))
        on_fake = self.discriminator(question.with_answer(made.detach()))
        yield Turn({"discriminator": (real_loss(on_real) + fake_loss(on_fake)) / 2}, {"right": judged_right(on_real, on_fake)})

        error, verdict = question.error(made).mean(), real_loss(self.discriminator(question.with_answer(made)))
        yield Turn({"generator": verdict + self.config.error_weight * error}, {"error": error})

    # --- capabilities ---

    def answer(self, shown: Tensor, noise: Tensor) -> Tensor:
        """(B, K, H, W) and (B, latent) -> (B, C, H, W)."""
        answer: Tensor = self.decoder(self.encoder(shown), noise)
        return answer
