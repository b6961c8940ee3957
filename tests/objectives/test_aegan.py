"""AEGAN: a plain auto-encoder, whitened codes that belong to their images, and the latent game, against formulas written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from formulas import SPEC, Draws, agree, batch, close, coded, items, made, minus_log, minus_log_of_not, painted, share_right, slopes, turns
from support import small
from torch import Tensor

from models.base import Clock, Stage
from models.config import check
from models.errors import UserError
from models.nets.flow import carried, guidance_for
from models.registry import model_class

DATA = items(40)
CHOSEN = [7, 31, 2, 39, 16, 0]  # a batch in no order


def prepared(monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Any, Draws]:
    """A model whose auto-encoder is done: frozen, in eval mode, all codes taken."""
    model, draws = made("aegan", monkeypatch, **options)
    model.encoder.eval(), model.decoder.eval()
    with torch.no_grad():
        model.prepare_codes([batch(DATA, list(range(n, min(n + 16, 40)))) for n in (0, 16, 32)])
    return model, draws


def codes_of(model: Any) -> np.ndarray:
    with torch.no_grad():
        return np.concatenate([coded(model, image.unsqueeze(0)).numpy() for image in DATA["image"]]).astype(np.float64)


def white(model: Any, codes: np.ndarray) -> Tensor:
    """Centred, and freed of the covariance of all codes: L^-1 (h - mean), where L L^T is the covariance."""
    factor = np.linalg.cholesky(np.cov(codes.T, bias=True) + 1e-6 * np.eye(codes.shape[1]))
    return torch.from_numpy(np.linalg.solve(factor, (codes - codes.mean(0)).T).T).float()


@pytest.mark.parametrize("components", [False, True])
def test_stage_one_minimises_the_mean_squared_error(components: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = made("aegan", monkeypatch, components=components)
    first, second = model.stages()
    players = ("encoder", "decoder")
    assert first == Stage("auto-encoder", model.autoencoder_turns, players, share=0.5, prepare=model.fit_components, samples=False)
    game = ("code_critic", "generator")
    assert second == Stage("latent GAN", model.latent_turns, game, share=0.5, prepare=model.prepare_codes, needs=frozenset(), batch=8)
    shown = batch()
    (turn,) = first.turns(shown, Clock(0))
    again = painted(model, coded(model, shown.image), bounded=not components)
    error = ((again - shown.image) ** 2).sum() / shown.image.numel()
    agree(model, turn, dict.fromkeys(players, error), untouched=("generator", "code_critic"))
    assert not draws.normal


def test_mirrored_images_and_their_codes_come_half_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = prepared(monkeypatch, augment="flip")
    assert model._codes.shape == (2, 40, 4)
    shown = batch(DATA, CHOSEN)
    with torch.no_grad():
        images = DATA["image"]
        codes = np.concatenate([coded(model, which).numpy() for which in (images, images.flip(3))]).astype(np.float64)
    ways = white(model, codes).view(2, 40, 4)[:, CHOSEN]
    found = torch.stack([model.real_codes(shown) for _ in range(60)])
    first, second = ((found - way).abs().amax(2) < 1e-3 for way in ways)
    assert bool((first | second).all())
    assert 0.3 < float(first.float().mean()) < 0.7
    (turn,) = model.stages()[0].turns(shown, Clock(0))
    flipped = draws.uniform[-1].view(-1, 1, 1, 1) >= 0.5
    image = torch.where(flipped, shown.image.flip(3), shown.image)
    error = ((painted(model, coded(model, image), bounded=False) - image) ** 2).mean()
    agree(model, turn, {"encoder": error, "decoder": error})


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_a_flow_is_asked_for_the_mean_velocity(guidance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """At (1 - t) noise + t code for t = sigmoid of a normal number: code - noise, squared error; sampled by Heun's method."""
    model, draws = prepared(monkeypatch, prior="flow", steps=3, guidance=guidance)
    stage = model.stages()[1]
    assert stage == Stage("flow", model.flow_turns, ("velocity",), share=0.5, prepare=model.prepare_codes, needs=frozenset(), batch=8)
    assert len(model.stages()) == 2
    real = white(model, codes_of(model))[CHOSEN]
    (turn,) = stage.turns(batch(DATA, CHOSEN), Clock(0))
    noise, time = draws.normal
    t = 1 / (1 + torch.exp(-time))
    points = torch.stack([(1 - t[n]) * noise[n] + t[n] * real[n] for n in range(6)])
    error = ((model.velocity(points, t) - (real - noise)) ** 2).mean()
    agree(model, turn, {"velocity": error}, untouched=("encoder", "decoder"))

    def slope(x: Tensor, time: float) -> Tensor:
        # Of independent e and code from N(0, I): E(code - e | x) = x cov(code - e, x) / var(x) for x = (1 - time) e + time code.
        gaussian = x * (time * 1 - (1 - time) * 1) / (time**2 + (1 - time) ** 2)
        return gaussian + guidance * (model.velocity(x, torch.full((6,), time)) - gaussian)

    x = noise
    for now in (0, 1 / 3):
        there = x + slope(x, now) / 3
        x = x + (slope(x, now) + slope(there, now + 1 / 3)) / 6
    x = x + slope(x, 2 / 3) / 3
    close(model.prior_code(noise), x)


def test_a_flow_is_exaggerated_until_its_draws_are_as_wide_as_the_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = prepared(monkeypatch, prior="flow", guidance=0.0)
    measure = model.stages()[2]
    assert (measure.name, measure.players, measure.share) == ("guidance", (), 0)
    measure.prepare([])
    assert float(model.exaggeration) == pytest.approx(guidance_for(model.velocity, torch.randn(4096, 4), model.config.steps), abs=0.1)
    noise = torch.randn(6, 4)
    close(model.prior_code(noise), carried(model.velocity, noise, model.config.steps, guidance=float(model.exaggeration)))


@pytest.mark.parametrize(("spread", "guidance"), [(0.5, 1.0), (math.exp(0.5), 2.5), (9.0, 4.0)])
def test_the_guidance_that_gives_a_spread(spread: float, guidance: float) -> None:
    """With dx/dt = what keeps N(0, I) as it is + w 0.2 x, noise grows by exp(0.2 w); w is from 1 to 4."""

    def velocity(x: Tensor, time: Tensor, told: Tensor | None = None) -> Tensor:
        return x * (2 * time - 1) / (time**2 + (1 - time) ** 2) + 0.2 * x

    noise = torch.randn(512, 4)
    noise /= noise.square().mean().sqrt()
    assert guidance_for(velocity, noise, 100, spread) == pytest.approx(guidance, abs=0.04)


def test_sharpening_pays_the_decoder_for_its_error_and_for_looking_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a batch is reconstructed, as many codes of the prior are decoded; the encoder and the prior stay."""
    model, _ = prepared(monkeypatch, sharpen=0.25, share=0.25, sharp_weight=0.3, sharp_augment="none", sharp_batch=6)
    first, second, third = model.stages()
    assert (first.share, second.share, third.share) == (0.25, 0.5, 0.25)
    assert third.players == ("sharp_critic", "decoder")
    assert third.batch == 6
    assert third.settings["decoder"]["steady"]
    assert set(model.averaged) == {"generator", "decoder"}
    with torch.no_grad():
        third.prepare([])
    assert model._drawn.shape[1] == 4
    asked: list[Tensor] = []
    randint = torch.randint
    monkeypatch.setattr(torch, "randint", lambda *args, **more: asked.append(randint(*args, **more)) or asked[-1])
    model.sharp_critic.eval()  # its spectral norms would move on at every call
    shown = batch(DATA, CHOSEN)
    step = turns(model, third.turns(shown, Clock(0)))
    turn = next(step)
    (drawn,) = asked
    assert len(drawn) == 3
    kept = shown.image[[0, 2, 4]]

    def fakes(bounded: bool) -> Tensor:
        return painted(model, torch.cat([coded(model, kept).detach(), model._drawn[drawn]]), bounded=bounded)

    on_real, on_fake = model.sharp_critic(shown.image), model.sharp_critic(fakes(True).detach())
    judged = minus_log(on_real) + minus_log_of_not(on_fake)
    agree(model, turn, {"sharp_critic": judged}, untouched=("encoder", "decoder", "generator"))
    close(turn.logs["right"], share_right(on_real, on_fake))
    turn = next(step)
    error = ((fakes(False)[:3] - kept) ** 2).mean() / 4  # black 0, white 1
    agree(model, turn, {"decoder": error + 0.3 * minus_log(model.sharp_critic(fakes(True)))}, untouched=("encoder", "generator"))
    close(turn.logs["squared error"], error)
    assert next(step, None) is None


def test_a_prior_for_which_nothing_of_the_run_is_left_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"share 0\.75 and sharpen 0\.25 leave nothing of the run for the prior: --set share"):
        made("aegan", monkeypatch, share=0.75, sharpen=0.25)
    assert made("aegan", monkeypatch, share=0.75, sharpen=0.25, prior="gaussian")[0].stages()[1].share == 0


def test_around_another_run_s_auto_encoder_only_the_latent_game_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code length is the game's, and what it encodes and decodes with."""
    base, _ = made("vae", monkeypatch, latent=3)
    cls = model_class("aegan")
    model = cls(check(cls.Config, small("aegan"), "test"), SPEC, {"base": base.eval()})
    assert [stage.name for stage in model.stages()] == ["latent GAN"]
    assert model.latent == 3
    assert model.noise_shape == (3,)
    image, code = items()["image"], torch.randn(6, 3)
    close(model.encode(image), base.encode(image))
    close(model.decode(code), base.decode(code))


@pytest.mark.parametrize("step_number", [0, 1])
@pytest.mark.parametrize(
    "options",
    [
        {"penalty_every": 2, "penalty_weight": 5.0},
        {"penalty": "gradient", "penalty_every": 3, "penalty_weight": 0.5},
        {"penalty": "none"},
        {"penalty_every": 1, "image_weight": 0.5},
        {"penalty": "none", "image_weight": 2.0, "image_real": "data"},
        {"network": "mlp", "penalty_every": 4, "image_weight": 1.0},
    ],
    ids=str,
)
def test_stage_two_plays_for_the_codes_of_the_batch_s_images(
    options: dict[str, Any], step_number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D1 tells codes from G1's, D2 images decoded from them from real ones; G1 minimises -log D1 - weight log D2, through the decoder."""
    model, draws = prepared(monkeypatch, **options)
    c, codes = model.config, codes_of(model)
    assert model._codes.shape == (1, 40, 4)
    real = white(model, codes)[CHOSEN]
    step = turns(model, model.latent_turns(batch(DATA, CHOSEN), Clock(step_number)))
    turn = next(step)
    (noise,) = draws.prior
    frozen = ("encoder", "decoder")

    def made_code() -> Tensor:
        return model.generator(noise)

    def decoded(code: Tensor) -> Tensor:
        factor = torch.from_numpy(np.linalg.cholesky(np.cov(codes.T, bias=True) + 1e-6 * np.eye(4))).float()
        return painted(model, torch.from_numpy(codes.mean(0)).float() + torch.stack([factor @ row for row in code]))

    fake = made_code().detach()
    loss = minus_log(model.code_critic(real)) + minus_log_of_not(model.code_critic(fake))
    if c.penalty == "none" or step_number % c.penalty_every:
        assert not turn.logs
    else:
        if c.penalty == "r1":
            penalty = (slopes(model.code_critic, real) ** 2).mean() / 2
        else:
            (share,) = draws.uniform
            assert share.shape == (6, 1)
            penalty = ((slopes(model.code_critic, real + share * (fake - real)) - 1) ** 2).mean()
        loss = loss + c.penalty_weight * c.penalty_every * penalty
        close(turn.logs["penalty"], penalty)
    agree(model, turn, {"code_critic": loss}, untouched=("generator", *frozen))

    if c.image_weight:
        turn = next(step)
        true = DATA["image"][CHOSEN] if c.image_real == "data" else decoded(real).detach()
        judged = minus_log(model.image_critic(true)) + minus_log_of_not(model.image_critic(decoded(fake).detach()))
        agree(model, turn, {"image_critic": judged}, untouched=("generator", *frozen))

    turn = next(step)
    loss = minus_log(model.code_critic(made_code()))
    if c.image_weight:
        loss = loss + c.image_weight * minus_log(model.image_critic(decoded(made_code())))
    agree(model, turn, {"generator": loss})
    assert next(step, None) is None

    model.eval()
    close(model.sample(noise), decoded(made_code()))
    close(model.decode(fake), painted(model, fake))
    close(model.encode(DATA["image"][:3]), torch.from_numpy(codes[:3]).float())


def test_codes_are_read_without_images_unless_the_second_critic_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    players = ("code_critic", "generator", "image_critic")
    for real, needs in (("reconstruction", frozenset()), ("data", frozenset({"image"}))):
        model, _ = made("aegan", monkeypatch, image_weight=1.0, image_real=real, share=0.25)
        stage = model.stages()[1]
        assert (stage.needs, stage.players, stage.share) == (needs, players, 0.75)
        assert set(model.players()) == {"encoder", "decoder", *players}


@pytest.mark.parametrize("prior", ["gaussian", "diagonal"])
def test_a_fitted_gaussian_has_the_codes_moments(prior: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = prepared(monkeypatch, prior=prior)
    codes = codes_of(model)
    assert model.stages()[1] == Stage("fitted Gaussian", model.latent_turns, (), share=0, prepare=model.prepare_codes)
    assert set(model.players()) == {"encoder", "decoder"}
    assert not model.averaged
    assert not hasattr(model, "generator")
    noise = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0))
    drawn = model.code_from(model.prior_code(noise)).double().numpy()
    covariance = np.cov(codes.T, bias=True) * (np.eye(4) if prior == "diagonal" else 1)
    scale = model.code_scale.double().numpy()
    np.testing.assert_allclose(scale @ scale.T, covariance, atol=1e-4)
    np.testing.assert_allclose(drawn, codes.mean(0) + noise.double().numpy() @ scale.T, atol=1e-4)
    close(model.sample(noise[:2]), painted(model, torch.from_numpy(drawn[:2]).float()))
