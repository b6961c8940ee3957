"""Moving averages against weights worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from models.base import DataSpec, LatentModel
from models.training.averaging import Averages


@dataclass(frozen=True)
class Config:
    """Nothing."""


class Two(LatentModel):
    """Two averaged modules, one with buffers of both kinds, and one that is not averaged."""

    averaged = ("first", "second")

    def __init__(self) -> None:
        super().__init__(Config(), DataSpec.of_images(1, 4, 4))
        self.first, self.second, self.third = nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1), nn.Linear(1, 1)


def put(module: nn.Module, value: float) -> set[int]:
    """Set all that the module holds. Returns what an optimizer would have moved."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.fill_(value)
    return {id(p) for p in module.parameters()}


def start(half_life: int) -> tuple[Two, Averages]:
    model = Two()
    for module in model.children():
        put(module, 0)
    return model, Averages(model, half_life)


def first(averages: Averages) -> float:
    return averages.tensors()["first.weight"].item()


def test_the_half_life_is_counted_in_images() -> None:
    """Far into a stage, 30 images at a half-life of 10 leave an eighth of what there was."""
    model, averages = start(10)
    averages.update(10_000, 30, put(model.first, 1))
    assert first(averages) == pytest.approx(1 - 1 / 8)
    averages.update(10_010, 10, put(model.first, 5))
    assert first(averages) == pytest.approx((7 / 8 + 5) / 2)


def test_the_half_life_warms_up_to_a_tenth_of_the_images_seen() -> None:
    """Steps of 8 images: after n images the half-life is n / 10, until that is 20."""
    model, averages = start(20)
    expected = 0.0
    for step in range(1, 51):
        seen = 8 * step
        kept = 0.5 ** (8 / min(20, seen / 10))
        expected = kept * expected + (1 - kept) * step**0.5
        averages.update(seen, 8, put(model.first, step**0.5))
        assert first(averages) == pytest.approx(expected, rel=1e-5)
    model, averages = start(10**6)
    averages.update(8, 8, put(model.first, 1))
    assert first(averages) == pytest.approx(1 - 2**-10)


def test_only_modules_that_moved_are_followed() -> None:
    model, averages = start(1)
    put(model.first, 1)
    averages.update(1000, 1, put(model.second, 1) | put(model.third, 1))
    found = averages.tensors()
    assert found["first.weight"].item() == 0
    assert [found[f"second.{key}"].item() for key in ("weight", "bias", "running_mean", "running_var")] == pytest.approx([0.5] * 4)
    assert found["second.num_batches_tracked"].item() == 1  # a count is copied
    assert not [key for key in found if key.startswith("third")]


def test_a_module_that_moves_seldom_forgets_by_all_the_images_since_it_moved() -> None:
    """A generator that moves after every fifth step of 8 images decays by 40 images, not by 8."""
    model, averages = start(20)
    expected = 0.0
    for step in range(1, 51):
        moved, seen = put(model.second, step), 8 * step
        if step % 5 == 0:
            moved |= put(model.first, step)
            kept = 0.5 ** (40 / min(20, seen / 10))
            expected = kept * expected + (1 - kept) * step
        averages.update(seen, 8, moved)
    assert first(averages) == pytest.approx(expected, rel=1e-5)


def test_averages_generate_inside_the_block_only_and_never_train() -> None:
    model, averages = start(5)
    own = model.first
    put(own, 3)
    with averages.applied():
        assert model.first is averages.modules["first"]
        assert model.first.weight.item() == 0
        assert not model.first.training
        assert not model.second.training
        assert not any(p.requires_grad for p in model.first.parameters())
    assert model.first is own
    with pytest.raises(KeyError), averages.applied():
        raise KeyError
    assert model.first is own


def test_without_half_life_nothing_is_averaged() -> None:
    assert start(0)[1].tensors() == {}
    assert not start(0)[1].modules
