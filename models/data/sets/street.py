"""Colour 32x32 house numbers, drawn on the spot: digits on walls and plates with neighbours cut in, no download.

20,000 training and 2,000 test images of ten classes, after the manner of SVHN: the class is the digit in the middle, parts of the digits
next to it may show at the sides. Walls are stucco, brick, boards or stone under uneven light; contrast varies but the digit stays legible.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from models.data.dataset import DataRequest, ImageData
from models.data.drawing import DIGITS, Array, Dice, blocks, cover, noise_tile, per_image, sample_digits, smooth_field, to_bytes

SEED = 2_001
SIZE = 32  # pixels
COUNTS = {"train": 20_000, "test": 2_000}
TILE = 64  # side of a wall texture, which repeats


def made_from(request: DataRequest) -> tuple[str, ...]:
    """No file: the images are drawn."""
    return ()


def load(request: DataRequest) -> ImageData:
    """The whole split that was asked for."""
    return generate(COUNTS[request.split], request.split)


def generate(count: int, split: str) -> ImageData:
    """The first `count` images of a split: images (count, 32, 32, 3) and labels (count,) in 0..9, balanced over every ten images."""
    dice = Dice(SEED, split, count)
    labels = dice.balanced("label", len(DIGITS))
    number = _number(dice, labels)
    wall, ink, edge = _colours(dice)
    scene = _scene(dice)

    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    axis = (np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2) / np.float32(SIZE / 2)  # -1 .. 1
    x, y = axis[None, None, :], axis[None, :, None]
    for block in blocks(count, 256):
        n = {name: values[block] for name, values in number.items()}
        s = {name: values[block] for name, values in scene.items()}
        p = {name: per_image(values) for name, values in s.items() if values.ndim == 1}

        across, down = _number_plane(n, x * (SIZE / 2), y * (SIZE / 2))
        distance = _line_of_digits(n, across, down)
        digit = cover(distance, per_image(n["softness"]))
        rim = cover(distance - p["rim"], per_image(n["softness"])) - digit
        shadow = cover(_line_of_digits(n, across - p["shadow x"], down - p["shadow y"]), np.float32(0.22)) * p["shadow"]

        # A plate is a rounded box behind the number; where there is none its opacity is 0.
        corner_x, corner_y = np.maximum(np.abs(across) - p["plate width"], 0), np.maximum(np.abs(down) - p["plate height"], 0)
        outside = np.sqrt(corner_x * corner_x + corner_y * corner_y) - np.float32(0.12)
        plate = cover(outside, np.float32(0.08)) * p["plate"]
        plate_rim = cover(np.abs(outside) - np.float32(0.035), np.float32(0.07)) * p["plate"]

        texture = _texture(s, x * (SIZE / 2), y * (SIZE / 2)) * (1 - plate * np.float32(0.75))
        light = p["lamp"] * (p["light x"] * x + p["light y"] * y)
        light += smooth_field(s["patches"], SIZE)
        light += 1 - shadow * (1 - digit)
        clutter = texture * p["roughness"]
        clutter -= plate_rim * np.float32(0.10)
        grain = _grain(s) * p["grain"]

        for channel in range(3):
            ground = per_image(wall[block, 0, channel]) + per_image(wall[block, 1, channel]) * (p["slope x"] * x + p["slope y"] * y)
            ground += plate * (per_image(wall[block, 2, channel]) - ground)
            ground += clutter
            ground += rim * p["rim opacity"] * (per_image(edge[block, channel]) - ground)
            ground += digit * (per_image(ink[block, channel]) + clutter * np.float32(0.3) - ground)
            images[block, :, :, channel] = to_bytes(ground * light + grain)
    return ImageData(name=str(DataRequest("street", split)), images=images, labels=labels, classes=DIGITS)


def _number(dice: Dice, labels: Array) -> dict[str, Array]:
    """The line of three digits: who stands where, and the affine map (a b; c d) from pixels to its plane in digit heights."""
    turn = dice.uniform("turn", -0.16, 0.16)
    slant = dice.uniform("slant", -0.22, 0.22)
    tall = dice.uniform("height", 17.0, 25.0)  # pixels
    wide = tall * dice.uniform("width", 0.78, 1.15)
    cos, sin = np.cos(turn), np.sin(turn)
    neighbours = dice.uniform("neighbours", shape=(2,)) < 0.6
    return {
        "a": cos / wide - slant * sin / tall,
        "b": sin / wide + slant * cos / tall,
        "c": -sin / tall,
        "d": cos / tall,
        "x": dice.uniform("shift x", -2.0, 2.0),
        "y": dice.uniform("shift y", -1.8, 1.8),
        "advance": dice.uniform("advance", 0.70, 0.92),  # from digit to digit, in digit heights
        "left": np.where(neighbours[:, 0], dice.choice("left", 10), -1),
        "centre": labels,
        "right": np.where(neighbours[:, 1], dice.choice("right", 10), -1),
        "bend": dice.uniform("bend", -0.07, 0.07, (2, 5, 5)),
        "stroke": dice.uniform("stroke", -0.012, 0.05),
        "softness": dice.uniform("softness", 1.1, 3.0) / tall,  # blur, in digit heights
    }


def _colours(dice: Dice) -> tuple[Array, Array, Array]:
    """Colours in [0, 1]: ground (count, 3, 3) as wall, its gradient and plate; ink (count, 3); rim (count, 3).

    Luminances are drawn first, so that digit and ground differ by at least 0.26 whatever the hues.
    """
    contrast = dice.uniform("contrast", 0.26, 0.62)
    ground = dice.uniform("ground", 0.14, 0.88)
    brighter = np.where(dice.uniform("polarity") < 0.5, ground + contrast < 0.97, ground - contrast < 0.04)
    ink = np.where(brighter, np.minimum(ground + contrast, 0.97), np.maximum(ground - contrast, 0.04))
    grey_ink = dice.uniform("grey ink") < 0.45
    plate = ground + np.where(brighter, -1, 1) * dice.uniform("plate tone", -0.05, 0.16)
    wall_hue = dice.uniform("wall hue")
    wall = np.stack(
        [
            _tinted(ground, wall_hue, dice.uniform("wall chroma", 0, 0.17)),
            _tinted(dice.uniform("gradient", -0.09, 0.09), dice.uniform("gradient hue"), dice.uniform("gradient chroma", 0, 0.07)),
            _tinted(plate, dice.uniform("plate hue"), dice.uniform("plate chroma", 0, 0.20)),
        ],
        axis=1,
    )
    colour = _tinted(ink, dice.uniform("ink hue"), np.where(grey_ink, 0.02, dice.uniform("ink chroma", 0.05, 0.35)))
    rim = _tinted(np.where(brighter, ground * 0.5, 0.5 + ground * 0.5), wall_hue, np.full(dice.count, 0.05))
    return wall, colour, rim


def _tinted(luminance: Array, hue: Array, chroma: Array) -> Array:
    """(n, 3) colours of the given luminance; the two chroma directions carry none."""
    turn = 2 * np.pi * hue
    blue_yellow, red_green = np.array([-0.10, -0.16, 1.0]), np.array([1.0, -0.47, -0.20])
    return luminance[:, None] + chroma[:, None] * (np.cos(turn)[:, None] * red_green + np.sin(turn)[:, None] * blue_yellow)


def _scene(dice: Dice) -> dict[str, Array]:
    """Everything around the number: texture, plate, shadow, light and grain."""
    around = dice.uniform("slope", 0, 2 * np.pi)
    sun = dice.uniform("sun", 0, 2 * np.pi)
    depth = dice.uniform("depth", 0.03, 0.12)
    turn = dice.uniform("texture turn", -0.2, 0.2)
    zoom = dice.uniform("texture zoom", 0.7, 1.6)
    return {
        "slope x": np.cos(around),
        "slope y": np.sin(around),
        "light x": np.cos(sun),
        "light y": np.sin(sun),
        "lamp": dice.uniform("lamp", 0, 0.22),
        "patches": dice.uniform("patches", -0.28, 0.28, (5, 5)),
        "shadow x": depth * -np.cos(sun),
        "shadow y": depth,
        "shadow": np.clip(dice.uniform("shadow", -0.4, 0.6), 0, 1),
        "rim": dice.uniform("rim", 0.03, 0.08),
        "rim opacity": (dice.uniform("rimmed") < 0.25) * 0.9,
        "plate": (dice.uniform("plated") < 0.4) * 1.0,
        "plate width": dice.uniform("plate width", 0.42, 1.1),
        "plate height": dice.uniform("plate height", 0.48, 0.62),
        "wall": dice.choice("wall", len(_walls())),
        "texture x": dice.uniform("texture x", 0, TILE),
        "texture y": dice.uniform("texture y", 0, TILE),
        "texture a": zoom * np.cos(turn),
        "texture b": zoom * np.sin(turn),
        "roughness": dice.uniform("roughness", 0.03, 0.15),
        "grain": dice.uniform("grain", 0.0, 0.03),
        "grain at": dice.choice("grain at", 2**18 - SIZE * SIZE),
    }


def _number_plane(n: dict[str, Array], x: Array, y: Array) -> tuple[Array, Array]:
    """Where each pixel lies in the plane of the number, in digit heights from the middle digit's centre."""
    x, y = x - per_image(n["x"]), y - per_image(n["y"])
    across = per_image(n["a"]) * x + per_image(n["b"]) * y
    across += smooth_field(n["bend"][:, 0], SIZE)
    down = per_image(n["c"]) * x + per_image(n["d"]) * y
    down += smooth_field(n["bend"][:, 1], SIZE)
    return across, down


def _line_of_digits(n: dict[str, Array], across: Array, down: Array) -> Array:
    """Signed distance to the strokes of up to three digits in a row, in digit heights."""
    advance = per_image(n["advance"])
    slot = np.clip(np.rint(across / advance), -1, 1)  # every pixel belongs to the digit that it is nearest to, so one look-up does
    digits = np.where(slot < 0, n["left"][:, None, None], np.where(slot > 0, n["right"][:, None, None], n["centre"][:, None, None]))
    distance = sample_digits(np.maximum(digits, 0), across - slot * advance, down)
    distance -= per_image(n["stroke"])
    return np.where(digits < 0, np.float32(1), distance)


def _texture(s: dict[str, Array], x: Array, y: Array) -> Array:
    """(n, h, w) wall texture in about [-1, 1], read bilinearly from the tile, turned and zoomed."""
    a, b = per_image(s["texture a"]), per_image(s["texture b"])
    column = a * x + b * y + (per_image(s["texture x"]) + 4 * TILE)  # positive, so that cutting off the fraction rounds down
    row = a * y - b * x + (per_image(s["texture y"]) + 4 * TILE)
    left, top = column.astype(np.int32), row.astype(np.int32)
    column -= left
    row -= top
    tiles = _walls().reshape(-1)
    base = (s["wall"] * (TILE * TILE)).astype(np.int32)[:, None, None]
    left, right = left % TILE, (left + 1) % TILE
    upper_row, lower_row = base + top % TILE * TILE, base + (top + 1) % TILE * TILE
    upper = tiles.take(upper_row + left)
    upper += column * (tiles.take(upper_row + right) - upper)
    lower = tiles.take(lower_row + left)
    lower += column * (tiles.take(lower_row + right) - lower)
    return upper + row * (lower - upper)


def _grain(s: dict[str, Array]) -> Array:
    """(n, h, w) film grain in [-1, 1]: a stretch of one long stream of noise."""
    return _noise().take(s["grain at"][:, None] + np.arange(SIZE * SIZE)).reshape(-1, SIZE, SIZE)


@lru_cache(maxsize=1)
def _noise() -> Array:
    return Dice(SEED, "train", 2**18).uniform("film", -1, 1).astype(np.float32)


@lru_cache(maxsize=1)
def _walls() -> Array:
    """(6, TILE, TILE) float32 textures in about [-1, 1]: stucco, rough stone, brick, boards, wood, smooth."""
    fine, middle, coarse = (noise_tile(SEED, TILE, grain) for grain in (2, 5, 14))
    row, column = np.mgrid[:TILE, :TILE]
    course = row // 8
    mortar = (row % 8 < 1) | ((column + course % 2 * 8) % 16 < 1)
    tone = noise_tile(SEED + 1, TILE, 3)[course * 8, (column + course % 2 * 8) // 16 * 16 % TILE]  # one shade for each brick
    brick = np.where(mortar, 1.0, 0.9 * tone - 0.25 + 0.3 * fine)
    boards = np.where(row % 16 < 2, -1.2, row % 16 / 16 * 0.7 - 0.1 + 0.2 * middle)
    wood = np.roll(middle, 7, axis=0)[row, column // 8] * 0.8 + 0.25 * fine
    stone = np.clip(coarse * 2.5, -1, 1) * 0.6 + 0.5 * middle
    return np.stack([0.6 * fine + 0.5 * middle, stone, brick, boards, wood, 0.4 * coarse]).astype(np.float32)
