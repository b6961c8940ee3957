"""Asking for classes, identities and attributes, and cutting the noise off: in Python and on the command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from painter import SPEC, asked_of, cells, done, painter, refused
from PIL import Image
from scipy import stats
from support import REPOSITORY, image_data

from models import api, conditions, evaluation
from models.errors import UserError
from models.generate import truncated
from models.randomness import image_noise

Paint = Callable[..., api.Trained]


# ---- what can be asked ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "numbers"),
    [
        ("disc", [1]),
        (1, [1]),
        (np.int64(1), [1]),
        ("disc, cross", [1, 0]),
        ("2,disc", [2, 1]),
        ("t-shirt, top", [2]),
        (["t-shirt, top", "0,1"], [2, 0, 1]),
        (np.array([1, 1, 0]), [1, 1, 0]),
    ],
)
def test_labels_are_names_or_numbers(label: Any, numbers: list[int]) -> None:
    found = conditions.resolve("label", SPEC, label)
    assert [int(shown.value) for shown in found] == numbers
    assert [shown.name for shown in found] == [SPEC.classes[number] for number in numbers]


def test_a_name_counts_before_a_number() -> None:
    spec = painter("label", classes=("one", "0", "2")).model.spec
    assert [int(shown.value) for shown in conditions.resolve("label", spec, "0,1,2")] == [1, 1, 2]


def test_file_names_begin_with_the_class() -> None:
    many = painter("label", classes=tuple(map(str, range(12)))).model.spec
    assert [shown.stem for shown in conditions.each("label", many)][9:] == ["09", "10", "11"]
    odd = painter("label", classes=("t-shirt/top", "..", "a\nb")).model.spec
    assert [shown.stem for shown in conditions.each("label", odd)] == ["0-t-shirt-top", "1", "2-a-b"]
    assert conditions.resolve("identity", SPEC, "7")[0].stem == "07"


def test_attributes_that_are_not_named_are_0() -> None:
    [found] = conditions.resolve("attributes", SPEC, attributes={"hat": 1, "smile": "0"})
    assert (found.value.tolist(), found.name) == ([0, 0, 1], "hat")
    several = conditions.resolve("attributes", SPEC, attributes=[{"smile": True}, {}])
    assert [shown.value.tolist() for shown in several] == [[1, 0, 0], [0, 0, 0]]
    assert conditions.parse_attributes(["smile=1, hat=0", "glasses=1"]) == {"smile": "1", "hat": "0", "glasses": "1"}


def test_the_truth_goes_by_names() -> None:
    data = image_data()  # classes one, two, three; attributes left, right
    classes = conditions.truth("label", painter("label").model.spec, data, [0, 1])
    assert classes == ["one", "two"]
    assert conditions.truth("identity", SPEC, data, [6]) == [1]
    assert conditions.truth(None, SPEC, data, [0]) is None
    assert conditions.truth("attributes", SPEC, data, [0]) is None  # other attributes
    spec = painter("attributes", attributes=("right", "left")).model.spec
    left, right = data.attributes[3]
    assert conditions.truth("attributes", spec, data, [3]) == [{"right": right, "left": left}]


@pytest.mark.parametrize(
    ("kind", "words", "what", "fix"),
    [
        ("label", ["--label", "dics"], "unknown label 'dics': --label", "did you mean 'disc'?"),
        ("label", ["--label", "disc,3"], "label 3 of 3 classes: --label", "give a number from 0 to 2, or a class's name"),
        ("label", ["--label", "-1"], "unknown label '-1'", "known: cross"),
        ("label", ["--label", ","], "no label is named", "a class's name or number"),
        ("label", ["--attributes", "smile=1"], "asked by label, not by attributes: --attributes", "use --label"),
        ("identity", ["--label", "30"], "label 30 of 30 identities", "from 0 to 29"),
        ("identity", ["--label", "disc"], "'disc' is no identity", "from 0 to 29"),
        ("attributes", ["--label", "disc"], "asked by attributes, not by label: --label", "use --attributes"),
        ("attributes", ["--attributes", "smlie=1"], "unknown attribute 'smlie'", "did you mean 'smile'?"),
        ("attributes", ["--attributes", "smile=2"], "smile=2 is neither 0 nor 1", "write smile=0 or smile=1"),
        ("attributes", ["--attributes", "smile"], "'smile' is not NAME=0 or NAME=1", "--attributes smile=1,glasses=0"),
        ("attributes", ["--attributes", "smile=1", "--label", "1"], "asked by attributes, not by label", "use --attributes"),
        (None, ["--label", "disc"], "this model takes no condition", "leave it out"),
        (None, ["--attributes", "smile=1"], "this model takes no condition", "leave it out"),
        ("label", ["--truncation", "0"], "truncation 0.0: --truncation", "above 0"),
        (None, ["--truncation", "nan"], "truncation nan", "above 0"),
        (None, ["--truncation", "inf"], "truncation inf", "leave it out for none"),
    ],
)
def test_mistakes_are_named(kind: str | None, words: list[str], what: str, fix: str, paint: Paint) -> None:
    paint(kind)
    message = refused("sample", "run", *words)
    assert what in message.partition("\n")[0]
    assert fix in message.partition("\n")[2]


def test_the_example_of_the_documentation(paint: Paint) -> None:
    """The Python of docs/sampling.md."""
    paint("label", classes=tuple("0123456789"))
    [code] = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "sampling.md").read_text(), re.S)
    names: dict[str, Any] = {}
    exec(code, names)
    assert [asked_of(image) for image in names["images"]] == list(range(8))
    assert [asked_of(image) for image in names["found"].images] == [0, 1]
    assert [asked_of(image) for image in names["strip"]] == [3] * 10


# ---- which noise belongs to which image ----------------------------------------------------------------------------------------------


def test_each_label_is_drawn_from_the_same_noises_as_alone() -> None:
    trained = painter("label")
    made = trained.sample(20, seed=3, label=["disc", 0])
    assert made.shape == (40, 16, 16, 1)
    assert [asked_of(image) for image in made] == [1] * 20 + [0] * 20
    assert np.array_equal(made[:20, :, 8:], made[20:, :, 8:])
    assert np.array_equal(made[:20], trained.sample(20, seed=3, label=1))
    assert np.array_equal(made[17:20], trained.sample(3, seed=3, first=17, label="disc"))
    assert len(np.unique(made[:20, 0, -1])) > 10
    for batch in (1, 16, 33):
        assert np.array_equal(np.concatenate(list(trained.sample_blocks(20, 3, batch=batch, label=["disc", 0]))), made)


def test_where_nobody_says_the_classes_come_in_turn() -> None:
    for kind, count in (("label", 3), ("identity", 30)):
        trained = painter(kind)
        made = trained.sample(33)
        assert [asked_of(image) for image in made] == [number % count for number in range(33)]
        assert trained.asked(range(4, 33)).tolist() == [number % count for number in range(4, 33)]  # type: ignore[union-attr]
        assert np.array_equal(made[:, :, 8:], painter(None).sample(33)[:, :, 8:])
    assert {asked_of(image) for image in painter("attributes").sample(5)} == {0}
    assert {asked_of(image) for image in painter("attributes").sample(5, attributes={"glasses": 1, "hat": True})} == {6}


def test_samples_that_nobody_asks_for_attributes_are_not_judged_by_them(paint: Paint, pictures: Path) -> None:
    paint("attributes")
    with pytest.raises(UserError, match="nobody says which attributes its samples should show"):
        evaluation.evaluate("run", data=str(pictures), metrics=["accuracy"])


# ---- lgm sample ----------------------------------------------------------------------------------------------------------------------


def test_sample_draws_a_row_for_each_label(paint: Paint) -> None:
    trained = paint("label")
    shown, said = done("sample", "run", "--label", "disc,cross", "--label", "t-shirt, top", "--label", 1, "-n", 5, "--seed", 2)
    assert shown == {"grid": "run-samples.png", "images": 15, "seed": 2, "labels": ["disc", "cross", "t-shirt, top"]}
    assert said == ""
    expected = trained.sample(5, seed=2, label=[1, 0, 2])
    assert np.array_equal(cells("run-samples.png", 5), expected[..., 0])


def test_sample_draws_every_class_where_nobody_says(paint: Paint) -> None:
    paint("label")
    shown, said = done("sample", "run")
    assert shown["images"] == 24
    assert said == "note: no --label: all 3 are drawn, a row each (cross, disc, t-shirt, top)\n"
    assert [asked_of(cell) for cell in cells(shown["grid"], 8)] == [0] * 8 + [1] * 8 + [2] * 8
    paint("identity")
    shown, said = done("sample", "run", "-n", 2)
    assert said.startswith("note: no --label: the first 20 of 30 are drawn, a row each (identity 0, ")
    assert [asked_of(cell) for cell in cells(shown["grid"], 2)] == [number // 2 for number in range(40)]


def test_sample_with_columns_begins_each_label_on_a_new_row(paint: Paint) -> None:
    trained = paint("label")
    shown, _ = done("sample", "run", "--label", "1,0", "-n", 5, "--columns", 3)
    found, made = cells(shown["grid"], 3), trained.sample(5, label=[1, 0])[..., 0]
    assert np.array_equal(found[:5], made[:5])
    assert np.array_equal(found[6:11], made[5:])
    assert all((blank == 255).all() for blank in (found[5], found[11]))


def test_sample_singles_carry_the_class(paint: Paint) -> None:
    trained = paint("label")
    shown, _ = done("sample", "run", "--label", "2,1", "-n", 20, "--batch", 16, "--out", "out")
    assert shown["files"] == 40
    assert sorted(p.name for p in Path("out").iterdir())[::19] == ["1-disc-000000.png", "1-disc-000019.png", "2-t-shirt-top-000018.png"]
    with Image.open("out/2-t-shirt-top-000017.png") as image:
        assert np.array_equal(np.asarray(image), trained.sample(18, label=2)[17, ..., 0])
    Path("out/holiday-000001.png").write_bytes(b"precious")
    done("sample", "run", "--label", 1, "-n", 1, "--out", "out", "--force")
    assert sorted(p.name for p in Path("out").iterdir()) == ["1-disc-000000.png", "holiday-000001.png"]


def test_sample_by_attributes(paint: Paint) -> None:
    paint("attributes")
    shown, said = done("sample", "run", "-n", 4)
    assert said == "note: no --attributes: all are 0 (smile, glasses, hat)\n"
    assert {asked_of(cell) for cell in cells(shown["grid"], 2)} == {0}
    shown, said = done("sample", "run", "--attributes", "hat=1,glasses=0", "--attributes", "smile=1")
    assert (shown["images"], said) == (64, "")
    assert {asked_of(cell) for cell in cells(shown["grid"], 8)} == {5}


def test_sample_of_a_model_without_condition_says_nothing(paint: Paint) -> None:
    paint(None)
    assert done("sample", "run") == ({"grid": "run-samples.png", "images": 64, "seed": 0}, "")


# ---- truncation ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.01, 0.3, 0.7, 1, 2, 5, 10])
def test_truncation_keeps_each_number_s_rank(limit: float) -> None:
    z = torch.linspace(-8, 8, 321, dtype=torch.float64)
    found = truncated(z, limit)
    assert torch.isfinite(found).all()
    assert found.abs().max() <= limit
    assert torch.equal(found, -truncated(-z, limit))
    assert (found.diff() >= 0).all()
    assert abs(float(found[160])) < 1e-12
    below = z <= 0  # SciPy's quantiles lose their digits near 1
    exact = stats.truncnorm.ppf(stats.norm.cdf(z[below].numpy()), -limit, limit)
    assert found[below].numpy() == pytest.approx(exact, rel=1e-6, abs=1e-12)


def test_a_far_limit_changes_nothing_and_a_near_one_makes_noise_small() -> None:
    noise = image_noise(0, range(4), (3, 5))
    assert torch.allclose(truncated(noise, 40), noise, atol=1e-6)
    assert (truncated(noise, 0.7).dtype, truncated(noise, 0.7).shape) == (torch.float32, noise.shape)
    near = truncated(torch.randn(50_000, generator=torch.Generator().manual_seed(0)), 1.5)
    assert float(near.std()) == pytest.approx(stats.truncnorm.std(-1.5, 1.5), abs=0.01)


def test_truncated_samples_come_from_truncated_noise(paint: Paint) -> None:
    trained = paint("label")
    made = trained.sample(20, seed=1, label=1, truncation=0.5)
    expected = torch.tanh(truncated(image_noise(1, range(20), (1,)), 0.5) / 2)[:, 0].numpy()
    assert np.abs(made[:, 0, -1, 0] - (expected + 1) * 127.5).max() <= 0.51
    assert np.array_equal(trained.sample(3, seed=1, first=17, label=1, truncation=0.5), made[17:])
    shown, _ = done("sample", "run", "--label", 1, "-n", 20, "--seed", 1, "--truncation", 0.5)
    assert shown["truncation"] == 0.5
    assert np.array_equal(cells(shown["grid"], 20), made[..., 0])


# ---- lgm interpolate -----------------------------------------------------------------------------------------------------------------


def test_interpolate_between_seeds_without_an_encoder(paint: Paint) -> None:
    trained = paint(None)
    shown, said = done("interpolate", "run", 3, 4, "-n", 4)
    assert (shown, said) == ({"files": ["run-interpolation.png"], "space": "noise", "projection_errors": []}, "")
    found = cells("run-interpolation.png", 4)
    assert np.array_equal(found[0], trained.sample(1, seed=3)[0, ..., 0])
    assert np.array_equal(found[3], trained.sample(1, seed=4)[0, ..., 0])


def test_interpolate_shows_one_label_all_along(paint: Paint) -> None:
    paint("label")
    shown, said = done("interpolate", "run", 3, 4, "-n", 3, "--label", "t-shirt, top")
    assert (shown["shows"], said) == ("t-shirt, top", "")
    assert [asked_of(cell) for cell in cells(*shown["files"], 3)] == [2, 2, 2]
    shown, said = done("interpolate", "run", 3, 4, "-n", 3)
    assert said == "note: neither --label nor --attributes: the way shows cross\n"
    assert [asked_of(cell) for cell in cells(*shown["files"], 3)] == [0, 0, 0]
    paint("attributes")
    shown, _ = done("interpolate", "run", 3, 4, "-n", 3, "--attributes", "glasses=1")
    assert [asked_of(cell) for cell in cells(*shown["files"], 3)] == [2, 2, 2]


def test_interpolate_refuses_what_it_cannot_ask(paint: Paint, pictures: Path) -> None:
    files = sorted(pictures.rglob("*.png"))[:2]
    paint("label")
    assert "2 of them for one way: --label" in refused("interpolate", "run", 1, 2, "--label", "0,1")
    assert "nobody says which label the images show: --label" in refused("interpolate", "run", *files)
    assert "asked by label, not by attributes" in refused("interpolate", "run", 1, 2, "--attributes", "hat=1")
    paint(None)
    assert "takes no condition" in refused("interpolate", "run", 1, 2, "--label", "0")


def test_interpolate_projects_images_of_the_label(paint: Paint) -> None:
    trained = paint("label")
    a, b = trained.sample(2, seed=5, label=1)
    way = trained.way(a, b, number=3, label="disc", search={"steps": 60, "restarts": 2})
    assert (way.space, way.shows) == ("noise", "disc")
    assert max(way.errors) < 1e-3
    assert np.abs(way.images[[0, 2]].astype(int) - np.stack([a, b])).max() <= 8
