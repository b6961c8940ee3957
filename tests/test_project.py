"""lgm project: the noise of images, for models with and without condition."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from painter import asked_of, cells, done, lgm, painter, refused
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from models import api
from models.capabilities.ask import images_from
from models.capabilities.told import resolve
from models.data.images import save_png
from models.errors import UserError

QUICK = ("--steps", 60, "--restarts", 2)
Paint = Callable[..., api.Trained]


def written(images: np.ndarray, folder: Path, classes: list[str] | None = None) -> Path:
    """Images as numbered PNGs, in sub-folders where they have classes."""
    for number, image in enumerate(images):
        path = folder / (classes[number] if classes else "") / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(image, path)
    return folder


def test_project_a_grid_and_the_errors(paint: Paint, tmp_path_factory: pytest.TempPathFactory) -> None:
    trained = paint(None)
    originals = trained.sample(3, seed=5)
    files = sorted(written(originals, tmp_path_factory.mktemp("shown")).iterdir())
    shown, said = done("project", "run", *files, *QUICK)
    assert said == ""
    assert [item["image"] for item in shown["images"]] == [str(file) for file in files]
    errors = [item["error"] for item in shown["images"]]
    assert max(errors) < 1e-3
    assert shown["mean_error"] == pytest.approx(sum(errors) / 3)
    assert shown["grid"] == "run-projections.png"
    found = cells("run-projections.png", 3)
    assert np.array_equal(found[:3], originals[..., 0])
    assert np.abs(np.array(found[3:]).astype(int) - originals[..., 0]).max() <= 8
    lines = lgm("project", "run", files[0], *QUICK, "-o", "again.png").stdout.splitlines()
    assert re.fullmatch(rf"0\.000\d\d  {files[0]}", lines[0])
    assert lines[1:] == [f"{lines[0][:7]}  mean squared error (black 0, white 1)", "again.png"]


def test_project_writes_single_images_and_the_noise(paint: Paint, tmp_path_factory: pytest.TempPathFactory) -> None:
    trained = paint("label")
    data = written(trained.sample(2, told=1), tmp_path_factory.mktemp("shown"))
    shown, _ = done("project", "run", data, "--label", "disc", *QUICK, "--seed", 3, "--out", "out")
    assert (shown["folder"], shown["noise"]) == ("out", "out/noise.safetensors")
    assert sorted(p.name for p in Path("out").iterdir()) == ["000000.png", "000001.png", "noise.safetensors"]
    kept = load_file("out/noise.safetensors")
    assert {name: tuple(value.shape) for name, value in kept.items()} == {"noise": (2, 1), "error": (2,), "condition": (2,)}
    assert kept["error"].tolist() == [item["error"] for item in shown["images"]]
    with safe_open("out/noise.safetensors", "pt") as file:
        assert file.metadata()["kind"] == "lgm projection"
    again = images_from(trained.model, kept["noise"], "noise", resolve(trained.model, kept["condition"].numpy()))
    for number in range(2):
        with Image.open(f"out/{number:06}.png") as image:
            assert np.array_equal(np.asarray(image), again[number, ..., 0])
    assert "something lies there already: out" in lgm("project", "run", data, "--label", 1, "--out", "out").stderr
    assert "both -o and --out" in lgm("project", "run", data, "--label", 1, "--out", "other", "-o", "a.png").stderr


def test_project_tells_a_model_the_data_s_own_labels(paint: Paint, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The folder has two of the model's three classes, so its own numbers differ from the model's."""
    trained = paint("label", classes=("zero", "cross", "disc"))
    originals = trained.sample(2, seed=1, told=["disc", "cross"])
    data = written(originals, tmp_path_factory.mktemp("shown"), ["disc", "disc", "cross", "cross"])
    shown, _ = done("project", "run", data, *QUICK)
    found = cells(shown["grid"], 4)
    assert [asked_of(cell) for cell in found] == [1, 1, 2, 2] * 2
    assert max(item["error"] for item in shown["images"]) < 1e-3
    item, _ = done("project", "run", f"{data}:3", f"{data}:0", *QUICK)
    assert [asked_of(cell) for cell in cells(item["grid"], 2)] == [2, 1] * 2
    told, _ = done("project", "run", data, *QUICK, "--label", "zero")  # what is said counts before what the data say
    assert [asked_of(cell) for cell in cells(told["grid"], 4)[4:]] == [0] * 4


def test_project_takes_a_label_for_each_image(paint: Paint, tmp_path_factory: pytest.TempPathFactory) -> None:
    trained = paint("identity")
    files = sorted(written(trained.sample(1, told=[7, 0, 7]), tmp_path_factory.mktemp("shown")).iterdir())
    shown, _ = done("project", "run", *files, "--label", "7,0,7", *QUICK)
    assert [asked_of(cell) for cell in cells(shown["grid"], 3)[3:]] == [7, 0, 7]


def test_project_refuses_what_it_is_not_told(paint: Paint, pictures: Path) -> None:
    files = sorted(pictures.rglob("*.png"))[:3]
    paint("label")
    assert "nobody says which label the images show: --label" in refused("project", "run", *files)
    assert "2 for 3 images: --label" in refused("project", "run", *files, "--label", "0,1")
    paint("label", classes=("cross", "square"))
    assert "unknown label 'disc'" in refused("project", "run", pictures)
    paint("attributes")
    assert "nobody says which attributes the images show: --attributes" in refused("project", "run", pictures)
    paint(None)
    assert "takes no condition" in refused("project", "run", *files, "--label", "0")


def test_project_by_attributes_in_python() -> None:
    trained = painter("attributes")
    asked: list[dict[str, Any]] = [{"smile": 1}, {"hat": 1, "glasses": 1}]
    found = trained.project(trained.sample(1, told=asked), told=asked, steps=60, restarts=2)
    assert [asked_of(image) for image in found.images] == [1, 6]
    assert found.error.max() < 1e-3
    assert found.told is not None
    assert found.told.values.tolist() == [[1, 0, 0], [0, 1, 1]]
    with pytest.raises(UserError, match="nobody says"):
        trained.project(found.images)


def test_project_searches_blocks_of_images() -> None:
    """More images than a block: each is found, told its own label, counted in the progress, and starts where it would in any company."""
    trained = painter("label")
    labels = [number % 3 for number in range(20)]
    originals = np.concatenate([trained.sample(1, seed=number, told=label) for number, label in enumerate(labels)])
    steps: list[tuple[int, int]] = []
    settings: dict[str, Any] = {"steps": 60, "restarts": 2}
    found = trained.project(originals, told=labels, **settings, progress=lambda *step: steps.append(step))
    assert steps == [(number, 120) for number in range(1, 121)]
    assert found.error.max() < 2e-3  # of a noise far out, which the pull towards |z|^2 = dim keeps from its place
    assert [asked_of(image) for image in found.images] == labels
    fewer = trained.project(originals[:17], told=labels[:17], **settings)
    assert torch.equal(fewer.noise[:16], found.noise[:16])
    assert torch.allclose(fewer.noise, found.noise[:17], atol=1e-5)
