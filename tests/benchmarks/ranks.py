"""Training on two ranks, side by side: lgm's loop, the same with all gradients sent at the end, and torch's DistributedDataParallel.

    python tests/benchmarks/ranks.py [--rounds 5] [--steps 20] [--only autoencoder64]

Each contender is two processes of one thread each, joined by gloo on this machine, which train the same network on batches of 64; they take
turns, and the median is printed. `at the end` waits with every gradient until the last one is there. DistributedDataParallel runs its plain
loop on tensors that lie in memory already.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from speed import CASES, ENDLESS, Case, build, pictures, textbook_autoencoder

BATCH = 64  # of both ranks
WARM = 4  # steps before the clock starts
CONTENDERS = ("one process", "two ranks", "two ranks, at the end", "two ranks, DistributedDataParallel")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--only", choices=["autoencoder64", "conv28"])
    chosen = parser.parse_args()
    for case in CASES:
        if case.name not in ("autoencoder64", "conv28") or chosen.only not in (None, case.name):
            continue
        rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for _ in range(chosen.rounds):
            for name, found in rates.items():
                found.append(rate(case.name, name, chosen.steps))
        medians = {name: statistics.median(found) for name, found in rates.items()}
        print(f"{case.name}: " + ", ".join(f"{name} {value:,.0f} images/s" for name, value in medians.items()), flush=True)


def rate(case: str, name: str, steps: int) -> float:
    """Images a second of a contender."""
    world = 1 if name == "one process" else 2
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    answers: Any = context.Queue()
    processes = [context.Process(target=work, args=(case, name, steps, rank, world, port, answers)) for rank in range(world)]
    for process in processes:
        process.start()
    seconds = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    return BATCH * steps / max(seconds)


def work(name: str, contender: str, steps: int, rank: int, world: int, port: int, answers: Queue[float]) -> None:
    """One process of a contender: sends how long its steps took."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    import dataclasses

    import torch

    from models.training import exchange, turn
    from models.training.distributed import process_group

    torch.set_num_threads(1)
    case = dataclasses.replace(next(case for case in CASES if case.name == name), batch=BATCH)
    if contender.endswith("at the end"):
        turn.gradients_averaged = partial(exchange.gradients_averaged, bucket=2**40)  # type: ignore[assignment]
    with process_group(torch.device("cpu")) as ranks:
        going = plain(case, ranks) if contender.endswith("Parallel") else ours(case, ranks)
        for _ in range(WARM):
            next(going)
        begin = time.perf_counter()
        for _ in range(steps):
            next(going)
        answers.put(time.perf_counter() - begin)


def ours(case: Case, ranks: Any) -> Iterator[None]:
    """lgm's own training loop; stops after every step."""
    import torch

    from models.config import RunConfig, check
    from models.data.batches import Batches
    from models.data.dataset import ImageData
    from models.device import settle
    from models.training import events, loop, speed

    settle(torch.device("cpu"))
    never = {"sample_every": ENDLESS, "save_every": ENDLESS, "log_every": ENDLESS, "average_images": 0}
    config = check(RunConfig, {"model": case.model, "data": "benchmark", "batch": case.batch, "images": ENDLESS, **never}, "benchmark")
    data = ImageData("benchmark", pictures(case.shape))
    speed.TICK = 0  # an event after every step
    with tempfile.TemporaryDirectory(prefix="lgm-benchmark-") as folder:
        device = torch.device("cpu")
        job = loop.Job(config, build(case, torch.channels_last), Batches(data, device), "", Path(folder), device, ranks)
        for event in loop.train(job):
            if isinstance(event, events.Progressed):
                yield


def plain(case: Case, ranks: Any) -> Iterator[None]:
    """The plain loop of an auto-encoder or a VAE in DistributedDataParallel."""
    import torch
    from speed import textbook_vae

    from models.data.batches import to_float

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = build(case, torch.channels_last)
            self.objective = textbook_vae if hasattr(self.model, "log_variance") else textbook_autoencoder

        def forward(self, image: Any) -> Any:
            return self.objective(self.model, image)

    whole = Loss()
    players = [whole.model.players()[name] for name in whole.model.stages()[0].players]
    moving = {id(p) for player in players for p in player.parameters()}
    for parameter in whole.parameters():
        parameter.requires_grad_(id(parameter) in moving)
    parallel = torch.nn.parallel.DistributedDataParallel(whole, broadcast_buffers=False)
    optimizer = torch.optim.Adam([p for p in whole.parameters() if p.requires_grad], lr=players[0].lr, fused=True)
    images = to_float(torch.from_numpy(pictures(case.shape)))
    share = case.batch // ranks.world
    while True:
        for start in range(0, len(images) - case.batch + 1, case.batch):
            optimizer.zero_grad()
            parallel(images[start + ranks.rank * share : start + (ranks.rank + 1) * share]).backward()
            optimizer.step()
            yield


if __name__ == "__main__":
    main()
