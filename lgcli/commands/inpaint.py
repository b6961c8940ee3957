"""lgm inpaint"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lgcli import options as o

if TYPE_CHECKING:
    import numpy as np

    from models.capabilities.pictures import Captions
    from models.capabilities.trained import Trained

PANEL = "Use a trained model"
TIMES = 10  # that encoder and decoder are asked where nobody says
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
    iterations: o.Iterations = None,
    variants: Annotated[
        Any,
        typer.Option(parser=o.some, metavar="N", help="Completions of each image, by a model that has learned to.", show_default="5"),
    ] = None,
    trace: o.Trace = False,
    gif: Annotated[bool, typer.Option("--gif", help="With --trace: write it as an animation, too.")] = False,
    show: Annotated[
        Any, typer.Option(parser=numbers, metavar="N,...", help="Iterations in the grid.", show_default="1,5,10 and the last")
    ] = None,
    number: o.ImageCount = 16,
    seed: o.Seed = 0,
    label: o.Shown = None,
    attributes: o.Attributes = None,
    steps: Annotated[
        Any, typer.Option(parser=o.count, metavar="N", help="Steps of a projection's gradient search.", show_default="300")
    ] = None,
    restarts: Annotated[
        Any, typer.Option(parser=o.some, metavar="N", help="Starts of that search for each image; the best is kept.", show_default="4")
    ] = None,
    output: o.Picture = None,
    scale: o.Scale = None,
    captions: o.Captions = False,
    out: o.Singles = None,
    data_root: o.DataRoot = None,
    device: o.Device = None,
    raw: o.Raw = False,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Fill holes in images: a row for each, the original, what is known of it, and the completed image after some iterations.

    A model that has learned to complete images gives several answers (--variants), and shows with --trace how it finds them. Another one
    that encodes is asked again and again, and what is known is put back each time; one that only samples is searched by projection
    (--steps, --restarts). A conditional model is told what each image shows by --label or --attributes, one for all or one for each, or
    `--label true`; else its own classifier says what is most likely, before each iteration. --out writes the completed images.
    """
    from lgcli import render
    from models import api
    from models.base import Completes, Encodes
    from models.capabilities import masks, pictures
    from models.capabilities.ask import TRACE
    from models.capabilities.inpaint import picture
    from models.capabilities.inputs import one_set
    from models.capabilities.told import of_command
    from models.data.load import parse
    from models.errors import UserError
    from models.registry import SETS

    o.check_single_output(output, out, captions)
    if gif and not trace:
        raise UserError("an animation shows the way to an answer", "--gif", "add --trace")
    if out is not None and trace:
        raise UserError("both --out and --trace", "--trace", "a way is shown in a grid: leave one of them out")
    o.check_trace(trace, iterations)
    trained = api.load(run, device=device, raw=raw)
    answers = (variants or 5) if isinstance(trained.model, Completes) else 0
    if answers and (show or label or attributes):
        raise UserError("this model is told nothing but the image and its hole", "--show" if show else "--label", "leave it out")
    if not answers and (variants or trace):
        raise UserError("this model has one answer to a hole", "--variants" if variants else "--trace", "leave it out")
    asks = not answers and isinstance(trained.model, Encodes)  # again and again; or else it is searched once
    if (asks or answers) and (steps or restarts):
        raise UserError("this model's noise is not searched", "--steps" if steps else "--restarts", "leave it out")
    if not asks and not answers and (show or iterations is not None):
        raise UserError("this model is searched once, not asked again", "--show" if show else "--iterations", "leave it out")
    if out is not None and show:
        raise UserError("both --out and --show", "--show", "iterations are shown in a grid: leave one of them out")
    times = TIMES if iterations is None else iterations
    shown = [] if answers else _shown(show, times)
    names, originals, truth, short = trained.gather(images, number, o.root(data_root))
    if out is None:
        columns = 2 + (len(TRACE) if trace else answers or len(shown))
        lists, singles = len(originals) * (answers if trace else 1), not trace
        pictures.check_grid(columns, trained.model.spec.size, columns, lists, singles, scale, captions, animated=gif)
    own_way = one_set(images) and parse(images[0]).name in SETS.entries()  # a named set's files are cropped as that set's usually are
    holes = masks.gather(mask, names, seed, trained.model.spec.size, "" if own_way else trained.header.config.fit)
    told = of_command(trained.model, label, attributes, truth, trusting=False)
    path = o.picture_path(output, f"{api.name_of(run)}-inpainted", force) if out is None else o.free_path(out, force, "--out")
    made: dict[str, Any] = {"mask": mask, "seed": seed, "files": [str(path)]}
    if answers:
        if gif:
            made["files"].append(str(o.free_path(path.with_suffix(".gif"), force, "-o")))
        complete = partial(_completions, trained, originals, holes, answers, seed)
        if trace:
            before = [name for name in short for _ in range(answers)] if captions else None
            _trace(complete, names, originals.repeat(answers, 0), holes.repeat(answers, 0), made, before, scale, json)
            return
        completed = complete(iterations)
        if out is None:
            words = _captions([str(1 + k) for k in range(answers)], short) if captions else None
            pictures.write(picture(originals, holes, list(completed.swapaxes(0, 1)), words, scale), path)
        else:
            pictures.write_singles(completed, path, pictures.numbered(len(names)), answers, scale)
        _answer(completed, names, originals, holes, made, json)
        return
    with render.progress() as advance:
        search: dict[str, Any] = {"progress": partial(advance, "inpainting")}
        search |= {name: given for name, given in {"steps": steps, "restarts": restarts}.items() if given}
        found = trained.inpaint(originals, holes, iterations=times, seed=seed, told=told, **search)
    if out is None:
        kept = [found.images[-1]] if found.projected else [found.images[n - 1] for n in shown]
        words = _captions(["projection"] if found.projected else [str(n) for n in shown], short) if captions else None
        pictures.write(picture(originals, holes, kept, words, scale), path)
    else:
        pictures.write_singles([found.images[-1]], out, scale=scale)
    made |= {
        "by": "projection" if found.projected else "iteration",
        "iterations": len(found.images),
        **({"shown": [*shown]} if out is None and not found.projected else {}),
    }
    _show(names, [] if found.told is None else found.told.names, found.start_error.tolist(), found.error.tolist(), made, json)


def _shown(show: list[int] | None, iterations: int) -> list[int]:
    """The iterations in the grid. Raises UserError for one that there is not."""
    from models.errors import UserError

    shown = show or sorted({*(n for n in SHOWN if n <= iterations), iterations})
    if shown[-1] > iterations:
        raise UserError(f"iteration {shown[-1]} of {iterations}", "--show", "give numbers up to --iterations")
    return shown


def _captions(answers: Sequence[str], names: Sequence[str]) -> Captions:
    """Above what each column shows, before what each row is."""
    from models.capabilities.pictures import Captions

    return Captions(["original", "with hole", *answers], names)


# --- by a model that has learned to complete --------------------------------------------------------------------------------------------


def _completions(trained: Trained, originals: np.ndarray, holes: np.ndarray, count: int, seed: int, iterations: int | None) -> np.ndarray:
    """(N, count, H, W, C), block by block."""
    import numpy as np

    from models.device import block_of

    size = block_of(trained.device)
    blocks = [slice(n, n + size) for n in range(0, len(originals), size)]
    return np.concatenate([trained.complete(originals[b], holes[b], count, seed, iterations=iterations) for b in blocks])


def _answer(
    completed: np.ndarray,
    names: Sequence[str],
    originals: np.ndarray,
    holes: np.ndarray,
    made: dict[str, Any],
    json: bool,
) -> None:
    """The errors of several completions of each image (N, K, H, W, C)."""
    from lgcli import render

    count = completed.shape[1]
    squares = ((completed.astype(float) - originals[:, None]) / 255) ** 2
    errors = (squares.mean(4) * holes[:, None]).sum((2, 3)) / holes.sum((1, 2))[:, None]
    mean, best = float(errors.mean()), float(errors.min(1).mean())
    listed = [{"image": name, "errors": its} for name, its in zip(names, errors.tolist(), strict=True)]
    lines = [f"{min(its):.5f} to {max(its):.5f}  {name}" for name, its in zip(names, errors.tolist(), strict=True)]
    lines.append(f"mean squared error inside the hole (black 0, white 1): {mean:.5f}, of the best of {count} {best:.5f}")
    found = {"by": "completion", "variants": count, **made, "mean_error": mean, "mean_best_error": best, "images": listed}
    render.result(found, "\n".join([*lines, *made["files"]]), json)


def _trace(
    complete: Callable[[int], np.ndarray],
    names: Sequence[str],
    originals: np.ndarray,
    holes: np.ndarray,
    made: dict[str, Any],
    before: Sequence[str] | None,
    scale: int | None,
    json: bool,
) -> None:
    """The way to each completion, a row for each, and as an animation where a second file is named; `complete` takes a number of steps.
    `before` are captions of the rows, if they are to have some."""
    import numpy as np

    from lgcli import render
    from models.capabilities import pictures
    from models.capabilities.ask import TRACE
    from models.capabilities.inpaint import picture

    way = [complete(steps).reshape(originals.shape) for steps in TRACE]
    grid, *animation = map(Path, made["files"])
    words = [None if before is None else _captions(steps, before) for steps in ([*map(str, TRACE)], *([str(n)] for n in TRACE))]
    pictures.write(picture(originals, holes, way, words[0], scale), grid)
    if animation:
        frames = [picture(originals, holes, [step], its, scale) for step, its in zip(way, words[1:])]
        pictures.write_gif(np.stack(frames), animation[0], seconds=0.5)
    found = {"by": "completion", **made, "iterations": list(TRACE), "images": list(names)}
    render.result(found, "\n".join(made["files"]), json)


# --- by iteration or projection ---------------------------------------------------------------------------------------------------------


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
