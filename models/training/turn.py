"""Carrying out turns: gradients, averaging over ranks, clipping, optimizer steps. The only place where anything moves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.base import Clock, LatentModel, Player, Turn
from models.errors import ContractError
from models.training.distributed import Ranks
from models.training.exchange import gradients_averaged
from models.training.schedules import factor

_STALE = "modified by an inplace operation"


class Mover:
    """Owns the optimizers of one stage's players and applies turns.

    Args:
        model: whose players move.
        names: the players of the stage.
        settings: player -> fields of Player that differ in this stage.
        fused: use torch's fused optimizers where they exist. They are faster, but torch cannot notice then that a loss was computed before
            its parameters moved; the contract suite runs every model with `fused=False`, where it does.

    Raises ContractError where players share parameters or have none.
    """

    def __init__(
        self,
        model: LatentModel,
        names: tuple[str, ...],
        ranks: Ranks | None = None,
        fused: bool = True,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.where = type(model).__module__
        self.ranks = ranks or Ranks()
        everyone = model.players()
        settings = settings or {}
        if not names or not {*names, *settings} <= set(everyone):
            named = (*names, *(name for name in settings if name not in names))
            raise ContractError(f"a stage names the players {named}; the model has {tuple(everyone)}", self.where, "name them alike")
        self.players = {name: dataclasses.replace(everyone[name], **settings.get(name, {})) for name in names}
        self.parameters = {name: player.parameters() for name, player in self.players.items()}
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._check_players({name: player.parameters() for name, player in everyone.items()})
        self._optimizers = {name: _optimizer(player, self.parameters[name], fused) for name, player in self.players.items()}

    def schedule(self, clock: Clock) -> None:
        """Set every player's learning rate for a step of the stage."""
        for name, player in self.players.items():
            if player.schedule != "constant" or player.warm_up:
                share = min(1.0, (clock.step + 1) / (player.warm_up + 1)) * factor(player.schedule, clock.progress)
                for group in self._optimizers[name].param_groups:
                    group["lr"] = player.lr * share

    def apply(self, turn: Turn, number: int) -> set[int]:
        """Move the players of a turn. Returns the ids of the parameters that moved.

        All gradients are taken before anyone steps, so that players who share a graph see each other where they stood.
        Raises ContractError where the turn breaks the contract.
        """
        self._check_turn(turn, number)
        movers: dict[int, list[str]] = {}  # a loss that moves several players is differentiated once
        for name, loss in turn.losses.items():
            movers.setdefault(id(loss), []).append(name)
        with gradients_averaged(self.ranks, [p for names in reversed(movers.values()) for name in names for p in self.parameters[name]]):
            for names in movers.values():
                inputs = [p for name in names for p in self.parameters[name]]
                try:
                    turn.losses[names[0]].backward(inputs=inputs, retain_graph=names != list(movers.values())[-1])
                except RuntimeError as error:
                    if _STALE in str(error):
                        who = " and ".join(map(repr, names))
                        message = f"turn {number}: the loss of {who} was computed before a player that it depends on moved"
                        raise ContractError(message, self.where, "recompute it after the yield") from error
                    raise
        moved: set[int] = set()
        for name in turn.losses:
            player, parameters = self.players[name], self.parameters[name]
            if player.clip is not None:
                nn.utils.clip_grad_norm_(parameters, player.clip)
            self._optimizers[name].step()
            if player.weight_clip is not None:
                torch._foreach_clamp_min_([p.detach() for p in parameters], -player.weight_clip)
                torch._foreach_clamp_max_([p.detach() for p in parameters], player.weight_clip)
            moved.update(id(p) for p in parameters if p.grad is not None)
            for parameter in parameters:
                parameter.grad = None
        return moved

    def not_finite(self) -> list[str]:
        """The players with a weight that is not finite, each with the name of its first one: ``critic (critic.0.weight)``."""
        found = []
        for name, parameters in self.parameters.items():
            norms = torch.stack([n.float() for n in torch._foreach_norm([p.detach() for p in parameters])])
            if not math.isfinite(float(norms.sum())):
                first = next((p for p, norm in zip(parameters, norms, strict=True) if not math.isfinite(float(norm))), parameters[0])
                found.append(f"{name} ({self._names[id(first)]})")
        return found

    def tensors(self) -> dict[str, Tensor]:
        """The optimizers' slots as `<player>/<parameter>/<slot>`."""
        return {
            f"{name}/{self._names[id(parameter)]}/{slot}": torch.as_tensor(value)
            for name, optimizer in self._optimizers.items()
            for parameter, slots in optimizer.state.items()
            for slot, value in slots.items()
            if value is not None
        }

    def still(self) -> list[str]:
        """The parameters that have not moved yet, as `<player>/<parameter>`: they have no slots."""
        states = {name: optimizer.state for name, optimizer in self._optimizers.items()}
        return [f"{name}/{self._names[id(p)]}" for name, parameters in self.parameters.items() for p in parameters if p not in states[name]]

    def slots(self, still: Collection[str]) -> dict[str, tuple[int, ...]]:
        """Name -> shape of what `tensors` returns once every parameter but those of `still` has moved."""
        found: dict[str, tuple[int, ...]] = {}
        for name, player in self.players.items():
            probe = nn.Parameter(torch.zeros(2))
            probe.grad = torch.zeros(2)
            optimizer = _optimizer(player, [probe], fused=False)
            optimizer.step()
            kinds = {slot: torch.as_tensor(value).ndim for slot, value in optimizer.state[probe].items() if value is not None}
            for parameter in self.parameters[name]:
                key = f"{name}/{self._names[id(parameter)]}"
                if key not in still:
                    found |= {f"{key}/{slot}": tuple(parameter.shape) if ndim else () for slot, ndim in kinds.items()}
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned. Raises ValueError naming a slot that fits no parameter."""
        by_name = {f"{name}/{self._names[id(p)]}": (name, p) for name, parameters in self.parameters.items() for p in parameters}
        for key, value in tensors.items():
            owner, _, slot = key.rpartition("/")
            if owner not in by_name:
                raise ValueError(f"no such player or parameter: {key}")
            name, parameter = by_name[owner]
            if value.shape == parameter.shape:
                restored = torch.empty_like(parameter, dtype=value.dtype).copy_(value)  # in the parameter's memory format
            elif value.ndim == 0:
                group: dict[str, Any] = self._optimizers[name].param_groups[0]
                restored = value.to(parameter.device) if group.get("fused") else value.clone()
            else:
                raise ValueError(f"{key} has shape {tuple(value.shape)}, its parameter {tuple(parameter.shape)}")
            self._optimizers[name].state[parameter][slot] = restored

    def _check_players(self, everyone: Mapping[str, list[nn.Parameter]]) -> None:
        owner: dict[int, str] = {}
        for name, parameters in everyone.items():
            if not parameters:
                raise ContractError(f"the player {name!r} has no trainable parameter", self.where, "give it a module")
            for parameter in parameters:
                other = owner.setdefault(id(parameter), name)
                if other != name:
                    shared = self._names.get(id(parameter), "a parameter")
                    raise ContractError(f"the players {other!r} and {name!r} share {shared}", self.where, "give it to one of them")

    def _check_turn(self, turn: Turn, number: int) -> None:
        def broken(what: str, fix: str) -> ContractError:
            return ContractError(f"turn {number}: {what}", self.where, fix)

        if not isinstance(turn, Turn) or not turn.losses:
            raise broken("yielded no loss", "yield Turn({player: loss})")
        for name, loss in turn.losses.items():
            if name not in self.players:
                raise broken(f"unknown player {name!r}", f"the stage's players are {', '.join(self.players)}")
            if not isinstance(loss, Tensor) or loss.ndim:
                shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
                raise broken(f"the loss of {name!r} is no scalar but {shape}", "reduce it with .mean() or .sum()")
            if not loss.requires_grad:
                raise broken(f"the loss of {name!r} has no graph", "compute it from the player's modules, outside no_grad and not detached")


def _optimizer(player: Player, parameters: list[nn.Parameter], fused: bool) -> torch.optim.Optimizer:
    can_fuse = fused and parameters[0].device.type in ("cpu", "cuda", "mps")
    if player.optimizer == "adam":
        return torch.optim.Adam(parameters, player.lr, player.betas, weight_decay=player.weight_decay, fused=can_fuse)
    if player.optimizer == "adagrad":
        return torch.optim.Adagrad(parameters, player.lr, weight_decay=player.weight_decay)
    if player.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, player.lr, weight_decay=player.weight_decay, momentum=player.momentum)
    if player.optimizer == "sgd":
        return torch.optim.SGD(parameters, player.lr, player.momentum, weight_decay=player.weight_decay, fused=can_fuse)
    raise ContractError(f"unknown optimizer {player.optimizer!r}", "Player.optimizer", "use adam, adagrad, rmsprop or sgd")
