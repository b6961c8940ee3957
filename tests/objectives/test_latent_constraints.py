"""Latent Constraints: what critic, reader and actor pay, against the paper's formulas written out; the codes that they are shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from formulas import SPEC, Draws, agree, batch, close, items, made, minus_log, minus_log_of_not, push, share_right, slopes, turns, vectors
from support import small
from torch import Tensor

from models.base import Clock
from models.config import check
from models.registry import model_class

DATA = items(40)
CHOSEN = [7, 31, 2, 39, 16, 0]  # a batch in no order
WHOLE = [(0, 16), (16, 32), (32, 40)]


def prepared(monkeypatch: pytest.MonkeyPatch, base: str = "vae", **options: Any) -> tuple[Any, Draws]:
    """A model whose codes are taken."""
    part, _ = made(base, monkeypatch, latent=3)
    monkeypatch.undo()
    cls = model_class("latent-constraints")
    torch.manual_seed(3)
    model = cls(check(cls.Config, small("latent-constraints", **options), "test"), SPEC, {"vae": part.requires_grad_(False).eval()})
    for name in ("actor", "critic", "reader"):
        if getattr(model, name) is not None:
            push(getattr(model, name))
    with torch.no_grad():
        model.prepare_codes([batch(DATA, list(range(*rows))) for rows in WHOLE])
    return model, Draws(model, monkeypatch)


def told(condition: str) -> Tensor:
    """What the batch's images show, as long as sqrt(3) for codes of three numbers."""
    if condition == "none":
        return torch.zeros(len(CHOSEN), 0)
    return vectors(condition, DATA, CHOSEN) * 3**0.5


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize(
    ("condition", "options"),
    [
        ("label", {}),
        ("label", {"penalty": "none"}),
        ("attributes", {"distance_weight": 0.0, "critic_steps": 2, "penalty": "gradient"}),
        ("identity", {"mismatched": False, "raw_prior": 0.5, "keep_weight": 0.0, "penalty": "gradient"}),
        ("none", {"distance_weight": 2.0, "keep_weight": 0.7}),
    ],
)
def test_every_player_s_loss(condition: str, options: dict[str, Any], number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """D: real, the prior moved (or not), and real with another's label; the reader: what is there; G: D's word and the way it moves.

    G moves the prior, then images' codes, half of them as what others show."""
    model, draws = prepared(monkeypatch, condition=condition, penalty_every=2, penalty_weight=3.0, reader_noise=0.25, **options)
    c, y = model.config, told(condition)
    with torch.no_grad():
        mean, deviation = model.parts["vae"].posterior(DATA["image"])
    close(model.deviation, deviation.mean(0))
    step = turns(model, model.turns(batch(DATA, CHOSEN), Clock(number)))
    turn = next(step)
    real = mean[CHOSEN] + deviation[CHOSEN] * draws.normal[0]
    (prior,) = draws.prior
    raw, *share = draws.uniform

    def judged(code: Tensor, shown: Tensor = y) -> Tensor:
        return model.critic(torch.cat([code, shown], 1))

    def moved(code: Tensor, shown: Tensor = y) -> Tensor:
        gate, delta = model.actor.net(torch.cat([shown, code], 1)).chunk(2, 1)
        g = 1 / (1 + torch.exp(-gate))
        return (1 - g) * code + g * delta

    def far(code: Tensor, start: Tensor) -> Tensor:
        return (torch.log(1 + (code - start) ** 2) / deviation.mean(0) ** 2).mean()

    fake = torch.stack([p if float(r) < c.raw_prior else m for p, m, r in zip(prior, moved(prior).detach(), raw, strict=True)])
    total = minus_log(judged(real)) + minus_log_of_not(judged(fake))
    others = torch.stack([y[-1], *y[:-1]])
    if c.mismatched and condition != "none":
        apart = [n for n in range(6) if not torch.equal(others[n], y[n])]
        assert 0 < len(apart) < 6 or condition == "identity"
        total = total + minus_log_of_not(judged(real[apart], others[apart]))
    if c.penalty == "r1" and number % 2 == 0:
        lengths = [slopes(lambda at, n=n: judged(at, y[n : n + 1]), real[n : n + 1]) for n in range(6)]
        total = total + 2 * 3.0 * (torch.cat(lengths) ** 2).mean() / 2
    if c.penalty == "gradient" and number % 2 == 0:
        (share,) = share
        lengths = []
        for n in range(6):
            place = share[n] * fake[n] + (1 - share[n]) * real[n]
            lengths.append(slopes(lambda at, n=n: judged(at, y[n : n + 1]), place.unsqueeze(0)))
        total = total + 2 * 3.0 * ((torch.cat(lengths) - 1) ** 2).mean()
    else:
        assert not share
    plain = {"critic": total}
    blurred = real if condition == "none" else real + 0.25 * draws.normal[1]
    if condition == "attributes":
        p = 1 / (1 + torch.exp(-model.reader(blurred)))
        y01 = DATA["attributes"][CHOSEN]
        plain["reader"] = -(y01 * p.log() + (1 - y01) * (1 - p).log()).mean()
    elif condition != "none":
        p = model.reader(blurred).exp() / model.reader(blurred).exp().sum(1, keepdim=True)
        plain["reader"] = -torch.stack([p[n, DATA[condition][k]].log() for n, k in enumerate(CHOSEN)]).mean()
    agree(model, turn, plain, untouched=("actor",))
    close(turn.logs["right"], share_right(judged(real), judged(fake)))

    if number % c.critic_steps == 0:
        turn = next(step)
        agree(model, turn, {"actor": minus_log(judged(moved(prior))) + c.distance_weight * far(moved(prior), prior)})
        close(turn.logs["moved"], far(moved(prior), prior))
        if c.keep_weight:
            turn = next(step)
            asked = torch.cat([y[:3], others[3:]])
            kept = moved(real, asked)
            agree(model, turn, {"actor": minus_log(judged(kept, asked)) + c.keep_weight * far(kept, real)})
            close(turn.logs["moved from images"], far(kept, real))
    assert next(step, None) is None
    (stage,) = model.stages()
    assert stage.needs == (frozenset() if condition == "none" else {condition})


def test_codes_without_posteriors_are_whitened_and_their_deviation_is_that_of_a_way_through(monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = prepared(monkeypatch, "wae", condition="none")
    base = model.parts["vae"]
    with torch.no_grad():
        codes = base.encode(DATA["image"])
        again = base.encode(base.decode(codes))
    plain = codes.numpy().astype(np.float64)
    factor = np.linalg.cholesky(np.cov(plain.T, bias=True) + 1e-6 * np.eye(3))
    white = np.linalg.solve(factor, (plain - plain.mean(0)).T).T
    change = np.linalg.solve(factor, (again - codes).numpy().T).T
    close(model.deviation, torch.from_numpy(np.maximum(np.sqrt((change**2).mean(0)), 0.1)).float())
    real = torch.from_numpy(white[CHOSEN]).float()
    close(model._drawn(torch.tensor(CHOSEN)), real)
    assert not draws.normal
    moved = model.actor(real.new_zeros(6, 0), real)
    wanted = torch.from_numpy(plain.mean(0) + moved.detach().numpy() @ factor.T).float()
    close(model.move(codes[CHOSEN]), wanted)
    close(model.sample(real), base.decode(wanted))
    close(model.realism(codes[CHOSEN]), model.critic(real).squeeze(1))
    distance = ((moved.detach() - real) / model.deviation) ** 2
    close(model.distance(wanted, codes[CHOSEN]), distance.mean(1))


def test_what_is_asked_for_is_told_to_actor_and_critic_and_read_from_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = prepared(monkeypatch, condition="label")
    label = DATA["label"][CHOSEN]
    noise = torch.linspace(-2, 2, 18).view(6, 3)
    close(model.move(noise, label=label), model.actor(told("label"), noise))
    close(model.sample(noise, label=label), model.parts["vae"].decode(model.actor(told("label"), noise)))
    close(model.realism(noise, label=label), model.critic(torch.cat([noise, told("label")], 1)).squeeze(1))
    image = DATA["image"][CHOSEN]
    close(model.classify(image), model.reader(model.encode(image)))


@pytest.mark.parametrize(("condition", "wanted"), [("auto", "attributes"), ("none", ""), ("identity", "identity")])
def test_it_takes_attributes_or_else_classes_where_nobody_says(condition: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = prepared(monkeypatch, condition=condition)
    assert model.target == wanted
    assert model.needs == {"image", *([wanted] if wanted else [])}


@pytest.mark.parametrize("base", ["vae", "aegan"])
@pytest.mark.parametrize("condition", ["label", "attributes", "none"])
def test_mean_codes_of_what_images_show_are_kept(condition: str, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = prepared(monkeypatch, base, condition=condition)
    ways = model.ways()
    if condition == "none":
        assert ways is None
        return
    with torch.no_grad():
        codes = torch.cat([model.encode(batch(DATA, list(range(*rows))).image) for rows in WHOLE])
    shown = vectors(condition, DATA, list(range(40))) > 0
    means = torch.stack([codes[has].mean(0) for has in shown.T])
    if condition == "attributes":
        close(ways, means - torch.stack([codes[~has].mean(0) for has in shown.T]))
    else:  # but for a shift that all classes share
        close(ways - ways[0], means - means[0])


def test_what_no_image_shows_is_no_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = prepared(monkeypatch, condition="attributes")
    shown = torch.ones(40, 3)
    shown[:, 1], shown[:20, 2] = 0, 0
    codes = torch.randn(40, 3)
    close(model._means(codes, shown), torch.stack([torch.zeros(3), torch.zeros(3), codes[20:].mean(0) - codes[:20].mean(0)]))


def test_runs_from_before_have_no_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = prepared(monkeypatch, condition="attributes", **model_class("latent-constraints").before)
    assert model.ways() is None
    assert "means" not in model.state_dict()
