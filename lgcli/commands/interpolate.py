"""lgm interpolate"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lgcli import options as o

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.capabilities.pictures import Captions

PANEL = "Use a trained model"


def interpolate(
    run: o.Run,
    a: Annotated[str, typer.Argument(metavar="A", help="An image file, an item (mnist:test:17) or a seed (3, or seed:3).")],
    b: Annotated[
        str | None,
        typer.Argument(metavar="[B]", help="The other end; without it the way stays at A, between two labels.", show_default=False),
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", parser=o.count, metavar="N", help="Images on the way, both ends included.")] = 10,
    grid: Annotated[bool, typer.Option("--grid", help="N rows from label to label, or of --layers, each from A to B.")] = False,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|N-M,...",
            help="What alone changes, for a model that mixes: identity or attributes (ip-gan), coarse, fine, ... (style-alae).",
            show_default="all",
        ),
    ] = None,
    path: Annotated[str, typer.Option(help="lerp (straight) or slerp (along the sphere).")] = "lerp",
    space: Annotated[str, typer.Option(help="auto, code (between encoder outputs) or noise (images are projected first).")] = "auto",
    steps: o.Steps = 300,
    restarts: o.Restarts = 4,
    seed: o.Seed = 0,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[,NAME]", help="What a conditional model shows: one, or from one to another.", show_default=False),
    ] = None,
    attributes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=0|1,...", help="The same for models asked by attributes; give it twice for from and to.", show_default=False
        ),
    ] = None,
    output: o.Picture = None,
    scale: o.Scale = None,
    captions: o.Captions = False,
    gif: Annotated[bool, typer.Option("--gif", help="Write an animation beside the strip.")] = False,
    data_root: o.DataRoot = None,
    device: o.Device = None,
    raw: o.Raw = False,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Walk from one image to another through the latent space: a strip, and an animation with --gif.

    A conditional model also walks from one label to another (--label 3,8), from A to B at the same time, or both ways in a --grid.
    A model that mixes walks in some layers only (--layers identity); in a --grid in these downwards, in all else from left to right.
    """
    import numpy as np

    from lgcli import render
    from models import api
    from models.capabilities import pictures
    from models.capabilities.ask import size_of
    from models.capabilities.told import of_command
    from models.errors import UserError, nearest

    if path not in ("lerp", "slerp"):
        raise UserError(f"unknown path {path!r}", "--path", nearest(path, ("lerp", "slerp")))
    if number < 2:
        raise UserError("a way has two ends", "-n", "give 2 or more")
    if grid and gif:
        raise UserError("both --grid and --gif", "--gif", "a grid is no single way: leave one of them out")
    trained = api.load(run, device=device, raw=raw)
    drawn: dict[str, Any] = {"lists": number if grid else 1, "scale": scale, "captions": captions}
    pictures.check_grid(number, size_of(trained.model, "sample", "decode"), number, **drawn)
    target = o.picture_path(output, f"{api.name_of(run)}-interpolation", force)
    animation = target.with_suffix(".gif")
    if gif:
        o.free_path(animation, force, "-o")
    told = of_command(trained.model, label, attributes)
    with render.progress() as advance:
        search = {"steps": steps, "restarts": restarts, "seed": seed, "progress": partial(advance, "projecting")}
        way = trained.way(
            a,
            b,
            number=number,
            grid=grid,
            path=path,
            space=space,
            data_root=o.root(data_root),
            search=search,
            told=told,
            layers=layers,
        )
    if way.shows and not (label or attributes):
        render.note(f"neither --label nor --attributes: the way shows {way.shows}")
    words = _captions(way.ends, [] if told is None else told.names, number, grid, layers) if captions else None
    written = [str(pictures.write(pictures.grid(way.images, way.columns, words, scale), target))]
    if gif:
        frames = pictures.enlarged(way.images, scale or 1)
        if words is not None:
            frames = np.stack([pictures.grid([one], 1, pictures.Captions(below=[t]), scale) for one, t in zip(way.images, words.below)])
        written.append(str(pictures.write_gif(frames, animation)))
    lines = [*written, *([f"projected with a mean squared error of {', '.join(f'{e:.5f}' for e in way.errors)}"] if way.errors else [])]
    found = {"files": written, "space": way.space, "projection_errors": way.errors, **({"shows": way.shows} if way.shows else {})}
    render.result(found, "\n".join(lines), json)


def _captions(ends: Sequence[str], shown: list[str], number: int, grid: bool, layers: str | None) -> Captions:
    """Names at the ends of a way, and how far the others are; of a way between two labels, the labels."""
    from models.capabilities.pictures import Captions

    def along(words: Sequence[str]) -> list[str]:
        between = [f"{step / (number - 1):.2f}" for step in range(1, number - 1)]
        return [words[0], *between, words[-1]]

    if grid:
        return Captions(along(ends), along(shown or [f"{layers} of {end}" for end in ends]))
    if len(shown) == 2:
        ends = [f"{end}: {label}" for end, label in zip(ends, shown)] if len(ends) == 2 else shown
    return Captions(below=along(ends))
