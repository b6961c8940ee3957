"""The order in which items come: all of them once an epoch, mixed as far as they may be, and the same wherever one begins to look."""

from __future__ import annotations

import numpy as np
import pytest
import support

from models.data import order
from models.data.dataset import ImageData
from models.data.items import Chosen, Items, Joined
from models.data.order import Order


class Pieces(Items):
    """Items that are their own positions, in pieces of the given lengths; `told` is what it was told to expect."""

    def __init__(self, *lengths: int) -> None:
        self.count, self.fields, self.name = sum(lengths), {}, "pieces"
        self.pieces = np.cumsum([0, *lengths[:-1]])
        self.told: list[list[int]] = []

    def __len__(self) -> int:
        return self.count

    def expect(self, index: np.ndarray) -> None:
        self.told.append(index.tolist())


def taken(items: Items, steps: int, batch: int, seed: int = 0, rank: int = 0, world: int = 1, start: int = 0) -> list[int]:
    """What a rank takes in some steps."""
    found = Order(items, seed, rank=rank, world=world)
    return np.concatenate([found.of_batch(start + n * batch, batch) for n in range(steps)]).tolist()


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "WINDOW", 2)


LENGTHS = [(5, 3, 4), (5, 3, 4, 6), (1,) * 12, (12,)]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_every_item_comes_once_an_epoch(lengths: tuple[int, ...]) -> None:
    count = sum(lengths)
    found = taken(Pieces(*lengths), 3 * count, 1)
    for epoch in range(3):
        assert sorted(found[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert found[:count] != found[count : 2 * count]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_it_is_a_function_of_the_position(lengths: tuple[int, ...]) -> None:
    count = sum(lengths)
    whole = taken(Pieces(*lengths), 4 * count, 1)
    for start in range(0, 3 * count, 3):  # in the middle of windows, at their borders, at those of epochs
        assert taken(Pieces(*lengths), 1, count, start=start) == whole[start : start + count]
    assert taken(Pieces(*lengths), 4, count) == whole
    assert taken(Pieces(*lengths), 4, count, seed=1) != whole


def test_a_window_of_pieces_is_mixed_and_no_more() -> None:
    pieces = Pieces(6, 6, 6, 6, 6)
    found = taken(pieces, 30, 1)
    for window in (found[:12], found[12:24], found[24:]):
        of = {item // 6 for item in window}
        assert len(of) == -(-len(window) // 6)  # whole pieces
    first = found[:12]
    assert [item // 6 for item in first] != sorted(item // 6 for item in first)  # and their items among each other
    assert [item for item in first if item // 6 == first[0] // 6] != sorted(item for item in first if item // 6 == first[0] // 6)


def test_it_says_which_pieces_come_next() -> None:
    pieces = Pieces(2, 2, 2, 2, 2)
    found = taken(pieces, 10, 1)
    windows = [{item // 2 for item in window} for window in (found[:4], found[4:8], found[8:])]
    assert [{item // 2 for item in told[: len(window)]} for told, window in zip(pieces.told, windows)] == windows
    assert {item // 2 for item in pieces.told[0][2:]} == windows[1]
    assert len(pieces.told) == 3  # once for each window


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_take_whole_pieces(world: int) -> None:
    epoch = 24 // world
    seen = [taken(Pieces(*(4,) * 6), epoch, world, rank=rank, world=world) for rank in range(world)]
    assert sorted(item for one in seen for item in one) == list(range(24))
    pieces = [{item // 4 for item in one} for one in seen]
    assert sum(map(len, pieces)) == 6  # no two ranks read the same


def test_a_rank_goes_on_where_it_was() -> None:
    lengths = (5, 3, 4, 6, 2, 4)
    straight = taken(Pieces(*lengths), 40, 4, rank=1, world=2)
    assert taken(Pieces(*lengths), 10, 4, rank=1, world=2, start=4 * 13) == straight[26:46]
    assert taken(Pieces(*lengths), 10, 8, rank=1, world=2) == straight[:40]  # another batch


def test_the_ranks_see_everything() -> None:
    """Each rank goes through its own pieces; after as many steps as the longest way takes, all items have been seen."""
    lengths = (5, 3, 4, 6, 2, 4)
    seen = [taken(Pieces(*lengths), 24, 2, rank=rank, world=2) for rank in range(2)]
    assert set(seen[0]) | set(seen[1]) == set(range(24))


def test_fewer_pieces_than_ranks_share_them_all() -> None:
    seen = [taken(Pieces(8), 2, 8, rank=rank, world=2) for rank in range(2)]
    assert sorted(seen[0][:4] + seen[1][:4]) == list(range(8))


def test_without_pieces_it_is_one_permutation(monkeypatch: pytest.MonkeyPatch) -> None:
    data = support.image_data(12)
    whole = taken(data, 12, 1)
    assert sorted(whole) == list(range(12))
    ranks = [taken(data, 3, 4, rank=rank, world=2) for rank in range(2)]
    assert [ranks[n // 2 % 2][n // 4 * 2 + n % 2] for n in range(12)] == whole  # a batch is cut into shares


def test_subsets_and_joined_sets_keep_their_pieces() -> None:
    pieces = Pieces(4, 4, 4)
    some = Chosen(pieces, np.array([0, 1, 5, 6, 7, 9]), "some")
    assert some.pieces is not None
    assert some.pieces.tolist() == [0, 2, 5]
    few = Chosen(pieces, np.array([5, 6, 9]), "few")
    assert few.pieces is not None
    assert few.pieces.tolist() == [0, 2]
    few.expect(np.array([0, 2]))
    assert pieces.told == [[5, 9]]
    joined = Joined([pieces, ImageData("plain", np.zeros((3, 2, 2, 1), np.uint8))], "joined")
    assert joined.pieces is not None
    assert joined.pieces.tolist() == [0, 4, 8, 12]
    joined.expect(np.array([12, 8]))
    assert pieces.told[-1] == [8]
    assert Joined([ImageData("plain", np.zeros((3, 2, 2, 1), np.uint8))] * 2, "joined").pieces is None
