"""How good are a run's samples? Sharpness, diversity and a Frechet distance, by a small classifier trained on the same data.

    python tests/benchmarks/quality.py --data fashion-mnist [--test fashion-mnist:test] RUN [RUN ...]

The classifier (three convolutions, 128 penultimate features; class labels, or all binary attributes) is trained here with a fixed seed for
`--epochs` passes, so the numbers compare runs on one data set with each other, not with the Inception FID of a paper. The reference is the
test split. Printed for real training images, for each run's samples and, where the run encodes, for its reconstructions of test images:

* FID: Frechet distance of the features to the test images' (smaller is better);
* diversity: mean distance between the features of two images, relative to the test images' (1 is as diverse);
* sharpness: mean variance of the Laplacian of the grey image, relative to the test images' (1 is as sharp).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
from models.data.batches import Batches, spec_of, to_float
from models.data.dataset import ImageData
from models.data.load import load, parse
from models.randomness import seed_torch

FEATURES = 128


class Classifier(nn.Module):
    """(B, C, H, W) -> logits (B, outputs); `features` gives the (B, 128) before them."""

    def __init__(self, channels: int, size: tuple[int, int], outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        smaller = max(1, min(size) // 28)  # 28 pixels pool twice, 64 three times
        for width in [32, 64, 64, 64][: 2 + smaller]:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
            channels = width
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(FEATURES), nn.ReLU())
        self.head = nn.Linear(FEATURES, outputs)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))


def train_classifier(data: ImageData, epochs: int) -> Classifier:
    """One cycle of Adam from a fixed seed, on labels where there are any and on attributes otherwise."""
    seed_torch(torch.device("cpu"), 0, "classifier")
    spec = spec_of(data)
    net = Classifier(spec.channels, spec.size, len(spec.classes) or len(spec.attributes))
    net(torch.zeros(2, *spec.shape))  # the lazy layer learns its width
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer, batch = torch.optim.Adam(net.parameters(), 2e-3, fused=True), 128
    steps = epochs * len(data) // batch
    for step, items in zip(range(steps), Batches(data, torch.device("cpu")).stream(0, batch, 0)):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(items.image)
        if spec.classes:
            loss = F.cross_entropy(logits.float(), items.label)
        else:
            loss = F.binary_cross_entropy_with_logits(logits.float(), items.attributes)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return net.eval()


@torch.no_grad()
def accuracy(net: Classifier, data: ImageData) -> float:
    right = []
    for items in Batches(data, torch.device("cpu")).in_order(500):
        logits = net(items.image)
        right.append((logits.argmax(1) == items.label) if data.classes else ((logits > 0) == (items.attributes > 0.5)).flatten())
    return float(torch.cat(right).float().mean())


@torch.no_grad()
def features(net: Classifier, images: np.ndarray) -> np.ndarray:
    return torch.cat([net.features(to_float(part)) for part in torch.from_numpy(images).split(500)]).double().numpy()


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance between Gaussians fitted to two sets of features (N, D)."""
    covariance_a, covariance_b = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ covariance_b @ root).clip(0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross)


def spread(found: np.ndarray) -> float:
    """Mean distance between the features of two images."""
    return float(torch.pdist(torch.from_numpy(found[:2000])).mean())


def sharpness(images: np.ndarray) -> float:
    """Mean over the images of the variance of the Laplacian of the grey image."""
    grey = torch.from_numpy(images[:2000]).float().mean(3)[:, None] / 255
    kernel = torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]])
    return float(F.conv2d(grey, kernel).flatten(1).var(1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--test", help="reference; by default the test split of --data")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("-n", type=int, default=10_000, help="samples of each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3, help="of the classifier")
    parser.add_argument("runs", nargs="+", metavar="RUN")
    arguments = parser.parse_args()
    train = load(parse(arguments.data, root=arguments.data_root))
    test = load(parse(arguments.test or f"{arguments.data}:test", root=arguments.data_root))
    net = train_classifier(train, arguments.epochs)
    print(
        f"classifier: {accuracy(net, test):.4f} correct on {len(test):,} reference images; samples: {arguments.n:,}, seed {arguments.seed}"
    )
    reference = features(net, test.images)
    base = (spread(reference), sharpness(test.images))

    def row(name: str, images: np.ndarray) -> None:
        found = features(net, images)
        relative = f"diversity {spread(found) / base[0]:.3f}, sharpness {sharpness(images) / base[1]:.3f}"
        print(f"{name}: FID {frechet(found, reference):.2f}, {relative}", flush=True)

    row("real training images", train.images[: arguments.n])
    for run in arguments.runs:
        trained = models.load(run, device="cpu")
        row(f"{run} samples", trained.sample(arguments.n, arguments.seed))
        row(f"{run} reconstructions", trained.reconstruct(test.images)[0])


if __name__ == "__main__":
    main()
