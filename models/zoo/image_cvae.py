"""Conditional VAE between images: what a question leaves open is a code, drawn from a Gaussian.

Paper: Sohn, Lee and Yan, Learning Structured Output Representation using Deep Conditional Generative Models, 2015. A posterior q(z | x, y)
sees the question x and the answer y while it learns; the decoder G(x, z) answers; its loss is -log p(y | x, z) + beta KL(q || N(0, I)), the
first term summed over the wanted pixels. In use z is drawn from N(0, I).

Difference: the paper's prior p(z | x) is a network of its own; here it is N(0, I), and G has to make of z what x demands. (For images and
their classes there is `cvae`.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from models.base import Batch, Clock, DataSpec, Player, Preset, Range, Stage, Turn
from models.losses import kl_to_standard_normal
from models.nets.conv import ConvEncoder
from models.nets.mlp import MlpEncoder
from models.nets.posterior import bounded, drawn
from models.nets.questions import Answering
from models.nets.unet import networks_for


class ImageCVAE(Answering):
    @dataclass(frozen=True)
    class Config:
        task: Literal["inpaint", "colourise", "upscale", "pairs"] = "inpaint"  # what is asked: see docs/answers.md
        mask: Literal["any", "box", "center", "half", "random", "stroke"] = "any"  # the holes that inpaint learns to fill
        factor: Annotated[int, Range(2, 64)] = 4  # how much smaller upscale's images are
        network: Literal["unet", "mlp"] = "unet"  # unet (sized from the data), mlp (pictures of a few pixels)
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (32, 64, 128, 256)  # channels; small images use the first few
        latent: Annotated[int, Range(1, 8192)] = 16  # dimensions of the code
        sigma: Annotated[float, Range(1e-3, 1e3)] = 0.3  # deviation of the answers' pixels, where black is 0 and white 1; less is sharper
        beta: Annotated[float, Range(0, 1e6)] = 1.0  # weight of the KL term; 1 is the bound
        lr: Annotated[float, Range(0, 10)] = 1e-3  # learning rate
        schedule: Literal["constant", "linear", "cosine"] = "cosine"  # of the learning rate

    config: Config
    averaged = ("encoder", "decoder")
    presets = {
        "quick": Preset(50_000, batch=16, about="a first look"),
        "default": Preset(400_000, batch=16),
        "paper": Preset(
            600_000, batch=100, options={"latent": 64, "sigma": 1.0}, about="a code as wide as the paper's on MNIST; nets are lgm's"
        ),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec, noise=config.latent)
        seen, out = self.asking.seen, self.asking.wanted.shape[0]
        self.encoder, self.decoder = networks_for(config.network, seen, config.widths, config.latent, out)
        look = MlpEncoder if config.network == "mlp" else ConvEncoder
        self.recogniser = look(self.asking.answered, config.widths, 2 * config.latent)

    # --- objective ---

    def players(self) -> dict[str, Player]:
        modules = (self.recogniser, self.encoder, self.decoder)
        return {"autoencoder": Player(modules, lr=self.config.lr, schedule=self.config.schedule)}

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("conditional VAE", self.turns, players=("autoencoder",)),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        c = self.config
        question = self.asking.of(batch)
        mean, log_variance = self.recogniser(torch.cat([question.shown, question.wanted], 1)).float().chunk(2, 1)
        log_variance = bounded(log_variance)
        answer = self.decoder(self.encoder(question.shown), drawn(mean, log_variance))
        squares = question.error(answer, squared=True) * question.values / 4  # in units where black is 0 and white 1
        reconstruction, kl = (squares / (2 * c.sigma**2)).mean(), kl_to_standard_normal(mean, log_variance).mean()
        yield Turn({"autoencoder": reconstruction + c.beta * kl}, {"reconstruction": reconstruction, "KL": kl})

    # --- capabilities ---

    def answer(self, shown: Tensor, noise: Tensor) -> Tensor:
        """(B, K, H, W) and (B, latent) -> (B, C, H, W)."""
        answer: Tensor = self.decoder(self.encoder(shown), noise)
        return answer
