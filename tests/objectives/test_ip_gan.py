"""IP-GAN: what its five networks minimise, against the paper's formulas written out; whom and what it mixes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from formulas import COUNT, SPEC, agree, bounded, close, half_kl, items, made, minus_log, minus_log_of_not, push, share_right
from torch import Tensor

from models.base import Batch, Clock, DataSpec
from models.errors import UserError
from models.nets.moving import MovingGaussian

HALF = COUNT // 2
LABELLED = dataclasses.replace(SPEC, others={"other": SPEC, "unlabelled": SPEC})
STRANGERS = dataclasses.replace(SPEC, others={"other": SPEC, "unlabelled": DataSpec.of_images(*SPEC.shape)})


def draws(
    monkeypatch: pytest.MonkeyPatch, spec: DataSpec = LABELLED, **options: Any
) -> tuple[Any, Any, dict[str, dict[str, Tensor]], Batch]:
    """A tiny model, what it drew, its sources' items and a batch of them."""
    model, drawn = made("ip-gan", monkeypatch, spec, **options)
    data = {"": items(), "other": items(seed=5), "unlabelled": items(seed=6)}
    data["other"]["identity"] = data["other"]["identity"].roll(1)  # other people than those they meet

    def batch(name: str) -> Batch:
        others = (lambda source: batch(source)) if not name else None
        return Batch(torch.arange(COUNT), lambda key, index: data[name][key][index], torch.device("cpu"), others)

    return model, drawn, data, batch("")


def unit(rows: Tensor) -> Tensor:
    return torch.stack([row / row.norm() for row in rows])


def who(model: Any, image: Tensor) -> Tensor:
    found = unit(model.recogniser(image))
    return found * found.shape[1] ** 0.5


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def crossing(logits: Tensor, label: Tensor) -> Tensor:
    shares = torch.exp(logits.double())
    return -torch.log(shares[torch.arange(len(label)), label] / shares.sum(1)).mean()


def variation(x: Tensor) -> Tensor:
    flat = x.detach().flatten(1)
    return ((flat - flat.mean(0)) ** 2).sum() / len(flat)


def met(model: Any) -> dict[int, list[Tensor]]:
    """Features of people 0 and 1 whom an earlier batch has shown, put into the model as well; nothing is forgotten."""
    model.faces.decay = 1.0
    rows = {person: list(torch.rand(2, model.faces.totals.shape[1])) if person < 2 else [] for person in range(4)}
    for person in (0, 1):
        model.faces.totals[person], model.faces.counts[person] = sum(rows[person]), 2
    return rows


@pytest.mark.parametrize("target", ["mixture", "subject"])
@pytest.mark.parametrize("step", [0, 1, 2, 3])
@pytest.mark.parametrize("spec", [LABELLED, STRANGERS], ids=["labelled", "strangers"])
def test_five_networks_on_one_graph(spec: DataSpec, step: int, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"kl_weight": 2.0, "other_weight": 0.3, "identity_weight": 0.7, "game_weight": 0.4}
    model, drawn, data, batch = draws(monkeypatch, spec, condition="identity", target=target, **weights)
    seen_before = met(model) if target == "mixture" else {}  # the people's features of an earlier batch
    [turn] = model.turns(batch, Clock(step))

    strange = spec is STRANGERS and step % 2 == 1
    first, second = ("unlabelled", "unlabelled") if strange else ("", "other")
    subject = torch.cat([data[first]["image"][:HALF], data[""]["image"][HALF:]])
    look = torch.cat([subject[:HALF], data[second]["image"][HALF:]])
    known = list(range(HALF, COUNT)) if strange else list(range(COUNT))
    label = data[""]["identity"][known]

    vector = who(model, subject)
    cosines = unit(vector[known]) @ unit(model.people.weight).T
    told = model.attributes(look)
    mean, log_variance = told[:, :4], bounded(told[:, 4:])
    image = torch.tanh(model.generator(torch.cat([vector.detach(), mean + torch.exp(log_variance / 2) * drawn.normal[0]], 1)))

    def seen(x: Tensor) -> Tensor:
        return leaky(model.discriminator(x))

    def named(x: Tensor, learning: bool) -> Tensor:
        model.classifier.train(learning)
        found = leaky(model.classifier(x))
        model.classifier.train()
        return found

    # The running statistics are those that the model's own look at the subjects has left: another one would move them.
    named_real, named_made = named(subject, False).detach(), named(image, False)
    wanted = named_real.clone()
    if target == "mixture" and not strange:
        rows = {person: [*seen_before[person]] for person in range(4)}
        for n in known:
            rows[int(label[n])].append(named_real[n])
        theirs = named(look, False).detach()
        for n in range(HALF, COUNT):
            mine, of_look = (rows[int(data[name]["identity"][n])] for name in ("", "other"))
            if of_look:
                wanted[n] = theirs[n] - torch.stack(of_look).mean(0) + torch.stack(mine).mean(0)
    logits = model.class_logits(named(subject[known], True))
    seen_real, seen_made = seen(look), seen(image)
    on_real, on_made = model.logit(seen_real), model.logit(seen_made)

    pixels = torch.zeros(())
    for n in range(COUNT):
        pixels = pixels + (1.0 if n < HALF else 0.3) * ((look[n] - image[n]) ** 2).sum() / 2 / COUNT
    c_unit = variation(look) / variation(torch.cat([named_real, named_made]))
    d_unit = variation(look) / variation(torch.cat([seen_real, seen_made]))
    same_person = c_unit * ((named_made - wanted) ** 2).sum() / 2 / COUNT
    same_look = d_unit * ((seen_made - seen_real.detach()) ** 2).sum() / 2 / COUNT
    kl = half_kl(mean, log_variance)
    plain = {
        "recogniser": crossing(16 * cosines, label),
        "classifier": crossing(logits, label),
        "discriminator": minus_log(on_real) + minus_log_of_not(on_made),
        "generator": pixels + 0.7 * same_person + 0.4 * same_look,
        "attributes": 2.0 * kl + pixels,
    }
    agree(model, turn, plain)
    reached = torch.autograd.grad(turn.losses["generator"], model.recogniser.parameters(), allow_unused=True, retain_graph=True)
    assert all(gradient is None for gradient in reached), "G's loss moves I"
    close(turn.logs["right"], share_right(on_real, on_made))
    for person in range(4):
        mine = [n for n, its in zip(known, label.tolist()) if its == person]
        assert float(model.centres.counts[person]) == len(mine)
        if mine:
            close(model.centres.totals[person] / len(mine), vector[mine].mean(0))


def test_an_image_of_somebody_new_moves_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, data, _ = draws(monkeypatch, condition="identity")
    met(model)
    otherwise, image = torch.randn(2, model.faces.totals.shape[1]), data[""]["image"][:2]
    found = model.moved(image, torch.tensor([2, 0]), torch.tensor([1, 1]), otherwise)
    close(found[0], otherwise[0])
    assert not torch.allclose(found[1], otherwise[1])


def test_a_mixture_is_who_of_one_and_how_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, data, _ = draws(monkeypatch, condition="identity")
    model.eval()
    one, other = data[""]["image"], data["other"]["image"]
    mean = model.attributes(other)[:, :4]
    wanted = torch.tanh(model.generator(torch.cat([who(model, one), mean], 1)))
    codes = model.encode(one), model.encode(other)
    close(model.mix(*codes, model.layer_groups["attributes"]), wanted)
    close(model.mix(*codes[::-1], model.layer_groups["identity"]), wanted)
    noise = torch.randn(COUNT, 4)
    close(model.resemble(one, noise), torch.tanh(model.generator(torch.cat([who(model, one), noise], 1))))


def test_a_moving_gaussian_draws_what_the_latest_codes_are() -> None:
    codes = 3 * torch.randn(500, 4) @ torch.randn(4, 4) + torch.tensor([5.0, 0.0, -2.0, 1.0])
    whole, lately = MovingGaussian(4, decay=1.0), MovingGaussian(4, decay=0.5)
    noise = torch.randn(3, 4)
    assert whole.draw(noise) is noise, "nothing has come yet"
    for some in codes.split(50):
        whole.follow(some)
    mean, root = whole.draw(torch.zeros(1, 4)), whole.draw(torch.eye(4)) - whole.draw(torch.zeros(1, 4))
    close(mean[0], codes.mean(0))
    close(root, root.T)
    torch.testing.assert_close(root @ root, torch.cov(codes.T, correction=0), rtol=1e-3, atol=1e-3)
    lately.follow(codes[:2])
    lately.follow(codes[2:6])  # of fewer directions than a code has
    close(lately.draw(torch.zeros(1, 4))[0], (0.5 * codes[:2].sum(0) + codes[2:6].sum(0)) / 5)
    assert lately.draw(noise).isfinite().all()


def test_all_else_is_drawn_from_the_gaussian_of_the_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, drawn, data, batch = draws(monkeypatch, condition="identity")
    next(iter(model.turns(batch, Clock(0))))
    look = torch.cat([data[""]["image"][:HALF], data["other"]["image"][HALF:]])
    told = model.attributes(look)
    codes = told[:, :4] + torch.exp(bounded(told[:, 4:]) / 2) * drawn.normal[0]
    close(model.codes.totals, codes.sum(0))
    model.eval()
    subject, noise = data[""]["image"], torch.randn(COUNT, 4)
    close(model.resemble(subject, noise), torch.tanh(model.generator(torch.cat([who(model, subject), model.codes.draw(noise)], 1))))
    faithful, _, _, _ = draws(monkeypatch, condition="identity", draws="standard")
    assert faithful.eval().all_else(noise) is noise


def test_a_sample_shows_the_mean_vector_of_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, _, batch = draws(monkeypatch, condition="identity")
    next(iter(model.turns(batch, Clock(0))))
    model.eval()
    noise = torch.randn(2, 4)
    means = [model.centres.totals[person] / model.centres.counts[person] for person in (3, 0)]
    vectors = torch.stack([mean / mean.norm() for mean in means]) * means[0].shape[0] ** 0.5
    wanted = torch.tanh(model.generator(torch.cat([vectors, model.codes.draw(noise)], 1)))
    close(model.sample(noise, identity=torch.tensor([3, 0])), wanted)


def test_a_trained_classifier_can_say_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from models.config import check
    from models.registry import model_class

    cls, judge = model_class("ip-gan"), model_class("classifier")
    part = judge(check(judge.Config, {"widths": (4, 8), "blocks": (1,), "target": "identity"}, "test"), SPEC).eval().requires_grad_(False)
    model = cls(check(cls.Config, {"widths": (4, 8), "latent": 4, "features": 4}, "test"), LABELLED, {"identity": part})
    push(model.generator)
    assert "recogniser" not in model.players()
    image = items()["image"]
    close(model.encode(image)[:, : part.features(image).shape[1]], unit(part.features(image)) * part.features(image).shape[1] ** 0.5)


def test_people_are_classes_where_there_are_no_identities(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = DataSpec.of_images(1, 16, 16, classes=("a", "b", "c"))
    model, *_ = draws(monkeypatch, dataclasses.replace(classes, others={"other": classes, "unlabelled": classes}))
    assert model.needs == {"image", "label", "other.image", "other.label"}
    model, *_ = draws(monkeypatch, STRANGERS)
    assert model.needs == {"image", "identity", "other.image", "other.identity", "unlabelled.image"}
    model, *_ = draws(monkeypatch, dataclasses.replace(LABELLED, others={**STRANGERS.others, "other": DataSpec.of_images(*SPEC.shape)}))
    assert model.needs == {"image", "identity", "other.image", "unlabelled.image"}
    assert model.faces is None, "nobody says who is on the other images"
    wide = dataclasses.replace(SPEC, others={"other": SPEC, "unlabelled": DataSpec.of_images(1, 16, 20)})
    with pytest.raises(UserError, match=r"the images of unlabelled are \(1, 16, 20\), those of the data \(1, 16, 16\)"):
        draws(monkeypatch, wide)
