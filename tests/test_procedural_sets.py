"""The built-in procedural sets: the same pixels every time, whatever the count, and labels that tell what is in the picture."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from models.data import drawing
from models.data.dataset import DataRequest
from models.data.sets import faces, glyphs, street
from models.errors import UserError
from models.registry import SETS

DIGIT_SETS = pytest.mark.parametrize("module", [glyphs, street], ids=lambda m: m.__name__.rpartition(".")[2])
ALL_SETS = pytest.mark.parametrize("module", [glyphs, street, faces], ids=lambda m: m.__name__.rpartition(".")[2])
SHAPES = {glyphs: (32, 32, 1), street: (32, 32, 3), faces: (64, 64, 3)}


@ALL_SETS
def test_shape_and_type(module: ModuleType) -> None:
    data = module.generate(30, "train")
    assert data.images.shape == (30, *SHAPES[module])
    assert data.images.dtype == np.uint8
    assert data.images.flags.c_contiguous
    assert data.name == module.__name__.rpartition(".")[2]
    assert data.images.std(axis=(1, 2, 3)).min() > 8, "every picture shows something"


@ALL_SETS
def test_same_pixels_every_time(module: ModuleType) -> None:
    assert module.generate(40, "train").fingerprint() == module.generate(40, "train").fingerprint()


@ALL_SETS
def test_image_does_not_depend_on_how_many_are_made(module: ModuleType) -> None:
    few, many = module.generate(37, "train"), module.generate(300, "train")  # ends in the middle of a block
    for name in ("images", "labels", "attributes", "factors", "identities"):
        if getattr(few, name) is not None:
            np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[:37], err_msg=name)


@ALL_SETS
def test_train_and_test_share_no_image(module: ModuleType) -> None:
    train, test = module.generate(60, "train").images.reshape(60, -1), module.generate(60, "test").images.reshape(60, -1)
    assert len(np.unique(np.concatenate([train, test]), axis=0)) == 120


@ALL_SETS
@pytest.mark.parametrize("split", ["train", "test"])
def test_load_gives_the_split_that_was_asked_for(module: ModuleType, split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.COUNTS["train"] >= 10_000
    assert module.COUNTS["test"] >= 1_000
    monkeypatch.setattr(module, "COUNTS", {"train": 12, "test": 7})
    loaded = module.load(DataRequest(module.__name__, split=split))
    assert loaded.fingerprint() == module.generate(module.COUNTS[split], split).fingerprint()


@ALL_SETS
def test_edges_of_count_and_split(module: ModuleType) -> None:
    assert len(module.generate(0, "train")) == 0
    assert len(module.generate(1, "test")) == 1
    with pytest.raises(UserError, match="did you mean 'train'"):
        module.generate(3, "trian")


@ALL_SETS
def test_is_listed_with_a_summary(module: ModuleType) -> None:
    entry = SETS.entries()[module.__name__.rpartition(".")[2]]
    assert entry.summary.endswith(".")
    assert "no download" in entry.summary


@DIGIT_SETS
def test_digits_are_balanced_and_shuffled(module: ModuleType) -> None:
    data = module.generate(200, "train")
    assert data.classes == tuple("0123456789")
    assert data.labels.dtype == np.int64
    np.testing.assert_array_equal(np.bincount(data.labels, minlength=10), 20)
    assert len({tuple(run) for run in data.labels.reshape(20, 10)}) == 20, "no two runs of ten come in the same order"


@DIGIT_SETS
def test_digits_of_a_class_differ(module: ModuleType) -> None:
    data = module.generate(200, "train")
    for label in range(10):
        same = data.images[data.labels == label].reshape(20, -1).astype(np.float32)
        gaps = np.abs(same[:, None] - same[None]).mean(axis=2)[~np.eye(20, dtype=bool)]
        assert gaps.min() > 3


def test_glyphs_can_be_told_apart() -> None:
    """The nearest class mean of 1,000 training images recognises most test digits: labels and pictures belong together."""
    train, test = glyphs.generate(1000, "train"), glyphs.generate(200, "test")
    pixels = train.images.reshape(1000, -1) / 255.0
    means = np.stack([pixels[train.labels == label].mean(axis=0) for label in range(10)])
    guess = np.argmin(((test.images.reshape(200, 1, -1) / 255.0 - means) ** 2).sum(axis=2), axis=1)
    assert (guess == test.labels).mean() > 0.6


def test_glyphs_are_white_on_black() -> None:
    images = glyphs.generate(100, "train").images[..., 0]
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    assert border.mean() < 4
    assert np.median(images.max(axis=(1, 2))) > 200


def test_street_digit_stands_out_from_its_ground(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the digits made invisible (strokes thinned away) the middle of every picture changes visibly."""
    drawn = street.generate(60, "train").images.astype(np.float32)
    monkeypatch.setattr(street, "sample_digits", lambda digits, across, down: np.ones_like(across))
    empty = street.generate(60, "train").images.astype(np.float32)
    middle = np.abs(drawn - empty)[:, 6:26, 8:24].max(axis=(1, 2, 3))
    assert middle.min() > 35


def test_face_labels() -> None:
    data = faces.generate(300, "train")
    assert data.attributes.shape == (300, 6)
    assert data.attributes.dtype == np.uint8
    assert set(np.unique(data.attributes)) == {0, 1}
    assert data.attribute_names == faces.ATTRIBUTES
    assert data.factor_names == ("pose", "light")
    assert data.factors.dtype == np.float32
    assert data.factors.min() >= -1
    assert data.factors.max() <= 1
    assert data.factors.min() < -0.9
    assert data.factors.max() > 0.9
    np.testing.assert_array_equal(np.bincount(data.identities), np.full(100, 3))
    np.testing.assert_allclose(data.attributes.mean(axis=0), faces.SHARE, atol=0.12)


@pytest.mark.parametrize("attribute", range(len(faces.ATTRIBUTES)), ids=faces.ATTRIBUTES)
def test_every_face_attribute_can_be_seen(attribute: int) -> None:
    """Turned on and off with all else fixed, on every identity: a good number of pixels changes well beyond noise."""
    sitting = faces.describe(100, "train")
    bare = np.zeros_like(sitting.attributes)
    worn = bare.copy()
    worn[:, attribute] = 1
    off, on = (faces.render(replace(sitting, attributes=a)).astype(np.int16) for a in (bare, worn))
    changed = (np.abs(on - off).max(axis=3) > 20).sum(axis=(1, 2))
    assert changed.min() >= 8, f"hardly visible on identity {sitting.identities[changed.argmin()]}"
    assert np.median(changed) >= 20


def test_face_light_and_pose_point_the_way_their_labels_say() -> None:
    sitting = faces.describe(40, "train")
    sitting = replace(sitting, attributes=np.zeros_like(sitting.attributes))

    def with_factors(pose: float, light: float) -> np.ndarray:
        factors = np.tile(np.array([[pose, light]], np.float32), (40, 1))
        return faces.render(replace(sitting, factors=factors)).astype(np.float32)

    lit_left, lit_right = with_factors(0, -1)[:, 24:44], with_factors(0, 1)[:, 24:44]
    assert (lit_left[:, :, 18:28].mean(axis=(1, 2, 3)) > lit_right[:, :, 18:28].mean(axis=(1, 2, 3))).all()
    assert (lit_left[:, :, 36:46].mean(axis=(1, 2, 3)) < lit_right[:, :, 36:46].mean(axis=(1, 2, 3))).all()
    assert np.abs(with_factors(-1, 0) - with_factors(1, 0)).mean(axis=(1, 2, 3)).min() > 3


def test_a_person_looks_the_same_in_both_splits_and_unlike_others() -> None:
    train, test = faces.describe(100, "train"), faces.describe(100, "test")
    assert not np.array_equal(train.identities, test.identities)
    # everybody in the same setting: only the identity differs
    setting = replace(
        train,
        identities=np.arange(100),
        attributes=np.zeros_like(train.attributes),
        factors=np.zeros_like(train.factors),
        chance={name: np.repeat(values[:1], 100, axis=0) for name, values in train.chance.items()},
    )
    portraits = faces.render(setting).reshape(100, -1)[:, ::5].astype(np.float32)
    gaps = np.abs(portraits[:, None] - portraits[None]).mean(axis=2)
    assert gaps[~np.eye(100, dtype=bool)].min() > 2


def test_distance_fields_of_digits() -> None:
    fields = drawing.digit_fields()
    assert fields.shape == (10, drawing.FIELD, drawing.FIELD)
    assert fields.dtype == np.float32
    assert (fields.min(axis=(1, 2)) < -0.04).all(), "inside a stroke"
    assert (fields[:, 0, 0] > 0.2).all(), "far outside"
    slope = np.abs(np.diff(fields, axis=2)).max() * drawing.FIELD_SCALE
    assert slope < 1.05, "a distance grows by at most one per step"


def test_missing_freetype_is_a_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_freetype(size: float) -> None:
        raise ImportError("The _imagingft C module is not installed")

    monkeypatch.setattr(drawing.ImageFont, "load_default", without_freetype)
    drawing.digit_fields.cache_clear()
    try:
        with pytest.raises(UserError, match="FreeType"):
            glyphs.generate(1, "train")
    finally:
        drawing.digit_fields.cache_clear()
