"""Measuring on held-out images while a model trains: what is measured, on what, where it is told, and that it disturbs nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
import toy
from faults import test_ranks as ranks
from rich.console import Console

import models
from lgcli.display import _Display, describe
from models import api
from models.base import Batch
from models.capabilities.ask import evaluating
from models.data.batches import Batches
from models.data.load import load, parse
from models.errors import UserError
from models.training import checkpoint, events, loop, observers, sources

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/ (20 images) and test/ (12 images), each with the classes cross and disc."""
    folder = tmp_path_factory.mktemp("split")
    support.write_pictures(folder / "train", 20)
    support.write_pictures(folder / "test", 12, seed=1)
    return folder


@pytest.fixture(scope="session")
def straight_classifier(split: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("classifier") / "run"
    support.call(support.train, "classifier", str(split), str(run), support.tiny("classifier", keep=9))
    return run


def validated(happened: Iterable[events.Event]) -> list[events.Validated]:
    return [e for e in happened if isinstance(e, events.Validated)]


def warned(happened: Iterable[events.Event]) -> list[str]:
    """Warnings, but for those on which sub-folder is read and on how few steps there are."""
    said = [e.message for e in happened if isinstance(e, events.Warned)]
    return [message for message in said if "sub-folder train/" not in message and "too few to learn" not in message]


# ---- what is measured ----------------------------------------------------------------------------------------------------------------


def test_the_log_and_the_events_tell_the_measures(split: Path, tmp_path: Path) -> None:
    happened = list(models.stream("classifier", str(split), out=tmp_path / "run", **support.tiny("classifier")))
    assert not warned(happened)
    told = validated(happened)
    assert [(e.images, e.stage, e.held_out) for e in told] == [(n, "classification", 12) for n in (40, 80, 96)]  # every 40, and at the end
    logged = [line for line in support.log(tmp_path / "run") if "measures" in line]
    assert logged == [{"images": e.images, "stage": e.stage, "held out": 12, "measures": dict(e.measures)} for e in told]
    order = [type(e).__name__ for e in happened if e.images == 96 and not isinstance(e, events.Progressed)]
    assert order == ["Logged", "Validated", "Saved", "Finished"]

    trained = api.load(tmp_path / "run")  # the averaged weights
    data = load(parse(f"{split}:test"))
    with evaluating(trained.model):
        again = trained.model.validate(Batches(data, CPU).in_order(5))  # type: ignore[operator]
    assert again == told[-1].measures
    assert set(again) == {"accuracy"}


class Measured(toy.Toy):
    """Notes the circumstances of every measurement."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: list[tuple[Any, ...]] = []

    def validate(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        sizes = [len(batch.image) for batch in batches]
        modes = any(module.training for module in self.modules())
        weight = next(self.generator.parameters()).detach().clone()
        self.seen.append((sizes, modes, torch.is_grad_enabled(), weight))
        return {"first weight": float(weight.flatten()[0])}


def test_the_average_is_measured_in_eval_mode_without_gradients(tmp_path: Path) -> None:
    job = toy.job(tmp_path, Measured)
    held_out = Batches(support.image_data(observers.VALIDATED + 3, seed=1), CPU)
    trainer = []
    happened = []
    with support.after_step(96, trainer.append):
        for event in loop.train(loop.Job(**{**vars(job), "observers": (*job.observers, observers.HeldOut(job.config, held_out))})):
            happened.append(event)
            if isinstance(event, events.Validated):
                assert all(m.training for m in job.model.generator.modules()) or event.stage == "embedding"  # type: ignore[union-attr]
    assert [(e.images, e.held_out) for e in validated(happened)] == [(32, 131), (40, 131), (80, 131), (96, 131)]
    assert [seen[:3] for seen in job.model.seen] == [([128, 3], False, False)] * 4  # type: ignore[union-attr, index]
    average = trainer[0].averages.tensors()["generator.0.weight"]
    assert torch.equal(job.model.seen[-1][3], average)  # type: ignore[union-attr, index]
    assert not torch.equal(average, job.model.state_dict()["generator.0.weight"])


def test_watching_changes_no_weight(straight_classifier: Path, split: Path, tmp_path: Path) -> None:
    """Held-out images or none, measured at every step or never: the same tensors."""
    for number, (data, every) in enumerate([(split, 8), (split, 10**6), (split / "train", 40)]):
        run = tmp_path / str(number)
        support.call(support.train, "classifier", str(data), str(run), support.tiny("classifier", sample_every=every))
        support.assert_same_tensors(support.newest(straight_classifier), support.newest(run))


@pytest.mark.parametrize("images", [8, 40, 48, 88, 96])
def test_killed_and_resumed_it_measures_the_same(images: int, straight_classifier: Path, split: Path, tmp_path: Path) -> None:
    settings = support.tiny("classifier", save_every=16)
    child = support.start(support.train_and_die, images, "classifier", str(split), str(tmp_path), settings)
    assert support.exit_code(child) == support.KILLED
    if support.checkpoints(tmp_path):
        assert not warned(support.call(support.resume, str(tmp_path), {}))
    else:
        support.call(support.train, "classifier", str(split), str(tmp_path), settings)
    support.assert_same_run(straight_classifier, tmp_path)


def train_as_rank(data: str, run: str) -> None:
    told = validated(support.train("classifier", data, run, support.tiny("classifier")))
    assert len(told) == (3 if os.environ["RANK"] == "0" else 0)


def test_two_ranks_of_which_one_measures(split: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ranks.finished(ranks.together(tmp_path, run, train_as_rank, (str(split), str(run))))
    assert [line["images"] for line in support.log(run) if "measures" in line] == [40, 80, 96]
    assert checkpoint.read_header(support.newest(run)).environment["world"] == 2


# ---- on what -------------------------------------------------------------------------------------------------------------------------


def held_out_warning(data: Path | str, tmp_path: Path, **settings: Any) -> str:
    happened = list(models.stream("classifier", str(data), out=tmp_path / "run", **support.tiny("classifier", images=16, **settings)))
    assert isinstance(happened[-1], events.Finished)
    assert not validated(happened)
    [message] = [m for m in warned(happened) if "held-out" in m]
    assert message.startswith("there are no held-out images, the model is not measured while it trains (")
    return message


def test_a_folder_without_test_images(pictures: Path, tmp_path: Path) -> None:
    assert "no sub-folder 'test'" in held_out_warning(pictures, tmp_path)
    resumed = list(api.resume(tmp_path / "run", images=32))
    assert len([m for m in warned(resumed) if "held-out" in m]) == 1


def test_training_on_the_test_split(split: Path, tmp_path: Path) -> None:
    assert "trains on the test split itself" in held_out_warning(f"{split}:test", tmp_path)


def test_test_images_among_the_training_images(tmp_path: Path) -> None:
    """Where train/ and test/ have another folder beside them, all three are classes, and nothing is held out."""
    for number, name in enumerate(("train", "test", "more")):
        support.write_pictures(tmp_path / "data" / name, 12, seed=number)
    assert "the test images are among the training images" in held_out_warning(tmp_path / "data", tmp_path)


def test_test_images_that_are_links_to_training_images(tmp_path: Path) -> None:
    """Links into one store have names of their own, and still are the same images."""
    store = support.write_pictures(tmp_path / "store", 20)
    for number, path in enumerate(sorted(store.rglob("*.png"))):
        for part in ("train", "test") if number == 7 else ("train",) if number % 3 else ("test",):
            link = tmp_path / "data" / part / path.parent.name / f"{part}-{number}.png"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    assert "the test images are among the training images" in held_out_warning(tmp_path / "data", tmp_path)


def test_test_images_of_other_classes(tmp_path: Path) -> None:
    support.write_pictures(tmp_path / "data" / "train", 20)
    (support.write_pictures(tmp_path / "data" / "test", 12) / "disc").rename(tmp_path / "data" / "test" / "sphere")
    assert "the test images have other classes" in held_out_warning(tmp_path / "data", tmp_path)


def test_test_images_without_labels(tmp_path: Path) -> None:
    support.write_pictures(tmp_path / "data" / "train", 20)
    test = support.write_pictures(tmp_path / "data" / "test", 12)
    for path in (test / "disc").iterdir():
        path.unlink()
    assert "the test images have no label" in held_out_warning(tmp_path / "data", tmp_path)


def test_an_unreadable_test_image(tmp_path: Path) -> None:
    support.write_pictures(tmp_path / "data" / "train", 20)
    bad = support.write_pictures(tmp_path / "data" / "test", 12) / "disc" / "bad.png"
    bad.write_bytes(b"no picture")
    assert "held-out" in held_out_warning(tmp_path / "data", tmp_path)
    settings = support.tiny("classifier", images=16, skip_bad=True)
    happened = list(models.stream("classifier", str(tmp_path / "data"), out=tmp_path / "skips", **settings))
    assert [e.held_out for e in validated(happened)] == [12]


def test_held_out_images_take_the_model_s_shape(tmp_path: Path) -> None:
    from PIL import Image

    support.write_pictures(tmp_path / "data" / "train", 20, size=16)
    for path in support.write_pictures(tmp_path / "data" / "test", 12, size=24).rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    happened = list(models.stream("classifier", str(tmp_path / "data"), out=tmp_path / "run", **support.tiny("classifier", images=16)))
    assert [e.held_out for e in validated(happened)] == [12]
    assert checkpoint.read_header(support.newest(tmp_path / "run")).spec.shape == (1, 16, 16)


def test_a_share_is_kept_back(pictures: Path, tmp_path: Path) -> None:
    """Of a folder without test images: a quarter is measured on and never trained on, and which one depends on the seed."""
    from models.data.load import load, parse
    from models.training.sources import Learned, held_out

    settings = support.tiny("classifier", held_out=0.25, save_every=48)
    happened = support.call(support.train, "classifier", str(pictures), str(tmp_path / "run"), settings)
    assert {event.held_out for event in validated(happened)} == {5}
    assert not any("no held-out images" in message for message in warned(happened))
    trained = models.load(tmp_path / "run", device="cpu")
    whole = load(parse(str(pictures)))
    learned = Learned(whole, trained.header.config)
    rest = held_out(trained.header.config, trained.model, whole)
    assert sorted([*learned.index, *rest.index]) == list(range(20))  # type: ignore[attr-defined]
    other = Learned(whole, dataclasses.replace(trained.header.config, seed=1))
    assert set(other.index) != set(learned.index)
    last = validated(happened)[-1].measures["accuracy"]
    assert last == pytest.approx(trained.judge(rest).accuracy)
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "run", again)
    newest = support.newest(again)
    newest.unlink()
    support.call(support.resume, str(again), {})
    support.assert_same_run(tmp_path / "run", again)


def test_a_second_draw_does_not_see_what_is_kept_back(pictures: Path) -> None:
    from models.config import RunConfig
    from models.registry import model_class
    from models.training import sources

    config = RunConfig("ip-gan", data=str(pictures), sources={"other": str(pictures), "unlabelled": str(pictures)}, held_out=0.2)
    data, others = sources.load_all(config, model_class("ip-gan"), {})
    assert isinstance(data, sources.Learned)
    kept = set(data.index)
    assert len(kept) == 16
    for other in others.values():
        assert isinstance(other, sources.Learned)
        assert set(other.index) == kept


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("0.25", 0.25), ("5.5%", 0.055)])
def test_shares(text: str, share: float) -> None:
    from models.config import RunConfig, parse_flags

    assert parse_flags(RunConfig, {"held_out": text}) == {"held_out": pytest.approx(share)}
    for wrong in ("95%", "-1", "much", "%", ""):
        with pytest.raises(UserError):
            parse_flags(RunConfig, {"held_out": wrong})


def test_nothing_is_left(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="kept back"):
        support.call(
            support.train, "classifier", f"{pictures}[first=1]", str(tmp_path / "run"), support.tiny("classifier", held_out=0.9, batch=1)
        )


def test_models_that_do_not_validate_load_no_test_images(split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = sources.load
    monkeypatch.setattr(sources, "load", lambda request: asked.append(str(request)) or original(request))
    happened = list(models.stream("vae", str(split), out=tmp_path / "run", **support.tiny("vae", images=16)))
    assert not validated(happened)
    assert not warned([e for e in happened if "held-out" in str(e)])
    assert asked == [str(split)]


# ---- what is needed ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "classifier needs label, these data have image"),
        ({"target": "attributes"}, "classifier needs attributes, these data have image"),
        ({"target": "identity"}, "classifier needs identity, these data have image"),
    ],
)
def test_needs_depend_on_the_options(options: dict[str, Any], message: str, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        models.train("classifier", str(pictures / "cross"), out=tmp_path / "run", **support.tiny("classifier", options))
    assert not (tmp_path / "run").exists()


# ---- where it is told ----------------------------------------------------------------------------------------------------------------


def test_a_plain_line() -> None:
    event = events.Validated(40_000, "classification", 10_000, {"accuracy": 0.99312, "macro F1": 0.5})
    said = "40,000 of 90,000 images, measured on 10,000 held-out images: accuracy 0.9931, macro F1 0.5"
    assert describe(event, 90_000) == said


def test_a_plain_line_says_how_long_its_own_stage_takes() -> None:
    """Another stage may be many times as fast, so nobody can say from this one's rate when the run ends."""
    event = events.Logged(40_000, "auto-encoder", {"decoder loss": 0.25}, 100.0)
    assert describe(event, 1_100_000, 46_000) == "40,000 of 1,100,000 images, 100/s, 0:01:00 to the next stage: decoder loss 0.25"
    assert describe(event, 46_000, 46_000) == "40,000 of 46,000 images, 100/s, 0:01:00 left: decoder loss 0.25"


def test_the_live_display_keeps_the_newest() -> None:
    display = _Display()
    display.console = display.live.console = display.bar.live.console = Console(file=open(os.devnull, "w"), width=200)
    display.show(events.Started(0, "run", "classifier", "mnist", 100, "cpu", False))
    for images, accuracy in ((50, 0.5), (100, 0.75)):
        display.show(events.Validated(images, "classification", 10, {"accuracy": accuracy}))
    with display.console.capture() as shown:
        display.console.print(display._picture())
    assert "100 of 100 images, measured on 10 held-out images: accuracy 0.75" in shown.get()
    assert "accuracy 0.5" not in shown.get()


def test_json_lines(split: Path, tmp_path: Path) -> None:
    code, text = support.run(support.cli, support.arguments("classifier", split, tmp_path / "run", "--json"))
    assert code == 0, text
    told = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    measured = [line for line in told if line["event"] == "validated"]
    assert [line["images"] for line in measured] == [40, 80, 96]
    assert all(line["held_out"] == 12 and 0 <= line["measures"]["accuracy"] <= 1 for line in measured)


def test_a_classifier_refuses_to_generate(straight_classifier: Path, pictures: Path) -> None:
    trained = api.load(straight_classifier)
    images = np.zeros((1, 16, 16, 1), np.uint8)
    for attempt, verb in (
        (lambda: trained.sample(1), "sample"),
        (lambda: trained.reconstruct(images), "reconstruct"),
        (lambda: trained.project(images), "sample"),
        (lambda: trained.way("1", "2"), "sample"),
        (lambda: trained.way(images[0], images[0], space="code"), "encode"),
    ):
        with pytest.raises(UserError, match=f"this model cannot {verb}: classifier"):
            attempt()
    code, text = support.run(support.cli, ["sample", str(straight_classifier)])
    assert code == 2
    assert "this model cannot sample: classifier" in text
