"""Collect, second half: looking. One pass over each side through one feature network, shared among the ranks; and the cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.data.items import Chosen, Items
from models.data.sources import FolderSource, ItemSource
from models.errors import printable
from models.evaluation import sides
from models.evaluation.plan import LOOKS, Plan, Work
from models.evaluation.sides import SampledSource, Side
from models.metrics.features.base import Features, Source
from models.metrics.features.blind import Blind
from models.metrics.features.classifier import ClassifierFeatures
from models.metrics.features.extract import Block, extract
from models.metrics.sharpness import laplacian_variance
from models.metrics.stats import cache, files
from models.metrics.stats.evidence import Collected, Evidence
from models.metrics.stats.moments import Moments
from models.randomness import numpy_generator
from models.training.distributed import Ranks


@dataclass(frozen=True)
class Found:
    """What was collected of a run.

    Attributes:
        evidence: what its metrics are given.
        real: the data that samples were compared with, if any.
        shown: what a conditional model was asked for, in words; None where nothing was asked.
    """

    evidence: Evidence
    real: Items | None
    shown: str | None


def of_run(plan: Plan, data: str | None, name: str, work: Work) -> Found:
    """All that a plan needs, of the samples of the run called `name` and of `data` (None: the run's own). Raises UserError."""
    found = sides.data_sets(plan, data, work)
    real, trained, shown = found.real, plan.evidence.trained, None
    if real is not None:
        if plan.samples:
            trained, shown = sides.told(trained, real, real.name, work)
        for path, reason in real.bad[:1]:
            work.warn(f"{len(real.bad):,} images of {printable(real.name)} were left out, the first is {printable(path)} ({reason})")
    evidence = dataclasses.replace(plan.evidence, trained=trained, held_out=found.held_out, training=found.training)
    if wants := plan.wants("generated"):
        samples = SampledSource(trained, work.how.number, work.how.seed, name)
        evidence = dataclasses.replace(evidence, generated=_looked_at(samples, wants, work, samples.labels))
    if wants := plan.wants("real"):
        assert real is not None
        labels = sides.labels_of(real, trained) if "labels" in wants else None
        seen = labels is not None and "logits" in wants and _learned_from(real, work)
        evidence = dataclasses.replace(evidence, real=_real(real, wants, labels, work), seen=seen)
    return Found(evidence, real, shown)


def statistics(side: Side, work: Work) -> files.Statistics:
    """A side's moments; those of data sets and folders come from the cache where they are there."""
    if isinstance(side, files.Statistics):
        return side
    recipe = work.features.recipe()
    if isinstance(side, SampledSource):
        return files.Statistics(_moments(side, work), recipe, side.name)
    key = _key(side, work)
    moments = _kept(key, work)
    if moments is None:
        moments = _moments(side, work)
        if moments.count == len(side):
            _keep(key, moments, side.name, work)
    if isinstance(side, FolderSource) and moments.count < len(side):
        named = next((f", the first is {printable(path)} ({reason})" for path, reason in _gathered(list(side.bad), work.ranks)), "")
        work.warn(f"{len(side) - moments.count:,} of {len(side):,} images of {printable(side.name)} were left out{named}")
    return files.Statistics(moments, recipe, side.name)


def _real(data: Items, wants: set[str], labels: Tensor | None, work: Work) -> Collected:
    """The images that samples are compared with: the moments of all, from the cache where they are there; all else of at most `number`.

    Those are looked at first, by themselves, so that their features are the same whether or not the moments had to be computed.
    """
    whole = ItemSource(data)
    order = numpy_generator(work.how.seed, "evaluate", len(data)).permutation(len(data))
    first, others = (np.sort(part) for part in (order[: work.how.number], order[work.how.number :]))
    few, rest = (ItemSource(Chosen(data, index, data.name)) for index in (first, others))
    key = _key(whole, work) if "moments" in wants else ""
    moments = _kept(key, work) if "moments" in wants else None
    missing = "moments" in wants and moments is None
    seen = _looked_at(few, wants if missing else wants - {"moments"}, work, None if labels is None else labels[torch.from_numpy(first)])
    if missing:
        moments = seen.moments
        assert moments is not None
        if len(rest):
            moments.merge(_moments(rest, work))
        _keep(key, moments, data.name, work)
    return dataclasses.replace(seen, count=len(data), moments=moments)


def _learned_from(data: Items, work: Work) -> bool:
    """Whether the classifier that judges the real images was trained on them; with a warning."""
    seen = isinstance(work.features, ClassifierFeatures) and work.features.learned_from(data)
    if seen:
        work.warn(
            f"the classifier has learned from {printable(data.name)} itself: what it says of them is no ceiling for samples; "
            "compare with others (--data NAME:test)"
        )
    return seen


# --- one pass ---------------------------------------------------------------------------------------------------------------------------


def _looked_at(source: Source, wants: set[str], work: Work, labels: Tensor | None = None) -> Collected:
    """One pass over all images of a source, shared among the ranks. `wants`: among moments, features, logits, sharpness."""
    if not wants - {"labels"}:
        return Collected(len(source), labels=labels)
    features = work.features if wants & LOOKS else Blind()
    moments = Moments(features.dimensions, work.device) if "moments" in wants else None
    parts: dict[str, list[Tensor]] = {name: [] for name in ("features", "logits", "sharpness") if name in wants}
    for block in _blocks(source, features, work):
        if moments is not None:
            moments.add(block.features)
        for name, kept in parts.items():
            kept.append(_sharpness(block) if name == "sharpness" else getattr(block, name))
    if moments is not None:
        moments.reduce()
    whole = {name: torch.cat(_gathered([torch.cat(kept)] if kept else [], work.ranks)) for name, kept in parts.items()}
    sharpness = whole.pop("sharpness", None)
    return Collected(len(source), moments, **whole, labels=labels, sharpness=None if sharpness is None else float(sharpness.mean()))


def _blocks(source: Source, features: Features, work: Work) -> Iterator[Block]:
    """This rank's share of a source; the first rank tells how far it is."""
    how, ranks = work.how, work.ranks
    done, mine = 0, len(source) * (ranks.rank + 1) // ranks.world - len(source) * ranks.rank // ranks.world
    for block in extract(source, features, how.batch, how.workers, ranks.rank, ranks.world):
        yield block
        done += len(block.images)
        if ranks.writes:
            how.progress(source.name, done, mine)


def _sharpness(block: Block) -> Tensor:
    return torch.as_tensor(laplacian_variance(block.images))


def _moments(source: Source, work: Work) -> Moments:
    moments = _looked_at(source, {"moments"}, work).moments
    assert moments is not None
    return moments


def _gathered(mine: list[Any], ranks: Ranks) -> list[Any]:
    """The ranks' lists in rank order, as one. Every rank must call it."""
    if ranks.world == 1:
        return mine
    lists: list[Any] = [None] * ranks.world
    torch.distributed.all_gather_object(lists, mine)
    return [item for one in lists for item in one]


# --- the cache --------------------------------------------------------------------------------------------------------------------------


def _key(source: FolderSource | ItemSource, work: Work) -> str:
    return cache.key(source.fingerprint(), work.features.recipe()) if work.how.cached else ""


def _kept(key: str, work: Work) -> Moments | None:
    """The moments in the cache, where every rank finds them: one that does not must not look at its share alone."""
    found = cache.read(key, work.warn) if key else None
    return None if work.ranks.any(int(found is None)) or found is None else found.moments


def _keep(key: str, moments: Moments, name: str, work: Work) -> None:
    if key and work.ranks.writes:
        cache.write(key, files.Statistics(moments, work.features.recipe(), name), work.warn)
    work.ranks.barrier()
