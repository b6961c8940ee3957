"""Faces of celebrities: 162,770 + 19,962 aligned colour images (64x64 here), 40 attributes, identities.

Source: Liu, Luo, Wang, Tang, "Deep Learning Face Attributes in the Wild" (2015), CUHK. Licence: non-commercial research only.
Layout: torchvision's, `celeba/img_align_celeba/*.jpg` and `celeba/list_*.txt` under the data root; fetched (Google Drive) where absent.
The usual crop: the centre 148x148 of 178x218, in proportion to the width, then resized to 64x64 or --size. A copy with only some of the
images, or at another scale, works as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.data.dataset import DataRequest, ImageData
from models.data.download import absent, data_root, get, torchvision_files, unpack_folder
from models.data.folder import allocate, decode_all, skipped_note, without_bad
from models.data.images import fit, to_channels
from models.errors import UserError

IMAGES, ATTRIBUTES, IDENTITIES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "identity_CelebA.txt", "list_eval_partition.txt"
PARTITIONS = {"train": 0, "test": 2}  # 1 is the validation part
OFFICIAL = {"train": 162_770, "test": 19_962}
CROP = 148 / 178  # of the width


def made_from(request: DataRequest) -> list[str]:
    """The files that decide what `load` gives."""
    folder = _folder(request)
    tables = [str(folder / name) for name in (PARTITION, ATTRIBUTES, IDENTITIES)]
    return [*tables, *(str(folder / IMAGES / name) for name in _names(folder, request))]


def load(request: DataRequest) -> ImageData:
    """uint8 (N, 64, 64, 3) or --size, with attributes (N, 40) in {0, 1} and identities where their files are there.

    Raises UserError where files are absent or damaged, or where a partial copy has no image of the asked split.
    """
    folder = _folder(request)
    names = _names(folder, request)
    paths = [str(folder / IMAGES / name) for name in names]
    size, channels = request.size or (64, 64), 1 if request.channels == "1" else 3
    images = allocate((len(paths), *size, channels))

    def finish(array: np.ndarray) -> np.ndarray:
        height, width = array.shape[:2]
        side = min(round(width * CROP), height)
        left, top = (width - side) / 2, (height - side) / 2
        face = fit(array, size, request.fit, background=request.background, region=(left, top, left + side, top + side))
        return to_channels(face, channels)

    outcomes = decode_all(paths, images, request, finish)
    images, kept, bad = without_bad(images, paths, outcomes, request)
    names = [names[i] for i in kept]
    notes = skipped_note(bad)
    if len(names) < OFFICIAL[request.split]:
        notes.append(f"a partial copy: {len(names):,} of {OFFICIAL[request.split]:,} images are here")
    attribute_names, attributes = _attributes(folder / ATTRIBUTES, names, notes)
    return ImageData(
        name=str(request),
        images=images,
        attributes=attributes,
        attribute_names=attribute_names,
        identities=_identities(folder / IDENTITIES, names, notes),
        files=tuple(paths[i] for i in kept),
        notes=tuple(notes),
        bad=bad,
    )


def _folder(request: DataRequest) -> Path:
    """The folder with the images and lists, after fetching them where they are absent."""
    wanted = [f"celeba/{IMAGES}/*.jpg", *(f"celeba/{name}" for name in (PARTITION, ATTRIBUTES, IDENTITIES))]
    candidates = [data_root(request) / "celeba", data_root(request)]
    here = next((c for c in candidates if (c / IMAGES).is_dir()), None)
    if here is None:
        get(request, _fetch, wanted)
        here = candidates[0]
        if not (here / IMAGES).is_dir():
            raise absent(request, "the download ended, but the images are still not there", wanted)
    return here


def _fetch(root: Path) -> None:
    """The images come last and all at once: where their folder is, everything is."""
    folder = root / "celeba"
    torchvision_files("CelebA", folder)
    unpack_folder(folder / f"{IMAGES}.zip", IMAGES, folder)


def _names(folder: Path, request: DataRequest) -> list[str]:
    """File names of the asked split, of the images that are here, sorted."""
    if not (folder / PARTITION).is_file():
        fix = "copy it from the data set's page: it says which images are for training"
        raise UserError(f"CelebA's {PARTITION} is not there", folder / PARTITION, fix)
    here = {path.name for path in (folder / IMAGES).iterdir()}
    listed = [name for name, part in _rows(folder / PARTITION, 1) if part == [PARTITIONS[request.split]]]
    names = sorted(name for name in listed if name in here)
    if not names:
        what = f"none of this copy's {len(here):,} images is in the {request.split} part ({len(listed):,} rows of the partition file are)"
        raise UserError(what, folder / PARTITION, "use the other split, or get the missing images")
    return names


def _attributes(path: Path, names: list[str], notes: list[str]) -> tuple[tuple[str, ...], np.ndarray | None]:
    """Names (A,) and values uint8 (N, A) of the attributes: the file's -1 and 1 become 0 and 1."""
    if not path.is_file():
        notes.append(f"no attributes: {path.name} is not there")
        return (), None
    with open(path, encoding="utf-8", errors="replace") as file:
        file.readline()  # the number of rows
        titles = tuple(file.readline().split())
    values = {name: row for name, row in _rows(path, len(titles), skip=2)}
    table = np.array([_row_of(values, name, path) for name in names], np.int64)
    if not titles or not np.isin(table, (-1, 0, 1)).all():
        raise UserError("CelebA's attributes must be -1 or 1 under a line of names", path, "copy the original file there")
    return titles, (table > 0).astype(np.uint8)


def _identities(path: Path, names: list[str], notes: list[str]) -> np.ndarray | None:
    """int64 (N,): CelebA's own numbers of the people."""
    if not path.is_file():
        notes.append(f"no identities: {path.name} is not there")
        return None
    values = {name: row for name, row in _rows(path, 1)}
    return np.array([_row_of(values, name, path)[0] for name in names], np.int64)


def _row_of(values: dict[str, list[int]], name: str, path: Path) -> list[int]:
    if name not in values:
        raise UserError(f"no row for the image {name}", path, "copy the original file there")
    return values[name]


def _rows(path: Path, columns: int, skip: int = 0) -> Iterator[tuple[str, list[int]]]:
    """(file name, numbers) of each line of one of CelebA's lists. Raises UserError naming the line that does not fit."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            words = line.split()
            if number <= skip or not words:
                continue
            try:
                values = [int(word) for word in words[1:]]
            except ValueError:
                values = []
            if len(values) != columns:
                raise UserError(f"line {number} is not a file name and {columns} whole numbers", path, "copy the original file there")
            yield words[0], values
