"""The one loop. It knows stages, turns and files; it knows no model.

Every step draws from its own random stream, keyed by the images seen, and every batch is a function of the same number; so a run that is
killed anywhere and resumed makes the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor

from models.base import Batch, Clock, Encodes, LatentModel, Samples, Stage, Validates
from models.capabilities import pictures
from models.capabilities.ask import evaluating
from models.capabilities.reconstruct import reconstructions
from models.capabilities.sample import draw
from models.capabilities.told import Told, condition_of
from models.config import RunConfig, to_json
from models.data.batches import Batches
from models.data.images import save_png
from models.errors import ContractError, Interrupted, RunFailed, UserError, printable
from models.randomness import seed_torch
from models.training import checkpoint, events, signals
from models.training.alarm import CollapseAlarm, advice
from models.training.averaging import Averages
from models.training.checkpoint import Header, PartHeader
from models.training.distributed import Ranks
from models.training.journal import Journal, Window
from models.training.turn import Mover

SAMPLES, RECONSTRUCTIONS = 64, 32  # images in the grids that a run draws
VALIDATED = 128  # held-out images a batch
_TICK = 0.2  # seconds between two Progressed events


@dataclass(frozen=True)
class Job:
    """Everything that a run needs, built and checked; nothing is written yet."""

    config: RunConfig
    model: LatentModel  # on its device
    batches: Batches
    fingerprint: str
    run: Path
    device: torch.device
    ranks: Ranks = Ranks()
    start: Header | None = None  # the checkpoint to go on from, with its tensors
    tensors: dict[str, Tensor] | None = None
    warnings: tuple[str, ...] = ()
    parts: Mapping[str, PartHeader] = field(default_factory=dict)
    fused: bool = True
    held_out: Batches | None = None  # for models that validate; only the rank that writes has them


def borders(config: RunConfig, stages: tuple[Stage, ...], start: Header | None = None) -> tuple[int, ...]:
    """Images seen at the end of each stage: whole batches, at least one a stage, in proportion to the stages' shares.

    A stage of share 0 ends where it begins. A resumed run keeps its borders; another number of images moves the end of the last stage
    that has images of its own, and of what follows it.
    """
    shares = [stage.share for stage in stages]
    last = max((number for number, share in enumerate(shares) if share), default=-1)
    if start is not None and (config.images == start.config.images or last < 0):
        return start.borders
    wanted = [config.images * sum(shares[: number + 1]) / (sum(shares) or 1) for number in range(len(shares))]
    ends, end = [], 0
    for number, stage in enumerate(stages):
        batch = stage.batch or config.batch
        if start is not None and start.borders[number] != start.borders[-1]:
            end = start.borders[number]
        elif stage.share:
            steps = (wanted[number] - end) / batch
            end += max(1, math.ceil(steps - 1e-9) if number == last else round(steps)) * batch
        ends.append(end)
    return tuple(ends)


def train(job: Job) -> Iterator[events.Event]:
    """Carry out a job; yields what happens.

    Raises RunFailed (non-finite numbers, a disk that refuses the last save), Interrupted (after a signal, with the state saved) and
    ContractError (a bug in the model).
    """
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(signals.caught())
        if job.ranks.writes:
            stack.enter_context(_claimed(job.run))
            checkpoint.sweep(job.run / checkpoint.FOLDER)
            if job.start is not None:
                checkpoint.set_aside(job.run / checkpoint.FOLDER, job.start.images)
        job.ranks.barrier()
        trainer = _Trainer(job)
        stack.callback(trainer.close)
        yield from trainer.run(stop)


class _Trainer:
    """The state of a run between its steps."""

    def __init__(self, job: Job) -> None:
        self.job, self.config, self.model = job, job.config, job.model
        self.stages = self.model.stages()
        self.borders = borders(self.config, self.stages, job.start)
        self.total = self.borders[-1]
        self.images = job.start.images if job.start else 0
        self.averages = Averages(self.model, self.config.average_images, job.start.scalars.get("waiting") if job.start else None)
        self.window = Window(job.start.scalars.get("window") if job.start else None, job.device)
        self.journal = Journal(job.run / "log.jsonl", self.images) if job.ranks.writes else None
        self.mover: Mover | None = None
        self.stage = self.stages[0]
        self.batch = self.config.batch  # of the stage
        self.alarm = CollapseAlarm(self._first_images(SAMPLES), advice(self.model.config, self.config.model))
        self.speed = _Speed()
        self.checked = self.images  # weights were finite here
        self.saved_at = self.images if job.start else -1
        if job.tensors is not None:
            average = checkpoint.part(job.tensors, "average")
            if job.start and job.start.path:
                checkpoint.match(checkpoint.shapes_of(self.averages.tensors()), checkpoint.shapes_of(average), job.start.path)
            for name, module in self.averages.modules.items():
                prefix = f"{name}."
                checkpoint.load_state(module, {k.removeprefix(prefix): v for k, v in average.items() if k.startswith(prefix)})

    # --- the run ----------------------------------------------------------------------------------------------------------------------

    def run(self, stop: signals.Stop) -> Iterator[events.Event]:
        job = self.job
        resumed = job.start is not None
        yield events.Started(
            self.images, str(job.run), self.config.model, str(self.job.batches.data.name), self.total, str(job.device), resumed
        )
        for message in (*job.warnings, *self._space_warning()):
            yield events.Warned(self.images, message)
        if job.start is not None and self.images >= self.total and job.start.stage == self.stages[-1].name:
            yield events.Finished(self.images, str(job.run), 0.0, already=True)
            return
        if job.ranks.writes and job.start is not None:
            for message in _config_warning(job.run / "config.json", job.start):
                yield events.Warned(self.images, message)
        if job.ranks.writes:
            _write_text(job.run / "config.json", to_json(self.config) + "\n")
        started = time.monotonic()
        names = [stage.name for stage in self.stages]
        first = names.index(job.start.stage) if job.start and job.start.stage in names else 0
        for number, stage in list(enumerate(self.stages))[first:]:
            begin, end = (self.borders[number - 1] if number else 0), self.borders[number]
            if self.images < end:
                self.stage = stage
                yield from self._stage(number, stage, stop, begin, end)
            elif begin == end:  # a stage without images of its own
                self.stage = stage
                self._prepare(stage)
                self.saved_at = -1  # what lies on the disk for these images is the state before this stage
        yield from self._save(final=True)
        yield events.Finished(self.images, str(job.run), time.monotonic() - started)

    def _stage(self, number: int, stage: Stage, stop: signals.Stop, begin: int, end: int) -> Iterator[events.Event]:
        job, config = self.job, self.config
        yield events.StageStarted(self.images, stage.name, number + 1, len(self.stages), end)
        self._prepare(stage)
        self.batch = stage.batch or config.batch
        mover = self.mover = Mover(self.model, stage.players, job.ranks, job.fused, stage.settings)
        if job.tensors and job.start and job.start.stage == stage.name:
            self._restore(mover, job.tensors, job.start)  # behind a border the new stage's optimizers start afresh
        if job.tensors:
            job.tensors.clear()  # all is restored; do not hold the memory for the rest of the run
        for player in mover.players.values():
            for module in player.modules:
                module.train()
        self.speed.restart(self.images)
        keys = stage.needs if stage.needs is not None else self.model.needs
        ranks = (job.ranks.rank, job.ranks.world)
        stream = job.batches.stream(config.seed, self.batch, self.images, keys, config.workers, *ranks, stage.size)
        with contextlib.closing(stream):
            while self.images < end:
                self._step(stage, mover, next(stream), begin, end)
                yield from self._after_step(stage, mover, begin, end)
                if asked := job.ranks.any(stop.signal):
                    self._check(mover, stage)
                    yield from self._save(final=True)
                    raise Interrupted(asked, f"stopped at {self.images:,} of {self.total:,} images, saved", job.run, _again(job.run))

    def _prepare(self, stage: Stage) -> None:
        self.model.eval()
        if stage.prepare is not None:
            seed_torch(self.job.device, self.config.seed, "prepare", stage.name)
            with torch.no_grad():
                stage.prepare(self.job.batches.whole(stage.batch or self.config.batch, stage.size))

    def _step(self, stage: Stage, mover: Mover, batch: Batch, begin: int, end: int) -> None:
        job, config = self.job, self.config
        seed_torch(job.device, config.seed, "step", self.images, job.ranks.rank)
        seen = self.images - begin
        clock = Clock(seen // self.batch, seen, seen / (end - begin))
        mover.schedule(clock.progress)
        scalars: dict[str, Tensor] = {}
        moved: set[int] = set()
        turns = stage.turns(batch, clock)
        for number in itertools.count():
            with _autocast(job.device, config.precision), _batch_norm_explained(len(batch)):
                turn = next(turns, None)
            if turn is None:
                break
            moved |= mover.apply(turn, number)
            scalars.update({f"{name} loss": loss for name, loss in turn.losses.items()}, **turn.logs)
        if not moved:
            raise ContractError(f"the stage {stage.name!r} moved nobody in a step", type(self.model).__module__, "yield a Turn")
        mover.average_buffers()
        self.window.add(self.images, scalars)
        self.images += self.batch
        self.averages.update(self.images - begin, self.batch, moved)

    def _after_step(self, stage: Stage, mover: Mover, begin: int, end: int) -> Iterator[events.Event]:
        config = self.config
        if self.speed.due():
            yield events.Progressed(self.images, self.total, self.speed.rate(self.images))
        if self._crossed(config.log_every) or self.images >= end:
            self._check(mover, stage)
            rate = self.speed.rate(self.images)
            losses = self.window.means()  # this rank's own
            self.window.clear()
            if self.journal:
                self.journal.write({"images": self.images, "stage": stage.name, "losses": losses, "rate": round(rate, 1)})
            yield events.Logged(self.images, stage.name, losses, rate)
            if alarm := self.alarm.hear(losses):
                yield events.Warned(self.images, *alarm)
        if self._crossed(config.sample_every) or self.images >= end:
            yield from self._draw(stage, (self.images - begin) / (end - begin))
            yield from self._validate(stage)
        if self._crossed(config.save_every):
            self._check(mover, stage)
            yield from self._save()

    def _crossed(self, every: int) -> bool:
        """Whether the last step went past a multiple of `every` images."""
        return self.images // every > (self.images - self.batch) // every

    # --- what must hold, and what is left behind -----------------------------------------------------------------------------------------

    def _check(self, mover: Mover, stage: Stage) -> None:
        """Stop at the first loss or weight that is not finite, naming the player and the window of images."""
        losses = [name.removesuffix(" loss") for name in self.window.not_finite()]
        weights = mover.not_finite()
        if losses or weights:
            bad = losses or weights
            kind = "loss" if losses else "weights"
            last = checkpoint.numbered(self.job.run / checkpoint.FOLDER)
            fix = f"the last checkpoint is intact ({last[max(last)].name}); " if last else ""
            window = f"between {self.checked:,} and {self.images:,} images, in stage {stage.name!r}"
            message = f"the {kind} of {', '.join(bad)} became not finite {window}"
            raise RunFailed(message, self.job.run, fix + "lower the learning rate (--set), or use --precision fp32")
        self.checked = self.images

    def _save(self, final: bool = False) -> Iterator[events.Event]:
        """Save now. A periodic save that fails is reported and tried again at the next interval; the final one is tried elsewhere."""
        job = self.job
        if self.saved_at == self.images or not job.ranks.writes:
            job.ranks.barrier()
            return
        header, tensors = self._header(), self._tensors()
        try:
            path = checkpoint.save(job.run, header, tensors, self.config.keep)
        except RunFailed as error:
            if "not finite" in error.what:
                raise
            if not final:
                yield events.Warned(self.images, f"{error.what}: {error.where}", error.fix)
                job.ranks.barrier()
                return
            elsewhere = Path(tempfile.mkdtemp(prefix="lgm-rescued-"))
            rescued = checkpoint.write(elsewhere / f"images-{self.images:09d}.safetensors", header, tensors)
            message = f"the last state could not be saved in the run, it lies in {rescued}"
            raise RunFailed(message, error.where, f"make room, then move the file into {job.run / checkpoint.FOLDER}") from error
        self.saved_at = self.images
        job.ranks.barrier()
        yield events.Saved(self.images, str(path))

    def _draw(self, stage: Stage, progress: float) -> Iterator[events.Event]:
        """Fixed-noise samples and the reconstructions of the first images. Watching does not disturb: no random state is touched."""
        if not self.job.ranks.writes:
            return
        folder = self.job.run / "samples"
        alarm, reconstructed, drawn = None, None, {}
        kind, first = condition_of(self.model), self.job.batches.at(np.arange(min(SAMPLES, len(self.job.batches))))
        told = Told(kind, self.model.spec, getattr(first, kind).cpu()) if kind else None  # what the first images show
        with self.averages.applied():
            if isinstance(self.model, Encodes):
                shown = self._first_images(RECONSTRUCTIONS, stage.size)
                reconstructed, _ = reconstructions(self.model, shown, None if told is None else told[: len(shown)])
                drawn["reconstruction"] = pictures.pairs(shown, reconstructed, 8)
            if isinstance(self.model, Samples) and stage.samples:
                examples = told if kind == "attributes" else None
                made = np.concatenate(list(draw(self.model, SAMPLES, self.config.seed, examples=examples)))
                drawn["sample"] = pictures.grid(made, 8)
                alarm = self.alarm.look(made, progress, reconstructed) if len(stage.players) > 1 else None  # one player alone plays no game
        if alarm:
            yield events.Warned(self.images, *alarm)
        for kind, picture in drawn.items():
            path = folder / f"{kind}-{self.images:09d}.png"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                save_png(picture, path)
            except (OSError, UserError) as error:
                yield events.Warned(self.images, f"a picture could not be written: {error}")
            else:
                yield events.Drawn(self.images, kind, str(path))

    def _first_images(self, number: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """The leading source's first images: uint8 (N, H, W, C)."""
        data = self.job.batches.data
        return data.rows("image", np.arange(min(number, len(data))), size)

    def _validate(self, stage: Stage) -> Iterator[events.Event]:
        """Measure the averaged model on the held-out images, in the run's precision. This does not disturb either."""
        held_out = self.job.held_out
        if held_out is None or not isinstance(self.model, Validates) or not self.job.ranks.writes:
            return
        with self.averages.applied(), evaluating(self.model), _autocast(self.job.device, self.config.precision):
            measures = {name: float(value) for name, value in self.model.validate(held_out.in_order(VALIDATED, size=stage.size)).items()}
        if self.journal:
            self.journal.write({"images": self.images, "stage": stage.name, "held out": len(held_out), "measures": measures})
        yield events.Validated(self.images, stage.name, len(held_out), measures)

    def close(self) -> None:
        if self.journal:
            self.journal.close()

    # --- state ---------------------------------------------------------------------------------------------------------------------------

    def _header(self) -> Header:
        return Header(
            model=self.config.model,
            config=self.config,
            spec=self.model.spec,
            images=self.images,
            stage=self.stage.name,
            borders=self.borders,
            scalars={
                "window": self.window.state(),
                "still": self.mover.still() if self.mover else [],
                "waiting": self.averages.waiting,
            },
            fingerprint=self.job.fingerprint,
            environment=environment(self.job.device, self.job.ranks),
            parts=self.job.parts,
        )

    def _tensors(self) -> dict[str, Tensor]:
        slots = self.mover.tensors() if self.mover else {}
        return {
            **{f"model/{name}": tensor for name, tensor in self.model.state_dict().items()},
            **{f"average/{name}": tensor for name, tensor in self.averages.tensors().items()},
            **{f"optim/{name}": tensor for name, tensor in slots.items()},
        }

    def _restore(self, mover: Mover, tensors: dict[str, Tensor], start: Header) -> None:
        slots = checkpoint.part(tensors, "optim")
        if "still" in start.scalars and start.path:
            checkpoint.match(mover.slots(start.scalars["still"]), checkpoint.shapes_of(slots), start.path)
        try:
            mover.load(slots)
        except ValueError as error:
            raise UserError(f"the optimizers' state does not fit the model ({error})", start.path, "use the lgm that wrote it") from error

    def _space_warning(self) -> list[str]:
        if not self.job.ranks.writes:
            return []
        weights = sum(t.numel() * t.element_size() for t in self.model.state_dict().values())
        needed = (self.config.keep + 1) * 3 * weights  # weights and Adam's two moments
        free = shutil.disk_usage(self.job.run).free
        if free >= needed:
            return []
        return [
            f"{free / 2**20:,.0f} MiB are free where {self.config.keep + 1} checkpoints may take {needed / 2**20:,.0f} MiB: {self.job.run}"
        ]


class _Speed:
    """Images per second since the last look, and when to look again."""

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, images: int) -> None:
        self._began = self._ticked = time.monotonic()
        self._images, self._rate = images, 0.0

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._ticked < _TICK:
            return False
        self._ticked = now
        return True

    def rate(self, images: int) -> float:
        now = time.monotonic()
        if now - self._began > 2.0 or not self._rate:
            self._rate = (images - self._images) / max(now - self._began, 1e-9)
            if now - self._began > 2.0:
                self._began, self._images = now, images
        return self._rate


def environment(device: torch.device, ranks: Ranks) -> dict[str, Any]:
    """What bit-exact resume depends on beside the checkpoint."""
    return {
        "torch": torch.__version__,
        "device": device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else 0,
        "machine": platform.machine(),
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability(),
        "world": ranks.world,
    }


def _autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


@contextlib.contextmanager
def _batch_norm_explained(batch: int) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if batch > 1 or "more than 1 value per channel" not in str(error):
            raise
        raise UserError("batch norm cannot train on a batch of 1 image", "--batch", "use 2 images or more on every rank") from error


def _config_warning(path: Path, start: Header) -> list[str]:
    """What config.json says counts for nothing, but whoever has edited it should know."""
    try:
        found = json.loads(path.read_text())
        found = {"parts": {}, **found} if isinstance(found, dict) else found  # before there were parts, nothing was written of them
        saved = json.loads(to_json(start.config))
        wrong = [] if isinstance(found, dict) else ["it is no object"]
        wrong = wrong or [key for key in saved if key not in RunConfig.FREE and found.get(key) != saved[key]]
    except (OSError, ValueError) as error:
        wrong = [printable(error)]
    return [f"{path} is not what was written ({', '.join(wrong)}); the checkpoint's configuration is used"] if wrong else []


def _again(run: Path) -> str:
    return f"go on with: lgm train --resume {run}"


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def check_free(run: Path) -> None:
    """Look whether a run may be trained in this folder, and leave nothing behind. Data take long to load: ask before, `train` makes sure.

    Raises UserError where the folder cannot be written, and where another process trains in it.
    """
    lock = run / "run.lock"
    try:
        _probe(next(place for place in (run / checkpoint.FOLDER, run, *run.parents) if place.exists()))
        held = open(lock) if lock.exists() else None
    except OSError as error:
        raise _unwritable(run, error) from error
    if held is not None:
        with held:
            _lock(held, run, exclusive=False)


@contextlib.contextmanager
def _claimed(run: Path) -> Iterator[None]:
    """Create the run's folder, prove that it can be written, and lock it against a second trainer.

    The lock is the kernel's: it goes with the process, however that ends.
    """
    try:
        (run / checkpoint.FOLDER).mkdir(parents=True, exist_ok=True)
        _probe(run / checkpoint.FOLDER)
        lock = open(run / "run.lock", "a+")
    except OSError as error:
        raise _unwritable(run, error) from error
    with lock:
        _lock(lock, run, exclusive=True)
        lock.truncate(0)
        lock.write(f"host {socket.gethostname()}, pid {os.getpid()}\n")
        lock.flush()
        yield


def _probe(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"lgm")


def _unwritable(run: Path, error: OSError) -> UserError:
    return UserError(f"cannot write there ({error.strerror})", run, "choose another folder with --out")


def _lock(file: TextIO, run: Path, exclusive: bool) -> None:
    """Take the lock until the file is closed. Raises UserError, which says who has it, where another process does."""
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        raise UserError(f"another process trains here ({file.read().strip()})", run, "wait for it, or choose another --out") from error


__all__ = ["Job", "borders", "check_free", "environment", "train"]
