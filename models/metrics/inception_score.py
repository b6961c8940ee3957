"""Inception score of the generated images: how certain the labels of single images are and how varied those of all, 1 is worst.

Paper: Salimans et al., Improved Techniques for Training GANs, 2016: exp E KL(p(y|x) || p(y)), averaged over splits of the images. It looks
at the generated images only, and means little for features that were not trained on images of that kind. Where another metric has the real
images answered for too (accuracy, class-balance), `real_inception_score` is theirs, which good samples come near.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from models.config import Range
from models.errors import UserError
from models.metrics.stats.evidence import Evidence
from models.randomness import numpy_generator

NEEDS = frozenset({"generated.logits"})


@dataclass(frozen=True)
class Config:
    splits: Annotated[int, Range(1, 10**6)] = 10  # parts, each scored by itself; the deviation is over them
    shuffle: bool = True  # mix the images before they are split, so that a folder sorted by class does not score low


def lacks(e: Evidence) -> str:
    several = getattr(e.features, "target", None) == "attributes"
    return "it needs classes that exclude one another, and this classifier tells attributes" if several else ""


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"inception_score", "inception_score_std"}, and where it can be told "real_inception_score": between 1 and the number of classes.

    Raises UserError for more splits than generated images.
    """
    logits, real = e.get("generated.logits"), e.real.logits if e.real is not None else None
    if len(logits) < config.splits:
        what = f"{config.splits} splits are more than the {len(logits)} generated images"
        raise UserError(what, "inception-score.splits", f"--set inception-score.splits={max(len(logits), 1)}, or give more images")
    scores = split_scores(_shuffled(logits, e.seed) if config.shuffle else logits, config.splits)
    found = {"inception_score": float(np.mean(scores)), "inception_score_std": float(np.std(scores))}
    if real is not None and len(real) >= config.splits:
        found["real_inception_score"] = float(np.mean(split_scores(_shuffled(real, e.seed) if config.shuffle else real, config.splits)))
    return found


def _shuffled(logits: Tensor, seed: int) -> Tensor:
    return logits[torch.from_numpy(numpy_generator(seed, "inception score").permutation(len(logits)))]


def split_scores(logits: Tensor, splits: int) -> list[float]:
    """The score of each of `splits` consecutive parts of logits (N, K), in float64. Needs N >= splits."""
    borders = [part * len(logits) // splits for part in range(splits + 1)]
    return [_score(logits[start:stop].double()) for start, stop in itertools.pairwise(borders)]


def _score(logits: Tensor) -> float:
    each = logits.log_softmax(1)
    # A mean of probabilities taken in the logarithm stays finite where all of them underflow, so 0 * (log 0 - log 0) never occurs.
    together = each.logsumexp(0) - math.log(len(each))
    return math.exp(float((each.exp() * (each - together)).sum(1).mean()))
