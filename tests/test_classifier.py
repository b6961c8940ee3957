"""The classifier: its network's size, its augmentation, its numbers on a hand-made example; and the features that metrics take from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
from torch import nn

from models import api
from models.base import Batch, DataSpec
from models.config import check
from models.data.batches import Batches, to_float
from models.data.sets import cifar10, kmnist, mnist, street
from models.errors import UserError
from models.metrics.features.base import Features
from models.metrics.features.classifier import ClassifierFeatures
from models.nets.augment import augment, harmless, shift_and_flip
from models.nets.residual import ResidualBlock, ResidualEncoder
from models.zoo.classifier import Classifier

CPU = torch.device("cpu")
GREY, COLOUR = DataSpec.of_images(1, 28, 28, tuple("0123456789")), DataSpec.of_images(3, 64, 64, attributes=("left", "right"))


def build(spec: DataSpec, **options: Any) -> Classifier:
    torch.manual_seed(0)
    return Classifier(check(Classifier.Config, {"widths": (4, 8), "blocks": (1,), **options}, "test"), spec)


# ---- the network ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "early", "late"),  # (channels, stride) of the plain convolutions and of the blocks
    [
        ((28, 28), [(32, 1)], [(64, 2), (128, 2)]),
        ((32, 32), [(32, 1)], [(64, 2), (128, 2)]),
        ((64, 64), [(32, 2)], [(64, 2), (128, 2)]),
        ((256, 192), [(32, 2), (32, 2), (32, 2)], [(64, 2), (128, 2)]),
        ((16, 40), [(64, 1)], [(64, 1), (128, 2)]),
        ((8, 8), [(128, 1)], [(128, 1)]),
        ((1, 1), [(128, 1)], [(128, 1)]),
    ],
)
def test_the_network_is_sized_from_the_image(size: tuple[int, int], early: list[Any], late: list[Any]) -> None:
    net = ResidualEncoder(DataSpec.of_images(3, *size), (32, 64, 128), (0, 1, 1))
    assert [(m.out_channels, m.stride[0]) for m in net.net if isinstance(m, nn.Conv2d)] == early
    first = [m.branch[0] for m in net.net if isinstance(m, ResidualBlock)]
    assert [(m.out_channels, m.stride[0]) for m in first] == late  # type: ignore[union-attr, index]
    assert net.features == 128
    net.eval()
    assert net(torch.zeros(2, 3, *size)).shape == (2, 128)


def test_the_paper_s_network_has_20_layers() -> None:
    options = Classifier.presets["paper"].options
    model = Classifier(check(Classifier.Config, options, "test"), DataSpec.of_images(3, 32, 32, ("cat", "dog")))
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and getattr(m, "kernel_size", (3, 3)) == (3, 3)]
    assert len(layers) == 20
    assert model.encoder.features == 64


# ---- augmentation --------------------------------------------------------------------------------------------------------------------


def test_the_rule_mirrors_no_writing() -> None:
    for classes in (mnist.CLASSES, kmnist.CLASSES, tuple("0123456789"), ("cat", "A"), ("00017", "stop")):
        for channels in (1, 3):
            assert harmless(DataSpec.of_images(channels, 32, 32, classes)) == "shift"
    assert harmless(DataSpec.of_images(3, 32, 32, street.generate(1, "train").classes)) == "shift"
    assert harmless(DataSpec.of_images(3, 32, 32, cifar10.CLASSES)) == "flip"
    assert harmless(COLOUR) == "flip"
    assert harmless(DataSpec.of_images(1, 64, 64)) == "shift"
    assert build(GREY).augmentation == "shift"
    assert build(GREY, augment="flip").augmentation == "flip"


@pytest.mark.parametrize("shape", [(1, 20, 20), (3, 12, 25)], ids=str)
@pytest.mark.parametrize("flip", [False, True])
def test_shift_and_flip(shape: tuple[int, int, int], flip: bool) -> None:
    """Every image is one of the (2 most + 1)^2 shifts of its own with repeated edges, or of its mirror image; all of them occur."""
    torch.manual_seed(0)
    height, width = shape[1:]
    image = torch.randn(1, *shape).expand(600, *shape).contiguous(memory_format=torch.channels_last)
    made = shift_and_flip(image, (1, 2), flip)
    assert made.shape == image.shape
    assert made.is_contiguous(memory_format=torch.channels_last)
    wide = nn.functional.pad(image[:1], (2, 2, 1, 1), mode="replicate")
    expected = [wide[:, :, y : y + height, x : x + width] for y in range(3) for x in range(5)]
    expected += [e.flip(3) for e in expected] if flip else []
    near = torch.cdist(made.flatten(1), torch.cat(expected).flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    assert near.min(1).values.max() == 0
    assert set(near.argmin(1).tolist()) == set(range(len(expected)))


def test_augment() -> None:
    image = torch.randn(4, 3, 40, 20).contiguous(memory_format=torch.channels_last)
    assert augment(image, "none") is image
    torch.manual_seed(1)
    made = augment(image, "shift")
    torch.manual_seed(1)
    assert torch.equal(made, shift_and_flip(image, (4, 2), flip=False))
    assert augment(torch.zeros(2, 1, 3, 1), "flip").shape == (2, 1, 3, 1)
    source = torch.randn(2, 1, 8, 8, requires_grad=True)
    augment(source, "flip").sum().backward()
    assert float(source.grad.sum()) == pytest.approx(128)  # type: ignore[union-attr]


# ---- targets and numbers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "target", "expected", "outputs"),
    [
        (GREY, "auto", "label", 10),
        (COLOUR, "auto", "attributes", 2),
        (DataSpec.of_images(1, 8, 8, ("a", "b"), ("c",), identities=7), "auto", "label", 2),
        (DataSpec.of_images(1, 8, 8, ("a", "b"), ("c",), identities=7), "attributes", "attributes", 1),
        (DataSpec.of_images(1, 8, 8, ("a", "b"), ("c",), identities=7), "identity", "identity", 7),
    ],
)
def test_target(spec: DataSpec, target: str, expected: str, outputs: int) -> None:
    model = build(spec, target=target)
    assert model.target == expected
    assert model.needs == {"image", expected}
    model.eval()
    assert model.classify(torch.zeros(2, *spec.shape)).shape == (2, outputs)


def batch_of(target: str, truth: torch.Tensor) -> Batch:
    values = {target: truth, "image": torch.zeros(len(truth), 1, 8, 8)}
    return Batch(torch.arange(len(truth)), lambda key, index: values[key], CPU)


def test_accuracy_and_macro_f1_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(DataSpec.of_images(1, 8, 8, attributes=("a", "b", "c")))
    said = iter([torch.tensor([[1.0, -1, -1], [2, -2, -0.5]]), torch.tensor([[-1.0, 3, -1]])])
    monkeypatch.setattr(model, "classify", lambda image: next(said))
    truth = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])
    # a: said 1 1 0, true 1 0 1: F1 1/2. b: said 0 0 1, true 0 1 1: F1 2/3. c: never said, never true: 0. Right: 6 of 9.
    found = model.validate([batch_of("attributes", truth[:2]), batch_of("attributes", truth[2:])])
    assert found == {"accuracy": pytest.approx(6 / 9), "macro F1": pytest.approx((1 / 2 + 2 / 3) / 3)}

    model = build(DataSpec.of_images(1, 8, 8, ("a", "b", "c")))
    monkeypatch.setattr(model, "classify", lambda image: torch.eye(3)[[0, 1, 1, 2]])
    assert model.validate([batch_of("label", torch.tensor([0, 1, 2, 0]))]) == {"accuracy": 0.5}


def test_the_loss_is_the_smoothed_one() -> None:
    logits = torch.randn(5, 3)
    label, attributes = torch.tensor([0, 1, 2, 1, 0]), torch.randint(0, 2, (5, 3)).float()
    model = build(DataSpec.of_images(1, 8, 8, ("a", "b", "c")), smoothing=0.3)
    soft = 0.7 * torch.eye(3)[label] + 0.1
    assert model.loss(logits, label) == pytest.approx(float(-(soft * logits.log_softmax(1)).sum(1).mean()), rel=1e-5)
    model = build(DataSpec.of_images(1, 8, 8, attributes=("a", "b", "c")), smoothing=0.3)
    soft = 0.7 * attributes + 0.15
    expected = -(soft * logits.sigmoid().log() + (1 - soft) * (-logits).sigmoid().log()).sum(1).mean()
    assert model.loss(logits, attributes) == pytest.approx(float(expected), rel=1e-5)


# ---- features for metrics ------------------------------------------------------------------------------------------------------------


def pictures_of(*shapes: tuple[int, int, int]) -> list[np.ndarray]:
    dice = np.random.default_rng(0)
    return [dice.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


def test_features_are_the_model_s() -> None:
    data = support.image_data(40, 16, 16, 1)
    model = build(DataSpec.of_images(1, 16, 16, ("one", "two", "three")))
    model.train()
    look: Features = ClassifierFeatures(model, "classifier:run")
    assert not model.training
    assert (look.name, look.dimensions, look.classes) == ("classifier:run", 8, 3)
    assert look.recipe()["target"] == "label"
    images = list(data.images)
    features, logits = look.apply(look.prepare(images))
    assert features.dtype == logits.dtype == torch.float32
    assert not features.requires_grad
    with torch.no_grad():
        real = to_float(torch.from_numpy(data.images))
        assert torch.allclose(features, model.features(real), atol=1e-6)
        assert torch.allclose(logits, model.classify(real), atol=1e-6)
    for batch in (1, 7):
        parts = [look.apply(look.prepare(images[n : n + batch])) for n in range(0, 40, batch)]
        assert torch.allclose(torch.cat([p[0] for p in parts]), features, atol=1e-6)
        assert torch.allclose(torch.cat([p[1] for p in parts]), logits, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_images_of_any_size_and_channels(channels: int, fit: str) -> None:
    from models.data import images as pictures

    look = ClassifierFeatures(build(DataSpec.of_images(channels, 20, 24, ("a", "b"))), "classifier:run", fit=fit, background=(0, 0, 0))
    images = pictures_of((20, 24, channels), (20, 24, 4 - channels), (9, 50, 3), (100, 80, 1), (1, 1, 3))
    batch = look.prepare(images)
    assert (batch.shape, batch.dtype) == ((5, 20, 24, channels), torch.uint8)
    assert np.array_equal(batch[0], images[0])
    for made, image in zip(batch, images, strict=True):
        expected = pictures.to_channels(pictures.fit(image, (20, 24), fit, background=(0, 0, 0)), channels)
        assert np.array_equal(made, expected)
    assert look.apply(batch)[0].shape == (5, 8)


def test_an_image_that_is_too_long_for_a_crop() -> None:
    look = ClassifierFeatures(build(GREY), "classifier:run")
    with pytest.raises(UserError, match="cannot be shown to the classifier"):
        look.prepare(pictures_of((4, 400, 1)))


def test_the_digest_is_the_weights() -> None:
    digests = [ClassifierFeatures(build(GREY), name).digest for name in ("classifier:a", "classifier:b")]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 64
    other = build(GREY).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert ClassifierFeatures(other, "classifier:a").digest == digests[0]
    with torch.no_grad():
        other.head.bias[0] += 1
    assert ClassifierFeatures(other, "classifier:a").digest != digests[0]
    one, two = (ClassifierFeatures(build(GREY), "classifier:a", fit=fit).recipe() for fit in ("crop", "pad"))
    assert one["digest"] == two["digest"]
    assert {key for key in one if one[key] != two[key]} == {"resize"}


def test_only_a_classifier_will_do(straight: Any) -> None:
    with pytest.raises(UserError, match="this model cannot classify: vae"):
        ClassifierFeatures(api.load(straight("vae")).model, "classifier:runs/vae")


def test_of_a_run(straight: Any, pictures: Path) -> None:
    trained = api.load(straight("classifier"))
    look = ClassifierFeatures(trained.model, "classifier:run", fit=trained.header.config.fit, background=trained.header.config.background)
    data = trained.data(str(pictures))
    features, logits = look.apply(look.prepare(list(data.images)))
    assert features.shape == (20, 8)
    found = trained.model.validate(Batches(data, CPU).in_order(20))  # type: ignore[operator]
    assert found["accuracy"] == float((logits.argmax(1).numpy() == data.labels).mean())
