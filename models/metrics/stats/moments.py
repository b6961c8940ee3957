"""Mean and covariance of features that arrive block by block, in memory that does not depend on how many arrive.

Rows wait until there are as many as a covariance has dimensions; then they are folded into the sums by one matrix product, with the
pairwise update of Chan, Golub and LeVeque (Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979): deviations
are taken from the rows' own mean, so nothing cancels when the mean is large. The borders of the folding depend on the rows' positions
only, so the result is the same to the last bit for any batch size. Where all rows are still waiting there are fewer images than
dimensions, and the Frechet distance works on the rows themselves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch import distributed as dist

from models.errors import RunFailed

_LEAST_ROWS = 1024  # folded at once, where there are fewer dimensions than that


class Moments:
    """Count, mean and scatter (the sum of the deviations' outer products) of feature vectors, in float64 on the CPU.

    Args:
        dimensions: D, the length of a feature vector.
        device: where the products of many rows are computed, if it has float64.
    """

    def __init__(self, dimensions: int, device: torch.device | None = None) -> None:
        self.dimensions = dimensions
        self._device = device if device is not None and device.type != "mps" else torch.device("cpu")
        self._folded = 0  # rows that the next two account for
        self._mean = torch.zeros(dimensions, dtype=torch.float64)
        self._scatter: Tensor | None = None
        self._rows: list[Tensor] = []  # waiting
        self._waiting = 0
        self._room = max(dimensions, _LEAST_ROWS)

    @classmethod
    def of(cls, count: int, mean: Tensor, scatter: Tensor) -> Moments:
        """Moments that were computed before: mean (D,), scatter (D, D)."""
        made = cls(len(mean))
        made._folded, made._mean, made._scatter = count, mean.double().clone(), _symmetric(scatter.double())
        return made

    def add(self, block: Tensor) -> None:
        """Take in the rows of `block` (B, D). Raises RunFailed where a feature is not finite."""
        if block.ndim != 2 or block.shape[1] != self.dimensions:
            raise ValueError(f"expected features of shape (B, {self.dimensions}), not {tuple(block.shape)}")
        if not torch.isfinite(block).all():
            bad = int((~torch.isfinite(block)).any(1).nonzero()[0])
            raise RunFailed("a feature is not finite", f"image {self.count + bad}", "check the feature network's weights and precision")
        block = block.detach().to("cpu", torch.promote_types(block.dtype, torch.float32), copy=True)
        while len(block):
            part, block = block[: self._room - self._waiting], block[self._room - self._waiting :]
            self._rows.append(part)
            self._waiting += len(part)
            if self._waiting == self._room:
                self._fold(*_moments(torch.cat(self._rows), self._device))
                self._rows, self._waiting = [], 0

    def merge(self, other: Moments) -> None:
        """Take in all that `other` has taken in."""
        if other.dimensions != self.dimensions:
            raise ValueError(f"{other.dimensions} dimensions do not go with {self.dimensions}")
        if other._scatter is not None:
            self._fold(other._folded, other._mean, other._scatter)
        for rows in list(other._rows):
            self.add(rows)

    def _fold(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self._folded + count
        if self._scatter is None:
            self._mean, self._scatter = mean, scatter
        elif count:
            delta = mean - self._mean
            shift = delta * math.sqrt(self._folded * count / total)
            self._scatter = self._scatter + scatter + torch.outer(shift, shift)  # symmetric to the last bit, as BLAS's own update is not
            self._mean = self._mean + delta * (count / total)
        self._folded = total

    def _all(self) -> tuple[int, Tensor, Tensor]:
        """Count, mean and scatter with the waiting rows; these go on waiting, so that asking changes nothing."""
        if not self._waiting:
            scatter = torch.zeros(self.dimensions, self.dimensions, dtype=torch.float64) if self._scatter is None else self._scatter
            return self._folded, self._mean, scatter
        rows = _moments(torch.cat(self._rows), self._device)
        if self._scatter is None:
            return rows
        both = Moments(self.dimensions)
        both._fold(self._folded, self._mean, self._scatter)
        both._fold(*rows)
        return both._all()

    @property
    def count(self) -> int:
        return self._folded + self._waiting

    @property
    def mean(self) -> Tensor:
        """(D,) float64; zeros where the count is 0."""
        return self._all()[1].clone()

    @property
    def scatter(self) -> Tensor:
        """(D, D) float64, symmetric to the last bit."""
        return self._all()[2].clone()

    def covariance(self, ddof: int = 1) -> Tensor:
        """(D, D) float64, divided by count - ddof as `numpy.cov` does; zeros where that is 0 (a single image)."""
        return self._all()[2] / max(self.count - ddof, 1)

    def deviations(self) -> Tensor | None:
        """(N - 1, D) float64 rows whose scatter about 0 is that of the N rows about their mean.

        None where there are more rows than dimensions, or they are no longer at hand.
        """
        if self._folded or not 0 < self._waiting <= self.dimensions:
            return None
        rows = torch.cat(self._rows).double()
        rows -= rows.mean(0)
        # Centred rows add up to 0, so the reflection that turns (1, ..., 1) into the first axis empties the first row.
        return rows[1:] - rows[0] / (math.sqrt(len(rows)) + 1)

    def reduce(self) -> None:
        """Take in what all ranks have taken in: afterwards every rank has the same moments. Without a process group nothing happens.

        Every rank of the default process group must call it; a rank may have no rows.
        """
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return
        count, mean, scatter = self._all()
        sums = torch.cat([torch.tensor([count], dtype=torch.float64), mean * count])
        dist.all_reduce(sums)
        total = int(sums[0])
        everyones = sums[1:] / max(total, 1)
        shift = (mean - everyones) * math.sqrt(count)
        scatter = scatter + torch.outer(shift, shift)
        dist.all_reduce(scatter)
        self._rows, self._waiting = [], 0
        self._folded, self._mean, self._scatter = total, everyones, _symmetric(scatter)  # sums in a ring treat the triangles differently


def _moments(rows: Tensor, device: torch.device) -> tuple[int, Tensor, Tensor]:
    rows = rows.to(device).double()
    mean = rows.mean(0)
    rows = rows - mean
    return len(rows), mean.cpu(), _symmetric(rows.T @ rows).cpu()


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2
