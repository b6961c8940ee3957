"""The Python API: train, load, and what a trained model does."""

from __future__ import annotations

import inspect
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import support
import torch
from forgery import blobs, contents, write_images
from PIL import Image
from support import newest, tiny

import models
from models import api, capabilities, registry
from models.api import Trained
from models.base import DataSpec, Field
from models.config import RunConfig
from models.data.batches import to_float
from models.errors import UserError
from models.randomness import image_noise
from models.training import build, checkpoint, events, stages

Runs = Callable[[str], Path]


@pytest.fixture(scope="module")
def vae(straight: Runs) -> Trained:
    return models.load(straight("vae"), device="cpu")


@pytest.fixture(scope="module")
def aegan(straight: Runs) -> Trained:
    return models.load(straight("aegan"), device="cpu")


@pytest.fixture(scope="module")
def shown(pictures: Path, vae: Trained) -> np.ndarray:
    """The first ten pictures as the models take them: uint8 (10, 16, 16, 1)."""
    return vae.data(str(pictures)).images[:10]


# ---- train, load ---------------------------------------------------------------------------------------------------------------------


def test_the_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The docstring of models.api, run as it stands but for smaller numbers."""
    monkeypatch.chdir(tmp_path)
    assert api.__doc__ is not None
    lines = [line[4:] for line in api.__doc__.splitlines() if line.startswith("    ")]
    code = "\n".join(lines)
    for old, new in (
        ("images=200_000", "images=128, batch=32, device='cpu'"),
        ('"latent": 32', '"latent": 4, "widths": (4, 8), "hidden": (16,)'),
    ):
        assert code.count(old) == 1
        code = code.replace(old, new)
    names: dict[str, Any] = {}
    exec(code, names)
    assert (names["images"].dtype, names["images"].shape) == (np.uint8, (16, 32, 32, 1))
    assert names["again"].shape == (16, 32, 32, 1)
    assert names["error"].shape == (16,)
    assert names["strip"].shape == (10, 32, 32, 1)
    assert np.array_equal(names["trained"].sample(16, seed=1), names["images"])


def test_train_tells_what_happens_and_returns_the_model(pictures: Path, tmp_path: Path) -> None:
    told: list[events.Event] = []
    trained = models.train("vae", str(pictures), out=tmp_path / "run", on_event=told.append, **tiny("vae"))
    assert isinstance(told[0], events.Started)
    assert isinstance(told[-1], events.Finished)
    assert told[-1].images == trained.header.images == 96
    assert [e.images for e in told if isinstance(e, events.Saved)] == [24, 48, 72, 96]
    assert trained.header.path == newest(tmp_path / "run")
    assert trained.sample(2).shape == (2, 16, 16, 1)
    assert not trained.model.training


def test_stream_does_nothing_until_it_is_iterated_over(pictures: Path, tmp_path: Path) -> None:
    stream = models.stream("vae", str(pictures), out=tmp_path / "run", **tiny("vae"))
    assert not (tmp_path / "run").exists()
    assert isinstance(next(stream), events.Started)
    assert (tmp_path / "run").exists()
    stream.close()


@pytest.mark.parametrize("model", ["vae", "aegan"])
def test_training_learns(model: str, tmp_path: Path) -> None:
    """Reconstruction errors fall well below those of the untrained networks."""
    data = str(write_images(tmp_path / "data", blobs(64, 16, 16, 1)))
    settings = {**tiny(model), "log_every": 64, "sample_every": 10**6, "save_every": 10**6}
    first = models.train(model, data, out=tmp_path / "a", **{**settings, "images": 16})
    last = models.train(model, data, out=tmp_path / "b", **{**settings, "images": 1600})
    images = first.data(data).images
    assert last.reconstruct(images)[1].mean() < 0.6 * first.reconstruct(images)[1].mean()


def test_plan_fills_the_record(pictures: Path) -> None:
    planned = models.plan("vae", str(pictures), batch=8, epochs=3, options={"latent": 5}, preset="quick", seed=None)
    config = planned.config
    assert (config.images, config.batch, config.seed, config.preset) == (60, 8, 0, "quick")
    assert config.options["latent"] == 5
    assert config.options["beta"] == 1.0
    assert (config.log_every, config.sample_every, config.save_every) == (8, 8, 8)
    assert len(planned.data) == 20
    assert models.plan("vae", str(pictures), batch=8, preset="paper")[0].options["network"] == "mlp"
    assert models.plan("vae", str(pictures), batch=8, preset="paper", options={"latent": 3})[0].options["widths"] == (500,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch takes int, 1 to 1e"),
        ({"images": 0}, "images takes int, 1 to 1e"),
        ({"seed": -1}, "seed takes a whole number from 0 to 2^64 - 1"),
        ({"seed": 2**64}, "seed takes a whole number from 0 to 2^64 - 1"),
        ({"precision": "fp8"}, "precision takes one of: fp32, bf16"),
        ({"nosuch": 1}, "unknown option 'nosuch'"),
        ({"options": {"nosuch": 1}}, "unknown option 'nosuch'"),
        ({"options": {"latent": 0}}, "latent takes int, 1 to 8192"),
        ({"preset": "slow"}, "vae has no preset 'slow'"),
        ({"batch": 21}, "use --batch 20 or less"),
        ({"size": (0, 8)}, "out of range"),
        ({"device": "tpu"}, "there is no device 'tpu'"),
        ({"parts": {"base": "nowhere"}}, "takes no base"),
    ],
)
def test_train_refuses_before_it_writes(settings: dict[str, Any], message: str, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        models.train("vae", str(pictures), out=tmp_path / "run", **{**tiny("vae"), **settings})
    assert not (tmp_path / "run").exists()


def test_load_takes_a_run_or_a_file(straight: Runs, vae: Trained) -> None:
    run = straight("vae")
    first = sorted((run / "checkpoints").glob("images-*"))[0]
    assert models.load(first, device="cpu").header.images == int(first.stem.removeprefix("images-")) < 96
    assert models.load(str(run), device="cpu").header == vae.header
    assert np.array_equal(models.load(newest(run), device="cpu").sample(3), vae.sample(3))
    assert not np.array_equal(models.load(first, device="cpu").sample(3), vae.sample(3))


def test_load_gives_averages_or_the_weights_as_trained(straight: Runs, vae: Trained) -> None:
    _, tensors = contents(newest(straight("vae")))
    raw = models.load(straight("vae"), device="cpu", raw=True)
    name = "encoder.head.weight"
    assert torch.equal(vae.model.state_dict()[name], tensors[f"average/{name}"])
    assert torch.equal(raw.model.state_dict()[name], tensors[f"model/{name}"])
    assert not torch.equal(tensors[f"average/{name}"], tensors[f"model/{name}"])


# ---- verbs ----------------------------------------------------------------------------------------------------------------------------


def test_every_verb_is_a_method_with_its_own_signature_and_words(vae: Trained) -> None:
    """Where somebody looks for them: in `dir`, in `help`, by name."""
    assert {"sample", "reconstruct", "encode", "project", "interpolate", "way", "inpaint"} <= set(capabilities.verbs()) <= set(dir(vae))
    for name, function in capabilities.verbs().items():
        bound = getattr(vae, name)
        assert bound.__doc__ == function.__doc__ and function.__doc__
        assert ["trained", *inspect.signature(bound).parameters] == [*inspect.signature(function).parameters]
    with pytest.raises(AttributeError, match="'Trained' has no attribute 'smaple'"):
        vae.smaple  # noqa: B018


def test_a_new_verb_needs_no_line_elsewhere(vae: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "_VERBS", dict(capabilities.verbs()))

    @capabilities.verb
    def brighten(trained: Trained, images: np.ndarray, by: int = 1) -> np.ndarray:
        return images + by

    assert vae.brighten(vae.sample(1), by=0).shape == (1, 16, 16, 1)
    assert "brighten" in dir(vae)


@pytest.mark.parametrize(("capability", "verb"), [("decode", "reconstruct"), ("decode", "inpaint"), ("sample", "project")])
def test_what_is_no_image_like_its_own_is_not_compared_with_one(capability: str, verb: str, vae: Trained, shown: np.ndarray) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(vae.model, "gives", lambda of: Field("image", (3, 8, 8)) if of == capability else vae.model.spec.fields["image"])
        with pytest.raises(UserError, match=re.escape(f"makes image (3, 8, 8) from image (1, 16, 16), so it cannot {verb}")):
            getattr(vae, verb)(shown, *(["box"] if verb == "inpaint" else []))


# ---- sample --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["vae", "aegan"])
def test_sample_first_is_a_window_on_one_endless_row(model: str, request: pytest.FixtureRequest) -> None:
    trained = request.getfixturevalue(model)
    every = trained.sample(50, seed=4)
    assert (every.dtype, every.shape) == (np.uint8, (50, 16, 16, 1))
    for first, count in ((0, 5), (7, 3), (15, 2), (16, 16), (33, 17), (49, 1)):
        assert np.array_equal(trained.sample(count, seed=4, first=first), every[first : first + count])
    assert not np.array_equal(trained.sample(50, seed=5), every)
    assert len(np.unique(every, axis=0)) > 25


@pytest.mark.parametrize("batch", [1, 3, 16, 20, 256])
def test_sampling_does_not_depend_on_the_batch(batch: int, aegan: Trained) -> None:
    blocks = list(aegan.sample_blocks(37, seed=1, batch=batch))
    assert np.array_equal(np.concatenate(blocks), aegan.sample(37, seed=1))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range(seed: int, vae: Trained) -> None:
    with pytest.raises(UserError, match="--seed"):
        vae.sample(1, seed=seed)


def test_images_are_rounded_to_the_nearest_of_256_values(vae: Trained) -> None:
    """-1 is 0 and 1 is 255; what lies between is rounded, not cut: documented in models.data.batches."""
    with torch.no_grad():
        exact = ((vae.model.sample(image_noise(2, range(16), (4,))).double() + 1) * 127.5).permute(0, 2, 3, 1).numpy()  # type: ignore[operator]
    found = vae.sample(16, seed=2)
    assert np.abs(found - exact).max() <= 0.5 + 1e-3
    assert np.abs(np.floor(exact) - found).mean() > 0.2


def test_an_aegan_in_its_first_stage_reconstructs_but_does_not_sample(pictures: Path, tmp_path: Path) -> None:
    stream = models.stream("aegan", str(pictures), out=tmp_path / "run", **tiny("aegan"))
    for event in stream:
        if isinstance(event, events.Saved):
            break
    stream.close()
    trained = models.load(tmp_path / "run", device="cpu")
    assert (trained.header.images, trained.header.stage) == (24, "auto-encoder")
    image = trained.data(str(pictures)).images[:2]
    for use in (
        lambda: trained.sample(1),
        lambda: trained.project(image, steps=1),
        lambda: trained.way("1", "2"),
        lambda: trained.way(image[0], image[1]),
    ):
        with pytest.raises(UserError) as error:
            use()
        assert "still in its stage 'auto-encoder'" in error.value.what
        assert str(tmp_path / "run") in error.value.where
        assert "lgm train --resume RUN" in error.value.fix
    assert trained.reconstruct(image)[0].shape == (2, 16, 16, 1)
    assert trained.interpolate(image[0], image[1], space="code", number=3).shape == (3, 16, 16, 1)


# ---- reconstruct, project, interpolate -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["vae", "aegan"])
def test_reconstruct(model: str, shown: np.ndarray, request: pytest.FixtureRequest) -> None:
    trained = request.getfixturevalue(model)
    again, error = trained.reconstruct(shown)
    assert (again.dtype, again.shape, error.shape) == (np.uint8, shown.shape, (10,))
    by_hand = ((again.astype(float) - shown) / 255) ** 2
    assert error == pytest.approx(by_hand.reshape(10, -1).mean(1), abs=2e-3)
    for place in range(10):  # an image's reconstruction does not depend on its company
        alone = trained.reconstruct(shown[place : place + 1])
        assert np.array_equal(alone[0][0], again[place])
        assert alone[1][0] == error[place]


def test_project_comes_nearer_the_longer_it_looks(vae: Trained) -> None:
    wanted = vae.sample(3, seed=9)
    start = vae.project(wanted, steps=0, restarts=2)
    found = vae.project(wanted, steps=60, restarts=2)
    assert found.noise.shape == (3, 4)
    assert (found.error <= start.error).all()
    assert found.error.sum() < 0.5 * start.error.sum()
    with torch.no_grad():
        again = vae.model.sample(found.noise)  # type: ignore[operator]
    assert found.error == pytest.approx(((again - to_float(torch.from_numpy(wanted))) / 2).square().flatten(1).mean(1).numpy(), abs=1e-5)
    assert all(p.grad is None for p in vae.model.parameters())


def test_way_between_images_goes_through_codes(vae: Trained, shown: np.ndarray) -> None:
    way = vae.way(shown[0], shown[1], number=5)
    assert (way.space, way.errors, way.images.shape) == ("code", [], (5, 16, 16, 1))
    ends = vae.reconstruct(shown[:2])[0]
    assert np.array_equal(way.images[0], ends[0])
    assert np.array_equal(way.images[-1], ends[1])
    assert np.array_equal(vae.interpolate(shown[0], shown[1], number=5), way.images)


def test_way_between_seeds_goes_through_noise(aegan: Trained) -> None:
    way = aegan.way("seed:3", "4", number=4, path="slerp")
    assert (way.space, way.errors) == ("noise", [])
    assert np.array_equal(way.images[0], aegan.sample(1, seed=3)[0])
    assert np.array_equal(way.images[-1], aegan.sample(1, seed=4)[0])


def test_way_projects_images_where_the_model_prefers_noise(aegan: Trained, shown: np.ndarray) -> None:
    search = {"steps": 5, "restarts": 2}
    way = aegan.way(shown[0], shown[1], number=3, search=search)
    assert way.space == "noise"
    assert way.errors == pytest.approx(aegan.project(shown[:2], **search).error.tolist())
    mixed = aegan.way("seed:1", shown[1], number=3, search=search)
    assert len(mixed.errors) == 1
    assert np.array_equal(mixed.images[0], aegan.sample(1, seed=1)[0])
    assert aegan.way(shown[0], shown[1], number=3, space="code").errors == []


def test_way_takes_files_and_items(vae: Trained, pictures: Path, shown: np.ndarray) -> None:
    files = sorted(pictures.rglob("*.png"))
    expected = vae.interpolate(shown[0], shown[3], number=3)
    assert np.array_equal(vae.interpolate(str(files[0]), f"{pictures}:3", number=3), expected)
    with pytest.raises(UserError, match="item 20 of 20"):
        vae.way(f"{pictures}:20", f"{pictures}:0")
    with pytest.raises(UserError, match="no readable image"):
        vae.way("nowhere.png", str(files[0]))
    with pytest.raises(UserError, match="a seed has no code"):
        vae.way("1", str(files[0]), space="code")


# ---- a base --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["vae", "aegan"])
def test_base_gives_the_first_stage_and_is_kept_bit_for_bit(base: str, straight: Runs, pictures: Path, tmp_path: Path) -> None:
    settings = on_base(straight(base))
    told: list[events.Event] = []
    trained = models.train("aegan", str(pictures), out=tmp_path / "run", on_event=told.append, **settings)
    assert [e.stage for e in told if isinstance(e, events.StageStarted)] == ["latent GAN"]
    assert trained.header.images == 96
    _, its = contents(newest(straight(base)))
    _, mine = contents(newest(tmp_path / "run"))
    names = [n for n in mine if n.startswith("model/parts.base.")]
    assert len(names) > 10
    for name in names:
        there = name.removeprefix("model/parts.base.")
        assert torch.equal(mine[name], its.get(f"average/{there}", its[f"model/{there}"])), name
    assert trained.sample(2).shape == (2, 16, 16, 1)


def on_base(base: Path, options: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Settings of an aegan whose auto-encoder is that of another run, which decides its shape."""
    settings = tiny("aegan", options, **changes)
    for name in ("widths", "latent", "lr", "share", "sharpen"):
        settings["options"].pop(name)
    return settings | {"parts": {"base": str(base)}, "options": settings["options"] | (options or {})}


def test_a_base_that_does_not_fit_is_refused(straight: Runs, pictures: Path, tmp_path: Path) -> None:
    base, out = straight("vae"), tmp_path / "run"
    with pytest.raises(UserError, match="latent: the part decides it") as error:
        models.train("aegan", str(pictures), out=out, **on_base(base, {"latent": 7}))
    assert f"--part base={base}" in error.value.where
    with pytest.raises(UserError, match=re.escape("the images of base are (1, 16, 16), these are (1, 8, 8)")):
        models.train("aegan", str(pictures), out=out, **on_base(base, size=(8, 8)))
    with pytest.raises(UserError, match=re.escape("these are (3, 16, 16)")):
        models.train("aegan", str(pictures), out=out, **on_base(base, channels="3"))
    with pytest.raises(UserError, match="no such run or checkpoint"):
        models.train("aegan", str(pictures), out=out, **on_base(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="a classifier cannot decode and encode"):
        models.train("aegan", str(pictures), out=out, **on_base(straight("classifier")))
    assert not out.exists()


def test_a_run_needs_its_base_no_more_and_trains_on_its_data(straight: Runs, pictures: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(straight("vae"), base)
    trained = models.train("aegan", out=tmp_path / "run", **on_base(base))
    assert trained.header.config.data == str(pictures)
    before = trained.sample(4, seed=3)
    shutil.rmtree(base)
    assert np.array_equal(models.load(tmp_path / "run").sample(4, seed=3), before)
    assert isinstance(list(api.resume(tmp_path / "run", images=112))[-1], events.Finished)


# ---- variants ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", ["gaussian", "diagonal"])
def test_fitted_priors_sample_like_the_codes(prior: str, pictures: Path, tmp_path: Path) -> None:
    trained = models.train("aegan", str(pictures), out=tmp_path / "run", **tiny("aegan", {"prior": prior}))
    assert trained.header.stage == "fitted Gaussian"
    assert trained.sample(20).shape == (20, 16, 16, 1)
    images = trained.data(str(pictures)).images
    with torch.no_grad():
        codes = trained.model.encode(to_float(torch.from_numpy(images))).double()  # type: ignore[operator]
        # Codes from noise are linear in it: the mean where the noise is zero, and one column of the factor for each unit of noise.
        noise = torch.cat([torch.zeros(1, codes.shape[1]), torch.eye(codes.shape[1])])
        drawn = trained.model.code_from(trained.model.prior_code(noise)).double()  # type: ignore[operator]
    mean, scale = drawn[0], (drawn[1:] - drawn[0]).T
    covariance = torch.cov(codes.T, correction=0)
    if prior == "diagonal":
        covariance = covariance.diag().diag()
    assert torch.allclose(scale @ scale.T, covariance, rtol=1e-3, atol=1e-5 * float(covariance.diag().max()) + 1e-5)
    assert torch.allclose(mean, codes.mean(0), atol=1e-4)


def test_the_latent_gan_starts_as_the_fitted_gaussian(pictures: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    models.train("aegan", str(pictures), out=base, **tiny("aegan", {"prior": "gaussian"}))
    given = on_base(base, {"latent_lr": 0.0})
    started, gaussian = models.train("aegan", str(pictures), out=tmp_path / "run", **given), models.load(base)
    noise = torch.randn(64, *started.model.noise_shape)
    with torch.no_grad():
        a, b = (t.model.code_from(t.model.prior_code(noise)) for t in (started, gaussian))  # type: ignore[operator]
    assert (a - b).square().mean() < 0.01 * (b - b.mean(0)).square().mean()


@pytest.mark.parametrize("model", ["vae", "aegan"])
def test_bf16(model: str, pictures: Path, tmp_path: Path) -> None:
    trained = models.train(model, str(pictures), out=tmp_path / "run", **tiny(model, precision="bf16"))
    assert trained.sample(3).shape == (3, 16, 16, 1)
    _, tensors = contents(newest(tmp_path / "run"))
    assert {t.dtype for name, t in tensors.items() if name.startswith("model/") and t.is_floating_point()} == {torch.float32}
    other = models.train(model, str(pictures), out=tmp_path / "fp32", **tiny(model))
    _, others = contents(newest(tmp_path / "fp32"))
    assert other.sample(3).shape == (3, 16, 16, 1)
    assert any(not torch.equal(tensor, others[name]) for name, tensor in tensors.items() if name.startswith("model/"))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (12, 20), (9, 7)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("model", ["vae", "aegan"])
def test_images_of_any_shape(model: str, channels: int, height: int, width: int, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", blobs(16, height, width, channels))
    trained = models.train(model, str(data), out=tmp_path / "run", **tiny(model, images=32))
    shape = (height, width, channels)
    assert trained.sample(2).shape == (2, *shape)
    images = trained.data(str(data)).images
    assert trained.reconstruct(images)[0].shape == (16, *shape)
    assert trained.interpolate("1", "2", number=3).shape == (3, *shape)
    files = sorted(data.iterdir())
    assert np.array_equal(trained.images(files), images)


@pytest.mark.parametrize("network", ["conv", "mlp", "wae"])
def test_every_network(network: str, pictures: Path, tmp_path: Path) -> None:
    trained = models.train("vae", str(pictures), out=tmp_path / "run", **tiny("vae", {"network": network}, images=32))
    assert trained.sample(2).shape == (2, 16, 16, 1)


def test_size_fit_and_channels_also_apply_to_images_given_later(tmp_path: Path, pictures: Path) -> None:
    """A picture of another shape is brought to the model's in the way that the run's own data were."""
    wide = write_images(tmp_path / "wide", blobs(1, 20, 60, 3))
    settings = tiny("vae", images=16, size=(12, 8), channels="3", fit="pad", background=(0, 0, 0))
    trained = models.train("vae", str(pictures), out=tmp_path / "run", **settings)
    (image,) = trained.images([wide / "000.png"])
    assert image.shape == (12, 8, 3)
    assert image[0].max() == image[-1].max() == 0  # the black bars of `pad`
    assert image[6].max() > 0


# ---- looking -------------------------------------------------------------------------------------------------------------------------


def test_describe_run_counts_what_is_saved(straight: Runs) -> None:
    found = api.describe_run(straight("aegan"))
    header = checkpoint.read_header(newest(straight("aegan")))
    model = build.build(header.config, header.spec, torch.device("cpu"), {})
    assert found["parameters"] == sum(t.numel() for t in model.state_dict().values())
    assert found["of images"] == 96


def test_describe_plan_says_what_train_would_do(straight: Runs, pictures: Path) -> None:
    plan = api.describe_plan("aegan", str(pictures), **tiny("aegan"))
    assert [s["name"] for s in plan["stages"]] == ["auto-encoder", "latent GAN"]
    assert [s["until images"] for s in plan["stages"]] == list(checkpoint.read_header(newest(straight("aegan"))).borders)
    assert plan["networks"]["total"] == sum(v for k, v in plan["networks"].items() if k != "total")
    with_base = api.describe_plan("aegan", str(pictures), **on_base(straight("vae")))
    assert [(s["name"], s["until images"]) for s in with_base["stages"]] == [("latent GAN", 96)]


@pytest.mark.parametrize("model", ["aegan", "classifier", "cgml", "style-alae"])
def test_how_long_a_run_takes_is_measured_on_real_steps(
    model: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that only steps, preparations and looks move, so that the sum is known."""
    import tempfile

    from models.training import expected, loop

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    now = [0.0]
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now[0], monotonic=lambda: now[0]))
    for name, seconds in (("_step", 0.01), ("_prepare", 3.0)):
        real = getattr(loop._Trainer, name)

        def slow(self: Any, *rest: Any, real: Any = real, seconds: float = seconds) -> Any:
            now[0] += seconds
            return real(self, *rest)

        monkeypatch.setattr(loop._Trainer, name, slow)
    planned = models.plan(model, str(pictures), **tiny(model, images=4800))
    found = expected.expected(planned, torch.device("cpu"), seconds=0.2)
    its = build.build(planned.config, planned.spec, torch.device("cpu"), planned.headers).stages()
    assert list(found) == [stage.name for stage in its]
    ends = stages.borders(planned.config, its)
    for stage, begin, end in zip(its, (0, *ends), ends):
        steps = (end - begin) // (stage.batch or planned.config.batch)
        assert found[stage.name] == pytest.approx(3.0 + 0.01 * steps), stage.name
    assert list(tmp_path.iterdir()) == []


def test_no_schedule_is_measured_beyond_its_end(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.training import expected, turn

    seen: list[float] = []
    schedule = turn.Mover.schedule
    monkeypatch.setattr(turn.Mover, "schedule", lambda self, clock: (seen.append(clock.progress), schedule(self, clock)))
    expected.expected(models.plan("vae", str(pictures), **tiny("vae", images=16)), torch.device("cpu"), seconds=0.3)
    assert len(seen) > 2
    assert set(seen) == {0, 0.5}


def test_one_slow_step_tells_enough(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.training import expected, loop

    taken: list[int] = []
    step = loop._Trainer._step
    monkeypatch.setattr(loop._Trainer, "_step", lambda self, *rest: (taken.append(self.images), step(self, *rest)))
    planned = models.plan("vae", str(pictures), **tiny("vae"))
    expected.expected(planned, torch.device("cpu"), seconds=0)
    monkeypatch.setattr(loop, "_SLOW", 0)
    expected.expected(planned, torch.device("cpu"), seconds=0)
    assert taken == [0, 8, 0]


def test_name_of(straight: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    run = straight("vae")
    assert api.name_of(run) == "vae"
    assert api.name_of(newest(run)) == "images-000000096"
    monkeypatch.chdir(run)
    assert api.name_of(".") == "vae"


def test_importing_models_is_light_and_complete() -> None:
    assert set(models.__all__) == {"Trained", "__version__", "load", "plan", "stream", "train"}
    assert all(getattr(models, name) for name in models.__all__)
    with pytest.raises(AttributeError, match="nosuch"):
        _ = models.nosuch  # type: ignore[attr-defined]


def test_fitted_prior_is_prepared_although_the_images_are_no_whole_batches(pictures: Path, tmp_path: Path) -> None:
    """20 images in batches of 8 end at 24; what only prepares comes after that, and once more nothing is left to do."""
    settings = tiny("aegan", images=20) | {"options": {**tiny("aegan")["options"], "prior": "gaussian"}}
    trained = models.train("aegan", str(pictures), out=tmp_path / "run", **settings)
    assert trained.header.images == 24
    assert trained.header.stage == "fitted Gaussian"
    assert trained.sample(2).shape[0] == 2
    finished = list(api.resume(tmp_path / "run"))[-1]
    assert isinstance(finished, events.Finished)
    assert finished.already


def test_finished_run_on_a_base_with_a_fitted_prior_leaves_the_base_alone(pictures: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    models.train("aegan", str(pictures), out=base, **tiny("aegan", images=32))
    options = {"prior": "diagonal"}
    models.train("aegan", str(pictures), out=tmp_path / "run", parts={"base": base}, batch=8, images=16, device="cpu", options=options)
    finished = list(api.resume(tmp_path / "run"))[-1]
    assert isinstance(finished, events.Finished)
    assert finished.already


def test_base_decides_its_shape_against_a_preset(pictures: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    models.train("aegan", str(pictures), out=base, **tiny("aegan", images=32))
    planned = api.plan("aegan", str(pictures), preset="quick", parts={"base": base}, batch=8)
    model = build.build(planned.config, planned.spec, torch.device("cpu"), {"base": planned.parts["base"].header})
    assert model.noise_shape == (tiny("aegan")["options"]["latent"],)


def test_gradient_penalty_under_bf16(pictures: Path, tmp_path: Path) -> None:
    settings = tiny("aegan", images=32) | {"options": {**tiny("aegan")["options"], "penalty": "gradient", "penalty_every": 1}}
    assert models.train("aegan", str(pictures), out=tmp_path / "run", precision="bf16", **settings).header.images == 32


def test_resume_with_another_batch_twice_across_a_border(pictures: Path, tmp_path: Path) -> None:
    """A checkpoint that lies just behind a border holds the stage before; the next stage's optimizers start afresh."""
    run = tmp_path / "run"
    whole = models.stream("aegan", str(pictures), out=run, **tiny("aegan", images=64, save_every=8))
    for event in whole:
        if isinstance(event, events.Saved) and event.images == 24:
            whole.close()
            break
    for event in (leg := api.resume(run, batch=5, save_every=3)):
        if isinstance(event, events.Saved) and event.images > 32:
            leg.close()
            break
    assert isinstance(list(api.resume(run))[-1], events.Finished)


# ---- runs too short to show anything -------------------------------------------------------------------------------------------------


def short(model: str, images: int, batch: int = 128, **options: Any) -> tuple[str, ...]:
    """What is said at the start of such a run."""
    cls = registry.model_class(model)
    spec = DataSpec.of_images(1, 32, 32, classes=("one", "two"), attributes=("left",), identities=3)
    with torch.device("meta"):
        made = support.built(model, cls.Config(**options), support.spec_for(model, spec)).stages()
    return stages.short(RunConfig(model=model, data="glyphs", images=images, batch=batch), made)


def test_a_run_too_short_to_show_anything_says_what_to_give() -> None:
    assert short("vae", 12_000) == (
        "the stage 'variational auto-encoder' has 94 steps, too few to learn much: give --images 26k for 200, or a smaller --batch",
    )
    assert short("vae", 26_000) == short("vae", 12_000, batch=32) == ()
    assert "'auto-encoder' has 117 steps" in short("aegan", 50_000, share=0.3)[0]
    assert short("aegan", 86_000, share=0.3) == ()


def test_a_stage_that_is_meant_to_be_short_counts_for_nothing() -> None:
    assert short("wae", 30_000) == ()  # its pre-training takes 2 of 235 steps
    assert "has 100 steps" in short("wae", 200 * 128, pretrain=0.5, components=False)[0]
    assert "'auto-encoder' has 100 steps" in short("aegan", 100 * 128, prior="gaussian")[0]  # and the second stage only prepares


@pytest.mark.parametrize("model", list(registry.MODELS.entries()))
def test_no_preset_is_too_short(model: str) -> None:
    for preset in registry.MODELS.find(model).presets().values():
        assert short(model, preset.images, preset.batch, **preset.options) == ()


def test_the_warning_comes_at_the_start_and_not_again_on_resume(pictures: Path, tmp_path: Path) -> None:
    happened = list(models.stream("vae", str(pictures), out=tmp_path / "run", **tiny("vae")))
    assert isinstance(happened[0], events.Started)
    assert isinstance(happened[1], events.Warned)
    assert "has 12 steps" in happened[1].message
    assert not any("steps" in e.message for e in api.resume(tmp_path / "run", images=120) if isinstance(e, events.Warned))


def test_half_precision_without_instructions_for_it_is_advised_against(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for has, precision, said in ((False, "bf16", 1), (True, "bf16", 0), (False, "fp32", 0)):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda has=has: has)
        monkeypatch.setattr("models.device.matrix_rate", lambda dtype: 1.0)  # as fast in either
        run = tmp_path / f"{has}-{precision}"
        happened = models.stream("vae", str(pictures), out=run, precision=precision, **tiny("vae", images=8, device="cpu"))
        warnings = [event.message for event in happened if isinstance(event, events.Warned)]
        assert sum("--precision fp32" in message for message in warnings) == said


def test_a_notebook_shows_images(straight: Callable[[str], Path], pictures: Path) -> None:
    from models.capabilities.pictures import Pictures, grid

    trained = models.load(straight("vae"), device="cpu")
    images = trained.sample(5, seed=2)
    again, errors = trained.reconstruct(images)
    for found in (images, again):
        assert isinstance(found, Pictures)
        with Image.open(io.BytesIO(found._repr_png_() or b"")) as shown:
            picture = grid(np.asarray(found))[..., 0]
            times = shown.width // picture.shape[1]
            assert times > 1
            np.testing.assert_array_equal(np.asarray(shown)[::times, ::times], picture)
    assert not isinstance(errors, Pictures)
    assert (images.astype(np.float32) / 255)._repr_png_() is None  # type: ignore[attr-defined]
    assert images[0]._repr_png_() is None  # type: ignore[attr-defined]
    assert trained.sample.__doc__
