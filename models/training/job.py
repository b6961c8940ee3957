"""From a model and its data to what the loop takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from models.base import LatentModel, Validates
from models.config import RunConfig
from models.data.batches import Batches
from models.data.items import Items
from models.errors import UserError
from models.training import loop
from models.training.distributed import Ranks
from models.training.exchange import join_batch_norms
from models.training.observers import usual
from models.training.sources import held_out


def make_job(
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
    if config.sync_batch_norm and ranks.world > 1:
        join_batch_norms(model)
    if ranks.world > 1 and not ranks.same(_digest(model)):
        raise UserError("the ranks begin with different weights", run, "use the same lgm and torch everywhere, and one folder that all see")
    batches = Batches(data, device, others)
    fingerprint = batches.fingerprint()
    if not ranks.same(fingerprint):
        raise UserError("the ranks see different data", config.data, "give every machine the same files")
    notes = (*warnings, *data.notes, *(note for other in others.values() for note in other.notes))
    if ranks.writes:
        held, missing = unseen(config, model, data, device)
        more["observers"] = usual(config, model, batches, run, held)
        notes = (*notes, *missing)
    return loop.Job(config, model, batches, fingerprint, run, device, ranks, warnings=notes, **more)


def _digest(model: LatentModel) -> str:
    """sha256 over the weights and buffers."""
    total = hashlib.sha256()
    for value in model.state_dict().values():
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def unseen(config: RunConfig, model: LatentModel, data: Items, device: torch.device) -> tuple[Batches | None, tuple[str, ...]]:
    """The images that a model which validates is measured on, or a warning where there are none."""
    if not isinstance(model, Validates):
        return None, ()
    try:
        return Batches(held_out(config, model, data), device), ()
    except UserError as error:
        return None, (f"there are no held-out images, the model is not measured while it trains ({error.what}: {error.where})",)
