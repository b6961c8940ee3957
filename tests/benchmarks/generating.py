"""Asking a trained model, as ratios to the plain forward pass of the same network: what do seeds, blocks and bookkeeping cost?

    python tests/benchmarks/generating.py [--rounds 5] [--threads 2] [--device cuda]

All take turns in one process. The plain pass calls the network on batches of the device's block and of four times as many, noise and images
made beforehand and results left as they are; the better of the two counts. A search is compared with its own steps, forward and backward,
without anything around them. Medians over the rounds; the goal is 0.8.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.base import DataSpec
from models.capabilities.ask import SEARCHED
from models.capabilities.constrained import Effort, searched
from models.capabilities.project import search
from models.capabilities.reconstruct import reconstructions
from models.capabilities.sample import draw
from models.config import check
from models.data.batches import to_float
from models.device import block_of, settle
from models.registry import model_class

GOAL = 0.8
STEPS = 5  # of a search
CASES: tuple[tuple[str, str, dict[str, Any], tuple[int, int, int], int], ...] = (  # name, model, options, shape, images
    ("VAE 28x28, 32 and 64 channels", "vae", {"widths": (32, 64)}, (28, 28, 1), 512),
    ("VAE 64x64, 32 to 256 channels", "vae", {"widths": (32, 64, 128, 256)}, (64, 64, 3), 256),
    ("DCGAN 64x64, 64 to 512 channels", "dcgan", {}, (64, 64, 3), 128),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    settle(device)
    print(f"{chosen.device}, {chosen.threads} threads, blocks of {block_of(device)}; images a second, and as a ratio to the plain pass")
    for name, model, options, shape, count in CASES:
        made = built(model, options, shape).to(device, memory_format=torch.channels_last).eval()
        for verb, ours, plain in contests(made, count, device):
            rates = measured({"ours": ours, **{str(number): step for number, step in enumerate(plain)}}, count, chosen.rounds, device)
            best = max(rate for key, rate in rates.items() if key != "ours")
            ratio = rates["ours"] / best
            print(f"{name}: {verb} {rates['ours']:,.0f} of {best:,.0f}, {ratio:.2f}{'' if ratio >= GOAL else '  MISSED'}", flush=True)


def built(model: str, options: dict[str, Any], shape: tuple[int, int, int]) -> Any:
    torch.manual_seed(0)
    cls = model_class(model)
    return cls(check(cls.Config, options, model), DataSpec.of_images(shape[2], *shape[:2]))


def contests(model: Any, count: int, device: torch.device) -> list[tuple[str, Callable[[], Any], list[Callable[[], Any]]]]:
    """(verb, how lgm does it, how it would be done plainly)."""
    noise = torch.randn(count, *model.noise_shape, device=device)
    images = np.random.default_rng(0).integers(0, 256, (count, *model.spec.size, model.spec.channels), dtype=np.uint8)
    real = to_float(torch.from_numpy(images)).to(device)
    block = block_of(device)
    found = [
        (
            "sample",
            lambda: list(draw(model, count, 0)),
            [lambda size=size: passed(model.sample, noise, size) for size in (block, 4 * block)],
        )
    ]
    few = images[: 2 * SEARCHED]
    found.append(
        (
            f"project, {STEPS} steps from 4 starts",
            lambda: search(model, few, steps=STEPS),
            [lambda: climbed(model.sample, noise[: 8 * SEARCHED], real[: 2 * SEARCHED].repeat_interleave(4, 0), 4 * SEARCHED)],
        )
    )
    if hasattr(model, "encode"):
        again = [lambda size=size: passed(lambda x: model.decode(model.encode(x)), real, size) for size in (block, 4 * block)]
        found.append(("reconstruct", lambda: reconstructions(model, images), again))
        codes = model.encode(real[: 2 * SEARCHED]).detach()
        effort = Effort(steps=STEPS)
        found.append(
            (
                f"edit by a rule, {STEPS} steps",
                lambda: searched(model, codes, None, lambda x: x.mean((1, 2, 3)) - 2, effort, lambda *_: None),
                [lambda: climbed(model.decode, codes, real[: 2 * SEARCHED], SEARCHED)],
            )
        )
    return found


@torch.no_grad()
def passed(function: Callable[[Tensor], Tensor], inputs: Tensor, size: int) -> None:
    for part in inputs.split(size):
        function(part)


def climbed(function: Callable[[Tensor], Tensor], start: Tensor, target: Tensor, size: int) -> None:
    """The steps of a search, forward and backward."""
    for point, wanted in zip(start.split(size), target.split(size), strict=True):
        point = point.clone().requires_grad_()
        optimizer = torch.optim.Adam([point], lr=0.1)
        for _ in range(STEPS):
            (function(point) - wanted).square().mean().backward(inputs=[point])
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            function(point)  # a search looks at where its last step led


def measured(contenders: dict[str, Callable[[], Any]], count: int, rounds: int, device: torch.device) -> dict[str, float]:
    """Images a second of each, taking turns. (Of searches so many are not made: only ratios mean something.)"""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for step in contenders.values():
        step()
    for _ in range(rounds):
        for name, step in contenders.items():
            begin = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - begin)
    return {name: count / statistics.median(found) for name, found in seconds.items()}


if __name__ == "__main__":
    main()
