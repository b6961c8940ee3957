"""Notices when an adversarial game has come to nothing: samples that are all alike, or a discriminator that is never wrong."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

ALIKE = 0.5  # of the training images' spread; a generator that alternates between two images reaches a half of theirs
SURE, FOR = 0.995, 10  # of the items judged right, over that many lines of the log on end
EARLY = 0.25  # of the stage, during which an untrained generator may be dull
_TRY = "try a lower learning rate, --set augment=shift for a small data set, a penalty or spectral norm on the critic, or wgan-gp"


class CollapseAlarm:
    """Says each of its two sentences once.

    Args:
        real: training images, uint8 (N, H, W, C), two at least.
    """

    def __init__(self, real: np.ndarray) -> None:
        self._expected = spread(real)
        self._lively = self._said = self._sure_said = False
        self._sure = 0

    def look(self, samples: np.ndarray, progress: float) -> tuple[str, str] | None:
        """A warning and what to try, if the samples of fixed noise, uint8 (N, H, W, C), have become alike. `progress` is of the stage."""
        share = spread(samples) / max(self._expected, 1e-9)
        self._lively |= share >= ALIKE
        if self._said or share >= ALIKE or not (self._lively or progress >= EARLY):
            return None
        self._said = True
        return f"the samples are alike: their mean distance is {share:.0%} of the training images' (mode collapse?)", _TRY

    def hear(self, logs: Mapping[str, float]) -> tuple[str, str] | None:
        """The same for a line of the log, if the discriminator (`right`, see `models.base.Turn`) has been never wrong for a while."""
        self._sure = self._sure + 1 if logs.get("right", 0.0) > SURE else 0
        if self._sure_said or self._sure < FOR:
            return None
        self._sure_said = True
        return "the discriminator tells all fakes from real items: the generator learns little from it", _TRY


def spread(images: np.ndarray) -> float:
    """Mean distance of two images: root of the mean squared difference of their pixels, in levels. uint8 (N, H, W, C) -> number."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    squares = np.square(flat).sum(1)
    between = np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0) / flat.shape[1]
    count = len(images)
    return float(np.sqrt(between).sum() / max(count * (count - 1), 1))
