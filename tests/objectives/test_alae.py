"""ALAE and Style-ALAE: what the three turns minimise, and who is moved, against the paper's formulas written out; what the nets read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from formulas import COUNT, SPEC, agree, batch, close, items, made, minus_log, minus_log_of_not, push, slopes, turns
from torch import Tensor

from models.base import Clock, DataSpec

COLOUR = DataSpec.of_images(3, 16, 16)


def game(judge: Any, real: Tensor, fake: Tensor) -> Tensor:
    """-E log D(real) - E log(1 - D(fake))."""
    return minus_log(judge(real)) + minus_log_of_not(judge(fake))


@pytest.mark.parametrize("critic", ["leaky", "linear"])
@pytest.mark.parametrize("reciprocity", ["code", "noise"])
def test_three_turns_on_codes(critic: str, reciprocity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made("alae", monkeypatch, critic=critic, reciprocity=reciprocity, reciprocity_weight=0.7, penalty_weight=3.0)
    shown = batch()

    def judge(image: Tensor) -> Tensor:
        return model.discriminator(model.encoder(image))

    step = turns(model, model.turns(shown, Clock(0)))
    turn = next(step)
    fake = model.generator(model.mapping(draws.prior[0])).detach()
    penalty = (slopes(judge, shown.image) ** 2).sum() / COUNT / 2
    agree(model, turn, {"encoder": game(judge, shown.image, fake) + 3.0 * penalty}, untouched=("generator",))
    close(turn.logs["penalty"], penalty)

    turn = next(step)
    code = model.mapping(draws.prior[1])
    agree(model, turn, {"generator": -torch.log(torch.sigmoid(judge(model.generator(code)))).sum() / COUNT})
    close(model.code_mean, 0.005 * code.detach().mean(0))

    turn = next(step)
    code = model.mapping(draws.prior[2])
    wanted = code.detach() if reciprocity == "code" else draws.prior[2]
    error = ((model.encoder(model.generator(code)) - wanted) ** 2).sum() / (COUNT * code.shape[1])
    agree(model, turn, {"encoder": 0.7 * error, "generator": 0.7 * error})
    close(turn.logs["reciprocity"], error)
    assert next(step, None) is None


def test_a_discriminator_of_its_own_sees_images_and_leaves_the_encoder_to_the_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made("alae", monkeypatch, discriminator="images")
    shown = batch()
    step = turns(model, model.turns(shown, Clock(0)))
    turn = next(step)
    fake = model.generator(model.mapping(draws.prior[0])).detach()
    loss = game(model.discriminator, shown.image, fake) + 10 * (slopes(model.discriminator, shown.image) ** 2).sum() / COUNT / 2
    agree(model, turn, {"discriminator": loss}, untouched=("generator", "encoder"))
    turn = next(step)
    judged = model.discriminator(model.generator(model.mapping(draws.prior[1])))
    agree(model, turn, {"generator": -torch.log(torch.sigmoid(judged)).sum() / COUNT}, untouched=("encoder",))
    turn = next(step)
    code = model.mapping(draws.prior[2])
    error = ((model.encoder(model.generator(code)) - code.detach()) ** 2).mean()
    agree(model, turn, {"encoder": error, "generator": error}, untouched=("discriminator",))


def test_reciprocity_of_images_and_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = made("alae", monkeypatch, reciprocity="image", reciprocity_weight=2.0)
    *_, last = turns(model, model.turns(batch(), Clock(0)))
    # The last turn's players were pushed after it: its loss is compared before that, in its value only.
    assert set(last.losses) == {"encoder", "generator"}
    close(last.losses["encoder"], 2.0 * last.logs["squared error"])
    monkeypatch.undo()
    model, draws = made("alae", monkeypatch, reciprocity="none")
    first, second = model.turns(batch(), Clock(0))
    assert set(first.losses) == {"encoder"}
    assert set(second.losses) == {"generator"}
    code = model.mapping(draws.prior[1])
    close(second.logs["reciprocity"], ((model.encoder(model.generator(code)) - code) ** 2).mean())


def test_alae_s_samples_are_decoded_codes_cut_off_at_black_and_white(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = made("alae", monkeypatch)
    noise = torch.linspace(-2, 2, 8).view(2, 4)
    unit = noise / ((noise**2).mean(1, keepdim=True) + 1e-8).sqrt()
    close(model.mapping[0](noise), unit)
    close(model.sample(noise), model.generator(model.mapping(noise)).clamp(-1, 1))


# ---- styles --------------------------------------------------------------------------------------------------------------------------


def styled(monkeypatch: pytest.MonkeyPatch, spec: DataSpec = SPEC, **options: Any) -> tuple[Any, Any]:
    model, draws = made("style-alae", monkeypatch, spec, **options)
    model.eval()  # the layers' noise is then always the same
    return model, draws


@pytest.mark.parametrize(("number", "progress"), [(0, 0.1), (0, 0.7), (1, 0.1), (1, 0.7)])
def test_style_alae_plays_the_same_game_at_each_size(number: int, progress: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sizes, 8x8 and 16x16 as here, of which the second fades in over the first half of its stage."""
    model, draws = styled(monkeypatch, penalty_weight=3.0, penalty_every=2, mixing=0.0, fade=0.5, growth=0.5)
    assert model.sizes == [(4, 4), (8, 8), (16, 16)]
    stage, level = model.stages()[number + 1], number + 1
    data = items()
    if stage.size is not None:
        data["image"] = torch.nn.functional.avg_pool2d(data["image"], 16 // stage.size[0])
    shown = batch(data)
    blend = 1.0 if progress >= 0.5 else (1 - float(torch.cos(torch.tensor(torch.pi * progress / 0.5)))) / 2
    real = shown.image
    if blend < 1:
        coarse = torch.nn.functional.avg_pool2d(real, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
        real = blend * real + (1 - blend) * coarse

    def judge(image: Tensor) -> Tensor:
        return model.discriminator(model.encoder(image, level, blend))

    def painted(code: Tensor) -> Tensor:
        return model.generator(torch.stack([code] * 6, 1), level, blend)

    step = turns(model, stage.turns(shown, Clock(2, progress=progress)))
    turn = next(step)
    assert (int(model.level), float(model.blend)) == (level, pytest.approx(blend))
    penalty = (slopes(judge, real) ** 2).sum() / COUNT / 2
    loss = game(judge, real, painted(model.mapping(draws.prior[0])).detach()) + 3.0 * 2 * penalty
    agree(model, turn, {"encoder": loss}, untouched=("generator",))

    turn = next(step)
    agree(model, turn, {"generator": -torch.log(torch.sigmoid(judge(painted(model.mapping(draws.prior[2]))))).sum() / COUNT})

    turn = next(step)
    code = model.mapping(draws.prior[4])
    error = ((model.encoder(painted(code), level, blend) - code.detach()) ** 2).mean()
    agree(model, turn, {"encoder": error, "generator": error})
    assert next(step, None) is None

    (first, *_) = stage.turns(shown, Clock(3, progress=progress))
    assert "penalty" not in first.logs


def test_two_codes_are_mixed_at_a_border_that_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = styled(monkeypatch, mixing=1.0)
    borders = set()
    for _ in range(30):
        draws.prior.clear()
        codes = model.mixed(batch(), level=1)
        one, other = (model.mapping(noise) for noise in draws.prior)
        from_one = [bool(torch.equal(codes[:, layer], one)) for layer in range(6)]
        assert all(torch.equal(codes[:, layer], one if mine else other) for layer, mine in enumerate(from_one))
        borders.add(sum(from_one))
        assert from_one == sorted(from_one, reverse=True)
    assert borders == {1, 2, 3}  # of the four layers that take part


def test_stages_grow_and_have_batches_and_rates_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = made("style-alae", monkeypatch, growth=0.4, batches=(16, 12, 8), lrs=(1e-3, 2e-3))
    stages = model.stages()
    assert [stage.size for stage in stages] == [(4, 4), (8, 8), None]
    assert [stage.share for stage in stages] == pytest.approx([0.2, 0.2, 0.6])
    assert [stage.settings["encoder"]["lr"] for stage in stages] == [1e-3, 2e-3, 2e-3]
    monkeypatch.undo()
    model, _ = made("style-alae", monkeypatch, growth=0.0)
    (only,) = model.stages()
    assert only.size is None
    assert int(model.level) == 2


def test_what_is_not_grown_yet_is_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = styled(monkeypatch)
    image = items()["image"]
    model.level.fill_(1)
    code = model.encode(image)
    close(code, model.encoder(torch.nn.functional.avg_pool2d(image, 2), 1, 1.0))
    again = model.decode(code)
    small = model.generator(torch.stack([code] * 6, 1), 1, 1.0).clamp(-1, 1)
    close(again, small.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_a_style_sets_mean_and_deviation_of_every_map_and_the_encoder_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = styled(monkeypatch)
    layer, code, maps = model.generator.layers[3], torch.randn(2, 4), torch.randn(2, 4, 8, 8)
    scale, shift = layer.style(code).split(4, 1)
    made_of = layer(maps, code)
    close(made_of.mean((2, 3)), shift)
    spread = maps.add(layer.strength * layer.still_noise + layer.bias)  # what the style finds: leaky, then normal but for 1e-5
    spread = torch.where(spread > 0, spread, 0.2 * spread).var((2, 3), unbiased=False)
    close(made_of.std((2, 3), unbiased=False), (1 + scale).abs() * (spread / (spread + 1e-5)).sqrt())
    block = model.encoder.blocks[0]
    taken, said = block.read(maps, block.read_first)
    deviation = ((maps - maps.mean((2, 3), keepdim=True)) ** 2).mean((2, 3)).sqrt()
    close(said, block.read_first(torch.cat([maps.mean((2, 3)), deviation], 1)))
    close(taken.mean((2, 3)), torch.zeros(2, 4))
    flat = torch.full((2, 4, 8, 8), 0.3, requires_grad=True)
    taken, said = block.read(flat, block.read_first)
    (slope,) = torch.autograd.grad(said.sum() + taken.sum(), flat)
    assert bool(torch.isfinite(slope).all())


def test_mixing_takes_the_named_layers_of_the_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = styled(monkeypatch)
    model.level.fill_(2)
    one, other = torch.randn(2, 2, 4)
    codes = torch.stack([one, other, other, one, one, one], 1)
    close(model.mix(one, other, [1, 2]), model.generator(codes, 2, 1.0).clamp(-1, 1))
    assert model.layer_groups == {"coarse": (0, 1), "middle": (2, 3), "fine": (4, 5)}


def test_mirrors_colour_images(monkeypatch: pytest.MonkeyPatch) -> None:
    assert made("style-alae", monkeypatch, COLOUR)[0].mirrors
    assert not made("style-alae", monkeypatch, COLOUR, flip=False)[0].mirrors
    assert not made("style-alae", monkeypatch, SPEC)[0].mirrors


def test_layers_of_equal_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    from models.nets.equalised import EqualConv, EqualLinear

    torch.manual_seed(1)
    linear = EqualLinear(200, 300, gain=2.0, rate=0.1)
    assert float(linear.weight.detach().std()) == pytest.approx(10, rel=0.02)
    x = torch.randn(5, 200)
    push(linear)
    close(linear(x), x @ linear.weight.T * (2.0 / 200**0.5 * 0.1) + 0.1 * linear.bias)
    conv = EqualConv(3, 4)
    push(conv)
    maps = torch.randn(2, 3, 5, 5)
    close(conv(maps), torch.nn.functional.conv2d(maps, conv.weight * (2 / 27) ** 0.5, conv.bias, padding=1))
