"""What the procedural sets share: named random streams, antialiased shapes, smooth fields and the digits' outlines. No torch here.

Two rules keep the pixels the same on every machine. Every random number comes from a Philox stream named by (seed, split, purpose), whose
k-th number belongs to image k, so an image does not depend on how many are drawn. And pixels are made with +, -, *, / and square roots
only, which IEEE 754 defines to the last bit; sines and matrix products, which it does not, are left to the few numbers per image.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.data.dataset import SPLITS
from models.errors import UserError, nearest

Array = np.ndarray


class Dice:
    """Random numbers for `count` images, one independent stream per purpose: adding a purpose changes none of the others."""

    def __init__(self, seed: int, split: str, count: int) -> None:
        if split not in SPLITS:
            raise UserError("unknown split", split, nearest(split, SPLITS))
        if count < 0:
            raise ValueError(f"cannot draw {count} images")
        self.key, self.count = (seed, zlib.crc32(split.encode())), count

    def uniform(self, purpose: str, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = ()) -> Array:
        """(count, *shape) float64 in [low, high)."""
        return low + (high - low) * self._stream(purpose).random((self.count, *shape))

    def choice(self, purpose: str, options: int) -> Array:
        """(count,) int64 in 0 .. options - 1, every one equally likely."""
        return np.minimum(self.uniform(purpose, 0, options).astype(np.int64), options - 1)

    def balanced(self, purpose: str, classes: int) -> Array:
        """(count,) int64 labels: every run of `classes` images, counted from the first, shows each class once, in shuffled order."""
        rounds = -(-self.count // classes)
        keys = self._stream(purpose).random((rounds, classes))
        return np.argsort(keys, axis=1, kind="stable").reshape(-1)[: self.count].astype(np.int64)

    def _stream(self, purpose: str) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((*self.key, zlib.crc32(purpose.encode())))))


def blocks(count: int, size: int) -> Iterator[slice]:
    """Slices that cover range(count). Blocks whose arrays fit the processor's cache are several times faster than all images at once."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def per_image(values: Array) -> Array:
    """(n,) numbers as (n, 1, 1) float32, ready to be combined with (n, height, width) pixels."""
    return np.asarray(values, dtype=np.float32)[:, None, None]


def cover(distance: Array, softness: Any) -> Array:
    """Share of each pixel that a shape covers, in [0, 1]: an antialiased edge, `softness` wide, where the signed distance is zero."""
    share = distance * (-1 / softness)
    share += np.float32(0.5)
    return np.clip(share, 0, 1, out=share)


def paint(canvas: Array, alpha: Array, dark: Array, light: Array | None = None, shade: Array | None = None) -> None:
    """Lays a colour over `canvas`, in place.

    Args:
        canvas: (n, 3, h, w) float32, may be a view of a larger picture.
        alpha: (n, h, w) opacity in [0, 1].
        dark, light: (n, 3) colours. With `light` and `shade`, (n, h, w), the colour is dark at shade 0 and light at shade 1.
    """
    for channel in range(3):  # one channel at a time stays in the cache
        base, plane = per_image(dark[:, channel]), canvas[:, channel]
        if light is None or shade is None:
            colour = base - plane
        else:
            colour = shade * (per_image(light[:, channel]) - base)
            colour += base
            colour -= plane
        colour *= alpha
        plane += colour


def to_bytes(values: Array) -> Array:
    """[0, 1] to 0..255, rounded."""
    return (np.clip(values, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def hsv(hue: Array, saturation: Array, value: Array) -> Array:
    """(n, 3) RGB colours in [0, 1]; hue runs round the circle once from 0 to 1."""
    sector = (np.asarray(hue)[:, None] * 6 + np.array([0.0, 4.0, 2.0])) % 6
    pure = np.clip(np.abs(sector - 3) - 1, 0, 1)
    return np.asarray(value)[:, None] * (1 - np.asarray(saturation)[:, None] * (1 - pure))


def mix(anchors: Sequence[Sequence[float]], position: Array) -> Array:
    """(n, 3) colours found at `position`, in [0, 1], of the line that joins the anchor colours."""
    table = np.asarray(anchors, dtype=np.float64)
    return np.stack([np.interp(position, np.linspace(0, 1, len(table)), table[:, k]) for k in range(3)], axis=1)


@lru_cache(maxsize=8)
def spline_weights(size: int, knots: int) -> Array:
    """(size, knots) float32: how much each of `knots` control values counts at each of `size` pixels (uniform cubic B-spline)."""
    position = (np.arange(size) + 0.5) / size * (knots - 3) + 1
    distance = np.abs(position[:, None] - np.arange(knots))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def smooth_field(controls: Array, size: int) -> Array:
    """Blows (n, k, k) control values up to smooth (n, size, size) float32 fields. Sums run in a fixed order, unlike a matrix product's."""
    controls, weights = controls.astype(np.float32), spline_weights(size, controls.shape[1])
    knots = range(controls.shape[1])
    rows = sum(controls[:, :, k, None] * weights[:, k] for k in knots)  # (n, k, size)
    field = rows[:, 0, None, :] * weights[:, 0, None]
    for k in knots[1:]:
        field += rows[:, k, None, :] * weights[:, k, None]
    return field


def noise_tile(seed: int, size: int, grain: int) -> Array:
    """(size, size) float32 smooth noise in about [-1, 1] that continues across its edges; blobs are about `grain` pixels wide."""
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, size, grain))))
    tile = stream.random((size, size)) * 2 - 1
    for _ in range(2):  # two box blurs make a tent, which is smooth enough
        for axis in (0, 1):
            tile = np.mean([np.roll(tile, shift, axis) for shift in range(grain)], axis=0)
    return (tile / np.abs(tile).max()).astype(np.float32)


# ---- digits ---------------------------------------------------------------------------------------------------------------------------

DIGITS = tuple("0123456789")
_HEIGHT = 96  # pixels of a master digit's height
_CANVAS = 160  # pixels of a master's side
FIELD = _CANVAS // 2  # samples along a side of a digit's distance field
FIELD_SCALE = _HEIGHT / 2  # samples per digit height


@lru_cache(maxsize=1)
def digit_fields() -> Array:
    """(10, FIELD, FIELD) float32: signed distance to each digit's outline, in digit heights, negative inside the stroke.

    A distance field can be warped and sampled coarsely and still gives a sharp edge of any stroke width, where a picture would blur.
    """
    try:
        font = ImageFont.load_default(size=128)  # Pillow's own TrueType font, the same on every machine
    except (ImportError, OSError) as error:
        raise UserError(
            "the digits need Pillow with FreeType", "PIL.ImageFont", "install Pillow from its wheel: pip install -U Pillow"
        ) from error
    masters = []
    for digit in DIGITS:
        picture = Image.new("L", (400, 400))
        ImageDraw.Draw(picture).text((100, 100), digit, font=font, fill=255)
        picture = picture.crop(picture.getbbox())
        width = round(picture.width * _HEIGHT / picture.height)
        canvas = Image.new("L", (_CANVAS, _CANVAS))
        canvas.paste(picture.resize((width, _HEIGHT), Image.Resampling.BILINEAR), ((_CANVAS - width) // 2, (_CANVAS - _HEIGHT) // 2))
        masters.append(np.asarray(canvas) > 127)
    inside = np.stack(masters)
    signed = _depth(~inside) - _depth(inside)
    return (signed.reshape(-1, FIELD, 2, FIELD, 2).mean(axis=(2, 4)) / _HEIGHT).astype(np.float32)


def sample_digits(digits: Array, across: Array, down: Array) -> Array:
    """Signed distances at points of digit planes, read bilinearly.

    Args:
        digits: int64 class of each point, broadcast against the points.
        across, down: (n, h, w) float32 position in digit heights from the digit's centre. Points beyond the field read its border.
    """
    fields = digit_fields().reshape(-1)
    column = np.clip(across * np.float32(FIELD_SCALE) + np.float32(FIELD / 2 - 0.5), 0, FIELD - 1.001)
    row = np.clip(down * np.float32(FIELD_SCALE) + np.float32(FIELD / 2 - 0.5), 0, FIELD - 1.001)
    left, top = column.astype(np.int32), row.astype(np.int32)
    column -= left
    row -= top
    index = top * np.int32(FIELD) + left + digits.astype(np.int32) * np.int32(FIELD * FIELD)
    upper = fields.take(index)
    upper += column * (fields.take(index + np.int32(1)) - upper)
    index += np.int32(FIELD)
    lower = fields.take(index)
    lower += column * (fields.take(index + np.int32(1)) - lower)
    lower -= upper
    lower *= row
    lower += upper
    return lower


def _depth(masks: Array) -> Array:
    """(n, h, w) exact distance of every set pixel to the nearest clear one, less half a pixel; 0 where the pixel is clear."""
    squared = np.where(masks, np.float32(1e6), np.float32(0))  # whole numbers below 2**24: exact in float32
    for axis in (1, 2):  # the squared distance is least over rows of what is least over columns
        values = np.moveaxis(squared, axis, 1)
        least = values.copy()
        for shift in range(1, values.shape[1]):
            np.minimum(least[:, shift:], values[:, :-shift] + np.float32(shift**2), out=least[:, shift:])
            np.minimum(least[:, :-shift], values[:, shift:] + np.float32(shift**2), out=least[:, :-shift])
        squared = np.moveaxis(least, 1, axis)
    return np.maximum(np.sqrt(squared) - np.float32(0.5), 0)
