"""Helpers that several test files share: tiny runs, fresh child processes, and the comparison of runs to the last bit.

A child is forked from a server that has imported torch already (that takes seconds) and has computed nothing, so a fresh process costs a
few hundredths of a second. Functions for children are module-level, and take and return things that can be pickled.
"""

from __future__ import annotations

import atexit
import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).parents[1]
KILLED = -signal.SIGKILL  # exit code of a child that was killed
BORDER = 48  # images at which a tiny aegan goes from its first stage to the second
TOTAL = 96

DEVICE = os.environ.get("LGM_TEST_DEVICE", "cpu")  # where tiny runs and the contract's tests train: cuda, say

_SETTINGS = {
    "images": TOTAL,
    "batch": 8,
    "log_every": 16,
    "sample_every": 40,
    "save_every": 24,
    "average_images": 32,
    "device": DEVICE,
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "vae": {"widths": (4, 8), "latent": 4, "lr": 2e-2},
    "aegan": {
        "widths": (4, 8),
        "latent": 4,
        "hidden": (16,),
        "latent_batch": 8,
        "lr": 2e-2,
        "share": 0.5,
        "prior": "gan",
        "sharpen": 0.0,
    },
    "classifier": {"widths": (4, 8), "blocks": (1,), "lr": 0.05},
}


# ---- tiny runs -----------------------------------------------------------------------------------------------------------------------


def tiny(model: str, options: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Settings for `models.stream`: 12 steps of 8 images with a few hundred weights; aegan's stage border is at 48 of 96 images."""
    parts = {"parts": part_runs(model)} if required_parts(model) else {}
    return {**_SETTINGS, "options": {**(_OPTIONS.get(model) or small(model)), **(options or {})}, **parts, **changes}


def required_parts(model: str) -> dict[str, bool]:
    """The parts that a model cannot do without, by name: whether each looks at the leading source."""
    from models.registry import model_class

    cls = model_class(model)
    return {name: (part.source or cls.sources[0]) == cls.sources[0] for name, part in cls.takes.items() if not part.optional}


@lru_cache
def part_runs(model: str) -> dict[str, str]:
    """Runs for these parts, tiny auto-encoders by the parts' names: of grey pictures for the leading source, in colour and of another size
    for the others. They last as long as this process."""
    root = Path(tempfile.mkdtemp(prefix="lgm-parts-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for name, leads in required_parts(model).items():
        data = write_pictures(root / f"{name}-data") if leads else write_pictures(root / f"{name}-data", 13, 12, colour=True)
        call(train, "vae", str(data), str(root / name), tiny("vae", images=16))
    return {name: str(root / name) for name in required_parts(model)}


def spec_for(model: str, spec: Any) -> Any:
    """`spec` of the leading source, with the specs of the model's further sources: of `further`."""
    from models.data.batches import spec_of
    from models.registry import model_class

    others = {name: spec_of(data) for name, data in further(model).items()}
    return dataclasses.replace(spec, others=others | dict.fromkeys(model_class(model).draws, spec))


def further(model: str, data: Any = None) -> dict[str, Any]:
    """Data for the model's sources behind the leading one, in colour and of another size; second draws of that are of `data`, its own."""
    from models.registry import model_class

    cls = model_class(model)
    return {name: data if data and name in cls.draws else image_data(13, 12, 20, 3, seed=2) for name in cls.sources[1:]}


def as_asked(model: str, options: Any, data: Any) -> Any:
    """`data`, as pairs where the model's options ask for them: by its own rule, or each image with its mirror image."""
    from models.data.clauses import derived
    from models.data.items import Paired, Side
    from models.registry import model_class

    if rule := model_class(model).pairs_by(options).partition("=")[2]:
        return derived(data, rule, data.name)
    if getattr(options, "task", "") != "pairs":
        return data
    field = data.fields["image"]
    mirrored = Side(field, lambda index: np.ascontiguousarray(data.rows("image", index)[:, :, ::-1]))
    return Paired(data, data.name, Side(field, lambda index: data.rows("image", index)), mirrored, "mirrored")


def built(model: str, options: Any, spec: Any) -> Any:
    """A model of the zoo, around tiny auto-encoders where it needs parts, which are nothing but principal components of some images."""
    import torch

    from models.config import check
    from models.data.batches import Batches
    from models.registry import model_class

    cls, vae = model_class(model), model_class("vae")
    parts = {}
    for name, leads in required_parts(model).items():
        shown = spec if leads else spec[cls.takes[name].source]
        part = parts[name] = vae(check(vae.Config, _OPTIONS["vae"], "test"), shown).requires_grad_(False).eval()
        if part.encoder.head.weight.device.type != "meta":
            part.fit_components(Batches(image_data(12, shown.height, shown.width, shown.channels), torch.device("cpu")).whole(6))
    return cls(options, spec, parts) if parts else cls(options, spec)


def small(model: str, **chosen: Any) -> dict[str, Any]:
    """Options that make any model of the zoo tiny: `chosen` over the defaults, every number that is large cut down, batches to 8."""
    from models.registry import model_class

    cut: dict[str, Any] = {}
    for field in dataclasses.fields(model_class(model).Config):
        value = chosen.get(field.name, field.default)
        if isinstance(value, tuple) and value and all(isinstance(v, int) for v in value) and max(value) >= 16:
            cut[field.name] = (4, 8) if "widths" in field.name else (8,) if "batch" in field.name else (16,)
        elif isinstance(value, int) and not isinstance(value, bool) and value >= 32:
            cut[field.name] = 8 if "batch" in field.name else 4
    return {**chosen, **cut}


def arguments(model: str, data: Path, out: Path, *more: str, **changes: Any) -> list[str]:
    """The command line of a tiny run: `lgm train ...`."""
    settings = tiny(model, **changes)
    options = settings.pop("options")
    flags = {"average_images": "average"}
    words = ["train", model, "--data", str(data), "--out", str(out)]
    for name, run in settings.pop("parts", {}).items():
        words += ["--part", f"{name}={run}"]
    for key, value in settings.items():
        words += [f"--{flags.get(key, key).replace('_', '-')}", str(value)]
    for key, value in options.items():
        words += ["--set", f"{key}={','.join(map(str, value)) if isinstance(value, tuple) else value}"]
    return [*words, *more]


def write_pictures(folder: Path, count: int = 20, size: int = 16, seed: int = 0, colour: bool = False) -> Path:
    """`count` PNGs of noise around a cross or a disc, in the sub-folders `cross` and `disc`: grey, or in colours and a little wider."""
    from PIL import Image

    dice = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    for number in range(count):
        kind = ("cross", "disc")[number % 2]
        shape = (np.minimum(abs(x), abs(y)) < 2) if kind == "cross" else (x**2 + y**2 < (size / 3) ** 2)
        pixels = np.clip(shape * 200 + dice.normal(20, 20, (size, size)), 0, 255).astype(np.uint8)
        if colour:
            pixels = np.pad(np.stack([pixels, pixels.T, pixels // 2], 2), ((0, 0), (0, 4), (0, 0)))
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / kind / f"{number:03d}.png")
    return folder


def image_data(count: int = 64, height: int = 16, width: int = 16, channels: int = 1, seed: int = 0) -> Any:
    """An ImageData with labels, attributes, factors and identities, so that every model of the zoo can be trained on it."""
    from models.data.dataset import ImageData

    dice = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    ramp = np.linspace(0, 255, width)[None, None, :, None] * (labels[:, None, None, None] + 1) / 3
    images = np.clip(ramp + dice.normal(0, 20, (count, height, width, channels)), 0, 255).astype(np.uint8)
    return ImageData(
        name="tiny",
        images=images,
        labels=labels.astype(np.int64),
        classes=("one", "two", "three"),
        attributes=(dice.random((count, 2)) < 0.5).astype(np.uint8),
        attribute_names=("left", "right"),
        factors=dice.uniform(-1, 1, (count, 2)).astype(np.float32),
        factor_names=("far", "near"),
        identities=(np.arange(count) % 5).astype(np.int64),
    )


# ---- what a run left -----------------------------------------------------------------------------------------------------------------


def checkpoints(run: Path) -> dict[int, Path]:
    """Images seen -> file."""
    return {int(p.stem.removeprefix("images-")): p for p in sorted((run / "checkpoints").glob("images-*.safetensors"))}


def newest(run: Path) -> Path:
    found = checkpoints(run)
    return found[max(found)]


def digest(path: Path) -> str:
    """sha256 over a checkpoint's sorted tensor names and their bytes (the metadata are left out)."""
    total = hashlib.sha256()
    for name, value in _tensors(path).items():
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode() + _bytes(value))
    return total.hexdigest()


def assert_same_tensors(one: Path, other: Path) -> None:
    """Two checkpoints hold the same tensors, bit for bit; otherwise the first that differs is named."""
    if digest(one) == digest(other):
        return
    a, b = _tensors(one), _tensors(other)
    assert list(a) == list(b), f"only in one of them: {sorted(set(a) ^ set(b))[:10]}"
    for name in a:
        same = a[name].dtype == b[name].dtype and a[name].shape == b[name].shape and _bytes(a[name]) == _bytes(b[name])
        assert same, f"{name} is the first tensor that differs between {one} and {other}: {a[name].flatten()[:4]}, {b[name].flatten()[:4]}"


def assert_same_run(one: Path, other: Path) -> None:
    """Two runs ended alike: the newest checkpoints' tensors and every line of the log but for the speed."""
    assert newest(one).name == newest(other).name
    assert_same_tensors(newest(one), newest(other))
    assert log(one) == log(other)


def log(run: Path) -> list[dict[str, Any]]:
    """The lines of log.jsonl without the rate."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "rate"} for line in lines]


def contents(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file under a folder with its time of change and the hash of its content."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files}


def _tensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load

    return dict(sorted(load(path.read_bytes()).items()))


def _bytes(tensor: Any) -> bytes:
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


# ---- children ------------------------------------------------------------------------------------------------------------------------


def start(function: Callable[..., Any], *args: Any, output: Path | None = None, result: Any = None) -> BaseProcess:
    """Run `function(*args)` in a fresh process. `output` is a file for what it prints."""
    process = _context().Process(target=_child, args=(function, args, str(output or ""), result), daemon=True)
    process.start()
    return process


def exit_code(process: BaseProcess, timeout: float = 120) -> int:
    """Wait for a child's end. A child that hangs is killed and fails the test."""
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"the child did not end within {timeout} s")
    return process.exitcode


def call(function: Callable[..., Any], *args: Any, timeout: float = 120) -> Any:
    """`function(*args)`, computed in a fresh process. Raises AssertionError with the child's traceback where that raises."""
    mine, its = _context().Pipe()
    process = start(function, *args, result=its)
    its.close()
    try:
        done, value = mine.recv() if mine.poll(timeout) else (False, f"nothing came back within {timeout} s")
    except EOFError:
        done, value = False, f"it ended without a result, exit code {exit_code(process)}"
    if not done:
        process.kill()
        raise AssertionError(f"in the child: {value}")
    exit_code(process)
    return value


def run(function: Callable[..., Any], *args: Any, timeout: float = 120) -> tuple[int, str]:
    """Exit code and printed text of `function(*args)` in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        code = exit_code(start(function, *args, output=output), timeout)
        return code, output.read_text(errors="replace")


def wait_for(condition: Callable[[], Any], seconds: float = 60, what: str = "it") -> Any:
    """Ask `condition` until it is true. Returns what it returned."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.005)
    return value


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support_preload"])
    paths = [str(REPOSITORY / "tests"), str(REPOSITORY)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*paths, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))
    return context


def _child(function: Callable[..., Any], args: tuple[Any, ...], output: str, result: Any) -> None:
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if output:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    if result is None:
        function(*args)
        return
    try:
        answer = (True, function(*args))
    except BaseException:
        answer = (False, traceback.format_exc())
    result.send(answer)
    result.close()


# ---- what children do ----------------------------------------------------------------------------------------------------------------


def train(model: str, data: str, out: str, settings: Mapping[str, Any]) -> list[Any]:
    """Train to the end. Returns the events."""
    import models

    return list(models.stream(model, data, out=out, **settings))


def resume(run: str, changes: Mapping[str, Any] | None = None) -> list[Any]:
    """Go on with a run to its end. Returns the events."""
    from models import api

    return list(api.resume(run, **(changes or {})))


def train_and_die(images: int, model: str, data: str, out: str, settings: Mapping[str, Any]) -> None:
    """`train`, killed by SIGKILL right after the step that reaches `images`, before that step is logged, drawn or saved."""
    with dying_at(images):
        train(model, data, out, settings)


def resume_and_die(images: int, run: str, changes: Mapping[str, Any] | None = None) -> None:
    with dying_at(images):
        resume(run, changes)


def cli(words: list[str]) -> None:
    """`lgm WORDS`; exits as the command does."""
    from lgcli.app import app

    app(words)


@contextmanager
def dying_at(images: int) -> Iterator[None]:
    """In a child: SIGKILL this very process once `images` images have been seen."""
    with after_step(images, lambda trainer: os.kill(os.getpid(), signal.SIGKILL)):
        yield


@contextmanager
def after_step(images: int, do: Callable[[Any], None]) -> Iterator[None]:
    """Call `do(trainer)` right after the training step that reaches `images`, before that step is logged, drawn or saved."""
    from models.training import loop

    original = loop._Trainer._step

    def step(trainer: Any, *args: Any) -> None:
        original(trainer, *args)
        if trainer.images == images:
            do(trainer)

    loop._Trainer._step = step  # type: ignore[method-assign]
    try:
        yield
    finally:
        loop._Trainer._step = original  # type: ignore[method-assign]


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The distance of two sets of features (N, D) as the formula has it."""
    mean, other = a.mean(0), b.mean(0)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).astype(complex)).real.sum()
    return float(((mean - other) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * roots)
