"""What CVAE-GAN matches means with: class centres of the batch and of the real images so far, by hand; and that its classes are heard."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import support
import torch
from support import small
from torch import Tensor

from models.base import Clock, DataSpec
from models.config import check
from models.data.batches import Batches
from models.nets.conditions import as_vector, join
from models.nets.moving import MovingMeans
from models.registry import model_class
from models.zoo.cvae_gan import CVAEGAN

SPEC = DataSpec.of_images(1, 16, 16, classes=("a", "b", "c"), identities=5, attributes=("x", "y", "z", "w"))


def made(**options: Any) -> CVAEGAN:
    """A tiny model with features of 2 numbers."""
    torch.manual_seed(0)
    return CVAEGAN(check(CVAEGAN.Config, small("cvae-gan", **options) | {"features": 2}, "test"), SPEC)


def rows(*values: tuple[float, float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def test_fakes_are_held_to_moving_means_of_real_images_by_their_own_batch() -> None:
    """Class 0 has two real images and two fakes, class 1 one of each, class 2 none; then only class 0 comes again."""
    model = made(decay=0.5)
    label = torch.tensor([0, 1, 0])
    real, fake = rows((2, 0), (5, 5), (4, 0)), rows((0, 0), (5, 7), (2, 4))
    assert model.centre_distance(real, fake, label).item() == pytest.approx(((3 - 1) ** 2 + (0 - 2) ** 2 + 2**2) / 2)
    found = model.centre_distance(rows((9, 2)), rows((1, 2)), torch.tensor([0]))  # beside half the weight of the two before: as much
    assert found.item() == pytest.approx(((1 - 6) ** 2 + (2 - 1) ** 2) / 2)  # absent classes do not count
    assert model.real_centres.counts.tolist() == [[2], [1], [0]]


def test_a_class_that_one_rank_has_not_met_yet_is_no_zero_to_the_others() -> None:
    """Ranks average their buffers. An average of centres would put the class half way to zero."""
    here, there = MovingMeans(2, 2, decay=0.5), MovingMeans(2, 2, decay=0.5)
    here(rows((6, 2), (1, 1)), torch.tensor([[2.0], [1.0]]))
    there(rows((0, 0), (3, 3)), torch.tensor([[0.0], [1.0]]))
    for mine, other in zip(here.buffers(), there.buffers(), strict=True):
        mine.copy_((mine + other) / 2)
    assert here(torch.zeros(2, 2), torch.zeros(2, 1)).tolist() == [[3, 1], [2, 2]]


def test_features_count_in_the_unit_of_the_pixels() -> None:
    """Wider networks, whose features are larger, leave every loss as it is: the weights carry over from net to net."""
    losses = []
    for scale in (1.0, 7.0):
        model = made(decay=0.5)
        with torch.no_grad():  # features, and all that is made of them, but for what the answers are
            for network, answer in ((model.discriminator, model.logit), (model.classifier, model.class_logits)):
                last = network.net[-1]
                assert isinstance(last, torch.nn.Linear)
                last.weight.mul_(scale)
                last.bias.mul_(scale)
                answer.weight.div_(scale)
        batch = Batches(support.image_data(8, 16, 16, 1), torch.device("cpu")).at(range(8))
        torch.manual_seed(0)
        (turn,) = model.turns(batch, Clock(0))
        losses.append({name: loss.item() for name, loss in turn.losses.items()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_only_real_images_make_the_classifiers_statistics() -> None:
    """It judges real images in use; statistics of fakes would make it see them otherwise than it has learned to."""
    model = made()
    alone = copy.deepcopy(model)
    batch = Batches(support.image_data(8, 16, 16, 1), torch.device("cpu")).at(range(8))
    list(model.turns(batch, Clock(0)))
    alone.features(batch.image)
    for name, buffer in model.classifier.named_buffers():
        assert torch.equal(buffer, alone.classifier.get_buffer(name)), name


def test_what_the_generator_did_before_is_forgotten() -> None:
    """d/df of |fake centre - real centre|^2 / 2 is their difference over the class's fakes, whatever earlier batches showed."""
    model = made(decay=0.99)
    for _ in range(200):
        model.centre_distance(rows((4, 0), (1, 1)), rows((9, 9), (1, 1)), torch.tensor([0, 1]))
    real, fake = rows((4, 0), (4, 0)).requires_grad_(), rows((1, 2), (3, 2)).requires_grad_()
    model.centre_distance(real, fake, torch.tensor([0, 0])).backward()
    assert real.grad is None
    assert fake.grad is not None
    assert torch.allclose(fake.grad, rows((-1, 1), (-1, 1)))  # (2 - 4, 2 - 0) / 2


def test_conditions_are_unit_vectors_as_loud_as_the_noise() -> None:
    label, bits = torch.tensor([2, 0]), torch.tensor([[1.0, 0, 0, 1], [0, 0, 1, 0]])
    assert as_vector(SPEC, label=label).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert as_vector(SPEC, identity=label).tolist() == [[0, 0, 1, 0, 0], [1, 0, 0, 0, 0]]
    assert as_vector(SPEC, attributes=bits).tolist() == [[0.5, -0.5, -0.5, 0.5], [-0.5, -0.5, 0.5, -0.5]]
    mixed = torch.tensor([[0.5, 0.25, 0.25]])
    assert as_vector(SPEC, label=mixed) is mixed
    assert join(torch.ones(2, 9), as_vector(SPEC, label=label))[:, 9:].tolist() == [[0, 0, 3], [3, 0, 0]]
    with pytest.raises(ValueError, match="told what to show"):
        as_vector(SPEC)


@pytest.mark.parametrize("name", ["cvae", "cgan", "cvae-gan"])
def test_a_new_models_samples_hear_the_class_as_loudly_as_the_noise(name: str) -> None:
    """At a class's own length of 1 beside 64 numbers of noise, decoders learned to leave it out, and samples showed any class."""
    cls = model_class(name)
    torch.manual_seed(0)
    plain = {"components": False} if name == "cvae" else {}  # with them, the networks add nothing at the start
    model = cls(check(cls.Config, {"widths": (8, 16), **plain}, "test"), SPEC)
    noise, label = torch.randn(48, 64), torch.arange(48) % 3
    with torch.no_grad():
        images = model.sample(noise, label)
        by_class = (model.sample(noise, (label + 1) % 3) - images).square().mean()
        by_noise = (model.sample(noise.roll(3, 0), label) - images).square().mean()
    assert 0.5 < float(by_class / by_noise) < 2
