"""Translating: noise for each column, both ways, on the command line and in Python."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
from painter import done, lgm, refused
from PIL import Image
from support import REPOSITORY

import models
from models.capabilities import pictures as layouts
from models.capabilities.trained import Trained
from models.capabilities.translate import picture
from models.errors import UserError


@pytest.fixture(scope="module")
def run(straight: Callable[[str], Path]) -> Path:
    return straight("cross-domain")


@pytest.fixture
def trained(run: Path) -> Trained:
    return models.load(run, device="cpu")


@pytest.fixture
def here(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, seen from a working folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return run


def other(trained: Trained) -> str:
    """The folder of the other domain's images."""
    return trained.header.config.sources["to"]


def test_a_translation_depends_on_its_image_the_seed_and_its_number_alone(trained: Trained, pictures: Path) -> None:
    images = trained.data(str(pictures)).rows("image", np.arange(5))
    many = trained.translate(images, 20, seed=3)
    assert (many.dtype, many.shape) == (np.uint8, (5, 20, 12, 16, 3))
    assert np.array_equal(many[2:3, :3], trained.translate(images[2:3], 3, seed=3))
    assert not np.array_equal(many, trained.translate(images, 20, seed=4))
    assert len(np.unique(many[0], axis=0)) > 1, "the noise changes nothing"
    again = trained.translate(many[:, 0], 2, back=True)
    assert again.shape == (5, 2, 16, 16, 1)


def test_python_names_what_does_not_fit(trained: Trained, pictures: Path, straight: Callable[[str], Path]) -> None:
    images = trained.data(str(pictures)).rows("image", np.arange(2))
    with pytest.raises(UserError, match=re.escape("give uint8 of shape (N, 12, 16, 3)")):
        trained.translate(images, back=True)
    with pytest.raises(UserError, match="0 variants"):
        trained.translate(images, 0)
    with pytest.raises(UserError, match="--seed"):
        trained.translate(images, seed=-1)
    with pytest.raises(UserError, match="this model cannot translate: vae") as error:
        models.load(straight("vae"), device="cpu").translate(images)
    assert error.value.fix == "take a run of one that can: cgml, cross-domain, image-cvae, pix2pix, regression"


def test_translate_a_grid_with_a_row_for_each_image(here: Path, trained: Trained, pictures: Path) -> None:
    """Grey images of 16x16 beside coloured ones of 16x12."""
    shown, said = done("translate", here, pictures, "-n", 3, "--variants", 4, "--seed", 2)
    assert said == ""
    assert shown["files"] == ["cross-domain-translations.png"]
    originals = trained.data(str(pictures)).rows("image", np.arange(3))
    first, *others = layouts.alike(originals, *trained.translate(originals, 4, seed=2))
    wanted = layouts.grid([image for own, its in zip(first, others) for image in (own, *its)], 5)
    with Image.open(shown["files"][0]) as image:
        found = np.asarray(image)
    assert np.array_equal(found, wanted)
    assert (found[2:18, 2:18] == originals[0]).all(), "the original stands in three channels"
    assert (found[2:4, 20:36] == 255).all(), "a translation stands in the middle of its cell"


def test_translate_back_and_to_single_files_and_an_animation(here: Path, trained: Trained) -> None:
    shown, _ = done("translate", here, f"{other(trained)}:3", f"{other(trained)}:4", "--back", "--variants", 3, "--out", "out")
    assert (shown["files"], shown["back"]) == (6, True)
    assert sorted(path.name for path in Path("out").iterdir()) == [f"{n}-{k:06d}.png" for n in range(2) for k in range(3)]
    image = trained.images([f"{other(trained)}:4"], spec=trained.model.spec["to"])
    with Image.open("out/1-000002.png") as saved:
        assert np.array_equal(np.asarray(saved), trained.translate(image, 3, back=True)[0, 2, ..., 0])
    shown, _ = done("translate", here, f"{other(trained)}:3", "--back", "--variants", 2, "--gif", "-o", "a.png")
    with Image.open(shown["files"][1]) as animation:
        assert animation.n_frames <= 16  # from one noise to the other in eight steps, and back; frames that are alike become one
        first = np.asarray(animation.convert("RGB")).astype(int)
    image = trained.images([f"{other(trained)}:3"], spec=trained.model.spec["to"])
    assert np.abs(first - picture(image, trained.translate(image, 1, back=True))).mean() < 8  # a palette of 256 colours


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--out", "b", "-o", "a.png"], "both -o and --out"),
        (["--out", "b", "--gif"], "both --out and --gif"),
        (["--seed", "x"], "is not a seed"),
        (["nowhere.png"], "no readable image"),
    ],
)
def test_mistakes_are_named(words: list[str], what: str, here: Path, pictures: Path) -> None:
    image = sorted(pictures.rglob("*.png"))[0]
    result = lgm("translate", here, image, *words)
    assert (result.exit_code, list(Path().iterdir())) == (2, [])
    assert what in result.stderr


def test_a_run_that_does_not_translate_is_told_which_do(straight: Callable[[str], Path], pictures: Path, here: Path) -> None:
    assert "this model cannot translate: vae\n  fix: take a run of one that can: cgml, cross-domain" in refused(
        "translate", straight("vae"), pictures
    )


def part_words() -> list[str]:
    """`--part` of both sides."""
    return [word for name, part in support.part_runs("cross-domain").items() for word in ("--part", f"{name}={part}")]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--map", "cross=7"], "unknown class '7': --map"),
        (["--map", "cross"], "'cross' is not CLASS=CLASS: --map"),
        (["--pairs", "identity"], "cross-domain needs identity, to.identity"),
        (["--pairs", "classes"], "pairs=classes is not allowed"),
    ],
)
def test_pairs_that_cannot_be_are_refused_before_anything_is_written(words: list[str], what: str, pictures: Path, here: Path) -> None:
    assert what in refused("train", "cross-domain", "--data", pictures, *part_words(), "--batch", 8, *words)


def test_a_class_without_images_is_named_and_no_folder_stays(pictures: Path, here: Path) -> None:
    """What only the items can tell is found when the stage is prepared: the run has a folder then."""
    result = lgm("train", "cross-domain", "--data", f"from={pictures}[first=8]", *part_words(), "--batch", 8, "--out", "runs/new")
    assert result.exit_code == 2
    assert "error: no images of disc=disc: --map\n  fix: leave it out of the map" in result.stderr
    assert list(Path("runs").iterdir()) == []


def test_parts_that_do_not_fit_or_cannot_encode_are_refused(pictures: Path, straight: Callable[[str], Path], here: Path) -> None:
    parts = support.part_runs("cross-domain")
    for ours, theirs, what in (
        (parts["to"], parts["from"], "the images of from are (3, 12, 16), these are (1, 16, 16)"),
        (straight("dcgan"), parts["to"], "a dcgan cannot decode and encode"),
    ):
        words = ("--part", f"from={ours}", "--part", f"to={theirs}", "--batch", 8, "--size", 16, "--channels", 1)
        assert what in refused("train", "cross-domain", "--data", pictures, *words)


def test_a_run_draws_translations(run: Path) -> None:
    drawn = sorted((run / "samples").glob("translation-*.png"))
    assert drawn
    with Image.open(drawn[-1]) as image:
        assert image.size == (8 * 18 + 2, 8 * 18 + 2)


def test_alike_brings_images_to_one_size() -> None:
    small, large = np.arange(8, dtype=np.uint8).reshape(1, 2, 4, 1), np.zeros((2, 7, 9, 3), np.uint8)
    found, same = layouts.alike(small, large)
    assert found.shape == (1, 7, 9, 3)
    assert np.array_equal(found[0, 1:5, :8, 0], small[0, ..., 0].repeat(2, 0).repeat(2, 1))
    assert (found[0, 0] == 255).all() and (found[0, 5:] == 255).all()
    assert np.array_equal(same, large)


def test_the_example_of_the_documentation(run: Path, tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python of docs/translating.md, on a tiny run under the name that it uses."""
    [code] = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "translating.md").read_text(), re.S)
    shutil.copytree(run, tmp_path / "runs" / "cross-domain-street-mnist")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code.replace("street:test", str(pictures)), names)
    assert names["found"].shape == (2, 4, 12, 16, 3)
    assert names["again"].shape == (2, 2, 16, 16, 1)
