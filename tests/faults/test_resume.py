"""A run that was killed anywhere and resumed in a new process is the straight run, to the last bit; where it cannot be, that is said."""

from __future__ import annotations

import dataclasses
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import support
import torch
import toy

from models import api, registry
from models.errors import UserError
from models.training import checkpoint, events, sources, stages

MODELS = ["vae", "aegan"]
OTHERS = sorted(set(registry.MODELS.entries()) - set(MODELS))
WORKERS = [(0, 0), (0, 2), (2, 0), (2, 2)]
Straight = Callable[[str], Path]


def killed(images: int, model: str, data: Path, run: Path, **settings: Any) -> None:
    """A run that was killed right after the step that reached `images`."""
    child = support.start(support.train_and_die, images, model, str(data), str(run), support.tiny(model, **settings))
    assert support.exit_code(child) == support.KILLED
    if not support.checkpoints(run):  # killed before the first save: the same command, into the same folder
        support.call(support.train, model, str(data), str(run), support.tiny(model, **settings))


def resumed(run: Path, **changes: Any) -> list[events.Event]:
    return support.call(support.resume, str(run), changes)


def warnings(happened: list[events.Event]) -> list[str]:
    """Without that of the collapse alarm, which is right about runs as short as these."""
    return [e.message for e in happened if isinstance(e, events.Warned) and "samples are alike" not in e.message]


def copy(run: Path, target: Path, *keep: int) -> Path:
    """A copy of a finished run as it was when only the checkpoints `keep` were there."""
    shutil.copytree(run, target)
    for images, path in support.checkpoints(target).items():
        if images not in keep:
            path.unlink()
    return target


# ---- bit for bit ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("images", [8, 32, 40, 48, 56, 72, 80, 88, 96])  # aegan's border is at 48; an epoch ends at 20, 40, 60, 80
def test_B1_B3_kill_and_resume_is_the_straight_run(model: str, images: int, straight: Straight, pictures: Path, tmp_path: Path) -> None:
    killed(images, model, pictures, tmp_path, save_every=16)  # the border is one of the saves
    happened = resumed(tmp_path)
    assert not warnings(happened)
    support.assert_same_run(straight(model), tmp_path)


@pytest.mark.parametrize("model", OTHERS)
@pytest.mark.parametrize(("images", "workers"), [(8, 0), (48, 2), (72, 0)])
def test_B1_B3_every_model(model: str, images: int, workers: int, straight: Straight, pictures: Path, tmp_path: Path) -> None:
    killed(images, model, pictures, tmp_path, save_every=8, workers=workers)
    assert not [message for message in warnings(resumed(tmp_path)) if "bit-exact" in message]
    support.assert_same_run(straight(model), tmp_path)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("before", "after"), WORKERS[1:])
def test_B2_workers_change_nothing(model: str, before: int, after: int, straight: Straight, pictures: Path, tmp_path: Path) -> None:
    killed(56, model, pictures, tmp_path, workers=before, save_every=8)
    assert max(support.checkpoints(tmp_path)) == 48
    assert not warnings(resumed(tmp_path, workers=after))
    support.assert_same_run(straight(model), tmp_path)


@pytest.mark.parametrize("model", MODELS)
def test_B1_killed_at_random_times(model: str, straight: Straight, pictures: Path, tmp_path: Path) -> None:
    """The parent kills, whatever the child is doing, again and again until the run is done."""
    dice, legs = random.Random(model), 0
    run = tmp_path / "run"
    while not run.exists() or 96 not in support.checkpoints(run):
        if support.checkpoints(run):
            child = support.start(support.resume, str(run), {"workers": dice.choice([0, 2])})
        else:
            child = support.start(support.train, model, str(pictures), str(run), support.tiny(model, save_every=8, keep=3))
        support.wait_for(lambda child=child: holds(run, child), what="the lock")
        time.sleep(dice.uniform(0, 0.1) * (1 + legs / 5))  # longer and longer, so that a slow machine gets there too
        child.kill()
        support.exit_code(child)
        legs += 1
        assert legs < 60
        for path in support.checkpoints(run).values():
            checkpoint.read_tensors(path)
    support.call(support.resume, str(run), {})  # the last line of the log may be missing still
    support.assert_same_tensors(support.newest(straight(model)), support.newest(run))
    lines = support.log(run)
    assert lines == [line for line in support.log(straight(model)) if line in lines]


def holds(run: Path, child: Any) -> bool:
    lock = run / "run.lock"
    return child.exitcode is not None or (lock.exists() and f"pid {child.pid}" in lock.read_text())


@pytest.mark.parametrize("images", [24, 32, 40, 72])  # before, at and after the border; dropout, batch norm, a history, unequal steps
def test_B1_toy_is_killed_and_resumed(images: int, tmp_path: Path) -> None:
    straight, run = tmp_path / "straight", tmp_path / "run"
    toy.train(straight)
    child = support.start(support_toy_dies, images, run)
    assert support.exit_code(child) == support.KILLED
    support.call(support_toy_resumes, run)
    support.assert_same_run(straight, run)


def support_toy_dies(images: int, run: Path) -> None:
    with support.dying_at(images + 8):
        toy.train(run, save_every=8)


def support_toy_resumes(run: Path) -> None:
    toy.train(run, resume=True)


def test_G11_state_in_a_plain_attribute_is_noticed(tmp_path: Path) -> None:
    """The comparison that all these tests rest on can fail: a model that keeps its history outside of a buffer does not resume exactly."""

    class Forgetful(toy.Toy):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            del self.history
            self.history = torch.zeros(4, 6)

    straight, run = tmp_path / "straight", tmp_path / "run"
    toy.train(straight, Forgetful, keep=9)
    copy(straight, run, 72)
    toy.train(run, Forgetful, resume=True)
    with pytest.raises(AssertionError, match=r"model/critic|average|model/generator|optim"):
        support.assert_same_run(straight, run)


@pytest.mark.parametrize("model", MODELS)
def test_B4_three_legs(model: str, straight: Straight, pictures: Path, tmp_path: Path) -> None:
    killed(40, model, pictures, tmp_path)
    for images in (56, 88):
        child = support.start(support.resume_and_die, images, str(tmp_path), {})
        assert support.exit_code(child) == support.KILLED
    resumed(tmp_path)
    support.assert_same_run(straight(model), tmp_path)


@pytest.mark.parametrize("model", MODELS)
def test_B5_saving_at_another_rhythm(model: str, straight: Straight, pictures: Path, tmp_path: Path) -> None:
    for every in (8, 56):
        run = tmp_path / str(every)
        support.call(support.train, model, str(pictures), str(run), support.tiny(model, save_every=every))
        support.assert_same_run(straight(model), run)


@pytest.mark.parametrize("model", MODELS)
def test_B6_sampling_and_logging_at_another_rhythm(model: str, straight: Straight, pictures: Path, tmp_path: Path) -> None:
    for every in (8, 10**6):
        run = tmp_path / str(every)
        support.call(support.train, model, str(pictures), str(run), support.tiny(model, sample_every=every, log_every=every))
        support.assert_same_tensors(support.newest(straight(model)), support.newest(run))
        assert len(list((run / "samples").iterdir())) >= (12 if every == 8 else 1)


def test_B6_pictures_do_not_depend_on_the_rhythm(straight: Straight, pictures: Path, tmp_path: Path) -> None:
    support.call(support.train, "vae", str(pictures), str(tmp_path), support.tiny("vae", sample_every=8))
    for path in (straight("vae") / "samples").iterdir():
        assert path.read_bytes() == (tmp_path / "samples" / path.name).read_bytes()


def test_another_seed_is_another_run(straight: Straight, pictures: Path, tmp_path: Path) -> None:
    support.call(support.train, "vae", str(pictures), str(tmp_path), support.tiny("vae", seed=1))
    assert support.digest(support.newest(tmp_path)) != support.digest(support.newest(straight("vae")))


# ---- what may change, and what may not -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_B7_finished_run_is_left_alone(model: str, straight: Straight, tmp_path: Path) -> None:
    run = copy(straight(model), tmp_path / "run", 72, 96)
    before = {name: value for name, value in support.contents(run).items() if name != "run.lock"}
    happened = resumed(run)
    assert isinstance(happened[-1], events.Finished)
    assert happened[-1].already
    assert happened[-1].images == 96
    assert {name: value for name, value in support.contents(run).items() if name != "run.lock"} == before
    code, text = support.run(support.cli, ["train", "--resume", str(run)])
    assert code == 0
    assert "already at 96 images" in text


def test_finished_run_can_be_made_longer(straight: Straight, pictures: Path, tmp_path: Path) -> None:
    run = copy(straight("aegan"), tmp_path / "run", 72, 96)
    happened = resumed(run, images=128)
    assert happened[-1].images == 128
    assert [line["images"] for line in support.log(run)] == [16, 32, 48, 64, 80, 96, 112, 128]
    assert checkpoint.read_header(support.newest(run)).borders == (48, 128)


def test_B8_another_batch_goes_on_at_the_same_image(straight: Straight, tmp_path: Path) -> None:
    run = copy(straight("aegan"), tmp_path / "run", 72)
    happened = resumed(run, batch=4)
    assert any("not bit-exact" in w and "batch 8 -> 4" in w for w in warnings(happened))
    assert happened[0].images == 72
    assert happened[-1].images == 96
    assert {line["images"] for line in support.log(run)} == {16, 32, 48, 64, 80, 96}
    for path in support.checkpoints(run).values():
        checkpoint.read_tensors(path)


def changed_environment(run: Path, **environment: Any) -> None:
    """Rewrite the newest checkpoint as if it came from another machine."""
    path = support.newest(run)
    header, tensors = checkpoint.read_header(path), checkpoint.read_tensors(path)
    checkpoint.write(path, dataclasses.replace(header, environment={**header.environment, **environment}), tensors)


def test_B9_other_threads_torch_and_device_are_announced(straight: Straight, tmp_path: Path) -> None:
    run = copy(straight("vae"), tmp_path / "run", 72)
    changed_environment(run, threads=7, torch="2.5.0", device="cuda", world=2)
    (warning,) = warnings(resumed(run))
    assert "not bit-exact" in warning
    for difference in ("threads 7 -> 1", f"torch 2.5.0 -> {torch.__version__}", "device cuda -> cpu", "world 2 -> 1"):
        assert difference in warning
    assert 96 in support.checkpoints(run)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": {"latent": 8}}, "latent: 4 -> 8"),
        ({"options": {"lr": 0.5}}, "lr: 0.02 -> 0.5"),
        ({"seed": 3}, "seed: 0 -> 3"),
        ({"average_images": 1}, "average_images: 32 -> 1"),
        ({"log_every": 8}, "log_every: 16 -> 8"),
    ],
)
def test_B10_changed_option_is_refused(changes: dict[str, Any], said: str, straight: Straight, tmp_path: Path) -> None:
    run = copy(straight("vae"), tmp_path / "run", 72)
    before = support.contents(run)
    with pytest.raises(UserError) as error:
        list(api.resume(run, **changes))
    assert said in str(error.value)
    assert str(run) in error.value.where
    assert error.value.exit_code == 2
    assert support.contents(run) == before


def test_B10_same_options_given_again_are_no_change(straight: Straight, tmp_path: Path) -> None:
    run = copy(straight("vae"), tmp_path / "run", 72)
    words = ["train", "--resume", str(run), "--set", "widths=4,8", "--set", "latent=4", "--batch", "8"]
    code, text = support.run(support.cli, words)
    assert code == 0, text
    support.assert_same_run(straight("vae"), run)


@pytest.mark.parametrize("change", ["lost", "gained", "other pixels"])
def test_B11_data_have_changed(change: str, pictures: Path, tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(pictures, data)
    killed(80, "aegan", data, run)
    first = sorted((data / "disc").iterdir())[0]
    if change == "lost":
        first.unlink()
    elif change == "gained":
        shutil.copy(first, data / "disc" / "zzz.png")
    else:
        shutil.copy(sorted((data / "disc").iterdir())[1], first)
    before = support.contents(run)
    with pytest.raises(UserError, match="the data have changed") as error:
        list(api.resume(run))
    assert "--accept-data" in error.value.fix
    assert str(data) in error.value.where
    assert f"{len(list(data.rglob('*.png')))} images now" in str(error.value)
    assert support.contents(run) == before
    happened = resumed(run, accept_data=True)
    assert any("the data have changed" in w for w in warnings(happened))
    assert happened[-1].images == 96


@pytest.mark.parametrize("accept", [False, True])
def test_B11_another_folder_is_no_change_of_the_data(accept: bool, pictures: Path, straight: Straight, tmp_path: Path) -> None:
    """A folder may have moved, and changed on the way: that is accepted when asked for, and said by both names."""
    run, other = copy(straight("vae"), tmp_path / "run", 72), support.write_pictures(tmp_path / "other", seed=1)
    before = support.contents(run)
    if accept:
        [warning] = warnings(resumed(run, data=str(other), accept_data=True))
        assert warning == f"not bit-exact: these are other data than the run's ({pictures}): {other}"
        assert 96 in support.checkpoints(run)
        return
    with pytest.raises(UserError, match="these are other data than the run's") as error:
        list(api.resume(run, data=str(other)))
    assert str(pictures) in str(error.value)
    assert error.value.where == f"--data {other}"
    assert "--accept-data" in error.value.fix
    assert support.contents(run) == before


def test_B11_data_that_have_moved_are_the_same(pictures: Path, straight: Straight, tmp_path: Path) -> None:
    run = copy(straight("vae"), tmp_path / "run", 72)
    shutil.copytree(pictures, tmp_path / "moved")
    assert not warnings(resumed(run, data=str(tmp_path / "moved")))
    support.assert_same_run(straight("vae"), run)


@pytest.mark.parametrize("text", ["glyphs[first=8]+{0}/a", "{0}/a[first=8]+glyphs[first=8]+{0}/b", "{0}/a+{0}/b", "{0}/a[first=8]"])
def test_B11_folders_among_joined_sets_may_have_moved(text: str, tmp_path: Path) -> None:
    before, after, run = tmp_path / "before", tmp_path / "after", tmp_path / "run"
    for number, name in enumerate(("a", "b")):
        support.write_pictures(before / name, seed=number)
    support.call(support.train, "vae", text.format(before), str(run), support.tiny("vae", images=48, size=(16, 16)))
    before.rename(after)
    assert not warnings(resumed(run, data=text.format(after), images=64))
    assert checkpoint.read_header(support.newest(run)).config.data == text.format(after)
    if "glyphs" in text:
        for other in ("glyphs[first=9]", "glyphs:test[first=8]", "street[first=8]"):
            with pytest.raises(UserError, match="these are other data than the run's") as error:
                list(api.resume(run, data=text.replace("glyphs[first=8]", other).format(after), accept_data=True))
            assert "--accept-data" not in error.value.fix


@pytest.mark.parametrize("accept", [False, True])
@pytest.mark.parametrize(("was", "now"), [(None, "glyphs"), ("glyphs", None), ("glyphs", "street"), ("glyphs", "glyphs:test")])
def test_B11_a_named_set_is_never_another_one(
    was: str | None, now: str | None, accept: bool, pictures: Path, straight: Straight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot have moved, so nothing is read to find that out."""
    run = copy(straight("vae"), tmp_path / "run", 72)
    path, was, now = support.newest(run), was or str(pictures), now or str(pictures)
    header, tensors = checkpoint.read_header(path), checkpoint.read_tensors(path)
    checkpoint.write(path, dataclasses.replace(header, config=dataclasses.replace(header.config, data=was)), tensors)
    monkeypatch.setattr(sources, "load", lambda request: pytest.fail("the data were read"))
    with pytest.raises(UserError, match="these are other data than the run's") as error:
        list(api.resume(run, data=now, accept_data=accept))
    assert was in str(error.value)
    assert error.value.where == f"--data {now}"
    assert "--accept-data" not in error.value.fix


@pytest.mark.parametrize("change", ["a class more", "another class"])
def test_B11_changed_data_must_still_be_what_the_model_was_made_for(change: str, tmp_path: Path) -> None:
    data, run = support.write_pictures(tmp_path / "data"), tmp_path / "run"
    support.call(support.train, "cvae", str(data), str(run), support.tiny("cvae"))
    if change == "a class more":
        support.write_pictures(tmp_path / "more")
        shutil.copytree(tmp_path / "more" / "disc", data / "square")
    else:
        (data / "disc").rename(data / "square")
    before = support.contents(run)
    with pytest.raises(UserError, match="the data have other classes than the run's") as error:
        list(api.resume(run, images=192, accept_data=True))
    assert str(data) in error.value.where
    assert support.contents(run) == before


@pytest.mark.parametrize("other", ["another model", "another size"])
def test_B18_checkpoint_of_another_model_is_refused(other: str, straight: Straight, pictures: Path, tmp_path: Path) -> None:
    """Going on with it would make the run that model's, and delete the run's own checkpoints."""
    run = copy(straight("vae"), tmp_path / "run", 48, 72)
    if other == "another model":
        stranger, said = support.newest(straight("aegan")), "a checkpoint of aegan in a run of vae"
    else:
        size = support.tiny("vae", {"latent": 8})
        support.call(support.train, "vae", str(pictures), str(tmp_path / "larger"), size)
        stranger, said = support.newest(tmp_path / "larger"), "a checkpoint of vae with latent 8 in a run with latent 4"
    shutil.copy(stranger, run / "checkpoints")
    before = support.contents(run)
    for read in (lambda: list(api.resume(run)), lambda: api.load(run, device="cpu"), lambda: api.describe_run(run)):
        with pytest.raises(UserError, match=said) as error:
            read()
        assert error.value.where == str(run / "checkpoints" / stranger.name)
        assert "move it out of the run" in error.value.fix
    assert support.contents(run) == before
    assert api.load(run / "checkpoints" / stranger.name, device="cpu").header.images == 96  # asked for by its name, it is what it is


@pytest.mark.parametrize(
    "change", ["lacks a slot", "lacks a parameter's slots", "has another slot", "has another parameter", "wrong shape"]
)
def test_B12_optimizer_slots_do_not_fit(change: str, straight: Straight, tmp_path: Path) -> None:
    run = copy(straight("aegan"), tmp_path / "run", 72)
    path = support.newest(run)
    header, tensors = checkpoint.read_header(path), checkpoint.read_tensors(path)
    name = "optim/generator/generator.net.0.weight/exp_avg_sq"
    value = tensors[name].clone()
    if change == "lacks a slot":
        del tensors[name]
    elif change == "lacks a parameter's slots":
        for slot in ("exp_avg", "exp_avg_sq", "step"):
            del tensors[f"optim/generator/generator.net.0.weight/{slot}"]
    elif change == "has another slot":
        tensors[name := "optim/generator/generator.net.0.weight/momentum_buffer"] = value
    elif change == "has another parameter":
        tensors[name := "optim/generator/generator.9.weight/exp_avg_sq"] = value
    else:
        tensors[name] = value[:1].clone()
    checkpoint.write(path, header, tensors)
    before = support.contents(run / "checkpoints")
    with pytest.raises(UserError) as error:
        list(api.resume(run))
    assert error.value.exit_code == 2
    assert name.removeprefix("optim/").rpartition("/")[0] in str(error.value)
    assert str(path) in error.value.where
    assert support.contents(run / "checkpoints") == before


@pytest.mark.parametrize("prefix", ["model/", "average/"])
@pytest.mark.parametrize("change", ["lacks", "has another"])
def test_B12_weights_do_not_fit(prefix: str, change: str, straight: Straight, tmp_path: Path) -> None:
    run = copy(straight("aegan"), tmp_path / "run", 72)
    path = support.newest(run)
    header, tensors = checkpoint.read_header(path), checkpoint.read_tensors(path)
    name = next(n for n in sorted(tensors) if n.startswith(prefix))
    value = tensors.pop(name) if change == "lacks" else tensors[name].clone()
    if change == "has another":
        tensors[name := f"{prefix}generator.77.weight"] = value
    checkpoint.write(path, header, tensors)
    with pytest.raises(UserError) as error:
        list(api.resume(run))
    assert name.removeprefix(prefix) in str(error.value)
    assert str(path) in error.value.where


# ---- what a crash leaves -------------------------------------------------------------------------------------------------------------


def test_B13_torn_log(straight: Straight, tmp_path: Path) -> None:
    run = copy(straight("aegan"), tmp_path / "run", 48)  # the log has lines up to 96
    with open(run / "log.jsonl", "a") as file:
        file.write('[1, 2]\n\x00\x00\n{"images": "many"}\n{"losses": 1}\n{"images": 104, "stage": "latent G')
    resumed(run)
    assert [line["images"] for line in support.log(run)] == [16, 32, 48, 64, 80, 96]
    support.assert_same_run(straight("aegan"), run)


def test_B13_log_is_gone(straight: Straight, tmp_path: Path) -> None:
    run = copy(straight("vae"), tmp_path / "run", 48)
    (run / "log.jsonl").unlink()
    resumed(run)
    assert [line["images"] for line in support.log(run)] == [64, 80, 96]
    support.assert_same_tensors(support.newest(straight("vae")), support.newest(run))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def test_B14_newest_checkpoint_is_damaged(straight: Straight, pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    killed(80, "aegan", pictures, run)
    assert sorted(support.checkpoints(run)) == [48, 72]
    bad = support.checkpoints(run)[72]
    damage(bad)
    happened = resumed(run, keep=9)
    (warning,) = warnings(happened)
    assert "damaged" in warning
    assert "images-000000072.safetensors" in warning
    assert happened[0].images == 48
    support.assert_same_run(straight("aegan"), run)


def test_B14_damaged_file_is_kept_for_inspection(straight: Straight, pictures: Path, tmp_path: Path) -> None:
    """Also where the resumed run saves at the same number of images, and where pruning would take it."""
    run = tmp_path / "run"
    killed(80, "vae", pictures, run)
    damage(support.checkpoints(run)[72])
    content = support.checkpoints(run)[72].read_bytes()
    resumed(run)
    support.assert_same_run(straight("vae"), run)
    assert content in [p.read_bytes() for p in run.rglob("*") if p.is_file()]


def test_B16_no_intact_checkpoint(straight: Straight, tmp_path: Path) -> None:
    run = copy(straight("vae"), tmp_path / "run", 72, 96)
    damage(support.checkpoints(run)[72])
    support.checkpoints(run)[96].write_bytes(b"")
    before = support.contents(run)
    with pytest.raises(UserError, match="no intact checkpoint") as error:
        list(api.resume(run))
    for images in (72, 96):
        assert f"images-{images:09d}.safetensors" in str(error.value)
    assert "digest" in str(error.value)
    assert error.value.exit_code == 2
    assert support.contents(run) == before


@pytest.mark.parametrize("what", ["nothing", "empty folder", "only .tmp", "a file"])
def test_B16_no_checkpoint_at_all(what: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    if what == "a file":
        run.write_text("x")
    elif what != "nothing":
        (run / "checkpoints" / ".tmp").mkdir(parents=True)
        if what == "only .tmp":
            (run / "checkpoints" / ".tmp" / "images-000000008.safetensors").write_bytes(b"half")
    before = support.contents(tmp_path)
    with pytest.raises(UserError) as error:
        list(api.resume(run))
    assert str(run) in str(error.value)
    assert error.value.fix
    assert support.contents(tmp_path) == before
    code, text = support.run(support.cli, ["train", "--resume", str(run)])
    assert code == 2
    assert "Traceback" not in text


@pytest.mark.parametrize("how", ["not JSON", "missing", "edited"])
def test_B17_config_json_is_not_what_was_written(how: str, straight: Straight, tmp_path: Path) -> None:
    run = copy(straight("vae"), tmp_path / "run", 72)
    path = run / "config.json"
    written = path.read_text()
    if how == "missing":
        path.unlink()
    else:
        path.write_text('{"model": ' if how == "not JSON" else written.replace('"seed": 0', '"seed": 1'))
    (warning,) = warnings(resumed(run))
    assert "config.json" in warning
    support.assert_same_run(straight("vae"), run)
    assert path.read_text() == written


def test_resumed_header_keeps_the_borders(straight: Straight) -> None:
    header = checkpoint.read_header(support.newest(straight("aegan")))
    assert header.borders == (support.BORDER, support.TOTAL)
    assert stages.borders(header.config, (), header) == header.borders
