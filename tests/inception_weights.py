"""Random weights of the FID Inception network in the original's file format, for tests and benchmarks without a network connection."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from models.metrics.features.inception import _layers


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """A state dict for torch-fidelity's module: convolutions keep the scale of what they are given, and batch norm has work to do."""
    dice = torch.Generator().manual_seed(seed)
    weights = {"fc.weight": torch.randn(1008, 2048, generator=dice) * 0.02, "fc.bias": torch.randn(1008, generator=dice)}
    for name, like in _layers().state_dict().items():
        if name.endswith("conv.weight"):
            weights[name] = torch.randn(like.shape, generator=dice) * (2 / like[0].numel()) ** 0.5
        elif name.endswith(("bn.weight", "bn.running_var")):
            weights[name] = torch.rand(like.shape, generator=dice) * 0.4 + 0.8
        elif name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(0)
        else:
            weights[name] = torch.randn(like.shape, generator=dice) * 0.1
    return weights


def write_weights(path: Path, seed: int = 0) -> Path:
    """Save them as the original is saved: a pickled dictionary of tensors."""
    torch.save(random_weights(seed), path)
    return path
