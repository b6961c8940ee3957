"""Accuracy: does an independent classifier see in a sample what was asked for?

Top-1 for classes and identities; for binary attributes accuracy, precision, recall and F1, each the mean over the attributes that the
model is asked by, of which the classifier may know more. The classifier is the one of `--features classifier:RUN`; `real_...` is the same
on the real images, the ceiling that samples can reach, where these have such labels. Where they are the very images that the classifier has
learned from, this is no ceiling, and is called `real_..._seen`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.errors import UserError, printable
from models.metrics.stats.evidence import Evidence

NEEDS = frozenset({"real.logits", "real.labels", "generated.logits", "generated.labels"})


@dataclass(frozen=True)
class Config:
    pass


def lacks(e: Evidence) -> str:
    condition = e.trained.condition
    if condition is None:
        return "its samples cannot be asked to show something"
    classifier: Any = e.features
    target = getattr(classifier, "target", None)
    if target is None:
        return "a classifier has to judge: --features classifier:RUN"
    if target != condition:
        return f"it is asked by {condition}, the classifier tells the {target}"
    asked, told = (
        {"label": s.classes, "attributes": s.attributes, "identity": s.identities}[condition]
        for s in (e.trained.header.spec, classifier.spec)
    )
    known = set(asked) <= set(told) if condition == "attributes" else asked == told
    if not known:
        return f"the classifier was trained for another {target}: {_shown(told)} instead of {_shown(asked)}"
    return ""


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"top1"} or {"accuracy", "precision", "recall", "f1"}, from 0 to 1, and the same on real images under names that begin with `real_`.

    Raises UserError where no sample was asked for any attribute.
    """
    asked = e.get("generated.labels")
    if asked.ndim == 2 and not asked.any():
        fix = "compare with data that have the run's attributes (--data), or give more images (-n)"
        raise UserError("no sample was asked for an attribute", "accuracy", fix)
    columns = _columns(e)
    found = judged(e.get("generated.logits")[:, columns], asked)
    if e.real is not None and e.real.labels is not None:
        ending = "_seen" if e.seen else ""
        found |= {f"real_{name}{ending}": value for name, value in judged(e.get("real.logits")[:, columns], e.real.labels).items()}
    return found


def _columns(e: Evidence) -> list[int] | slice:
    """Where the classifier says what the model is asked by."""
    classifier: Any = e.features
    if getattr(classifier, "target", None) != "attributes":
        return slice(None)
    return [classifier.spec.attributes.index(name) for name in e.trained.header.spec.attributes]


def judged(logits: Tensor, truth: Tensor) -> dict[str, float]:
    """Logits (N, K) against classes (N,), or (N, A) against attributes (N, A): the shares of `top1`, or of `attributes`."""
    return top1(logits, truth) if truth.ndim == 1 else attributes(logits, truth)


def _shown(names: tuple[str, ...] | int) -> str:
    return str(names) if isinstance(names, int) else printable(", ".join(names), 80)


def top1(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Logits (N, K), labels (N,) -> the share whose largest logit is the label's."""
    return {"top1": float((logits.argmax(1) == labels).double().mean())}


def attributes(logits: Tensor, wanted: Tensor) -> dict[str, float]:
    """Logits (N, A), attributes (N, A) in {0, 1} -> accuracy, precision, recall, F1, means over the attributes; 0 where nothing counts."""
    said, truth = (logits > 0).double(), wanted.double()
    right = (said * truth).sum(0)
    shares = {
        "accuracy": (said == truth).double().mean(0),
        "precision": right / said.sum(0).clamp_min(1),
        "recall": right / truth.sum(0).clamp_min(1),
        "f1": 2 * right / (said.sum(0) + truth.sum(0)).clamp_min(1),
    }
    return {name: float(torch.mean(share)) for name, share in shares.items()}
