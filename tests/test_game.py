"""What the loop does for adversarial games: schedules, clipped weights, one loss for several players, the collapse alarm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from torch import nn

from models.base import Batch, Clock, Player, Schedule, Stage, Turn
from models.config import parse_assignments
from models.registry import MODELS, model_class
from models.training import events
from models.training.alarm import EARLY, FOR, CollapseAlarm, advice, spread
from models.training.schedules import factor
from models.training.turn import Mover
from models.zoo.wgan import generator_moves


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0]),
        ("cosine", [1, 0.8535534, 0.5, 0]),
        ("exponential", [1, 0.3162278, 0.1, 0.01]),
        ("steps", [1, 1, 0.2, 0.1]),
    ],
)
def test_schedules_by_hand(schedule: Schedule, expected: list[float]) -> None:
    assert [factor(schedule, progress) for progress in (0, 0.25, 0.5, 1)] == pytest.approx(expected)


def test_steps_change_where_they_should() -> None:
    assert [factor("steps", p) for p in (0.29, 0.3, 0.49, 0.5, 0.79, 0.8)] == [1, 0.5, 0.5, 0.2, 0.2, 0.1]


class Pair(toy.Toy):
    """Two players, one of them with clipped weights, who move on one and the same loss."""

    def players(self) -> dict[str, Player]:
        return {
            "critic": Player((self.critic,), lr=0.5, optimizer="rmsprop", weight_clip=0.01),
            "generator": Player((self.generator,), lr=0.1, optimizer="sgd"),
        }

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("only", self.turns, ("critic", "generator")),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        loss = self.critic(self.generator(self.noise(batch))).mean()
        yield Turn({"critic": loss, "generator": loss})


def pair() -> Pair:
    torch.manual_seed(0)
    return Pair()


def test_weights_are_clipped_after_every_step_and_only_that_player_s() -> None:
    model = pair()
    mover = Mover(model, ("critic", "generator"))
    mover.apply(next(model.turns(support_batch(), Clock(0))), 0)
    largest = {name: max(float(p.detach().abs().max()) for p in mover.parameters[name]) for name in mover.players}
    assert largest["critic"] == pytest.approx(0.01)
    assert largest["generator"] > 0.05


def support_batch() -> Batch:
    return Batch(torch.arange(8), lambda key, index: torch.zeros(8, 1, 16, 16), torch.device("cpu"))


def test_one_loss_for_two_players_is_differentiated_once_and_moves_both(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda *a, **k: calls.append(1) or real(*a, **k))
    model = pair().eval()
    torch.manual_seed(1)
    turn = next(model.turns(support_batch(), Clock(0)))
    loss = turn.losses["generator"]
    wanted = torch.autograd.grad(loss, list(model.generator.parameters()), retain_graph=True)
    before = [p.detach().clone() for p in model.generator.parameters()]
    moved = Mover(model, ("critic", "generator"), fused=False).apply(turn, 0)
    assert len(calls) == 1
    assert {id(p) for p in (*model.critic.parameters(), *model.generator.parameters())} == moved
    for parameter, old, gradient in zip(model.generator.parameters(), before, wanted, strict=True):
        assert torch.allclose(parameter, old - 0.1 * gradient, atol=1e-6)


@pytest.mark.parametrize(("critic_steps", "warm_up"), [(1, 0), (5, 0), (5, 100), (1, 100), (3, 7)])
def test_wgan_s_generator_moves_when_the_original_s_does(critic_steps: int, warm_up: int) -> None:
    """Against the original's loop, written out: main.py of martinarjovsky/WassersteinGAN."""
    expected, moves = [], 0
    while len(expected) < 12_000:
        long = warm_up and (moves < 25 or moves % 500 == 0)
        expected += [False] * ((warm_up if long else critic_steps) - 1) + [True]
        moves += 1
    assert [generator_moves(step, critic_steps, warm_up) for step in range(12_000)] == expected[:12_000]


# ---- the collapse alarm --------------------------------------------------------------------------------------------------------------


def various(count: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 5, 1), dtype=np.uint8)


def test_spread_by_hand() -> None:
    images = np.zeros((3, 2, 2, 1), np.uint8)
    images[1] = 10
    images[2, 0] = 20  # root mean squares: 0-1: 10, 0-2: 20 / sqrt 2, 1-2: 10
    assert spread(images) == pytest.approx((10 + 20 / 2**0.5 + 10) / 3)
    assert spread(images[:1]) == 0


def test_the_alarm_speaks_once_when_samples_become_alike() -> None:
    alarm = CollapseAlarm(various(), "try")
    alike = np.repeat(various(1), 16, 0)
    assert alarm.look(alike, EARLY / 2) is None  # an untrained generator is dull
    assert alarm.look(various(seed=1), EARLY / 2) is None
    message, fix = alarm.look(alike, EARLY / 2) or ("", "")  # it was lively, now it is not
    assert "alike" in message
    assert "0%" in message
    assert fix
    assert alarm.look(alike, 1.0) is None


def test_the_alarm_hears_a_generator_that_never_becomes_lively() -> None:
    alarm = CollapseAlarm(various(), "try")
    assert alarm.look(np.repeat(various(2), 8, 0) // 4 + 90, EARLY) is not None


def test_the_alarm_leaves_healthy_samples_alone() -> None:
    alarm = CollapseAlarm(various(), "try")
    assert [alarm.look(various(seed=n), n / 10) for n in range(1, 10)] == [None] * 9


def test_the_alarm_hears_a_discriminator_that_is_never_wrong_for_long() -> None:
    alarm = CollapseAlarm(various(), "try")
    lines = [{"right": 1.0}] * (FOR - 1) + [{"right": 0.9}] + [{"right": 1.0}] * (FOR - 1) + [{"loss": 0.0}] + [{"right": 1.0}] * (2 * FOR)
    said = [n for n, line in enumerate(lines) if alarm.hear(line)]
    assert said == [3 * FOR - 1]


def test_an_untrained_decoder_is_not_taken_for_a_collapse() -> None:
    """Where the reconstructions of different images are alike as well, the decoder is the reason; each is said once."""
    real, alike = various(), np.repeat(various(1), 16, 0)
    alarm = CollapseAlarm(real, "try something")
    assert alarm.look(alike, EARLY / 2, alike[:8]) is None
    message, fix = alarm.look(alike, EARLY, alike[:8]) or ("", "")
    assert "the decoder paints almost one picture" in message
    assert "collapse" not in message
    assert "train longer" in fix
    assert "something" not in fix
    assert alarm.look(alike, EARLY, alike[:8]) is None
    message, fix = alarm.look(alike, EARLY, real[:8]) or ("", "")  # the decoder has learned, the prior or the game has not
    assert "mode collapse" in message
    assert fix == "try something"


@pytest.mark.parametrize("name", list(MODELS.entries()))
def test_only_options_that_the_model_has_are_recommended(name: str) -> None:
    config = model_class(name).Config
    said = advice(config(), name)
    recommended = re.findall(r"--set (\w+=\w+)", said)
    assert parse_assignments(config, recommended) or not recommended
    assert ("augment=shift" in said) == (name in ("cgan", "dcgan", "gan", "wgan", "wgan-gp"))
    assert ("the model wgan-gp" in said) == (name != "wgan-gp")


def test_what_has_been_tried_is_not_recommended() -> None:
    config = model_class("dcgan").Config
    assert "--set norm=spectral" in advice(config(), "dcgan")
    assert advice(config(augment="full", norm="spectral"), "dcgan") == "try a lower learning rate (--set), or the model wgan-gp"


class Collapsing(toy.Toy):
    """Samples that stop depending on their noise half-way through, and a discriminator that is always right."""

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("only", self.turns, ("generator", "embed")),)

    def players(self) -> dict[str, Player]:
        return {"generator": Player((self.generator,), lr=0.01), "embed": Player((self.embed, self.critic), lr=0.01)}

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        self.history[0, 0] = float(clock.step >= 6)
        loss = self.generator(self.noise(batch)).square().mean()
        other = self.critic(self.embed(batch.image.flatten(1))).mean()
        yield Turn({"generator": loss, "embed": other}, {"right": torch.ones(())})

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        lively = nn.functional.interpolate(noise.view(-1, 3, 1, 1).mean(1, keepdim=True), (16, 16)).tanh()
        return lively * (1 - self.history[0, 0])


def test_the_loop_warns_once_of_each_and_goes_on(tmp_path: Path) -> None:
    seen = toy.train(tmp_path, Collapsing, sample_every=8, log_every=8, images=160)
    warnings = [e for e in seen if isinstance(e, events.Warned)]
    assert [("alike" in w.message, "discriminator" in w.message) for w in warnings] == [(True, False), (False, True)]
    assert all("wgan-gp" in w.fix for w in warnings)
    assert isinstance(seen[-1], events.Finished)


class Muddy(Collapsing):
    """It encodes as well, and its decoder paints one picture whatever the code."""

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        return image.flatten(1)[:, :3]

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(latent), 1, 16, 16)

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        return self.decode(noise)


def test_the_loop_looks_at_reconstructions_as_well(tmp_path: Path) -> None:
    seen = toy.train(tmp_path, Muddy, sample_every=8, log_every=8, images=96)
    warnings = [e for e in seen if isinstance(e, events.Warned)]
    assert ["paints almost one picture" in w.message for w in warnings][:1] == [True]
    assert not any("mode collapse" in w.message for w in warnings)
