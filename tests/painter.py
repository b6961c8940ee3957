"""A model that paints what it is asked for, one that also encodes, one that also classifies, and the command line around them.

The left half of an image tells the condition, the right half the noise or the code.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from lgcli.app import app
from models.api import Trained
from models.base import DataSpec, LatentModel
from models.config import RunConfig
from models.training.checkpoint import Header

SHOWN: dict[str, Any] = {
    "channels": 1,
    "height": 16,
    "width": 16,
    "classes": ("cross", "disc", "t-shirt, top"),
    "attributes": ("smile", "glasses", "hat"),
    "identities": 30,
}
SPEC = DataSpec.of_images(**SHOWN)


class Painter(LatentModel):
    """`kind` is what it is asked by: label, identity, attributes, or nothing. It cannot encode."""

    noise_shape = (1,)

    def __init__(self, kind: str | None, spec: DataSpec) -> None:
        super().__init__(None, spec)
        self.kind, self.needs = kind, frozenset({"image"} | ({kind} if kind else set()))
        self.scale = nn.Parameter(torch.ones(()))

    def stages(self) -> tuple[Any, ...]:
        return ()

    def sample(
        self, noise: Tensor, label: Tensor | None = None, identity: Tensor | None = None, attributes: Tensor | None = None
    ) -> Tensor:
        told = next((told for told in (label, identity) if told is not None), torch.zeros(len(noise)))
        if told.ndim == 2:  # shares of the classes
            told = told @ torch.arange(told.shape[1], dtype=torch.float32)
        if attributes is not None:
            told = attributes @ torch.tensor([1.0, 2.0, 4.0])
        left = (8 * told / 127.5 - 1).view(-1, 1, 1, 1).expand(-1, 1, 16, 8)
        right = torch.tanh(noise / 2 * self.scale).view(-1, 1, 1, 1).expand(-1, 1, 16, 8)
        return torch.cat([left, right], 3)


class Copyist(Painter):
    """Its code is the mean of the right half; the left half is what it is told."""

    def encode(
        self, image: Tensor, label: Tensor | None = None, identity: Tensor | None = None, attributes: Tensor | None = None
    ) -> Tensor:
        assert self.kind is None or not (label is identity is attributes is None), "it has to be told"
        return image[..., 8:].mean((1, 2, 3)).clamp(-0.99, 0.99).view(-1, 1)

    def decode(
        self, latent: Tensor, label: Tensor | None = None, identity: Tensor | None = None, attributes: Tensor | None = None
    ) -> Tensor:
        assert self.kind is None or not (label is identity is attributes is None), "it has to be told"
        return self.sample(2 * torch.atanh(latent), label, identity, attributes)


class Critic(Copyist):
    """Its classifier sees what the left half is nearest to on the whole."""

    def __init__(self, kind: str | None, spec: DataSpec) -> None:
        super().__init__(kind, spec)
        self.target = kind or "label"

    def features(self, image: Tensor) -> Tensor:
        return (image[..., :8].mean((1, 2, 3)).view(-1, 1) + 1) * 127.5 / 8

    def logits(self, features: Tensor) -> Tensor:
        return -(features - torch.arange(3.0)).square()

    def classify(self, image: Tensor) -> Tensor:
        return self.logits(self.features(image))


def painter(kind: str | None, model: type[Painter] = Painter, **spec: Any) -> Trained:
    """A trained model to be asked by `kind`; `spec` are arguments of `DataSpec.of_images` that differ from its own."""
    made = model(kind, DataSpec.of_images(**{**SHOWN, **spec})).eval()
    config = RunConfig(model="painter", data="nowhere")
    header = Header("painter", config, made.spec, 0, "only", (1,), {}, "", {})
    return Trained(made, header, torch.device("cpu"))


def asked_of(image: Any) -> int:
    """The condition that an image (16, 16, 1) or (16, 16) was painted for."""
    return round(int(np.asarray(image).flat[0]) / 8)


# ---- the command line --------------------------------------------------------------------------------------------------------------------


def lgm(*words: object) -> Result:
    """`lgm WORDS` in this process."""
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [str(word) for word in words], catch_exceptions=False)


def done(*words: object) -> Any:
    """The JSON of a command that must succeed, and what it says on stderr."""
    result = lgm(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def refused(*words: object) -> str:
    """The message of a command that must end as the user's mistake, and leave nothing."""
    result = lgm(*words)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert re.fullmatch(r"error: .+\n  fix: .+\n", result.stderr), result.stderr
    assert list(Path().iterdir()) == []
    return result.stderr


def cells(path: str, columns: int) -> list[np.ndarray]:
    """The 16x16 images of a grid, row by row."""
    with Image.open(path) as image:
        picture = np.asarray(image)
    rows, across = (picture.shape[0] - 2) // 18, (picture.shape[1] - 2) // 18
    assert (across, picture.shape) == (columns, (18 * rows + 2, 18 * columns + 2))
    return [picture[2 + 18 * r :, 2 + 18 * c :][:16, :16] for r in range(rows) for c in range(columns)]
