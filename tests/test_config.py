"""Configurations, their checks and texts, the registries, and the three-part errors. No torch."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from models import errors
from models.config import (
    Colour,
    Help,
    Range,
    RunConfig,
    Seed,
    Size,
    check,
    expected,
    fields_of,
    flags_of,
    parse_assignments,
    parse_count,
    parse_flags,
    to_json,
)
from models.errors import LgmError, UserError, nearest, printable
from models.registry import MODELS, SETS, Registry, model_class


@dataclass(frozen=True)
class Sample:
    """One field of every kind."""

    whole: int = 1
    real: float = 1.0
    text: str = "a"
    flag: bool = False
    small: Annotated[int, Range(1, 9)] = 1
    rate: Annotated[float, Range(0, 1)] = 0.5
    sides: Annotated[tuple[int, ...], Range(1, 9)] = (1, 2)
    pair: tuple[int, int] = (1, 2)
    maybe: int | None = None
    kind: Literal["red", "green"] = "red"
    half: Literal[1, 2] = 1


GOOD: list[tuple[str, Any]] = [
    ("whole", -5),
    ("whole", 10**30),
    ("real", -0.5),
    ("text", ""),
    ("flag", True),
    ("small", 1),
    ("small", 9),
    ("rate", 0.0),
    ("rate", 1.0),
    ("sides", (9, 1, 5)),
    ("pair", (0, -1)),
    ("maybe", None),
    ("maybe", 7),
    ("kind", "green"),
    ("half", 2),
]

BAD: list[tuple[str, Any]] = [
    ("whole", 1.0),
    ("whole", True),
    ("whole", "1"),
    ("whole", None),
    ("real", "1.0"),
    ("real", True),
    ("real", float("nan")),
    ("real", float("inf")),
    ("text", 3),
    ("flag", 1),
    ("flag", "true"),
    ("small", 0),
    ("small", 10),
    ("rate", 1.0001),
    ("rate", -1e-9),
    ("sides", (0, 1)),
    ("sides", (1, 10)),
    ("sides", 3),
    ("sides", "12"),
    ("sides", (1, 2.5)),
    ("pair", (1,)),
    ("pair", (1, 2, 3)),
    ("pair", None),
    ("maybe", "x"),
    ("maybe", 1.5),
    ("kind", "blue"),
    ("kind", ["red"]),
    ("half", 3),
]


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_values_that_fit_are_taken(name: str, value: Any) -> None:
    made = getattr(check(Sample, {name: value}, "here"), name)
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(("name", "value"), BAD)
def test_values_that_do_not_fit_name_the_field_and_what_it_takes(name: str, value: Any) -> None:
    with pytest.raises(UserError) as error:
        check(Sample, {name: value}, "file.json")
    assert error.value.where == f"file.json {name}"
    assert re.fullmatch(rf"{name}=.+ is not allowed", error.value.what)
    assert error.value.fix.startswith(f"{name} takes ")


def test_a_whole_number_becomes_a_float_and_a_list_a_tuple() -> None:
    made = check(Sample, {"real": 3, "sides": [4, 5], "pair": [6, 7]}, "here")
    assert (made.real, made.sides, made.pair) == (3.0, (4, 5), (6, 7))
    assert type(made.real) is float


def test_unknown_and_missing_fields() -> None:
    with pytest.raises(UserError, match="unknown option 'wole': here") as error:
        check(Sample, {"wole": 1}, "here")
    assert "did you mean 'whole'?" in error.value.fix
    with pytest.raises(UserError, match=r"incomplete configuration .*'data'"):
        check(RunConfig, {"model": "vae"}, "here")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("whole", "int"),
        ("flag", "true or false"),
        ("text", "text"),
        ("small", "int, 1 to 9"),
        ("rate", "float, 0 to 1"),
        ("sides", "a list of int, 1 to 9"),
        ("pair", "2 values: int"),
        ("maybe", "int or none"),
        ("kind", "one of: red, green"),
        ("half", "one of: 1, 2"),
    ],
)
def test_what_a_field_takes_in_words(name: str, words: str) -> None:
    assert expected(fields_of(Sample)[name]) == words


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("whole=60k", 60_000),
        ("whole=-3", -3),
        ("real=1e-3", 0.001),
        ("real=2", 2.0),
        ("text=a=b", "a=b"),
        ("text=", ""),
        ("flag=yes", True),
        ("flag=0", False),
        ("sides=4,8", (4, 8)),
        ("sides=(4, 8,)", (4, 8)),
        ("sides=[3]", (3,)),
        ("pair=5,6", (5, 6)),
        ("maybe=none", None),
        ("maybe=3", 3),
        ("kind=green", "green"),
        ("half=2", 2),
        (" small = 4 ", 4),
    ],
)
def test_assignments_become_typed_values(text: str, value: Any) -> None:
    ((_, made),) = parse_assignments(Sample, [text]).items()
    assert made == value
    assert type(made) is type(value)


def test_the_last_assignment_counts_and_dashes_are_underscores() -> None:
    assert parse_assignments(Sample, ["whole=1", "small=2", "whole=3"]) == {"whole": 3, "small": 2}
    assert parse_assignments(RunConfig, ["save-every=5"]) == {"save_every": 5}
    assert parse_assignments(Sample, []) == {}


@pytest.mark.parametrize("text", ["whole", "whole=x", "whole=1.5", "flag=perhaps", "pair=1", "small=0", "kind=blue", "nosuch=1", "=1", ""])
def test_assignments_that_fail_name_the_flag(text: str) -> None:
    with pytest.raises(UserError) as error:
        parse_assignments(Sample, [text], "--set")
    assert error.value.where.startswith("--set")
    assert error.value.fix


@dataclass(frozen=True)
class Asked:
    """Fields as options."""

    many_images: Annotated[int, Range(1, 9), Help("how many", flags=("-n", "--number"))] = 1
    seed: Annotated[Seed, Help("a seed")] = 0
    size: Annotated[Size, Help("a size")] | None = None
    colour: Annotated[Colour, Help("a colour")] = (0, 0, 0)
    kind: Annotated[Literal["red", "green"], Help("a kind")] = "red"
    some_file: Annotated[Path, Help("a file")] | None = None
    place: Annotated[str, Help("a place")] | None = None
    raw: Annotated[bool, Help("a switch")] = False
    cached: Annotated[bool, Help("a switch that turns off", flags=("--no-cache",))] = True
    compile: Annotated[bool, Help("a switch with two names", flags=("--compile/--no-compile",))] = False


@pytest.mark.parametrize(
    ("name", "said", "value"),
    [
        ("many_images", "9", 9),
        ("seed", str(2**64 - 1), 2**64 - 1),
        ("size", "64", (64, 64)),
        ("size", "64X48", (48, 64)),
        ("colour", "white", (255, 255, 255)),
        ("colour", "#0a0B0c", (10, 11, 12)),
        ("kind", "green", "green"),
        ("some_file", "a/b.c", Path("a/b.c")),
        ("place", "none", "none"),
        ("raw", True, True),
        ("cached", True, False),
        ("compile", True, True),
        ("compile", False, False),
    ],
)
def test_what_options_say_becomes_typed_values(name: str, said: str | bool, value: Any) -> None:
    assert parse_flags(Asked, {name: said}) == {name: value}


@pytest.mark.parametrize(
    ("name", "said", "flag", "takes"),
    [
        ("many_images", "10", "-n", "int, 1 to 9"),
        ("seed", "1e3", "--seed", "a whole number from 0 to 2^64 - 1"),
        ("size", "none", "--size", "64, or WIDTHxHEIGHT such as 64x48, up to 4096; in Python (height, width)"),
        ("colour", "0x0000", "--colour", "white, black or #rrggbb; in Python (red, green, blue)"),
        ("kind", "gren", "--kind", "one of: red, green; did you mean 'green'?"),
    ],
)
def test_options_that_do_not_fit_name_the_flag(name: str, said: str, flag: str, takes: str) -> None:
    with pytest.raises(UserError) as error:
        parse_flags(Asked, {name: said})
    assert (error.value.what, error.value.where, error.value.fix) == (f"{name}={said} is not allowed", flag, f"{name} takes {takes}")


def test_a_field_is_called_as_it_is_or_as_it_says() -> None:
    found = {name: flags_of(name, annotation) for name, annotation in fields_of(Asked).items()}
    assert found["some_file"] == ("--some-file",)
    assert found["many_images"] == ("-n", "--number")


@pytest.mark.parametrize(
    ("text", "number"),
    [("12", 12), ("60k", 60_000), ("1.5M", 1_500_000), ("2G", 2 * 10**9), ("1e6", 10**6), ("1_000", 1000), (" 7 ", 7), ("-3", -3)],
)
def test_counts(text: str, number: int) -> None:
    assert parse_count(text) == number
    assert type(parse_count(text)) is int


@pytest.mark.parametrize("text", ["", "k", "many", "1.5", "0.0001k", "inf", "nan", "1e400", "1 2", "0x10", "1kk"])
def test_what_is_no_count_stays_text(text: str) -> None:
    assert parse_count(text) == text


# ---- the record of a run -------------------------------------------------------------------------------------------------------------


def test_run_config_survives_json() -> None:
    more: dict[str, Any] = {"size": (20, 30), "background": (1, 2, 3), "seed": 2**64 - 1}
    more |= {"parts": {"base": "x"}, "sources": {"to": "svhn"}}
    config = RunConfig("vae", "a folder", {"widths": (4, 8), "lr": 1e-3}, **more)
    text = to_json(config)
    assert "\n" not in text
    again = check(RunConfig, json.loads(text), "file")
    assert again == RunConfig(**{**vars(config), "options": {"widths": [4, 8], "lr": 1e-3}})  # the model's own Config makes it a tuple
    assert to_json(again) == text


@pytest.mark.parametrize(
    ("field", "bad"),
    [("images", 0), ("batch", 0), ("seed", -1), ("seed", 2**64), ("precision", "fp16"), ("size", [16]), ("channels", 1), ("keep", 1)],
)
def test_run_config_refuses(field: str, bad: Any) -> None:
    with pytest.raises(UserError, match=f"here {field}"):
        check(RunConfig, {"model": "vae", "data": "x", field: bad}, "here")


def test_what_may_change_on_resume_are_fields() -> None:
    assert set(RunConfig.FREE) <= set(fields_of(RunConfig))


@pytest.mark.parametrize("name", sorted(MODELS.entries()))
def test_every_model_s_config_survives_json_and_every_preset_is_valid(name: str) -> None:
    cls = model_class(name)
    assert set(cls.presets) >= {"quick", "default", "paper"}
    for preset in cls.presets.values():
        config = check(cls.Config, preset.options, "preset")
        assert check(cls.Config, json.loads(to_json(config)), "file") == config
        check(RunConfig, {"model": name, "data": "x", "images": preset.images, "batch": preset.batch}, "preset")


# ---- registries ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MODELS.entries()))
def test_options_read_from_the_source_are_the_config_s(name: str) -> None:
    entry = MODELS.find(name)
    config = model_class(name).Config
    options = entry.options()
    assert [o.name for o in options] == list(fields_of(config))
    for option in options:
        assert option.help, f"{option.name} has no trailing comment"
        assert option.takes
        assert eval(option.default) == getattr(config(), option.name)
    assert entry.summary.endswith(".")
    assert entry.path.stem.replace("_", "-") == name


@pytest.mark.parametrize("name", sorted(SETS.entries()))
def test_every_data_set_says_what_it_is(name: str) -> None:
    assert SETS.find(name).summary


def test_options_in_words(tmp_path: Path) -> None:
    (tmp_path / "my_model.py").write_text(
        '"""Summary line.\n\nMore."""\nclass Config:\n'
        "    width: Annotated[int, Range(1, 9)] = 3  # how wide\n"
        '    kind: Literal["a", "b"] = "a"  # which # one\n'
        "    sizes: Annotated[tuple[int, ...], Range(1, 9)] = (\n        1,\n        2,\n    )  # several\n"
        "    plain: float = 1e-3\n"
    )
    (tmp_path / "_hidden.py").write_text("raise RuntimeError")
    registry = Registry("thing", tmp_path, "things", "lgm things")
    assert list(registry.entries()) == ["my-model"]
    entry = registry.find("my_model")
    assert (entry.summary, entry.docstring) == ("Summary line.", "Summary line.\n\nMore.")
    assert [(o.name, o.takes, o.default, o.help) for o in entry.options()] == [
        ("width", "int, 1 to 9", "3", "how wide"),
        ("kind", "a | b", "'a'", "which # one"),
        ("sizes", "ints with commas between, 1 to 9", "(1, 2)", "several"),
        ("plain", "float", "0.001", ""),
    ]


@pytest.mark.parametrize("name", ["../vae", "vae.py", "models.zoo.vae", "", "VAE", "__init__", ".", "va" * 9999])
def test_the_registry_knows_names_and_nothing_else(name: str) -> None:
    with pytest.raises(UserError, match="unknown model") as error:
        MODELS.find(name)
    assert "known: aegan, " in error.value.fix
    assert len(str(error.value)) < 1000


# ---- errors --------------------------------------------------------------------------------------------------------------------------


def test_an_error_says_what_where_and_what_to_do() -> None:
    assert str(UserError("too small", "--batch", "use 8")) == "too small: --batch\n  fix: use 8"
    assert str(UserError("too small")) == "too small"
    assert UserError("x").exit_code == 2
    assert errors.RunFailed("x").exit_code == errors.ContractError("x").exit_code == 1
    assert errors.Interrupted(15, "x").exit_code == 143
    assert issubclass(errors.Interrupted, LgmError)


def test_nearest() -> None:
    assert nearest("aegna", ["vae", "aegan"]) == "did you mean 'aegan'? known: aegan, vae"
    assert nearest("AEGAN", ["vae", "aegan"]) == "did you mean 'aegan'? known: aegan, vae"
    assert nearest("zzz", ["vae", "aegan"]) == "known: aegan, vae"
    assert nearest("x", []) == "known: none"


@pytest.mark.parametrize(
    ("thing", "shown"),
    [
        ("plain ünïcödé 🦆", "plain ünïcödé 🦆"),
        ("a\nb\tc\0", r"a\nb\tc\x00"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\u202e", r"\u202e"),
        ("\udcff", r"\udcff"),
        (Path("x/y"), "x/y"),
        ("a" * 1000, "a" * 150 + "..." + "a" * 150),
    ],
)
def test_printable(thing: object, shown: str) -> None:
    assert printable(thing) == shown
    printable(thing).encode("utf-8")
