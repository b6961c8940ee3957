"""What a conditional model is told besides the noise or the code, as a vector that is joined to it."""

from __future__ import annotations

from math import sqrt
from typing import Literal

import torch
from torch import Tensor

from models.base import Batch, DataSpec

Condition = Literal["label", "identity", "attributes"]


def condition_size(spec: DataSpec, kind: Condition) -> int:
    """The vector's length: the number of classes, identities or attributes; 0 where the data have none (such data are refused later)."""
    return {"label": len(spec.classes), "identity": spec.identities, "attributes": len(spec.attributes)}[kind]


def as_vector(spec: DataSpec, label: Tensor | None = None, identity: Tensor | None = None, attributes: Tensor | None = None) -> Tensor:
    """The one that is given as a float vector of length 1: one-hot (B, K) for classes and identities, signs (B, A) for attributes.

    Between two classes lie their mixtures: `label` and `identity` are numbers (B,) int64, or shares of each (B, K) float that sum to 1.
    """
    if label is not None:
        return shares(label, len(spec.classes))
    if identity is not None:
        return shares(identity, spec.identities)
    if attributes is not None:
        return (2 * attributes.float() - 1) / sqrt(max(attributes.shape[1], 1))
    raise ValueError("a conditional model has to be told what to show")


def shown_by(spec: DataSpec, batch: Batch, kind: Condition) -> Tensor:
    """What a batch's images show, as vectors (B, K)."""
    return as_vector(spec, **{kind: getattr(batch, kind)})


def shares(classes: Tensor, count: int) -> Tensor:
    """Classes (B,) int64 as one-hot vectors (B, K) float32; shares (B, K) float as they are."""
    if classes.is_floating_point():
        return classes
    return (classes.unsqueeze(1) == torch.arange(count, device=classes.device)).float()  # F.one_hot looks at the numbers: a step waits


def join(x: Tensor, vector: Tensor) -> Tensor:
    """(B, D) and a condition's vector (B, K) -> (B, D + K), the vector brought to the length of D unit normals.

    A class is one number among dozens of noise: at length 1 it is a hundredth of what a layer sees, and batch norm then keeps it as small.
    Decoders learned to read the class from the code instead, and samples showed any class.
    """
    return torch.cat([x, sqrt(x.shape[1]) * vector], 1)
