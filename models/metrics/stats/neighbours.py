"""Distances between feature vectors, in blocks: nothing of size N x N is ever held.

|x - y|^2 = |x|^2 + |y|^2 - 2 x.y is one matrix product a block, but cancels where points are close. So the points are centred and the
products taken in float64: a squared distance is then off by about 1e-15 of |x|^2 + |y|^2, where float32 would be off by 1e-7, which is
enough to move a point in or out of a ball on whose rim it lies, as every duplicate of a k-th neighbour does. float32 would be twice as
fast, but on some CPUs a matrix product in it may be rounded to bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 1024  # rows
TOLERANCE = 1e-12  # of |x|^2 + |y|^2: distances that differ by less are equal


class Points:
    """Feature vectors whose blocks are handed out centred, in float64, with their squared norms.

    Args:
        features: (N, D) float32.
        centre: (D,) float64, the same for all points that are compared; by default the points' own mean.
    """

    def __init__(self, features: Tensor, centre: Tensor | None = None) -> None:
        self.features = features
        self.centre = features.mean(0, dtype=torch.float64) if centre is None else centre

    def __len__(self) -> int:
        return len(self.features)

    def blocks(self, start: int = 0) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """(rows, points (B, D), squared norms (B,)) from row `start` on."""
        for first in range(start, len(self), BLOCK):
            rows = slice(first, min(first + BLOCK, len(self)))
            block = self.features[rows].double() - self.centre
            yield rows, block, block.square().sum(1)


def kth_neighbour(points: Points, k: int) -> Tensor:
    """(N,) float64: squared distance of each point to the k-th nearest of the others; a duplicate is another. Needs k < N."""
    if not 1 <= k < len(points):
        raise ValueError(f"{k} neighbours among {len(points)} points")
    nearest = torch.full((len(points), k), torch.inf, dtype=torch.float64)

    def keep(rows: slice, distances: Tensor) -> None:
        if distances.shape[1] > k:
            distances = distances.topk(k, largest=False, sorted=False).values
        nearest[rows] = torch.cat([nearest[rows], distances], 1).topk(k, largest=False, sorted=False).values

    for rows, x, x_norms in points.blocks():
        for columns, y, y_norms in points.blocks(rows.start):  # the matrix is symmetric: half of it is enough
            distances = squared_distances(x, x_norms, y, y_norms)
            if rows == columns:
                distances.fill_diagonal_(torch.inf)
            else:
                keep(columns, distances.T.contiguous())
            keep(rows, distances)
    return nearest.amax(1)


def mean_distance(points: Points) -> float:
    """Mean distance over all pairs of two different points. Needs two points."""
    if len(points) < 2:
        raise ValueError("no pair of points")
    total = 0.0
    for rows, x, x_norms in points.blocks():
        for columns, y, y_norms in points.blocks(rows.start):
            distances = squared_distances(x, x_norms, y, y_norms).sqrt_()
            if rows == columns:
                total += float(distances.fill_diagonal_(0).sum()) / 2
            else:
                total += float(distances.sum())
    return total / (len(points) * (len(points) - 1) / 2)


def squared_distances(x: Tensor, x_norms: Tensor, y: Tensor, y_norms: Tensor, tolerance: float = 0.0) -> Tensor:
    """(B, C) float64, >= 0: squared distances of the rows of x and y, less `tolerance` times |x|^2 + |y|^2.

    Compared with the square of a radius, the tolerance decides for "inside" where only rounding could tell.
    """
    scale = 1 - tolerance
    return torch.addmm(scale * y_norms, x, y.T, alpha=-2).add_((scale * x_norms)[:, None]).clamp_min_(0)
