"""A run's data: what each source is asked for, loading them, and the test split that belongs to them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from models.base import DataSpec, LatentModel
from models.config import RunConfig
from models.data.batches import spec_of
from models.data.clauses import in_shape
from models.data.dataset import DataRequest
from models.data.items import Chosen, Items, Joined, Unlabelled, View
from models.data.load import load, parse
from models.data.packed.read import Packed
from models.errors import UserError, printable
from models.randomness import numpy_generator
from models.training.build import source_of


def asked_for(cls: type[LatentModel], data: str | Mapping[str, str] | None, parts: Mapping[str, str], model: str) -> dict[str, str]:
    """What each source of a run is asked for: as said, or the data of its part, or those of the source that it draws from again.

    `parts` are the data that each part's own run was trained on; messages call the model `model`.
    """
    said = by_name(cls, data, model)
    for name, text in parts.items():
        said.setdefault(source_of(cls, name), text)
    for name, whose in cls.draws.items():
        if whose in said:
            said.setdefault(name, said[whose])
    if missing := [name for name in cls.sources if name not in said]:
        prefix = f"{missing[0]}=" if len(cls.sources) > 1 else ""
        raise UserError("--data is missing", f"lgm train {model}", f"give --data {prefix}DATA")
    return said


def by_name(cls: type[LatentModel], data: str | Mapping[str, str] | None, model: str) -> dict[str, str]:
    """What was said of the sources, by their names; of the leading one also without. Raises UserError for one that the model has not."""
    said, leading = ({"": data} if isinstance(data, str) else dict(data or {})), cls.sources[0]
    if "" in said and leading in said:
        raise UserError(f"two --data for {leading}, which needs no name", f"--data {said['']}", "give one of them")
    if "" in said:
        said[leading] = said.pop("")
    for name in said:
        if name not in cls.sources:
            fix = f"its sources are {', '.join(cls.sources)}" if len(cls.sources) > 1 else f"give {model} one data set: --data DATA"
            raise UserError(f"this model has no source {printable(name)!r}", f"--data {printable(name)}=", fix)
    return said


def paired(text: str, clause: str) -> str:
    """What a leading source is asked for, with the clause by which a model makes pairs of it. Raises UserError where it has others."""
    if not clause:
        return text

    rule, _, value = clause.partition("=")

    def one(request: DataRequest) -> DataRequest:
        pairs = [f"{key}={value}" for key, value in request.clauses if key in ("input", "target")]
        if pairs and pairs != [clause]:
            raise UserError(f"these data are pairs already ({printable(pairs[0])})", f"--data {printable(text)}", "give --task pairs")
        return request if pairs else dataclasses.replace(request, clauses=(*request.clauses, (rule, value)))

    return str(parse(text).each(one))


def texts(config: RunConfig, cls: type[LatentModel]) -> dict[str, str]:
    """What each source is asked for, by its name, the leading one first."""
    return {name: config.data if name == cls.sources[0] else config.sources[name] for name in cls.sources}


def request_of(config: RunConfig, text: str | None = None, download: bool = True) -> DataRequest:
    """What the leading source of a run asks for, or what a text asks for in its place."""
    return parse(
        config.data if text is None else text,
        root=Path(config.data_root) if config.data_root else None,
        size=config.size,
        fit=config.fit,
        channels=config.channels,
        background=config.background,
        skip_bad=config.skip_bad,
        workers=config.workers,
        download=download,
    )


def load_all(
    config: RunConfig, cls: type[LatentModel], shapes: Mapping[str, DataSpec], download: bool = True
) -> tuple[Items, dict[str, Items]]:
    """The leading source of a run and the others by name; what is asked for twice is read once.

    `shapes` say how large, and of how many channels, the images of a further source have to be, where that is not as the run's options say.
    """
    loaded: dict[DataRequest, Items] = {}
    found = {}
    for name, text in texts(config, cls).items():
        request = request_of(config, text, download)
        if name in shapes and name != cls.sources[0]:
            request = in_shape(request, shapes[name].size, shapes[name].channels)
        whole = loaded[request] = loaded.get(request) or load(request)
        learned = config.held_out and text == config.data  # a second draw of the same data must not see what is kept back
        if name in cls.unlabelled and text != config.data:  # whoever names further images means that nothing is said of them
            whole = Unlabelled(whole)
        found[name] = Learned(whole, config) if learned else whole
    return found.pop(cls.sources[0]), found


class Learned(Chosen):
    """What a run learns from, where it keeps a share of its data back (`rest`): which items these are depends on its seed."""

    def __init__(self, of: Items, config: RunConfig) -> None:
        order = numpy_generator(config.seed, "held out").permutation(len(of))
        kept = max(round(len(of) * config.held_out), 1)
        if kept >= len(of):
            raise UserError(f"{len(of)} images, {config.held_out:.0%} kept back", config.data, "keep fewer back (--held-out)")
        super().__init__(of, np.sort(order[kept:]), of.name)
        self.rest = Chosen(of, np.sort(order[:kept]), f"{of.name}, {config.held_out:.0%} kept back")


def held_out(config: RunConfig, model: LatentModel, data: Items) -> Items:
    """What a run that trains on `data` is measured on, in the model's shape: the share that it keeps back, else the test split of its data.

    Raises UserError where there is none, where it overlaps with `data`, and where its labels are not those that the model needs.
    """
    if config.held_out:
        return (data if isinstance(data, Learned) else Learned(data, config)).rest
    request, spec = request_of(config), model.spec
    if any(one.split != "train" for one in (request, *request.joined)):
        raise UserError("it trains on the test split itself", config.data)
    found = load(in_shape(request.everywhere(split="test").each(_without_counts), spec.size, spec.channels))
    if not _made_from(found).isdisjoint(_made_from(data)):
        raise UserError("the test images are among the training images", found.name)
    theirs = spec_of(found)
    own = {key for key in model.needs if "." not in key}
    if lacking := own - theirs.provides:
        raise UserError(f"the test images have no {', '.join(sorted(lacking))}", found.name)
    if other := other_names(own, theirs, spec):
        raise UserError(f"the test images have other {', '.join(other)}", found.name)
    return found


def other_names(keys: Iterable[str], found: DataSpec, expected: DataSpec) -> list[str]:
    """Which of the fields that a model needs have other names in these data, so that their labels mean other things."""
    other = []
    for key in sorted(keys):
        source, dot, name = key.rpartition(".")
        now, before = (spec[source] if dot else spec for spec in (found, expected))
        if now.names(name) != before.names(name):
            other.append("classes" if key == "label" else key)
    return other


def _without_counts(request: DataRequest) -> DataRequest:
    """One set of a request without its clauses `first` and `last`: how many items to train on says nothing of the others."""
    return dataclasses.replace(request, clauses=tuple(clause for clause in request.clauses if clause[0] not in ("first", "last")))


def _made_from(items: Items) -> set[object]:
    """What tells the images of two sets apart: the files that they are decoded from, or the content of the shards that they lie in."""
    if isinstance(items, Packed):
        return {shard.sha256 for shard in items.manifest.shards}
    if isinstance(items, Joined):
        return set().union(*map(_made_from, items.sets))
    if isinstance(items, View) and not items.files:
        return _made_from(items.of)
    return set(_on_disk(items.files))


def _on_disk(files: Iterable[str]) -> set[tuple[int, int]]:
    """What tells files apart whatever they are called: two links may lead to one image."""
    return {(found.st_dev, found.st_ino) for found in map(os.stat, files)}
