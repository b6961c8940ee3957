"""Latent Constraints: what is plausible, and what was asked for, as critics of a trained auto-encoder's codes; they draw, and they edit.

Paper: Engel, Hoffman, Roberts, Latent Constraints, 2018 (arXiv 1711.05772), and its notebook (magenta-demos: LatentConstraints.ipynb). A
critic D(z, y) tells codes of the data with what these show (draws of the posteriors) from codes of the prior, moved or not, and from codes
whose label is another one's. A gated map G(z, y), the actor, moves codes to where D takes them for real; a penalty on the posterior's scale
keeps it from moving further than it must. A reader tells from a code what its image shows, for edits by search: these need D and the reader
alone. Mean codes of what images show are kept as well, because edits are best sought on the ways between these (docs/results.md). Without
condition, D and G know nothing of y, and what is left is the constraint to what is realistic.

All codes are encoded once and cached, so a step costs no image, and labels that the auto-encoder has never seen cost minutes. The prior is
N(0, I) for an auto-encoder with posteriors. Another one's codes are whitened by their mean and covariance first, so that N(0, I) is the
Gaussian fitted to them; in place of the posteriors' deviations stands by how much a code changes on the way through decoder and encoder,
and a tenth of the codes' own at least.

What differs: half of the images' codes that the actor is shown come with what another image shows, so that it learns to edit in one pass,
and how far it moves these has a weight of its own; the reader learns from codes with noise. The notebook's gradient penalty lies between
real codes, the one here between real and fake ones, and R1 on real ones is the default. The paper's distance weight of 0.1 is for a mean
over 1,024 numbers, most of which a code does not use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, Encodes, LatentModel, Part, Player, Posterior, Preset, Range, Stage, Turn, Whole
from models.losses import fake_loss, judged_right, one_centred_penalty, r1_penalty, real_loss
from models.nets.autoencoder import code_size
from models.nets.conditions import Condition, as_vector, condition_size, shown_by
from models.nets.gated import GatedMap
from models.nets.mlp import leaky, mlp
from models.nets.whitening import rescaled, unwhiten, whiten

FLOOR = 0.1  # of the codes' own deviation, below which no estimated deviation goes


class LatentConstraints(LatentModel):
    code_mean: Tensor
    code_scale: Tensor
    deviation: Tensor

    @dataclass(frozen=True)
    class Config:
        condition: Literal["auto", "none", "label", "identity", "attributes"] = "auto"  # asked for; auto: attributes, or classes, if any
        hidden: Annotated[tuple[int, ...], Range(1, 8192)] = (512, 512, 512)  # hidden layers of actor, critic and reader
        distance_weight: Annotated[float, Range(0, 1e6)] = 0.003  # of the penalty on how far the actor moves the prior
        keep_weight: Annotated[float, Range(0, 1e6)] = 0.03  # of that on how far it moves the codes of images; 0: it is not shown any
        raw_prior: Annotated[float, Range(0, 1)] = 0.1  # share of the fakes that are the prior's codes themselves
        reader_noise: Annotated[float, Range(0, 100)] = 0.5  # deviation of what is added to the codes that the reader learns from
        ways: bool = True  # whether mean codes of what images show are kept, the ways that edits go
        mismatched: bool = True  # whether the critic also sees real codes with what others show
        penalty: Literal["r1", "gradient", "none"] = "r1"  # on the critic: R1 on real codes, or one-centred between real and fake
        penalty_weight: Annotated[float, Range(0, 1e6)] = 3.0  # of that penalty
        penalty_every: Annotated[int, Range(1, 1000)] = 4  # steps from one penalty to the next, which then counts as many times
        critic_steps: Annotated[int, Range(1, 1000)] = 1  # steps of the critic for each of the actor
        lr: Annotated[float, Range(0, 10)] = 1e-3  # learning rate
        schedule: Literal["constant", "linear", "cosine"] = "cosine"  # of the learning rate

    config: Config
    takes = {"vae": Part((Encodes,), "a trained auto-encoder")}
    averaged: tuple[str, ...] = ("actor", "critic")
    before = {"ways": False}
    presets = {
        "quick": Preset(300_000, batch=64, about="a look within minutes"),
        "default": Preset(1_000_000, batch=64, about="some ten minutes of one core"),
        "paper": Preset(
            25_600_000,
            batch=128,
            options={
                "hidden": (2048, 2048, 2048, 2048),
                "distance_weight": 0.1,
                "keep_weight": 0.1,
                "reader_noise": 0.0,
                "penalty": "gradient",
                "penalty_weight": 10.0,
                "penalty_every": 1,
                "critic_steps": 10,
                "lr": 1e-4,
                "schedule": "constant",
            },
            about="nets, steps and learning rate of the notebook",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec, parts: Mapping[str, LatentModel]) -> None:
        super().__init__(config, spec, parts)
        chosen: Any = config.condition
        if chosen == "auto":
            chosen = "attributes" if spec.attributes else "label" if spec.classes else "none"
        self.condition: Condition | None = None if chosen == "none" else chosen
        told = 0
        if self.condition is not None:
            self.needs = frozenset({"image", self.condition})
            told = condition_size(spec, self.condition)
        self.latent = code_size(self.base, spec)
        self.actor = GatedMap(told, self.latent, config.hidden)
        self.critic = mlp([told + self.latent, *config.hidden, 1], leaky)
        self.reader: nn.Module | None = None
        if told:
            self.reader = mlp([self.latent, *config.hidden, told], leaky)
            self.averaged += ("reader",)
        self.means: Tensor | None  # (told, latent), of whitened codes: as `ways`, but not yet on the codes' scale
        self.register_buffer("means", torch.zeros(told, self.latent) if told and config.ways else None)
        self.register_buffer("code_mean", torch.zeros(self.latent))
        self.register_buffer("code_scale", torch.eye(self.latent))  # maps whitened codes to codes
        self.register_buffer("deviation", torch.ones(self.latent))  # of a posterior on average, of whitened codes
        self._codes: Tensor | None = None  # (N, latent), whitened, and the posteriors' deviations; built by prepare_codes
        self._deviations: Tensor | None = None

    @property
    def base(self) -> Any:
        return self.parts["vae"]

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        networks = {"critic": self.critic, "actor": self.actor, **({} if self.reader is None else {"reader": self.reader})}
        return {name: Player((network,), c.lr, betas=(0.0, 0.9), schedule=c.schedule) for name, network in networks.items()}

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("constraints", self.turns, tuple(self.players()), prepare=self.prepare_codes, needs=self.needs - {"image"}),)

    def prepare_codes(self, whole: Whole) -> None:
        """Encode all the data once, and keep the codes at hand, with the deviations of their posteriors."""
        if isinstance(self.base, Posterior):
            means, deviations = zip(*(self.base.posterior(batch.image) for batch in whole))
            self._codes, self._deviations = torch.cat(means), torch.cat(deviations)
            self.deviation.copy_(self._deviations.mean(0))
        else:
            codes, changes = [], []
            for batch in whole:
                code = self.base.encode(batch.image).float()
                codes.append(code)
                changes.append(self.base.encode(self.base.decode(code)).float() - code)
            mean, scale, self._codes = whiten(torch.cat(codes), full=True)
            self.code_mean.copy_(mean)
            self.code_scale.copy_(scale)
            self.deviation.copy_(rescaled(torch.cat(changes), scale).square().mean(0).sqrt().clamp_min(FLOOR))
        if self.means is not None and self.condition is not None:
            shown = torch.cat([shown_by(self.spec, batch, self.condition) for batch in whole])
            self.means.copy_(self._means(self._codes, (shown > 0).float()))

    def _means(self, codes: Tensor, shown: Tensor) -> Tensor:
        """The mean code of each class; with an attribute less that without it; 0 where there are none: (N, D), 0 or 1 (N, K) -> (K, D)."""
        count = shown.sum(0).unsqueeze(1)
        means = shown.T @ codes / count.clamp_min(1)
        if self.condition != "attributes":
            return means
        others = len(codes) - count
        without = (codes.sum(0) - shown.T @ codes) / others.clamp_min(1)
        return torch.where((count > 0) & (others > 0), means - without, 0.0)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        c = self.config
        real, prior = self._drawn(batch.index), self.noise(batch)
        told = real.new_zeros(len(real), 0) if self.condition is None else self._asked(shown_by(self.spec, batch, self.condition))
        made = self.actor(told, prior)

        raw = torch.rand(len(real), 1, device=real.device) < c.raw_prior
        fake = torch.where(raw, prior, made.detach())
        on_real, on_fake = self._judged(real, told), self._judged(fake, told)
        loss = real_loss(on_real) + fake_loss(on_fake)
        others = told.roll(1, 0)
        if c.mismatched and told.shape[1]:
            apart = (others != told).any(1, keepdim=True).float()
            loss = loss + (F.softplus(self._judged(real, others).float()) * apart).sum() / apart.sum().clamp_min(1)
        if c.penalty != "none" and clock.step % c.penalty_every == 0:
            loss = loss + c.penalty_weight * c.penalty_every * self._steep(real, fake, told)
        losses = {"critic": loss}
        if self.reader is not None:
            # A reader of bare codes learns a few thousand of them by heart, and a search then finds codes that please it and show nothing.
            blurred = torch.add(real, torch.randn_like(real), alpha=c.reader_noise)
            losses["reader"] = self._misread(self.reader(blurred).float(), batch)
        yield Turn(losses, {"right": judged_right(on_real, on_fake)})

        if clock.step % c.critic_steps == 0:
            moved = self._far(made, prior).mean()
            yield Turn({"actor": real_loss(self._judged(made, told)) + c.distance_weight * moved}, {"moved": moved.detach()})
            if c.keep_weight:  # codes of images are to stay where they are, or near to that where another's attributes are asked for
                half = len(told) // 2
                asked = torch.cat([told[:half], others[half:]])
                made = self.actor(asked, real)
                moved = self._far(made, real).mean()
                yield Turn({"actor": real_loss(self._judged(made, asked)) + c.keep_weight * moved}, {"moved from images": moved.detach()})

    def _drawn(self, index: Tensor) -> Tensor:
        """Draws of the posteriors of items (B,), whitened, new ones in every step; the codes themselves where there are no posteriors."""
        assert self._codes is not None, "prepare_codes comes first"
        codes = self._codes[index]
        return codes if self._deviations is None else torch.addcmul(codes, self._deviations[index], torch.randn_like(codes))

    def _asked(self, vector: Tensor) -> Tensor:
        """What is asked for (B, K), as long as the codes beside it: a class is one number among dozens."""
        return sqrt(self.latent) * vector

    def _judged(self, code: Tensor, told: Tensor) -> Tensor:
        logits: Tensor = self.critic(torch.cat([code, told], 1))
        return logits

    def _steep(self, real: Tensor, fake: Tensor, told: Tensor) -> Tensor:
        """The penalty on the critic's slope."""

        def judge(code: Tensor) -> Tensor:
            return self._judged(code, told)

        return r1_penalty(judge, real) if self.config.penalty == "r1" else one_centred_penalty(judge, real, fake)

    def _far(self, code: Tensor, start: Tensor) -> Tensor:
        """How far codes are from where they started, in units of the posterior's variance, growing slowly: (B, D) twice -> (B,)."""
        return ((code - start).square().log1p() / self.deviation.square()).mean(1)

    def _misread(self, logits: Tensor, batch: Batch) -> Tensor:
        if self.condition == "attributes":
            return F.binary_cross_entropy_with_logits(logits, batch.attributes)
        return F.cross_entropy(logits, batch.get(str(self.condition)))

    # --- capabilities ---

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return (self.latent,)

    def sample(
        self, noise: Tensor, label: Tensor | None = None, identity: Tensor | None = None, attributes: Tensor | None = None
    ) -> Tensor:
        """(B, latent), and with a condition what to show -> (B, C, H, W) in [-1, 1]."""
        return self.decode(self._out(self.actor(self._vector(noise, label, identity, attributes), noise)))

    def encode(self, image: Tensor) -> Tensor:
        """The auto-encoder's code: (B, C, H, W) -> (B, latent)."""
        code: Tensor = self.base.encode(image)
        return code

    def decode(self, latent: Tensor) -> Tensor:
        """(B, latent) -> (B, C, H, W) in [-1, 1]."""
        image: Tensor = self.base.decode(latent)
        return image

    def move(self, latent: Tensor, label: Tensor | None = None, identity: Tensor | None = None, attributes: Tensor | None = None) -> Tensor:
        """Codes moved by the actor, at once, to where they show what is asked for: (B, latent) -> (B, latent)."""
        code = self._in(latent)
        return self._out(self.actor(self._vector(code, label, identity, attributes), code))

    def realism(
        self, latent: Tensor, label: Tensor | None = None, identity: Tensor | None = None, attributes: Tensor | None = None
    ) -> Tensor:
        """The critic's logit that codes are of images which show that: (B, latent) -> (B,)."""
        code = self._in(latent)
        return self._judged(code, self._vector(code, label, identity, attributes)).float().squeeze(1)

    @property
    def target(self) -> str:
        return self.condition or ""

    def features(self, image: Tensor) -> Tensor:
        """What the reader sees, codes: (B, C, H, W) -> (B, latent)."""
        return self.encode(image)

    def logits(self, features: Tensor) -> Tensor:
        """What codes (B, latent) show: logits (B, K) of the classes, identities or attributes."""
        assert self.reader is not None, "trained without condition"
        logits: Tensor = self.reader(self._in(features))
        return logits.float()

    def classify(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> logits (B, K)."""
        return self.logits(self.features(image))

    def distance(self, latent: Tensor, other: Tensor) -> Tensor:
        """The mean squared distance of codes (B, latent) in units of the posterior's mean deviations: (B,)."""
        return (rescaled(latent - other, self.code_scale) / self.deviation).square().mean(1)

    def ways(self) -> Tensor | None:
        """Mean codes of what images show, (K, latent): see `Constrains`."""
        return None if self.means is None else self.means @ self.code_scale.T

    def _in(self, latent: Tensor) -> Tensor:
        return rescaled(latent.float() - self.code_mean, self.code_scale)

    def _out(self, code: Tensor) -> Tensor:
        return unwhiten(code, self.code_mean, self.code_scale)

    def _vector(self, code: Tensor, label: Tensor | None, identity: Tensor | None, attributes: Tensor | None) -> Tensor:
        if self.condition is None:
            return code.new_zeros(len(code), 0)
        return self._asked(as_vector(self.spec, label, identity, attributes))
