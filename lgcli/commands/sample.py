"""lgm sample"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lgcli import options as o

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from models.capabilities.trained import Trained
    from models.training.distributed import Ranks

PANEL = "Use a trained model"
SAMPLES, A_CLASS, CLASSES = 64, 8, 20  # drawn where nothing is said: images, or images of each class, of so many classes at most


def sample(
    run: o.Run,
    number: Annotated[
        int | None,
        typer.Option(
            "-n", "--number", parser=o.count, metavar="N", help="How many; of a class: how many of each.", show_default="64, of a class 8"
        ),
    ] = None,
    seed: o.Seed = 0,
    label: o.Label = None,
    attributes: o.Attributes = None,
    like: Annotated[
        list[str] | None,
        typer.Option(metavar="FACE", help="Draw who is in this image or item (ip-gan); a row for each, repeatable.", show_default=False),
    ] = None,
    truncation: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            help="Less variety, fewer failures: cut the noise off at plus and minus T; of alae, keep T of the codes' way from their mean.",
            show_default="none",
        ),
    ] = None,
    output: o.Picture = None,
    scale: o.Scale = None,
    captions: o.Captions = False,
    out: o.Singles = None,
    batch: Annotated[int, typer.Option(parser=o.count, metavar="N", help="Images held in memory at a time; changes no image.")] = 256,
    columns: Annotated[
        int | None, typer.Option(parser=o.count, metavar="N", help="Columns of the grid.", show_default="square, or a row a class")
    ] = None,
    data_root: o.DataRoot = None,
    device: o.Device = None,
    raw: o.Raw = False,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Draw new images: a grid, or single files. Image i depends on the seed, and on what it shows, alone.

    A conditional model draws a row for each class, by default for all of them; images in one column are made from the same noise. Under
    torchrun, single files are drawn by all processes together.
    """
    import numpy as np

    from lgcli import render
    from models import api
    from models.capabilities import pictures
    from models.capabilities import told as t
    from models.capabilities.ask import size_of
    from models.errors import UserError
    from models.training.distributed import process_group

    o.check_single_output(output, out, captions)
    trained = api.load(run, device=device, raw=raw)
    if like:
        if label or attributes or truncation is not None:
            raise UserError("--like with --label, --attributes or --truncation", "--like", "the image says who is drawn: leave them out")
        if columns is not None:
            raise UserError("--like with --columns", "--columns", "every face has a row of its own: leave it out")
        look: dict[str, Any] = {"scale": scale, "captions": captions}
        with process_group(trained.device) as ranks:  # a few images: one process's work
            if ranks.writes:
                _like(trained, like, number or A_CLASS, seed, (output, out, force), o.root(data_root), api.name_of(run), look, json)
        return
    asked = t.of_command(trained.model, label, attributes, together=True)
    drawn = asked.different if asked is not None else t.every(trained.model, CLASSES)
    classes = [] if drawn is None or drawn.kind == "attributes" else drawn.names
    count = number or (A_CLASS if classes else SAMPLES)
    blocks = partial(trained.sample_blocks, seed=seed, batch=batch, told=drawn, truncation=truncation)
    blocks(count)  # what is wrong is said before anything is drawn
    total = count * max(len(classes), 1)
    made: dict[str, Any] = {"images": total, "seed": seed}
    made |= {"labels": classes} if classes else {}
    made |= {"truncation": truncation} if truncation is not None else {}
    if out is None:
        size = size_of(trained.model, "sample")
        across, lists = columns or (count if classes else None), max(len(classes), 1)
        pictures.check_grid(count, size, across, lists, singles=True, scale=scale, captions=captions)
    with process_group(trained.device) as ranks:
        if asked is None and ranks.writes:
            _say_what_is_drawn(trained, classes)
        if out is not None:
            _singles(blocks, count, out, drawn.stems if drawn is not None and classes else (), force, scale, ranks)
            made["files"] = total
        elif ranks.writes:  # a grid is one process's work
            path = o.picture_path(output, f"{api.name_of(run)}-samples", force)
            with render.progress() as advance:
                drawing = pictures.counted(blocks(count), lambda done: advance("sampling", done, total))
                images = np.concatenate(list(drawing))
            if classes:
                picture = pictures.rows(np.split(images, len(classes)), columns or count, classes if captions else (), scale)
            else:
                words = pictures.Captions(below=[str(n) for n in range(count)]) if captions else None
                picture = pictures.grid(images, columns, words, scale)
            pictures.write(picture, path)
        if not ranks.writes:
            return
    place = str(path) if out is None else str(out)
    render.result({"grid" if out is None else "folder": place, **made}, place if out is None else f"{out}: {total} images", json)


def _singles(
    blocks: Callable[..., Iterator[np.ndarray]], count: int, out: Path, stems: Sequence[str], force: bool, scale: int | None, ranks: Ranks
) -> None:
    """This process's share of the files: of each class, the images between two numbers."""
    from contextlib import nullcontext

    from lgcli import render
    from models.capabilities import pictures

    with ranks.first_alone():
        if ranks.writes:
            pictures.make_folder(o.free_path(out, force, "--out"))
    first, last = (count * number // ranks.world for number in (ranks.rank, ranks.rank + 1))
    if last > first:
        shown = render.progress() if ranks.writes else nullcontext(lambda *_: None)
        with shown as advance:
            total = (last - first) * max(len(stems), 1)
            drawn = pictures.counted(blocks(last - first, first=first), lambda done: advance("sampling", done, total))
            pictures.write_singles(drawn, out, stems, last - first, scale, first)
    ranks.barrier()  # the command ends when all is there


def _like(
    trained: Trained,
    faces: list[str],
    count: int,
    seed: int,
    written: tuple[Path | None, Path | None, bool],
    data_root: str | None,
    name: str,
    look: dict[str, Any],
    json: bool,
) -> None:
    """A row for each face: itself, and others of the same person; or single files. `written` are -o, --out and --force, `look` --scale
    and --captions."""
    import numpy as np

    from lgcli import render
    from models.capabilities import pictures
    from models.capabilities.inputs import short

    output, out, force = written
    images = trained.images(faces, data_root)
    if out is None:
        pictures.check_grid(1 + count, trained.model.spec.size, 1 + count, lists=len(faces), singles=True, **look)
    made = trained.resemble(images, count, seed)
    path = o.picture_path(output, f"{name}-samples", force) if out is None else o.free_path(out, force, "--out")
    if out is None:
        names = [short(face) for face in faces] if look["captions"] else ()
        rows = [np.concatenate([own[None], its]) for own, its in zip(images, made)]
        pictures.write(pictures.rows(rows, 1 + count, names, look["scale"]), path)
    else:
        pictures.write_singles(made, out, pictures.numbered(len(faces)), count, look["scale"])
    found = {"grid" if out is None else "folder": str(path), "images": len(faces) * count, "seed": seed, "like": faces}
    render.result(found, str(path), json)


def _say_what_is_drawn(trained: Trained, classes: list[str]) -> None:
    """A note for a conditional model that nobody has asked for anything."""
    from lgcli import render
    from models.capabilities.told import every

    if trained.condition == "attributes":
        render.note(f"no --attributes: all are 0 ({', '.join(trained.model.spec.attributes)})")
    elif classes:
        number = len(every(trained.model) or ())
        some = f"all {number}" if len(classes) == number else f"the first {len(classes)} of {number}"
        render.note(f"no --label: {some} are drawn, a row each ({', '.join(classes)})")
