"""Captions on grids and images enlarged by whole pixels: what the layouts do, and what each command writes where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painter import done, lgm, refused
from PIL import Image

from models.capabilities import pictures as layouts
from models.capabilities.pictures import GAP, LINE, Captions, enlarged, grid

Straight = Callable[[str], Path]


def flat(count: int, side: int = 16, channels: int = 1) -> np.ndarray:
    return np.broadcast_to(np.arange(10, 10 + count, dtype=np.uint8)[:, None, None, None], (count, side, side, channels)).copy()


def opened(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


# ---- layouts -------------------------------------------------------------------------------------------------------------------------


def test_enlarged_by_whole_pixels() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    large = enlarged(image, 3)
    assert large.shape == (1, 6, 6, 3)
    assert all((large[0, y, x] == image[0, y // 3, x // 3]).all() for y in range(6) for x in range(6))
    assert enlarged(image, 1) is image
    assert enlarged(image, 0) is image
    np.testing.assert_array_equal(grid(image, scale=2), grid(enlarged(image, 2)))


@pytest.mark.parametrize("channels", [1, 3])
def test_words_stand_above_before_and_below_and_cover_no_image(channels: int) -> None:
    words = Captions(["one", "two"], ["a", "", "c"], [str(n) for n in range(5)])
    picture = grid(flat(5, channels=channels), 2, words)
    side, left = 64, picture.shape[1] - 2 * (64 + GAP) - GAP
    assert 0 < left < 20
    assert picture.shape == (LINE + 3 * (side + GAP + LINE) + GAP, left + 2 * (side + GAP) + GAP, channels)
    for n in range(5):
        top, begin = LINE + GAP + (n // 2) * (side + GAP + LINE), left + GAP + (n % 2) * (side + GAP)
        assert (picture[top : top + side, begin : begin + side] == 10 + n).all()
        below = picture[top + side : top + side + LINE, begin : begin + side]
        assert below.min() < 60  # letters, in the middle
        assert below[:, :20].min() == below[:, -20:].min() == 255
    assert picture[:LINE, left + GAP : left + GAP + side].min() < 60
    assert picture[:LINE, :left].min() == 255
    heads = [picture[LINE + GAP + n * (side + GAP + LINE) :][:side, :left] for n in range(3)]
    assert [bool(head.min() < 100) for head in heads] == [True, False, True]
    height, width = layouts.grid_size(5, 2, (16, 16), captions=True)
    assert picture.shape[0] <= height
    assert picture.shape[1] <= width


def test_small_images_with_captions_are_enlarged_unless_somebody_says() -> None:
    assert grid(flat(1, 28), captions=Captions(below=["x"])).shape[1] == 56 + 2 * GAP
    assert grid(flat(1, 28), captions=Captions(below=["x"]), scale=1).shape[1] == 28 + 2 * GAP
    assert grid(flat(1, 100), captions=Captions(below=["x"])).shape[1] == 100 + 2 * GAP


def test_what_has_no_room_is_cut_and_hostile_words_are_words() -> None:
    long = grid(flat(2, 64), 2, Captions(below=["m" * 200, ""]))
    assert long.shape[1] == 2 * (64 + GAP) + GAP
    assert long[GAP + 64 :, 64 + GAP :].min() == 255  # nothing reaches into the next cell
    assert grid(flat(1, 64), 1, Captions(before=["m" * 200])).shape[1] <= 64 + 2 * GAP + layouts.HEADING + 2 * GAP
    grid(flat(1, 64), 1, Captions(["\x1b[31m\n\0é日"], ["\n"], ["\u202e"]))


def test_pairs_and_rows_with_names() -> None:
    shown = layouts.pairs(flat(3), flat(3), 2, (["a", "b", "c"], ["0.1", "0.2", "0.3"]), scale=1)
    words = Captions(below=["a", "b", "0.1", "0.2", "c", "", "0.3", ""])
    white = np.full_like(flat(1), 255)
    images = np.concatenate([flat(2), flat(2), flat(3)[2:], white, flat(3)[2:], white])
    np.testing.assert_array_equal(shown, grid(images, 2, words, 1))
    shown = layouts.rows([flat(3), flat(1)], 2, ["x", "y"])
    np.testing.assert_array_equal(shown, grid(np.concatenate([flat(3), white, flat(1), white]), 2, Captions(before=["x", "", "y"])))


# ---- commands ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Every caption that is drawn, in order."""
    monkeypatch.chdir(tmp_path)
    texts: list[str] = []
    draw = layouts._write
    monkeypatch.setattr(layouts, "_write", lambda place, text: (texts.append(text), draw(place, text)))
    return texts


@pytest.mark.parametrize(
    ("model", "words", "captions"),
    [
        ("vae", ["sample", "-n", 3], ["0", "1", "2"]),
        ("vae", ["reconstruct", "DATA:3", "DATA:11"], ["cross", "disc", "ERROR", "ERROR"]),
        ("vae", ["reconstruct", "FILE"], ["FILE", "ERROR"]),
        ("vae", ["project", "DATA:3", "--steps", 2, "--restarts", 1], ["cross", "ERROR"]),
        ("vae", ["interpolate", "DATA:3", "DATA:11", "-n", 3, "--space", "code"], ["cross", "0.50", "disc"]),
        ("vae", ["interpolate", "1", "2", "-n", 3], ["seed 1", "0.50", "seed 2"]),
        ("vae", ["inpaint", "DATA:3", "--mask", "center", "--iterations", 2], ["original", "with hole", "1", "2", "cross"]),
        ("vae", ["edit", "FILE", "--data", "DATA", "--label", "disc"], ["original", "again", "disc", "FILE"]),
        (
            "vae",
            ["edit", "FILE", "--data", "DATA", "--label", "disc,cross", "--steps", 3],
            ["original", "again", "", "edit", "FILE: disc", "FILE: cross"],
        ),
        ("cvae-gan", ["sample", "-n", 3, "--columns", 2], ["cross", "", "disc", ""]),
        ("cvae-gan", ["interpolate", "1", "2", "-n", 2, "--label", "cross,disc"], ["seed 1: cross", "seed 2: disc"]),
        ("cvae-gan", ["interpolate", "1", "-n", 3, "--label", "cross,disc"], ["cross", "0.50", "disc"]),
        (
            "cvae-gan",
            ["interpolate", "1", "2", "-n", 2, "--label", "cross,disc", "--grid"],
            ["seed 1", "seed 2", "cross", "disc"],
        ),
        ("ip-gan", ["sample", "--like", "FILE", "-n", 2], ["FILE"]),
        ("ip-gan", ["mix", "DATA:3", "DATA:11", "--with", "FILE"], ["", "FILE", "", "cross", "disc"]),
        (
            "ip-gan",
            ["interpolate", "DATA:3", "DATA:11", "-n", 2, "--grid", "--layers", "identity"],
            ["cross", "disc", "identity of cross", "identity of disc"],
        ),
        ("cgml", ["inpaint", "DATA:3", "--mask", "center", "--variants", 2], ["original", "with hole", "1", "2", "cross"]),
        ("cross-domain", ["translate", "DATA:3", "--variants", 2], ["", "1", "2", "cross"]),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else value,
)
def test_what_each_command_writes(
    model: str, words: list[Any], captions: list[str], straight: Straight, pictures: Path, written: list[str]
) -> None:
    file = sorted(pictures.rglob("*.png"))[4]

    def filled(word: Any) -> Any:
        return str(word).replace("DATA", str(pictures)).replace("FILE", str(file))

    verb, *rest = map(filled, words)
    result = lgm(verb, straight(model), *rest, "--captions", "-o", "with.png")
    assert result.exit_code == 0, result.output
    wanted = [caption.replace("FILE", file.stem) for caption in captions]
    assert [text if caption != "ERROR" else "ERROR" for text, caption in zip(written, wanted, strict=True)] == wanted
    assert all(0 <= float(text) < 1 for text, caption in zip(written, wanted) if caption == "ERROR")
    plain = lgm(verb, straight(model), *rest, "--scale", 4, "-o", "plain.png")
    assert plain.exit_code == 0, plain.output
    large, small = opened("with.png"), opened("plain.png")
    assert large.shape[0] > small.shape[0] or large.shape[1] > small.shape[1]
    missing = [cell for cell in cells(small, 64) if not within(cell, large)]
    assert not missing  # captions move images and change none


def cells(picture: np.ndarray, side: int) -> list[np.ndarray]:
    step = side + GAP
    tops, lefts = range(GAP, picture.shape[0] - side, step), range(GAP, picture.shape[1] - side, step)
    return [picture[top : top + side, left : left + side] for top in tops for left in lefts]


def within(cell: np.ndarray, picture: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(picture, cell.shape[:2], axis=(0, 1))
    wanted = cell if cell.ndim == 2 else cell.transpose(2, 0, 1)
    corners = np.argwhere((windows[..., 0, 0] == wanted[..., 0, 0]).reshape(*windows.shape[:2], -1).all(2))
    return any(np.array_equal(windows[tuple(corner)], wanted) for corner in corners)


@pytest.mark.parametrize(
    ("model", "words", "frame"),
    [
        ("vae", ["interpolate", "DATA:3", "DATA:11", "-n", 3], 16),
        ("cgml", ["inpaint", "DATA:3", "--mask", "center", "--variants", 1, "--trace"], 3 * (16 + GAP) + GAP),
        ("ip-gan", ["mix", "DATA:3", "DATA:11"], 2 * (16 + GAP) + GAP),
    ],
)
def test_animations(model: str, words: list[Any], frame: int, straight: Straight, pictures: Path, written: list[str]) -> None:
    verb, *rest = (str(word).replace("DATA", str(pictures)) for word in words)
    done(verb, straight(model), *rest, "--gif", "--scale", 3, "-o", "plain.png")
    assert not written
    plain = Image.open("plain.gif")
    images = 1 if frame == 16 else round((frame - GAP) / (16 + GAP))
    assert plain.width == frame + images * 32
    done(verb, straight(model), *rest, "--gif", "--captions", "-o", "with.png")
    with Image.open("with.gif") as image:
        assert image.height > Image.open("plain.gif").height
    assert written


def test_single_files_are_enlarged_and_have_no_captions(straight: Straight, written: list[str]) -> None:
    done("sample", straight("vae"), "-n", 2, "--out", "small")
    done("sample", straight("vae"), "-n", 2, "--scale", 2, "--out", "large")
    np.testing.assert_array_equal(opened("large/000001.png"), enlarged(opened("small/000001.png")[..., None], 2)[..., 0])


def test_captions_stand_on_a_grid(straight: Straight, written: list[str]) -> None:
    assert "both --captions and --out" in refused("sample", straight("vae"), "--captions", "--out", "x")


@pytest.mark.parametrize("scale", ["0", "17", "-1", "1.5", "x"])
def test_a_scale_that_is_none(scale: str, straight: Straight, written: list[str]) -> None:
    result = lgm("sample", straight("vae"), "--scale", scale)
    assert result.exit_code == 2
    assert "--scale" in result.stderr


def test_an_enlarged_grid_that_no_picture_can_hold(straight: Straight, written: list[str]) -> None:
    assert "more than the limit" in refused("sample", straight("vae"), "-n", 2000, "--scale", 16)
    assert "more than the limit" in refused("sample", straight("vae"), "-n", 20_000, "--captions")


def test_runs_side_by_side_are_enlarged(straight: Straight, written: list[str]) -> None:
    done("compare", straight("vae"), straight("aegan"), "-n", 3, "--scale", 2, "-o", "c.png")
    assert opened("c.png").shape[1] == 3 * (32 + GAP) + GAP
