"""CVAE-GAN: what its four players minimise, against the paper's formulas written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from formulas import COUNT, SPEC, agree, batch, bounded, close, half_kl, items, made, minus_log, minus_log_of_not, share_right, turns
from torch import Tensor

from models.base import Clock

Sums = dict[int, tuple[Tensor | float, float]]  # of each class, what it sums up to and how many there were


def half_length(difference: Tensor) -> Tensor:
    """Half the squared length of what differs, the mean over the items."""
    return (difference**2).sum() / (2 * len(difference))


def variation(features: Tensor) -> Tensor:
    """The mean squared distance from the mean; a constant."""
    flat = features.detach().flatten(1)
    return ((flat - flat.mean(0)) ** 2).sum() / len(flat)


def moved_mean(kept: Sums, key: int, rows: Tensor, decay: float) -> Tensor:
    """The mean of all rows so far, those of earlier batches weighing less."""
    total, count = kept.get(key, (0.0, 0.0))
    kept[key] = (decay * total + rows.detach().sum(0), decay * count + len(rows))
    return torch.as_tensor(kept[key][0] / kept[key][1])


@pytest.mark.parametrize(
    "options",
    [
        {"kl_weight": 3.0, "mean_weight": 0.5, "class_weight": 2.0},
        {"decay": 0.25, "reconstruction_weight": 0.5, "kl_weight": 0.1},
        {"game": "ordinary", "class_weight": 0.3},
        {"discriminator_steps": 3, "condition": "identity"},
    ],
    ids=str,
)
def test_four_players_each_on_its_own_loss(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made("cvae-gan", monkeypatch, **options)
    c = model.config
    classes = len(SPEC.classes) if c.condition == "label" else SPEC.identities
    means: Sums = {}
    real_centres: Sums = {}

    for number in range(3):
        data = items(seed=number)
        image, label = data["image"], data[c.condition].clone()
        if number == 1:
            label[label == 1] = 2  # a class that the batch lacks
        shown = torch.eye(classes)[label]
        step = turns(model, model.turns(batch({**data, c.condition: label}), Clock(number)))

        def asked(vector: Tensor, shown: Tensor = shown) -> Tensor:
            return torch.cat([vector, math.sqrt(vector.shape[1]) * shown], 1)

        def painted(vector: Tensor, shown: Tensor = shown) -> Tensor:
            return torch.tanh(model.generator(asked(vector, shown)))

        for _ in range(c.discriminator_steps - 1):
            turn = next(step)
            on_real, on_fake = (model.logit(model.seen(x)) for x in (image, painted(draws.prior[-1]).detach()))
            agree(model, turn, {"discriminator": minus_log(on_real) + minus_log_of_not(on_fake)}, untouched=("generator",))

        turn = next(step)
        heads = model.heads(asked(torch.nn.functional.leaky_relu(model.encoder(image), 0.2)))
        mean, log_variance = heads[:, : c.latent], bounded(heads[:, c.latent :])
        codes = torch.cat([mean + torch.exp(log_variance / 2) * draws.normal[-1], draws.prior[-1]])
        again, fake = painted(codes, torch.cat([shown, shown])).chunk(2)  # one batch, one batch norm

        seen_real, seen_again, seen_fake = (model.seen(x) for x in (image, again, fake))
        on_real, on_again, on_fake = (model.logit(x) for x in (seen_real, seen_again, seen_fake))
        discriminator = minus_log(on_real) + 0.5 * minus_log_of_not(on_again) + 0.5 * minus_log_of_not(on_fake)

        model.classifier.eval()  # it looks at fakes with the statistics of real images
        named_real, named_again, named_fake = (model.features(x) for x in (image, again, fake))
        model.classifier.train()
        logits = model.class_logits(model.features(image))
        classifier = -sum(torch.log(row.exp()[n] / row.exp().sum()) for row, n in zip(logits, label, strict=True)) / COUNT

        pixels = half_length((again - image).flatten(1))
        seen_unit = variation(image) / variation(torch.cat([seen_real, seen_fake]))
        named_unit = variation(image) / variation(torch.cat([named_real, named_fake]))
        features = seen_unit * half_length(seen_again - seen_real.detach()) + named_unit * half_length(named_again - named_real.detach())
        pairwise = pixels + features

        matched = ((seen_fake.mean(0) - moved_mean(means, 0, seen_real, c.decay)) ** 2).sum() / 2
        game = c.mean_weight * seen_unit * matched if c.game == "means" else minus_log(on_fake)

        centres = torch.zeros(())
        for k in sorted(set(label.tolist())):  # the batch's own centre, and the real images' over the batches so far
            apart = named_fake[label == k].mean(0) - moved_mean(real_centres, k, named_real[label == k], c.decay)
            centres = centres + named_unit * (apart**2).sum() / 2

        kl = half_kl(mean, log_variance)
        agree(
            model,
            turn,
            {
                "classifier": classifier,
                "discriminator": discriminator,
                "generator": c.reconstruction_weight * pairwise + game + c.class_weight * centres,
                "encoder": c.kl_weight * kl + c.reconstruction_weight * pairwise,
            },
        )
        for name, wanted in {"KL": kl, "pixels": pixels, "features": features, "centres": centres}.items():
            close(turn.logs[name], wanted)
        close(turn.logs["right"], share_right(on_real, on_fake))
        close(turn.logs["real images named right"], (logits.argmax(1) == label).float().mean())
        assert next(step, None) is None

    assert len(draws.normal) == 3
    assert len(draws.prior) == 3 * c.discriminator_steps


@pytest.mark.parametrize("condition", ["label", "identity"])
def test_codes_are_posterior_means_and_every_class_has_the_same_prior(condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made("cvae-gan", monkeypatch, condition=condition)
    model.eval()
    data, noise = items(), torch.linspace(-2, 2, 24).view(6, 4)
    told = {condition: data[condition]}
    shown = torch.eye(len(SPEC.classes) if condition == "label" else SPEC.identities)[data[condition]]
    features = torch.nn.functional.leaky_relu(model.encoder(data["image"]), 0.2)
    heads = model.heads(torch.cat([features, math.sqrt(features.shape[1]) * shown], 1))
    close(model.encode(data["image"], **told), heads[:, :4])
    painted = torch.tanh(model.generator(torch.cat([noise, 2 * shown], 1)))
    close(model.decode(noise, **told), painted)
    close(model.sample(noise, **told), painted)
    hidden = torch.nn.functional.leaky_relu(model.classifier(data["image"]), 0.2)
    close(model.features(data["image"]), hidden)
    close(model.classify(data["image"]), model.class_logits(hidden))
    close(model.seen(data["image"]), torch.nn.functional.leaky_relu(model.discriminator(data["image"]), 0.2))
    assert not draws.normal
