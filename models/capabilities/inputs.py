"""What a trained model is shown: image files, items of data sets, seeds and arrays, in the model's shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from models.base import DataSpec
from models.capabilities import told
from models.capabilities.told import Words
from models.data import images as pictures
from models.data.clauses import in_shape
from models.data.dataset import DataRequest
from models.data.images import BadImage
from models.data.items import Items
from models.data.load import load, parse, parse_item
from models.data.packed.place import is_shard
from models.errors import UserError, printable
from models.randomness import check_seed

if TYPE_CHECKING:
    from models.capabilities.trained import Trained


class Gathered(NamedTuple):
    """Images (N, H, W, C) uint8, their names, and what they show as the data say; None where these do not say.

    `captions` are for people, short: the class where the data have classes, else the file's name or the item's number.
    """

    names: list[str]
    images: np.ndarray
    truth: Words | None
    captions: list[str]


class Read(NamedTuple):
    """One image (H, W, C) uint8, what it shows where it is an item of data that say so, and its caption."""

    image: np.ndarray
    truth: Any | None
    caption: str


def gather(trained: Trained, sources: Sequence[str], limit: int, data_root: str | None = None, spec: DataSpec | None = None) -> Gathered:
    """Files and items, or the first `limit` images of the one data set or folder that is named; in the shape of the model's leading source,
    or of another one's `spec`."""
    if one_set(sources):
        found = data(trained, sources[0], data_root, spec)
        shown = min(limit, len(found))
        names = list(found.files[:shown]) or [f"{sources[0]}:{n}" for n in range(shown)]
        index = np.arange(shown)
        captions = _classes(found, index) or [short(name) for name in names]
        return Gathered(names, found.rows("image", index), told.truth(trained.model, found, range(shown)), captions)
    images, truths, captions = zip(*read(trained, sources, data_root, spec), strict=True)
    return Gathered(list(sources), np.stack(images), None if None in truths else list(truths), list(captions))


def one_set(sources: Sequence[str]) -> bool:
    """Whether what is named is one data set or folder, and not files or items."""
    return len(sources) == 1 and (is_shard(sources[0]) or not Path(sources[0]).is_file()) and not _is_item(sources[0])


def data(trained: Trained, text: str, data_root: str | None = None, spec: DataSpec | None = None) -> Items:
    """A data set as the model takes it."""
    spec = spec or trained.model.spec
    return load(in_shape(parse(text, **_as_trained(trained, data_root)), spec.size, spec.channels))


def read(trained: Trained, sources: Iterable[str | Path], data_root: str | None = None, spec: DataSpec | None = None) -> Iterator[Read]:
    """Image files and items, one by one."""
    spec = spec or trained.model.spec
    loaded: dict[DataRequest, Items] = {}
    for source in map(str, sources):
        if not _is_item(source):
            yield Read(_file(trained, source, spec), None, short(source))
            continue
        request, index = parse_item(source, **_as_trained(trained, data_root))
        request = in_shape(request, spec.size, spec.channels)
        found = loaded[request] = loaded[request] if request in loaded else load(request)
        if index >= len(found):
            raise UserError(f"item {index} of {len(found)}", source, f"give a number from 0 to {len(found) - 1}")
        truth: Any = told.truth(trained.model, found, [index])
        row = np.array([index])
        caption = (_classes(found, row) or [short(source)])[0]
        yield Read(found.rows("image", row)[0], None if truth is None else truth[0], caption)


def short(source: str) -> str:
    """A source's name as a caption: a file's name, an item's number."""
    return Path(source).stem if Path(source).exists() else source.rpartition(":")[2]


def _classes(data: Items, index: np.ndarray) -> list[str]:
    """The classes' names of some items; empty where the data have none."""
    names = data.fields["label"].names if "label" in data.fields else ()
    return [names[number] for number in data.rows("label", index)] if names else []


def end(trained: Trained, what: str | np.ndarray, data_root: str | None = None) -> tuple[int | np.ndarray, Any | None, str]:
    """A seed, or an image (H, W, C) uint8 of the model's shape with what the data say that it shows, where they do; and its caption."""
    if isinstance(what, np.ndarray):
        return np.asarray(checked(trained, what[None])[0]), None, ""
    text = what.removeprefix("seed:")
    if text.isascii() and text.isdigit() and not Path(what).exists():
        return check_seed(int(text)), None, f"seed {text}"
    [found] = read(trained, [what], data_root)
    return found


def checked(trained: Trained, images: np.ndarray, spec: DataSpec | None = None) -> np.ndarray:
    """`images` themselves. Raises UserError unless they are uint8 (N, H, W, C) of the model's shape (or of `spec`), at least one."""
    spec = spec or trained.model.spec
    wanted = (*spec.size, spec.channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted or not len(images):
        what = f"images are {images.dtype} {images.shape}"
        raise UserError(what, "images", f"give uint8 of shape (N, {', '.join(map(str, wanted))})")
    return images


def _is_item(source: str) -> bool:
    return bool(re.fullmatch(r".+:\d+", source)) and not Path(source).exists()


def _file(trained: Trained, source: str, spec: DataSpec) -> np.ndarray:
    config = trained.header.config
    try:
        decoded = pictures.decode(source, background=config.background)
        fitted = pictures.fit(decoded, spec.size, config.fit, background=config.background)
        return pictures.to_channels(fitted, spec.channels)
    except (BadImage, OSError) as error:
        raise UserError(f"no readable image ({printable(error)})", source, "give an image file, or SET:NUMBER") from error


def _as_trained(trained: Trained, data_root: str | None) -> dict[str, Any]:
    """How the run's own images came; named sets lie as asked, or where the run found them."""
    config = trained.header.config
    root = data_root or config.data_root
    fitting = {"fit": config.fit, "channels": config.channels, "background": config.background, "skip_bad": config.skip_bad}
    return {"root": Path(root) if root else None, **fitting}
