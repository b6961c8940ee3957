"""A classifier of the zoo as a feature network: the domain's own features, for digits and for machines without the Inception weights.

::

    trained = lgm.load("runs/classifier-mnist")  # import lgcli as lgm
    look = ClassifierFeatures(trained.model, "classifier:runs/classifier-mnist", fit=trained.header.config.fit)

The features are what the classifier's last layer sees, the logits its answers. Distances between them mean something among runs that were
measured with the same classifier, and nothing beside a published FID.

Images are brought to the size that the classifier was trained on, as its data were (crop, pad or stretch; antialiased bicubic). Where
the channels differ, grey is repeated to three and colour becomes its luma (ITU-R 601), as in `models.data.images.to_channels`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import Classifies, LatentModel
from models.capabilities.ask import require
from models.data.batches import to_float
from models.data.images import WHITE, BadImage, Colour, fit, to_channels
from models.data.items import Items
from models.device import full_precision
from models.errors import UserError


class ClassifierFeatures:
    """A trained classifier as `Features`.

    Args:
        model: the classifier with the weights that are to be used; it stays on its device, and in eval mode.
        name: what messages and recipes call it, `classifier:RUN`.
        fit: how images of another aspect ratio are brought to the classifier's size: crop, pad or stretch.
        background: the colour of the bars of `pad`.
        data, fingerprint: name and content of what it was trained on, as its checkpoint says.

    Raises UserError where the model cannot classify.
    """

    def __init__(
        self, model: LatentModel, name: str, *, fit: str = "crop", background: Colour = WHITE, data: str = "", fingerprint: str = ""
    ) -> None:
        require(model, Classifies, "classify")
        self.name, self.fit, self.background = name, fit, background
        self._data, self._fingerprint = data, fingerprint
        self.model, self.spec = model.eval(), model.spec
        self.device = next(model.parameters()).device
        self.target = str(model.target)  # the batch key that the logits tell: label, attributes or identity
        self.digest = _digest(model.state_dict())
        features, logits = self.apply(torch.zeros(1, *self.spec.size, self.spec.channels, dtype=torch.uint8))
        self.dimensions, self.classes = features.shape[1], logits.shape[1]

    def recipe(self) -> dict[str, Any]:
        """The digest says which classifier it is; its name does not count, because a run may be moved."""
        return {
            "name": "classifier",
            "digest": self.digest,
            "size": list(self.spec.size),
            "channels": self.spec.channels,
            "target": self.target,
            "resize": self.fit,
            "background": list(self.background),
            "precision": "fp32",
        }

    def learned_from(self, data: Items) -> bool:
        """Whether it was trained on these very images: data of that name, in whatever size, or of that content."""
        return data.name == self._data or data.fingerprint() == self._fingerprint

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 (H, W, 1 or 3) images, of any sizes, as uint8 (B, height, width, channels) of the classifier's data.

        Raises UserError where an image is too long for a crop.
        """
        try:
            fitted = [to_channels(fit(i, self.spec.size, self.fit, background=self.background), self.spec.channels) for i in images]
        except BadImage as error:
            raise UserError(f"an image cannot be shown to the classifier ({error})", self.name, "leave it out") from error
        return torch.from_numpy(np.stack(fitted))

    @torch.no_grad()
    def apply(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D) and logits (B, K), float32, on the CPU."""
        model: Any = self.model
        with full_precision():
            features = model.features(to_float(batch.to(self.device)))
            logits = model.logits(features)
        return features.float().cpu(), logits.float().cpu()

    @torch.no_grad()
    def look(self, images: Tensor) -> Tensor:
        """Features (B, D) of float images (B, C, H, W) in [-1, 1], which are not rounded to bytes; other sizes are stretched."""
        model: Any = self.model
        images = images.float()
        if images.shape[1] != self.spec.channels:
            luma = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
            images = images.expand(-1, 3, -1, -1) if self.spec.channels == 3 else (images * luma).sum(1, keepdim=True)
        if tuple(images.shape[2:]) != self.spec.size:
            images = F.interpolate(images, self.spec.size, mode="bicubic", antialias=True)
        with full_precision():
            return model.features(images.to(self.device)).float().cpu()


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and values, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


__all__ = ["ClassifierFeatures"]
