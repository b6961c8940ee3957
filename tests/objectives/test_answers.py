"""Models that answer questions: what cGML and its rivals minimise, against the papers' formulas written out; and what is asked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from formulas import COUNT, agree, batch, bounded, close, half_kl, items, made, minus_log, minus_log_of_not, share_right, turns
from torch import Tensor

from models.base import Clock, Completes, DataSpec, Field, Translates
from models.capabilities import masks
from models.errors import UserError
from models.nets.holes import draw_holes
from models.nets.questions import Asking
from models.registry import model_class

CPU = torch.device("cpu")
GREY = DataSpec.of_images(1, 16, 16)
PAIRS = DataSpec({"image": Field("image", (1, 16, 16)), "target": Field("image", (3, 16, 16))})


def paired() -> Any:
    """Grey images with targets in colour."""
    return batch({**items(), "target": items(spec=DataSpec.of_images(3, 16, 16), seed=5)["image"]})


def on_sphere(rows: Tensor) -> Tensor:
    return torch.stack([row / math.sqrt(float((row.detach() ** 2).sum())) for row in rows])


# ---- cGML ------------------------------------------------------------------------------------------------------------------------------


WALKS = [
    ("inpaint", "absolute", "timed", 0.03),
    ("pairs", "squared", "timed", 10.0),
    ("inpaint", "squared", "timeless", 10.0),
    ("pairs", "absolute", "timeless", 0.03),
]


@pytest.mark.parametrize(("task", "error", "walk", "longest"), WALKS)
def test_z_walks_down_the_error_and_the_explorer_learns_each_step(
    task: str, error: str, walk: str, longest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"task": task, "mask": "center", "error": error, "walk": walk, "iterations": 3, "rate": 2.0, "longest": longest}
    options |= {"smooth": 0.3, "shake": 0.2, "latent": 5, "judge_weight": 0.0}
    model, draws = made("cgml", monkeypatch, PAIRS if task == "pairs" else GREY, **options)
    shown = paired() if task == "pairs" else batch()

    def l(difference: Tensor) -> Tensor:  # noqa: E743
        return difference**2 if error == "squared" else difference.abs()

    if task == "pairs":
        question, wanted, weight = shown.image, shown.target, torch.ones(1, 1, 16, 16)
    else:
        weight = torch.zeros(1, 1, 16, 16)
        weight[:, :, 4:12, 4:12] = 1
        question, wanted = torch.cat([shown.image * (1 - weight), weight.expand(COUNT, -1, -1, -1)], 1), shown.image

    def answer_error(answer: Tensor, truth: Tensor) -> Tensor:
        """Of each image: a mean over the wanted values."""
        return torch.stack([(l(a - y) * weight).sum() / (weight.sum() * len(a)) for a, y in zip(answer, truth)])

    step = turns(model, model.turns(shown, Clock(0)))
    turn = next(step)
    h = model.encoder(question).detach()
    places, cut = [on_sphere(draws.normal[0])], 0
    for time in range(3):
        z = places[-1].clone().requires_grad_()
        (down,) = torch.autograd.grad(answer_error(model.decoder(h, z), wanted).sum(), z)
        steps = [2.0 * slope for slope in down]
        limit = longest * (3 - time) / 3
        cut += sum(float(step.norm()) > limit for step in steps)
        places.append(on_sphere(places[-1] - torch.stack([step * min(1, limit / float(step.norm())) for step in steps])))
    assert cut == (3 * COUNT if longest < 1 else 0)

    near = h.gist + 0.2 * draws.normal[1]
    for number in range(3):
        here, there = places[number], places[number + 1]
        following, far = model.explorer(h.gist, here, number)
        again, _ = model.explorer(near, here + 0.2 * draws.normal[2 + number], number)
        if walk == "timed":
            loss = ((following - (there - here)) ** 2).mean() + 0.3 * ((again - following.detach()) ** 2).mean()
        else:
            length = torch.stack([(a - b).norm() for a, b in zip(here, there)]).unsqueeze(1)
            loss = l(following - there).mean() + 0.3 * l(again - following.detach()).mean() + l(far - length).mean()
        agree(model, turn, {"explorer": loss}, untouched=("answers",))
        turn = next(step)

    features = model.encoder(question)
    answer = model.decoder(features, places[-1])
    shaken = model.decoder(features._replace(gist=features.gist + 0.2 * draws.normal[5]), places[-1] + 0.2 * draws.normal[6])
    loss = answer_error(answer, wanted).mean() + 0.3 * answer_error(shaken, answer.detach()).mean()
    agree(model, turn, {"answers": loss}, untouched=("explorer",))
    assert next(step, None) is None


def test_a_discriminator_judges_what_z_finds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """From starts of their own: the error is that of where z has come with the answer in sight."""
    settings = {"mask": "center", "iterations": 2, "latent": 5, "smooth": 0.0}
    model, draws = made("cgml", monkeypatch, GREY, judge_weight=0.3, **settings)
    shown = batch()
    hole = torch.zeros(COUNT, 1, 16, 16)
    hole[:, :, 4:12, 4:12] = 1
    question = torch.cat([shown.image * (1 - hole), hole], 1)
    step = turns(model, model.turns(shown, Clock(0)))
    assert [list(next(step).losses) for _ in range(2)] == [["explorer"], ["explorer"]]
    turn = next(step)
    features = model.encoder(question)
    answer = model.decoder(features, model.explored(features, draws.normal[-1]).detach())

    def judged(image: Tensor) -> Tensor:
        return model.discriminator(torch.cat([question, image * hole + shown.image * (1 - hole)], 1))

    on_real, on_fake = judged(shown.image), judged(answer.detach())
    agree(model, turn, {"discriminator": (minus_log(on_real) + minus_log_of_not(on_fake)) / 2}, untouched=("answers", "explorer"))
    close(turn.logs["right"], share_right(on_real, on_fake))
    turn = next(step)
    start = on_sphere(draws.normal[0])
    seen = model.decoder(features, model.walked(model.asking.of(shown), features.detach(), start)[-1].detach())
    error = ((seen - shown.image).abs() * hole).sum() / hole.sum()
    agree(model, turn, {"answers": error + 0.3 * minus_log(judged(answer))}, untouched=("explorer",))
    assert next(step, None) is None


def test_runs_from_before_have_no_discriminator(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = made("cgml", monkeypatch, GREY, **model_class("cgml").before)
    assert list(model.players()) == ["explorer", "answers"]


@pytest.mark.parametrize("walk", ["timed", "timeless"])
def test_in_use_the_explorer_walks_alone(walk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = made("cgml", monkeypatch, PAIRS, task="pairs", iterations=4, latent=5, walk=walk)
    shown, noise = paired(), torch.randn(COUNT, 5)
    h = model.encoder(shown.image)
    z = on_sphere(noise)
    for time in range(4):
        following, far = model.explorer(h.gist, z, time)
        z = on_sphere(z + (following if walk == "timed" else far * on_sphere(following - z)))
    close(model.translate(shown.image, noise), model.decoder(h, z).clamp(-1, 1))
    close(model.translate(shown.image, noise, iterations=0), model.decoder(h, on_sphere(noise)).clamp(-1, 1))
    following, far = model.explorer(h.gist, z, 3)  # beyond its last step Z walks on as in that
    beyond = on_sphere(z + (following if walk == "timed" else far * on_sphere(following - z)))
    close(model.explored(h, noise, 5), beyond)
    monkeypatch.setattr(model.explorer, "forward", lambda gist, z, time: (z, torch.ones(len(z), 1)))
    assert torch.isfinite(model.explored(h, noise, 1)).all()  # a way of no length has no direction


# ---- the others ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "power"), [("absolute", 1), ("squared", 2)])
def test_regression(error: str, power: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = made("regression", monkeypatch, PAIRS, task="pairs", error=error)
    shown = paired()
    loss = ((model.decoder(model.encoder(shown.image)) - shown.target).abs() ** power).sum() / shown.target.numel()
    [turn] = model.turns(shown, Clock(0))
    agree(model, turn, {"answers": loss})


def test_pix2pix_judges_questions_with_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made("pix2pix", monkeypatch, GREY, mask="center", error_weight=7.0)
    shown = batch()
    hole = torch.zeros(COUNT, 1, 16, 16)
    hole[:, :, 4:12, 4:12] = 1
    question = torch.cat([shown.image * (1 - hole), hole], 1)

    def judged(image: Tensor) -> Tensor:
        return model.discriminator(torch.cat([question, image * hole + shown.image * (1 - hole)], 1))

    step = turns(model, model.turns(shown, Clock(0)))
    turn = next(step)
    answer = model.decoder(model.encoder(question), draws.normal[0])
    on_real, on_fake = judged(shown.image), judged(answer.detach())
    agree(model, turn, {"discriminator": (minus_log(on_real) + minus_log_of_not(on_fake)) / 2}, untouched=("generator",))
    close(turn.logs["right"], share_right(on_real, on_fake))
    turn = next(step)
    error = ((answer - shown.image).abs() * hole).sum() / hole.sum()
    agree(model, turn, {"generator": minus_log(judged(answer)) + 7.0 * error})
    assert next(step, None) is None


@pytest.mark.parametrize("task", ["inpaint", "pairs"])
def test_conditional_vae(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made("image-cvae", monkeypatch, PAIRS if task == "pairs" else GREY, task=task, mask="center", sigma=0.5, beta=3.0)
    shown = paired() if task == "pairs" else batch()
    question, wanted, weight = shown.image, getattr(shown, "target" if task == "pairs" else "image"), torch.ones(COUNT, 1, 16, 16)
    if task == "inpaint":
        weight = torch.zeros(COUNT, 1, 16, 16)
        weight[:, :, 4:12, 4:12] = 1
        question = torch.cat([shown.image * (1 - weight), weight], 1)
    [turn] = model.turns(shown, Clock(0))
    told = model.recogniser(torch.cat([question, wanted], 1))
    mean, log_variance = told[:, : told.shape[1] // 2], bounded(told[:, told.shape[1] // 2 :])
    answer = model.decoder(model.encoder(question), mean + torch.exp(log_variance / 2) * draws.normal[0])
    error = ((((answer + 1) / 2 - (wanted + 1) / 2) ** 2) * weight).sum() / COUNT / (2 * 0.5**2)
    agree(model, turn, {"autoencoder": error + 3.0 * half_kl(mean, log_variance)})


# ---- what is asked ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cgml", "regression", "pix2pix", "image-cvae"])
def test_a_task_decides_what_a_model_can_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    completing, translating = made(name, monkeypatch, PAIRS, task="inpaint")[0], made(name, monkeypatch, PAIRS, task="pairs")[0]
    assert (isinstance(completing, Completes), isinstance(completing, Translates)) == (True, False)
    assert (isinstance(translating, Completes), isinstance(translating, Translates)) == (False, True)
    assert completing.needs == {"image"}
    assert translating.needs == {"image", "target"}
    assert completing.gives("complete").shape == (1, 16, 16)
    assert translating.gives("translate").shape == (3, 16, 16)
    cls = model_class(name)
    clauses = {task: cls.pairs_by(cls.Config(task=task, factor=3)) for task in ("inpaint", "colourise", "upscale", "pairs")}
    assert clauses == {"inpaint": "", "colourise": "input=grey", "upscale": "input=small:3", "pairs": ""}


def test_small_images_are_asked_at_the_size_of_their_answers() -> None:
    spec = DataSpec({"image": Field("image", (3, 4, 8)), "target": Field("image", (3, 16, 32))})
    asking = Asking("upscale", "any", spec)
    flat = torch.full((2, 3, 4, 8), 0.25)
    assert asking.seen.shape == (3, 16, 32)
    assert torch.allclose(asking.shown(flat), torch.full((2, 3, 16, 32), 0.25))


def test_grey_images_have_no_colours_to_learn() -> None:
    with pytest.raises(UserError, match="no colours to learn"):
        Asking("colourise", "any", DataSpec({"image": Field("image", (1, 8, 8)), "target": Field("image", (1, 8, 8))}))


# ---- holes -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 24), (7, 5)])
def test_holes_are_of_the_kinds_that_masks_have(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    assert np.array_equal(draw_holes("center", 3, size, CPU)[2, 0].numpy() > 0, masks.center(np.random.default_rng(0), size))
    halves = {half.tobytes() for half in masks.halves(size)}
    drawn = {(hole > 0).numpy().tobytes() for hole in draw_holes("half", 60, size, CPU)[:, 0]}
    assert drawn == halves
    for kind in ("box", "stroke", "random", "any"):
        holes = draw_holes(kind, 200, size, CPU)  # type: ignore[arg-type]
        assert (holes.shape, holes.dtype) == ((200, 1, *size), torch.float32)
        assert set(holes.unique().tolist()) == {0.0, 1.0}
        assert len({hole.numpy().tobytes() for hole in holes}) > 20
        theirs = masks.draw("box" if kind == "any" else kind, 0, range(200), size).mean()
        assert float(holes.mean()) == pytest.approx(theirs, abs=0.06 if kind != "any" else 0.2)
        share = holes.mean((1, 2, 3))
        assert float(share.min()) > 0
        assert float(share.max()) < 1


def test_a_box_is_a_rectangle_of_about_a_quarter() -> None:
    torch.manual_seed(1)
    for hole in draw_holes("box", 100, (20, 30), CPU)[:, 0]:
        rows, columns = hole.amax(1), hole.amax(0)
        assert torch.equal(hole, torch.outer(rows, columns))
        assert 0.2 < float(hole.mean()) < 0.3
        for side in (rows, columns):
            [inside] = [side.nonzero().flatten()]
            assert inside.tolist() == list(range(int(inside[0]), int(inside[-1]) + 1))
