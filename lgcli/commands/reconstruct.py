"""lgm reconstruct"""

from __future__ import annotations

from lgcli import options as o

PANEL = "Use a trained model"


def reconstruct(
    run: o.Run,
    images: o.Images,
    number: o.Count = 32,
    label: o.Shown = None,
    attributes: o.Attributes = None,
    output: o.Picture = None,
    scale: o.Scale = None,
    captions: o.Captions = False,
    data_root: o.DataRoot = None,
    device: o.Device = None,
    raw: o.Raw = False,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Encode and decode images: originals above reconstructions, and the error of each.

    A conditional model is told what each image shows: by the data's own labels, or by --label or --attributes, one for all images or one
    for each. Where nobody says, its own classifier does, if it has one.
    """
    from lgcli import render
    from models import api
    from models.capabilities import pictures
    from models.capabilities.told import of_command

    trained = api.load(run, device=device, raw=raw)
    names, originals, truth, shown = trained.gather(images, number, o.root(data_root))
    pictures.check_grid(len(originals), trained.model.spec.size, pictures.PAIRS, lists=2, scale=scale, captions=captions)
    told = of_command(trained.model, label, attributes, truth)
    path = o.picture_path(output, f"{api.name_of(run)}-reconstructions", force)
    again, errors = trained.reconstruct(originals, told=told)
    render.note_if_guessed(trained, told, "encode", "decode")
    lines = (shown, [f"{error:.4f}" for error in errors]) if captions else ()
    pictures.write(pictures.pairs(originals, again, names=lines, scale=scale), path)
    render.errors_table(names, errors.tolist(), {"grid": str(path)}, json)
