"""How batch norms take their statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def as_in_use(network: nn.Module) -> Iterator[None]:
    """Inside the block the network's batch norms normalise by their running statistics, as they do in use, and leave these alone.

    For what a network is shown beside the images that it learns from. Normalised each by its own batch, real images and fakes have the same
    mean and deviation in every channel, and a distance between their features hardly sees what tells them apart.
    """
    learning = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.training]
    for module in learning:
        module.training = False
    try:
        yield
    finally:
        for module in learning:
            module.training = True
