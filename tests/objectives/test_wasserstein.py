"""WGAN and WGAN-GP: what is minimised, and when, against the papers' formulas written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from formulas import COUNT, SPEC, Draws, agree, batch, close, items, made, mirrored, seen, slopes, turns
from torch import Tensor

from models.base import Clock, DataSpec

CLASSES = len(SPEC.classes)


def noises(draws: Draws, before: int, count: int = 1) -> Tensor:
    """The noise of a generator's step: what was drawn for it since `before`, filled up with what the critic was shown last."""
    new = draws.prior[before:]
    kept = draws.prior[before - (count - len(new)) : before]
    assert len(kept + new) == count
    return torch.cat(kept + new)


@pytest.mark.parametrize(
    "options", [{}, {"norm": "layer"}, {"norm": "none", "generator_norm": "none"}, {"augment": "shift"}, {"network": "mlp"}], ids=str
)
def test_wgan_s_critic_widens_the_difference_and_the_generator_lifts_its_score(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, draws = made("wgan", monkeypatch, critic_steps=2, **options)
    mirrored("wgan", monkeypatch)
    shown, augment = batch(), model.config.augment

    def critic_turn(step: Any) -> None:
        turn = next(step)
        fake = torch.tanh(model.generator(draws.prior[-1])).detach()
        on_real, on_fake = (model.critic(seen(image, augment)) for image in (shown.image, fake))
        distance = on_real.sum() / COUNT - on_fake.sum() / COUNT
        agree(model, turn, {"critic": -distance}, untouched=("generator",))
        close(turn.logs["distance"], distance)

    step = turns(model, model.turns(shown, Clock(0)))
    critic_turn(step)
    assert next(step, None) is None

    step = turns(model, model.turns(shown, Clock(1)))
    critic_turn(step)
    before = len(draws.prior)
    turn = next(step)
    fake = torch.tanh(model.generator(noises(draws, before)))
    agree(model, turn, {"generator": -model.critic(seen(fake, augment)).sum() / COUNT})
    assert next(step, None) is None
    model.eval()
    close(model.sample(draws.prior[0]), torch.tanh(model.generator(draws.prior[0])))


@pytest.mark.parametrize("options", [{"critic_steps": 3}, {"critic_steps": 2, "warm_up": 4}], ids=str)
def test_wgan_s_generator_waits_for_its_critic(options: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = made("wgan", monkeypatch, **options)
    every = options.get("warm_up") or options["critic_steps"]
    for number in range(2 * every):
        players = [name for turn in model.turns(batch(), Clock(number)) for name in turn.losses]
        assert players == ["critic"] + ["generator"] * ((number + 1) % every == 0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"penalty_weight": 0.1, "norm": "layer"},
        {"network": "residual", "dequantise": True},
        {"augment": "shift", "generator_norm": "none"},
        {"classes": True, "class_weight": 0.5, "class_reward": 0.2},
        {"classes": True, "generator_batches": 3},
        {"network": "residual", "classes": True, "generator_batches": 2},
        {"generator_batches": 2, "dequantise": True},
    ],
    ids=str,
)
def test_wgan_gp_keeps_the_critic_s_slope_at_one(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """E D(fake) - E D(real) + weight E (|grad D(between)| - 1)^2, between at one random share for each image; with classes
    cross-entropy too, of real images for the critic and of fakes for the generator."""
    model, draws = made("wgan-gp", monkeypatch, critic_steps=2, **options)
    mirrored("wgan-gp", monkeypatch)
    c, data = model.config, items()
    residual = c.network == "residual"

    def painted(noise: Tensor, label: Tensor) -> Tensor:
        if not c.classes:
            return torch.tanh(model.generator(noise))
        asked = torch.cat([noise, torch.eye(CLASSES)[label]], 1)
        return torch.tanh(model.generator(asked, label) if residual else model.generator(asked))

    def judged(image: Tensor) -> tuple[Tensor, Tensor]:
        answers = model.critic(seen(image, c.augment))
        assert answers.shape[1] == 1 + CLASSES * c.classes
        return answers[:, 0], answers[:, 1:]

    def misnamed(logits: Tensor, label: Tensor) -> Tensor:
        return -sum(torch.log(row.exp()[n] / row.exp().sum()) for row, n in zip(logits, label, strict=True)) / len(label)

    def critic_turn(step: Any) -> None:
        drawn = len(draws.uniform)
        turn = next(step)
        real = data["image"]
        share, *levels = sorted(draws.uniform[drawn:], key=torch.numel)  # one number an image; for dequantisation, one a pixel
        assert len(levels) == c.dequantise
        if c.dequantise:
            real = real + levels[0] * 2 / 256
        assert share.shape == (COUNT, 1, 1, 1)
        fake = painted(draws.prior[-1], data["label"]).detach()
        (on_real, named), (on_fake, _) = judged(real), judged(fake)
        distance = on_real.sum() / COUNT - on_fake.sum() / COUNT
        between = real + share * (fake - real)
        penalty = ((slopes(lambda x: judged(x)[0], between) - 1) ** 2).sum() / COUNT
        loss = c.penalty_weight * penalty - distance
        if c.classes:
            loss = loss + c.class_weight * misnamed(named, data["label"])
            close(turn.logs["real images named right"], (named.argmax(1) == data["label"]).float().mean())
        agree(model, turn, {"critic": loss}, untouched=("generator",))
        close(turn.logs["distance"], distance)
        close(turn.logs["penalty"], penalty)

    step = turns(model, model.turns(batch(data), Clock(0)))
    critic_turn(step)
    assert next(step, None) is None

    step = turns(model, model.turns(batch(data), Clock(1)))
    critic_turn(step)
    before = len(draws.prior)
    turn = next(step)
    label = torch.cat([data["label"]] * c.generator_batches)
    fake = painted(noises(draws, before, c.generator_batches), label)
    assert len(fake) == c.generator_batches * COUNT
    score, named = judged(fake)
    loss = -score.sum() / len(fake)
    if c.classes:
        loss = loss + c.class_reward * misnamed(named, label)
        close(turn.logs["fakes named right"], (named.argmax(1) == label).float().mean())
    agree(model, turn, {"generator": loss})
    assert next(step, None) is None
    model.eval()
    label = data["label"]
    given = (label,) if c.classes else ()
    close(model.sample(draws.prior[0], *given), painted(draws.prior[0], label))


def test_wgan_gp_mixes_classes_by_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = made("wgan-gp", monkeypatch, classes=True)
    model.eval()
    noise, shares = torch.linspace(-2, 2, 8).view(2, 4), torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    close(model.sample(noise, shares), torch.tanh(model.generator(torch.cat([noise, shares], 1))))


def test_wgan_gp_needs_labels_only_for_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert made("wgan-gp", monkeypatch)[0].needs == {"image"}
    assert made("wgan-gp", monkeypatch, DataSpec.of_images(1, 16, 16, classes=("a", "b")), classes=True)[0].needs == {"image", "label"}


@pytest.mark.parametrize(("name", "options"), [("wgan", {}), ("wgan-gp", {}), ("wgan-gp", {"generator_batches": 2})], ids=str)
def test_the_critic_s_own_steps_need_no_graph_of_fakes(name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Four fakes of five are for the critic alone."""
    model, _ = made(name, monkeypatch, critic_steps=5, **options)
    graphs: list[bool] = []
    paint = model.generator.forward

    def recorded(*given: Tensor) -> Tensor:
        graphs.append(torch.is_grad_enabled())
        return paint(*given)

    monkeypatch.setattr(model.generator, "forward", recorded)
    for step in range(5):
        list(model.turns(batch(), Clock(step)))
    assert graphs == ([False] * 5 + [True] if options else [False] * 4 + [True])
