"""Configurations: frozen dataclasses, checked against their annotations, JSON-able. No torch here.

A field's annotation is its contract: the type, `Annotated[int, Range(1, 4096)]` for a number's range, `Literal[...]` for a choice. A field
that is an option of a command says in its annotation what it is for as well: a `Help`. The options of models are described by the comments
behind them instead, which `models.registry` reads without running a file that imports torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from models.errors import UserError, nearest, nearest_of, printable

C = TypeVar("C")
E = TypeVar("E")


@dataclass(frozen=True)
class Range:
    """Inclusive bounds of a number."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Text:
    """How a value is written on the command line, where its type alone does not say so.

    Attributes:
        read: text -> the value, or the text itself where it is none.
        takes: what may be written, in words.
    """

    read: Callable[[str], Any]
    takes: str


@dataclass(frozen=True)
class Help:
    """A field as an option of a command.

    Attributes:
        about: what it is for, in one line.
        flags: its names; by default the field's own, with dashes. A switch called --no-... turns its field off.
        metavar: what stands for the value; by default N for a number, and the choices where there are some.
        default: what holds where the option is not given, in words; by default the field's default. Switches show none.
        variable: the environment variable that is asked where the option is not given.
    """

    about: str
    flags: tuple[str, ...] = ()
    metavar: str = ""
    default: str = ""
    variable: str = ""


@dataclass(frozen=True)
class Preset:
    """A named starting point of a model: how long to train, and which options differ from the Config's defaults."""

    images: int
    batch: int = 128
    options: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""


# --- values that are written in a way of their own ----------------------------------------------------------------------------------------


def read_seed(text: str) -> int | str:
    """The digits of a number below 2^64, and nothing else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 21 and int(text) < 2**64 else text


def read_share(text: str) -> float | str:
    """`10%` or `0.1` as 0.1."""
    found = re.fullmatch(r"([0-9]{0,3}(?:\.[0-9]{1,6})?)(%?)", text.strip())
    return float(found[1]) / (100 if found[2] else 1) if found and found[1] not in ("", ".") else text


def read_size(text: str) -> tuple[int, int] | str:
    """`64` or `64x48` (width x height) as (height, width)."""
    found = re.fullmatch(r"([0-9]{1,4})(?:x([0-9]{1,4}))?", text.lower())
    sides = (int(found[2] or found[1]), int(found[1])) if found else (0, 0)
    return sides if all(1 <= side <= 4096 for side in sides) else text


def read_colour(text: str) -> tuple[int, int, int] | str:
    """`white`, `black` or `#rrggbb` as (red, green, blue)."""
    digits = {"white": "ffffff", "black": "000000"}.get(text.lower(), text.removeprefix("#"))
    return (int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)) if re.fullmatch("[0-9a-fA-F]{6}", digits) else text


Seed = Annotated[int, Range(0, 2**64 - 1), Text(read_seed, "a whole number from 0 to 2^64 - 1")]
Size = Annotated[tuple[int, int], Text(read_size, "64, or WIDTHxHEIGHT such as 64x48, up to 4096; in Python (height, width)")]
Colour = Annotated[tuple[int, int, int], Text(read_colour, "white, black or #rrggbb; in Python (red, green, blue)")]
Precision = Literal["fp32", "bf16"]
Device = Annotated[str, Help("auto, cpu, cuda, cuda:N or mps.")]
DataRoot = Annotated[str, Help("Where named data sets lie, and are downloaded to.", metavar="DIR", variable="LGM_DATA")]
SkipBad = Annotated[bool, Help("Leave unreadable images out.")]


# --- the configurations -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunConfig:
    """The complete record of a training run: what is trained, on what, for how long, and how it is watched."""

    model: str
    data: str  # the leading source's
    options: Mapping[str, Any] = field(default_factory=dict)  # the model's own Config
    preset: Annotated[str, Help("quick, default, paper, or another of the model's.")] = "default"
    images: Annotated[int, Range(1, 10**12), Help("Images to see, e.g. 600k.", default="preset's")] = 1_000_000
    batch: Annotated[int, Range(1, 1_000_000), Help("Images a step.", default="preset's")] = 128
    seed: Annotated[Seed, Help("Same seed, same weights.", metavar="N")] = 0
    precision: Annotated[Precision, Help("Of the numbers that the networks compute with.")] = "fp32"
    size: Annotated[Size, Help("64 or WIDTHxHEIGHT.", metavar="SIZE", default="data's")] | None = None  # (height, width)
    fit: Annotated[Literal["crop", "pad", "stretch"], Help("How images are brought to the size.")] = "crop"
    channels: Annotated[Literal["auto", "1", "3"], Help("Grey images (1) or coloured ones (3); auto: as the data are.")] = "auto"
    background: Annotated[Colour, Help("What transparent pixels lie on.", metavar="COLOUR", default="white")] = (255, 255, 255)
    skip_bad: SkipBad = False
    held_out: Annotated[
        float,
        Range(0, 0.9),
        Text(read_share, "a share, such as 10% or 0.1"),
        Help("Share of the data that is kept back, and measured on.", metavar="SHARE", default="none; the test split is measured on"),
    ] = 0.0
    average_images: Annotated[int, Range(0, 10**12), Help("Half-life of the moving average in images; 0: none.", flags=("--average",))] = (
        50_000
    )
    sources: Mapping[str, str] = field(default_factory=dict)  # the data of the further sources, by their names
    parts: Mapping[str, str] = field(default_factory=dict)  # the runs that frozen parts were taken from, by the parts' names
    data_root: DataRoot | None = None
    device: Device = "auto"
    fast: Annotated[
        bool, Help("On a GPU: TF32 and the quickest kernels, or the same bits when resumed.", flags=("--fast/--exact",), default="exact")
    ] = False
    compile: Annotated[bool, Help("Compile the networks first.", flags=("--compile/--no-compile",), default="no-compile")] = False
    sync_batch_norm: Annotated[
        bool, Help("Of several processes: batch norm over all images of a batch, not over each one's share.", flags=("--sync-batch-norm",))
    ] = False
    workers: Annotated[int, Range(0, 256), Help("Threads that prepare batches ahead.")] = 0
    save_every: Annotated[int, Range(1, 10**12), Help("Images between saves.", default="a 10th")] = 100_000
    sample_every: Annotated[int, Range(1, 10**12), Help("Images between grids.", default="a 20th")] = 50_000
    log_every: Annotated[int, Range(1, 10**12), Help("Images between log lines.", default="a 500th")] = 2_000
    keep: Annotated[int, Range(2, 1_000_000), Help("Checkpoints kept, at least 2.")] = 2

    # What may differ when a run is resumed: it changes neither the game nor (the fingerprint sees to that) its data.
    FREE = ("images", "data", "sources", "data_root", "device", "fast", "compile", "workers", "save_every", "sample_every", "keep", "batch")


@dataclass(frozen=True)
class EvaluationConfig:
    """How to look at images that are measured.

    What metrics over single images (KID, PRDC, sharpness, ...) look at is chosen by the seed; a FID's statistics are of all images. `warn`
    and `progress` are called on the first rank only: with a sentence; and with what is being read, images done, images in all.
    """

    number: Annotated[
        int,
        Range(1, 10**12),
        Help("Images drawn from a run, and real ones beside them where single ones are looked at (FID: all).", flags=("-n", "--number")),
    ] = 10_000
    seed: Annotated[Seed, Help("Same seed, same result.", metavar="N")] = 0
    features: Annotated[str, Help("inception, or classifier:RUN with a run of `lgm train classifier`.", metavar="NAME")] = "inception"
    weights: Annotated[Path, Help("Inception weights (.pth or .safetensors).", metavar="FILE", default="downloaded once")] | None = None
    resize: Annotated[Literal["tensorflow", "clean"], Help("For Inception: as published FIDs, or antialiased.")] = "tensorflow"
    precision: Annotated[Precision, Help("Of the features: bf16 is faster, and moves a FID by a little.")] = "fp32"
    batch: Annotated[int, Range(1, 1_000_000), Help("Images a pass. Changes no number.")] = 64
    workers: Annotated[int, Range(0, 256), Help("Threads that decode; 0: one per core. Changes no number.")] = 0
    device: Device = "auto"
    raw: Annotated[bool, Help("Use the weights as trained, not their moving average.")] = False
    data_root: DataRoot | None = None
    background: Colour = (255, 255, 255)  # what transparent pixels lie on
    skip_bad: SkipBad = False
    cached: Annotated[bool, Help("Compute a data set's statistics anew, and do not keep them.", flags=("--no-cache",))] = True
    warn: Callable[[str], None] = lambda message: None
    progress: Callable[[str, int, int], None] = lambda what, done, total: None


# --- checking and reading -----------------------------------------------------------------------------------------------------------------


def check(cls: type[C], values: Mapping[str, Any], where: str) -> C:
    """Build `cls(**values)` after checking every value against its field's annotation.

    `where` names the source of the values in messages ("--set", a file). Values may come from JSON (lists stand for tuples).
    Raises UserError naming the field, the type or range that it must have, and what was given.
    """
    hints = fields_of(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise UserError(f"unknown option {printable(unknown[0], 80)!r}", where, nearest(unknown[0], hints))
    checked = {name: _check_value(hints[name], value, name, f"{where} {name}") for name, value in values.items()}
    try:
        return cls(**checked)
    except TypeError as error:
        raise UserError(f"incomplete configuration ({error})", where, "give the missing fields") from error


def parse_assignments(cls: type, assignments: Sequence[str], where: str = "--set") -> dict[str, Any]:
    """Turn ``["lr=1e-3", "widths=64,128"]`` into typed values for the fields of `cls`. Raises UserError as `check` does."""
    hints = fields_of(cls)
    values: dict[str, Any] = {}
    for text in assignments:
        name, equals, raw = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UserError(f"{printable(text, 80)!r} is not KEY=VALUE", where, f"write it as {where} {name or 'key'}=VALUE")
        if name not in hints:
            raise UserError(f"unknown option {printable(name, 80)!r}", where, nearest(name, hints))
        values[name] = _check_value(hints[name], _from_text(hints[name], raw.strip()), name, f"{where} {name}")
    return values


def parse_flags(cls: type, given: Mapping[str, str | bool]) -> dict[str, Any]:
    """Turn what a command's options say, ``{"images": "60k"}``, into typed values for the fields of `cls`.

    Raises UserError as `check` does, with the flag as its place.
    """
    hints = fields_of(cls)
    values: dict[str, Any] = {}
    for name, said in given.items():
        annotation, flag = present(hints[name]), flags_of(name, hints[name])[0]
        if isinstance(said, bool):
            values[name] = said != flag.startswith("--no-")
        else:
            values[name] = _check_value(annotation, _from_text(annotation, said), name, flag)
    return values


def as_assignments(options: Mapping[str, Any]) -> list[str]:
    """Options as `parse_assignments` takes them: ``{"lr": 1e-3, "widths": (64, 128)}`` -> ``["lr=0.001", "widths=64,128"]``."""

    def text(value: Any) -> str:
        if isinstance(value, (list, tuple)):
            return ",".join(map(text, value))
        return str(value).lower() if isinstance(value, bool) or value is None else str(value)

    return [f"{name}={text(value)}" for name, value in options.items()]


def to_json(config: Any) -> str:
    """One line of JSON with sorted keys; `check(cls, json.loads(text), ...)` gives back an equal object."""
    return json.dumps(dataclasses.asdict(config), sort_keys=True, allow_nan=False)


_FIELDS: dict[type, Mapping[str, Any]] = {}  # what `fields_of` has found: every option asks, and it took a sixth of `lgm --help`


def fields_of(cls: type) -> Mapping[str, Any]:
    """Field name -> resolved annotation, with its `Annotated` extras."""
    if cls not in _FIELDS:
        hints = typing.get_type_hints(cls, include_extras=True)
        _FIELDS[cls] = {f.name: hints[f.name] for f in dataclasses.fields(cls)}
    return _FIELDS[cls]


def present(annotation: Any) -> Any:
    """What a field takes where it is not none: `int | None` -> `int`."""
    if typing.get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    return next(a for a in typing.get_args(annotation) if a is not type(None))


def extra(annotation: Any, kind: type[E]) -> E | None:
    """What an annotation says beside the type: its `Range`, `Text` or `Help`; None where it says nothing of that kind."""
    return next((one for one in getattr(present(annotation), "__metadata__", ()) if isinstance(one, kind)), None)


def flags_of(name: str, annotation: Any) -> tuple[str, ...]:
    """The names of a field on the command line."""
    told = extra(annotation, Help)
    return (told and told.flags) or (f"--{name.replace('_', '-')}",)


def expected(annotation: Any) -> str:
    """What a field takes, in words: ``int, 1 to 4096``, ``one of: gaussian, bernoulli``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        if text := extra(annotation, Text):
            return text.takes
        bounds = extra(annotation, Range)
        return f"{expected(arguments[0])}, {bounds}" if bounds else expected(arguments[0])
    if origin is Literal:
        return f"one of: {', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"a list of {expected(arguments[0])}" if arguments[-1] is Ellipsis else f"{len(arguments)} values: {expected(arguments[0])}"
    if origin in (Union, types.UnionType):
        return " or ".join("none" if a is type(None) else expected(a) for a in arguments)
    return {bool: "true or false", int: "int", float: "float", str: "text", Path: "a path"}.get(annotation, str(annotation))


def _check_value(annotation: Any, value: Any, name: str, where: str, whole: Any = None) -> Any:
    """`value` as `annotation` wants it; `whole` is the field's annotation where `annotation` is a part of it."""
    whole = annotation if whole is None else whole

    def wrong(hint: str = "") -> UserError:
        return UserError(f"{name}={printable(value, 80)} is not allowed", where, f"{name} takes {expected(whole)}{hint}")

    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        value = _check_value(arguments[0], value, name, where, whole)
        bounds = extra(annotation, Range)
        if bounds is None:
            return value
        if value == ():
            raise wrong()  # a list of numbers has at least one
        for number in value if isinstance(value, tuple) else (value,):
            if not bounds.low <= number <= bounds.high:
                raise wrong()
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _check_value(present(annotation), value, name, where, whole)
    if origin is Literal:
        if value not in arguments:
            close = nearest_of(value, map(str, arguments)) if isinstance(value, str) else ""
            raise wrong(f"; did you mean {close!r}?" if close else "")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or (arguments[-1] is not Ellipsis and len(value) != len(arguments)):
            raise wrong()
        return tuple(_check_value(arguments[0], v, name, where, whole) for v in value)
    if annotation is bool and isinstance(value, bool):
        return value
    if annotation is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if annotation is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if annotation is str and isinstance(value, str):
        return value
    if annotation is Path and isinstance(value, (str, Path)):
        return Path(value)
    if isinstance(value, Mapping) and origin is not None:
        return {
            key: _check_value(arguments[1], one, f"{name} {printable(key, 40)}", f"{where} {printable(key, 40)}")
            for key, one in value.items()
        }
    if annotation is Any:
        return value
    raise wrong()


def _from_text(annotation: Any, raw: str) -> Any:
    """`raw` as the value that the annotation hopes for; left as text where it is not one, so that `_check_value` can complain."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        text = extra(annotation, Text)
        return text.read(raw) if text else _from_text(arguments[0], raw)
    if origin in (Union, types.UnionType):
        return None if raw.lower() == "none" else _from_text(present(annotation), raw)
    if origin is tuple:
        return [_from_text(arguments[0], part.strip()) for part in raw.strip("()[]").split(",") if part.strip()]
    if origin is Literal:
        return next((a for a in arguments if str(a) == raw), raw)
    if annotation is bool:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(raw.lower(), raw)
    if annotation is int:
        return parse_count(raw)
    if annotation is float:
        try:
            return float(raw)
        except ValueError:
            return raw
    return raw


def parse_count(raw: str) -> int | str:
    """A whole number, also as ``60k``, ``1.5M``, ``1e6`` or ``1_000``; the text itself where it is none."""
    text = raw.strip().lower().replace("_", "")
    factor = {"k": 10**3, "m": 10**6, "g": 10**9}.get(text[-1:], 1)
    digits = text[:-1] if factor != 1 else text
    try:
        return int(digits) * factor
    except ValueError:
        pass
    try:
        number = float(digits) * factor
    except ValueError:
        return raw
    return int(number) if math.isfinite(number) and number == int(number) else raw
