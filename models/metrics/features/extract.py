"""The one pass over a source: threads decode and prepare the next batches while the network works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.data.dataset import ImageData
from models.data.sources import ItemSource
from models.errors import UserError
from models.metrics.features.base import Features, Source

MOST_WORKERS = 8  # by default: each holds a prepared batch, 34 MB at 32 images of 299x299
Prepared = tuple[Sequence[np.ndarray], Tensor | None]  # no tensor where no image is left


@dataclass(frozen=True)
class Block:
    """Some consecutive images of a source and what the network says of them."""

    images: Sequence[np.ndarray]  # B arrays, uint8 (H, W, 1 or 3); their sizes may differ
    features: Tensor  # (B, D) float32, on the CPU
    logits: Tensor  # (B, K) float32, on the CPU


def extract(source: Source, features: Features, batch: int = 32, workers: int = 0, rank: int = 0, world: int = 1) -> Iterator[Block]:
    """The features of all images of `source`, in its order.

    Args:
        source: loaded by the workers where it is `parallel`, else by the consumer's own thread, block after block.
        features: `prepare` runs in the workers, `apply` in the consumer's thread.
        batch: images that go through the network together; on a CPU, more than 32 were slower. Features depend on it by rounding only.
        workers: threads; 0: as many as torch uses, at most 8. At most `workers` + 1 prepared batches are kept waiting.
        rank, world: only the rank-th of `world` shares, which are consecutive, so the ranks' blocks in rank order are the whole pass.

    Raises UserError where the source is empty or says so of one of its images, and for a batch or number of workers out of range.
    """
    if batch < 1:
        raise UserError(f"a batch of {batch} images", "--batch", "1 or more")
    if workers < 0:
        raise UserError(f"{workers} workers", "--workers", "0 (one per core) or more")
    count = len(source)
    if not count:
        raise UserError("0 images to look at", source.name, "name a source that has images")
    first, last = count * rank // world, count * (rank + 1) // world
    spans = [(start, min(start + batch, last)) for start in range(first, last, batch)]
    return _blocks(source, features, spans, workers or min(torch.get_num_threads(), MOST_WORKERS))


def looked_at(images: np.ndarray, features: Features) -> tuple[Tensor, Tensor]:
    """Features (N, D) and logits (N, K) of images (N, H, W, C)."""
    blocks = list(extract(ItemSource(ImageData("images", images)), features))
    return torch.cat([block.features for block in blocks]), torch.cat([block.logits for block in blocks])


def _blocks(source: Source, features: Features, spans: Sequence[tuple[int, int]], workers: int) -> Iterator[Block]:
    def prepare(images: Sequence[np.ndarray]) -> Prepared:
        return images, features.prepare(images) if len(images) else None

    def load_and_prepare(span: tuple[int, int]) -> Prepared:
        return prepare(source.load(*span))

    def finish(ready: Future[Prepared]) -> Iterator[Block]:
        images, tensor = ready.result()
        if tensor is not None:
            yield Block(images, *features.apply(tensor))

    waiting: deque[Future[Prepared]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="lgm-extract") as pool:
        try:
            for span in spans:
                if source.parallel:
                    waiting.append(pool.submit(load_and_prepare, span))
                else:
                    waiting.append(pool.submit(prepare, source.load(*span)))
                if len(waiting) > workers:
                    yield from finish(waiting.popleft())
            while waiting:
                yield from finish(waiting.popleft())
        finally:  # an error, or a consumer that has seen enough: what has not begun never will
            for future in waiting:
                future.cancel()
