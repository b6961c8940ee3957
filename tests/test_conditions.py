"""Asking for classes, identities and attributes, and cutting the noise off: in Python and on the command line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from painter import SPEC, Copyist, Critic, asked_of, cells, done, lgm, painter, refused
from PIL import Image
from scipy import stats
from support import REPOSITORY, image_data, tiny

from models import api, evaluation
from models.capabilities import told
from models.capabilities.sample import truncated
from models.data.dataset import ImageData
from models.data.images import save_png
from models.errors import UserError
from models.evaluation import collect, plan, sides
from models.metrics.features.classifier import ClassifierFeatures
from models.randomness import image_noise
from models.training import observers, sources

Paint = Callable[..., api.Trained]


def resolved(kind: str, words: Any, **spec: Any) -> told.Told:
    """What a model that is told by `kind` makes of these words."""
    found = told.resolve(painter(kind, **spec).model, words)
    assert found is not None
    return found


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
    found = resolved("label", label)
    assert found.values.tolist() == numbers
    assert found.names == [SPEC.classes[number] for number in numbers]


def test_a_name_counts_before_a_number() -> None:
    assert resolved("label", "0,1,2", classes=("one", "0", "2")).values.tolist() == [1, 1, 2]


def test_words_may_come_one_by_one() -> None:
    said = resolved("attributes", iter([{"smile": 1}, {"hat": 1, "glasses": 0}]))
    assert said.values.tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("label", [], "nothing is named: --label"),
        ("attributes", [], "nothing is named: --attributes"),
        ("label", 1.5, "'1.5' is no label"),
        ("label", np.array(7), "label 7 of 3 classes"),
        ("attributes", np.zeros(3), "asked by attributes, not by label"),
        ("attributes", [{"smile": 1}, "hat"], "'hat' among attributes"),
        (None, 1, "this model takes no condition"),
    ],
)
def test_words_from_python_that_say_nothing_are_refused(kind: str | None, words: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        painter(kind).sample(1, told=words)


def test_what_was_told_of_one_model_is_told_again_or_refused() -> None:
    said = resolved("label", "disc")
    assert asked_of(painter("label").sample(1, told=said)[0]) == 1
    for kind, message in ((None, "takes no condition"), ("identity", "other data"), ("attributes", "asked by attributes, not by label")):
        with pytest.raises(UserError, match=message):
            painter(kind).sample(1, told=said)
    with pytest.raises(UserError, match="other data"):
        painter("label", classes=("disc", "cross", "t-shirt, top")).sample(1, told=said)


def test_file_names_begin_with_the_class() -> None:
    many = told.every(painter("label", classes=tuple(map(str, range(12)))).model)
    odd = told.every(painter("label", classes=("t-shirt/top", "..", "a\nb")).model)
    assert many is not None and odd is not None
    assert many.stems[9:] == ["09", "10", "11"]
    assert odd.stems == ["0-t-shirt-top", "1", "2-a-b"]
    assert resolved("identity", "7").stems == ["07"]


def test_attributes_that_are_not_named_are_0() -> None:
    found = resolved("attributes", {"hat": 1, "smile": "0"})
    assert (found.values.tolist(), found.names) == ([[0, 0, 1]], ["hat"])
    several = resolved("attributes", [{"smile": True}, {}])
    assert (several.values.tolist(), several.names) == ([[1, 0, 0], [0, 0, 0]], ["smile", "no attribute"])
    assert told.parse_attributes(["smile=1, hat=0", "glasses=1"]) == {"smile": "1", "hat": "0", "glasses": "1"}
    assert told.parse_attributes(["smile=1,smile=1"]) == {"smile": "1"}
    with pytest.raises(UserError, match="smile is to be 1 and 0"):
        told.parse_attributes(["smile=1", "smile=0"])


def test_the_truth_goes_by_names() -> None:
    data = image_data()  # classes one, two, three; attributes left, right
    assert painter("label").truth(data, [0, 1]) == ["one", "two"]
    assert painter("identity").truth(data, [6]) == [1]
    assert painter(None).truth(data, [0]) is None
    assert painter("attributes").truth(data, [0]) is None  # other attributes
    left, right = data.attributes[3]
    assert painter("attributes", attributes=("right", "left")).truth(data, [3]) == [{"right": right, "left": left}]


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
    made = trained.sample(20, seed=3, told=["disc", 0])
    assert made.shape == (40, 16, 16, 1)
    assert [asked_of(image) for image in made] == [1] * 20 + [0] * 20
    assert np.array_equal(made[:20, :, 8:], made[20:, :, 8:])
    assert np.array_equal(made[:20], trained.sample(20, seed=3, told=1))
    assert np.array_equal(made[17:20], trained.sample(3, seed=3, first=17, told="disc"))
    assert len(np.unique(made[:20, 0, -1])) > 10
    for batch in (1, 16, 33):
        assert np.array_equal(np.concatenate(list(trained.sample_blocks(20, 3, batch=batch, told=["disc", 0]))), made)


def test_where_nobody_says_the_classes_come_in_turn() -> None:
    for kind, count in (("label", 3), ("identity", 30)):
        trained = painter(kind)
        made = trained.sample(33)
        assert [asked_of(image) for image in made] == [number % count for number in range(33)]
        assert trained.in_turn(range(4, 33)).values.tolist() == [number % count for number in range(4, 33)]  # type: ignore[union-attr]
        assert np.array_equal(made[:, :, 8:], painter(None).sample(33)[:, :, 8:])
    assert {asked_of(image) for image in painter("attributes").sample(5)} == {0}
    assert {asked_of(image) for image in painter("attributes").sample(5, told={"glasses": 1, "hat": True})} == {6}


# ---- lgm sample ----------------------------------------------------------------------------------------------------------------------


def test_sample_draws_a_row_for_each_label(paint: Paint) -> None:
    trained = paint("label")
    shown, said = done("sample", "run", "--label", "disc,cross", "--label", "t-shirt, top", "--label", 1, "-n", 5, "--seed", 2)
    assert shown == {"grid": "run-samples.png", "images": 15, "seed": 2, "labels": ["disc", "cross", "t-shirt, top"]}
    assert said == ""
    expected = trained.sample(5, seed=2, told=[1, 0, 2])
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
    found, made = cells(shown["grid"], 3), trained.sample(5, told=[1, 0])[..., 0]
    assert np.array_equal(found[:5], made[:5])
    assert np.array_equal(found[6:11], made[5:])
    assert all((blank == 255).all() for blank in (found[5], found[11]))


def test_sample_singles_carry_the_class(paint: Paint) -> None:
    trained = paint("label")
    shown, _ = done("sample", "run", "--label", "2,1", "-n", 20, "--batch", 16, "--out", "out")
    assert shown["files"] == 40
    assert sorted(p.name for p in Path("out").iterdir())[::19] == ["1-disc-000000.png", "1-disc-000019.png", "2-t-shirt-top-000018.png"]
    with Image.open("out/2-t-shirt-top-000017.png") as image:
        assert np.array_equal(np.asarray(image), trained.sample(18, told=2)[17, ..., 0])
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
    made = trained.sample(20, seed=1, told=1, truncation=0.5)
    expected = torch.tanh(truncated(image_noise(1, range(20), (1,)), 0.5) / 2)[:, 0].numpy()
    assert np.abs(made[:, 0, -1, 0] - (expected + 1) * 127.5).max() <= 0.51
    assert np.array_equal(trained.sample(3, seed=1, first=17, told=1, truncation=0.5), made[17:])
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
    assert "3 of them for one way: --label" in refused("interpolate", "run", 1, 2, "--label", "0,1,2")
    assert "nobody says which label the images show: --label" in refused("interpolate", "run", *files)
    assert "asked by label, not by attributes" in refused("interpolate", "run", 1, 2, "--attributes", "hat=1")
    paint(None)
    assert "takes no condition" in refused("interpolate", "run", 1, 2, "--label", "0")


def test_interpolate_projects_images_of_the_label(paint: Paint) -> None:
    trained = paint("label")
    a, b = trained.sample(2, seed=5, told=1)
    way = trained.way(a, b, number=3, told="disc", search={"steps": 60, "restarts": 2})
    assert (way.space, way.shows) == ("noise", "disc")
    assert max(way.errors) < 1e-3
    assert np.abs(way.images[[0, 2]].astype(int) - np.stack([a, b])).max() <= 8


# ---- from one label to another -------------------------------------------------------------------------------------------------------


def left_of(image: np.ndarray) -> int:
    """The left half's grey: 8 times the class, also between classes."""
    return int(image.flat[0])


def right_of(image: np.ndarray) -> int:
    return int(image.flat[15])


def test_interpolate_from_label_to_label_at_one_noise(paint: Paint) -> None:
    trained = paint("label")
    shown, said = done("interpolate", "run", 3, "--label", "0,2", "-n", 5)
    assert (shown["shows"], said) == ("cross to t-shirt, top", "")
    found = cells(*shown["files"], 5)
    assert [left_of(cell) for cell in found] == [0, 4, 8, 12, 16]
    assert {right_of(cell) for cell in found} == {right_of(trained.sample(1, seed=3))}
    same = trained.interpolate("3", "3", number=5, told=[0, 2])
    assert np.array_equal(same[..., 0], found)
    paint("attributes")
    shown, _ = done("interpolate", "run", 3, "-n", 3, "--attributes", "smile=1,glasses=1", "--attributes", "hat=1", "-o", "b.png")
    assert shown["shows"] == "smile glasses to hat"
    assert [left_of(cell) for cell in cells("b.png", 3)] == [24, 28, 32]


def test_interpolate_changes_label_and_noise_together(paint: Paint) -> None:
    trained = paint("identity")
    way = trained.way("1", "2", number=3, told=[10, 20])
    noise = torch.cat([image_noise(seed, [0], (1,)) for seed in (1, 2)])
    expected = torch.tanh(torch.stack([noise[0], noise.mean(0), noise[1]]) / 2)[:, 0]
    assert way.shows == "identity 10 to identity 20"
    assert [left_of(image) for image in way.images] == [80, 120, 160]
    assert [right_of(image) for image in way.images] == pytest.approx(((expected + 1) * 127.5).tolist(), abs=0.51)


def test_a_grid_has_a_row_for_each_mixture(paint: Paint) -> None:
    trained = paint("label")
    shown, _ = done("interpolate", "run", 1, 2, "--label", "cross,disc", "--grid", "-n", 3)
    found = np.stack(cells(*shown["files"], 3)).reshape(3, 3, 16, 16)
    assert [[left_of(cell) for cell in row] for row in found] == [[0] * 3, [4] * 3, [8] * 3]
    along = [right_of(image) for image in trained.interpolate("1", "2", number=3, told=0)]
    assert [[right_of(cell) for cell in row] for row in found] == [along] * 3


def test_interpolate_through_the_code_is_told_at_both_ends(paint: Paint, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The data's own labels tell the encoder and the decoder; what is asked for counts before them."""
    trained = paint("label", Copyist)
    originals, folder = trained.sample(1, seed=1, told=["disc", "t-shirt, top"]), tmp_path_factory.mktemp("data")
    for name, image in zip(("disc", "t-shirt, top"), originals, strict=True):
        (folder / name).mkdir()
        save_png(image, folder / name / "0.png")
    shown, said = done("interpolate", "run", f"{folder}:0", f"{folder}:1", "-n", 3)
    assert (shown["space"], shown["shows"], said.count("the way shows disc to t-shirt, top")) == ("code", "disc to t-shirt, top", 1)
    assert [left_of(cell) for cell in cells(*shown["files"], 3)] == [8, 12, 16]
    shown, _ = done("interpolate", "run", f"{folder}:0", f"{folder}:1", "-n", 3, "--label", 0, "-o", "b.png")
    assert [left_of(cell) for cell in cells("b.png", 3)] == [0, 0, 0]
    seen = paint("label", Critic)
    way = seen.way(originals[0], originals[1], number=2)  # nobody says: its own classifier does
    assert (way.shows, [left_of(image) for image in way.images]) == ("disc to t-shirt, top", [8, 16])


def test_interpolate_refuses_a_way_that_leads_nowhere(paint: Paint) -> None:
    paint("label")
    assert "nothing would change: B" in refused("interpolate", "run", 1)
    assert "nothing would change: B" in refused("interpolate", "run", 1, "--label", "disc,disc")
    assert "a grid needs two labels: --grid" in refused("interpolate", "run", 1, 2, "--grid", "--label", 1)
    assert "a grid needs two ends: --grid" in refused("interpolate", "run", 1, "--grid", "--label", "0,1")
    assert "both --grid and --gif" in refused("interpolate", "run", 1, 2, "--grid", "--gif", "--label", "0,1")


# ---- what the data show ------------------------------------------------------------------------------------------------------------------


def with_attributes(*rows: tuple[int, ...], names: tuple[str, ...] = ("hat", "beard", "smile", "glasses")) -> ImageData:
    return dataclasses.replace(image_data(len(rows)), attributes=np.array(rows, np.uint8), attribute_names=names)


def with_labels(*counts: int, classes: tuple[str, ...] = ("disc", "t-shirt, top")) -> ImageData:
    """Sorted by class: so many items of each."""
    return dataclasses.replace(image_data(sum(counts)), labels=np.repeat(np.arange(len(counts)), counts), classes=classes)


def test_samples_like_data_show_what_its_items_do() -> None:
    """By name: the data have one attribute more, and in another order. Each item once, then all of them again."""
    trained = painter("attributes")
    alike = trained.like(with_attributes((1, 1, 0, 0), (0, 0, 1, 1), (0, 1, 0, 0)), 0)
    shown = [asked_of(image) for image in alike.sample(20, first=15)]
    assert sorted(shown[:3]) == [0, 3, 4]
    assert shown == (7 * shown[:3])[:20]
    assert alike.in_turn(range(15, 35)).values.tolist() == [[n & 1, n >> 1 & 1, n >> 2] for n in shown]  # type: ignore[union-attr]
    assert [asked_of(image) for image in alike.sample(2, told={"hat": 1})] == [4, 4]
    assert [asked_of(image) for image in trained.like(with_attributes((1, 1), names=("hat", "smile")), 0).sample(2)] == [0, 0]


def test_samples_like_data_have_its_classes_as_often() -> None:
    trained, data = painter("label"), with_labels(90, 10)
    shown = trained.like(data, 0).in_turn(range(200)).values.tolist()  # type: ignore[union-attr]
    assert [shown[:100].count(n) for n in range(3)] == [0, 90, 10]
    assert shown[100:] == shown[:100]
    assert 0 < shown[:50].count(2) < 10  # not in the data's order
    assert trained.like(data, 1).in_turn(range(100)).values.tolist() not in (shown[:100], sorted(shown[:100]))  # type: ignore[union-attr]
    assert np.array_equal(trained.like(with_labels(5, 5, classes=("disc", "shoe")), 0).sample(5), trained.sample(5))
    people = dataclasses.replace(image_data(4), identities=np.array([7, 7, 29, 7]))
    assert sorted(painter("identity").like(people, 0).in_turn(range(4)).values.tolist()) == [7, 7, 7, 29]  # type: ignore[union-attr]
    assert painter("identity", identities=29).like(people, 0).in_turn([3]).values.tolist() == [3]  # type: ignore[union-attr]


def test_evaluate_asks_for_what_the_data_show(paint: Paint, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as they do, whatever the batch; the recipe says so, and a warning where the data do not say."""
    drawn: list[np.ndarray] = []

    def watched(images: np.ndarray) -> np.ndarray:
        drawn.extend(images)
        return np.zeros(len(images))

    def asked_by(kind: str, data: ImageData, number: int, **settings: Any) -> tuple[list[int], Any]:
        paint(kind)
        drawn.clear()
        monkeypatch.setattr(sides, "load_data", lambda request: data)
        found = evaluation.evaluate("run", data="mnist", metrics=["sharpness"], number=number, **settings)
        return [asked_of(image) for image in drawn[:number]], found

    monkeypatch.setattr(collect, "laplacian_variance", watched)
    shown, found = asked_by("label", with_labels(27, 3), 30)
    assert [shown.count(n) for n in range(3)] == [0, 27, 3]
    assert (found["recipe"]["conditions"], found["warnings"]) == ("drawn from tiny, seed 0", [])
    assert asked_by("label", with_labels(27, 3), 20, batch=3)[0] == shown[:20]
    assert asked_by("label", with_labels(27, 3), 30, seed=1)[0] != shown
    shown, found = asked_by("label", image_data(3), 7)
    assert (shown, found["recipe"]["conditions"]) == ([0, 1, 2, 0, 1, 2, 0], "classes in turn")
    assert found["warnings"] == ["tiny has no label like the run's, so samples show classes in turn"]
    shown, found = asked_by("attributes", with_attributes((0, 0, 1, 0), (1, 0, 0, 1), (0, 0, 0, 1)), 2)
    assert set(shown) < {1, 2, 6} and len(set(shown)) == 2
    shown, found = asked_by("attributes", image_data(3), 5)
    assert (shown, found["recipe"]["conditions"]) == ([0] * 5, "no attributes")
    assert "no attributes like the run's, so samples show no attributes" in found["warnings"][0]


def test_reconstructions_of_some_images_are_told_what_these_show(paint: Paint, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = paint("label", Copyist)
    data = with_labels(9, 9, 9, classes=SPEC.classes)
    data = dataclasses.replace(data, images=trained.sample(9, told=SPEC.classes))
    monkeypatch.setattr(sides, "load_data", lambda request: data)
    monkeypatch.setattr(plan, "open_features", lambda how: ClassifierFeatures(painter("label", Critic).model, "classifier:critic"))
    known, tell = [], api.Trained.truth
    monkeypatch.setattr(api.Trained, "truth", lambda self, data, items: known.append(list(items)) or tell(self, data, items))
    found = evaluation.evaluate("run", data="mnist", metrics=["reconstruction"], number=6, features="classifier:critic")
    assert found["metrics"]["reconstruction"]["mse"] < 1e-4
    assert len(known[-1]) == 6 and set(known[-1]) > {known[0][0]} and max(known[-1]) > 8
    assert "conditions" not in found["recipe"]


class Bits(Critic):
    """Tells all three attributes by what the left half shows."""

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        return features.round() // torch.tensor([1.0, 2.0, 4.0]) % 2 - 0.5


class Whole(Bits):
    """Its features are both halves' means."""

    def features(self, image: torch.Tensor) -> torch.Tensor:
        return image.unflatten(3, (2, 8)).mean((1, 2, 4)) * 100

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, :1].expand(-1, 3)


def test_accuracy_of_a_model_that_is_asked_by_attributes(paint: Paint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its samples are asked for the attributes of the data; an inception score over attributes means nothing."""
    trained = paint("attributes")
    look = ClassifierFeatures(painter("attributes", Bits).model, "classifier:bits")
    rows = [(1, 0, 1), (0, 1, 0), (1, 1, 0), (0, 0, 0)]
    real = np.concatenate([trained.sample(1, told=dict(zip(SPEC.attributes, row, strict=True))) for row in rows])
    data = dataclasses.replace(with_attributes(*rows, names=SPEC.attributes), images=real)
    monkeypatch.setattr(plan, "open_features", lambda how: look)
    monkeypatch.setattr(sides, "load_data", lambda request: data)
    how: dict[str, Any] = {"data": "mnist", "number": 4, "features": "classifier:bits"}
    found = evaluation.evaluate("run", metrics=["accuracy", "inception-score"], **how)
    values = ("accuracy", "precision", "recall", "f1")
    assert found["metrics"] == {"accuracy": dict.fromkeys([*values, *(f"real_{name}" for name in values)], 1.0)}
    assert "tells attributes" in found["not_for_this_model"]["inception-score"]
    data = dataclasses.replace(data, attribute_names=("a", "b", "c"))
    with pytest.raises(UserError, match="no sample was asked for an attribute"):
        evaluation.evaluate("run", metrics=["accuracy"], **how)


def test_class_diversity_compares_with_real_classes_whatever_the_features_tell(paint: Paint, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = paint("label")
    data = dataclasses.replace(with_labels(4, 4, 4, classes=SPEC.classes), images=trained.sample(4, told=SPEC.classes))
    monkeypatch.setattr(sides, "load_data", lambda request: data)
    monkeypatch.setattr(plan, "open_features", lambda how: ClassifierFeatures(painter("attributes", Whole).model, "classifier:whole"))
    found = evaluation.evaluate("run", data="mnist", metrics=["class-diversity"], number=12, features="classifier:whole")
    assert found["metrics"]["class-diversity"]["class_diversity_real"] > 0


@pytest.mark.parametrize("condition", ["attributes", "label"])
def test_a_runs_grids_are_told_what_the_first_images_show(condition: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    data, draw, again = image_data(70), observers.draw, observers.reconstructions

    def sample(*given: Any, examples: told.Told | None = None) -> Any:
        asked["sample"] = examples
        return draw(*given, examples=examples)

    def reconstruct(model: Any, images: np.ndarray, shown: told.Told | None) -> Any:
        asked["reconstruct"] = shown
        return again(model, images, shown)

    monkeypatch.setattr(sources, "load", lambda request: data)
    monkeypatch.setattr(observers, "draw", sample)
    monkeypatch.setattr(observers, "reconstructions", reconstruct)
    api.train("cvae", data="mnist", out=tmp_path / "run", **tiny("cvae", {"condition": condition}, images=8))
    values = torch.from_numpy({"attributes": data.attributes, "label": data.labels}[condition])
    assert torch.equal(asked["reconstruct"].values, values[:32].float() if condition == "attributes" else values[:32])
    if condition == "attributes":
        assert torch.equal(asked["sample"].values, values[:64].float())
    else:
        assert asked["sample"] is None


# ---- lgm reconstruct -------------------------------------------------------------------------------------------------------------------


def test_reconstruct_is_told_by_the_data_by_words_or_by_its_own_classifier(paint: Paint, tmp_path_factory: pytest.TempPathFactory) -> None:
    trained = paint("label", Copyist)
    images, folder = trained.sample(1, seed=1, told=[2, 1]), tmp_path_factory.mktemp("data")
    for name, image in zip(("t-shirt, top", "disc"), images, strict=True):
        (folder / name).mkdir()
        save_png(image, folder / name / "0.png")
    shown, said = done("reconstruct", "run", folder)
    assert ([asked_of(cell) for cell in cells(shown["grid"], 2)], said) == ([1, 2, 1, 2], "")
    assert max(item["error"] for item in shown["images"]) < 1e-4
    shown, _ = done("reconstruct", "run", folder, "--label", "0,1", "-o", "b.png")
    assert [asked_of(cell) for cell in cells("b.png", 2)] == [1, 2, 0, 1]
    files = [folder / "disc" / "0.png", folder / "t-shirt, top" / "0.png"]
    assert "nobody says which label the images show: --label" in lgm("reconstruct", "run", *files).stderr
    assert "2 for 3 images: --label" in lgm("reconstruct", "run", *files, files[0], "--label", "0,1").stderr
    paint("label", Critic)
    shown, said = done("reconstruct", "run", *files, "-o", "c.png")
    assert said == "note: nobody says which label the images show: the model's own classifier does\n"
    assert [asked_of(cell) for cell in cells("c.png", 2)] == [1, 2, 1, 2]


def test_reconstruct_by_attributes_and_by_identity() -> None:
    asked: list[dict[str, Any]] = [{"smile": 1}, {"hat": 1, "glasses": 1}]
    trained = painter("attributes", Copyist)
    again, error = trained.reconstruct(trained.sample(1, told=asked), told=asked)
    assert [asked_of(image) for image in again] == [1, 6]
    assert error.max() < 1e-4
    trained = painter("identity", Copyist)
    assert [asked_of(image) for image in trained.reconstruct(trained.sample(2, told=7), told=[7, 11])[0]] == [7, 11]
