"""What two ranks exchange in a step: the same training as that of one process, and no waiting that can be spared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import finished, together
from torch import Tensor, nn

from models.training import exchange
from models.training.distributed import Ranks, process_group
from models.training.exchange import Buffers, gradients_averaged, join_batch_norms


def images() -> Tensor:
    """Eight of them; those of the one rank are darker, and vary less."""
    made = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    made[:4] = made[:4] / 2 - 1
    return made


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Tanh(), nn.Flatten(), nn.Linear(20, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)
    )


def share(x: Tensor, ranks: Ranks) -> Tensor:
    return x.chunk(ranks.world)[ranks.rank]


def penalised(net: nn.Module, x: Tensor) -> Tensor:
    """A loss with second derivatives."""
    x = x.clone().requires_grad_()
    made = net(x)
    (slope,) = torch.autograd.grad(made.sum(), x, create_graph=True)
    return made.square().mean() + slope.square().sum((1, 2, 3)).mean()


def on_ranks(work: Callable[[Ranks], Any], path: Path) -> None:
    with process_group(torch.device("cpu")) as ranks:
        torch.save(work(ranks), path.with_name(f"{path.name}-{ranks.rank}"))


def both(tmp_path: Path, work: Callable[[Ranks], Any]) -> list[Any]:
    """What `work` returns on each of two ranks."""
    finished(together(tmp_path, None, on_ranks, (work, tmp_path / "found")))
    return [torch.load(tmp_path / f"found-{rank}", weights_only=True) for rank in range(2)]


# --- gradients ------------------------------------------------------------------------------------------------------------------------


def gradients(ranks: Ranks) -> dict[str, Any]:
    """Of a network with a layer that takes no part; and what happened in which order."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(2, 2), *(nn.Linear(4, 4) for _ in range(5)))
    happened: list[str] = []
    off = exchange.Travelling.off

    def noted(tensors: Sequence[Tensor], *more: Any) -> exchange.Travelling:
        happened.append(f"{len(tensors)} sent")
        return off(tensors, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange.Travelling, "off", noted)
        made = net[1](share(images(), ranks).flatten(1)[:, :4])
        made.register_hook(lambda slope: happened.append("first layer reached"))
        with gradients_averaged(ranks, list(net.parameters()), bucket=80):  # bytes: a weight (64) and a bias (16)
            net[2:](made).square().mean().backward()
    assert net[0].weight.grad is None
    assert not any(p._post_accumulate_grad_hooks for p in net.parameters())
    return {"happened": happened, **{name: p.grad for name, p in net.named_parameters() if p.grad is not None}}


def test_gradients_are_the_whole_batchs(tmp_path: Path) -> None:
    alone = gradients(Ranks())
    first, second = both(tmp_path, gradients)
    assert len(alone) == 1 + 2 * 5
    for name in set(alone) - {"happened"}:
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name], alone[name], atol=1e-6)
    assert alone["happened"] == ["first layer reached"]  # one process sends nothing


def test_gradients_travel_while_others_are_computed(tmp_path: Path) -> None:
    assert both(tmp_path, gradients)[0]["happened"] == ["2 sent"] * 4 + ["first layer reached", "2 sent"]


# --- batch norm -----------------------------------------------------------------------------------------------------------------------


def statistics(ranks: Ranks) -> dict[str, Tensor]:
    """Running statistics after two passes over each rank's share."""
    net = network()
    buffers = Buffers(net, ranks)
    for shift in (0.0, 0.5):
        net(share(images(), ranks) + shift)
        buffers.average()
    return dict(net.named_buffers())


def test_running_statistics_are_the_whole_batchs(tmp_path: Path) -> None:
    """Of the first norm, that is: what the second one sees has been normalised by each rank for itself."""
    alone = statistics(Ranks())
    first, second = both(tmp_path, statistics)
    for name in alone:
        assert torch.equal(first[name], second[name]), name
    assert torch.allclose(first["1.running_mean"], alone["1.running_mean"], atol=1e-6)
    assert int(first["1.num_batches_tracked"]) == 2


def variances(ranks: Ranks) -> Tensor:
    """A running variance after 200 batches of 4 numbers a rank, drawn at random, several looks at each."""
    norm, dice = nn.BatchNorm1d(64, momentum=0.05), torch.Generator().manual_seed(ranks.rank)
    buffers = Buffers(norm, ranks)
    for _ in range(200):
        batch = torch.randn(4, 64, generator=dice)
        norm(batch), norm(batch)
        buffers.average()
    assert norm.running_var is not None
    return norm.running_var


def test_running_variances_of_small_shares_are_right(tmp_path: Path) -> None:
    first, second = both(tmp_path, variances)
    assert torch.equal(first, second)
    assert float(first.mean()) == pytest.approx(1, abs=0.05)


def joined(ranks: Ranks) -> dict[str, Tensor]:
    """Gradients and statistics of a penalised loss, batch norms joined where there are several ranks."""
    net = network()
    if ranks.world > 1:
        join_batch_norms(net)
    with gradients_averaged(ranks, list(net.parameters())):
        penalised(net, share(images(), ranks)).backward()
    return dict(net.named_buffers()) | {f"{name} slope": p.grad for name, p in net.named_parameters() if p.grad is not None}


def test_joined_batch_norms_are_one_process(tmp_path: Path) -> None:
    """Second derivatives too, which go through the exchange twice."""
    alone = joined(Ranks())
    first, second = both(tmp_path, joined)
    assert {name for name in alone if name.endswith("slope")}
    for name in alone:
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], alone[name], rtol=1e-4, atol=1e-6), name


def test_joined_batch_norms_are_the_same_in_use(tmp_path: Path) -> None:
    """Outside of training nothing is exchanged; names and classes stay, so a checkpoint fits."""
    net, other = network(), network()
    join_batch_norms(other)
    assert isinstance(other[1], nn.BatchNorm2d)
    assert list(net.state_dict()) == list(other.state_dict())
    assert torch.equal(net.eval()(images()), other.eval()(images()))


# --- flags ----------------------------------------------------------------------------------------------------------------------------


def flags(ranks: Ranks) -> list[int]:
    answers = [ranks.ask(flag) for flag in (0, 15 * ranks.rank, 0)]  # several under way at once
    return [answer() for answer in answers]


def test_a_flag_is_known_to_all(tmp_path: Path) -> None:
    assert both(tmp_path, flags) == [[0, 15, 0], [0, 15, 0]]
    assert Ranks().ask(9)() == 9


def twice(ranks: Ranks) -> list[bool]:
    """Another group after the first one has ended, as in a script that trains and then measures."""
    found = [ranks.same("first")]
    torch.distributed.destroy_process_group()
    with process_group(torch.device("cpu")) as again:
        found.append(again.same("second"))
    return found


def test_groups_one_after_the_other(tmp_path: Path) -> None:
    assert both(tmp_path, twice) == [[True, True]] * 2
