"""Several answers to one question: completions and translations on the command line and in Python, their ways, and what is measured."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
from painter import cells, done, lgm, refused
from PIL import Image

import models
from models import api
from models.capabilities import complete as completing
from models.capabilities.trained import Trained
from models.data.images import save_png
from models.data.load import load, parse
from models.errors import UserError
from models.metrics import answers
from models.metrics.features.blind import Blind
from models.metrics.stats.evidence import Evidence
from models.training import checkpoint

STEPS = (0, 1, 2, 5, 20)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of coloured pictures, 16 high and 20 wide."""
    return support.write_pictures(tmp_path_factory.mktemp("colours"), colour=True)


@pytest.fixture(scope="module")
def run_of(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A tiny finished run of a model with a task, made once."""
    made: dict[tuple[Any, ...], Path] = {}

    def run(model: str, **options: Any) -> Path:
        key = (model, *sorted(options.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("runs") / "-".join(map(str, (model, *options.values())))
            settings = support.tiny(model, {"lr": 0.02, **options}, images=48)
            support.call(support.train, model, str(colours), str(made[key]), settings)
        return made[key]

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- completing ------------------------------------------------------------------------------------------------------------------------


def test_a_completion_depends_on_its_image_the_seed_and_its_number_alone(straight: Callable[[str], Path], pictures: Path) -> None:
    trained = models.load(straight("cgml"), device="cpu")
    images = trained.data(str(pictures)).rows("image", np.arange(5))
    many = trained.complete(images, "box", 20, seed=3)
    assert (many.dtype, many.shape) == (np.uint8, (5, 20, 16, 16, 1))
    holes = completing.masks.draw("box", 3, range(5), (16, 16))
    assert np.array_equal(many[2:3, :3], trained.complete(images[2:3], holes[2:3], 3, seed=3))
    assert not np.array_equal(many, trained.complete(images, holes, 20, seed=4))
    assert (many == images[:, None])[np.broadcast_to(~holes[:, None, ..., None], many.shape)].all(), "what is known is changed"
    assert len(np.unique(many[0], axis=0)) > 1, "the noise changes nothing"
    assert np.array_equal(trained.complete(images, holes, 2, iterations=10), trained.complete(images, holes, 2))
    assert not np.array_equal(trained.complete(images, holes, 2, iterations=0), trained.complete(images, holes, 2))


def test_inpaint_shows_several_completions(straight: Callable[[str], Path], pictures: Path, here: Path) -> None:
    run = straight("cgml")
    shown, said = done("inpaint", run, pictures, "-n", 3, "--mask", "half", "--variants", 4, "--seed", 2)
    assert said == ""
    assert (shown["files"], shown["by"], shown["variants"]) == (["cgml-inpainted.png"], "completion", 4)
    trained = models.load(run, device="cpu")
    images = trained.data(str(pictures)).rows("image", np.arange(3))
    holes = completing.masks.draw("half", 2, range(3), (16, 16))
    made = trained.complete(images, holes, 4, seed=2)
    found = cells(shown["files"][0], 6)
    assert np.array_equal(found[6], images[1, ..., 0])
    assert np.array_equal(found[7], np.where(holes[1], 128, images[1, ..., 0]))
    assert all(np.array_equal(found[8 + k], made[1, k, ..., 0]) for k in range(4))
    error = (((made[1, 0, ..., 0].astype(float) - images[1, ..., 0]) / 255) ** 2)[holes[1]].mean()
    assert shown["images"][1]["errors"][0] == pytest.approx(error)
    assert shown["mean_best_error"] <= shown["mean_error"]

    assert len(done("inpaint", run, pictures, "-n", 2, "--mask", "box")[0]["images"][0]["errors"]) == 5
    done("inpaint", run, pictures, "-n", 2, "--mask", "box", "--variants", 3, "--out", "out")
    assert sorted(path.name for path in Path("out").iterdir()) == [f"{n}-{k:06d}.png" for n in range(2) for k in range(3)]
    text = lgm("inpaint", run, pictures, "-n", 2, "--mask", "box", "-o", "c.png").stdout
    assert "of the best of 5" in text


def test_a_trace_shows_the_way_to_each_answer(straight: Callable[[str], Path], pictures: Path, here: Path) -> None:
    run = straight("cgml")
    shown, _ = done("inpaint", run, pictures, "-n", 2, "--mask", "center", "--variants", 2, "--trace", "--gif", "-o", "way.png")
    assert (shown["files"], shown["iterations"]) == (["way.png", "way.gif"], list(STEPS))
    trained = models.load(run, device="cpu")
    images = trained.data(str(pictures)).rows("image", np.arange(2))
    found = cells("way.png", 7)
    assert len(found) == 4 * 7  # a row for each completion of each image
    for column, steps in enumerate(STEPS):
        made = trained.complete(images, "center", 2, iterations=steps)
        assert np.array_equal(found[7 + 2 + column], made[0, 1, ..., 0])
    with Image.open("way.gif") as animation:
        assert animation.n_frames > 1


def test_a_run_is_asked_for_the_holes_that_it_knows(run_of: Callable[..., Path], colours: Path, here: Path) -> None:
    centred, halves = run_of("cgml", mask="center"), run_of("regression", mask="half")
    done("inpaint", centred, colours, "-n", 1, "--mask", "center", "-o", "a.png")
    done("inpaint", halves, colours, "-n", 8, "--mask", "half", "-o", "b.png")
    Path("a.png").unlink(), Path("b.png").unlink()
    said = refused("inpaint", centred, colours, "-n", 2, "--mask", "box")
    assert "the run was trained to fill holes of the kind 'center', this is another one" in said
    assert "holes of the kind 'half'" in refused("inpaint", halves, colours, "-n", 2, "--mask", "stroke")


@pytest.mark.parametrize(
    ("model", "words", "what"),
    [
        ("cgml", ["--gif"], "an animation shows the way to an answer"),
        ("cgml", ["--trace", "--out", "b"], "both --out and --trace"),
        ("cgml", ["--trace", "--iterations", "2"], "both --trace and --iterations"),
        ("cgml", ["--show", "1"], "told nothing but the image and its hole"),
        ("cgml", ["--label", "0"], "told nothing but the image and its hole"),
        ("regression", ["--trace"], "found at once, not step by step"),
        ("regression", ["--iterations", "3"], "found at once, not step by step"),
        ("vae", ["--variants", "3"], "one answer to a hole"),
        ("vae", ["--trace"], "one answer to a hole"),
        ("vae", ["--iterations", "0"], "0 iterations"),
    ],
)
def test_what_does_not_go_together(
    model: str, words: list[str], what: str, straight: Callable[[str], Path], pictures: Path, here: Path
) -> None:
    assert what in refused("inpaint", straight(model), pictures, "-n", 1, "--mask", "box", *words)


# ---- translating -----------------------------------------------------------------------------------------------------------------------


def test_a_task_makes_pairs_of_the_data(run_of: Callable[..., Path], colours: Path, here: Path) -> None:
    run = run_of("cgml", task="colourise")
    header = checkpoint.read_header(support.newest(run))
    assert header.config.data == f"{colours}[input=grey]"
    assert (header.spec.shape, header.spec.fields["target"].shape) == ((1, 16, 20), (3, 16, 20))
    again = api.plan("cgml", header.config.data, options={"task": "colourise"}, batch=8)
    assert again.config.data == header.config.data
    with pytest.raises(UserError, match=r"pairs already \(input=small:2\)"):
        api.plan("cgml", f"{colours}[input=small:2]", options={"task": "colourise"}, batch=8)
    two = api.plan("cgml", f"{colours}[first=3]+{colours}[first=9]", options={"task": "upscale", "factor": 2}, batch=8)
    assert two.config.data == f"{colours}[first=3;input=small:2]+{colours}[first=9;input=small:2]"
    assert two.spec.shape == (3, 8, 10)


def test_a_resumed_run_wants_the_same_pairs(run_of: Callable[..., Path], colours: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_of("cgml", task="colourise"), run)
    support.call(support.resume, str(run), {"images": 64})
    assert max(support.checkpoints(run)) == 64


def test_translate_gives_several_answers_and_their_way(run_of: Callable[..., Path], colours: Path, here: Path) -> None:
    run = run_of("cgml", task="colourise")
    trained = models.load(run, device="cpu")
    image = sorted(colours.rglob("*.png"))[0]
    grey = trained.images([image])
    assert grey.shape == (1, 16, 20, 1)
    made = trained.translate(grey, 3)
    assert made.shape == (1, 3, 16, 20, 3)
    shown, _ = done("translate", run, image, "--variants", 3, "-o", "a.png")
    with Image.open(shown["files"][0]) as picture:
        assert np.array_equal(np.asarray(picture)[2:18, 2 + 22 : 2 + 42], made[0, 0])
    shown, _ = done("translate", run, image, "--variants", 2, "--trace", "--gif", "-o", "b.png")
    assert shown["iterations"] == list(STEPS)
    with Image.open("b.png") as picture:
        found = np.asarray(picture)
    for steps in (0, 20):
        done("translate", run, image, "--variants", 2, "--gif", "--iterations", steps, "-o", f"{steps}.png")
    assert Path("0.gif").read_bytes() != Path("20.gif").read_bytes(), "an animation of other answers than the grid's"
    for column, steps in enumerate(STEPS):
        assert np.array_equal(found[20:36, 24 + 22 * column : 44 + 22 * column], trained.translate(grey, 2, iterations=steps)[0, 1])


def test_translating_mistakes(run_of: Callable[..., Path], straight: Callable[[str], Path], colours: Path, here: Path) -> None:
    colourise, upscale = run_of("cgml", task="colourise"), run_of("regression", task="upscale", factor=2)
    assert "translates in one direction only" in refused("translate", colourise, colours, "--back")
    assert "found at once" in refused("translate", upscale, colours, "--trace")
    assert "both --out and --trace" in refused("translate", colourise, colours, "--trace", "--out", "b")
    assert "both --trace and --iterations" in refused("translate", colourise, colours, "--trace", "--iterations", 3)
    many = [str(sorted(colours.rglob("*.png"))[0])] * 300
    assert "77,402 pixels high, the most is 65,535: --gif" in refused(
        "translate", colourise, *many, "--scale", 16, "--gif", "--variants", 1
    )
    assert "this model cannot translate: cgml" in refused("translate", straight("cgml"), colours)
    with pytest.raises(UserError, match="cannot complete images: cgml"):
        models.load(colourise, device="cpu").complete(np.zeros((1, 16, 20, 1), np.uint8), "box")
    large = models.load(upscale, device="cpu").translate(np.zeros((2, 8, 10, 3), np.uint8), 1)
    assert large.shape == (2, 1, 16, 20, 3)


def test_grey_pictures_have_no_colours_to_learn(pictures: Path, here: Path) -> None:
    said = refused("train", "cgml", "--data", pictures, "--task", "colourise", "--batch", 8)
    assert "grey images have no colours to learn: --task colourise" in said
    assert "cgml needs target" in refused("train", "cgml", "--data", pictures, "--task", "pairs", "--batch", 8)
    assert "cannot be made 5 times smaller" in refused(
        "train", "cgml", "--data", pictures, "--task", "upscale", "--set", "factor=5", "--batch", 8
    )


def test_pairs_of_two_folders(colours: Path, pictures: Path, here: Path) -> None:
    """Inputs and targets of other sizes; a pair that is missing is named; a target of another size is not the run's."""
    shutil.copytree(pictures, "small")
    settings = support.tiny("image-cvae", {"task": "pairs"}, images=16)
    support.call(support.train, "image-cvae", f"small[target={colours}]", "run", settings)
    trained = models.load("run", device="cpu")
    assert trained.translate(np.zeros((2, 16, 16, 1), np.uint8), 3).shape == (2, 3, 16, 20, 3)
    shutil.copytree(colours, "wide")
    with Image.open("wide/cross/000.png") as image:
        size = image.size
    for path in Path("wide").rglob("*.png"):
        save_png(np.zeros((size[1], size[0] + 4, 3), np.uint8), path)
    with pytest.raises(UserError, match=r"the targets are \(1, 16, 24\) now"):
        list(api.resume("run", images=32, data=f"small[target={Path('wide').resolve()}]", accept_data=True))
    Path("wide/cross/000.png").unlink()
    said = lgm("train", "image-cvae", "--data", "small[target=wide]", "--task", "pairs", "--batch", 8)
    assert said.exit_code == 2
    assert "1 of 20 images have no target, the first is cross/000" in said.stderr


# ---- what is measured ------------------------------------------------------------------------------------------------------------------


def evidence(trained: Trained, data: str) -> Evidence:
    return Evidence(None, None, 0, trained, Blind(), load(parse(data)), count=8)


def test_answers_are_measured_as_they_are_defined(run_of: Callable[..., Path], colours: Path) -> None:
    trained = models.load(run_of("cgml", task="colourise"), device="cpu")
    data = load(parse(f"{colours}[input=grey]"))
    found = answers.measure(Evidence(None, None, 0, trained, Looks(), data, count=20), answers.Config(variants=4))
    several = trained.translate(data.rows("image", np.arange(20)), 80) / 255
    made = np.stack([several[n, 4 * n : 4 * n + 4] for n in range(20)])  # every question has noises of its own
    true = data.rows("target", np.arange(20))[:, None] / 255
    errors = ((made - true) ** 2).mean((2, 3, 4))
    assert found["mse"] == pytest.approx(errors.mean())
    assert found["best_mse"] == pytest.approx(errors.min(1).mean())
    apart = [((made[:, a] - made[:, b]) ** 2).mean() for a in range(4) for b in range(a)]
    assert found["distance"] == pytest.approx(np.mean(apart))
    means = made.mean((2, 3))
    apart = [np.sqrt(((means[:, a] - means[:, b]) ** 2).sum(1)).mean() for a in range(4) for b in range(a)]
    assert found["feature_distance"] == pytest.approx(np.mean(apart), rel=1e-4)
    expected = support.frechet(*(side[:, 0].mean((1, 2)) for side in (made, true)))
    assert found["fid"] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    grey = (made * 255).round() @ np.array([0.299, 0.587, 0.114])
    assert found["kept"] == pytest.approx((((grey - data.rows("image", np.arange(20))[:, None, ..., 0]) / 255) ** 2).mean(), abs=2e-5)


class Looks:
    """The mean colour as features, and whether it is bright as the class."""

    name, dimensions, classes, target = "looks", 3, 2, "label"

    def prepare(self, images: Any) -> torch.Tensor:
        return torch.from_numpy(np.stack([np.broadcast_to(image, (*image.shape[:2], 3)) for image in images])).float() / 255

    def apply(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        means = batch.mean((1, 2))
        bright = means.mean(1, keepdim=True)
        return means, torch.cat([bright, 0.5 - bright], 1)


def test_completions_are_measured_in_their_holes(straight: Callable[[str], Path], pictures: Path) -> None:
    trained = models.load(straight("regression"), device="cpu")
    data = load(parse(str(pictures)))
    found = answers.measure(Evidence(None, None, 5, trained, Looks(), data, count=20), answers.Config(variants=3))
    holes = completing.learned_holes(trained.model, range(20), 5)
    images = data.rows("image", np.arange(20))
    made = trained.complete(images, holes, 1)[:, 0]
    errors = [(((a.astype(float) - b) / 255) ** 2)[hole].mean() for a, b, hole in zip(made, images, holes)]
    assert found["mse"] == found["best_mse"] == pytest.approx(np.mean(errors))
    assert (found["distance"], found["feature_distance"]) == (pytest.approx(0), pytest.approx(0, abs=1e-6))
    assert found["classes"] == 1
    assert "kept" not in found


def test_every_hole_has_noises_of_its_own(straight: Callable[[str], Path], pictures: Path) -> None:
    trained = models.load(straight("cgml"), device="cpu")
    data = load(parse(str(pictures)))
    found = answers.measure(Evidence(None, None, 5, trained, Looks(), data, count=20), answers.Config(variants=3))
    holes, images = completing.learned_holes(trained.model, range(20), 5), data.rows("image", np.arange(20))
    several = trained.complete(images, holes, 60, seed=5)
    made = [several[n, 3 * n : 3 * n + 3] for n in range(20)]
    errors = [(((a / 255 - b / 255) ** 2)[:, hole]).mean((1, 2)) for a, b, hole in zip(made, images, holes)]
    assert found["mse"] == pytest.approx(np.mean(errors), rel=1e-6)
    assert found["best_mse"] == pytest.approx(np.mean([each.min() for each in errors]), rel=1e-6)


def test_evaluate_measures_answers_and_says_where_there_are_none(
    run_of: Callable[..., Path], straight: Callable[[str], Path], colours: Path, pictures: Path, here: Path
) -> None:
    features = ("--features", f"classifier:{straight('classifier')}")
    shown, _ = done("evaluate", straight("cgml"), "--data", pictures, "--metrics", "answers", "-n", 12, *features)
    found = shown["metrics"]["answers"] if "answers" in shown["metrics"] else shown["metrics"]
    assert set(found) >= {"mse", "best_mse", "distance", "feature_distance", "fid", "classes"}
    assert "answers no questions" in refused("evaluate", straight("vae"), "--data", pictures, "--metrics", "answers", *features)
    assert "nobody knows what its translations should be" in refused(
        "evaluate", straight("cross-domain"), "--data", pictures, "--metrics", "answers", *features
    )


def test_a_run_draws_its_answers(run_of: Callable[..., Path], straight: Callable[[str], Path]) -> None:
    [*_, last] = sorted((straight("cgml") / "samples").glob("completion-*.png"))
    with Image.open(last) as image:
        assert image.size == (8 * 18 + 2, 8 * 18 + 2)
    [*_, last] = sorted((run_of("cgml", task="colourise") / "samples").glob("translation-*.png"))
    with Image.open(last) as image:  # the grey image, what belongs to it, and six answers
        found = np.asarray(image)
    assert found.shape == (8 * 18 + 2, 8 * 22 + 2, 3)
    grey, target = found[2:18, 2:22].astype(float), found[2:18, 24:44].astype(float)
    assert (grey[..., 0] == grey[..., 1]).all()
    assert np.abs(target @ np.array([0.299, 0.587, 0.114]) - grey[..., 0]).max() < 1


def test_the_example_of_the_documentation(straight: Callable[[str], Path], here: Path, pictures: Path) -> None:
    """The Python of docs/answers.md, on a tiny run under the name that it uses."""
    [code] = re.findall(r"```python\n(.*?)```", (support.REPOSITORY / "docs" / "answers.md").read_text(), re.S)
    shutil.copytree(straight("cgml"), "runs/cgml-mnist")
    names: dict[str, Any] = {}
    exec(code.replace("mnist:test", str(pictures)), names)
    assert names["made"].shape == names["start"].shape == (2, 5, 16, 16, 1)
