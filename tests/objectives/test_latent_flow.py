"""Latent flow: the mean velocity from noise to codes, told what the images show or nothing, and Heun's way with guidance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from formulas import SPEC, Draws, agree, batch, close, items, made, push, vectors
from support import small
from torch import Tensor

from models.base import Clock
from models.config import check
from models.nets.flow import gaussian_velocity
from models.registry import model_class

DATA = items(40)
CHOSEN = [7, 31, 2, 39, 16, 0]  # a batch in no order


def prepared(monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Any, Draws, np.ndarray]:
    """A model whose codes are taken, and these codes."""
    base, _ = made("vae", monkeypatch, latent=3)
    monkeypatch.undo()
    cls = model_class("latent-flow")
    torch.manual_seed(3)
    model = cls(check(cls.Config, small("latent-flow", **options), "test"), SPEC, {"base": base.requires_grad_(False).eval()})
    push(model.velocity)
    with torch.no_grad():
        model.prepare_codes([batch(DATA, list(range(n, min(n + 16, 40)))) for n in (0, 16, 32)])
        codes = base.encode(DATA["image"]).numpy().astype(np.float64)
    return model, Draws(model, monkeypatch), codes


@pytest.mark.parametrize("condition", ["none", "label", "attributes", "identity"])
def test_it_learns_the_mean_velocity_from_noise_to_codes(condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws, codes = prepared(monkeypatch, condition=condition, untold=0.5)
    (stage,) = model.stages()
    assert stage.needs == (frozenset() if condition == "none" else {condition})
    factor = np.linalg.cholesky(np.cov(codes.T, bias=True) + 1e-6 * np.eye(3))
    real = torch.from_numpy(np.linalg.solve(factor, (codes - codes.mean(0)).T).T).float()[CHOSEN]
    (turn,) = model.turns(batch(DATA, CHOSEN), Clock(0))
    noise, time = draws.normal
    t = (1 / (1 + torch.exp(-time))).unsqueeze(1)
    told = None
    if condition != "none":
        rows = vectors(condition, DATA, CHOSEN)
        (kept,) = draws.uniform
        assert bool((kept < 0.5).any())
        told = torch.stack([row * float(one >= 0.5) for row, one in zip(rows, kept)])
    else:
        assert not draws.uniform
    found = model.velocity((1 - t) * noise + t * real, t.squeeze(1), told)
    agree(model, turn, {"velocity": ((found - (real - noise)) ** 2).mean()})


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_it_samples_by_heun_s_method_with_guidance(guidance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, codes = prepared(monkeypatch, condition="label", steps=2, guidance=guidance)
    noise, label = torch.linspace(-2, 2, 18).view(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    told = torch.eye(3)[label]

    def slope(x: Tensor, time: float) -> Tensor:
        when = torch.full((6,), time)
        without = model.velocity(x, when, torch.zeros(6, 3))
        return without + guidance * (model.velocity(x, when, told) - without)

    first = slope(noise, 0.0)
    x = noise + (first + slope(noise + first / 2, 0.5)) / 4
    x = x + slope(x, 0.5) / 2
    factor = torch.from_numpy(np.linalg.cholesky(np.cov(codes.T, bias=True) + 1e-6 * np.eye(3))).float()
    code = torch.from_numpy(codes.mean(0)).float() + torch.stack([factor @ row for row in x])
    close(model.sample(noise, label=label), model.base.decode(code))


def test_before_the_first_step_it_is_the_gaussian_fitted_to_the_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    base, _ = made("vae", monkeypatch, latent=3)
    cls = model_class("latent-flow")
    noise = torch.randn(6, 3)
    for steps, guidance in ((8, 1.0), (1000, 1.5)):  # with guidance noise goes a detour, and comes to where it began
        model = cls(check(cls.Config, small("latent-flow", steps=steps, guidance=guidance), "test"), SPEC, {"base": base.eval()})
        assert float((model.sample(noise) - base.decode(noise)).detach().abs().max()) < (2e-2 if guidance > 1 else 1e-5)


def test_the_gaussian_s_velocity_is_what_a_field_learns_of_gaussian_vectors() -> None:
    torch.manual_seed(0)
    noise, vector = torch.randn(2, 200_000, 1).double()
    for time in (0.0, 0.2, 0.5, 0.9, 1.0):
        point = (1 - time) * noise + time * vector
        slope = (point * (vector - noise)).sum() / (point**2).sum()  # least squares
        assert abs(float(gaussian_velocity(torch.ones(1, 1), time)) - float(slope)) < 0.01
