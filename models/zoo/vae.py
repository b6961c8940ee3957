"""Variational auto-encoder: an encoder whose codes follow N(0, I), a decoder that makes images of them.

Paper: Kingma and Welling, Auto-Encoding Variational Bayes, 2014. The fixed-variance Gaussian decoder with sigma 1 or 0.1 is that of
Engel et al., Latent Constraints, 2018; beta other than 1 is Higgins et al., beta-VAE, 2017.

The reconstruction term is summed over the pixels and the KL term over the latent's dimensions, then both are averaged over the batch: a
mean over pixels beside a sum over dimensions would be an enormous beta, and the decoder would paint the mean image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, LatentModel, Player, Preset, Range, Stage, Turn
from models.losses import bernoulli_error, kl_to_standard_normal, squared_error
from models.nets.autoencoder import decoder_for, encoder_for
from models.nets.conv import start_small
from models.nets.posterior import bounded, drawn


class VAE(LatentModel):
    @dataclass(frozen=True)
    class Config:
        network: Literal["conv", "mlp", "wae"] = "conv"  # conv (sized from the data), mlp (the paper's), wae (5x5 kernels, wide)
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (64, 128, 256, 512)  # channels; small images use the first few
        latent: Annotated[int, Range(1, 8192)] = 64  # dimensions of the code
        likelihood: Literal["gaussian", "bernoulli"] = "gaussian"  # of the pixels given the code
        sigma: Annotated[float, Range(1e-3, 1e3)] = 0.3  # the gaussian's deviation, where black is 0 and white 1; less is sharper
        beta: Annotated[float, Range(0, 1e6)] = 1.0  # weight of the KL term; 1 is the bound
        lr: Annotated[float, Range(0, 10)] = 2e-3  # learning rate
        optimizer: Literal["adam", "adagrad"] = "adam"  # the paper used adagrad
        schedule: Literal["constant", "linear", "cosine"] = "cosine"  # of the learning rate

    config: Config
    averaged = ("encoder", "decoder")
    presets = {
        "quick": Preset(80_000, options={"widths": (32, 64, 128, 256)}, about="a look within a few minutes"),
        "default": Preset(1_200_000),
        "paper": Preset(
            10_000_000,
            batch=100,
            options={
                "network": "mlp",
                "widths": (500,),
                "latent": 20,
                "likelihood": "bernoulli",
                "lr": 0.01,
                "optimizer": "adagrad",
                "schedule": "constant",
            },
            about="one hidden layer of 500 tanh units, Bernoulli pixels, Adagrad, batch 100",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.encoder = encoder_for(config.network, spec, config.widths, config.latent)  # its head is the posterior's mean
        self.log_variance = nn.Linear(self.encoder.features, config.latent).apply(start_small)
        self.decoder = decoder_for(config.network, spec, config.widths, config.latent)

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        modules = (self.encoder, self.log_variance, self.decoder)
        return {"autoencoder": Player(modules, lr=c.lr, optimizer=c.optimizer, schedule=c.schedule)}

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("variational auto-encoder", self.turns, players=("autoencoder",)),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        mean, log_variance = self._posterior(batch.image)
        raw = self.decoder(drawn(mean, log_variance)).float()
        reconstruction = self.reconstruction_loss(raw, batch.image).mean()
        kl = kl_to_standard_normal(mean, log_variance).mean()
        yield Turn(
            {"autoencoder": reconstruction + self.config.beta * kl},
            {"reconstruction": reconstruction, "KL": kl},
        )

    def _posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the code, (B, latent) each, float32."""
        features = self.encoder.trunk(image)
        return self.encoder.head(features).float(), bounded(self.log_variance(features))

    def reconstruction_loss(self, raw: Tensor, image: Tensor) -> Tensor:
        """-log p(image | code) in nats up to a constant, summed over the pixels: the decoder's raw output and images -> (B,)."""
        if self.config.likelihood == "bernoulli":
            # tanh(raw) in [-1, 1] is sigmoid(2 raw) in [0, 1], so decode() is the same for both likelihoods.
            return bernoulli_error(raw, image)
        return squared_error(torch.tanh(raw), image) / (2 * self.config.sigma**2)

    # --- capabilities ---

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.config.latent,)

    def encode(self, image: Tensor) -> Tensor:
        """The posterior's mean: (B, C, H, W) -> (B, latent)."""
        return self.encoder(image)

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the code: (B, C, H, W) -> (B, latent) twice."""
        mean, log_variance = self._posterior(image)
        return mean, (log_variance / 2).exp()

    def decode(self, latent: Tensor) -> Tensor:
        """The pixels' mean: (B, latent) -> (B, C, H, W) in [-1, 1]."""
        return torch.tanh(self.decoder(latent))

    def sample(self, noise: Tensor) -> Tensor:
        """The prior is N(0, I), so noise is a code: (B, latent) -> (B, C, H, W) in [-1, 1]."""
        return self.decode(noise)
