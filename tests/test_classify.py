"""What a classifier says of images, and how often that is right: as numbers, as a table, as a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
from painter import done, lgm, refused
from PIL import Image

import models
from models.capabilities.classify import Judged, names_of, picture
from models.data.batches import to_float
from models.data.dataset import ImageData
from models.errors import UserError

Straight = Callable[[str], Path]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier of the attributes of portraits."""
    run = tmp_path_factory.mktemp("faces") / "run"
    support.call(support.train, "classifier", "faces:test", str(run), support.tiny("classifier", {"target": "attributes"}, size=(16, 16)))
    return run


def test_probabilities_are_those_of_the_logits(straight: Straight, pictures: Path) -> None:
    trained = models.load(straight("classifier"), device="cpu")
    images = trained.data(str(pictures)).rows("image", np.arange(20))
    with torch.no_grad():
        wanted = torch.softmax(trained.model.classify(to_float(torch.from_numpy(images))), 1)  # type: ignore[operator]
    np.testing.assert_allclose(trained.classify(images), wanted.numpy(), rtol=1e-5)
    assert names_of(trained.model) == ("cross", "disc")


def test_accuracy_and_confusion_by_hand(straight: Straight, pictures: Path) -> None:
    trained = models.load(straight("classifier"), device="cpu")
    data = trained.data(str(pictures))
    found = trained.judge(data)
    said, truth = trained.classify(data.rows("image", np.arange(20))).argmax(1), data.all("label")
    assert found.accuracy == (said == truth).mean()
    assert found.confusion is not None
    for row in range(2):
        for column in range(2):
            assert found.confusion[row, column] == ((truth == row) & (said == column)).sum()
        np.testing.assert_allclose(found.each[row], (said[truth == row] == row).mean())
    assert len(trained.judge(data, 7).truth) == 7


def test_classes_go_by_their_names(straight: Straight, pictures: Path) -> None:
    trained = models.load(straight("classifier"), device="cpu")
    data = trained.data(str(pictures))
    turned = ImageData("turned", data.all("image"), 1 - data.all("label"), ("disc", "cross"))
    np.testing.assert_array_equal(trained.judge(turned).truth, data.all("label"))
    with pytest.raises(UserError, match="does not know 'square'"):
        trained.judge(ImageData("other", data.all("image"), data.all("label"), ("disc", "square")))
    with pytest.raises(UserError, match="have no label"):
        trained.judge(ImageData("none", data.all("image")))


def test_attributes(faces: Path, here: Path) -> None:
    trained = models.load(faces, device="cpu")
    data = trained.data("faces:test[first=50]")
    found = trained.judge(data)
    right = (trained.classify(data.all("image")) > 0.5) == data.all("attributes")
    assert found.confusion is None
    np.testing.assert_allclose(found.each, right.mean(0))
    assert found.accuracy == right.mean()
    shown, _ = done("classify", faces, "faces:test", "-n", 50)
    assert shown["accuracy"] == pytest.approx(found.accuracy)
    assert list(shown["each"]) == list(trained.model.spec.attributes)
    listed, _ = done("classify", faces, "faces:test:3", "faces:test:4")
    assert [one["image"] for one in listed["images"]] == ["faces:test:3", "faces:test:4"]
    assert all(share > 0.5 for one in listed["images"] for share in one["shows"].values())
    assert "no confusion matrix" in refused("classify", faces, "faces:test", "-n", 5, "-o", "c.png")


def test_the_command(straight: Straight, pictures: Path, here: Path) -> None:
    run = straight("classifier")
    trained = models.load(run, device="cpu")
    found = trained.judge(trained.data(str(pictures)))
    shown, _ = done("classify", run, pictures, "-o", "c.png")
    assert shown["accuracy"] == found.accuracy
    assert shown["confusion"] == found.confusion.tolist()
    with Image.open(shown["picture"]) as image:
        np.testing.assert_array_equal(np.asarray(image), picture(found)[..., 0])
    text = lgm("classify", run, pictures).stdout
    assert "right of 20 images" in text
    assert "cross" in text
    single, _ = done("classify", run, f"{pictures}:3")
    probabilities = trained.classify(trained.data(str(pictures)).rows("image", np.array([3])))[0]
    assert single["images"][0]["shows"] == {
        ("cross", "disc")[n]: pytest.approx(float(probabilities[n]), abs=1e-6) for n in np.argsort(-probabilities)
    }
    flat = here / "flat"
    flat.mkdir()
    for path in pictures.rglob("*.png"):
        (flat / path.name).write_bytes(path.read_bytes())
    assert len(done("classify", run, flat)[0]["images"]) == len(list(flat.iterdir()))  # no labels: what each shows


def test_refusals(straight: Straight, pictures: Path, here: Path) -> None:
    assert "this model does not classify" in refused("classify", straight("vae"), pictures)
    assert "nobody says what these images show" in refused("classify", straight("classifier"), f"{pictures}:0", "-o", "c.png")


def test_the_picture_of_mistakes() -> None:
    names = ("a", "b", "c")
    confusion = np.array([[9, 1, 0], [0, 0, 0], [5, 0, 5]])
    judged = Judged(names, np.zeros((20, 3)), np.zeros(20), 0.7, confusion, np.zeros(3))
    drawn: Any = picture(judged)[..., 0]
    side = drawn.shape[0] - 8 - 3 * 22
    corner = [[int(drawn[side + 22 * row + 1, side + 22 * column + 1]) for column in range(3)] for row in range(3)]
    for row in range(3):
        shares = confusion[row] / max(confusion[row].sum(), 1)
        assert corner[row] == [round(255 - 215 * share**0.5) for share in shares]
    with pytest.raises(UserError, match="too many to draw"):
        picture(Judged(tuple(map(str, range(50))), np.zeros((1, 50)), np.zeros(1), 0.0, np.zeros((50, 50)), np.zeros(50)))


def test_evaluate_measures_a_classifier(straight: Straight, pictures: Path, faces: Path, here: Path) -> None:
    run = straight("classifier")
    trained = models.load(run, device="cpu")
    judged = trained.judge(trained.data(str(pictures)))
    shown, _ = done("evaluate", run, "--data", pictures, "-o", "r.json")
    assert set(shown["metrics"]) == {"classification"}
    assert shown["metrics"]["classification"] == {
        "accuracy": pytest.approx(judged.accuracy),
        "mean": pytest.approx(judged.each.mean()),
        "worst": pytest.approx(judged.each.min()),
        "commonest": 0.5,
    }
    asked, _ = done("evaluate", faces, "--data", "faces:test[first=40]", "--metrics", "classification", "-o", "f.json")
    data = models.load(faces, device="cpu").data("faces:test[first=40]")
    share = data.all("attributes").mean(0)
    assert asked["metrics"]["classification"]["commonest"] == pytest.approx(np.maximum(share, 1 - share).mean())
