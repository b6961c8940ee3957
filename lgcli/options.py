"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from models.config import parse_count
from models.errors import UserError


def count(text: str | int) -> int:
    """`60000`, `60k` or `1.5M` as a number above 0."""
    number = parse_count(str(text))  # Typer hands a default over as it is
    if not isinstance(number, int) or number < 1:
        raise typer.BadParameter(f"{text!r} is not a whole number above 0, such as 500, 60k or 1.5M")
    return number


def seed(text: str | int) -> int:
    text = str(text)
    if not (text.isascii() and text.isdigit()) or int(text) >= 2**64:
        raise typer.BadParameter(f"{text[:40]!r} is not a seed: a whole number from 0 to 2^64 - 1")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """`64` or `64x48` (width x height) as (height, width). Options say `Any`: for a tuple Typer would take two words from the line."""
    found = re.fullmatch(r"([0-9]{1,4})(?:x([0-9]{1,4}))?", text.lower())
    sides = (int(found[2] or found[1]), int(found[1])) if found else (0, 0)
    if not all(1 <= side <= 4096 for side in sides):
        raise typer.BadParameter(f"{text!r} is no size: write 64, or WIDTHxHEIGHT such as 64x48, up to 4096")
    return sides


def colour(text: str) -> tuple[int, int, int]:
    """`white`, `black` or `#rrggbb`."""
    digits = {"white": "ffffff", "black": "000000"}.get(text.lower(), text.lstrip("#"))
    try:
        value = int(digits, 16) if len(digits) == 6 else -1
    except ValueError:
        value = -1
    if value < 0:
        raise typer.BadParameter(f"{text!r} is no colour: write white, black or #rrggbb")
    return (value >> 16, value >> 8 & 255, value & 255)


Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or one checkpoint file.")]
Images = Annotated[
    list[str], typer.Argument(metavar="IMAGES...|DATA", help="Image files, items (mnist:test:17), or one data set or folder.")
]
ImageCount = Annotated[int, typer.Option("-n", "--number", parser=count, metavar="N", help="How many images of a data set.")]
Count = Annotated[int, typer.Option("-n", "--number", parser=count, metavar="N", help="How many.")]
Seed = Annotated[int, typer.Option(parser=seed, metavar="N", help="Same seed, same result.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", show_default="auto")]
DataRoot = Annotated[
    Path | None,
    typer.Option(envvar="LGM_DATA", metavar="DIR", help="Where named data sets lie, and are downloaded to.", show_default=False),
]
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
    typer.Option(metavar="NAME=0|1,...", help="The same for models asked by attributes; what is not named is 0.", show_default=False),
]
Steps = Annotated[int, typer.Option(parser=count, metavar="N", help="Steps of the projection's gradient search.")]
Restarts = Annotated[int, typer.Option(parser=count, metavar="N", help="Starts of the search for each image; the best is kept.")]
Size = Annotated[Any, typer.Option(parser=size, metavar="SIZE", help="64 or WIDTHxHEIGHT.", show_default="data's")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out.")]
Picture = Annotated[
    Path | None, typer.Option("-o", metavar="FILE", help="The picture's file, .png.", show_default="a new one, named after RUN")
]
Singles = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Write single images here instead of a grid.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what lies at the output.")]
Raw = Annotated[bool, typer.Option("--raw", help="Use the weights as trained, not their moving average.")]
Workers = Annotated[int, typer.Option(metavar="N", help="Threads that decode; 0: one per core. Changes no number.")]
Features = Annotated[str, typer.Option(metavar="NAME", help="inception, or classifier:RUN with a run of `lgm train classifier`.")]
Weights = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Inception weights (.pth or .safetensors).", show_default="downloaded once")
]
Resize = Annotated[str, typer.Option(help="For Inception: tensorflow (as published FIDs), or clean (antialiased).")]
FeaturePrecision = Annotated[str, typer.Option("--precision", help="Of the features: fp32, or bf16 (faster, moves a FID by a little).")]
FeatureBatch = Annotated[int, typer.Option("--batch", parser=count, metavar="N", help="Images a pass. Changes no number.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Compute a data set's statistics anew, and do not keep them.")]


def check_single_output(grid: Path | None, folder: Path | None) -> None:
    """A command writes its grid (-o) or single images (--out), not both."""
    if grid is not None and folder is not None:
        raise UserError("both -o and --out", "--out", "give -o FILE for a grid, or --out DIR for single images")


def picture_path(given: Path | None, default: str, force: bool) -> Path:
    """Where a picture goes: as given with -o, or `default.png`, numbered where that is taken, so that nothing is lost."""
    if given is not None:
        if given.suffix.lower() != ".png":
            raise UserError("pictures are written as PNG", f"-o {given}", "give a name that ends in .png")
        return free_path(given, force, "-o")
    number = 1
    while (path := Path(f"{default}.png" if number == 1 else f"{default}-{number}.png")).exists():
        number += 1
    return path


def free_path(path: Path, force: bool, flag: str) -> Path:
    """`path`, after making sure that nothing is lost by writing there."""
    if path.exists() and not force and not (path.is_dir() and not any(path.iterdir())):
        raise UserError("something lies there already", path, f"choose another {flag}, or give --force")
    if not path.parent.exists() and path.suffix:
        raise UserError("no such folder", path.parent, f"create it, or choose another {flag}")
    return path


def root(path: Path | None) -> str | None:
    return str(path) if path else None
