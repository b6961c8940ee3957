"""Inception features per second from a folder of 64x64 PNGs: lgm against torch-fidelity's own loop, as ratios in one run.

    python tests/benchmarks/inception.py [--images 256] [--rounds 3] [--threads 2] [--batch 32] [--workers 0]

Same folder, same weights (random ones in the original's format), same features and logits. torch-fidelity runs
`extract_featuresdict_from_input_id` with its defaults: batches of 64, a DataLoader with four processes. lgm runs `extract` over a
`FolderSource`. Each lives in a process of its own and they take turns, one pass over the folder each, so that all see the same machine; the
ratio of the median speeds is printed. A first pass over a few images is not counted. The features of the last pass are compared.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

RIVAL = "torch-fidelity fp32"
PROMISES = {"lgm fp32": 1.2, "lgm bf16": 1.8}
WARM = 8  # images of the first pass


def write_images(folder: Path, count: int) -> Path:
    """`count` colour PNGs of 64x64: smooth blobs with noise on top."""
    from PIL import Image

    folder.mkdir()
    dice = np.random.default_rng(0)
    for number in range(count):
        smooth = Image.fromarray(dice.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
        noisy = np.clip(np.asarray(smooth) + dice.normal(0, 8, (64, 64, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number:05d}.png")
    return folder


def torch_fidelity_loop(weights: Path) -> Callable[[Path], Any]:
    from torch_fidelity.utils import create_feature_extractor, extract_featuresdict_from_input_id

    options = {"cuda": False, "verbose": False, "cache": False}
    layers = ["2048", "logits_unbiased"]
    network = create_feature_extractor("inception-v3-compat", layers, feature_extractor_weights_path=str(weights), **options)

    def run(folder: Path) -> Any:
        return extract_featuresdict_from_input_id(1, network, input1=str(folder), **options)["2048"]

    return run


def lgm_loop(weights: Path, precision: str, batch: int, workers: int) -> Callable[[Path], Any]:
    import torch

    from models.data.dataset import DataRequest
    from models.data.sources import FolderSource
    from models.device import settle
    from models.metrics.features.extract import extract
    from models.metrics.features.inception import InceptionFeatures

    settle(torch.device("cpu"))
    network = InceptionFeatures(weights, precision=precision)

    def run(folder: Path) -> Any:
        return torch.cat([block.features for block in extract(FolderSource(DataRequest(str(folder))), network, batch, workers)])

    return run


def work(contender: str, weights: Path, batch: int, workers: int, threads: int, pipe: Connection) -> None:
    """A process: for every folder received, one pass over it; sends back the seconds and the features."""
    import torch

    multiprocessing.set_start_method(None, force=True)  # a DataLoader in a spawned process would spawn its own, which takes seconds
    torch.set_num_threads(threads)
    run = torch_fidelity_loop(weights) if contender == RIVAL else lgm_loop(weights, contender.split()[1], batch, workers)
    while folder := pipe.recv():
        began = time.perf_counter()
        features = run(folder).numpy()
        pipe.send((time.perf_counter() - began, features))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--batch", type=int, default=32, help="of lgm")
    parser.add_argument("--workers", type=int, default=0, help="of lgm; 0: its default")
    parser.add_argument("--only", choices=list(PROMISES))
    arguments = parser.parse_args()
    contenders = [RIVAL, *([arguments.only] if arguments.only else PROMISES)]
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="lgm-benchmark-") as temporary:
        from inception_weights import write_weights

        weights = write_weights(Path(temporary, "weights.pth"))
        few, folder = write_images(Path(temporary, "few"), WARM), write_images(Path(temporary, "images"), arguments.images)
        pipes, processes = {}, []
        for contender in contenders:
            pipes[contender], far = context.Pipe()
            settings = (contender, weights, arguments.batch, arguments.workers, arguments.threads, far)
            processes.append(context.Process(target=work, args=settings))
            processes[-1].start()
        for pipe in pipes.values():
            pipe.send(few)
            pipe.recv()
        speeds: dict[str, list[float]] = {contender: [] for contender in contenders}
        features = {}
        for _ in range(arguments.rounds):
            for contender, pipe in pipes.items():
                pipe.send(folder)
                seconds, features[contender] = pipe.recv()
                speeds[contender].append(arguments.images / seconds)
        for pipe, process in zip(pipes.values(), processes):
            pipe.send(None)
            process.join()
    right = features[RIVAL]
    for contender, values in speeds.items():
        line = f"{contender}: {statistics.median(values):.1f} images/s ({min(values):.1f} to {max(values):.1f})"
        if contender != RIVAL:
            ratio, least = statistics.median(values) / statistics.median(speeds[RIVAL]), PROMISES[contender]
            error = np.linalg.norm(features[contender] - right) / np.linalg.norm(right)
            spread = np.linalg.norm(features[contender] - right) / np.linalg.norm(right - right.mean(axis=0))
            line += f", {ratio:.2f}x (at least {least}x promised){'' if ratio >= least else ': MISSED'}; features differ by "
            line += f"{error:.1e} of their size, {spread:.1e} of their spread over the images"
        print(line, flush=True)


if __name__ == "__main__":
    main()
