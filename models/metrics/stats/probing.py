"""What a simple classifier is shown of labelled images: their codes, the encoder's last hidden layer, and principal components.

The classifiers of `nearest_neighbour` and `linear_probe` learn from training images and are judged on held-out ones: classes that lie apart
in the codes are found again by such simple means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature

import numpy as np
import torch
from torch import Tensor, nn

from models.base import Encodes, LatentModel
from models.capabilities.ask import device_of, evaluating, in_blocks
from models.capabilities.told import condition_of
from models.data.batches import to_float
from models.data.items import Items
from models.errors import UserError
from models.metrics.stats import components
from models.metrics.stats.evidence import Evidence
from models.randomness import some

_BATCH = 1024
Features = tuple[Tensor, Tensor]  # of the training and of the held-out images, (N, D) and (M, D)


def lacks(e: Evidence) -> str:
    """Why a model's codes cannot be probed, or nothing."""
    model: LatentModel = e.trained.model
    told = condition_of(model)
    if not isinstance(model, Encodes):
        return "it does not encode"
    if told in signature(model.encode).parameters:
        return f"its encoder is told the {told}"
    if not model.spec.classes:
        return "its data have no classes"
    return ""


def measured(e: Evidence, training: int, classify: Callable[[Features, Tensor], Tensor]) -> dict[str, float]:
    """The share of held-out images that `classify`, given features and the training labels, calls by their name, for each kind of features:

    `short`, the codes; `long`, what the encoder's last layer makes them of, where it has such a layer; `components`, as many principal
    components of the training images as a code has numbers. And `chance`, the share of the commonest class.
    """
    learned = some(training, len(e.training), e.seed, "probe")
    asked = some(e.count, len(e.held_out), e.seed, "probe")
    labels, truth = (torch.from_numpy(_labels(items)[index]) for items, index in ((e.training, learned), (e.held_out, asked)))
    ways = _ways(e, e.training.rows("image", learned[: components.most((*e.trained.model.spec.size, e.trained.model.spec.channels))]))
    found = {}
    for name, way in ways.items():
        features = (_seen(e.training, learned, way), _seen(e.held_out, asked, way))
        found[name] = float((classify(features, labels) == truth).double().mean())
    return {**found, "chance": float(torch.bincount(truth).max() / len(truth))}


def _ways(e: Evidence, images: np.ndarray) -> Mapping[str, Callable[[np.ndarray], Tensor]]:
    """How images (N, H, W, C) become features (N, D), by name."""
    model = e.trained.model
    trunk = getattr(getattr(model, "encoder", None), "trunk", None)
    ways: dict[str, Callable[[np.ndarray], Tensor]] = {"short": lambda some: e.trained.encode(some).flatten(1)}
    if isinstance(trunk, nn.Module):
        ways["long"] = lambda some: _through(model, trunk, some)
    size = ways["short"](images[:1]).shape[1]
    if size < min(len(images), images[0].size):
        linear = components.fit(images, size)
        ways["components"] = lambda some: linear.encode(some).float()
    return ways


def _through(model: nn.Module, trunk: nn.Module, images: np.ndarray) -> Tensor:
    with evaluating(model):
        return in_blocks(trunk, device_of(model), to_float(torch.from_numpy(images)))


def _seen(items: Items, index: np.ndarray, way: Callable[[np.ndarray], Tensor]) -> Tensor:
    return torch.cat([way(items.rows("image", index[n : n + _BATCH])) for n in range(0, len(index), _BATCH)])


def _labels(items: Items) -> np.ndarray:
    if "label" not in items.fields:
        raise UserError("these images have no classes", items.name, "compare with labelled data (--data)")
    return items.all("label")
