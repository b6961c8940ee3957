"""Saved statistics: the moments of one side and the recipe behind them, as one safetensors file. Nothing is ever unpickled.

Tensors: `mean` (D,) and `scatter` (D, D), float64; scatter / (count - 1) is the covariance. Metadata (strings): kind, format, lgm (the
version that wrote it), count, source, recipe (JSON) and digest, a sha256 over the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from models.data.images import atomic_file
from models.errors import UserError, printable
from models.metrics.stats.moments import Moments
from models.version import __version__

KIND, FORMAT = "lgm statistics", 1
_MAKE = "make one with `lgm fid A B --save-stats FILE`"
_AGAIN = "compute it again from its images"
_LISTED = 10


@dataclass(frozen=True)
class Statistics:
    """What a file holds."""

    moments: Moments
    recipe: Mapping[str, Any]  # all that the numbers depend on besides the images
    source: str  # what the images were called
    lgm: str = __version__  # the version that wrote it


def save(statistics: Statistics, path: str | os.PathLike[str]) -> Path:
    """Write a statistics file, so that it is complete under its name or absent. Raises UserError where the disk refuses."""
    path, moments = Path(path), statistics.moments
    tensors = {"mean": moments.mean, "scatter": moments.scatter}
    metadata = {
        "kind": KIND,
        "format": str(FORMAT),
        "lgm": statistics.lgm,
        "count": str(moments.count),
        "source": statistics.source,
        "recipe": json.dumps(statistics.recipe, sort_keys=True, allow_nan=False),
    }
    metadata["digest"] = _digest(metadata, tensors)
    with atomic_file(path) as file:
        file.write(to_bytes(tensors, metadata))
        file.flush()
        os.fsync(file.fileno())
    return path


def read(path: str | os.PathLike[str]) -> Statistics:
    """Read and verify a statistics file.

    Raises UserError where it is missing, of another kind, too new or damaged: every byte counts into the digest.
    """
    path = Path(path)
    file = _open(path)
    metadata = file.metadata() or {}
    if metadata.get("kind") != KIND:
        what = "this is a checkpoint, not a statistics file" if "model" in metadata else "not a statistics file of lgm"
        raise UserError(what, path, _MAKE)
    if metadata.get("format", "?") not in map(str, range(1, FORMAT + 1)):
        writer = f"lgm {printable(metadata.get('lgm', '?'), 40)} in format {printable(metadata.get('format', '?'), 20)}"
        raise UserError(f"written by {writer}, this is lgm {__version__} and reads format {FORMAT}", path, f"upgrade lgm, or {_AGAIN}")
    tensors = _tensors(file, path)
    try:
        recipe, count = json.loads(metadata["recipe"], parse_constant=_refuse_constant), int(metadata["count"])
        source, lgm = metadata["source"], metadata["lgm"]
    except (KeyError, ValueError, RecursionError) as error:
        raise _damaged(path, f"its metadata cannot be read: {type(error).__name__}") from error
    mean, scatter = tensors["mean"], tensors["scatter"]
    problems = {
        "its recipe or count has the wrong form": not isinstance(recipe, dict) or count < 1,
        "its sha256 digest does not match its content": _digest(metadata, tensors) != metadata.get("digest"),
        "a number in it is not finite": not (torch.isfinite(mean).all() and torch.isfinite(scatter).all()),
        "its covariance is not symmetric": not torch.equal(scatter, scatter.T),
        "a variance in it is negative": bool((scatter.diagonal() < 0).any()),
    }
    for problem, found in problems.items():
        if found:
            raise _damaged(path, problem)
    return Statistics(Moments.of(count, mean, scatter), recipe, source, lgm)


def is_statistics(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a statistics file, damaged or not, as far as its header tells. Never raises."""
    try:
        return (_open(Path(path)).metadata() or {}).get("kind") == KIND
    except (UserError, ValueError):  # a NUL in a path is a ValueError
        return False


def compare_recipes(one: Statistics, other: Statistics) -> None:
    """Raises UserError where two sides have different recipes, naming the fields and both values: their numbers cannot be compared."""
    found = differences(one.recipe, other.recipe)
    if found:
        shown = "; ".join(f"{name} is {here} and {there}" for name, here, there in found[:_LISTED])
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        where = f"{printable(one.source, 120)} and {printable(other.source, 120)}"
        raise UserError(f"made by different recipes: {shown}{more}", where, f"use one recipe for both sides, or {_AGAIN}")


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str, str]]:
    """(field, value in `one`, value in `other`) for every field that is not the same in both; ``features.resize`` is a nested one."""
    found: list[tuple[str, str, str]] = []
    for key in sorted({*one, *other}):
        name = f"{prefix}{key}"
        mine, its = one.get(key), other.get(key)
        if isinstance(mine, Mapping) and isinstance(its, Mapping):
            found += differences(mine, its, f"{name}.")
            continue
        # Compared as JSON: a recipe that was saved has lists where it had tuples, and 1 is not true.
        here, there = (json.dumps(side[key], sort_keys=True) if key in side else "absent" for side in (one, other))
        if here != there:
            found.append((printable(name, 80), printable(here, 80), printable(there, 80)))
    return found


def _tensors(file: Any, path: Path) -> dict[str, Tensor]:
    """Both tensors, after their names, types and shapes were checked in the header."""
    try:
        headers = {name: file.get_slice(name) for name in file.keys()}
        shapes = {name: (header.get_dtype(), tuple(header.get_shape())) for name, header in headers.items()}
        dimensions = shapes["mean"][1][0] if "mean" in shapes and shapes["mean"][1] else 0
        if not dimensions or shapes != {"mean": ("F64", (dimensions,)), "scatter": ("F64", (dimensions, dimensions))}:
            raise _damaged(path, f"its tensors are {printable(shapes, 200)}")
        return {name: file.get_tensor(name) for name in shapes}
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, printable(error)) from error


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the metadata (but for the digest itself) and the tensors, both in the order of their names."""
    total = hashlib.sha256()
    for key in sorted(set(metadata) - {"digest"}):
        total.update(f"{key}={metadata[key]}\n".encode())
    for name in sorted(tensors):
        total.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}\n".encode())
        total.update(tensors[name].contiguous().numpy().data)
    return total.hexdigest()


def _open(path: Path) -> Any:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError("not a regular file", path, _MAKE)
        return safe_open(path, framework="pt")
    except FileNotFoundError as error:
        raise UserError("no such file", path, _MAKE) from error
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:  # RuntimeError: torch, where the file cannot be mapped
        _refuse(path, error)


def _refuse(path: Path, error: Exception) -> NoReturn:
    try:
        with open(path, "rb") as file:
            start = file.read(6)
    except (OSError, ValueError):
        start = b""
    if start[:2] == b"PK" or start == b"\x93NUMPY" or start[:1] == b"\x80":
        what = "a numpy or pickle file, not statistics of lgm, and lgm never unpickles"
        raise UserError(what, path, f"{_MAKE}, from the images themselves") from error
    raise _damaged(path, printable(error)) from error


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"incomplete or damaged, or not a statistics file ({reason})", path, _AGAIN)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(constant)
