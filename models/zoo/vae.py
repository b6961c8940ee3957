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

from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, LatentModel, Player, Preset, Range, Stage, Turn, Whole
from models.losses import bernoulli_error, kl_to_standard_normal, squared_error
from models.nets.augment import mirrored, mirrors
from models.nets.autoencoder import code_of, decoder_for, encoder_for, image_of, learned_image, raw_image, warm_up_for
from models.nets.components import Components
from models.nets.conv import start_at_zero
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
        components: bool = True  # encoder and decoder start as principal components and add to them; with a gaussian likelihood
        augment: Literal["auto", "none", "flip"] = "auto"  # mirror images: auto does so with colour images that are no writing
        lr: Annotated[float, Range(0, 10)] = 2e-3  # learning rate
        optimizer: Literal["adam", "adagrad"] = "adam"  # the paper used adagrad
        schedule: Literal["constant", "linear", "cosine"] = "cosine"  # of the learning rate

    config: Config
    averaged = ("encoder", "decoder")
    before = {"components": False, "augment": "none"}
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
                "components": False,
                "augment": "none",
                "lr": 0.01,
                "optimizer": "adagrad",
                "schedule": "constant",
            },
            about="one hidden layer of 500 tanh units, Bernoulli pixels, Adagrad, batch 100",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.mirrors = mirrors(spec, config.augment)
        start = self.components = Components(spec, config.latent) if config.components and config.likelihood == "gaussian" else None
        self.encoder = encoder_for(config.network, spec, config.widths, config.latent, start)  # its head is the posterior's mean
        self.log_variance = nn.Linear(self.encoder.features, config.latent)
        start_at_zero(self.log_variance)
        self.decoder = decoder_for(config.network, spec, config.widths, config.latent, start)

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        modules = (self.encoder, self.log_variance, self.decoder)
        warm_up = warm_up_for(self.components)
        return {"autoencoder": Player(modules, lr=c.lr, optimizer=c.optimizer, schedule=c.schedule, warm_up=warm_up)}

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("variational auto-encoder", self.turns, players=("autoencoder",), prepare=self.fit_components),)

    def fit_components(self, whole: Whole) -> None:
        """Those of probabilistic principal components for this sigma and beta, the best linear start there is."""
        if self.components is not None:
            self.components.fit(whole, noise=self.config.beta * self.config.sigma**2)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        image = mirrored(batch.image) if self.mirrors else batch.image
        mean, log_variance = self._posterior(image)
        raw = raw_image(self.decoder, self.components, drawn(mean, log_variance))
        reconstruction = self.reconstruction_loss(raw, image).mean()
        kl = kl_to_standard_normal(mean, log_variance).mean()
        yield Turn(
            {"autoencoder": reconstruction + self.config.beta * kl},
            {"reconstruction": reconstruction, "KL": kl},
        )

    def _posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the code, (B, latent) each, float32."""
        features = self.encoder.trunk(image)
        mean, log_variance = self.encoder.head(features).float(), bounded(self.log_variance(features))
        return (mean, log_variance) if self.components is None else self.components.posterior(image, mean, log_variance)

    def reconstruction_loss(self, raw: Tensor, image: Tensor) -> Tensor:
        """-log p(image | code) in nats up to a constant, summed over the pixels: the decoder's raw output and images -> (B,)."""
        if self.config.likelihood == "bernoulli":
            # tanh(raw) in [-1, 1] is sigmoid(2 raw) in [0, 1], so decode() is the same for both likelihoods.
            return bernoulli_error(raw, image)
        return squared_error(learned_image(raw, self.components), image) / (2 * self.config.sigma**2)

    # --- capabilities ---

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.config.latent,)

    def encode(self, image: Tensor) -> Tensor:
        """The posterior's mean: (B, C, H, W) -> (B, latent)."""
        return code_of(self.encoder, self.components, image)

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the code: (B, C, H, W) -> (B, latent) twice."""
        mean, log_variance = self._posterior(image)
        return mean, (log_variance / 2).exp()

    def decode(self, latent: Tensor) -> Tensor:
        """The pixels' mean: (B, latent) -> (B, C, H, W) in [-1, 1]."""
        return image_of(raw_image(self.decoder, self.components, latent), self.components)

    def sample(self, noise: Tensor) -> Tensor:
        """The prior is N(0, I), so noise is a code: (B, latent) -> (B, C, H, W) in [-1, 1]."""
        return self.decode(noise)
