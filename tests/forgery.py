"""Checkpoints that were tampered with by someone who knows the format, and a few more tiny pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.training import checkpoint


def contents(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file, unchecked."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata()), {name: file.get_tensor(name).clone() for name in file.keys()}


def forged(
    path: Path,
    to: Path,
    metadata: Callable[[dict[str, str]], object] = lambda values: None,
    tensors: Callable[[dict[str, Tensor]], object] = lambda values: None,
) -> Path:
    """A copy of a checkpoint with changed metadata or tensors and a digest that fits them: what an attacker would make."""
    strings, values = contents(path)
    metadata(strings)
    tensors(values)
    strings["digest"] = checkpoint.digest(strings, values)
    to.parent.mkdir(parents=True, exist_ok=True)
    save_file(values, to, strings)
    return to


def edited(key: str, change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, str]], None]:
    """For `forged`: change the JSON document that lies under a metadata key."""

    def edit(strings: dict[str, str]) -> None:
        document = json.loads(strings[key])
        change(document)
        strings[key] = json.dumps(document)

    return edit


def blobs(count: int, height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """`count` images of one soft blob each, uint8 (count, height, width, channels)."""
    dice = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    centre = dice.uniform(0.2, 0.8, (count, 2)) * (height, width)
    distance = (y - centre[:, :1, None]) ** 2 + (x - centre[:, 1:, None]) ** 2
    shape = np.exp(-distance / (0.05 * height * width))
    return (255 * shape[..., None] * dice.uniform(0.4, 1, (count, 1, 1, channels))).astype(np.uint8)


def write_images(folder: Path, images: np.ndarray) -> Path:
    """The images as PNG files in one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(folder / f"{number:03d}.png")
    return folder
