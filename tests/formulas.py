"""What the tests of objectives share: small models away from their start, random numbers that can be read again, and the comparison of a
turn with a formula that a test writes out.

A test reads like a paper: it takes a model's networks as given, draws nothing, writes every player's loss down plainly (it calls nothing of
`models.losses`), and `agree` compares values and gradients. Between two turns the players who moved are pushed, so that a loss which was
computed too early, or with somebody else's weights, shows.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from support import small
from torch import Tensor, nn

from models.base import Batch, DataSpec, LatentModel, Turn
from models.config import check
from models.registry import model_class

SPEC = DataSpec.of_images(1, 16, 16, classes=("a", "b", "c"), attributes=("x", "y"), identities=4)
COUNT = 6  # items in a batch


class Draws:
    """Everything that torch and a model draw while this stands in for them, in order."""

    def __init__(self, model: LatentModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prior: list[Tensor] = []  # what `model.noise` returned
        self.normal: list[Tensor] = []  # other normal numbers
        self.uniform: list[Tensor] = []
        for name, kept in (("randn", self.normal), ("randn_like", self.normal), ("rand", self.uniform), ("rand_like", self.uniform)):
            monkeypatch.setattr(torch, name, kept_in(kept, getattr(torch, name)))
        noise = model.noise

        def prior(batch: Batch) -> Tensor:
            self.prior.append(noise(batch))
            self.normal.pop()
            return self.prior[-1]

        monkeypatch.setattr(model, "noise", prior)


def kept_in(kept: list[Tensor], draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same draws, which can be read again."""

    def drawn(*shape: Any, **more: Any) -> Tensor:
        kept.append(draw(*shape, **more))
        return kept[-1]

    return drawn


def made(name: str, monkeypatch: pytest.MonkeyPatch, spec: DataSpec = SPEC, **options: Any) -> tuple[Any, Draws]:
    """A tiny model of the zoo whose weights are far from their start, where half the gradients are next to nothing."""
    cls = model_class(name)
    torch.manual_seed(0)
    model = cls(check(cls.Config, small(name, **options), "test"), spec)
    push(model)
    if getattr(model, "components", None) is not None:
        data = items(30, spec, seed=2)
        model.fit_components([batch(data, list(range(n, n + 10))) for n in (0, 10, 20)])
    return model, Draws(model, monkeypatch)


def push(module: nn.Module) -> None:
    """Move all weights a little."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.1))


def coded(model: Any, image: Tensor, told: Tensor | None = None) -> Tensor:
    """What a model's encoder says of images, and its principal components where it has them: pixels less their mean, projected."""
    found = model.encoder(image)
    return found if model.components is None else found + projected(model, image, told)


def expected_pixels(components: Any, told: Tensor | None) -> Tensor:
    """The mean image as a row, and what each image's condition changes of it where the components know that."""
    return components.mean if told is None or not len(components.slopes) else components.mean + told @ components.slopes


def projected(model: Any, image: Tensor, told: Tensor | None = None) -> Tensor:
    c = model.components
    pixels = torch.stack([one.permute(1, 2, 0).reshape(-1) for one in image])
    expected = expected_pixels(c, told)
    return torch.stack([((row - expected_row) @ c.directions) * c.into for row, expected_row in zip(pixels, expected.expand_as(pixels))])


def painted(model: Any, code: Tensor, told: Tensor | None = None, bounded: bool = True) -> Tensor:
    """What a model's decoder makes of codes: tanh of it, or the components' picture and what the decoder adds to it, cut off."""
    joined = code if told is None else torch.cat([code, told / told.norm(dim=1, keepdim=True) * code.shape[1] ** 0.5], 1)
    c = model.components
    if c is None:
        return torch.tanh(model.decoder(joined)) if bounded else model.decoder(joined)
    expected = expected_pixels(c, told)
    channels, height, width = model.spec.shape
    rows = expected + (code * c.out) @ c.directions.T
    picture = torch.stack([row.view(height, width, channels).permute(2, 0, 1) for row in rows])
    seen = (joined, picture) if type(model.decoder).__name__ == "RefiningDecoder" else (joined,)
    image = picture + model.decoder(*seen)
    return image.clamp(-1, 1) if bounded else image


def items(count: int = COUNT, spec: DataSpec = SPEC, seed: int = 1) -> dict[str, Tensor]:
    """A data set of noise: images, and labels of every kind that `spec` has."""
    dice = torch.Generator().manual_seed(seed)
    return {
        "image": torch.empty(count, *spec.shape).uniform_(-1, 1, generator=dice).to(memory_format=torch.channels_last),
        "label": torch.tensor([0, 1, 0, 2, 1, 0] * count)[:count],
        "identity": torch.tensor([3, 1, 0, 3, 2, 1] * count)[:count],
        "attributes": torch.randint(0, 2, (count, 2), generator=dice).float(),
    }


def vectors(condition: str, data: Mapping[str, Tensor], chosen: list[int]) -> Tensor:
    """What items of `SPEC` show, as vectors of length 1: signs of attributes, one place of several for classes and identities."""
    rows = []
    for position in chosen:
        truth = data[condition][position]
        if condition == "attributes":
            row = torch.tensor([1.0 if on else -1.0 for on in truth])
        else:
            row = torch.zeros(3 if condition == "label" else 4)
            row[truth] = 1
        rows.append(row / row.norm())
    return torch.stack(rows)


def batch(data: Mapping[str, Tensor] | None = None, index: list[int] | None = None) -> Batch:
    """The items of `index`, or all."""
    data = data or items()
    chosen = torch.arange(len(data["image"])) if index is None else torch.tensor(index)
    return Batch(chosen, lambda key, index: data[key][index], torch.device("cpu"))


def mirrored(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Augmentation that can be read again: whatever a discriminator is shown, it sees mirrored and darker."""
    module = importlib.import_module(f"models.zoo.{name.replace('-', '_')}")
    monkeypatch.setattr(module, "differentiable", lambda image, policy: seen(image, policy))


def seen(image: Tensor, policy: str) -> Tensor:
    return image if policy == "none" else image.flip(3) * 0.8


def turns(model: LatentModel, step: Iterator[Turn]) -> Iterator[Turn]:
    """The turns of a step; before the next one the players of the last are pushed."""
    for turn in step:
        yield turn
        for name in turn.losses:
            for module in model.players()[name].modules:
                push(module)


def agree(model: LatentModel, turn: Turn, plain: Mapping[str, Tensor], untouched: tuple[str, ...] = ()) -> None:
    """The turn moves just the players of `plain`, on these losses: values and gradients. `untouched` players get no gradient from any."""
    assert set(turn.losses) == set(plain)
    players = model.players()
    for name, loss in plain.items():
        parameters = players[name].parameters()
        close(turn.losses[name], loss)
        found, wanted = (torch.autograd.grad(x, parameters, retain_graph=True, allow_unused=True) for x in (turn.losses[name], loss))
        largest = max(float(w.abs().max()) for w in wanted if w is not None)
        for mine, right in zip(found, wanted, strict=True):
            assert (mine is None) == (right is None)
            if mine is not None and right is not None:
                torch.testing.assert_close(mine, right, rtol=1e-3, atol=1e-5 * largest, check_dtype=False)
        for other in untouched:
            reached = torch.autograd.grad(turn.losses[name], players[other].parameters(), retain_graph=True, allow_unused=True)
            assert all(g is None for g in reached), f"the loss of {name} reaches {other}"


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6, check_dtype=False)


# ---- formulas that several papers share ------------------------------------------------------------------------------------------------


def minus_log(logits: Tensor) -> Tensor:
    """-E log D, where D = 1 / (1 + exp(-logit))."""
    return -torch.log(1 / (1 + torch.exp(-logits.double()))).mean()


def minus_log_of_not(logits: Tensor) -> Tensor:
    """-E log(1 - D)."""
    return -torch.log(1 - 1 / (1 + torch.exp(-logits.double()))).mean()


def share_right(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """How many of all items the discriminator takes for what they are."""
    right = [logit > 0 for logit in on_real.flatten()] + [logit < 0 for logit in on_fake.flatten()]
    return torch.tensor(sum(map(bool, right)) / len(right))


def slopes(critic: Any, places: Tensor) -> Tensor:
    """The length of the critic's gradient at each place, (B, ...) -> (B,), one place at a time."""
    found = []
    for place in places.detach():
        at = place.unsqueeze(0).requires_grad_()
        (gradient,) = torch.autograd.grad(critic(at).sum(), at, create_graph=True)
        found.append((gradient**2).sum().sqrt())
    return torch.stack(found)


def bounded(log_variance: Tensor) -> Tensor:
    """Bent so that it stays within -10 and 10."""
    return 10 * log_variance / torch.sqrt(100 + log_variance**2)


def half_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, I)), the mean over the items of the sum over the dimensions."""
    total = 0.0
    for m, v in zip(mean.double(), log_variance.double().exp(), strict=True):
        total = total + 0.5 * (m**2 + v - torch.log(v) - 1).sum()
    return total / len(mean)


def squared_distance(image: Tensor, other: Tensor) -> Tensor:
    """Sum over the pixels, in units where black is 0 and white 1, the mean over the items."""
    zero_to_one, another = (image + 1) / 2, (other + 1) / 2
    return ((zero_to_one - another) ** 2).sum() / len(image)
