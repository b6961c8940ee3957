"""Losses as pure functions. Logits are real numbers: large means real. Means are taken in float32, whatever autocast made of the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def real_loss(logits: Tensor) -> Tensor:
    """-E log D: what the discriminator pays on real items and the non-saturating generator on fakes. Any shape -> scalar."""
    return F.softplus(-_full(logits)).mean()


def fake_loss(logits: Tensor) -> Tensor:
    """-E log(1 - D): what the discriminator pays on fakes. Any shape -> scalar."""
    return F.softplus(_full(logits)).mean()


def gradient_norm_squared(critic: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """||d critic(x) / dx||^2 for every item x of `inputs`: (B, ...) -> (B,), differentiable.

    Computed in float32, also under autocast: second derivatives in half precision end in NaN. Finite for a constant critic.
    """
    function = critic.forward if isinstance(critic, nn.Module) else critic  # a compiled module's call has no second derivatives
    with torch.autocast(inputs.device.type, enabled=False):
        inputs = inputs.detach().float().requires_grad_()
        (gradient,) = torch.autograd.grad(function(inputs).sum(), inputs, create_graph=True)
        return gradient.flatten(1).square().sum(1)


def r1_penalty(critic: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """E ||grad D(real)||^2 / 2 (Mescheder et al. 2018, eq. 9)."""
    return gradient_norm_squared(critic, real).mean() / 2


def one_centred_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """E (||grad D|| - 1)^2 at one random point between each real item and its fake, two-sided (Gulrajani et al. 2017, eq. 3)."""
    share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
    norm = (
        gradient_norm_squared(critic, torch.lerp(real.detach().float(), fake.detach().float(), share)) + 1e-12
    ).sqrt()  # the root's slope at 0 is infinite
    return (norm - 1).square().mean()


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)) in nats, summed over the latent's dimensions: (B, ...) -> (B,)."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).flatten(1).sum(1)


def squared_error(image: Tensor, other: Tensor) -> Tensor:
    """Sum over the pixels of the squared difference, in units where black is 0 and white 1: (B, C, H, W) twice -> (B,)."""
    return ((image - other) / 2).square().flatten(1).sum(1)


def bernoulli_error(raw: Tensor, image: Tensor) -> Tensor:
    """-log p(image) in nats, summed over the pixels, where (image + 1) / 2 is on with probability sigmoid(2 raw) = (tanh(raw) + 1) / 2.

    (B, C, H, W) twice -> (B,). The gradient, tanh(raw) - image, is written out: torch's binary cross-entropy takes three times as long on a
    CPU, a tenth of a small VAE's step.
    """
    return _BernoulliError.apply(raw, image)


class _BernoulliError(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, raw: Tensor, image: Tensor) -> Tensor:
        ctx.save_for_backward(torch.tanh(raw).sub_(image))
        return (2 * F.softplus(raw, beta=2)).sub_(raw).sub_(raw * image).flatten(1).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return slope * gradient.view(-1, *[1] * (slope.ndim - 1)), None


def _full(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
