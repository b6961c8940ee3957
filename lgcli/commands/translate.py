"""lgm translate"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lgcli import options as o

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from models.capabilities.trained import Trained

PANEL = "Use a trained model"
FRAMES = 8  # of an animation, from one noise to the next


def translate(
    run: o.Run,
    images: o.Images,
    variants: Annotated[int, typer.Option(parser=o.some, metavar="N", help="Translations of each image.")] = 8,
    back: Annotated[bool, typer.Option("--back", help="From the other domain to that of the leading source.")] = False,
    number: o.ImageCount = 8,
    seed: o.Seed = 0,
    output: o.Picture = None,
    scale: o.Scale = None,
    captions: o.Captions = False,
    out: o.Singles = None,
    iterations: o.Iterations = None,
    trace: o.Trace = False,
    gif: Annotated[
        bool, typer.Option("--gif", help="Write an animation beside the grid: from each noise to the next; of a --trace, its steps.")
    ] = False,
    data_root: o.DataRoot = None,
    device: o.Device = None,
    raw: o.Raw = False,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Turn images into what belongs to them in another domain: a row for each, itself and then some translations.

    Translations in one column are made from the same noise. An image of neither domain is taken for the nearest thing that the encoder
    knows, and translated as that. --out writes single files, the first image's as 0-000000.png and so on.
    """
    import numpy as np

    from lgcli import render
    from models import api
    from models.capabilities import pictures
    from models.capabilities.ask import TRACE, size_of, stepwise
    from models.capabilities.translate import noises, picture, source_of
    from models.device import block_of
    from models.errors import UserError

    o.check_single_output(output, out, captions)
    if out is not None and (gif or trace):
        flag = "--gif" if gif else "--trace"
        raise UserError(f"both --out and {flag}", flag, "it goes with a grid: leave one of them out")
    o.check_trace(trace, iterations)
    trained = api.load(run, device=device, raw=raw)
    noises(trained.model, variants, seed, back)  # what is wrong with them should be said before images are read
    stepwise(trained.model, "translate_back" if back else "translate", 0 if trace else iterations)
    names, originals, _, shown = trained.gather(images, number, o.root(data_root), source_of(trained.model, back))
    if out is None:
        size = size_of(trained.model, "translate", "translate_back")
        columns, lists = (1 + len(TRACE), len(originals) * variants) if trace else (1 + variants, len(originals))
        pictures.check_grid(columns, size, columns, lists, not trace, scale, captions, animated=gif)
        path = o.picture_path(output, f"{api.name_of(run)}-translations", force)
        if gif:
            o.free_path(path.with_suffix(".gif"), force, "-o")
    else:
        path = o.free_path(out, force, "--out")
    block = block_of(trained.device)
    with render.progress() as advance:
        blocks = (
            trained.translate(originals[n : n + block], variants, seed, back=back, iterations=iterations)
            for n in range(0, len(originals) if not trace else 0, block)
        )
        made = [its for some in pictures.counted(blocks, lambda done: advance("translating", done, len(originals))) for its in some]
    found: dict[str, Any] = {"images": names, "variants": variants, "seed": seed, "back": back}
    if out is not None:
        found["files"] = pictures.write_singles(made, out, pictures.numbered(len(names)), variants, scale)
        render.result({"folder": str(out), **found}, f"{out}: {found['files']} images", json)
        return
    if trace:
        rows, way = _traced(trained, originals, variants, seed, back)
        found |= {"iterations": list(TRACE)}
        before = [name for name in shown for _ in range(variants)]
        words = pictures.Captions(["", *map(str, TRACE)], before) if captions else None
        written = [pictures.write(picture(rows, way, words, scale), path)]
        if gif:
            each = [pictures.Captions(["", str(step)], before) if captions else None for step in TRACE]
            frames = [picture(rows, way[:, t : t + 1], each[t], scale) for t in range(len(TRACE))]
            written.append(pictures.write_gif(np.stack(frames), path.with_suffix(".gif"), seconds=0.5))
        found["files"] = [str(file) for file in written]
        render.result(found, "\n".join(found["files"]), json)
        return
    numbered = ["", *(str(1 + k) for k in range(variants))]
    written = [pictures.write(picture(originals, made, pictures.Captions(numbered, shown) if captions else None, scale), path)]
    if gif:
        words = pictures.Captions(before=shown) if captions else None
        frames = [picture(originals, now, words, scale) for now in _frames(trained, originals, variants, seed, back, iterations)]
        written.append(pictures.write_gif(np.stack(frames), path.with_suffix(".gif")))
    found["files"] = [str(file) for file in written]
    render.result(found, "\n".join(found["files"]), json)


def _traced(trained: Trained, originals: np.ndarray, variants: int, seed: int, back: bool) -> tuple[np.ndarray, np.ndarray]:
    """Each image once for each variant, and the way to that: (N * variants, H, W, C) and (N * variants, T, H', W', C')."""
    import numpy as np

    from models.capabilities.ask import TRACE

    steps = [trained.translate(originals, variants, seed, back=back, iterations=n) for n in TRACE]
    way = np.stack(steps, 2)  # (N, variants, T, H', W', C')
    return originals.repeat(variants, 0), way.reshape(-1, *way.shape[2:])


def _frames(trained: Trained, originals: np.ndarray, variants: int, seed: int, back: bool, iterations: int | None) -> Iterator[np.ndarray]:
    """What becomes of each image while the noise goes from each to the next on great circles: (N, 1, H', W', C') one after the other."""
    from models.capabilities.interpolate import through_all
    from models.capabilities.translate import noises, through

    noise = noises(trained.model, max(variants, 2), seed, back)
    way = through_all(noise, FRAMES, "slerp")
    made = through(trained.model, originals, way, back, iterations)
    return (made[:, t : t + 1] for t in range(len(way)))
