"""What every model of the zoo must be. A new model is tested here without a line of its own: all tests go through the registry."""

from __future__ import annotations

import ast
import dataclasses
import json
import shutil
import traceback
import typing
from collections.abc import Iterable, Iterator
from functools import lru_cache
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import support
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from models.base import (
    Classifies,
    Completes,
    DataSpec,
    Encodes,
    Field,
    LatentModel,
    Maps,
    Mixes,
    Samples,
    Translates,
    TranslatesBack,
    Validates,
)
from models.capabilities import complete
from models.capabilities.ask import Capability, ask, evaluating
from models.capabilities.reconstruct import reconstructions
from models.capabilities.sample import draw
from models.capabilities.told import Told, condition_of, in_turn
from models.config import RunConfig, check, fields_of, to_json
from models.data.batches import Batches, spec_of, to_float
from models.device import compile_networks, settle
from models.errors import UserError
from models.randomness import seed_torch
from models.registry import MODELS, model_class
from models.training import checkpoint, events, loop, observers
from models.training.turn import Mover
from models.zoo.bigan import BiGAN

NAMES = sorted(MODELS.entries())
DEVICE = torch.device(support.DEVICE)
SIZES = [(1, 28, 28), (3, 64, 64), (1, 20, 36), (3, 19, 17), (1, 8, 8)]  # channels, height, width
BATCH, TOTAL = 8, 96


# ---- small instances -----------------------------------------------------------------------------------------------------------------


@lru_cache
def variants(name: str) -> dict[str, dict[str, Any]]:
    """The default, every preset, and every choice of every option that offers choices, all of them tiny."""
    cls = model_class(name)
    found: dict[str, dict[str, Any]] = {"default": {}}
    for preset, settings in cls.presets.items():
        if settings.options:
            found[preset] = dict(settings.options)
    for field in dataclasses.fields(cls.Config):
        annotation = fields_of(cls.Config)[field.name]
        choices = typing.get_args(annotation) if typing.get_origin(annotation) is Literal else (True, False) if annotation is bool else ()
        for choice in choices:
            if choice != field.default:
                found[f"{field.name}={choice}"] = {field.name: choice}
    return found


VARIANTS = [(name, variant) for name in NAMES for variant in variants(name)]
FULL = [(name, variant) for name, variant in VARIANTS if "=" not in variant]  # the default and the presets
PRESETS = [(name, preset) for name in NAMES for preset in model_class(name).presets]


def job(
    run: Path, name: str, chosen: dict[str, Any], shape: tuple[int, int, int] = (1, 16, 16), resume: bool = False, **changes: Any
) -> loop.Job:
    """A run of 96 images in 12 steps on tiny data with labels of every kind, and 11 held-out images of the same kind.

    `changes` are fields of RunConfig, `fused`, or `count`.
    """
    fused, count = changes.pop("fused", True), changes.pop("count", 20)
    data = support.image_data(count, shape[1], shape[2], shape[0])
    options = check(model_class(name).Config, support.small(name, **chosen), "test")
    data = support.as_asked(name, options, data)
    settings = {"images": TOTAL, "batch": BATCH, "log_every": 16, "sample_every": 1000, "save_every": 1000, "average_images": 32, **changes}
    config = RunConfig(model=name, data="tiny", options=dataclasses.asdict(options), **settings)
    seed_torch(DEVICE, config.seed, "init")
    others = support.further(name, data)
    model = support.built(name, options, spec_of(data, others)).to(DEVICE, memory_format=torch.channels_last)
    settle(DEVICE)
    more: dict[str, Any] = {}
    if resume:
        header, tensors, _ = checkpoint.newest_valid(run)
        checkpoint.load_state(model, checkpoint.part(tensors, "model"))
        more = {"start": header, "tensors": tensors}
    held_out = Batches(support.image_data(11, shape[1], shape[2], shape[0], seed=1), DEVICE) if isinstance(model, Validates) else None
    watching = observers.usual(config, model, batches := Batches(data, DEVICE, others), run, held_out)
    return loop.Job(config, model, batches, data.fingerprint(), run, DEVICE, fused=fused, observers=watching, **more)


def refused(error: UserError) -> None:
    pytest.skip(f"the model refuses this combination of options: {error}")


# ---- configuration -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_file_describes_itself(name: str) -> None:
    entry = MODELS.find(name)
    assert entry.summary.endswith((".", ":")) or ":" in entry.summary
    options = entry.options()
    assert [o.name for o in options] == [f.name for f in dataclasses.fields(model_class(name).Config)]
    for option in options:
        assert option.default, f"{option.name} has no default"
        assert option.help, f"{option.name} has no trailing comment"


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_config_survives_json(name: str, preset: str) -> None:
    cls = model_class(name).Config
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    for config in (cls(), check(cls, model_class(name).presets[preset].options, "preset")):
        assert check(cls, json.loads(to_json(config)), "JSON") == config


@pytest.mark.parametrize("name", NAMES)
def test_has_the_three_presets(name: str) -> None:
    assert {"quick", "default", "paper"} <= set(model_class(name).presets)


@pytest.mark.parametrize(("name", "preset"), PRESETS)
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 64, 64)], ids=str)
def test_preset_builds(name: str, preset: str, shape: tuple[int, int, int]) -> None:
    cls, settings = model_class(name), model_class(name).presets[preset]
    check(RunConfig, {"model": name, "data": "x", "images": settings.images, "batch": settings.batch}, "preset")
    with torch.device("meta"):
        model = support.built(name, check(cls.Config, settings.options, "preset"), support.spec_for(name, spec_like(shape)))
    assert model.players()
    assert sum(p.numel() for p in model.parameters()) > 1000


def spec_like(shape: tuple[int, int, int]) -> DataSpec:
    spec = spec_of(support.image_data(6))
    return dataclasses.replace(spec, fields={**spec.fields, "image": Field("image", shape)})


# ---- training ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_every_parameter_has_one_player_and_moves_and_nothing_frozen_does(
    name: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One short run with unfused optimizers, in which torch notices a loss that was computed before its parameters moved."""
    try:
        made = job(tmp_path, name, variants(name)[variant], fused=False)
    except UserError as error:
        refused(error)
    model, moved = made.model, set()
    apply = Mover.apply
    monkeypatch.setattr(Mover, "apply", lambda self, *a: moved.update(now := apply(self, *a)) or now)

    owners: dict[int, list[str]] = {}
    for player, settings in model.players().items():
        for parameter in settings.parameters():
            owners.setdefault(id(parameter), []).append(player)
    for key, parameter in model.named_parameters():
        assert len(owners.get(id(parameter), [])) == (1 if parameter.requires_grad else 0), (
            f"{key}: players {owners.get(id(parameter), [])}"
        )

    frozen: dict[str, torch.Tensor] = {}
    played: set[str] = set()
    for event in loop.train(made):
        if isinstance(event, (events.StageStarted, events.Finished)):
            for key, value in frozen.items():
                assert torch.equal(value, model.state_dict()[key]), f"{key} changed in a stage that it does not play in"
        if isinstance(event, events.StageStarted):
            stage = model.stages()[event.number - 1]
            assert stage.name == event.stage
            played |= set(stage.players)
            frozen = frozen_state(model, stage.players)
        if isinstance(event, events.Logged):
            assert event.losses
            assert np.isfinite(list(event.losses.values())).all()
    assert played == set(model.players())
    assert not [key for key, p in model.named_parameters() if p.requires_grad and id(p) not in moved]


def frozen_state(model: LatentModel, players: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Copies of the parameters and buffers of all modules that belong to players that do not play."""
    idle = [m for name, player in model.players().items() if name not in players for m in player.modules]
    ids = {id(t) for module in idle for t in (*module.parameters(), *module.buffers())}
    named = (*model.named_parameters(), *model.named_buffers())
    return {key: t.detach().clone() for key, t in named if id(t) in ids}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_trains_and_generates_at_any_size(name: str, shape: tuple[int, int, int], tmp_path: Path) -> None:
    made = job(tmp_path, name, {}, shape, images=32, count=16)
    list(loop.train(made))
    assert_capable(made.model, made.batches)


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 19, 33)], ids=str)
def test_capabilities(name: str, variant: str, shape: tuple[int, int, int]) -> None:
    try:
        made = job(Path("unused"), name, variants(name)[variant], shape)
    except UserError as error:
        refused(error)
    assert isinstance(made.model, (Encodes, Samples, Classifies, Translates, Completes))
    assert "image" in made.model.needs
    assert made.model.needs <= made.model.spec.provides
    if getattr(made.model, "components", None) is not None:
        made.model.eval().fit_components(made.batches.whole(8))
    with torch.no_grad():  # away from the start, at which some networks add nothing
        for parameter in made.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)).to(DEVICE))
    before = {key: value.clone() for key, value in made.model.state_dict().items()}
    assert_capable(made.model, made.batches)
    assert all(torch.equal(value, made.model.state_dict()[key]) for key, value in before.items()), "generating changed the model"


def assert_capable(model: LatentModel, batches: Batches) -> None:
    """Shape, range and dtype of all that the model can do; the same again; and the same whatever else is in the batch."""
    images, told = batches.data.rows("image", np.arange(5)), shown_by(model, batches, range(5))
    shown = None if told is None else told.values
    real = to_float(torch.from_numpy(images)).to(DEVICE)
    with evaluating(model):
        if isinstance(model, Encodes):
            code = ask(model, "encode", real, shown)
            assert_answers(model, "encode", real, shown)
            assert_images(assert_answers(model, "decode", code, shown), real.shape)
        if isinstance(model, Samples):
            noise = torch.randn(5, *model.noise_shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)
            turn = in_turn(model, range(5))
            condition = None if turn is None else turn.values.to(DEVICE)
            made = assert_answers(model, "sample", noise, condition)
            assert_images(made, real.shape)
            assert not torch.equal(made, ask(model, "sample", -noise, condition)), "the noise changes nothing"
            if isinstance(model, Maps):
                assert torch.equal(made, model.decode(model.map(noise)))
                assert model.code_mean.shape == model.map(noise).shape[1:]
        if isinstance(model, Mixes):
            assert_mixes(model, real)
        if isinstance(model, Classifies) and model.target:
            spec = model.spec
            answers = {"label": len(spec.classes), "attributes": len(spec.attributes), "identity": spec.identities}[model.target]
            features, logits = model.features(real), model.classify(real)
            assert features.ndim == 2
            assert (len(features), logits.shape) == (len(real), (len(real), answers))
            assert features.dtype == logits.dtype == torch.float32
            assert torch.equal(logits, model.classify(real))
            assert torch.equal(logits, model.logits(features))
            assert torch.allclose(logits[1:2], model.classify(real[1:2]), atol=1e-4)
        if isinstance(model, Translates):
            assert_translates(model, batches)
        if isinstance(model, Completes):
            assert_completes(model, real)
    if isinstance(model, Validates):
        assert_validates(model)
    if isinstance(model, Samples):
        many = np.concatenate(list(draw(model, 20, seed=3)))
        assert many.dtype == np.uint8
        assert np.array_equal(many[17:20], np.concatenate(list(draw(model, 3, seed=3, first=17))))
        assert np.array_equal(many, np.concatenate(list(draw(model, 20, seed=3, batch=16))))
    if isinstance(model, Encodes):
        again, error = reconstructions(model, images, told)
        assert again.shape == images.shape
        assert error.shape == (len(images),)
        assert np.array_equal(again[2:3], reconstructions(model, images[2:3], None if told is None else told[2:3])[0])


def shown_by(model: LatentModel, batches: Batches, items: Iterable[int]) -> Told | None:
    """What the data say that these items show, for a model that has to be told."""
    kind = condition_of(model)
    return Told(kind, model.spec, getattr(batches.at(list(items)), kind)) if kind else None


def assert_answers(model: LatentModel, capability: Capability, given: torch.Tensor, told: torch.Tensor | None) -> torch.Tensor:
    """What one method makes of what it is given: the same again and in any company; told otherwise, another; told softly, the same."""
    made = ask(model, capability, given, told)
    assert torch.equal(made, ask(model, capability, given, told))
    assert torch.allclose(made[1:2], ask(model, capability, given[1:2], None if told is None else told[1:2]), atol=1e-4)
    if told is None or condition_of(model) not in signature(getattr(model, capability)).parameters:
        return made
    other = 1 - told if told.is_floating_point() else (told + 1) % 3
    assert not torch.equal(made, ask(model, capability, given, other)), "the condition changes nothing"
    count = {"label": len(model.spec.classes), "identity": model.spec.identities}.get(str(condition_of(model)))
    shares = told if count is None else torch.nn.functional.one_hot(told, count).float()
    assert torch.allclose(made, ask(model, capability, given, shares), atol=1e-4)
    between = ask(model, capability, given, torch.lerp(shares, shares.flip(0), 0.5))
    assert (between.shape, between.dtype) == (made.shape, made.dtype)
    return made


def assert_mixes(model: LatentModel, real: torch.Tensor) -> None:
    """None of the other code's layers: the one; all of them: the other; a part of them: another image than the one."""
    assert isinstance(model, Mixes)
    one, other = model.encode(real), model.encode(real.flip(0))
    layers = [layer for group in model.layer_groups.values() for layer in group]
    assert sorted(layers) == list(range(len(layers)))
    assert torch.equal(model.mix(one, other, []), model.decode(one))
    assert torch.equal(model.mix(one, other, layers), model.decode(other))
    made = [model.mix(one, other, group) for group in model.layer_groups.values()]
    for image in made:
        assert_images(image, real.shape)
    assert not torch.equal(made[0], model.decode(one))  # the layers of other groups may not have been trained yet


def assert_translates(model: LatentModel, batches: Batches) -> None:
    """All ways: images of the other side's shape, the same again and in any company; another noise makes another."""
    assert isinstance(model, Translates)
    ways = [("translate", batches.data, model.translation_noise)]
    if isinstance(model, TranslatesBack):
        ways.append(("translate_back", batches.others[model.sources[1]], model.return_noise))
    for side, data, shape in ways:
        real = to_float(torch.from_numpy(data.rows("image", np.arange(5)))).to(DEVICE)
        noise = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)
        way = getattr(model, side)
        made = way(real, noise)
        assert_images(made, torch.Size((5, *model.gives(side).shape)))
        assert torch.equal(made, way(real, noise))
        assert torch.allclose(made[1:2], way(real[1:2], noise[1:2]), atol=1e-4)
        assert 0 in shape or not torch.equal(made, way(real, -noise)), "the noise changes nothing"


def assert_completes(model: LatentModel, real: torch.Tensor) -> None:
    """What is known stays, what is not is of no account; the same again and in any company; another noise makes another."""
    assert isinstance(model, Completes)
    hole = torch.from_numpy(complete.learned_holes(model, range(5), 0)).unsqueeze(1).float().to(DEVICE)
    noise = torch.randn(5, *model.completion_noise, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    made = model.complete(real, hole, noise)
    assert_images(made, real.shape)
    assert torch.equal(made * (1 - hole), real.clamp(-1, 1) * (1 - hole))
    assert torch.equal(made, model.complete(torch.where(hole > 0, -real, real), hole, noise)), "it saw what is in the hole"
    assert torch.allclose(made[1:2], model.complete(real[1:2], hole[1:2], noise[1:2]), atol=1e-4)
    assert not torch.equal(made, model.complete(real.flip(0) * (1 - hole) + real * hole, hole, noise)), "what is known changes nothing"
    assert 0 in model.completion_noise or not torch.equal(made, model.complete(real, hole, -noise)), "the noise changes nothing"


def assert_validates(model: LatentModel) -> None:
    """Numbers that are the same again, whatever the batches, and no draw from torch's generator."""
    assert isinstance(model, Validates)
    height, width = model.spec.size
    held_out = Batches(support.image_data(11, height, width, model.spec.channels, seed=1), DEVICE)
    before = torch.get_rng_state()
    with evaluating(model):
        found, again = (model.validate(held_out.in_order(batch)) for batch in (11, 4))
    assert torch.equal(before, torch.get_rng_state()), "validating draws from the generator"
    assert found
    assert np.isfinite(list(found.values())).all()
    assert again == pytest.approx(found, abs=1e-4)


def assert_images(made: torch.Tensor, shape: torch.Size) -> None:
    assert made.shape == shape
    assert made.dtype == torch.float32
    assert -1 <= float(made.min()) <= float(made.max()) <= 1


COMPILED = [(name, {}) for name in NAMES] + [("aegan", {"penalty": "gradient"}), ("wgan-gp", {"classes": True, "generator_batches": 2})]


@pytest.mark.parametrize(("name", "chosen"), COMPILED, ids=lambda value: value if isinstance(value, str) else "-".join(value) or "default")
def test_compiled_networks_train_as_others_do(name: str, chosen: dict[str, Any], tmp_path: Path) -> None:
    """Gradient penalties too, which take second derivatives. (`aot_eager` traces as any backend does and needs no C++ compiler.)"""
    torch._dynamo.reset()  # what other models have compiled counts towards a limit
    weights = []
    for kind in ("plain", "compiled"):
        made = job(tmp_path / kind, name, {"critic_steps": 2, **chosen} if name.startswith("wgan") else chosen, images=4 * BATCH)
        if kind == "compiled":
            compile_networks(made.model, DEVICE, backend="aot_eager")
        list(loop.train(made))
        weights.append(made.model.state_dict())
    for key, value in weights[0].items():
        assert torch.allclose(value, weights[1][key], atol=3e-4), key  # a tenth of a learning rate; rounding may turn a tiny slope round


WAITS = {"_local_scalar_dense", "nonzero", "bincount", "masked_select", "unique", "_unique2"}  # for what a GPU has not computed yet


class Watch(TorchDispatchMode):
    """Notes the operations that a GPU would be waited for."""

    def __init__(self, waited: list[str]) -> None:
        super().__init__()
        self.waited = waited

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in WAITS or masks:
            stack = "".join(traceback.format_stack(limit=14))
            if "/torch/optim/" not in stack:  # Adagrad's counters of steps always lie on the CPU
                self.waited.append(f"{name} in {stack}")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "variant"), FULL)
def test_a_step_waits_for_nothing(name: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that is read on the host, or a shape that depends on numbers, would make every step wait for the GPU."""
    waited: list[str] = []
    step = loop._Trainer._step

    def watched(trainer: Any, *words: Any) -> None:
        with Watch(waited):
            step(trainer, *words)

    monkeypatch.setattr(loop._Trainer, "_step", watched)
    list(loop.train(job(tmp_path / "run", name, variants(name)[variant])))
    assert not waited, waited[0]


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_trains_in_bf16(name: str, variant: str, tmp_path: Path) -> None:
    """Where networks compute in bfloat16, as on a GPU; weights and state stay what they are."""
    try:
        made = job(tmp_path / "run", name, variants(name)[variant], precision="bf16", images=2 * BATCH)
    except UserError as error:
        refused(error)
    kinds = {key: value.dtype for key, value in made.model.state_dict().items()}
    logged = [event for event in loop.train(made) if isinstance(event, events.Logged)]
    assert logged
    assert {key: value.dtype for key, value in made.model.state_dict().items()} == kinds


@pytest.mark.parametrize("name", [name for name in NAMES if not support.required_parts(name)])  # what others make, their parts make
def test_overfits_one_batch(name: str, tmp_path: Path) -> None:
    """500 steps on eight images: what the model makes of them comes much nearer to them.

    How near samples come is a matter of luck, so less is asked of these: what a seed decides, rounding may on another machine.
    """
    options = {f.name for f in dataclasses.fields(model_class(name).Config)}
    slow = name == "alae"  # whose weights, equalised, move by no more than the rate in a step
    faster = {key: value for key, value in (("lr", 2e-2 if slow else 5e-3), ("critic_steps", 1), ("iterations", 2)) if key in options}
    images = (1500 if slow else 500) * BATCH
    made = job(tmp_path, name, faster, count=BATCH, images=images, log_every=10**6, average_images=0)
    before = distance(made.model, made.batches)
    list(loop.train(made))
    assert distance(made.model, made.batches) < (0.5 if compares_images(made.model) else 0.75) * before


def compares_images(model: LatentModel) -> bool:
    """Whether the model learns to answer with images near to given ones, or with classes, and not by a game or in codes alone."""
    return isinstance(model, (Completes, Encodes, Classifies)) and not isinstance(model, (Maps, BiGAN))


def distance(model: LatentModel, batches: Batches) -> float:
    """Mean squared error of the reconstructions; from each sample to the nearest image for models without an encoder, for those that
    compare codes instead of images, and for those that compare none (a BiGAN's reconstructions of eight images are a matter of luck).

    For models that classify, the cross-entropy of their answers; for those that complete, the error of their completions.
    """
    images = batches.data.rows("image", np.arange(len(batches)))
    if isinstance(model, Completes):
        holes = complete.learned_holes(model, range(len(images)), 0)
        made = complete.through(model, images, holes, complete.noises(model, 1, 0))[:, 0]
        return float((((made.astype(float) - images) / 255) ** 2).mean())
    if isinstance(model, Encodes) and compares_images(model):
        return float(reconstructions(model, images, shown_by(model, batches, range(len(images))))[1].mean())
    if isinstance(model, Classifies):
        [batch] = batches.in_order(len(batches))
        with evaluating(model):
            return float(torch.nn.functional.cross_entropy(model.classify(batch.image), getattr(batch, model.target)))
    made = np.concatenate(list(draw(model, 16, seed=0))).astype(float) / 255
    return float(((made[:, None] - images[None].astype(float) / 255) ** 2).mean((2, 3, 4)).min(1).mean())


# ---- checkpoints ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def every_step(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(model, variant) -> a finished run that has a checkpoint of every step."""

    @lru_cache
    def run(name: str, variant: str) -> Path:
        folder = tmp_path_factory.mktemp("every-step")
        list(loop.train(job(folder, name, variants(name)[variant], save_every=BATCH, sample_every=BATCH, keep=1000)))
        return folder

    return run


@pytest.mark.parametrize(("name", "variant"), FULL)
def test_B3_stop_and_resume_is_the_straight_run(name: str, variant: str, every_step: Any, tmp_path: Path) -> None:
    straight = every_step(name, variant)
    borders = checkpoint.read_header(support.newest(straight)).borders
    assert TOTAL <= borders[-1] <= TOTAL + BATCH  # of a run this short the least stage takes a batch that is not there
    points = {BATCH, TOTAL - BATCH} | {end + d for end in borders for d in (-BATCH, 0, BATCH)}
    for images in sorted(p for p in points if 0 < p < borders[-1]):
        run = tmp_path / str(images)
        (run / "checkpoints").mkdir(parents=True)
        shutil.copy(support.checkpoints(straight)[images], run / "checkpoints")
        shutil.copy(straight / "log.jsonl", run)
        made = job(run, name, variants(name)[variant], resume=True, sample_every=BATCH)
        assert made.start is not None
        assert made.start.images == images
        list(loop.train(made))
        support.assert_same_run(straight, run)


@pytest.mark.parametrize(("name", "variant"), FULL)
def test_B5_B6_watching_at_another_rhythm_changes_no_weight(name: str, variant: str, every_step: Any, tmp_path: Path) -> None:
    list(loop.train(job(tmp_path, name, variants(name)[variant], log_every=40, save_every=56, sample_every=10**6)))
    support.assert_same_tensors(support.newest(every_step(name, variant)), support.newest(tmp_path))


@pytest.mark.parametrize(("name", "variant"), FULL)
def test_saving_loading_and_saving_again_is_identical(name: str, variant: str, every_step: Any, tmp_path: Path) -> None:
    straight = every_step(name, variant)
    for images in (BATCH, TOTAL - BATCH):
        run = tmp_path / str(images)
        (run / "checkpoints").mkdir(parents=True)
        shutil.copy(support.checkpoints(straight)[images], run / "checkpoints")
        made = job(run, name, variants(name)[variant], resume=True)
        assert made.start is not None
        assert made.tensors is not None
        trainer = loop._Trainer(made)
        stage = next(s for s in trainer.stages if s.name == made.start.stage)
        trainer.stage, trainer.mover = stage, Mover(made.model, stage.players)
        trainer.mover.load(checkpoint.part(made.tensors, "optim"))
        again = checkpoint.write(tmp_path / f"again-{images}.safetensors", trainer._header(), trainer._tensors())
        trainer.close()
        support.assert_same_tensors(support.checkpoints(straight)[images], again)
        assert checkpoint.read_header(again).stage == stage.name


@pytest.mark.parametrize("name", NAMES)
def test_A13_no_tied_tensors(name: str) -> None:
    """Two names for one tensor would be saved twice and restored as two."""
    state = job(Path("unused"), name, {}).model.state_dict()
    places: dict[int, str] = {}
    for key, value in state.items():
        assert value.numel() == 0 or places.setdefault(value.data_ptr(), key) == key, f"{key} is {places[value.data_ptr()]}"


# ---- the source ----------------------------------------------------------------------------------------------------------------------

FORBIDDEN = {
    "backward",
    "step",
    "zero_grad",
    "requires_grad_",
    "to",
    "cuda",
    "cpu",
    "autocast",
    "manual_seed",
    "all_reduce",
    "save",
    "load",
}


def breaches(source: str) -> Iterator[str]:
    """What a model file must not do: move, place, save or seed anything; print; yield inside a with."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Attribute) and function.attr in FORBIDDEN:
                yield f"line {node.lineno}: .{function.attr}("
            if isinstance(function, ast.Name) and function.id in ("print", "open"):
                yield f"line {node.lineno}: {function.id}("
        if isinstance(node, (ast.With, ast.AsyncWith)):
            for inner in ast.walk(node):
                if isinstance(inner, (ast.Yield, ast.YieldFrom)):
                    yield f"line {inner.lineno}: yield inside with"
        if isinstance(node, (ast.Assign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(t, ast.Attribute) and t.attr in ("requires_grad", "grad") for t in targets):
                yield f"line {node.lineno}: sets .{targets[0].attr}"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "line",
    [
        "loss.backward()",
        "x = image.to('cuda')",
        "self.net.requires_grad_(False)",
        "print(1)",
        "p.requires_grad = False",
        "with torch.no_grad():\n        yield 1",
        "with a:\n        if b:\n            yield from c",
    ],
)
def test_G6_breaches_are_seen(line: str) -> None:
    assert len(list(breaches(f"def turns(self, batch, step):\n    {line}\n"))) == 1


@pytest.mark.parametrize("name", NAMES)
def test_G6_model_file_only_says_what_to_minimise(name: str) -> None:
    assert list(breaches(MODELS.find(name).path.read_text(encoding="utf-8"))) == []
