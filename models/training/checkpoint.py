"""Checkpoints: one self-describing safetensors file each, complete and verified or not there at all. Nothing is ever unpickled.

A file's tensors are `model/*`, `average/*` and `optim/<player>/<parameter>/<slot>`; its metadata (all strings) are listed in `Header`.
Order of a save: write in a private folder, fsync the file, rename, fsync the folder, and only then delete older ones. docs/checkpoints.md
describes the format for readers in other languages.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models import layout
from models.base import DataSpec, Field
from models.config import RunConfig, check, to_json
from models.errors import RunFailed, UserError, printable
from models.version import __version__

T = TypeVar("T")

FORMAT = 2
FOLDER, UNFINISHED = layout.CHECKPOINTS, layout.UNFINISHED


@dataclass(frozen=True)
class PartHeader:
    """What a checkpoint says of a frozen part: enough to build it. Its weights are the model's own, under `parts.NAME.`."""

    model: str
    options: Mapping[str, Any]
    spec: DataSpec
    parts: Mapping[str, PartHeader] = field(default_factory=dict)


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself, without its tensors."""

    model: str
    config: RunConfig
    spec: DataSpec
    images: int  # images seen
    stage: str
    borders: tuple[int, ...]  # images seen at which each stage ends
    scalars: Mapping[str, Any] = field(default_factory=dict)  # the optimizers' numbers and the running sums of the log
    fingerprint: str = ""  # of the data set
    environment: Mapping[str, Any] = field(default_factory=dict)  # torch, device kind, threads, world size
    parts: Mapping[str, PartHeader] = field(default_factory=dict)  # runs that the model is built around
    lgm: str = __version__
    digest: str = ""  # sha256 over the rest of the metadata and all tensors
    path: Path | None = None

    def metadata(self) -> dict[str, str]:
        """The header as safetensors metadata, without the digest."""
        return {
            "format": str(FORMAT),
            "lgm": self.lgm,
            "model": self.model,
            "config": to_json(self.config),
            "spec": json.dumps(dataclasses.asdict(self.spec), sort_keys=True),
            "images": str(self.images),
            "stage": self.stage,
            "borders": json.dumps(self.borders),
            "scalars": json.dumps(self.scalars, sort_keys=True, allow_nan=False),
            "fingerprint": self.fingerprint,
            "environment": json.dumps(self.environment, sort_keys=True),
            "parts": json.dumps({name: dataclasses.asdict(part) for name, part in self.parts.items()}, sort_keys=True),
        }

    def as_part(self) -> PartHeader:
        """This run as a part of another one."""
        return PartHeader(self.model, self.config.options, self.spec, self.parts)


# --- writing --------------------------------------------------------------------------------------------------------------------------


def save(run: Path, header: Header, tensors: Mapping[str, Tensor], keep: int) -> Path:
    """Write the checkpoint of `run`, then delete all but the newest `keep`.

    Raises RunFailed where a tensor is not finite (nothing is written) or where the disk refuses; older checkpoints are untouched then.
    """
    folder = run / FOLDER
    path = write(folder / layout.checkpoint_name(header.images), header, tensors)
    found = numbered(folder)
    try:
        for old in sorted(found, reverse=True)[keep:]:
            found[old].unlink(missing_ok=True)
    except OSError as error:
        raise RunFailed(f"an older checkpoint could not be deleted ({error.strerror})", folder, "check the folder's permissions") from error
    return path


def write(path: Path, header: Header, tensors: Mapping[str, Tensor]) -> Path:
    """Write one checkpoint file so that it is complete under its name or absent. Raises RunFailed as `save` does."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    for name, tensor in plain.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise RunFailed(f"{name} is not finite at {header.images:,} images, so no checkpoint is written", path, _LOWER)
    metadata = header.metadata()
    metadata["digest"] = digest(metadata, plain)
    unfinished = path.parent / UNFINISHED / path.name
    try:
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        save_file(plain, unfinished, metadata)
        _fsync(unfinished)
        os.replace(unfinished, path)
        _fsync(path.parent)
    except (OSError, SafetensorError) as error:
        sweep(path.parent)
        raise RunFailed(f"the checkpoint could not be written ({printable(error)})", path, _space(path.parent, plain)) from error
    except BaseException:
        sweep(path.parent)
        raise
    return path


def sweep(folder: Path) -> None:
    """Remove what an unfinished save has left (also safetensors' own hidden temporary files)."""
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def set_aside(folder: Path, images: int) -> None:
    """Keep damaged checkpoints beyond `images` for inspection, as `NAME.damaged`: a resumed run would write over them, or delete them."""
    for number, path in numbered(folder).items():
        if number > images and not _intact(path):
            os.replace(path, path.with_name(f"{path.name}.damaged"))


def digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the metadata (but for the digest itself) and the tensors, both in the order of their names."""
    total = hashlib.sha256()
    for key in sorted(metadata):
        if key != "digest":
            total.update(f"{key}={metadata[key]}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


# --- finding --------------------------------------------------------------------------------------------------------------------------


def numbered(folder: Path) -> dict[int, Path]:
    """Images seen -> checkpoint file, for everything in `folder` that is named like one; strangers are left alone."""
    try:
        found = list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UserError(f"cannot look into this folder ({error.strerror})", folder, "change its permissions, or choose another") from error
    return {images: path for path in found if (images := layout.images_of(path)) is not None and path.is_file()}


def locate(run_or_file: str | os.PathLike[str]) -> Path:
    """The checkpoint that a user means: the file itself, or the newest of a run folder. Raises UserError where there is none."""
    path = Path(run_or_file)
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        raise UserError("no such run or checkpoint", path, "give the folder that `lgm train` wrote, or a checkpoint file") from error
    if stat.S_ISREG(kind):
        return path
    if not stat.S_ISDIR(kind):
        raise UserError("not a regular file", path, "give the folder that `lgm train` wrote, or a checkpoint file")
    found = numbered(path / FOLDER) or numbered(path)
    if not found:
        raise UserError("no checkpoint in this folder", path, "give a folder that `lgm train` wrote and that has a checkpoints/images-*")
    return found[max(found)]


def of_newest(run_or_file: str | os.PathLike[str], read: Callable[[Path], T]) -> T:
    """What `read` makes of the checkpoint that a user means; of a newer one, where a trainer deletes that while it is read."""
    for attempt in range(3):
        path = locate(run_or_file)
        try:
            return read(path)
        except UserError:
            if path.exists() or attempt == 2:
                raise
    raise AssertionError


# --- reading --------------------------------------------------------------------------------------------------------------------------


def read_header(path: Path) -> Header:
    """The header of a checkpoint file; the tensors are not touched. Raises UserError where the file is damaged, foreign or too new."""
    metadata = _open(path).metadata() or {}
    if "format" not in metadata or "model" not in metadata:
        raise UserError("not an lgm checkpoint", path, "give a file that `lgm train` wrote")
    if metadata["format"] not in map(str, range(1, FORMAT + 1)):
        writer = f"lgm {printable(metadata.get('lgm', '?'), 40)} in format {printable(metadata['format'], 20)}"
        raise UserError(f"written by {writer}, this is lgm {__version__} and reads format {FORMAT}", path, "upgrade lgm")
    try:
        values = {key: _json(metadata[key]) for key in ("config", "spec", "borders", "scalars", "environment")}
        values |= {"parts": {}} if metadata["format"] == "1" else {"parts": _json(metadata["parts"])}
        if metadata["format"] == "1":
            values |= {"config": _config_of_format_1(values["config"]), "spec": _spec_of_format_1(values["spec"])}
        images = int(metadata["images"])
        borders = tuple(int(b) for b in values["borders"])
        texts = {key: metadata[key] for key in ("model", "stage", "fingerprint", "lgm", "digest")}
        valid = all(isinstance(values[key], dict) for key in ("config", "spec", "scalars", "environment", "parts"))
        valid = valid and images >= 0 and len(borders) > 0
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _damaged(path, f"its metadata cannot be read: {type(error).__name__}") from error
    if not valid:
        raise _damaged(path, "its metadata have the wrong form")
    return Header(
        config=check(RunConfig, values["config"], f"{printable(path)}: config"),
        spec=_spec(values["spec"], path),
        images=images,
        borders=borders,
        scalars=values["scalars"],
        environment=values["environment"],
        parts={name: _part(part, path) for name, part in values["parts"].items()},
        path=path,
        **texts,
    )


def check_belongs(header: Header, run: Path) -> None:
    """Raises UserError where a checkpoint is of another model than the run in whose folder it was found, as the run's config.json says.

    Where `run` is no folder or its config.json cannot be read, nothing speaks against the checkpoint.
    """
    try:
        recorded = json.loads((run / layout.CONFIG).read_text())
        name, options = recorded["model"], dict(recorded["options"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    mine = json.loads(to_json(header.config))["options"]
    differ = [key for key in sorted(mine.keys() & options.keys()) if mine[key] != options[key]]
    if name != header.model:
        what = f"a checkpoint of {printable(header.model, 80)} in a run of {printable(name, 80)}"
    elif differ:
        here, there = (", ".join(f"{key} {values[key]}" for key in differ) for values in (mine, options))
        what = f"a checkpoint of {header.model} with {printable(here)} in a run with {printable(there)}"
    else:
        return
    raise UserError(what, header.path or "", f"move it out of the run; if it was {run / 'config.json'} that was edited, delete that")


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor, from the file's header alone."""
    file = _open(path)
    return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors, after the digest was verified. Raises UserError where it does not match or a weight is not finite."""
    file = _open(path)
    metadata = file.metadata() or {}
    try:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, printable(error)) from error
    if digest(metadata, tensors) != metadata.get("digest"):
        raise _damaged(path, "its sha256 digest does not match its content")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"the tensor {printable(name)} is not finite", path, "use an earlier checkpoint of the run")
    return tensors


def newest_valid(run: Path) -> tuple[Header, dict[str, Tensor], list[str]]:
    """The newest checkpoint of a run that is intact, and a message about each newer one that is not.

    Raises UserError listing every file with its reason where none is intact.
    """
    reasons: list[str] = []
    found = numbered(run / FOLDER)
    for images in sorted(found, reverse=True):
        try:
            return read_header(found[images]), read_tensors(found[images]), reasons
        except UserError as error:
            reasons.append(f"{error.what}: {error.where}")
    raise UserError("no intact checkpoint" + "".join(f"\n  {r}" for r in reasons), run, "start anew with `lgm train MODEL --data DATA`")


def match(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Compare tensor names and shapes. Raises UserError with both sides' lists (at most 10 names each)."""
    missing = sorted(set(expected) - set(found))
    extra = sorted(set(found) - set(expected))
    wrong = sorted(n for n in set(expected) & set(found) if tuple(expected[n]) != tuple(found[n]))
    if missing or extra or wrong:
        parts = [
            *([f"missing {_names(missing)}"] if missing else []),
            *([f"unexpected {_names(extra)}"] if extra else []),
            *([f"shaped differently {_names([f'{n} {found[n]} instead of {expected[n]}' for n in wrong])}"] if wrong else []),
        ]
        raise UserError(f"the tensors do not fit the model: {'; '.join(parts)}", path, "use the lgm version that wrote the file")


def load_state(module: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a module's parameters and buffers; their memory format stays as it is. Raises UserError where a shape differs."""
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name not in tensors or tensors[name].shape != value.shape:
                found = tuple(tensors[name].shape) if name in tensors else "missing"
                what = f"a tensor does not fit the model ({found} instead of {tuple(value.shape)})"
                raise UserError(what, printable(name, 120), "use another checkpoint")
            value.copy_(tensors[name])


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of tensors at hand."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def part(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The entries under `prefix/`, without the prefix."""
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + "/")}


_LOWER = "lower the learning rate, or use --precision fp32; the last checkpoint is intact"


def _open(path: Path) -> Any:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError("not a regular file", path, "give a checkpoint file")
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError, ValueError, UnicodeDecodeError, RuntimeError) as error:
        if not os.path.exists(path):  # or deleted meanwhile: safetensors opens it, then torch maps it by name and raises RuntimeError
            raise UserError("no such checkpoint", path, "look into the run's checkpoints/ folder") from error
        _refuse(path, error)


def _refuse(path: Path, error: Exception) -> NoReturn:
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(-1, os.SEEK_END)
            last = file.read(1)
    except OSError:
        start = last = b""
    old_pickle = start[:1] in (b"(", b"]", b"}", b"c") and last == b"."  # protocols 0 and 1 have no mark of their own
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or old_pickle:
        raise UserError("this is a pickle, and lgm never unpickles", path, "give a safetensors checkpoint that lgm wrote") from error
    raise _damaged(path, printable(error)) from error


def _damaged(path: Path, reason: str) -> UserError:
    others = numbered(path.parent)
    newest = max((n for n, p in others.items() if p != path and _intact(p)), default=None)
    fix = f"use {others[newest].name}, the newest intact one" if newest is not None else "there is no other intact checkpoint beside it"
    return UserError(f"incomplete or damaged ({reason})", path, fix)


def _intact(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return digest(metadata, {name: file.get_tensor(name) for name in file.keys()}) == metadata.get("digest")
    except Exception:  # whatever is wrong with it, it is not intact
        return False


def _part(values: Any, path: Path) -> PartHeader:
    try:
        found = PartHeader(
            model=str(values["model"]),
            options=dict(values["options"]),
            spec=_spec(values["spec"], path),
            parts={name: _part(part, path) for name, part in values["parts"].items()},
        )
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its parts cannot be read: {type(error).__name__}") from error
    return found


_KINDS = {"image": "image", "target": "image", "label": "number", "identity": "number", "attributes": "flags", "factors": "vector"}


def _spec(values: Any, path: Path, leading: bool = True) -> DataSpec:
    """A data spec from its JSON; its fields must be such as data can have."""
    where = f"{printable(path)}: spec"
    if not isinstance(values, dict) or set(values) != {"fields", "others"} or not all(isinstance(v, dict) for v in values.values()):
        raise _damaged(path, "its spec has the wrong form")
    fields = {}
    for name, field_values in values["fields"].items():
        if not isinstance(field_values, dict):
            raise _damaged(path, "its spec has the wrong form")
        described = fields[name] = check(Field, field_values, where)
        if _KINDS.get(name, described.kind) != described.kind:
            raise _damaged(path, f"{name} is a {described.kind}")
        sides = 16384 if described.kind in ("image", "clip") else 2**24
        if not all(1 <= side <= sides for side in described.shape) or not 0 <= described.count <= 2**31:
            raise _damaged(path, f"{printable(name, 40)} of shape {described.shape}")
        if described.kind == "image" and (len(described.shape) != 3 or described.shape[0] not in (1, 3)):
            raise _damaged(path, f"images of shape {described.shape}")
        if described.kind == "number" and described.names and len(described.names) != described.count:
            raise _damaged(path, f"{len(described.names)} names for {described.count} kinds of {printable(name, 40)}")
    if "image" not in fields:
        raise _damaged(path, "its spec tells of no image")
    if values["others"] and not leading:
        raise _damaged(path, "a source within a source")
    return DataSpec(fields, {name: _spec(other, path, leading=False) for name, other in values["others"].items()})


def _spec_of_format_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """Before there were fields, a spec was the sizes of an image and the names of the labels."""
    known: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return dataclasses.asdict(DataSpec.of_images(**known))


def _config_of_format_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """A first stage taken from another run had become the model's own; nothing points to that run any more."""
    return {key: value for key, value in values.items() if key != "base"}


def _json(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def _names(names: list[str]) -> str:
    return ", ".join(printable(n, 120) for n in names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _space(folder: Path, tensors: Mapping[str, Tensor]) -> str:
    needed = sum(t.numel() * t.element_size() for t in tensors.values())
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return f"needs {needed / 2**20:.1f} MiB; check the folder"
    return f"needs {needed / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are free; make room, the next save tries again"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
