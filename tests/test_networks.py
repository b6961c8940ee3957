"""The networks, layer by layer; what residual blocks and augmentation compute, written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from formulas import SPEC, kept_in, made
from torch import nn

from models.base import DataSpec
from models.nets.augment import augment, differentiable, shift_and_flip
from models.nets.autoencoder import decoder_for, encoder_for
from models.nets.conditions import as_vector
from models.nets.conv import ConvDecoder, ConvDiscriminator, ConvEncoder, RefiningDecoder, depth_for, halvings, start_small
from models.nets.mlp import MaxoutDiscriminator, MlpDecoder, MlpEncoder, ResidualMlp
from models.nets.residual import ResidualBlock, ResidualEncoder
from models.nets.residual_gan import ClassBatchNorm, DownBlock, ResidualCritic, ResidualGenerator, UpBlock
from models.nets.wae import WaeDecoder, WaeEncoder
from models.nets.whitening import rescaled, whiten

COLOUR, TALL, TINY = DataSpec.of_images(3, 32, 32), DataSpec.of_images(1, 29, 16), DataSpec.of_images(1, 4, 5)


def word(layer: Any) -> str:
    """`conv 3>4 k4 s2 p1`: channels, kernel, stride, padding; `up` is transposed, +10 its output's padding, `-` at the end: no bias."""
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        (k, _), (s, _), (p, q) = layer.kernel_size, layer.stride, layer.padding
        found = f"{layer.in_channels}>{layer.out_channels} k{k} s{s} p{p}" + (f"{q}" if p != q else "")
        more = "+{}{}".format(*layer.output_padding) if any(layer.output_padding) else ""
        found = ("up " if layer.transposed else "conv ") + found + more
        return found if layer.bias is not None else f"{found} -"
    if isinstance(layer, nn.Linear):
        return f"linear {layer.in_features}>{layer.out_features}" + ("" if layer.bias is not None else " -")
    if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
        return f"batch {layer.num_features}" + ("" if layer.affine else " -")
    if isinstance(layer, nn.GroupNorm):
        assert layer.num_groups == 1
        return f"layer {layer.num_channels}"
    if isinstance(layer, (nn.LeakyReLU, nn.Dropout)):
        return f"leaky {layer.negative_slope}" if isinstance(layer, nn.LeakyReLU) else f"dropout {layer.p}"
    return type(layer).__name__.lower()


def words(network: nn.Module) -> str:
    return ", ".join(word(m) for m in network.modules() if not list(m.children()))


def named(value: Any) -> str:
    """The class that a parameter builds. Networks are built inside the tests: no fault can reach one that was built with the list."""
    return value.__code__.co_names[0] if callable(value) else ""


@pytest.mark.parametrize(
    ("build", "shape", "expected"),
    [
        (
            lambda: ConvEncoder(COLOUR, (4, 8, 16, 32), 6),
            (3, 32, 32),
            "conv 3>4 k4 s2 p1 -, batch 4, relu, conv 4>8 k4 s2 p1 -, batch 8, relu, conv 8>16 k4 s2 p1 -, batch 16, relu, "
            "tovector, linear 256>6",
        ),
        (
            lambda: ConvDecoder(COLOUR, (4, 8, 16, 32), 6),
            (6,),
            "linear 6>256 -, tomaps, batch 16, relu, up 16>8 k4 s2 p1 -, batch 8, relu, up 8>4 k4 s2 p1 -, batch 4, relu, up 4>3 k4 s2 p1",
        ),
        (
            lambda: ConvDecoder(TALL, (4, 8), 6, norm="none"),
            (6,),
            "linear 6>224, tomaps, relu, up 8>4 k4 s2 p1, relu, up 4>1 k4 s2 p1+10",
        ),
        (
            lambda: ConvDecoder(TALL, (4, 8), 6, kernel=5),
            (6,),
            "linear 6>224 -, tomaps, batch 8, relu, up 8>4 k5 s2 p2+11 -, batch 4, relu, up 4>1 k5 s2 p12+01",
        ),
        (
            lambda: ConvDiscriminator(COLOUR, (4, 8, 16)),
            (3, 32, 32),
            "conv 3>4 k4 s2 p1, leaky 0.2, conv 4>8 k4 s2 p1 -, batch 8, leaky 0.2, conv 8>16 k4 s2 p1 -, batch 16, leaky 0.2, "
            "tovector, linear 256>1",
        ),
        (
            lambda: ConvDiscriminator(TALL, (4, 8), outputs=2, norm="layer", kernel=5),
            (1, 29, 16),
            "conv 1>4 k5 s2 p2, leaky 0.2, conv 4>8 k5 s2 p2, layer 8, leaky 0.2, tovector, linear 256>2",
        ),
        (
            lambda: ConvDiscriminator(TALL, (4, 8), norm="none"),
            (1, 29, 16),
            "conv 1>4 k4 s2 p1, leaky 0.2, conv 4>8 k4 s2 p1, leaky 0.2, tovector, linear 224>1",
        ),
        (lambda: MlpEncoder(TINY, (7, 8), 3), (1, 4, 5), "flatten, linear 20>7, tanh, linear 7>8, tanh, linear 8>3"),
        (
            lambda: MlpDecoder(TINY, (7, 8), 3, nn.ReLU, "batch"),
            (3,),
            "linear 3>8, batch 8, relu, linear 8>7, batch 7, relu, linear 7>20, unflatten",
        ),
        (lambda: MlpDecoder(TINY, (7, 8), 3), (3,), "linear 3>8, tanh, linear 8>7, tanh, linear 7>20, unflatten"),
        (
            lambda: WaeEncoder(DataSpec.of_images(3, 20, 13), (4, 8, 16), 6),
            (3, 20, 13),
            "conv 3>4 k5 s2 p2, batch 4, relu, conv 4>8 k5 s2 p2, batch 8, relu, conv 8>16 k5 s2 p2, batch 16, relu, tovector, linear 96>6",
        ),
        (
            lambda: WaeDecoder(DataSpec.of_images(3, 20, 13), (4, 8, 16), 6),
            (6,),
            "linear 6>320, tomaps, relu, up 16>8 k5 s2 p2+10, batch 8, relu, up 8>4 k5 s2 p2+10, batch 4, relu, up 4>3 k5 s1 p2",
        ),
    ],
    ids=named,
)
def test_layer_after_layer(build: Callable[[], nn.Module], shape: tuple[int, ...], expected: str) -> None:
    network = build()
    assert words(network) == expected
    given = torch.randn(3, *shape)
    by_hand = given.clone()
    for layer in (m for m in network.modules() if not list(m.children())):
        by_hand = layer(by_hand)
    torch.testing.assert_close(network(given), by_hand)


def test_the_first_gan_s_discriminator_has_maxout_units_and_dropout() -> None:
    network = MaxoutDiscriminator(TINY, (6, 7))
    assert words(network) == "flatten, dropout 0.2, linear 20>30, dropout 0.5, linear 6>35, dropout 0.5, linear 7>1"
    image = torch.randn(3, 1, 4, 5)
    first, second, last = (m for m in network.eval().modules() if isinstance(m, nn.Linear))
    hidden = first(image.flatten(1)).view(3, 6, 5).amax(2)
    torch.testing.assert_close(network(image), last(second(hidden).view(3, 7, 5).amax(2)))


def test_a_residual_mlp_starts_near_the_identity() -> None:
    torch.manual_seed(0)
    network = ResidualMlp(3, (50, 60))
    assert words(network) == "linear 3>50, batch 50, relu, linear 50>60, batch 60, relu, linear 60>3"
    x = torch.randn(200, 3)
    torch.testing.assert_close(network(x), x + network.net(x))
    last = network.net[-1]
    reach = 0.01 / 60**0.5  # torch's own start, a hundredth of it
    for parameter in (last.weight, last.bias):
        assert 0.5 * reach < parameter.detach().abs().max() <= reach


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (
            lambda: ResidualGenerator(COLOUR, 4, 5),
            "linear 5>64, tomaps, "
            + 3 * "batch 4, batch 4, conv 4>4 k3 s1 p1 -, conv 4>4 k3 s1 p1, conv 4>4 k1 s1 p0, "
            + "batch 4, relu, conv 4>3 k3 s1 p1",
        ),
        (
            lambda: ResidualGenerator(COLOUR, 4, 5, classes=2),
            "linear 5>64, tomaps, "
            + 3 * "batch 4 -, batch 4 -, conv 4>4 k3 s1 p1, conv 4>4 k3 s1 p1, conv 4>4 k1 s1 p0, "
            + "batch 4, relu, conv 4>3 k3 s1 p1",
        ),
        (
            lambda: ResidualGenerator(COLOUR, 4, 5, norm="none"),
            "linear 5>64, tomaps, "
            + 3 * "sequential, sequential, conv 4>4 k3 s1 p1, conv 4>4 k3 s1 p1, conv 4>4 k1 s1 p0, "
            + "relu, conv 4>3 k3 s1 p1",
        ),
        (
            lambda: ResidualCritic(COLOUR, 4, outputs=3),
            "conv 3>4 k3 s1 p1, relu, conv 4>4 k3 s1 p1, conv 3>4 k1 s1 p0, "
            "relu, conv 4>4 k3 s1 p1, relu, conv 4>4 k3 s1 p1, conv 4>4 k1 s1 p0, "
            + 2 * "relu, conv 4>4 k3 s1 p1, relu, conv 4>4 k3 s1 p1, identity, "
            + "linear 4>3",
        ),
        (
            lambda: ResidualCritic(DataSpec.of_images(3, 24, 30), 4, norm="layer"),
            "conv 3>4 k3 s1 p1, layer 4, relu, conv 4>4 k3 s1 p1, conv 3>4 k1 s1 p0, "
            "layer 4, relu, conv 4>4 k3 s1 p1, layer 4, relu, conv 4>4 k3 s1 p1, conv 4>4 k1 s1 p0, "
            + 2 * "layer 4, relu, conv 4>4 k3 s1 p1, layer 4, relu, conv 4>4 k3 s1 p1, identity, "
            + "linear 4>1",
        ),
    ],
    ids=named,
)
def test_the_residual_nets_of_wgan_gp(build: Callable[[], nn.Module], expected: str) -> None:
    assert words(build()) == expected


def twice(maps: torch.Tensor) -> torch.Tensor:
    return maps.repeat_interleave(2, 2).repeat_interleave(2, 3)


def halved(maps: torch.Tensor) -> torch.Tensor:
    return (maps[:, :, ::2, ::2] + maps[:, :, 1::2, ::2] + maps[:, :, ::2, 1::2] + maps[:, :, 1::2, 1::2]) / 4


@pytest.mark.parametrize("classes", [0, 2])
def test_blocks_that_double(classes: int) -> None:
    torch.manual_seed(0)
    block, maps, label = UpBlock(3, 5, (8, 6), "batch", classes), torch.randn(4, 3, 4, 3), torch.tensor([0, 1, 1, 0]) if classes else None
    told = (label,) if classes else ()
    inner = twice(F.relu(block.first(maps, *told)))
    inner = block.last(F.relu(block.second(block.enlarged(inner), *told)))
    torch.testing.assert_close(block(maps, label), block.shortcut(twice(maps)) + inner)
    generator = ResidualGenerator(DataSpec.of_images(1, 16, 8), 4, 5, classes=classes)
    noise = torch.randn(4, 5)
    by_hand = generator.start(noise)
    for each in generator.blocks:
        by_hand = each(by_hand, label)
    torch.testing.assert_close(generator(noise, label), generator.end(by_hand))


@pytest.mark.parametrize("halves", [False, True])
def test_blocks_that_halve(halves: bool) -> None:
    torch.manual_seed(0)
    block, maps = DownBlock(3, 5, "none", halves), torch.randn(2, 3, 8, 6)
    first, second = (m for m in block.branch if isinstance(m, nn.Conv2d))
    inner, beside = second(F.relu(first(F.relu(maps)))), block.shortcut(maps)
    torch.testing.assert_close(block(maps), halved(beside) + halved(inner) if halves else beside + inner)
    critic, image = ResidualCritic(DataSpec.of_images(3, 8, 8), 4, outputs=2), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(critic(image), critic.head(F.relu(critic.blocks(image)).sum((2, 3)) / 16))
    assert ResidualCritic(COLOUR, 4).blocks(torch.randn(1, 3, 32, 32)).shape == (1, 4, 8, 8)
    assert ResidualCritic(DataSpec.of_images(3, 11, 15), 4).blocks(torch.randn(1, 3, 11, 15)).shape == (1, 4, 5, 7)


def test_residual_blocks_of_the_classifier() -> None:
    torch.manual_seed(0)
    block, maps = ResidualBlock(3, 5, 2), torch.randn(2, 3, 8, 6)
    expected = "conv 3>5 k3 s2 p1 -, batch 5, relu, conv 5>5 k3 s1 p1 -, batch 5, avgpool2d, conv 3>5 k1 s1 p0 -, batch 5"
    assert words(block) == expected
    conv, norm, _, again, last = block.branch
    _, beside, beside_norm = block.shortcut
    inner = last(again(F.relu(norm(conv(maps)))))
    torch.testing.assert_close(block(maps), F.relu(beside_norm(beside(halved(maps))) + inner))
    assert block(torch.randn(1, 3, 7, 5)).shape == (1, 5, 4, 3)
    assert words(ResidualBlock(3, 3, 1)).endswith("batch 3, sequential")
    encoder = ResidualEncoder(DataSpec.of_images(3, 16, 16), (4, 8), (0, 1))
    image = torch.randn(2, 3, 16, 16)
    assert words(encoder).startswith("conv 3>4 k3 s1 p1 -, batch 4, relu, conv 4>8 k3 s2 p1 -")
    torch.testing.assert_close(encoder(image), encoder.net(image).sum((2, 3)) / 64)


def test_how_often_a_net_halves() -> None:
    sides = {7: 1, 8: 1, 15: 1, 16: 2, 28: 2, 32: 3, 63: 3, 64: 4, 256: 4}
    assert {side: depth_for(DataSpec.of_images(1, side, 300), (1, 1, 1, 1)) for side in sides} == sides
    assert depth_for(DataSpec.of_images(1, 64, 64), (1,)) == 1
    assert halvings((28, 5), 4) == [(28, 5), (14, 2), (7, 1), (3, 1), (1, 1)]


def test_the_network_option_chooses_both_sides() -> None:
    kinds = {"conv": (ConvEncoder, ConvDecoder), "mlp": (MlpEncoder, MlpDecoder), "wae": (WaeEncoder, WaeDecoder)}
    for name, (encoder, decoder) in kinds.items():
        there, back = encoder_for(name, TALL, (4, 8), 6), decoder_for(name, TALL, (4, 8), 6)  # type: ignore[arg-type]
        assert (type(there), type(back)) == (encoder, decoder)
        code = there(torch.randn(2, *TALL.shape))
        assert code.shape == (2, 6)
        assert there.trunk(torch.randn(2, *TALL.shape)).shape == (2, there.features)
        assert back(code).shape == (2, *TALL.shape)


@pytest.mark.parametrize("full", [False, True])
def test_whitened_codes_have_the_identity_s_covariance_and_come_back(full: bool) -> None:
    dice = torch.Generator().manual_seed(0)
    codes = torch.randn(500, 3, generator=dice) @ torch.tensor([[2.0, 1, 0], [0, 3, 1], [0, 0, 0.5]]) + torch.tensor([1.0, -5, 2])
    mean, scale, white = whiten(codes, full)
    torch.testing.assert_close(mean, codes.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(mean + white @ scale.T, codes, atol=1e-4, rtol=0)
    torch.testing.assert_close(white.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    found = white.T @ white / 500
    torch.testing.assert_close(found if full else found.diag(), torch.eye(3) if full else torch.ones(3), atol=1e-4, rtol=0)
    assert {t.dtype for t in (mean, scale, white)} == {torch.float32}
    assert white.is_contiguous()
    deviations = torch.rand(500, 3, generator=dice) * torch.tensor([3.0, 0.1, 1])
    draws = codes.repeat(400, 1) + deviations.repeat(400, 1) * torch.randn(200_000, 3, generator=dice)
    mean, scale, centres = whiten(codes, full, deviations)
    torch.testing.assert_close(mean + centres @ scale.T, codes, atol=1e-4, rtol=0)
    covariance = torch.cov(rescaled(draws - mean, scale).T)
    torch.testing.assert_close(covariance if full else covariance.diag(), torch.eye(3) if full else torch.ones(3), atol=0.02, rtol=0)
    constant = whiten(torch.ones(4, 2), full)
    assert torch.isfinite(torch.cat([t.flatten() for t in constant])).all()
    assert float(constant[1].diag().min()) == pytest.approx(1e-3 if full else 1e-6)


# ---- augmentation ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What torch draws in a test, in order."""
    kept: list[torch.Tensor] = []
    for name in ("rand", "randint"):
        monkeypatch.setattr(torch, name, kept_in(kept, getattr(torch, name)))
    torch.manual_seed(0)
    return kept


def test_what_a_discriminator_sees_by_hand(drawn: list[torch.Tensor]) -> None:
    """Brightness within a half, saturation up to double, contrast from a half to three halves; then moved, then a hole of half the side."""
    image = torch.empty(500, 3, 24, 17).uniform_(-1, 1)
    found = differentiable(image, "full")
    share, down, across, y, x = drawn
    assert {int(down.max()), int(across.max())} == {6, 4}
    assert {int(t.min()) for t in (down, across, y, x)} == {0}
    assert (int(y.max()), int(x.max())) == (23, 16)
    for n, one in enumerate(image[:8]):
        brightness, saturation, contrast = share[:, n].flatten()
        one = one + brightness - 0.5
        grey = (one[0] + one[1] + one[2]) / 3
        one = torch.stack([grey + 2 * saturation * (colour - grey) for colour in one])
        level = one.sum() / one.numel()
        one = level + (contrast + 0.5) * (one - level)
        wanted = torch.zeros_like(one)
        for row in range(24):
            for column in range(17):
                a, b = row + int(down[n]) - 3, column + int(across[n]) - 2
                hole = abs(row - int(y[n])) <= 6 and abs(column - int(x[n])) <= 4
                if 0 <= a < 24 and 0 <= b < 17 and not hole:
                    wanted[:, row, column] = one[:, a, b]
        torch.testing.assert_close(found[n], wanted)


def test_small_images_move_by_a_pixel_at_least(drawn: list[torch.Tensor]) -> None:
    differentiable(torch.zeros(100, 1, 5, 7), "shift")
    assert [set(by.flatten().tolist()) for by in drawn] == [{0, 1, 2}] * 2
    augment(torch.zeros(100, 1, 5, 39), "flip")
    down, across, mirrored = drawn[2:]
    assert set(down.flatten().tolist()) == {-1, 0, 1}
    assert set(across.flatten().tolist()) == {-3, -2, -1, 0, 1, 2, 3}
    assert mirrored.shape == (100, 1)


def test_training_images_are_shifted_with_their_edges_repeated_and_every_other_one_mirrored(drawn: list[torch.Tensor]) -> None:
    image = torch.empty(100, 2, 6, 9).uniform_(-1, 1)
    found = shift_and_flip(image, (2, 3), flip=True)
    down, across, mirrored = drawn
    assert (int(down.min()), int(down.max()), int(across.min()), int(across.max())) == (-2, 2, -3, 3)
    for n, one in enumerate(image[:20]):
        for row in range(6):
            for column in range(9):
                a, b = min(max(row + int(down[n]), 0), 5), min(max(column + int(across[n]), 0), 8)
                assert torch.equal(found[n, :, row, column], one[:, a, b if mirrored[n] < 0.5 else 8 - b])


def test_augmentation_stays_on_the_image_s_device() -> None:
    image = torch.zeros(2, 3, 8, 8, device="meta")
    assert differentiable(image, "full").device == image.device
    assert augment(image, "flip").device == image.device


# ---- the models' networks --------------------------------------------------------------------------------------------------------------

NARROW, LATENT, CODE_NET = (4, 8), 4, "linear 4>16, {0}, linear 16>1"
UNITS = "linear 4>512, relu, linear 512>512, relu, linear 512>512, relu, linear 512>256, unflatten"


def up(inputs: int = LATENT, **more: Any) -> str:
    return words(ConvDecoder(SPEC, NARROW, inputs, **more))


def down(outputs: int = 1, **more: Any) -> str:
    return words(ConvDiscriminator(SPEC, NARROW, outputs=outputs, **more))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("vae", {}, {"encoder": words(ConvEncoder(SPEC, NARROW, LATENT)), "log_variance": "linear 128>4", "decoder": up()}),
        ("vae", {"network": "mlp"}, {"encoder": words(MlpEncoder(SPEC, NARROW, 4)), "decoder": words(MlpDecoder(SPEC, NARROW, 4))}),
        ("wae", {"network": "wae"}, {"encoder": words(WaeEncoder(SPEC, NARROW, 4)), "decoder": words(WaeDecoder(SPEC, NARROW, 4))}),
        ("wae", {}, {"encoder": words(ConvEncoder(SPEC, NARROW, 4)), "decoder": up(), "code_critic": CODE_NET.format("relu")}),
        ("aegan", {}, {"encoder": words(ConvEncoder(SPEC, NARROW, 4)), "decoder": up(), "code_critic": CODE_NET.format("leaky 0.2")}),
        ("aegan", {"image_weight": 1.0}, {"generator": words(ResidualMlp(4, (16,))), "image_critic": down()}),
        ("gan", {}, {"generator": words(MlpDecoder(SPEC, NARROW, 4, lambda: nn.LeakyReLU(0.2), "batch"))}),
        ("gan", {"norm": "none"}, {"generator": words(MlpDecoder(SPEC, NARROW, 4, lambda: nn.LeakyReLU(0.2)))}),
        ("gan", {}, {"discriminator": words(MlpEncoder(SPEC, NARROW, 1, lambda: nn.LeakyReLU(0.2)))}),
        ("gan", {"discriminator": "maxout"}, {"discriminator": words(MaxoutDiscriminator(SPEC, NARROW))}),
        ("bigan", {}, {"generator": words(MlpDecoder(SPEC, (16,), 4, nn.ReLU, "batch"))}),
        ("bigan", {}, {"encoder": "flatten, linear 256>16, batch 16, leaky 0.2, linear 16>4"}),
        ("bigan", {}, {"discriminator": "flatten, linear 256>16, leaky 0.2, linear 20>1"}),
        ("bigan", {"network": "conv"}, {"generator": up(), "encoder": words(ConvEncoder(SPEC, NARROW, 4))}),
        ("dcgan", {}, {"generator": up(), "discriminator": down()}),
        ("dcgan", {"kernel": 5, "norm": "layer"}, {"generator": up(kernel=5), "discriminator": down(kernel=5, norm="layer")}),
        ("dcgan", {"generator_norm": "none", "norm": "none"}, {"generator": up(norm="none"), "discriminator": down(norm="none")}),
        ("cgan", {}, {"generator": up(7), "discriminator": down(4), "logit": "linear 4>1", "projection": "linear 3>4 -"}),
        ("cgan", {"condition": "attributes"}, {"generator": up(6), "projection": "linear 2>4 -"}),
        ("cvae", {}, {"encoder": words(ConvEncoder(SPEC, NARROW, 16)), "heads": "linear 19>8", "decoder": up(7)}),
        ("cvae", {"condition": "identity"}, {"heads": "linear 20>8", "decoder": up(8)}),
        ("wgan", {}, {"generator": up(), "critic": down()}),
        ("wgan", {"network": "mlp", "norm": "none"}, {"generator": UNITS, "critic": down(norm="none")}),
        ("wgan", {"norm": "layer", "generator_norm": "none"}, {"generator": up(norm="none"), "critic": down(norm="layer")}),
        ("wgan-gp", {}, {"generator": up(), "critic": down(norm="none")}),
        ("wgan-gp", {"norm": "layer", "generator_norm": "none"}, {"generator": up(norm="none"), "critic": down(norm="layer")}),
        ("wgan-gp", {"classes": True}, {"generator": up(7), "critic": down(4, norm="none")}),
        (
            "wgan-gp",
            {"network": "residual", "classes": True, "norm": "layer"},
            {
                "generator": words(ResidualGenerator(SPEC, 4, 7, classes=3)),
                "critic": words(ResidualCritic(SPEC, 4, outputs=4, norm="layer")),
            },
        ),
        (
            "wgan-gp",
            {"network": "residual", "classes": True, "generator_norm": "none"},
            {"generator": words(ResidualGenerator(SPEC, 4, 7, norm="none")), "critic": words(ResidualCritic(SPEC, 4, outputs=4))},
        ),
        (
            "cvae-gan",
            {},
            {
                "encoder": words(ConvEncoder(SPEC, NARROW, 16)),
                "heads": "linear 19>8",
                "generator": up(7),
                "discriminator": down(4),
                "logit": "linear 4>1",
                "classifier": down(4),
                "class_logits": "linear 4>3",
            },
        ),
        ("classifier", {}, {"encoder": words(ResidualEncoder(SPEC, NARROW, (0, 1, 1))), "head": "linear 8>3"}),
    ],
    ids=str,
)
def test_options_reach_the_networks(name: str, options: dict[str, Any], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {"components": False} if name in ("vae", "wae", "cvae", "aegan") else {}
    model, _ = made(name, monkeypatch, **plain, **options)
    assert {part: words(model.get_submodule(part)) for part in expected} == expected


def test_the_norm_of_several_classes_is_their_mixture() -> None:
    norm = ClassBatchNorm(2, 3).eval()
    with torch.no_grad():
        norm.gain.copy_(torch.tensor([[1.0, 2], [3, 4], [5, 6]]))
        norm.bias.copy_(torch.tensor([[0.0, 1], [2, 3], [4, 5]]))
    maps = torch.randn(2, 2, 3, 3)
    expected = maps / (1 + 1e-5) ** 0.5 * torch.tensor([2.0, 3]).view(2, 1, 1) + torch.tensor([1.0, 2]).view(2, 1, 1)
    torch.testing.assert_close(norm(maps, torch.tensor([[0.5, 0.5, 0]] * 2)), expected)
    torch.testing.assert_close(norm(maps, torch.tensor([2, 0])), norm(maps, torch.tensor([[0.0, 0, 1], [1, 0, 0]])))


def test_one_attribute_has_the_length_of_a_class() -> None:
    assert as_vector(DataSpec.of_images(1, 8, 8, attributes=("x",)), attributes=torch.tensor([[1.0], [0.0]])).tolist() == [[1], [-1]]


def test_a_refining_decoder_sees_the_picture_at_every_resolution() -> None:
    """Zero at the start; and what it adds depends on each of the picture's pixels, through its last layer alone on those near by."""
    torch.manual_seed(0)
    net = RefiningDecoder(DataSpec.of_images(3, 21, 16), (4, 8), 5).eval()
    code, picture = torch.randn(1, 5), torch.randn(1, 3, 21, 16, requires_grad=True)
    assert not net(code, picture).any()
    start_small(net.enlarge[-1])
    made_of = net(code, picture)
    assert made_of.shape == picture.shape
    (slope,) = torch.autograd.grad(made_of.sum(), picture)
    assert bool((slope[:, :, :20] != 0).all())  # the last row has been rounded away
    for module in (net.start, *net.see[:-1]):
        for parameter in module.parameters():
            torch.nn.init.zeros_(parameter)
    (slope,) = torch.autograd.grad(net(code, picture)[0, 0, 10, 8], picture)
    assert bool((slope[0, :, 10, 8] != 0).all())
    assert not slope[0, :, :5].any()
