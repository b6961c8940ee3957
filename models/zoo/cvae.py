"""CVAE: a variational auto-encoder whose encoder and decoder are told what the image shows.

Source: Sohn et al., Learning Structured Output Representation using Deep Conditional Generative Models, 2015; the baseline of the CVAE-GAN
paper's table. The prior is N(0, I) whatever is shown, so noise and a class make a sample, and the code of one image with another
class shows that class in the same manner. The class is joined to the encoder's last features and to the decoder's code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, LatentModel, Player, Preset, Range, Stage, Turn, Whole
from models.losses import kl_to_standard_normal, squared_error
from models.nets.autoencoder import decoder_for, image_of, learned_image, raw_image, warm_up_for
from models.nets.components import Components
from models.nets.conditions import as_vector, condition_size, shown_by
from models.nets.conv import ConvEncoder, start_at_zero
from models.nets.posterior import conditional_posterior, drawn


class CVAE(LatentModel):
    @dataclass(frozen=True)
    class Config:
        condition: Literal["label", "identity", "attributes"] = "label"  # what the images are asked to show
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (64, 128, 256, 512)  # channels; small images use the first few
        latent: Annotated[int, Range(1, 8192)] = 64  # dimensions of the code
        sigma: Annotated[float, Range(1e-3, 1e3)] = 0.5  # the pixels' deviation given the code, where black is 0 and white 1
        beta: Annotated[float, Range(0, 1e6)] = 1.0  # weight of the KL term; 1 is the bound
        components: bool = True  # encoder and decoder start as principal components and add to them
        lr: Annotated[float, Range(0, 10)] = 2e-3  # learning rate
        schedule: Literal["constant", "linear", "cosine", "exponential", "steps"] = "cosine"  # of the learning rate

    config: Config
    averaged = ("encoder", "heads", "decoder")
    before = {"components": False}
    presets = {
        "quick": Preset(80_000, options={"widths": (32, 64, 128, 256)}, about="a look within a few minutes"),
        "default": Preset(1_200_000),
        "paper": Preset(4_000_000, options={"latent": 256}, about="the code's size of the CVAE-GAN paper"),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.needs = frozenset({"image", config.condition})
        told = condition_size(spec, config.condition)
        self.encoder = ConvEncoder(spec, config.widths, 4 * config.latent)
        self.heads = nn.Linear(4 * config.latent + told, 2 * config.latent)  # the posterior's mean and log-variance
        self.components = None
        if config.components:  # those of a person would be too many numbers, of too few images
            self.components = Components(spec, config.latent, told if config.condition != "identity" else 0)
            start_at_zero(self.heads)
        self.decoder = decoder_for("conv", spec, config.widths, config.latent + told, self.components)

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        modules = (self.encoder, self.heads, self.decoder)
        return {"autoencoder": Player(modules, lr=c.lr, schedule=c.schedule, warm_up=warm_up_for(self.components))}

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("conditional variational auto-encoder", self.turns, players=("autoencoder",), prepare=self.fit_components),)

    def fit_components(self, whole: Whole) -> None:
        """Those of what the condition does not explain, for this sigma and beta: the best linear start there is."""
        if self.components is not None:
            self.components.fit(whole, noise=self.config.beta * self.config.sigma**2, told=self.shown)

    def shown(self, batch: Batch) -> Tensor:
        """What the batch's images show, as vectors (B, K)."""
        return shown_by(self.spec, batch, self.config.condition)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        shown = self.shown(batch)
        mean, log_variance = self.posterior(batch.image, shown)
        raw = raw_image(self.decoder, self.components, drawn(mean, log_variance), shown)
        reconstruction = squared_error(learned_image(raw, self.components), batch.image).mean() / (2 * self.config.sigma**2)
        kl = kl_to_standard_normal(mean, log_variance).mean()
        yield Turn({"autoencoder": reconstruction + self.config.beta * kl}, {"reconstruction": reconstruction, "KL": kl})

    def posterior(self, image: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the code, (B, latent) each: images (B, C, H, W) and what they show (B, K)."""
        mean, log_variance = conditional_posterior(self.encoder, self.heads, image, shown)
        return (mean, log_variance) if self.components is None else self.components.posterior(image, mean, log_variance, shown)

    # --- capabilities ---

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.config.latent,)

    def encode(
        self, image: Tensor, label: Tensor | None = None, identity: Tensor | None = None, attributes: Tensor | None = None
    ) -> Tensor:
        """The posterior's mean: (B, C, H, W) and what the images show -> (B, latent)."""
        return self.posterior(image, as_vector(self.spec, label, identity, attributes))[0]

    def decode(
        self, latent: Tensor, label: Tensor | None = None, identity: Tensor | None = None, attributes: Tensor | None = None
    ) -> Tensor:
        """(B, latent) and what to show -> (B, C, H, W) in [-1, 1]."""
        raw = raw_image(self.decoder, self.components, latent, as_vector(self.spec, label, identity, attributes))
        return image_of(raw, self.components)

    def sample(
        self, noise: Tensor, label: Tensor | None = None, identity: Tensor | None = None, attributes: Tensor | None = None
    ) -> Tensor:
        """The prior is N(0, I) for all: (B, latent) and what to show -> (B, C, H, W) in [-1, 1]."""
        return self.decode(noise, label, identity, attributes)
