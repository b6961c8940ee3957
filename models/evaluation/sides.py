"""Collect, first half: what is looked at. The sides of a comparison, the data sets of an evaluation, and what samples are asked to show."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from torch import Tensor

from models import api
from models.capabilities.told import of_all
from models.config import EvaluationConfig, RunConfig
from models.data.clauses import in_shape
from models.data.dataset import DataRequest
from models.data.items import Items
from models.data.load import load as load_data
from models.data.load import parse
from models.data.packed.place import is_shard, place_of
from models.data.packed.place import load as packed
from models.data.sources import FolderSource, ItemSource, PackedSource
from models.errors import UserError, printable
from models.evaluation.plan import Plan, Work, check_samples
from models.metrics.stats import files
from models.registry import SETS
from models.training import checkpoint, hub, sources
from models.training.places import anywhere

STATISTICS = ".safetensors"
UNTOLD = {"label": "classes in turn", "identity": "identities in turn", "attributes": "no attributes"}  # by models that nobody tells


class SampledSource:
    """The samples 0 to `count` - 1 of a run: image i depends on the seed and on i alone. A network draws them, so one thread at a time.

    `shown` says in words what a conditional model is asked for.
    """

    parallel = False

    def __init__(self, trained: api.Trained, count: int, seed: int, name: str, shown: str | None = None) -> None:
        check_samples(trained, count, seed)
        self.trained, self.count, self.seed, self.name, self.shown = trained, count, seed, name, shown

    def __len__(self) -> int:
        return self.count

    def load(self, start: int, stop: int) -> Sequence[np.ndarray]:
        return list(self.trained.sample(stop - start, self.seed, start))

    @property
    def labels(self) -> Tensor | None:
        """What each sample was asked to show, or None for a model without condition."""
        told = self.trained.in_turn(range(self.count))
        return None if told is None else told.values


Side: TypeAlias = SampledSource | FolderSource | ItemSource | files.Statistics


# --- two sides --------------------------------------------------------------------------------------------------------------------------


def both(a: str, b: str, work: Work) -> list[Side]:
    """The two sides of a distance. One that samples a conditional model asks for what the other side shows. Raises UserError."""
    sides = [named(a, work), named(b, work)]
    _refuse_other_features(sides, work.how)
    return [_told_by(side, other, work) for side, other in zip(sides, reversed(sides))]


def named(text: str, work: Work) -> Side:
    """What `text` names. Raises UserError."""
    how, path = work.how, Path(text).expanduser()
    if path.is_file() and path.suffix == STATISTICS and files.is_statistics(path):
        return files.read(path)
    remote = hub.names_run(text)
    if remote or (path.is_file() and not is_shard(text)) or (path / checkpoint.FOLDER).is_dir():
        run = text if remote else path
        return SampledSource(api.load(run, device=how.device, raw=how.raw), how.number, how.seed, api.name_of(run))
    request = parse(text, root=Path(how.data_root) if how.data_root else None, background=how.background, skip_bad=how.skip_bad)
    with work.ranks.first_alone():
        if (place := None if request.name in SETS.entries() or request != request.plain else place_of(request)) is not None:
            return PackedSource(packed(place, request))
        if request.name in SETS.entries() or request != request.plain:
            return ItemSource(load_data(request))
        source = FolderSource(request)
    for note in source.notes:
        if "skipped" in note:
            work.warn(f"{printable(source.name)}: {note}")
    return source


def _refuse_other_features(sides: Sequence[Side], how: EvaluationConfig) -> None:
    """Raise UserError where saved statistics are of another kind of network than the one asked for, before that one is fetched."""
    saved = [side for side in sides if isinstance(side, files.Statistics)]
    kind = how.features.partition(":")[0]
    for side in saved if len(saved) < len(sides) else ():
        if side.recipe.get("name") != kind:
            what = f"made by different recipes: name is {side.recipe.get('name')!r} in the statistics, {kind!r} here"
            raise UserError(what, side.source, "give --features as it was when they were saved, or compute them again")


def _told_by(side: Side, other: Side, work: Work) -> Side:
    if not isinstance(side, SampledSource):
        return side
    data = other if isinstance(other, FolderSource) else other.data if isinstance(other, ItemSource) else None
    trained, shown = told(side.trained, data, other.source if isinstance(other, files.Statistics) else other.name, work)
    return SampledSource(trained, side.count, side.seed, side.name, shown)


# --- what samples are asked to show -----------------------------------------------------------------------------------------------------


def told(trained: api.Trained, data: Items | FolderSource | None, name: str, work: Work) -> tuple[api.Trained, str | None]:
    """A model whose samples are compared with `data`, asked for what these show: other frequencies would count as other images.

    The order is drawn apart from that of the real images: samples that were paired with single real images would seem nearer than they are.
    Also returns what is asked for, in words; None for a model without condition.
    """
    kind = trained.condition
    if kind is None:
        return trained, None
    if data is not None:
        trained = trained.like(data, work.how.seed)
    if trained.examples is not None:
        return trained, f"drawn from {printable(name)}, seed {work.how.seed}"
    work.warn(f"{printable(name)} has no {kind} like the run's, so samples show {UNTOLD[kind]}")
    return trained, UNTOLD[kind]


def labels_of(data: Items, trained: api.Trained) -> Tensor | None:
    """What the items show (N,) or (N, A), in the words of a model; None where they do not say."""
    shown = of_all(trained.model, data)
    return None if shown is None else shown.values


# --- the data sets of a run -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataSets:
    """Of the model's shape.

    Attributes:
        real: what samples are compared with; None where the plan needs no data.
        held_out: what is reconstructed. training: what the run was trained on. None where the plan does not need them.
    """

    real: Items | None = None
    held_out: Items | None = None
    training: Items | None = None


def data_sets(plan: Plan, data: str | None, work: Work) -> DataSets:
    """The data that a plan takes: those that `data` names, by default the run's own. Raises UserError."""
    trained, needs = plan.evidence.trained, plan.needs
    asks = plan.samples and trained.condition is not None
    if not (plan.wants("real") or needs & {"held_out", "training"} or asks):
        return DataSets()
    config = _config(trained, data, work.how)
    with work.ranks.first_alone():
        real = load_data(_request(trained, config))
        held_out = _held_out(config, trained, real, data, work) if "held_out" in needs else None
        training = _training(trained, real, work) if "training" in needs else None
    return DataSets(real, held_out, training)


def _held_out(config: RunConfig, trained: api.Trained, real: Items, named: str | None, work: Work) -> Items:
    """What is to be reconstructed: the images that `--data` names, else the run's test split, else its training images."""
    if named is not None:
        if real.name == trained.header.config.data or real.fingerprint() == trained.header.fingerprint:
            work.warn(f"the run was trained on {printable(real.name)} itself, so training images are reconstructed")
        return real
    try:
        return sources.held_out(config, trained.model, real)
    except UserError as error:
        work.warn(f"there are no held-out images, so training images are reconstructed ({error.what}: {error.where})")
        return real


def _training(trained: api.Trained, real: Items, work: Work) -> Items:
    """What the run was trained on, or, where that is not at hand, what it is compared with."""
    config = _config(trained, None, work.how)
    try:
        found = real if real.name == config.data else load_data(_request(trained, config, download=False))
        return sources.Learned(found, config) if config.held_out else found
    except UserError as error:
        what = "the run's training images are not at hand, so principal components are fitted to the images that they reconstruct"
        work.warn(f"{what} ({error.what}: {error.where})")
        return real


def _config(trained: api.Trained, data: str | None, how: EvaluationConfig) -> RunConfig:
    """The run's configuration with the data that it is to be compared with."""
    config = trained.header.config
    return dataclasses.replace(
        config,
        data=anywhere(data) if data else config.data,
        data_root=how.data_root or config.data_root,
        skip_bad=config.skip_bad or how.skip_bad,
    )


def _request(trained: api.Trained, config: RunConfig, download: bool = True) -> DataRequest:
    """What the leading source of that configuration asks for, in the model's shape."""
    return in_shape(sources.request_of(config, download=download), trained.header.spec.size, trained.header.spec.channels)
