"""From what a user says to a plan: the complete configuration, data and parts of a run. Nothing is written here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from warnings import catch_warnings, filterwarnings

import torch

from models.base import DataSpec, LatentModel
from models.config import Preset, RunConfig, check
from models.data.batches import spec_of
from models.data.items import Items
from models.errors import UserError, nearest
from models.registry import MODELS, model_class
from models.training import sources
from models.training.build import build, source_of
from models.training.checkpoint import PartHeader
from models.training.parts import Taken, shown, take_all
from models.training.places import absolute, anywhere

CADENCES = {"log_every": 500, "sample_every": 20, "save_every": 10}  # how often in a run, where nobody says
HAVING = {  # batch key -> data that have it, for someone whose data do not
    "label": "--data glyphs, or a folder with a sub-folder for each class",
    "attributes": "--data faces",
    "factors": "--data faces",
    "identity": "--data faces",
    "target": "--data 'FOLDER[target=OTHER]', or --data 'mnist[input=small:4]'",
}


@dataclass(frozen=True)
class Asked:
    """A run as it was asked for, checked as far as that goes without its data: a bad number should not wait for them.

    Attributes:
        cls: the model.
        values: fields of RunConfig; cadences, and images where `epochs` are asked for, follow from the number of items.
        said: what the leading source was asked for, in the user's words.
        parts: the runs that it is built around, by the parts' names.
    """

    cls: type[LatentModel]
    values: Mapping[str, Any]
    said: str
    epochs: float | None
    parts: Mapping[str, Taken]
    download: bool


class Plan(NamedTuple):
    """A run before it begins.

    Attributes:
        config: the full configuration.
        data: the leading source; others: the further ones, by name.
        parts: the runs that it is built around, by the parts' names.
    """

    config: RunConfig
    data: Items
    others: Mapping[str, Items]
    parts: Mapping[str, Taken]

    @property
    def spec(self) -> DataSpec:
        return spec_of(self.data, self.others)

    @property
    def headers(self) -> dict[str, PartHeader]:
        """What the run's checkpoints say of its parts."""
        return {name: taken.header for name, taken in self.parts.items()}


def ask(
    model: str,
    data: str | Mapping[str, str] | None = None,
    *,
    preset: str = "default",
    options: Mapping[str, Any] | None = None,
    epochs: float | None = None,
    download: bool = True,
    **settings: Any,
) -> Asked:
    """The arguments of `models.api.plan`, made complete with the preset and with what the parts say."""
    cls = model_class(model)
    chosen = _preset(cls, preset, model)
    given = {key: value for key, value in settings.items() if value is not None}
    parts = take_all(cls, given.get("parts") or {}, options or {})
    texts = sources.asked_for(cls, data, {name: taken.config.data for name, taken in parts.items()}, model)
    leading, *further = cls.sources
    values = {"images": chosen.images, "batch": chosen.batch, **shown(cls, parts, texts[leading]), **given}
    values |= {"model": MODELS.find(model).name, "preset": preset, "options": {}}
    values |= {"sources": {name: anywhere(texts[name]) for name in further}}
    values |= absolute(values)
    check(RunConfig, {**values, "data": ""}, "train")
    if epochs is not None and not 0 < epochs <= 1e6:
        raise UserError(f"{epochs:g} epochs", "--epochs", "give a number above 0, up to 1,000,000")
    config = check(cls.Config, {**chosen.options, **(options or {})}, "--set")
    values |= {"options": dataclasses.asdict(config), "data": anywhere(sources.paired(texts[leading], cls.pairs_by(config)))}
    return Asked(cls, values, texts[leading], epochs, parts, download)


def complete(asked: Asked) -> Plan:
    """The plan of a run, once its data were loaded. Raises UserError where they do not fit the model."""
    values = dict(asked.values)
    shapes = {source_of(asked.cls, name): taken.header.spec for name, taken in asked.parts.items()}
    data, others = sources.load_all(check(RunConfig, values, "train"), asked.cls, shapes, asked.download)
    if len(data) < values["batch"]:
        raise UserError(f"{len(data)} images, batch {values['batch']}", asked.said, f"use --batch {len(data)} or less")
    if asked.epochs is not None:
        values["images"] = max(1, round(asked.epochs * len(data)))
    for cadence, times in CADENCES.items():
        values.setdefault(cadence, max(values["batch"], values["images"] // times))
    made = Plan(check(RunConfig, values, "train"), data, others, asked.parts)
    _check_fits(made)
    return made


def _check_fits(made: Plan) -> None:
    """Build the model without memory. Raises UserError where that cannot be done around its parts, or the data lack what it needs."""
    config, spec = dataclasses.replace(made.config, compile=False), made.spec
    with torch.device("meta") as meta, catch_warnings():  # what a model needs may depend on its options and on the data
        filterwarnings("ignore", "Initializing zero-element tensors")  # a layer for 0 classes: the message below says it
        bare = build(config, spec, meta, made.headers)
    lacking = bare.needs.union(*(stage.needs for stage in bare.stages() if stage.needs)) - spec.provides
    if lacking:
        have = ", ".join(sorted(spec.provides))
        words = "; ".join(f"{key}: {HAVING.get(key.rpartition('.')[2], key)}" for key in sorted(lacking))
        fix = f"choose data that have them ({words})"
        raise UserError(f"{config.model} needs {', '.join(sorted(lacking))}, these data have {have}", config.data, fix)


def _preset(cls: type[LatentModel], name: str, model: str) -> Preset:
    if name not in cls.presets:
        raise UserError(f"{model} has no preset {name!r}", "--preset", nearest(name, cls.presets))
    return cls.presets[name]
