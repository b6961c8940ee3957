"""What lies in a run's folder, by name: for those who write it and those who look at it. Imports nothing that takes time."""

import re
from pathlib import Path

CONFIG, LOG, EVALUATION = "config.json", "log.jsonl", "evaluation.json"
CHECKPOINTS, UNFINISHED = "checkpoints", ".tmp"  # the second one in the first
SAMPLES, CURVES, LOCK = "samples", "curves.png", "run.lock"
_CHECKPOINT = re.compile(r"images-(\d+)\.safetensors")


def checkpoint_name(images: int) -> str:
    return f"images-{images:09d}.safetensors"


def images_of(path: Path) -> int | None:
    """The images seen that a checkpoint's name tells; None for other files."""
    match = _CHECKPOINT.fullmatch(path.name)
    return int(match[1]) if match else None
