"""lgm inpaint"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import typer

from lgcli import options as o

PANEL = "Use a trained model"
SHOWN = (1, 5, 10)  # iterations in the grid where nobody says, as in the CVAE-GAN paper; and the last


def numbers(text: str) -> list[int]:
    """`1,5,10` as numbers above 0, in order and each once. Options say `Any`: for a list Typer would take several words."""
    return sorted({o.count(part.strip()) for part in text.split(",")})


def inpaint(
    run: o.Run,
    images: o.Images,
    mask: Annotated[
        str,
        typer.Option(
            metavar="KIND|FILE|DIR",
            help="box, center, half, random or stroke; or an image, white in the hole; or a folder with one per image.",
        ),
    ],
    iterations: Annotated[int, typer.Option(parser=o.count, metavar="N", help="How often encoder and decoder are asked.")] = 10,
    show: Annotated[
        Any, typer.Option(parser=numbers, metavar="N,...", help="Iterations in the grid.", show_default="1,5,10 and the last")
    ] = None,
    number: o.ImageCount = 16,
    seed: o.Seed = 0,
    label: o.Shown = None,
    attributes: o.Attributes = None,
    steps: o.Steps = 300,
    restarts: o.Restarts = 4,
    output: o.Picture = None,
    out: o.Singles = None,
    data_root: o.DataRoot = None,
    device: o.Device = None,
    raw: o.Raw = False,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Fill holes in images: a row for each, the original, what is known of it, and the completed image after some iterations.

    A model that encodes is asked again and again, and what is known is put back each time; one that only samples is searched by projection
    (--steps, --restarts). A conditional model is told what each image shows by --label or --attributes, one for all or one for each, or
    `--label true`; else its own classifier says what is most likely, before each iteration. --out writes the completed images.
    """
    from lgcli import render
    from models import api
    from models.capabilities import masks, pictures
    from models.capabilities.inpaint import picture
    from models.capabilities.told import of_command
    from models.errors import UserError

    o.check_single_output(output, out)
    shown = show or sorted({*(n for n in SHOWN if n <= iterations), iterations})
    if shown[-1] > iterations:
        raise UserError(f"iteration {shown[-1]} of {iterations}", "--show", "give numbers up to --iterations")
    trained = api.load(run, device=device, raw=raw)
    names, originals, truth = trained.gather(images, number, o.root(data_root))
    if out is None:
        pictures.check_grid(2 + len(shown), trained.model.spec.size, 2 + len(shown), lists=len(originals), singles=True)
    holes = masks.gather(mask, names, seed, trained.model.spec.size)
    told = of_command(trained.model, label, attributes, truth, trusting=False)
    path = o.picture_path(output, f"{api.name_of(run)}-inpainted", force) if out is None else o.free_path(out, force, "--out")
    with render.progress() as advance:
        search: dict[str, Any] = {"steps": steps, "restarts": restarts, "progress": partial(advance, "inpainting")}
        found = trained.inpaint(originals, holes, iterations=iterations, seed=seed, told=told, **search)
    if out is None:
        kept = [found.images[-1]] if found.projected else [found.images[n - 1] for n in shown]
        pictures.write(picture(originals, holes, kept), path)
    else:
        pictures.write_singles([found.images[-1]], out)
    made = {
        "mask": mask,
        "seed": seed,
        "by": "projection" if found.projected else "iteration",
        "iterations": len(found.images),
        **({"shown": [*shown]} if out is None and not found.projected else {}),
        "files": [str(path)],
    }
    _show(names, [] if found.told is None else found.told.names, found.start_error.tolist(), found.error.tolist(), made, json)


def _show(
    names: Sequence[str],
    labels: Sequence[str],
    start: Sequence[float],
    errors: Sequence[Sequence[float]],
    made: Mapping[str, Any],
    json: bool,
) -> None:
    """The errors inside the holes: of each image in the end, and the mean after each iteration.

    Args:
        labels: what each image was said to show; empty for a model without condition.
        start: each image's error before the first iteration. errors: of each iteration, each image's.
        made: how, and what was written: `files` are the paths.
    """
    from lgcli import render

    means = [sum(row) / len(row) for row in errors]
    before = sum(start) / len(start)
    if json:
        listed: list[dict[str, Any]] = [
            {"image": name, "start_error": first, "errors": [row[n] for row in errors], "error": errors[-1][n]}
            for n, (name, first) in enumerate(zip(names, start, strict=True))
        ]
        for item, label in zip(listed, labels):
            item["label"] = label
        render.document({**made, "mean_start_error": before, "mean_errors": means, "images": listed})
        return
    for n, (name, error) in enumerate(zip(names, errors[-1], strict=True)):
        print(f"{error:.5f}  {name}{f' as {labels[n]}' if labels else ''}")
    steps = ["projection"] if made["by"] == "projection" else map(str, range(1, len(means) + 1))
    table = render.table("iteration", "mean squared error inside the hole (black 0, white 1)")
    for step, mean in [("start", before), *zip(steps, means, strict=True)]:
        table.add_row(step, f"{mean:.5f}")
    render.show(table)
    print("\n".join(made["files"]))
