"""Which places hold a packed set, and opening it. No torch here."""

from __future__ import annotations

import os
import re
from pathlib import Path

from models.data.dataset import DataRequest
from models.data.packed import foreign, stores
from models.data.packed import manifest as m
from models.data.packed.read import Packed
from models.errors import UserError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9.-]*://([^\[\]+:]|:\d+/)+")
_BESIDE = (".tar", ".json", ".safetensors", ".txt", ".md", ".csv", ".idx")  # files that lie beside shards
_SPLITS = frozenset({"train", "test", "val", "valid", "validation"})


def is_url(text: str) -> bool:
    return bool(_URL.fullmatch(text))


def is_shard(text: str) -> bool:
    """Whether a path is one tar file."""
    return text.lower().endswith(".tar") and os.path.isfile(os.path.expanduser(text))


def place_of(request: DataRequest) -> str | None:
    """The folder, tar file or URL of the packed set that a request names, in the asked split; None where it names no packed set."""
    if is_url(request.name):
        return request.name if request.split == "train" else f"{request.name.rstrip('/')}/{request.split}"
    if is_shard(request.name):
        if request.split != "train":
            raise UserError("one tar file has no splits", str(request), "put shards into DIR/train and DIR/test, and name DIR")
        return os.path.expanduser(request.name)
    root = Path(request.name).expanduser()
    if request.split == "train" and _holds_shards(root):
        return str(root)
    inside = root / request.split
    if _holds_shards(inside) and (_holds_shards(root) or _only_splits(root)):
        return str(inside)
    if request.split != "train" and _holds_shards(root):
        raise UserError(f"the packed set has no sub-folder {request.split!r}", root, f"pack that split into {inside}")
    return None


def load(place: str, request: DataRequest, checked: bool = True) -> Packed:
    """The packed set at a place. Raises UserError where it is damaged (also in its shards' lengths, if `checked`), or holds no images."""
    if is_shard(place):
        folder = stores.store_of(os.path.dirname(place) or ".")
        return Packed(*foreign.indexed(folder, [os.path.basename(place)], request.skip_bad), request, checked)
    inside = [f"{place.rstrip('/')}/train"] if is_url(place) and request.split == "train" else []
    for where in (place, *inside):  # many stores do not list what they have: ask for the manifest by its name
        store = stores.store_of(where)
        if (told := store.read_if_there(m.NAME)) is not None and not m.of_others(told):
            return Packed(m.Manifest.from_json(told, f"{store.name}/{m.NAME}"), store, request, checked)
    store = stores.store_of(place)
    shards = [name for name in store.names() if name.endswith(".tar")]
    if not shards:
        raise UserError("no shards here", place, "name the folder that holds manifest.json, or tar files")
    return Packed(*foreign.indexed(store, shards, request.skip_bad), request, checked)


def _holds_shards(folder: Path) -> bool:
    """Whether a folder holds a packed set, or shards of others and nothing but what goes with them."""
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
    except OSError:
        return False
    names = {entry.name for entry in entries}
    if m.NAME in names and any(name.endswith(".tar") for name in names) and _is_manifest(folder / m.NAME):
        return True
    beside = all(entry.name.lower() in _SPLITS if entry.is_dir() else entry.name.lower().endswith(_BESIDE) for entry in entries)
    return beside and any(name.endswith(".tar") for name in names)


def _is_manifest(path: Path) -> bool:
    """Whether a file begins as a manifest of ours does; others have files of that name, too."""
    try:
        with open(path, "rb") as file:
            return m.KIND.encode() in file.read(100)
    except OSError:
        return False


def _only_splits(root: Path) -> bool:
    """Whether all sub-folders are splits; files beside them (a README) do not count."""
    try:
        with os.scandir(root) as found:
            return all(entry.name.startswith(".") or entry.name.lower() in _SPLITS for entry in found if entry.is_dir())
    except OSError:
        return False
