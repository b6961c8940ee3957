"""Comparing sets of images: `fid` of two sides, `evaluate` for a run. What `lgm fid` and `lgm evaluate` call, and notebooks too.

::

    import lgcli as lgm

    found = lgm.evaluation.fid("runs/aegan-mnist", "mnist:test", number=10_000, features="classifier:runs/classifier")
    print(found["fid"], found["recipe"])
    found = lgm.evaluation.evaluate("runs/aegan-mnist", metrics=["kid", "prdc"], features="classifier:runs/classifier")

Every number comes with its recipe, because a FID without one means nothing: the features and their digest, how images were resized, how
many images there were on either side, the seed, the version of lgm.

Data flows one way: `plan` (what is asked, what can be measured) -> `sides`, `collect` (one pass over each side) -> `report`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models import api
from models.evaluation import collect, plan, report, sides
from models.evaluation.plan import parse_metrics, parse_options
from models.evaluation.report import REPORT, report_path, write_report
from models.evaluation.sides import STATISTICS
from models.metrics.stats import files

__all__ = ["REPORT", "STATISTICS", "evaluate", "fid", "parse_metrics", "parse_options", "report_path", "write_report"]


def fid(
    a: str | os.PathLike[str], b: str | os.PathLike[str], *, save_stats: str | os.PathLike[str] | None = None, **settings: Any
) -> dict[str, Any]:
    """The Fréchet distance of two sides in a feature space.

    Args:
        a, b: each a folder of images, a data set (`mnist:test`), a run or checkpoint (it is sampled), or a file of saved statistics.
        save_stats: write the statistics of `a` there, so that they need not be computed again.
        settings: fields of `models.config.EvaluationConfig`.

    Returns a JSON-able dictionary: `fid`, both sides with their counts, the recipe. Raises UserError.
    """
    with plan.working(plan.settings(settings)) as work:
        pair = sides.both(os.fspath(a), os.fspath(b), work)
        found = [collect.statistics(side, work) for side in pair]
        files.compare_recipes(*found)
        if save_stats is not None and work.ranks.writes:
            files.save(found[0], Path(save_stats))
        return report.of_sides(pair, found, work)


def evaluate(
    run: str | os.PathLike[str],
    *,
    data: str | None = None,
    metrics: Sequence[str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure a run's samples against a data set.

    Args:
        run: a run's folder, or a checkpoint file.
        data: what to compare with, and to reconstruct; by default the run's training data, and for reconstructions their test split.
        metrics: names of `models.metrics`; None: all that the run allows.
        options: metric -> fields of its Config.
        settings: fields of `models.config.EvaluationConfig`.

    Returns a JSON-able dictionary: `metrics` (name -> values), `not_for_this_model` and `not_measured` (name -> reason; the latter is for
    metrics that nobody named and that lack images), the recipe. Raises UserError, also where a metric that `metrics` names lacks images.
    """
    how, choice = plan.settings(settings), plan.choose(metrics, options)
    with plan.working(how) as work:
        planned = plan.of_run(api.load(run, device=how.device, raw=how.raw), choice, work)
        found = collect.of_run(planned, data, api.name_of(run), work)
        return report.of_run(run, planned, found, work)
