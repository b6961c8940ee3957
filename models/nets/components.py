"""Principal components: the best linear way from images to codes and back, at which an auto-encoder starts.

Networks of random weights need hundreds of thousands of images to get where principal components of the same code's length are at once.
So encoder and decoder begin as these, and the networks, whose last layers start at zero, learn what has to be added. With a noise variance
they are the probabilistic ones (Tipping and Bishop, Probabilistic Principal Component Analysis, 1999, eq. 7 with the variance given): the
best linear variational auto-encoder, whose posterior is known as well.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Batch, DataSpec, Whole
from models.nets.conv import ToMaps, ToVector
from models.nets.precision import full_precision

SIDE = 64  # pixels: larger images are averaged down to that before, and enlarged behind, because components are smooth anyway
IMAGES, VALUES = 10_000, 2**27  # most images, and most values of all of them (512 MB), that components are fitted to
FLAT = 1e-4  # deviation, as a share of the largest, below which a direction counts as one in which the images do not vary


class Components(nn.Module):
    """Images (B, C, H, W) in [-1, 1] to codes (B, latent) and back; nothing here is trained, `fit` sets the buffers.

    Where images vary in fewer directions than the code has dimensions, the last ones are 0 on the way in and of no account on the way out.

    Args:
        told: how many numbers a conditional model is told of an image; the components are then of what these do not explain linearly.
    """

    fitted: Tensor  # () bool
    mean: Tensor  # (P,), the values of an image
    slopes: Tensor  # (told, P), by how much they change with what is told
    directions: Tensor  # (P, latent), orthonormal
    into: Tensor  # (latent,), factors on the way to the code
    out: Tensor  # (latent,), factors on the way back
    log_variance: Tensor  # (latent,), of the code of an image, where there is noise

    def __init__(self, spec: DataSpec, latent: int, told: int = 0) -> None:
        super().__init__()
        channels, height, width = spec.shape
        self.full = (height, width)
        share = min(1.0, SIDE / max(self.full))
        self.size = (max(round(height * share), 1), max(round(width * share), 1))
        values = channels * self.size[0] * self.size[1]
        self.to_maps = ToMaps(channels, *self.size)
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("slopes", torch.zeros(told, values))
        self.register_buffer("directions", torch.zeros(values, latent))
        for name in ("into", "out", "log_variance"):
            self.register_buffer(name, torch.zeros(latent))

    def encode(self, image: Tensor, told: Tensor | None = None) -> Tensor:
        """(B, C, H, W), and what is told of them (B, told) -> (B, latent), float32."""
        with full_precision(image.device):
            return (self._rows(image) - self._expected(told)) @ self.directions * self.into

    def posterior(self, image: Tensor, mean: Tensor, log_variance: Tensor, told: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the code, (B, latent) each, once what networks say of both is added to what is known at the start."""
        return mean + self.encode(image, told), log_variance + self.log_variance

    def decode(self, code: Tensor, told: Tensor | None = None) -> Tensor:
        """(B, latent), and what is told (B, told) -> (B, C, H, W), float32, around [-1, 1] but not bounded."""
        with full_precision(code.device):
            maps: Tensor = self.to_maps(self._expected(told) + (code.float() * self.out) @ self.directions.T)
            return maps if self.size == self.full else F.interpolate(maps, self.full, mode="bilinear")

    @torch.no_grad()
    def fit(self, whole: Whole, noise: float = 0.0, told: Callable[[Batch], Tensor] | None = None, deviation: float = 1.0) -> None:
        """Find the components of some images from all over the data; once, so that a run which goes on has the same ones.

        Args:
            noise: variance of the pixels given the code, where black is 0 and white 1; directions of less variance are left out then.
            told: what is told of a batch's images, (B, told).
            deviation: that codes are to have.
        """
        if bool(self.fitted):
            return
        telling = told if len(self.slopes) else None
        rows, known = self._gathered(_spread(whole, min(IMAGES, VALUES // len(self.mean))), telling)
        self.mean.copy_(rows.mean(0))
        rows -= self.mean
        if known is not None:
            centre = known.mean(0)
            known = known - centre
            self.slopes.copy_(torch.linalg.solve(known.T @ known + torch.eye(known.shape[1], device=known.device), known.T @ rows))
            self.mean -= centre @ self.slopes
            rows -= known @ self.slopes
        count = min(len(self.into), *rows.shape)
        _, lengths, directions = torch.pca_lowrank(rows, min(count + 16, *rows.shape), center=False, niter=4)
        variance = (lengths[:count] ** 2 / len(rows)).double()
        # Summed over the pixels in [-1, 1], of which one here may stand for several.
        floor = 4 * noise * self.size[0] * self.size[1] / (self.full[0] * self.full[1])
        kept = variance > max(floor, FLAT**2 * float(variance[0]))
        own = torch.where(kept, variance - floor, 0.0)
        self.directions[:, :count] = directions[:, :count] * kept
        self.into[:count] = torch.where(kept, deviation * own.sqrt() / variance, 0.0)
        self.out[:count] = own.sqrt() / deviation
        if noise:
            self.log_variance[:count] = torch.where(kept, (floor / variance).log(), 0.0)
        self.fitted.fill_(True)

    def _gathered(self, batches: list[Batch], told: Callable[[Batch], Tensor] | None) -> tuple[Tensor, Tensor | None]:
        """The images (N, P), and what is told of them (N, told): batch by batch, because they are large."""
        rows = torch.empty(sum(map(len, batches)), len(self.mean), device=self.mean.device)
        known = []
        place = 0
        while batches:
            batch = batches.pop(0)
            rows[place : place + len(batch)] = self._rows(batch.image)
            place += len(batch)
            known += [told(batch)] if told else []
        return rows, torch.cat(known).float() if known else None

    def _rows(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, P), the channels fastest."""
        rows: Tensor = ToVector()(image.float() if self.size == self.full else F.adaptive_avg_pool2d(image.float(), self.size))
        return rows

    def _expected(self, told: Tensor | None) -> Tensor:
        return self.mean if told is None or not len(self.slopes) else torch.addmm(self.mean, told.float(), self.slopes)


def _spread(whole: Whole, most: int) -> list[Batch]:
    """Batches at even distances that have `most` images together, or hardly more; one at least. Data may be sorted by class."""
    sizes = [len(batch) for batch in whole]
    take = min(len(sizes), max(1, round(most / max(sizes))))
    at = {len(sizes) * n // take for n in range(take)}
    return [batch for number, batch in enumerate(whole) if number in at]
