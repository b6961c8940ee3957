"""What a step of cGML costs, as a ratio to plain regression's on the same networks; and what it would without what its walk keeps.

    python tests/benchmarks/answers.py [--rounds 5] [--threads 2]

All take turns in one process: a step of regression, one of cGML with its own number of iterations, one whose walk encodes the question
anew in every iteration, and one in which the walk's slopes are taken of the decoder's weights as well. Medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path[:0] = [str(Path(__file__).parents[2])]

SHAPES = ((28, 28, 1), (32, 32, 3), (64, 64, 3))  # height, width, channels
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print(f"{chosen.threads} threads, batch {BATCH}; a step's time, and as a ratio to regression's")
    for shape in SHAPES:
        steps = contenders(shape)
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for step in steps.values():
            step()
        for _ in range(chosen.rounds):
            for name, step in steps.items():
                begin = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - begin)
        medians = {name: statistics.median(found) for name, found in seconds.items()}
        base = medians["regression"]
        print(
            f"{shape[1]}x{shape[0]}: " + ", ".join(f"{name} {1000 * value:.0f} ms ({value / base:.1f})" for name, value in medians.items())
        )


def contenders(shape: tuple[int, int, int]) -> dict[str, Callable[[], None]]:
    def alone() -> Any:
        return built("cgml", shape, judge_weight=0.0)

    return {
        "regression": stepping(built("regression", shape), shape),
        "cgml": stepping(built("cgml", shape), shape),
        "without a discriminator": stepping(alone(), shape),
        "encoding in every iteration": stepping(alone(), shape, encoding_again),
        "slopes of the weights too": stepping(alone(), shape, all_slopes),
    }


def built(name: str, shape: tuple[int, int, int], **options: Any) -> Any:
    from models.base import DataSpec
    from models.config import check
    from models.registry import model_class

    cls = model_class(name)
    torch.manual_seed(0)
    return cls(check(cls.Config, options, name), DataSpec.of_images(shape[2], shape[0], shape[1])).to(memory_format=torch.channels_last)


def stepping(model: Any, shape: tuple[int, int, int], change: Callable[[Any], None] | None = None) -> Callable[[], None]:
    """A step of a model as the training loop takes it."""
    from models.base import Batch, Clock
    from models.training.turn import Mover

    height, width, channels = shape
    images = (2 * torch.rand(BATCH, channels, height, width) - 1).contiguous(memory_format=torch.channels_last)
    batch = Batch(torch.arange(BATCH), lambda key, index: images[index], torch.device("cpu"))
    mover = Mover(model, tuple(model.players()))
    if change:
        change(model)

    def step() -> None:
        for number, turn in enumerate(model.turns(batch, Clock(0))):
            mover.apply(turn, number)

    return step


def encoding_again(model: Any) -> None:
    """The walk looks at the question again whenever z has moved."""
    decoder = model.decoder.forward
    shown: list[torch.Tensor] = []
    encoder = model.encoder.forward

    def encode(image: torch.Tensor) -> Any:
        shown[:] = [image]
        return encoder(image)

    def decode(features: Any, code: torch.Tensor) -> torch.Tensor:
        return decoder(features if features.gist.requires_grad else encoder(shown[0]).detach(), code)

    model.encoder.forward, model.decoder.forward = encode, decode


def all_slopes(model: Any) -> None:
    """The walk takes the slopes of the decoder's weights with those of z, and throws them away."""
    import models.zoo.cgml as cgml

    parameters = list(model.decoder.parameters())
    walked = model.walked

    def slope(function: Callable[[torch.Tensor], torch.Tensor], points: torch.Tensor) -> torch.Tensor:
        points = points.detach().requires_grad_()
        return torch.autograd.grad(function(points).sum(), [points, *parameters])[0]

    def walk(*words: Any) -> Any:
        original, cgml.slope = cgml.slope, slope  # type: ignore[assignment]
        try:
            return walked(*words)
        finally:
            cgml.slope = original

    model.walked = walk


if __name__ == "__main__":
    main()
