"""Several processes on one model: `torchrun --nproc-per-node N --no-python lgm train ...`.

Every rank works on its share of each batch; gradients and floating-point buffers are averaged (`models.training.exchange`), so that the
ranks stay identical. Rank 0 writes and speaks.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed as dist

from models.errors import RunFailed, UserError

TIMEOUT = timedelta(minutes=30)  # a rank that waits longer for the others (a download, say) gives up


@dataclass(frozen=True)
class Ranks:
    """This process's place among the processes of the run.

    Attributes:
        again: whether these processes were started in the place of others, which have failed.
    """

    rank: int = 0
    world: int = 1
    again: bool = False

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def share_of(self, batch: int) -> int:
        if batch % self.world:
            raise UserError(f"a batch of {batch} cannot be divided among {self.world} ranks", "--batch", f"use a multiple of {self.world}")
        return batch // self.world

    def any(self, flag: int) -> int:
        """The largest `flag` of all ranks: what one rank was told (a signal), all ranks know at the same step."""
        return self.ask(flag)()

    def ask(self, flag: int) -> Callable[[], int]:
        """The same, while the caller goes on: what it calls later, to know. Every rank must call both."""
        if self.world == 1:
            return lambda: flag
        box = torch.tensor([flag])
        asked = dist.all_reduce(box, op=dist.ReduceOp.MAX, async_op=True)

        def answer() -> int:
            asked.wait()
            return int(box)

        return answer

    def same(self, text: str) -> bool:
        """Whether all ranks have the same text of the same length (a data fingerprint, say)."""
        if self.world == 1:
            return True
        mine = torch.tensor(list(text.encode()), dtype=torch.int64)
        low, high = mine.clone(), mine.clone()
        dist.all_reduce(low, op=dist.ReduceOp.MIN)
        dist.all_reduce(high, op=dist.ReduceOp.MAX)
        return bool((low == high).all())

    def from_first(self, text: str) -> str:
        """Rank 0's text, on all ranks."""
        if self.world == 1:
            return text
        length = torch.tensor([len(text.encode())])
        dist.broadcast(length, src=0)
        box = torch.tensor(list(text.encode()), dtype=torch.int64) if self.rank == 0 else torch.empty(int(length), dtype=torch.int64)
        dist.broadcast(box, src=0)
        return bytes(box.tolist()).decode()

    def barrier(self) -> None:
        """Wait for the others. (On the CPU: NCCL would take the GPU of its own choice for it.)"""
        self.any(0)

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Rank 0 goes through the block before the others do: what it downloads or caches, they find."""
        if not self.writes:
            self.barrier()
        yield
        if self.writes:
            self.barrier()


@contextmanager
def process_group(device: torch.device) -> Iterator[Ranks]:
    """Join the group that torchrun describes in the environment; a single process needs none."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    # The first optimizer imports this module, whose functions take the group of that moment as an argument's default: it would never be
    # destroyed, and its threads, still running while Python ends, now and then abort a run that has succeeded. Here is none yet to take.
    importlib.import_module("torch.distributed.nn.functional")

    try:
        store, rank, world = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
        # gloo beside NCCL, because flags and texts travel on the CPU.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        number, again = _meet(store, rank, world)
        dist.init_process_group(backend, store=dist.PrefixStore(f"lgm {number}", store), rank=rank, world_size=world, timeout=TIMEOUT)
        yield Ranks(rank, world, again)
    except (RuntimeError, dist.DistError) as error:
        if "gloo" not in str(error).lower() and "nccl" not in str(error).lower() and "connection" not in str(error).lower():
            raise
        where = f"rank {os.environ.get('RANK', '0')}"
        raise RunFailed("another rank has stopped", where, "see the first error of the other ranks") from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


_groups = itertools.count(1)  # of this process


def _meet(store: dist.Store, rank: int, world: int) -> tuple[int, bool]:
    """The number of the process group that is about to form, and whether other processes than these have formed one before.

    torchrun keeps its store when it starts processes again, with the addresses of those that are gone, and its counts of restarts differ
    between machines. So the first rank begins a new round, and waits until all others have said hello in that; they wait until
    the first one has answered them, and say hello again where it turns out that the round was an old one.
    """
    mine = next(_groups)
    if rank == 0:
        number = store.add("lgm rounds", 1)
        others = [f"lgm {number} hello {other}" for other in range(1, world)]
        store.wait(others, TIMEOUT)
        again = number > mine
        store.set(f"lgm {number} met", json.dumps([again, *(store.get(key).decode() for key in others)]))
        return number, again
    token, end, greeted = uuid.uuid4().hex, time.monotonic() + TIMEOUT.total_seconds(), 0
    while time.monotonic() < end:
        number = store.add("lgm rounds", 0)
        if number > greeted:
            store.set(f"lgm {number} hello {rank}", token)
            greeted = number
        if store.check([f"lgm {number} met"]):
            again, *tokens = json.loads(store.get(f"lgm {number} met"))
            if tokens[rank - 1] == token:
                return number, again
        time.sleep(0.05)
    raise RunFailed("the first rank has not come", f"rank {rank}", "see its errors")
