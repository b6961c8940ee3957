"""Answers to questions that have several: how near the best of n comes, how far they are from each other, and whether they look real.

The questions are images of `--data`, by default held-out ones: with holes of the kind that the model has learned to fill, or those that it
translates, whose targets the data know. Errors are mean squared differences over what is wanted (the hole, or the whole answer), black 0,
white 1. One answer is best where it is the mean of all that a question may have; the best of several where they differ as the true ones do.
`distance` is the mean squared difference of two answers to one question, `feature_distance` the distance of their features, and `fid` that
of the first answers to what was wanted. Every question has noises of its own: with the same for all, a model whose noise is a colour would
paint all first answers in one, and be compared with answers of every colour. Where a rule made the question from its answer, as grey
images or small ones, `kept` is the error of questions made from the answers by that rule; what is known beside a hole is always kept. With
a classifier of classes (`--features classifier:RUN`) `classes` is how many different ones the answers to a question show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from models.base import Completes, LatentModel, Translates
from models.capabilities import complete, translate
from models.config import Range
from models.data.clauses import derived
from models.data.dataset import ImageData
from models.errors import UserError
from models.metrics.features.extract import looked_at
from models.metrics.stats.evidence import Evidence
from models.metrics.stats.frechet import frechet_distance
from models.metrics.stats.moments import Moments
from models.randomness import some

NEEDS = frozenset({"held_out", "features"})
_BLOCK = 16  # questions at a time


@dataclass(frozen=True)
class Config:
    variants: Annotated[int, Range(2, 1000)] = 10  # answers to each question


def lacks(e: Evidence) -> str:
    model: LatentModel = e.trained.model
    if isinstance(model, Completes):
        return ""
    if not isinstance(model, Translates):
        return "it answers no questions"
    return "" if "target" in model.needs else "nobody knows what its translations should be"


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"mse", "best_mse", "distance", "feature_distance", "fid"}, and "kept" and "classes" where they have a meaning.

    Raises UserError where the data have no targets.
    """
    assert e.features is not None
    model: LatentModel = e.trained.model
    if isinstance(model, Translates) and "target" not in e.held_out.fields:
        raise UserError("these data know no answers", e.held_out.name, "give pairs: DATA[input=grey], DATA[target=FOLDER], ...")
    rule = "" if isinstance(model, Completes) else type(model).pairs_by(model.config).partition("=")[2]
    chosen = some(e.count, len(e.held_out), e.seed, "questions")
    draws = complete.noises if isinstance(model, Completes) else translate.noises
    noise = draws(model, len(chosen) * config.variants, e.seed).unflatten(0, (len(chosen), config.variants))
    first, wanted = Moments(e.features.dimensions), Moments(e.features.dimensions)
    found: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(chosen), _BLOCK):
        made, true, weight = _answered(e, chosen[start : start + _BLOCK], noise[start : start + _BLOCK])
        values = _apart(made, true, weight)
        if rule:
            values["kept"] = _kept(made, e.held_out.rows("image", chosen[start : start + _BLOCK]), rule)
        features, logits = looked_at(made.reshape(-1, *made.shape[2:]), e.features)
        features = features.unflatten(0, made.shape[:2])
        values["feature_distance"] = _feature_distance(features).numpy()
        if getattr(e.features, "target", None) in ("label", "identity"):
            named = logits.argmax(1).view(made.shape[:2])
            values["classes"] = np.array([len(set(row)) for row in named.tolist()])
        first.add(features[:, 0])
        wanted.add(looked_at(true, e.features)[0])
        for name, numbers in values.items():
            found.setdefault(name, []).append(numbers)
    means = {name: float(np.concatenate(parts).mean()) for name, parts in found.items()}
    return {**means, "fid": frechet_distance(wanted, first)}


def _answered(e: Evidence, items: np.ndarray, noise: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers (N, K, H, W, C) by noises (N, K, D), what was wanted (N, H, W, C), and the weights of its numbers (N, H, W, 1), of sum 1."""
    model, shown = e.trained.model, e.held_out.rows("image", items)
    if isinstance(model, Completes):
        assert isinstance(model, LatentModel)
        holes = complete.learned_holes(model, items, e.seed)
        made = complete.through(model, shown, holes, noise)
        true, weight = shown, holes[..., None].astype(float)
    else:
        made = translate.through(model, shown, noise)
        true = e.held_out.rows("target", items)
        weight = np.ones((*true.shape[:3], 1))
    return made, true, weight / (weight.sum((1, 2, 3), keepdims=True) * true.shape[3])


def _apart(made: np.ndarray, true: np.ndarray, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Errors and distances of the answers to each question: (N,) each."""
    answers, wanted = made / 255, true[:, None] / 255
    errors = ((answers - wanted) ** 2 * weight[:, None]).sum((2, 3, 4))
    count = answers.shape[1]
    # The mean square difference of two of n is 2 n / (n - 1) times the mean square distance from their mean.
    spread = ((answers - answers.mean(1, keepdims=True)) ** 2 * weight[:, None]).sum((2, 3, 4)).mean(1)
    return {"mse": errors.mean(1), "best_mse": errors.min(1), "distance": 2 * count / (count - 1) * spread}


def _kept(made: np.ndarray, shown: np.ndarray, rule: str) -> np.ndarray:
    """Mean squared difference of questions (N, h, w, c) to those that the rule makes of their answers: (N,)."""
    again = derived(ImageData("answers", made.reshape(-1, *made.shape[2:])), rule, "answers")
    asked = again.rows("image", np.arange(len(again))).reshape(*made.shape[:2], *shown.shape[1:])
    return np.asarray((((asked.astype(float) - shown[:, None]) / 255) ** 2).mean((1, 2, 3, 4)))


def _feature_distance(features: Tensor) -> Tensor:
    """Mean distance of two of a question's answers: (N, K, D) -> (N,)."""
    count = features.shape[1]
    distances = torch.cdist(features.double(), features.double())
    return distances.sum((1, 2)) / (count * (count - 1))
