"""A model that paints what it is asked for, and the command line around it.

The left half of an image tells the condition, the right half the noise.
"""

from __future__ import annotations

import dataclasses
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

SPEC = DataSpec(1, 16, 16, classes=("cross", "disc", "t-shirt, top"), attributes=("smile", "glasses", "hat"), identities=30)


class Painter(LatentModel):
    """`kind` is what it is asked by: label, identity, attributes, or nothing. It cannot encode."""

    noise_shape = (1,)

    def __init__(self, kind: str | None, spec: DataSpec) -> None:
        super().__init__(None, spec)
        self.needs = frozenset({"image"} | ({kind} if kind else set()))
        self.scale = nn.Parameter(torch.ones(()))

    def stages(self) -> tuple[Any, ...]:
        return ()

    def sample(
        self, noise: Tensor, label: Tensor | None = None, identity: Tensor | None = None, attributes: Tensor | None = None
    ) -> Tensor:
        told = next((told for told in (label, identity) if told is not None), torch.zeros(len(noise)))
        if attributes is not None:
            told = attributes @ torch.tensor([1.0, 2.0, 4.0])
        left = (8 * told / 127.5 - 1).view(-1, 1, 1, 1).expand(-1, 1, 16, 8)
        right = torch.tanh(noise / 2 * self.scale).view(-1, 1, 1, 1).expand(-1, 1, 16, 8)
        return torch.cat([left, right], 3)


def painter(kind: str | None, **spec: Any) -> Trained:
    """A trained model to be asked by `kind`; `spec` are fields of its DataSpec."""
    model = Painter(kind, dataclasses.replace(SPEC, **spec)).eval()
    config = RunConfig(model="painter", data="nowhere")
    header = Header("painter", config, model.spec, 0, "only", (1,), {}, "", {})
    return Trained(model, header, torch.device("cpu"))


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
