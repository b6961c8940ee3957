"""How fast a run is, and when to say so."""

from __future__ import annotations

import time
from typing import NamedTuple

TICK = 0.2  # seconds between two Progressed events
WINDOW = 2.0  # seconds over which images are counted


class Speed:
    """Images per second since the last look, and when to look again."""

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, images: int) -> None:
        self._began = self._ticked = time.monotonic()
        self._images, self._rate = images, 0.0

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._ticked < TICK:
            return False
        self._ticked = now
        return True

    def rate(self, images: int) -> float:
        now = time.monotonic()
        if now - self._began > WINDOW or not self._rate:
            self._rate = (images - self._images) / max(now - self._began, 1e-9)
            if now - self._began > WINDOW:
                self._began, self._images = now, images
        return self._rate


class Pace(NamedTuple):
    """What a stage takes, as some of its first steps say: seconds of its preparation and of a step, how many steps and images it has, and
    of what looks on its kind, its cadence in images, and the seconds of a look."""

    stage: str
    preparing: float
    step: float = 0.0
    steps: int = 0
    images: int = 0
    looks: tuple[tuple[type, int, float], ...] = ()
