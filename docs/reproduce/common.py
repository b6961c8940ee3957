"""What the reproductions share: train what is missing, measure what is new, and write a table's cells."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models
from models import api, evaluation
from models.runs import history
from models.runs.shelf import shelf
from models.training import checkpoint


def arguments(description: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """The options of every reproduction; `data`, `test` and `out` have defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=defaults["data"])
    parser.add_argument("--test", default=defaults["test"], help="what the samples are compared with")
    parser.add_argument("--precision", default="bf16", help="of the training")
    parser.add_argument("--classifier", type=Path, help="a run of `lgm train classifier`; trained in --out where it is left out")
    parser.add_argument("--data-root")
    parser.add_argument("--out", type=Path, default=Path(defaults["out"]))
    return parser


def seeds(text: str) -> list[int]:
    return [int(seed) for seed in text.split(",")]


def widths(text: str) -> tuple[int, ...]:
    return tuple(int(width) for width in text.split(","))


def finished(run: Path, model: str, chosen: argparse.Namespace, **settings: Any) -> Path:
    """The run, finished: kept where it is, gone on with where it was stopped, trained where it is missing."""
    if history.is_run(run) and shelf(run)[0].state == "finished":  # several scripts may share it
        return run
    if checkpoint.numbered(run / checkpoint.FOLDER):
        for _ in api.resume(run):
            pass
    else:
        print(f"training {run}", flush=True)
        models.train(model, chosen.data, out=run, data_root=chosen.data_root, **({"precision": chosen.precision} | settings))
    return run


def judge(chosen: argparse.Namespace, **settings: Any) -> str:
    """The classifier that samples are looked at with, as `--features` takes it."""
    return f"classifier:{finished(chosen.classifier or chosen.out / 'classifier', 'classifier', chosen, **settings)}"


def measured(
    run: Path, metrics: Sequence[str], features: str, chosen: argparse.Namespace, report: str = evaluation.REPORT, **settings: Any
) -> dict[str, Any]:
    """The metrics in the run's report of that name, which is made where it is missing or of other features."""
    path = run / report
    if path.exists():
        found = json.loads(path.read_text())
        if set(metrics) <= set(found["metrics"]) and found.get("features asked for") == features:
            return dict(found["metrics"])
    print(f"evaluating {run}", flush=True)
    found = evaluation.evaluate(run, data=chosen.test, metrics=metrics, features=features, data_root=chosen.data_root, **settings)
    evaluation.write_report(found | {"features asked for": features}, run, path)
    return dict(found["metrics"])


def cell(values: Sequence[float], digits: int = 3) -> str:
    """The mean over the seeds, and their deviation where there are several."""
    text = f"{statistics.mean(values):.{digits}g}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.2g}"


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(headings), ["---"] * len(headings), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
