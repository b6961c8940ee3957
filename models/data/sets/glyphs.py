"""Grey 32x32 digits, drawn on the spot from a font and bent out of shape: no download.

20,000 training and 2,000 test images of ten classes. Each digit is turned, slanted, stretched, bent and drawn with its own stroke width,
white on black as in MNIST.
"""

from __future__ import annotations

import numpy as np

from models.data.dataset import DataRequest, ImageData
from models.data.drawing import DIGITS, Dice, blocks, cover, per_image, sample_digits, smooth_field, to_bytes

SEED = 1_001
SIZE = 32  # pixels
COUNTS = {"train": 20_000, "test": 2_000}


def made_from(request: DataRequest) -> tuple[str, ...]:
    """No file: the images are drawn."""
    return ()


def load(request: DataRequest) -> ImageData:
    """The whole split that was asked for."""
    return generate(COUNTS[request.split], request.split)


def generate(count: int, split: str) -> ImageData:
    """The first `count` images of a split: images (count, 32, 32, 1) and labels (count,) in 0..9, balanced over every ten images."""
    dice = Dice(SEED, split, count)
    labels = dice.balanced("label", len(DIGITS))

    # One 2x3 affine map per image takes a pixel to the digit's own plane: shift, turn, slant, size. Units are digit heights.
    turn = dice.uniform("turn", -0.24, 0.24)
    slant = dice.uniform("slant", -0.35, 0.30)
    tall = dice.uniform("height", 16.5, 22.5)  # pixels
    wide = tall * dice.uniform("width", 0.85, 1.3)
    cos, sin = np.cos(turn), np.sin(turn)
    affine = (cos / wide - slant * sin / tall, sin / wide + slant * cos / tall, -sin / tall, cos / tall)
    shift_x, shift_y = dice.uniform("shift x", -1.8, 1.8), dice.uniform("shift y", -1.6, 1.6)

    bend = dice.uniform("bend", -0.24, 0.24, (2, 6, 6)) * dice.uniform("bend size", 0.3, 1.0)[:, None, None, None]
    stroke = dice.uniform("stroke", -0.012, 0.05)  # grows or thins the font's stroke on either side
    swell = dice.uniform("swell", -0.04, 0.04, (2,))  # and does so unevenly, like a pen that is pressed harder at one end
    softness = dice.uniform("softness", 1.0, 1.9) / tall
    brightness = dice.uniform("brightness", 0.88, 1.0)

    images = np.empty((count, SIZE, SIZE, 1), np.uint8)
    axis = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
    for block in blocks(count, 256):
        x, y = axis - per_image(shift_x[block]), axis[:, None] - per_image(shift_y[block])
        a, b, c, d = (per_image(term[block]) for term in affine)
        across = a * x + b * y
        across += smooth_field(bend[block, 0], SIZE)
        down = c * x + d * y
        down += smooth_field(bend[block, 1], SIZE)
        distance = sample_digits(labels[block, None, None], across, down)
        distance -= per_image(stroke[block]) + per_image(swell[block, 0]) * across + per_image(swell[block, 1]) * down
        ink = cover(distance, per_image(softness[block])) * per_image(brightness[block])
        images[block, :, :, 0] = to_bytes(ink)
    return ImageData(name=str(DataRequest("glyphs", split)), images=images, labels=labels, classes=DIGITS)
