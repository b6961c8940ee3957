"""Report: from what was collected to the dictionary that is returned, with its recipe and its warnings; and to the file of a run."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models import api, layout
from models.data.images import atomic_file
from models.device import block_of
from models.errors import UserError, printable
from models.evaluation.collect import Found
from models.evaluation.plan import Plan, Work
from models.evaluation.sides import SampledSource, Side
from models.metrics.stats import files
from models.metrics.stats.evidence import Evidence
from models.metrics.stats.frechet import frechet_distance
from models.training import hub
from models.version import __version__

REPORT = layout.EVALUATION


def of_sides(sides: Sequence[Side], found: Sequence[files.Statistics], work: Work) -> dict[str, Any]:
    """The distance of two sides by their statistics: see `models.evaluation.fid`."""
    for one in found:
        _warn_if_few(one.source, one.moments.count, one.moments.dimensions, work)
    a, b = (
        {"name": printable(one.source), "images": one.moments.count, "first_image": _first_image(side)} for side, one in zip(sides, found)
    )
    sampled = [side for side in sides if isinstance(side, SampledSource)]
    shown = dict.fromkeys(side.shown for side in sampled if side.shown is not None)
    return {
        "fid": frechet_distance(found[0].moments, found[1].moments),
        "a": a,
        "b": b,
        "recipe": {**found[0].recipe, **_of_all(work, "; ".join(shown)), **(_of_samples(work) if sampled else {})},
        "warnings": work.warnings,
    }


def of_run(run: str | os.PathLike[str], plan: Plan, found: Found, work: Work) -> dict[str, Any]:
    """The values of a run's metrics: see `models.evaluation.evaluate`."""
    evidence, images = found.evidence, _counts(found.evidence)
    header, network, held_out = evidence.trained.header, evidence.features, evidence.held_out
    for side, need in (("real", "real.moments"), ("generated", "generated.moments"), ("reconstructed", "held_out")):
        if need in plan.needs and plan.looks:  # a held-out image that no network looks at is no item of a covariance
            _warn_if_few(f"{side} images", images[side], work.features.dimensions, work)
    values, unmeasured = _measured(plan, evidence)
    for name, reason in unmeasured.items():
        work.warn(f"{name} is not measured: {reason}")
    return {
        "run": str(run),
        "checkpoint": str(header.path),
        "images_seen": header.images,
        "data": None if found.real is None else printable(found.real.name),
        "reconstructed": None if held_out is None else printable(held_out.name),
        "metrics": values,
        "not_for_this_model": plan.lacking,
        "not_measured": unmeasured,
        "recipe": {
            **(network.recipe() if network is not None else {}),
            "images": images,
            **_of_all(work, found.shown or ""),
            **_of_samples(work),
            "options": {name: dataclasses.asdict(plan.chosen.configs[name]) for name in values},
        },
        "warnings": work.warnings,
    }


def _measured(plan: Plan, evidence: Evidence) -> tuple[dict[str, dict[str, float | None]], dict[str, str]]:
    """Metric -> its values; and, unless the user named the metrics, metric -> why it could not be measured."""
    values: dict[str, dict[str, float | None]] = {}
    failed: dict[str, str] = {}
    for name, module in plan.chosen.modules.items():
        try:
            found = module.measure(evidence, plan.chosen.configs[name])
        except UserError as error:
            if plan.chosen.named:
                raise
            failed[name] = f"{error.what}; {error.fix}"
        else:
            values[name] = {key: float(value) if math.isfinite(value) else None for key, value in found.items()}
    return values, failed


def _counts(evidence: Evidence) -> dict[str, int]:
    """How many images there are on either side; `real_kept` of the real ones were looked at one by one."""
    counts: dict[str, int] = {}
    if evidence.generated is not None:
        counts["generated"] = evidence.generated.count
    if evidence.real is not None:
        counts |= {"real": evidence.real.count, "real_kept": min(evidence.count, evidence.real.count)}
    if evidence.held_out is not None:
        counts["reconstructed"] = min(evidence.count, len(evidence.held_out))
    return counts


def _of_all(work: Work, shown: str) -> dict[str, Any]:
    """What belongs to every recipe besides the features; `shown` is what conditional models were asked for."""
    conditions = {"conditions": shown} if shown else {}
    return {"seed": work.how.seed, **conditions, "weights": "raw" if work.how.raw else "average", "lgm": __version__}


def _of_samples(work: Work) -> dict[str, Any]:
    """What changes samples by rounding: how many are made together."""
    return {"block": block_of(work.device)}


def _warn_if_few(name: str, count: int, dimensions: int, work: Work) -> None:
    if count <= dimensions:
        work.warn(
            f"{printable(name)}: {count:,} images for {dimensions:,} features: the covariance is not known, the FID is biased upwards; "
            "KID is the better choice (lgm evaluate --metrics kid)"
        )


def _first_image(side: Side) -> str | None:
    """Size and colour of a side's first image, in words; None where it is not at hand."""
    if isinstance(side, files.Statistics):
        return None
    if isinstance(side, SampledSource):
        channels, height, width = side.trained.model.gives("sample").shape
    else:
        first = side.load(0, 1)
        if not len(first):
            return None
        height, width, channels = first[0].shape
    return f"{width}x{height} {'grey' if channels == 1 else 'colour'}"


# --- its file ---------------------------------------------------------------------------------------------------------------------------


def report_path(run: str | os.PathLike[str], path: Path | None = None) -> Path:
    """Where the report of a run goes: `path`, or the run's folder, or beside its checkpoint file, or of a run on the hub here.

    Raises UserError where that cannot be, or there is no such run.
    """
    where = Path(run)
    if not hub.is_remote(run) and not where.exists():
        raise UserError("no such run or checkpoint", run, "give the folder that `lgm train` wrote, or a checkpoint file")
    beside = Path(f"{api.name_of(run)}-{REPORT}") if hub.is_remote(run) else where.with_name(f"{where.stem}-{REPORT}")
    target = path or (where / REPORT if where.is_dir() else beside)
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK) or target.is_dir():
        raise UserError("the report cannot be written there", target, "name another file with -o, in a folder that exists and is writable")
    return target


def write_report(found: Mapping[str, Any], run: str | os.PathLike[str], path: Path | None = None) -> Path:
    """`found` as JSON under `report_path`. Appears complete or not at all."""
    target = report_path(run, path)
    text = json.dumps(found, indent=2, allow_nan=False) + "\n"
    with atomic_file(target) as file:
        file.write(text.encode())
    return target
