"""WAE: an auto-encoder whose codes, taken all together, follow N(0, I), by an adversary on the codes or by maximum mean discrepancy.

Paper: Tolstikhin et al., Wasserstein Auto-Encoders, 2018, and its code (tolstikhin/wae). The loss is the squared error summed over the
pixels plus a penalty for the distance between all codes and the prior: `gan` trains a discriminator to tell codes from draws of the prior
(WAE-GAN), `mmd` compares the batch's codes with as many draws under a heavy-tailed kernel (WAE-MMD). Unlike a VAE's KL term, the
penalty lets every image keep a code of its own. The encoder is deterministic. Its codes have to fill the prior, so more dimensions than the
data have make samples worse (docs/results.md); the two penalties need weights of their own, the preset `mmd` has one that works.

The code multiplies the squared error by 0.05, with images in [-1, 1] for CelebA and [0, 1] for MNIST; `reconstruction_weight` is that
factor for black 0 and white 1, so 0.2 and 0.05. The encoder first learns to give its codes the prior's mean and covariance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, LatentModel, Player, Preset, Range, Stage, Turn, Whole
from models.losses import fake_loss, judged_right, mmd_inverse_multiquadratic, real_loss, squared_error
from models.nets.augment import mirrored, mirrors
from models.nets.autoencoder import code_of, decoder_for, encoder_for, image_of, learned_image, raw_image, warm_up_for
from models.nets.components import Components
from models.nets.mlp import mlp


class WAE(LatentModel):
    @dataclass(frozen=True)
    class Config:
        penalty: Literal["gan", "mmd"] = "gan"  # how codes are drawn to the prior
        penalty_weight: Annotated[float, Range(0, 1e6)] = 1.0  # lambda
        reconstruction_weight: Annotated[float, Range(0, 1e6)] = 0.2  # of the squared error, summed over pixels, black 0 and white 1
        network: Literal["conv", "mlp", "wae"] = "conv"  # conv (sized from the data), mlp, wae (5x5 kernels, wide)
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (64, 128, 256, 512)  # channels; small images use the first few
        latent: Annotated[int, Range(1, 8192)] = 64  # dimensions of the code
        sigma: Annotated[float, Range(1e-3, 1e3)] = 1.0  # the prior's deviation
        components: bool = True  # encoder and decoder start as principal components and add to them
        hidden: Annotated[tuple[int, ...], Range(1, 8192)] = (512, 512, 512, 512)  # layers of the discriminator of codes
        density_trick: bool = True  # give it the prior's log-density, so that it learns only the rest
        augment: Literal["auto", "none", "flip"] = "auto"  # mirror images: auto does so with colour images that are no writing
        lr: Annotated[float, Range(0, 10)] = 1e-3  # learning rate of encoder and decoder
        critic_lr: Annotated[float, Range(0, 10)] = 2e-3  # learning rate of the discriminator of codes
        schedule: Literal["constant", "linear", "cosine", "exponential", "steps"] = "cosine"  # of the learning rates
        input_noise: Annotated[float, Range(0, 1)] = 0.01  # deviation of the noise on the encoder's input, cut off at twice that
        pretrain: Annotated[float, Range(0, 0.5)] = 0.01  # without components: of the images that teach the encoder the prior's moments

    config: Config
    averaged = ("encoder", "decoder")
    before = {"components": False, "augment": "none"}
    presets = {
        "quick": Preset(80_000, options={"widths": (32, 64, 128, 256)}, about="a look within a few minutes"),
        "default": Preset(1_200_000),
        "mmd": Preset(
            1_200_000, options={"penalty": "mmd", "penalty_weight": 1000.0}, about="maximum mean discrepancy instead of a discriminator"
        ),
        "paper": Preset(
            10_000_000,
            batch=100,
            options={
                "network": "wae",
                "widths": (128, 256, 512, 1024),
                "penalty_weight": 100.0,
                "hidden": (1024, 1024, 1024, 1024),
                "components": False,
                "augment": "none",
                "lr": 5e-4,
                "critic_lr": 1e-3,
                "schedule": "exponential",
                "pretrain": 0.002,
            },
            about="CelebA at 64x64, 50 epochs",
        ),
        "paper-mnist": Preset(
            6_000_000,
            batch=100,
            options={
                "widths": (128, 256, 512, 1024),
                "latent": 8,
                "components": False,
                "penalty_weight": 10.0,
                "reconstruction_weight": 0.05,
                "critic_lr": 5e-4,
                "density_trick": False,
                "schedule": "steps",
                "pretrain": 0.003,
            },
            about="MNIST, 100 epochs",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.mirrors = mirrors(spec, config.augment)
        self.components = Components(spec, config.latent) if config.components else None
        self.encoder = encoder_for(config.network, spec, config.widths, config.latent, self.components)
        self.decoder = decoder_for(config.network, spec, config.widths, config.latent, self.components)
        if config.penalty == "gan":
            self.code_critic = mlp([config.latent, *config.hidden, 1], nn.ReLU)

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        warm_up = warm_up_for(self.components)
        players = {
            "encoder": Player((self.encoder,), c.lr, betas=(0.5, 0.999), schedule=c.schedule, warm_up=warm_up),
            "decoder": Player((self.decoder,), c.lr, betas=(0.5, 0.999), schedule=c.schedule, warm_up=warm_up),
        }
        if c.penalty == "gan":
            players["code_critic"] = Player((self.code_critic,), c.critic_lr, betas=(0.5, 0.999), schedule=c.schedule)
        return players

    def stages(self) -> tuple[Stage, ...]:
        c = self.config
        main = Stage("Wasserstein auto-encoder", self.turns, tuple(self.players()), share=1 - c.pretrain, prepare=self.fit_components)
        if self.components is not None or not c.pretrain:  # components have these moments
            return (main,)
        return Stage("codes to the prior's moments", self.moment_turns, ("encoder",), share=c.pretrain, samples=False), main

    def fit_components(self, whole: Whole) -> None:
        if self.components is not None:
            self.components.fit(whole, deviation=self.config.sigma)

    def moment_turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        """Mean and covariance of the batch's codes against those of as many draws of the prior."""
        codes, prior = self.noisy_codes(batch.image), self.draw(batch)
        mean = (codes.mean(0) - prior.mean(0)).square().mean()
        covariance = (codes.T.cov() - prior.T.cov()).square().mean()
        yield Turn({"encoder": mean + covariance})

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        c = self.config
        image = mirrored(batch.image) if self.mirrors else batch.image
        codes, prior = self.noisy_codes(image), self.draw(batch)
        raw = raw_image(self.decoder, self.components, codes)
        error = squared_error(learned_image(raw, self.components), image).mean()
        penalty = real_loss(self.judge(codes)) if c.penalty == "gan" else mmd_inverse_multiquadratic(codes, prior, c.sigma**2)
        loss = c.reconstruction_weight * error + c.penalty_weight * penalty
        yield Turn({"encoder": loss, "decoder": loss}, {"squared error": error, "penalty": penalty})

        if c.penalty == "gan":
            on_prior, on_codes = self.judge(prior), self.judge(codes.detach())
            yield Turn({"code_critic": real_loss(on_prior) + fake_loss(on_codes)}, {"right": judged_right(on_prior, on_codes)})

    def noisy_codes(self, image: Tensor) -> Tensor:
        """Codes of images with a little noise on them: (B, C, H, W) -> (B, latent)."""
        if self.config.input_noise:
            image = image + self.config.input_noise * torch.randn_like(image).clamp(-2, 2)
        return self.encode(image).float()

    def draw(self, batch: Batch) -> Tensor:
        """As many draws of the prior: (B, latent)."""
        return self.config.sigma * self.noise(batch)

    def judge(self, codes: Tensor) -> Tensor:
        """Codes (B, latent) -> logits (B, 1); large means drawn from the prior."""
        logits = self.code_critic(codes).float()
        if not self.config.density_trick:
            return logits
        # The prior's log-density up to a constant, which is chosen so that the mean over the prior is 0: the net would have to learn it.
        return logits + (self.config.latent - codes.float().square().sum(1, keepdim=True) / self.config.sigma**2) / 2

    # --- capabilities ---

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.config.latent,)

    def encode(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, latent)."""
        return code_of(self.encoder, self.components, image)

    def decode(self, latent: Tensor) -> Tensor:
        """(B, latent) -> (B, C, H, W) in [-1, 1]."""
        return image_of(raw_image(self.decoder, self.components, latent), self.components)

    def sample(self, noise: Tensor) -> Tensor:
        """The prior is N(0, sigma^2 I): (B, latent) -> (B, C, H, W) in [-1, 1]."""
        return self.decode(self.config.sigma * noise)
