"""lgm project"""

from __future__ import annotations

from functools import partial
from typing import Any

from lgcli import options as o

PANEL = "Use a trained model"


def project(
    run: o.Run,
    images: o.Images,
    number: o.ImageCount = 16,
    steps: o.Steps = 300,
    restarts: o.Restarts = 4,
    seed: o.Seed = 0,
    label: o.Shown = None,
    attributes: o.Attributes = None,
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
    """Search the noise whose samples come nearest to images: originals above projections, and the error of each.

    It needs no encoder. A conditional model is told what each image shows: by the data's own labels, or by --label or --attributes,
    one for all images or one for each. Where nobody says, its own classifier does, if it has one.
    --out writes the projections, and noise.safetensors.
    """
    from lgcli import render
    from models import api
    from models.capabilities import pictures
    from models.capabilities.told import of_command

    o.check_single_output(output, out, captions)
    trained = api.load(run, device=device, raw=raw)
    names, originals, truth, shown = trained.gather(images, number, o.root(data_root))
    if out is None:
        how: dict[str, Any] = {"singles": True, "scale": scale, "captions": captions}
        pictures.check_grid(len(originals), trained.model.spec.size, pictures.PAIRS, lists=2, **how)
    told = of_command(trained.model, label, attributes, truth)
    path = o.picture_path(output, f"{api.name_of(run)}-projections", force) if out is None else o.free_path(out, force, "--out")
    render.note_if_guessed(trained, told, "sample")
    with render.progress() as advance:
        found = trained.project(originals, told=told, steps=steps, restarts=restarts, seed=seed, progress=partial(advance, "projecting"))
    if out is None:
        lines = (shown, [f"{error:.4f}" for error in found.error]) if captions else ()
        written = {"grid": str(pictures.write(pictures.pairs(originals, found.images, names=lines, scale=scale), path))}
    else:
        pictures.write_singles([found.images], out, scale=scale)
        written = {"folder": str(out), "noise": str(found.write(out / "noise.safetensors"))}
    render.errors_table(names, found.error.tolist(), written, json)
