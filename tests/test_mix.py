"""Mixing: whose layers decide, on the command line and in Python; truncation towards the mean of codes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from painter import cells, done, refused
from PIL import Image

import models
from models.capabilities.mix import parse_layers
from models.capabilities.trained import Trained
from models.data.batches import to_uint8
from models.errors import UserError
from models.nets.style import groups_for, sizes_for
from models.randomness import image_noise


@pytest.fixture(scope="module")
def run(straight: Callable[[str], Path]) -> Path:
    return straight("style-alae")


@pytest.fixture
def trained(run: Path) -> Trained:
    return models.load(run, device="cpu")


@pytest.fixture
def here(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, seen from a working folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return run


def test_groups_of_layers() -> None:
    names = {levels: {name: (g[0], g[-1]) for name, g in groups_for(levels).items()} for levels in (1, 2, 3, 4, 5, 9)}
    assert names == {
        1: {"coarse": (0, 1)},
        2: {"coarse": (0, 1), "fine": (2, 3)},
        3: {"coarse": (0, 1), "middle": (2, 3), "fine": (4, 5)},
        4: {"coarse": (0, 3), "middle": (4, 5), "fine": (6, 7)},
        5: {"coarse": (0, 3), "middle": (4, 7), "fine": (8, 9)},
        9: {"coarse": (0, 3), "middle": (4, 7), "fine": (8, 17)},  # StyleGAN's, at 1024x1024
    }
    from models.base import DataSpec

    assert sizes_for(DataSpec.of_images(1, 28, 28)) == [(7, 7), (14, 14), (28, 28)]
    assert sizes_for(DataSpec.of_images(3, 64, 64))[0] == (4, 4)


def test_rows_keep_what_columns_do_not_decide(trained: Trained, pictures: Path) -> None:
    faces = list(trained.data(str(pictures)).rows("image", np.arange(2)))
    made = trained.mix([faces[0], 3], [faces[1], 4, 5], "coarse,3")
    assert (made.dtype, made.shape) == (np.uint8, (2, 3, 16, 16, 1))
    every, none = trained.mix([3, 4], [5], "0-5"), trained.mix([3, 4], [5], [])
    assert np.array_equal(every[0], every[1])
    assert np.array_equal(every[:, 0], np.repeat(trained.alone([5]), 2, 0))
    assert np.array_equal(none[:, 0], trained.alone([3, 4]))
    assert np.array_equal(trained.alone([3]), trained.sample(1, seed=3))
    assert np.array_equal(trained.alone([faces[0]]), trained.reconstruct(np.stack(faces))[0][:1])
    assert np.array_equal(made[1, 1], trained.mix([3], [4], [0, 1, 3])[0, 0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("coarsely", "unknown layers 'coarsely'"),
        ("3-1", "layers 3-1 of 6"),
        ("6", "layers 6 of 6"),
        ("-2", "unknown layers '-2'"),
        ("1-", "unknown layers '1-'"),
        (",", "no layers are named"),
    ],
)
def test_layers_that_do_not_exist(words: str, said: str, trained: Trained) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        parse_layers(trained.model, words)


def test_layers_in_words_and_numbers(trained: Trained) -> None:
    assert parse_layers(trained.model, "fine, 0-1") == [0, 1, 4, 5]


def test_a_grid_has_the_columns_above_and_the_rows_before(here: Path, pictures: Path) -> None:
    first, second = sorted(pictures.rglob("*.png"))[:2]
    found, _ = done("mix", here, "1", first, "--with", f"2,{second}", "--with", "seed:3", "--layers", "middle", "--gif")
    assert found["layers"] == [2, 3]
    assert found["rows"] == ["1", str(first)]
    assert found["columns"] == ["2", str(second), "seed:3"]
    picture, animation = found["files"]
    shown = cells(picture, 4)
    trained = models.load(here, device="cpu")
    assert len(shown) == 3 * 4
    assert np.array_equal(shown[1].reshape(16, 16, 1), trained.alone([2])[0])
    assert np.array_equal(shown[4].reshape(16, 16, 1), trained.alone([1])[0])
    assert np.array_equal(shown[7].reshape(16, 16, 1), trained.mix([1], [3], "middle")[0, 0])
    with Image.open(animation) as image:
        assert image.n_frames > 8


def test_one_list_or_data_set_is_mixed_with_itself(here: Path, pictures: Path) -> None:
    found, _ = done("mix", here, pictures, "-n", 3)
    assert len(found["rows"]) == 3
    assert found["rows"] == found["columns"]
    assert len(cells(found["files"][0], 4)) == 16


def test_what_cannot_be_mixed(here: Path, straight: Callable[[str], Path], pictures: Path) -> None:
    assert "this model cannot mix" in (said := refused("mix", straight("vae"), "1"))
    assert "style-alae" in said
    assert "unknown layers" in refused("mix", here, "1", "--layers", "all")
    assert "nothing.png" in refused("mix", here, "nothing.png")
    assert "PNG" in refused("mix", here, "1", "-o", "mix.jpg")


def test_a_way_between_seeds_goes_through_their_codes(trained: Trained, pictures: Path) -> None:
    found = trained.way("1", "2", number=3)
    assert found.space == "code"
    with torch.no_grad():
        one, other = (trained.model.map(image_noise(seed, [0], trained.model.noise_shape)) for seed in (1, 2))
        wanted = trained.model.decode((one + other) / 2)
    assert np.allclose(found.images[1].astype(int), to_uint8(wanted).numpy()[0], atol=1)
    assert np.array_equal(found.images[[0, 2]], trained.alone([1, 2]))
    assert trained.way("1", "2", number=3, space="noise").space == "noise"
    assert trained.way("1", trained.data(str(pictures)).rows("image", np.arange(1))[0], number=3).space == "code"


def test_truncation_draws_codes_towards_their_mean(trained: Trained) -> None:
    noise = image_noise(0, range(16), trained.model.noise_shape)
    with torch.no_grad():
        code = trained.model.map(noise)
        wanted = trained.model.decode(trained.model.code_mean + 0.3 * (code - trained.model.code_mean))
    assert np.allclose(trained.sample(16, truncation=0.3).astype(int), to_uint8(wanted).numpy(), atol=1)
    assert np.array_equal(trained.sample(16, truncation=1.0), trained.sample(16))
    assert not torch.equal(trained.model.code_mean, torch.zeros_like(trained.model.code_mean))
