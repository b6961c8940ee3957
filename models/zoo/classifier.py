"""Classifier: a small residual net that names what an image shows, or tells its attributes. It generates nothing; metrics look through it.

Paper: He et al., Deep Residual Learning for Image Recognition, 2016; label smoothing is Szegedy et al., Rethinking the Inception
Architecture, 2016. Labels are learned by cross-entropy, binary attributes each by its own logistic loss. On a set with a test split the log
shows the accuracy on it.

`augment=auto` shifts all images and mirrors only colour images whose classes are not named by characters or numbers: no digit is mirrored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Batch, Clock, DataSpec, LatentModel, Player, Preset, Range, Stage, Turn
from models.nets.augment import augment, harmless
from models.nets.residual import ResidualEncoder


class Classifier(LatentModel):
    @dataclass(frozen=True)
    class Config:
        target: Literal["auto", "label", "attributes", "identity"] = "auto"  # what is predicted; auto: labels, or attributes without them
        widths: Annotated[tuple[int, ...], Range(1, 8192)] = (32, 64, 128)  # channels; the last are the features
        blocks: Annotated[tuple[int, ...], Range(0, 1000)] = (0, 1, 1)  # residual blocks at each width
        augment: Literal["auto", "none", "shift", "flip"] = "auto"  # of the training images; flip shifts as well
        smoothing: Annotated[float, Range(0, 0.99)] = 0.1  # of the targets: 0.1 asks for 90 % certainty
        lr: Annotated[float, Range(0, 10)] = 0.1  # learning rate, falling to zero along a line
        weight_decay: Annotated[float, Range(0, 1)] = 5e-4  # pull of all weights to zero

    config: Config
    averaged = ("encoder", "head")
    presets = {
        "quick": Preset(120_000, about="a look within a minute or two"),
        "default": Preset(960_000),
        "paper": Preset(
            8_192_000,
            options={"widths": (16, 32, 64), "blocks": (3,), "augment": "flip", "smoothing": 0.0, "weight_decay": 1e-4},
            about="the 20 layers for CIFAR-10, 64,000 steps of 128",
        ),
    }

    def __init__(self, config: Config, spec: DataSpec) -> None:
        super().__init__(config, spec)
        unlabelled = spec.attributes and not spec.classes
        self.target = config.target if config.target != "auto" else "attributes" if unlabelled else "label"
        self.needs = frozenset({"image", self.target})
        self.augmentation = harmless(spec) if config.augment == "auto" else config.augment
        outputs = {"label": len(spec.classes), "attributes": len(spec.attributes), "identity": spec.identities}[self.target]
        self.encoder = ResidualEncoder(spec, config.widths, config.blocks)
        self.head = nn.Linear(
            self.encoder.features, max(outputs, 1)
        )  # 0 outputs: the data lack what the model needs, as the caller will say

    # --- objective ---

    def players(self) -> dict[str, Player]:
        c = self.config
        sgd = Player((self.encoder, self.head), c.lr, "sgd", momentum=0.9, weight_decay=c.weight_decay, schedule="linear")
        return {"classifier": sgd}

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("classification", self.turns, players=("classifier",)),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        logits = self.classify(augment(batch.image, self.augmentation)).float()
        truth = getattr(batch, self.target)
        accuracy = (self.answers(logits) == truth).float().mean()
        yield Turn({"classifier": self.loss(logits, truth)}, {"accuracy": accuracy})

    def loss(self, logits: Tensor, truth: Tensor) -> Tensor:
        """-log p(truth | image) in nats, averaged over the batch: (B, K) logits with (B,) classes or (B, K) attributes -> scalar."""
        smoothing = self.config.smoothing
        if self.target == "attributes":
            # Summed over the attributes: a mean would leave the learning rate small beside the weight decay, and rare attributes unlearned.
            soft = torch.lerp(truth, torch.full_like(truth, 0.5), smoothing)
            return F.binary_cross_entropy_with_logits(logits, soft, reduction="none").sum(1).mean()
        return F.cross_entropy(logits, truth, label_smoothing=smoothing)

    def answers(self, logits: Tensor) -> Tensor:
        """(B, K) logits -> classes (B,), or attributes (B, K) in {0, 1}, as a batch has them."""
        return (logits > 0).float() if self.target == "attributes" else logits.argmax(1)

    # --- capabilities ---

    def features(self, image: Tensor) -> Tensor:
        """The means over the pixels before the last layer: (B, C, H, W) in [-1, 1] -> (B, D)."""
        return self.encoder(image)

    def logits(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, K), one a class or attribute."""
        return self.head(features)

    def classify(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> logits (B, K)."""
        return self.logits(self.features(image))

    def validate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """The share of right answers, from 0 to 1; for attributes also the mean of their F1 (0 for one that never occurs)."""
        pairs = [(self.answers(self.classify(batch.image)), getattr(batch, self.target)) for batch in batches]
        said, truth = (torch.cat(part) for part in zip(*pairs, strict=True))
        found = {"accuracy": int((said == truth).sum()) / said.numel()}
        if self.target == "attributes":
            f1 = 2 * (said * truth).sum(0) / (said.sum(0) + truth.sum(0)).clamp_min(1)
            found["macro F1"] = float(f1.mean())
        return found
