"""The FID Inception network: equal to torch-fidelity's on the same weights, and careful about where those come from."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults.badfiles import picture
from inception_weights import random_weights, write_weights
from PIL import Image
from safetensors.torch import save_file

from models.data.dataset import ImageData
from models.data.sources import ItemSource
from models.errors import UserError
from models.metrics.features import inception
from models.metrics.features.extract import extract
from models.metrics.features.inception import InceptionFeatures, find_weights, resize_clean, resize_tensorflow

WAYS_OUT = ("--weights FILE", "--features classifier:RUN", inception.SHA256, inception.URL)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "random.pth")


@pytest.fixture(scope="module")
def network(weights: Path) -> InceptionFeatures:
    return InceptionFeatures(weights)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Four smooth 40x40 images."""
    small = [Image.fromarray(picture(5, 5, seed=n)).resize((40, 40), Image.Resampling.BICUBIC) for n in range(4)]
    return np.stack([np.asarray(image) for image in small])


@pytest.fixture(scope="module")
def right(weights: Path, images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """torch-fidelity's features and unbiased logits of `images`."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    layers = ["2048", FeatureExtractorInceptionV3.get_default_feature_layer_for_metric("isc")]
    rival = FeatureExtractorInceptionV3("inception-v3-compat", layers, feature_extractor_weights_path=str(weights))
    with torch.no_grad():
        features, logits = rival(torch.from_numpy(images).permute(0, 3, 1, 2))
    return features, logits


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


# ---- the way to 299x299 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [(64, 64), (28, 28), (299, 299), (1, 1), (2, 301), (37, 500), (150, 150), (598, 64), (601, 1024), (64, 897)]
)
def test_resize_is_torch_fidelitys_to_the_bit(size: tuple[int, int]) -> None:
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as original

    image = picture(*size)
    wanted = original(torch.from_numpy(image).permute(2, 0, 1)[None].float(), size=(299, 299), align_corners=False)
    assert np.array_equal(resize_tensorflow(image), wanted[0].permute(1, 2, 0).numpy())
    batch = InceptionFeatures.prepare(_without_network("tensorflow"), [image])
    assert torch.equal(batch, (wanted - 128) / 128)


def _without_network(resize: str) -> InceptionFeatures:
    features = InceptionFeatures.__new__(InceptionFeatures)
    features.resize = resize
    return features


@pytest.mark.parametrize("size", [(64, 64), (299, 299), (700, 320), (3, 5)])
def test_clean_resize_is_pillows_bicubic_for_each_channel_in_float(size: tuple[int, int]) -> None:
    image = picture(*size)
    resized = resize_clean(image)
    for channel in range(3):
        plane = Image.fromarray(image[:, :, channel].astype(np.float32))
        assert plane.mode == "F"
        wanted = np.clip(np.asarray(plane.resize((299, 299), Image.Resampling.BICUBIC)), 0, 255)
        assert np.array_equal(resized[:, :, channel], wanted)
    assert resized.min() >= 0
    assert resized.max() <= 255
    assert (size == (299, 299)) == bool((resized == np.round(resized)).all())  # not rounded to bytes


def test_clean_resize_is_antialiased_and_the_original_is_not() -> None:
    stripes = np.zeros((598, 598, 1), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize_clean(stripes)[5:-5, 5:-5] - 127.5).max() < 10
    assert set(np.unique(resize_tensorflow(stripes))) <= {0.0, 255.0}


@pytest.mark.parametrize("resize", inception.RESIZES)
def test_I8_sizes_and_channels_may_be_mixed_and_grey_is_repeated(resize: str) -> None:
    features = _without_network(resize)
    images = [picture(20, 30), picture(300, 17), picture(9, 9, 1)[:, :, None]]
    batch = features.prepare(images)
    assert batch.shape == (3, 3, 299, 299)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert -1 <= float(batch.min()) < float(batch.max()) < 1
    for row, image in zip(batch, [*images[:2], np.repeat(images[2], 3, axis=2)]):
        assert torch.equal(row, features.prepare([image])[0])


# ---- the network ---------------------------------------------------------------------------------------------------------------------


def test_features_and_logits_are_torch_fidelitys(
    network: InceptionFeatures, images: np.ndarray, right: tuple[torch.Tensor, torch.Tensor]
) -> None:
    features, logits = network.apply(network.prepare(list(images)))
    assert features.shape == (4, network.dimensions) == (4, 2048)
    assert logits.shape == (4, network.classes) == (4, 1008)
    assert features.dtype == logits.dtype == torch.float32
    assert not features.requires_grad
    assert relative(features, right[0]) < 1e-5
    assert relative(logits, right[1]) < 1e-5
    # Neither dead nor exploded, and the images can be told apart: the comparison means something.
    assert 0.05 < float(features.mean()) < 20
    assert float((features > 0).float().mean()) > 0.3
    assert relative(features[:1], features[1:2]) > 1e-2


def test_I3_batches_and_workers_change_features_by_rounding_only(network: InceptionFeatures, images: np.ndarray) -> None:
    source = ItemSource(ImageData("images", images))
    passes = [torch.cat([b.features for b in extract(source, network, batch, workers)]) for batch, workers in ((4, 1), (1, 2), (3, 1))]
    assert relative(passes[1], passes[0]) < 1e-6
    assert relative(passes[2], passes[0]) < 1e-6


def test_bf16_is_close_and_says_so(weights: Path, images: np.ndarray, right: tuple[torch.Tensor, torch.Tensor]) -> None:
    network = InceptionFeatures(weights, precision="bf16")
    features, logits = network.apply(network.prepare(list(images)))
    assert features.dtype == logits.dtype == torch.float32
    assert 1e-4 < float((features - right[0]).norm() / right[0].norm()) < 0.02
    assert 1e-4 < float((logits - right[1]).norm() / right[1].norm()) < 0.02
    assert network.recipe()["precision"] == "bf16"


def test_recipe_says_what_the_numbers_depend_on(network: InceptionFeatures) -> None:
    recipe = network.recipe()
    assert json.loads(json.dumps(recipe)) == recipe
    assert recipe == {"name": "inception", "digest": network.digest, "resize": "tensorflow", "precision": "fp32"}
    assert re.fullmatch("[0-9a-f]{64}", network.digest)


def test_torch_fidelity_is_imported_only_when_a_network_is_built() -> None:
    source = Path(inception.__file__).read_text()
    assert not re.search(r"^(from|import) torch(_fidelity|vision)", source, re.M)


# ---- weights -------------------------------------------------------------------------------------------------------------------------


def test_digest_is_of_the_weights_not_of_their_container(network: InceptionFeatures, weights: Path, tmp_path: Path) -> None:
    tensors = random_weights()
    save_file(tensors, tmp_path / "w.safetensors")
    assert InceptionFeatures(tmp_path / "w.safetensors").digest == network.digest
    torch.save(dict(reversed(tensors.items())), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert InceptionFeatures(tmp_path / "old.pt").digest == network.digest
    tensors["Mixed_7c.branch_pool.bn.running_mean"][0] += 1e-3
    save_file(tensors, tmp_path / "w.safetensors")
    assert InceptionFeatures(tmp_path / "w.safetensors").digest != network.digest


class Evil:
    """What unpickles by running code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_I6_weights_are_never_unpickled_carelessly(tmp_path: Path) -> None:
    trap = tmp_path / "run.txt"
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"fc.weight": Evil(trap)}))
    torch.save({"fc.weight": Evil(trap)}, tmp_path / "zip.pth")
    torch.save({"fc.weight": Evil(trap)}, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    for path in tmp_path.glob("*.pth"):
        with pytest.raises(UserError, match="holds more than tensors") as error:
            InceptionFeatures(path)
        assert str(path) in str(error.value)
        assert inception.SHA256 in error.value.fix
        assert "weights_only" not in str(error.value)  # torch's advice would be to trust the file
    assert not trap.exists()
    torch.load(tmp_path / "zip.pth", weights_only=False)  # the trap was armed
    assert trap.exists()


@pytest.mark.parametrize("name", ["short.pth", "short.safetensors", "empty.pth", "empty.safetensors", "text.pth", "text.safetensors"])
def test_I6_damaged_files_are_refused(weights: Path, tmp_path: Path, name: str) -> None:
    content = {"short": weights.read_bytes()[:5000], "empty": b"", "text": b"404: Not Found\n" * 9}[name.partition(".")[0]]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as weights") as error:
        InceptionFeatures(tmp_path / name)
    assert error.value.where == str(tmp_path / name)
    assert inception.SHA256 in error.value.fix
    assert inception.URL in error.value.fix


def test_I6_files_of_other_networks_are_refused(tmp_path: Path) -> None:
    first = "Conv2d_1a_3x3.conv.weight"
    cases: dict[str, tuple[Any, str]] = {
        "nothing": ({}, "is not there"),
        "no dictionary": ([torch.zeros(1)], "is not there"),
        "another shape": ({first: torch.zeros(32, 1, 3, 3)}, r"\(32, 3, 3, 3\) has \(32, 1, 3, 3\)"),
        "whole numbers": ({first: torch.zeros(32, 3, 3, 3, dtype=torch.int64)}, "not the weights of the FID Inception network"),
        "no numbers": ({first: torch.full((32, 3, 3, 3), torch.nan)}, "not finite"),
    }
    for name, (content, message) in cases.items():
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(UserError, match=message) as error:
            InceptionFeatures(tmp_path / f"{name}.pth")
        assert error.value.where == str(tmp_path / f"{name}.pth")


def test_I6_a_missing_file_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pth", tmp_path):
        with pytest.raises(UserError, match="no such file") as error:
            InceptionFeatures(path)
        assert error.value.where == str(path)
        assert all(word in error.value.fix for word in ("--weights", inception.SHA256, inception.URL))


def test_I6_a_hash_in_the_files_name_is_kept_to(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"content").hexdigest()
    good, bad = tmp_path / f"weights-{digest[:8]}.pth", tmp_path / "weights-inception-2015-12-05-6726825d.pth"
    for path in (good, bad):
        path.write_bytes(b"content")
    assert find_weights(good) == good
    with pytest.raises(UserError, match=rf"sha256 {digest}, expected 6726825d\.\.\.") as error:
        find_weights(bad)
    assert error.value.where == str(bad)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A file that stands for the original on the network, and the path where the cache keeps it."""
    original = tmp_path / "network" / "weights-abcdef12.pth"
    original.parent.mkdir()
    original.write_bytes(b"the original")
    monkeypatch.setattr(inception, "URL", original.as_uri())
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(b"the original").hexdigest())
    monkeypatch.delenv("LGM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return original, tmp_path / "cache" / "lgm" / "weights-abcdef12.pth"


def test_I6_the_original_is_fetched_once_and_checked_at_every_use(shelf: tuple[Path, Path]) -> None:
    original, kept = shelf
    assert find_weights() == kept
    assert kept.read_bytes() == b"the original"
    original.rename(original.with_suffix(".gone"))
    assert find_weights() == kept  # from the cache
    kept.write_bytes(b"the orig")
    with pytest.raises(UserError, match=r"the file is damaged .* and the download failed"):
        find_weights()
    original.with_suffix(".gone").rename(original)
    assert find_weights() == kept
    assert kept.read_bytes() == b"the original"
    assert [p.name for p in kept.parent.iterdir()] == [kept.name]


def test_I6_a_download_with_another_hash_leaves_nothing(shelf: tuple[Path, Path]) -> None:
    original, kept = shelf
    original.write_bytes(b"half of the orig")
    with pytest.raises(UserError, match="invalid hash") as error:
        find_weights()
    assert error.value.where == str(kept)
    assert not list(kept.parent.iterdir())


@pytest.mark.parametrize("download", [True, False])
def test_I6_where_there_is_no_network_both_ways_out_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], download: bool
) -> None:
    monkeypatch.setenv("LGM_CACHE", str(tmp_path))

    def refused(*args: Any, **options: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torch.hub, "urlopen", refused)
    with pytest.raises(UserError, match="Network is unreachable" if download else "downloads are off") as error:
        InceptionFeatures(download=download)
    assert all(word in error.value.fix for word in WAYS_OUT)
    assert error.value.where == str(tmp_path / "weights-inception-2015-12-05-6726825d.pth")
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_unknown_settings_suggest_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'clean'"):
        InceptionFeatures(resize="cleen")
    with pytest.raises(UserError, match="did you mean 'bf16'"):
        InceptionFeatures(precision="bf61")
