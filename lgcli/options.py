"""Options that several commands share, and options made of a configuration's fields."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from lgcli import complete
from models.config import EvaluationConfig, Help, RunConfig, extra, fields_of, flags_of, parse_count, parse_flags, present, read_seed
from models.errors import UserError

LARGEST, MANY = 10**12, 10_000  # of a number; of what is made or searched for at once


def options_of(config: type, *names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes options of a command from fields of a configuration: those that are named, or all that have a `Help`.

    They stand where `*` stands in the command's signature. The command receives, as `**settings`, those that were given, as typed values.
    """
    chosen = names or tuple(name for name, annotation in fields_of(config).items() if extra(annotation, Help))

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            said = {name: value for name in chosen if (value := given.pop(name)) is not None}
            command(**given, **parse_flags(config, said))

        own = inspect.signature(command, eval_str=True).parameters.values()
        before = [parameter for parameter in own if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        after = [parameter for parameter in own if parameter.kind is parameter.KEYWORD_ONLY]
        made = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_typed(config, name)) for name in chosen]
        run.__signature__ = inspect.Signature([*before, *made, *after])  # type: ignore[attr-defined]
        return run

    return decorate


def in_groups(groups: Mapping[str, Sequence[str]]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Shows a command's options under titles in its help: title -> parameters. What is not named stands under "Options"."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters = inspect.signature(command, eval_str=True).parameters
        for title, names in groups.items():
            for name in names:
                for told in get_args(parameters[name].annotation)[1:]:
                    told.rich_help_panel = title
        return command

    return decorate


def _typed(config: type, name: str) -> Any:
    """What Typer reads of an option: a switch, or a text that is left to `parse_flags`."""
    switch = get_args(present(fields_of(config)[name]))[0] is bool
    return Annotated[bool | None, option(config, name)] if switch else Annotated[str | None, option(config, name)]


def option(config: type, name: str) -> Any:
    """A field of a configuration for Typer, as its `Help` describes it."""
    annotation = fields_of(config)[name]
    told = extra(annotation, Help)
    assert told is not None, f"{config.__name__}.{name} has no Help"
    takes = get_args(present(annotation))[0]
    choices = "|".join(get_args(takes)) if get_origin(takes) is Literal else ""
    default = next(field.default for field in dataclasses.fields(config) if field.name == name)
    shown = told.default or ("" if default is None or takes is bool else str(default))
    return typer.Option(
        *flags_of(name, annotation),
        help=told.about,
        metavar=told.metavar or choices or ("N" if takes is int else None),
        show_default=shown or False,
        envvar=told.variable or None,
    )


def count(text: str | int) -> int:
    """`60000`, `60k` or `1.5M` as a number above 0."""
    number = parse_count(str(text))  # Typer hands a default over as it is
    if not isinstance(number, int) or number < 1:
        raise typer.BadParameter(f"{text!r} is not a whole number above 0, such as 500, 60k or 1.5M")
    if number > LARGEST:
        raise typer.BadParameter(f"{str(text)[:40]!r} is more than {LARGEST:.0e}")
    return number


def some(text: str | int) -> int:
    """A number above 0 of what is held in memory all at once."""
    number = count(text)
    if number > MANY:
        raise typer.BadParameter(f"{text!r} is more than {MANY:,}")
    return number


def steps(text: str | int) -> int:
    """`0`, `20` or `1k` as a number of steps, which may be none."""
    return 0 if str(text).strip() == "0" else count(text)


def seed(text: str | int) -> int:
    number = read_seed(str(text))
    if not isinstance(number, int):
        raise typer.BadParameter(f"{number[:40]!r} is not a seed: a whole number from 0 to 2^64 - 1")
    return number


Run = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run's folder, one checkpoint file, or hf://USER/NAME.", autocompletion=complete.runs),
]
Images = Annotated[
    list[str], typer.Argument(metavar="IMAGES...|DATA", help="Image files, items (mnist:test:17), or one data set or folder.")
]
ImageCount = Annotated[int, typer.Option("-n", "--number", parser=count, metavar="N", help="How many images of a data set.")]
Count = Annotated[int, typer.Option("-n", "--number", parser=count, metavar="N", help="How many.")]
Seed = Annotated[int, typer.Option(parser=seed, metavar="N", help="Same seed, same result.")]
Device = Annotated[str | None, option(RunConfig, "device")]
DataRoot = Annotated[Path | None, option(RunConfig, "data_root")]
Iterations = Annotated[
    Any,
    typer.Option(
        "--iterations",
        parser=steps,
        metavar="N",
        help="Steps in which answers are found.",
        show_default="10, or as trained",
    ),
]
Trace = Annotated[bool, typer.Option("--trace", help="Show the first answers after 0, 1, 2, 5, 20 steps, for a model that finds them so.")]
Label = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME,...",
        help="What a conditional model draws: names or numbers of classes (of identities: numbers). Repeat it for names with commas.",
        show_default=False,
    ),
]
Shown = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="NAME,...",
        help="What the images show, for a conditional model: one for all or one each, names or numbers; true: what the data say.",
        show_default=False,
    ),
]
Attributes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=0|1,...",
        help="The same for models asked by attributes; what is not named is 0. For one each, repeat it.",
        show_default=False,
    ),
]
Steps = Annotated[int, typer.Option(parser=count, metavar="N", help="Steps of the projection's gradient search.")]
Restarts = Annotated[int, typer.Option(parser=some, metavar="N", help="Starts of the search for each image; the best is kept.")]
Picture = Annotated[
    Path | None, typer.Option("-o", metavar="FILE", help="The picture's file, .png.", show_default="a new one, named after RUN")
]
Singles = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Write single images here instead of a grid.", show_default=False)
]
Scale = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=16,
        metavar="N",
        help="Enlarge each image N times, pixels become squares.",
        show_default="1, more with --captions",
    ),
]
Captions = Annotated[bool, typer.Option("--captions", help="Write on the grid what is where: classes, names, numbers.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what lies at the output.")]
Raw = Annotated[bool, option(EvaluationConfig, "raw")]


def check_single_output(grid: Path | None, folder: Path | None, captions: bool = False) -> None:
    """A command writes its grid (-o) or single images (--out), not both; captions stand on a grid."""
    if grid is not None and folder is not None:
        raise UserError("both -o and --out", "--out", "give -o FILE for a grid, or --out DIR for single images")
    if captions and folder is not None:
        raise UserError("both --captions and --out", "--captions", "captions stand on a grid: leave one of them out")
    if folder is not None and folder.suffix.lower() in (".png", ".gif"):
        raise UserError("--out names a folder for single images", f"--out {folder}", f"for one picture: -o {folder.with_suffix('.png')}")


def picture_path(given: Path | None, default: str, force: bool) -> Path:
    """Where a picture goes: as given with -o, or `default.png`, numbered where that is taken, so that nothing is lost."""
    if given is not None:
        return free_path(png(given, "-o"), force, "-o")
    number = 1
    while (path := Path(f"{default}.png" if number == 1 else f"{default}-{number}.png")).exists():
        number += 1
    return path


def png(path: Path, flag: str) -> Path:
    """`path` itself, the name of a picture."""
    if path.suffix.lower() != ".png":
        raise UserError("pictures are written as PNG", f"{flag} {path}", "give a name that ends in .png")
    return path


def free_path(path: Path, force: bool, flag: str) -> Path:
    """`path`, after making sure that nothing is lost by writing there."""
    if path.exists() and not force and not (path.is_dir() and not any(path.iterdir())):
        raise UserError("something lies there already", path, f"choose another {flag}, or give --force")
    if not path.parent.exists() and flag != "--out":  # a folder is made with all that it lies in
        raise UserError("no such folder", path.parent, f"create it, or choose another {flag}")
    return path


def check_trace(trace: bool, iterations: int | None) -> None:
    """A trace has its own numbers of steps."""
    if trace and iterations is not None:
        raise UserError("both --trace and --iterations", "--iterations", "a trace shows the answers after steps of its own: leave one out")


def parts(text: str, whole: bool) -> list[str]:
    """What stands between commas; all of it where it is `whole`, a name that has some."""
    return [text] if whole else [part.strip() for part in text.split(",") if part.strip()]


def root(path: Path | None) -> str | None:
    return str(path) if path else None
