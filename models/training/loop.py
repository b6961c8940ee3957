"""The one loop. It knows stages, turns and files; it knows no model.

Every step draws from its own random stream, keyed by the images seen, and every batch is a function of the same number; so a run that is
killed anywhere and resumed makes the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import layout
from models.base import Batch, Clock, LatentModel, Stage
from models.config import RunConfig
from models.data.batches import Batches
from models.device import autocast, environment
from models.errors import ContractError, Interrupted, LgmError, RunFailed, UserError
from models.randomness import seed_torch
from models.training import checkpoint, claim, events, record, signals
from models.training.averaging import Averages
from models.training.checkpoint import Header, PartHeader
from models.training.distributed import Ranks
from models.training.exchange import Buffers
from models.training.journal import Journal, Window
from models.training.observers import Observer, View
from models.training.speed import Pace, Speed
from models.training.stages import borders
from models.training.turn import Mover

_SLOW = 10.0  # seconds: one step like that tells enough
_LOST = 1000  # what a rank that cannot read its data tells the others; signals have smaller numbers


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
    observers: tuple[Observer, ...] = ()  # of the rank that writes


def train(job: Job) -> Iterator[events.Event]:
    """Carry out a job; yields what happens.

    Raises RunFailed (non-finite numbers, a disk that refuses the last save), Interrupted (after a signal, with the state saved) and
    ContractError (a bug in the model).
    """
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(signals.caught())
        if job.ranks.writes:
            stack.enter_context(claim.claimed(job.run))
            checkpoint.sweep(job.run / checkpoint.FOLDER)
            if job.start is not None:
                checkpoint.set_aside(job.run / checkpoint.FOLDER, job.start.images)
        job.ranks.barrier()
        trainer = _Trainer(job)
        stack.callback(trainer.close)
        yield from trainer.run(stop)


def rehearsed(job: Job, seconds: float) -> list[Pace]:
    """What each stage of a job takes, from some of its steps, for about so many seconds together. The model is not what it was behind it,
    and the run's folder has to be one that nobody wants to keep."""
    trainer = _Trainer(job)
    try:
        return [trainer.rehearse(number, seconds / len(trainer.stages)) for number in range(len(trainer.stages))]
    finally:
        trainer.close()


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
        self.journal = Journal(job.run / layout.LOG, self.images) if job.ranks.writes else None
        self.mover: Mover | None = None
        self.stage = self.stages[0]
        self.batch = self.config.batch  # of the stage
        self.speed = Speed()
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
        for message in (*job.warnings, *self._space_warnings()):
            yield events.Warned(self.images, message)
        if job.start is not None and self.images >= self.total and job.start.stage == self.stages[-1].name:
            yield events.Finished(self.images, str(job.run), 0.0, already=True)
            return
        if job.ranks.writes and job.start is not None:
            for message in record.edited(job.run, job.start.config):
                yield events.Warned(self.images, message)
        if job.ranks.writes:
            record.write(job.run, self.config)
        started = time.monotonic()
        names = [stage.name for stage in self.stages]
        first = names.index(job.start.stage) if job.start and job.start.stage in names else 0
        for number, stage in list(enumerate(self.stages))[first:]:
            begin, end = (self.borders[number - 1] if number else 0), self.borders[number]
            if self.images < end:
                yield from self._stage(number, stage, stop, begin, end)
            elif begin == end:  # a stage without images of its own
                yield from self._ready(number, stage, stop)
                self.stage = stage
                self.saved_at = -1  # what lies on the disk for these images is the state before this stage
        yield from self._save(final=True)
        yield events.Finished(self.images, str(job.run), time.monotonic() - started)

    def _stage(self, number: int, stage: Stage, stop: signals.Stop, begin: int, end: int) -> Iterator[events.Event]:
        job = self.job
        yield events.StageStarted(self.images, stage.name, number + 1, len(self.stages), end)
        yield from self._ready(number, stage, stop)
        self.stage = stage
        mover = self._mover(stage)
        if job.tensors and job.start and job.start.stage == stage.name:
            self._restore(mover, job.tensors, job.start)  # behind a border the new stage's optimizers start afresh
        if job.tensors:
            job.tensors.clear()  # all is restored; do not hold the memory for the rest of the run
        self.speed.restart(self.images)
        with contextlib.closing(self._stream(stage)) as stream:
            batch, lost = _next(stream)
            asked = job.ranks.any(_LOST if lost else 0)
            while not asked:
                assert batch is not None
                ends = self.images + self.batch >= end
                following, lost = (None, None) if ends else _next(stream)
                answer = job.ranks.ask(_LOST if lost else stop.signal)  # it travels while the step computes
                self._step(stage, mover, batch, begin, end)
                yield from self._after_step(stage, mover, begin, end)
                asked = answer() or (stop.signal if job.ranks.world == 1 else 0)
                batch = following
                if ends and not asked:
                    return
        if self.images:
            self._check(mover, stage)
            yield from self._save(final=True)
        raise self._stopped(asked, lost)

    def _stopped(self, asked: int, lost: UserError | None) -> LgmError:
        """Why the run stops: a signal, or data that could not be read, here or on another rank."""
        where = f"stopped at {self.images:,} of {self.total:,} images, saved"
        again = _again(self.job.run)
        if asked != _LOST:
            return Interrupted(asked, where, self.job.run, again)
        if lost is None:
            return RunFailed(f"another rank cannot read its data; {where}", self.job.run, again)
        return UserError(lost.what, lost.where, f"{lost.fix}; {where}: {again}" if self.images else lost.fix)

    def _ready(self, number: int, stage: Stage, stop: signals.Stop) -> Iterator[events.Event]:
        """Prepare a stage, unless some rank has to stop: then what the stage before this one has learned is saved."""
        lost: UserError | None = None
        asked = self.job.ranks.any(stop.signal) if self.mover is not None else 0  # before the first stage there is nothing to save
        if not asked:
            try:
                self._prepare(stage)
            except UserError as error:
                lost = error
            asked = self.job.ranks.any(_LOST if lost else 0)
        if asked:
            if self.mover is not None:
                self.stage = self.stages[number - 1]
                yield from self._save(final=True)
            raise self._stopped(asked, lost)

    def _prepare(self, stage: Stage) -> None:
        self.model.eval()
        if stage.prepare is not None:
            seed_torch(self.job.device, self.config.seed, "prepare", stage.name)
            with torch.no_grad():
                stage.prepare(self.job.batches.whole(stage.batch or self.config.batch, stage.size))

    def _mover(self, stage: Stage) -> Mover:
        """Who moves in a stage, ready to learn."""
        self.batch = stage.batch or self.config.batch
        mover = self.mover = Mover(self.model, stage.players, self.job.ranks, self.job.fused, stage.settings)
        self.buffers = Buffers(self.model, self.job.ranks)  # what the stage has prepared is the same on all ranks
        for player in mover.players.values():
            for module in player.modules:
                module.train(not player.steady)
        return mover

    def _stream(self, stage: Stage) -> Generator[Batch, None, None]:
        job, config = self.job, self.config
        keys = stage.needs if stage.needs is not None else self.model.needs
        ranks = (job.ranks.rank, job.ranks.world)
        return job.batches.stream(config.seed, self.batch, self.images, keys, config.workers, *ranks, stage.size)

    def _step(self, stage: Stage, mover: Mover, batch: Batch, begin: int, end: int) -> None:
        job, config = self.job, self.config
        seed_torch(job.device, config.seed, "step", self.images, job.ranks.rank)
        seen = self.images - begin
        clock = Clock(seen // self.batch, seen, seen / (end - begin))
        mover.schedule(clock)
        scalars: dict[str, Tensor] = {}
        moved: set[int] = set()
        turns = stage.turns(batch, clock)
        for number in itertools.count():
            with autocast(job.device, config.precision), _batch_norm_explained(len(batch)):
                turn = next(turns, None)
            if turn is None:
                break
            moved |= mover.apply(turn, number)
            for name, loss in turn.losses.items():  # what a player minimises in a step is the sum over its turns
                key = f"{name} loss"
                scalars[key] = scalars[key] + loss.detach() if key in scalars else loss.detach()
            scalars.update(turn.logs)
        if not moved:
            raise ContractError(f"the stage {stage.name!r} moved nobody in a step", type(self.model).__module__, "yield a Turn")
        self.buffers.average()
        self.window.add(self.images, scalars)
        self.images += self.batch
        self.averages.update(self.images - begin, self.batch, moved)

    def _after_step(self, stage: Stage, mover: Mover, begin: int, end: int) -> Iterator[events.Event]:
        config, ends = self.config, self.images >= end
        if self.speed.due():
            yield events.Progressed(self.images, self.total, self.speed.rate(self.images))
        if self._crossed(config.log_every) or ends:
            self._check(mover, stage)
            yield from self._log(stage)
        for observer in self.job.observers:
            if self._crossed(observer.every) or ends:
                try:
                    yield from observer.look(self._view(stage, (self.images - begin) / (end - begin)))
                except UserError as error:  # images to look at that cannot be read, say: no reason to lose a run
                    yield events.Warned(self.images, f"{error.what}: {error.where}", error.fix)
        if self._crossed(config.save_every):
            self._check(mover, stage)
            yield from self._save()

    def _log(self, stage: Stage) -> Iterator[events.Event]:
        rate = self.speed.rate(self.images)
        losses = self.window.means()  # this rank's own
        self.window.clear()
        self._record({"images": self.images, "stage": stage.name, "losses": losses, "rate": round(rate, 1)})
        yield events.Logged(self.images, stage.name, losses, rate)
        for observer in self.job.observers:
            yield from observer.hear(self.images, losses)

    def _record(self, line: Mapping[str, Any]) -> None:
        if self.journal:
            self.journal.write(line)

    def _view(self, stage: Stage, progress: float) -> View:
        return View(self.images, stage, progress, self.model, self.averages.applied, self._record)

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
            rescued = checkpoint.write(elsewhere / layout.checkpoint_name(self.images), header, tensors)
            message = f"the last state could not be saved in the run, it lies in {rescued}"
            raise RunFailed(message, error.where, f"make room, then move the file into {job.run / checkpoint.FOLDER}") from error
        self.saved_at = self.images
        job.ranks.barrier()
        yield events.Saved(self.images, str(path))

    def close(self) -> None:
        if self.journal:
            self.journal.close()

    # --- before a run ---------------------------------------------------------------------------------------------------------------------

    def rehearse(self, number: int, seconds: float) -> Pace:
        """Some steps at the beginning of a stage, for about so many seconds, and a look of every observer."""
        stage, begin, end = self.stages[number], (self.borders[number - 1] if number else 0), self.borders[number]
        self.stage, self.images = stage, begin
        preparing = self._timed(self._prepare, stage)
        if begin == end:
            return Pace(stage.name, preparing)
        mover = self._mover(stage)
        with contextlib.closing(self._stream(stage)) as stream:

            def steps(number: int) -> None:
                for _ in range(number):
                    self.images = self.images if self.images < end else begin  # a short stage again, and no schedule beyond its end
                    self._step(stage, mover, next(stream), begin, end)

            count, spent = 1, self._timed(steps, 1)
            if spent < _SLOW:  # memory was found and kernels were chosen in the first one
                spent = self._timed(steps, 1)
            while spent < seconds:
                more = min(count, max(1, int((seconds - spent) * count / spent)))  # a clock that is seldom read costs nothing
                spent += self._timed(steps, more)
                count += more
        view = self._view(stage, 0.0)
        looks = tuple((type(one), one.every, self._timed(lambda one: [*one.look(view)], one)) for one in self.job.observers)
        return Pace(stage.name, preparing, spent / count, (end - begin) // self.batch, end - begin, looks)

    def _timed(self, work: Callable[[Any], object], what: Any) -> float:
        """Seconds that some work takes."""
        wait = torch.cuda.synchronize if self.job.device.type == "cuda" else lambda: None
        wait()
        began = time.perf_counter()
        work(what)
        wait()
        return time.perf_counter() - began

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
            environment=environment(self.job.device, self.job.ranks.world, self.config.fast),
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

    def _space_warnings(self) -> tuple[str, ...]:
        if not self.job.ranks.writes:
            return ()
        weights = sum(t.numel() * t.element_size() for t in self.model.state_dict().values())
        return claim.too_full(self.job.run, weights, self.config.keep)


@contextlib.contextmanager
def _batch_norm_explained(batch: int) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if batch > 1 or "more than 1 value per channel" not in str(error):
            raise
        raise UserError("batch norm cannot train on a batch of 1 image", "--batch", "use 2 images or more on every rank") from error


def _next(stream: Iterator[Batch]) -> tuple[Batch | None, UserError | None]:
    """The next batch, or why it cannot be had."""
    try:
        return next(stream), None
    except UserError as error:
        return None, error


def _again(run: Path) -> str:
    return f"go on with: lgm train --resume {run}"
