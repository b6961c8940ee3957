"""From items to batches on a device: which items come next, and how they get there.

The order of each source (`models.data.order`) is a pure function of the number of images seen, so a resumed run sees what the straight run
would have seen. Batches are always full: where an epoch ends inside a batch, the next epoch's order goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from models.base import Batch, DataSpec
from models.data.items import Items
from models.data.order import Order
from models.device import room_for_data, sent


def spec_of(data: Items, others: Mapping[str, Items] | None = None) -> DataSpec:
    """What a model is told about the data: those of the leading source, and those of the others by their names."""
    return DataSpec(dict(data.fields), {name: spec_of(other) for name, other in (others or {}).items()})


def to_float(images: Tensor) -> Tensor:
    """uint8 (B, H, W, C) -> float32 (B, C, H, W) in [-1, 1], channels_last."""
    return torch.add(torch.tensor(-1.0), images, alpha=1 / 127.5).permute(0, 3, 1, 2)  # one pass over memory instead of three


def to_uint8(images: Tensor) -> Tensor:
    """float (B, C, H, W) in [-1, 1] -> uint8 (B, H, W, C) on the CPU, rounded and clipped."""
    return quantised(images).cpu()


def quantised(images: Tensor) -> Tensor:
    """The same where the images are, so that a quarter of the bytes has to travel."""
    return images.detach().float().add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


class Batches:
    """Makes batches of a run's data on a device.

    Args:
        data: the leading source.
        device: where the batches' tensors live.
        others: the further sources, by name.
    """

    def __init__(self, data: Items, device: torch.device, others: Mapping[str, Items] | None = None) -> None:
        self.data, self.device, self.others = data, device, dict(others or {})
        self._sources = {name: _Source(items, device) for name, items in {"": data, **self.others}.items()}

    def __len__(self) -> int:
        return len(self.data)

    @property
    def spec(self) -> DataSpec:
        return spec_of(self.data, self.others)

    def fingerprint(self) -> str:
        """Of all sources: that of the data, where there is one only."""
        found = [self.data.fingerprint(), *(f"{name} {other.fingerprint()}" for name, other in sorted(self.others.items()))]
        return " ".join(found)

    def at(self, index: np.ndarray | list[int], size: tuple[int, int] | None = None) -> Batch:
        """The items of the leading source at the given positions, images in their own size or in another."""
        return self._sources[""].batch(np.asarray(index, dtype=np.int64), size)

    def in_order(self, batch: int, start: int = 0, stop: int | None = None, size: tuple[int, int] | None = None) -> Iterator[Batch]:
        """The items from `start` to `stop` once, in order, images in their own size or in another; the last batch may be smaller."""
        return self._sources[""].in_order(batch, start, stop, size)

    def whole(self, batch: int, size: tuple[int, int] | None = None) -> WholeData:
        """All items of every source, for what looks at all of them."""
        return WholeData(self._sources, batch, size)

    def stream(
        self,
        seed: int,
        batch: int,
        seen: int,
        keys: Iterable[str] = (),
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        size: tuple[int, int] | None = None,
    ) -> Generator[Batch, None, None]:
        """Batches without end, from the point where `seen` images have been seen.

        `batch` counts the items of all `world` ranks together; this one gets its share. With `workers` > 0 that many threads fetch
        `keys` ahead of the training step; the batches are the same. Of sets that lie in pieces on a disk they are always fetched before
        the batch is handed out: data that cannot be read stop a run between two steps. `size` is that of the leading source's images.

        On a GPU with room for them (`models.device.room_for_data`) the fields that are asked for are kept there, whole.
        """
        sources = self._sources
        sources[""].forget_other_sizes(size)
        eager = tuple(keys) if workers or any(source.items.pieces is not None for source in sources.values()) else ()
        orders = {name: Order(source.items, seed, name, rank, world) for name, source in sources.items()}

        def prepare(position: int) -> Batch:
            others = lru_cache(maxsize=None)(lambda name: sources[name].batch(orders[name].of_batch(position, batch), keep=True))
            made = sources[""].batch(orders[""].of_batch(position, batch), size, others, keep=True)
            for key in eager:
                made.get(key)
            return made

        position = seen
        if workers == 0:
            while True:
                yield prepare(position)
                position += batch
        with ThreadPoolExecutor(workers, thread_name_prefix="lgm-batches") as pool:
            ahead: deque[Future[Batch]] = deque()
            try:
                while True:
                    while len(ahead) <= workers:
                        ahead.append(pool.submit(prepare, position))
                        position += batch
                    yield ahead.popleft().result()
            finally:  # the stream was closed: do not wait for what nobody will read
                for future in ahead:
                    future.cancel()


class WholeData:
    """All items of a run's sources, once and in order (`models.base.Whole`)."""

    def __init__(self, sources: Mapping[str, _Source], batch: int, size: tuple[int, int] | None = None) -> None:
        self._sources, self._batch, self._size = sources, batch, size

    def __iter__(self) -> Iterator[Batch]:
        return self._sources[""].in_order(self._batch, size=self._size)

    def __getitem__(self, source: str) -> Iterator[Batch]:
        return self._sources[source].in_order(self._batch)


class _Source:
    """One source's items on their way to a device."""

    def __init__(self, items: Items, device: torch.device) -> None:
        self.items, self.device = items, device
        self._kept: dict[tuple[str, tuple[int, int] | None], Tensor | None] = {}  # whole fields on the device; None: there is no room
        self._lock = Lock()

    def in_order(self, batch: int, start: int = 0, stop: int | None = None, size: tuple[int, int] | None = None) -> Iterator[Batch]:
        stop = len(self.items) if stop is None else stop
        for first in range(start, stop, batch):
            yield self.batch(np.arange(first, min(first + batch, stop)), size)

    def batch(
        self,
        index: np.ndarray,
        size: tuple[int, int] | None = None,
        others: Callable[[str], Batch] | None = None,
        keep: bool = False,
    ) -> Batch:
        """The items at `index`. `keep`: more batches will follow, so a field that there is room for stays on the device."""

        def fetch(key: str, index: Tensor) -> Tensor:
            asked = key, size if key == "image" else None
            whole = self._whole(*asked) if keep else self._kept.get(asked)
            if whole is None:
                return self._as_model_sees(key, sent(torch.from_numpy(self.items.rows(key, index.numpy(), asked[1])), self.device))
            return self._as_model_sees(key, whole.index_select(0, sent(index, self.device)))

        positions = torch.from_numpy(index)
        return Batch(positions.pin_memory() if self.device.type == "cuda" else positions, fetch, self.device, others)

    def forget_other_sizes(self, size: tuple[int, int] | None) -> None:
        """Free what is kept of images in any other size than this: the stage that saw them is over."""
        self._kept = {asked: whole for asked, whole in self._kept.items() if asked[0] != "image" or asked[1] == size}

    def _as_model_sees(self, key: str, values: Tensor) -> Tensor:
        kind = self.items.fields[key].kind if key in self.items.fields else None
        if kind == "image":
            return to_float(values)
        if kind == "clip":
            return to_float(values.flatten(0, 1)).unflatten(0, values.shape[:2])
        return values.float() if kind in ("flags", "vector") else values

    def _whole(self, key: str, size: tuple[int, int] | None) -> Tensor | None:
        """A field of all items on the device, if there is room for it."""
        with self._lock:
            if (key, size) not in self._kept:
                self._kept[key, size] = self._upload(key, size)
            return self._kept[key, size]

    def _upload(self, key: str, size: tuple[int, int] | None) -> Tensor | None:
        room = room_for_data(self.device)
        if not room or self.items.rows(key, np.arange(1), size).nbytes * len(self.items) > room:
            return None
        blocks = (np.arange(start, min(start + 4096, len(self.items))) for start in range(0, len(self.items), 4096))
        return torch.cat([torch.from_numpy(self.items.rows(key, block, size)).to(self.device) for block in blocks])
