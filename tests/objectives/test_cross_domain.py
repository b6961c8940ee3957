"""Cross-domain: who meets whom, whitened codes, and both players' losses, against formulas written out."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import support
import torch
from formulas import SPEC, Draws, agree, close, items, minus_log, minus_log_of_not, push, share_right, slopes, turns
from torch import Tensor

from models.base import Batch, Clock, DataSpec, Stage
from models.config import check
from models.errors import UserError
from models.nets.matching import class_map, groups
from models.registry import model_class
from models.zoo.cross_domain import Met

OTHER = DataSpec.of_images(3, 12, 20, classes=("c", "d", "a"), attributes=("x", "y"), identities=4)
BOTH = dataclasses.replace(SPEC, others={"to": OTHER})
HERE, THERE = items(40), items(31, OTHER, seed=2)
CPU = torch.device("cpu")


class Everything:
    """Both sides' items, as `Stage.prepare` gets them."""

    def __iter__(self) -> Any:
        return iter([met(range(25)), met(range(25, 40))])

    def __getitem__(self, source: str) -> Any:
        assert source == "to"
        return [batch["to"] for batch in (met([], range(20)), met([], range(20, 31)))]


def met(here: Any, there: Any = ()) -> Batch:
    """A batch of these items of both sides."""
    other = Batch(torch.tensor([*there]), lambda key, index: THERE[key][index], CPU)
    return Batch(torch.tensor([*here]), lambda key, index: HERE[key][index], CPU, {"to": other}.__getitem__)


def prepared(monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Any, Draws]:
    torch.manual_seed(0)
    cls = model_class("cross-domain")
    model = support.built("cross-domain", check(cls.Config, support.small("cross-domain", **options), "test"), BOTH)
    push(model)
    with torch.no_grad():
        model.prepare(Everything())
    return model, Draws(model, monkeypatch)


def white(model: Any, side: str) -> Tensor:
    """All codes of a side, centred, and freed of their covariance."""
    with torch.no_grad():
        images = (HERE if side == "from" else THERE)["image"]
        codes = np.concatenate([model.parts[side].encode(image.unsqueeze(0)).numpy() for image in images]).astype(np.float64)
    factor = np.linalg.cholesky(np.cov(codes.T, bias=True) + 1e-6 * np.eye(codes.shape[1]))
    return torch.from_numpy(np.linalg.solve(factor, (codes - codes.mean(0)).T).T).float()


@pytest.mark.parametrize("options", [{}, {"map": ("a=d", "2=0")}, {"pairs": "identity"}, {"pairs": "attributes"}], ids=str)
def test_an_item_meets_those_that_match_it_and_only_those(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = prepared(monkeypatch, mismatched=True, codes="mean", **options)
    pairs = model.config.pairs
    matches = {0: 2, 2: 0} if pairs == "label" and not options else {0: 1, 2: 0}  # a and c by name; else a with d, and 2 with 0
    codes, others = white(model, "from"), white(model, "to")
    seen: dict[int, set[int]] = {}
    for _ in range(60):
        found = model._met("from", "to", torch.arange(40))
        for code, partner, stranger, apart in zip(found.code, found.partner, found.stranger, found.apart):
            mine, its, other = (int((codes - code).abs().sum(1).argmin()), *(nearest(others, row) for row in (partner, stranger)))
            seen.setdefault(mine, set()).add(its)
            assert matched(pairs, matches, mine, its)
            assert bool(apart) != matched(pairs, matches, mine, other)
    wanted = {n: {m for m in range(31) if matched(pairs, matches, n, m)} for n in range(40)}
    assert set(seen) == {n for n, partners in wanted.items() if partners}
    assert sum(len(seen[n]) for n in seen) > 0.9 * sum(map(len, wanted.values())), "some partners are never met"


def nearest(codes: Tensor, row: Tensor) -> int:
    return int((codes - row).abs().sum(1).argmin())


def matched(pairs: str, matches: dict[int, int], mine: int, its: int) -> bool:
    ours, theirs = HERE[pairs][mine], THERE[pairs][its]
    return matches.get(int(ours)) == int(theirs) if pairs == "label" else bool((ours == theirs).all())


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    "options",
    [
        {"noise_weight": 0.7, "penalty_every": 2, "mismatched": False, "untouched": True},
        {"mismatched": True, "penalty_every": 3, "noise_weight": 0.2},
        {"mismatch_weight": 4.0},
        {"pairs": "none", "cycle_weight": 2.0, "untouched": True},
    ],
    ids=str,
)
def test_both_players_losses(options: dict[str, Any], number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """-log D of a real pair, -log(1 - D) of a translation, strangers and noise if asked; the maps: -log D, and the way from the noise."""
    model, draws = prepared(monkeypatch, codes="mean", **options)
    c, blind, kept = model.config, model.config.pairs == "none", list[Met]()
    meet = model._met
    monkeypatch.setattr(model, "_met", lambda *a: kept.append(meet(*a)) or kept[-1])
    step = turns(model, model.turns(met([7, 31, 2, 39, 16, 0], [3, 30, 8, 1, 1, 22]), Clock(number)))
    turn = next(step)
    noises = draws.normal
    ways = [(model.there, model.judge_there, kept[0], noises[0]), (model.back, model.judge_back, kept[1], noises[1])]

    def seen(code: Tensor, other: Tensor) -> Tensor:
        return other if blind else torch.cat([code, other], 1)

    total, right = torch.zeros(()), torch.zeros(())
    for way, judge, those, noise in ways:
        fake = way(those.code, noise).detach()
        real = judge(seen(those.code, those.partner))
        fakes = [judge(seen(those.code, fake))] + ([judge(seen(those.code, noise))] if c.untouched and not blind else [])
        total = total + minus_log(real) + sum(map(minus_log_of_not, fakes)) / len(fakes)
        if c.mismatched and not blind:
            apart = those.apart.flatten() > 0
            total = total + c.mismatch_weight * minus_log_of_not(judge(seen(those.code, those.stranger))[apart])
        if number % c.penalty_every == 0:
            total = total + c.penalty_weight * c.penalty_every * (slopes(judge, seen(those.code, those.partner)) ** 2).mean() / 2
        right = right + share_right(real, fakes[0]) / 2
    agree(model, turn, {"critics": total}, untouched=("maps",))
    close(turn.logs["right"], right)

    turn = next(step)
    total = torch.zeros(())
    for way, judge, those, noise in ways:
        made = way(those.code, noise)
        total = total + minus_log(judge(seen(those.code, made))) + c.noise_weight * ((made - noise) ** 2).sum() / made.numel()
    if blind:
        (there, _, here, noise), (back, _, its, other_noise) = ways
        again, again_there = back(there(here.code, noise), other_noise), there(back(its.code, other_noise), noise)
        total = total + c.cycle_weight * (((again - here.code) ** 2).mean() + ((again_there - its.code) ** 2).mean())
    agree(model, turn, {"maps": total})
    assert set(turn.logs) == {"from the noise"} | ({"cycle"} if blind else set())
    close(turn.logs["from the noise"], sum(((way(those.code, n) - n) ** 2).mean() for way, _, those, n in ways) / 2)
    assert next(step, None) is None
    assert model.stages() == (Stage("two ways", model.turns, ("critics", "maps"), prepare=model.prepare, needs=frozenset()),)


def test_a_step_with_one_stranger_counts_it_whole_and_one_without_any_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = prepared(monkeypatch, mismatched=True)
    met = model._met("from", "to", torch.arange(6))
    noise = torch.randn(6, 4)

    def paid(apart: list[float]) -> Tensor:
        those = dataclasses.replace(met, apart=torch.tensor(apart).unsqueeze(1))
        return model._judged(model.judge_there, those, noise, noise, False)[0]

    logit = model.judge_there(torch.cat([met.code, met.stranger], 1))
    close(paid([0, 0, 1, 0, 0, 0]) - paid([0.0] * 6), minus_log_of_not(logit[2]))
    close(paid([0, 1, 1, 0, 0, 0]) - paid([0.0] * 6), minus_log_of_not(logit[1:3]))


def test_translations_go_through_the_whitened_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = prepared(monkeypatch, codes="mean")
    noise = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    for side, other, way, data, translate in (
        ("from", "to", model.there, HERE, model.translate),
        ("to", "from", model.back, THERE, model.translate_back),
    ):
        with torch.no_grad():
            codes = model.parts[other].encode((THERE if side == "from" else HERE)["image"]).double().numpy()
            made = way(white(model, side), noise[: len(data["image"])]).double().numpy()
            factor = np.linalg.cholesky(np.cov(codes.T, bias=True) + 1e-6 * np.eye(4))
            wanted = model.parts[other].decode(torch.from_numpy(codes.mean(0) + made @ factor.T).float())
            found = translate(data["image"], noise[: len(data["image"])])
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_means_are_translated_to_what_should_be_draws_of_the_posteriors(spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the scale of whole draws, both; a draw has `spread` times the posterior's deviation."""
    model, draws = prepared(monkeypatch, codes="draw", spread=spread)
    sides = {"from": HERE, "to": THERE}
    means, deviations, centres, factors = {}, {}, {}, {}
    for side, data in sides.items():
        with torch.no_grad():
            mean, deviation = (found.double().numpy() for found in model.parts[side].posterior(data["image"]))
            np.testing.assert_allclose(mean, model.parts[side].encode(data["image"]), atol=1e-5)
        means[side], deviations[side], centres[side] = mean, deviation, mean.mean(0)
        covariance = np.cov(mean.T, bias=True) + np.diag((deviation**2).mean(0))
        factors[side] = np.linalg.cholesky(covariance + 1e-6 * np.eye(4))

    def white(side: str, item: Any, noise: Any = 0.0) -> Tensor:
        drawn = means[side][item] + spread * deviations[side][item] * np.asarray(noise, np.float64)
        return torch.from_numpy(np.linalg.solve(factors[side], (drawn - centres[side]).T).T).float()

    met = model._met("from", "to", torch.arange(40))
    item = model._members["from"].some(torch.arange(40))
    torch.testing.assert_close(met.code, white("from", item), rtol=1e-3, atol=1e-3)
    assert len(draws.normal) == 2, "a partner and a stranger, each is a draw of its own"
    for drawn, noise in zip((met.partner, met.stranger), draws.normal):
        apart = torch.stack([(drawn - white("to", np.full(40, k), noise)).abs().amax(1) for k in range(31)])
        assert float(apart.amin(0).max()) < 1e-3, "a draw of nobody's posterior"

    for back, (side, other) in enumerate((("from", "to"), ("to", "from"))):
        assert (model.translation_noise, model.return_noise)[back] == (4,)
        data, way = sides[side], (model.there, model.back)[back]
        noise = torch.randn(len(data["image"]), 4, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            made = way(white(side, slice(None)), noise).double().numpy()
            wanted = model.parts[other].decode(torch.from_numpy(centres[other] + made @ factors[other].T).float())
            found = (model.translate, model.translate_back)[back](data["image"], noise)
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_codes_are_drawn_only_where_a_part_has_a_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    cls, wae = model_class("cross-domain"), model_class("wae")
    parts = {
        side: wae(check(wae.Config, support.small("wae"), "test"), spec).requires_grad_(False).eval()
        for side, spec in (("from", BOTH), ("to", OTHER))
    }
    config = check(cls.Config, support.small("cross-domain", codes="draw"), "test")
    assert cls(config, BOTH, parts).translation_noise == (4,)
    vae = support.built("cross-domain", config, BOTH).parts["to"]
    model = cls(config, BOTH, {**parts, "to": vae})
    assert (model.draws_codes("from"), model.draws_codes("to")) == (False, True)
    assert (model.translation_noise, model.return_noise) == ((4,), (4,))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a",), "'a' is not CLASS=CLASS: --map\n  fix: write it as --map 1=6,2=7: of the one side, of the other"),
        (("e=a",), "unknown class 'e': --map\n  fix: known: a, b, c"),
        (("a=7",), "unknown class '7': --map\n  fix: known: a, c, d"),
        (("a=c", "a=d"), "'a=d': a class has two partners: --map\n  fix: name each class once on its side"),
        (("a=c", "b=c"), "'b=c': a class has two partners: --map\n  fix: name each class once on its side"),
    ],
)
def test_maps_that_say_nothing_are_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as error:
        class_map(words, SPEC, OTHER)
    assert str(error.value) == message


def test_classes_go_by_name_before_number_and_by_equal_names_where_nobody_says() -> None:
    assert class_map((), SPEC, OTHER) == {0: 2, 2: 0}
    assert class_map(("b=1", "0=c"), SPEC, OTHER) == {1: 1, 0: 0}
    numbers = DataSpec.of_images(1, 8, 8, classes=("2", "0", "1"))
    assert class_map(("2=0", "0=1"), numbers, numbers) == {0: 1, 1: 2}
    with pytest.raises(UserError) as error:
        class_map((), SPEC, numbers)
    what = "no class of one side is called like one of the other (a, b, c; 2, 0, 1)"
    assert str(error.value) == f"{what}: --map\n  fix: say it: --map 1=6,2=7"


def test_what_has_no_partner_belongs_to_no_group() -> None:
    here, there = torch.tensor([[0, 1], [1, 1], [0, 0]]), torch.tensor([[1, 1], [1, 0], [1, 1], [0, 1]])
    mine, its = groups(here, there)
    assert (mine[2], its[1]) == (-1, -1)
    assert mine[0] == its[3] != mine[1] == its[0] == its[2]
    assert [group.tolist() for group in groups(torch.tensor([0, 1, 4]), torch.tensor([2, 0]), {4: 2, 3: 1})] == [[-1, -1, 0], [0, -1]]


def test_what_a_model_needs_follows_from_the_pairs() -> None:
    cls = model_class("cross-domain")
    for pairs in ("label", "attributes", "identity", "none"):
        model = support.built("cross-domain", check(cls.Config, support.small("cross-domain", pairs=pairs), "test"), BOTH)
        assert model.needs == {"image", "to.image"} | ({pairs, f"to.{pairs}"} if pairs != "none" else set())
    bare = {name: DataSpec.of_images(*spec.shape, classes=spec.classes) for name, spec in (("from", SPEC), ("to", OTHER))}
    spec = dataclasses.replace(bare["from"], others={"to": bare["to"]})
    assert support.built("cross-domain", check(cls.Config, support.small("cross-domain"), "test"), spec)._pairs == {0: 2, 2: 0}
    assert model.gives("translate").shape == OTHER.shape
    assert model.gives("translate_back").shape == model.gives("sample").shape == SPEC.shape
    assert {name: player.betas for name, player in model.players().items()} == {"critics": (0.0, 0.99), "maps": (0.0, 0.99)}


def test_a_class_without_images_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(THERE, "label", THERE["label"].clamp_max(1))
    with pytest.raises(UserError, match="no images of a=a"):
        prepared(monkeypatch)
    monkeypatch.setitem(THERE, "identity", torch.full((31,), 9))
    with pytest.raises(UserError, match="no identity is on both sides"):
        prepared(monkeypatch, pairs="identity")
