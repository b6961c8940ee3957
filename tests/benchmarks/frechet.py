"""The Frechet distance against the textbook's, which takes scipy's square root of a matrix: ratios in one run.

    python tests/benchmarks/frechet.py [--dimensions 2048] [--rounds 3] [--threads 2 1] [--only natural]

Both start from means and covariances in float64, as from two saved statistics files, and take turns in a process of their own for each
number of threads; medians are compared. The cases: spectra that fall like those of natural images' features; the same with fewer images
than dimensions; and two nearly equal sets with a steep spectrum, where lgm takes the slower of its two ways because the faster one could
not keep six digits of a distance so small.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))


@dataclasses.dataclass(frozen=True)
class Case:
    """Two sets of images. Features have independent directions whose variances fall as k^-decay."""

    name: str
    images: float  # for each dimension
    decay: float
    turned: float  # how far the second set's directions are turned against the first's
    promised: float = 0.0  # least ratio


CASES = (
    Case("natural", 4, 1.4, 0.5, 10),
    Case("few images", 0.5, 1.4, 0.5, 10),
    Case("steep and close", 4, 3, 0.1),
)


def moments(case: Case, dimensions: int) -> tuple[Any, Any]:
    import torch

    from models.metrics.stats.moments import Moments

    dice = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Any:
        return torch.randn(*shape, generator=dice, dtype=torch.float64)

    deviation = torch.arange(1, dimensions + 1, dtype=torch.float64) ** (-case.decay / 2)
    turn = torch.linalg.qr(normal(dimensions, dimensions))[0]
    turns = (turn, torch.linalg.qr(turn + case.turned * normal(dimensions, dimensions) / dimensions**0.5)[0])
    made = []
    for each in turns:
        rows = normal(round(case.images * dimensions), dimensions) * deviation @ each.T
        scatter = torch.cov(rows.T) * (len(rows) - 1)
        made.append(Moments.of(len(rows), rows.mean(0), (scatter + scatter.T) / 2))
    return made[0], made[1]


def textbook(one: Any, other: Any) -> float:
    """As in most FID scripts."""
    import numpy as np
    from scipy.linalg import sqrtm

    covariances = one.covariance().numpy(), other.covariance().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sqrtm warns of singular matrices
        root = sqrtm(covariances[0].dot(covariances[1]))
    apart = (one.mean - other.mean).numpy()
    return float(apart.dot(apart) + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.trace(np.real(root)))


def timed(function: Callable[..., float], *args: Any) -> tuple[float, float]:
    began = time.perf_counter()
    value = function(*args)
    return time.perf_counter() - began, value


def work(only: str | None, dimensions: int, rounds: int, threads: int) -> bool:
    """The cases in this process. Returns whether the promises were kept."""
    import torch

    from models.metrics.stats.frechet import frechet_distance

    torch.set_num_threads(threads)
    kept = True
    for case in CASES:
        if only not in (None, case.name):
            continue
        one, other = moments(case, dimensions)
        frechet_distance(one, other)
        lgm, scipy = zip(*((timed(frechet_distance, one, other), timed(textbook, one, other)) for _ in range(rounds)), strict=True)
        mine, theirs = (statistics.median(t for t, _ in times) for times in (lgm, scipy))
        ratio = theirs / mine
        verdict = "" if not case.promised else f" (at least {case.promised:g}x promised){'' if ratio >= case.promised else ': MISSED'}"
        kept = kept and ratio >= case.promised
        print(
            f"{threads} thread{'s' * (threads > 1)}, {case.name}: lgm {mine:.2f} s, sqrtm {theirs:.2f} s, {ratio:.1f}x{verdict};"
            f" distance {lgm[0][1]:.6g}, {lgm[0][1] / scipy[0][1] - 1:+.1e} against sqrtm",
            flush=True,
        )
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[case.name for case in CASES])
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({multiprocessing.cpu_count(), 1}, reverse=True))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        sys.exit(not work(arguments.only, arguments.dimensions, arguments.rounds, arguments.threads[0]))
    kept = True
    for threads in arguments.threads:  # the libraries read these once, at their first import
        settings = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
        words = ["--here", "--dimensions", str(arguments.dimensions), "--rounds", str(arguments.rounds), "--threads", str(threads)]
        words += ["--only", arguments.only] if arguments.only else []
        kept = not subprocess.run([sys.executable, __file__, *words], env={**os.environ, **settings}).returncode and kept
    sys.exit(not kept)


if __name__ == "__main__":
    main()
