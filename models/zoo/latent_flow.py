"""Latent flow: draws of a trained auto-encoder's codes by flow matching, whatever they look like, and by class or attributes if asked.

Papers: Lipman et al., Flow Matching for Generative Modeling, 2023; Dao et al., Flow Matching in Latent Space, 2023. Codes are encoded once,
whitened by their mean and covariance, and cached; a velocity field carries noise to them. It starts as no motion at all, which is the
Gaussian fitted to the codes. With a condition it is told what the images show, and nothing of one item in ten, so that what is asked for
can be exaggerated (guidance; Ho and Salimans, Classifier-Free Diffusion Guidance, 2022). Without one, what the codes have beyond that
Gaussian is.

The data are those of the auto-encoder's run unless others are named: labels that it has never seen serve as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from models.base import Batch, Clock, DataSpec, Encodes, LatentModel, Part, Player, Preset, Range, Stage, Turn, Whole
from models.nets.autoencoder import code_size
from models.nets.conditions import as_vector, condition_size, shown_by
from models.nets.flow import Velocity, carried, flow_loss
from models.nets.whitening import unwhiten, whiten


class LatentFlow(LatentModel):
    code_mean: Tensor
    code_scale: Tensor

    @dataclass(frozen=True)
    class Config:
        condition: Literal["none", "label", "identity", "attributes"] = "none"  # what the images are asked to show
        steps: Annotated[int, Range(1, 1000)] = 8  # from noise to a code
        guidance: Annotated[float, Range(0, 100)] = 1.5  # how much what is asked for is exaggerated, or all that is not Gaussian; 1: not
        untold: Annotated[float, Range(0, 1)] = 0.1  # share of the items that the field is told nothing of
        width: Annotated[int, Range(1, 8192)] = 512  # of the network
        blocks: Annotated[int, Range(1, 100)] = 4  # of the network
        lr: Annotated[float, Range(0, 10)] = 1e-3  # learning rate
        schedule: Literal["constant", "linear", "cosine"] = "cosine"  # of the learning rate

    config: Config
    takes = {"base": Part((Encodes,), "a trained auto-encoder")}
    averaged = ("velocity",)
    interpolates = "noise"
    presets = {
        "quick": Preset(250_000, about="a look within two minutes or three"),
        "default": Preset(1_000_000),
        "paper": Preset(10_000_000, batch=256, options={"width": 1024, "blocks": 8}, about="a wide net for long, as the papers' are"),
    }

    def __init__(self, config: Config, spec: DataSpec, parts: Mapping[str, LatentModel]) -> None:
        super().__init__(config, spec, parts)
        self._codes: Tensor | None = None  # (N, latent), whitened, built by prepare_codes
        told = 0
        if config.condition != "none":
            self.needs = frozenset({"image", config.condition})
            told = condition_size(spec, config.condition)
        self.latent = code_size(self.base, spec)
        self.velocity = Velocity(self.latent, config.width, config.blocks, told)
        self.register_buffer("code_mean", torch.zeros(self.latent))
        self.register_buffer("code_scale", torch.eye(self.latent))  # maps whitened codes to codes

    @property
    def base(self) -> Any:
        return self.parts["base"]

    # --- objective ---

    def players(self) -> dict[str, Player]:
        return {"velocity": Player((self.velocity,), lr=self.config.lr, schedule=self.config.schedule)}

    def stages(self) -> tuple[Stage, ...]:
        needs = self.needs - {"image"}
        return (Stage("flow", self.turns, ("velocity",), prepare=self.prepare_codes, needs=needs),)

    def prepare_codes(self, whole: Whole) -> None:
        """Encode all the data once, take the codes' statistics, and keep the whitened codes at hand."""
        codes = torch.cat([self.base.encode(batch.image) for batch in whole])
        mean, scale, self._codes = whiten(codes, full=True)
        self.code_mean.copy_(mean)
        self.code_scale.copy_(scale)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        c = self.config
        assert self._codes is not None, "prepare_codes comes first"
        told = None
        if c.condition != "none":
            told = shown_by(self.spec, batch, c.condition)
            told = told * (torch.rand(len(told), 1, device=told.device) >= c.untold)
        yield Turn({"velocity": flow_loss(self.velocity, self._codes[batch.index], told)})

    # --- capabilities ---

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.latent,)

    def sample(
        self, noise: Tensor, label: Tensor | None = None, identity: Tensor | None = None, attributes: Tensor | None = None
    ) -> Tensor:
        """(B, latent), and with a condition what to show -> (B, C, H, W) in [-1, 1]."""
        told = None
        if self.config.condition != "none":
            told = as_vector(self.spec, label, identity, attributes)
        white = carried(self.velocity, noise, self.config.steps, told, self.config.guidance)
        return self.base.decode(unwhiten(white, self.code_mean, self.code_scale))
