"""Editing: a search under constraints, one pass, arithmetic with mean codes, another condition, a rule; from the shell and from Python."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
from painter import SPEC, Copyist, Critic, Painter, cells, done, lgm, painter, refused
from PIL import Image
from torch import Tensor

import models
from models.capabilities import constrained
from models.capabilities.told import Told
from models.capabilities.trained import Trained
from models.errors import UserError

NOISE = torch.Generator().manual_seed(5)


class Slider(Painter):
    """Its code is the mean of each quarter of the image, from the left; attribute k is there where quarter k is bright.

    What is far from grey in the last quarter is not plausible, and moving fills the quarters that are asked for.
    """

    noise_shape = (4,)
    target = "attributes"

    code_scale = torch.eye(4)

    def encode(self, image: Tensor) -> Tensor:
        return torch.stack([part.mean((1, 2, 3)) for part in image.split(4, 3)], 1) * self.scale

    def decode(self, latent: Tensor) -> Tensor:
        return latent.clamp(-1, 1).repeat_interleave(4, 1).view(-1, 1, 1, 16).expand(-1, 1, 16, 16)

    def sample(self, noise: Tensor, attributes: Tensor | None = None) -> Tensor:
        return self.decode(self.move(noise, attributes))

    def move(self, latent: Tensor, attributes: Tensor | None = None) -> Tensor:
        assert attributes is not None
        return torch.cat([2 * attributes - 1, latent[:, 3:]], 1)

    def realism(self, latent: Tensor, attributes: Tensor | None = None) -> Tensor:
        assert attributes is not None
        return 3 - 20 * latent[:, 3].square()

    def distance(self, latent: Tensor, other: Tensor) -> Tensor:
        return (latent - other).square().mean(1) / 0.01

    def ways(self) -> Tensor | None:
        return None

    def features(self, image: Tensor) -> Tensor:
        return self.encode(image)

    def logits(self, features: Tensor) -> Tensor:
        return 10 * features[:, :3]

    def classify(self, image: Tensor) -> Tensor:
        return self.logits(self.features(image))


@pytest.fixture
def slider() -> Trained:
    return painter("attributes", Slider)


def quarters(*values: tuple[int, int, int, int]) -> np.ndarray:
    """Images whose quarters have these grey values."""
    return np.array(values, np.uint8).repeat(4, 1)[:, None, :, None].repeat(16, 1)


DARK = quarters((40, 40, 200, 128), (200, 40, 40, 128))


def test_the_search_changes_what_is_asked_for_and_keeps_the_rest(slider: Trained) -> None:
    found = slider.edit(DARK, {"smile": 1}, steps=500, lr=0.05)
    assert found.verdict is not None
    said = found.verdict
    assert said.reached.all()
    assert said.steps[0] > 0
    assert said.steps[1] == 0, "it smiled before"
    assert np.array_equal(found.codes[1], found.start[1])
    assert found.codes[0, 0] > np.log(0.95 / 0.05) / 10, "the reader is not sure enough"
    assert found.codes[0, 0] < 0.5, "it goes on although it is content"
    assert float(found.codes[0, 1]) < float(found.start[0, 1]) + 0.01, "glasses appear"
    assert float(found.codes[0, 2]) > float(found.start[0, 2]) - 0.01, "the hat goes"
    assert said.asked.tolist() == [[True, False, False]] * 2
    assert said.wanted.values.tolist() == [[1, 0, 1], [1, 0, 0]]
    assert said.read[0, 0, 0] < 0.01 < 0.95 <= said.read[0, 1, 0]
    assert (said.realism > 0.9).all()
    distance = ((found.codes - found.start) ** 2).mean(1) / 0.01
    assert np.allclose(said.distance, distance, atol=1e-5)


class Faint(Slider):
    """Its pictures show half of what the code says of the first quarter."""

    def decode(self, latent: Tensor) -> Tensor:
        return super().decode(latent * torch.tensor([0.5, 1, 1, 1]))


def test_the_reader_looks_at_what_can_be_seen() -> None:
    """A code that pleases it and is not seen in the picture is not enough."""
    faint, enough = painter("attributes", Faint), np.log(0.95 / 0.05) / 10
    for look, least in (("code", enough), ("picture", 2 * enough)):
        found = faint.edit(DARK[:1], {"smile": 1}, steps=500, lr=0.02, look=look)
        assert found.verdict.reached.all()
        assert least < float(found.codes[0, 0]) < 1.2 * least
        assert found.verdict.read[0, 1, 0] == pytest.approx(0.95, abs=0.03)
        if look == "code":  # what a free search does if nobody says
            assert torch.equal(found.codes, faint.edit(DARK[:1], {"smile": 1}, steps=500, lr=0.02).codes)


class Steered(Slider):
    """It knows the ways: an attribute's is its quarter, and some of the last one comes along."""

    def ways(self) -> Tensor | None:
        return torch.tensor([[0.8, 0, 0, 0.1], [0, 0.8, 0, 0], [0, 0, 0.8, 0]])


def test_a_line_is_gone_as_far_as_it_must() -> None:
    """Steps of a quarter of the ways that are asked for, each until the reader is sure; what is not asked for stays."""
    steered, images = painter("attributes", Steered), quarters((20, 40, 160, 128), (200, 40, 40, 128))
    bare = steered.encode(images)
    found = steered.edit(images, [{"smile": 1, "hat": 0}, {"smile": 1}])
    smile, hat = (ceil((np.log(0.95 / 0.05) / 10 - float(now)) / 0.2) for now in (bare[0, 0], -bare[0, 2]))
    assert smile != hat
    assert torch.allclose(found.codes[0], bare[0] + torch.tensor([0.2 * smile, 0, -0.2 * hat, 0.025 * smile]), atol=1e-6)
    assert torch.equal(found.codes[1], bare[1]), "it smiled before"
    assert found.verdict.steps.tolist() == [max(smile, hat), 0]
    assert found.verdict.reached.all()
    for n, wanted in enumerate(({"smile": 1, "hat": 0}, {"smile": 1})):
        assert torch.equal(steered.edit(images[n : n + 1], wanted).codes[0], found.codes[n])
    short = steered.edit(images[:1], {"smile": 1}, steps=2)
    assert (short.verdict.reached.tolist(), short.verdict.steps.tolist()) == ([False], [2])
    assert float(short.codes[0, 0] - bare[0, 0]) == pytest.approx(0.4, abs=1e-6)
    never = steered.edit(images[:1], {"smile": 1}, certainty=1.0)
    assert (never.verdict.reached.tolist(), never.verdict.steps.tolist()) == ([False], [16])
    free = steered.edit(images[:1], {"smile": 1}, search="free", steps=200, lr=0.05)
    assert 0.29 < float(free.codes[0, 0]) < 0.5


def test_from_class_to_class_a_line_begins_at_the_likeliest_other() -> None:
    logits = torch.tensor([[3.0, 2, 1], [3, 2, 1], [0, 1, 2]])
    told = Told("label", SPEC, torch.tensor([0, 2, 2]))
    found = constrained._toward(logits, constrained.Aim(told, torch.ones(3, 3, dtype=torch.bool)))
    assert found.tolist() == [[1, -1, 0], [-1, 0, 1], [0, -1, 1]]


def test_what_images_show_may_be_said(slider: Trained) -> None:
    """The reader would say that neither has glasses."""
    found = slider.edit(DARK, {"smile": 1}, told=[{"glasses": 1}, {"glasses": 0}], fast=True)
    assert found.codes[:, :3].tolist() == [[1, 1, -1], [1, -1, -1]]
    assert found.verdict.steps.tolist() == [0, 0]
    assert found.verdict.distance[0] > 10


def test_each_image_may_be_asked_for_something_else_and_depends_on_nothing_else(slider: Trained) -> None:
    dice = np.random.default_rng(0)
    images = quarters(*dice.integers(0, 256, (37, 4)).tolist())
    wanted = [{"smile": n % 2, "hat": 1} if n % 3 else {"glasses": 0} for n in range(37)]
    together = slider.edit(images, wanted, steps=40)
    for n in (0, 17, 36):
        alone = slider.edit(images[n : n + 1], wanted[n], steps=40)
        assert torch.equal(alone.codes[0], together.codes[n])
        assert alone.verdict.steps[0] == together.verdict.steps[n]
    assert slider.edit(images[:2], [wanted[0], wanted[1]], steps=40).codes.equal(together.codes[:2])


def test_where_the_thresholds_are_not_reached_the_best_is_kept_and_said(slider: Trained) -> None:
    found = slider.edit(DARK[:1], {"smile": 1}, steps=3)
    assert (found.verdict.reached.tolist(), found.verdict.steps.tolist()) == ([False], [3])
    assert float(found.codes[0, 0]) > float(found.start[0, 0]), "the best that was found is not where it began"
    odd = quarters((40, 40, 40, 255))
    found = slider.edit(odd, {"smile": 1}, steps=60, lr=0.05, realism_weight=0.0)
    assert found.verdict.read[0, 1, 0] > 0.95
    assert not found.verdict.reached[0], "the critic was not content"
    found = slider.edit(odd, {"smile": 1}, steps=400, lr=0.05, realism_weight=1.0)
    assert found.verdict.reached[0]
    assert abs(float(found.codes[0, 3])) < 0.5


def test_a_pull_to_where_it_began_shortens_the_way(slider: Trained) -> None:
    near, free = (slider.edit(DARK[:1], {"smile": 1}, steps=400, lr=0.05, distance_weight=w) for w in (0.1, 0.0))
    assert near.verdict.distance[0] < free.verdict.distance[0]
    assert not near.verdict.reached[0]


def bright(images: Tensor) -> Tensor:
    """The right half is brighter than a light grey."""
    return images[..., 8:].mean((1, 2, 3)) - 0.2


def test_a_rule_is_a_constraint_in_any_auto_encoder_alone_or_besides(slider: Trained, straight: Callable[[str], Path]) -> None:
    hats = quarters((40, 40, 140, 80), (200, 40, 140, 60))
    found = slider.edit(hats, rule=bright, steps=300, lr=0.05)
    assert found.verdict.reached.all()
    assert (found.verdict.rule[:, 1] > 0).all()
    assert (found.verdict.rule[:, 0] < 0).all()
    assert found.verdict.wanted.names == ["hat", "smile hat"], "what they show is to stay"
    assert not found.verdict.asked.any()
    assert (found.verdict.realism[:, 1] > 0.3).all()
    found = slider.edit(DARK, {"hat": 1, "glasses": 1}, rule=bright, steps=300, lr=0.05)
    assert found.verdict.reached.all()
    assert (found.codes[:, 1] > 0.2).all()
    found = slider.edit(DARK, {"hat": 0, "glasses": 1}, rule=bright, steps=100, lr=0.05)
    assert not found.verdict.reached.any(), "a dark hat, and a bright half"
    vae = models.load(straight("vae"), device="cpu")
    images = vae.sample(3)
    limit = float((torch.from_numpy(images).float() / 127.5 - 1)[:, :, 8:].mean())
    found = vae.edit(images, rule=lambda x: x[..., 8:].mean((1, 2, 3)) - limit, steps=200, lr=0.05)
    assert found.verdict.reached.all()
    assert found.verdict.realism is None
    with pytest.raises(UserError, match=re.escape("a rule gives torch.float32 of shape (16, 16)")):
        vae.edit(images, rule=lambda x: x.mean((1, 2)))
    wrong: list[tuple[Any, str]] = [
        (lambda x: 0.5, "a rule gives float"),
        (lambda x: (x.mean((1, 2, 3)) > 0).float(), "a rule has no slope"),
        (lambda x: x.mean((1, 2, 3)) / 0, "a rule gives what is no number"),
        (0.5, "a rule is a float"),
    ]
    for rule, what in wrong:
        with pytest.raises(UserError, match=what):
            vae.edit(images, rule=rule)
    assert vae.edit(images, rule=lambda x: x.double().mean((1, 2, 3)) + 2, steps=2).verdict.reached.all()


def test_a_code_near_the_middle_moves_as_far_as_any(slider: Trained) -> None:
    grey = quarters((126, 127, 128, 127))
    found = slider.edit(grey, {"smile": 1}, steps=200, lr=0.01)
    assert found.verdict.reached.all()


@pytest.mark.parametrize(
    ("wanted", "more", "what"),
    [
        ({"smlie": 1}, {}, "unknown attribute 'smlie': --attributes"),
        ({"smile": 2}, {}, "smile=2 is neither 0 nor 1"),
        (None, {}, "nothing is asked for"),
        ("cross", {}, "this model is asked by attributes, not by label: --label"),
        ({}, {}, "nothing is asked for: --attributes"),
        ({"smile": 1}, {"steps": 2.5}, "steps 2.5: --iterations"),
        ([{"smile": 1}] * 3, {}, "3 for 2 images"),
        ({"smile": 1}, {"steps": 0}, "steps 0: --iterations"),
        ({"smile": 1}, {"certainty": 1.5}, "certainty 1.5: --certainty"),
        ({"smile": 1}, {"realism_weight": -1.0}, "realism_weight -1.0: --realism-weight"),
        ({"smile": 1}, {"look": "away"}, "look 'away': --look"),
        ({"smile": 1}, {"search": "far"}, "search 'far': --search"),
        ({"smile": 1}, {"fast": True, "rule": bright}, "one pass follows no rule"),
        ({"smile": 1}, {"fast": True, "steps": 7}, "there is no search in one pass: --iterations"),
        ({"smile": 1}, {"picture_weight": 3.0}, "no classifier of pictures leads it: --picture-weight"),
    ],
)
def test_python_names_what_cannot_be(wanted: Any, more: dict[str, Any], what: str, slider: Trained) -> None:
    with pytest.raises(UserError, match=re.escape(what)):
        slider.edit(DARK, wanted, **more)


def test_a_model_without_critics_says_what_would_serve(straight: Callable[[str], Path]) -> None:
    vae = models.load(straight("vae"), device="cpu")
    with pytest.raises(UserError, match="no critics of its codes") as error:
        vae.edit(vae.sample(1), {"smile": 1})
    assert "--data" in error.value.fix
    assert "lgm train latent-constraints --part vae=RUN" in error.value.fix
    with pytest.raises(UserError, match="this model cannot edit"):
        painter("label").edit(DARK, "cross")


# ---- led by a classifier of pictures -------------------------------------------------------------------------------------------------


class Onlooker(Slider):
    """A classifier that takes a bright last quarter for four fifths of a smile."""

    def logits(self, features: Tensor) -> Tensor:
        return 10 * (features[:, :3] + torch.tensor([0.8, 0, 0]) * features[:, 3:])


def test_a_classifier_leads_through_the_codes_of_any_auto_encoder_and_little_else_changes() -> None:
    blind, reader = painter(None, Slider), painter("attributes", Onlooker)
    effort = {"reader": reader, "steps": 400, "lr": 0.02, "certainty": 0.85}
    found = blind.edit(DARK, {"smile": 1}, **effort)
    said = found.verdict
    assert said.reached.all()
    assert said.asked.tolist() == [[True, False, False]] * 2
    assert said.wanted.values.tolist() == [[1, 0, 1], [1, 0, 0]], "what the reader sees besides is to stay"
    assert np.array_equal(found.codes[1], found.start[1]), "it smiled before: no change is the least"
    assert said.steps[1] == 0
    assert said.read[0, 0, 0] < 0.01
    enough = np.log(0.85 / 0.15) / 10
    assert enough < float(found.codes[0, 0] + 0.8 * found.codes[0, 3]) < enough + 0.05, "the least change with which the reader is sure"
    assert (found.codes[0, 1:] - found.start[0, 1:]).abs().max() < 0.05, "the change is spread over the picture, as squares would have it"
    assert said.realism is said.distance is None
    critical = painter("attributes", Slider).edit(DARK, {"smile": 1}, **effort)
    assert torch.allclose(critical.codes, found.codes, atol=1e-3), "a model's own critics are not asked"


def test_the_price_of_a_change_falls_until_the_classifier_is_sure() -> None:
    """A change that is far too dear at first, and a classifier that is never sure: the search ends with what it found last."""
    blind, reader = painter(None, Slider), painter("attributes", Slider)
    found = blind.edit(DARK[:1], {"smile": 1}, reader=reader, steps=200, lr=0.02, picture_weight=10.0)
    assert found.verdict.reached.all()
    assert not blind.edit(DARK[:1], {"smile": 1}, reader=reader, steps=200, lr=0.02, picture_weight=5000.0).verdict.reached.any()
    never = blind.edit(DARK[:1], {"smile": 1}, reader=reader, steps=20, lr=0.05, certainty=1.0)
    assert (never.verdict.reached.tolist(), never.verdict.steps.tolist()) == ([False], [20])
    assert float(never.codes[0, 0]) > float(never.start[0, 0])


def test_led_edits_depend_on_their_own_image_alone() -> None:
    blind, reader = painter(None, Slider), painter("attributes", Onlooker)
    images = quarters(*np.random.default_rng(0).integers(0, 256, (37, 4)).tolist())
    wanted = [{"smile": n % 2, "hat": 1} if n % 3 else {"glasses": 0} for n in range(37)]
    together = blind.edit(images, wanted, reader=reader, steps=30)
    for n in (0, 17, 36):
        assert torch.equal(blind.edit(images[n : n + 1], wanted[n], reader=reader, steps=30).codes[0], together.codes[n])
    told = blind.edit(images[:2], {"smile": 1}, told={"glasses": 1, "hat": 0}, reader=reader, steps=1)
    assert told.verdict.wanted.values.tolist() == [[1, 1, 0]] * 2


def test_a_led_search_may_begin_where_arithmetic_ends(straight: Callable[[str], Path], pictures: Path) -> None:
    vae, reader = (models.load(straight(name), device="cpu") for name in ("vae", "classifier"))
    data = vae.data(str(pictures))
    images = data.rows("image", np.arange(4))
    begun = vae.edit(images, "disc", data=data, strength=2.0)
    found = vae.edit(images, "disc", data=data, strength=2.0, reader=reader, certainty=1.0, steps=1, lr=1e-6)
    assert torch.allclose(found.codes, begun.codes, atol=1e-4)
    assert not torch.allclose(found.codes, found.start, atol=1e-2)
    assert torch.equal(found.start, begun.start)
    sure = vae.edit(images, "disc", data=data, strength=2.0, reader=reader, certainty=0.0, steps=1)
    assert torch.equal(sure.codes, sure.start), "the reader is content with what is there"


def test_a_classifier_of_classes_leads_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, straight: Callable[[str], Path], pictures: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    run, reader, image = straight("vae"), straight("classifier"), sorted(pictures.rglob("*.png"))[0]
    shown, _ = done("edit", run, image, "--label", "cross,disc", "--reader", reader, "--iterations", 3, "--picture-weight", 1)
    trained, critic = (models.load(one, device="cpu") for one in (run, reader))
    for name, row in zip(("cross", "disc"), shown["edits"], strict=True):
        found = trained.edit(trained.images([image]), name, reader=critic, steps=3, picture_weight=1.0)
        assert row["read"][name] == pytest.approx(found.verdict.read[0, :, critic.model.spec.classes.index(name)].tolist())
        assert set(row) == {"image", "edit", "reached", "steps", "read"}
    assert "unknown label 'dsic'" in refused_beside("edit", run, image, "--label", "dsic", "--reader", reader)


@pytest.mark.parametrize(
    ("reader", "more", "what"),
    [
        (("attributes", Slider), {"fast": True}, "a classifier of pictures leads this way of editing, alone: --fast"),
        (("attributes", Slider), {"rule": bright}, "a classifier of pictures leads this way of editing, alone: rule"),
        (("attributes", Slider), {"picture_weight": -1}, "picture_weight -1: --picture-weight"),
        (("attributes", Slider), {"search": "free"}, "a classifier of pictures leads this way of editing: --search"),
        ((None, Copyist), {}, "this model does not classify"),
        (("label", Critic), {}, "this model is asked by label, not by attributes: --attributes"),
    ],
)
def test_what_a_classifier_cannot_lead_is_said(reader: tuple[Any, Any], more: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=re.escape(what)):
        painter(None, Slider).edit(DARK, {"smile": 1}, reader=painter(*reader), **more)


def test_a_classifier_of_other_pictures_or_of_a_model_that_is_told_cannot_lead() -> None:
    small = painter("attributes", Slider, height=8, width=8)
    what = "the classifier looks at 8 x 8 in 1 channels, the pictures are 16 x 16 in 1 channels"
    with pytest.raises(UserError, match=re.escape(what)):
        painter(None, Slider).edit(DARK, {"smile": 1}, reader=small)
    with pytest.raises(UserError, match="this model's decoder is told what to show: --reader"):
        painter("label", Copyist).edit(DARK, {"smile": 1}, reader=painter("attributes", Slider))


# ---- arithmetic ----------------------------------------------------------------------------------------------------------------------


def test_arithmetic_adds_the_difference_of_mean_codes(straight: Callable[[str], Path]) -> None:
    vae = models.load(straight("vae"), device="cpu")
    data = support.image_data(30, 16, 16)
    images = data.rows("image", np.arange(4))
    codes = vae.encode(data.all("image"))
    names = data.fields["attributes"].names
    has = torch.from_numpy(data.all("attributes")).bool()
    start = vae.encode(images)
    ways = [codes[has[:, k]].mean(0) - codes[~has[:, k]].mean(0) for k in (0, 1)]
    found = vae.edit(images, {names[0]: 1, names[1]: 0}, data=data)
    assert torch.allclose(found.codes, start + ways[0] - ways[1], atol=1e-5)
    assert found.verdict is None
    each = vae.edit(images[:2], [{names[0]: 0}, {names[1]: 1}], data=data)
    assert torch.allclose(each.codes, start[:2] + torch.stack([-ways[0], ways[1]]), atol=1e-5)
    label = torch.from_numpy(data.all("label"))
    means = torch.stack([codes[label == k].mean(0) for k in range(int(label.max()) + 1)])
    found = vae.edit(images, data.fields["label"].names[1], data=data)
    now = [int((means - code).square().sum(1).argmin()) for code in start]
    assert torch.allclose(found.codes, start + means[1] - means[now], atol=1e-5)
    further = vae.edit(images, {names[0]: 0}, data=data, strength=2.5)
    assert torch.allclose(further.codes, start - 2.5 * ways[0], atol=1e-5)
    with pytest.raises(UserError, match="a strength of 2: --strength"):
        vae.edit(images, rule=bright, strength=2)


def test_arithmetic_says_what_the_data_lack(straight: Callable[[str], Path], pictures: Path) -> None:
    vae = models.load(straight("vae"), device="cpu")
    images, data = vae.sample(2), vae.data(str(pictures))
    with pytest.raises(UserError, match="these data have no attributes: --data"):
        vae.edit(images, {"smile": 1}, data=data)
    with pytest.raises(UserError, match="unknown class 'crsos'") as error:
        vae.edit(images, "crsos", data=data)
    assert "cross" in error.value.fix
    with pytest.raises(UserError, match="no critics in this way of editing: rule"):
        vae.edit(images, "cross", data=data, rule=bright)


# ---- what a decoder is told ----------------------------------------------------------------------------------------------------------


def test_a_decoder_that_is_told_decodes_the_same_code_under_another_name() -> None:
    trained = painter("label", Critic)
    images = trained.sample(3, told=["cross"])
    found = trained.edit(images, "disc")
    assert torch.equal(found.codes, found.start)
    assert (found.images[:, :, 8:] == images[:, :, 8:]).mean() > 0.9, "the code is another"
    assert [int(image[0, 0, 0]) // 8 for image in found.images] == [1, 1, 1]
    assert [told.names for told in found.told] == [["cross"] * 3, ["disc"] * 3]
    trained = painter("attributes", Copyist)
    found = trained.edit(images, {"hat": 1}, told={"smile": 1})
    assert found.told[1].names == ["smile hat"] * 3
    with pytest.raises(UserError, match="nobody says which attributes"):
        trained.edit(images, {"hat": 1})
    assert error_fix(trained, images) == "--told"
    with pytest.raises(UserError, match="no critics in this way of editing: --fast"):
        trained.edit(images, {"hat": 1}, told={"smile": 1}, fast=True)
    with pytest.raises(UserError, match="no search in this way of editing: --certainty"):
        trained.edit(images, {"hat": 1}, told={"smile": 1}, certainty=0.9)


def error_fix(trained: Trained, images: np.ndarray) -> str:
    """The option that is missing where nobody says what images show."""
    with pytest.raises(UserError) as error:
        trained.edit(images, {"hat": 1})
    return str(error.value.where)


# ---- the command line ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(paint: Callable[..., Any], tmp_path: Path) -> Trained:
    trained: Trained = paint("attributes", Slider)
    for name, image in zip(("one", "two"), DARK):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{name}.png")
    return trained


def test_a_grid_of_images_and_edits(drawn: Trained) -> None:
    words = ["one.png", "two.png", "--attributes", "smile=1", "--attributes", "hat=0,glasses=1", "--lr", 0.05, "-o", "a.png"]
    shown, said = done("edit", "run", *words)
    assert shown["grid"] == "a.png"
    found = cells("a.png", 4)
    edits = [drawn.edit(DARK, wanted, lr=0.05) for wanted in ({"smile": 1}, {"hat": 0, "glasses": 1})]
    again, _ = drawn.reconstruct(DARK)
    wanted = [image for n in range(2) for image in (DARK[n], again[n], edits[0].images[n], edits[1].images[n])]
    assert all(np.array_equal(cell.squeeze(), image.squeeze()) for cell, image in zip(found, wanted, strict=True))
    rows = shown["edits"]
    assert [row["image"] for row in rows] == ["one.png", "two.png"] * 2
    assert rows[2]["edit"] == {"hat": "0", "glasses": "1"}
    assert set(rows[2]["read"]) == {"glasses", "hat"}
    assert rows[0]["read"]["smile"] == pytest.approx(edits[0].verdict.read[0, :, 0].tolist())
    assert rows[0]["steps"] == edits[0].verdict.steps[0]
    assert shown["reached"] == 1
    result = lgm("edit", "run", *words[:-1], "b.png")
    assert "glasses=1" in result.stdout
    assert result.stdout.endswith("b.png\n")
    assert result.stderr == said == ""


def test_the_way_in_pictures_and_single_files(drawn: Trained) -> None:
    shown, said = done("edit", "run", "one.png", "two.png", "--attributes", "smile=1", "--steps", 5, "--iterations", 2)
    assert "2 of 2 edits are not all that was asked for" not in said, "the second smiled before"
    assert "1 of 2 edits are not all that was asked for" in said
    assert shown["reached"] == 0.5
    assert shown["grid"] == "run-edits.png"
    found = cells("run-edits.png", 6)
    edited = drawn.edit(DARK, {"smile": 1}, steps=2)
    for n in range(2):
        row = found[6 * n : 6 * n + 6]
        assert np.array_equal(row[0].squeeze(), DARK[n].squeeze())
        assert np.array_equal(row[5].squeeze(), edited.images[n].squeeze())
    middle = (edited.start[0] + edited.codes[0]) / 2
    assert abs(int(found[3][0, 0]) - (float(middle[0]) + 1) * 127.5) < 1
    shown, _ = done("edit", "run", "one.png", "two.png", "--attributes", "smile=1", "--fast", "--attributes", "hat=1", "--out", "out")
    assert sorted(path.name for path in Path("out").iterdir()) == [f"{n:06d}.png" for n in range(4)]
    with Image.open("out/000000.png") as image:
        assert np.asarray(image)[0, 0] == 255


def test_names_that_look_like_markup_and_what_a_decoder_is_told(paint: Callable[..., Any], tmp_path: Path) -> None:
    trained = paint("label", Copyist)
    Image.fromarray(trained.sample(1, told="cross")[0, ..., 0]).save(tmp_path / "a[b].png")
    result = lgm("edit", "run", "a[b].png", "--label", "t-shirt, top", "--told", "cross", "-o", "a.png")
    assert result.exit_code == 0, result.output
    found = cells("a.png", 3)
    assert [int(cell.flat[0]) // 8 for cell in found] == [0, 0, 2]
    result = lgm("edit", "run", "a[b].png", "--label", "disc", "-o", "b.png")
    assert (result.exit_code, Path("b.png").exists()) == (2, False)
    assert "nobody says which label the images show: --told" in result.stderr


def test_names_with_brackets_stand_in_the_table(drawn: Trained) -> None:
    Path("one.png").rename("one[b].png")
    result = lgm("edit", "run", "one[b].png", "--attributes", "smile=1", "-o", "a.png", "--lr", 0.05)
    assert result.exit_code == 0, result.output
    assert "one[b].png" in result.stdout


def test_an_independent_classifier_is_asked_before_and_after(
    monkeypatch: pytest.MonkeyPatch, straight: Callable[[str], Path], pictures: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    run, judge = straight("latent-constraints"), straight("classifier")
    image = sorted(pictures.rglob("*.png"))[0]
    shown, _ = done("edit", run, image, "--label", "cross,disc", "--iterations", 3, "--classifier", judge)
    assert [row["edit"] for row in shown["edits"]] == ["cross", "disc"]
    trained, critic = (models.load(one, device="cpu") for one in (run, judge))
    images = trained.images([image])
    for name, row in zip(("cross", "disc"), shown["edits"]):
        assert row["classifier"][name] == pytest.approx(
            [seen(critic, one, name) for one in (images, trained.edit(images, name, steps=3).images)]
        )
        assert 0 <= row["read"][name][0] <= 1
    assert "unknown label 'dsic'" in refused_beside("edit", run, image, "--label", "dsic", "--classifier", judge)


def seen(critic: Trained, images: np.ndarray, name: str) -> float:
    with torch.no_grad():
        logits = critic.model.classify(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1)
    return float(logits.softmax(1)[0, critic.model.spec.classes.index(name)])


def refused_beside(*words: object) -> str:
    """The message of a command that must end as the user's mistake, beside what other commands left."""
    result = lgm(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "nothing is asked for: --attributes"),
        (["--attributes", "smile"], "'smile' is not NAME=0 or NAME=1"),
        (["--attributes", "smile=1", "--label", "3"], "both --attributes and --label"),
        (["--label", "disc", "--steps", "1"], "a way has two ends: --steps"),
        (["--label", "disc", "--steps", "3", "--out", "o"], "both --out and --steps"),
        (["--label", "disk"], "unknown label 'disk': --label"),
        (["--attributes", "smile=1"], "this model is asked by label, not by attributes"),
        (["--label", "disc", "--certainty", "2"], "certainty 2.0: --certainty"),
        (["--label", "disc", "--data", "nowhere"], "nowhere"),
        (["--label", "disc", "--classifier", "nowhere"], "nowhere"),
        (["--label", "disc", "--told", "cross"], "nobody asks what the images show in this way of editing: --told"),
        (["--label", "disc", "--fast", "--lr", "3"], "there is no search in one pass: --lr"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    words: list[str], what: str, monkeypatch: pytest.MonkeyPatch, straight: Callable[[str], Path], pictures: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert what in refused("edit", straight("latent-constraints"), sorted(pictures.rglob("*.png"))[0], *words)


def test_without_a_way_to_edit_the_ways_are_named(
    straight: Callable[[str], Path], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "give a classifier (--reader RUN) or labelled data" in refused("edit", straight("vae"), f"{pictures}:0", "--label", "disc")


def test_classes_of_the_data_may_have_commas(
    straight: Callable[[str], Path], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = sorted(pictures.rglob("*.png"))
    rows = [f'{file.relative_to(pictures)},"{("x, y", "z")[n % 2]}"' for n, file in enumerate(files)]
    Path("t.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    found, _ = done("edit", straight("vae"), f"{pictures}:0", "--label", "x, y", "--data", f"{pictures}[labels=t.csv]")
    assert [row["edit"] for row in found["edits"]] == ["x, y"]


def test_a_run_without_labels_knows_what_is_plausible_but_nothing_by_name(places: dict[str, Path], tmp_path: Path) -> None:
    settings = support.tiny("latent-constraints", {"condition": "none"}, parts={"vae": str(places["near"])}, images=16)
    support.call(support.train, "latent-constraints", str(places["here"]), str(tmp_path / "run"), settings)
    trained = models.load(tmp_path / "run", device="cpu")
    images = trained.sample(2)
    with pytest.raises(UserError, match="trained without labels"):
        trained.edit(images, {"smile": 1})
    found = trained.edit(images, rule=lambda x: x.mean((1, 2, 3)) + 2, steps=2)
    assert found.verdict.realism.shape == (2, 2)
    assert "classifies nothing" in refused_beside(
        "fid", str(places["here"]), str(places["here"]), "--features", f"classifier:{tmp_path / 'run'}"
    )


def test_labels_that_the_auto_encoder_never_saw(places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table beside the images: the data stay the auto-encoder's own."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "here"
    shutil.copytree(places["here"], folder)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.png"))
    table = "\n".join(["file,wide,tall", *(f"{file},{n % 2},{n % 3 // 2}" for n, file in enumerate(files))])
    Path("labels.csv").write_text(table)
    words = ["--part", f"vae={places['near']}", "--images", 16, "--batch", 8, "--set", "hidden=8", "--log-every", 8]
    result = lgm("train", "latent-constraints", "--data", folder, "--labels", "labels.csv", *words, "--out", "run")
    assert result.exit_code == 0, result.output
    trained = models.load("run", device="cpu")
    assert (trained.condition, trained.model.spec.attributes) == ("attributes", ("wide", "tall"))
    found = trained.edit(trained.sample(2), {"tall": 1}, steps=2)
    assert found.verdict.wanted.values[:, 1].tolist() == [1, 1]
