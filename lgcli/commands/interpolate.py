"""lgm interpolate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lgcli import options as o


def interpolate(
    run: o.Run,
    a: Annotated[str, typer.Argument(metavar="A", help="An image file, an item (mnist:test:17) or a seed (3, or seed:3).")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other end.")],
    number: Annotated[int, typer.Option("-n", "--number", parser=o.count, metavar="N", help="Images on the way, both ends included.")] = 10,
    path: Annotated[str, typer.Option(help="lerp (straight) or slerp (along the sphere).")] = "lerp",
    space: Annotated[str, typer.Option(help="auto, code (between encoder outputs) or noise (images are projected first).")] = "auto",
    steps: o.Steps = 300,
    restarts: o.Restarts = 4,
    seed: o.Seed = 0,
    label: o.Label = None,
    attributes: o.Attributes = None,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="The strip's file.", show_default="RUN's name-interpolation.png")
    ] = None,
    gif: Annotated[bool, typer.Option("--gif", help="Write an animation beside the strip.")] = False,
    data_root: o.DataRoot = None,
    device: o.Device = "auto",
    raw: o.Raw = False,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Walk from one image to another through the latent space: a strip, and an animation with --gif."""
    from lgcli import render
    from models import api, conditions, results
    from models.errors import UserError, nearest

    if path not in ("lerp", "slerp"):
        raise UserError(f"unknown path {path!r}", "--path", nearest(path, ("lerp", "slerp")))
    if number < 2:
        raise UserError("a way has two ends", "-n", "give 2 or more")
    trained = api.load(run, device=device, raw=raw)
    target = o.picture_path(output, f"{api.name_of(run)}-interpolation", force)
    animation = target.with_suffix(".gif")
    if gif:
        o.free_path(animation, force, "-o")
    with render.progress("projecting", steps) as advance:
        search = {"steps": steps, "restarts": restarts, "seed": seed, "progress": lambda done, total: advance(1)}
        way = trained.way(
            a,
            b,
            number=number,
            path=path,  # type: ignore[arg-type]
            space=space,  # type: ignore[arg-type]
            data_root=o.root(data_root),
            search=search,
            label=label or None,
            attributes=conditions.parse_attributes(attributes),
        )
    if way.shows and not (label or attributes):
        render.note(f"neither --label nor --attributes: the way shows {way.shows}")
    written = [str(results.write_grid(way.images, target, columns=number))]
    if gif:
        written.append(str(results.write_gif(way.images, animation)))
    lines = [*written, *([f"projected with a mean squared error of {', '.join(f'{e:.5f}' for e in way.errors)}"] if way.errors else [])]
    found = {"files": written, "space": way.space, "projection_errors": way.errors, **({"shows": way.shows} if way.shows else {})}
    render.result(found, "\n".join(lines), json)
