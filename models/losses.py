"""Losses as pure functions. Logits are real numbers: large means real. Means are taken in float32, whatever autocast made of the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def real_loss(logits: Tensor) -> Tensor:
    """-E log D: what the discriminator pays on real items and the non-saturating generator on fakes. Any shape -> scalar."""
    return F.softplus(-_full(logits)).mean()


def fake_loss(logits: Tensor) -> Tensor:
    """-E log(1 - D): what the discriminator pays on fakes. Any shape -> scalar."""
    return F.softplus(_full(logits)).mean()


def saturating_loss(logits: Tensor) -> Tensor:
    """E log(1 - D): the generator's loss of the minimax game, which has no slope where the discriminator is sure. Any shape -> scalar."""
    return -fake_loss(logits)


def judged_right(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """The share of items that the discriminator takes for what they are, 0 to 1: two sets of logits -> scalar, without gradient."""
    return ((on_real > 0).float().mean() + (on_fake < 0).float().mean()).detach() / 2


def wasserstein_estimate(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """E f(real) - E f(fake), the critic's estimate of the distance, up to its Lipschitz constant. Scores of any shape -> scalar."""
    return _full(on_real).mean() - _full(on_fake).mean()


def gradient_norm_squared(critic: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """||d critic(x) / dx||^2 for every item x of `inputs`: (B, ...) -> (B,), differentiable.

    Computed in float32, also under autocast: second derivatives in half precision end in NaN. Finite for a constant critic. Compiled
    networks run uncompiled here, because what `torch.compile` makes has no second derivatives.
    """
    with torch.autocast(inputs.device.type, enabled=False), torch.compiler.set_stance("force_eager"):
        inputs = inputs.detach().float().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(inputs).sum(), inputs, create_graph=True)
        return gradient.flatten(1).square().sum(1)


def slope(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """d function(x) / dx for every item x of `points`, where the function gives a number for each: (B, ...) -> (B, ...), float32.

    An item's slope does not depend on the batch's size, as that of a batch's mean would. No parameter collects a gradient.
    """
    points = points.detach().float().requires_grad_()
    (found,) = torch.autograd.grad(function(points).sum(), points)
    return found


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


def mmd_inverse_multiquadratic(codes: Tensor, prior: Tensor, variance: float = 1.0) -> Tensor:
    """Unbiased squared maximum mean discrepancy of two samples of the same size n: (n, d) twice -> scalar; it may be negative.

    The kernel is k(a, b) = C / (C + ||a - b||^2), summed over C = 2 d `variance` s for s of .1, .2, .5, 1, 2, 5, 10, `variance` being the
    prior's (Tolstikhin et al. 2018, algorithm 2; tolstikhin/wae: wae.py). Its heavy tails reach codes that are far off, where a
    Gaussian kernel has no slope. The two inner sums leave out the diagonal: with it, every code would be drawn to itself.
    """
    codes, prior = _full(codes), _full(prior)
    n, dimensions = codes.shape

    def squared_distances(a: Tensor, b: Tensor) -> Tensor:
        return (a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)

    within_codes, within_prior, between = squared_distances(codes, codes), squared_distances(prior, prior), squared_distances(codes, prior)
    total = codes.new_zeros(())
    for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0):
        c = 2 * dimensions * variance * scale
        inner = c / (c + within_codes) + c / (c + within_prior)
        total = total + (inner.sum() - inner.diagonal().sum()) / (n * (n - 1)) - 2 * (c / (c + between)).mean()
    return total


def _full(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
