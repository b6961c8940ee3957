"""lgm mix"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lgcli import options as o

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from models.capabilities.trained import Trained

PANEL = "Use a trained model"
FRAMES = 8  # of an animation, from one column to the next


def mix(
    run: o.Run,
    rows: Annotated[
        list[str], typer.Argument(metavar="A...", help="Image files, items (mnist:test:17), seeds (3, or seed:3), or one data set.")
    ],
    others: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="B[,B...]", help="What is mixed in, a column for each; repeatable.", show_default="A again"),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|N-M,...",
            help="What B decides: coarse (pose, shape), middle, fine (colour), or layers by number; of ip-gan attributes or identity.",
            show_default="coarse, or attributes",
        ),
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", parser=o.count, metavar="N", help="How many images of a data set.")] = 6,
    output: o.Picture = None,
    scale: o.Scale = None,
    captions: o.Captions = False,
    gif: Annotated[bool, typer.Option("--gif", help="Write an animation beside the grid: every row walks from column to column.")] = False,
    data_root: o.DataRoot = None,
    device: o.Device = None,
    raw: o.Raw = False,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Mix images: a row for each A, a column for each B, and where they meet A with those layers of B that --layers names.

    Above each column stands B and before each row A, as the model makes them by themselves.
    """
    import numpy as np

    from lgcli import render
    from models import api
    from models.capabilities import pictures
    from models.capabilities.mix import codes, crossed, mixed, parse_layers, read_ends

    trained = api.load(run, device=device, raw=raw)
    chosen = parse_layers(trained.model, layers)  # what is wrong with them should be said before images are read
    path = o.picture_path(output, f"{api.name_of(run)}-mix", force)
    if gif:
        o.free_path(path.with_suffix(".gif"), force, "-o")
    names, ends, own = read_ends(trained, rows, number, o.root(data_root))
    words = [part for word in others or () for part in o.parts(word, os.path.exists(word))]
    their_names, theirs, their = read_ends(trained, words, number, o.root(data_root)) if words else (names, ends, own)
    columns = 1 + len(theirs)
    pictures.check_grid(columns * (1 + len(ends)), trained.model.spec.size, columns, scale=scale, captions=captions, animated=gif)
    one, other = codes(trained.model, ends), codes(trained.model, theirs)
    before, above = (mixed(trained.model, own, own, []) for own in (one, other))
    made = crossed(trained.model, one, other, chosen)
    headings = pictures.Captions(["", *their], ["", *own]) if captions else None
    written = [str(pictures.write(pictures.grid(_table(before, above, made), 1 + len(above), headings, scale), path))]
    if gif:
        headings = headings and pictures.Captions(before=headings.before[1:])
        frames = [pictures.grid(frame, 2, headings, scale) for frame in _frames(trained, one, other, chosen, before)]
        written.append(str(pictures.write_gif(np.stack(frames), path.with_suffix(".gif"))))
    found: dict[str, Any] = {"files": written, "rows": names, "columns": their_names, "layers": chosen}
    render.result(found, "\n".join(written), json)


def _table(before: np.ndarray, above: np.ndarray, made: np.ndarray) -> np.ndarray:
    """What a grid shows row by row, (N, H, W, C): images (rows, columns, H, W, C), above them the columns' own ones and before them the
    rows', and an empty corner."""
    import numpy as np

    lines = [np.concatenate([np.full_like(above[:1], 255), above])]
    lines += [np.concatenate([own[None], line]) for own, line in zip(before, made, strict=True)]
    return np.concatenate(lines)


def _frames(trained: Trained, one: Tensor, other: Tensor, layers: list[int], before: np.ndarray) -> list[np.ndarray]:
    """Each row's own image and, beside it, what it becomes while the columns' codes go from one to the next: (2 N, H, W, C) for each."""
    import numpy as np

    from models.capabilities.interpolate import through_all
    from models.capabilities.mix import crossed

    made = crossed(trained.model, one, through_all(other, FRAMES, "lerp"), layers)
    return [np.stack([before, now], 1).reshape(-1, *before.shape[1:]) for now in made.swapaxes(0, 1)]
