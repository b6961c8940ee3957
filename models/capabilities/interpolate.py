"""Walking through the latent space: from one image or seed to another, and from one label to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from models.base import Encodes, Maps
from models.capabilities import inputs, verb
from models.capabilities.ask import images_from, mapped, require
from models.capabilities.mix import codes, crossed, parse_layers
from models.capabilities.project import search as find
from models.capabilities.reconstruct import codes_of
from models.capabilities.told import Told, Words, argument_of, has_to_tell, in_turn, resolve
from models.errors import UserError
from models.randomness import image_noise

if TYPE_CHECKING:
    from models.capabilities.trained import Trained

Space = Literal["code", "noise"]


@dataclass(frozen=True)
class Way:
    """The images of an interpolation (N, H, W, C), the space it went through, and the errors of the ends' projections, if any.

    `shows` names what a conditional model was asked for. A grid's images lie row by row, `columns` in each. `ends` are the ends' captions.
    """

    images: np.ndarray
    space: Space
    errors: list[float]
    shows: str | None = None
    columns: int = 0
    ends: tuple[str, ...] = ()


@dataclass(frozen=True)
class _End:
    """One end of a way: a seed, or an image (H, W, C) with what the data say of it, where they do; and its caption."""

    at: int | np.ndarray
    truth: Any | None
    caption: str

    @property
    def is_seed(self) -> bool:
        return isinstance(self.at, int)


@verb
def interpolate(trained: Trained, a: str | np.ndarray, b: str | np.ndarray | None = None, **settings: Any) -> np.ndarray:
    """The images of `way`, uint8: (number, height, width, channels)."""
    return way(trained, a, b, **settings).images


@verb
def way(
    trained: Trained,
    a: str | np.ndarray,
    b: str | np.ndarray | None = None,
    *,
    number: int = 10,
    grid: bool = False,
    path: Literal["lerp", "slerp"] = "lerp",
    space: Literal["auto", "code", "noise"] = "auto",
    data_root: str | None = None,
    search: Mapping[str, Any] | None = None,
    told: Words | None = None,
    layers: str | None = None,
) -> Way:
    """A way from `a` to `b` through the latent space.

    Args:
        a, b: each an image file, an item of a data set ("mnist:test:17"), a seed ("seed:3" or "3"), or an image array. Without `b` the
            way stays at `a`, and goes from one label to another.
        number: images on the way, both ends included.
        grid: `number` rows of `number` images, one below the other: from left to right from `a` to `b`, from top to bottom from one
            label to the other. Otherwise both change together.
        path: `lerp` is the straight line, `slerp` the great circle.
        space: `code` goes between encoder outputs; `noise` between noise, for images found by projection; `auto` is the model's own
            choice (`LatentModel.interpolates`), and noise where an end is a seed that has no code.
        search: settings of `models.capabilities.project.search`.
        told: what a conditional model shows: one for all of the way, or two, from the first to the second, which are mixed along a
            straight line. By default an image shows what its data say or what the model's own classifier sees, a seed what the other end
            shows, and two seeds what their first samples show.
        layers: what alone changes on the way, all else stays as it is in `a`, for a model that mixes: see
            `models.capabilities.mix.parse_layers`. In a grid these change from top to bottom, and all else from left to right.

    Raises UserError.
    """
    if layers is not None:
        return _by_layers(trained, (a, b), number, grid, path, layers, space, told, data_root)
    ends = [_End(*inputs.end(trained, end, data_root)) for end in (a, b) if end is not None]
    chosen = _space(trained, ends, space)
    shown = _shown(trained, ends, told, chosen)
    changes = shown is not None and not torch.equal(shown.values[0], shown.values[-1])
    _check_leads_somewhere(changes, grid, b is None)
    points, errors = _points(trained, ends, shown, chosen, search or {})
    line, along = blend(points[0], points[-1], number, path), None
    if shown is not None:
        along = _between(shown, number) if changes else shown[:1].for_each(number)
    if grid:
        assert along is not None
        line, along = line.repeat(number, *[1] * (line.ndim - 1)), replace(along, values=along.values.repeat_interleave(number, 0))
    images = images_from(trained.model, line, chosen, along)
    shows = None if shown is None else " to ".join(dict.fromkeys(shown.names))
    return Way(images, chosen, errors, shows, number, tuple(end.caption for end in ends))


def _by_layers(
    trained: Trained,
    asked: tuple[str | np.ndarray, str | np.ndarray | None],
    number: int,
    grid: bool,
    path: Literal["lerp", "slerp"],
    layers: str,
    space: str,
    told: Words | None,
    data_root: str | None,
) -> Way:
    """A way on which some layers of the codes change and the others stay, or both in a grid."""
    chosen = parse_layers(trained.model, layers)
    a, b = asked
    if b is None:
        raise UserError("layers change from one end to another", "B", "give another end")
    if told is not None or space not in ("auto", "code"):
        raise UserError("layers are parts of codes", "--layers", "leave --label, --attributes and --space out")
    ends = [inputs.end(trained, end, data_root) for end in (a, b)]
    one, other = codes(trained.model, [at for at, *_ in ends])
    line = blend(one, other, number, path)
    across = line if grid else line[:1]
    made = crossed(trained.model, across, line, chosen)  # (across, along the layers, H, W, C)
    images = made.swapaxes(0, 1).reshape(-1, *made.shape[2:])
    return Way(images, "code", [], None, number, tuple(caption for *_, caption in ends))


def blend(a: Tensor, b: Tensor, steps: int, path: Literal["lerp", "slerp"]) -> Tensor:
    """(steps, ...) points from `a` to `b`, both ends included; `slerp` goes along the great circle, and changes the length evenly."""
    share = torch.linspace(0, 1, steps).view(-1, *[1] * a.ndim)
    if path == "lerp":
        return torch.lerp(a.unsqueeze(0), b.unsqueeze(0), share)
    length_a, length_b = a.norm().clamp_min(1e-12), b.norm().clamp_min(1e-12)
    angle = torch.arccos(((a / length_a) * (b / length_b)).sum().clamp(-1, 1))
    if float(angle.sin()) < 1e-4:  # (anti)parallel: no great circle, or no angle at all
        return torch.lerp(a.unsqueeze(0), b.unsqueeze(0), share)
    direction = (torch.sin((1 - share) * angle) * (a / length_a) + torch.sin(share * angle) * (b / length_b)) / angle.sin()
    return direction * torch.lerp(length_a, length_b, share)


def through_all(points: Tensor, frames: int, path: Literal["lerp", "slerp"]) -> Tensor:
    """From each of the points (N, ...) to the next in `frames` steps, the last one included: ((N - 1) * frames + 1, ...)."""
    return torch.cat([blend(a, b, frames + 1, path)[:-1] for a, b in pairwise(points)] + [points[-1:]])


def _space(trained: Trained, ends: Sequence[_End], asked: str) -> Space:
    """The space that a way goes through. Raises UserError where the model, or an end, has no place in it."""
    seeds = any(end.is_seed for end in ends) and not isinstance(trained.model, Maps)
    if asked not in ("auto", "code", "noise"):
        raise UserError(f"unknown space {asked!r}", "--space", "use code or noise")
    if asked == "auto":
        asked = "noise" if seeds or not isinstance(trained.model, Encodes) else trained.model.interpolates
    if asked == "noise":
        trained.require_samples()
        return "noise"
    if seeds:
        raise UserError("a seed has no code", "--space code", "leave --space out, or give images")
    require(trained.model, Encodes, "encode")
    return "code"


def _shown(trained: Trained, ends: Sequence[_End], words: Words | None, space: Space) -> Told | None:
    """What a way shows, at its beginning and at its end, in one row or two; None where the model is told nothing on this way."""
    if trained.condition is not None and space == "code" and not has_to_tell(trained.model, "encode", "decode"):
        if words is not None:
            what = "between codes this model's decoder is told nothing"
            raise UserError(what, f"--{argument_of(trained.condition)}", "leave it out, or walk between noises: --space noise")
        return None
    if (said := resolve(trained.model, words)) is not None:
        if len(said) > 2:
            flag = f"--{argument_of(said.kind)}"
            raise UserError(f"{len(said)} of them for one way", flag, "give one for all of it, or two: from the first to the second")
        return said
    seen = [trained.shown_by(np.stack([end.at]), None if end.truth is None else [end.truth]) for end in ends if not end.is_seed]
    rows = [told for told in seen if told is not None]  # a seed shows what the other end does
    return replace(rows[0], values=torch.cat([told.values for told in rows])) if rows else in_turn(trained.model, [0])


def _check_leads_somewhere(changes: bool, grid: bool, one_end: bool) -> None:
    if not changes and (grid or one_end):
        missing = ("--grid", "a grid needs two labels") if grid else ("B", "one end and one label: nothing would change")
        raise UserError(missing[1], missing[0], "give another end, or two labels (--label 3,8)")
    if grid and one_end:
        raise UserError("a grid needs two ends", "--grid", "give another end as well, or leave --grid out")


def _points(
    trained: Trained, ends: Sequence[_End], shown: Told | None, space: Space, search: Mapping[str, Any]
) -> tuple[list[Tensor], list[float]]:
    """Where the ends lie in the space, and the error of each image's projection, where there is one."""
    model, where = trained.model, [n for n, end in enumerate(ends) if not end.is_seed]
    points = {n: image_noise(end.at, [0], model.noise_shape) for n, end in enumerate(ends) if isinstance(end.at, int)}
    if space == "code" and isinstance(model, Maps):
        points = {n: mapped(model, noise) for n, noise in points.items()}
    points = {n: found[0] for n, found in points.items()}
    errors: list[float] = []
    if where:
        images = np.stack([ends[n].at for n in where])
        told = None if shown is None else shown[[min(n, len(shown) - 1) for n in where]]
        if space == "code":
            found = codes_of(model, images, told)
        else:
            projected = find(model, images, told=told, **search)
            found, errors = projected.noise, projected.error.tolist()
        points |= dict(zip(where, found, strict=True))
    return [points[n] for n in range(len(ends))], errors


def _between(shown: Told, number: int) -> Told:
    """Mixtures from the first row to the last: (number, K)."""
    ends = shown.soft()
    return replace(ends, values=blend(ends.values[0], ends.values[-1], number, "lerp"))
