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
from functools import partial
from pathlib import Path
from typing import Any

import torch

from models.capabilities.trained import Trained
from models.device import pick
from models.training import checkpoint, events, hub
from models.training.build import build
from models.training.checkpoint import Header
from models.training.describe import describe_plan as describe_plan
from models.training.describe import describe_run as describe_run
from models.training.plan import Plan, ask, complete
from models.training.resume import go_on
from models.training.start import begin

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
        settings: as for `plan`.

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
    return begin(model, data, out=out, fused=fused, **settings)


def resume(run: str | os.PathLike[str], *, accept_data: bool = False, fused: bool = True, **changes: Any) -> Iterator[events.Event]:
    """Go on with a run where its newest intact checkpoint stands; bit-exact on the same kind of machine.

    Args:
        run: the run's folder.
        accept_data: go on although the data are not what they were. A named set that is another one is refused all the same.
        changes: fields of RunConfig that may differ (`RunConfig.FREE`); any other that does is a UserError. `options` may be a function
            that takes the model's Config class, for a caller who does not know yet what is trained.
    """
    return go_on(run, accept_data=accept_data, fused=fused, **changes)


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
    return complete(ask(model, data, preset=preset, options=options, epochs=epochs, download=download, **settings))


# --- a trained model ------------------------------------------------------------------------------------------------------------------


def load(run: str | os.PathLike[str], *, device: str | None = None, raw: bool = False) -> Trained:
    """The model of a run folder (its newest checkpoint) or of a checkpoint file, ready to generate.

    Args:
        run: a run's folder, a checkpoint file, or a run on the Hugging Face hub, hf://USER/NAME.
        raw: use the weights as trained instead of their moving average.

    Raises UserError where the file is damaged, foreign or does not fit its model.
    """
    where, run = pick(device), hub.local(run)
    header, tensors = checkpoint.of_newest(run, partial(_read, Path(run)))
    config = dataclasses.replace(header.config, model=header.model, compile=False)
    model = build(config, header.spec, where, header.parts, header)
    weights = checkpoint.part(tensors, "model")
    if not raw:
        weights |= checkpoint.part(tensors, "average")
    checkpoint.load_state(model, weights)
    return Trained(model.eval(), header, where)


def name_of(run: str | os.PathLike[str]) -> str:
    """A short name for files made from a run: the folder's, or the checkpoint file's."""
    if hub.is_remote(run):
        return hub.parse(str(run))[0].rpartition("/")[2]
    path = Path(run).resolve()
    return path.stem if path.is_file() else path.name


def _read(run: Path, path: Path) -> tuple[Header, dict[str, torch.Tensor]]:
    """A checkpoint of a run, its shapes compared with its model's before any tensor is read or any network allocated."""
    header = checkpoint.read_header(path)
    checkpoint.check_belongs(header, run)
    config = dataclasses.replace(header.config, model=header.model, compile=False)
    with META:
        bare = build(config, header.spec, META, header.parts, header)
    checkpoint.match(checkpoint.shapes_of(bare.state_dict()), checkpoint.part(checkpoint.shapes(path), "model"), path)
    return header, checkpoint.read_tensors(path)
