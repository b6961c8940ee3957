"""lgm classify"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lgcli import options as o

if TYPE_CHECKING:
    import numpy as np

    from models.capabilities.classify import Judged
    from models.capabilities.trained import Trained

PANEL = "Use a trained model"
LIKELY = 3  # classes that are shown of an image


def classify(
    run: o.Run,
    images: o.Images,
    number: Annotated[
        int | None, typer.Option("-n", "--number", parser=o.count, metavar="N", help="How many images of a data set.", show_default="all")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="The confusion matrix as a picture, .png.", show_default=False)
    ] = None,
    data_root: o.DataRoot = None,
    device: o.Device = None,
    raw: o.Raw = False,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Say what images show, and how likely that is; of a data set with labels how often that is right, and what is taken for what."""
    from lgcli import render
    from models import api
    from models.capabilities import classify as verbs
    from models.capabilities import inputs, pictures
    from models.errors import UserError

    trained = api.load(run, device=device, raw=raw)
    verbs.require_classifier(trained.model)
    if output is not None:
        o.picture_path(output, "", force)
    whole = inputs.one_set(images)
    data = trained.data(images[0], o.root(data_root)) if whole else None
    if data is None or not verbs.says(data, trained.model):
        if output is not None:
            raise UserError("nobody says what these images show", "-o", "name a data set with labels")
        named = trained.gather(images, number or (len(data) if data is not None else 1), o.root(data_root))
        _show_each(trained, named.names, trained.classify(named.images), json)
        return
    with render.progress() as advance:
        found = trained.judge(data, number, partial(advance, "classifying"))
    written = {"picture": str(pictures.write(verbs.picture(found), output))} if output is not None else {}
    _show_all(found, written, json)


def _show_each(trained: Trained, names: list[str], probabilities: np.ndarray, json: bool) -> None:
    """A line for each image: what it most likely shows; of attributes, those that it has."""
    from lgcli import render
    from models.capabilities.classify import names_of, target_of

    classes = names_of(trained.model)
    attributes = target_of(trained.model) == "attributes"
    listed: list[dict[str, Any]] = []
    for name, row in zip(names, probabilities, strict=True):
        order = (-row).argsort(kind="stable")
        likely = [n for n in order if row[n] > 0.5] if attributes else list(order[:LIKELY])
        listed.append({"image": name, "shows": {classes[n]: round(float(row[n]), 6) for n in likely}})
    if json:
        render.document({"images": listed})
        return
    for one in listed:
        print(f"{one['image']}: {', '.join(f'{name} {share:.1%}' for name, share in one['shows'].items()) or 'none of its attributes'}")


def _show_all(found: Judged, written: dict[str, str], json: bool) -> None:
    """How often it is right, in all and of each class, and what it takes most of the others for."""
    from rich.table import Column
    from rich.text import Text

    from lgcli import render

    if json:
        confusion = None if found.confusion is None else found.confusion.tolist()
        each = {name: None if value != value else round(float(value), 6) for name, value in zip(found.names, found.each)}
        render.document({"images": len(found.truth), "accuracy": found.accuracy, "each": each, "confusion": confusion, **written})
        return
    table = render.table("shows" if found.confusion is not None else "attribute", Column("right", justify="right"), "taken for")
    for n, (name, share) in enumerate(zip(found.names, found.each)):
        mistaken = ""
        if found.confusion is not None:
            row = found.confusion[n].copy()
            row[n] = 0
            mistaken = ", ".join(f"{found.names[k]} ({row[k]:,})" for k in (-row).argsort(kind="stable")[:LIKELY] if row[k])
        table.add_row(Text(name), "-" if share != share else f"{share:.1%}", Text(mistaken))
    render.show(table, Text(f"{found.accuracy:.2%} right of {len(found.truth):,} images"))
    for path in written.values():
        print(path)
