"""Statistics of the latest batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.nets.precision import full_precision
from models.nets.whitening import unwhiten


class MovingMeans(nn.Module):
    """The mean of the rows of each of several groups (classes, say) over the latest batches: a plain mean at first, later one that forgets.

    Sums and counts are kept instead of the means, because ranks average their buffers: a mean of means would count a rank that has not met
    a group yet as if it had found zeros.

    Args:
        groups, size: how many groups, and the length of a row.
        decay: how much of the sums and counts so far stays when a group comes again.
    """

    totals: Tensor
    counts: Tensor

    def __init__(self, groups: int, size: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("totals", torch.zeros(groups, size))
        self.register_buffer("counts", torch.zeros(groups, 1))

    def forward(self, totals: Tensor, counts: Tensor) -> Tensor:
        """The means after one more batch, without gradient, 0 for groups that never came: its sums (K, D) and counts (K, 1) -> (K, D)."""
        keep = torch.where(counts > 0, self.decay, 1.0)
        self.totals.mul_(keep).add_(totals.detach())
        self.counts.mul_(keep).add_(counts)
        return self.means

    @property
    def means(self) -> Tensor:
        """Those of now, 0 for groups that never came: (K, D)."""
        return self.totals / self.counts.clamp_min(torch.finfo(self.counts.dtype).tiny)


class MovingGaussian(nn.Module):
    """The Gaussian that the latest batches' codes are fitted best by; sums are kept for the reason that `MovingMeans` gives.

    Args:
        size: numbers of a code.
        decay: how much of the sums so far stays when a batch comes.
    """

    totals: Tensor
    products: Tensor
    count: Tensor

    def __init__(self, size: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("totals", torch.zeros(size))
        self.register_buffer("products", torch.zeros(size, size))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def follow(self, codes: Tensor) -> None:
        """Let it follow a batch's codes, (B, D)."""
        with full_precision(codes.device):
            codes = codes.float()
            self.totals.mul_(self.decay).add_(codes.sum(0))
            self.products.mul_(self.decay).add_(codes.T @ codes)
            self.count.mul_(self.decay).add_(len(codes))

    def draw(self, noise: Tensor) -> Tensor:
        """Noise from N(0, I) as a draw of it: (B, D) -> (B, D), float32; the noise itself where no batch has come yet.

        By the symmetric root of the covariance, which changes the noise least of all roots, and stands also where codes vary in a few
        directions only. Computed in doubles on the CPU, because not every device has them.
        """
        if not self.count:
            return noise
        totals, products, count = (kept.cpu().double() for kept in (self.totals, self.products, self.count))
        mean = totals / count
        variances, directions = torch.linalg.eigh(products / count - torch.outer(mean, mean))
        root = directions * variances.clamp_min(0).sqrt() @ directions.T
        return unwhiten(noise, mean.float().to(noise.device), root.float().to(noise.device))


@torch.no_grad()
def follow(mean: Tensor, rows: Tensor, share: float = 0.005) -> None:
    """Let a mean (D,) follow a batch (B, D): a `share` of the way to the batch's own (StyleGAN's mean code)."""
    mean.lerp_(rows.detach().float().mean(0), share)
