"""Models that break the contract, and numbers that stop being numbers: named, never a hang, never a bad file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import support
import torch
import toy
from torch import nn

from models.base import Batch, Clock, Player, Stage, Turn
from models.data.batches import Batches
from models.errors import ContractError, RunFailed, UserError
from models.losses import one_centred_penalty, r1_penalty
from models.training import checkpoint, loop
from models.training.distributed import Ranks
from models.training.turn import Mover

CPU = torch.device("cpu")


class OnePlayer(toy.Toy):
    """A single stage and player; a test gives it its turns."""

    def players(self) -> dict[str, Player]:
        return {"embed": Player((self.embed,), lr=0.01)}

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("only", self.turns, ("embed",)),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        yield Turn({"embed": self.embed(batch.image.flatten(1)).square().mean()})


def with_turns(turns: Callable[..., Iterator[Turn]], base: type[toy.Toy] = OnePlayer) -> type[toy.Toy]:
    return type("Model", (base,), {"turns": turns})


def fails(run: Path, model: type[toy.Toy], error: type[Exception], **changes: Any) -> str:
    with pytest.raises(error) as caught:
        toy.train(run, model, **changes)
    return str(caught.value)


# ---- numbers -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("save_every", "seen"), [(24, 72), (48, 80)])
def test_G1_loss_becomes_not_finite(tmp_path: Path, save_every: int, seen: int) -> None:
    """It is found at the next save or line of the log, whichever comes first."""

    def turns(self: Any, batch: Batch, clock: Clock) -> Iterator[Turn]:
        loss = self.embed(batch.image.flatten(1)).square().mean()
        yield Turn({"embed": loss * float("nan") if clock.step == 8 else loss})

    with pytest.raises(RunFailed) as error:
        toy.train(tmp_path, with_turns(turns), save_every=save_every)
    message = str(error.value)
    assert error.value.exit_code == 1
    assert f"loss of embed became not finite between 64 and {seen} images, in stage 'only'" in message
    assert "the last checkpoint is intact (images-000000048.safetensors)" in message
    assert "fix:" in message
    assert max(support.checkpoints(tmp_path)) == 48
    assert checkpoint.newest_valid(tmp_path)[0].images == 48


def test_G1_loss_that_is_not_finite_is_named_also_where_a_save_comes_first(tmp_path: Path) -> None:
    """The weights stay finite, because the player does not move: only the loss tells."""

    def turns(self: Any, batch: Batch, clock: Clock) -> Iterator[Turn]:
        loss = self.embed(batch.image.flatten(1)).square().mean()
        yield Turn({"embed": loss}, {"gap": loss.detach() * float("inf") if clock.step == 4 else loss.detach()})

    message = fails(tmp_path, with_turns(turns), RunFailed, log_every=96)
    assert "gap" in message
    assert "not finite between 24 and 48 images" in message
    assert list(support.checkpoints(tmp_path)) == [24]


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "rmsprop", "sgd"])
def test_G2_infinite_gradient_of_a_finite_loss(tmp_path: Path, clip: float | None, optimizer: Any) -> None:
    class Steep(OnePlayer):
        def players(self) -> dict[str, Player]:
            return {"embed": Player((self.embed,), lr=0.01, optimizer=optimizer, clip=clip)}

        def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
            code = self.embed(batch.image.flatten(1))
            steep = (code - code.detach()).abs().sum().sqrt()  # slope of a root at 0
            yield Turn({"embed": steep if clock.step == 8 else code.square().mean()})

    message = fails(tmp_path, Steep, RunFailed)
    assert "weights of embed (embed.weight) became not finite between 64 and 72 images, in stage 'only'" in message
    assert list(support.checkpoints(tmp_path)) == [24, 48]
    assert checkpoint.newest_valid(tmp_path)[0].images == 48


def test_G8_penalties_are_finite_for_a_constant_critic() -> None:
    critic = nn.Linear(6, 1)
    nn.init.zeros_(critic.weight)
    real, fake = torch.randn(8, 6), torch.randn(8, 6)
    for penalty, expected in ((one_centred_penalty(critic, real, fake), 1.0), (r1_penalty(critic, real), 0.0)):
        assert penalty.item() == pytest.approx(expected, abs=1e-5)
        penalty.backward()
        assert torch.isfinite(critic.weight.grad).all()


def test_G9_learning_rate_zero_leaves_the_weights(tmp_path: Path) -> None:
    made = toy.job(tmp_path, options={"lr": 0.0})
    before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    list(loop.train(made))
    assert all(torch.equal(before[name], p) for name, p in made.model.named_parameters())
    made = toy.job(tmp_path / "moving")
    list(loop.train(made))
    assert not [name for name, p in made.model.named_parameters() if name.endswith("0.weight") and torch.equal(before[name], p)]


# ---- turns ---------------------------------------------------------------------------------------------------------------------------


def code(self: Any, batch: Batch) -> torch.Tensor:
    return self.embed(batch.image.flatten(1))


BAD_TURNS: dict[str, tuple[Callable[[Any, Batch], Any], str]] = {
    "unknown player": (lambda m, b: Turn({"critic": code(m, b).mean()}), "unknown player 'critic'"),
    "not a scalar": (lambda m, b: Turn({"embed": code(m, b)}), "no scalar but (8, 6)"),
    "not a tensor": (lambda m, b: Turn({"embed": 1.0}), "no scalar but float"),  # type: ignore[dict-item]
    "no graph": (lambda m, b: Turn({"embed": code(m, b).detach().mean()}), "has no graph"),
    "empty": (lambda m, b: Turn({}), "yielded no loss"),
    "not a turn": (lambda m, b: {"embed": code(m, b).mean()}, "yielded no loss"),
}


@pytest.mark.parametrize("kind", BAD_TURNS)
@pytest.mark.parametrize("number", [0, 1])
def test_G3_bad_turn_is_named_with_its_number(tmp_path: Path, kind: str, number: int) -> None:
    bad, expected = BAD_TURNS[kind]

    def turns(self: Any, batch: Batch, clock: Clock) -> Iterator[Turn]:
        for _ in range(number):
            yield Turn({"embed": code(self, batch).square().mean()})
        yield bad(self, batch)

    with pytest.raises(ContractError) as error:
        toy.train(tmp_path, with_turns(turns))
    assert f"turn {number}: " in str(error.value)
    assert expected in str(error.value)
    assert "toy" in error.value.where or __name__ in error.value.where
    assert error.value.fix
    assert error.value.exit_code == 1
    assert not support.checkpoints(tmp_path)


def test_G3_no_turn_at_all(tmp_path: Path) -> None:
    message = fails(tmp_path, with_turns(lambda self, batch, step: iter(())), ContractError)
    assert "the stage 'only' moved nobody" in message


def test_G3_loss_of_someone_elses_graph(tmp_path: Path) -> None:
    def turns(self: Any, batch: Batch, clock: Clock) -> Iterator[Turn]:
        yield Turn({"embed": self.generator(self.noise(batch)).mean()})

    assert "moved nobody" in fails(tmp_path, with_turns(turns), ContractError)


def test_G3_stage_of_unknown_players(tmp_path: Path) -> None:
    class Misnamed(OnePlayer):
        def stages(self) -> tuple[Stage, ...]:
            return (Stage("only", self.turns, ("embed", "painter")),)

    assert "painter" in fails(tmp_path, Misnamed, ContractError)


def test_G4_players_that_share_a_parameter(tmp_path: Path) -> None:
    class Sharing(OnePlayer):
        def players(self) -> dict[str, Player]:
            return {"embed": Player((self.embed,), lr=0.1), "both": Player((self.critic, self.embed), lr=0.1)}

    message = fails(tmp_path, Sharing, ContractError)
    assert "the players 'embed' and 'both' share embed.weight" in message


def test_G10_player_without_parameters(tmp_path: Path) -> None:
    class Idle(OnePlayer):
        def players(self) -> dict[str, Player]:
            return {"embed": Player((self.embed,), lr=0.1), "idle": Player((nn.ReLU(),), lr=0.1)}

    assert "'idle' has no trainable parameter" in fails(tmp_path, Idle, ContractError)


class Stale(toy.Toy):
    """Its generator's loss goes through the critic as it stood before the critic moved."""

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("stale", self.turns, ("critic", "generator")),)

    def turns(self, batch: Batch, clock: Clock) -> Iterator[Turn]:
        judged = self.critic(self.generator(self.noise(batch))).mean()
        yield Turn({"critic": self.critic(torch.randn(len(batch), 6)).square().mean()})
        yield Turn({"generator": -judged})


def test_G5_stale_graph_is_translated(tmp_path: Path) -> None:
    message = fails(tmp_path, Stale, ContractError, fused=False)
    assert "turn 1: the loss of 'generator' was computed before a player that it depends on moved" in message
    assert "recompute it after the yield" in message


def test_players_of_one_turn_see_each_other_where_they_stood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two losses on one graph: the gradients are those at the start of the turn, and each reaches its own player only."""

    class Pair(toy.Toy):
        def stages(self) -> tuple[Stage, ...]:
            return (Stage("pair", self.game, ("critic", "generator")),)

    model = Pair().eval()
    noise = torch.randn(8, 3)
    loss = model.critic(model.generator(noise)).mean()
    critic = torch.autograd.grad(loss, list(model.critic.parameters()), retain_graph=True)
    generator = torch.autograd.grad(-loss, list(model.generator.parameters()), retain_graph=True)
    mover = Mover(model, ("critic", "generator"), fused=False)
    seen: dict[int, torch.Tensor] = {}

    @contextmanager
    def noted(ranks: Ranks, parameters: list[torch.nn.Parameter]) -> Iterator[None]:
        yield
        seen.update({id(p): p.grad.clone() for p in parameters if p.grad is not None})

    monkeypatch.setattr("models.training.turn.gradients_averaged", noted)
    moved = mover.apply(Turn({"critic": loss, "generator": -loss}), 0)
    for slope, parameter in zip((*critic, *generator), (*model.critic.parameters(), *model.generator.parameters()), strict=True):
        assert torch.allclose(slope, seen[id(parameter)])
    assert moved == {id(p) for m in (model.critic, model.generator) for p in m.parameters()}
    assert all(p.grad is None for p in model.parameters())


# ---- batches -------------------------------------------------------------------------------------------------------------------------


def test_G7_batches_are_always_full() -> None:
    batches = Batches(support.image_data(20), CPU)
    stream = batches.stream(seed=0, batch=8, seen=0)
    made = [next(stream) for _ in range(10)]
    assert [len(b) for b in made] == [8] * 10
    order = torch.cat([b.index for b in made]).reshape(4, 20)
    assert all(sorted(epoch.tolist()) == list(range(20)) for epoch in order)


def test_G7_batch_of_one_with_batch_norm_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        toy.train(tmp_path, batch=1)
    assert "batch of 1" in str(error.value)
    assert "--batch" in str(error.value)
    assert error.value.exit_code == 2
