"""Comparing sets of images: `fid` of two sides, `evaluate` for a run. What `lgm fid` and `lgm evaluate` call, and notebooks too.

::

    import lgcli as lgm

    found = lgm.evaluation.fid("runs/aegan-mnist", "mnist:test", number=10_000, features="classifier:runs/classifier")
    print(found["fid"], found["recipe"])
    found = lgm.evaluation.evaluate("runs/aegan-mnist", metrics=["kid", "prdc"], features="classifier:runs/classifier")

Every number comes with its recipe, because a FID without one means nothing: the features and their digest, how images were resized, how
many images there were on either side, the seed, the version of lgm.

A metric's NEEDS say what is collected for it: `real.` or `generated.` followed by `moments`, `features`, `logits`, `labels` or `sharpness`
(of the samples, or of the images that they are compared with); `features`, the network itself; `held_out`, images that the run was not
trained on; `training`, those that it was trained on; `sample`, a model that samples.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from models import api
from models.base import Classifies, Samples
from models.capabilities import told
from models.config import EvaluationConfig, RunConfig, check, parse_assignments
from models.data.clauses import in_shape
from models.data.dataset import DataRequest
from models.data.images import atomic_file
from models.data.items import Items
from models.data.load import load as load_data
from models.data.load import parse
from models.data.sources import FolderSource, ItemSource
from models.device import pick, settle
from models.errors import UserError, nearest, printable
from models.metrics.features.base import Features, Source
from models.metrics.features.classifier import ClassifierFeatures
from models.metrics.features.extract import extract
from models.metrics.features.inception import PRECISIONS, RESIZES, InceptionFeatures
from models.metrics.sharpness import laplacian_variance
from models.metrics.stats import cache, files
from models.metrics.stats.evidence import Collected, Evidence
from models.metrics.stats.frechet import frechet_distance
from models.metrics.stats.moments import Moments
from models.randomness import check_seed, numpy_generator
from models.registry import METRICS, SETS
from models.training import checkpoint
from models.training.distributed import Ranks, process_group
from models.training.places import anywhere
from models.training.sources import held_out, request_of
from models.version import __version__

INCEPTION = "inception"
STATISTICS = ".safetensors"
REPORT = "evaluation.json"
UNTOLD = {"label": "classes in turn", "identity": "identities in turn", "attributes": "no attributes"}  # by models that nobody tells
LOOKS = {"moments", "features", "logits"}  # what only a feature network can tell


# --- the two entry points ---------------------------------------------------------------------------------------------------------------


def fid(
    a: str | os.PathLike[str], b: str | os.PathLike[str], *, save_stats: str | os.PathLike[str] | None = None, **settings: Any
) -> dict[str, Any]:
    """The Fréchet distance of two sides in a feature space.

    Args:
        a, b: each a folder of images, a data set (`mnist:test`), a run or checkpoint (it is sampled), or a file of saved statistics.
        save_stats: write the statistics of `a` there, so that they need not be computed again.
        settings: fields of `EvaluationConfig`.

    Returns a JSON-able dictionary: `fid`, both sides with their counts, the recipe. Raises UserError.
    """
    how = _settings(settings)
    device = pick(how.device)
    settle(device)
    with process_group(device) as ranks:
        looker = _Looker(how, ranks)
        sides = [looker.side(os.fspath(a)), looker.side(os.fspath(b))]
        looker.refuse_other_features(sides)
        sides = [looker.told_by(*pair) for pair in zip(sides, reversed(sides))]
        found = [looker.statistics(side) for side in sides]
        files.compare_recipes(found[0], found[1])
        if save_stats is not None and ranks.writes:
            files.save(found[0], Path(save_stats))
        for one in found:
            looker.warn_if_few(one.source, one.moments.count, one.moments.dimensions)
        described = [
            {"name": printable(one.source), "images": one.moments.count, "first_image": _shape_of(side)} for side, one in zip(sides, found)
        ]
        return {
            "fid": frechet_distance(found[0].moments, found[1].moments),
            "a": described[0],
            "b": described[1],
            "recipe": {**found[0].recipe, **looker.of_all()},
            "warnings": looker.warnings,
        }


def evaluate(
    run: str | os.PathLike[str],
    *,
    data: str | None = None,
    metrics: Sequence[str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure a run's samples against a data set.

    Args:
        run: a run's folder, or a checkpoint file.
        data: what to compare with, and to reconstruct; by default the run's training data, and for reconstructions their test split.
        metrics: names of `models.metrics`; None: all that the run allows.
        options: metric -> fields of its Config.
        settings: fields of `EvaluationConfig`.

    Returns a JSON-able dictionary: `metrics` (name -> values), `not_for_this_model` and `not_measured` (name -> reason; the latter is for
    metrics that nobody named and that lack images), the recipe. Raises UserError, also where a metric that `metrics` names lacks images.
    """
    how = _settings(settings)
    chosen = [METRICS.find(name) for name in metrics] if metrics is not None else list(METRICS.entries().values())
    if not chosen:
        raise UserError("no metric is named", "metrics", f"known: {', '.join(METRICS.entries())}")
    modules = {entry.name: entry.module() for entry in chosen}
    options = {METRICS.find(name).name: given for name, given in (options or {}).items()}
    configs = {name: check(module.Config, options.get(name, {}), f"--set {name}") for name, module in modules.items()}
    if stray := sorted(set(options) - set(modules)):
        raise UserError("options for a metric that is not measured", f"--set {stray[0]}", nearest(stray[0], modules))
    device = pick(how.device)
    settle(device)
    with process_group(device) as ranks:
        looker = _Looker(how, ranks)
        trained = api.load(run, device=how.device, raw=how.raw)
        evidence = Evidence(None, None, how.seed, trained, count=how.number)
        if how.features != INCEPTION:  # what is no metric of this run should be said before Inception's weights are fetched
            evidence = dataclasses.replace(evidence, features=looker.features)
        lacking = _lacking(modules, evidence, metrics is not None)
        needs = _needs(modules, lacking)
        if looks := bool({need.rpartition(".")[2] for need in needs} & LOOKS):
            evidence = dataclasses.replace(evidence, features=looker.features)
            lacking = _lacking(modules, evidence, metrics is not None)
            needs = _needs(modules, lacking)
        asked = {name: module for name, module in modules.items() if name not in lacking}
        wanted = {side: {need.partition(".")[2] for need in needs if need.startswith(f"{side}.")} for side in ("real", "generated")}
        real = None
        sampled = any(map(_samples, needs))
        if wanted["real"] or needs & {"held_out", "training"} or (sampled and trained.condition is not None):
            config = _config_for(trained, data, how)
            with ranks.first_alone():
                real = load_data(_request_for(trained, config))
                if "held_out" in needs:
                    evidence = dataclasses.replace(evidence, held_out=looker.held_out(config, trained, real, data))
                if "training" in needs:
                    evidence = dataclasses.replace(evidence, training=looker.training(trained, real))
            if sampled:
                trained = looker.told(trained, real, real.name)
                evidence = dataclasses.replace(evidence, trained=trained)
            for path, reason in real.bad[:1]:
                looker.warn(f"{len(real.bad):,} images of {printable(real.name)} were left out, the first is {printable(path)} ({reason})")
        images = {}
        if wanted["generated"]:
            samples = SampledSource(trained, how.number, how.seed, api.name_of(run))
            evidence = dataclasses.replace(evidence, generated=looker.collect(samples, wanted["generated"], samples.labels))
            images["generated"] = how.number
        if wanted["real"]:
            assert real is not None
            shown = told.of_all(trained.model, real) if "labels" in wanted["real"] else None
            labels = None if shown is None else shown.values
            seen = labels is not None and "logits" in wanted["real"] and looker.learned_from(real)
            evidence = dataclasses.replace(evidence, real=looker.real(real, wanted["real"], labels), seen=seen)
            images |= {"real": len(real), "real_kept": min(how.number, len(real))}
        if evidence.held_out is not None:
            images["reconstructed"] = min(how.number, len(evidence.held_out))
        for side, need in (("real", "real.moments"), ("generated", "generated.moments"), ("reconstructed", "held_out")):
            if need in needs:
                looker.warn_if_few(f"{side} images", images[side], looker.features.dimensions)
        values, unmeasured = _measured(asked, evidence, configs, named=metrics is not None)
        for name, reason in unmeasured.items():
            looker.warn(f"{name} is not measured: {reason}")
        return {
            "run": str(run),
            "checkpoint": str(trained.header.path),
            "images_seen": trained.header.images,
            "data": None if real is None else printable(real.name),
            "reconstructed": None if evidence.held_out is None else printable(evidence.held_out.name),
            "metrics": values,
            "not_for_this_model": lacking,
            "not_measured": unmeasured,
            "recipe": {
                **(looker.features.recipe() if looks else {}),
                "images": images,
                **looker.of_all(),
                "options": {name: dataclasses.asdict(configs[name]) for name in values},
            },
            "warnings": looker.warnings,
        }


# --- what the command line says ---------------------------------------------------------------------------------------------------------


def parse_metrics(text: str | None) -> list[str] | None:
    """``"fid,kid"`` as names that exist; None stays None. Raises UserError with the nearest match."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError("no metric is named", "--metrics", f"known: {', '.join(METRICS.entries())}")
    return [METRICS.find(name).name for name in names]


def parse_options(assignments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``["kid.subset=500"]`` as metric -> typed fields of its Config. Raises UserError."""
    found: dict[str, dict[str, Any]] = {}
    for text in assignments:
        name, dot, rest = text.partition(".")
        if not dot or "=" in name or "=" not in rest:
            raise UserError(f"{printable(text, 80)!r} is not METRIC.KEY=VALUE", "--set", "write it as --set kid.subset=500")
        entry = METRICS.find(name.strip())
        found.setdefault(entry.name, {}).update(parse_assignments(entry.module().Config, [rest], f"--set {entry.name}"))
    return found


def report_path(run: str | os.PathLike[str], path: Path | None = None) -> Path:
    """Where the report of a run goes: `path`, or the run's folder, or beside its checkpoint file. Raises UserError where that cannot be."""
    where = Path(run)
    target = path or (where / REPORT if where.is_dir() else where.with_name(f"{where.stem}-{REPORT}"))
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK) or target.is_dir():
        raise UserError("the report cannot be written there", target, "name another file with -o, in a folder that exists and is writable")
    return target


def write_report(found: Mapping[str, Any], run: str | os.PathLike[str], path: Path | None = None) -> Path:
    """`found` as JSON under `report_path`. Appears complete or not at all."""
    target = report_path(run, path)
    text = json.dumps(found, indent=2, allow_nan=False) + "\n"
    with atomic_file(target) as file:
        file.write(text.encode())
    return target


# --- sides ------------------------------------------------------------------------------------------------------------------------------


class SampledSource:
    """The samples 0 to `count` - 1 of a run: image i depends on the seed and on i alone. A network draws them, so one thread at a time."""

    parallel = False

    def __init__(self, trained: api.Trained, count: int, seed: int, name: str) -> None:
        trained.sample_blocks(count, seed)  # draws nothing yet, but raises where nothing can be drawn
        self.trained, self.count, self.seed, self.name = trained, count, seed, name

    def __len__(self) -> int:
        return self.count

    def load(self, start: int, stop: int) -> Sequence[np.ndarray]:
        return list(self.trained.sample(stop - start, self.seed, start))

    @property
    def labels(self) -> Tensor | None:
        """What each sample was asked to show, or None for a model without condition."""
        told = self.trained.in_turn(range(self.count))
        return None if told is None else told.values


@dataclass(frozen=True)
class Some:
    """Some images of a data set, by their indices (N,)."""

    of: ItemSource
    indices: np.ndarray
    parallel: bool = True

    @property
    def name(self) -> str:
        return self.of.name

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, start: int, stop: int) -> Sequence[np.ndarray]:
        return list(self.of.data.rows("image", self.indices[start:stop]))


Side: TypeAlias = SampledSource | FolderSource | ItemSource | files.Statistics


class _Looker:
    """Reads sides through one feature network, which is opened when the first image needs it."""

    def __init__(self, how: EvaluationConfig, ranks: Ranks) -> None:
        self.how, self.ranks, self.warnings, self.conditions = how, ranks, list[str](), list[str]()
        self._features: Features | None = None

    @property
    def features(self) -> Features:
        if self._features is None:
            with self.ranks.first_alone():
                self._features = open_features(self.how)
        return self._features

    def warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)
            if self.ranks.writes:
                self.how.warn(message)

    def warn_if_few(self, name: str, count: int, dimensions: int) -> None:
        if count <= dimensions:
            self.warn(
                f"{printable(name)}: {count:,} images for {dimensions:,} features: the covariance is not known, the FID is biased upwards; "
                "KID is the better choice (lgm evaluate --metrics kid)"
            )

    # what a side is

    def side(self, text: str) -> Side:
        """What `text` names. Raises UserError."""
        how, path = self.how, Path(text).expanduser()
        if path.is_file() and path.suffix == STATISTICS and files.is_statistics(path):
            return files.read(path)
        if path.is_file() or (path / checkpoint.FOLDER).is_dir():
            return SampledSource(api.load(path, device=how.device, raw=how.raw), how.number, how.seed, api.name_of(path))
        request = parse(text, root=Path(how.data_root) if how.data_root else None, background=how.background, skip_bad=how.skip_bad)
        with self.ranks.first_alone():
            if request.name in SETS.entries() or request != request.plain:
                return ItemSource(load_data(request))
            source = FolderSource(request)
        for note in source.notes:
            if "skipped" in note:
                self.warn(f"{printable(source.name)}: {note}")
        return source

    def refuse_other_features(self, sides: Sequence[Side]) -> None:
        """Raise UserError where saved statistics are of another kind of network than the one asked for, before that one is fetched."""
        saved = [side for side in sides if isinstance(side, files.Statistics)]
        kind = self.how.features.partition(":")[0]
        for side in saved if len(saved) < len(sides) else ():
            if side.recipe.get("name") != kind:
                what = f"made by different recipes: name is {side.recipe.get('name')!r} in the statistics, {kind!r} here"
                raise UserError(what, side.source, "give --features as it was when they were saved, or compute them again")

    def held_out(self, config: RunConfig, trained: api.Trained, real: Items, named: str | None) -> Items:
        """What is to be reconstructed: the images that `--data` names, else the run's test split, else its training images."""
        if named is not None:
            if real.name == trained.header.config.data or real.fingerprint() == trained.header.fingerprint:
                self.warn(f"the run was trained on {printable(real.name)} itself, so training images are reconstructed")
            return real
        try:
            return held_out(config, trained.model, real)
        except UserError as error:
            self.warn(f"there are no held-out images, so training images are reconstructed ({error.what}: {error.where})")
            return real

    def training(self, trained: api.Trained, real: Items) -> Items:
        """What the run was trained on, or, where that is not at hand, what it is compared with."""
        config = _config_for(trained, None, self.how)
        if real.name == config.data:
            return real
        try:
            return load_data(_request_for(trained, config, download=False))
        except UserError as error:
            what = "the run's training images are not at hand, so principal components are fitted to the images that they reconstruct"
            self.warn(f"{what} ({error.what}: {error.where})")
            return real

    def learned_from(self, real: Items) -> bool:
        """Whether the classifier that judges the real images was trained on them; with a warning."""
        seen = isinstance(self.features, ClassifierFeatures) and self.features.learned_from(real)
        if seen:
            self.warn(
                f"the classifier has learned from {printable(real.name)} itself: what it says of them is no ceiling for samples; "
                "compare with others (--data NAME:test)"
            )
        return seen

    # what a conditional model is asked for

    def told(self, trained: api.Trained, data: Items | FolderSource | None, name: str) -> api.Trained:
        """A model whose samples are compared with `data`, asked for what these show: other frequencies would count as other images.

        The order is drawn apart from that of `real`: samples that were paired with single real images would seem nearer than they are.
        """
        kind = trained.condition
        if kind is None:
            return trained
        if data is not None:
            trained = trained.like(data, self.how.seed)
        shown = f"drawn from {printable(name)}, seed {self.how.seed}"
        if trained.examples is None:
            shown = UNTOLD[kind]
            self.warn(f"{printable(name)} has no {kind} like the run's, so samples show {shown}")
        self.conditions.append(shown)
        return trained

    def told_by(self, side: Side, other: Side) -> Side:
        """`side`; where it samples a conditional model, that is told by the labels of the other side, if it has any."""
        if not isinstance(side, SampledSource):
            return side
        data = other if isinstance(other, FolderSource) else other.data if isinstance(other, ItemSource) else None
        trained = self.told(side.trained, data, other.source if isinstance(other, files.Statistics) else other.name)
        return SampledSource(trained, side.count, side.seed, side.name)

    def of_all(self) -> dict[str, Any]:
        """What belongs to the recipe besides the features."""
        asked = {"conditions": "; ".join(dict.fromkeys(self.conditions))} if self.conditions else {}
        return {"seed": self.how.seed, **asked, "weights": "raw" if self.how.raw else "average", "lgm": __version__}

    # what is seen of it

    def statistics(self, side: Side) -> files.Statistics:
        """A side's moments; those of data sets and folders come from the cache where they are there."""
        if isinstance(side, files.Statistics):
            return side
        recipe = self.features.recipe()
        if isinstance(side, SampledSource):
            return files.Statistics(self._moments(side), recipe, side.name)
        key = self._key(side)
        moments = self._kept(key)
        if moments is None:
            moments = self._moments(side)
            if moments.count == len(side):
                self._keep(key, moments, side.name)
        if isinstance(side, FolderSource) and moments.count < len(side):
            named = next((f", the first is {printable(path)} ({reason})" for path, reason in self._all(list(side.bad))), "")
            self.warn(f"{len(side) - moments.count:,} of {len(side):,} images of {printable(side.name)} were left out{named}")
        return files.Statistics(moments, recipe, side.name)

    def real(self, data: Items, wants: Iterable[str], labels: Tensor | None) -> Collected:
        """The images that samples are compared with: the moments of all, from the cache where they are there; all else of at most `number`.

        Those are looked at first, by themselves, so that their features are the same whether or not the moments had to be computed.
        """
        source = ItemSource(data)
        order = numpy_generator(self.how.seed, "evaluate", len(source)).permutation(len(source))
        few, rest = (Some(source, np.sort(part)) for part in (order[: self.how.number], order[self.how.number :]))
        key = self._key(source) if "moments" in wants else ""
        moments = self._kept(key) if "moments" in wants else None
        missing = {"moments"} if "moments" in wants and moments is None else set()
        single = set(wants) - {"moments", "labels"}
        seen = self.collect(few, single | missing, None if labels is None else labels[torch.from_numpy(few.indices)])
        if missing:
            moments = seen.moments
            assert moments is not None
            if len(rest):
                moments.merge(self._moments(rest))
            self._keep(key, moments, source.name)
        return dataclasses.replace(seen, count=len(source), moments=moments)

    def collect(self, source: Source, wants: Iterable[str], labels: Tensor | None = None) -> Collected:
        """One pass over all images of a source, shared among the ranks. `wants`: among moments, features, logits, sharpness."""
        wants, ranks = set(wants), self.ranks
        if not wants - {"labels"}:
            return Collected(len(source), labels=labels)
        features = self.features if wants & LOOKS else _Blind()
        moments = Moments(features.dimensions) if "moments" in wants else None
        parts: dict[str, list[Tensor]] = {name: [] for name in ("features", "logits", "sharpness") if name in wants}
        done, mine = 0, len(source) * (ranks.rank + 1) // ranks.world - len(source) * ranks.rank // ranks.world
        for block in extract(source, features, self.how.batch, self.how.workers, ranks.rank, ranks.world):
            if moments is not None:
                moments.add(block.features)
            if "features" in wants:
                parts["features"].append(block.features)
            if "logits" in wants:
                parts["logits"].append(block.logits)
            if "sharpness" in wants:
                parts["sharpness"].append(torch.as_tensor(laplacian_variance(block.images)))
            done += len(block.images)
            if ranks.writes:
                self.how.progress(source.name, done, mine)
        if moments is not None:
            moments.reduce()
        whole = {name: torch.cat(self._all([torch.cat(part)] if part else [])) for name, part in parts.items()}
        sharpness = whole.pop("sharpness", None)
        return Collected(len(source), moments, **whole, labels=labels, sharpness=None if sharpness is None else float(sharpness.mean()))

    def _moments(self, source: Source) -> Moments:
        moments = self.collect(source, {"moments"}).moments
        assert moments is not None
        return moments

    def _all(self, mine: list[Any]) -> list[Any]:
        """The ranks' lists in rank order, as one. Every rank must call it."""
        if self.ranks.world == 1:
            return mine
        lists: list[Any] = [None] * self.ranks.world
        torch.distributed.all_gather_object(lists, mine)
        return [item for one in lists for item in one]

    # the cache

    def _key(self, source: FolderSource | ItemSource) -> str:
        return cache.key(source.fingerprint(), self.features.recipe()) if self.how.cached else ""

    def _kept(self, key: str) -> Moments | None:
        """The moments in the cache, where every rank finds them: one that does not must not look at its share alone."""
        found = cache.read(key, self.warn) if key else None
        return None if self.ranks.any(int(found is None)) or found is None else found.moments

    def _keep(self, key: str, moments: Moments, name: str) -> None:
        if key and self.ranks.writes:
            cache.write(key, files.Statistics(moments, self.features.recipe(), name), self.warn)
        self.ranks.barrier()


class _Blind:
    """Features of length 0, for passes that need no network."""

    name, digest, dimensions, classes = "none", "", 0, 0

    def recipe(self) -> dict[str, Any]:
        return {}

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        return torch.empty(len(images), 0)

    def apply(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        return batch, batch

    def look(self, images: Tensor) -> Tensor:
        return torch.empty(len(images), 0)


def open_features(how: EvaluationConfig) -> Features:
    """The network that `how.features` names. Raises UserError where it cannot be had."""
    name, _, run = how.features.partition(":")
    if name == INCEPTION and not run:
        return InceptionFeatures(how.weights, resize=how.resize, precision=how.precision, device=pick(how.device))
    if name != "classifier" or not run:
        raise UserError(
            f"unknown features {how.features!r}", "--features", "use inception, or classifier:RUN with a run of `lgm train classifier`"
        )
    if how.weights is not None:
        raise UserError("a classifier has its own weights", f"--weights {how.weights}", "leave --weights out, or give --features inception")
    trained = api.load(run, device=how.device)
    if not isinstance(trained.model, Classifies):
        raise UserError(
            f"a {trained.header.model} classifies nothing", f"--features {how.features}", "give a run of `lgm train classifier`"
        )
    config = trained.header.config
    learned = {"data": config.data, "fingerprint": trained.header.fingerprint}
    return ClassifierFeatures(trained.model, how.features, fit=config.fit, background=config.background, **learned)


def _config_for(trained: api.Trained, data: str | None, how: EvaluationConfig) -> RunConfig:
    """The run's configuration with the data that it is to be compared with."""
    config = trained.header.config
    return dataclasses.replace(
        config,
        data=anywhere(data) if data else config.data,
        data_root=how.data_root or config.data_root,
        skip_bad=config.skip_bad or how.skip_bad,
    )


def _request_for(trained: api.Trained, config: RunConfig, download: bool = True) -> DataRequest:
    """What the leading source of that configuration asks for, in the model's shape."""
    return in_shape(request_of(config, download=download), trained.header.spec.size, trained.header.spec.channels)


def _shape_of(side: Side) -> str | None:
    """Size and colour of a side's first image, in words; None where it is not at hand."""
    if isinstance(side, files.Statistics):
        return None
    if isinstance(side, SampledSource):
        channels, height, width = side.trained.header.spec.shape
    else:
        first = side.load(0, 1)
        if not len(first):
            return None
        height, width, channels = first[0].shape
    return f"{width}x{height} {'grey' if channels == 1 else 'colour'}"


# --- what can be measured ---------------------------------------------------------------------------------------------------------------


def _lacking(modules: Mapping[str, Any], evidence: Evidence, named: bool) -> dict[str, str]:
    """Metric -> why it is none for this model. Raises UserError where that leaves nothing to measure."""
    found = {name: reason for name, module in modules.items() if (reason := _lacks(module, evidence))}
    if len(found) == len(modules):
        name, reason = next(iter(found.items()))
        where = f"--metrics {name}" if named else evidence.trained.header.path
        raise UserError(f"not for this model: {reason}", where, "choose other metrics, or another run")
    return found


def _lacks(module: Any, evidence: Evidence) -> str:
    """Why a metric cannot be measured here, or nothing."""
    if any(map(_samples, module.NEEDS)):
        if not isinstance(evidence.trained.model, Samples):
            return "it cannot sample"
        try:
            evidence.trained.sample_blocks(1)
        except UserError as error:
            return error.what
    return module.lacks(evidence) if hasattr(module, "lacks") else ""


def _samples(need: str) -> bool:
    """Whether samples have to be drawn for it."""
    return need == "sample" or need.startswith("generated.")


def _needs(modules: Mapping[str, Any], lacking: Mapping[str, str]) -> set[str]:
    return {need for name, module in modules.items() if name not in lacking for need in module.NEEDS}


def _measured(
    modules: Mapping[str, Any], evidence: Evidence, configs: Mapping[str, Any], named: bool
) -> tuple[dict[str, dict[str, float | None]], dict[str, str]]:
    """Metric -> its values; and, unless the user named the metrics, metric -> why it could not be measured."""
    values: dict[str, dict[str, float | None]] = {}
    failed: dict[str, str] = {}
    for name, module in modules.items():
        try:
            found = module.measure(evidence, configs[name])
        except UserError as error:
            if named:
                raise
            failed[name] = f"{error.what}; {error.fix}"
        else:
            values[name] = {key: _finite(value) for key, value in found.items()}
    return values, failed


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _settings(given: Mapping[str, Any]) -> EvaluationConfig:
    known = {field.name for field in dataclasses.fields(EvaluationConfig)}
    if unknown := sorted(set(given) - known):
        raise UserError(f"unknown setting {unknown[0]!r}", "evaluation", nearest(unknown[0], known))
    how = EvaluationConfig(**{key: value for key, value in given.items() if value is not None})
    if how.number < 1:
        raise UserError(f"{how.number} images", "-n", "ask for 1 or more")
    for name, value, choices in (("resize", how.resize, RESIZES), ("precision", how.precision, PRECISIONS)):
        if value not in choices:
            raise UserError(f"unknown {name} {value!r}", f"--{name}", nearest(value, choices))
    check_seed(how.seed)
    return how
