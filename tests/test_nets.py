"""Building blocks of the networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.base import DataSpec
from models.nets import halving
from models.nets.augment import differentiable
from models.nets.conv import ConvDecoder, ConvDiscriminator, ToMaps, ToVector, start_small
from models.nets.halving import DoublingConv, HalvingConv
from models.nets.mlp import Maxout
from models.nets.residual_gan import ClassBatchNorm, ResidualCritic, ResidualGenerator, start_glorot
from models.nets.style import Blur, standardised
from models.nets.whitening import unwhiten, whiten


def test_flattening_and_back_is_the_identity_and_copies_nothing_in_channels_last() -> None:
    maps = torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last)
    vector = ToVector()(maps)
    again = ToMaps(4, 5, 6)(vector)
    assert vector.shape == (3, 120)
    assert torch.equal(again, maps)
    assert again.is_contiguous(memory_format=torch.channels_last)
    assert again.data_ptr() == vector.data_ptr() == maps.data_ptr()


@pytest.mark.parametrize("size", [(28, 28), (37, 64), (9, 15), (8, 8)])
@pytest.mark.parametrize("kernel", [4, 5])
def test_convolutional_nets_fit_any_size_with_either_kernel(size: tuple[int, int], kernel: int) -> None:
    spec = DataSpec.of_images(3, *size)
    made = ConvDecoder(spec, (4, 8, 8), 6, kernel=kernel)(torch.randn(2, 6))  # type: ignore[arg-type]
    assert made.shape == (2, *spec.shape)
    assert ConvDiscriminator(spec, (4, 8, 8), outputs=3, kernel=kernel)(made).shape == (2, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("made", "size"), [(HalvingConv, (8, 6)), (DoublingConv, (4, 3))])
def test_the_matrix_product_is_the_convolution(
    made: type[nn.Module], size: tuple[int, int], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Result, gradients, and the gradient of a gradient's length, as a gradient penalty takes it; in the same memory format."""
    layer = made(6, 10, bias=bias).to(memory_format=torch.channels_last)
    maps = torch.randn(3, 6, *size).to(memory_format=torch.channels_last)
    found = {}
    for least in (10**9, 0):  # weights from which on the product pays: never, always
        monkeypatch.setattr(halving, "MANY", least)
        given = maps.clone().requires_grad_()
        image = layer(given)
        [gradient] = torch.autograd.grad(image.square().sum(), given, create_graph=True)
        image.sum().backward(retain_graph=True)
        gradient.square().sum().backward()
        found[least] = [image.detach(), gradient.detach(), given.grad, *(parameter.grad for parameter in layer.parameters())]
        assert image.is_contiguous(memory_format=torch.channels_last)
        layer.zero_grad()
    for mine, theirs in zip(found[0], found[10**9], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_the_product_is_taken_where_it_pays() -> None:
    def convolved(maps: torch.Tensor) -> bool:
        return "Convolution" in type(layer(maps).grad_fn).__name__

    layer, maps = HalvingConv(256, 256, bias=False), torch.randn(2, 256, 8, 8).to(memory_format=torch.channels_last)
    assert not convolved(maps)
    assert convolved(maps.contiguous())
    for size in ((16, 16), (7, 8)):  # too large; an odd side
        assert convolved(torch.randn(2, 256, *size).to(memory_format=torch.channels_last))
    with torch.autocast("cpu", torch.bfloat16):
        assert convolved(maps)


@pytest.mark.parametrize("critic", [ConvDiscriminator, ResidualCritic])
def test_spectral_norm_keeps_every_weight_s_largest_singular_value_at_one(critic: type) -> None:
    spec = DataSpec.of_images(1, 16, 16)
    torch.manual_seed(0)
    network = critic(spec, (8, 16), norm="spectral") if critic is ConvDiscriminator else critic(spec, 8, norm="spectral")
    for _ in range(50):  # power iterations
        network(torch.randn(2, *spec.shape))
    constrained = [m.weight.flatten(1) for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(constrained) >= 3
    for weight in constrained:
        assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("norm", ["layer", "none"])
@pytest.mark.parametrize("critic", [ConvDiscriminator, ResidualCritic])
def test_critics_without_batch_norm_judge_each_image_by_itself(critic: type, norm: str) -> None:
    spec = DataSpec.of_images(1, 16, 16)
    network = critic(spec, (8, 16) if critic is ConvDiscriminator else 8, norm=norm)
    images = torch.randn(4, *spec.shape)
    assert torch.allclose(network(images)[:1], network(images[:1]), atol=1e-5)


def test_maxout_takes_the_largest_of_its_pieces() -> None:
    layer = Maxout(1, 2, 3)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.tensor([[1.0], [-1.0], [0.0], [2.0], [0.5], [-3.0]]))
        layer.linear.bias.copy_(torch.tensor([0.0, 0.0, 0.5, 0.0, 0.0, 0.0]))
    assert layer(torch.tensor([[2.0], [-2.0], [0.1]])).tolist() == [[2.0, 4.0], [2.0, 6.0], [0.5, pytest.approx(0.2)]]


def test_class_batch_norm_uses_the_class_s_gain_and_bias() -> None:
    norm = ClassBatchNorm(2, 3).eval()
    with torch.no_grad():
        norm.gain[1], norm.bias[1] = torch.tensor([2.0, 3.0]), torch.tensor([10.0, 20.0])
    made = norm(torch.ones(2, 2, 1, 1), torch.tensor([0, 1])).flatten(1)
    assert torch.allclose(made, torch.tensor([[1.0, 1.0], [12.0, 23.0]]), atol=1e-4)


def test_a_conditional_residual_generator_draws_the_class_that_is_asked_for() -> None:
    torch.manual_seed(0)
    network = ResidualGenerator(DataSpec.of_images(3, 32, 32), 4, 5, classes=2).eval()
    with torch.no_grad():
        network.blocks[0].second.bias[1] += 3
    noise = torch.randn(1, 5)
    first, second = network(noise, torch.tensor([0])), network(noise, torch.tensor([1]))
    assert first.shape == (1, 3, 32, 32)
    assert not torch.allclose(first, second)


def test_starts_have_the_spread_that_they_promise() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64), nn.Conv2d(64, 64, 1), nn.Linear(400, 100))
    network.apply(start_small)
    assert network[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert network[1].weight.mean().item() == pytest.approx(1, abs=0.01)
    assert network[1].weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert network[3].bias.abs().max() == 0
    start_glorot(network)
    assert network[0].weight.std().item() == pytest.approx((4 / (2 * 64 * 9)) ** 0.5, rel=0.05)
    assert network[2].weight.std().item() == pytest.approx((2 / (2 * 64)) ** 0.5, rel=0.05)
    assert network[3].weight.std().item() == pytest.approx((2 / 500) ** 0.5, rel=0.05)


def test_augmentation_moves_with_zeros_coming_in_and_passes_the_gradient() -> None:
    torch.manual_seed(0)
    image = (torch.rand(64, 1, 16, 24) + 1).requires_grad_()
    moved = differentiable(image, "shift")
    places = {(int(m[0].any(1).nonzero()[0]), int(m[0].any(0).nonzero()[0])) for m in moved.detach()}
    assert len(places) > 5  # the first row and column that is not zero: images moved down and to the right by different amounts
    kept = moved.detach() != 0
    assert all(torch.isin(m[m != 0], i).all() for m, i in zip(moved.detach(), image.detach(), strict=True))
    moved.sum().backward()
    assert set(image.grad.unique().tolist()) == {0.0, 1.0}
    assert (image.grad.flatten(1).sum(1) == kept.flatten(1).sum(1)).all()
    assert differentiable(image, "none") is image


def test_full_augmentation_recolours_and_cuts_out_a_square() -> None:
    torch.manual_seed(0)
    image = torch.rand(64, 3, 16, 16) * 0.1 + 1
    made = differentiable(image, "full")
    assert made.shape == image.shape
    assert made.flatten(1).mean(1).std() > 0.1  # brightness
    holes = (made == 0).all(1).flatten(1).float().mean(1)
    assert 0.05 < holes.min() < holes.max() <= 0.6
    assert torch.isfinite(torch.autograd.functional.jacobian(lambda x: differentiable(x, "full").sum((1, 2, 3)), image[:2])).all()


def test_codes_come_back_from_whitening_in_full_precision_under_autocast() -> None:
    """A matrix product in bfloat16 would move them by a hundredth."""
    torch.manual_seed(0)
    codes = torch.randn(50, 6) @ torch.randn(6, 6) + 3
    mean, scale, white = whiten(codes, full=True)
    with torch.autocast("cpu", torch.bfloat16):
        again = unwhiten(white, mean, scale)
    assert again.dtype == torch.float32
    torch.testing.assert_close(again, codes, rtol=0, atol=1e-4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_standardised_maps_have_the_slopes_of_their_formula_and_these_have_theirs(layout: torch.memory_format) -> None:
    x = (2 * torch.randn(2, 3, 5, 4) + 1).to(memory_format=layout).requires_grad_()
    weights = [torch.randn(2, 3, 5, 4), torch.randn(2, 3, 1, 1), torch.randn(2, 3, 1, 1)]

    def by_formula(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt(), mean, variance

    for which in ([0], [1], [2], [0, 1, 2]):
        found = []
        for made in (by_formula(x), standardised(x)):
            (slope,) = torch.autograd.grad(sum((made[n] * weights[n]).sin().sum() for n in which), x, create_graph=True)
            found.append([*made, slope, *torch.autograd.grad(slope.square().sum(), x)])
        for expected, got in zip(*found, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def test_a_blur_spreads_a_point_by_one_two_one_and_is_dark_outside() -> None:
    point = torch.zeros(1, 2, 5, 5)
    point[0, 0, 2, 2] = 16
    assert Blur()(point)[0, 0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert not Blur()(point)[0, 1].any()
    assert Blur()(torch.ones(1, 1, 3, 3))[0, 0].tolist() == [[9 / 16, 12 / 16, 9 / 16], [12 / 16, 1, 12 / 16], [9 / 16, 12 / 16, 9 / 16]]
