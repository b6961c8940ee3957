"""Simple measures of how an image looks besides what it shows, and how much one image's tell of another's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.randomness import numpy_generator


def grey(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, C) as ink, (N, H, W) from 0 to 1."""
    return images.mean(3) / 255


def slant(images: np.ndarray) -> np.ndarray:
    """How far the columns of ink lean: the covariance of x and y over the variance of y."""
    ink = grey(images) + 1e-6
    y, x = np.mgrid[: ink.shape[1], : ink.shape[2]]
    ink /= ink.sum((1, 2), keepdims=True)
    over = [(ink * axis).sum((1, 2)) for axis in (x, y)]
    apart_x, apart_y = x - over[0][:, None, None], y - over[1][:, None, None]
    return np.asarray((ink * apart_x * apart_y).sum((1, 2)) / (ink * apart_y**2).sum((1, 2)))


def thickness(images: np.ndarray) -> np.ndarray:
    """Twice the area over the length of the outline, in pixels."""
    ink = grey(images)
    outline = np.hypot(*np.gradient(ink, axis=(1, 2))).sum((1, 2))
    return np.asarray(2 * ink.sum((1, 2)) / (outline + 1e-6))


def light(images: np.ndarray) -> np.ndarray:
    """How much brighter the middle of the right half is than that of the left."""
    middle = grey(images)[:, images.shape[1] // 4 : -images.shape[1] // 4]
    left, right = np.array_split(middle, 2, axis=2)
    return np.asarray(right.mean((1, 2)) - left.mean((1, 2)))


def skin(images: np.ndarray) -> np.ndarray:
    """The brightness of the picture's middle."""
    h, w = images.shape[1] // 3, images.shape[2] // 3
    return np.asarray(grey(images)[:, h:-h, w:-w].mean((1, 2)))


def ground(images: np.ndarray) -> np.ndarray:
    """The brightness of the upper corners."""
    corner = images.shape[2] // 8
    return np.asarray(np.concatenate([grey(images)[:, :corner, :corner], grey(images)[:, :corner, -corner:]], 2).mean((1, 2)))


STYLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"slant": slant, "thickness": thickness}
FACES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"light": light, "skin": skin, "background": ground}


def information(one: np.ndarray, other: np.ndarray, groups: np.ndarray, bins: int = 8) -> tuple[float, float]:
    """Mutual information in nats of two measures (N,) within groups (N,), by their quantiles, less what shuffled pairs have; and the
    deviation of the latter."""
    dice = numpy_generator(0, "shuffled")
    found, floor = [], []
    for group in np.unique(groups):
        a, b = (_quantile(values[groups == group], bins) for values in (one, other))
        if len(a) < 5 * bins:
            continue
        shuffled = [_nats(a, dice.permutation(b), bins) for _ in range(20)]
        found.append(_nats(a, b, bins) - np.mean(shuffled))
        floor.append(np.std(shuffled))
    return float(np.mean(found)), float(np.sqrt(np.square(floor).sum()) / len(floor))


def _quantile(values: np.ndarray, bins: int) -> np.ndarray:
    return np.argsort(np.argsort(values, kind="stable"), kind="stable") * bins // len(values)


def _nats(a: np.ndarray, b: np.ndarray, bins: int) -> float:
    together = np.histogram2d(a, b, bins, ((0, bins), (0, bins)))[0] / len(a)
    apart = together.sum(1, keepdims=True) * together.sum(0, keepdims=True)
    there = together > 0
    return float((together[there] * np.log(together[there] / apart[there])).sum())
