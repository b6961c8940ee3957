"""Masks, and filling holes: by encoder and decoder, by projection, told and untold."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from painter import Copyist, Critic, Painter, asked_of, cells, done, lgm, painter, refused
from PIL import Image
from support import REPOSITORY
from torch import Tensor, nn

from models import api
from models.base import DataSpec, LatentModel
from models.capabilities import masks
from models.capabilities.inpaint import Inpainting
from models.data.images import save_png
from models.errors import UserError

Paint = Callable[..., api.Trained]
QUICK = ("--steps", 60, "--restarts", 2)
LEFT, LOWER_RIGHT = np.s_[:, :8], np.s_[8:, 8:]


def hole(*parts: Any) -> np.ndarray:
    """A mask (16, 16) of these slices."""
    found = np.zeros((16, 16), bool)
    for part in parts:
        found[part] = True
    return found


def painted(left: int, right: int) -> np.ndarray:
    """An image whose halves are flat: (16, 16, 1) uint8."""
    return np.repeat(np.repeat(np.array([[[left], [right]]], np.uint8), 8, 1), 16, 0)


def files(folder: Path, images: list[np.ndarray]) -> list[Path]:
    for number, image in enumerate(images):
        save_png(image, folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(len(images))]


# ---- masks -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", masks.KINDS)
@pytest.mark.parametrize("size", [(28, 28), (64, 48), (8, 8), (19, 17)], ids=str)
def test_drawn_masks_depend_on_seed_number_and_size_alone(kind: str, size: tuple[int, int]) -> None:
    many = masks.draw(kind, 3, range(40), size)
    assert (many.dtype, many.shape) == (bool, (40, *size))
    assert np.array_equal(many[17:19], masks.draw(kind, 3, [17, 18], size))
    assert masks.check(many) is many
    if kind != "center":
        assert len(np.unique(many, axis=0)) > 3
        assert not np.array_equal(many, masks.draw(kind, 4, range(40), size))


def test_drawn_masks_have_their_shapes() -> None:
    boxes, halves, lines, dots = (masks.draw(kind, 0, range(200), (40, 60)) for kind in ("box", "half", "stroke", "random"))
    areas = boxes.mean((1, 2))
    assert areas == pytest.approx(0.25, abs=0.02)
    for box in boxes:
        rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        assert box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 0.5 <= (len(rows) / 40) / (len(columns) / 60) <= 2.1
    assert boxes.any((0, 1)).all(), "boxes lie everywhere"
    assert boxes.any((0, 2)).all(), "boxes lie everywhere"
    assert np.array_equal(masks.draw("center", 5, [7], (40, 60))[0], np.pad(np.ones((20, 30), bool), ((10, 10), (15, 15))))
    assert {tuple(mask[[0, 0, -1, -1], [0, -1, 0, -1]]) for mask in halves} == {
        (True, False, True, False),
        (False, True, False, True),
        (True, True, False, False),
        (False, False, True, True),
    }
    assert (halves.mean((1, 2)) == 0.5).all()
    assert dots.mean() == pytest.approx(0.5, abs=0.005)
    assert 0.05 < lines.mean((1, 2)).min() < lines.mean((1, 2)).max() < 0.5


@pytest.mark.parametrize("how", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(40, 64), (70, 30), (33, 50)])
def test_a_mask_drawn_on_the_photo_is_fitted_like_it(size: tuple[int, int], how: str, tmp_path: Path) -> None:
    """The hole lies where the photo is white: both come to the model's size in the same way."""
    from models.data.images import decode, fit

    hole = np.zeros(size, np.uint8)
    hole[size[0] // 4 : size[0] // 2, size[1] // 3 : size[1] // 2] = 255
    for name in ("photo", "mask"):
        Image.fromarray(hole).save(tmp_path / f"{name}.png")
    found = masks.gather(str(tmp_path / "mask.png"), [str(tmp_path / "photo.png")], 0, (16, 16), how)
    shown = fit(decode(tmp_path / "photo.png"), (16, 16), how, background=(0, 0, 0))[..., 0] > 127
    np.testing.assert_array_equal(found[0], shown)
    (tmp_path / "masks").mkdir()
    (tmp_path / "mask.png").rename(tmp_path / "masks" / "photo.png")
    np.testing.assert_array_equal(masks.gather(str(tmp_path / "masks"), [str(tmp_path / "photo.png")], 0, (16, 16), how), found)
    with pytest.raises(UserError, match=f"give a mask of 16x16 pixels, or {size[1]}x{size[0]}, as the photo has"):
        masks.read(tmp_path / "photo.png", (16, 16), (size[0], size[1]), "")  # of a set that crops in its own way


def test_mask_files_are_white_in_the_hole(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[0, 0, :3], pixels[0, 1, :3], pixels[0, 2, :3] = 255, 128, 127
    pixels[1] = (255, 255, 255, 0)  # transparent white
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    assert np.argwhere(masks.read(tmp_path / "a.png", (4, 6))).tolist() == [[0, 0], [0, 1]]
    with pytest.raises(UserError, match="the mask is 6x4, the model's images are 4x6"):
        masks.read(tmp_path / "a.png", (6, 4))


# ---- encoder and decoder, again and again ------------------------------------------------------------------------------------------------


def test_what_is_known_is_put_back_and_the_hole_comes_nearer_each_time() -> None:
    """By hand. The right half is 151, half of it in the hole; the code is that half's mean; the hole starts as the mean of all known."""
    image, mask = painted(31, 151), hole(LOWER_RIGHT)
    found = painter(None, Copyist).inpaint(image[None], mask, iterations=6)
    known = (2 * 31 + 151) / 3
    expected = [151 + (known - 151) / 2**n for n in range(7)]  # what is in the hole after n iterations
    assert found.images.shape == (6, 1, 16, 16, 1)
    for n, made in enumerate(found.images[:, 0, ..., 0], start=1):
        assert np.array_equal(made[~mask], image[~mask, 0])
        assert np.abs(made[mask] - expected[n]).max() <= 0.51
    squares = [((value - 151) / 255) ** 2 for value in expected]
    assert found.start_error.tolist() == pytest.approx(squares[:1], rel=1e-4)
    assert found.error[:, 0].tolist() == pytest.approx(squares[1:], rel=1e-3)
    assert (found.told, found.projected) == (None, False)


def test_the_mean_of_the_known_pixels_is_each_channels_own() -> None:
    seen: list[Tensor] = []

    class Watcher(Copyist):
        def encode(self, image: Tensor, *told: Any) -> Tensor:
            seen.append(image.clone())
            return image.flatten(1)

        def decode(self, latent: Tensor, *told: Any) -> Tensor:
            return latent.view(-1, 3, 16, 16)

    dice = np.random.default_rng(0)
    image, mask = dice.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8), masks.draw("box", 0, range(2), (16, 16))
    found = painter(None, Watcher, channels=3).inpaint(image, mask, iterations=1)
    for n in range(2):
        mean = image[n][~mask[n]].mean(0) / 127.5 - 1
        assert seen[0][n].permute(1, 2, 0).numpy()[mask[n]] == pytest.approx(np.tile(mean, (mask[n].sum(), 1)), abs=1e-5)
        assert np.abs(found.images[0, n][mask[n]] - image[n][~mask[n]].mean(0)).max() <= 0.51


def test_a_label_for_each_image_fills_its_hole() -> None:
    trained = painter("label", Copyist)
    images = np.stack([painted(0, 100)] * 20)
    labels = [number % 3 for number in range(20)]
    found = trained.inpaint(images, hole(LEFT), iterations=1, told=labels)
    assert [asked_of(image) for image in found.images[0]] == labels
    assert found.error[0] == pytest.approx([(8 * label / 255) ** 2 for label in labels], abs=1e-6)
    assert found.told is not None
    assert found.told.values.tolist() == labels
    assert [asked_of(image) for image in trained.inpaint(images[:2], hole(LEFT), told="disc").images[-1]] == [1, 1]


def test_its_own_classifier_is_asked_before_each_iteration() -> None:
    """The classifier takes the left half's mean for 8 times the class. The hole there starts as the mean of what is known, which the bright
    right half makes class 2; the decoder then paints the class before the one that it is told."""
    asked: list[list[int]] = []

    class Asked(Critic):
        def classify(self, image: Tensor) -> Tensor:
            logits = super().classify(image)
            asked.append(logits.argmax(1)[:1].tolist())
            return logits

        def decode(self, latent: Tensor, label: Tensor | None = None, *more: Any) -> Tensor:
            assert label is not None
            return super().decode(latent, (label - 1).clamp_min(0))  # each time the class before

    found = painter("label", Asked).inpaint(painted(0, 40)[None], hole(np.s_[1:, :8]), iterations=4)
    assert asked == [[2], [1], [0], [0]]
    assert [asked_of(made[0, -1]) for made in found.images] == [1, 0, 0, 0]
    assert found.told is not None
    assert found.told.values.tolist() == [0]


def test_an_image_is_completed_alike_in_any_company() -> None:
    trained = painter("label", Critic)
    images = trained.sample(20, seed=2)
    holes = masks.draw("stroke", 1, range(20), (16, 16))
    every = trained.inpaint(images, holes, iterations=3)
    alone = trained.inpaint(images[17:18], holes[17:18], iterations=3)
    assert np.array_equal(every.images[:, 17], alone.images[:, 0])
    by_name = trained.inpaint(images, "stroke", iterations=3, seed=1)
    assert np.array_equal(by_name.images, every.images)


# ---- projection --------------------------------------------------------------------------------------------------------------------------


def test_a_model_without_encoder_is_searched_on_what_is_known() -> None:
    """The unknown half of the right side is white: had it been looked at, the noise would be another."""
    trained = painter("label", Painter)
    whole = trained.sample(3, seed=4, told=1)
    spoilt = whole.copy()
    spoilt[:, 8:] = 255
    found = trained.inpaint(spoilt, hole(np.s_[8:]), told=1, steps=60, restarts=2)
    assert found.projected
    assert found.images.shape == (1, 3, 16, 16, 1)
    assert np.abs(found.images[0].astype(int) - whole).max() <= 8
    assert np.array_equal(found.images[0, :, :8], spoilt[:, :8])
    assert found.error[0] == pytest.approx(((whole[:, 8:] / 255 - 1) ** 2).mean((1, 2, 3)), rel=0.1)
    again = trained.project(spoilt, told=1, steps=60, restarts=2)
    assert again.error.min() > 0.1


# ---- what is refused ---------------------------------------------------------------------------------------------------------------------


def test_python_names_what_does_not_fit() -> None:
    trained, image = painter("label", Copyist), painted(0, 9)[None]
    for holes, message in (
        ("bxo", "unknown kind of mask 'bxo'"),
        (np.ones((16, 16)), "masks are float64"),
        (np.ones((2, 16, 16), bool), r"masks are bool \(2, 16, 16\)"),
        (np.zeros((16, 16), bool), "the mask has no hole"),
        (np.ones((16, 16), bool), "white all over"),
    ):
        with pytest.raises(UserError, match=message):
            trained.inpaint(image, holes, told=1)
    with pytest.raises(UserError, match="0 iterations"):
        trained.inpaint(image, "box", told=1, iterations=0)
    with pytest.raises(UserError, match="nobody says which label"):
        trained.inpaint(image, "box")
    with pytest.raises(UserError, match="2 for 1 images"):
        trained.inpaint(image, "box", told=[1, 2])


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (["--mask", "bxo"], "neither a kind of mask nor a file 'bxo': --mask", "did you mean 'box'?"),
        (["--mask", "SMALL"], "the mask is 8x16, the model's images are 16x16: SMALL", "give a mask of 16x16 pixels"),
        (["--mask", "BLACK"], "the mask has no hole: BLACK", "white in the hole"),
        (["--mask", "WHITE"], "the mask is white all over: nothing of the image is known: WHITE", "black elsewhere"),
        (["--mask", "TEXT"], "no readable mask (not an image of a known format", "box, center, half, random, stroke"),
        (["--mask", "FOLDER"], "no mask of that name for 1.png", "one mask for each image"),
        (["--mask", "box", "--label", "0,1,2"], "3 for 2 images: --label", "one for all, or one for each"),
        (["--mask", "box", "--label", "dics"], "unknown label 'dics'", "did you mean 'disc'?"),
        (["--mask", "box", "--label", "true"], "the images come without label: --label true", "labelled data"),
        (["--mask", "box"], "nobody says which label the images show: --label", "say it"),
        (["--mask", "box", "--show", "1,20"], "iteration 20 of 10: --show", "up to --iterations"),
        (["--mask", "box", "-o", "a.png", "--out", "b"], "both -o and --out", "for a grid"),
        (["--mask", "box", "--label", "0", "--restarts", "2"], "this model's noise is not searched: --restarts", "leave it out"),
        (["--mask", "box", "--label", "0", "--out", "b", "--show", "1"], "both --out and --show", "leave one of them out"),
    ],
)
def test_mistakes_are_named(words: list[str], what: str, fix: str, paint: Paint, tmp_path_factory: pytest.TempPathFactory) -> None:
    paint("label", Copyist)
    folder = tmp_path_factory.mktemp("there")
    images = [path.rename(folder / path.name) for path in files(folder, [painted(0, 9)] * 2)]
    (folder / "masks").mkdir()
    places = {"SMALL": folder / "small.png", "BLACK": folder / "black.png", "WHITE": folder / "white.png", "TEXT": folder / "a.txt"}
    places["FOLDER"] = folder / "masks"
    for name, pixels in (("SMALL", np.zeros((16, 8), np.uint8)), ("BLACK", np.zeros((16, 16), np.uint8)), ("WHITE", painted(255, 255))):
        save_png(pixels, places[name])
    places["TEXT"].write_text("no image")
    save_png(painted(0, 255), places["FOLDER"] / "0.png")
    message = refused("inpaint", "run", *images, *(places.get(word, word) for word in words)).replace(f"{folder}/", "")
    for name, path in places.items():
        what = what.replace(name, path.name)
    assert what in message.partition("\n")[0]
    assert fix in message.partition("\n")[2]


def test_a_model_that_can_neither_is_named(paint: Paint, tmp_path_factory: pytest.TempPathFactory) -> None:
    [image] = files(tmp_path_factory.mktemp("there"), [painted(0, 9)])

    class Idle(LatentModel):
        def __init__(self, kind: str | None, spec: DataSpec) -> None:
            super().__init__(kind, spec)
            self.scale = nn.Parameter(torch.ones(()))

    paint(None, Idle)
    assert "this model cannot inpaint" in refused("inpaint", "run", image, "--mask", "box")


# ---- lgm inpaint -------------------------------------------------------------------------------------------------------------------------


def test_inpaint_a_grid_with_a_row_for_each_image(paint: Paint, tmp_path_factory: pytest.TempPathFactory) -> None:
    trained = paint("label", Copyist)
    originals = [painted(0, 100), painted(8, 50)]
    images = files(tmp_path_factory.mktemp("shown"), originals)
    words = ("--mask", "box", "--label", "disc,cross", "--seed", 3, "--iterations", 6, "--show", "5,2,5")
    shown, said = done("inpaint", "run", *images, *words)
    holes = masks.draw("box", 3, range(2), (16, 16))
    found: Inpainting = trained.inpaint(np.stack(originals), holes, iterations=6, told=[1, 0])
    row = cells("run-inpainted.png", 4)
    for n in range(2):
        assert np.array_equal(row[4 * n], originals[n][..., 0])
        assert np.array_equal(row[4 * n + 1], np.where(holes[n], 128, originals[n][..., 0]))
        assert np.array_equal(row[4 * n + 2], found.images[1, n, ..., 0])
        assert np.array_equal(row[4 * n + 3], found.images[4, n, ..., 0])
    assert said == ""
    assert {key: shown[key] for key in ("mask", "seed", "by", "iterations", "shown", "files")} == {
        "mask": "box",
        "seed": 3,
        "by": "iteration",
        "iterations": 6,
        "shown": [2, 5],
        "files": ["run-inpainted.png"],
    }
    assert [(item["image"], item["label"]) for item in shown["images"]] == [(str(images[0]), "disc"), (str(images[1]), "cross")]
    for n, item in enumerate(shown["images"]):
        assert item["errors"] == found.error[:, n].tolist()
        assert (item["error"], item["start_error"]) == (item["errors"][-1], found.start_error[n])
    assert shown["mean_errors"] == pytest.approx(found.error.mean(1).tolist())
    default, _ = done("inpaint", "run", *images, "--mask", "box", "--label", 1, "--iterations", 7, "-o", "b.png")
    assert default["shown"] == [1, 5, 7]
    assert len(cells("b.png", 5)) == 10


def test_inpaint_prints_a_table_of_the_iterations(paint: Paint, tmp_path_factory: pytest.TempPathFactory) -> None:
    trained = paint("label", Critic)
    [image] = files(tmp_path_factory.mktemp("shown"), [painted(0, 100)])
    lines = lgm("inpaint", "run", image, "--mask", "half", "--iterations", 3).stdout.splitlines()
    found = trained.inpaint(painted(0, 100)[None], "half", iterations=3)
    assert re.fullmatch(rf"{found.error[-1, 0]:.5f}  {image} as (cross|disc|t-shirt, top)", lines[0])
    assert [line.split() for line in lines[2:6]] == [
        ["start", f"{found.start_error[0]:.5f}"],
        *([str(n), f"{error:.5f}"] for n, error in enumerate(found.error[:, 0], start=1)),
    ]
    assert lines[6:] == ["run-inpainted.png"]


def test_inpaint_writes_single_images(paint: Paint, tmp_path_factory: pytest.TempPathFactory) -> None:
    trained = paint(None, Copyist)
    originals = [painted(0, 100), painted(8, 50)]
    files(folder := tmp_path_factory.mktemp("shown"), originals)
    shown, _ = done("inpaint", "run", folder, "--mask", "center", "--out", "out", "-n", 2)
    made = trained.inpaint(np.stack(originals), "center").images[-1]
    assert shown["files"] == ["out"]
    for number in range(2):
        with Image.open(f"out/{number:06}.png") as image:
            assert np.array_equal(np.asarray(image), made[number, ..., 0])
    assert "something lies there already: out" in lgm("inpaint", "run", folder, "--mask", "center", "--out", "out").stderr


def test_masks_from_a_file_and_from_a_folder(paint: Paint, tmp_path_factory: pytest.TempPathFactory) -> None:
    paint(None, Copyist)
    folder = tmp_path_factory.mktemp("shown")
    images = files(folder, [painted(0, 100), painted(8, 50)])
    own = tmp_path_factory.mktemp("masks")
    save_png(np.where(hole(LEFT), 255, 0).astype(np.uint8), own / "1.png")
    save_png(np.where(hole(LOWER_RIGHT), 255, 0).astype(np.uint8), own / "0.bmp.png")
    (own / "0.bmp.png").rename(own / "0.bmp")
    shown, _ = done("inpaint", "run", *images, "--mask", own, "--iterations", 1)
    row = cells(*shown["files"], 3)
    assert np.array_equal(row[1] == 128, hole(LOWER_RIGHT))
    assert np.array_equal(row[4] == 128, hole(LEFT))
    done("inpaint", "run", f"{folder}:1", f"{folder}:0", "--mask", own, "--iterations", 1, "-o", "items.png")
    assert np.array_equal(cells("items.png", 3)[1] == 128, hole(LEFT))
    done("inpaint", "run", *images, "--mask", own / "1.png", "--iterations", 1, "-o", "one.png")
    assert all(np.array_equal(cell == 128, hole(LEFT)) for cell in cells("one.png", 3)[1::3])


def test_label_true_is_what_the_data_say(paint: Paint, pictures: Path) -> None:
    paint("label", Copyist, classes=("zero", "disc", "cross"))
    shown, _ = done("inpaint", "run", pictures, "--mask", "half", "-n", 12, "--label", "true", "--iterations", 1)
    assert [item["label"] for item in shown["images"]] == ["cross"] * 10 + ["disc"] * 2
    paint("label", Copyist, classes=("cross", "true", "disc"))
    shown, _ = done("inpaint", "run", pictures, "--mask", "half", "-n", 2, "--label", "true", "--iterations", 1, "-o", "b.png")
    assert [item["label"] for item in shown["images"]] == ["true"] * 2


def test_attributes_are_for_all_images_or_for_one_each(paint: Paint, tmp_path_factory: pytest.TempPathFactory) -> None:
    paint("attributes", Copyist)
    images = files(tmp_path_factory.mktemp("shown"), [painted(0, 100)] * 2)
    words = ("--mask", "half", "--iterations", 1, "--attributes", "smile=1,hat=1", "--attributes", "glasses=1")
    shown, _ = done("inpaint", "run", *images, *words)
    assert [item["label"] for item in shown["images"]] == ["smile hat", "glasses"]
    result = lgm("reconstruct", "run", *images, images[0], *words[4:], "-o", "b.png")
    assert (result.exit_code, "2 for 3 images" in result.stderr) == (2, True)
    shown, _ = done("inpaint", "run", *images, *words[:6], "-o", "c.png")
    assert [item["label"] for item in shown["images"]] == ["smile hat"] * 2


def test_inpaint_by_projection(paint: Paint, tmp_path_factory: pytest.TempPathFactory) -> None:
    trained = paint("label")
    images = files(tmp_path_factory.mktemp("shown"), list(trained.sample(2, seed=1, told=2)))
    shown, _ = done("inpaint", "run", *images, "--mask", "center", "--label", 2, *QUICK, "--seed", 5)
    assert (shown["by"], shown["iterations"]) == ("projection", 1)
    assert len(cells(*shown["files"], 3)) == 6
    assert max(item["error"] for item in shown["images"]) < 2e-3
    again = lgm("inpaint", "run", *images, "--mask", "center", "--label", 2, "--iterations", 3, "-o", "b.png")
    assert (again.exit_code, "this model is searched once, not asked again: --iterations" in again.stderr) == (2, True)
    lines = lgm("inpaint", "run", *images, "--mask", "center", "--label", 2, *QUICK, "--seed", 5, "-o", "b.png").stdout.splitlines()
    assert [line.split()[0] for line in lines[3:5]] == ["start", "projection"]


def test_the_example_of_the_documentation(paint: Paint) -> None:
    """The Python of docs/inpainting.md."""
    paint("label", Critic, classes=tuple("0123456789"))
    [code] = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "inpainting.md").read_text(), re.S)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["found"].images.shape == (10, 8, 16, 16, 1)
    assert names["found"].error.shape == (10, 8)
    assert torch.equal(names["found"].told.values, torch.full((8,), 3))
