"""GAN, DCGAN, CGAN and the classifier: what is minimised, against the papers' formulas written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from formulas import COUNT, SPEC, agree, batch, close, items, made, minus_log, minus_log_of_not, mirrored, seen, share_right, turns
from torch import Tensor, nn

from models.base import Clock, DataSpec
from models.config import check
from models.nets.mlp import Maxout
from models.registry import model_class

SMALLEST = 1e-4  # of a difference that shows


@pytest.mark.parametrize("saturating", [False, True])
@pytest.mark.parametrize("augment", ["none", "shift"])
def test_gan_plays_the_game(saturating: bool, augment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made("gan", monkeypatch, loss="saturating" if saturating else "non-saturating", augment=augment)
    mirrored("gan", monkeypatch)
    shown = batch()
    step = turns(model, model.turns(shown, Clock(0)))
    turn = next(step)
    (noise,) = draws.prior
    fake = torch.tanh(model.generator(noise))
    on_real, on_fake = (model.discriminator(seen(image, augment)) for image in (shown.image, fake.detach()))
    agree(model, turn, {"discriminator": minus_log(on_real) + minus_log_of_not(on_fake)}, untouched=("generator",))
    close(turn.logs["right"], share_right(on_real, on_fake))

    turn = next(step)  # against the discriminator that has moved
    on_fake = model.discriminator(seen(fake, augment))
    agree(model, turn, {"generator": -minus_log_of_not(on_fake) if saturating else minus_log(on_fake)})
    assert next(step, None) is None
    model.eval()
    close(model.sample(noise), torch.tanh(model.generator(noise)))


def test_the_first_gan_starts_from_its_recipe_s_weights() -> None:
    """goodfeli/adversarial: uniform within 0.05 in the generator of ReLUs and within 0.005 in the discriminator of maxout units."""
    torch.manual_seed(0)
    model = model_class("gan")(check(model_class("gan").Config, {"discriminator": "maxout", "norm": "none"}, "test"), SPEC)
    for network, kind, reach in ((model.generator, nn.ReLU, 0.05), (model.discriminator, Maxout, 0.005)):
        assert any(isinstance(layer, kind) for layer in network.modules())
        largest = max(float(parameter.detach().abs().max()) for parameter in network.parameters())
        assert 0.99 * reach < largest <= reach
        assert (
            max(float(parameter.detach().mean().abs()) for parameter in network.parameters() if parameter.numel() > 10_000) < 0.02 * reach
        )
    assert not any(isinstance(layer, nn.LeakyReLU | nn.BatchNorm1d) for layer in model.modules())


def test_the_modern_gan_has_leaky_units_and_norms_only_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = made("gan", monkeypatch)
    assert {layer.negative_slope for layer in model.modules() if isinstance(layer, nn.LeakyReLU)} == {0.2}
    assert any(isinstance(layer, nn.BatchNorm1d) for layer in model.generator.modules())
    assert not any(isinstance(layer, nn.BatchNorm1d | nn.Tanh | nn.ReLU) for layer in model.discriminator.modules())


@pytest.mark.parametrize("name", ["dcgan", "cgan", "wgan", "cvae-gan"])
def test_networks_start_small_where_the_paper_s_do(name: str) -> None:
    """N(0, 0.02) in every layer of DCGAN's networks; spectral norm fixes the scale itself."""
    torch.manual_seed(0)
    model = model_class(name)(model_class(name).Config(), SPEC)
    for network in (model.generator, model.critic if name == "wgan" else model.discriminator):
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and m.weight.numel() > 10_000]
        assert layers
        assert all(abs(float(layer.weight.detach().std()) - 0.02) < 0.001 for layer in layers)
    if name == "dcgan":
        constrained = model_class(name)(check(model_class(name).Config, {"norm": "spectral"}, "test"), SPEC)
        assert next(p for p in constrained.discriminator.parameters() if p.ndim == 4).std() > 0.1


@pytest.mark.parametrize("augment", ["none", "shift"])
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_dcgan_plays_the_game_with_real_and_fake_in_batches_of_their_own(norm: str, augment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made("dcgan", monkeypatch, norm=norm, augment=augment)
    mirrored("dcgan", monkeypatch)
    shown = batch()
    step = turns(model, model.turns(shown, Clock(0)))
    turn = next(step)
    (noise,) = draws.prior
    fake = torch.tanh(model.generator(noise))
    on_real, on_fake = (model.discriminator(seen(image, augment)) for image in (shown.image, fake.detach()))
    agree(model, turn, {"discriminator": minus_log(on_real) + minus_log_of_not(on_fake)}, untouched=("generator",))
    close(turn.logs["right"], share_right(on_real, on_fake))

    turn = next(step)
    agree(model, turn, {"generator": minus_log(model.discriminator(seen(fake, augment)))})
    assert next(step, None) is None
    model.eval()
    close(model.sample(noise), torch.tanh(model.generator(noise)))


@pytest.mark.parametrize("augment", ["none", "shift"])
@pytest.mark.parametrize("condition", ["label", "identity", "attributes"])
def test_cgan_plays_the_game_of_a_projection_discriminator(condition: str, augment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The class times sqrt(latent) beside the noise; logit(x, y) = w f(x) + b + y V f(x), as Miyato and Koyama write it."""
    model, draws = made("cgan", monkeypatch, condition=condition, augment=augment)
    mirrored("cgan", monkeypatch)
    data = items()
    if condition == "attributes":
        vectors = (2 * data["attributes"] - 1) / math.sqrt(2)
    else:
        vectors = torch.eye(len(SPEC.classes) if condition == "label" else SPEC.identities)[data[condition]]

    def logits(images: Tensor) -> Tensor:
        features = torch.nn.functional.leaky_relu(model.discriminator(seen(images, augment)), 0.2)
        return torch.stack(
            [
                f @ model.logit.weight[0] + model.logit.bias[0] + y @ model.projection.weight.T @ f
                for f, y in zip(features, vectors, strict=True)
            ]
        )

    step = turns(model, model.turns(batch(data), Clock(0)))
    turn = next(step)
    (noise,) = draws.prior
    asked = torch.cat([noise, math.sqrt(model.config.latent) * vectors], 1)
    fake = torch.tanh(model.generator(asked))
    on_real, on_fake = logits(data["image"]), logits(fake.detach())
    agree(model, turn, {"discriminator": minus_log(on_real) + minus_log_of_not(on_fake)}, untouched=("generator",))
    close(turn.logs["right"], share_right(on_real, on_fake))
    turn = next(step)
    agree(model, turn, {"generator": minus_log(logits(fake))})
    assert next(step, None) is None
    model.eval()
    close(model.sample(noise, **{condition: data[condition]}), torch.tanh(model.generator(asked)))


# ---- the classifier --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("target", ["label", "identity"])
def test_the_classifier_minimises_the_cross_entropy_with_smoothed_targets(
    target: str, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = made("classifier", monkeypatch, target=target, smoothing=smoothing, augment="none")
    data = items()
    (turn,) = model.turns(batch(data), Clock(0))
    answers = model.head(model.encoder(data["image"])).double()
    loss, right = torch.zeros(()), 0
    for row, truth in zip(answers, data[target], strict=True):
        wanted = torch.full_like(row, smoothing / len(row))
        wanted[truth] += 1 - smoothing
        loss = loss - (wanted * torch.log(row.exp() / row.exp().sum())).sum() / COUNT
        right += int(row.argmax() == truth)
    agree(model, turn, {"classifier": loss})
    close(turn.logs["accuracy"], torch.tensor(right / COUNT))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_classifier_sums_the_logistic_losses_of_attributes(smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = made("classifier", monkeypatch, target="attributes", smoothing=smoothing, augment="none")
    data = items()
    (turn,) = model.turns(batch(data), Clock(0))
    share = 1 / (1 + torch.exp(-model.head(model.encoder(data["image"])).double()))
    wanted = (1 - smoothing) * data["attributes"] + smoothing / 2
    loss = -(wanted * share.log() + (1 - wanted) * (1 - share).log()).sum() / COUNT
    agree(model, turn, {"classifier": loss})
    close(turn.logs["accuracy"], ((share > 0.5) == data["attributes"].bool()).float().mean())


@pytest.mark.parametrize(("augment", "used"), [("auto", "shift"), ("none", "none"), ("flip", "flip"), ("shift", "shift")])
def test_the_classifier_learns_from_augmented_images(augment: str, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.zoo import classifier

    model, _ = made("classifier", monkeypatch, augment=augment)
    shown = batch()
    monkeypatch.setattr(classifier, "augment", lambda image, how: {used: image.flip(2)}[how])
    (turn,) = model.turns(shown, Clock(0))
    close(turn.losses["classifier"], model.loss(model.classify(shown.image.flip(2)), shown.label))
    assert (turn.losses["classifier"] - model.loss(model.classify(shown.image), shown.label)).abs() > SMALLEST


@pytest.mark.parametrize(
    ("spec", "target", "outputs"),
    [
        (SPEC, "label", 3),
        (DataSpec.of_images(1, 16, 16, attributes=("x", "y")), "attributes", 2),
        (DataSpec.of_images(1, 16, 16, identities=4), "label", 1),
    ],
)
def test_the_classifier_learns_labels_or_attributes_without_them(
    spec: DataSpec, target: str, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = made("classifier", monkeypatch, spec)
    assert (model.target, model.head.out_features) == (target, outputs)
    assert model.needs == {"image", target}


def test_the_classifier_says_no_where_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = made("classifier", monkeypatch, target="attributes")
    assert model.answers(torch.tensor([[0.0, 1e-6]])).tolist() == [[0, 1]]


@pytest.mark.parametrize("target", ["label", "attributes"])
def test_the_classifier_counts_its_right_answers_over_all_batches(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = made("classifier", monkeypatch, target=target)
    model.eval()
    data = items(20)
    found = model.validate([batch(data, list(range(first, min(first + 8, 20)))) for first in (0, 8, 16)])
    answers = model.head(model.encoder(data["image"]))
    said = answers.argmax(1) if target == "label" else (answers > 0).float()
    assert found["accuracy"] == pytest.approx(float((said == data[target]).float().mean()))
    if target == "label":
        assert set(found) == {"accuracy"}
        return
    hits, claims, positives = ((said * data[target]).sum(0), said.sum(0), data[target].sum(0))
    assert found["macro F1"] == pytest.approx(sum(2 * float(h / (c + p)) for h, c, p in zip(hits, claims, positives, strict=True)) / 2)


# ---- all -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gan", "dcgan", "cgan", "wgan", "wgan-gp"])
def test_every_step_draws_anew(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made(name, monkeypatch)
    for step in range(3):
        list(model.turns(batch(), Clock(step)))
    assert len({tuple(noise.flatten().tolist()) for noise in draws.prior}) == len(draws.prior) >= 3


@pytest.mark.parametrize("name", ["cvae", "cgan", "cvae-gan"])
def test_conditional_models_need_what_they_are_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for condition in ("label", "identity"):
        model: Any = made(name, monkeypatch, condition=condition)[0]
        assert model.needs == {"image", condition}
