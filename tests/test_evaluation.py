"""Groups I and H12 of the fault list, and E through the metrics' path: `lgm fid` and `lgm evaluate` on tiny runs, from end to end."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import support
import torch
from faults import badfiles
from inception_weights import write_weights
from PIL import Image
from ranks import free_port, together
from torch import nn
from typer.testing import CliRunner, Result

from lgcli.app import app
from models import api, evaluation
from models.base import DataSpec, Field, LatentModel
from models.config import EvaluationConfig
from models.data.batches import spec_of, to_float
from models.errors import UserError
from models.evaluation import collect, plan
from models.evaluation.sides import SampledSource
from models.metrics import accuracy, path_length, reconstruction
from models.metrics.features.classifier import ClassifierFeatures
from models.metrics.reconstruction import ssim
from models.metrics.stats import cache, components, files
from models.metrics.stats.evidence import Collected, Evidence
from models.randomness import image_noise, some
from models.registry import METRICS

Runs = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own, with a cache of its own and without network."""

    def refuse(*args: Any, **options: Any) -> None:
        raise OSError("no network")

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("LGM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LGM_DATA", raising=False)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


@pytest.fixture(scope="session")
def classifier(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of crosses and discs with 8 features, which is right most of the time."""
    run = tmp_path_factory.mktemp("evaluation") / "classifier"
    settings = support.tiny("classifier", images=1600, log_every=1600, sample_every=1600, save_every=1600)
    support.call(support.train, "classifier", str(pictures), str(run), settings)
    return run


@pytest.fixture
def features(classifier: Path) -> str:
    return f"classifier:{classifier}"


@pytest.fixture
def vae(straight: Runs, tmp_path: Path) -> Path:
    """A copy: evaluating writes its report into the run."""
    return Path(shutil.copytree(straight("vae"), tmp_path / "vae"))


@pytest.fixture
def aegan(straight: Runs, tmp_path: Path) -> Path:
    return Path(shutil.copytree(straight("aegan"), tmp_path / "aegan"))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Thirty pictures that no run has seen."""
    return support.write_pictures(tmp_path / "other", 30, seed=1)


@pytest.fixture
def look(features: str) -> ClassifierFeatures:
    found = plan.open_features(EvaluationConfig(features=features))
    assert isinstance(found, ClassifierFeatures)
    return found


def lgm(*words: object) -> Result:
    """`lgm WORDS` in this process. An exception that would be a traceback fails the test."""
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [str(word) for word in words], catch_exceptions=False)


def done(*words: object) -> Result:
    """A command that must succeed; stderr has warnings only."""
    result = lgm(*words)
    assert result.exit_code == 0, result.output
    assert all(line.startswith("warning: ") for line in result.stderr.splitlines()), result.stderr
    return result


def document(*words: object) -> Any:
    """The one JSON document that a command prints on stdout with --json: no NaN, nothing beside it."""
    return json.loads(done(*words, "--json").stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def refused(*words: object) -> str:
    """The message of a command that must end as the user's mistake: on stderr, with a place and a fix, without a traceback."""
    result = lgm(*words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines(keepends=True) if not line.startswith("warning: ")]
    assert re.fullmatch(r"error: .+: .+\n  fix: .+\n(    .+\n)*", "".join(lines)), result.stderr
    return "".join(lines)


def write(folder: Path, images: Any, suffix: str = "png", mode: str | None = None) -> Path:
    """Images (H, W) or (H, W, 3) as numbered files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(images):
        image = Image.fromarray(np.asarray(pixels).squeeze())
        (image.convert(mode) if mode else image).save(folder / f"{number:03d}.{suffix}")
    return folder


def pixels_of(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))]


# ---- lgm fid: what a side can be -----------------------------------------------------------------------------------------------------


def test_every_kind_of_side(vae: Path, pictures: Path, features: str, look: ClassifierFeatures, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    for number, (mode, size) in enumerate([("L", 16), ("RGB", 20), ("RGBA", 9), ("1", 31), ("P", 16), ("CMYK", 40)] * 3):
        path = mixed / ("deep/er" if number % 2 else ".") / f"{number}.{'jpg' if mode == 'CMYK' else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(badfiles.picture(size, size + number, 3, seed=number)).convert(mode).save(path)
    checkpoint = support.newest(vae)
    done("fid", pictures, mixed, "--features", features, "--save-stats", "pictures.safetensors")
    sides = {
        str(mixed): (str(mixed), 18, "16x16 grey"),
        "glyphs:test": ("glyphs:test", 2000, "32x32 grey"),
        str(vae): ("vae", 40, "16x16 grey"),
        str(checkpoint): (checkpoint.stem, 40, "16x16 grey"),
        "pictures.safetensors": (str(pictures), 20, None),
    }
    values = {}
    for side, (name, images, first) in sides.items():
        found = document("fid", side, pictures, "--features", features, "-n", 40)
        assert found["a"] == {"name": name, "images": images, "first_image": first}
        assert found["b"] == {"name": str(pictures), "images": 20, "first_image": "16x16 grey"}
        assert found["warnings"] == []
        assert math.isfinite(found["fid"])
        assert document("fid", pictures, side, "--features", features, "-n", 40)["fid"] == pytest.approx(found["fid"], rel=1e-9, abs=1e-12)
        values[side] = found["fid"]
    assert values[str(vae)] == values[str(checkpoint)] > 0
    assert values["pictures.safetensors"] == pytest.approx(0, abs=1e-9)
    # What the command says is what the formula says.
    drawn, real = api.load(vae).sample(40), np.stack(pixels_of(pictures))[..., None]
    expected = support.frechet(*(look.apply(look.prepare(list(side)))[0].double().numpy() for side in (drawn, real)))
    assert values[str(vae)] == pytest.approx(expected, rel=1e-4)


def test_the_recipe_and_the_text(vae: Path, pictures: Path, features: str, look: ClassifierFeatures) -> None:
    found = document("fid", vae, pictures, "--features", features, "-n", 30, "--seed", 5)
    recipe = found["recipe"]
    assert (recipe["name"], recipe["digest"], recipe["resize"], recipe["seed"]) == ("classifier", look.digest, "crop", 5)
    assert (recipe["weights"], recipe["lgm"]) == ("average", __import__("models.version").version.__version__)
    shown = done("fid", vae, pictures, "--features", features, "-n", 30, "--seed", 5).stdout
    assert f"FID {found['fid']:#.4g}\n" in shown
    assert "A: vae, 30 images, the first 16x16 grey\n" in shown
    assert f"digest {look.digest[:12]}, " in shown
    assert "seed 5, weights average, lgm " in shown


def test_seed_number_and_raw_weights(vae: Path, pictures: Path, features: str) -> None:
    def value(**settings: Any) -> float:
        return float(evaluation.fid(str(vae), str(pictures), features=features, **{"number": 20, **settings})["fid"])

    values = [value(), value(seed=1), value(number=21), value(raw=True)]
    assert len(set(values)) == 4
    assert value() == values[0]


def test_saved_statistics(pictures: Path, other: Path, features: str) -> None:
    direct = document("fid", pictures, other, "--features", features, "--save-stats", "a.safetensors")
    again = document("fid", "a.safetensors", other, "--features", features)
    assert again["fid"] == pytest.approx(direct["fid"], rel=1e-9)
    assert {k: again["recipe"][k] for k in ("name", "digest", "size")} == {k: direct["recipe"][k] for k in ("name", "digest", "size")}
    # Two files need no network at all.
    shutil.copy("a.safetensors", "b.safetensors")
    assert document("fid", "a.safetensors", "b.safetensors")["fid"] == pytest.approx(0, abs=1e-9)
    before = Path("a.safetensors").read_bytes()
    assert "something lies there already" in refused("fid", other, pictures, "--features", features, "--save-stats", "a.safetensors")
    assert "ends in .safetensors" in refused("fid", other, pictures, "--features", features, "--save-stats", "a.npz")
    assert Path("a.safetensors").read_bytes() == before
    done("fid", other, pictures, "--features", features, "--save-stats", "a.safetensors", "--force")
    assert document("fid", "a.safetensors", other, "--features", features)["fid"] == pytest.approx(0, abs=1e-9)


def test_sides_with_other_recipes_are_refused(pictures: Path, features: str, straight: Runs) -> None:
    second = f"classifier:{straight('classifier')}"
    done("fid", pictures, pictures, "--features", features, "--save-stats", "a.safetensors")
    done("fid", pictures, pictures, "--features", second, "--save-stats", "b.safetensors")
    for words in (["a.safetensors", "b.safetensors"], ["a.safetensors", pictures, "--features", second]):
        message = refused("fid", *words)
        assert "different recipes: digest is " in message
        assert "size" not in message.partition("fix")[0]
    # Said before the other network is looked for, which cannot be had here.
    message = refused("fid", "a.safetensors", pictures)
    assert "name is 'classifier' in the statistics, 'inception' here" in message
    assert "--features" in message


def test_what_a_folder_hides_is_said(other: Path, features: str, tmp_path: Path) -> None:
    (other / "link.png").symlink_to(tmp_path / "nowhere.png")
    (other / "notes.txt").write_text("x")
    found = document("fid", other, other, "--features", features)
    assert found["a"]["images"] == 30
    assert found["warnings"] == [f"{other}: dangling link, skipped: link.png"]


def test_what_is_no_side(vae: Path, classifier: Path, pictures: Path, features: str) -> None:
    assert "did you mean 'glyphs'" in refused("fid", "glyps", pictures, "--features", features)
    assert "no such folder" in refused("fid", "./nowhere", pictures, "--features", features)
    assert "cannot sample" in refused("fid", classifier, pictures, "--features", features)
    Path("stats.safetensors").write_bytes(b"\0" * 100)
    refused("fid", "stats.safetensors", pictures, "--features", features)
    Path("empty").mkdir()
    assert "no images in this folder" in refused("fid", "empty", pictures, "--features", features)
    assert "classifies nothing" in refused("fid", pictures, pictures, "--features", f"classifier:{vae}")
    assert "use inception, or classifier:RUN" in refused("fid", pictures, pictures, "--features", "resnet")
    assert "did you mean 'clean'" in refused("fid", pictures, pictures, "--features", features, "--resize", "clear")
    assert "one of: fp32, bf16" in refused("fid", pictures, pictures, "--features", features, "--precision", "int8")
    assert "own weights" in refused("fid", pictures, pictures, "--features", features, "--weights", "x.pth")
    with pytest.raises(UserError, match="no metric is named"):
        evaluation.evaluate(vae, metrics=[])
    with pytest.raises(UserError, match="did you mean 'features'"):
        evaluation.fid("a", "b", feature="x")


# ---- I1 to I5, I8: numbers -----------------------------------------------------------------------------------------------------------


def test_I1_few_images_are_said_with_their_number_and_KID_is_named(pictures: Path, features: str, tmp_path: Path) -> None:
    few = write(tmp_path / "few", pixels_of(pictures)[:5])
    result = done("fid", few, pictures, "--features", features, "--json")
    found = json.loads(result.stdout)
    assert math.isfinite(found["fid"])
    assert found["a"]["images"] == 5
    [warning] = found["warnings"]
    assert "5 images for 8 features" in warning
    assert "KID is the better choice" in warning
    assert result.stderr == f"warning: {warning}\n"


def test_I2_identical_and_shuffled_sides(pictures: Path, features: str, vae: Path, tmp_path: Path) -> None:
    images = pixels_of(pictures)
    shuffled = write(tmp_path / "shuffled", [images[n] for n in np.random.default_rng(0).permutation(len(images))])
    assert document("fid", pictures, pictures, "--features", features)["fid"] == pytest.approx(0, abs=1e-9)
    assert document("fid", pictures, shuffled, "--features", features)["fid"] == pytest.approx(0, abs=1e-9)
    one, other = (document("fid", vae, side, "--features", features, "-n", 30)["fid"] for side in (pictures, shuffled))
    assert one == pytest.approx(other, rel=1e-6)


@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (7, 3)])
def test_I3_batch_and_workers_change_no_number(vae: Path, pictures: Path, other: Path, features: str, batch: int, workers: int) -> None:
    settings = {"features": features, "number": 20, "cached": False}
    how = {"batch": batch, "workers": workers}
    assert evaluation.fid(str(vae), str(pictures), **settings, **how)["fid"] == pytest.approx(
        evaluation.fid(str(vae), str(pictures), **settings)["fid"], rel=1e-5
    )
    options = {"kid": {"subset": 10}, "path-length": {"pairs": 10}}
    one, again = (evaluation.evaluate(vae, data=str(other), options=options, **settings, **more)["metrics"] for more in ({}, how))
    assert set(one) == set(again) == set(METRICS.entries()) - {"accuracy", "class-diversity", "answers", "swap", "classification"}
    for name in one:
        assert one[name] == pytest.approx(again[name], rel=1e-5, abs=1e-7), name


def test_I4_a_subset_larger_than_a_side(vae: Path, features: str) -> None:
    message = refused("evaluate", vae, "--metrics", "fid,kid", "--features", features, "-n", 15)
    assert "a subset of 1,000 is larger than a side: 15 real and 15 generated images" in message
    assert "--set kid.subset=15" in message
    assert not (vae / "evaluation.json").exists()
    found = document("evaluate", vae, "--metrics", "kid", "--features", features, "-n", 15, "--set", "kid.subset=15")
    assert set(found["metrics"]["kid"]) == {"kid", "kid_std"}
    # Where nobody named the metric, the others do not suffer.
    found = document("evaluate", vae, "--features", features, "-n", 15)
    assert "--set kid.subset=15" in found["not_measured"]["kid"]
    assert any(warning.startswith("kid is not measured: ") for warning in found["warnings"])
    assert "fid" in found["metrics"]
    assert "not measured: a subset of 1,000" in done("evaluate", vae, "--features", features, "-n", 15).stdout


def test_I5_constant_images_and_single_ones(pictures: Path, features: str, tmp_path: Path) -> None:
    flat = write(tmp_path / "flat", [np.full((16, 16), 90, np.uint8)] * 12)
    one = write(tmp_path / "one", pixels_of(pictures)[:1])
    black = write(tmp_path / "black", [np.zeros((16, 16), np.uint8)])
    values = {
        (a.name, b.name): document("fid", a, b, "--features", features)["fid"]
        for a in (flat, one, black)
        for b in (flat, one, black, pictures)
    }
    for (a, b), value in values.items():
        assert value >= 0
        assert (value < 1e-9) == (a == b)


def test_I5_a_model_that_always_makes_the_same(vae: Path, features: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.zoo.vae.VAE.sample", lambda self, noise: noise.new_zeros(len(noise), *self.spec.shape))
    found = document("evaluate", vae, "--features", features, "-n", 15, "--set", "kid.subset=15", "--set", "path-length.pairs=10")
    assert list(found["not_measured"]) == ["copying"]  # there are no images that the run has not seen
    assert found["metrics"]["diversity"]["diversity"] == found["metrics"]["sharpness"]["sharpness"] == 0
    assert found["metrics"]["path-length"] == {"ppl": 0, "median": 0}
    assert found["metrics"]["fid"]["fid"] > 0
    single = document("evaluate", vae, "--features", features, "-n", 1)
    assert set(single["not_measured"]) == {"kid", "prdc", "diversity", "inception-score", "copying"}


def test_I8_grey_and_coloured_sides(pictures: Path, features: str, tmp_path: Path) -> None:
    coloured = write(tmp_path / "coloured", pixels_of(pictures), mode="RGB")
    found = document("fid", pictures, coloured, "--features", features)
    assert found["fid"] == pytest.approx(0, abs=1e-9)
    assert [found[side]["first_image"] for side in "ab"] == ["16x16 grey", "16x16 colour"]
    large = write(tmp_path / "large", [image.repeat(3, 0).repeat(3, 1) for image in pixels_of(pictures)])
    found = document("fid", large, pictures, "--features", features)
    assert found["a"]["first_image"] == "48x48 grey"
    assert 0 < found["fid"] < document("fid", "glyphs:test", pictures, "--features", features)["fid"]


# ---- I6: the Inception network -------------------------------------------------------------------------------------------------------


def test_I6_missing_weights_name_both_ways_out(vae: Path, pictures: Path, tmp_path: Path) -> None:
    for words in (["fid", pictures, pictures], ["evaluate", vae, "-n", 10]):
        message = refused(*words)
        assert "the Inception weights cannot be had" in message
        assert "no network" in message
        assert str(tmp_path / "cache") in message
        assert "--weights FILE" in message
        assert "--features classifier:RUN" in message
        assert "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2" in message
    assert "no such file of Inception weights: nowhere.pth" in refused("fid", pictures, pictures, "--weights", "nowhere.pth")
    Path("cut.pth").write_bytes(b"PK\3\4")
    assert "damaged" in refused("fid", pictures, pictures, "--weights", "cut.pth")


def test_inception_by_a_file_of_weights(pictures: Path, tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "inception.pth")
    grey, coloured = (write(tmp_path / mode, pixels_of(pictures)[:3], mode=mode) for mode in ("L", "RGB"))
    found = document("fid", grey, coloured, "--weights", weights, "--resize", "clean")
    assert found["fid"] == pytest.approx(0, abs=1e-6)
    assert {key: found["recipe"][key] for key in ("name", "resize", "precision")} == {
        "name": "inception",
        "resize": "clean",
        "precision": "fp32",
    }
    assert len(found["warnings"]) == 2
    assert all("3 images for 2,048 features" in warning for warning in found["warnings"])


# ---- I7, I9: the cache ---------------------------------------------------------------------------------------------------------------


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "statistics").glob("*"))


def read_what(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the sources that are looked at from now on, one for each pass."""
    seen: list[str] = []
    original = collect.extract

    def extract(source: Any, *args: Any, **options: Any) -> Any:
        seen.append(Path(source.name).name)
        return original(source, *args, **options)

    monkeypatch.setattr(collect, "extract", extract)
    return seen


def test_I7_statistics_are_kept_by_content(
    pictures: Path, other: Path, features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = read_what(monkeypatch)
    first = document("fid", other, pictures, "--features", features)["fid"]
    assert seen == ["other", pictures.name]
    assert len(entries(tmp_path)) == 2
    assert document("fid", other, pictures, "--features", features)["fid"] == pytest.approx(first, rel=1e-9)
    other.rename(tmp_path / "moved")
    found = document("fid", tmp_path / "moved", pictures, "--features", features)
    assert found["a"]["name"] == str(tmp_path / "moved")
    assert len(seen) == 2
    changed = sorted((tmp_path / "moved").rglob("*.png"))[3]
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(changed)
    assert document("fid", tmp_path / "moved", pictures, "--features", features)["fid"] != pytest.approx(first, rel=1e-6)
    assert seen[2:] == ["moved"]
    # Another network has entries of its own; --no-cache neither reads nor writes any.
    count = len(entries(tmp_path))
    document("fid", tmp_path / "moved", pictures, "--features", features, "--no-cache")
    assert seen[3:] == ["moved", pictures.name]
    assert len(entries(tmp_path)) == count == 3
    assert cache.key("a", {"digest": "x"}) != cache.key("a", {"digest": "y"}) != cache.key("b", {"digest": "y"})


def test_I9_a_damaged_entry_is_deleted_and_computed_again(pictures: Path, other: Path, features: str, tmp_path: Path) -> None:
    first = document("fid", other, pictures, "--features", features)["fid"]
    damaged, intact = entries(tmp_path)
    content, right = damaged.read_bytes(), files.read(damaged)
    for broken in (content[:-3], content[:-1] + bytes([content[-1] ^ 1]), b"", b"\0" * 64):
        damaged.write_bytes(broken)
        before = intact.read_bytes()
        result = done("fid", other, pictures, "--features", features, "--json")
        assert json.loads(result.stdout)["fid"] == pytest.approx(first, rel=1e-9)
        [warning] = result.stderr.splitlines()
        assert f"a damaged entry of the cache is deleted and computed again: {damaged}" in warning
        assert torch.equal(files.read(damaged).moments.scatter, right.moments.scatter)
        assert intact.read_bytes() == before
    damaged.unlink()
    damaged.symlink_to(tmp_path / "nowhere")
    done("fid", other, pictures, "--features", features)
    assert files.read(damaged).moments.count == right.moments.count


def test_a_cache_that_cannot_be_written_is_no_obstacle(pictures: Path, other: Path, features: str, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    result = done("fid", other, pictures, "--features", features)
    assert "could not be kept in the cache" in result.stderr
    assert result.stdout.startswith("FID ")


def test_evaluate_keeps_statistics_and_finds_the_same_numbers_by_them(
    vae: Path, other: Path, features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = read_what(monkeypatch)
    words = [
        "evaluate",
        vae,
        "--data",
        other,
        "--metrics",
        "fid,kid,prdc,sharpness",
        "--features",
        features,
        "-n",
        15,
        "--set",
        "kid.subset=9",
    ]
    fresh = document(*words)
    assert fresh["recipe"]["images"] == {"generated": 15, "real": 30, "real_kept": 15}
    assert seen == ["vae", "other", "other"]  # half of the images by themselves, then the rest
    again = document(*words)
    assert seen[3:] == ["vae", "other"]
    assert again["metrics"].pop("fid") == pytest.approx(fresh["metrics"].pop("fid"), rel=1e-9)
    assert again["metrics"] == fresh["metrics"]
    # All real images count for the FID, not only those that are kept.
    assert evaluation.fid(str(vae), str(other), features=features, number=15)["fid"] == pytest.approx(
        document(*words)["metrics"]["fid"]["fid"], rel=1e-6
    )
    assert document(*words, "--no-cache")["metrics"]["kid"] == fresh["metrics"]["kid"]


# ---- images that cannot be used ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["empty.png", "half.png", "huge.png", "eps.png"])
def test_E1_E2_E11_E13_a_bad_image_stops_the_command_with_its_path(name: str, other: Path, features: str, tmp_path: Path) -> None:
    content, word = badfiles.bad_files()[name]
    (other / name).write_bytes(content)
    message = refused("fid", other, other, "--features", features)
    assert str(other / name) in message
    assert word in message
    assert "--skip-bad" in message
    assert not entries(tmp_path)


def test_E1_skip_bad_leaves_out_and_does_not_poison_the_cache(pictures: Path, other: Path, features: str, tmp_path: Path) -> None:
    right = document("fid", other, pictures, "--features", features)["fid"]
    kept = entries(tmp_path)
    bad = other / "cross" / "bad.png"
    bad.write_bytes(badfiles.bad_files()["cut2.jpg"][0])
    for _ in range(2):  # said every time
        result = done("fid", other, pictures, "--features", features, "--skip-bad", "--json")
        found = json.loads(result.stdout)
        assert found["a"]["images"] == 30
        assert found["fid"] == pytest.approx(right, rel=1e-6)
        [warning] = found["warnings"]
        assert f"1 of 31 images of {other} were left out, the first is {bad} (" in warning
        assert len(entries(tmp_path)) == len(kept) + 1  # that of the good folder, read with --skip-bad
    assert str(bad) in refused("fid", other, pictures, "--features", features)
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(bad)  # repaired: all 31 count
    assert document("fid", other, pictures, "--features", features, "--skip-bad")["a"]["images"] == 31


def test_E3_E7_sixteen_bits_and_transparency_are_as_the_decoder_has_them(features: str, tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    values = [dice.integers(0, 256, (16, 16), np.uint8) for _ in range(12)]
    plain = write(tmp_path / "plain", values)
    for number, pixels in enumerate(values):
        (tmp_path / "deep").mkdir(exist_ok=True)
        (tmp_path / "deep" / f"{number:03d}.png").write_bytes(badfiles.grey16_png(pixels.astype(np.uint16) * 257))
    clear = write(
        tmp_path / "clear", [np.dstack([np.full((16, 16, 3), 255 - v, np.uint8), np.full((16, 16), v, np.uint8)]) for v in (0, 0, 0)]
    )
    white = write(tmp_path / "white", [np.full((16, 16), 255, np.uint8)] * 3)
    assert document("fid", plain, tmp_path / "deep", "--features", features)["fid"] == pytest.approx(0, abs=1e-9)
    assert document("fid", clear, white, "--features", features)["fid"] == pytest.approx(0, abs=1e-9)


def test_evaluate_of_a_run_whose_data_have_a_bad_image(vae: Path, other: Path, features: str) -> None:
    (other / "cross" / "bad.png").write_bytes(b"")
    words = ["evaluate", vae, "--data", other, "--metrics", "fid", "--features", features, "-n", 15]
    assert "--skip-bad" in refused(*words)
    found = document(*words, "--skip-bad")
    assert found["recipe"]["images"]["real"] == 30
    assert any(str(other / "cross" / "bad.png") in warning for warning in found["warnings"])


# ---- lgm evaluate --------------------------------------------------------------------------------------------------------------------


def test_H12_evaluate_prints_one_document_and_writes_the_same(vae: Path, features: str, look: ClassifierFeatures) -> None:
    before = support.contents(vae)
    words = ["evaluate", vae, "--features", features, "-n", 20, "--set", "kid.subset=10", "--set", "path-length.pairs=20", "--seed", 3]
    found = document(*words)
    assert set(found["metrics"]) == set(METRICS.entries()) - {"accuracy", "class-diversity", "answers", "swap", "classification", "copying"}
    assert found["not_for_this_model"] == {
        "accuracy": "its samples cannot be asked to show something",
        "answers": "it answers no questions",
        "class-diversity": "its samples cannot be asked to show a class",
        "swap": "it does not mix who with how",
        "classification": "it does not classify",
    }
    assert list(found["not_measured"]) == ["copying"]  # there are no images that the run has not seen
    assert (found["images_seen"], found["checkpoint"]) == (96, str(support.newest(vae)))
    recipe = found["recipe"]
    assert recipe["images"] == {"generated": 20, "real": 20, "real_kept": 20, "reconstructed": 20}
    assert (recipe["digest"], recipe["seed"], recipe["options"]["kid"]) == (look.digest, 3, {"subset": 10, "subsets": 100})
    assert json.loads((vae / "evaluation.json").read_text()) == found
    after = support.contents(vae)
    after.pop("evaluation.json")
    assert after == before  # nothing else was touched
    text = done(*words).stdout
    for name, values in found["metrics"].items():
        assert re.search(rf"^{name} ", text, re.M)
        for key, value in values.items():
            assert re.search(rf" {re.escape(shown(value))} +{key}\s*$", text, re.M), key
    assert re.search(r"^accuracy +- +not for this model: its samples cannot be asked", text, re.M)
    assert "images: 20 generated, 20 real, 20 real kept, 20 reconstructed\n" in text
    assert f"digest {look.digest[:12]}" in text
    assert text.endswith(f"{vae / 'evaluation.json'}\n")


def shown(value: float) -> str:
    return f"{value:#.4g}" if abs(value) < 999.5 else f"{value:,.0f}"


def test_evaluating_and_going_on_with_training_do_not_meet(aegan: Path, straight: Runs, features: str, tmp_path: Path) -> None:
    for images in (48, 72, 96):
        support.checkpoints(aegan)[images].unlink()
    (aegan / "log.jsonl").write_text("".join((straight("aegan") / "log.jsonl").read_text().splitlines(keepends=True)[:1]))
    done("evaluate", aegan, "--metrics", "reconstruction", "--features", features, "-n", 10)
    report = (aegan / "evaluation.json").read_bytes()
    support.call(support.resume, str(aegan))
    support.assert_same_run(aegan, straight("aegan"))
    assert (aegan / "evaluation.json").read_bytes() == report


def test_a_report_appears_whole_or_not_at_all(vae: Path, features: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["evaluate", vae, "--metrics", "sharpness", "-n", 10]
    done(*words)
    before = (vae / "evaluation.json").read_bytes()

    def fail(source: Any, target: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        assert "No space left on device" in refused(*words, "--seed", 1)
    assert (vae / "evaluation.json").read_bytes() == before
    assert not [path for path in vae.iterdir() if path.name.startswith(".")]
    done(*words, "--seed", 1)
    assert (vae / "evaluation.json").read_bytes() != before


def test_where_the_report_goes(vae: Path) -> None:
    words = ["--metrics", "sharpness", "-n", 10]
    checkpoint = support.newest(vae)
    done("evaluate", checkpoint, *words)
    assert checkpoint.with_name(f"{checkpoint.stem}-evaluation.json").is_file()
    assert not (vae / "evaluation.json").exists()
    done("evaluate", vae, *words, "-o", "mine.json")
    assert json.loads(Path("mine.json").read_text())["run"] == str(vae)
    assert not (vae / "evaluation.json").exists()
    before = Path("mine.json").read_bytes()
    assert "something lies there already" in refused("evaluate", vae, *words, "-o", "mine.json", "--seed", 1)
    assert Path("mine.json").read_bytes() == before
    done("evaluate", vae, *words, "-o", "mine.json", "--seed", 1, "--force")
    assert Path("mine.json").read_bytes() != before
    assert "no such folder" in refused("evaluate", vae, *words, "-o", "nowhere/mine.json")


def test_metrics_that_a_run_lacks(vae: Path, aegan: Path, classifier: Path, features: str) -> None:
    # Said before the Inception network is looked for, which cannot be had here.
    assert "not for this model: its samples cannot be asked to show something: --metrics accuracy" in refused(
        "evaluate", vae, "--metrics", "accuracy"
    )
    found = document("evaluate", classifier)
    assert list(found["metrics"]) == ["classification"]
    assert found["not_for_this_model"]["fid"] == "it cannot sample"
    assert "not for this model: it cannot sample" in refused("evaluate", classifier, "--metrics", "fid")
    found = document("evaluate", vae, "--metrics", "accuracy,sharpness", "-n", 10)
    assert list(found["metrics"]) == ["sharpness"]
    assert list(found["not_for_this_model"]) == ["accuracy"]
    # An AEGAN in its first stage reconstructs, but does not sample yet.
    early = support.checkpoints(aegan)[24]
    found = document("evaluate", early, "--features", features, "-n", 10)
    assert list(found["metrics"]) == ["linear-probe", "nearest-neighbour", "reconstruction"]
    assert "not trained yet" in found["not_for_this_model"]["fid"]
    assert "not trained yet" in refused("evaluate", early, "--metrics", "fid", "--features", features)
    assert "not trained yet" in refused("fid", early, "glyphs:test", "--features", features)


def test_what_needs_no_network_and_no_data(vae: Path, features: str, tmp_path: Path) -> None:
    """Sharpness looks at no features; metrics of the samples alone do without the data, which may be gone."""
    found = document("evaluate", vae, "--metrics", "sharpness", "-n", 10)
    assert "digest" not in found["recipe"]
    moved = tmp_path / "data"
    support.write_pictures(moved)
    run = tmp_path / "run"
    support.call(support.train, "vae", str(moved), str(run), support.tiny("vae"))
    moved.rename(tmp_path / "moved")
    words = ["evaluate", run, "--features", features, "-n", 10, "--set"]
    found = document(*words, "inception-score.splits=2", "--metrics", "inception-score,path-length", "--set", "path-length.pairs=4")
    assert found["data"] is None
    assert "no such folder" in refused(*words, "kid.subset=5", "--metrics", "kid")
    assert document(*words, "kid.subset=5", "--metrics", "kid", "--data", tmp_path / "moved")["data"] == str(tmp_path / "moved")


def test_which_images_are_reconstructed(vae: Path, pictures: Path, other: Path, features: str, tmp_path: Path) -> None:
    """Those of --data; else the run's test split; else its training images, with a warning."""
    words = ["--metrics", "reconstruction", "--features", features, "-n", 12]
    found = document("evaluate", vae, *words)
    assert any("no held-out images" in warning for warning in found["warnings"])
    found = document("evaluate", vae, *words, "--data", other)
    assert found["reconstructed"] == str(other)
    assert found["warnings"] == []
    trained, images = api.load(vae), np.stack(pixels_of(other))[..., None]
    chosen = some(12, 30, 0, "reconstruction")
    assert 0 < sum(chosen < 15) < 12  # of both classes, which lie one after the other
    error = trained.reconstruct(images[chosen])[1].mean()
    assert found["metrics"]["reconstruction"]["mse"] == pytest.approx(error, rel=1e-5)
    own = shutil.copytree(pictures, tmp_path / "own")
    for named in (pictures, own):
        [warning] = document("evaluate", vae, *words, "--data", named)["warnings"]
        assert warning == f"the run was trained on {named} itself, so training images are reconstructed"
    values = [document("evaluate", vae, *words, "--data", other, "--seed", seed)["metrics"]["reconstruction"]["mse"] for seed in (0, 1)]
    assert values[0] == found["metrics"]["reconstruction"]["mse"] != values[1]
    for split, seed in (("train", 0), ("test", 1)):
        support.write_pictures(tmp_path / "both" / split, seed=seed)
    run = tmp_path / "run"
    support.call(support.train, "vae", str(tmp_path / "both"), str(run), support.tiny("vae"))
    found = document("evaluate", run, *words)
    assert found["reconstructed"] == str(tmp_path / "both:test")
    assert found["warnings"] == []


def test_copies_of_training_images_are_found(
    vae: Path, pictures: Path, other: Path, features: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["evaluate", vae, "--metrics", "copying", "--features", features, "-n", 12]
    found = document(*words, "--data", other)["metrics"]["copying"]
    assert found["nearest"] > 0 and found["nearest_real"] > 0
    images = np.stack(pixels_of(pictures))[..., None]
    monkeypatch.setattr(SampledSource, "load", lambda self, start, stop: list(images[start:stop]))
    assert document(*words, "--data", other)["metrics"]["copying"] == pytest.approx(found | {"copying": 1, "nearest": 0}, abs=1e-4)
    assert "training images are copies of themselves" in refused(*words)
    assert "copying" in document(*words[:2], "--features", features, "-n", 12, "--set", "kid.subset=5")["not_measured"]


def test_options_of_metrics(vae: Path) -> None:
    assert "did you mean 'subset'" in refused("evaluate", vae, "--set", "kid.subse=5")
    assert "subset takes int, 2 to 1e+06" in refused("evaluate", vae, "--set", "kid.subset=1")
    for wrong in ("subset=5", "kid.subset", "kid", "=5"):
        assert "is not METRIC.KEY=VALUE" in refused("evaluate", vae, "--set", wrong)
    assert "did you mean 'kid'" in refused("evaluate", vae, "--set", "kdi.subset=5")
    assert "did you mean 'prdc'" in refused("evaluate", vae, "--metrics", "prcd")
    assert "no metric is named" in refused("evaluate", vae, "--metrics", ",")
    message = refused("evaluate", vae, "--metrics", "fid", "--set", "kid.subset=5")
    assert "a metric that is not measured: --set kid" in message
    assert evaluation.parse_options(["path_length.pairs=10", "path-length.trim=0.1", "kid.subset=1k"]) == {
        "path-length": {"pairs": 10, "trim": 0.1},
        "kid": {"subset": 1000},
    }
    assert evaluation.parse_metrics(" fid, path_length ,") == ["fid", "path-length"]


def test_help_names_every_metric() -> None:
    shown = " ".join(done("evaluate", "--help").stdout.split())
    for name in METRICS.entries():
        assert name in shown
    for entry in METRICS.entries().values():
        assert entry.summary


# ---- accuracy ------------------------------------------------------------------------------------------------------------------------


class Painter(LatentModel):
    """Makes real images of the class that it is asked for; `off` classes further where it lies."""

    needs = frozenset({"image", "label"})

    averaged = ()

    def __init__(self, data: Any, off: int = 0) -> None:
        super().__init__(None, spec_of(data))
        self.data, self.off, self.anchor = data, off, nn.Parameter(torch.zeros(1))

    noise_shape = (1,)

    def stages(self) -> tuple[Any, ...]:
        return ()

    def sample(self, noise: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        shown = []
        for share, wanted in zip(torch.special.ndtr(noise[:, 0]).tolist(), label.tolist()):
            among = np.flatnonzero(self.data.labels == (wanted + self.off) % len(self.data.classes))
            shown.append(among[int(share * len(among))])
        return to_float(torch.from_numpy(self.data.images[np.array(shown)]))


@pytest.fixture
def painter(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., api.Trained]:
    """Make `api.load("painter")` a model that is asked by label, on the data of the classifier."""
    load = api.load
    judge = load(classifier)
    data = judge.data(judge.header.config.data)

    def make(**options: Any) -> api.Trained:
        model = Painter(data, **options).eval()
        trained = api.Trained(model, dataclasses.replace(judge.header, model="painter", spec=model.spec), torch.device("cpu"))
        monkeypatch.setattr(api, "load", lambda run, **more: trained if str(run) == "painter" else load(run, **more))
        return trained

    return make


def test_accuracy_is_what_the_classifier_sees(painter: Callable[..., api.Trained], classifier: Path, features: str) -> None:
    trained, judge = painter(), api.load(classifier).model
    data = trained.model.data
    right = judge.classify(to_float(torch.from_numpy(data.images))).argmax(1).numpy() == data.labels
    settings: dict[str, Any] = {"features": features, "number": 21, "metrics": ["accuracy"]}
    found = evaluation.evaluate("painter", **settings)["metrics"]["accuracy"]
    assert found["real_top1_seen"] == right.mean() > 0.8
    alike = trained.like(data, 0)
    said = judge.classify(to_float(torch.from_numpy(alike.sample(21)))).argmax(1)
    assert found["top1"] == (said == alike.in_turn(range(21)).values).double().mean() > 0.8
    fewer = evaluation.evaluate("painter", **{**settings, "number": 11})["metrics"]["accuracy"]
    assert fewer["real_top1_seen"] > 0.8  # each of the images that were chosen has its own label
    many = evaluation.evaluate("painter", **{**settings, "metrics": ["accuracy", "class-diversity", "inception-score"]})["metrics"]
    assert 0.2 < many["class-diversity"]["class_diversity_ratio"] < 2
    assert 1 < many["inception-score"]["real_inception_score"] <= 2  # there because accuracy had the real images looked at
    lying = painter(off=1)
    assert evaluation.evaluate("painter", **settings)["metrics"]["accuracy"]["top1"] < 0.2
    assert lying.condition == "label"


def test_accuracy_on_images_that_the_classifier_has_learned_from_is_called_that(
    painter: Callable[..., api.Trained], pictures: Path, other: Path, classifier: Path, features: str, tmp_path: Path
) -> None:
    """By the data's name, whatever their size, or by their content; the ceiling is what it says of other images."""
    painter()
    judge = api.load(classifier)
    copy = shutil.copytree(pictures, tmp_path / "copy")
    cases = {None: True, str(pictures): True, os.path.relpath(pictures): True, str(copy): True, str(other): False}
    for data, seen in cases.items():
        found = evaluation.evaluate("painter", data=data, features=features, number=10, metrics=["accuracy"])
        assert set(found["metrics"]["accuracy"]) == {"top1", "real_top1_seen" if seen else "real_top1"}
        assert [text.partition("itself")[0] for text in found["warnings"]] == [f"the classifier has learned from {found['data']} "] * seen
    look = plan.open_features(EvaluationConfig(features=features))
    assert isinstance(look, ClassifierFeatures)
    large = judge.data(str(pictures)).replace(images=np.zeros((20, 32, 32, 3), np.uint8))
    assert look.learned_from(large)
    assert not look.learned_from(large.replace(name="other"))


def test_accuracy_with_data_that_have_no_such_labels(
    painter: Callable[..., api.Trained], pictures: Path, features: str, tmp_path: Path
) -> None:
    painter()
    plain = write(tmp_path / "plain", pixels_of(pictures))
    found = evaluation.evaluate("painter", data=str(plain), features=features, number=10, metrics=["accuracy"])
    assert set(found["metrics"]["accuracy"]) == {"top1"}
    assert found["warnings"] == [f"{plain} has no label like the run's, so samples show classes in turn"]


def test_fid_of_a_conditional_run_asks_for_what_the_other_side_shows(
    painter: Callable[..., api.Trained], other: Path, features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder's classes, a data set's, and where there are none (another run, statistics, a folder without) all classes in turn."""
    painter()
    (Path("painter") / "checkpoints").mkdir(parents=True)
    for path in sorted((other / "disc").iterdir())[5:]:
        path.unlink()
    asked: list[int] = []
    load = SampledSource.load

    def watched(self: SampledSource, start: int, stop: int) -> Any:
        asked.extend(self.trained.in_turn(range(start, stop)).values.tolist())  # type: ignore[union-attr]
        return load(self, start, stop)

    monkeypatch.setattr(SampledSource, "load", watched)

    def of(*sides: object) -> tuple[list[int], Any, list[str]]:
        asked.clear()
        found = evaluation.fid(*map(str, sides), features=features, number=20, save_stats=tmp_path / f"{len(kept)}.safetensors")
        kept.append(asked[:20])
        return asked[:20], found["recipe"].get("conditions"), [text for text in found["warnings"] if "like the run's" in text]

    kept: list[list[int]] = []
    for sides in (("painter", other), (other, "painter")):
        shown, said, warnings = of(*sides)
        assert (shown.count(0), shown.count(1), said, warnings) == (15, 5, f"drawn from {other}, seed 0", [])
    assert kept[0] == kept[1]
    plain = write(tmp_path / "plain", pixels_of(other))
    for side in (plain, tmp_path / "0.safetensors", "painter"):
        shown, said, warnings = of("painter", side)
        assert (shown, said, len(warnings)) == ([0, 1] * 10, "classes in turn", 1)
    assert of(other, plain)[1:] == (None, [])


def test_samples_that_are_no_images_like_the_data(
    painter: Callable[..., api.Trained], other: Path, features: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics that compare them with the data are refused; a distance names their own shape; what is no image is no side."""
    painter()
    (Path("painter") / "checkpoints").mkdir(parents=True)
    made = Field("image", (3, 12, 20))
    monkeypatch.setattr(Painter, "gives", lambda self, capability: made if capability == "sample" else self.spec.fields["image"])
    monkeypatch.setattr(
        Painter, "sample", lambda self, noise, label: torch.tanh(noise).view(-1, 1, 1, 1).expand(-1, *made.shape) + label.view(-1, 1, 1, 1)
    )
    how: dict[str, Any] = {"features": features, "number": 12}
    found = evaluation.evaluate("painter", options={"path-length": {"pairs": 4}}, **how)
    assert set(found["metrics"]) == {"inception-score", "path-length"}
    assert found["not_for_this_model"]["fid"] == "its samples are no images of its data's size and channels"
    with pytest.raises(UserError, match="no images of its data's size and channels"):
        evaluation.evaluate("painter", metrics=["fid"], **how)
    found = evaluation.fid("painter", other, **how)
    assert [found[side]["first_image"] for side in "ab"] == ["20x12 colour", "16x16 grey"]
    made = Field("clip", (2, 1, 16, 16))
    with pytest.raises(UserError, match="what it samples is no image, but a clip"):
        evaluation.fid("painter", other, **how)
    with pytest.raises(UserError, match="not for this model: what it samples is no image, but a clip"):
        evaluation.evaluate("painter", metrics=["path-length"], **how)


def test_accuracy_needs_a_classifier_of_the_same_classes(
    painter: Callable[..., api.Trained], features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = painter()
    with pytest.raises(UserError, match="a classifier has to judge"):
        evaluation.evaluate("painter", metrics=["accuracy"])
    fields = dict(trained.header.spec.fields) | {"label": Field("number", names=("cat", "dog"), count=2)}
    other = DataSpec(fields)
    monkeypatch.setattr(api, "load", lambda run, load=api.load, **more: (
        dataclasses.replace(trained, header=dataclasses.replace(trained.header, spec=other)) if run == "painter" else load(run, **more)
    ))  # fmt: skip
    with pytest.raises(UserError, match="another label: cross, disc instead of cat, dog"):
        evaluation.evaluate("painter", metrics=["accuracy"], features=features)


def test_a_classifier_may_know_more_attributes_than_are_asked_for() -> None:
    """Each is read by its name, wherever the classifier has it."""
    spec = DataSpec.of_images(1, 8, 8, attributes=("hat", "smile"))
    judge = SimpleNamespace(target="attributes", spec=DataSpec.of_images(1, 8, 8, attributes=("smile", "bald", "hat")))
    said = torch.tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0]])
    asked = torch.tensor([[0, 1], [1, 0]], dtype=torch.uint8)
    side = Collected(2, logits=said, labels=asked)
    trained: Any = SimpleNamespace(condition="attributes", header=SimpleNamespace(spec=spec))
    evidence = Evidence(side, side, trained=trained, features=judge)  # type: ignore[arg-type]
    assert accuracy.lacks(evidence) == ""
    assert accuracy.measure(evidence, accuracy.Config()) == dict.fromkeys(
        (f"{real}{name}" for real in ("", "real_") for name in ("accuracy", "precision", "recall", "f1")), 1.0
    )
    judge.spec = DataSpec.of_images(1, 8, 8, attributes=("smile", "bald"))
    assert "another attributes: smile, bald instead of hat, smile" in accuracy.lacks(evidence)


def test_top1_and_attributes_by_hand() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 5.0], [0.0, 1.0, 0.5], [3.0, 0.0, 0.0]])
    assert accuracy.top1(logits, torch.tensor([0, 2, 0, 1])) == {"top1": 0.5}
    said = torch.tensor([[1.0, -1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, 1.0, -1.0], [1.0, -1.0, -1.0]])
    truth = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]], dtype=torch.uint8)
    # First: 2 of 3 said are right, 2 of 3 true are said. Second: 1 of 2, 1 of 1. Third: never said, never true.
    assert accuracy.attributes(said, truth) == {
        "accuracy": pytest.approx((2 / 4 + 3 / 4 + 4 / 4) / 3),
        "precision": pytest.approx((2 / 3 + 1 / 2 + 0) / 3),
        "recall": pytest.approx((2 / 3 + 1 + 0) / 3),
        "f1": pytest.approx((2 / 3 + 2 / 3 + 0) / 3),
    }
    sides = [Collected(4, logits=said, labels=truth), Collected(4, logits=truth.float() - 0.5, labels=truth)]
    found = accuracy.measure(Evidence(*sides), accuracy.Config())
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["real_recall"] == pytest.approx(5 / 9)


# ---- reconstruction and path length --------------------------------------------------------------------------------------------------


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004 for one channel (H, W) in [0, 1], window by window."""
    side = min(11, *a.shape)
    ramp = np.exp(-((np.arange(side) - (side - 1) / 2) ** 2) / (2 * 1.5**2))
    window = np.outer(ramp, ramp) / np.outer(ramp, ramp).sum()
    values = []
    for top in range(a.shape[0] - side + 1):
        for left in range(a.shape[1] - side + 1):
            x, y = (image[top : top + side, left : left + side] for image in (a, b))
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy, both = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum(), (window * (x - mx) * (y - my)).sum()
            values.append((2 * mx * my + 1e-4) * (2 * both + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    return float(np.mean(values))


@pytest.mark.parametrize("shape", [(16, 13, 1), (14, 14, 3), (5, 20, 1), (1, 1, 3)])
def test_ssim_is_the_papers(shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    dice = np.random.default_rng(0)
    images = dice.integers(0, 256, (4, *shape), np.uint8)
    others = np.clip(images + dice.normal(0, [[[[5]]], [[[30]]], [[[100]]], [[[0]]]], images.shape), 0, 255).astype(np.uint8)
    others[3] = 255 - images[3]
    a, b = images / 255, others / 255
    expected = [np.mean([slow_ssim(a[n, :, :, c], b[n, :, :, c]) for c in range(shape[2])]) for n in range(4)]
    assert ssim(images, others).tolist() == pytest.approx(expected, abs=1e-9)
    assert ssim(images, images).tolist() == pytest.approx([1] * 4, abs=1e-12)
    monkeypatch.setattr("models.metrics.reconstruction._VALUES", 1)  # image by image
    assert ssim(images, others).tolist() == pytest.approx(expected, abs=1e-9)


def test_reconstruction_by_hand(vae: Path, other: Path, features: str, look: ClassifierFeatures) -> None:
    trained, originals = api.load(vae), np.stack(pixels_of(other))[..., None]
    again, error = trained.reconstruct(originals)
    found = evaluation.evaluate(vae, data=str(other), metrics=["reconstruction"], features=features)["metrics"]["reconstruction"]
    assert found["mse"] == pytest.approx(((again / 255 - originals / 255) ** 2).mean(), rel=1e-2)  # which rounds to bytes
    assert found["mse"] == pytest.approx(error.mean(), rel=1e-5)
    assert found["psnr"] == pytest.approx(-10 * math.log10(error.mean()), abs=1e-4)
    assert found["ssim"] == pytest.approx(
        np.mean([slow_ssim(a[..., 0] / 255, b[..., 0] / 255) for a, b in zip(originals, again)]), abs=1e-9
    )
    expected = support.frechet(*(look.apply(look.prepare(list(side)))[0].double().numpy() for side in (again, originals)))
    assert found["fid"] == pytest.approx(expected, rel=1e-4)
    said, shown = (look.apply(look.prepare(list(side)))[1].argmax(1).tolist() for side in (originals, again))
    assert found["agreement"] == pytest.approx(np.mean([one == another for one, another in zip(said, shown)]))
    assert found["agreement_by_chance"] == pytest.approx(np.mean([[one == another for one in said] for another in said]))


def test_attributes_that_reconstructions_keep() -> None:
    before, after = torch.randn(2, 7, 3).unbind()
    found = reconstruction.agreement("attributes", before, after)
    said, shown = (np.asarray(logits) > 0 for logits in (before, after))
    assert found["agreement"] == pytest.approx((said == shown).mean())
    assert found["agreement_by_chance"] == pytest.approx(np.mean([said == row for row in said]))


def pca_error(fitted: np.ndarray, images: np.ndarray, count: int) -> float:
    """The mean squared error of images (N, ...) through the first components of others, by numpy's decomposition."""
    mean = (fitted / 255).reshape(len(fitted), -1).mean(0)
    _, _, directions = np.linalg.svd((fitted / 255).reshape(len(fitted), -1) - mean, full_matrices=False)
    rows = (images / 255).reshape(len(images), -1) - mean
    return float(((rows - rows @ directions[:count].T @ directions[:count]) ** 2).mean())


def test_principal_components_of_the_training_images_stand_beside_the_reconstructions(
    vae: Path, pictures: Path, other: Path, features: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as the code has numbers: 4 of 20 training images, on other images; of these themselves where nothing else is at hand."""
    fitted, images = (np.stack(pixels_of(folder))[..., None] for folder in (pictures, other))
    how: dict[str, Any] = {"metrics": ["reconstruction"], "features": features}
    found = evaluation.evaluate(vae, data=str(other), **how)["metrics"]["reconstruction"]
    assert found["pca_mse"] == pytest.approx(pca_error(fitted, images, 4), rel=1e-9)
    assert found["mse"] > found["pca_mse"]  # after 96 images
    own = evaluation.evaluate(vae, **how)["metrics"]["reconstruction"]
    assert own["pca_mse"] == pytest.approx(pca_error(fitted, fitted, 4), rel=1e-9)
    monkeypatch.setattr(components, "IMAGES", 4)  # no more images than components
    assert "pca_mse" not in evaluation.evaluate(vae, data=str(other), **how)["metrics"]["reconstruction"]
    monkeypatch.undo()
    gone = support.write_pictures(tmp_path / "gone")
    run = tmp_path / "run"
    support.call(support.train, "vae", str(gone), str(run), support.tiny("vae"))
    shutil.rmtree(gone)
    report = evaluation.evaluate(run, data=str(other), **how)
    assert report["metrics"]["reconstruction"]["pca_mse"] == pytest.approx(pca_error(images, images, 4), rel=1e-9)
    assert any("not at hand" in warning and str(gone) in warning for warning in report["warnings"])


@pytest.mark.parametrize("shape", [(30, 4, 5, 1), (12, 4, 5, 3)])
def test_components_are_numpys(shape: tuple[int, ...]) -> None:
    """Fewer values than images, and more; 5 of them, and all that images of three kinds have."""
    dice = np.random.default_rng(0)
    images, others = (dice.integers(0, 256, shape, np.uint8) for _ in "ab")
    found = components.fit(images, 5)
    assert torch.allclose(found.directions @ found.directions.T, torch.eye(5, dtype=torch.float64), atol=1e-12)
    assert found.errors(others).mean() == pytest.approx(pca_error(images, others, 5), rel=1e-9)
    assert found.errors(others).shape == (len(others),)
    alike = images[np.arange(shape[0]) % 3]
    assert components.fit(alike, 5).errors(alike) == pytest.approx(np.zeros(shape[0]), abs=1e-12)
    assert [components.most(size) for size in ((28, 28, 1), (64, 64, 3), (256, 256, 3))] == [10_000, 2_000, 170]


def test_a_perfect_reconstruction_has_no_finite_psnr(vae: Path, features: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def copied(self: api.Trained, images: np.ndarray, told: Any = None) -> tuple[np.ndarray, np.ndarray]:
        return images.copy(), np.zeros(len(images), np.float32)

    monkeypatch.setattr(api.Trained, "reconstruct", copied, raising=False)
    words = ["evaluate", vae, "--metrics", "reconstruction", "--features", features]
    found = document(*words)["metrics"]["reconstruction"]
    assert found.pop("pca_mse") > 0
    assert 0 < found.pop("agreement_by_chance") <= 1
    assert found == {"mse": 0, "psnr": None, "ssim": pytest.approx(1), "fid": pytest.approx(0, abs=1e-9), "agreement": 1}
    assert re.search(r" not finite +psnr", done(*words).stdout)


class Linear(nn.Module):
    """Images (1, 3, 4) that are a linear function of six numbers."""

    noise_shape = (6,)

    def __init__(self, scale: float = 0.1) -> None:
        super().__init__()
        self.weight = scale * torch.randn(12, 6, generator=torch.Generator().manual_seed(0))

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        return (noise @ self.weight.T).view(-1, 1, 3, 4)


def path_of(model: nn.Module, see: Callable[[torch.Tensor], torch.Tensor] = lambda x: x, **options: Any) -> dict[str, float]:
    look: Any = SimpleNamespace(look=lambda images: see(images.flatten(1)), recipe=lambda: {"precision": "fp32"})
    trained = SimpleNamespace(model=model, device=torch.device("cpu"), in_turn=lambda rows: None)
    return path_length.measure(Evidence(None, None, 7, trained, look), path_length.Config(**options))


def test_path_length_of_a_linear_generator_is_its_closed_form() -> None:
    model = Linear()
    a, b = (image_noise(7, range(100), (6,), f"path {end}").double() for end in "ab")
    t = torch.special.ndtr(image_noise(7, range(100), (1,), "path share").double())
    length, other = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    u, v = a / length, b / other
    angle = torch.arccos((u * v).sum(1, keepdim=True))
    way = (torch.sin((1 - t) * angle) * u + torch.sin(t * angle) * v) / torch.sin(angle)
    speed = angle * (torch.cos(t * angle) * v - torch.cos((1 - t) * angle) * u) / torch.sin(angle)
    velocity = speed * (length + t * (other - length)) + way * (other - length)
    moved = (velocity @ model.weight.double().T).square().sum(1)
    found = path_of(model, pairs=100, trim=0.0)
    assert found == {"ppl": pytest.approx(float(moved.mean()), rel=5e-3), "median": pytest.approx(float(moved.quantile(0.5)), rel=5e-3)}
    assert path_of(Linear(0.2), pairs=100, trim=0.0)["ppl"] == pytest.approx(4 * found["ppl"], rel=1e-3)
    ordered = moved.sort().values
    assert path_of(model, pairs=100, trim=0.1)["ppl"] == pytest.approx(float(ordered[10:90].mean()), rel=5e-3)
    assert path_of(model, pairs=2)["ppl"] > 0
    assert path_of(Linear(0.0), pairs=4) == {"ppl": 0, "median": 0}


@pytest.fixture
def tf32() -> Iterator[None]:
    """A notebook that allows itself the faster products."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.usefixtures("tf32")
def test_path_length_is_measured_in_full_precision() -> None:
    """A GPU's TF32 is off for generator and features, products and convolutions, and afterwards what it was."""
    seen = []

    def see(x: torch.Tensor) -> torch.Tensor:
        seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        return x

    class Watched(Linear):
        def sample(self, noise: torch.Tensor) -> torch.Tensor:
            return super().sample(see(noise))

    path_of(Watched(), see, pairs=2)
    assert seen == [(False, False)] * 4
    assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32


@pytest.mark.usefixtures("tf32")
def test_features_are_computed_in_full_precision(look: ClassifierFeatures, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, original = [], look.model.features

    def features(images: torch.Tensor) -> torch.Tensor:
        seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        return original(images)

    monkeypatch.setattr(look.model, "features", features)
    look.apply(look.prepare([np.zeros((16, 16, 1), np.uint8)]))
    look.look(torch.zeros(1, 1, 16, 16))
    assert seen == [(False, False)] * 2
    assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32


def test_path_length_refuses_features_that_are_too_coarse() -> None:
    look: Any = SimpleNamespace(recipe=lambda: {"precision": "bf16"})
    assert "--precision fp32" in path_length.lacks(Evidence(None, None, features=look))


# ---- several processes ---------------------------------------------------------------------------------------------------------------


def one_after_the_other(cache_folder: str, *commands: tuple[int, list[str]]) -> None:
    """In a child: commands, each in a process group of its own at a port of its own."""
    os.environ["LGM_CACHE"] = cache_folder
    for port, words in commands:
        os.environ["MASTER_PORT"] = str(port)
        app(words, standalone_mode=False)


@pytest.mark.parametrize("caches", [("cache", "cache"), ("cache", "of another machine")])
def test_two_ranks_find_the_numbers_of_one(caches: tuple[str, str], vae: Path, other: Path, features: str, tmp_path: Path) -> None:
    one = write(tmp_path / "one", pixels_of(other)[:1])
    for name in set(caches):  # with the folder that the locks of each machine lie in
        (tmp_path / name / "decoded").mkdir(parents=True)
    (other / "cross" / "zzz.png").write_bytes(b"")  # the second rank's share: the first must not keep what it does not know of
    fid = f"fid {vae} {other} --features {features} -n 33 --skip-bad --json".split()
    lonely = f"fid {one} {one} --features {features} --json".split()
    everything = f"evaluate {vae} --features {features} -n 15 --set kid.subset=15 --set path-length.pairs=8 --json".split()
    single = f"evaluate {vae} --features {features} -n 1 --metrics sharpness,inception-score --set inception-score.splits=1 --json".split()
    commands = [fid, fid, lonely, everything, everything, single]
    at_ports = [(free_port(), words) for words in commands]
    (code, text), (other_code, silence) = together(
        tmp_path, tmp_path, one_after_the_other, *[(str(tmp_path / name), *at_ports) for name in caches]
    )
    assert (code, other_code) == (0, 0), text + silence
    assert silence == ""
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert len(found) == len(commands)
    for words, by_two in zip(commands, found, strict=True):
        by_one = document(*words[:-1], "--no-cache")
        values, expected = ((f["metrics"] if "metrics" in f else {"fid": {"fid": f["fid"]}}) for f in (by_two, by_one))
        assert values.keys() == expected.keys()
        for name in values:
            assert values[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-7), name
        assert by_two["recipe"] == by_one["recipe"]
        assert by_two["warnings"] == by_one["warnings"]
