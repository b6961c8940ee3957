"""Codes under constraints: a search from where a code stands to where critics, rules, or a classifier of pictures are content with it.

Engel, Hoffman, Roberts, Latent Constraints, 2018: z' begins at the image's code; Adam moves it against the critic of what is plausible and
the reader of what is shown, until both are sure enough. That is the `free` search. It finds codes that please the reader and show little,
and that are often another person's; on the way between mean codes (`line`), where many images lie, the first code that the reader is sure
of shows more and keeps more (docs/results.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.base import Classifies, Constrains, LatentModel
from models.capabilities.ask import SEARCHED, device_of, evaluating, in_blocks
from models.capabilities.told import Told
from models.errors import UserError, printable
from models.randomness import numpy_generator

Rule = Callable[[Tensor], Tensor]

STRIDE, STRIDES = 0.25, 16  # of the way between two mean codes; how many at most
CHEAPEST = 1 / 12  # of a change's first price, what it falls to in a search whose reader is never sure
LOOK = 8  # steps from one look at whether all codes rest to the next: each waits for the device


@dataclass(frozen=True)
class Effort:
    """How a search goes, and when it is content.

    Attributes:
        search: `line`, along the ways between mean codes, where the model knows these and no rule is given; or `free`, by gradient.
        steps: at most; of a line not more than `STRIDES`.
        lr: Adam's, for a code whose numbers are about 1.
        realism: the critic's probability, from 0 to 1, that a code is one of an image.
        certainty: the reader's probability, from 0 to 1, of each thing that was asked for.
        realism_weight: of the critic's word in what is minimised; the reader's has 1.
        distance_weight: of the distance from where the code began.
        look: what the reader looks at, a `code` itself, or the code of the `picture` that is made of it; None: the picture, but in a free
            search, where that costs some 30 times as much and shows little more.
        picture_weight: of the mean absolute difference of pictures in [-1, 1] at the beginning of a search with a classifier of pictures,
            whose word has 1. It falls as long as that one is not sure, and rises while it is.
    """

    search: str = "line"
    steps: int = 300
    lr: float = 0.01
    realism: float = 0.3
    certainty: float = 0.95
    realism_weight: float = 0.05
    distance_weight: float = 0.0
    look: str | None = None
    picture_weight: float = 50.0

    @classmethod
    def in_pictures(cls, kind: str, **given: Any) -> Effort:
        """That of a search with a classifier of pictures: fewer and longer steps, and no surer than classifiers of classes learn to be."""
        return cls(**{"steps": 60, "lr": 0.05, "certainty": 0.9 if kind == "attributes" else 0.85, **given})

    def __post_init__(self) -> None:
        for name, known in (("search", ("line", "free")), ("look", (None, "picture", "code"))):
            if getattr(self, name) not in known:
                raise UserError(f"{name} {printable(getattr(self, name))!r}", f"--{name}", f"give {' or '.join(filter(None, known))}")
        bounds = {"realism": (0, 1), "certainty": (0, 1)} | dict.fromkeys(("realism_weight", "distance_weight", "picture_weight"), (0, 1e6))
        for name, (low, high) in {"steps": (1, 1e6), "lr": (1e-9, 1e3), **bounds}.items():
            value = getattr(self, name)
            if not isinstance(value, int if name == "steps" else (int, float)) or not low <= value <= high:
                raise UserError(f"{name} {printable(value)}", flag_of(name), f"give a number from {low:g} to {high:g}")


def flag_of(name: str) -> str:
    """The option by which the command line gives a field of `Effort`."""
    return "--iterations" if name == "steps" else f"--{name.replace('_', '-')}"


@dataclass(frozen=True, eq=False)
class Aim:
    """What images are to show, all of it (N, ...), and which of it was asked for: (N, K) bool."""

    told: Told
    asked: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Aim:
        return Aim(self.told[rows], self.asked[rows])

    def met(self, sure: Tensor, certainty: float) -> Tensor:
        """Whether all that was asked for is seen with that probability: what is seen of each thing (N, K) -> (N,) bool."""
        return ((sure >= certainty) | ~self.asked).all(1)

    def to(self, device: torch.device) -> Aim:
        return Aim(replace(self.told, values=self.told.values.to(device)), self.asked.to(device))


@dataclass(frozen=True)
class Verdict:
    """What is said of edited codes. Before and after stand side by side.

    Attributes:
        reached: (N,) bool, whether everything holds.
        steps: of the search, (N,) int; 0 for what was content at the start, and without a search.
        wanted: what the images were to show; None for a model without condition.
        realism: the critic's probability that the code is one of an image that shows it, (N, 2).
        read: the reader's probability that the image shows each thing as it is wanted, (N, 2, K); of classes, of each.
        asked: which of these were asked for, (N, K) bool.
        distance: from where the code began, squared, in units of the posterior's deviations, the mean over its numbers: (N,).
        rule: the rule's values, (N, 2).
    """

    reached: np.ndarray
    steps: np.ndarray
    wanted: Told | None = None
    realism: np.ndarray | None = None
    read: np.ndarray | None = None
    asked: np.ndarray | None = None
    distance: np.ndarray | None = None
    rule: np.ndarray | None = None


def moved(model: Any, start: Tensor, aim: Aim) -> Tensor:
    """Codes (N, D) moved by the model itself, at once."""
    with evaluating(model):
        return in_blocks(lambda code, wanted: model.move(code, **_as_told(aim, wanted)), device_of(model), start, aim.told.values)


def searched(
    model: LatentModel,
    start: Tensor,
    aim: Aim | None,
    rule: Rule | None,
    effort: Effort,
    progress: Callable[[int, int], None],
    reader: Classifies | None = None,
    begin: Tensor | None = None,
) -> tuple[Tensor, np.ndarray]:
    """Codes near `start` (N, ...) with which all are content, or the best that were found; and the steps that each took (N,).

    With a `reader`, a classifier of pictures, it alone is asked, `aim` is in its words, and the search may go from other codes, `begin`.
    """
    ways = model.ways() if isinstance(model, Constrains) and effort.search == "line" else None
    codes, steps = [], []
    blocks = range(0, len(start), SEARCHED)
    for number, first in enumerate(blocks):
        rows = torch.arange(first, first + SEARCHED).clamp_max(len(start) - 1)  # the last block is filled up, so that rounding is the same

        def advance(step: int, done: int = number * effort.steps) -> None:
            progress(done + step, len(blocks) * effort.steps)

        if aim is not None and reader is not None:
            code, taken = _redraw(model, reader, start[rows], (start if begin is None else begin)[rows], aim[rows], effort, advance)
        elif aim is not None and ways is not None:
            code, taken = _walk(model, ways, start[rows], aim[rows], effort, advance)
        else:
            code, taken = _descend(model, start[rows], None if aim is None else aim[rows], rule, effort, advance)
        codes.append(code[: len(start) - first])
        steps.append(taken[: len(start) - first])
    return torch.cat(codes), torch.cat(steps).numpy()


def settled(model: LatentModel, rule: Rule | None, effort: Effort) -> Effort:
    """The search that this model can do, and what its reader looks at."""
    line = isinstance(model, Constrains) and rule is None and effort.search == "line" and model.ways() is not None
    return replace(effort, search="line" if line else "free", look=effort.look or ("picture" if line else "code"))


class _Best:
    """The best code of each row that a search has come to (B, ...), and the step at which all were content with it: there it rests."""

    def __init__(self, start: Tensor, limit: int) -> None:
        self.code = start
        self.steps = torch.full((len(start),), limit, device=start.device)
        self.resting = torch.zeros(len(start), dtype=torch.bool, device=start.device)
        self._least = torch.full((len(start),), torch.inf, device=start.device)

    @torch.no_grad()
    def offer(self, code: Tensor, loss: Tensor, content: Tensor, step: int) -> None:
        """Codes, how bad they are (B,), and whether all are content with them (B,)."""
        better = ~self.resting & (content | (loss < self._least))
        self.code = torch.where(better.view(-1, *[1] * (code.ndim - 1)), code, self.code)
        self._least = torch.where(better, loss, self._least)
        self.steps = torch.where(content & ~self.resting, step, self.steps)
        self.resting |= content


def _walk(model: Any, ways: Tensor, start: Tensor, aim: Aim, effort: Effort, progress: Callable[[int], None]) -> tuple[Tensor, Tensor]:
    """One block's codes (B, D) and steps (B,), on the CPU: each attribute's way is gone until the reader is sure of that one."""
    device = device_of(model)
    code, aim = start.to(device), aim.to(device)
    limit = min(effort.steps, STRIDES)
    best = _Best(code, limit)
    with evaluating(model):
        toward = _toward(model.logits(code), aim)
        for step in range(limit + 1):
            _, sure = _read(model.logits(_seen(model, code, effort)), aim.told)
            least = torch.where(aim.asked, sure, 1.0).amin(1)
            content = least >= effort.certainty
            best.offer(code, -least, content, step)
            if step == limit or bool(best.resting.all()):
                break
            lacking = aim.asked & (sure < effort.certainty) if aim.told.kind == "attributes" else ~content.unsqueeze(1)
            code = code + STRIDE * (toward * lacking) @ ways
            progress(step + 1)
    progress(effort.steps)
    return best.code.cpu(), best.steps.cpu()


def _toward(logits: Tensor, aim: Aim) -> Tensor:
    """How much of each way leads to what is wanted, (B, K): the whole of an attribute's, there or back; from the likeliest other class."""
    if aim.told.kind == "attributes":
        return 2 * aim.told.values - 1
    wanted = F.one_hot(aim.told.values, logits.shape[1])
    now = logits.masked_fill(wanted.bool(), float("-inf")).argmax(1)
    return (wanted - F.one_hot(now, logits.shape[1])).float()


class _Free:
    """Codes (B, ...) that Adam moves anywhere, beginning at `start`, in units in which they are about 1."""

    def __init__(self, model: LatentModel, start: Tensor, lr: float) -> None:
        self.start = start
        self._size = start.flatten(1).square().mean(1).sqrt().clamp_min(1e-6).view(-1, *[1] * (start.ndim - 1))
        self._scale = model.code_scale if isinstance(model, Constrains) else None  # the codes of other models come in any size
        self._way = torch.zeros_like(start).requires_grad_()
        self._optimizer = torch.optim.Adam([self._way], lr=lr)

    def code(self) -> Tensor:
        return self.start + (self._size * self._way if self._scale is None else self._way @ self._scale.T)

    def descend(self, loss: Tensor) -> None:
        """A step against losses (B,)."""
        loss.backward(torch.ones_like(loss), inputs=[self._way])
        self._optimizer.step()
        self._optimizer.zero_grad()


def _descend(
    model: LatentModel, start: Tensor, aim: Aim | None, rule: Rule | None, effort: Effort, progress: Callable[[int], None]
) -> tuple[Tensor, Tensor]:
    """One block's codes (B, D) and steps (B,), on the CPU. A code rests once all are content with it."""
    device = device_of(model)
    start, aim = start.to(device), None if aim is None else aim.to(device)
    free, best = _Free(model, start, effort.lr), _Best(start, effort.steps)
    with evaluating(model):
        for step in range(effort.steps + 1):
            with torch.enable_grad():
                code = free.code()
                loss, content = _asked_of(model, code, start, aim, rule, effort)
            best.offer(code, loss, content, step)
            if step == effort.steps or (step % LOOK == 0 and bool(best.resting.all())):  # what rests no longer changes
                break
            free.descend(loss)
            progress(step + 1)
    progress(effort.steps)
    return best.code.cpu(), best.steps.cpu()


def _redraw(
    model: LatentModel, reader: Classifies, start: Tensor, begin: Tensor, aim: Aim, effort: Effort, progress: Callable[[int], None]
) -> tuple[Tensor, Tensor]:
    """One block's codes (B, ...), and at which step they were found (B,), on the CPU; the search goes from `begin`.

    Of the pictures of which the reader is sure enough the one that differs least from that of `start` is kept, or the last where there is
    none. The reader sees each a little shifted, otherwise in every step: what a picture shows it shows there, too.
    """
    device, cheaper = device_of(model), CHEAPEST ** (1 / effort.steps)
    start, begin, aim = start.to(device), begin.to(device), aim.to(device)
    free, best, steps = _Free(model, begin, effort.lr), start, torch.zeros(len(start), dtype=torch.long, device=device)
    price = torch.full((len(start),), effort.picture_weight, device=device)

    def content(picture: Tensor) -> tuple[Tensor, Tensor]:
        misread, sure = _read(reader.classify(picture).float(), aim.told)
        return misread, aim.met(sure, effort.certainty)

    with evaluating(model):
        before = _decoded(model, start)
        found = content(before)[1]
        least = torch.where(found, 0.0, torch.inf)
        for step in range(effort.steps + 1):
            with torch.enable_grad():
                code = free.code()
                picture = _decoded(model, code)
                misread, here = content(_shifted(picture, step))
                change = (picture - before).abs().flatten(1).mean(1)
                loss = misread + price * change
            seen = here & content(picture)[1]
            better = ~found | (seen & (change < least))
            best = torch.where(better.view(-1, *[1] * (start.ndim - 1)), code, best)
            steps, least = torch.where(better, step, steps), torch.where(better, change, least)
            found |= seen
            if step == effort.steps:
                break
            free.descend(loss)
            price = torch.where(here, price / cheaper, price * cheaper)
            progress(step + 1)
    return best.cpu(), steps.cpu()


def _shifted(picture: Tensor, step: int) -> Tensor:
    """Pictures (B, C, H, W) as they are seen in a step: moved by a twentieth of their sides at most, round the edges."""
    dice = numpy_generator(0, "redrawn", step)
    down, right = (int(dice.integers(-(side // 20), side // 20 + 1)) for side in picture.shape[2:])
    return picture.roll((down, right), (2, 3))


def _asked_of(model: Any, code: Tensor, start: Tensor, aim: Aim | None, rule: Rule | None, effort: Effort) -> tuple[Tensor, Tensor]:
    """What is minimised (B,), and whether all are content with a code (B,)."""
    loss, content = code.new_zeros(len(code)), torch.ones(len(code), dtype=torch.bool, device=code.device)
    if isinstance(model, Constrains):
        real = model.realism(code, **_as_told(aim))
        loss = loss + effort.distance_weight * model.distance(code, start) + effort.realism_weight * F.softplus(-real)
        content &= real.sigmoid() >= effort.realism
    if aim is not None:
        misread, sure = _read(model.logits(_seen(model, code, effort)), aim.told)
        loss = loss + misread
        content &= aim.met(sure, effort.certainty)
    if rule is not None:
        value = _value(rule, model.decode(code))
        loss = loss + F.softplus(-value)
        content &= value > 0
    return loss, content


def _decoded(model: Any, code: Tensor) -> Tensor:
    picture: Tensor = model.decode(code)
    return picture.float()


def _seen(model: Any, code: Tensor, effort: Effort) -> Tensor:
    """What the reader looks at, for codes (B, D). One may please it and show nothing; the code of its picture says what can be seen."""
    return code if effort.look == "code" else model.encode(model.decode(code)).float()


def _as_told(aim: Aim | None, values: Tensor | None = None) -> dict[str, Tensor]:
    """What is to be shown, all of it or these rows, as `move` and `realism` take it; nothing for a model without condition."""
    return {} if aim is None else {aim.told.kind: aim.told.values if values is None else values}


def _read(logits: Tensor, wanted: Told) -> tuple[Tensor, Tensor]:
    """The cross-entropy of what is read (B,), and the probability of each thing, as it is wanted (B, K); of classes, of each."""
    if wanted.kind == "attributes":
        each = F.binary_cross_entropy_with_logits(logits, wanted.values, reduction="none")
        return each.sum(1), (-each).exp()
    return F.cross_entropy(logits, wanted.values, reduction="none"), logits.softmax(1)


def _value(rule: Rule, images: Tensor) -> Tensor:
    if not callable(rule):
        raise UserError(f"a rule is a {printable(type(rule).__name__)}", "rule", "give a function of images")
    value = rule(images)
    if not isinstance(value, Tensor) or value.shape != (len(images),) or not value.is_floating_point():
        given = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else printable(type(value).__name__)
        raise UserError(f"a rule gives {given}", "rule", f"let it return floats of shape ({len(images)},) for so many images")
    if not torch.isfinite(value).all():
        raise UserError("a rule gives what is no number", "rule", "let it return finite numbers")
    if torch.is_grad_enabled() and not value.requires_grad:
        raise UserError("a rule has no slope", "rule", "let it be differentiable: no comparison, no detach, no numpy")
    return value.float()


def judged_in_pictures(
    model: LatentModel, reader: Classifies, start: Tensor, codes: Tensor, steps: np.ndarray, aim: Aim, effort: Effort
) -> Verdict:
    """What a classifier of pictures says of those of codes as they were and as they became: (N, ...) twice."""

    def read(code: Tensor, wanted: Tensor) -> Tensor:
        return _read(reader.classify(_decoded(model, code)).float(), replace(aim.told, values=wanted))[1]

    with evaluating(model):
        seen = _before_and_after(read, device_of(model), start, codes, aim.told.values)
    return Verdict(aim.met(seen[:, 1], effort.certainty).numpy(), steps, aim.told, read=seen.numpy(), asked=aim.asked.numpy())


def _before_and_after(asks: Callable[..., Tensor], device: torch.device, start: Tensor, codes: Tensor, *rows: Tensor) -> Tensor:
    """What is said of codes as they were and as they became, side by side: (N, ...) twice -> (N, 2, ...), on the CPU."""
    return torch.stack([in_blocks(asks, device, code, *rows) for code in (start, codes)], 1)


def judged(model: Any, start: Tensor, codes: Tensor, steps: np.ndarray, aim: Aim | None, rule: Rule | None, effort: Effort) -> Verdict:
    """What critics, reader and rule say of codes as they were and as they became: (N, D) twice."""
    device, reached = device_of(model), torch.ones(len(start), dtype=torch.bool)
    said: dict[str, Tensor] = {}
    told = None if aim is None else aim.told
    rows = [] if told is None else [told.values]

    def both(asks: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        return _before_and_after(asks, device, start, codes, *rows)

    with evaluating(model):
        if isinstance(model, Constrains):
            said["realism"] = both(lambda code, *wanted: model.realism(code, **_as_told(aim, *wanted)).sigmoid(), *rows)
            said["distance"] = in_blocks(model.distance, device, codes, start)
            reached &= said["realism"][:, 1] >= effort.realism
        if aim is not None and told is not None:
            said["read"] = both(
                lambda code, wanted: _read(model.logits(_seen(model, code, effort)), replace(told, values=wanted))[1], *rows
            )
            said["asked"] = aim.asked
            reached &= aim.met(said["read"][:, 1], effort.certainty)
        if rule is not None:
            said["rule"] = both(lambda code: _value(rule, model.decode(code)))
            reached &= said["rule"][:, 1] > 0
    return Verdict(reached.numpy(), steps, told, **{name: value.numpy() for name, value in said.items()})
