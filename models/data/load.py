"""From what a user typed to a data set: `parse`, `load`, and what `lgm data` shows about it. No torch here.

Sets are made of others in the same words everywhere, on the command line and in Python: ``mnist:test`` is a split,
``mnist[label=0,1;first=500]`` some items of a set, or a set with more to its items (see `models.data.clauses`), ``mnist+kmnist`` one set
behind the other.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from models.data import clauses
from models.data.dataset import SPLITS, DataRequest, ImageData
from models.data.folder import Report, allocate, check_folder, list_folder, load_folder
from models.data.images import FITS, BadImage, fit, to_channels
from models.data.items import Items, Joined
from models.data.kept import kept
from models.data.packed.check import check as check_packed
from models.data.packed.place import is_shard, is_url, place_of
from models.data.packed.place import load as packed
from models.data.packed.write import Source, of_folder, of_items
from models.errors import UserError, nearest, printable
from models.registry import SETS

MAX_SIZE = 4096  # pixels a side; a typing mistake beyond that would ask for terabytes


def parse(text: str, **request_fields: Any) -> DataRequest:
    """The request for `mnist`, `mnist:test`, `path/to/folder`, `path/to/folder:test`, any of them with `[clauses]` behind it, and several
    with `+` between; `request_fields` are DataRequest's others.

    A name without a slash that a data set has means the data set; write `./mnist` for a folder of that name. A folder whose own name has
    brackets or a plus is that folder. Raises UserError where a name is neither, with the nearest match, and where a field is out of range.
    """
    first, *rest = [_parse_term(term, request_fields) for term in _terms(str(text))]
    return replace(first, joined=tuple(rest))


def _head(text: str) -> int:
    """How much of the beginning of `text` is the path of a folder: in such a path, brackets and pluses mean nothing."""
    ends = [end for end, letter in enumerate(text) if letter in "[+:"]
    return max((end for end in (*ends, len(text)) if _is_place(text[:end])), default=0)


def _terms(text: str) -> list[str]:
    """`text` cut at every + that stands neither in brackets nor in the path of a folder."""
    start, depth = 0, 0
    for end in range(_head(text), len(text)):
        depth += {"[": 1, "]": -1}.get(text[end], 0)
        if text[end] == "+" and depth == 0:
            return [text[start:end], *_terms(text[end + 1 :])]
    return [text]


def _parse_term(text: str, request_fields: dict[str, Any]) -> DataRequest:
    """One set with its clauses."""
    bracket = text.find("[", _head(text))
    if bracket < 0 or not text.endswith("]"):
        return _parse_one(text, **request_fields)
    found = _parse_one(text[:bracket], **request_fields)
    return replace(found, clauses=clauses.parse(text[bracket + 1 : -1], text))


def settled(request: DataRequest) -> DataRequest:
    """The same request, so that it means the same from any working directory: paths become absolute."""

    def one(request: DataRequest) -> DataRequest:
        return (
            request
            if _canonical(request.name) or is_url(request.name)
            else replace(request, name=os.path.abspath(os.path.expanduser(request.name)))
        )

    return request.each(one)


def named_sets(text: str) -> tuple[str, ...]:
    """The sets that a settled text is made of, in order: those with a name as they are asked for, and "" for one or several folders between
    them, which need not be there any more."""
    found = [term if _canonical(term.partition("[")[0].partition(":")[0]) else "" for term in _terms(text)]
    return tuple(term for term, before in zip(found, [None, *found]) if term or before != "")


def _parse_one(text: str, **request_fields: Any) -> DataRequest:
    name, colon, split = text.rpartition(":")
    if not colon or not name or _is_place(text):
        name, split = text, request_fields.pop("split", "train")
    request_fields.pop("split", None)
    known = _canonical(name)
    if known is None and not _is_place(name):
        if _canonical(text) is None and not os.path.exists(name) and not _looks_like_path(name):
            hint = nearest(name, SETS.entries())
            raise UserError(
                "neither a data set nor a folder", name or "(empty)", f"{hint} (see `lgm data`), or the path of a folder of images"
            )
        what = "a file, not a folder of images" if os.path.isfile(name) else "no such folder"
        what = "not the address of a store" if "://" in name else what
        raise UserError(what, name, f"name an existing folder of images, or a data set: {', '.join(sorted(SETS.entries()))}")
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}", f"--data {printable(text)}", nearest(split, SPLITS))
    return _checked(DataRequest(name=known or name, split=split, **request_fields))


def parse_item(text: str, **request_fields: Any) -> tuple[DataRequest, int]:
    """The request and the index of one image: `mnist:17`, `mnist:test:17`, `path/to/folder:17`. Raises UserError where it is not one."""
    name, colon, index = str(text).rpartition(":")
    if not colon or not name or not (index.isascii() and index.isdigit()) or len(index) > 12:
        raise UserError(
            "not one image of a data set", text, "write SET:NUMBER or SET:test:NUMBER, such as mnist:test:17; numbers start at 0"
        )
    return parse(name, **request_fields), int(index)


def load(request: DataRequest) -> Items:
    """What `request` asks for, decoded, in the asked size and channels. Raises UserError."""
    sets = [clauses.applied(_checked(one), _load_plain, load) for one in (replace(request, joined=()), *request.joined)]
    return sets[0] if len(sets) == 1 else Joined(sets, str(request))


def _load_plain(request: DataRequest) -> Items:
    """A set itself, without clauses."""
    known = _canonical(request.name)
    if known is None and (place := place_of(request)) is not None:
        return packed(place, request)
    if known is None:
        return kept(request, lambda: _files_of(request), lambda: load_folder(request))
    module = SETS.find(known).module()
    asked = replace(request, name=known)

    def made() -> ImageData:
        return _shaped(module.load(asked), request)

    if not hasattr(module, "made_from"):  # reading it is fast
        return made()
    return kept(asked, lambda: module.made_from(asked), made, Path(str(module.__file__)))


def _files_of(request: DataRequest) -> list[str]:
    """What decides which images a folder gives."""
    listing = list_folder(request)
    return [str(listing.root), *listing.paths()]


def source_to_pack(request: DataRequest, raw: bool) -> Source:
    """What `models.data.packed.write.pack` packs: a folder's files as they are, where neither their pixels nor a size were asked for.

    Raises UserError, also while the source is gone through.
    """
    _checked(request)
    table = request.clauses[0][1] if len(request.clauses) == 1 and request.clauses[0][0] == "labels" and not request.joined else ""
    a_folder = _canonical(request.name) is None and (table or request == request.plain) and place_of(request) is None
    if a_folder and (raw or (request.size is None and request.channels == "auto")):
        return of_folder(request.plain, raw, table)
    return of_items(load(request), raw)


def check(request: DataRequest) -> Report:
    """Decode everything and report on it: a folder's bad files are all in the report and raise nothing.

    Raises UserError where there is nothing to look at, and where a named set's own files are absent or damaged.
    """
    _checked(request)
    if _canonical(request.name) is None and request == request.plain:
        place = place_of(request)
        return check_folder(request) if place is None else check_packed(packed(place, replace(request, skip_bad=True), checked=False))
    data = load(request.everywhere(skip_bad=True))
    channels, height, width = data.fields["image"].shape
    count = len(data)
    return Report(
        name=data.name,
        count=count,
        shape=(height, width, channels),
        classes=data.fields["label"].names if "label" in data.fields else (),
        bad=data.bad,
        notes=data.notes,
        modes={"L" if channels == 1 else "RGB": count},
        sizes={f"{width}x{height}": count},
        frames={1: count},
    )


def describe(data: Items) -> dict[str, Any]:
    """What `lgm data info NAME` shows, as JSON-able values. Reads all pixels once, for the fingerprint, of sets that are in memory."""
    channels, height, width = data.fields["image"].shape
    found: dict[str, Any] = {
        "name": printable(data.name),
        "count": len(data),
        "height": height,
        "width": width,
        "channels": channels,
        "classes": None,
        "attributes": None,
        "factors": None,
        "identities": None,
        "fingerprint": data.fingerprint(),
        "notes": [printable(note) for note in data.notes],
        "bad": [{"file": printable(path), "reason": printable(reason)} for path, reason in data.bad],
    }
    if field := data.fields.get("label"):
        counts = np.bincount(data.all("label"), minlength=field.count)
        names = field.names or tuple(str(i) for i in range(len(counts)))
        found["classes"] = [{"name": name, "count": int(n)} for name, n in zip(names, counts)]
    if field := data.fields.get("attributes"):
        found["attributes"] = {name: round(float(share), 4) for name, share in zip(field.names, data.all("attributes").mean(axis=0))}
    if field := data.fields.get("factors"):
        values = data.all("factors")
        found["factors"] = {name: [float(low), float(high)] for name, low, high in zip(field.names, values.min(axis=0), values.max(axis=0))}
    if "identity" in data.fields:
        found["identities"] = len(np.unique(data.all("identity")))
    for key, field in data.fields.items():
        if key not in ("image", "label", "attributes", "factors", "identity"):
            found[key] = f"{field.kind} of shape {field.shape}" if field.shape else field.kind
    return found


def _shaped(data: ImageData, request: DataRequest) -> ImageData:
    """`data` in the asked size and channels, for sets that come in their own."""
    count, height, width, channels = data.images.shape
    size = request.size or (height, width)
    wanted = channels if request.channels == "auto" else int(request.channels)
    if (size, wanted) == ((height, width), channels):
        return data
    out = allocate((count, *size, wanted))
    for i, image in enumerate(data.images):
        try:
            out[i] = to_channels(fit(image, size, request.fit, background=request.background), wanted)
        except BadImage as error:  # only an extreme --size can do this to a set, and then to every image of it
            raise UserError(str(error), "--size", "choose another --size, or --fit pad") from error
    return data.replace(images=out)


def _checked(request: DataRequest) -> DataRequest:
    """`request` itself, after a look at every field whose value may come from a user. Raises UserError naming the flag."""
    if request.split not in SPLITS:
        raise UserError(f"unknown split {request.split!r}", "split", nearest(str(request.split), SPLITS))
    if request.fit not in FITS:
        raise UserError(f"unknown way to fit images {request.fit!r}", "--fit", nearest(str(request.fit), FITS))
    if request.channels not in ("auto", "1", "3"):
        raise UserError(f"{request.channels!r} channels", "--channels", "choose auto, 1 or 3")
    if request.size is not None and not (len(request.size) == 2 and all(1 <= side <= MAX_SIZE for side in request.size)):
        raise UserError(f"size {request.size} is out of range", "--size", f"height and width from 1 to {MAX_SIZE}")
    if len(request.background) != 3 or not all(0 <= value <= 255 for value in request.background):
        raise UserError(f"background {request.background} is not a colour", "--background", "three values from 0 to 255")
    if request.workers < 0:
        raise UserError(f"{request.workers} workers", "--workers", "0 (one per core) or more")
    return request


def _canonical(name: str) -> str | None:
    """The registry's spelling of a set's name (fashion_mnist -> fashion-mnist), or None."""
    spelled = name.replace("_", "-")
    return spelled if spelled in SETS.entries() else None


def _is_place(name: str) -> bool:
    """Whether a name is a folder, a tar file of images, or the address of a store."""
    try:
        return bool(name) and (is_url(name) or is_shard(name) or Path(name).expanduser().is_dir())
    except (OSError, ValueError, RuntimeError):  # a name too long, with a NUL, or of an unknown user (~nobody)
        return False


def _looks_like_path(name: str) -> bool:
    return name.startswith(("~", ".")) or os.sep in name or "/" in name
