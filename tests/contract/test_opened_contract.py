"""Sources, parts, a clock and outputs of another kind, on a toy that has all of them: trained, killed and resumed bit for bit."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
import toys
from forgery import edited, forged

import models
from models import api
from models.base import Clock
from models.data.batches import Batches, to_float
from models.data.load import load, parse
from models.errors import UserError
from models.training import checkpoint, events, loop

BORDER, TOTAL = 32, 96  # the toy's stages: 8 steps of 4 images, 8 steps of 8
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _toys_are_found() -> Iterator[None]:
    with toys.found():
        yield


settings = toys.meeting_settings


@pytest.fixture(scope="module")
def straight(places: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("straight") / "run"
    support.call(toys.train, "meeting", {}, str(run), settings(places, keep=99))
    return run


# ---- sources -------------------------------------------------------------------------------------------------------------------------


def test_every_source_has_an_order_of_its_own(places: dict[str, Path]) -> None:
    here, there = (load(parse(str(places[name]))) for name in ("here", "there"))
    batches = Batches(here, CPU, {"there": there, "again": here})
    stream = batches.stream(seed=5, batch=10, seen=0)
    orders: dict[str, list[int]] = {"": [], "there": [], "again": []}
    for _ in range(4):
        batch = next(stream)
        orders[""] += batch.index.tolist()
        for name in ("there", "again"):
            orders[name] += batch[name].index.tolist()
            assert batch[name] is batch[name]  # a step reads each source's items once
    assert sorted(orders[""][:20]) == sorted(orders["again"][:20]) == list(range(20))
    assert sorted(orders["there"][:13]) == list(range(13))  # shorter, so it comes again
    assert orders[""] != orders["again"]
    alone = [index for batch, _ in zip(Batches(here, CPU).stream(5, 10, 0), range(4)) for index in batch.index.tolist()]
    assert alone == orders[""]  # other sources change nothing for the leading one
    later = next(batches.stream(seed=5, batch=10, seen=30))
    assert later["there"].index.tolist() == orders["there"][30:]


def test_ranks_and_workers_see_the_same_items(places: dict[str, Path]) -> None:
    here, there = (load(parse(str(places[name]))) for name in ("here", "there"))
    batches = Batches(here, CPU, {"there": there})
    whole = next(batches.stream(1, 8, 16))
    shares = [next(batches.stream(1, 8, 16, rank=rank, world=2)) for rank in range(2)]
    assert torch.cat([share["there"].label for share in shares]).tolist() == whole["there"].label.tolist()
    ahead = next(batches.stream(1, 8, 16, {"image", "there.image"}, workers=2))
    assert torch.equal(ahead["there"].image, whole["there"].image)


def test_a_batch_without_further_sources_says_so(places: dict[str, Path]) -> None:
    batch = Batches(load(parse(str(places["here"]))), CPU).at([0])
    with pytest.raises(KeyError):
        batch["there"]
    with pytest.raises(UserError, match="the data have no identity"):
        _ = batch.identity


def test_spec_and_config_tell_of_all_sources(straight: Path, places: dict[str, Path]) -> None:
    header = checkpoint.read_header(support.newest(straight))
    assert header.spec.shape == (1, 16, 16)
    assert header.spec["there"].shape == (3, 12, 16)
    assert header.spec["again"] == dataclasses.replace(header.spec, others={})
    assert header.config.data == str(places["here"])
    assert header.config.sources == {"there": str(places["there"]), "again": str(places["here"])}  # the parts' data, and a second draw


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"elsewhere": "glyphs"}, "no source 'elsewhere': --data elsewhere="),
        ({"there": "nosuchset"}, "neither a data set nor a folder: nosuchset"),
        ({"there": "{here}[input=grey]"}, "the images of far are (3, 12, 16), these are (1, 12, 16)"),
    ],
)
def test_wrong_sources_are_refused(data: dict[str, str], message: str, places: dict[str, Path], tmp_path: Path) -> None:
    data = {name: text.format(**places) for name, text in data.items()}
    with pytest.raises(UserError) as error:
        models.train("meeting", data, out=tmp_path / "run", **settings(places))
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


# ---- parts ---------------------------------------------------------------------------------------------------------------------------


def test_parts_are_the_averaged_weights_of_their_runs_and_stay_so(straight: Path, places: dict[str, Path]) -> None:
    for name in ("near", "far"):
        whole = checkpoint.read_tensors(support.newest(places[name]))
        theirs = checkpoint.part(whole, "model") | checkpoint.part(whole, "average")
        for path in support.checkpoints(straight).values():
            mine = checkpoint.part(checkpoint.read_tensors(path), "model")
            assert all(torch.equal(mine[f"parts.{name}.{key}"], value) for key, value in theirs.items())


def test_a_run_needs_nothing_of_its_parts_any_more(straight: Path, places: dict[str, Path], tmp_path: Path) -> None:
    moved = {name: tmp_path / name for name in places}
    for name, place in places.items():
        shutil.copytree(place, moved[name])
    given = settings(moved)
    run = tmp_path / "run"
    models.train("meeting", {"here": str(places["here"]), "there": str(places["there"])}, out=run, **given)
    shutil.rmtree(moved["near"])
    shutil.rmtree(moved["far"])
    support.assert_same_tensors(support.newest(run), support.newest(straight))
    trained = models.load(run)
    image = to_float(torch.from_numpy(load(parse(str(places["here"]))).rows("image", np.arange(5))))
    with torch.no_grad():
        made = trained.model.translate(image)  # type: ignore[operator]
    assert made.shape == (5, *trained.model.gives("translate").shape) == (5, 3, 12, 16)
    assert float(made.abs().max()) <= 1
    assert trained.model.gives("sample").shape == (1, 16, 16)
    assert api.describe_run(run)["parts"] == {"near": "vae", "far": "vae"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"far": None}, "the part 'far' is missing: an auto-encoder of the images of there: --part far"),
        ({"third": "{near}"}, "this model takes no part 'third': --part third"),
        ({"near": "{here}"}, "no checkpoint in this folder"),
    ],
)
def test_wrong_parts_are_refused(parts: dict[str, str | None], message: str, places: dict[str, Path], tmp_path: Path) -> None:
    given = settings(places)
    for name, run in parts.items():
        given["parts"].pop(name, None) if run is None else given["parts"].update({name: run.format(**places)})
    with pytest.raises(UserError) as error:
        models.train("meeting", out=tmp_path / "run", **given)
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_part_that_lacks_a_verb_or_has_to_be_told_is_refused(places: dict[str, Path], tmp_path: Path) -> None:
    for model, message in (("classifier", "a classifier cannot decode and encode"), ("cvae", "a cvae has to be told what images show")):
        models.train(model, str(places["here"]), out=tmp_path / model, **support.tiny(model, images=8))
        given = settings(places)
        given["parts"]["near"] = str(tmp_path / model)
        with pytest.raises(UserError, match=re.escape(message)):
            models.train("meeting", out=tmp_path / "run", **given)


# ---- the clock, and stages that differ --------------------------------------------------------------------------------------------------


def test_stages_have_their_own_batch_and_settings_and_know_the_time(places: dict[str, Path], tmp_path: Path) -> None:
    told: list[tuple[str, Clock, int]] = []
    rates: dict[str, Any] = {}
    step = loop._Trainer._step

    def watched(trainer: Any, stage: Any, mover: Any, batch: Any, begin: int, end: int) -> None:
        step(trainer, stage, mover, batch, begin, end)
        seen = trainer.model.times.tolist()
        told.append((stage.name, Clock(int(seen[0]), int(seen[1]), seen[2]), len(batch)))
        rates[stage.name] = {name: (player.lr, player.optimizer) for name, player in mover.players.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Trainer, "_step", watched)
        models.train("meeting", out=tmp_path / "run", **settings(places))
    assert told == [("small", Clock(n, 4 * n, n / 8), 4) for n in range(8)] + [("whole", Clock(n, 8 * n, n / 8), 8) for n in range(8)]
    assert rates == {"small": {"judge": (0.005, "sgd")}, "whole": {"judge": (0.02, "adam"), "bridge": (0.02, "adam")}}
    assert checkpoint.read_header(support.newest(tmp_path / "run")).borders == (BORDER, TOTAL)


@pytest.mark.parametrize("images", [4, 28, 32, 40, 88])
def test_killed_anywhere_and_resumed_it_is_the_straight_run(images: int, straight: Path, places: dict[str, Path], tmp_path: Path) -> None:
    child = support.start(toys.train_and_die, images, "meeting", {}, str(tmp_path), settings(places))
    assert support.exit_code(child) == support.KILLED
    if not support.checkpoints(tmp_path):
        support.call(toys.train, "meeting", {}, str(tmp_path), settings(places))
    happened = support.call(toys.resume, str(tmp_path))
    assert not [event.message for event in happened if isinstance(event, events.Warned) and "bit-exact" in event.message]
    support.assert_same_run(straight, tmp_path)


def test_a_resumed_run_keeps_its_sources(straight: Path, places: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    with pytest.raises(UserError, match="these are other data than the run's"):
        list(api.resume(run, data={"there": "glyphs"}))
    moved = shutil.copytree(places["there"], tmp_path / "moved")
    finished = list(api.resume(run, data={"there": str(moved)}))[-1]
    assert isinstance(finished, events.Finished)
    (moved / "disc" / "001.png").unlink()
    with pytest.raises(UserError, match="--accept-data"):
        list(api.resume(run, data={"there": str(moved)}, images=104))


def test_the_source_that_has_changed_is_named(straight: Path, places: dict[str, Path], tmp_path: Path) -> None:
    run, moved = shutil.copytree(straight, tmp_path / "run"), shutil.copytree(places["there"], tmp_path / "moved")
    (moved / "disc" / "001.png").unlink()
    other = f"these are other data than the run's ({places['there']})"
    with pytest.raises(UserError, match=re.escape(other)) as error:
        list(api.resume(run, data={"there": str(moved)}, images=104))
    assert error.value.where == f"--data there={moved}"
    happened = list(api.resume(run, data={"there": str(moved)}, images=104, accept_data=True))
    said = [event.message for event in happened if isinstance(event, events.Warned) and "not bit-exact" in event.message]
    assert said == [f"not bit-exact: {other}: {moved}"]
    (moved / "disc" / "003.png").unlink()
    with pytest.raises(UserError, match=re.escape("the data have changed since the run began (11 images now)")) as error:
        list(api.resume(run, images=112))
    assert error.value.where == str(moved)
    with pytest.raises(UserError, match="these are other data than the run's") as error:
        list(api.resume(run, data={"there": "glyphs"}))
    assert error.value.where == "--data there=glyphs"


def test_a_file_without_the_data_of_a_source_is_refused(straight: Path, tmp_path: Path) -> None:
    path = support.newest(straight)
    forged(path, tmp_path / "checkpoints" / path.name, edited("config", lambda config: config["sources"].pop("there")))
    with pytest.raises(UserError, match="lacks a source") as error:
        list(api.resume(tmp_path))
    assert error.value.where == str(tmp_path / "checkpoints" / path.name)


def test_what_a_file_says_more_of_a_part_is_passed_over(straight: Path, tmp_path: Path) -> None:
    """Files of earlier versions say at which stage the part's own run stood."""
    path = forged(support.newest(straight), tmp_path / "x.safetensors", edited("parts", lambda parts: parts["near"].update(stage="one")))
    assert checkpoint.read_header(path).parts == checkpoint.read_header(support.newest(straight)).parts
    assert set(api.load(path).model.parts) == {"near", "far"}


def test_a_part_s_file_is_read_once(places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, original = [], checkpoint.read_header
    monkeypatch.setattr(checkpoint, "read_header", lambda path: read.append(path) or original(path))
    next(models.stream("meeting", out=tmp_path / "run", **settings(places)))
    assert read == [support.newest(places["near"]), support.newest(places["far"])]


def test_a_plan_shows_every_source(places: dict[str, Path]) -> None:
    planned = api.plan("meeting", **settings(places))
    assert (len(planned.data), {name: len(other) for name, other in planned.others.items()}) == (20, {"there": 13, "again": 20})
    assert planned.others["again"] is planned.data  # what is asked for twice is read once
    shown = api.describe_plan("meeting", **settings(places))
    assert shown["further data"]["there"]["count"] == 13
    assert [stage["until images"] for stage in shown["stages"]] == [BORDER, TOTAL]
