"""AEGAN: a plain auto-encoder, and a GAN that learns to sample its codes.

Source: a talk on latent spaces in generative models, no paper is known. A KL term blurs a VAE's images; AEGAN drops it. Stage 1
trains an auto-encoder on the squared error alone. In stage 2 it is frozen: G1 maps N(0, I) to codes, D1 tells them from Enc(x), and D2
(when `image_weight` is above 0) tells images decoded from them from real ones, so that G1 minimises -log D1 - image_weight * log D2.

Codes are encoded once, whitened by their mean and covariance over the data, and cached. G1 is z + net(z) with a net that starts small, so
the latent GAN starts as the Gaussian fitted to the codes. A plain net has to find the covariance first, and on codes that are not far from
a Gaussian its discriminator gives up before that (docs/results.md). `prior=gaussian` stops at that Gaussian, `prior=diagonal` at one
without correlations: the baselines that a GAN has to beat.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, Encodes, LatentModel, Part, Player, Preset, Range, Stage, Turn, Whole
from models.losses import fake_loss, one_centred_penalty, r1_penalty, real_loss
from models.nets.autoencoder import code_size, decoder_for, encoder_for
from models.nets.conv import ConvDiscriminator
from models.nets.mlp import ResidualMlp, mlp
from models.nets.whitening import unwhiten, whiten


class AEGAN(LatentModel):
    code_mean: Tensor
    code_scale: Tensor

    @dataclass(frozen=True)
    class Config:
        network: Literal["conv", "mlp", "wae"] = "conv"  # conv (sized from the data), mlp, wae (5x5 kernels, wide)
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (64, 128, 256, 512)  # channels; small images use the first few
        latent: Annotated[int, Range(1, 8192)] = 64  # dimensions of the code and of the noise
        lr: Annotated[float, Range(0, 10)] = 3e-3  # the auto-encoder's learning rate
        schedule: Literal["constant", "linear", "cosine"] = "cosine"  # of every learning rate, over its stage
        share: Annotated[float, Range(0.01, 0.99)] = 0.5  # of the run's images that train the auto-encoder
        prior: Literal["gan", "gaussian", "diagonal"] = "gan"  # how codes are sampled: G1, or a fitted Gaussian
        hidden: Annotated[tuple[int, ...], Range(1, 8192)] = (512, 512, 512)  # hidden layers of G1 and D1
        latent_lr: Annotated[float, Range(0, 10)] = 1e-3  # learning rate of G1 and D1
        penalty: Literal["r1", "gradient", "none"] = "r1"  # on D1: R1 on real codes, or one-centred between real and fake
        penalty_weight: Annotated[float, Range(0, 1e6)] = 3.0  # of that penalty
        penalty_every: Annotated[int, Range(1, 1000)] = 4  # steps from one penalty to the next, which then counts as many times
        image_weight: Annotated[float, Range(0, 1e6)] = 0.0  # lambda: weight of D2; 0: no D2
        image_real: Literal["reconstruction", "data"] = "reconstruction"  # what D2 takes as real: Dec(Enc(x)) or x
        image_widths: Annotated[tuple[int, ...], Range(1, 8192)] = (64, 128, 256, 512)  # channels of D2
        image_lr: Annotated[float, Range(0, 10)] = 2e-4  # learning rate of D2

    config: Config
    takes = {
        "base": Part(
            (Encodes,),
            "a trained auto-encoder, instead of the first stage",
            optional=True,
            decides=("network", "widths", "latent", "lr", "share"),
        )
    }
    interpolates = "noise"
    presets = {
        "quick": Preset(600_000, options={"widths": (32, 64, 128, 256), "share": 0.2}, about="a look within a few minutes"),
        "default": Preset(2_400_000),
        "paper": Preset(
            10_000_000,
            batch=100,
            options={"network": "wae", "widths": (128, 256, 512, 1024), "image_weight": 1.0, "hidden": (1024, 1024, 1024, 1024)},
            about="the CelebA nets of Wasserstein auto-encoders, with D2",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec, parts: Mapping[str, LatentModel] | None = None) -> None:
        super().__init__(config, spec, parts)
        self._codes: Tensor | None = None  # (N, latent), built by prepare_codes
        latent = self.latent = config.latent if self.base is None else code_size(self.base, spec)
        if self.base is None:
            self.encoder = encoder_for(config.network, spec, config.widths, latent)
            self.decoder = decoder_for(config.network, spec, config.widths, latent)
        self.register_buffer("code_mean", torch.zeros(latent))
        self.register_buffer("code_scale", torch.eye(latent))  # maps whitened codes to codes
        if config.prior == "gan":
            self.averaged = ("generator",)
            self.generator = ResidualMlp(latent, config.hidden)
            self.code_critic = mlp([latent, *config.hidden, 1], lambda: nn.LeakyReLU(0.2))
            if config.image_weight:
                self.image_critic = ConvDiscriminator(spec, config.image_widths)

    @property
    def base(self) -> Any:
        """The auto-encoder of another run, or None where this one trains its own."""
        return self.parts["base"] if "base" in self.parts else None  # noqa: SIM401 (a ModuleDict has no get)

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        players = {}
        if self.base is None:
            players["autoencoder"] = Player((self.encoder, self.decoder), lr=c.lr, schedule=c.schedule)
        if c.prior == "gan":
            players["code_critic"] = Player((self.code_critic,), lr=c.latent_lr, betas=(0.0, 0.99), schedule=c.schedule)
            players["generator"] = Player((self.generator,), lr=c.latent_lr, betas=(0.0, 0.99), schedule=c.schedule)
            if c.image_weight:
                players["image_critic"] = Player((self.image_critic,), lr=c.image_lr, betas=(0.5, 0.99), schedule=c.schedule)
        return players

    def stages(self) -> tuple[Stage, ...]:
        c = self.config
        autoencoder = Stage("auto-encoder", self.autoencoder_turns, players=("autoencoder",), share=c.share, samples=False)
        first = () if self.base is not None else (autoencoder,)
        if c.prior != "gan":
            return *first, Stage("fitted Gaussian", self.latent_turns, players=(), share=0, prepare=self.prepare_codes)
        needs = frozenset({"image"}) if c.image_weight and c.image_real == "data" else frozenset()
        players = ("code_critic", "generator") + (("image_critic",) if c.image_weight else ())
        return *first, Stage("latent GAN", self.latent_turns, players, 1 - c.share, prepare=self.prepare_codes, needs=needs)

    def autoencoder_turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        again = self.decode(self.encode(batch.image)).float()
        yield Turn({"autoencoder": F.mse_loss(again, batch.image)})

    def prepare_codes(self, batches: Whole) -> None:
        """Encode all the data once, take the codes' statistics, and keep the whitened codes at hand: (N, latent)."""
        codes = torch.cat([self.encode(batch.image) for batch in batches])
        mean, scale, self._codes = whiten(codes, full=self.config.prior != "diagonal")
        self.code_mean.copy_(mean)
        self.code_scale.copy_(scale)

    def latent_turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        c = self.config
        assert self._codes is not None, "prepare_codes comes first"
        real, fake = self._codes[batch.index], self.prior_code(self.noise(batch))

        on_real, on_fake = self.code_critic(torch.cat([real, fake.detach()])).chunk(2)  # D1 has no batch norm: one pass for both
        critic = real_loss(on_real) + fake_loss(on_fake)
        if c.penalty != "none" and clock.step % c.penalty_every == 0:
            penalty = r1_penalty(self.code_critic, real) if c.penalty == "r1" else one_centred_penalty(self.code_critic, real, fake)
            yield Turn({"code_critic": critic + c.penalty_weight * c.penalty_every * penalty}, {"penalty": penalty})
        else:
            yield Turn({"code_critic": critic})

        fake_image = None
        if c.image_weight:
            fake_image = self.decode(self.code_from(fake))
            real_image = batch.image if c.image_real == "data" else self.decode(self.code_from(real)).detach()
            judged = real_loss(self.image_critic(real_image)) + fake_loss(self.image_critic(fake_image.detach()))
            yield Turn({"image_critic": judged})

        loss = real_loss(self.code_critic(fake))
        if fake_image is not None:
            loss = loss + c.image_weight * real_loss(self.image_critic(fake_image))
        yield Turn({"generator": loss})

    # --- capabilities ---

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.latent,)

    def prior_code(self, noise: Tensor) -> Tensor:
        """G1, or nothing where the prior is a fitted Gaussian: noise (B, latent) -> whitened codes (B, latent)."""
        return self.generator(noise) if self.config.prior == "gan" else noise

    def code_from(self, white: Tensor) -> Tensor:
        """Whitened codes to codes: (B, latent) -> (B, latent)."""
        return unwhiten(white, self.code_mean, self.code_scale)

    def encode(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, latent)."""
        return self.encoder(image) if self.base is None else self.base.encode(image)

    def decode(self, latent: Tensor) -> Tensor:
        """(B, latent) -> (B, C, H, W) in [-1, 1]."""
        return torch.tanh(self.decoder(latent)) if self.base is None else self.base.decode(latent)

    def sample(self, noise: Tensor) -> Tensor:
        """Dec(G1(z)): (B, latent) -> (B, C, H, W) in [-1, 1]."""
        return self.decode(self.code_from(self.prior_code(noise)))
