"""Principal components: the best linear auto-encoder there is, which every other one of the same code length should beat.

Their reconstruction has the least mean squared error that a projection on so many directions can have (Eckart and Young, The Approximation
of One Matrix by Another of Lower Rank, 1936), on the images that they are fitted to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor

SMALL = 2_000  # rows of the largest matrix whose eigenvectors are quickly found: some seconds
IMAGES, VALUES = 10_000, 2**25  # most images, and most values of all of them (256 MB), that components are fitted to


@dataclass(frozen=True)
class Components:
    """Pixels count from 0 (black) to 1 (white): mean (P,) and orthonormal directions (K, P), float64."""

    mean: Tensor
    directions: Tensor

    def encode(self, images: np.ndarray) -> Tensor:
        """How far each image reaches along each direction: uint8 (N, H, W, C) -> (N, K) float64."""
        return (_rows(images) - self.mean) @ self.directions.T

    def errors(self, images: np.ndarray) -> np.ndarray:
        """Each image's mean squared error when its code is K numbers: uint8 (N, H, W, C) -> (N,). Nothing is clipped."""
        rows = _rows(images) - self.mean
        left = rows.square().sum(1) - (rows @ self.directions.T).square().sum(1)
        return (left.clamp_min(0) / rows.shape[1]).numpy()


def most(shape: tuple[int, ...]) -> int:
    """How many images of that shape components are fitted to at most: where there are more values than images, the images are the rows."""
    pixels = math.prod(shape)
    return min(IMAGES if pixels <= SMALL else SMALL, VALUES // pixels)


def fit(images: np.ndarray, count: int) -> Components:
    """The first `count` components of uint8 images (N, H, W, C), fewer than N and than the values of an image."""
    rows = _rows(images)
    mean = rows.mean(0)
    rows -= mean
    square = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows  # whichever is smaller has the same eigenvalues
    _, vectors = eigh(square.numpy(), subset_by_index=[len(square) - count, len(square) - 1])
    directions = torch.from_numpy(vectors)
    if len(rows) < rows.shape[1]:
        directions = torch.linalg.qr(rows.T @ directions).Q  # orthonormal also where the images do not vary in so many directions
    return Components(mean, directions.T)


def _rows(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).flatten(1).double().div_(255)
