"""Images laid out in grids, and as files: grids, single images, animations. A file appears complete under its name or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.data.images import MAX_PIXELS, atomic_file, png_bytes, save_png
from models.errors import UserError, printable

GAP = 2  # pixels between the images of a grid, and around them
GIF_SIDE = 65_535  # pixels of an animation's side, at most
PAIRS = 8  # columns of a picture of pairs
TEXT, LINE = 11, 16  # pixels: the size of letters, and a line of them
HEADING = 150  # pixels that a heading before a row may take
LEGIBLE = 64  # pixels that images with captions are enlarged to, about: a line below has room for a dozen letters
_SHOWN = 512  # pixels that a notebook's small grid is enlarged to, about
_SINGLE = re.compile(r"(\d+(-[^/]+)?-)?\d{6}\.png")  # the names that `write_singles` gives


class Pictures(np.ndarray):
    """Images uint8 (N, H, W, C) as a verb returns them: an array like any other, which a notebook shows as a grid."""

    def _repr_png_(self) -> bytes | None:
        if self.dtype != np.uint8 or self.ndim != 4 or self.shape[3] not in (1, 3) or not len(self):
            return None  # what was computed from images need not be images
        picture = grid(np.asarray(self))
        return png_bytes(enlarged(picture, _SHOWN // max(picture.shape[:2])))


def shown(result: Any) -> Any:
    """What a verb returns; images as `Pictures`, also as the first of several things."""
    if isinstance(result, tuple) and type(result) is tuple and result:
        return (shown(result[0]), *result[1:])
    return result.view(Pictures) if type(result) is np.ndarray and result.dtype == np.uint8 and result.ndim == 4 else result


# --- layouts --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Captions:
    """Words on a grid: above its columns, before its rows, below its images. What is not given takes no room."""

    above: Sequence[str] = ()
    before: Sequence[str] = ()
    below: Sequence[str] = ()


def enlarged(images: np.ndarray, times: int) -> np.ndarray:
    """Images (..., H, W, C) so many times as large, each pixel a square; less than once is once."""
    return images.repeat(times, -3).repeat(times, -2) if times > 1 else images


def grid(
    images: np.ndarray | Sequence[np.ndarray], columns: int | None = None, captions: Captions | None = None, scale: int | None = None
) -> np.ndarray:
    """Lay uint8 images (N, H, W, C) out in rows of `columns`, or of all where they are fewer; about square where nobody says.

    `scale` enlarges the images; where nobody says, those with captions to about `LEGIBLE` pixels. One picture, uint8 (height, width, C).
    """
    images = np.asarray(images)
    images = enlarged(images, _times(images.shape[2], scale, captions is not None))
    count, height, width, channels = images.shape
    columns = min(columns or columns_for(count), count)
    words = captions or Captions()
    left, top = _widest(words.before), LINE if words.above else 0
    across, down = width + GAP, height + GAP + (LINE if words.below else 0)
    picture = np.full((top + -(-count // columns) * down + GAP, left + columns * across + GAP, channels), 255, dtype=np.uint8)
    for n, image in enumerate(images):
        y, x = top + GAP + (n // columns) * down, left + GAP + (n % columns) * across
        picture[y : y + height, x : x + width] = image
    for n, text in enumerate(words.above[:columns]):
        _write(picture[:top, left + GAP + n * across :][:, :width], text)
    for n, text in enumerate(words.before):
        _write(picture[top + GAP + n * down :, GAP:left][:height], text)
    for n, text in enumerate(words.below):
        y, x = top + GAP + (n // columns) * down + height, left + GAP + (n % columns) * across
        _write(picture[y : y + LINE, x : x + width], text)
    return picture


def _times(width: int, scale: int | None, captioned: bool) -> int:
    return scale or (LEGIBLE // width if captioned else 1)


def _widest(words: Sequence[str]) -> int:
    """Pixels that headings before rows take."""
    return min(HEADING, max(int(font().getlength(printable(text))) for text in words)) + 2 * GAP if words else 0


@cache
def font(size: int = TEXT) -> Any:
    """Pillow's own, which is there on every machine."""
    return ImageFont.load_default(size=size)


def _write(place: np.ndarray, text: str) -> None:
    """Black text into the middle of a white part of a picture (height, width, C); what has no room there is cut."""
    height, width, _ = place.shape
    letters, text = font(), printable(text)
    while text and letters.getlength(text) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    strip = Image.new("L", (width, height), 255)
    ImageDraw.Draw(strip).text((width / 2, height / 2), text, fill=0, font=letters, anchor="mm")
    place[:] = np.asarray(strip)[..., None]


def grid_size(
    count: int, columns: int, size: tuple[int, int], lists: int = 1, scale: int | None = None, captions: bool = False
) -> tuple[int, int]:
    """Height and width of the grid of `lists` lists of `count` images of `size` (height, width), each list beginning a row of its own;
    with captions, at most."""
    columns, times = min(columns, count), max(1, _times(size[1], scale, captions))
    rows = lists * -(-count // columns)
    height, width = rows * (size[0] * times + GAP) + GAP, columns * (size[1] * times + GAP) + GAP
    return (height + (rows + 1) * LINE, width + HEADING + 2 * GAP) if captions else (height, width)


def columns_for(count: int) -> int:
    """As many columns as make the grid about square."""
    return max(1, isqrt(count - 1) + 1)


def pairs(
    above: np.ndarray, below: np.ndarray, columns: int = PAIRS, names: Sequence[Sequence[str]] = (), scale: int | None = None
) -> np.ndarray:
    """A grid in which every row of `above` (N, H, W, C) has the matching row of `below` under it; `names` are the lines below either's."""
    columns = min(columns, len(above))
    starts = range(0, len(above), columns)
    images = [_padded(part[n : n + columns], columns) for n in starts for part in (above, below)]
    words = [text for n in starts for part in names for text in (*part[n : n + columns], *[""] * (n + columns - len(above)))]
    return grid(np.concatenate(images), columns, Captions(below=words) if names else None, scale)


def rows(images: Sequence[np.ndarray], columns: int, names: Sequence[str] = (), scale: int | None = None) -> np.ndarray:
    """A grid in which every list of images (N, H, W, C) begins a row of its own, with its name before it."""
    columns = min(columns, max(map(len, images)))
    before = [text for part, name in zip(images, names) for text in (name, *[""] * (-(-len(part) // columns) - 1))]
    filled = [_padded(part, -(-len(part) // columns) * columns) for part in images]
    return grid(np.concatenate(filled), columns, Captions(before=before) if names else None, scale)


def _padded(images: np.ndarray, count: int) -> np.ndarray:
    """As many images, white ones behind."""
    return np.concatenate([images, np.repeat(np.full_like(images[:1], 255), count - len(images), 0)])


def alike(*lists: np.ndarray) -> list[np.ndarray]:
    """Lists of images (N, H, W, C) of other sizes and channels as such of one size and of one kind, to stand in one grid.

    Small ones are enlarged a whole number of times, so that each pixel is a square, and stand in the middle of white; where one list is in
    colour, the grey ones come in three channels.
    """
    height, width = (max(images.shape[side] for images in lists) for side in (1, 2))
    channels, found = max(images.shape[3] for images in lists), []
    for images in lists:
        times = min(height // images.shape[1], width // images.shape[2])
        large = enlarged(images, times).repeat(channels // images.shape[3], 3)
        spare = height - large.shape[1], width - large.shape[2]
        margins = [(0, 0), *((space // 2, space - space // 2) for space in spare), (0, 0)]
        found.append(np.pad(large, margins, constant_values=255))
    return found


def check_grid(
    count: int,
    size: tuple[int, int],
    columns: int | None = None,
    lists: int = 1,
    singles: bool = False,
    scale: int | None = None,
    captions: bool = False,
    animated: bool = False,
) -> None:
    """Raise UserError where a grid would have more than `MAX_PIXELS`, the limit of the pictures that lgm itself reads, or cannot move.

    Args:
        count, columns: images, and in how many columns; None: about square.
        size: (height, width) of each.
        lists: how many lists of so many images there are, each beginning a row of its own.
        singles: whether there are single images to be had instead (--out).
        scale, captions: how it is to be drawn.
        animated: whether its rows are to move as well.
    """
    height, width = grid_size(count, columns or columns_for(count), size, lists, scale, captions)
    if animated and height > GIF_SIDE:
        raise UserError(f"an animation would be {height:,} pixels high, the most is {GIF_SIDE:,}", "--gif", "ask for fewer images")
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
    scale: int | None = None,
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
                save_png(enlarged(image, scale or 1), folder / f"{name}.png")
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
