"""What ranks exchange in a step: gradients, while the rest of them are still being computed, and the buffers that follow the batches.

torch's own DistributedDataParallel wraps one network with one loss. A turn has several players, whose losses may share a graph and move
some of the parameters only; so the same is done here at the parameters themselves: buckets, each of which travels as soon as it is full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from models.errors import ContractError
from models.training.distributed import Ranks

BUCKET = 25 * 2**20  # bytes of gradients that travel together, as in DistributedDataParallel


@dataclass(frozen=True)
class Travelling:
    """Tensors whose sums over the ranks are under way."""

    tensors: Sequence[Tensor]
    flat: Tensor
    work: Any

    @classmethod
    def off(cls, tensors: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> Travelling:
        flat = torch.cat([t.detach().to(dtype).reshape(-1) for t in tensors])
        return cls(tensors, flat, dist.all_reduce(flat, async_op=True))

    @torch.no_grad()
    def means(self, world: int) -> list[Tensor]:
        """Their means, once they are there."""
        self.work.wait()
        parts = self.flat.div_(world).split([t.numel() for t in self.tensors])
        return [part.view(t.shape) for part, t in zip(parts, self.tensors, strict=True)]


# --- gradients ------------------------------------------------------------------------------------------------------------------------


@contextmanager
def gradients_averaged(ranks: Ranks, parameters: Sequence[nn.Parameter], bucket: int = BUCKET) -> Iterator[None]:
    """Gradients that a block computes for `parameters` are their means over the ranks when it is left.

    Backward passes reach the last parameters first, so buckets are filled from the end. A bucket travels as soon as its gradients are there
    and the one before it is on its way: the order is the same on all ranks, whatever finishes first. A parameter without a gradient keeps
    none; it must be without on all ranks.
    """
    if ranks.world == 1:
        yield
        return
    buckets = _buckets(parameters, bucket)
    place = {id(p): number for number, some in enumerate(buckets) for p in some}
    missing = [len(some) for some in buckets]
    travelling: list[Travelling | None] = []

    def send() -> None:
        gradients = [p.grad for p in buckets[len(travelling)] if p.grad is not None]
        travelling.append(Travelling.off(gradients) if gradients else None)

    def note(parameter: Tensor) -> None:
        missing[place[id(parameter)]] -= 1
        while len(travelling) < len(buckets) and not missing[len(travelling)]:
            send()

    hooks = [p.register_post_accumulate_grad_hook(note) for p in parameters]
    try:
        yield
        while len(travelling) < len(buckets):
            send()
        for some in filter(None, travelling):
            torch._foreach_copy_(list(some.tensors), some.means(ranks.world))
    finally:
        for hook in hooks:
            hook.remove()


def _buckets(parameters: Sequence[nn.Parameter], size: int) -> list[list[nn.Parameter]]:
    """The parameters from the last to the first, as many together as fit into `size` bytes, but at least one."""
    buckets: list[list[nn.Parameter]] = []
    room = 0
    for parameter in reversed(parameters):
        taken = parameter.numel() * 4
        if not buckets or taken > room:
            buckets.append([])
            room = size
        buckets[-1].append(parameter)
        room -= taken
    return buckets


# --- buffers --------------------------------------------------------------------------------------------------------------------------


class Buffers:
    """Averages over the ranks the floating-point buffers that have changed, as the batches differ between ranks.

    Batch norm's running variances are averaged like all others: a share's variance is an unbiased guess of that of all images, so the mean
    of them is, too, where shares are drawn at random. (With what the ranks' means differ on top it would be too large.)
    """

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        self.model, self.ranks = model, ranks
        self._seen = self._now()

    @torch.no_grad()
    def average(self) -> None:
        """Every rank must call it after the same steps."""
        if self.ranks.world == 1:
            return
        changed = []
        for name, (buffer, version) in self._now().items():
            before, seen = self._seen.get(name, (None, 0))
            if buffer.is_floating_point() and (before is not buffer or version != seen):
                changed.append(buffer)
        if changed:
            torch._foreach_copy_(changed, Travelling.off(changed).means(self.ranks.world))
        self._seen = self._now()

    def _now(self) -> dict[str, tuple[Tensor, int]]:
        """The buffers, each with how often it was changed. Batch norm changes its statistics behind the counter's back, but not its own."""
        found = {name: (buffer, buffer._version) for name, buffer in self.model.named_buffers()}
        for name in [name for name in found if name.endswith("num_batches_tracked")]:
            for of in ("running_mean", "running_var"):
                if (key := name.replace("num_batches_tracked", of)) in found:
                    found[key] = (found[key][0], found[key][1] + found[name][1])
        return found


# --- batch norm over all ranks --------------------------------------------------------------------------------------------------------


def join_batch_norms(model: nn.Module) -> None:
    """Make the model's batch norms, in place, take their statistics over the images of all ranks instead of each rank's own.

    torch's SyncBatchNorm does so on GPUs alone, and has no second derivatives.
    """
    for module in model.modules():
        if type(module) in _JOINED:
            module.__class__ = _JOINED[type(module)]
        elif isinstance(module, _BatchNorm) and not isinstance(module, _Joined):
            raise ContractError(f"no joined kind of {type(module).__name__}", type(model).__module__, "use BatchNorm1d or BatchNorm2d")


class _Sum(torch.autograd.Function):
    """The sum over the ranks; so is its gradient, and the gradient's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        found: Tensor = _Sum.apply(gradient.contiguous())
        return found


class _Joined(_BatchNorm):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        values, across = x.float(), [0, *range(2, x.ndim)]
        world, count = dist.get_world_size(), x.numel() // x.shape[1]
        mean = _Sum.apply(values.mean(across)) / world
        values = values - _over_channels(mean, x)  # first, so that nothing cancels in the squares
        variance = _Sum.apply(values.square().mean(across)) / world
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                share = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * (world * count / max(world * count - 1, 1)), share)
        scale = (variance + self.eps).rsqrt() * (self.weight if self.weight is not None else 1)
        made = values * _over_channels(scale, x)
        return (made if self.bias is None else made + _over_channels(self.bias, x)).to(x.dtype)


def _over_channels(channels: Tensor, x: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...), as many axes as `x` has."""
    return channels.view(1, -1, *[1] * (x.ndim - 2))


class _Joined1d(_Joined, nn.BatchNorm1d):
    pass


class _Joined2d(_Joined, nn.BatchNorm2d):
    pass


_JOINED: dict[type, type] = {nn.BatchNorm1d: _Joined1d, nn.BatchNorm2d: _Joined2d}
