"""Ctrl-C and its relatives cost nothing: the step is finished, the state is saved, and the resumed run is the straight one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import support
import toy

from models import api
from models.errors import Interrupted, UserError
from models.training import checkpoint, events, loop

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
Straight = Callable[[str], Path]


def train_with_signal(images: int, number: int, words: list[str]) -> None:
    with support.after_step(images, lambda trainer: os.kill(os.getpid(), number)):
        support.cli(words)


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in SIGNALS]


# ---- the first signal ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["vae", "aegan"])
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("images", [8, 48, 64])
def test_C1_C2_signal_saves_and_resume_is_exact(
    number: int, images: int, model: str, straight: Straight, pictures: Path, tmp_path: Path
) -> None:
    words = support.arguments(model, pictures, tmp_path, save_every=1000)
    code, text = support.run(train_with_signal, images, number, words)
    assert code == 128 + number
    assert f"stopped at {images} of 96 images, saved" in text
    assert f"lgm train --resume {tmp_path}" in text
    assert "Traceback" not in text
    assert list(support.checkpoints(tmp_path)) == [images]
    support.call(support.resume, str(tmp_path), {})
    support.assert_same_run(straight(model), tmp_path)


def test_C1_signal_at_random_times(pictures: Path, tmp_path: Path) -> None:
    straight, run, dice, legs = tmp_path / "straight", tmp_path / "run", random.Random(0), 0
    settings = {"images": 1600, "sample_every": 800, "save_every": 10**6, "log_every": 400}
    support.call(support.train, "aegan", str(pictures), str(straight), support.tiny("aegan", **settings))
    while not run.exists() or 1600 not in support.checkpoints(run):
        words = ["train", "--resume", str(run)] if run.exists() else support.arguments("aegan", pictures, run, **settings)
        output = tmp_path / f"output-{legs}"
        child = support.start(support.cli, words, output=output)
        support.wait_for(lambda child=child: locked_by(run, child) or child.exitcode is not None, what="the lock")
        time.sleep(dice.uniform(0, 0.3))
        if child.exitcode is None and legs < 20:  # a busy machine gets little done between two signals, so they have to end
            os.kill(child.pid, signal.SIGINT)
        code = support.exit_code(child)
        assert code in (0, 130), output.read_text()
        assert "Traceback" not in output.read_text()
        legs += 1
    assert legs > 1
    support.assert_same_run(straight, run)


def locked_by(run: Path, child: Any) -> bool:
    return (run / "run.lock").exists() and f"pid {child.pid}" in (run / "run.lock").read_text()


def test_C1_library_raises_interrupted(tmp_path: Path) -> None:
    with support.after_step(40, lambda trainer: os.kill(os.getpid(), signal.SIGINT)), pytest.raises(Interrupted) as error:
        toy.train(tmp_path)
    assert error.value.exit_code == 130
    assert checkpoint.newest_valid(tmp_path)[0].images == 40


def interrupted_while_saving(number: int, words: list[str]) -> None:
    original = checkpoint.save_file

    def save_file(data: Any, path: Path, metadata: Any) -> None:
        os.kill(os.getpid(), number)
        original(data, path, metadata)

    checkpoint.save_file = save_file
    support.cli(words)


@pytest.mark.parametrize("number", SIGNALS[:2])
def test_C4_signal_during_a_save(number: int, straight: Straight, pictures: Path, tmp_path: Path) -> None:
    code, text = support.run(interrupted_while_saving, number, support.arguments("vae", pictures, tmp_path))
    assert code == 128 + number, text
    assert list(support.checkpoints(tmp_path)) == [24]
    assert not list((tmp_path / "checkpoints" / ".tmp").rglob("*"))
    support.call(support.resume, str(tmp_path), {})
    support.assert_same_run(straight("vae"), tmp_path)


# ---- the second ----------------------------------------------------------------------------------------------------------------------


def hang_after_signal(ready: Path, words: list[str]) -> None:
    def do(trainer: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        ready.write_text("")
        time.sleep(300)  # a step that takes long

    with support.after_step(64, do):
        support.cli(words)


def test_C3_second_signal_leaves_at_once(straight: Straight, pictures: Path, tmp_path: Path) -> None:
    run, ready = tmp_path / "run", tmp_path / "ready"
    child = support.start(hang_after_signal, ready, support.arguments("vae", pictures, run), output=tmp_path / "output")
    support.wait_for(ready.exists, what="the first signal")
    os.kill(child.pid, signal.SIGTERM)  # only Ctrl-C is impatient
    time.sleep(0.1)
    assert child.exitcode is None
    os.kill(child.pid, signal.SIGINT)
    assert support.exit_code(child, timeout=10) == 130
    assert "Traceback" not in (tmp_path / "output").read_text()
    assert sorted(support.checkpoints(run)) == [24, 48]
    support.call(support.resume, str(run), {})
    support.assert_same_run(straight("vae"), run)


# ---- processes and pipes -------------------------------------------------------------------------------------------------------------


def lgm(*words: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(support.REPOSITORY), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-m", "lgcli", *words], env=environment, stdout=pipe, stderr=pipe, text=True, **options)


def test_C5_interrupted_while_scanning_data(pictures: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    first = sorted(pictures.rglob("*.png"))[0]
    (data / "0.png").write_bytes(first.read_bytes())
    for number in range(1, 20_000):
        os.link(data / "0.png", data / f"{number}.png")
    process = lgm(*support.arguments("vae", data, tmp_path / "run"))

    def scanning() -> bool:
        try:
            opened = [os.readlink(f"/proc/{process.pid}/fd/{name}") for name in os.listdir(f"/proc/{process.pid}/fd")]
        except FileNotFoundError:
            return False
        return any(name.startswith(str(data)) for name in opened)

    support.wait_for(scanning, seconds=120, what="the scan")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert len(errors) < 300
    assert not output
    assert not (tmp_path / "run").exists()
    assert time.monotonic() - began < 20


def in_own_group(words: list[str]) -> None:
    os.setsid()
    support.cli(words)


def group(pid: int) -> list[str]:
    """The command lines of all processes of a process group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == pid and " Z " not in (folder / "stat").read_text():
                found.append((folder / "cmdline").read_text())
        except (ProcessLookupError, FileNotFoundError):
            pass
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_C6_interrupting_the_whole_group(workers: int, pictures: Path, tmp_path: Path) -> None:
    run, output = tmp_path / "run", tmp_path / "output"
    words = support.arguments("vae", pictures, run, "--json", images=10**6, workers=workers)
    child = support.start(in_own_group, words, output=output)
    support.wait_for(lambda: support.checkpoints(run), what="the first checkpoint")
    assert group(child.pid)
    os.killpg(child.pid, signal.SIGINT)
    assert support.exit_code(child, timeout=20) == 130
    assert not group(child.pid)
    assert "Traceback" not in output.read_text()
    checkpoint.newest_valid(run)


@pytest.mark.parametrize("more", [["--json"], []], ids=["json", "plain"])
def test_C8_nobody_reads_the_output(more: list[str], pictures: Path, tmp_path: Path) -> None:
    """`lgm train ... | head -1`: head has gone before the run ends."""
    run = tmp_path / "run"
    images = 96 if not more else 10**6
    process = lgm(*support.arguments("vae", pictures, run, *more, images=images, save_every=48))
    assert process.stdout is not None
    assert process.stderr is not None
    if more:
        assert '"event": "started"' in process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    code = process.wait(timeout=60)
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    assert "BrokenPipeError" not in errors
    header = checkpoint.newest_valid(run)[0]
    if more:
        assert code == 129
        assert f"stopped at {header.images:,} of" in errors
    else:
        assert header.images == 96
        assert code in (0, 1)


# ---- as a library --------------------------------------------------------------------------------------------------------------------


def test_C9_no_handler_in_another_thread(tmp_path: Path) -> None:
    before, seen, happened = handlers(), [], []

    def work() -> None:
        for event in loop.train(toy.job(tmp_path)):
            seen.append(handlers())
            happened.append(event)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert isinstance(happened[-1], events.Finished)
    assert seen
    assert all(now == before for now in seen)


@pytest.mark.parametrize("how", ["end", "error", "close", "signal"])
def test_C9_previous_handlers_come_back(how: str, tmp_path: Path) -> None:
    def mine(number: int, frame: Any) -> None:
        raise AssertionError("this handler should not be called during a run")

    before = [signal.signal(number, mine) for number in SIGNALS]
    try:
        happening = loop.train(toy.job(tmp_path))
        next(happening)
        assert mine not in handlers()
        if how == "end":
            list(happening)
        elif how == "close":
            happening.close()
        elif how == "error":
            with support.after_step(40, lambda trainer: 1 / 0), pytest.raises(ZeroDivisionError):
                list(happening)
        else:
            with support.after_step(40, lambda trainer: os.kill(os.getpid(), signal.SIGHUP)), pytest.raises(Interrupted):
                list(happening)
        assert handlers() == [mine] * 3
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize("after", range(1, 20, 3))
def test_C10_abandoned_run_lets_go(after: int, straight: Straight, pictures: Path, tmp_path: Path) -> None:
    happening = api.stream("aegan", str(pictures), out=tmp_path, **support.tiny("aegan", workers=2))
    happened = [next(happening) for _ in range(after)]
    happening.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("lgm-batches")]
    assert not list((tmp_path / "checkpoints" / ".tmp").rglob("*"))
    for path in support.checkpoints(tmp_path).values():
        checkpoint.read_tensors(path)
    saved = any(isinstance(e, events.Saved) for e in happened)
    assert bool(support.checkpoints(tmp_path)) == saved
    again = api.resume(tmp_path) if saved else api.stream("aegan", str(pictures), out=tmp_path, **support.tiny("aegan"))
    list(again)  # the lock was given back
    support.assert_same_run(straight("aegan"), tmp_path)


def test_C10_lock_is_held_until_then(tmp_path: Path) -> None:
    happening = loop.train(toy.job(tmp_path))
    next(happening)
    with pytest.raises(UserError, match="another process trains here"):
        next(loop.train(toy.job(tmp_path)))
    happening.close()
    next(loop.train(toy.job(tmp_path)))
