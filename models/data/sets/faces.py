"""Colour 64x64 cartoon portraits of a hundred invented people, with attributes, pose and light as labels: no download.

10,000 training and 1,000 test images. An identity fixes skin, face shape, hair, eyes, brows, nose and mouth, in both splits alike. Every
image draws its own attributes (beard, glasses, hat, long_hair, open_mouth, smile: 0 or 1), its own pose and light, and things that are not
labelled: background, clothes, the hat's and glasses' make, tilt and framing.

Factors are in [-1, 1]. pose: -1 looks to the left of the picture, 0 at the viewer, 1 to the right, 32 degrees at most. light: -1 comes from
the left, 0 from the front, 1 from the right.

The head is an ellipsoid seen from the front. Each pixel of it knows its surface normal, hence its shade, and where it lies on the head, so
that features painted on the head turn with it and foreshorten by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from models.data.dataset import DataRequest, ImageData
from models.data.drawing import Array, Dice, blocks, cover, hsv, mix, noise_tile, paint, per_image, smooth_field, to_bytes

SEED = 3_001
SIZE = 64  # pixels
COUNTS = {"train": 10_000, "test": 1_000}
IDENTITIES = 100
ATTRIBUTES = ("beard", "glasses", "hat", "long_hair", "open_mouth", "smile")
SHARE = (0.3, 0.35, 0.3, 0.45, 0.4, 0.5)  # how often an image has each attribute
FACTORS = ("pose", "light")

PIXEL = np.float32(2 / SIZE)  # the picture spans -1 .. 1 both ways, y down
SOFT = np.float32(1.25 * 2 / SIZE)  # width of an edge
BLOCK = 16  # images at a time: their arrays fit the processor's cache
TURN = 0.56  # radians at pose 1
HEAD_TOP, HEAD_LEFT = 10, 4  # the head is computed and painted in this window only
HEAD = (slice(None), slice(HEAD_TOP, SIZE), slice(HEAD_LEFT, SIZE - HEAD_LEFT))
WINDOW = (slice(None), *HEAD)  # the same part of all canvases
CAP = slice(0, 56)  # rows that hair on the skull can reach

SKIN = (
    (1.00, 0.87, 0.78),
    (0.99, 0.80, 0.67),
    (0.93, 0.71, 0.54),
    (0.82, 0.59, 0.42),
    (0.66, 0.44, 0.29),
    (0.49, 0.31, 0.21),
    (0.38, 0.24, 0.17),
)
HAIR = (
    (0.13, 0.11, 0.13),  # black
    (0.24, 0.15, 0.11),
    (0.40, 0.25, 0.15),
    (0.56, 0.26, 0.13),  # auburn
    (0.85, 0.44, 0.17),  # ginger
    (0.72, 0.52, 0.28),
    (0.95, 0.79, 0.46),  # blond
    (0.78, 0.77, 0.78),  # grey
    (0.90, 0.48, 0.62),  # dyed
    (0.28, 0.50, 0.68),
)
EYES = ((0.28, 0.17, 0.10), (0.45, 0.29, 0.14), (0.36, 0.48, 0.22), (0.22, 0.46, 0.68), (0.42, 0.52, 0.58), (0.20, 0.55, 0.50))


def made_from(request: DataRequest) -> tuple[str, ...]:
    """No file: the images are drawn."""
    return ()


def load(request: DataRequest) -> ImageData:
    """The whole split that was asked for."""
    return generate(COUNTS[request.split], request.split)


def generate(count: int, split: str) -> ImageData:
    """The first `count` images of a split.

    images (count, 64, 64, 3); attributes (count, 6) in {0, 1}; factors (count, 2) in [-1, 1]; identities (count,) in 0..99, each of them
    once in every hundred images.
    """
    sitting = describe(count, split)
    return ImageData(
        name=str(DataRequest("faces", split)),
        images=render(sitting),
        attributes=sitting.attributes,
        attribute_names=ATTRIBUTES,
        factors=sitting.factors,
        factor_names=FACTORS,
        identities=sitting.identities,
    )


@dataclass(frozen=True)
class Sitting:
    """Everything that decides n pictures; changing one entry changes that one thing in the picture."""

    identities: Array  # (n,) int64
    attributes: Array  # (n, 6) uint8
    factors: Array  # (n, 2) float32
    chance: dict[str, Array]  # what is not labelled: name -> (n,) or (n, ...)


def describe(count: int, split: str) -> Sitting:
    """Draws who sits for each picture of a split, and how."""
    dice = Dice(SEED, split, count)
    bright = dice.uniform("ground value", 0.62, 0.97)
    hue = dice.uniform("ground hue")
    chance = {
        "shift x": dice.uniform("shift x", -0.05, 0.05),
        "shift y": dice.uniform("shift y", -0.03, 0.04),
        "zoom": dice.uniform("zoom", 0.95, 1.07),
        "tilt": dice.uniform("tilt", -0.11, 0.11),
        "gaze": dice.uniform("gaze", -0.045, 0.045),
        "ground": hsv(hue, dice.uniform("ground saturation", 0.08, 0.42), bright),
        "ground 2": hsv(
            (hue + dice.uniform("ground drift", -0.14, 0.14)) % 1, dice.uniform("ground saturation 2", 0.12, 0.5), bright * 0.78
        ),
        "slope": dice.uniform("slope", -1, 1),
        "blobs": dice.uniform("blobs", -1, 1, (5, 5)),
        "blobbed": dice.uniform("blobbed", 0.0, 0.22),
        "bokeh": dice.uniform("bokeh", -1, 1, (4, 3)),
        "bokeh lit": (dice.uniform("bokeh lit") < 0.45) * dice.uniform("bokeh strength", 0.12, 0.35),
        "cloth": hsv(dice.uniform("cloth hue"), dice.uniform("cloth saturation", 0.15, 0.75), dice.uniform("cloth value", 0.3, 0.95)),
        "stripes": np.where(dice.uniform("striped") < 0.3, 1.0, 0.0),
        "neckline": dice.uniform("neckline", 0.10, 0.30),
        "felt": hsv(dice.uniform("hat hue"), dice.uniform("hat saturation", 0.2, 0.85), dice.uniform("hat value", 0.3, 0.95)),
        "hat kind": dice.choice("hat kind", 3),  # beanie, cap, brimmed
        "frame": hsv(dice.uniform("frame hue"), dice.uniform("frame saturation", 0.1, 0.8), dice.uniform("frame value", 0.08, 0.45)),
        "lens": dice.uniform("lens", 0.18, 0.215),
        "square lens": dice.uniform("square lens", 0.0, 0.95),
        "shades": np.where(dice.uniform("shades") < 0.2, 0.82, 0.10),
    }
    attributes = dice.uniform("attributes", shape=(len(ATTRIBUTES),)) < np.array(SHARE)
    return Sitting(
        identities=dice.balanced("identity", IDENTITIES),
        attributes=attributes.astype(np.uint8),
        factors=dice.uniform("factors", -1, 1, (len(FACTORS),)).astype(np.float32),
        chance=chance,
    )


@lru_cache(maxsize=1)
def people() -> dict[str, Array]:
    """The looks of the hundred identities: name -> (100,) or (100, 3)."""
    dice = Dice(SEED + 1, "train", IDENTITIES)
    tone = dice.uniform("skin")
    skin = np.clip(mix(SKIN, tone) + dice.uniform("skin tint", -0.025, 0.025, (3,)), 0, 1)
    shade = (dice.uniform("hair") ** (0.9 + 1.6 * tone) * len(HAIR)).astype(
        np.int64
    )  # the darker the skin, the darker the hair tends to be
    hair = np.clip(np.array(HAIR)[shade] * dice.uniform("hair tint", 0.9, 1.1, (3,)), 0, 1)
    style = dice.choice("style", 7)

    def by_style(purpose: str, *ranges: tuple[float, float]) -> Array:
        """A number from the range of each person's hair style."""
        low, high = np.array(ranges)[style].T
        return low + (high - low) * dice.uniform(purpose)

    # Styles:                       parted, fringe, swept back, curly, bun, spiky, shaven
    return {
        "skin": skin,
        "hair": hair,
        "brow colour": np.clip(hair * 0.62 + skin * 0.06, 0, 1),
        "eye": np.array(EYES)[dice.choice("eye", len(EYES))],
        "lip": np.clip(skin * np.array([0.90, 0.56, 0.56]) + np.array([0.04, 0.0, 0.02]), 0, 1),
        "width": dice.uniform("width", 0.47, 0.56),
        "height": dice.uniform("height", 0.575, 0.645),
        "jaw": dice.uniform("jaw", 0.06, 0.36),
        "square": dice.uniform("square", 0.0, 0.8),
        "ear": dice.uniform("ear", 0.085, 0.13),
        "eye apart": dice.uniform("eye apart", 0.36, 0.45),
        "eye level": dice.uniform("eye level", 0.03, 0.12),
        "eye width": dice.uniform("eye width", 0.155, 0.195),
        "eye height": dice.uniform("eye height", 0.095, 0.145),
        "eye slant": dice.uniform("eye slant", -0.16, 0.22),
        "iris": dice.uniform("iris", 0.088, 0.108),
        "lash": dice.uniform("lash", 0.02, 0.055),
        "brow level": dice.uniform("brow level", 0.215, 0.29),
        "brow slant": dice.uniform("brow slant", -0.3, 0.14),
        "brow arch": dice.uniform("brow arch", 0.3, 2.2),
        "brow weight": dice.uniform("brow weight", 0.026, 0.062),
        "nose width": dice.uniform("nose width", 0.10, 0.19),
        "nose length": dice.uniform("nose length", 0.28, 0.40),
        "mouth level": dice.uniform("mouth level", 0.55, 0.62),
        "mouth width": dice.uniform("mouth width", 0.21, 0.30),
        "lip weight": dice.uniform("lip weight", 0.045, 0.085),
        "blush": dice.uniform("blush", 0.05, 0.40),
        "freckles": np.where(dice.uniform("freckled") < 0.2, 0.4, 0.0),
        "beard cut": dice.uniform("beard cut", 0.0, 1.0),
        "volume": by_style("volume", (0.10, 0.16), (0.11, 0.18), (0.08, 0.13), (0.24, 0.40), (0.07, 0.11), (0.12, 0.18), (0.02, 0.03)),
        "hairline": by_style(
            "hairline", (-0.66, -0.52), (-0.40, -0.28), (-0.62, -0.52), (-0.56, -0.42), (-0.60, -0.5), (-0.56, -0.46), (-0.72, -0.6)
        ),
        "parting": by_style("parting", (-0.5, 0.5), (-0.1, 0.1), (-0.1, 0.1), (-0.2, 0.2), (-0.1, 0.1), (-0.2, 0.2), (0, 0)),
        "fall": by_style("fall", (0.35, 0.6), (0.0, 0.05), (0.05, 0.15), (0.05, 0.2), (0.1, 0.3), (0.0, 0.1), (0, 0.05)),
        "strands": by_style("strands", (0.0, 0.03), (0.04, 0.10), (0.0, 0.01), (0.02, 0.05), (0.0, 0.01), (0.12, 0.2), (0, 0)),
        "sides": by_style("sides", (0.12, 0.24), (0.22, 0.32), (0.05, 0.15), (0.24, 0.34), (0.05, 0.12), (0.06, 0.14), (0.04, 0.08)),
        "curl": by_style("curl", (0.0, 0.03), (0.0, 0.02), (0.0, 0.01), (0.10, 0.20), (0.0, 0.01), (0.03, 0.05), (0, 0)),
        "spikes": by_style("spikes", (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0.10, 0.16), (0, 0)),
        "bun": by_style("bun", (0, 0), (0, 0), (0, 0), (0, 0), (0.20, 0.27), (0, 0), (0, 0)),
        "hair opacity": by_style("hair opacity", (1, 1), (1, 1), (1, 1), (1, 1), (1, 1), (1, 1), (0.55, 0.7)),
        "noise x": dice.choice("noise x", 64),
        "noise y": dice.choice("noise y", 64),
    }


def render(sitting: Sitting) -> Array:
    """(n, 64, 64, 3) uint8 pictures of a sitting."""
    count = len(sitting.identities)
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for block in blocks(count, BLOCK):
        canvas = _portrait(_Subject(sitting, block))
        images[block] = to_bytes(canvas).transpose(0, 2, 3, 1)
    return images


class _Subject:
    """One block of a sitting, as numbers that broadcast over pixels: `p[name]` is (n, 1, 1) float32, `colour[name]` is (n, 3)."""

    def __init__(self, sitting: Sitting, block: slice) -> None:
        who = sitting.identities[block]
        values = {name: table[who] for name, table in people().items()} | {name: table[block] for name, table in sitting.chance.items()}
        values |= {name: sitting.attributes[block, k].astype(np.float64) for k, name in enumerate(ATTRIBUTES)}
        values |= {name: sitting.factors[block, k].astype(np.float64) for k, name in enumerate(FACTORS)}
        for name, least in (("volume", 0.09), ("hair opacity", 1.0)):  # even who is shaven can grow long hair
            values[name] = np.maximum(values[name], least * values["long_hair"])
        yaw, sun = values["pose"] * TURN, values["light"] * 1.15
        values |= {"sin": np.sin(yaw), "cos": np.cos(yaw), "sun x": 0.9 * np.sin(sun), "sun z": 0.9 * np.cos(sun)}
        self.n = len(who)
        self.values = values
        self.p = {name: per_image(table) for name, table in values.items() if table.ndim == 1}
        self.colour = {name: table for name, table in values.items() if table.shape[1:] == (3,)}

    def having(self, attribute: str) -> Array:
        """Indices of the images that have an attribute."""
        return np.flatnonzero(self.values[attribute])


def _portrait(s: _Subject) -> Array:
    """(n, 3, 64, 64) float32 in [0, 1], painted from back to front."""
    p = s.p
    axis = (np.arange(SIZE, dtype=np.float32) + np.float32(0.5)) * PIXEL - 1
    x, y = axis[None, None, :], axis[None, :, None]
    canvas = _background(s)

    # The head's own upright axes: moved, sized, and tilted about the neck.
    x, y = (x - p["shift x"]) / p["zoom"], (y - p["shift y"]) / p["zoom"]
    head_x = x - p["tilt"] * (y - np.float32(0.6))
    head_y = y + p["tilt"] * x
    head = _head(s, np.ascontiguousarray(head_x[HEAD]), np.ascontiguousarray(head_y[HEAD]))
    cap = _cap(s, head_x, head_y)

    _hair_behind(s, canvas, cap)
    _body(s, canvas, x, y)
    face = np.ascontiguousarray(canvas[WINDOW])  # numpy runs through whole arrays faster than through windows
    _skin(s, face, head)
    _features(s, face, head)
    canvas[WINDOW] = face
    _hair_in_front(s, canvas, head, cap)
    _hat(s, canvas, cap)
    return canvas


# ---- geometry: what each pixel sees ----------------------------------------------------------------------------------------------------


class _Ball:
    """An ellipsoid over a window of the picture. All arrays (n, rows, columns).

    x, y: the picture's plane; nx, v, nz: the surface normal of the unit ball, to the right, down and at the viewer; u, w: the same point
    as the head itself has it, u to its side and w to its front, once the turn is undone; outside: distance to the outline, negative inside.
    """

    def __init__(self, s: _Subject, x: Array, y: Array, nx: Array, v: Array, q: Array, radius: float) -> None:
        self.x, self.y, self.nx, self.v = x, y, nx, v
        self.nz = np.sqrt(np.clip(1 - q, 0, 1))
        self.u = nx * s.p["cos"] - self.nz * s.p["sin"]
        self.w = nx * s.p["sin"] + self.nz * s.p["cos"]
        self.outside = (np.sqrt(np.maximum(q, 0)) - 1) * np.float32(radius)
        self.lit = nx * s.p["sun x"] - v * np.float32(0.42) + self.nz * s.p["sun z"]  # Lambert: the normal times the light


def _head(s: _Subject, x: Array, y: Array) -> _Ball:
    """The face: an ellipsoid whose lower half narrows to the jaw, and whose chin swings towards where it looks."""
    p = s.p
    y = y - np.float32(0.05)
    v = y / p["height"]
    low = np.clip(v, 0, 1)
    nx = (x - p["sin"] * low * np.float32(0.09)) / (p["width"] * (1 - p["jaw"] * low * low))
    across, down = nx * nx, v * v
    q = across + down
    q += p["square"] * low * (np.sqrt(across * across + down * down) - q)  # towards the rounder box x^4 + y^4 = 1
    return _Ball(s, x, y, nx, v, q, 0.55)


def _cap(s: _Subject, x: Array, y: Array) -> _Ball:
    """The skull with its hair, which sits behind the face and so swings the other way. Its x and y cover the whole picture."""
    p = s.p
    x = x + p["sin"] * np.float32(0.07)
    y = y - (np.float32(0.03) - np.float32(0.35) * p["volume"])
    nx, v = x[:, CAP] / (p["width"] * (1 + p["volume"])), y[:, CAP] / (p["height"] * (1 + np.float32(0.75) * p["volume"]))
    return _Ball(s, x, y, nx, v, nx * nx + v * v, 0.6)


def _wave(t: Array) -> Array:
    """Triangle wave of period 1 between -1 and 1: a sine would differ between machines in its last bit."""
    return np.abs((t - np.floor(t)) * 4 - 2) - 1


def _bump(q: Array) -> Array:
    """Soft blob: 1 where the squared radius q is 0, falling to 0 at q = 1."""
    soft = np.clip(1 - q, 0, 1)
    return soft * soft


@lru_cache(maxsize=1)
def _noise() -> tuple[Array, Array]:
    """(128, 128) waves for curls and (128, 128) fine grain for beards and freckles."""
    return noise_tile(SEED, 128, 6), noise_tile(SEED + 1, 128, 2)


@lru_cache(maxsize=1)
def _strand_table() -> Array:
    """(1024,) float32 in about [-1, 1]: how light the hair is from strand to strand."""
    return noise_tile(SEED + 2, 256, 3)[:4].reshape(-1)


def _strands(s: _Subject | _Some, position: Array) -> Array:
    """Streaks that run where `position`, about -1 .. 1 across the head, is constant."""
    at = ((position * 60 + 512).astype(np.int32) + s.values["noise x"].astype(np.int32)[:, None, None] * 7) & 1023
    return _strand_table().take(at)


def _noise_of(s: _Subject | _Some, table: Array, like: Array) -> Array:
    """Each person's own cut-out of a noise table, of the shape of `like`, (n, rows, columns)."""
    windows = np.lib.stride_tricks.sliding_window_view(table, like.shape[1:])
    return windows[s.values["noise y"], s.values["noise x"]]


class _Some:
    """A subject reduced to some of its images, and the part of a canvas that belongs to them."""

    def __init__(self, s: _Subject, chosen: Array) -> None:
        self.n, self.chosen = len(chosen), chosen
        self.values = {name: table[chosen] for name, table in s.values.items()}
        self.p = {name: table[chosen] for name, table in s.p.items()}
        self.colour = {name: table[chosen] for name, table in s.colour.items()}


# ---- painting, from back to front ------------------------------------------------------------------------------------------------------


def _background(s: _Subject) -> Array:
    """A soft two-colour ground with blurred patches and, at times, discs of light. Made at half size: it has no detail to lose."""
    p, half = s.p, SIZE // 2
    axis = (np.arange(half, dtype=np.float32) + np.float32(0.5)) * (2 * PIXEL) - 1
    x, y = axis[None, None, :], axis[None, :, None]
    blend = np.float32(0.45) + np.float32(0.3) * p["slope"] * x + np.float32(0.4) * y
    blend = np.clip(blend + smooth_field(s.values["blobs"], half) * (p["blobbed"] * 3), 0, 1)
    glow = np.float32(0.07) * p["light"] * x - np.float32(0.10) * np.maximum(x * x + y * y - np.float32(0.6), 0)
    for k in range(4):
        cx, cy, r = (per_image(s.values["bokeh"][:, k, i]) for i in range(3))
        r = np.float32(0.26) + np.float32(0.12) * r
        distance = np.sqrt((x - cx) ** 2 + (y - cy) ** 2) - r
        glow = glow + cover(distance, np.float32(0.1)) * p["bokeh lit"] * np.float32(0.5)
    canvas = np.empty((s.n, 3, SIZE, SIZE), np.float32)
    for channel in range(3):
        top, bottom = per_image(s.colour["ground"][:, channel]), per_image(s.colour["ground 2"][:, channel])
        canvas[:, channel] = _double(_double(top + blend * (bottom - top) + glow).transpose(0, 2, 1)).transpose(0, 2, 1)
    return canvas


def _double(values: Array) -> Array:
    """(n, h, w) -> (n, 2 h, w), bilinear."""
    padded = np.concatenate([values[:, :1], values, values[:, -1:]], axis=1)
    near, quarter = padded[:, 1:-1] * np.float32(0.75), padded * np.float32(0.25)
    return np.stack([near + quarter[:, :-2], near + quarter[:, 2:]], axis=2).reshape(len(values), -1, values.shape[2])


def _hair_behind(s: _Subject, canvas: Array, cap: _Ball) -> None:
    """Long hair that falls behind the neck, and the bun."""
    dark, light = _hair_tones(s)
    long = s.having("long_hair")
    if len(long):
        k, rows = _Some(s, long), slice(22, SIZE)
        x, y = cap.x[long, rows], cap.y[long, rows]
        half = k.p["width"] * (1 + k.p["volume"])
        wave = _noise_of(k, _noise()[0], x) * (k.p["curl"] + np.float32(0.04))
        distance = np.maximum(
            np.abs(x) - half - (y - np.float32(0.15)) * np.float32(0.12) - wave * np.clip(y * 2, 0, 1), y - np.float32(0.80) - 2 * wave
        )
        distance = np.maximum(distance, -y)
        nx = np.clip(x / half, -1, 1)
        lit = nx * k.p["sun x"] + np.sqrt(1 - nx * nx) * k.p["sun z"]
        shade = np.float32(0.08) + np.float32(0.38) * lit + np.float32(0.22) * _strands(k, nx)
        _paint_some(canvas, long, rows, cover(distance, SOFT), dark[long], light[long], shade)
    bun = np.flatnonzero((s.values["bun"] > 0) & (s.values["hat"] == 0))
    if len(bun):
        k, rows = _Some(s, bun), slice(0, 24)
        r = k.p["bun"]
        nx = (cap.x[bun, rows] + k.p["sin"] * np.float32(0.05)) / r
        ny = (cap.y[bun, rows] + k.p["height"] * np.float32(1.13)) / r
        q = nx * nx + ny * ny
        lit = nx * k.p["sun x"] - ny * np.float32(0.42) + np.sqrt(np.clip(1 - q, 0, 1)) * k.p["sun z"]
        shade = np.float32(0.15) + np.float32(0.65) * lit + np.float32(0.2) * _strands(k, nx + ny)
        _paint_some(canvas, bun, rows, cover((np.sqrt(q) - 1) * r, SOFT), dark[bun], light[bun], shade)


def _body(s: _Subject, canvas: Array, x: Array, y: Array) -> None:
    """Neck, shoulders and clothes. x is (n, 1, 64) and y is (n, 64, 1)."""
    p, rows = s.p, slice(42, SIZE)
    view, y = canvas[:, :, rows], y[:, rows]
    neck_x = x / np.float32(0.23)
    turned = np.clip(neck_x, -1, 1)
    lit = turned * p["sun x"] + np.sqrt(1 - turned * turned) * p["sun z"]
    under_chin = np.clip((y - np.float32(0.56)) * np.float32(2.4), 0, 1)
    dark, light = _skin_tones(s)
    neck = cover(np.abs(x) - np.float32(0.22) - np.clip(y - np.float32(0.66), 0, 1) * np.float32(0.5), SOFT)
    shade = np.clip((lit + np.float32(0.4)) * np.float32(0.62), 0, 1) * (np.float32(0.25) + np.float32(0.65) * under_chin)
    paint(view, neck * np.ones_like(shade), dark, light, shade)

    ex, ey = x / np.float32(0.84), (y - np.float32(1.22)) / np.float32(0.52)
    shoulders = cover((np.sqrt(ex * ex + ey * ey) - 1) * np.float32(0.6), SOFT)
    cx, cy = x / np.float32(0.30), (y - np.float32(0.66)) / p["neckline"]
    collar = (np.sqrt(cx * cx + cy * cy) - 1) * np.float32(0.26)
    shoulders = shoulders * cover(-collar, SOFT)
    seam = cover(np.abs(collar - np.float32(0.04)) - np.float32(0.012), SOFT)
    stripes = cover(_wave(y * 6) * np.float32(0.05), SOFT) * p["stripes"]
    nx = np.clip(x / np.float32(0.9), -1, 1)
    shade = (
        np.float32(0.30)
        + np.float32(0.50) * (nx * p["sun x"] + np.sqrt(1 - nx * nx) * p["sun z"])
        - np.float32(0.35) * np.clip(y - np.float32(0.75), 0, 1)
    )
    shade = np.clip(shade - np.float32(0.2) * seam - np.float32(0.28) * stripes, 0, 1)
    cloth = s.colour["cloth"]
    paint(view, shoulders, cloth * 0.35, np.clip(cloth * 1.08 + 0.04, 0, 1), shade)


def _skin(s: _Subject, canvas: Array, head: _Ball) -> None:
    """The bare head with its ears, modelled by light: nose, cheeks, eye sockets, and the shadow of hair or hat on the brow."""
    p = s.p
    dark, light = _skin_tones(s)
    shade = np.clip((head.lit + np.float32(0.42)) / np.float32(1.36), 0, 1)
    edge = np.where(p["hat"] > 0, np.float32(-0.36), p["hairline"] * np.float32(1.06))
    shade -= np.float32(0.24) * np.clip(1 - (head.v - edge - p["fall"] * np.abs(head.u - p["parting"])) * np.float32(3.6), 0, 1)

    rows = slice(10, 44)
    u, v, nx, part = head.u[:, rows], head.v[:, rows], head.nx[:, rows], shade[:, rows]
    m = np.abs(u)
    along = np.clip((v - p["eye level"] + np.float32(0.10)) / p["nose length"], 0, np.float32(1.35))
    half = p["nose width"] * (np.float32(0.55) + np.float32(0.6) * along)
    ridge = (nx - p["sin"] * (1 + np.float32(0.20) * along)) / half  # -1 .. 1 across the nose, which stands out from the ball
    bridge = np.clip(along * 2, 0, 1) * np.clip((np.float32(1.35) - along) * 5, 0, 1)
    part += bridge * np.clip(1 - ridge * ridge, 0, 1) * (ridge * p["sun x"] * np.float32(0.62) + np.float32(0.10))
    tip = p["eye level"] + p["nose length"]
    flank = (np.abs(ridge) - np.float32(1.05)) / np.float32(0.45)
    part -= np.float32(0.20) * bridge * _bump(flank * flank)
    round_tip = (v - tip + np.float32(0.05)) / np.float32(0.10)
    part += np.float32(0.16) * _bump(ridge * ridge * np.float32(1.6) + round_tip * round_tip)
    below = (v - tip - np.float32(0.035)) / np.float32(0.07)
    part -= np.float32(0.42) * _bump(ridge * ridge * np.float32(0.8) + below * below)
    socket = (m - p["eye apart"]) / np.float32(0.30)
    sunk = (v - p["eye level"] + np.float32(0.10)) / np.float32(0.22)
    part -= np.float32(0.12) * _bump(socket * socket + sunk * sunk)
    cheek = (m - np.float32(0.46)) / np.float32(0.30)
    apple = (v - np.float32(0.36) + np.float32(0.05) * p["smile"]) / np.float32(0.20)
    rosy = _bump(cheek * cheek + apple * apple)
    part += rosy * (np.float32(0.05) + np.float32(0.07) * p["smile"])
    np.clip(shade, 0, 1, out=shade)
    paint(canvas, cover(head.outside, SOFT), dark, light, shade)

    view = canvas[:, :, rows]
    blush = np.clip(s.colour["skin"] * np.array([0.98, 0.56, 0.54]) + np.array([0.05, 0.0, 0.02]), 0, 1)
    inside = cover(head.outside[:, rows], SOFT)
    paint(view, rosy * p["blush"] * inside, blush)
    freckled = np.flatnonzero(s.values["freckles"])
    if len(freckled):
        k = _Some(s, freckled)
        spots = np.clip(_noise_of(k, _noise()[1], u) * 4 - np.float32(0.7), 0, 1) * k.p["freckles"]
        spots *= _bump((m[freckled] ** 2 + apple[freckled] ** 2) * np.float32(0.6)) * inside[freckled]
        some = view[freckled]
        paint(some, spots, k.colour["skin"] * np.array([0.66, 0.48, 0.40]))
        view[freckled] = some
    few = slice(12, 30)  # the rows of `rows` where nostrils can be
    nostril = (np.abs(ridge[:, few]) - np.float32(0.42)) / np.float32(0.30)
    height = (v[:, few] - tip) / np.float32(0.045)
    paint(view[:, :, few], np.float32(0.75) * _bump(nostril * nostril + height * height), s.colour["skin"] * np.array([0.45, 0.28, 0.26]))
    _ears(s, canvas, head, dark, light)


def _ears(s: _Subject, canvas: Array, head: _Ball, dark: Array, light: Array) -> None:
    """Both ears. The one on the side that turns away goes behind the head."""
    p, rows = s.p, slice(12, 38)
    view, x, y = canvas[:, :, rows], head.x[:, rows], head.y[:, rows]
    behind = cover(head.outside[:, rows], SOFT)
    for side in (-1, 1):
        near = np.clip(np.float32(0.3) - side * p["sin"] * 6, 0, 1)
        ex = (x - side * p["width"] * p["cos"] * np.float32(1.03)) / (np.float32(0.055) + np.float32(0.03) * near)
        ey = (y - np.float32(0.07)) / p["ear"]
        r = np.sqrt(ex * ex + ey * ey)
        alpha = cover((r - 1) * np.float32(0.08), SOFT) * (1 - behind * (1 - near))
        shade = np.clip(np.float32(0.52) + side * np.float32(0.30) * p["sun x"] - np.float32(0.40) * _bump(r * r * 2), 0, 1)
        paint(view, alpha, dark, light, shade)


def _features(s: _Subject, canvas: Array, head: _Ball) -> None:
    """Eyes, brows, beard, mouth and glasses, painted on the head's surface."""
    _eyes(s, canvas, head)
    beard = s.having("beard")
    if len(beard):
        _beard(_Some(s, beard), canvas, head)
    _mouth(s, canvas, head)
    glasses = s.having("glasses")
    if len(glasses):
        _glasses(_Some(s, glasses), canvas, head)


def _eyes(s: _Subject, canvas: Array, head: _Ball) -> None:
    p, rows = s.p, slice(10, 36)
    u, v = head.u[:, rows], head.v[:, rows]
    view = canvas[:, :, rows]
    soft = SOFT / np.float32(0.6)  # an edge's width on the unit ball
    m = np.abs(u)
    right = np.where(u > 0, np.float32(1), np.float32(-1))
    lateral = m - p["eye apart"]
    squint = 1 - np.float32(0.14) * p["smile"]
    ex = lateral / p["eye width"]
    level = v - p["eye level"] + p["eye slant"] * lateral
    ey = level / (p["eye height"] * squint)
    r = np.sqrt(ex * ex + ey * ey)
    opening = (r - 1) * p["eye height"]
    ball = cover(opening, soft)
    white = np.ones((s.n, 3)) * np.array([0.99, 0.98, 0.97])
    shade = np.clip(np.float32(0.82) + np.float32(0.9) * level / p["eye height"] - np.float32(0.18) * ex * ex, 0, 1)
    paint(view, ball, white * np.array([0.62, 0.58, 0.62]), white, shade)

    iu = u - right * p["eye apart"] - p["gaze"] - np.float32(0.02) * p["sin"]
    distance = np.sqrt(iu * iu + level * level)
    iris = cover(distance - p["iris"], soft) * ball
    eye = s.colour["eye"]
    shade = np.clip(np.float32(0.45) + level * 5 - np.clip(distance / p["iris"] - np.float32(0.6), 0, 1), 0, 1)
    paint(view, iris, eye * 0.45, np.clip(eye * 1.35 + 0.06, 0, 1), shade)
    black = np.full((s.n, 3), 0.05)
    paint(view, cover(distance - np.float32(0.045), soft) * ball, black)
    gx, gy = iu - np.float32(0.035) * (1 + p["light"]) + np.float32(0.03), level + np.float32(0.045)
    paint(view, cover(np.sqrt(gx * gx + gy * gy) - np.float32(0.026), soft * np.float32(0.8)) * ball, white)

    upper = np.clip(np.float32(0.35) - ey * np.float32(1.8), 0, 1)
    lid = cover(np.abs(opening) - p["lash"], soft) * upper
    paint(view, lid, s.colour["brow colour"] * 0.35 + 0.03)
    lower = cover(np.abs(opening) - np.float32(0.01), soft) * (1 - upper) * np.float32(0.35)
    paint(view, lower, s.colour["skin"] * np.array([0.55, 0.36, 0.34]))

    rise = v - p["eye level"] + p["brow level"] - np.float32(0.02) + np.float32(0.03) * p["smile"]
    rise = rise - p["brow slant"] * lateral * np.float32(0.6) + np.float32(0.01) - p["brow arch"] * lateral * lateral
    thick = np.abs(rise) - p["brow weight"] * (np.float32(1.15) - np.clip(np.abs(lateral + np.float32(0.05)) * 4, 0, 1) * np.float32(0.6))
    paint(view, cover(np.maximum(thick, np.abs(lateral) - np.float32(0.21)), soft), s.colour["brow colour"])


def _beard(k: _Some, canvas: Array, head: _Ball) -> None:
    """A full beard, a goatee or something between, always with a moustache."""
    p, rows = k.p, slice(20, 54)
    u, v = head.u[k.chosen, rows], head.v[k.chosen, rows]
    grain = _noise_of(k, _noise()[1], u)
    full = np.clip((np.float32(0.72) - p["beard cut"]) * 6, 0, 1)
    rim = np.float32(0.70) - u * u * np.float32(0.85) - v + grain * np.float32(0.05)
    rim = np.maximum(rim, np.abs(u) - np.float32(0.42) - full)
    mu, mv = u / np.float32(0.36), (v - p["mouth level"] + np.float32(0.135) - u * u * np.float32(1.1)) / np.float32(0.075)
    moustache = (np.sqrt(mu * mu + mv * mv) - 1) * np.float32(0.09)
    side = np.maximum(
        np.abs(np.abs(u) - np.float32(0.34)) - np.float32(0.07), np.abs(v - p["mouth level"] - np.float32(0.06)) - np.float32(0.2)
    )
    distance = np.minimum(np.minimum(rim, moustache), side) * np.float32(0.6)
    distance = np.maximum(distance, head.outside[k.chosen, rows] - np.float32(0.05) * np.clip(v, 0, 1))
    dark, light = _hair_tones(k)
    shade = np.clip(np.float32(0.25) + np.float32(0.45) * head.lit[k.chosen, rows] + np.float32(0.30) * grain, 0, 1)
    _paint_some(canvas, k.chosen, rows, cover(distance, SOFT * np.float32(1.2)) * np.float32(0.96), dark * 0.9, light * 0.9, shade)


def _mouth(s: _Subject, canvas: Array, head: _Ball) -> None:
    p, rows = s.p, slice(24, 48)
    u, v = head.u[:, rows], head.v[:, rows]
    view = canvas[:, :, rows]
    soft = SOFT / np.float32(0.6)
    smile, opened = p["smile"], p["open_mouth"]
    half = p["mouth width"] * (1 + np.float32(0.24) * smile - np.float32(0.14) * opened * (1 - smile))
    bend = np.float32(0.2) + np.float32(1.7) * smile
    line = v - p["mouth level"] + bend * (u * u - np.float32(0.018))  # 0 on the line between the lips, whose corners rise in a smile
    gap = opened * (np.float32(0.10) + np.float32(0.02) * smile)  # half the height of the opening
    line = line - gap * np.float32(0.5)
    ux = u / half
    lips = p["lip weight"] * (1 - np.float32(0.25) * smile) + gap
    ly = line / lips
    ring = (np.sqrt(ux * ux + ly * ly) - 1) * lips
    shade = np.clip(np.float32(0.5) + line * 4 + np.float32(0.25) * ux * p["sun x"], 0, 1)
    paint(view, cover(ring, soft), s.colour["lip"] * np.array([0.70, 0.58, 0.60]), np.clip(s.colour["lip"] * 1.08, 0, 1), shade)

    closed = cover(np.maximum(np.abs(line) - np.float32(0.016) - np.float32(0.008) * smile, np.abs(ux) - np.float32(0.98)), soft) * (
        1 - opened
    )
    deep = s.colour["lip"] * np.array([0.42, 0.30, 0.32])
    paint(view, closed, deep)
    inner = np.maximum(gap, np.float32(0.01))
    ix, iy = ux / np.float32(0.86), line / inner
    hole = cover((np.sqrt(ix * ix + iy * iy) - 1) * inner, soft) * opened
    paint(view, hole, np.full((s.n, 3), 1.0) * np.array([0.25, 0.06, 0.09]))
    tongue = np.ones((s.n, 3)) * np.array([0.82, 0.36, 0.38])
    ty = (iy - np.float32(0.95)) / np.float32(0.75)
    paint(view, hole * cover((np.sqrt(ix * ix * 2 + ty * ty) - 1) * inner, soft) * np.float32(0.9), tongue)
    paint(view, hole * cover(line + gap * np.float32(0.30), soft) * (np.float32(0.65) + np.float32(0.35) * smile), np.ones((s.n, 3)) * 0.97)


def _glasses(k: _Some, canvas: Array, head: _Ball) -> None:
    p, rows = k.p, slice(10, 38)
    u, v = head.u[k.chosen, rows], head.v[k.chosen, rows]
    view = canvas[k.chosen, :, rows]
    soft = SOFT / np.float32(0.6)
    m = np.abs(u)
    lens = p["lens"]
    ax, ay = (m - p["eye apart"] - np.float32(0.01)) / (lens * np.float32(1.12)), (v - p["eye level"] - np.float32(0.01)) / lens
    across, down = ax * ax, ay * ay
    round_lens, box_lens = np.sqrt(across + down), np.sqrt(np.sqrt(across * across + down * down))
    distance = (round_lens + p["square lens"] * (box_lens - round_lens) - 1) * lens
    glass = cover(distance, soft)
    front = cover(head.outside[k.chosen, rows] - np.float32(0.03), SOFT)
    streak = np.clip(1 - np.abs(u * np.float32(0.8) + v - p["eye level"] - np.float32(0.3) * p["light"]) * 9, 0, 1)
    black = np.full((k.n, 3), 0.06)
    white = np.ones((k.n, 3))
    paint(view, glass * p["shades"] * front, black)
    paint(view, glass * streak * np.float32(0.42) * front, white)
    bar = np.abs(v - p["eye level"] + np.float32(0.05)) - np.float32(0.022)
    bridge = np.maximum(bar, m - p["eye apart"] + lens)
    temple = np.maximum(bar, p["eye apart"] + lens - m)
    frame = np.minimum(np.minimum(np.abs(distance) - np.float32(0.026), bridge), np.maximum(temple, np.float32(-0.012)))
    tone = k.colour["frame"]
    shade = np.clip(np.float32(0.35) - ay * np.float32(0.25) + np.float32(0.2) * ax * p["sun x"], 0, 1)
    paint(view, cover(frame, soft) * front, tone * 0.6, np.clip(tone * 1.25, 0, 1), shade)
    canvas[k.chosen, :, rows] = view


def _hair_in_front(s: _Subject, canvas: Array, head: _Ball, cap: _Ball) -> None:
    """Hair on the skull down to the hairline and the ears; with long hair, locks that fall in front of the shoulders."""
    p, u, v, w, nx = s.p, cap.u, cap.v, cap.w, cap.nx
    wave = _noise_of(s, _noise()[0], u)
    low = np.clip(v, 0, 1) * (1 - p["long_hair"])
    outer = cap.outside - (np.float32(0.8) * p["curl"]) * wave
    outer += np.float32(0.16) * low
    spiky = np.flatnonzero(s.values["spikes"])
    outer[spiky] -= p["spikes"][spiky] * (np.float32(0.5) + np.float32(0.5) * _wave(nx[spiky] * np.float32(2.6))) * np.clip(-v[spiky], 0, 1)
    fringe = p["fall"] * np.abs(u - p["parting"])
    fringe += p["hairline"]
    fringe += p["strands"] * _wave(u * np.float32(2.3))
    fringe += (np.float32(0.5) * p["curl"]) * wave
    sides = p["sides"] + np.float32(0.13) * p["long_hair"] - np.float32(0.25) * low
    end = np.float32(0.12) + np.float32(0.5) * p["sides"] + np.float32(0.28) * p["long_hair"]
    distance = np.minimum((v - fringe) * np.float32(0.6), (w - sides) * np.float32(0.3))
    beyond = distance[HEAD]  # around the face, hair fills what lies between the head and the hair's own outline
    np.minimum(beyond, -np.float32(0.02) - head.outside[:, : CAP.stop - HEAD_TOP], out=beyond)
    distance = np.maximum(np.maximum(distance, (v - end) * np.float32(0.6)), outer)
    np.maximum(distance, np.where(p["hat"] > 0, np.float32(-0.42), np.float32(-9)) - v, out=distance)  # none sticks out of a hat
    fan = (u - p["parting"]) / (np.float32(1.55) + np.clip(v, -1, 1))
    curly = np.clip(p["curl"] * 6, 0, 1)
    streaks = _strands(s, fan) * (1 - curly) + wave * curly
    band = (v + np.float32(0.62) + np.float32(0.12) * nx * nx) / np.float32(0.24)
    gloss = _bump(band * band) * np.clip(cap.lit, 0, 1)
    gloss *= np.float32(0.26)
    gloss += np.float32(0.52) * cap.lit
    gloss += np.float32(0.20) * streaks
    gloss += np.float32(0.10)
    shade = np.clip(gloss, 0, 1, out=gloss)
    dark, light = _hair_tones(s)
    paint(canvas[:, :, CAP], cover(distance, SOFT) * p["hair opacity"], dark, light, shade)

    long = s.having("long_hair")
    if len(long):
        k, rows = _Some(s, long), slice(26, SIZE)
        x, y = cap.x[long, rows], cap.y[long, rows]
        wave = _noise_of(k, _noise()[0], x) * (k.p["curl"] + np.float32(0.05))
        centre = k.p["width"] * (1 + k.p["volume"]) * np.float32(0.90)
        thick = np.float32(0.115) - np.clip(y - np.float32(0.35), 0, 1) * np.float32(0.12) + np.float32(0.25) * k.p["curl"]
        thick = thick * np.clip((y + np.float32(0.05)) * 4, 0, 1)
        offset = np.abs(x) - centre + wave
        distance = np.maximum(np.abs(offset) - thick, y - np.float32(0.86) - wave)
        side = np.where(x > 0, np.float32(0.3), np.float32(-0.3))
        lit = np.clip(offset * 4, -1, 1) * side + side * k.p["sun x"] + k.p["sun z"] * np.float32(0.7)
        shade = np.clip(np.float32(0.22) + np.float32(0.42) * lit + np.float32(0.25) * _strands(k, offset * 2), 0, 1)
        _paint_some(canvas, long, rows, cover(distance, SOFT) * k.p["hair opacity"], dark[long], light[long], shade)


def _hat(s: _Subject, canvas: Array, cap: _Ball) -> None:
    """A beanie with a folded band and a bobble, a cap with a visor, or a hat with a brim."""
    chosen = s.having("hat")
    if not len(chosen):
        return
    k, rows = _Some(s, chosen), slice(0, 36)
    p = k.p
    beanie, peaked, brimmed = (per_image(k.values["hat kind"] == kind) for kind in range(3))
    view = canvas[chosen, :, rows]
    x, y = cap.x[chosen, rows], cap.y[chosen, rows] + np.float32(0.03)
    nx = x / (p["width"] * np.float32(1.17) + np.float32(0.25) * np.maximum(p["volume"] - np.float32(0.12), 0))
    v = y / (p["height"] * np.float32(1.16))
    q = nx * nx + v * v
    nz = np.sqrt(np.clip(1 - q, 0, 1))
    lit = nx * p["sun x"] - v * np.float32(0.42) + nz * p["sun z"]
    edge = np.float32(-0.30) - np.float32(0.06) * nz  # the hat's rim runs round the head, so it bows upwards in front
    u = nx * p["cos"] - nz * p["sin"]
    tone = k.colour["felt"]
    dark, light = tone * 0.38, np.clip(tone * 1.12 + 0.05, 0, 1)

    bx, by = (x + p["sin"] * np.float32(0.04)) / np.float32(0.15), (y + p["height"] * np.float32(1.20)) / np.float32(0.15)
    bobble = np.sqrt(bx * bx + by * by) - _noise_of(k, _noise()[1], x) * np.float32(0.2)
    shade = np.clip(np.float32(0.55) + np.float32(0.3) * (bx * p["sun x"] - by), 0, 1)
    paint(view, cover((bobble - 1) * np.float32(0.15), SOFT) * beanie, np.clip(dark + 0.25, 0, 1), np.clip(light + 0.25, 0, 1), shade)

    crown = np.maximum((np.sqrt(q) - 1) * np.float32(0.6), (v - edge) * np.float32(0.65))
    ribs = _wave(u * 5) * beanie
    shade = np.float32(0.20) + np.float32(0.62) * lit + np.float32(0.07) * ribs
    ribbon = cover(np.abs(v - edge + np.float32(0.11)) - np.float32(0.09), np.float32(0.06)) * brimmed
    seam = cover(np.abs(u) - np.float32(0.012), np.float32(0.07)) * peaked * np.float32(0.15)
    paint(view, cover(crown, SOFT), dark, light, np.clip(shade - np.float32(0.4) * ribbon - seam, 0, 1))

    fold = np.maximum(
        (np.sqrt(q) - np.float32(1.05)) * np.float32(0.6), np.abs(v - edge + np.float32(0.08)) * np.float32(0.6) - np.float32(0.075)
    )
    shade = np.float32(0.14) + np.float32(0.60) * lit + np.float32(0.12) * _wave(u * 6)
    paint(view, cover(fold, SOFT) * beanie, dark * 0.9, light, np.clip(shade, 0, 1))

    vx = (x - p["sin"] * np.float32(0.50)) / (p["width"] * np.float32(0.98))
    vy = (y / p["height"] + np.float32(0.36)) / np.float32(0.17)
    visor = (np.sqrt(vx * vx + vy * vy) - 1) * np.float32(0.12)
    visor = np.maximum(visor, (np.float32(-0.42) - y / p["height"]) * np.float32(0.6))
    shade = np.clip(np.float32(0.55) - np.float32(0.35) * vy + np.float32(0.2) * vx * p["sun x"], 0, 1)
    paint(view, cover(visor, SOFT) * peaked, dark * 0.8, light * 0.9, shade)

    wx = x / (p["width"] * np.float32(1.62))
    wy = (y / p["height"] + np.float32(0.36) - np.float32(0.10) * wx * wx) / np.float32(0.13)
    brim = (np.sqrt(wx * wx + wy * wy) - 1) * np.float32(0.10)
    shade = np.clip(np.float32(0.58) - np.float32(0.30) * wy + np.float32(0.25) * wx * p["sun x"], 0, 1)
    paint(view, cover(brim, SOFT) * brimmed, dark, light, shade)
    canvas[chosen, :, rows] = view


def _skin_tones(s: _Subject | _Some) -> tuple[Array, Array]:
    """Colours in shadow, which is warm as blood shows through skin, and in full light."""
    skin = s.colour["skin"]
    return skin * np.array([0.50, 0.34, 0.34]) + np.array([0.03, 0.01, 0.03]), np.clip(skin * 1.06 + 0.02, 0, 1)


def _hair_tones(s: _Subject | _Some) -> tuple[Array, Array]:
    hair = s.colour["hair"]
    return hair * np.array([0.42, 0.36, 0.38]), np.clip(hair * 1.28 + 0.07, 0, 1)


def _paint_some(canvas: Array, chosen: Array, rows: slice, alpha: Array, dark: Array, light: Array, shade: Array) -> None:
    """`paint` on some rows of some images, which takes a copy out and puts it back."""
    view = canvas[chosen, :, rows]
    paint(view, alpha, dark, light, np.clip(shade, 0, 1))
    canvas[chosen, :, rows] = view
