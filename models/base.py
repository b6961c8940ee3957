"""The model contract: what a model of the zoo is, and what it may expect. THE central file.

A model says what to minimise and who moves; one loop (`models.training.loop`) does the moving. A training step is a generator that yields
`Turn`s, which is how the papers write their algorithms::

    def turns(self, batch, step):
        real = batch.image
        fake = self.generator(self.noise(batch))
        yield Turn({"critic": wasserstein(self.critic(real), self.critic(fake.detach()))})
        if step % self.config.critic_steps == 0:
            yield Turn({"generator": -self.critic(fake).mean()})

Rules (the contract suite in tests/contract enforces them):

* no model file contains `backward`, `step`, `zero_grad`, `requires_grad_`, or device, precision, distribution, logging and saving code;
* never `yield` inside a `with` block: what the block sets would leak into the loop;
* a loss is computed after the last yield that moved what it depends on; a fake batch made for the discriminator's turn may be used again in
  the generator's turn, because the generator has not moved;
* every rank yields the same sequence of turns;
* all training state is a parameter or a registered buffer; what `Stage.prepare` builds can be built again from them.

Capabilities are plain methods, and a capability is a method that exists: `encode`, `decode`, `sample`, `classify`, `validate` (see the
protocols at the end).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from models.config import Preset, Range

__all__ = [
    "Batch",
    "Classifies",
    "DataSpec",
    "Encodes",
    "LatentModel",
    "Player",
    "Preset",
    "Range",
    "Samples",
    "Schedule",
    "Stage",
    "Turn",
    "Validates",
]


@dataclass(frozen=True)
class DataSpec:
    """What a model is told about the data when it is built. Images are float (channels, height, width) in [-1, 1]."""

    channels: int
    height: int
    width: int
    classes: tuple[str, ...] = ()  # names of the labels
    attributes: tuple[str, ...] = ()  # names of the binary attributes
    factors: tuple[str, ...] = ()  # names of the continuous factors
    identities: int = 0  # how many people (or things) are told apart

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.height, self.width)

    @property
    def size(self) -> tuple[int, int]:
        return (self.height, self.width)

    @property
    def provides(self) -> frozenset[str]:
        """The batch keys that data of this kind can fill."""
        labels = {"label": self.classes, "attributes": self.attributes, "factors": self.factors, "identity": self.identities}
        return frozenset({"image"} | {key for key, value in labels.items() if value})


class Batch:
    """Some items of a data set. Every field is fetched when it is first asked for, so that a step pays only for what it uses.

    Attributes:
        index: (B,) int64, the items' positions in the data set, on the device.
        image: (B, C, H, W) float32 in [-1, 1], channels_last, on the device.
        label: (B,) int64 class index. attributes: (B, A) float32, 0 or 1. factors: (B, F) float32. identity: (B,) int64.
    """

    def __init__(self, index: Tensor, fetch: Callable[[str, Tensor], Tensor], device: torch.device) -> None:
        self._host_index, self._fetch, self.device = index, fetch, device

    def __len__(self) -> int:
        return len(self._host_index)

    @cached_property
    def index(self) -> Tensor:
        return self._host_index.to(self.device)

    @cached_property
    def image(self) -> Tensor:
        return self._fetch("image", self._host_index)

    @cached_property
    def label(self) -> Tensor:
        return self._fetch("label", self._host_index)

    @cached_property
    def attributes(self) -> Tensor:
        return self._fetch("attributes", self._host_index)

    @cached_property
    def factors(self) -> Tensor:
        return self._fetch("factors", self._host_index)

    @cached_property
    def identity(self) -> Tensor:
        return self._fetch("identity", self._host_index)


class Turn(NamedTuple):
    """One move of the game: the named players step together, each on its own loss.

    A loss is a scalar; its gradient reaches that player's parameters only. `logs` are further scalars worth reporting; one called `right`,
    the share of items that a discriminator takes for what they are, is watched: at 1 the generator learns nothing any more.
    """

    losses: Mapping[str, Tensor]
    logs: Mapping[str, Tensor] = {}


Schedule = Literal["constant", "linear", "cosine", "exponential", "steps"]


@dataclass(frozen=True)
class Player:
    """Modules that move together, and how. The loop builds the optimizer; modules of no player never move."""

    modules: tuple[nn.Module, ...]
    lr: float
    optimizer: Literal["adam", "adagrad", "rmsprop", "sgd"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)  # Adam's
    momentum: float = 0.0  # SGD's and RMSprop's
    weight_decay: float = 0.0
    schedule: Schedule = "constant"  # of the learning rate, over the stage: see `models.training.schedules`
    clip: float | None = None  # largest norm of the gradient
    weight_clip: float | None = None  # every weight is cut off at plus and minus this after each step (Wasserstein GAN)

    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters, each once, in a fixed order."""
        unique = {id(p): p for module in self.modules for p in module.parameters() if p.requires_grad}
        return list(unique.values())


@dataclass(frozen=True)
class Stage:
    """A part of the training in which the same step is repeated.

    Players that are not named in `players` are frozen and in eval mode during the stage. A stage of share 0 only prepares.
    """

    name: str  # shown in the progress bar
    turns: Callable[[Batch, int], Iterator[Turn]]
    players: tuple[str, ...]
    share: float = 1.0  # of the run's images, relative to the other stages'
    prepare: Callable[[Iterable[Batch]], None] | None = None  # gets the whole data set once at the border, and again on resume
    needs: frozenset[str] | None = None  # batch keys that this stage reads, where they differ from the model's
    samples: bool = True  # False while the model's `sample` path is still untrained: no sample grid is drawn


class LatentModel(nn.Module):
    """Base of every model of the zoo. One sub-class a file; the file's name is the model's name."""

    Config: ClassVar[type]  # frozen dataclass, JSON-able, with a default for every field
    presets: ClassVar[Mapping[str, Preset]]  # "quick", "default" and "paper"
    needs: frozenset[str] = frozenset({"image"})  # batch keys; `__init__` sets them where they depend on the config or on the data
    averaged: tuple[str, ...] = ()  # names of the sub-modules whose moving average generates
    base_modules: ClassVar[tuple[str, ...]] = ()  # sub-modules that `--base RUN` fills from another run, instead of the first stage
    base_options: ClassVar[tuple[str, ...]] = ()  # options that such a run must share, because they shape those sub-modules
    interpolates: ClassVar[Literal["code", "noise"]] = "code"  # where a straight line between two images makes most sense

    def __init__(self, config: Any, spec: DataSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec

    def players(self) -> dict[str, Player]:
        """Name -> modules and optimizer settings. Every trainable parameter belongs to exactly one player."""
        raise NotImplementedError

    def stages(self) -> tuple[Stage, ...]:
        raise NotImplementedError

    def noise(self, batch: Batch) -> Tensor:
        """N(0, I) of `noise_shape` for every item of the batch, drawn from the step's own random stream."""
        return torch.randn(len(batch), *self.noise_shape, device=batch.device)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of one item's noise, for models that sample."""
        raise NotImplementedError


# What a conditional model has to be told, and the methods that need it take as one more argument (B rows):
# `label` or `identity`, numbers (B,) int64 or, for what lies between them, shares (B, K) float; `attributes`, (B, A) float in [0, 1].


@runtime_checkable
class Encodes(Protocol):
    """A model that maps images to latents and back; one that is conditional is told what they show, in both directions."""

    def encode(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> (B, latent...). Deterministic."""

    def decode(self, latent: Tensor) -> Tensor:
        """(B, latent...) -> (B, C, H, W) in [-1, 1]. Deterministic."""


@runtime_checkable
class Samples(Protocol):
    """A model that makes images from N(0, I) noise."""

    def sample(self, noise: Tensor) -> Tensor:
        """(B, *noise_shape) -> (B, C, H, W) in [-1, 1]. A pure, differentiable function of the noise."""


@runtime_checkable
class Classifies(Protocol):
    """A model that names what an image shows. `classify(image)` is `logits(features(image))`; all three are pure functions."""

    target: str  # the batch key that it predicts: label, attributes or identity

    def features(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> (B, D), what the last layer sees."""

    def logits(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, K), K the number of classes, attributes or identities."""

    def classify(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> logits (B, K)."""


@runtime_checkable
class Validates(Protocol):
    """A model that measures itself on images that it was not trained on. The loop asks it at the rhythm of the sample grids."""

    def validate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """Names and finite numbers, from all held-out images in order. Called in eval mode, without gradient; draws no random number."""
