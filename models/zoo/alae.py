"""ALAE: an adversarial latent auto-encoder, whose encoder learns inside the discriminator, and whose error is one of codes, not of pixels.

Paper: Pidhorskyi et al., Adversarial Latent Autoencoders, 2020, and its code (podgorskiy/ALAE). Four networks: F maps noise z to a code w,
G makes an image of it, E maps images to codes, and D judges codes, so that D(E(x)) is the discriminator. Each step is three turns: E and D
tell real images from made ones, with a penalty on the slope at real ones; F and G deceive them; and E and G are to agree, E(G(w)) = w with
w = F(z) of a new z, which moves G as well as E (and F through G; the paper's formula leaves F out, its code does not). That error is a mean
over the code's dimensions; the paper writes the sum.

The networks here are fully connected, for small images, as in the paper's table on MNIST without knowledge of what lies beside what.
`reciprocity` in the log is the distance of E(G(w)) from w.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, LatentModel, Player, Preset, Range, Stage, Turn
from models.losses import fake_loss, judged_right, r1_penalty, real_loss
from models.nets.equalised import EqualMlpDecoder, EqualMlpEncoder, code_critic, mapping
from models.nets.moving import follow


class ALAE(LatentModel):
    code_mean: Tensor

    @dataclass(frozen=True)
    class Config:
        latent: Annotated[int, Range(1, 8192)] = 50  # dimensions of the noise and of the code
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (1024, 1024)  # hidden layers of encoder and generator, the image's side first
        mapping: Annotated[int, Range(1, 100)] = 6  # layers from noise to code
        critic: Literal["leaky", "linear"] = "leaky"  # layers of the critic of codes: leaky ReLU between them, or nothing, as in the code
        discriminator: Literal["codes", "images"] = "codes"  # it judges the encoder's codes, or is a network of its own and sees images
        reciprocity: Literal["code", "noise", "image", "none"] = "code"  # who returns: E(G(w)) to w, or to z; G(E(x)) to x; or nobody
        reciprocity_weight: Annotated[float, Range(0, 1e6)] = 1.0  # of its mean squared error
        penalty_weight: Annotated[float, Range(0, 1e6)] = 10.0  # gamma: of half the squared slope of the discriminator at real images
        lr: Annotated[float, Range(0, 10)] = 6e-3  # learning rate of all
        schedule: Literal["constant", "linear", "cosine"] = "constant"  # of the learning rates

    config: Config
    averaged = ("mapping", "generator", "encoder")
    presets = {
        "quick": Preset(600_000, batch=32, options={"widths": (512, 512)}, about="digits within a quarter of an hour"),
        "default": Preset(6_000_000, batch=32),
        "paper": Preset(36_000_000, options={"critic": "linear", "lr": 2e-3}, about="MNIST, 600 epochs"),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.mapping = mapping(config.latent, config.mapping, rate=0.1)
        self.generator = EqualMlpDecoder(spec, config.widths, config.latent)
        self.encoder = EqualMlpEncoder(spec, config.widths, config.latent)
        self.discriminator = code_critic(config.latent, config.critic == "linear")
        if config.discriminator == "images":
            self.discriminator = nn.Sequential(EqualMlpEncoder(spec, config.widths, config.latent), self.discriminator)
        self.register_buffer("code_mean", torch.zeros(config.latent))

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        alone = c.discriminator == "images"
        teams: dict[str, tuple[nn.Module, ...]] = {"generator": (self.mapping, self.generator)}
        teams["encoder"] = (self.encoder,) if alone else (self.encoder, self.discriminator)
        if alone:
            teams["discriminator"] = (self.discriminator,)
        return {name: Player(modules, c.lr, betas=(0.0, 0.99), schedule=c.schedule) for name, modules in teams.items()}

    def stages(self) -> tuple[Stage, ...]:
        players = tuple(self.players())
        if self.config.discriminator == "images" and self.config.reciprocity == "none":
            players = ("generator", "discriminator")  # nobody tells the encoder anything
        return (Stage("adversarial", self.turns, players),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        c = self.config
        judging = "discriminator" if c.discriminator == "images" else "encoder"
        with torch.no_grad():
            fake = self.generator(self.map(self.noise(batch)))
        on_real, on_fake = self.judge(batch.image), self.judge(fake)
        penalty = r1_penalty(self.judge, batch.image)
        loss = real_loss(on_real) + fake_loss(on_fake) + c.penalty_weight * penalty
        yield Turn({judging: loss}, {"penalty": penalty, "right": judged_right(on_real, on_fake)})

        code = self.map(self.noise(batch))
        follow(self.code_mean, code)
        image = self.generator(code)
        yield Turn({"generator": real_loss(self.judge(image))}, self.watched(image, code))

        if c.reciprocity == "image":
            error = (self.generator(self.encode(batch.image)).float() - batch.image).square().mean()
            yield Turn({"encoder": c.reciprocity_weight * error, "generator": c.reciprocity_weight * error}, {"squared error": error})
        elif c.reciprocity != "none":
            noise = self.noise(batch)
            code = self.map(noise)
            wanted = code.detach() if c.reciprocity == "code" else noise
            error = (self.encode(self.generator(code)).float() - wanted).square().mean()
            loss = c.reciprocity_weight * error
            yield Turn({"encoder": loss, "generator": loss}, {"reciprocity": error})

    def watched(self, image: Tensor, code: Tensor) -> dict[str, Tensor]:
        """How far E(G(w)) is from w, for the log of a run that does not learn from it."""
        if self.config.reciprocity in ("code", "noise"):
            return {}
        with torch.no_grad():
            return {"reciprocity": (self.encode(image).float() - code).square().mean()}

    def judge(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, 1); large means real."""
        return self.discriminator(image if self.config.discriminator == "images" else self.encoder(image))

    # --- capabilities ---

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.config.latent,)

    def map(self, noise: Tensor) -> Tensor:
        """z to w: (B, latent) -> (B, latent)."""
        return self.mapping(noise)

    def encode(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, latent)."""
        return self.encoder(image)

    def decode(self, latent: Tensor) -> Tensor:
        """(B, latent) -> (B, C, H, W) in [-1, 1]."""
        return self.generator(latent).float().clamp(-1, 1)

    def sample(self, noise: Tensor) -> Tensor:
        """(B, latent) -> (B, C, H, W) in [-1, 1]."""
        return self.decode(self.map(noise))
