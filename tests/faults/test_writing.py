"""Writing checkpoints: whatever happens, a file under its name is complete, and what was there before stays."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import resource
import shutil
import signal
import socket
import tempfile
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import support
import torch
import toy

from models import api
from models.base import DataSpec
from models.config import RunConfig
from models.errors import Interrupted, RunFailed, UserError
from models.registry import model_class
from models.training import checkpoint, events, loop, parts, sources
from models.training.checkpoint import Header


def header(images: int) -> Header:
    return Header("toy", RunConfig("toy", "tiny"), DataSpec.of_images(1, 16, 16), images, "game", (100,))


def tensors(images: int, floats: int = 16) -> dict[str, torch.Tensor]:
    return {f"model/{n}": torch.full((floats,), float(images + n)) for n in range(4)}


def save(run: Path, images: int, keep: int = 2, floats: int = 16) -> Path:
    return checkpoint.save(run, header(images), tensors(images, floats), keep)


def assert_intact(run: Path, floats: int = 16) -> None:
    """Every visible checkpoint is complete, verified, and holds what was saved under its number."""
    for images, path in checkpoint.numbered(run / "checkpoints").items():
        assert checkpoint.read_header(path).images == images
        found = checkpoint.read_tensors(path)
        assert all(torch.equal(value, found[name]) for name, value in tensors(images, floats).items())


def leftovers(run: Path) -> list[Path]:
    return list((run / "checkpoints" / ".tmp").rglob("*"))


# ---- kill -9 -------------------------------------------------------------------------------------------------------------------------

BIG = 2**16  # floats a tensor: a file of 1 MiB, so that most kills fall into a save


def save_forever(run: Path, first: int, announced: Path) -> None:
    with open(announced, "a") as file:
        for images in range(first, 10**6):
            save(run, images, floats=BIG)
            print(images, file=file, flush=True)


def test_A1_kill_during_saves(tmp_path: Path) -> None:
    run, announced = tmp_path / "run", tmp_path / "announced"
    announced.write_text("0\n")
    dice = random.Random(0)
    for _ in range(25):
        first = int(announced.read_text().split()[-1]) + 1
        child = support.start(save_forever, run, first, announced)
        support.wait_for(lambda first=first: int(announced.read_text().split()[-1]) > first, what="the first save")
        time.sleep(dice.uniform(0, 0.03))
        child.kill()
        assert support.exit_code(child) == support.KILLED
        last = int(announced.read_text().split()[-1])
        found = checkpoint.numbered(run / "checkpoints")
        assert_intact(run, BIG)
        assert max(found) >= last
        assert len(found) in (2, 3)
        assert checkpoint.newest_valid(run)[0].images == max(found)
    (run / "checkpoints" / ".tmp").mkdir(exist_ok=True)
    (run / "checkpoints" / ".tmp" / ".tmpAb12").write_bytes(b"half")
    before = support.contents(run / "checkpoints")
    happening = loop.train(toy.job(run))
    next(happening)
    assert not leftovers(run)
    happening.close()
    assert support.contents(run / "checkpoints") == {name: value for name, value in before.items() if not name.startswith(".tmp")}


def die_before_pruning(run: Path) -> None:
    save(run, 1)
    save(run, 2)
    Path.unlink = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign, assignment]
    save(run, 3)


def test_A2_kill_between_rename_and_pruning(tmp_path: Path) -> None:
    assert support.exit_code(support.start(die_before_pruning, tmp_path)) == support.KILLED
    assert sorted(checkpoint.numbered(tmp_path / "checkpoints")) == [1, 2, 3]
    assert_intact(tmp_path)
    save(tmp_path, 4)
    assert sorted(checkpoint.numbered(tmp_path / "checkpoints")) == [3, 4]


# ---- a disk that refuses -------------------------------------------------------------------------------------------------------------


def limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def train_on_a_full_disk(data: str, run: str) -> list[Any]:
    """After the first save no file may be larger than 8 KiB, until two saves have failed."""
    import models

    seen, failures = [], 0
    for event in models.stream("vae", data, out=run, **support.tiny("vae")):
        seen.append(event)
        if isinstance(event, events.Saved) and event.images == 24:
            limit(8192)
        failures += isinstance(event, events.Warned) and "checkpoint" in event.message
        if failures == 2:
            limit(resource.RLIM_INFINITY)
    return seen


def test_A3_disk_full_at_a_periodic_save(straight: Any, pictures: Path, tmp_path: Path) -> None:
    happened = support.call(train_on_a_full_disk, str(pictures), str(tmp_path))
    warned = [e for e in happened if isinstance(e, events.Warned) and "picture" not in e.message and "too few" not in e.message]
    assert [e.images for e in warned] == [48, 72]
    for event in warned:
        assert "could not be written" in event.message
        assert f"images-{event.images:09d}.safetensors" in event.message
        assert "MiB are free" in event.fix
        assert event.fix.startswith("needs ")
    assert isinstance(happened[-1], events.Finished)
    assert sorted(support.checkpoints(tmp_path)) == [24, 96]  # the old one stays as long as no newer one was written
    assert not leftovers(tmp_path)
    checkpoint.read_tensors(support.checkpoints(tmp_path)[24])
    support.assert_same_run(straight("vae"), tmp_path)


def refuse(monkeypatch: pytest.MonkeyPatch, run: Path, first: int) -> None:
    """From `first` images on, `run` takes no checkpoint: half of the file is written, then the disk is full."""
    original = checkpoint.save_file

    def save_file(data: Any, path: Path, metadata: Any) -> None:
        if run in path.parents and int(path.stem.removeprefix("images-")) >= first:
            path.write_bytes(b"x" * 1024)
            raise OSError(errno.ENOSPC, "No space left on device")
        original(data, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", save_file)


@pytest.mark.parametrize("how", ["final", "signal"])
def test_A4_disk_full_at_the_last_save(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, temporary = tmp_path / "run", tmp_path / "temp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    stop = 80 if how == "signal" else 96
    refuse(monkeypatch, run, stop)
    if how == "signal":
        with support.after_step(80, lambda trainer: os.kill(os.getpid(), signal.SIGTERM)), pytest.raises(RunFailed) as error:
            toy.train(run)
    else:
        with pytest.raises(RunFailed) as error:
            toy.train(run)
    assert error.value.exit_code == 1
    (rescued,) = temporary.rglob("*.safetensors")
    assert str(rescued) in str(error.value)
    assert str(run / "checkpoints") in error.value.fix
    assert checkpoint.read_header(rescued).images == stop
    checkpoint.read_tensors(rescued)
    assert sorted(support.checkpoints(run)) == [48, 72]
    assert not leftovers(run)
    monkeypatch.undo()
    shutil.move(rescued, run / "checkpoints")  # what the message says
    assert checkpoint.newest_valid(run)[0].images == stop


def train_where_nothing_can_be_written(run: Path) -> str:
    tempfile.tempdir = str(run.parent)
    for event in loop.train(toy.job(run)):
        if isinstance(event, events.Saved) and event.images == 48:
            limit(2048)
    return "finished"


def test_A4_no_place_for_the_last_save_at_all(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(AssertionError, match="RunFailed") as error:
        support.call(train_where_nothing_can_be_written, run)
    assert "images-000000096.safetensors" in str(error.value)
    assert checkpoint.newest_valid(run)[0].images == 48


@pytest.mark.parametrize("raised", [OSError(errno.EIO, "Input/output error"), RuntimeError("no idea"), KeyboardInterrupt()])
def test_A5_writer_raises_half_way(raised: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    before = support.contents(tmp_path)

    def save_file(data: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"x" * 1024)
        (path.parent / ".tmpXyz").write_bytes(b"safetensors' own")
        raise raised

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    with pytest.raises(RunFailed if isinstance(raised, OSError) else type(raised)) as error:
        save(tmp_path, 3)
    if isinstance(raised, OSError):
        assert "Input/output error" in str(error.value)
        assert str(tmp_path / "checkpoints" / "images-000000003.safetensors") in str(error.value)
        assert "fix:" in str(error.value)
    assert support.contents(tmp_path) == before
    assert not leftovers(tmp_path)


def test_A6_rename_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    before = support.contents(tmp_path)

    def replace(source: Any, target: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(RunFailed, match="Operation not permitted") as error:
        save(tmp_path, 2)
    assert "images-000000002.safetensors" in error.value.where
    assert support.contents(tmp_path) == before


# ---- found before the first step -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["run", "run/below", "checkpoints"])
def test_A7_output_is_a_file(where: str, pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / where
    (tmp_path / "run").write_text("mine") if where != "checkpoints" else path.write_text("mine")
    out = tmp_path if where == "checkpoints" else path
    with pytest.raises(UserError) as error:
        list(api.stream("vae", str(pictures), out=out, **support.tiny("vae")))
    assert str(out) in error.value.where
    assert "--out" in error.value.fix
    assert next(p for p in tmp_path.iterdir()).read_text() == "mine"


def train_as_nobody(folder: Path, data: str) -> str:
    os.setuid(65534)
    with pytest.raises(PermissionError):
        (folder / "probe").write_text("")
    with pytest.raises(UserError) as error:
        support.train("vae", data, str(folder / "run"), support.tiny("vae"))
    return str(error.value)


@pytest.mark.parametrize("mode", [0o755, 0o700])
@pytest.mark.parametrize("exists", [True, False])
def test_A7_output_is_not_writable(mode: int, exists: bool) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to become somebody else")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        os.chmod(folder, 0o755)
        data, target = support.write_pictures(Path(folder) / "pictures"), Path(folder) / "target"
        (target / "run" if exists else target).mkdir(parents=True)
        os.chmod(target, mode)
        message = support.call(train_as_nobody, target, str(data))
        assert str(target / "run") in message
        assert "fix:" in message
        assert [p.name for p in target.rglob("*")] == (["run"] if exists else [])


def test_A7_probe_comes_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse_to_write)
    happening = loop.train(toy.job(tmp_path / "run"))
    with pytest.raises(UserError, match="Read-only file system"):
        next(happening)


def test_A8_little_space_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    warned = [e for e in toy.train(tmp_path) if isinstance(e, events.Warned)]
    assert [e.images for e in warned] == [0]
    assert "0 MiB are free where 3 checkpoints may take" in warned[0].message
    assert str(tmp_path) in warned[0].message
    monkeypatch.undo()
    assert not [e for e in toy.train(tmp_path / "again") if isinstance(e, events.Warned)]


# ---- order, and what is what ---------------------------------------------------------------------------------------------------------


def test_A9_order_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for images in (1, 2, 3):
        save(tmp_path, images, keep=3)
    done: list[tuple[str, str]] = []
    replace, fsync, unlink, write = os.replace, os.fsync, Path.unlink, checkpoint.save_file

    def spy(what: str, function: Any, name: Any) -> Any:
        def called(*args: Any, **options: Any) -> Any:
            done.append((what, str(Path(name(*args)).relative_to(tmp_path / "checkpoints"))))
            return function(*args, **options)

        return called

    monkeypatch.setattr(checkpoint, "save_file", spy("write", write, lambda data, path, metadata: path))
    monkeypatch.setattr(os, "fsync", spy("fsync", fsync, lambda descriptor: os.readlink(f"/proc/self/fd/{descriptor}")))
    monkeypatch.setattr(os, "replace", spy("replace", replace, lambda source, target: target))
    monkeypatch.setattr(Path, "unlink", spy("unlink", unlink, lambda path, *a: path))
    save(tmp_path, 4)
    new = "images-000000004.safetensors"
    assert done[:4] == [("write", f".tmp/{new}"), ("fsync", f".tmp/{new}"), ("replace", new), ("fsync", ".")]
    assert sorted(done[4:]) == [("unlink", "images-000000001.safetensors"), ("unlink", "images-000000002.safetensors")]
    assert sorted(checkpoint.numbered(tmp_path / "checkpoints")) == [3, 4]


def test_A10_numbers_are_compared_as_numbers_and_strangers_stay(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for images in (9, 10, 100):
        checkpoint.write(folder / f"images-{images}.safetensors", header(images), tensors(images))
    for stranger in ("images-abc.safetensors", "images-5.safetensors.bak", "images--1.safetensors", "step-200.safetensors", "notes.txt"):
        (folder / stranger).write_text("mine")
    (folder / "images-700.safetensors").mkdir()
    (folder / "images-700.safetensors" / "inside").write_text("mine")
    strangers = {name: value for name, value in support.contents(folder).items() if not name.startswith(("images-9", "images-10"))}
    assert sorted(checkpoint.numbered(folder)) == [9, 10, 100]
    assert checkpoint.locate(tmp_path).name == "images-100.safetensors"
    assert checkpoint.newest_valid(tmp_path)[0].images == 100
    save(tmp_path, 101)
    assert sorted(checkpoint.numbered(folder)) == [100, 101]
    assert strangers.items() <= support.contents(folder).items()


def test_A11_times_do_not_matter(tmp_path: Path) -> None:
    for images in (8, 16, 24):
        os.utime(save(tmp_path, images, keep=3), (10**9 - images, 10**9 - images))
    assert checkpoint.locate(tmp_path).name == "images-000000024.safetensors"
    assert checkpoint.newest_valid(tmp_path)[0].images == 24
    save(tmp_path, 32)
    assert sorted(checkpoint.numbered(tmp_path / "checkpoints")) == [24, 32]


def spoil(trainer: Any, what: str) -> None:
    with torch.no_grad():
        if what == "weight":
            trainer.model.generator[0].weight[0, 0] = float("nan")
        elif what == "frozen":
            trainer.model.embed.bias[2] = float("inf")
        elif what == "buffer":
            trainer.model.history[0, 0] = float("nan")
        elif what == "average":
            trainer.averages.modules["generator"][0].bias[0] = float("nan")
        else:
            slots = trainer.mover._optimizers["generator"].state[trainer.model.generator[3].weight]
            slots["exp_avg_sq"][0, 0] = float("nan")


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("weight", "generator.0.weight"),
        ("frozen", "model/embed.bias"),
        ("buffer", "model/history"),
        ("average", "average/generator.0.bias"),
        ("slot", "optim/generator/generator.3.weight/exp_avg_sq"),
    ],
)
def test_A12_numbers_that_are_not_finite_are_never_saved(what: str, name: str, tmp_path: Path) -> None:
    with support.after_step(72, lambda trainer: spoil(trainer, what)), pytest.raises(RunFailed) as error:
        toy.train(tmp_path)
    assert name in str(error.value)
    assert "not finite" in str(error.value)
    assert error.value.exit_code == 1
    assert sorted(support.checkpoints(tmp_path)) == [24, 48]
    assert not leftovers(tmp_path)


# ---- several processes ---------------------------------------------------------------------------------------------------------------


def train_slowly(data: str, run: str) -> None:
    import models

    for event in models.stream(
        "vae", data, out=run, **support.tiny("vae", images=10**6, save_every=8, log_every=10**5, sample_every=10**6)
    ):
        if isinstance(event, events.Saved):
            time.sleep(0.005)


def test_A14_sampling_while_a_run_saves(pictures: Path, tmp_path: Path) -> None:
    child = support.start(train_slowly, str(pictures), str(tmp_path))
    try:
        support.wait_for(lambda: support.checkpoints(tmp_path), what="the first checkpoint")
        seen = []
        for _ in range(50):
            trained = api.load(tmp_path, device="cpu")
            seen.append(trained.header.images)
            assert trained.sample(1).shape == (1, 16, 16, 1)
        assert seen == sorted(seen)
        assert len(set(seen)) > 10
    finally:
        child.kill()
        support.exit_code(child)


def test_A14_file_is_deleted_between_finding_and_reading_it(straight: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer with `keep=2` that saves twice meanwhile: the newer file is as good."""
    run = tmp_path / "run"
    shutil.copytree(straight("vae"), run)
    locate, gone = checkpoint.locate, []

    def slowly(where: Any) -> Path:
        path = locate(where)
        if not gone:
            gone.append(shutil.move(path, tmp_path / "gone"))
            for images in (97, 98):
                shutil.copy(gone[0], run / "checkpoints" / f"images-{images:09d}.safetensors")
        return path

    monkeypatch.setattr(checkpoint, "locate", slowly)
    assert api.load(run, device="cpu").sample(1).shape == (1, 16, 16, 1)
    assert gone
    for read in (api.describe_run, lambda run: parts.take_all(model_class("latent-flow"), {"base": str(run)}, ())):
        gone.clear()
        for old in (run / "checkpoints").glob("images-*"):
            old.unlink()
        shutil.copy(tmp_path / "gone", run / "checkpoints" / "images-000000096.safetensors")
        assert read(run)
        assert gone


def test_A14_file_is_deleted_while_it_is_opened(straight: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors opens the file and then has torch map it by name, which raises RuntimeError where the name is gone by then."""
    run = tmp_path / "run"
    shutil.copytree(straight("vae"), run)
    safe_open, gone = checkpoint.safe_open, []

    def slowly(path: Path, framework: str) -> Any:
        if gone:
            return safe_open(path, framework=framework)
        gone.append(shutil.move(path, tmp_path / "gone"))
        shutil.copy(gone[0], run / "checkpoints" / "images-000000098.safetensors")
        raise RuntimeError(f"unable to open file <{path}> in read-only mode: No such file or directory (2)")

    monkeypatch.setattr(checkpoint, "safe_open", slowly)
    assert api.load(run, device="cpu").sample(1).shape == (1, 16, 16, 1)
    assert gone
    monkeypatch.setattr(checkpoint, "safe_open", lambda path, framework: torch.zeros(1).view(2))  # a RuntimeError, though the file is there
    with pytest.raises(UserError, match="damaged"):
        checkpoint.read_header(checkpoint.locate(run))


def hold(run: Path, ready: Path) -> None:
    happening = loop.train(toy.job(run, images=10**7))
    next(happening)
    ready.write_text("")
    for event in happening:
        if isinstance(event, events.Saved) and (ready.parent / "stop").exists():
            os.kill(os.getpid(), signal.SIGTERM)


def test_A15_second_trainer_is_refused(tmp_path: Path) -> None:
    run, ready = tmp_path / "run", tmp_path / "ready"
    child = support.start(hold, run, ready, output=tmp_path / "output")
    support.wait_for(ready.exists, what="the first trainer")
    with pytest.raises(UserError, match="another process trains here") as error:
        next(loop.train(toy.job(run)))
    message = str(error.value)
    assert str(run) in message
    assert socket.gethostname() in message
    assert f"pid {child.pid}" in message
    assert error.value.exit_code == 2
    (tmp_path / "stop").write_text("")
    assert support.exit_code(child) == 1  # its Interrupted, which nothing here turns into 143
    assert Interrupted.__name__ in (tmp_path / "output").read_text()
    checkpoint.newest_valid(run)


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the data fails: that takes seconds, and what is wrong can be known before."""
    monkeypatch.setattr(sources, "load", lambda request: pytest.fail("the data were read"))


@pytest.mark.usefixtures("no_data")
@pytest.mark.parametrize("how", ["a run lies there already", "another process trains here", "Not a directory", "Read-only file system"])
def test_A15_output_is_looked_at_before_the_data(
    how: str, straight: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "folder" / "run"
    with contextlib.ExitStack() as stack:
        if how == "a run lies there already":
            shutil.copytree(straight("vae"), run)
        elif how == "another process trains here":
            run.mkdir(parents=True)
            stack.enter_context(locked(run))
        elif how == "Not a directory":
            (tmp_path / "folder").write_text("mine")
        else:
            monkeypatch.setattr(tempfile, "TemporaryFile", refuse_to_write)
        before = support.contents(tmp_path)
        with pytest.raises(UserError, match=how) as error:
            next(api.stream("vae", str(pictures), out=run, **support.tiny("vae")))
    assert str(run) in error.value.where
    assert support.contents(tmp_path) == before


@pytest.mark.usefixtures("no_data")
@pytest.mark.parametrize("how", ["another process trains here", "Read-only file system"])
def test_A15_run_is_looked_at_before_its_data(how: str, straight: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = shutil.copytree(straight("vae"), tmp_path / "run")
    with contextlib.ExitStack() as stack:
        if how == "another process trains here":
            stack.enter_context(locked(run))
        else:
            monkeypatch.setattr(tempfile, "TemporaryFile", refuse_to_write)
        before = support.contents(run)
        with pytest.raises(UserError, match=how) as error:
            next(api.resume(run))
    assert str(run) in error.value.where
    assert support.contents(run) == before


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """As if another process trained in `run`."""
    with open(run / "run.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def refuse_to_write(*args: Any, **options: Any) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


def test_A17_lock_of_a_killed_run_does_not_block(tmp_path: Path) -> None:
    run, ready = tmp_path / "run", tmp_path / "ready"
    child = support.start(hold, run, ready)
    support.wait_for(ready.exists, what="the first trainer")
    child.kill()
    support.exit_code(child)
    assert f"pid {child.pid}" in (run / "run.lock").read_text()
    assert isinstance(toy.train(run)[-1], events.Finished)
    assert f"pid {os.getpid()}" in (run / "run.lock").read_text()
