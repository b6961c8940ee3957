"""Results as files: grids, single images, strips, animations. A file appears complete under its name or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as to_bytes

from models import generate
from models.data.images import MAX_PIXELS, atomic_file, save_png
from models.errors import UserError

PAIRS = 8  # columns of a picture of pairs
_SINGLE = re.compile(r"(\d+(-[^/]+)?-)?\d{6}\.png")  # the names that `write_singles` gives


def check_grid(count: int, size: tuple[int, int], columns: int | None = None, lists: int = 1, singles: bool = False) -> None:
    """Raise UserError where a grid would have more than `MAX_PIXELS`, the limit of the pictures that lgm itself reads.

    Args:
        count, columns: images, and in how many columns; None: about square.
        size: (height, width) of each.
        lists: how many lists of so many images there are, each beginning a row of its own.
        singles: whether there are single images to be had instead (--out).
    """
    height, width = generate.grid_size(count, columns or generate.columns_for(count), size, lists)
    if height * width > MAX_PIXELS:
        what = f"a grid of {count * lists:,} images would have {width:,} x {height:,} pixels, more than the limit of {MAX_PIXELS:,}"
        raise UserError(what, "-n", f"ask for fewer images{', or for single ones with --out DIR' if singles else ''}")


def write_grid(images: np.ndarray, path: Path, columns: int | None = None) -> Path:
    """Images (N, H, W, C) as one picture, about square unless `columns` says otherwise."""
    save_png(generate.grid(images, columns or generate.columns_for(len(images))), path)
    return path


def write_pairs(above: np.ndarray, below: np.ndarray, path: Path) -> Path:
    """Two lists of images as one picture, each row of the first above the matching row of the second."""
    save_png(generate.pairs(above, below, min(PAIRS, len(above))), path)
    return path


def write_rows(images: Sequence[np.ndarray], path: Path, columns: int) -> Path:
    """Lists of images as one picture, each list beginning a row of its own."""
    save_png(generate.rows(images, columns), path)
    return path


def write_inpainting(originals: np.ndarray, holes: np.ndarray, completed: Sequence[np.ndarray], path: Path) -> Path:
    """A row for each image: the original, the same with its hole (N, H, W) in middle grey, and each of the completed (N, H, W, C)."""
    masked = np.where(holes[..., None], np.uint8(128), originals)
    columns = [originals, masked, *completed]
    save_png(generate.grid(np.stack(columns, 1).reshape(-1, *originals.shape[1:]), len(columns)), path)
    return path


def write_singles(
    blocks: Iterable[np.ndarray],
    folder: Path,
    stems: Sequence[str] = (),
    each: int = 0,
) -> int:
    """Every image of every block as a PNG of its own, numbered from 000000. Returns how many.

    With `stems`, which begin the names, the first `each` images get the first stem, and so on, each numbered from 000000.
    A KeyboardInterrupt goes on as one that says how many files are there.
    """
    make_folder(folder)
    written = 0
    try:
        for block in blocks:
            for image in block:
                name = f"{stems[written // each]}-{written % each:06d}" if stems else f"{written:06d}"
                save_png(image, folder / f"{name}.png")
                written += 1
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"images written to {folder}: {written:,}") from None
    return written


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


def write_noise(found: generate.Projection, path: Path) -> Path:
    """A projection as safetensors: `noise` (N, ...), `error` (N,), and what it was asked to show, if anything, as `condition` (N, ...)."""
    tensors = {"noise": found.noise, "error": torch.from_numpy(found.error)}
    if found.condition is not None:
        tensors["condition"] = found.condition
    with atomic_file(path) as file:
        file.write(to_bytes({name: value.contiguous() for name, value in tensors.items()}, {"kind": "lgm projection"}))
    return path


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
