"""Two gloo ranks on one machine: they stay identical, one of them writes, and none outlives the other."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import support
import torch
import toy
import toys
from ranks import finished, free_port, together
from safetensors.torch import load_file, save_file

from models.data.batches import Batches
from models.device import pick
from models.errors import UserError
from models.registry import MODELS
from models.training import checkpoint, elastic, events, loop
from models.training.distributed import process_group
from models.training.plan import ask


def keep_last_state(path: Path) -> Callable[[Any], None]:
    def keep(trainer: Any) -> None:
        tensors = {**trainer._tensors(), **{f"buffer/{name}": value for name, value in trainer.model.named_buffers()}}
        save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, path)

    return keep


def train(model: str, data: str, run: str, settings: Mapping[str, Any], state: Path) -> None:
    with support.after_step(settings["images"], keep_last_state(state)):
        happened = support.train(model, data, run, settings)
    if os.environ["RANK"] == "1":
        assert not [e for e in happened if isinstance(e, (events.Saved, events.Drawn))]


def train_toy(run: Path, state: Path) -> None:
    with process_group(pick("cpu")) as ranks, support.after_step(96, keep_last_state(state)):
        list(loop.train(toy.job(run, ranks=ranks)))


def train_meeting(places: Mapping[str, Path], run: str, state: Path) -> None:
    with toys.found():
        train("meeting", {}, run, toys.meeting_settings(places), state)  # type: ignore[arg-type]


def assert_identical(states: list[Path]) -> dict[str, torch.Tensor]:
    support.assert_same_tensors(*states)
    return load_file(states[0])


def test_J1_sources_parts_and_stages_that_differ(places: dict[str, Path], tmp_path: Path) -> None:
    run, states = tmp_path / "run", [tmp_path / f"state-{rank}" for rank in range(2)]
    finished(together(tmp_path, run, train_meeting, *[(places, str(run), state) for state in states]))
    found = assert_identical(states)
    saved = checkpoint.read_tensors(support.newest(run))
    assert all(torch.equal(value, found[name]) for name, value in saved.items())
    assert checkpoint.read_header(support.newest(run)).borders == (32, 96)


@pytest.mark.parametrize("model", sorted(MODELS.entries()))
def test_J1_ranks_stay_identical_and_one_writes(model: str, pictures: Path, straight: Callable[[str], Path], tmp_path: Path) -> None:
    run, states = tmp_path / "run", [tmp_path / f"state-{rank}" for rank in range(2)]
    each = [(model, str(pictures), str(run), support.tiny(model), state) for state in states]
    finished(together(tmp_path, run, train, *each))
    found = assert_identical(states)
    saved = checkpoint.read_tensors(support.newest(run))
    assert all(torch.equal(value, found[name]) for name, value in saved.items())
    assert [line["images"] for line in support.log(run)] == [line["images"] for line in support.log(straight(model))]
    assert checkpoint.read_header(support.newest(run)).environment["world"] == 2
    # It is the same training: the other shares and noise of two ranks leave the weights near those of one.
    alone = checkpoint.read_tensors(support.newest(straight(model)))
    assert set(alone) == set(saved)


def test_J1_toy_with_buffers_that_follow_the_batch(tmp_path: Path) -> None:
    run, states = tmp_path / "run", [tmp_path / f"state-{rank}" for rank in range(2)]
    finished(together(tmp_path, run, train_toy, *[(run, state) for state in states]))
    found = assert_identical(states)
    assert found["buffer/history"].abs().sum() > 0


def test_ranks_share_each_batch_without_overlap() -> None:
    batches = Batches(support.image_data(20), torch.device("cpu"))
    whole, *shares = (batches.stream(0, 8, 16, rank=rank, world=world) for rank, world in ((0, 1), (0, 2), (1, 2)))
    for _ in range(6):
        parts = [next(share).index for share in shares]
        assert [len(p) for p in parts] == [4, 4]
        assert torch.equal(torch.cat(parts), next(whole).index)


def raise_on_one(rank: int, words: list[str]) -> None:
    def fail(trainer: Any) -> None:
        if int(os.environ["RANK"]) == rank:
            raise RuntimeError("the cat stepped on it")

    with support.after_step(56, fail):
        support.cli(words)


@pytest.mark.parametrize("rank", [0, 1])
def test_J2_one_rank_raises(rank: int, pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    results = together(tmp_path, None, raise_on_one, (rank, support.arguments("vae", pictures, run, images=10**6)))
    assert all(code not in (0, None) for code, _ in results)
    assert results[rank][0] == 1
    assert "the cat stepped on it" in results[rank][1]
    checkpoint.newest_valid(run)


def signal_on_one(number: int, words: list[str], images: int = 56) -> None:
    with support.after_step(images, lambda trainer: os.environ["RANK"] == "1" and os.kill(os.getpid(), number)):
        support.cli(words)


def test_J3_signal_to_one_rank_stops_both(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    results = together(tmp_path, run, signal_on_one, (int(signal.SIGTERM), support.arguments("aegan", pictures, run, save_every=10**6)))
    assert [code for code, _ in results] == [143, 143], results
    assert list(support.checkpoints(run)) == [64]  # the other rank hears of it while it computes the next step
    # Going on with two ranks gives what two ranks give without the pause.
    finished(together(tmp_path, run, support.cli, (["train", "--resume", str(run)],)))
    finished(together(tmp_path, None, support.cli, (support.arguments("aegan", pictures, tmp_path / "straight"),)))
    support.assert_same_run(tmp_path / "straight", run)


def test_J4_one_rank_is_killed(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    results = together(tmp_path, None, signal_on_one, (int(signal.SIGKILL), support.arguments("vae", pictures, run)))
    assert results[1][0] == support.KILLED
    assert results[0][0] not in (0, support.KILLED)
    assert checkpoint.newest_valid(run)[0].images == 48
    finished(together(tmp_path, run, support.cli, (["train", "--resume", str(run)],)))
    assert checkpoint.newest_valid(run)[0].images == 96


def test_J5_batch_that_cannot_be_divided(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for code, text in together(tmp_path, run, support.cli, (support.arguments("vae", pictures, run, batch=7),)):
        assert code == 2, text
        assert "batch of 7" in text
        assert "2 ranks" in text
        assert "--batch" in text
    assert not run.exists()


def test_J6_going_on_with_one_rank(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    together(tmp_path, run, signal_on_one, (int(signal.SIGTERM), support.arguments("vae", pictures, run)))
    happened = support.call(support.resume, str(run), {})
    assert happened[0].images == 64
    assert any("not bit-exact" in e.message and "world 2 -> 1" in e.message for e in happened if isinstance(e, events.Warned))
    assert checkpoint.newest_valid(run)[0].images == 96


def test_J8_ranks_with_different_data(pictures: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "run", support.write_pictures(tmp_path / "other", seed=1)
    each = [(support.arguments("vae", data, run),) for data in (pictures, other)]
    for code, text in together(tmp_path, run, support.cli, *each):
        assert code == 2, text
        assert "the ranks see different data" in text


def test_J9_folder_in_which_another_process_trains(pictures: Path, tmp_path: Path) -> None:
    """The rank that looks says so; the other does not wait for it."""
    run = tmp_path / "run"
    run.mkdir()
    with open(run / "run.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        first, second = together(tmp_path, run, support.cli, (support.arguments("vae", pictures, run),))
    assert first[0] == 2, first[1]
    assert "another process trains here" in first[1]
    assert second[0] == 1, second[1]
    assert "another rank has stopped" in second[1]
    assert [p.name for p in run.iterdir()] == ["run.lock"]


def torchrun(arguments: list[str], words: list[str], per_machine: int = 2, **environment: str) -> subprocess.CompletedProcess[str]:
    """`torchrun` with some processes of this machine."""
    around = {
        **os.environ,
        "PYTHONPATH": f"{support.REPOSITORY}:{Path(__file__).parents[1]}",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(per_machine), *arguments]
    launcher += [] if "--rdzv-backend" in arguments else ["--master-port", str(free_port())]
    return subprocess.run([*launcher, *words], env={**around, **environment}, capture_output=True, text=True, timeout=240)


LISTED = """
import atexit, os, pathlib, runpy

def listed():
    threads = [name.read_text().strip() for name in pathlib.Path("/proc/self/task").glob("*/comm")]  # none but on Linux
    pathlib.Path(os.environ["THREADS"], os.environ["RANK"]).write_text(" ".join(threads))

atexit.register(listed)
runpy.run_module("lgcli", run_name="__main__")
"""


def test_torchrun_for_real(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (tmp_path / "listed.py").write_text(LISTED)
    done = torchrun([], [str(tmp_path / "listed.py"), *support.arguments("vae", pictures, run)], THREADS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(run)]  # one rank speaks for both
    assert checkpoint.newest_valid(run)[0].environment["world"] == 2
    # A thread of gloo's that outlives its group and runs on while Python ends aborts the process now and then.
    threads = [(tmp_path / rank).read_text() for rank in "01"]
    assert not any("gloo" in names for names in threads), threads


KILLED_ONCE = """
import os, runpy, signal, support

if os.environ["RANK"] == "1" and not os.path.exists(os.environ["KILLED"]):
    open(os.environ["KILLED"], "w").close()
    with support.after_step(56, lambda trainer: os.kill(os.getpid(), signal.SIGKILL)):
        runpy.run_module("lgcli", run_name="__main__")
runpy.run_module("lgcli", run_name="__main__")
"""


def test_torchrun_starts_again_and_the_run_goes_on(pictures: Path, tmp_path: Path) -> None:
    """After a rank was killed: from the newest checkpoint, to the same weights as without that."""
    run, straight = tmp_path / "run", tmp_path / "straight"
    (tmp_path / "killed.py").write_text(KILLED_ONCE)
    done = torchrun(
        ["--max-restarts", "1"], [str(tmp_path / "killed.py"), *support.arguments("vae", pictures, run)], KILLED=str(tmp_path / "mark")
    )
    assert done.returncode == 0, done.stderr
    assert checkpoint.read_header(support.newest(run)).environment["world"] == 2
    finished(together(tmp_path, None, support.cli, (support.arguments("vae", pictures, straight),)))
    support.assert_same_run(straight, run)


OTHERS = {"seed": 5, "precision": "bf16", "options": {"widths": (4, 8), "latent": 5}, "held_out": 0.2, "batch": 4, "images": 960}


@pytest.mark.parametrize("changed", [None, "data", *OTHERS])
@pytest.mark.parametrize("who", ["torchrun", "Slurm"])
def test_only_the_same_run_is_gone_on_with(
    who: str, changed: str | None, pictures: Path, straight: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first try that was refused, because another run lies there, must not be answered by going on with that."""
    data = tmp_path if changed == "data" else pictures  # the folder is not looked into
    run, asked = (
        straight("vae"),
        ask("vae", str(data), **{**support.tiny("vae"), **({changed: OTHERS[changed]} if changed in OTHERS else {})}),
    )
    assert not elastic.is_begun(run, asked.values)  # it is the first try
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(int(who == "Slurm")))
    again = who == "torchrun"
    assert elastic.is_begun(run, asked.values, again=again) == (changed is None)
    assert not elastic.is_begun(run / "elsewhere", asked.values, again=again)
    assert elastic.is_begun(run, asked.values, 1.0, again) == (changed in (None, "images"))


def test_a_run_that_may_start_again_is_to_have_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    elastic.check_can_be_found(None)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    elastic.check_can_be_found("run")
    with pytest.raises(UserError, match="--out RUN"):
        elastic.check_can_be_found(None)


@pytest.mark.parametrize(("model", "number"), [("vae", 37), ("cvae", 19)])
def test_samples_of_two_ranks_are_those_of_one(model: str, number: int, straight: Callable[[str], Path], tmp_path: Path) -> None:
    words = ["sample", str(straight(model)), "-n", str(number), "--batch", "16", "--out"]
    results = together(tmp_path, None, support.cli, ([*words, str(tmp_path / "both")],))
    finished(results)
    assert support.exit_code(support.start(support.cli, [*words, str(tmp_path / "one")])) == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert len(files) == number * (2 if model == "cvae" else 1)
    assert {path.name: path.read_bytes() for path in (tmp_path / "both").iterdir()} == files
    assert [str(tmp_path / "both") in text for _, text in results] == [True, False]  # one speaks for both


def an_older_look(rank: int, run: str) -> None:
    """One of the ranks sees a folder that lies in the net as it was before the last save."""
    seen = checkpoint.newest_valid

    def older(folder: Path) -> Any:
        found = checkpoint.numbered(folder / checkpoint.FOLDER)
        header = checkpoint.read_header(found[48])
        return (header, checkpoint.read_tensors(found[48]), ()) if int(os.environ["RANK"]) == rank else seen(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "newest_valid", older)
        support.cli(["train", "--resume", run])


@pytest.mark.parametrize("rank", [0, 1])
def test_all_ranks_go_on_from_the_first_ones_checkpoint(rank: int, straight: Callable[[str], Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight("vae"), run)
    (run / "checkpoints" / "images-000000096.safetensors").unlink()
    finished(together(tmp_path, None, an_older_look, (rank, str(run))))
    assert checkpoint.newest_valid(run)[0].images == 96


def test_three_ranks_go_on_bit_for_bit(pictures: Path, tmp_path: Path) -> None:
    """The mean of three equal numbers is not always that number: what is prepared alike on all ranks must not be averaged."""
    options = ("--set", "image_weight=1", "--set", "latent_batch=6")
    words = [support.arguments("aegan", pictures, tmp_path / name, *options, batch=6) for name in ("run", "straight")]
    results = together(tmp_path, None, signal_on_one, (int(signal.SIGTERM), words[0], 66), world=3)
    assert [code for code, _ in results] == [143] * 3, results
    finished(together(tmp_path, None, support.cli, (["train", "--resume", str(tmp_path / "run")],), world=3))
    finished(together(tmp_path, None, support.cli, (words[1],), world=3))
    support.assert_same_run(tmp_path / "straight", tmp_path / "run")


def stop_at_the_border(words: list[str]) -> None:
    def stop(trainer: Any) -> None:
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)

    with support.after_step(support.BORDER, stop):
        support.cli(words)


def test_a_signal_in_the_last_step_of_a_stage_stops_before_the_next(pictures: Path, tmp_path: Path) -> None:
    """What the next stage has to prepare may take longer than whoever sent it waits."""
    run = tmp_path / "run"
    results = together(tmp_path, None, stop_at_the_border, (support.arguments("aegan", pictures, run, save_every=10**6),))
    assert [code for code, _ in results] == [143, 143], results
    assert list(support.checkpoints(run)) == [support.BORDER]


def test_two_machines_go_on_after_one_has_failed(pictures: Path, tmp_path: Path) -> None:
    """Their launchers count restarts differently, and keep the addresses of processes that are gone."""
    run, straight, port = tmp_path / "run", tmp_path / "straight", free_port()
    (tmp_path / "killed.py").write_text(KILLED_ONCE)
    machine = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1"]
    machine += ["--rdzv-id", "test", "--max-restarts", "3"]
    words = [str(tmp_path / "killed.py"), *support.arguments("vae", pictures, run)]
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda _: torchrun(machine, words, per_machine=1, KILLED=str(tmp_path / "mark")), range(2)):
            assert done.returncode == 0, done.stderr
    finished(together(tmp_path, None, support.cli, (support.arguments("vae", pictures, straight),)))
    support.assert_same_run(straight, run)
