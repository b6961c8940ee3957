"""The order in which a source's items come: a pure function of the seed, the source's name and the number of images seen.

Items of which any is as near as any other come in one permutation of all of them an epoch. Those that lie in pieces (shards) come piece by
piece: the pieces in a permuted order, and the items of WINDOW pieces in a row permuted among each other. Each rank then takes whole pieces,
so that no two of them read the same file; its epoch ends where its own pieces do, and so the order depends on the number of ranks.
"""

from __future__ import annotations

from functools import lru_cache
from threading import Lock

import numpy as np

from models.data.items import Items
from models.randomness import epoch_order, numpy_generator

WINDOW = 16  # pieces whose items are mixed


class Order:
    """The order of one source, as one rank sees it.

    Args:
        items: the source; seed: of the run; name: of the source, the leading one has none.
        rank, world: which of how many.
    """

    def __init__(self, items: Items, seed: int, name: str = "", rank: int = 0, world: int = 1) -> None:
        self._rank, self._world = rank, world
        in_pieces = items.pieces is not None and len(items.pieces) >= world
        self._pieces = _InPieces(items, seed, name, rank, world) if in_pieces else None
        count = len(items)
        self._count = count
        self._epoch = lru_cache(maxsize=2)(lambda epoch: epoch_order(seed, epoch, count, name))

    def of_batch(self, position: int, batch: int) -> np.ndarray:
        """Which items this rank takes of a batch that begins when `position` images have been seen by all ranks: (batch / world,) int64."""
        share = batch // self._world
        if self._pieces is not None:
            first = position // self._world
            return self._pieces.at(np.arange(first, first + share))
        positions = np.arange(position + self._rank * share, position + (self._rank + 1) * share)
        epochs = positions // self._count
        return np.concatenate([self._epoch(int(e))[positions[epochs == e] % self._count] for e in np.unique(epochs)])


class _InPieces:
    """One rank's endless way through whole pieces."""

    def __init__(self, items: Items, seed: int, name: str, rank: int, world: int) -> None:
        assert items.pieces is not None
        self._items, self._rank, self._world = items, rank, world
        self._first = items.pieces  # where each piece begins
        self._length = np.diff(np.append(items.pieces, len(items)))
        self._seed, self._name = seed, [name] if name else []
        self._begins = [0]  # where this rank's epochs begin, as far as is known
        self._windows = lru_cache(maxsize=3)(self._window)
        self._epochs = lru_cache(maxsize=3)(self._epoch)
        self._told = (-1, -1)  # up to which window the items were told what comes
        self._lock = Lock()  # several threads prepare batches

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Which items stand at these ascending positions: (B,) int64 both."""
        with self._lock:
            return self._at(positions)

    def _at(self, positions: np.ndarray) -> np.ndarray:
        found: list[np.ndarray] = []
        at, end = int(positions[0]), int(positions[-1]) + 1
        while at < end:
            epoch = self._epoch_of(at)
            starts = self._epochs(epoch)[1]
            inside = at - self._begins[epoch]
            number = int(np.searchsorted(starts, inside, side="right")) - 1
            items = self._windows(epoch, number)
            self._tell(epoch, number)
            begin = inside - int(starts[number])
            found.append(items[begin : begin + end - at])
            at += len(found[-1])
        return np.concatenate(found)

    def _epoch_of(self, position: int) -> int:
        """The epoch that a position is in; lengths differ, so they are added up, once."""
        while self._begins[-1] <= position:
            pieces, _ = self._epochs(len(self._begins) - 1)
            self._begins.append(self._begins[-1] + int(self._length[pieces].sum()))
        return int(np.searchsorted(self._begins, position, side="right")) - 1

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The pieces of an epoch in order (P,), and where its windows begin (W + 1,), counted from the epoch's begin."""
        pieces = numpy_generator(self._seed, "pieces", *self._name, epoch).permutation(len(self._first))[self._rank :: self._world]
        ends = np.cumsum(self._length[pieces])
        return pieces, np.concatenate([[0], ends[WINDOW - 1 : -1 : WINDOW], ends[-1:]])

    def _window(self, epoch: int, number: int) -> np.ndarray:
        """The items of a window in order."""
        pieces = self._of_window(epoch, number)
        items = np.concatenate([np.arange(self._first[p], self._first[p] + self._length[p]) for p in pieces])
        return items[numpy_generator(self._seed, "window", *self._name, epoch, number, self._rank, self._world).permutation(len(items))]

    def _of_window(self, epoch: int, number: int) -> np.ndarray:
        return self._epochs(epoch)[0][number * WINDOW : (number + 1) * WINDOW]

    def _tell(self, epoch: int, number: int) -> None:
        """Say which pieces come now and next."""
        if (epoch, number) <= self._told:
            return
        self._told = (epoch, number)
        following = self._of_window(epoch, number + 1)
        following = following if len(following) else self._of_window(epoch + 1, 0)
        self._items.expect(self._first[np.concatenate([self._of_window(epoch, number), following])])
