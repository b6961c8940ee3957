"""Plan: what is asked of an evaluation, and what of it can be measured - from words, headers and models alone.

Nothing is decoded or sampled here. A metric's NEEDS say what is collected for it: `real.` or `generated.` followed by `moments`,
`features`, `logits`, `labels` or `sharpness` (of the samples, or of the images that they are compared with); `features`, the network
itself; `held_out`, images that the run was not trained on; `training`, those that it was trained on; `sample`, a model that samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from models import api
from models.base import Classifies, LatentModel, Samples
from models.config import EvaluationConfig, check, parse_assignments
from models.device import pick, settle
from models.errors import UserError, nearest, printable
from models.metrics.features.base import Features
from models.metrics.features.classifier import ClassifierFeatures
from models.metrics.features.inception import InceptionFeatures
from models.metrics.stats.evidence import Evidence
from models.registry import METRICS
from models.training.distributed import Ranks, process_group

INCEPTION = "inception"
LOOKS = {"moments", "features", "logits"}  # what only a feature network can tell


def settings(given: Mapping[str, Any]) -> EvaluationConfig:
    """The fields of `EvaluationConfig` that are given, the defaults where one is None. Raises UserError."""
    known = {field.name for field in dataclasses.fields(EvaluationConfig)}
    if unknown := sorted(set(given) - known):
        raise UserError(f"unknown setting {unknown[0]!r}", "evaluation", nearest(unknown[0], known))
    said = {key: value for key, value in given.items() if value is not None}
    called = {key: said.pop(key) for key in ("warn", "progress") if key in said}
    return dataclasses.replace(check(EvaluationConfig, said, "evaluation"), **called)


# --- which metrics ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """Metrics by name, each with its options."""

    modules: Mapping[str, Any]
    configs: Mapping[str, Any]  # each metric's Config
    named: bool  # by the user; otherwise they are all that there are, and one that cannot be measured is no error


def choose(metrics: Sequence[str] | None, options: Mapping[str, Mapping[str, Any]] | None) -> Choice:
    """The metrics of these names, or all where that is None; `options` are metric -> fields of its Config. Raises UserError."""
    entries = [METRICS.find(name) for name in metrics] if metrics is not None else list(METRICS.entries().values())
    if not entries:
        raise UserError("no metric is named", "metrics", f"known: {', '.join(METRICS.entries())}")
    modules = {entry.name: entry.module() for entry in entries}
    options = {METRICS.find(name).name: given for name, given in (options or {}).items()}
    configs = {name: check(module.Config, options.get(name, {}), f"--set {name}") for name, module in modules.items()}
    if stray := sorted(set(options) - set(modules)):
        raise UserError("options for a metric that is not measured", f"--set {stray[0]}", nearest(stray[0], modules))
    return Choice(modules, configs, metrics is not None)


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


# --- what looks -------------------------------------------------------------------------------------------------------------------------


class Work:
    """What all steps of an evaluation share: its settings, its ranks and device, the feature network, and what had to be said so far."""

    def __init__(self, how: EvaluationConfig, ranks: Ranks, device: torch.device) -> None:
        self.how, self.ranks, self.device, self.warnings = how, ranks, device, list[str]()

    @cached_property
    def features(self) -> Features:
        """The network that `how` names, opened when it is first asked for: saved statistics need none."""
        with self.ranks.first_alone():
            return open_features(self.how)

    def warn(self, message: str) -> None:
        """Say a sentence, once, on the first rank."""
        if message not in self.warnings:
            self.warnings.append(message)
            if self.ranks.writes:
                self.how.warn(message)


@contextmanager
def working(how: EvaluationConfig) -> Iterator[Work]:
    """Work on the device that `how` names, among the processes of this command."""
    device = pick(how.device)
    settle(device)
    with process_group(device) as ranks:
        yield Work(how, ranks, device)


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
    if not isinstance(trained.model, Classifies) or not trained.model.target:
        raise UserError(
            f"a {trained.header.model} classifies nothing", f"--features {how.features}", "give a run of `lgm train classifier`"
        )
    config = trained.header.config
    learned = {"data": config.data, "fingerprint": trained.header.fingerprint}
    return ClassifierFeatures(trained.model, how.features, fit=config.fit, background=config.background, **learned)


# --- what can be measured ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What is measured of a run.

    Attributes:
        chosen: the metrics that can be measured.
        lacking: metric -> why it is none for this model.
        evidence: what metrics are given before anything is collected: the model, the network where one of them looks through it, the seed.
    """

    chosen: Choice
    lacking: Mapping[str, str]
    evidence: Evidence

    @property
    def needs(self) -> set[str]:
        return {need for module in self.chosen.modules.values() for need in module.NEEDS}

    @property
    def looks(self) -> bool:
        """Whether a feature network has to look at something."""
        return bool({need.rpartition(".")[2] for need in self.needs} & LOOKS)

    @property
    def samples(self) -> bool:
        """Whether samples have to be drawn."""
        return any(map(_sampled, self.needs))

    def wants(self, side: str) -> set[str]:
        """What is needed of a side, `real` or `generated`."""
        return {need.partition(".")[2] for need in self.needs if need.startswith(f"{side}.")}


def of_run(trained: api.Trained, choice: Choice, work: Work) -> Plan:
    """What can be measured of a run. Raises UserError where nothing can.

    What is no metric of this run should be said before Inception's weights are fetched; a classifier is at hand, and asked at once.
    """
    bare = Evidence(None, None, work.how.seed, trained, count=work.how.number)
    early = bare if work.how.features == INCEPTION else dataclasses.replace(bare, features=work.features)
    plan = _allowed(choice, early)
    if not plan.looks:
        return dataclasses.replace(plan, evidence=bare)
    return _allowed(choice, dataclasses.replace(bare, features=work.features))


def _allowed(choice: Choice, evidence: Evidence) -> Plan:
    lacking = {name: reason for name, module in choice.modules.items() if (reason := _lacks(module, evidence))}
    if len(lacking) == len(choice.modules):
        name, reason = next(iter(lacking.items()))
        where = f"--metrics {name}" if choice.named else evidence.trained.header.path
        raise UserError(f"not for this model: {reason}", where, "choose other metrics, or another run")
    left = {name: module for name, module in choice.modules.items() if name not in lacking}
    return Plan(dataclasses.replace(choice, modules=left), lacking, evidence)


def _lacks(module: Any, evidence: Evidence) -> str:
    """Why a metric cannot be measured here, or nothing."""
    if any(map(_sampled, module.NEEDS)):
        model: LatentModel = evidence.trained.model
        if not isinstance(model, Samples):
            return "it cannot sample"
        try:
            check_samples(evidence.trained)
        except UserError as error:
            return error.what
        compared = any(need.startswith("real.") for need in module.NEEDS)
        if compared and model.gives("sample").shape != model.spec.shape:
            return "its samples are no images of its data's size and channels"
    return module.lacks(evidence) if hasattr(module, "lacks") else ""


def check_samples(trained: api.Trained, count: int = 1, seed: int = 0) -> None:
    """Raise UserError where samples cannot be drawn, or not yet, or are no images."""
    trained.sample_blocks(count, seed)  # draws nothing before it is iterated over


def _sampled(need: str) -> bool:
    """Whether samples have to be drawn for it."""
    return need == "sample" or need.startswith("generated.")
