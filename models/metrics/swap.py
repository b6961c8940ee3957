"""Swaps: whose face, and everything else, in mixtures of two images, as an independent classifier sees them.

Held-out images meet at random: the subject says who, the other one all else, and the model mixes them. With a classifier of people
(`--features classifier:RUN`) each mixture is compared with real images of its subject and of other people, by the cosine of their
features: `auc` is how often one of the subject's is nearer than one of somebody else's (the area under the curve), and `top1` how often the
classifier names the subject. `..._real` is the same of the subjects themselves, `..._again` of their reconstructions (the ceilings),
`..._other` of the images that the rest was taken from (the floor). With a classifier of attributes, `attributes` is how many of the
other image's a mixture shows; `..._again` of its reconstruction (the ceiling), `..._subject` of the subject (the floor).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from models.base import Mixes
from models.capabilities.mix import mixed
from models.capabilities.reconstruct import codes_of
from models.config import Range
from models.errors import UserError
from models.metrics.features.extract import looked_at
from models.metrics.stats.evidence import Evidence
from models.randomness import numpy_generator, some

NEEDS = frozenset({"held_out", "features"})


@dataclass(frozen=True)
class Config:
    pairs: Annotated[int, Range(10, 10**6)] = 1000  # mixtures at most


def lacks(e: Evidence) -> str:
    model = e.trained.model
    if not isinstance(model, Mixes) or "identity" not in model.layer_groups:
        return "it does not mix who with how"
    if e.features is not None and getattr(e.features, "target", None) is None:
        return "a classifier has to judge: --features classifier:RUN"
    return ""


def measure(e: Evidence, config: Config) -> dict[str, float]:
    """{"auc", "top1"} or {"attributes"}, from 0 to 1, with their ceilings and floors. Raises UserError where nobody says who is who."""
    judge: Any = e.features
    subjects = some(min(config.pairs, e.count), len(e.held_out), e.seed, "subjects")
    others = numpy_generator(e.seed, "swap").permutation(subjects)
    who, how = (e.held_out.rows("image", items) for items in (subjects, others))
    model = e.trained.model
    one, other = codes_of(model, who, None), codes_of(model, how, None)
    made = looked_at(mixed(model, one, other, model.layer_groups["attributes"]), judge)
    subject, look = looked_at(who, judge), looked_at(how, judge)
    if judge.target == "attributes":
        again, truth = looked_at(mixed(model, other, other, []), judge), look[1] > 0
        shown = {"": made[1], "_again": again[1], "_subject": subject[1]}
        return {f"attributes{name}": float(((logits > 0) == truth).double().mean()) for name, logits in shown.items()}
    key = next((key for key in ("identity", "label") if key in e.held_out.fields), None)
    if key is None:
        raise UserError("these data do not say whom they show", e.held_out.name, "give data with identities, or a folder for each person")
    people = torch.from_numpy(e.held_out.rows(key, subjects))
    seen = {"": made, "_real": subject, "_again": looked_at(mixed(model, one, one, []), judge), "_other": look}
    found = {f"auc{name}": auc(features, subject[0], people) for name, (features, _) in seen.items()}
    if judge.target == key:
        found |= {f"top1{name}": float((logits.argmax(1) == people).double().mean()) for name, (_, logits) in seen.items()}
    return found


def auc(probes: Tensor, gallery: Tensor, people: Tensor) -> float:
    """How often an image of the same person is nearer to a probe than one of somebody else: features (N, D) twice, people (N,).

    Probe n is meant to show person n, and is not compared with image n, of which it may have been made. Raises UserError where all are.
    """
    likeness = torch.nn.functional.normalize(probes.double()) @ torch.nn.functional.normalize(gallery.double()).T
    same = people.unsqueeze(1) == people
    theirs = likeness[~same].sort().values
    mine = likeness[same.fill_diagonal_(False)]
    if not len(mine) or not len(theirs):
        raise UserError("no two images of one person, or of two", "swap", "give more images (-n), or data with several of each person")
    below = torch.searchsorted(theirs, mine) + torch.searchsorted(theirs, mine, right=True)
    return float(below.double().mean() / (2 * len(theirs)))
