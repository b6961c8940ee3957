"""Means over the latest batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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


@torch.no_grad()
def follow(mean: Tensor, rows: Tensor, share: float = 0.005) -> None:
    """Let a mean (D,) follow a batch (B, D): a `share` of the way to the batch's own (StyleGAN's mean code)."""
    mean.lerp_(rows.detach().float().mean(0), share)
