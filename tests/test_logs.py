"""Numbers handed on to other programs: all of them, once, also after a run was resumed."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import support
from painter import lgm

from models.runs import history


@pytest.fixture
def stopped(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose log went further (to 64 images) than its newest checkpoint (48)."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def train(run: Path, pictures: Path, *more: str) -> None:
    result = lgm(*support.arguments("vae", pictures, run, log_every=16, save_every=48), *more)
    assert result.exit_code == 0, result.output


def lost(run: Path) -> None:
    """As after a crash behind the checkpoint of 48 images."""
    for images, path in support.checkpoints(run).items():
        if images > 48:
            path.unlink()


def points(run: Path) -> dict[tuple[int, str], float]:
    return {(n, name): v for name, curve in history.curves(run).items() for n, v in zip(curve.images, curve.values)}


def test_csv(stopped: Path, pictures: Path) -> None:
    def found() -> dict[tuple[int, str], float]:
        with open(stopped / "log.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len({row["images"] for row in rows}) == len(rows)
        return {(int(row["images"]), name): float(v) for row in rows for name, v in row.items() if v and name != "images"}

    train(stopped, pictures, "--log", "csv")
    assert found() == points(stopped)
    lost(stopped)
    assert lgm("train", "--resume", stopped, "--log", "csv").exit_code == 0
    assert found() == points(stopped)


def test_tensorboard(stopped: Path, pictures: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed")
    train(stopped, pictures, "--log", "tensorboard")
    lost(stopped)
    assert lgm("train", "--resume", stopped, "--log", "tensorboard").exit_code == 0
    seen = accumulator.EventAccumulator(str(stopped / "tensorboard")).Reload()
    found = {(e.step, name): e.value for name in seen.Tags()["scalars"] for e in seen.Scalars(name) if name != "images a second"}
    assert found == {key: pytest.approx(value, rel=1e-6) for key, value in points(stopped).items()}
    assert all(len({e.step for e in seen.Scalars(name)}) == len(seen.Scalars(name)) for name in seen.Tags()["scalars"])
    assert "sample" in seen.Tags()["images"]


class FakeWandb:
    """What lgm asks of wandb; it remembers its runs, as the service does."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.Image = Path

    def init(self, id: str, resume: str, config: dict[str, Any], **more: Any) -> Any:
        assert resume == "allow"
        run = self.runs.setdefault(id, SimpleNamespace(step=0, points=[], config=config, ended=0, **more))
        run.log = lambda values, step: (run.points.append((step, values)), setattr(run, "step", step + 1))
        run.finish = lambda: setattr(run, "ended", run.ended + 1)
        return run


def test_wandb(stopped: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    train(stopped, pictures, "--log", "wandb")
    lost(stopped)
    assert lgm("train", "--resume", stopped, "--log", "wandb").exit_code == 0
    [run] = fake.runs.values()
    found = [(step, name) for step, values in run.points for name in values if name != "images a second" and not name.endswith(" grid")]
    assert len(found) == len(set(found))  # no point twice
    assert set(found) == set(points(stopped))
    assert run.config["model"] == "vae" or run.config["data"]
    assert run.ended == 2


def test_what_is_missing_is_said(stopped: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
        result = lgm(*support.arguments("vae", pictures, stopped), "--log", name)
        assert (result.exit_code, f"pip install {name}" in result.stderr) == (2, True)
    result = lgm(*support.arguments("vae", pictures, stopped), "--log", "cvs")
    assert (result.exit_code, "did you mean 'csv'?" in result.stderr) == (2, True)
    assert not stopped.exists()
