"""Losses against values worked out by hand and against finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.losses import (
    bernoulli_error,
    fake_loss,
    gradient_norm_squared,
    judged_right,
    kl_to_standard_normal,
    mmd_inverse_multiquadratic,
    one_centred_penalty,
    r1_penalty,
    real_loss,
    saturating_loss,
    squared_error,
    wasserstein_estimate,
)


def slope(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Tensor:
    """The gradient of a scalar function by central differences, in double precision."""
    gradient = torch.zeros_like(at)
    for place in range(at.numel()):
        move = torch.zeros_like(at).flatten()
        move[place] = step
        move = move.view_as(at)
        gradient.view(-1)[place] = (function(at + move) - function(at - move)) / (2 * step)
    return gradient


def test_adversarial_losses_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(3.0)])  # D is 1/2 and 3/4
    assert real_loss(logits).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert fake_loss(logits).item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_adversarial_losses_at_large_logits() -> None:
    far = torch.tensor([-1e4, 1e4])
    assert real_loss(far).item() == pytest.approx(5e3)
    assert fake_loss(far).item() == pytest.approx(5e3)
    assert real_loss(torch.tensor([1e4])).item() == 0


@pytest.mark.parametrize("loss", [real_loss, fake_loss, saturating_loss])
def test_adversarial_losses_have_the_right_slope(loss: Callable[[Tensor], Tensor]) -> None:
    logits = torch.tensor([[-2.0, 0.0], [0.5, 3.0]], dtype=torch.float64, requires_grad=True)
    loss(logits).backward()
    assert torch.allclose(logits.grad, slope(loss, logits.detach()), atol=1e-8)


def test_the_saturating_loss_has_no_slope_where_the_discriminator_is_sure() -> None:
    sure = torch.tensor([-20.0], requires_grad=True)
    assert torch.autograd.grad(saturating_loss(sure), sure)[0].abs() < 1e-8
    assert torch.autograd.grad(real_loss(sure), sure)[0].item() == pytest.approx(-1)


def test_judged_right_and_wasserstein_estimate_by_hand() -> None:
    on_real, on_fake = torch.tensor([[2.0], [-1.0]], requires_grad=True), torch.tensor([[-3.0], [-0.5]])
    assert judged_right(on_real, on_fake).item() == 0.75
    assert not judged_right(on_real, on_fake).requires_grad
    assert judged_right(torch.zeros(3), torch.zeros(3)).item() == 0, "a discriminator that says nothing is right about nothing"
    assert wasserstein_estimate(on_real, on_fake).item() == pytest.approx(0.5 + 1.75)
    assert wasserstein_estimate(on_real, on_fake).requires_grad


# ---- codes and priors ----------------------------------------------------------------------------------------------------------------


def test_mmd_by_hand() -> None:
    """Every kernel value written out, for three codes and three draws of a prior of variance 4."""
    codes, prior = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, -2.0], [0.5, 0.0]])
    expected = 0.0
    for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0):
        c = 2 * 2 * 4 * scale

        def k(a: Tensor, b: Tensor, c: float = c) -> float:
            return c / (c + float((a - b).square().sum()))

        for points in (codes, prior):
            expected += sum(k(points[i], points[j]) for i in range(3) for j in range(3) if i != j) / 6
        expected -= 2 * sum(k(a, b) for a in codes for b in prior) / 9
    assert mmd_inverse_multiquadratic(codes, prior, 4.0).item() == pytest.approx(expected, abs=1e-5)


def test_mmd_is_unbiased_and_sees_another_distribution() -> None:
    dice = torch.Generator().manual_seed(0)
    same = torch.stack([mmd_inverse_multiquadratic(*torch.randn(2, 64, 4, generator=dice)) for _ in range(200)])
    assert abs(same.mean()) < 4 * same.std() / 200**0.5
    assert same.min() < 0 < same.max()
    codes, prior = torch.randn(2, 64, 4, generator=dice)
    assert mmd_inverse_multiquadratic(codes + 1, prior) > 10 * same.std()
    assert mmd_inverse_multiquadratic(codes * 2, prior) > 10 * same.std()


def test_mmd_has_the_right_slope_also_where_codes_coincide() -> None:
    codes = torch.tensor([[0.3, -2.0], [1.0, 1.0], [1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    prior = torch.tensor([[0.0, 0.5], [1.0, 1.0], [-1.0, 0.2]], dtype=torch.float64)
    (found,) = torch.autograd.grad(mmd_inverse_multiquadratic(codes, prior), codes)
    assert torch.allclose(found, slope(lambda z: mmd_inverse_multiquadratic(z, prior), codes.detach()), atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 1), (2, 3), (2, 3, 4, 4)])
def test_kl_is_zero_at_the_standard_normal_and_sums_over_the_latent(shape: tuple[int, ...]) -> None:
    zero = torch.zeros(shape)
    assert torch.equal(kl_to_standard_normal(zero, zero), torch.zeros(shape[0]))
    assert kl_to_standard_normal(zero + 1, zero).tolist() == pytest.approx([zero[0].numel() / 2] * shape[0])


def test_kl_by_hand() -> None:
    """N(2, 9) and N(-1, 1/4): half of mean^2 + variance - 1 - log variance, a sum over two dimensions."""
    mean, variance = torch.tensor([[2.0, -1.0]]), torch.tensor([[9.0, 0.25]])
    expected = (4 + 9 - 1 - math.log(9) + 1 + 0.25 - 1 - math.log(0.25)) / 2
    assert kl_to_standard_normal(mean, variance.log()).item() == pytest.approx(expected)


def test_kl_agrees_with_torch_and_is_never_negative() -> None:
    dice = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(50, 3, generator=dice), torch.randn(50, 3, generator=dice)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (log_variance / 2).exp()), normal(0.0, 1.0)).sum(1)
    found = kl_to_standard_normal(mean, log_variance)
    assert torch.allclose(found, expected, atol=1e-5)
    assert found.min() > 0


def test_kl_has_the_right_slope() -> None:
    mean = torch.tensor([[0.3, -2.0]], dtype=torch.float64, requires_grad=True)
    log_variance = torch.tensor([[0.5, -1.0]], dtype=torch.float64, requires_grad=True)
    kl_to_standard_normal(mean, log_variance).sum().backward()
    assert torch.allclose(mean.grad, slope(lambda m: kl_to_standard_normal(m, log_variance.detach()).sum(), mean.detach()), atol=1e-7)
    other = slope(lambda v: kl_to_standard_normal(mean.detach(), v).sum(), log_variance.detach())
    assert torch.allclose(log_variance.grad, other, atol=1e-7)


def test_squared_error_counts_in_units_from_black_to_white() -> None:
    black, white = torch.full((2, 3, 4, 5), -1.0), torch.full((2, 3, 4, 5), 1.0)
    assert squared_error(black, white).tolist() == [60.0, 60.0]
    assert squared_error(black, black).tolist() == [0.0, 0.0]
    assert squared_error(black, torch.zeros_like(black)).tolist() == [15.0, 15.0]


# ---- gradient penalties --------------------------------------------------------------------------------------------------------------


def linear(x: Tensor) -> Tensor:
    """A critic whose gradient has the squared norm 3^2 + 4^2 everywhere."""
    return x @ torch.tensor([[3.0], [4.0]])


def quadratic(x: Tensor) -> Tensor:
    """|x|^2, whose gradient 2x has the squared norm 4 |x|^2."""
    return x.square().flatten(1).sum(1)


def test_bernoulli_error_is_torch_s_binary_cross_entropy_with_its_gradient() -> None:
    raw = torch.tensor([[[[-3.0, 0.2], [40.0, -40.0]]], [[[0.0, 1.0], [2.0, -1.5]]]], dtype=torch.float64, requires_grad=True)
    image = torch.tensor([[[[-1.0, 1.0], [1.0, 0.5]]], [[[0.0, -0.3], [0.9, 1.0]]]], dtype=torch.float64)
    weights = torch.tensor([1.0, -2.5], dtype=torch.float64)
    known = nn.functional.binary_cross_entropy_with_logits(2 * raw, (image + 1) / 2, reduction="none").flatten(1).sum(1)
    mine = bernoulli_error(raw, image)
    assert torch.allclose(mine, known, atol=1e-12)
    wanted = torch.autograd.grad((known * weights).sum(), raw)[0]
    assert torch.allclose(torch.autograd.grad((mine * weights).sum(), raw)[0], wanted, atol=1e-12)


def test_gradient_norms_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    assert gradient_norm_squared(linear, x).tolist() == [25.0, 25.0]
    assert gradient_norm_squared(quadratic, x).tolist() == [20.0, 36.0]
    images = torch.ones(2, 3, 4, 4)
    assert gradient_norm_squared(quadratic, images).tolist() == [192.0, 192.0]


def test_r1_by_hand() -> None:
    assert r1_penalty(linear, torch.zeros(5, 2)).item() == 12.5
    assert r1_penalty(quadratic, torch.tensor([[1.0, 2.0], [0.0, 3.0]])).item() == 14.0


def test_one_centred_penalty_by_hand() -> None:
    """Two-sided: a slope of 5 costs 16, a slope of 1/5 costs 0.64, wherever between real and fake it is measured."""
    real, fake = torch.zeros(8, 2), torch.ones(8, 2)
    assert one_centred_penalty(linear, real, fake).item() == pytest.approx(16.0)
    assert one_centred_penalty(lambda x: linear(x) / 25, real, fake).item() == pytest.approx(0.64)
    assert one_centred_penalty(lambda x: linear(x) / 5, real, fake).item() == pytest.approx(0.0, abs=1e-9)


def test_one_centred_penalty_looks_between_real_and_fake_with_one_share_an_item() -> None:
    seen: list[Tensor] = []

    def critic(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    torch.manual_seed(0)
    one_centred_penalty(critic, torch.full((64, 3, 2, 2), -1.0), torch.full((64, 3, 2, 2), 1.0))
    share = (seen[0] + 1) / 2
    assert torch.equal(share.amin((1, 2, 3)), share.amax((1, 2, 3)))
    assert 0 <= share.min() < 0.1
    assert 0.9 < share.max() <= 1
    assert len(share[:, 0, 0, 0].unique()) == 64


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()


def test_penalties_reach_the_critic_s_weights_with_the_right_slope() -> None:
    """Second derivatives, against finite differences of the first. (The penalty itself is computed in float32.)"""
    critic, x = net().float(), torch.tensor([[0.5, -1.0], [2.0, 0.3]])
    weight = critic[0].weight
    (found,) = torch.autograd.grad(r1_penalty(critic, x), weight)

    def at(value: Tensor) -> Tensor:
        with torch.no_grad():
            kept = weight.clone()
            weight.copy_(value)
        penalty = r1_penalty(critic, x).detach()
        with torch.no_grad():
            weight.copy_(kept)
        return penalty

    assert torch.allclose(found, slope(at, weight.detach().clone(), 1e-3), atol=1e-3)
    assert found.abs().max() > 1e-2


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_G8_penalties_of_a_constant_critic_are_finite(scale: float) -> None:
    """A dead critic has the gradient 0, where the slope of a square root is infinite."""
    weight = torch.zeros(2, 1, requires_grad=True)
    constant = torch.tensor(scale, requires_grad=True)
    real, fake = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 2)
    for penalty in (r1_penalty(lambda x: x @ weight + constant, real), one_centred_penalty(lambda x: x @ weight + constant, real, fake)):
        (slope_,) = torch.autograd.grad(penalty, weight)
        assert torch.isfinite(penalty)
        assert torch.isfinite(slope_).all()
    assert r1_penalty(lambda x: x @ weight, real).item() == 0
    assert one_centred_penalty(lambda x: x @ weight, real, fake).item() == pytest.approx(1.0, abs=1e-5)


def test_penalties_leave_their_inputs_alone_and_stay_in_float32_under_autocast() -> None:
    critic, real, fake = net().float(), torch.randn(4, 2), torch.randn(4, 2, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        penalties = r1_penalty(critic, real), one_centred_penalty(critic, real, fake)
        norms = gradient_norm_squared(critic, real)
    assert all(p.dtype == torch.float32 for p in (*penalties, norms))
    assert torch.equal(norms, gradient_norm_squared(critic, real))
    (penalties[0] + penalties[1]).backward()
    assert fake.grad is None
    assert not real.requires_grad
