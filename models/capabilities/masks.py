"""Masks for inpainting: which pixels of an image are the hole. Drawn ones are functions of (seed, image number, size); others are files.

A mask is bool (H, W), True in the hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from models.data.images import SUFFIXES, BadImage, decode, fit, read_header, to_channels
from models.errors import UserError, nearest, printable
from models.randomness import check_seed, numpy_generator

Size = tuple[int, int]  # (height, width)

_BLACK = (0, 0, 0)


# ---- drawn -------------------------------------------------------------------------------------------------------------------------------


def box(dice: np.random.Generator, size: Size) -> np.ndarray:
    """A rectangle of about a quarter of the area, anywhere, at most twice as long (in shares of the sides) as wide."""
    stretch = 2.0 ** dice.uniform(-0.5, 0.5)
    height, width = (max(round(side * share), 1) for side, share in zip(size, (0.5 * stretch, 0.5 / stretch), strict=True))
    top, left = (int(dice.integers(side - part + 1)) for side, part in zip(size, (height, width), strict=True))
    hole = np.zeros(size, bool)
    hole[top : top + height, left : left + width] = True
    return hole


def center(dice: np.random.Generator, size: Size) -> np.ndarray:
    """The middle half of each side."""
    hole = np.zeros(size, bool)
    top, left = size[0] // 4, size[1] // 4
    hole[top : size[0] - top, left : size[1] - left] = True
    return hole


def halves(size: Size) -> np.ndarray:
    """The left, right, upper and lower half: (4, H, W)."""
    height, width = size
    found = np.zeros((4, *size), bool)
    left, right, upper, lower = found
    left[:, : width // 2] = right[:, -(width // 2) :] = upper[: height // 2] = lower[-(height // 2) :] = True
    return found


def half(dice: np.random.Generator, size: Size) -> np.ndarray:
    """The left, right, upper or lower half."""
    return halves(size)[dice.integers(4)]


def random(dice: np.random.Generator, size: Size) -> np.ndarray:
    """Each pixel with probability 1/2."""
    return dice.random(size) < 0.5


def stroke(dice: np.random.Generator, size: Size) -> np.ndarray:
    """Three to five straight lines between random points, each about a tenth of the shorter side thick."""
    pixels = np.moveaxis(np.indices(size), 0, -1).astype(float)  # (H, W, 2)
    hole = np.zeros(size, bool)
    for _ in range(dice.integers(3, 6)):
        a, b = dice.uniform(0, 1, (2, 2)) * (np.array(size) - 1)
        radius = max(0.75, min(size) * dice.uniform(0.04, 0.07))  # never so thin that a line falls between the pixels
        way = b - a
        share = np.clip((pixels - a) @ way / max(way @ way, 1e-9), 0, 1)  # the nearest point of the line
        hole |= np.hypot(*np.moveaxis(pixels - a - share[..., None] * way, -1, 0)) <= radius
    return hole


KINDS: dict[str, Callable[[np.random.Generator, Size], np.ndarray]] = {
    "box": box,
    "center": center,
    "half": half,
    "random": random,
    "stroke": stroke,
}


def draw(kind: str, seed: int, numbers: Iterable[int], size: Size) -> np.ndarray:
    """Masks of images `numbers`: (N, H, W) bool. Mask i depends on (kind, seed, i, size) alone."""
    return np.stack([KINDS[kind](numpy_generator(seed, "mask", kind, number), size) for number in numbers])


def of_images(holes: np.ndarray | str, count: int, size: Size, seed: int) -> np.ndarray:
    """A mask for each of `count` images, (count, H, W) bool: a kind to draw, one for all, or one for each. Raises UserError."""
    if isinstance(holes, str):
        if holes not in KINDS:
            raise UserError(f"unknown kind of mask {printable(holes)!r}", "holes", nearest(holes, KINDS))
        holes = draw(holes, check_seed(seed), range(count), size)
    if holes.dtype != bool or holes.shape not in (size, (count, *size)):
        wanted = f"bool of shape {size}, or ({count}, {size[0]}, {size[1]})"
        raise UserError(f"masks are {holes.dtype} {holes.shape}", "holes", f"give {wanted}")
    return check(np.broadcast_to(holes, (count, *size)))


# ---- from files --------------------------------------------------------------------------------------------------------------------------


def read(path: Path, size: Size, photo: Size | None = None, how: str = "crop") -> np.ndarray:
    """The mask in an image file: white (brighter than middle grey) is the hole; what is transparent counts as black.

    Args:
        size: of the model's images, (height, width).
        photo: of the file of the image that it belongs to, which was brought to that size (`how`: crop, pad or stretch; "": in a way of
            its own). A mask that was drawn on it is brought there in the same way.

    Raises UserError where it is no image, or of neither size: a mask that was resized would lie beside what it should cover.
    """
    try:
        grey = to_channels(decode(path, background=_BLACK), 1)[..., 0]
    except BadImage as error:
        raise UserError(f"no readable mask ({error})", path, f"give an image file, white in the hole, or {', '.join(KINDS)}") from error
    if how and grey.shape == photo and photo != size:
        grey = fit(np.ascontiguousarray(grey[..., None]), size, how, background=_BLACK)[..., 0]
    if grey.shape != size:
        found, wanted, own = (f"{side[1]}x{side[0]}" for side in (grey.shape, size, photo or size))
        also = "" if own == wanted else f", or {own}, as the photo has"
        raise UserError(f"the mask is {found}, the model's images are {wanted}", path, f"give a mask of {wanted} pixels{also}")
    return np.asarray(grey > 127)


def gather(what: str, names: Sequence[str], seed: int, size: Size, how: str = "crop") -> np.ndarray:
    """The masks of named images, (N, H, W) bool: a kind to draw, a file for all, or a folder that has one of each image's name.

    In a folder, `photos/a.jpg` has the mask `a.png` (or any other suffix), and the item `mnist:test:17` has `17.png`. A mask has the size
    of the model's images, or that of the photo, and is then fitted as that is (`how`).
    Raises UserError where there is none, or where `check` refuses one.
    """
    if what in KINDS:
        found = draw(what, seed, range(len(names)), size)
        return check(found, [f"--mask {what}, {name}" for name in names])
    path = Path(what).expanduser()
    if path.is_dir():
        files = [_mask_of(name, path) for name in names]
        return check(np.stack([read(file, size, _size_of(name), how) for file, name in zip(files, names)]), files)
    if not path.exists():
        raise UserError(f"neither a kind of mask nor a file {printable(what)!r}", "--mask", nearest(what, KINDS))
    return check(np.stack([read(path, size, _size_of(name), how) for name in names]), [path] * len(names))


def check(holes: np.ndarray, places: Sequence[object] = ()) -> np.ndarray:
    """`holes` (N, H, W) themselves. Raises UserError where one is empty or covers the whole image; `places` say where each comes from."""
    for number, hole in enumerate(holes):
        if hole.all() or not hole.any():
            what = "the mask is white all over: nothing of the image is known" if hole.any() else "the mask has no hole"
            raise UserError(what, places[number] if places else f"mask {number}", "a mask is white in the hole and black elsewhere")
    return holes


def _size_of(name: str) -> Size | None:
    """(height, width) of a photo, from its header; None for what is no file."""
    if not Path(name).is_file():
        return None
    try:
        header = read_header(name)
    except BadImage:  # whoever reads the photo says so
        return None
    return header.height, header.width


def _mask_of(name: str, folder: Path) -> Path:
    item = name.rpartition(":")[2]
    stem = item if item.isdigit() and not Path(name).exists() else Path(name).stem
    found = sorted(path for path in folder.iterdir() if path.stem == stem and path.suffix.lower() in SUFFIXES)
    if len(found) != 1:
        what = f"{len(found)} masks of that name" if found else "no mask of that name"
        raise UserError(f"{what} for {printable(name)}", folder / f"{stem}.png", "give one mask for each image, or one file for all")
    return found[0]
