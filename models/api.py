"""The Python API: what the commands call, and notebooks too.

::

    import lgcli as lgm

    trained = lgm.train("aegan", data="glyphs", images=200_000, options={"latent": 32})
    images = trained.sample(16, seed=1)              # uint8 (16, 32, 32, 1)
    again, error = trained.reconstruct(images)       # the same images through encoder and decoder
    strip = trained.interpolate("seed:1", "seed:2")  # uint8 (10, 32, 32, 1)

    trained = lgm.load("runs/aegan-glyphs")          # later, or elsewhere
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from models.capabilities.trained import Trained
from models.data.batches import spec_of
from models.data.load import describe
from models.device import pick, settle
from models.errors import UserError, printable
from models.registry import model_class
from models.training import checkpoint, events, loop, setup
from models.training.checkpoint import Header
from models.training.distributed import process_group
from models.training.setup import plan as plan

META = torch.device("meta")


# --- training -------------------------------------------------------------------------------------------------------------------------


def train(
    model: str,
    data: str | Mapping[str, str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    on_event: Callable[[events.Event], None] = lambda event: None,
    **settings: Any,
) -> Trained:
    """Train a model to the end of its run and return it.

    Args:
        model: a name of `lgm models`.
        data: a data set's name, `name:test`, or a folder of images; or these by the names of the model's sources.
        out: the run's folder; by default a new one, `runs/<model>-<data>`.
        on_event: called with every event of `models.training.events`.
        settings: as for `models.training.setup.plan`.

    Raises UserError, RunFailed, Interrupted (see `models.errors`).
    """
    run = ""
    for event in stream(model, data, out=out, **settings):
        run = event.run if isinstance(event, (events.Started, events.Finished)) else run
        on_event(event)
    return load(run, device=settings.get("device"))


def stream(
    model: str,
    data: str | Mapping[str, str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    fused: bool = True,
    **settings: Any,
) -> Iterator[events.Event]:
    """`train` as an iterator of events; nothing happens until it is iterated over."""
    device = pick(settings.get("device"))
    settle(device)
    with process_group(device) as ranks:
        named = setup.leading_data(model, data, settings)
        run = Path(ranks.from_first(str(out or setup.new_run(model, named))))
        if checkpoint.numbered(run / checkpoint.FOLDER):
            raise UserError("a run lies there already", run, f"go on with it: lgm train --resume {run}; or choose another --out")
        with ranks.first_alone():
            if ranks.writes:
                loop.check_free(run)
            planned = setup.plan(model, data, **settings)
        config, headers = planned.config, planned.headers
        built = setup.build(config, planned.spec, device, headers)
        for name, taken in planned.parts.items():
            checkpoint.load_state(built.parts[name], taken.tensors)
        first = setup.first_run(model, named)
        taken_names = [f"{first} lies there already, this run goes to {run}"] if out is None and run != first else []
        told = (*taken_names, *setup.short(config, built.stages()))
        made = setup.job(config, built, planned.data, planned.others, run, device, ranks, told, fused=fused, parts=headers)
        yield from loop.train(made)


def resume(run: str | os.PathLike[str], *, accept_data: bool = False, fused: bool = True, **changes: Any) -> Iterator[events.Event]:
    """Go on with a run where its newest intact checkpoint stands; bit-exact on the same kind of machine.

    Args:
        run: the run's folder.
        accept_data: go on although the data are not what they were. A named set that is another one is refused all the same.
        changes: fields of RunConfig that may differ (`RunConfig.FREE`); any other that does is a UserError. `options` may be a function
            that takes the model's Config class, for a caller who does not know yet what is trained.
    """
    folder = Path(run)
    if not folder.is_dir():
        raise UserError("no such run", folder, "give the folder that `lgm train` wrote")
    start, tensors, damaged = checkpoint.newest_valid(folder)
    checkpoint.check_belongs(start, folder)
    if callable(changes.get("options")):
        changes["options"] = changes["options"](model_class(start.model).Config)
    config = setup.changed(start.config, changes, folder)
    if config.images < max((end for end in start.borders if end < start.borders[-1]), default=0):
        raise UserError(f"the stages before the last take {start.borders[-2]:,} images", f"--images {config.images}", "give more than that")
    device = pick(config.device)
    settle(device)
    with process_group(device) as ranks:
        warnings = [f"damaged, going on from an older checkpoint: {reason}" for reason in damaged]
        warnings += setup.inexact(start, config, loop.environment(device, ranks))
        with ranks.first_alone():
            if ranks.writes:
                loop.check_free(folder)
            data, others = setup.load_sources(config, model_class(start.model), start.spec.others)
        now = spec_of(data, others)
        setup.check_like_before(start, config, now)
        built = setup.build(config, start.spec, device, start.parts)
        if other := setup.other_names(built.needs, now, built.spec):
            raise UserError(f"the data have other {', '.join(other)} than the run's", config.data, "bring them back, or train anew")
        setup.fill(built, tensors, start)
        more = {"start": start, "tensors": tensors, "fused": fused, "parts": start.parts}
        job = setup.job(config, built, data, others, folder, device, ranks, warnings, **more)
        if job.fingerprint != start.fingerprint:
            moved = config.data != start.config.data or config.sources != start.config.sources
            if moved:
                what, where = setup.other_data(start.config.data), f"--data {config.data}"
                fix = "give the run's data where they lie now; if these are they, and have changed, add --accept-data"
            else:
                what, where = f"the data have changed since the run began ({len(data):,} images now)", config.data
                fix = "bring them back, or give --accept-data"
            if not accept_data:
                raise UserError(what, where, fix)
            job = dataclasses.replace(job, warnings=(*job.warnings, f"not bit-exact: {what}: {printable(config.data)}"))
        yield from loop.train(job)


# --- a trained model ------------------------------------------------------------------------------------------------------------------


def load(run: str | os.PathLike[str], *, device: str | None = None, raw: bool = False) -> Trained:
    """The model of a run folder (its newest checkpoint) or of a checkpoint file, ready to generate.

    Args:
        raw: use the weights as trained instead of their moving average.

    Raises UserError where the file is damaged, foreign or does not fit its model.
    """
    where = pick(device)
    header, tensors = _read(run)
    config = dataclasses.replace(header.config, model=header.model, compile=False)
    model = setup.build(config, header.spec, where, header.parts, f"{printable(header.path)}: config")
    weights = checkpoint.part(tensors, "model")
    if not raw:
        weights |= checkpoint.part(tensors, "average")
    checkpoint.load_state(model, weights)
    return Trained(model.eval(), header, where)


# --- looking ---------------------------------------------------------------------------------------------------------------------------


def describe_plan(
    model: str, data: str | Mapping[str, str] | None = None, *, out: str | os.PathLike[str] | None = None, **settings: Any
) -> dict[str, Any]:
    """What `train` would do with the same arguments: configuration, networks with their sizes, stages, data. Writes nothing."""
    device = pick(settings.get("device"))
    planned = setup.plan(model, data, **settings)
    config = planned.config
    built = setup.build(dataclasses.replace(config, compile=False), planned.spec, torch.device("cpu"), planned.headers)
    stages = built.stages()
    return {
        "run": str(out or setup.new_run(model, config.data)),
        "device": str(device),
        "configuration": dataclasses.asdict(config),
        "stages": [
            {"name": stage.name, "until images": end, "players": list(stage.players)}
            for stage, end in zip(stages, loop.borders(config, stages), strict=True)
        ],
        "networks": _sizes(built),
        "data": describe(planned.data),
        **({"further data": {name: describe(other) for name, other in planned.others.items()}} if planned.others else {}),
    }


def describe_run(run: str | os.PathLike[str]) -> dict[str, Any]:
    """What a run or checkpoint says of itself, once its digest was verified: a damaged file is not worth describing.

    Raises UserError where the file is damaged or foreign.
    """
    path, folder = checkpoint.locate(run), Path(run)
    header = checkpoint.read_header(path)
    checkpoint.check_belongs(header, folder)
    weights = checkpoint.part(checkpoint.read_tensors(path), "model")
    kept = [str(p) for _, p in sorted(checkpoint.numbered(folder / checkpoint.FOLDER).items())] if folder.is_dir() else [str(path)]
    return {
        "checkpoint": str(path),
        "model": header.model,
        "stage": header.stage,
        "images": header.images,
        "of images": header.borders[-1],
        "parameters": sum(tensor.numel() for tensor in weights.values()),
        "height": header.spec.height,
        "width": header.spec.width,
        "channels": header.spec.channels,
        "classes": list(header.spec.classes),
        "configuration": dataclasses.asdict(header.config),
        "environment": dict(header.environment),
        "parts": {name: part.model for name, part in header.parts.items()},
        "data fingerprint": header.fingerprint,
        "written by lgm": header.lgm,
        "checkpoints": kept,
    }


def name_of(run: str | os.PathLike[str]) -> str:
    """A short name for files made from a run: the folder's, or the checkpoint file's."""
    path = Path(run).resolve()
    return path.stem if path.is_file() else path.name


def _sizes(model: torch.nn.Module) -> dict[str, int]:
    """Sub-network -> number of parameters, and their total."""
    sizes = {name: size for name, child in model.named_children() if (size := sum(p.numel() for p in child.parameters()))}
    return {**sizes, "total": sum(sizes.values())}


# --- helpers --------------------------------------------------------------------------------------------------------------------------


def _read(run: str | os.PathLike[str]) -> tuple[Header, dict[str, torch.Tensor]]:
    """The newest checkpoint, its shapes compared with its model's before any tensor is read or any network allocated."""
    for attempt in range(3):
        path = checkpoint.locate(run)
        try:
            header = checkpoint.read_header(path)
            checkpoint.check_belongs(header, Path(run))
            config = dataclasses.replace(header.config, model=header.model, compile=False)
            with META:
                bare = setup.build(config, header.spec, META, header.parts, f"{printable(path)}: config")
            checkpoint.match(checkpoint.shapes_of(bare.state_dict()), checkpoint.part(checkpoint.shapes(path), "model"), path)
            return header, checkpoint.read_tensors(path)
        except UserError:
            if path.exists() or attempt == 2:
                raise  # otherwise a trainer has just deleted it in favour of a newer one
    raise AssertionError
