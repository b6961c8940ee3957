"""Principal components as an auto-encoder's start: what they are, by formulas of their own, and that nothing at the start adds to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from support import small
from torch import Tensor

from models import api
from models.base import Batch, DataSpec
from models.config import check
from models.nets import components as module
from models.nets.components import Components
from models.registry import model_class
from models.training import build, checkpoint

CPU = torch.device("cpu")
SPEC = DataSpec.of_images(3, 8, 6, classes=("a", "b", "c"))


class Data:
    """Images that vary in `rank` directions and a little in all others, class by class, as a run's data come: in batches, in order."""

    def __init__(self, count: int = 90, rank: int = 5, spec: DataSpec = SPEC, noise: float = 0.02) -> None:
        dice = torch.Generator().manual_seed(0)
        values = int(np.prod(spec.shape))
        ways = torch.randn(rank, values, generator=dice) * torch.linspace(0.3, 0.1, rank)[:, None]
        self.label = torch.arange(count) * 3 // count
        rows = 0.1 + torch.randn(count, rank, generator=dice) @ ways + noise * torch.randn(count, values, generator=dice)
        rows = rows + 0.3 * torch.randn(3, values, generator=dice)[self.label]
        self.image = rows.view(count, *spec.shape).contiguous(memory_format=torch.channels_last)

    def __iter__(self) -> Iterator[Batch]:
        for index in torch.arange(len(self.image)).split(10):
            yield Batch(index, lambda key, index: getattr(self, key)[index], CPU)

    def __getitem__(self, source: str) -> Any:
        raise KeyError(source)


def rows_of(image: Tensor) -> np.ndarray:
    return np.stack([one.permute(1, 2, 0).reshape(-1).double().numpy() for one in image])


def fitted(latent: int, data: Data, spec: DataSpec = SPEC, **more: Any) -> Components:
    torch.manual_seed(0)
    found = Components(spec, latent)
    found.fit(data, **more)
    return found


@pytest.mark.parametrize("latent", [3, 8])
def test_they_are_the_best_linear_way_there_and_back(latent: int) -> None:
    """As numpy's singular value decomposition finds it; codes have variance 1, or the deviation that is asked for."""
    data = Data()
    rows = rows_of(data.image)
    centred = rows - rows.mean(0)
    u, s, v = np.linalg.svd(centred, full_matrices=False)
    best = rows.mean(0) + (u[:, :latent] * s[:latent]) @ v[:latent]
    for deviation in (1.0, 2.5):
        found = fitted(latent, data, deviation=deviation)
        codes = found.encode(data.image)
        np.testing.assert_allclose(rows_of(found.decode(codes)), best, atol=2e-3)
        np.testing.assert_allclose(np.cov(codes.numpy().T, bias=True), deviation**2 * np.eye(latent), atol=5e-3)


def test_with_noise_they_are_those_of_the_probabilistic_model() -> None:
    """x = mean + W z + noise: W W^T + noise has the data's covariance where that is more than noise; the posterior is Bayes' rule's."""
    data, noise = Data(), 0.01
    found = fitted(5, data, noise=noise)
    rows = rows_of(data.image)
    variance = 4 * noise  # of pixels in [-1, 1]
    weights = (found.directions * found.out).double().numpy()
    covariance = np.cov(rows.T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1][:5], vectors[:, ::-1][:, :5]
    assert values[-1] > variance
    np.testing.assert_allclose(weights @ weights.T, vectors @ np.diag(values - variance) @ vectors.T, atol=2e-3)
    precision = weights.T @ weights / variance + np.eye(5)
    np.testing.assert_allclose(np.exp(found.log_variance.numpy()), np.diag(np.linalg.inv(precision)), rtol=1e-3)
    mean = np.linalg.solve(precision, weights.T @ (rows - rows.mean(0)).T / variance).T
    np.testing.assert_allclose(found.encode(data.image).numpy(), mean, atol=1e-2)


def test_directions_of_less_variance_than_the_noise_are_left_to_the_prior() -> None:
    found = fitted(8, Data(), noise=0.04**2)  # 5 directions and 2 between the classes; of the data's own noise less
    assert int((found.out > 0).sum()) == 7
    assert bool((found.log_variance[7:] == 0).all())
    assert bool((found.into[7:] == 0).all())
    assert bool((found.log_variance[:7] < -0.5).all())


def test_what_is_told_is_taken_out_first() -> None:
    """Class means by least squares; the components are of what they leave."""
    data = Data(noise=0.001)
    told = torch.nn.functional.one_hot(data.label, 3).float()
    torch.manual_seed(0)
    found = Components(SPEC, 5, 3)
    found.fit(data, told=lambda batch: torch.nn.functional.one_hot(batch.label, 3).float())
    rows = rows_of(data.image)
    for k in range(3):
        mean = rows[data.label.numpy() == k].mean(0)
        none = found.decode(torch.zeros(1, 5), torch.eye(3)[k : k + 1])
        np.testing.assert_allclose(rows_of(none)[0], mean, atol=0.06)  # drawn to the mean of all by one image in thirty
    again = found.decode(found.encode(data.image, told), told)
    assert float((again - data.image).square().mean()) < 1e-4
    assert float((found.encode(data.image, told) - found.encode(data.image, told.roll(1, 1))).abs().mean()) > 0.1


def test_a_second_fit_changes_nothing() -> None:
    """A run that goes on prepares its stage again."""
    data = Data()
    found = fitted(4, data)
    before = {name: value.clone() for name, value in found.state_dict().items()}
    found.fit(Data(count=30, rank=2), noise=1.0)
    assert all(torch.equal(before[name], value) for name, value in found.state_dict().items())


def test_more_numbers_than_the_images_have_directions() -> None:
    """Fewer images, or images that hardly vary: the rest of the code is 0 on the way in and of no account on the way out."""
    data = Data(count=6)
    found = fitted(40, data)
    codes = found.encode(data.image)
    assert bool(torch.isfinite(codes).all())
    assert bool((codes[:, 6:] == 0).all())
    torch.testing.assert_close(found.decode(codes), data.image, atol=1e-3, rtol=0)
    assert torch.equal(found.decode(torch.cat([codes[:, :6], torch.ones(6, 34)], 1)), found.decode(codes))


def test_large_images_are_averaged_down_and_enlarged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SIDE", 8)
    spec = DataSpec.of_images(1, 16, 12)
    dice = torch.Generator().manual_seed(0)
    small_images = torch.randn(40, 1, 8, 6, generator=dice)
    data = Data(count=40, spec=spec)
    data.image = torch.nn.functional.interpolate(small_images, (16, 12), mode="bilinear") * 0.2
    found = fitted(39, data, spec)
    assert found.size == (8, 6)
    assert found.directions.shape == (48, 39)
    again = found.decode(found.encode(data.image))
    assert again.shape == data.image.shape
    blurred = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(data.image, 2), (16, 12), mode="bilinear")
    torch.testing.assert_close(again, blurred, atol=2e-3, rtol=0)
    noisy = Components(spec, 3)
    noisy.fit(data, noise=1e-4)  # a value here stands for four: a fourth of their noise
    largest = np.linalg.eigvalsh(np.cov(rows_of(torch.nn.functional.avg_pool2d(data.image, 2)).T, bias=True))[-1]
    assert float(noisy.log_variance[0]) == pytest.approx(np.log(4e-4 / 4 / largest), abs=1e-2)


def test_some_images_from_all_over_the_data_are_enough() -> None:
    data = Data()
    batches = list(module._spread(data, 30))
    assert [int(batch.index[0]) for batch in batches] == [0, 30, 60]
    assert len(list(module._spread(data, 3))) == 1
    assert len(list(module._spread(data, 10_000))) == 9


@pytest.mark.parametrize("network", ["conv", "mlp", "wae"])
@pytest.mark.parametrize("name", ["aegan", "vae", "wae"])
def test_before_the_first_step_a_model_is_its_components(name: str, network: str) -> None:
    cls, data = model_class(name), Data()
    torch.manual_seed(0)
    model = cls(check(cls.Config, small(name, network=network), "test"), SPEC).eval()
    model.stages()[0].prepare(data)
    codes = model.encode(data.image)
    torch.testing.assert_close(codes, model.components.encode(data.image))
    torch.testing.assert_close(model.decode(codes), model.components.decode(codes).clamp(-1, 1))


def test_the_linear_start_is_a_variational_auto_encoder_s_best() -> None:
    """No small change of the linear ways in and out lowers the bound: it is where gradients vanish, all but those of the noise drawn."""
    cls, data = model_class("vae"), Data(count=90)
    torch.manual_seed(0)
    model = cls(check(cls.Config, small("vae", sigma=0.1), "test"), SPEC).eval()
    model.fit_components(data)
    c = model.components

    def bound(out: float = 1.0, into: float = 1.0, more: float = 0.0) -> float:
        with torch.no_grad():
            kept = c.out.clone(), c.into.clone(), c.log_variance.clone()
            c.out *= out
            c.into *= into
            c.log_variance += more
            torch.manual_seed(1)
            total = sum(float(next(model.turns(batch, None)).losses["autoencoder"]) for _ in range(40) for batch in data)
            c.out.copy_(kept[0]), c.into.copy_(kept[1]), c.log_variance.copy_(kept[2])
            return total

    best = bound()
    for change in ({"out": 1.05}, {"out": 0.95}, {"into": 1.05}, {"into": 0.95}, {"more": 0.2}, {"more": -0.2}):
        assert bound(**change) > best, change


def test_runs_of_before_have_no_components(tmp_path: Any, pictures: Any) -> None:
    """A checkpoint whose options do not name them is from before they were there."""
    run = tmp_path / "run"
    api.train("vae", str(pictures), out=str(run), images=8, batch=4, options={**small("vae"), "components": False})
    header = checkpoint.read_header(checkpoint.locate(run))
    options = {key: value for key, value in header.config.options.items() if key != "components"}
    old = dataclasses.replace(header, config=dataclasses.replace(header.config, options=options))
    assert build.build(old.config, old.spec, CPU, {}, old).components is None
    assert build.build_part(old.as_part(), model_class("aegan").takes["base"], "test").components is None
