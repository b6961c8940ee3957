"""Results as files: grids, single images, strips, animations. A file appears complete under its name or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from models import generate
from models.data.images import atomic_file, save_png
from models.errors import UserError


def write_grid(images: np.ndarray, path: Path, columns: int | None = None) -> Path:
    """Images (N, H, W, C) as one picture, about square unless `columns` says otherwise."""
    save_png(generate.grid(images, columns or generate.columns_for(len(images))), path)
    return path


def write_pairs(above: np.ndarray, below: np.ndarray, path: Path) -> Path:
    """Two lists of images as one picture, each row of the first above the matching row of the second."""
    save_png(generate.pairs(above, below, min(8, len(above))), path)
    return path


def write_singles(blocks: Iterable[np.ndarray], folder: Path, advance: Callable[[int], None] = lambda n: None) -> int:
    """Every image of every block as a PNG of its own, numbered from 000000. Returns how many."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("[0-9]" * 6 + ".png"):
            old.unlink()  # another call's images among these would be taken for this one's
    except OSError as error:  # a file lies there, or on the way there
        raise UserError(f"cannot make the folder ({error.strerror})", folder, "choose another one") from error
    written = 0
    for block in blocks:
        for image in block:
            save_png(image, folder / f"{written:06d}.png")
            written += 1
        advance(len(block))
    return written


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
