"""Group H of the fault list and the whole journey on tiny data: what a user types, reads and finds."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from support import REPOSITORY, arguments, assert_same_tensors, newest, write_pictures
from typer.testing import CliRunner, Result

import models.zoo
from lgcli import display, render
from lgcli.app import app
from models import api
from models.capabilities import pictures as layouts
from models.config import EvaluationConfig, Help, RunConfig, as_assignments, check, extra, fields_of, flags_of, parse_assignments
from models.errors import ContractError
from models.registry import MODELS, Entry, model_class
from models.training import checkpoint, events

Runs = Callable[[str], Path]
HEAVY = ("torch", "torchvision", "numpy", "PIL", "safetensors", "scipy")
COMMANDS = {
    *(path.stem.replace("_", "-") for path in (REPOSITORY / "lgcli" / "commands").glob("*.py") if path.stem[0] != "_"),
    *("data", "data info", "data check", "data pack", "data cache"),
}


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own, so that what a command leaves by default lands there."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("LGM_DATA", raising=False)
    monkeypatch.delenv("LGM_DEBUG", raising=False)


@pytest.fixture
def vae(straight: Runs) -> Path:
    return straight("vae")


@pytest.fixture
def aegan(straight: Runs) -> Path:
    return straight("aegan")


def lgm(*words: object) -> Result:
    """`lgm WORDS` in this process. An exception that would be a traceback fails the test."""
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [str(word) for word in words], catch_exceptions=False)


def done(*words: object) -> str:
    """The stdout of a command that must succeed."""
    result = lgm(*words)
    assert result.exit_code == 0, result.output
    assert "error" not in result.stderr
    return result.stdout


def document(*words: object) -> Any:
    """The one JSON document that a command that must succeed prints on stdout: no NaN, nothing beside it."""
    return json.loads(done(*words), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def refused(*words: object) -> str:
    """The message of a command that must end as the user's mistake: on stderr, with a place and a fix, without a traceback."""
    result = lgm(*words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert re.fullmatch(r"error: .+\n  fix: .+\n(    .+\n)*", result.stderr), result.stderr
    return result.stderr


def misused(*words: object) -> str:
    """The same for what Typer itself finds: usage and a box on stderr. The box and its line breaks are taken off."""
    result = lgm(*words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Usage: ")
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())


def python(code: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own that finds this repository."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", "TERM": "dumb"}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def hashes(folder: Path) -> dict[str, str]:
    """Path -> hash of every file but the lock, which says who came last."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "run.lock")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


# ---- H1, H2: help, with and without torch --------------------------------------------------------------------------------------------


def test_H1_help_of_every_command_imports_nothing_heavy() -> None:
    made = python(f"""
        import contextlib, io, json, sys
        import typer
        from lgcli.app import app

        def paths(command, path=()):
            yield path
            for name, inner in getattr(command, "commands", {{}}).items():
                yield from paths(inner, (*path, name))

        shown = {{}}
        for path in paths(typer.main.get_command(app)):
            text = io.StringIO()
            with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
                app([*path, "--help"])
            shown[" ".join(path)] = text.getvalue()
        print(json.dumps({{"shown": shown, "heavy": sorted(set({HEAVY}) & set(sys.modules))}}))
    """)
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    assert set(found["shown"]) == COMMANDS | {""}
    assert all("Usage: " in text for text in found["shown"].values())
    assert found["heavy"] == []


def test_a_file_among_the_commands_is_a_command(tmp_path: Path) -> None:
    """Its name, its place in the help and its options come from the file, and from the fields of the configuration that it names."""
    (tmp_path / "paint_over.py").write_text(
        textwrap.dedent("""
        from typing import Any

        from lgcli import options as o
        from models.config import RunConfig

        PANEL = "Measure"


        @o.options_of(RunConfig, "images", "size", "compile")
        def paint_over(run: o.Run, *, json: o.Json = False, **settings: Any) -> None:
            '''Paint over it.'''
            print(run, json, settings)
        """)
    )
    code = f"import lgcli.commands; lgcli.commands.__path__.append({str(tmp_path)!r}); from lgcli.app import main; main()"

    def ask(*words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", "TERM": "dumb"}
        made = subprocess.run(
            [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        return made.stdout + made.stderr

    panels = re.split(r"─ ([A-Z][a-z ]+) ─", ask("--help"))
    assert panels[1::2] == ["Options", "Train", "Use a trained model", "Measure", "Look"]
    assert "paint-over   Paint over it." in panels[panels.index("Measure") + 1]
    assert ask("paint-over", "x") == "x False {}\n"
    given = {"images": 1_500_000, "size": (48, 64), "compile": False}
    assert ask("paint-over", "x", "--images", "1.5M", "--json", "--size", "64x48", "--no-compile") == f"x True {given}\n"
    assert [re.findall(r"--(?:images|size|compile|json)", ask("paint-over", "--help"))] == [["--images", "--size", "--compile", "--json"]]


@pytest.mark.parametrize(("command", "config"), [("train", RunConfig), ("fid", EvaluationConfig), ("evaluate", EvaluationConfig)])
def test_the_help_of_a_field_is_the_help_of_its_option(command: str, config: type) -> None:
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", done(command, "--help")).split())
    for name, annotation in fields_of(config).items():
        if told := extra(annotation, Help):
            assert all(flag in shown for flags in flags_of(name, annotation) for flag in flags.split("/"))
            assert told.about in shown, name
            assert f"[default: ({told.default})]" in shown or not told.default, name


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("lgm train ae", ["aegan"]),
        ("lgm train vae --data gl", ["glyphs"]),
        ("lgm train vae --data pho", ["photos/"]),
        ("lgm sample ru", ["runs/aegan", "runs/vae-glyphs"]),
        ("lgm sample runs/v", ["runs/vae-glyphs/"]),
        ("lgm compare runs/vae-glyphs runs/a", ["runs/aegan/"]),
        ("lgm data info mni", ["mnist"]),
    ],
)
def test_the_shell_completes_names(line: str, offered: list[str], tmp_path: Path) -> None:
    for name in ("vae-glyphs", "aegan"):
        (tmp_path / "runs" / name / "checkpoints").mkdir(parents=True)
    (tmp_path / "photos").mkdir()
    code = f"""
        import os, sys
        os.environ |= {{"_LGM_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": {line!r}}}
        sys.argv = ["lgm"]
        from lgcli.app import main

        try:
            main()
        finally:
            print("heavy:", sorted(set({HEAVY[:2]}) & set(sys.modules)))
    """
    made = python(code, tmp_path)
    assert made.stdout.endswith("heavy: []\n")
    assert all(f'"{name}"' in made.stdout for name in offered), made.stdout + made.stderr
    assert made.stdout.count('"') == 2 * len(offered)


def test_the_options_of_training_stand_in_groups() -> None:
    from lgcli.commands.train import GROUPS

    shown = done("train", "--help")
    titles = [title for title in re.findall(r"╭─ ([A-Z][\w ]+?) ─", shown) if title != "Arguments"]
    assert titles == ["Options", *GROUPS] or titles == [*GROUPS, "Options"] or set(titles) == {"Options", *GROUPS}
    listed = {title: shown.split(f"╭─ {title} ─")[1].split("╰")[0] for title in GROUPS}
    assert "--size" in listed["Data"] and "--held-out" in listed["Data"]
    assert "--set" in listed["The model"]
    assert "--precision" in listed["The machine"]
    rest = shown.split("╭─ Options ─")[1].split("╰")[0]
    assert re.findall(r"(--[a-z-]+)", rest) == ["--help"]  # every option has a group


def test_H1_listing_models_and_data_imports_nothing_heavy() -> None:
    made = python(f"""
        import contextlib, sys
        from lgcli.app import app

        for words in (["models"], ["models", "aegan"], ["models", "--json"], ["data"], ["--version"]):
            with contextlib.suppress(SystemExit):
                app(words)
        print("heavy:", sorted(set({HEAVY}) & set(sys.modules)))
    """)
    assert made.returncode == 0, made.stderr
    assert made.stdout.endswith("heavy: []\n")
    assert "glyphs" in made.stdout


def test_H1_help_answers_fast() -> None:
    """It computes less than half as long as `import torch` alone takes. (A number of seconds would be the machine's, not ours.)"""

    def computing(*words: str) -> float:
        seconds = []
        for _ in range(2):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *words], cwd=REPOSITORY, capture_output=True, text=True, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(seconds)

    assert "Usage: " in subprocess.run([sys.executable, "-m", "lgcli", "--help"], cwd=REPOSITORY, capture_output=True, text=True).stdout
    assert computing("-m", "lgcli", "--help") < computing("-c", "import torch") / 2


WITHOUT = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Without())
from lgcli.app import app
app({words})
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["--help"], "train"), (["models"], "aegan"), (["models", "aegan"], "--set KEY=VALUE"), (["train", "--help"], "--data")],
)
def test_H2_help_and_models_without_torch(words: list[str], expected: str) -> None:
    made = python(WITHOUT.format(missing=HEAVY, words=words))
    assert made.returncode == 0, made.stderr
    assert expected in made.stdout
    assert "Traceback" not in made.stderr


@pytest.mark.parametrize(("missing", "package"), [("torch", "torch"), ("PIL", "pillow"), ("safetensors", "safetensors")])
def test_H2_train_without_a_package_says_how_to_install_it(tmp_path: Path, missing: str, package: str) -> None:
    write_pictures(tmp_path / "data", 4)
    made = python(WITHOUT.format(missing=(missing,), words=["train", "vae", "--data", str(tmp_path / "data")]), tmp_path)
    assert made.returncode == 2
    assert f"error: {missing} is not installed" in made.stderr
    assert f"-m pip install {package}\n" in made.stderr
    assert "Traceback" not in made.stderr
    assert made.stdout == ""


# ---- H3 to H5: typing mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "place", "hint"),
    [
        (["models", "aegn"], "aegn", "did you mean 'aegan'?"),
        (["train", "zzz", "--data", "glyphs"], "zzz", "known: aegan, "),
        (["train", "aegna", "--data", "glyphs"], "aegna", "did you mean 'aegan'?"),
        (["train", "vae", "--data", "glyfs"], "glyfs", "did you mean 'glyphs'?"),
        (["train", "vae", "--data", "glyphs:tset"], "--data glyphs:tset", "did you mean 'test'?"),
        (["train", "vae", "--data", "glyphs", "--preset", "qick"], "--preset", "did you mean 'quick'?"),
        (["train", "vae", "--data", "glyphs", "--set", "latnet=3"], "'latnet': --set", "did you mean 'latent'?"),
        (["train", "vae", "--data", "glyphs", "--precision", "fp61"], "precision", "fp32, bf16"),
        (["train", "vae", "--data", "glyphs", "--fit", "corp"], "fit", "crop"),
        (["data", "info", "minst"], "minst", "did you mean 'mnist'?"),
        (["data", "check", "no/such/folder"], "no/such/folder", "name an existing folder"),
        (["sample", "no/such/run"], "no/such/run", "lgm train"),
        (["info", "no/such/run"], "no/such/run", "lgm train"),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, list) else None,
)
def test_H3_unknown_names_get_the_nearest_match(words: list[str], place: str, hint: str) -> None:
    message = refused(*words)
    assert place in message.partition("\n")[0]
    assert hint in message.partition("\n")[2]


def test_H3_unknown_ways_and_spaces(vae: Path) -> None:
    assert "did you mean 'slerp'?" in refused("interpolate", vae, "1", "2", "--path", "slurp")
    assert "use code or noise" in refused("interpolate", vae, "1", "2", "--space", "cod")


def test_H3_unknown_commands_and_flags() -> None:
    assert "tarin" in misused("tarin")
    assert "--latent" in misused("train", "vae", "--latent", "3")


def test_H3_nothing_is_left_by_a_mistake(pictures: Path) -> None:
    refused("train", "vae", "--data", pictures, "--batch", "8", "--set", "nosuch=1")
    refused("train", "vae", "--data", pictures, "--batch", "8", "--preset", "nosuch")
    refused("train", "vae", "--data", pictures, "--batch", "8", "--device", "nosuch")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("assignment", "place", "fix"),
    [
        ("lr=abc", "lr=abc is not allowed: --set lr", "lr takes float"),
        ("lr=nan", "--set lr", "lr takes float"),
        ("lr=inf", "--set lr", "lr takes float"),
        ("lr=11", "--set lr", "lr takes float, 0 to 10"),
        ("latent=-3", "latent=-3 is not allowed: --set latent", "latent takes int, 1 to 8192"),
        ("latent=2.5", "--set latent", "latent takes int"),
        ("latent=", "--set latent", "latent takes int"),
        ("widths=4,-8", "--set widths", "widths takes a list of int, 1 to 8192"),
        ("widths=4,x", "--set widths", "widths takes a list of int, 1 to 8192"),
        ("network=covn", "--set network", "one of: conv, mlp, wae"),
        ("nosuch=1", "unknown option 'nosuch': --set", "known: "),
        ("lr", "'lr' is not KEY=VALUE: --set", "write it as --set lr=VALUE"),
        ("=3", "unknown option '': --set", "known: "),
    ],
)
def test_H4_bad_assignments_name_field_type_and_range(assignment: str, place: str, fix: str, pictures: Path) -> None:
    message = refused("train", "vae", "--data", pictures, "--set", assignment)
    assert place in message.partition("\n")[0]
    assert fix in message.partition("\n")[2]


def test_H4_a_wrong_type_is_told_the_range_as_well(pictures: Path) -> None:
    assert "latent takes int, 1 to 8192" in refused("train", "vae", "--data", pictures, "--set", "latent=abc")


def test_H4_an_empty_list_of_widths(pictures: Path) -> None:
    assert "--set widths" in refused("train", "vae", "--data", pictures, "--batch", "8", "--set", "widths=")


COUNT, SEED = "int, 1 to 1e+12", "a whole number from 0 to 2^64 - 1"
SIZE, COLOUR = "64, or WIDTHxHEIGHT such as 64x48, up to 4096", "white, black or #rrggbb"


@pytest.mark.parametrize(
    ("flag", "value", "takes"),
    [
        ("--batch", "0", "int, 1 to 1e+06"),
        ("--batch", "-4", "int, 1 to 1e+06"),
        ("--images", "0", COUNT),
        ("--images", "many", COUNT),
        ("--images", "1.5", COUNT),
        ("--save-every", "-1", COUNT),
        ("--sample-every", "0", COUNT),
        ("--log-every", "0k", COUNT),
        ("--seed", str(2**64), SEED),
        ("--seed", "-1", SEED),
        ("--seed", "1.0", SEED),
        ("--seed", "²", SEED),
        ("--size", "0", SIZE),
        ("--size", "64x9999", SIZE),
        ("--size", "64x", SIZE),
        ("--size", "x64", SIZE),
        ("--size", "64x48x3", SIZE),
        ("--background", "blue", COLOUR),
        ("--background", "#12345", COLOUR),
    ],
)
def test_H5_values_that_do_not_fit_name_the_flag_and_what_it_takes(flag: str, value: str, takes: str) -> None:
    message = refused("train", "vae", "--data", "glyphs", flag, value)
    name, shown = flag.strip("-").replace("-", "_"), value.removesuffix("k")
    assert message.startswith(f"error: {name}={shown} is not allowed: {flag}\n  fix: {name} takes {takes}")


def test_H5_epochs_are_a_number() -> None:
    message = misused("train", "vae", "--data", "glyphs", "--epochs", "many")
    assert "'--epochs'" in message
    assert "number" in message


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--images", "2000G", "images takes int, 1 to 1e+12"),
        ("--batch", "2M", "batch takes int, 1 to 1e+06"),
        ("--keep", "1", "keep takes int, 2 to 1e+06"),
        ("--workers", "-1", "workers takes int, 0 to 256"),
        ("--average", "-1", "average_images takes int, 0 to 1e+12"),
        ("--epochs", "0", "above 0"),
        ("--epochs", "1e9", "above 0, up to 1,000,000"),
        ("--epochs", "nan", "above 0"),
        ("--epochs", "-2", "above 0"),
    ],
)
def test_H5_numbers_out_of_range_found_by_the_configuration(flag: str, value: str, expected: str, pictures: Path) -> None:
    message = refused("train", "vae", "--data", pictures, *([] if flag == "--batch" else ["--batch", "8"]), flag, value)
    assert expected in message
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(("flag", "value"), [("-n", "0"), ("--batch", "0"), ("--columns", "0"), ("--seed", "-1"), ("--seed", str(2**64))])
def test_H5_sample_s_numbers(flag: str, value: str, vae: Path) -> None:
    assert repr(value) in misused("sample", vae, flag, value)


def test_a_grid_that_no_picture_can_hold_is_refused_before_it_is_sampled(
    vae: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear message from every command that makes a grid, which names the limit; nothing is drawn first."""

    def fail(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("it has begun")

    for work in ("sample.draw", "reconstruct.reconstructions", "project.search", "interpolate.images_from", "inpaint.fill"):
        monkeypatch.setattr(f"models.capabilities.{work}", fail)
    for more in ([], ["--columns", 10**9], ["--columns", 1]):
        message = refused("sample", vae, "-n", 10**9, "-o", "z.png", *more)
        assert "1,000,000,000 images would have" in message
        assert "more than the limit of 89,478,485: -n" in message
        assert "--out DIR" in message
    assert "more than the limit" in refused("interpolate", vae, "1", "2", "-n", 10**9)
    monkeypatch.setattr(layouts, "MAX_PIXELS", 1000)
    image = sorted(pictures.rglob("*.png"))[0]
    for command, more in (("reconstruct", []), ("project", []), ("inpaint", ["--mask", "box"])):
        message = refused(command, vae, image, image, image, *more)
        assert "more than the limit of 1,000: -n" in message
        assert ("--out DIR" in message) == (command != "reconstruct")
    assert list(Path().iterdir()) == []


def test_a_grid_has_no_more_columns_than_images(vae: Path) -> None:
    done("sample", vae, "-n", 4, "--columns", 10**9, "-o", "row.png")
    assert pixels(Path("row.png")).shape == (20, 4 * 18 + 2)


def test_H5_the_largest_seed_is_allowed(vae: Path) -> None:
    assert document("sample", vae, "-n", 1, "--seed", 2**64 - 1, "--json")["seed"] == 2**64 - 1


def test_contradictions_and_gaps_are_named(vae: Path, pictures: Path) -> None:
    assert "--data is missing" in refused("train", "vae")
    assert "a model is missing" in refused("train", "--data", pictures)
    assert "both --images and --epochs" in refused("train", "vae", "--data", pictures, "--images", 9, "--epochs", 1)
    assert "--resume goes on with a run as it is" in refused("train", "vae", "--resume", vae)
    assert "both -o and --out" in refused("sample", vae, "-o", "a.png", "--out", "a")
    assert "--out names a folder" in refused("sample", vae, "--out", "a.png")
    assert "a way has two ends" in refused("interpolate", vae, "1", "2", "-n", 1)
    assert "a seed has no code" in refused("interpolate", vae, "1", "2", "--space", "code")
    assert "takes no base" in refused("train", "vae", "--data", pictures, "--batch", 8, "--base", vae)
    assert "'base' is not NAME=RUN" in refused("train", "aegan", "--data", pictures, "--part", "base")
    assert "two runs for the part 'base'" in refused("train", "aegan", "--data", pictures, "--part", f"base={vae}", "--base", vae)
    assert "two --data without a name" in refused("train", "vae", "--data", pictures, "--data", pictures)
    assert "this model has no source 'there'" in refused("train", "vae", "--data", pictures, "--data", f"there={pictures}")
    assert "labels without images" in refused("train", "vae", "--labels", "x.csv")
    assert "the table cannot be read" in refused("train", "vae", "--data", pictures, "--batch", 8, "--labels", "x.csv")


def test_F2_fewer_images_than_the_batch(tmp_path: Path) -> None:
    write_pictures(tmp_path / "twelve", 12)
    message = refused("train", "vae", "--data", tmp_path / "twelve", "--batch", 64)
    assert f"12 images, batch 64: {tmp_path / 'twelve'}" in message
    assert "use --batch 12" in message


# ---- H6, H13: what a model cannot do -------------------------------------------------------------------------------------------------


TOY = '''
"""A toy."""

from dataclasses import dataclass

import torch
from torch import nn

from models.base import LatentModel, Player, Preset, Stage, Turn


@dataclass(frozen=True)
class Config:
    lr: float = 0.1  # learning rate


class Toy(LatentModel):
    Config = Config
    presets = {"default": Preset(100)}
    needs = frozenset(NEEDS)

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.net = nn.Sequential(nn.Linear(2, spec.channels * spec.height * spec.width), nn.Unflatten(1, spec.shape), nn.Tanh())

    def players(self):
        return {"net": Player((self.net,), lr=self.config.lr)}

    def stages(self):
        return (Stage("only", self.turns, players=("net",)),)

    def turns(self, batch, step):
        made = self.net(self.noise(batch))
        yield Turn({"net": (made - batch.image).square().mean()})

    @property
    def noise_shape(self):
        return (2,)

    def CAPABILITY(self, noise):
        return self.net(noise)
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Puts another model into the zoo for one test."""
    zoo = tmp_path / "zoo"
    zoo.mkdir()

    def add(name: str, needs: tuple[str, ...] = ("image",), capability: str = "sample") -> str:
        (zoo / f"{name}.py").write_text(TOY.replace("NEEDS", repr(needs)).replace("CAPABILITY", capability))
        return name

    real = MODELS.entries
    monkeypatch.setattr(models.zoo, "__path__", [*models.zoo.__path__, str(zoo)])
    monkeypatch.setattr(MODELS, "entries", lambda: {**real(), **{p.stem: Entry(p.stem, p, "models.zoo") for p in zoo.glob("*.py")}})
    yield add
    for path in zoo.glob("*.py"):
        sys.modules.pop(f"models.zoo.{path.stem}", None)


def test_H6_a_missing_capability_is_named(toy: Callable[..., str], pictures: Path, tmp_path: Path) -> None:
    run, image = tmp_path / "run", sorted(pictures.rglob("*.png"))[0]
    done("train", toy("onlysamples"), "--data", pictures, "--out", run, "--batch", 8, "--images", 16, "--device", "cpu")
    done("sample", run, "-n", 2)
    message = refused("reconstruct", run, image)
    assert "this model cannot reconstruct: onlysamples" in message
    assert "`lgm models` lists the models" in message
    assert "this model cannot encode" in refused("interpolate", run, image, image, "--space", "code")

    run = tmp_path / "other"
    done("train", toy("neither", capability="decorate"), "--data", pictures, "--out", run, "--batch", 8, "--images", 16, "--device", "cpu")
    assert "this model cannot sample: neither" in refused("sample", run)
    assert "this model cannot sample: neither" in refused("interpolate", run, image, image)


def test_H13_data_that_lack_what_the_model_needs(toy: Callable[..., str], pictures: Path, tmp_path: Path) -> None:
    message = refused("train", toy("needy", ("image", "label", "identity")), "--data", pictures, "--batch", 8, "--out", tmp_path / "run")
    assert "needy needs identity, these data have image, label" in message
    assert str(pictures) in message
    assert "identity: --data faces" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", ["cvae", "cgan", "cvae-gan", "classifier"])
def test_H13_a_missing_label_is_all_that_is_said(model: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """One line and how to get labels; no layer for 0 classes is complained of."""
    folder = write_pictures(tmp_path / "data", 8) / "cross"
    message = refused("train", model, "--data", folder, "--batch", 4)
    assert "needs label, these data have image" in message
    assert "label: --data glyphs, or a folder with a sub-folder for each class" in message
    assert [str(w.message) for w in recwarn] == []


# ---- H8, H9: outputs -----------------------------------------------------------------------------------------------------------------


def writing(run: Path, pictures: Path) -> dict[str, list[object]]:
    image = sorted(pictures.rglob("*.png"))[0]
    return {
        "sample": ["sample", run, "-n", 4],
        "reconstruct": ["reconstruct", run, image],
        "interpolate": ["interpolate", run, image, image, "-n", 3],
        "project": ["project", run, image, "--steps", 1],
    }


@pytest.mark.parametrize("command", ["sample", "reconstruct", "interpolate", "project"])
def test_H8_an_existing_file_is_kept_without_force(command: str, vae: Path, pictures: Path) -> None:
    words, old = writing(vae, pictures)[command], Path("mine.png")
    old.write_bytes(b"precious")
    message = refused(*words, "-o", old)
    assert "something lies there already: mine.png" in message
    assert "choose another -o, or give --force" in message
    assert old.read_bytes() == b"precious"
    done(*words, "-o", old, "--force")
    assert pixels(old).dtype == np.uint8
    assert [p.name for p in Path().iterdir()] == ["mine.png"]


def test_H8_the_animation_beside_the_strip_is_kept_as_well(vae: Path, pictures: Path) -> None:
    words, old = [*writing(vae, pictures)["interpolate"], "--gif"], Path("mine.gif")
    old.write_bytes(b"precious")
    assert "something lies there already: mine.gif" in refused(*words, "-o", "mine.png")
    assert old.read_bytes() == b"precious"
    assert not Path("mine.png").exists()
    assert "pictures are written as PNG: -o mine.gif" in refused(*words, "-o", "mine.gif", "--force")
    done(*words, "-o", "mine.png", "--force")
    assert old.read_bytes()[:6] == b"GIF89a"


def test_H8_without_a_name_a_new_one_is_found(vae: Path) -> None:
    for name in ("samples", "samples-2", "samples-3"):
        assert done("sample", vae, "-n", 2).strip() == f"{vae.name}-{name}.png"


def test_H8_a_folder_of_images_is_kept_without_force(vae: Path) -> None:
    folder = Path("mine")
    folder.mkdir()
    (folder / "000001.png").write_bytes(b"precious")
    message = refused("sample", vae, "-n", 2, "--out", folder)
    assert "something lies there already: mine" in message
    assert "choose another --out, or give --force" in message
    assert hashes(folder) == {"000001.png": hashlib.sha256(b"precious").hexdigest()}
    done("sample", vae, "-n", 2, "--out", folder, "--force")
    assert sorted(hashes(folder)) == ["000000.png", "000001.png"]
    assert pixels(folder / "000001.png").shape == (16, 16)


def test_H8_an_empty_folder_is_free(vae: Path) -> None:
    Path("empty").mkdir()
    done("sample", vae, "-n", 2, "--out", "empty")
    assert len(hashes(Path("empty"))) == 2


def test_H8_places_that_cannot_be_written(vae: Path) -> None:
    Path("file").write_bytes(b"precious")
    assert "no such folder: no/such" in refused("sample", vae, "-n", 2, "-o", "no/such/grid.png")
    assert "cannot make the folder" in refused("sample", vae, "-n", 2, "--out", "file", "--force")
    assert "cannot make the folder" in refused("sample", vae, "-n", 2, "--out", "file/inner")
    Path("folder.png").mkdir()
    assert "cannot write the file" in refused("sample", vae, "-n", 2, "-o", "folder.png")
    assert Path("file").read_bytes() == b"precious"


def test_H8_train_keeps_an_existing_run(vae: Path, pictures: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(vae, tmp_path / "run"))
    before = hashes(run)
    message = refused(*arguments("vae", pictures, run))
    assert f"a run lies there already: {run}" in message
    assert f"lgm train --resume {run}" in message
    assert hashes(run) == before


def test_augment_is_an_option_of_the_model(pictures: Path, tmp_path: Path) -> None:
    words = arguments("dcgan", pictures, tmp_path / "run", "--augment", "shift", "--dry-run", "--json")
    assert json.loads(done(*words))["configuration"]["options"]["augment"] == "shift"
    message = refused(*arguments("dcgan", pictures, tmp_path / "run", "--augment", "sepia"))
    assert "none, shift, full" in message
    assert "--augment" in message
    assert "unknown option 'augment'" in refused(*arguments("alae", pictures, tmp_path / "run", "--augment", "shift"))
    assert not (tmp_path / "run").exists()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As if the disk were full: a write beyond `size` bytes fails. (Python ignores the signal that comes with it.)"""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_H9_disk_full_while_a_grid_is_written(vae: Path) -> None:
    Path("old.png").write_bytes(b"precious")
    with largest_file(64):
        assert "cannot write the file" in refused("sample", vae, "-o", "new.png")
        assert "cannot write the file" in refused("sample", vae, "-o", "old.png", "--force")
    assert hashes(Path()) == {"old.png": hashlib.sha256(b"precious").hexdigest()}


def test_H9_disk_full_while_single_images_are_written(vae: Path) -> None:
    with largest_file(64):
        message = refused("sample", vae, "-n", 4, "--out", "singles")
    assert "singles/000000.png" in message
    assert "free space" in message
    assert hashes(Path("singles")) == {}


def test_H9_disk_full_while_an_animation_is_written(vae: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = layouts.write_gif

    def write_gif(*arguments: Any) -> Path:
        with largest_file(64):  # the disk has filled up since the strip was written
            return real(*arguments)

    monkeypatch.setattr(layouts, "write_gif", write_gif)
    message = refused(*writing(vae, pictures)["interpolate"], "-o", "strip.png", "--gif")
    assert "strip.gif" in message
    assert list(hashes(Path())) == ["strip.png"]


@pytest.mark.parametrize("after", [0, 2])
def test_H9_interrupted_while_single_images_are_written(vae: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was finished stays, and nothing half-written lies under any name."""
    real, count = Image.Image.save, iter(range(100))

    def save(image: Image.Image, file: Any, *args: Any, **options: Any) -> None:
        if next(count) < after:
            return real(image, file, *args, **options)
        file.write(b"\x89PNG, half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", save)
    result = lgm("sample", vae, "-n", 4, "--out", "singles")
    assert result.exit_code == 130
    assert result.stderr == f"interrupted: images written to singles: {after}\n"
    assert list(hashes(Path("singles"))) == [f"{n:06d}.png" for n in range(after)]


# ---- H10, H14, H15 -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cuda", "cuda:9", "cuda:x", "gpu", ""])
def test_H10_devices_that_are_not_there(device: str, vae: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for words in (["sample", vae], ["train", "vae", "--data", pictures, "--batch", 8]):
        message = refused(*words, "--device", device)
        assert f"there is no device {device!r} on this machine: --device" in message
        assert "use one of: auto, cpu" in message
    assert list(Path().iterdir()) == []


def test_H10_cuda_9_where_there_are_two(vae: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "use one of: auto, cuda:0, cuda:1, " in refused("sample", vae, "--device", "cuda:9")


@pytest.mark.parametrize("kind", ["package", "module", "namespace"])
def test_H14_a_folder_with_its_own_models(tmp_path: Path, kind: str) -> None:
    """`python -m lgcli` puts the working folder first: lgm must work, or say which path is in its way."""
    path = {"package": "models/__init__.py", "module": "models.py", "namespace": "models/weights.txt"}[kind]
    (tmp_path / "models").mkdir()
    (tmp_path / path).write_text("COLOUR = 'blue'\n")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    made = subprocess.run(
        [sys.executable, "-m", "lgcli", "models"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in made.stderr
    if kind == "namespace":
        assert (made.returncode, "aegan" in made.stdout) == (0, True)
    else:
        assert made.returncode == 2
        assert f"error: another package named models hides lgm's own: {tmp_path / path}" in made.stderr
        assert "fix: " in made.stderr


@pytest.mark.parametrize("code", ["import lgcli as lgm; lgm.load", "from lgcli import train", "import lgcli; lgcli.__version__"])
def test_H14_python_names_another_package_models_and_does_not_run_it(tmp_path: Path, code: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("print('it was imported')\n")
    made = python(code, tmp_path)
    assert made.returncode == 1
    assert f"ImportError: another package named models hides lgm's own: {tmp_path / 'models' / '__init__.py'}" in made.stderr
    assert made.stdout == ""


# ---- encodings -----------------------------------------------------------------------------------------------------------------------


def in_ascii(*words: object) -> subprocess.CompletedProcess[str]:
    """`lgm WORDS` in a process of its own, whose output takes nothing but ASCII."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "ascii", "COLUMNS": "200"}
    command = [sys.executable, "-m", "lgcli", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_output_that_cannot_be_encoded_is_escaped() -> None:
    made = in_ascii("fid", "--help")
    assert (made.returncode, made.stderr) == (0, "")
    assert "The Fr\\xe9chet distance" in made.stdout
    made = in_ascii("models", "vaé")
    assert made.returncode == 2
    assert made.stderr.startswith("error: unknown model: va\\xe9\n  fix: did you mean 'vae'?")


def test_a_file_s_name_that_cannot_be_encoded_is_escaped() -> None:
    write_pictures(Path("data"), 4)
    (Path("data") / "cross" / "\N{GRINNING FACE}.png").write_bytes(b"no image")
    made = in_ascii("data", "check", "data")
    assert made.returncode == 1
    assert "  bad: data/cross/\\U0001f600.png: " in made.stdout
    assert made.stderr == ""


def test_H15_an_unexpected_exception_becomes_a_line_and_a_file(vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def boom(run: str) -> None:
        raise ZeroDivisionError("boom\n\x1b[31mred")

    monkeypatch.setattr(api, "describe_run", boom)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = lgm("info", vae)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: unexpected ZeroDivisionError: boom\\n\\x1b[31mred\n  fix: this is a bug; report it with ")
    assert result.stderr.count("\n") == 2
    saved = Path(result.stderr.rpartition(" ")[2].strip())
    assert saved.parent == tmp_path
    assert "Traceback" in saved.read_text()
    assert 'raise ZeroDivisionError("boom' in saved.read_text()
    monkeypatch.setenv("LGM_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        lgm("info", vae)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), RuntimeError("CUDA out of memory.")]
)
def test_H11_out_of_memory_says_what_to_make_smaller(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(run: str) -> None:
        raise error

    monkeypatch.setattr(api, "describe_run", fail)
    result = lgm("info", "somewhere")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: out of memory\n  fix: use a smaller --batch")


@pytest.mark.parametrize("error", [ModuleNotFoundError("No module named 'nosuch'", name="nosuch"), KeyError("x"), RecursionError("deep")])
def test_H15_no_kind_of_exception_slips_through(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(run: str) -> None:
        raise error

    monkeypatch.setattr(api, "describe_run", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = lgm("info", "somewhere")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: unexpected {type(error).__name__}")


def test_names_that_no_disk_takes_and_numbers_that_no_memory_holds(vae: Path, pictures: Path) -> None:
    long, image = "x" * 300, f"{pictures}:0"
    for words in (["reconstruct", vae, long], ["reconstruct", vae, image, "-o", f"{long}.png"], ["sample", vae, "--out", long]):
        assert "the name of a file is too long" in refused(*words)
    assert "is more than 1e+12" in misused("sample", vae, "-n", "1e300")
    assert "is more than 10,000" in misused("project", vae, image, "--restarts", "1e6")
    assert "no such run or checkpoint: nowhere" in refused("evaluate", "nowhere", "--metrics", "sharpness")
    assert lgm("sample", vae, "-n", 2, "--out", "new/v1.0").exit_code == 0, "a dot in a folder's name makes it no file"


def test_a_run_that_left_bad_images_out_leaves_them_out(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pictures, "some")
    next(iter(sorted(Path("some").rglob("*.png")))).write_bytes(b"no image")
    words = ("--data", "some", "--skip-bad", "--images", 32, "--batch", 8, "--set", "widths=4", "--set", "latent=2", "--out", "run")
    assert lgm("train", "vae", *words).exit_code == 0
    assert lgm("reconstruct", "run", "some", "-n", 4).exit_code == 0


def test_interrupted_outside_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(run: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "describe_run", interrupt)
    result = lgm("info", "somewhere")
    assert result.exit_code == 130
    assert result.stdout == ""
    assert result.stderr.startswith("interrupted")


# ---- the journey: train --------------------------------------------------------------------------------------------------------------


def test_train_with_plain_lines(pictures: Path) -> None:
    result = lgm(*arguments("vae", pictures, Path("run")))
    assert result.exit_code == 0, result.output
    assert result.stdout == "run\n"
    lines = result.stderr.splitlines()
    assert lines[0] == f"training vae on {pictures}, 96 images, device cpu: run"
    assert lines[1].startswith("warning: the stage 'variational auto-encoder' has 12 steps, too few to learn much: ")
    assert lines[2] == "stage 1/1 variational auto-encoder: images 0 to 96"
    assert "saved: run/checkpoints/images-000000024.safetensors" in lines
    assert "sample grid: run/samples/sample-000000040.png" in lines
    assert re.fullmatch(r"finished: 96 images in 0:00:\d\d: run", lines[-1])
    assert sorted(p.name for p in Path("run").iterdir()) == ["checkpoints", "config.json", "curves.png", "log.jsonl", "run.lock", "samples"]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], io.StringIO]:
    """Makes standard error a terminal of so many columns; what is shown there goes into the buffer."""

    def make(width: int) -> io.StringIO:
        shown = io.StringIO()
        for module in (render, display):
            monkeypatch.setattr(module, "Console", lambda **more: Console(file=shown, force_terminal=True, width=width, color_system=None))
        return shown

    return make


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_live_display_keeps_the_time_left_on_a_narrow_terminal(width: int, terminal: Callable[[int], io.StringIO]) -> None:
    terminal(width)
    view = display._Display()
    for event in (
        events.Started(0, "run", "vae", "glyphs", 1_200_000, "cpu", False),
        events.StageStarted(0, "conditional variational auto-encoder", 1, 1, 1_200_000),
        events.Progressed(1_100_000, 1_200_000, 12_345.0),
    ):
        view.show(event)
    with view.console.capture() as captured:
        view.console.print(view._picture())
    first, second = captured.get().splitlines()[:2]
    assert "1,100,000 of 1,200,000 images" in first
    assert "12,345/s" in first
    assert first.rstrip().endswith("-:--:--")  # no speed is known yet
    assert "auto-encoder" in second


@pytest.mark.parametrize("width", [60, 80])
def test_bars_keep_the_time_left_on_a_narrow_terminal(width: int, terminal: Callable[[int], io.StringIO]) -> None:
    shown = terminal(width)
    with render.progress() as advance:
        advance("a/folder/whose/name/is/longer/than/a/terminal/is/wide/images", 128, 10_000)
    line = [line for line in shown.getvalue().splitlines() if "128/10000" in line][-1]
    assert line.rstrip().endswith("-:--:--")


def test_sampling_a_grid_shows_its_progress(vae: Path, terminal: Callable[[int], io.StringIO]) -> None:
    shown = terminal(80)
    words = ["sample", str(vae), "-n", "20", "--batch", "16", "-o", "grid.png"]
    result = CliRunner(env={"TERM": "xterm"}).invoke(app, words, catch_exceptions=False)
    assert result.stdout == "grid.png\n"
    assert re.search(r"sampling .* 20/20 ", shown.getvalue())


def test_a_second_run_says_where_it_goes(pictures: Path) -> None:
    words = [word for word in arguments("vae", pictures, Path("run"), images=8) if word not in ("--out", "run")]
    assert "lies there already" not in lgm(*words).stderr
    result = lgm(*words)
    assert result.stdout == "runs/vae-pictures0-2\n"
    assert "warning: runs/vae-pictures0 lies there already, this run goes to runs/vae-pictures0-2\n" in result.stderr.splitlines(True)[:3]
    assert "lies there already" not in lgm(*words, "--out", "elsewhere").stderr


def test_resume_reads_the_newest_checkpoint_once(vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, seen = Path(shutil.copytree(vae, tmp_path / "run")), []
    real = checkpoint.read_tensors
    monkeypatch.setattr(checkpoint, "read_tensors", lambda path: seen.append(path) or real(path))
    assert "latent: 4 -> 5" in refused("train", "--resume", run, "--set", "latent=5")
    assert "unknown option 'nosuch'" in refused("train", "--resume", run, "--set", "nosuch=5")
    done("train", "--resume", run, "--set", "latent=4")
    assert seen == [newest(run)] * 3


def test_train_with_json_lines(pictures: Path) -> None:
    result = lgm(*arguments("aegan", pictures, Path("run")), "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    events = [json.loads(line, parse_constant=pytest.fail) for line in result.stdout.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    assert [e["stage"] for e in events if e["event"] == "stagestarted"] == ["auto-encoder", "latent GAN"]
    logged = [e for e in events if e["event"] == "logged"]
    assert [e["images"] for e in logged] == [16, 32, 48, 64, 80, 96]
    assert set(logged[-1]["losses"]) == {"code_critic loss", "generator loss", "penalty"}
    assert all(Path(e["path"]).is_file() for e in events if e["event"] == "drawn")
    assert [e["images"] for e in events if e["event"] == "saved"] == [24, 48, 72, 96]


def test_train_makes_the_same_file_from_the_same_words(vae: Path, pictures: Path) -> None:
    """The command line adds nothing of its own to what the API trains, and the seed decides."""
    done(*arguments("vae", pictures, Path("run")))
    assert hashes(Path("run") / "samples") == hashes(vae / "samples")
    assert_same_tensors(newest(Path("run")), newest(vae))
    done(*arguments("vae", pictures, Path("other"), seed=1))
    assert hashes(Path("other") / "samples") != hashes(vae / "samples")


def test_train_numbers_its_runs(pictures: Path) -> None:
    words = ["train", "vae", "--data", pictures, "--batch", 8, "--images", 8, "--set", "widths=4", "--set", "latent=2", "--device", "cpu"]
    name = f"vae-{pictures.name}"
    assert done(*words) == f"runs/{name}\n"
    assert done(*words) == f"runs/{name}-2\n"
    assert sorted(p.name for p in Path("runs").iterdir()) == [name, f"{name}-2"]


def test_train_takes_every_option_into_the_record(pictures: Path) -> None:
    words = ["train", "vae", "--data", pictures, "--out", "run", "--batch", "4", "--epochs", "0.5", "--seed", 7, "--device", "cpu"]
    words += ["--size", "12x10", "--fit", "pad", "--channels", 3, "--background", "#102030", "--keep", 3, "--average", 0, "--workers", 1]
    words += ["--set", "widths=4,8", "--set", "latent=2", "--set", "sigma=0.5", "--save-every", 4, "--sample-every", 8, "--log-every", 4]
    done(*words)
    record = json.loads(Path("run/config.json").read_text())
    expected = {"batch": 4, "images": 10, "seed": 7, "size": [10, 12], "fit": "pad", "channels": "3", "background": [16, 32, 48]}
    expected |= {"keep": 3, "average_images": 0, "workers": 1, "save_every": 4, "sample_every": 8, "log_every": 4, "model": "vae"}
    assert {key: record[key] for key in expected} == expected
    assert record["options"]["widths"] == [4, 8]
    assert record["options"]["sigma"] == 0.5
    assert record["options"]["beta"] == 1.0
    assert len(list(Path("run/checkpoints").glob("images-*"))) == 3
    assert pixels(Path("run/samples/sample-000000008.png")).shape[2] == 3


@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_dry_run_shows_the_plan_and_writes_nothing(json_flag: list[str], pictures: Path, tmp_path: Path) -> None:
    before = hashes(pictures)
    shown = done(*arguments("aegan", pictures, Path("run")), "--dry-run", *json_flag)
    if json_flag:
        plan = json.loads(shown)
        assert plan["device"] == "cpu"
        assert plan["configuration"]["batch"] == 8
        assert [s["until images"] for s in plan["stages"]] == [48, 96]
        assert plan["networks"]["total"] == sum(n for name, n in plan["networks"].items() if name != "total")
        assert plan["data"]["count"] == 20
        assert plan["seconds"] == pytest.approx(sum(stage["seconds"] for stage in plan["stages"]), abs=0.2)
        assert 0 < plan["seconds"] < 60
    else:
        assert re.match(r"takes: about \d+ (s|min) on this machine", shown)
        assert re.search(r"name latent GAN, .*takes about \d+ (s|min)", shown)
        assert "auto-encoder" in shown
        assert "total: " in shown
    assert list(Path().iterdir()) == []
    assert hashes(pictures) == before


def test_dry_run_shows_the_folder_that_was_asked_for(pictures: Path) -> None:
    assert document(*arguments("vae", pictures, Path("elsewhere")), "--dry-run", "--json")["run"] == "elsewhere"


def test_resume_of_a_finished_run(vae: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(vae, tmp_path / "run"))
    before = hashes(run)
    result = lgm("train", "--resume", run)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{run}\n"
    assert f"already at 96 images, nothing to do: {run}" in result.stderr
    assert hashes(run) == before


def test_resume_goes_further_when_asked(vae: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(vae, tmp_path / "run"))
    done("train", "--resume", run, "--images", 112)
    assert newest(run).name == "images-000000112.safetensors"
    assert document("info", run, "--json")["of images"] == 112


def test_resume_refuses_what_is_no_run(tmp_path: Path) -> None:
    assert "no such run" in refused("train", "--resume", "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no intact checkpoint" in refused("train", "--resume", tmp_path / "empty")


# ---- the journey: sample -------------------------------------------------------------------------------------------------------------


def test_sample_a_grid(vae: Path) -> None:
    assert document("sample", vae, "-n", 6, "--seed", 3, "--json") == {"grid": "vae-samples.png", "images": 6, "seed": 3}
    assert pixels(Path("vae-samples.png")).shape == (2 * 18 + 2, 3 * 18 + 2)
    assert done("sample", vae, "-n", 6, "--columns", 6, "-o", "row.png") == "row.png\n"
    assert pixels(Path("row.png")).shape == (20, 6 * 18 + 2)


def test_sample_single_images_that_are_the_grid_s(vae: Path) -> None:
    shown = document("sample", vae, "-n", 5, "--out", "singles", "--json")
    assert shown == {"folder": "singles", "images": 5, "seed": 0, "files": 5}
    assert list(hashes(Path("singles"))) == [f"{n:06d}.png" for n in range(5)]
    done("sample", vae, "-n", 5, "--columns", 5, "-o", "row.png")
    row = pixels(Path("row.png"))
    for number in range(5):
        left = 2 + 18 * number
        assert np.array_equal(row[2:18, left : left + 16], pixels(Path(f"singles/{number:06d}.png")))


def test_sample_takes_a_checkpoint_file_and_raw_weights(vae: Path) -> None:
    done("sample", newest(vae), "-n", 4, "-o", "file.png")
    done("sample", vae, "-n", 4, "-o", "run.png")
    done("sample", vae, "-n", 4, "-o", "raw.png", "--raw")
    assert Path("file.png").read_bytes() == Path("run.png").read_bytes()
    assert Path("raw.png").read_bytes() != Path("run.png").read_bytes()


def test_H16_the_seed_decides_everything(vae: Path, aegan: Path) -> None:
    for name, run in (("vae", vae), ("aegan", aegan)):
        for seed, target in ((1, "a"), (1, "b"), (2, "c")):
            done("sample", run, "-n", 5, "--seed", seed, "-o", f"{name}-{target}.png")
            done("sample", run, "-n", 5, "--seed", seed, "--out", f"{name}-{target}")
        assert Path(f"{name}-a.png").read_bytes() == Path(f"{name}-b.png").read_bytes()
        assert Path(f"{name}-a.png").read_bytes() != Path(f"{name}-c.png").read_bytes()
        assert hashes(Path(f"{name}-a")) == hashes(Path(f"{name}-b"))
        assert not set(hashes(Path(f"{name}-a")).values()) & set(hashes(Path(f"{name}-c")).values())


@pytest.mark.parametrize("batch", [1, 3, 10, 16, 1000])
def test_H17_the_batch_changes_no_image(batch: int, vae: Path) -> None:
    done("sample", vae, "-n", 20, "--batch", batch, "--out", "some")
    done("sample", vae, "-n", 20, "--out", "usual")
    assert hashes(Path("some")) == hashes(Path("usual"))


def test_H17_the_number_changes_no_image(vae: Path) -> None:
    done("sample", vae, "-n", 10, "--batch", 3, "--out", "ten")
    done("sample", vae, "-n", 21, "--batch", 10, "--out", "more")
    assert hashes(Path("ten")).items() <= hashes(Path("more")).items()
    assert len(hashes(Path("more"))) == 21


# ---- the journey: reconstruct, interpolate -------------------------------------------------------------------------------------------


def test_reconstruct_files(vae: Path, pictures: Path) -> None:
    files = sorted(pictures.rglob("*.png"))[:3]
    shown = document("reconstruct", vae, *files, "-o", "again.png", "--json")
    assert [item["image"] for item in shown["images"]] == [str(f) for f in files]
    errors = [item["error"] for item in shown["images"]]
    assert all(0 < error < 1 for error in errors)
    assert shown["mean_error"] == pytest.approx(sum(errors) / 3)
    assert shown["grid"] == "again.png"
    picture = pixels(Path("again.png"))
    assert picture.shape == (2 * 18 + 2, 3 * 18 + 2)
    assert np.array_equal(picture[2:18, 2:18], pixels(files[0]))


def test_reconstruct_a_folder_and_items_of_it(vae: Path, pictures: Path) -> None:
    shown = document("reconstruct", vae, pictures, "-n", 4, "--json")
    files = sorted(pictures.rglob("*.png"))[:4]
    assert [item["image"] for item in shown["images"]] == [str(f) for f in files]
    item = document("reconstruct", vae, f"{pictures}:2", "--json")
    assert item["images"] == [{"image": f"{pictures}:2", "error": shown["images"][2]["error"]}]
    assert len(document("reconstruct", vae, pictures, "--json")["images"]) == 20


def test_reconstruct_a_data_set(vae: Path) -> None:
    """A set of another size is brought to the model's; its items are numbered."""
    shown = document("reconstruct", vae, "glyphs:test", "-n", 3, "--json")
    assert [item["image"].rpartition(":")[2] for item in shown["images"]] == ["0", "1", "2"]


def test_reconstruct_prints_errors_and_their_mean(vae: Path, pictures: Path) -> None:
    lines = done("reconstruct", vae, pictures, "-n", 2, "-o", "again.png").splitlines()
    assert re.fullmatch(r"0\.\d{5}  .+\.png", lines[0])
    assert re.fullmatch(r"0\.\d{5}  mean squared error \(black 0, white 1\)", lines[2])
    assert lines[3] == "again.png"


def test_reconstruct_refuses_what_is_no_image(vae: Path, pictures: Path) -> None:
    Path("text.png").write_text("no image")
    assert "no readable image" in refused("reconstruct", vae, "text.png")
    assert "text.png" in refused("reconstruct", vae, sorted(pictures.rglob("*.png"))[0], "text.png")
    assert "item 99 of 20" in refused("reconstruct", vae, f"{pictures}:99")
    assert "nowhere" in refused("reconstruct", vae, "nowhere")
    assert list(Path().iterdir()) == [Path("text.png")]


def test_interpolate_between_files_and_items(vae: Path, pictures: Path) -> None:
    files = sorted(pictures.rglob("*.png"))
    shown = document("interpolate", vae, files[0], files[1], "-n", 5, "--json")
    assert shown == {"files": ["vae-interpolation.png"], "space": "code", "projection_errors": []}
    strip = pixels(Path("vae-interpolation.png"))
    assert strip.shape == (20, 5 * 18 + 2)
    done("interpolate", vae, f"{pictures}:0", f"{pictures}:1", "-n", 5, "-o", "items.png")
    assert np.array_equal(pixels(Path("items.png")), strip)
    done("reconstruct", vae, files[0], files[1], "-o", "ends.png")
    assert np.array_equal(pixels(Path("ends.png"))[20:36, 2:18], strip[2:18, 2:18])
    assert np.array_equal(pixels(Path("ends.png"))[20:36, 20:36], strip[2:18, 74:90])


def test_interpolate_between_seeds_whose_ends_are_samples(vae: Path) -> None:
    assert document("interpolate", vae, "seed:3", "4", "-n", 4, "-o", "way.png", "--json")["space"] == "noise"
    strip = pixels(Path("way.png"))
    for seed, left in ((3, 2), (4, 56)):
        done("sample", vae, "-n", 1, "--seed", seed, "-o", f"{seed}.png")
        assert np.array_equal(strip[2:18, left : left + 16], pixels(Path(f"{seed}.png"))[2:18, 2:18])


def test_interpolate_lerp_and_slerp_differ_between_their_ends(vae: Path) -> None:
    done("interpolate", vae, "1", "2", "-n", 5, "--path", "lerp", "-o", "lerp.png")
    done("interpolate", vae, "1", "2", "-n", 5, "--path", "slerp", "-o", "slerp.png")
    lerp, slerp = pixels(Path("lerp.png")).astype(int), pixels(Path("slerp.png")).astype(int)
    assert abs(lerp[:, 2:18] - slerp[:, 2:18]).max() <= 1
    assert abs(lerp[:, 74:90] - slerp[:, 74:90]).max() <= 1
    assert not np.array_equal(lerp[:, 38:54], slerp[:, 38:54])


def test_interpolate_as_an_animation_there_and_back(vae: Path) -> None:
    shown = document("interpolate", vae, "1", "2", "-n", 4, "--gif", "-o", "way.png", "--json")
    assert shown["files"] == ["way.png", "way.gif"]
    with Image.open("way.gif") as animation:
        assert (animation.format, animation.size, animation.n_frames) == ("GIF", (16, 16), 6)
        assert animation.info["loop"] == 0


def test_interpolate_in_noise_by_projection(aegan: Path, pictures: Path) -> None:
    files = sorted(pictures.rglob("*.png"))
    words = ["interpolate", aegan, files[0], files[1], "-n", 3, "--steps", 4, "--restarts", 2, "--json"]
    shown = document(*words, "-o", "auto.png")
    assert shown["space"] == "noise"
    assert len(shown["projection_errors"]) == 2
    assert all(0 < error < 1 for error in shown["projection_errors"])
    assert document(*words, "-o", "noise.png", "--space", "noise")["projection_errors"] == shown["projection_errors"]
    assert Path("auto.png").read_bytes() == Path("noise.png").read_bytes()
    assert document(*words, "-o", "code.png", "--space", "code")["space"] == "code"
    assert Path("code.png").read_bytes() != Path("noise.png").read_bytes()
    mixed = document("interpolate", aegan, files[0], "seed:1", "-n", 3, "--steps", 2, "--json")
    assert len(mixed["projection_errors"]) == 1


# ---- the journey: looking ------------------------------------------------------------------------------------------------------------


def test_models_lists_every_file_of_the_zoo() -> None:
    listed = document("models", "--json")
    assert set(listed) == {p.stem.replace("_", "-") for p in (REPOSITORY / "models" / "zoo").glob("*.py") if p.stem[0] != "_"}
    shown = done("models")
    for name, summary in listed.items():
        assert summary
        assert name in shown


def test_models_describes_one() -> None:
    shown = document("models", "vae", "--json")
    assert shown["name"] == "vae"
    assert "Kingma and Welling" in shown["about"]
    latent = next(option for option in shown["options"] if option["name"] == "latent")
    assert latent == {"name": "latent", "takes": "int, 1 to 8192", "default": "64", "help": "dimensions of the code"}
    assert shown["presets"]["quick"] == {
        "images": 80_000,
        "batch": 128,
        "options": {"widths": [32, 64, 128, 256]},
        "about": "a look within a few minutes",
    }
    text = done("models", "vae")
    assert re.search(r"quick +80,000 +128 +a look within a few minutes +widths=32,64,128,256", text)
    assert "Kingma and Welling" in text
    assert "int, 1 to 8192" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_model_fits_the_terminal_and_no_value_is_torn(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_watched", lambda: True)
    shown = CliRunner(env={"COLUMNS": str(width)}).invoke(app, ["models", "aegan"]).stdout
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    for value in ("widths=128,256,512,1024", "hidden=1024,1024,1024,1024", "components=false", "10,000,000", "--dry-run"):
        assert value in shown
    prose = [line for line in lines[: next(n for n, line in enumerate(lines) if line.startswith("part"))] if line]
    assert sum(len(line) > width * 2 // 3 for line in prose) > len(prose) * 2 // 3  # no ragged halves of longer lines


@pytest.mark.parametrize(("width", "most"), [(60, 2), (80, 0)])
def test_help_tears_no_option_on_a_narrow_terminal(width: int, most: int) -> None:
    """At 60 columns two names have no room, --distance-weight of `lgm edit` and --sync-batch-norm of `lgm train`."""
    torn = 0
    for name in [file.stem for file in (REPOSITORY / "lgcli" / "commands").glob("*.py") if file.stem[0] != "_"]:
        lines = CliRunner(env={"COLUMNS": str(width)}).invoke(app, [name, "--help"]).stdout.splitlines()
        assert max(map(len, lines)) <= width
        torn += sum(re.match(r"│ +(-\S+ +)*-\S*…", line) is not None for line in lines)
    assert torn == most


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "about 1 s"), (41.4, "about 41 s"), (95, "about 2 min"), (840, "about 14 min"), (18_000, "about 5 h"), (3e6, "about 35 days")],
)
def test_times_that_nobody_knows_exactly(seconds: float, said: str) -> None:
    assert render.duration(seconds) == said


def test_data_lists_every_file_of_the_sets() -> None:
    listed = document("data", "--json")
    assert set(listed) == {p.stem.replace("_", "-") for p in (REPOSITORY / "models" / "data" / "sets").glob("*.py") if p.stem[0] != "_"}
    assert "any folder of images" in done("data")


def test_the_presets_that_are_read_from_the_source_are_the_model_s() -> None:
    for name, entry in MODELS.entries().items():
        cls = model_class(name)
        assert entry.presets() == dict(cls.presets)
        for preset in entry.presets().values():  # and as they are shown, they can be given
            assert check(cls.Config, parse_assignments(cls.Config, as_assignments(preset.options)), "") == cls.Config(**preset.options)


@pytest.mark.parametrize("presets", ["make()", "{**OTHERS}", "{'quick': Preset(80 * HUNDRED)}", "{'quick': Preset(imges=3)}"])
def test_presets_that_are_not_written_out_are_named(presets: str, tmp_path: Path) -> None:
    path = tmp_path / "computed.py"
    path.write_text(f"class Model:\n    presets = {presets}\n")
    with pytest.raises(ContractError, match="its presets cannot be read"):
        Entry("computed", path, "models.zoo").presets()


def test_data_info_shows_people_some_of_many_classes(tmp_path: Path) -> None:
    image = write_pictures(tmp_path / "one", 1) / "cross" / "000.png"
    for number in range(30):
        (tmp_path / "many" / f"c{number:02}").mkdir(parents=True)
        shutil.copy(image, tmp_path / "many" / f"c{number:02}")
    text = done("data", "info", tmp_path / "many")
    assert "name c19, count 1\n  and 10 more (--json lists them all)\n" in text
    assert "c20" not in text
    assert len(document("data", "info", tmp_path / "many", "--json")["classes"]) == 30


def test_info_shows_people_some_of_a_long_list(capsys: pytest.CaptureFixture[str]) -> None:
    render.mapping({"classes": [f"c{number:02}" for number in range(30)]}, False)
    assert capsys.readouterr().out.endswith("c18, c19, and 10 more (--json lists them all)\n\n")


def test_data_info(pictures: Path) -> None:
    shown = document("data", "info", pictures, "--json")
    assert (shown["count"], shown["height"], shown["width"], shown["channels"]) == (20, 16, 16, 1)
    assert shown["classes"] == [{"name": "cross", "count": 10}, {"name": "disc", "count": 10}]
    assert document("data", "info", pictures, "--size", "8x6", "--json")["height"] == 6
    assert "count: 20" in done("data", "info", pictures)


def test_data_check_of_good_files(pictures: Path) -> None:
    shown = document("data", "check", pictures, "--json")
    assert (shown["count"], shown["bad"], shown["shape"]) == (20, [], [16, 16, 1])
    assert done("data", "check", pictures).endswith("no bad files\n")


def test_data_check_lists_bad_files_and_exits_with_1(pictures: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pictures, tmp_path / "data"))
    bad = folder / "cross" / "000.png"
    bad.write_bytes(bad.read_bytes()[:-30])
    result = lgm("data", "check", folder)
    assert result.exit_code == 1
    assert f"  bad: {bad}: " in result.stdout
    assert result.stdout.endswith("\n1 bad file\n")
    assert result.stderr == ""
    result = lgm("data", "check", folder, "--json")
    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    assert [entry["file"] for entry in shown["bad"]] == [str(bad)]
    assert shown["count"] == 19
    assert result.stderr == ""
    assert str(bad) in refused("train", "vae", "--data", folder, "--batch", 8)


def test_info_of_a_run(aegan: Path) -> None:
    shown = document("info", aegan, "--json")
    assert (shown["model"], shown["images"], shown["of images"], shown["stage"]) == ("aegan", 96, 96, "latent GAN")
    assert (shown["height"], shown["width"], shown["channels"]) == (16, 16, 1)
    assert shown["checkpoint"] == str(newest(aegan))
    assert shown["checkpoints"] == [str(p) for p in sorted((aegan / "checkpoints").glob("images-*"))]
    assert shown["configuration"]["options"]["hidden"] == [16]
    text = done("info", aegan)
    assert "stage: latent GAN" in text
    assert "lr: 0.02" in text


def test_info_of_a_checkpoint_file(aegan: Path) -> None:
    first = sorted((aegan / "checkpoints").glob("images-*"))[0]
    shown = document("info", first, "--json")
    assert shown["checkpoint"] == str(first)
    assert shown["checkpoints"] == [str(first)]


def test_info_of_a_damaged_file(aegan: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(aegan, tmp_path / "run"))
    content = bytearray(newest(run).read_bytes())
    content[-100] ^= 1
    newest(run).write_bytes(content)
    for asked in (run, newest(run)):
        message = refused("info", asked)
        assert "incomplete or damaged (its sha256 digest does not match its content)" in message
        assert str(newest(run)) in message
        assert "use images-000000072.safetensors" in message


def test_version() -> None:
    from models.version import __version__

    assert done("--version") == f"lgm {__version__}\n"
