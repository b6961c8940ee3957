"""Images laid out in grids, and as files: grids, single images, animations. A file appears complete under its name or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.data.images import MAX_PIXELS, atomic_file, png_bytes, save_png
from models.errors import UserError

GAP = 2  # pixels between the images of a grid, and around them
PAIRS = 8  # columns of a picture of pairs
_SHOWN = 512  # pixels that a notebook's small grid is enlarged to, about
_SINGLE = re.compile(r"(\d+(-[^/]+)?-)?\d{6}\.png")  # the names that `write_singles` gives


class Pictures(np.ndarray):
    """Images uint8 (N, H, W, C) as a verb returns them: an array like any other, which a notebook shows as a grid."""

    def _repr_png_(self) -> bytes | None:
        if self.dtype != np.uint8 or self.ndim != 4 or self.shape[3] not in (1, 3) or not len(self):
            return None  # what was computed from images need not be images
        picture = grid(np.asarray(self))
        times = max(1, _SHOWN // max(picture.shape[:2]))
        return png_bytes(picture.repeat(times, 0).repeat(times, 1))


def shown(result: Any) -> Any:
    """What a verb returns; images as `Pictures`, also as the first of several things."""
    if isinstance(result, tuple) and type(result) is tuple and result:
        return (shown(result[0]), *result[1:])
    return result.view(Pictures) if type(result) is np.ndarray and result.dtype == np.uint8 and result.ndim == 4 else result


# --- layouts --------------------------------------------------------------------------------------------------------------------------


def grid(images: np.ndarray | Sequence[np.ndarray], columns: int | None = None) -> np.ndarray:
    """Lay uint8 images (N, H, W, C) out in rows of `columns`, or of all where they are fewer; about square where nobody says.

    One picture, uint8 (height, width, C).
    """
    images = np.asarray(images)
    count, height, width, channels = images.shape
    columns = min(columns or columns_for(count), count)
    picture = np.full((*grid_size(count, columns, (height, width)), channels), 255, dtype=np.uint8)
    for n, image in enumerate(images):
        top, left = GAP + (n // columns) * (height + GAP), GAP + (n % columns) * (width + GAP)
        picture[top : top + height, left : left + width] = image
    return picture


def grid_size(count: int, columns: int, size: tuple[int, int], lists: int = 1) -> tuple[int, int]:
    """Height and width of the grid of `lists` lists of `count` images of `size` (height, width), each list beginning a row of its own."""
    columns = min(columns, count)
    rows = lists * -(-count // columns)
    return rows * (size[0] + GAP) + GAP, columns * (size[1] + GAP) + GAP


def columns_for(count: int) -> int:
    """As many columns as make the grid about square."""
    return max(1, int(np.ceil(np.sqrt(count))))


def pairs(above: np.ndarray, below: np.ndarray, columns: int = PAIRS) -> np.ndarray:
    """A grid in which every row of `above` (N, H, W, C) has the matching row of `below` under it."""
    columns = min(columns, len(above))
    rows = [part[start : start + columns] for start in range(0, len(above), columns) for part in (above, below)]
    blank = np.full_like(above[:1], 255)
    padded = [np.concatenate([row, np.repeat(blank, columns - len(row), 0)]) if len(row) < columns else row for row in rows]
    return grid(np.concatenate(padded), columns)


def rows(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """A grid in which every list of images (N, H, W, C) begins a row of its own."""
    columns = min(columns, max(map(len, images)))
    blank = np.full_like(images[0][:1], 255)
    filled = [np.concatenate([part, np.repeat(blank, -len(part) % columns, 0)]) for part in images]
    return grid(np.concatenate(filled), columns)


def alike(*lists: np.ndarray) -> list[np.ndarray]:
    """Lists of images (N, H, W, C) of other sizes and channels as such of one size and of one kind, to stand in one grid.

    Small ones are enlarged a whole number of times, so that each pixel is a square, and stand in the middle of white; where one list is in
    colour, the grey ones come in three channels.
    """
    height, width = (max(images.shape[side] for images in lists) for side in (1, 2))
    channels, found = max(images.shape[3] for images in lists), []
    for images in lists:
        times = min(height // images.shape[1], width // images.shape[2])
        large = images.repeat(times, 1).repeat(times, 2).repeat(channels // images.shape[3], 3)
        spare = height - large.shape[1], width - large.shape[2]
        margins = [(0, 0), *((space // 2, space - space // 2) for space in spare), (0, 0)]
        found.append(np.pad(large, margins, constant_values=255))
    return found


def check_grid(count: int, size: tuple[int, int], columns: int | None = None, lists: int = 1, singles: bool = False) -> None:
    """Raise UserError where a grid would have more than `MAX_PIXELS`, the limit of the pictures that lgm itself reads.

    Args:
        count, columns: images, and in how many columns; None: about square.
        size: (height, width) of each.
        lists: how many lists of so many images there are, each beginning a row of its own.
        singles: whether there are single images to be had instead (--out).
    """
    height, width = grid_size(count, columns or columns_for(count), size, lists)
    if height * width > MAX_PIXELS:
        what = f"a grid of {count * lists:,} images would have {width:,} x {height:,} pixels, more than the limit of {MAX_PIXELS:,}"
        raise UserError(what, "-n", f"ask for fewer images{', or for single ones with --out DIR' if singles else ''}")


# --- files ----------------------------------------------------------------------------------------------------------------------------


def write(picture: np.ndarray, path: Path) -> Path:
    """One picture, uint8 (height, width, C), as a PNG."""
    save_png(picture, path)
    return path


def write_singles(
    blocks: Iterable[np.ndarray],
    folder: Path,
    stems: Sequence[str] = (),
    each: int = 0,
    first: int | None = None,
) -> int:
    """Every image of every block as a PNG of its own, numbered from 000000. Returns how many.

    With `stems`, which begin the names, the first `each` images get the first stem, and so on, each numbered from 000000. A number `first`
    to begin with says that others write there, too: the folder is taken as it is.
    A KeyboardInterrupt goes on as one that says how many files are there.
    """
    if first is None:
        make_folder(folder)
    written, ahead = 0, first or 0
    try:
        for block in blocks:
            for image in block:
                name = f"{stems[written // each]}-{ahead + written % each:06d}" if stems else f"{ahead + written:06d}"
                save_png(image, folder / f"{name}.png")
                written += 1
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"images written to {folder}: {written:,}") from None
    return written


def numbered(count: int) -> list[str]:
    """Stems for so many images' files: their numbers, all of one length."""
    return [f"{n:0{len(str(count - 1))}}" for n in range(count)]


def counted(blocks: Iterable[np.ndarray], advance: Callable[[int], None]) -> Iterator[np.ndarray]:
    """The same blocks; `advance` is called with the number of images in those that were taken and are done with, at first with 0."""
    done = 0
    advance(done)
    for block in blocks:
        yield block
        done += len(block)
        advance(done)


def make_folder(folder: Path) -> Path:
    """A folder for single images, without those of another call: they would be taken for this one's. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if _SINGLE.fullmatch(old.name):
                old.unlink()
    except OSError as error:  # a file lies there, or on the way there
        raise UserError(f"cannot make the folder ({error.strerror})", folder, "choose another one") from error
    return folder


def write_gif(images: np.ndarray, path: Path, seconds: float = 0.08) -> Path:
    """Images (N, H, W, C) as an endless animation that goes there and back.

    One palette for all frames and no dither: that is 25 times faster than Pillow's default and does not flicker.
    """
    frames = [Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image) for image in images]
    if frames[0].mode == "RGB":
        shared = Image.fromarray(np.concatenate(list(images), axis=1)).quantize(256)
        frames = [frame.quantize(palette=shared, dither=Image.Dither.NONE) for frame in frames]
    there_and_back = frames + frames[-2:0:-1]
    with atomic_file(path) as file:
        frames[0].save(file, "GIF", save_all=True, append_images=there_and_back[1:], duration=round(seconds * 1000), loop=0)
    return path
