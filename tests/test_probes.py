"""Probes of codes: what one neighbour and a linear machine find, on codes whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support import call, tiny, train, write_pictures

from models import evaluation
from models.errors import UserError
from models.metrics.linear_probe import support_vectors
from models.metrics.nearest_neighbour import nearest


def test_the_nearest_item_lends_its_label() -> None:
    known = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    asked = torch.tensor([[1.0, 1.0], [9.0, 2.0], [0.0, 6.0], [0.0, 4.0]])
    assert nearest((known, asked), torch.tensor([2, 0, 1])).tolist() == [2, 0, 1, 2]
    many = torch.randn(700, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(nearest((many, many + 1e-4), torch.arange(700)), torch.arange(700))


def test_the_linear_machine_minimises_its_objective() -> None:
    """The gradient of 1/2 |w|^2 + C sum max(0, 1 - y f)^2, by torch, vanishes at what it finds; and it tells what can be told."""
    dice = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    centres = torch.tensor([[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]])
    known = centres[labels] + torch.randn(90, 3, generator=dice)
    assert float((support_vectors((known, known), labels, cost=0.1) == labels).double().mean()) > 0.9
    noise = torch.randn(90, 3, generator=dice)
    assert float((support_vectors((noise, torch.randn(900, 3, generator=dice)), labels) == torch.arange(900) % 3).double().mean()) < 0.5

    seen: list[np.ndarray] = []
    import models.metrics.linear_probe as module

    original = module.minimize
    try:
        module.minimize = lambda *words, **more: seen.append((found := original(*words, **more)).x) or found  # type: ignore[attr-defined]
        support_vectors((known, known), labels, cost=0.1)
    finally:
        module.minimize = original  # type: ignore[attr-defined]
    weights = torch.from_numpy(seen[0]).view(4, 3).requires_grad_()
    rows = torch.cat([(known - known.mean(0)) / known.std(0), torch.ones(90, 1)], 1).double()
    sides = torch.where(torch.eye(3)[labels] > 0, 1.0, -1.0).double()
    loss = (weights**2).sum() / 2 + 0.1 * (torch.relu(1 - sides * (rows @ weights)) ** 2).sum()
    loss.backward()
    assert float(weights.grad.abs().max()) < 2e-3 * float(loss.detach())


@pytest.mark.parametrize("metric", ["nearest-neighbour", "linear-probe"])
def test_probes_of_a_run(metric: str, straight: Callable[[str], Path], pictures: Path) -> None:
    found = evaluation.evaluate(str(straight("vae")), data=str(pictures), metrics=[metric], device="cpu", number=20)
    values = found["metrics"][metric]
    assert set(values) == {"short", "long", "components", "chance"}
    assert all(0 <= value <= 1 for value in values.values())
    assert values["chance"] == pytest.approx(0.5)
    if metric == "nearest-neighbour":  # the run's own training images: each is its own neighbour
        assert values["long"] == values["short"] == 1.0


def test_what_cannot_be_probed(straight: Callable[[str], Path], tmp_path: Path, pictures: Path) -> None:
    for name, reason in (("gan", "it does not encode"), ("cvae", "its encoder is told the label")):
        with pytest.raises(UserError, match=reason):
            evaluation.evaluate(str(straight(name)), metrics=["linear-probe"], device="cpu")
    plain = tmp_path / "plain"
    write_pictures(plain)
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in sorted(plain.rglob("*.png")):
        file.rename(flat / f"{file.parent.name}-{file.name}")
    call(train, "vae", str(flat), str(tmp_path / "run"), tiny("vae", images=16))
    with pytest.raises(UserError, match="its data have no classes"):
        evaluation.evaluate(str(tmp_path / "run"), metrics=["linear-probe"], device="cpu")
    with pytest.raises(UserError, match="these images have no classes"):
        evaluation.evaluate(str(straight("vae")), data=str(flat), metrics=["nearest-neighbour"], device="cpu")
