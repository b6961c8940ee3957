"""People: kept by number, mixed with other images' attributes, drawn again, and told apart by a classifier."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
from painter import cells, done, refused
from PIL import Image

import models
from models.capabilities import pictures as layouts
from models.data.load import load, parse
from models.errors import UserError
from models.metrics import swap
from models.metrics.stats.evidence import Evidence
from models.training import checkpoint


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def lively(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run whose images differ: at the usual learning rate twelve steps leave them all grey."""
    run = tmp_path_factory.mktemp("lively") / "ip-gan"
    support.call(support.train, "ip-gan", str(pictures), str(run), support.tiny("ip-gan", {"lr": 0.05}, images=160))
    return run


def test_people_are_kept_by_number() -> None:
    some = load(parse("faces:test[identity=3,10-12]"))
    assert sorted(set(some.all("identity").tolist())) == [3, 10, 11, 12]
    assert some.fields["identity"].count == 100
    whole = load(parse("faces:test"))
    assert len(some) == sum(np.isin(whole.all("identity"), [3, 10, 11, 12]))
    for text, what in (
        ("faces[identity=100]", "unknown people '100'"),
        ("faces[identity=9-3]", "unknown people '9-3'"),
        ("faces[identity=a]", "unknown people 'a'"),
        ("glyphs[identity=1]", "these data do not say whom they show"),
    ):
        with pytest.raises(UserError, match=what):
            load(parse(text))


def test_a_run_draws_from_its_data_a_second_time_and_from_strangers(
    straight: Callable[[str], Path], pictures: Path, tmp_path: Path
) -> None:
    header = checkpoint.read_header(support.newest(straight("ip-gan")))
    assert header.config.sources == {"other": str(pictures), "unlabelled": str(pictures)}
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    for number, path in enumerate(sorted(pictures.rglob("*.png"))):
        shutil.copy(path, strangers / f"{number}.png")
    for name, place in (("run", strangers), ("labelled", shutil.copytree(pictures, tmp_path / "pictures"))):
        data = {"": str(pictures), "unlabelled": str(place)}  # of which nobody has to say anything, and what somebody says does not count
        support.call(support.train, "ip-gan", data, str(tmp_path / name), support.tiny("ip-gan", images=32))
        model = models.load(tmp_path / name).model
        assert model.needs == {"image", "label", "other.image", "other.label", "unlabelled.image"}
        assert set(model.spec["unlabelled"].fields) == {"image"}


def test_mix_takes_the_attributes_of_the_columns(lively: Path, pictures: Path, here: Path) -> None:
    run = lively
    trained = models.load(run, device="cpu")
    images = trained.data(str(pictures)).rows("image", np.arange(3))
    shown, _ = done("mix", run, f"{pictures}:0", f"{pictures}:1", "--with", f"{pictures}:2", "-o", "a.png")
    assert shown["layers"] == [1]
    found = cells("a.png", 2)
    made = trained.mix(list(images[:2]), [images[2]])
    assert np.array_equal(found[3], made[0, 0, ..., 0])
    assert np.array_equal(made, trained.mix(list(images[:2]), [images[2]], "attributes"))
    swapped = trained.mix([images[2]], list(images[:2]), "identity")
    assert np.array_equal(made[:, 0], swapped[0])
    Path("a.png").unlink()
    assert "this model makes no codes of noise" in refused("mix", run, "1", "--with", "2")


def test_a_way_in_who_it_is_or_in_all_else(lively: Path, pictures: Path, here: Path) -> None:
    run = lively
    trained = models.load(run, device="cpu")
    a, b = trained.data(str(pictures)).rows("image", np.array([0, 2]))
    whole = trained.interpolate(a, b, number=5)
    for layers, other in (("identity", "attributes"), ("attributes", "identity")):
        found = trained.interpolate(a, b, number=5, layers=layers)
        np.testing.assert_array_equal(found[0], trained.mix([a], [a])[0, 0])
        np.testing.assert_array_equal(found[-1], trained.mix([a], [b], layers)[0, 0])
        assert not np.array_equal(found, whole)
        grid = trained.interpolate(a, b, number=5, layers=layers, grid=True).reshape(5, 5, *whole.shape[1:])
        np.testing.assert_array_equal(grid[:, 0], found)  # from top to bottom
        np.testing.assert_array_equal(grid[0], trained.interpolate(a, b, number=5, layers=other))
        np.testing.assert_array_equal(grid[range(5), range(5)], whole)
    ends = (run, f"{pictures}:0", f"{pictures}:2")
    done("interpolate", *ends, "-n", "5", "--layers", "identity", "-o", "way.png")
    np.testing.assert_array_equal(cells("way.png", 5), trained.interpolate(a, b, number=5, layers="identity")[..., 0])
    Path("way.png").unlink()
    assert "unknown layers 'coarse'" in refused("interpolate", *ends, "--layers", "coarse")
    assert "layers are parts of codes" in refused("interpolate", *ends, "--layers", "identity", "--space", "noise")
    assert "give another end" in refused("interpolate", *ends[:2], "--layers", "identity")


def test_layers_are_for_models_that_mix(straight: Callable[[str], Path], pictures: Path, here: Path) -> None:
    assert "this model cannot mix" in refused("interpolate", straight("vae"), f"{pictures}:0", f"{pictures}:2", "--layers", "identity")


def test_sample_like_an_image(lively: Path, pictures: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = lively
    trained = models.load(run, device="cpu")
    images = trained.data(str(pictures)).rows("image", np.arange(2))
    shown, _ = done("sample", run, "--like", f"{pictures}:0", "--like", f"{pictures}:1", "-n", 3, "--seed", 4, "-o", "a.png")
    assert (shown["grid"], shown["images"]) == ("a.png", 6)
    made = trained.resemble(images, 3, seed=4)
    found = cells("a.png", 4)
    assert np.array_equal(found[4], images[1, ..., 0])
    assert all(np.array_equal(found[5 + n], made[1, n, ..., 0]) for n in range(3))
    assert np.array_equal(made[:1, :2], trained.resemble(images[:1], 2, seed=4))
    monkeypatch.setattr(layouts, "MAX_PIXELS", 1000)  # of a grid, which single files are not
    done("sample", run, "--like", f"{pictures}:0", "-n", 2, "--out", "out")
    assert sorted(path.name for path in Path("out").iterdir()) == ["0-000000.png", "0-000001.png"]
    with Image.open("out/0-000001.png") as image:
        assert np.array_equal(np.asarray(image), trained.resemble(images[:1], 2)[0, 1, ..., 0])


def test_like_goes_with_a_model_that_can(straight: Callable[[str], Path], pictures: Path, here: Path) -> None:
    said = refused("sample", straight("vae"), "--like", f"{pictures}:0")
    assert "this model cannot draw somebody again: vae\n  fix: take a run of one that can: ip-gan" in said
    assert "cannot draw somebody again" in refused("sample", straight("vae"), "--like", f"{pictures}:0", "--out", "out")
    assert "--like with --label" in refused("sample", straight("ip-gan"), "--like", f"{pictures}:0", "--label", "cross")
    assert "--like with --columns" in refused("sample", straight("ip-gan"), "--like", f"{pictures}:0", "--columns", 3)
    assert "--space out" in refused("interpolate", straight("ip-gan"), f"{pictures}:0", "3", "--layers", "identity", "--space", "nope")


# ---- what is measured ------------------------------------------------------------------------------------------------------------------


def test_the_area_under_the_curve_counts_pairs() -> None:
    people = torch.tensor([0, 0, 1, 1])
    gallery = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    assert swap.auc(gallery, gallery, people) == 1
    assert swap.auc(gallery.flip(0), gallery, people) == 0
    assert swap.auc(torch.ones(4, 2), torch.ones(4, 2), people) == 0.5
    dice = torch.Generator().manual_seed(0)
    probes, gallery, people = (torch.randn(30, 5, generator=dice), torch.randn(30, 5, generator=dice), torch.arange(30) % 4)
    wins = pairs = 0.0
    like = torch.nn.functional.cosine_similarity(probes[:, None], gallery[None], dim=2)
    mine = [like[a, b] for a in range(30) for b in range(30) if a != b and people[a] == people[b]]
    theirs = [like[a, b] for a in range(30) for b in range(30) if people[a] != people[b]]
    for one in mine:
        for other in theirs:
            wins, pairs = wins + float(one > other), pairs + 1
    assert swap.auc(probes, gallery, people) == pytest.approx(wins / pairs)
    with pytest.raises(UserError, match="no two images of one person"):
        swap.auc(probes[:3], gallery[:3], torch.arange(3))


class Judge:
    """Sees the mean of the left half; its classes, and its one attribute, are whether that is bright."""

    name, dimensions, classes = "judge", 2, 2

    def __init__(self, target: str) -> None:
        self.target = target

    def prepare(self, images: Any) -> torch.Tensor:
        return torch.from_numpy(np.stack(images)).float() / 255

    def apply(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        left = batch[:, :, :8].mean((1, 2, 3))
        features = torch.stack([left, 1 - left], 1)
        return features, (left - 0.4).unsqueeze(1) if self.target == "attributes" else torch.stack([left, 0.8 - left], 1)


def test_swaps_are_measured_between_ceiling_and_floor(straight: Callable[[str], Path], pictures: Path) -> None:
    trained, data = models.load(straight("ip-gan"), device="cpu"), load(parse(str(pictures)))

    def found(target: str) -> dict[str, float]:
        return swap.measure(Evidence(None, None, 0, trained, Judge(target), data, count=20), swap.Config())

    names = found("label")
    assert set(names) == {f"{what}{whose}" for what in ("auc", "top1") for whose in ("", "_real", "_again", "_other")}
    assert all(0 <= value <= 1 for value in names.values())
    images, labels = data.rows("image", np.arange(20)), data.all("label")
    left = images[:, :, :8].mean((1, 2, 3)) / 255
    assert names["top1_real"] == pytest.approx(np.mean((left <= 0.4) == labels))
    shown = found("attributes")
    assert set(shown) == {"attributes", "attributes_again", "attributes_subject"}


def test_evaluate_says_who_cannot_be_asked(straight: Callable[[str], Path], pictures: Path, here: Path) -> None:
    judge = ("--features", f"classifier:{straight('classifier')}")
    shown, _ = done("evaluate", straight("ip-gan"), "--data", pictures, "--metrics", "swap", "-n", 20, *judge)
    assert "auc" in str(shown)
    assert "it does not mix who with how" in refused("evaluate", straight("vae"), "--data", pictures, "--metrics", "swap", *judge)
