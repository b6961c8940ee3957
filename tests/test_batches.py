"""Batches on their way to a device: fields that stay there whole, where there is room, are the same batches."""

from __future__ import annotations

from contextlib import closing
from itertools import islice

import numpy as np
import pytest
import support
import torch

from models.data import batches as module
from models.data.batches import Batches
from models.data.items import Items

CPU = torch.device("cpu")
KEYS = ("image", "label", "attributes", "identity")


class Counted(Items):
    """A data set that notes what it is asked for."""

    def __init__(self, of: Items) -> None:
        self.of, self.fields, self.name = of, of.fields, of.name
        self.asked: list[tuple[str, int]] = []

    def __len__(self) -> int:
        return len(self.of)

    def rows(self, key: str, index: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        self.asked.append((key, len(index)))
        return self.of.rows(key, index, size)


def drawn(data: Items, workers: int = 0, size: tuple[int, int] | None = None) -> list[torch.Tensor]:
    """All fields of some batches, of the leading source and of another."""
    made = Batches(data, CPU, {"to": support.image_data(13, 12, 20, 3, seed=2)})
    stream = made.stream(0, 8, 16, KEYS if workers else (), workers, size=size)
    found = [value for batch in islice(stream, 9) for value in (*(batch.get(key) for key in KEYS), batch.get("to.image"), batch.index)]
    stream.close()
    return found


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("size", [None, (8, 8)])
def test_fields_that_stay_on_the_device_make_the_same_batches(
    workers: int, size: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Counted(support.image_data(20))
    plain = drawn(data, workers, size)
    data.asked.clear()
    monkeypatch.setattr(module, "room_for_data", lambda device: 10**9)
    kept = drawn(data, workers, size)
    assert all(torch.equal(one, other) for one, other in zip(plain, kept, strict=True))
    assert sorted(data.asked) == sorted((key, count) for key in KEYS for count in (1, 20))  # once for its size, once for all


def test_a_stage_of_another_size_frees_the_images_of_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "room_for_data", lambda device: 10**9)
    made = Batches(support.image_data(20), CPU)
    for size in ((4, 4), (8, 8), None):
        with closing(made.stream(0, 8, 0, size=size)) as stream:
            batch = next(stream)
            assert batch.image.shape[2:] == (size or (16, 16))
            assert batch.label.shape == (8,)
        assert set(made._sources[""]._kept) == {("image", size), ("label", None)}


def test_what_there_is_no_room_for_comes_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Counted(support.image_data(20))
    monkeypatch.setattr(module, "room_for_data", lambda device: 20 * 8 + 1)  # for the labels, not for the images
    drawn(data)
    assert ("label", 20) in data.asked
    assert ("image", 20) not in data.asked
    assert data.asked.count(("image", 8)) == 9


def test_single_items_fetch_no_more_than_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Counted(support.image_data(20))
    monkeypatch.setattr(module, "room_for_data", lambda device: 10**9)
    made = Batches(data, CPU)
    assert made.at([3, 1]).image.shape[0] == 2
    assert [len(batch.image) for batch in made.in_order(8)] == [8, 8, 4]
    assert all(count <= 8 for _, count in data.asked)
