"""What looks at a run: at its own cadence, with what it may see; and that it disturbs nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import support
import torch
import toy

import models
from models.training import events, loop
from models.training.observers import Grids, HeldOut, Observer, View


class Watcher(Observer):
    """Notes what it is shown, draws random numbers, and has its say."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.seen: list[tuple[int, str, float]] = []
        self.heard: list[tuple[int, list[str]]] = []
        self.weights: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def look(self, view: View) -> Iterator[events.Event]:
        self.seen.append((view.images, view.stage.name, view.progress))
        torch.rand(3)
        with view.averaged():
            average = self.first(view)
        self.weights.append((average, self.first(view), torch.rand(1)))
        view.record({"images": view.images, "looked": True})
        yield events.Warned(view.images, "looked")

    def hear(self, images: int, losses: Mapping[str, float]) -> Iterator[events.Event]:
        self.heard.append((images, sorted(losses)))
        yield events.Warned(images, "heard")

    def first(self, view: View) -> torch.Tensor:
        found: Any = view.model.get_submodule("generator")[0].weight
        return found.detach().clone()


def test_an_observer_looks_at_its_cadence_and_hears_the_log(tmp_path: Path) -> None:
    watchers = Watcher(24), Watcher(10**6)
    happened = list(loop.train(dataclasses.replace(toy.job(tmp_path / "watched"), observers=watchers)))
    assert watchers[0].seen == [(24, "embedding", 0.75), (32, "embedding", 1.0)] + [(n, "game", (n - 32) / 64) for n in (48, 72, 96)]
    assert watchers[1].seen == [(32, "embedding", 1.0), (96, "game", 1.0)]
    assert [images for images, _ in watchers[0].heard] == [16, 32, 48, 64, 80, 96]
    assert watchers[0].heard[-1][1] == ["critic loss", "generator loss"]
    assert not torch.equal(watchers[0].weights[-1][0], watchers[0].weights[-1][1])  # the average, and the model as it goes on
    at_the_end = [type(e).__name__ + getattr(e, "message", "") for e in happened if e.images == 96 and not isinstance(e, events.Progressed)]
    assert at_the_end == ["Logged", "Warnedheard", "Warnedheard", "Warnedlooked", "Warnedlooked", "Saved", "Finished"]
    assert [line["images"] for line in support.log(tmp_path / "watched") if "looked" in line] == [24, 32, 32, 48, 72, 96, 96]


def test_watching_draws_from_no_step_s_random_stream(tmp_path: Path) -> None:
    toy.train(tmp_path / "alone")
    list(loop.train(dataclasses.replace(toy.job(tmp_path / "watched"), observers=(Watcher(8),))))
    support.assert_same_tensors(support.newest(tmp_path / "alone"), support.newest(tmp_path / "watched"))


def test_every_run_has_the_usual_observers(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("train", "test"):
        support.write_pictures(tmp_path / "data" / part, 12, seed=len(part))
    jobs: list[loop.Job] = []
    original = loop.train
    monkeypatch.setattr(loop, "train", lambda job: jobs.append(job) or original(job))
    for model in ("vae", "classifier"):
        models.train(model, str(tmp_path / "data"), out=tmp_path / model, **support.tiny(model, images=8))
    assert [[(type(one), one.every) for one in job.observers] for job in jobs] == [[(Grids, 40)], [(Grids, 40), (HeldOut, 40)]]
