"""Configurations: frozen dataclasses, checked against their annotations, JSON-able. No torch here.

A field's annotation is its contract: the type, `Annotated[int, Range(1, 4096)]` for a number's range, `Literal[...]` for a choice.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, Union

from models.errors import UserError, nearest, printable

C = TypeVar("C")


@dataclass(frozen=True)
class Range:
    """Inclusive bounds of a number."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Preset:
    """A named starting point of a model: how long to train, and which options differ from the Config's defaults."""

    images: int
    batch: int = 128
    options: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""


Seed = Annotated[int, Range(0, 2**64 - 1)]


@dataclass(frozen=True)
class RunConfig:
    """The complete record of a training run: what is trained, on what, for how long, and how it is watched."""

    model: str
    data: str  # the leading source's
    options: Mapping[str, Any] = field(default_factory=dict)  # the model's own Config
    preset: str = "default"
    images: Annotated[int, Range(1, 10**12)] = 1_000_000
    batch: Annotated[int, Range(1, 1_000_000)] = 128
    seed: Seed = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    size: tuple[int, int] | None = None  # (height, width)
    fit: Literal["crop", "pad", "stretch"] = "crop"
    channels: Literal["auto", "1", "3"] = "auto"
    background: tuple[int, int, int] = (255, 255, 255)
    skip_bad: bool = False
    average_images: Annotated[int, Range(0, 10**12)] = 50_000  # half-life of the moving average in images; 0: no averaging
    sources: Mapping[str, str] = field(default_factory=dict)  # the data of the further sources, by their names
    parts: Mapping[str, str] = field(default_factory=dict)  # the runs that frozen parts were taken from, by the parts' names
    data_root: str | None = None
    device: str = "auto"
    compile: bool = False
    workers: Annotated[int, Range(0, 256)] = 0
    save_every: Annotated[int, Range(1, 10**12)] = 100_000
    sample_every: Annotated[int, Range(1, 10**12)] = 50_000
    log_every: Annotated[int, Range(1, 10**12)] = 2_000
    keep: Annotated[int, Range(2, 1_000_000)] = 2

    # What may differ when a run is resumed: it changes neither the game nor (the fingerprint sees to that) its data.
    FREE = ("images", "data", "sources", "data_root", "device", "compile", "workers", "save_every", "sample_every", "keep", "batch")


def check(cls: type[C], values: Mapping[str, Any], where: str) -> C:
    """Build `cls(**values)` after checking every value against its field's annotation.

    `where` names the source of the values in messages ("--set", a file). Values may come from JSON (lists stand for tuples).
    Raises UserError naming the field, the type or range that it must have, and what was given.
    """
    hints = fields_of(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise UserError(f"unknown option {printable(unknown[0], 80)!r}", where, nearest(unknown[0], hints))
    checked = {name: _check_value(hints[name], value, name, where) for name, value in values.items()}
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
        values[name] = _check_value(hints[name], _from_text(hints[name], raw.strip()), name, where)
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


def fields_of(cls: type) -> dict[str, Any]:
    """Field name -> resolved annotation, with its `Annotated` extras."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def expected(annotation: Any) -> str:
    """What a field takes, in words: ``int, 1 to 4096``, ``one of: gaussian, bernoulli``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return f"{expected(arguments[0])}, {arguments[1]}"
    if origin is Literal:
        return f"one of: {', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"a list of {expected(arguments[0])}" if arguments[-1] is Ellipsis else f"{len(arguments)} values: {expected(arguments[0])}"
    if origin in (Union, types.UnionType):
        return " or ".join("none" if a is type(None) else expected(a) for a in arguments)
    return {bool: "true or false", int: "int", float: "float", str: "text"}.get(annotation, str(annotation))


def _check_value(annotation: Any, value: Any, name: str, where: str, whole: Any = None) -> Any:
    """`value` as `annotation` wants it; `whole` is the field's annotation where `annotation` is a part of it."""
    whole = annotation if whole is None else whole

    def wrong() -> UserError:
        return UserError(f"{name}={printable(value, 80)} is not allowed", f"{where} {name}", f"{name} takes {expected(whole)}")

    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        value = _check_value(arguments[0], value, name, where, whole)
        bounds = arguments[1]
        if value == ():
            raise wrong()  # a list of numbers has at least one
        for number in value if isinstance(value, tuple) else (value,):
            if not bounds.low <= number <= bounds.high:
                raise wrong()
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _check_value(next(a for a in arguments if a is not type(None)), value, name, where, whole)
    if origin is Literal:
        if value not in arguments:
            raise wrong()
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
    if isinstance(value, Mapping) and origin is not None:
        return {key: _check_value(arguments[1], one, f"{name} {printable(key, 40)}", where) for key, one in value.items()}
    if annotation is Any:
        return value
    raise wrong()


def _from_text(annotation: Any, raw: str) -> Any:
    """`raw` as the value that the annotation hopes for; left as text where it is not one, so that `_check_value` can complain."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _from_text(arguments[0], raw)
    if origin in (Union, types.UnionType):
        return None if raw.lower() == "none" else _from_text(next(a for a in arguments if a is not type(None)), raw)
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
