"""The Python API: what the commands call, and notebooks too.

::

    import lgcli as lgm

    trained = lgm.train("aegan", data="glyphs", images=200_000, options={"latent": 32})
    images = trained.sample(16, seed=1)              # uint8 (16, 32, 32, 1)
    again, error = trained.reconstruct(images)       # the same images through encoder and decoder
    strip = trained.interpolate("seed:1", "seed:2")  # uint8 (10, 32, 32, 1)

    trained = lgm.load("runs/aegan-glyphs")          # later, or elsewhere
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from models import conditions, generate, inpainting, masks
from models.base import Encodes, LatentModel, Samples
from models.data import images as pictures
from models.data.batches import to_float
from models.data.clauses import in_shape
from models.data.dataset import DataRequest
from models.data.images import BadImage
from models.data.items import Items
from models.data.load import load as load_data
from models.data.load import parse, parse_item
from models.data.sources import FolderSource
from models.device import pick
from models.errors import UserError, nearest, printable
from models.randomness import image_noise, numpy_generator
from models.training import checkpoint, events
from models.training.build import build
from models.training.checkpoint import Header
from models.training.describe import describe_plan as describe_plan
from models.training.describe import describe_run as describe_run
from models.training.plan import Plan, ask, complete
from models.training.resume import go_on
from models.training.start import begin

META = torch.device("meta")


# --- training -------------------------------------------------------------------------------------------------------------------------


def train(
    model: str,
    data: str | Mapping[str, str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    on_event: Callable[[events.Event], None] = lambda event: None,
    **settings: Any,
) -> Trained:
    """Train a model to the end of its run and return it.

    Args:
        model: a name of `lgm models`.
        data: a data set's name, `name:test`, or a folder of images; or these by the names of the model's sources.
        out: the run's folder; by default a new one, `runs/<model>-<data>`.
        on_event: called with every event of `models.training.events`.
        settings: as for `plan`.

    Raises UserError, RunFailed, Interrupted (see `models.errors`).
    """
    run = ""
    for event in stream(model, data, out=out, **settings):
        run = event.run if isinstance(event, (events.Started, events.Finished)) else run
        on_event(event)
    return load(run, device=settings.get("device"))


def stream(
    model: str,
    data: str | Mapping[str, str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    fused: bool = True,
    **settings: Any,
) -> Iterator[events.Event]:
    """`train` as an iterator of events; nothing happens until it is iterated over."""
    return begin(model, data, out=out, fused=fused, **settings)


def resume(run: str | os.PathLike[str], *, accept_data: bool = False, fused: bool = True, **changes: Any) -> Iterator[events.Event]:
    """Go on with a run where its newest intact checkpoint stands; bit-exact on the same kind of machine.

    Args:
        run: the run's folder.
        accept_data: go on although the data are not what they were. A named set that is another one is refused all the same.
        changes: fields of RunConfig that may differ (`RunConfig.FREE`); any other that does is a UserError. `options` may be a function
            that takes the model's Config class, for a caller who does not know yet what is trained.
    """
    return go_on(run, accept_data=accept_data, fused=fused, **changes)


def plan(
    model: str,
    data: str | Mapping[str, str] | None = None,
    *,
    preset: str = "default",
    options: Mapping[str, Any] | None = None,
    epochs: float | None = None,
    download: bool = True,
    **settings: Any,
) -> Plan:
    """The full configuration of a run, its data and its parts; nothing is written.

    Args:
        data: of the leading source, or of several sources by their names; those that are not named are the parts' own.
        preset: quick, default or paper: how long to train, and the model's options.
        options: fields of the model's own Config, over the preset's.
        epochs: how often to see each image, instead of `images`.
        settings: fields of RunConfig (images, batch, seed, device, precision, size, parts, ...); None means the default.
    """
    return complete(ask(model, data, preset=preset, options=options, epochs=epochs, download=download, **settings))


# --- a trained model ------------------------------------------------------------------------------------------------------------------


def load(run: str | os.PathLike[str], *, device: str | None = None, raw: bool = False) -> Trained:
    """The model of a run folder (its newest checkpoint) or of a checkpoint file, ready to generate.

    Args:
        raw: use the weights as trained instead of their moving average.

    Raises UserError where the file is damaged, foreign or does not fit its model.
    """
    where = pick(device)
    header, tensors = _read(run)
    config = dataclasses.replace(header.config, model=header.model, compile=False)
    model = build(config, header.spec, where, header.parts, header)
    weights = checkpoint.part(tensors, "model")
    if not raw:
        weights |= checkpoint.part(tensors, "average")
    checkpoint.load_state(model, weights)
    return Trained(model.eval(), header, where)


@dataclass(frozen=True)
class Trained:
    """A trained model and its checkpoint's header. Images are uint8 arrays (N, height, width, channels).

    Where nobody says what a sample shows, it is what `examples` (M,) or (M, A) do, in turn (see `like`).
    """

    model: LatentModel
    header: Header
    device: torch.device
    examples: torch.Tensor | None = None

    def sample(
        self,
        count: int,
        seed: int = 0,
        first: int = 0,
        *,
        label: conditions.Label | None = None,
        attributes: conditions.Attributes | None = None,
        truncation: float | None = None,
    ) -> np.ndarray:
        """`count` samples. Image i depends on the seed, on `first` + i, and on what is asked for alone.

        Args:
            label: what a conditional model draws: a class's name or number (an identity's number), or several: then `count` of each, one
                after the other, from the same noises. Where nothing is said, image i shows class i mod K, or what `examples` say.
            attributes: the same for a model that is asked by attributes: name -> 0 or 1, the others 0; or several of these.
            truncation: cut the noise off at plus and minus this: less variety, fewer failures (docs/sampling.md).

        Raises UserError for what the model cannot be asked.
        """
        return np.concatenate(list(self.sample_blocks(count, seed, first, label=label, attributes=attributes, truncation=truncation)))

    def sample_blocks(
        self,
        count: int,
        seed: int = 0,
        first: int = 0,
        batch: int = 256,
        *,
        label: conditions.Label | None = None,
        attributes: conditions.Attributes | None = None,
        truncation: float | None = None,
    ) -> Iterator[np.ndarray]:
        """The same, `batch` images at a time, for numbers that should not be in memory at once. The batch changes no image."""
        self._ready_to_sample()
        if count < 1:
            raise UserError(f"{count} samples", "-n", "ask for 1 or more")
        if truncation is not None:
            generate.check_truncation(truncation)
        check_seed(seed)
        wanted: list[torch.Tensor | None] = [condition.value for condition in self.conditions_for(label, attributes)]
        rows = (generate.sample(self.model, count, seed, first, batch, value, truncation, self.examples) for value in wanted or [None])
        return chain.from_iterable(rows)

    def conditions_for(
        self, label: conditions.Label | None = None, attributes: conditions.Attributes | None = None
    ) -> list[conditions.Condition]:
        """What `sample` draws for these arguments, in order; empty where nothing is asked. See `models.conditions.resolve`."""
        return conditions.resolve(self.condition, self.model.spec, label, attributes)

    def classes(self, limit: int | None = None) -> list[conditions.Condition]:
        """The first `limit` classes (or identities) that the model can be asked for; empty where it is not asked by them."""
        return conditions.each(self.condition, self.model.spec, limit)

    @property
    def condition(self) -> str | None:
        """What the model is asked for, and told of images: `label`, `identity`, `attributes`, or None for a model without condition."""
        return generate.condition_of(self.model)

    def asked(self, items: Iterable[int]) -> torch.Tensor | None:
        """What the samples of these numbers show where nobody says, (N, ...), or None for a model without condition."""
        return generate.asked(self.model, items, self.examples)

    def like(self, data: Items | FolderSource, seed: int) -> Trained:
        """This model, whose samples show what the data's items do where nobody says: each item's condition once, in an order that the seed
        draws, then all of them again. Without `examples` where the data do not say, or name something that the model does not know.
        """
        shown = conditions.examples(self.condition, self.model.spec, data)
        if shown is not None:
            shown = shown[torch.from_numpy(numpy_generator(seed, "conditions").permutation(len(shown)))]
        return dataclasses.replace(self, examples=shown)

    def reconstruct(
        self, images: np.ndarray, *, label: conditions.Label | None = None, attributes: conditions.Attributes | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reconstructions and each image's mean squared error (black 0, white 1).

        A conditional model has to be told what the images show: `label` or `attributes` of all of them, or one for each image. Where nobody
        says, a classifier of its own says what is most likely, if it has one.
        """
        generate.require(self.model, Encodes, "reconstruct")
        return generate.reconstruct(self.model, self._checked(images), self._shown_by(images, label, attributes))

    def encode(
        self, images: np.ndarray, *, label: conditions.Label | None = None, attributes: conditions.Attributes | None = None
    ) -> torch.Tensor:
        """The images' codes (N, latent...), float32 on the CPU. A conditional model has to be told what they show, as for `reconstruct`."""
        generate.require(self.model, Encodes, "encode")
        shown = self._checked(images)
        return self._points(list(shown), "code", self._shown_by(shown, label, attributes), {})[0]

    def project(
        self,
        images: np.ndarray,
        *,
        label: conditions.Label | None = None,
        attributes: conditions.Attributes | None = None,
        **settings: Any,
    ) -> generate.Projection:
        """Noise whose samples are as near as possible to the images; settings as for `models.generate.project`.

        A conditional model has to be told what the images show, as for `reconstruct`.
        """
        self._ready_to_sample()
        shown = self._checked(images)
        return generate.project(self.model, shown, condition=self._shown_by(shown, label, attributes), **settings)

    def inpaint(
        self,
        images: np.ndarray,
        holes: np.ndarray | str,
        *,
        iterations: int = 10,
        seed: int = 0,
        label: conditions.Label | None = None,
        attributes: conditions.Attributes | None = None,
        **settings: Any,
    ) -> inpainting.Inpainting:
        """Fill holes with what the model makes of the rest (see `models.inpainting`); `.images[-1]` are the completed images.

        Args:
            holes: bool (N, H, W), or (H, W) for all, True in the hole; or a kind of mask to draw: box, center, half, random, stroke.
            iterations: how often encoder and decoder are asked. A model without encoder is searched by projection instead.
            seed: of drawn masks, and of a projection's starts.
            label, attributes: what the images show, as for `reconstruct`. A classifier of the model's own is asked before each iteration.
            settings: `steps`, `restarts` and `lr` of a projection, and `progress`, called with (done, in all).

        Raises UserError, also for a mask of another size, without hole, or without anything else.
        """
        if not 1 <= iterations <= 10_000:
            raise UserError(f"{iterations} iterations", "--iterations", "give a number from 1 to 10,000")
        shown, size = self._checked(images), self.model.spec.size
        if isinstance(holes, str):
            if holes not in masks.KINDS:
                raise UserError(f"unknown kind of mask {printable(holes)!r}", "holes", nearest(holes, masks.KINDS))
            holes = masks.draw(holes, check_seed(seed), range(len(shown)), size)
        if holes.dtype != bool or holes.shape not in (size, (len(shown), *size)):
            wanted = f"bool of shape {size}, or ({len(shown)}, {size[0]}, {size[1]})"
            raise UserError(f"masks are {holes.dtype} {holes.shape}", "holes", f"give {wanted}")
        holes = masks.check(np.broadcast_to(holes, (len(shown), *size)))
        if isinstance(self.model, Encodes):
            settings = {key: value for key, value in settings.items() if key == "progress"}
        elif isinstance(self.model, Samples):
            self._ready_to_sample()
            settings |= {"seed": seed}
        else:
            generate.require(self.model, Encodes, "inpaint")
        values = self._values(len(shown), label, attributes)
        if values is None and self.condition is not None and not self.classifies:
            raise self._untold()
        return inpainting.inpaint(self.model, shown, holes, iterations=iterations, condition=values, **settings)

    def interpolate(self, a: str | np.ndarray, b: str | np.ndarray | None = None, **settings: Any) -> np.ndarray:
        """The images of `way`: (number, height, width, channels)."""
        return self.way(a, b, **settings).images

    def way(
        self,
        a: str | np.ndarray,
        b: str | np.ndarray | None = None,
        *,
        number: int = 10,
        grid: bool = False,
        path: Literal["lerp", "slerp"] = "lerp",
        space: Literal["auto", "code", "noise"] = "auto",
        data_root: str | None = None,
        search: Mapping[str, Any] | None = None,
        label: conditions.Label | None = None,
        attributes: conditions.Attributes | None = None,
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
                choice (`LatentModel.interpolates`), and noise where an end is a seed.
            search: settings of `models.generate.project`.
            label, attributes: what a conditional model shows: one for all of the way, or two, from the first to the second, which are mixed
                along a straight line. By default an image shows what its data say or what the model's own classifier sees, a seed what the
                other end shows, and two seeds what their first samples show.
        """
        read = [self._end(end, data_root) for end in (a, b) if end is not None]
        ends = [end for end, _ in read]
        chosen = self.space_for(ends, space)
        told = self._told_ends(read, label, attributes)
        changes = told is not None and not torch.equal(told[0].value, told[1].value)
        if not changes and (grid or b is None):
            missing = ("--grid", "a grid needs two labels") if grid else ("B", "one end and one label: nothing would change")
            raise UserError(missing[1], missing[0], "give another end, or two labels (--label 3,8)")
        if grid and b is None:
            raise UserError("a grid needs two ends", "--grid", "give another end as well, or leave --grid out")
        shown = [n for n, end in enumerate(ends) if not isinstance(end, int)]
        values = torch.stack([told[n].value for n in shown]) if told is not None and shown else None
        found, errors = self._points([np.asarray(ends[n]) for n in shown], chosen, values, search or {})
        given = iter(found)
        points = [image_noise(end, [0], self.model.noise_shape)[0] if isinstance(end, int) else next(given) for end in ends]
        line = generate.blend(points[0], points[-1], number, path)
        condition = None
        if told is not None:
            condition = self._between(*told, number) if changes else told[0].value.expand(number, *told[0].value.shape)
        if grid:
            assert condition is not None
            line, condition = line.repeat(number, *[1] * (line.ndim - 1)), condition.repeat_interleave(number, 0)
        images = generate.images_from(self.model, line, chosen, condition)
        names = None if told is None else f"{told[0].name} to {told[1].name}" if changes else told[0].name
        return Way(images, chosen, errors, names, number)

    def space_for(self, ends: Sequence[int | np.ndarray], space: str) -> Literal["code", "noise"]:
        if space not in ("auto", "code", "noise"):
            raise UserError(f"unknown space {space!r}", "--space", "use code or noise")
        if space == "auto":
            space = "noise" if any(isinstance(e, int) for e in ends) or not isinstance(self.model, Encodes) else self.model.interpolates
        if space == "code":
            if any(isinstance(e, int) for e in ends):
                raise UserError("a seed has no code", "--space code", "leave --space out, or give images")
            generate.require(self.model, Encodes, "encode")
        else:
            self._ready_to_sample()
        return space  # type: ignore[return-value]

    def endpoint(self, what: str | np.ndarray, data_root: str | None = None) -> int | np.ndarray:
        """A seed as an int, or an image of the model's shape, (H, W, C) uint8."""
        return self._end(what, data_root)[0]

    def _end(self, what: str | np.ndarray, data_root: str | None) -> tuple[int | np.ndarray, Any | None]:
        """`endpoint`, and what the data say that it shows, where they do."""
        if isinstance(what, np.ndarray):
            return np.asarray(self._checked(what[None])[0]), None
        text = what.removeprefix("seed:")
        if text.isascii() and text.isdigit() and not Path(what).exists():
            return check_seed(int(text)), None
        [(image, truth)] = self._read([what], data_root)
        return image, truth and truth[0]

    def gather(self, sources: Sequence[str], limit: int, data_root: str | None = None) -> Gathered:
        """Files and items, or the first `limit` images of the one data set or folder that is named."""
        if len(sources) == 1 and not Path(sources[0]).is_file() and not _is_item(sources[0]):
            data = self.data(sources[0], data_root)
            shown = min(limit, len(data))
            names = list(data.files[:shown]) or [f"{sources[0]}:{n}" for n in range(shown)]
            truth = conditions.truth(self.condition, self.model.spec, data, range(shown))
            return Gathered(names, data.rows("image", np.arange(shown)), truth)
        images, truths = zip(*self._read(sources, data_root), strict=True)
        return Gathered(list(sources), np.stack(images), None if None in truths else [truth for [truth] in truths])

    def images(self, sources: Iterable[str | os.PathLike[str]], data_root: str | None = None) -> np.ndarray:
        """Image files and data-set items ("mnist:test:17") as the model takes them: (N, H, W, C) uint8."""
        return np.stack([image for image, _ in self._read(sources, data_root)])

    def _read(
        self, sources: Iterable[str | os.PathLike[str]], data_root: str | None = None
    ) -> Iterator[tuple[np.ndarray, list[Any] | None]]:
        """Each image, with what it shows where it is an item of data that say so (see `models.conditions.truth`)."""
        spec, config = self.header.spec, self.header.config
        loaded: dict[DataRequest, Items] = {}
        for source in map(str, sources):
            if _is_item(source):
                request, index = parse_item(source, root=self._root(data_root), **self._fitting())
                request = self._in_shape(request)
                data = loaded[request] = loaded[request] if request in loaded else load_data(request)
                if index >= len(data):
                    raise UserError(f"item {index} of {len(data)}", source, f"give a number from 0 to {len(data) - 1}")
                yield data.rows("image", np.array([index]))[0], conditions.truth(self.condition, self.model.spec, data, [index])
            else:
                try:
                    decoded = pictures.decode(source, background=config.background)
                    fitted = pictures.fit(decoded, spec.size, config.fit, background=config.background)
                    yield pictures.to_channels(fitted, spec.channels), None
                except (BadImage, OSError) as error:
                    raise UserError(f"no readable image ({printable(error)})", source, "give an image file, or SET:NUMBER") from error

    def data(self, text: str, data_root: str | None = None) -> Items:
        """A data set as the model takes it."""
        return load_data(self._in_shape(parse(text, root=self._root(data_root), **self._fitting())))

    def _checked(self, images: np.ndarray) -> np.ndarray:
        spec = self.header.spec
        wanted = (*spec.size, spec.channels)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted or not len(images):
            raise UserError(
                f"images are {images.dtype} {images.shape}", "images", f"give uint8 of shape (N, {', '.join(map(str, wanted))})"
            )
        return images

    def _root(self, data_root: str | None) -> Path | None:
        """Where named sets lie: as asked, or where the run found them."""
        root = data_root or self.header.config.data_root
        return Path(root) if root else None

    def _fitting(self) -> dict[str, Any]:
        config = self.header.config
        return {"fit": config.fit, "channels": config.channels, "background": config.background}

    def _in_shape(self, request: DataRequest) -> DataRequest:
        return in_shape(request, self.header.spec.size, self.header.spec.channels)

    def _points(
        self, images: Sequence[np.ndarray], space: str, condition: torch.Tensor | None, search: Mapping[str, Any]
    ) -> tuple[torch.Tensor, list[float]]:
        """The images' codes or noise, and for noise the error of each image's projection."""
        if not images:
            return torch.empty(0), []
        if space == "noise":
            found = generate.project(self.model, np.stack(images), condition=condition, **search)
            return found.noise, found.error.tolist()
        with generate.evaluating(self.model):
            real = to_float(torch.from_numpy(np.stack(images)))
            return generate.ask_in_blocks(self.model, "encode", real, condition, self.device), []

    def told_by(self, data: Items, items: Iterable[int]) -> dict[str, Any]:
        """What the data say that these items show, as arguments of `reconstruct` and the like; empty where they do not say."""
        truth = conditions.truth(self.condition, self.model.spec, data, items)
        return {} if truth is None else {conditions.argument_of(self.condition): truth}

    @property
    def classifies(self) -> bool:
        """Whether the model has a classifier of its own for what it has to be told."""
        return generate.classifies(self.model)

    def _shown_by(
        self, images: np.ndarray, label: conditions.Label | None, attributes: conditions.Attributes | None
    ) -> torch.Tensor | None:
        """What each image shows, (N, ...): as said, or as the model's own classifier sees it; None for a model without condition."""
        values = self._values(len(images), label, attributes)
        if values is None and self.condition is not None:
            with generate.evaluating(self.model):
                values = generate.classified(self.model, to_float(torch.from_numpy(images)), self.device)
            if values is None:
                raise self._untold()
        return values

    def _values(self, count: int, label: conditions.Label | None, attributes: conditions.Attributes | None) -> torch.Tensor | None:
        """What is said of each of `count` images, (count, ...), or None where nothing is."""
        values = [condition.value for condition in self.conditions_for(label, attributes)]
        if not values:
            return None
        if len(values) not in (1, count):
            raise UserError(f"{len(values)} for {count} images", self._flag, "give one for all, or one for each image")
        return torch.stack(values).expand(count, *values[0].shape)

    def _told_ends(
        self, ends: Sequence[tuple[int | np.ndarray, Any | None]], label: conditions.Label | None, attributes: conditions.Attributes | None
    ) -> tuple[conditions.Condition, conditions.Condition] | None:
        """What a way shows at its beginning and at its end, or None for a model without condition. An end is a seed or an image, with
        what the data say of it."""
        wanted = self.conditions_for(label, attributes)
        if len(wanted) > 2:
            raise UserError(
                f"{len(wanted)} of them for one way", self._flag, "give one for all of it, or two: from the first to the second"
            )
        if not wanted and self.condition is not None:
            wanted = [found for end in ends if (found := self._shown_at(*end)) is not None]  # a seed shows what the other end does
            wanted = wanted or [conditions.default(self.condition, self.model.spec)]  # type: ignore[list-item]
        return (wanted[0], wanted[-1]) if wanted else None

    def _shown_at(self, end: int | np.ndarray, truth: Any | None) -> conditions.Condition | None:
        """What an image shows where nobody says; None for a seed."""
        if isinstance(end, int):
            return None
        if truth is not None:
            return self.conditions_for(**{conditions.argument_of(self.condition): [truth]})[0]
        seen = self._shown_by(np.stack([end]), None, None)
        assert seen is not None
        return conditions.named(self.condition, self.model.spec, seen[0])

    def _between(self, a: conditions.Condition, b: conditions.Condition, number: int) -> torch.Tensor:
        """Mixtures from one condition to another: (number, K)."""
        ends = [conditions.soft(self.condition, self.model.spec, end) for end in (a, b)]
        return generate.blend(ends[0], ends[1], number, "lerp")

    @property
    def _flag(self) -> str:
        return f"--{conditions.argument_of(self.condition)}"

    def _untold(self) -> UserError:
        return UserError(f"nobody says which {self.condition} the images show", self._flag, "say it: this model has to be told")

    def _ready_to_sample(self) -> None:
        generate.require(self.model, Samples, "sample")
        stage = next((s for s in self.model.stages() if s.name == self.header.stage), None)
        if stage is not None and not stage.samples:
            raise UserError(
                f"the run is still in its stage {stage.name!r}, what samples is not trained yet",
                self.header.path or "",
                "let the training go on (lgm train --resume RUN); lgm reconstruct works already",
            )


class Gathered(NamedTuple):
    """Images (N, H, W, C) uint8, their names, and what each of them shows as `Trained.conditions_for` takes it; None where nobody says."""

    names: list[str]
    images: np.ndarray
    truth: list[Any] | None


@dataclass(frozen=True)
class Way:
    """The images of an interpolation (N, H, W, C), the space it went through, and the errors of the ends' projections, if any.

    `shows` names what a conditional model was asked for. A grid's images lie row by row, `columns` in each.
    """

    images: np.ndarray
    space: Literal["code", "noise"]
    errors: list[float]
    shows: str | None = None
    columns: int = 0


def check_seed(seed: int) -> int:
    if not 0 <= seed < 2**64:
        raise UserError(f"seed {seed}", "--seed", "a seed is a whole number from 0 to 2^64 - 1")
    return seed


# --- helpers --------------------------------------------------------------------------------------------------------------------------


def name_of(run: str | os.PathLike[str]) -> str:
    """A short name for files made from a run: the folder's, or the checkpoint file's."""
    path = Path(run).resolve()
    return path.stem if path.is_file() else path.name


def _is_item(source: str) -> bool:
    return bool(re.fullmatch(r".+:\d+", source)) and not Path(source).exists()


def _read(run: str | os.PathLike[str]) -> tuple[Header, dict[str, torch.Tensor]]:
    """The newest checkpoint, its shapes compared with its model's before any tensor is read or any network allocated."""
    for attempt in range(3):
        path = checkpoint.locate(run)
        try:
            header = checkpoint.read_header(path)
            checkpoint.check_belongs(header, Path(run))
            config = dataclasses.replace(header.config, model=header.model, compile=False)
            with META:
                bare = build(config, header.spec, META, header.parts, header)
            checkpoint.match(checkpoint.shapes_of(bare.state_dict()), checkpoint.part(checkpoint.shapes(path), "model"), path)
            return header, checkpoint.read_tensors(path)
        except UserError:
            if path.exists() or attempt == 2:
                raise  # otherwise a trainer has just deleted it in favour of a newer one
    raise AssertionError
