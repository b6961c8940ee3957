"""What principal components reconstruct when they may keep only so many nats of an image, as a model's code does.

    python docs/reproduce/components.py --data mnist --nats 4.7

A model whose KL term leaves it a few nats cannot be compared with components whose numbers are kept exactly. Here images count as
Gaussian, and the nats go to the components that they help most (reverse water-filling): the least squared error that any code of that
length reaches for a Gaussian. The second number is for a decoder that is told the class: the covariance within the classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from models.data.load import load, parse


def least_error(covariance: np.ndarray, nats: float) -> float:
    """The mean squared error of a value when `nats` describe all of them: covariance (D, D) -> the mean over D, by bisection."""
    variances = np.linalg.eigvalsh(covariance).clip(1e-12)
    low, high = 1e-12, float(variances.max())  # of the level up to which a variance stays unknown
    for _ in range(200):
        level = float(np.sqrt(low * high))
        spent = 0.5 * np.log(np.maximum(variances / level, 1)).sum()
        low, high = (level, high) if spent > nats else (low, level)
    return float(np.minimum(variances, level).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--nats", type=float, required=True)
    chosen = parser.parse_args()
    data = load(parse(chosen.data, root=chosen.data_root))
    values, labels = data.all("image").reshape(len(data), -1) / 255, data.all("label")
    shares = np.bincount(labels) / len(labels)
    within = sum(share * np.cov(values[labels == k].T, bias=True) for k, share in enumerate(shares))
    print(f"{least_error(np.cov(values.T, bias=True), chosen.nats):.4f}, told the class {least_error(within, chosen.nats):.4f}")


if __name__ == "__main__":
    main()
