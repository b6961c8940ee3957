"""The model of a run, built around its parts; the weights of both come from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from models.base import DataSpec, LatentModel, Part
from models.capabilities.ask import require_of_part
from models.config import RunConfig, check
from models.device import compile_networks
from models.errors import UserError, printable
from models.randomness import seed_torch
from models.registry import model_class
from models.training import checkpoint
from models.training.checkpoint import Header, PartHeader


def build(
    config: RunConfig, spec: DataSpec, device: torch.device, parts: Mapping[str, PartHeader], file: Header | None = None
) -> LatentModel:
    """The model of a run with the weights that its seed gives it, on its device in channels_last; its parts still have to be filled.

    Messages name the flags of a new run or, where the rest was read from a `file`, that.
    """
    cls, read = model_class(config.model), f"{printable(file.path)}: config" if file else ""
    options = check(cls.Config, {**cls.before, **config.options} if file else config.options, read or "--set")
    with torch.random.fork_rng(devices=[]):  # the caller's generator is none of our business
        flags = {name: read or f"--part {name}={config.parts[name]}" for name in parts}
        inner = _build_parts(cls, spec, parts, flags, read or "--set")
        seed_torch(torch.device("cpu"), config.seed, "init")
        model: LatentModel = cls(options, spec, inner) if cls.takes else cls(options, spec)
    model.fast = config.fast
    if config.compile:
        compile_networks(model, device)
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_part(header: PartHeader, asked: Part, where: str) -> LatentModel:
    """A part as its header describes it, frozen and in eval mode; its weights still have to be filled in.

    Raises UserError, which points at `where`, if it cannot do what is asked of it.
    """
    cls, itself = model_class(header.model), f"the part {printable(header.model)}"
    options = check(cls.Config, {**cls.before, **header.options}, itself)
    inner = _build_parts(cls, header.spec, header.parts, dict.fromkeys(header.parts, itself), itself)
    part: LatentModel = cls(options, header.spec, inner) if cls.takes else cls(options, header.spec)
    for capability in asked.needs:
        require_of_part(part, capability, where, header.model)
    return part.requires_grad_(False).eval()


def fill(model: LatentModel, tensors: Mapping[str, torch.Tensor], header: Header) -> None:
    """Put a checkpoint's weights into its model."""
    weights = checkpoint.part(tensors, "model")
    assert header.path is not None
    checkpoint.match(checkpoint.shapes_of(model.state_dict()), checkpoint.shapes_of(weights), header.path)
    checkpoint.load_state(model, weights)


def source_of(cls: type[LatentModel], part: str) -> str:
    """The source whose images a part must fit."""
    return cls.takes[part].source or cls.sources[0]


def _build_parts(
    cls: type[LatentModel], spec: DataSpec, parts: Mapping[str, PartHeader], flags: Mapping[str, str], where: str
) -> dict[str, LatentModel]:
    """The parts of a model, built. Raises UserError where they, or its sources, are not those that it is made of: a file may lie.

    `flags` are what messages about single parts point at, `where` about all of them.
    """
    wanted = {name for name, part in cls.takes.items() if not part.optional or name in parts}
    if set(parts) != wanted or set(spec.others) != set(cls.sources[1:]):
        raise UserError("other parts or sources than the model's", where, "use the lgm that wrote the file")
    found = {}
    for name, header in parts.items():
        source = source_of(cls, name)
        shown = spec if source == cls.sources[0] else spec[source]
        if header.spec.shape != shown.shape:
            what = f"the images of {name} are {header.spec.shape}, these are {shown.shape}"
            raise UserError(what, flags[name], "use the same data, --size and --channels")
        found[name] = build_part(header, cls.takes[name], flags[name])
    return found
