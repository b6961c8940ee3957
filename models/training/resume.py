"""Going on with a run: what may differ from how it began, and what must not."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from models.base import DataSpec, LatentModel
from models.config import RunConfig, check
from models.data.batches import spec_of
from models.data.load import named_sets
from models.device import environment, pick, settle
from models.errors import UserError, printable
from models.registry import model_class
from models.training import checkpoint, claim, loop, sources
from models.training.build import build, fill
from models.training.checkpoint import Header
from models.training.distributed import Ranks, process_group
from models.training.events import Event
from models.training.job import make_job
from models.training.places import absolute, anywhere

Found = tuple[Header, dict[str, torch.Tensor], Sequence[str]]  # a checkpoint, its tensors, and a message about each newer one


def go_on(run: str | os.PathLike[str], *, accept_data: bool, fused: bool, **changes: Any) -> Iterator[Event]:
    """Go on with a run where its newest intact checkpoint stands; see `models.api.resume`."""
    folder = Path(run)
    found = newest(folder)
    device = pick(_changed(found[0], changes, folder).device)
    with process_group(device) as ranks:
        yield from among(ranks, folder, found, accept_data=accept_data, fused=fused, **changes)


def among(ranks: Ranks, folder: Path, found: Found, *, accept_data: bool, fused: bool, **changes: Any) -> Iterator[Event]:
    """The same in a process group that is there already, from what this rank has found in the folder."""
    start, tensors, damaged = found
    assert start.path is not None
    if (named := ranks.from_first(start.path.name)) != start.path.name:  # a folder in the net may look older from here
        start, tensors = _read(start.path.with_name(named))
    config = _changed(start, changes, folder)
    device = pick(config.device)
    settle(device, config.fast)
    warnings = [f"damaged, going on from an older checkpoint: {reason}" for reason in damaged]
    warnings += _inexact(start, config, environment(device, ranks.world, config.fast))
    with ranks.first_alone():
        if ranks.writes:
            claim.check_free(folder)
        data, others = sources.load_all(config, model_class(start.model), start.spec.others)
    now = spec_of(data, others)
    _check_shapes(start, config, now)
    model = build(config, start.spec, device, start.parts, start)
    _check_names(model, config, now)
    fill(model, tensors, start)
    more: dict[str, Any] = {"start": start, "tensors": tensors, "fused": fused, "parts": start.parts}
    job = make_job(config, model, data, others, folder, device, ranks, warnings, **more)
    other = _other_content(start, job, accept_data)
    yield from loop.train(dataclasses.replace(job, warnings=(*job.warnings, *other)))


def newest(run: Path) -> Found:
    """The newest intact checkpoint, its tensors, and a message about each newer one."""
    if not run.is_dir():
        raise UserError("no such run", run, "give the folder that `lgm train` wrote")
    start, tensors, damaged = checkpoint.newest_valid(run)
    checkpoint.check_belongs(start, run)
    if not set(model_class(start.model).sources[1:]) <= set(start.config.sources):
        raise UserError("its configuration lacks a source of the model", start.path, "use the lgm that wrote the file")
    return start, tensors, damaged


def _read(path: Path) -> tuple[Header, dict[str, torch.Tensor]]:
    return checkpoint.read_header(path), checkpoint.read_tensors(path)


# --- the configuration ----------------------------------------------------------------------------------------------------------------


def _changed(start: Header, changes: Mapping[str, Any], run: Path) -> RunConfig:
    """The run's configuration with what a resumed run may change. Raises UserError listing `field: saved -> given` for anything else, and
    for other data."""
    cls, config = model_class(start.model), start.config
    given = {key: value for key, value in changes.items() if value is not None}
    options = given.pop("options", None) or {}
    options = options(cls.Config) if callable(options) else options
    if "data" in given:
        named = sources.by_name(cls, given.pop("data"), config.model)
        leading = {"data": named.pop(cls.sources[0])} if cls.sources[0] in named else {}
        given |= leading | ({"sources": {**config.sources, **named}} if named else {})
    _refuse_others(config, given, options, run)
    given = {key: value for key, value in given.items() if key in RunConfig.FREE}
    given |= {"data": anywhere(given["data"])} if "data" in given else {}
    given |= {"sources": {name: anywhere(text) for name, text in given["sources"].items()}} if "sources" in given else {}
    now = check(RunConfig, {**dataclasses.asdict(config), **given, **absolute(given)}, "--resume")
    _refuse_other_sets(config, now, cls)
    _refuse_fewer_images(start, now)
    return now


def _refuse_others(config: RunConfig, given: Mapping[str, Any], options: Mapping[str, Any], run: Path) -> None:
    """Raise UserError where something was given that a resumed run keeps."""
    fixed = [(key, getattr(config, key), value) for key, value in given.items() if key not in RunConfig.FREE]
    fixed += [(key, config.options.get(key), value) for key, value in options.items()]
    # As JSON, a tuple and the list that it was read as are the same.
    if refused := [f"{key}: {old} -> {new}" for key, old, new in fixed if json.dumps(old) != json.dumps(new)]:
        raise UserError(f"a resumed run keeps its configuration ({printable('; '.join(refused))})", run, "leave these out, or train anew")


def _refuse_other_sets(before: RunConfig, now: RunConfig, cls: type[LatentModel]) -> None:
    """A folder may have moved, which its content will tell; a named set cannot, so another one is refused before anything is read."""
    texts = sources.texts(now, cls)
    for name, text in sources.texts(before, cls).items():
        if texts[name] != text and named_sets(texts[name]) != named_sets(text):
            raise UserError(_other_data(text), _flag(cls, name, texts[name]), "leave --data out, or train anew")


def _refuse_fewer_images(start: Header, config: RunConfig) -> None:
    """The end of the last stage can be moved, but no further than to its beginning."""
    if config.images < max((end for end in start.borders if end < start.borders[-1]), default=0):
        raise UserError(f"the stages before the last take {start.borders[-2]:,} images", f"--images {config.images}", "give more than that")


def _inexact(start: Header, config: RunConfig, now: Mapping[str, Any]) -> list[str]:
    """Why a resumed run is not bit-exact, as far as can be known beforehand."""
    differences = [f"{key} {old} -> {now[key]}" for key, old in start.environment.items() if key in now and now[key] != old]
    differences += [
        f"{key} {getattr(start.config, key)} -> {getattr(config, key)}"
        for key in ("batch", "compile")
        if getattr(start.config, key) != getattr(config, key)
    ]
    if not differences and now["arithmetic"] == "fast":
        differences = ["--fast"]
    return [f"not bit-exact: {', '.join(differences)}"] if differences else []


# --- the data -------------------------------------------------------------------------------------------------------------------------


def _check_shapes(start: Header, config: RunConfig, now: DataSpec) -> None:
    """Raise UserError where images have another shape than before."""
    pairs = [(now, start.spec, config.data)]
    pairs += [(now[name], start.spec[name], config.sources[name]) for name in start.spec.others]
    for its, before, text in pairs:
        for key, field in before.fields.items():
            now_as = its.fields.get(key)
            if field.kind == "image" and (now_as is None or now_as.shape != field.shape):
                found, what = "missing" if now_as is None else now_as.shape, "images" if key == "image" else f"{key}s"
                raise UserError(f"the {what} are {found} now, the run's are {field.shape}", text, "bring the data back")


def _check_names(model: LatentModel, config: RunConfig, now: DataSpec) -> None:
    """Raise UserError where labels mean other things than before."""
    if other := sources.other_names(model.needs, now, model.spec):
        raise UserError(f"the data have other {', '.join(other)} than the run's", config.data, "bring them back, or train anew")


def _other_content(start: Header, job: loop.Job, accepted: bool) -> tuple[str, ...]:
    """A warning for each data set whose content is another one than before. Raises UserError for the first, where that is not accepted."""
    cls = type(job.model)
    texts, before = sources.texts(job.config, cls), sources.texts(start.config, cls)
    items = {cls.sources[0]: job.batches.data, **job.batches.others}
    warnings = {}
    for name in _sources_changed(cls, job.fingerprint, start.fingerprint):
        if texts[name] != before[name]:
            what, where = _other_data(before[name]), _flag(cls, name, texts[name])
            fix = "give the run's data where they lie now; if these are they, and have changed, add --accept-data"
        else:
            what, where = f"the data have changed since the run began ({len(items[name]):,} images now)", texts[name]
            fix = "bring them back, or give --accept-data"
        if not accepted:
            raise UserError(what, where, fix)
        warnings[texts[name]] = f"not bit-exact: {what}: {printable(texts[name])}"
    return tuple(warnings.values())


def _sources_changed(cls: type[LatentModel], now: str, before: str) -> list[str]:
    """The sources that differ between two fingerprints of `Batches`."""
    if now == before:
        return []
    ours, theirs = (_by_source(cls, fingerprint) for fingerprint in (now, before))
    return [name for name in cls.sources if ours.get(name) != theirs.get(name)] or [cls.sources[0]]


def _by_source(cls: type[LatentModel], fingerprint: str) -> dict[str, str]:
    first, *rest = fingerprint.split(" ")
    return {cls.sources[0]: first, **dict(zip(rest[::2], rest[1::2]))}


def _other_data(before: str) -> str:
    return f"these are other data than the run's ({printable(before)})"


def _flag(cls: type[LatentModel], name: str, text: str) -> str:
    return f"--data {text}" if name == cls.sources[0] else f"--data {name}={text}"
