"""Learning rates over a stage."""

from __future__ import annotations

import math

from models.base import Schedule


def factor(schedule: Schedule, progress: float) -> float:
    """What a player's learning rate is multiplied by at `progress` (0 to 1) of the stage.

    `linear` and `cosine` end at zero; `exponential` falls evenly to a hundredth; `steps` is a half from 30 % of the stage, a fifth from
    50 % and a tenth from 80 %. The last two are those of Wasserstein auto-encoders (tolstikhin/wae), the tenth brought forward.
    """
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1 - progress
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        case "exponential":
            return float(0.01**progress)
        case "steps":
            return 1.0 if progress < 0.3 else 0.5 if progress < 0.5 else 0.2 if progress < 0.8 else 0.1
