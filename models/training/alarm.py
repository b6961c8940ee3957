"""Notices when an adversarial game has come to nothing: samples that are all alike, or a discriminator that is never wrong.

Samples that are alike need not be the game's fault: while a decoder paints almost one picture whatever its code, so are the reconstructions
of different images, and other things help.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from models.config import fields_of

ALIKE = 0.5  # of the training images' spread; a generator that alternates between two images reaches a half of theirs
SURE, FOR = 0.995, 10  # of the items judged right, over that many lines of the log on end
EARLY = 0.25  # of the stage, during which an untrained generator may be dull


class CollapseAlarm:
    """Says each of its three sentences once.

    Args:
        real: training images, uint8 (N, H, W, C), two at least.
        advice: what to try where a game has come to nothing, see `advice`.
    """

    def __init__(self, real: np.ndarray, advice: str) -> None:
        self._real, self._advice = real, advice
        self._lively = self._said = self._dull_said = self._sure_said = False
        self._sure = 0

    def look(self, samples: np.ndarray, progress: float, reconstructions: np.ndarray | None = None) -> tuple[str, str] | None:
        """A warning and what to try, if the samples of fixed noise, uint8 (N, H, W, C), have become alike.

        Args:
            progress: of the stage, 0 to 1.
            reconstructions: of the first training images, uint8 (M, H, W, C), where the model has a decoder.
        """
        share = spread(samples) / max(spread(self._real), 1e-9)
        self._lively |= share >= ALIKE
        if share >= ALIKE or not (self._lively or progress >= EARLY):
            return None
        painted = 1.0 if reconstructions is None else spread(reconstructions) / max(spread(self._real[: len(reconstructions)]), 1e-9)
        if painted < ALIKE:
            if self._dull_said:
                return None
            self._dull_said = True
            return (
                "the decoder paints almost one picture: samples are alike, and so are reconstructions of different images "
                f"(their mean distances are {share:.0%} and {painted:.0%} of the training images')",
                "train longer (--images), or try another learning rate (--set)",
            )
        if self._said:
            return None
        self._said = True
        return f"the samples are alike: their mean distance is {share:.0%} of the training images' (mode collapse?)", self._advice

    def hear(self, logs: Mapping[str, float]) -> tuple[str, str] | None:
        """The same for a line of the log, if the discriminator (`right`, see `models.base.Turn`) has been never wrong for a while."""
        self._sure = self._sure + 1 if logs.get("right", 0.0) > SURE else 0
        if self._sure_said or self._sure < FOR:
            return None
        self._sure_said = True
        return "the discriminator tells all fakes from real items: the generator learns little from it", self._advice


def advice(config: Any, model: str) -> str:
    """What to try with this model: of the remedies, those that its Config offers and that have not been taken."""
    fields = fields_of(type(config))
    tries = ["a lower learning rate (--set)"]
    if "shift" in get_args(fields.get("augment")) and config.augment == "none":
        tries.append("--set augment=shift for a small data set")
    if "spectral" in get_args(fields.get("norm")) and config.norm != "spectral":
        tries.append("--set norm=spectral")
    if model != "wgan-gp":
        tries.append("the model wgan-gp")
    return f"try {', or '.join(tries)}"


def spread(images: np.ndarray) -> float:
    """Mean distance of two images: root of the mean squared difference of their pixels, in levels. uint8 (N, H, W, C) -> number."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    squares = np.square(flat).sum(1)
    between = np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0) / flat.shape[1]
    count = len(images)
    return float(np.sqrt(between).sum() / max(count * (count - 1), 1))
