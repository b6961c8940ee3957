"""Who plays, with what: the optimizers that the papers name, and which modules move together."""

from __future__ import annotations

from typing import Any

import pytest
from formulas import made

from models.base import Player, Stage

GAN = {"optimizer": "adam", "betas": (0.5, 0.999)}
WAE = GAN
LATENT = {"optimizer": "adam", "betas": (0.0, 0.99)}


@pytest.mark.parametrize(
    ("name", "options", "players"),
    [
        ("vae", {"lr": 0.25}, {"autoencoder": ("encoder log_variance decoder", {"optimizer": "adam", "betas": (0.9, 0.999), "lr": 0.25})}),
        ("vae", {"optimizer": "adagrad"}, {"autoencoder": ("encoder log_variance decoder", {"optimizer": "adagrad"})}),
        ("cvae", {}, {"autoencoder": ("encoder heads decoder", {"optimizer": "adam", "betas": (0.9, 0.999)})}),
        (
            "wae",
            {"lr": 0.25, "critic_lr": 0.5},
            {
                "encoder": ("encoder", WAE | {"lr": 0.25}),
                "decoder": ("decoder", WAE | {"lr": 0.25}),
                "code_critic": ("code_critic", WAE | {"lr": 0.5}),
            },
        ),
        (
            "aegan",
            {"lr": 0.25, "latent_lr": 0.5, "image_lr": 0.125, "image_weight": 1.0},
            {
                "encoder": ("encoder", {"betas": (0.9, 0.999), "lr": 0.25, "warm_up": 100}),
                "decoder": ("decoder", {"betas": (0.9, 0.999), "lr": 0.25, "warm_up": 100}),
                "code_critic": ("code_critic", LATENT | {"lr": 0.5}),
                "generator": ("generator", LATENT | {"lr": 0.5}),
                "image_critic": ("image_critic", {"betas": (0.5, 0.99), "lr": 0.125}),
            },
        ),
        ("dcgan", {"weight_decay": 0.5}, {p: (p, GAN | {"weight_decay": 0.5}) for p in ("discriminator", "generator")}),
        ("gan", {}, {p: (p, GAN) for p in ("discriminator", "generator")}),
        ("bigan", {"weight_decay": 0.5}, {p: (p, GAN | {"weight_decay": 0.5}) for p in ("discriminator", "encoder", "generator")}),
        (
            "gan",
            {"optimizer": "sgd", "momentum": 0.7},
            {p: (p, {"optimizer": "sgd", "momentum": 0.7}) for p in ("discriminator", "generator")},
        ),
        ("cgan", {}, {"discriminator": ("discriminator logit projection", GAN), "generator": ("generator", GAN)}),
        (
            "wgan",
            {"weight_clip": 0.25},
            {
                "critic": ("critic", {"optimizer": "rmsprop", "weight_clip": 0.25, "momentum": 0.0}),
                "generator": ("generator", {"optimizer": "rmsprop", "weight_clip": None, "momentum": 0.0}),
            },
        ),
        (
            "wgan-gp",
            {"beta1": 0.25},
            {p: (p, {"optimizer": "adam", "betas": (0.25, 0.9), "weight_clip": None}) for p in ("critic", "generator")},
        ),
        (
            "cvae-gan",
            {},
            {
                "classifier": ("classifier class_logits", GAN),
                "discriminator": ("discriminator logit", GAN),
                "generator": ("generator", GAN),
                "encoder": ("encoder heads", GAN),
            },
        ),
        (
            "classifier",
            {"lr": 0.25, "weight_decay": 0.125},
            {
                "classifier": (
                    "encoder head",
                    {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.125, "schedule": "linear", "lr": 0.25},
                )
            },
        ),
    ],
    ids=str,
)
def test_players(
    name: str, options: dict[str, Any], players: dict[str, tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = made(name, monkeypatch, **options)
    found: dict[str, Player] = model.players()
    assert list(found) == list(players)
    for player, (modules, settings) in players.items():
        assert [id(m) for m in found[player].modules] == [id(model.get_submodule(m)) for m in modules.split()]
        assert {key: getattr(found[player], key) for key in settings} == settings
        assert name == "classifier" or found[player].schedule == model.config.schedule


@pytest.mark.parametrize(
    ("name", "generating"),
    [
        ("vae", "encoder decoder"),
        ("cvae", "encoder heads decoder"),
        ("wae", "encoder decoder"),
        ("aegan", "generator"),
        ("gan", "generator"),
        ("bigan", "encoder generator"),
        ("dcgan", "generator"),
        ("cgan", "generator"),
        ("wgan", "generator"),
        ("wgan-gp", "generator"),
        ("cvae-gan", "encoder heads generator"),
        ("classifier", "encoder head"),
    ],
)
def test_what_generates_is_averaged(name: str, generating: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = made(name, monkeypatch)
    assert list(model.averaged) == generating.split()
    if name != "classifier":
        assert model.noise_shape == (4,)


@pytest.mark.parametrize(
    ("name", "title", "players"),
    [
        ("vae", "variational auto-encoder", "autoencoder"),
        ("cvae", "conditional variational auto-encoder", "autoencoder"),
        ("wae", "Wasserstein auto-encoder", "encoder decoder code_critic"),
        ("gan", "adversarial", "discriminator generator"),
        ("bigan", "adversarial", "discriminator encoder generator"),
        ("dcgan", "adversarial", "discriminator generator"),
        ("cgan", "adversarial", "discriminator generator"),
        ("wgan", "adversarial", "critic generator"),
        ("wgan-gp", "adversarial", "critic generator"),
        ("cvae-gan", "four players", "classifier discriminator generator encoder"),
        ("classifier", "classification", "classifier"),
    ],
)
def test_the_main_stage_trains_all_players_and_needs_no_preparation_but_components(
    name: str, title: str, players: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = made(name, monkeypatch)
    stage = model.stages()[-1]
    prepare = getattr(model, "fit_components", None)
    assert stage == Stage(title, model.turns, tuple(players.split()), share=1 - getattr(model.config, "pretrain", 0), prepare=prepare)
    assert set(stage.players) == set(model.players())
