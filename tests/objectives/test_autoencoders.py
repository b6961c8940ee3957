"""VAE, CVAE and WAE: what is minimised, against the papers' formulas written out."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from formulas import (
    SPEC,
    Draws,
    agree,
    batch,
    bounded,
    close,
    coded,
    half_kl,
    items,
    made,
    minus_log,
    minus_log_of_not,
    painted,
    projected,
    share_right,
    squared_distance,
    turns,
)
from torch import Tensor
from torch.distributions import Normal

from models.base import Clock, Stage
from models.nets import posterior


def gaussian(mean: Tensor, image: Tensor, sigma: float) -> Tensor:
    return squared_distance(mean, image) / (2 * sigma**2)


def meant(model: Any, code: Tensor, told: Tensor | None = None) -> Tensor:
    """The pixels' mean that a loss sees: by tanh, but not cut off where there are components, which would leave no slope."""
    return painted(model, code, told, bounded=model.components is None)


def looked_at(model: Any, draws: Draws, image: Tensor) -> Tensor:
    """The images of a step: about half of them mirrored, where a model mirrors."""
    if not model.mirrors:
        return image
    flipped = draws.uniform[-1].view(-1, 1, 1, 1) >= 0.5
    assert flipped.any()
    return torch.where(flipped, image.flip(3), image)


def bernoulli(raw: Tensor, image: Tensor) -> Tensor:
    on, share = (image + 1).double() / 2, (torch.tanh(raw.double()) + 1) / 2
    return -(on * share.log() + (1 - on) * (1 - share).log()).sum() / len(image)


# ---- VAE -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"components": False},
        {"components": False, "network": "wae"},
        {"sigma": 0.1},
        {"sigma": 0.15, "beta": 4.0},
        {"likelihood": "bernoulli", "beta": 0.5},
        {"network": "mlp", "sigma": 0.1},
        {"network": "wae", "sigma": 2.0},
        {"augment": "flip"},
    ],
    ids=str,
)
def test_vae_minimises_the_bound(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made("vae", monkeypatch, **options)
    shown = batch()
    (turn,) = model.turns(shown, Clock(0))
    image = looked_at(model, draws, shown.image)
    features = model.encoder.trunk(image)
    start = 0.0 if model.components is None else model.components.log_variance
    mean, log_variance = coded(model, image), start + bounded(model.log_variance(features))
    (noise,) = draws.normal
    code = mean + torch.exp(log_variance / 2) * noise
    kl = half_kl(mean, log_variance)
    c = model.config
    if c.likelihood == "bernoulli":
        reconstruction = bernoulli(model.decoder(code), image)
    else:
        reconstruction = gaussian(meant(model, code), image, c.sigma)
    agree(model, turn, {"autoencoder": reconstruction + c.beta * kl})
    close(turn.logs["KL"], kl)
    close(turn.logs["reconstruction"], reconstruction)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_vae_s_codes_are_means_and_its_samples_pixels_means(likelihood: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made("vae", monkeypatch, likelihood=likelihood)
    model.eval()
    image, noise = items()["image"], torch.linspace(-2, 2, 24).view(6, 4)
    features = model.encoder.trunk(image)
    start = 0.0 if model.components is None else model.components.log_variance
    close(model.encode(image), coded(model, image))
    mean, deviation = model.posterior(image)
    close(mean, model.encode(image))
    close(deviation, torch.exp((start + bounded(model.log_variance(features))) / 2))
    close(model.decode(noise), painted(model, noise))
    close(model.sample(noise), model.decode(noise))
    assert not draws.normal


@pytest.mark.parametrize("value", [-300.0, -20.0, 20.0, 300.0])
def test_a_log_variance_beyond_the_limit_finds_back(value: float) -> None:
    """Cut off hard, it had no gradient."""
    log_variance = torch.tensor([value], requires_grad=True)
    posterior.bounded(log_variance).sum().backward()
    assert log_variance.grad is not None
    assert float(log_variance.grad) > 1e-5


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", ["vae", "cvae"])
def test_an_extreme_variance_overflows_nothing(name: str, sign: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = made(name, monkeypatch)
    head = model.log_variance if name == "vae" else model.heads
    with torch.no_grad():
        head.bias[-model.config.latent :] = sign * 1e4
    (turn,) = model.turns(batch(), Clock(0))
    assert torch.isfinite(turn.losses["autoencoder"])


# ---- CVAE ------------------------------------------------------------------------------------------------------------------------------


def told(data: dict[str, Tensor], condition: str, length: float) -> Tensor:
    """A condition as a vector of this length: classes one by one, attributes by signs."""
    rows = []
    for truth in data[condition]:
        if condition == "attributes":
            row = torch.tensor([1.0 if on else -1.0 for on in truth])
        else:
            row = torch.zeros(len(SPEC.classes) if condition == "label" else SPEC.identities)
            row[truth] = 1
        rows.append(row / row.norm() * length)
    return torch.stack(rows)


@pytest.mark.parametrize("components", [False, True])
@pytest.mark.parametrize("condition", ["label", "identity", "attributes"])
def test_cvae_minimises_the_conditional_bound(condition: str, components: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made("cvae", monkeypatch, condition=condition, beta=3.0, sigma=0.1, components=components)
    data = items()
    one = told(data, condition, 1.0)

    def posterior_of(image: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.nn.functional.leaky_relu(model.encoder(image), 0.2)
        heads = model.heads(torch.cat([features, told(data, condition, math.sqrt(features.shape[1]))], 1))
        mean, log_variance = heads[:, : model.config.latent], bounded(heads[:, model.config.latent :])
        if components:
            mean, log_variance = mean + projected(model, image, one), log_variance + model.components.log_variance
        return mean, log_variance

    (turn,) = model.turns(batch(data), Clock(0))
    mean, log_variance = posterior_of(data["image"])
    (noise,) = draws.normal
    code = mean + torch.exp(log_variance / 2) * noise
    reconstruction, kl = gaussian(meant(model, code, one), data["image"], 0.1), half_kl(mean, log_variance)
    agree(model, turn, {"autoencoder": reconstruction + 3 * kl})
    close(turn.logs["KL"], kl)
    close(turn.logs["reconstruction"], reconstruction)
    model.eval()
    shown = {condition: data[condition]}
    close(model.encode(data["image"], **shown), posterior_of(data["image"])[0])
    close(model.decode(noise, **shown), painted(model, noise, one))
    close(model.sample(noise, **shown), painted(model, noise, one))


# ---- WAE -------------------------------------------------------------------------------------------------------------------------------


def imq_mmd(codes: Tensor, prior: Tensor, variance: float) -> Tensor:
    """Algorithm 2 of the paper, as its code has it: the kernel C / (C + |a - b|^2), summed over scales; no code is compared with itself."""
    n, d = codes.shape
    total = torch.zeros((), dtype=torch.float64)
    for scale in (0.1, 0.2, 0.5, 1, 2, 5, 10):
        c = 2 * d * variance * scale
        for i in range(n):
            for j in range(n):
                for points in (codes, prior):
                    if i != j:
                        total = total + c / (c + ((points[i] - points[j]).double() ** 2).sum()) / (n * (n - 1))
                total = total - 2 * c / (c + ((codes[i] - prior[j]).double() ** 2).sum()) / n**2
    return total


@pytest.mark.parametrize(
    "options",
    [
        {"density_trick": False},
        {"density_trick": False, "components": False, "sigma": 0.5},
        {"density_trick": True, "sigma": 1.5, "penalty_weight": 3.0},
        {"density_trick": True, "reconstruction_weight": 0.05, "network": "wae"},
        {"penalty": "mmd", "penalty_weight": 1000.0},
        {"penalty": "mmd", "penalty_weight": 50.0, "sigma": 2.0, "input_noise": 0.0, "network": "mlp"},
        {"augment": "flip"},
    ],
    ids=str,
)
def test_wae_minimises_the_error_and_draws_the_codes_to_the_prior(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made("wae", monkeypatch, **options)
    c, shown = model.config, batch()
    step = turns(model, model.turns(shown, Clock(0)))
    turn = next(step)

    def logits(codes: Tensor) -> Tensor:
        added = 0.0
        if c.density_trick:  # log-density, less its mean over the prior: minus the prior's entropy
            prior = Normal(torch.zeros(c.latent), c.sigma)
            added = (prior.log_prob(codes) + prior.entropy()).sum(1, keepdim=True)
        return model.code_critic(codes) + added

    noise = draws.normal[0].clamp(-2, 2) * c.input_noise if c.input_noise else 0
    image = looked_at(model, draws, shown.image)
    codes, prior = coded(model, image + noise), c.sigma * draws.prior[0]
    error = squared_distance(meant(model, codes), image)
    penalty = imq_mmd(codes, prior, c.sigma**2) if c.penalty == "mmd" else minus_log(logits(codes))
    loss = c.reconstruction_weight * error + c.penalty_weight * penalty
    agree(model, turn, {"encoder": loss, "decoder": loss})
    close(turn.logs["squared error"], error)
    close(turn.logs["penalty"], penalty)
    assert len(draws.prior) == 1
    assert len(draws.normal) == bool(c.input_noise)
    if c.penalty == "mmd":
        assert next(step, None) is None
        return
    turn = next(step)  # with the codes that the encoder gave before it moved
    on_prior, on_codes = logits(prior), logits(codes.detach())
    agree(model, turn, {"code_critic": minus_log(on_prior) + minus_log_of_not(on_codes)}, untouched=("encoder", "decoder"))
    close(turn.logs["right"], share_right(on_prior, on_codes))
    assert next(step, None) is None


def test_wae_first_teaches_the_encoder_the_prior_s_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made("wae", monkeypatch, sigma=2.0, pretrain=0.25, components=False)
    moments, main = model.stages()
    assert moments == Stage("codes to the prior's moments", model.moment_turns, ("encoder",), share=0.25, samples=False)
    fit = model.fit_components
    assert main == Stage("Wasserstein auto-encoder", model.turns, ("encoder", "decoder", "code_critic"), share=0.75, prepare=fit)
    shown = batch()
    (turn,) = moments.turns(shown, Clock(0))
    codes, prior = model.encoder(shown.image + 0.01 * draws.normal[0].clamp(-2, 2)), 2 * draws.prior[0]

    def covariance(points: Tensor) -> Tensor:
        centred = points - points.mean(0)
        return sum(torch.outer(row, row) for row in centred) / (len(points) - 1)

    first = ((codes.mean(0) - prior.mean(0)) ** 2).mean()
    second = ((covariance(codes) - covariance(prior)) ** 2).mean()
    agree(model, turn, {"encoder": first + second}, untouched=("decoder", "code_critic"))


@pytest.mark.parametrize("options", [{"components": False, "pretrain": 0.0}, {"pretrain": 0.25}], ids=str)
def test_wae_without_pretraining_has_one_stage_and_without_adversary_two_players(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Principal components have the prior's moments already."""
    model, _ = made("wae", monkeypatch, penalty="mmd", **options)
    (stage,) = model.stages()
    assert stage == Stage("Wasserstein auto-encoder", model.turns, ("encoder", "decoder"), 1 - options["pretrain"], model.fit_components)


def test_wae_samples_with_the_prior_s_deviation(monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made("wae", monkeypatch, sigma=3.0)
    model.eval()
    image, noise = items()["image"], torch.linspace(-2, 2, 24).view(6, 4)
    close(model.sample(noise), painted(model, 3 * noise))
    close(model.decode(noise), painted(model, noise))
    close(model.encode(image), coded(model, image))  # without noise
    assert not draws.normal


# ---- all three -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vae", "cvae", "wae"])
def test_every_step_draws_anew(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made(name, monkeypatch)
    for step in range(2):
        list(model.turns(batch(), Clock(step)))
    for drawn in (draws.normal, draws.prior):
        assert all(not torch.equal(before, after) for before, after in pairwise(drawn))
    assert len(draws.normal) == 2
