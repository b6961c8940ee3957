"""The model contract: what a model of the zoo is, and what it may expect. THE central file.

A model says what to minimise and who moves; one loop (`models.training.loop`) does the moving. A training step is a generator that yields
`Turn`s, which is how the papers write their algorithms::

    def turns(self, batch, clock):
        real = batch.image
        fake = self.generator(self.noise(batch))
        yield Turn({"critic": wasserstein(self.critic(real), self.critic(fake.detach()))})
        if clock.step % self.config.critic_steps == 0:
            yield Turn({"generator": -self.critic(fake).mean()})

Rules (the contract suite in tests/contract enforces them):

* no model file contains `backward`, `step`, `zero_grad`, `requires_grad_`, or device, precision, distribution, logging and saving code;
* never `yield` inside a `with` block: what the block sets would leak into the loop;
* a loss is computed after the last yield that moved what it depends on; a fake batch made for the discriminator's turn may be used again in
  the generator's turn, because the generator has not moved;
* every rank yields the same sequence of turns;
* all training state is a parameter or a registered buffer; what `Stage.prepare` builds can be built again from them.

Capabilities are plain methods, and a capability is a method that exists: `encode`, `decode`, `posterior`, `sample`, `classify`,
`translate`, `complete`, `validate` (see the protocols at the end). Where options decide on one, its attribute says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from models.config import Preset, Range
from models.data.items import Field

__all__ = [
    "Batch",
    "Classifies",
    "Clock",
    "Completes",
    "Constrains",
    "DataSpec",
    "Encodes",
    "Field",
    "LatentModel",
    "Maps",
    "Mixes",
    "Part",
    "Player",
    "Posterior",
    "Preset",
    "Range",
    "Resembles",
    "Samples",
    "Schedule",
    "Stage",
    "Translates",
    "TranslatesBack",
    "Turn",
    "Validates",
    "Whole",
]


@dataclass(frozen=True)
class DataSpec:
    """What a model is told, when it is built, about the items of its leading source; `spec["to"]` is that of another one.

    Images are float (channels, height, width) in [-1, 1].
    """

    fields: Mapping[str, Field]
    others: Mapping[str, DataSpec] = field(default_factory=dict)  # the run's further sources, by name

    @classmethod
    def of_images(
        cls,
        channels: int,
        height: int,
        width: int,
        classes: tuple[str, ...] = (),
        attributes: tuple[str, ...] = (),
        factors: tuple[str, ...] = (),
        identities: int = 0,
    ) -> DataSpec:
        """The spec of images and the best-known labels, each by its names: of classes, binary attributes and continuous factors."""
        fields = {"image": Field("image", (channels, height, width))}
        fields |= {"label": Field("number", names=classes, count=len(classes))} if classes else {}
        fields |= {"attributes": Field("flags", (len(attributes),), attributes)} if attributes else {}
        fields |= {"factors": Field("vector", (len(factors),), factors)} if factors else {}
        fields |= {"identity": Field("number", count=identities)} if identities else {}
        return cls(fields)

    def __getitem__(self, source: str) -> DataSpec:
        return self.others[source]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images."""
        channels, height, width = self.fields["image"].shape
        return channels, height, width

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def height(self) -> int:
        return self.shape[1]

    @property
    def width(self) -> int:
        return self.shape[2]

    @property
    def size(self) -> tuple[int, int]:
        return self.shape[1:]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.names("label")

    @property
    def attributes(self) -> tuple[str, ...]:
        return self.names("attributes")

    @property
    def identities(self) -> int:
        """How many people (or things) are told apart."""
        return self.fields["identity"].count if "identity" in self.fields else 0

    def names(self, key: str) -> tuple[str, ...]:
        """Of what a field tells apart: classes, attributes, factors, words; empty where the data have no such field."""
        return self.fields[key].names if key in self.fields else ()

    @property
    def provides(self) -> frozenset[str]:
        """The batch keys that these data can fill; those of another source as `to.image`."""
        return frozenset(self.fields) | {f"{name}.{key}" for name, other in self.others.items() for key in other.fields}


class Batch:
    """Some items of the leading source; `batch["to"]` are as many of another one.

    Every field is fetched when it is first asked for, by its key, so that a step pays only for what it uses.

    Attributes:
        index: (B,) int64, the items' positions in the data set, on the device.
        image: (B, C, H, W) float32 in [-1, 1], channels_last, on the device; any other field of the kind `image` likewise.
        label: (B,) int64 class index. attributes: (B, A) float32, 0 or 1. factors: (B, F) float32. identity: (B,) int64.
            Fields of their kinds likewise; clips (B, T, C, H, W) in [-1, 1], tokens (B, L) int64.
    """

    def __init__(
        self,
        index: Tensor,
        fetch: Callable[[str, Tensor], Tensor],
        device: torch.device,
        others: Callable[[str], Batch] | None = None,
    ) -> None:
        self._host_index, self._fetch, self.device, self._others = index, fetch, device, others

    def __len__(self) -> int:
        return len(self._host_index)

    def __getitem__(self, source: str) -> Batch:
        if self._others is None:
            raise KeyError(source)
        return self._others(source)

    @cached_property
    def index(self) -> Tensor:
        return self._host_index.to(self.device, non_blocking=self.device.type == "cuda")  # of memory that it may stay in until it is read

    def __getattr__(self, key: str) -> Tensor:
        """A field that was not asked for yet."""
        if key.startswith("_"):
            raise AttributeError(key)
        value = self.__dict__[key] = self._fetch(key, self._host_index)
        return value

    def get(self, key: str) -> Tensor:
        """A field by its key, `image`, or by source and key, `to.image`."""
        source, _, name = key.rpartition(".")
        found: Tensor = getattr(self[source] if source else self, name)
        return found


class Clock(NamedTuple):
    """What a step is told of time, within its stage."""

    step: int  # from 0
    images: int = 0  # of the leading source, seen before this step
    progress: float = 0.0  # from 0 to 1


@dataclass(frozen=True)
class Part:
    """A whole trained model from another run that a model is built around: frozen, in eval mode. `--part NAME=RUN` gives it.

    Its configuration and weights go into the run's own checkpoints, which so depend on no other file.
    """

    needs: tuple[type, ...]  # the capabilities that it must have
    about: str  # what it is for
    source: str = ""  # whose images it must fit, and whose data are its own where nobody names any; empty: the leading one
    optional: bool = False
    decides: tuple[str, ...] = ()  # options of the model that are of no account where it is given


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
    warm_up: int = 0  # first steps of the stage, over which the learning rate rises to what the schedule says
    steady: bool = False  # its modules stay in eval mode while they move: batch norm uses the statistics that it has
    clip: float | None = None  # largest norm of the gradient
    weight_clip: float | None = None  # every weight is cut off at plus and minus this after each step (Wasserstein GAN)

    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters, each once, in a fixed order."""
        unique = {id(p): p for module in self.modules for p in module.parameters() if p.requires_grad}
        return list(unique.values())


class Whole(Protocol):
    """All items of a run's sources, once and in order: iterating gives batches of the leading one, `whole["to"]` is another one's."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __getitem__(self, source: str) -> Iterable[Batch]: ...


@dataclass(frozen=True)
class Stage:
    """A part of the training in which the same step is repeated.

    Players that are not named in `players` are frozen and in eval mode during the stage. A stage of share 0 only prepares.
    """

    name: str  # shown in the progress bar
    turns: Callable[[Batch, Clock], Iterator[Turn]]
    players: tuple[str, ...]
    share: float = 1.0  # of the run's images, relative to the other stages'
    prepare: Callable[[Whole], None] | None = None  # gets the whole data once at the border, and again on resume
    needs: frozenset[str] | None = None  # batch keys that this stage reads, where they differ from the model's
    samples: bool = True  # False while the model's `sample` path is still untrained: no sample grid is drawn
    size: tuple[int, int] | None = None  # (height, width) that the leading source's images have in `turns`, where it is not the data's
    batch: int | None = None  # images a step, where it is not the run's
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # player -> fields of Player that differ in this stage


class Parts(nn.ModuleDict):
    """Models by their parts' names; a name may also be that of a module's method, as `to` is."""

    def add_module(self, name: str, module: nn.Module | None) -> None:
        self._modules[name] = module  # type: ignore[assignment]


class LatentModel(nn.Module):
    """Base of every model of the zoo. One sub-class a file; the file's name is the model's name."""

    Config: ClassVar[type]  # frozen dataclass, JSON-able, with a default for every field
    presets: ClassVar[Mapping[str, Preset]]  # "quick", "default" and "paper"
    sources: ClassVar[tuple[str, ...]] = ("data",)  # the run's data sets by name; the first one leads, its images are counted
    before: ClassVar[Mapping[str, Any]] = {}  # options that older checkpoints do not name, and what they were then
    draws: ClassVar[Mapping[str, str]] = {}  # source -> the one whose second, independent draw it is
    unlabelled: ClassVar[tuple[str, ...]] = ()  # sources of which, if data are named for them, the images alone count
    takes: ClassVar[Mapping[str, Part]] = {}  # parts from other runs, by name; they are the argument `parts` of `__init__`
    # Batch keys, those of another source as `to.image`; `__init__` sets them where they depend on the config or on the data.
    needs: frozenset[str] = frozenset({"image"})
    averaged: tuple[str, ...] = ()  # names of the sub-modules whose moving average generates
    fast: bool = False  # whether its run chose the fast arithmetic of a GPU; set by who builds it
    interpolates: ClassVar[Literal["code", "noise"]] = "code"  # where a straight line between two images makes most sense

    def __init__(self, config: Any, spec: DataSpec, parts: Mapping[str, LatentModel] | None = None) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.parts = Parts(parts or {})

    @staticmethod
    def pairs_by(config: Any) -> str:
        """The clause of `models.data.clauses` that makes pairs of the data that a user names, such as `input=grey`; empty for none."""
        return ""

    def players(self) -> dict[str, Player]:
        """Name -> modules and optimizer settings. Every trainable parameter belongs to exactly one player."""
        raise NotImplementedError

    def stages(self) -> tuple[Stage, ...]:
        raise NotImplementedError

    def gives(self, capability: str) -> Field:
        """What a method that makes images gives, where it is not an image of the leading source's shape: `translate`, say."""
        return self.spec.fields["image"]

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
class Posterior(Encodes, Protocol):
    """An auto-encoder that says how sure it is of a code: a Gaussian with independent dimensions, whose mean is what `encode` gives."""

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) in [-1, 1] -> mean and deviation of the code, (B, D) each, float32. Deterministic."""


@runtime_checkable
class Samples(Protocol):
    """A model that makes images from N(0, I) noise."""

    def sample(self, noise: Tensor) -> Tensor:
        """(B, *noise_shape) -> (B, C, H, W) in [-1, 1]. A pure, differentiable function of the noise."""


@runtime_checkable
class Maps(Encodes, Samples, Protocol):
    """A model whose samples are decoded from codes that a network makes of the noise: `sample(noise)` is `decode(map(noise))`."""

    code_mean: Tensor  # (latent,), of the codes of all noises: what truncation draws them towards

    def map(self, noise: Tensor) -> Tensor:
        """(B, *noise_shape) -> codes (B, latent). A pure, differentiable function of the noise."""


@runtime_checkable
class Mixes(Encodes, Protocol):
    """A model that makes an image of two codes, each of which decides a part of it."""

    layer_groups: Mapping[str, tuple[int, ...]]  # names for some of the layers, as `coarse`; together they are all that there are

    def mix(self, latent: Tensor, other: Tensor, layers: Sequence[int]) -> Tensor:
        """Codes (B, latent) twice -> (B, C, H, W) in [-1, 1]; `layers` are those in which `other` decides. Deterministic."""


@runtime_checkable
class Resembles(Protocol):
    """A model that shows again who is in an image, all else drawn anew."""

    noise_shape: tuple[int, ...]

    def resemble(self, image: Tensor, noise: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] and N(0, I) noise (B, *noise_shape) -> (B, C, H, W) in [-1, 1]. A pure function of both."""


@runtime_checkable
class Classifies(Protocol):
    """A model that names what an image shows. `classify(image)` is `logits(features(image))`; all three are pure functions."""

    target: str  # the batch key that it predicts: label, attributes or identity; empty where it was trained without

    def features(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> (B, D), what the last layer sees."""

    def logits(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, K), K the number of classes, attributes or identities."""

    def classify(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> logits (B, K)."""


@runtime_checkable
class Translates(Protocol):
    """A model that turns images of its leading source into others that belong to them (see `gives`), by the noise one of several.

    If its answers are found step by step, `translate` and `complete` take one more argument, `iterations`: an int, or None for its own.
    """

    translation_noise: tuple[int, ...]  # shape of one answer's noise; (0,) where there is but one answer

    def translate(self, image: Tensor, noise: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] and N(0, I) noise -> (B, C', H', W') in [-1, 1]. A pure function of both."""


@runtime_checkable
class TranslatesBack(Translates, Protocol):
    """One that also goes the other way, from images of its second source to those of the leading one."""

    return_noise: tuple[int, ...]  # the same of the way back

    def translate_back(self, image: Tensor, noise: Tensor) -> Tensor:
        """(B, C', H', W') and noise -> (B, C, H, W)."""


@runtime_checkable
class Completes(Protocol):
    """A model that fills holes, each by the noise in one of several ways."""

    holes: str  # those that it has learned to fill: a kind of `models.nets.holes`, or `any`

    completion_noise: tuple[int, ...]  # shape of one answer's noise; (0,) where there is but one answer

    def complete(self, image: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1], float (B, 1, H, W), 1 in the hole, and N(0, I) noise -> (B, C, H, W), the same outside of the hole."""


@runtime_checkable
class Constrains(Encodes, Protocol):
    """A model that knows of an auto-encoder's codes which are plausible, and how to move them there.

    If it is conditional, `move` and `realism` take one more argument, what is to be shown, and the model is one that `Classifies`: its
    `features` are codes, so that `logits` say what a code shows.
    """

    code_scale: Tensor  # (latent, latent), maps steps of about 1 in every direction to steps of codes

    def move(self, latent: Tensor) -> Tensor:
        """Codes brought at once to where they are plausible: (B, latent) -> (B, latent). Deterministic."""

    def realism(self, latent: Tensor) -> Tensor:
        """The logit that codes are such as images have: (B, latent) -> (B,). Differentiable."""

    def distance(self, latent: Tensor, other: Tensor) -> Tensor:
        """How far codes are from each other, 1 being as far as the encoder is unsure of one: (B, latent) twice -> (B,). Differentiable."""

    def ways(self) -> Tensor | None:
        """Where codes that show each thing lie: of an attribute the mean code with it less that without, of a class its mean code.

        (K, latent), but for a shift that all classes share; None where the model does not know.
        """


@runtime_checkable
class Validates(Protocol):
    """A model that measures itself on images that it was not trained on. It is asked at the rhythm of the sample grids."""

    def validate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """Names and finite numbers, from all held-out images in order. Called in eval mode, without gradient; draws no random number."""
