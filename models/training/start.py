"""Beginning a run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.base import LatentModel
from models.device import ill_advised, pick, settle
from models.errors import UserError
from models.training import checkpoint, claim, elastic, loop
from models.training.build import build
from models.training.distributed import Ranks, process_group
from models.training.events import Event
from models.training.job import make_job
from models.training.parts import Taken
from models.training.places import first_run, new_run
from models.training.plan import ask, complete
from models.training.resume import among, newest
from models.training.stages import short


def begin(
    model: str, data: str | Mapping[str, str] | None, *, out: str | os.PathLike[str] | None, fused: bool, **settings: Any
) -> Iterator[Event]:
    """Train a new run to its end; see `models.api.stream`."""
    device = pick(settings.get("device"))
    settle(device, bool(settings.get("fast")))
    elastic.check_can_be_found(out)
    with process_group(device) as ranks:
        asked = ask(model, data, **settings)
        if out is not None and ranks.any(int(ranks.writes and elastic.is_begun(Path(out), asked.values, asked.epochs, ranks.again))):
            yield from among(ranks, Path(out), newest(Path(out)), accept_data=False, fused=fused)
            return
        data_of_all = (asked.values["data"], *asked.values["sources"].values())
        first = first_run(model, *data_of_all)
        run = _place(out or new_run(model, *data_of_all), ranks)
        with ranks.first_alone():
            if ranks.writes:
                claim.check_free(run)
            planned = complete(asked)
        config = planned.config
        built = build(config, planned.spec, device, planned.headers)
        fill_parts(built, planned.parts)
        taken = [f"{first} lies there already, this run goes to {run}"] if out is None and run != first else []
        warnings = (*taken, *ill_advised(device, config.precision, config.fast), *short(config, built.stages()))
        more = {"fused": fused, "parts": planned.headers}
        yield from loop.train(make_job(config, built, planned.data, planned.others, run, device, ranks, warnings, **more))


def _place(run: str | os.PathLike[str], ranks: Ranks) -> Path:
    """The run's folder, the same on all ranks. Raises UserError where there is a run already."""
    run = Path(ranks.from_first(str(run)))
    if checkpoint.numbered(run / checkpoint.FOLDER):
        raise UserError("a run lies there already", run, f"go on with it: lgm train --resume {run}; or choose another --out")
    return run


def fill_parts(model: LatentModel, parts: Mapping[str, Taken]) -> None:
    """Give a model's parts their weights."""
    for name, taken in parts.items():
        checkpoint.load_state(model.parts[name], taken.tensors)
