"""From an `ImageData` to batches on a device: which items come next, and how they get there.

The order is a pure function of the seed and of the number of images seen, so a resumed run sees what the straight run would have seen.
Batches are always full: where an epoch ends inside a batch, the next epoch's order goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from models.base import Batch, DataSpec
from models.data.dataset import ImageData
from models.errors import UserError
from models.randomness import epoch_order


def spec_of(data: ImageData) -> DataSpec:
    _, height, width, channels = data.images.shape
    people = 0 if data.identities is None else int(data.identities.max()) + 1
    return DataSpec(channels, height, width, data.classes, data.attribute_names, data.factor_names, people)


def to_float(images: Tensor) -> Tensor:
    """uint8 (B, H, W, C) -> float32 (B, C, H, W) in [-1, 1], channels_last."""
    return torch.add(torch.tensor(-1.0), images, alpha=1 / 127.5).permute(0, 3, 1, 2)  # one pass over memory instead of three


def to_uint8(images: Tensor) -> Tensor:
    """float (B, C, H, W) in [-1, 1] -> uint8 (B, H, W, C) on the CPU, rounded and clipped."""
    return images.detach().float().add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()


class Batches:
    """Makes batches of a data set on a device.

    Args:
        data: the decoded data set.
        device: where the batches' tensors live.
    """

    def __init__(self, data: ImageData, device: torch.device) -> None:
        self.data, self.device = data, device
        self._arrays = {
            "image": data.images,
            "label": data.labels,
            "attributes": data.attributes,
            "factors": data.factors,
            "identity": data.identities,
        }

    def __len__(self) -> int:
        return len(self.data)

    def at(self, index: np.ndarray | list[int]) -> Batch:
        """The items at the given positions of the data set."""
        return Batch(torch.as_tensor(np.asarray(index, dtype=np.int64)), self._fetch, self.device)

    def in_order(self, batch: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """The items from `start` to `stop` once, in order; the last batch may be smaller."""
        stop = len(self) if stop is None else stop
        for first in range(start, stop, batch):
            yield self.at(np.arange(first, min(first + batch, stop)))

    def stream(
        self, seed: int, batch: int, seen: int, keys: Iterable[str] = (), workers: int = 0, rank: int = 0, world: int = 1
    ) -> Generator[Batch, None, None]:
        """Batches without end, from the point where `seen` images have been seen.

        `batch` counts the items of all `world` ranks together; this one gets its share. With `workers` > 0 that many threads fetch
        `keys` ahead of the training step; the batches are the same.
        """
        share = batch // world
        shuffled = lru_cache(maxsize=2)(lambda epoch: epoch_order(seed, epoch, len(self)))

        def items(position: int) -> np.ndarray:
            positions = np.arange(position + rank * share, position + (rank + 1) * share)
            epochs = positions // len(self)
            parts = [shuffled(int(e))[positions[epochs == e] % len(self)] for e in np.unique(epochs)]
            return np.concatenate(parts)

        def prepare(position: int) -> Batch:
            made = self.at(items(position))
            for key in keys if workers else ():
                getattr(made, key)
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

    def _fetch(self, key: str, index: Tensor) -> Tensor:
        values = self._arrays[key]
        if values is None:
            raise UserError(f"the data have no {key}", self.data.name, "choose data with labels of that kind (`lgm data info DATA`)")
        chosen = torch.from_numpy(values[index.numpy()])
        if key == "image":
            return to_float(chosen.to(self.device))
        if key in ("attributes", "factors"):
            chosen = chosen.float()
        return chosen.to(self.device)
