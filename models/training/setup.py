"""From what a user says to a job that can be trained: the complete configuration, data, parts and model. Nothing is written here."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from warnings import catch_warnings, filterwarnings

import torch

from models.base import DataSpec, LatentModel, Stage, Validates
from models.capabilities.ask import require_of_part
from models.config import Preset, RunConfig, check
from models.data.batches import Batches, spec_of
from models.data.clauses import in_shape
from models.data.dataset import DataRequest
from models.data.items import Items
from models.data.load import load, parse, settled
from models.device import compile_networks
from models.errors import UserError, nearest, printable
from models.randomness import seed_torch
from models.registry import MODELS, model_class
from models.training import checkpoint, loop
from models.training.checkpoint import Header, PartHeader
from models.training.distributed import Ranks

RUNS = "runs"
HAVING = {  # batch key -> data that have it, for someone whose data do not
    "label": "--data glyphs, or a folder with a sub-folder for each class",
    "attributes": "--data faces",
    "factors": "--data faces",
    "identity": "--data faces",
    "target": "--data 'FOLDER[target=OTHER]', or --data 'mnist[input=small:4]'",
}
FEW = 200  # steps of a stage: with Adam a weight moves by about the learning rate a step, so by 0.2 at 1e-3, hardly more than it began with
SHORT = 0.1  # of the longest stage's share: a stage below is meant to be short


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


@dataclass(frozen=True)
class Taken:
    """A part: what its checkpoint says of it, and its weights, averaged where there is an average."""

    header: PartHeader
    config: RunConfig
    tensors: Mapping[str, torch.Tensor]


# --- planning -------------------------------------------------------------------------------------------------------------------------


def plan(
    model: str,
    data: str | Mapping[str, str] | None = None,
    *,
    preset: str = "default",
    options: Mapping[str, Any] | None = None,
    epochs: float | None = None,
    download: bool = True,
    **settings: Any,
) -> Plan:
    """The full configuration of a run, its data and its parts; nothing is written.

    Args:
        data: of the leading source, or of several sources by their names; those that are not named are the parts' own.
        preset: quick, default or paper: how long to train, and the model's options.
        options: fields of the model's own Config, over the preset's.
        epochs: how often to see each image, instead of `images`.
        settings: fields of RunConfig (images, batch, seed, device, precision, size, parts, ...); None means the default.
    """
    cls = model_class(model)
    chosen = _preset(cls, preset, model)
    given = {key: value for key, value in settings.items() if value is not None}
    parts = {name: take(cls, name, Path(run).expanduser(), options or {}) for name, run in _parts_asked(cls, given).items()}
    texts = _sources(cls, data, {name: taken.config.data for name, taken in parts.items()}, model)
    leading, *further = cls.sources
    shaped = _shape_of_parts(cls, parts, texts[leading])
    values = {"images": chosen.images, "batch": chosen.batch, **shaped, **given}
    values |= {"model": MODELS.find(model).name, "preset": preset, "options": {}}
    values |= {"data": anywhere(texts[leading]), "sources": {name: anywhere(texts[name]) for name in further}}
    values |= absolute(values)
    config = check(RunConfig, values, "train")  # before the data are read: a bad number should not wait for them
    complete = dataclasses.asdict(check(cls.Config, {**chosen.options, **(options or {})}, "--set"))
    shapes = {_source_of(cls, name): taken.header.spec for name, taken in parts.items()}
    loaded, others = load_sources(config, cls, shapes, download)
    if len(loaded) < config.batch:
        raise UserError(f"{len(loaded)} images, batch {config.batch}", texts[leading], f"use --batch {len(loaded)} or less")
    if epochs is not None:
        if not 0 < epochs <= 1e6:
            raise UserError(f"{epochs:g} epochs", "--epochs", "give a number above 0, up to 1,000,000")
        values["images"] = max(1, round(epochs * len(loaded)))
    for cadence, of_all in (("log_every", 500), ("sample_every", 20), ("save_every", 10)):
        values.setdefault(cadence, max(config.batch, values["images"] // of_all))
    config = check(RunConfig, values | {"options": complete}, "train")
    made = Plan(config, loaded, others, parts)
    _check_fits(made, cls)
    return made


def build(config: RunConfig, spec: DataSpec, device: torch.device, parts: Mapping[str, PartHeader], where: str = "--set") -> LatentModel:
    """The model of a run with the weights that its seed gives it, on its device in channels_last; its parts still have to be filled.

    `where` is what a message about a bad option points at.
    """
    cls = model_class(config.model)
    options = check(cls.Config, config.options, where)
    with torch.random.fork_rng(devices=[]):  # the caller's generator is none of our business
        inner = _build_parts(cls, spec, parts, where)
        seed_torch(torch.device("cpu"), config.seed, "init")
        model: LatentModel = cls(options, spec, inner) if cls.takes else cls(options, spec)
    if config.compile:
        compile_networks(model, device)
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_part(header: PartHeader) -> LatentModel:
    """A part as its header describes it, frozen and in eval mode; its weights still have to be filled in."""
    cls, where = model_class(header.model), f"the part {printable(header.model)}"
    options = check(cls.Config, header.options, where)
    inner = _build_parts(cls, header.spec, header.parts, where)
    part: LatentModel = cls(options, header.spec, inner) if cls.takes else cls(options, header.spec)
    return part.requires_grad_(False).eval()


def _build_parts(cls: type[LatentModel], spec: DataSpec, parts: Mapping[str, PartHeader], where: str) -> dict[str, LatentModel]:
    """The parts of a model, built. Raises UserError where they, or its sources, are not those that it is made of: a file may lie."""
    wanted = {name for name, part in cls.takes.items() if not part.optional or name in parts}
    if set(parts) != wanted or set(spec.others) != set(cls.sources[1:]):
        raise UserError("other parts or sources than the model's", where, "use the lgm that wrote the file")
    found = {}
    for name, header in parts.items():
        shown = _seen_by(cls, name, spec)
        if header.spec.shape != shown.shape:
            raise UserError(f"the images of {name} are {header.spec.shape}, these are {shown.shape}", where, "give data that fit the part")
        found[name] = build_part(header)
        for capability in cls.takes[name].needs:
            require_of_part(found[name], capability, where, header.model)
    return found


def data_request(config: RunConfig, text: str | None = None, download: bool = True) -> DataRequest:
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


def load_sources(
    config: RunConfig, cls: type[LatentModel], shapes: Mapping[str, DataSpec], download: bool = True
) -> tuple[Items, dict[str, Items]]:
    """The leading source of a run and the others by name; what is asked for twice is read once.

    `shapes` say how large, and of how many channels, the images of a further source have to be, where that is not as the run's options say.
    """
    loaded: dict[DataRequest, Items] = {}
    found = {}
    for name in cls.sources:
        leads = name == cls.sources[0]
        request = data_request(config, config.data if leads else config.sources[name], download)
        if name in shapes and not leads:
            request = in_shape(request, shapes[name].size, shapes[name].channels)
        found[name] = loaded[request] = loaded.get(request) or load(request)
    return found.pop(cls.sources[0]), found


def held_out(config: RunConfig, model: LatentModel, data: Items) -> Items:
    """The test split that belongs to `data`, which the run trained on, in the model's shape.

    Raises UserError where there is none, where it overlaps with `data`, and where its labels are not those that the model needs.
    """
    request, spec = data_request(config), model.spec
    if any(one.split != "train" for one in (request, *request.joined)):
        raise UserError("it trains on the test split itself", config.data)
    found = load(in_shape(request.everywhere(split="test").each(_without_first), spec.size, spec.channels))
    if not _on_disk(found.files).isdisjoint(_on_disk(data.files)):
        raise UserError("the test images are among the training images", found.name)
    theirs = spec_of(found)
    own = {key for key in model.needs if "." not in key}
    if lacking := own - theirs.provides:
        raise UserError(f"the test images have no {', '.join(sorted(lacking))}", found.name)
    if other := other_names(own, theirs, spec):
        raise UserError(f"the test images have other {', '.join(other)}", found.name)
    return found


def job(
    config: RunConfig,
    model: LatentModel,
    data: Items,
    others: Mapping[str, Items],
    run: Path,
    device: torch.device,
    ranks: Ranks,
    warnings: Sequence[str] = (),
    **more: Any,
) -> loop.Job:
    """What the loop takes; `more` are further fields of `loop.Job`."""
    for batch in {config.batch, *(stage.batch for stage in model.stages() if stage.batch)}:
        ranks.share_of(batch)
    batches = Batches(data, device, others)
    fingerprint = batches.fingerprint()
    if not ranks.same(fingerprint):
        raise UserError("the ranks see different data", config.data, "give every machine the same files")
    notes = (*warnings, *data.notes, *(note for other in others.values() for note in other.notes))
    if isinstance(model, Validates) and ranks.writes:
        try:
            more["held_out"] = Batches(held_out(config, model, data), device)
        except UserError as error:
            notes = (*notes, f"there are no held-out images, the model is not measured while it trains ({error.what}: {error.where})")
    return loop.Job(config, model, batches, fingerprint, run, device, ranks, warnings=notes, **more)


def short(config: RunConfig, stages: Sequence[Stage]) -> tuple[str, ...]:
    """A warning where a stage that is not meant to be short is too short to show anything, with the number of images that it takes."""
    ends = loop.borders(config, tuple(stages))
    steps = [(end - begin) // (stage.batch or config.batch) for begin, end, stage in zip((0, *ends), ends, stages)]
    longest = max(stage.share for stage in stages)
    meant = [(count, stage.name) for count, stage in zip(steps, stages) if count and stage.share >= SHORT * longest]
    count, name = min(meant, default=(FEW, ""))
    if count >= FEW:
        return ()
    thousands = math.ceil(ends[-1] * FEW / count / 1000)
    return (f"the stage {name!r} has {count} steps, too few to learn much: give --images {thousands}k for {FEW}, or a smaller --batch",)


def leading_data(model: str, data: str | Mapping[str, str] | None, settings: Mapping[str, Any]) -> str:
    """What the leading source of a run will be asked for, before anything is read but the parts' headers."""
    cls = model_class(model)
    parts = {
        name: checkpoint.read_header(checkpoint.locate(Path(run).expanduser())).config.data
        for name, run in _parts_asked(cls, settings).items()
    }
    return _sources(cls, data, parts, model)[cls.sources[0]]


def check_like_before(start: Header, config: RunConfig, now: DataSpec) -> None:
    """Raise UserError where a resumed run's images have another shape than before."""
    pairs = [(now, start.spec, config.data)]
    pairs += [(now[name], start.spec[name], config.sources[name]) for name in start.spec.others]
    for its, before, text in pairs:
        if its.shape != before.shape:
            raise UserError(f"the images are {its.shape} now, the run's are {before.shape}", text, "bring the data back")


# --- sources and parts ----------------------------------------------------------------------------------------------------------------


def take(cls: type[LatentModel], name: str, run: Path, options: Mapping[str, Any]) -> Taken:
    """The run that becomes the part `name`. Raises UserError where it cannot serve, or where options are set that it decides."""
    asked, flag = cls.takes[name], f"--part {name}={run}"
    path = checkpoint.locate(run)
    header = checkpoint.read_header(path)
    header_of_part = header.as_part()
    with torch.device("meta"):
        bare = build_part(header_of_part)
    for capability in asked.needs:
        require_of_part(bare, capability, flag, header.model)
    if decided := sorted(set(options) & set(asked.decides)):
        raise UserError(f"{', '.join(decided)}: the part decides it", flag, "leave these options out")
    tensors = checkpoint.read_tensors(path)
    weights = checkpoint.part(tensors, "model") | checkpoint.part(tensors, "average")
    checkpoint.match(checkpoint.shapes_of(bare.state_dict()), checkpoint.shapes_of(weights), path)
    return Taken(header_of_part, header.config, weights)


def _source_of(cls: type[LatentModel], part: str) -> str:
    """The source whose images a part must fit."""
    return cls.takes[part].source or cls.sources[0]


def _seen_by(cls: type[LatentModel], part: str, spec: DataSpec) -> DataSpec:
    """What a run's spec says of that source."""
    source = _source_of(cls, part)
    return spec if source == cls.sources[0] else spec[source]


def _parts_asked(cls: type[LatentModel], given: Mapping[str, Any]) -> Mapping[str, str]:
    """The runs that were named as parts. Raises UserError where the model takes no such part, or cannot do without one."""
    asked: Mapping[str, str] = given.get("parts") or {}
    for name in asked:
        if not cls.takes:
            raise UserError(f"this model takes no {printable(name)}", f"--part {printable(name)}", "leave it out")
        if name not in cls.takes:
            raise UserError(f"this model takes no part {printable(name)!r}", f"--part {printable(name)}", nearest(name, cls.takes))
    for name, part in cls.takes.items():
        if name not in asked and not part.optional:
            raise UserError(f"the part {name!r} is missing: {part.about}", f"--part {name}", f"give a run: --part {name}=RUN")
    return asked


def _sources(cls: type[LatentModel], data: str | Mapping[str, str] | None, parts: Mapping[str, str], model: str) -> dict[str, str]:
    """What each source of a run is asked for: as said, or the data of its part, or those of the source that it draws from again.

    `parts` are the data that each part's own run was trained on.
    """
    said = _named_sources(cls, data, model)
    for name, text in parts.items():
        said.setdefault(_source_of(cls, name), text)
    for name, whose in cls.draws.items():
        if whose in said:
            said.setdefault(name, said[whose])
    if missing := [name for name in cls.sources if name not in said]:
        prefix = f"{missing[0]}=" if len(cls.sources) > 1 else ""
        raise UserError("--data is missing", f"lgm train {model}", f"give --data {prefix}DATA")
    return said


def _named_sources(cls: type[LatentModel], data: str | Mapping[str, str] | None, model: str) -> dict[str, str]:
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


def _shape_of_parts(cls: type[LatentModel], parts: Mapping[str, Taken], data: str) -> dict[str, Any]:
    """How images have to come so that they fit the part that looks at the leading source, where nobody says otherwise: `data` are its own?
    Then as they came there."""
    for name, taken in parts.items():
        if _source_of(cls, name) == cls.sources[0]:
            spec, config = taken.header.spec, taken.config
            shown: dict[str, Any] = {"size": config.size, "channels": config.channels, "fit": config.fit, "background": config.background}
            if anywhere(data) != config.data:
                request = in_shape(parse(data), spec.size, spec.channels)
                shown |= {"size": request.size, "channels": request.channels}
            shown = {key: value for key, value in shown.items() if value is not None}
            return shown | ({"data_root": config.data_root} if config.data_root else {})
    return {}


def _check_fits(made: Plan, cls: type[LatentModel]) -> None:
    """Raise UserError where a part's images are of another shape, or the data lack what the model needs."""
    spec = made.spec
    for name, taken in made.parts.items():
        shown = _seen_by(cls, name, spec)
        if taken.header.spec.shape != shown.shape:
            what = f"the images of {name} are {taken.header.spec.shape}, these are {shown.shape}"
            raise UserError(what, f"--part {name}={made.config.parts[name]}", "use the same data, --size and --channels")
    config = dataclasses.replace(made.config, compile=False)
    with torch.device("meta") as meta, catch_warnings():  # what a model needs may depend on its options and on the data
        filterwarnings("ignore", "Initializing zero-element tensors")  # a layer for 0 classes: the message below says it
        bare = build(config, spec, meta, made.headers)
    lacking = bare.needs.union(*(stage.needs for stage in bare.stages() if stage.needs)) - spec.provides
    if lacking:
        have = ", ".join(sorted(spec.provides))
        words = "; ".join(f"{key}: {HAVING.get(key.rpartition('.')[2], key)}" for key in sorted(lacking))
        fix = f"choose data that have them ({words})"
        raise UserError(f"{made.config.model} needs {', '.join(sorted(lacking))}, these data have {have}", made.config.data, fix)


# --- resuming -------------------------------------------------------------------------------------------------------------------------


def changed(config: RunConfig, changes: Mapping[str, Any], run: Path) -> RunConfig:
    """`config` with what a resumed run may change. Raises UserError listing `field: saved -> given` for anything else, and for other data:
    a folder may have moved, which its content will tell; a named set cannot, so it is refused before it is read."""
    given = {key: value for key, value in changes.items() if value is not None}
    options = dict(given.pop("options", None) or {})
    if isinstance(given.get("data"), Mapping):
        cls = model_class(config.model)
        named = _named_sources(cls, given.pop("data"), config.model)
        given |= {"data": named.pop(cls.sources[0], config.data)}
        given |= {"sources": {**config.sources, **named}} if named else {}
    refused = [f"{k}: {getattr(config, k)} -> {v}" for k, v in given.items() if k not in RunConfig.FREE and _differ(getattr(config, k), v)]
    refused += [f"{k}: {config.options.get(k)} -> {v}" for k, v in options.items() if _differ(config.options.get(k), v)]
    if refused:
        raise UserError(f"a resumed run keeps its configuration ({printable('; '.join(refused))})", run, "leave these out, or train anew")
    free = {key: value for key, value in given.items() if key in RunConfig.FREE}
    free |= {"data": anywhere(free["data"])} if "data" in free else {}
    free |= {"sources": {name: anywhere(text) for name, text in free["sources"].items()}} if "sources" in free else {}
    free |= absolute(free)
    pairs = [(free.get("data", config.data), config.data)]
    pairs += [(free.get("sources", config.sources).get(name, text), text) for name, text in config.sources.items()]
    for now, before in pairs:
        if now != before and not (os.path.isabs(now) and os.path.isabs(before)):
            raise UserError(other_data(before), f"--data {now}", "leave --data out, or train anew")
    return check(RunConfig, {**dataclasses.asdict(config), **free}, "--resume")


def other_data(before: str) -> str:
    return f"these are other data than the run's ({printable(before)})"


def inexact(start: Header, config: RunConfig, now: Mapping[str, Any]) -> list[str]:
    """Why a resumed run is not bit-exact, as far as can be known beforehand."""
    differences = [f"{key} {old} -> {now[key]}" for key, old in start.environment.items() if key in now and now[key] != old]
    differences += [
        f"{key} {getattr(start.config, key)} -> {getattr(config, key)}"
        for key in ("batch", "compile")
        if getattr(start.config, key) != getattr(config, key)
    ]
    return [f"not bit-exact: {', '.join(differences)}"] if differences else []


def fill(model: LatentModel, tensors: Mapping[str, torch.Tensor], header: Header) -> None:
    """Put a checkpoint's weights into its model."""
    weights = checkpoint.part(tensors, "model")
    assert header.path is not None
    checkpoint.match(checkpoint.shapes_of(model.state_dict()), checkpoint.shapes_of(weights), header.path)
    checkpoint.load_state(model, weights)


# --- where things lie -----------------------------------------------------------------------------------------------------------------


def anywhere(data: str) -> str:
    """What `--data` said, so that it means the same from any working directory: folders' paths become absolute."""
    return str(settled(parse(data)))


def absolute(values: Mapping[str, Any]) -> dict[str, Any]:
    """The paths among a run's settings, so that they mean the same from any working directory."""
    found: dict[str, Any] = {"data_root": _absolute(values["data_root"])} if values.get("data_root") else {}
    if values.get("parts"):
        found["parts"] = {name: _absolute(run) for name, run in values["parts"].items()}
    return found


def _absolute(path: str | os.PathLike[str]) -> str:
    return str(Path(path).expanduser().absolute())


def first_run(model: str, data: str) -> Path:
    """The folder of a first run of this model on these data."""
    text = re.sub(r"[^\[\]+;=:]*/([^/\[\]+;=:]+)", r"\1", str(settled(parse(data))))  # of a path its last name
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-")[:100].strip("-") or "data"
    return Path(RUNS) / f"{MODELS.find(model).name}-{name}"


def new_run(model: str, data: str) -> Path:
    """The same, numbered where that is taken."""
    path = first = first_run(model, data)
    number = 1
    while path.exists():
        number += 1
        path = first.with_name(f"{first.name}-{number}")
    return path


def other_names(keys: Iterable[str], found: DataSpec, expected: DataSpec) -> list[str]:
    """Which of the fields that a model needs have other names in these data, so that their labels mean other things."""
    other = []
    for key in sorted(keys):
        source, dot, name = key.rpartition(".")
        now, before = (spec[source] if dot else spec for spec in (found, expected))
        if now.names(name) != before.names(name):
            other.append("classes" if key == "label" else key)
    return other


def _without_first(request: DataRequest) -> DataRequest:
    """One set of a request without its clauses `first`: how many items to train on says nothing of the others."""
    return dataclasses.replace(request, clauses=tuple(clause for clause in request.clauses if clause[0] != "first"))


def _on_disk(files: Iterable[str]) -> set[tuple[int, int]]:
    """What tells files apart whatever they are called: two links may lead to one image."""
    return {(found.st_dev, found.st_ino) for found in map(os.stat, files)}


def _differ(a: Any, b: Any) -> bool:
    return json.dumps(a) != json.dumps(b)  # a tuple and the list that JSON made of it are the same


def _preset(cls: type[LatentModel], name: str, model: str) -> Preset:
    if name not in cls.presets:
        raise UserError(f"{model} has no preset {name!r}", "--preset", nearest(name, cls.presets))
    return cls.presets[name]
