"""CVAE learns mostly black images: its decoder used to drive tanh to black everywhere, where next to no gradient brings it back."""

from __future__ import annotations

from pathlib import Path

import torch

from models.base import Clock
from models.config import check
from models.data.batches import Batches, spec_of
from models.data.load import load, parse
from models.losses import squared_error
from models.zoo.cvae import CVAE

STEPS, BATCH = 100, 64


def test_digits_are_more_than_black_after_a_hundred_steps(data_root: Path) -> None:
    data = load(parse("mnist", root=data_root))
    torch.manual_seed(0)
    model = CVAE(check(CVAE.Config, {"widths": (64, 128)}, "test"), spec_of(data))
    optimizer = torch.optim.Adam(model.parameters(), lr=model.config.lr)
    shares: list[float] = []  # of the error that all black makes
    batches = Batches(data, torch.device("cpu")).stream(0, BATCH, 0)
    for step, batch in zip(range(STEPS), batches, strict=False):
        (turn,) = model.turns(batch, Clock(step))
        optimizer.zero_grad()
        turn.losses["autoencoder"].backward()
        optimizer.step()
        error = 2 * model.config.sigma**2 * turn.logs["reconstruction"].item()
        shares.append(error / squared_error(-torch.ones_like(batch.image), batch.image).mean().item())
    assert sum(shares[-10:]) / 10 < 0.7
