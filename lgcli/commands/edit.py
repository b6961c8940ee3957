"""lgm edit"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lgcli import options as o

if TYPE_CHECKING:
    import numpy as np

    from models.capabilities.edit import Edited
    from models.capabilities.pictures import Captions
    from models.capabilities.trained import Trained

PANEL = "Use a trained model"


def edit(
    run: o.Run,
    images: o.Images,
    attributes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=0|1,...",
            help="What to change: glasses=1, or several at once. Given again: another edit, in a column of its own.",
            show_default=False,
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,...", help="The class that the images should become; of several, each by itself.", show_default=False),
    ] = None,
    told: Annotated[
        str | None,
        typer.Option(metavar="WORDS", help="What the images show now, where neither data nor a reader say it.", show_default=False),
    ] = None,
    number: o.ImageCount = 8,
    steps: Annotated[
        int | None, typer.Option(parser=o.count, metavar="N", help="Show the way in N pictures, from the reconstruction to the edit.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="One pass of the actor instead of a search.")] = False,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Labelled data: add the difference of mean codes. For any auto-encoder.", show_default=False),
    ] = None,
    reader: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="A classifier of such pictures that leads the search. For any auto-encoder.", show_default=False),
    ] = None,
    strength: Annotated[float, typer.Option(metavar="X", help="With --data: how many times that difference.")] = 1.0,
    classifier: Annotated[
        str | None, typer.Option(metavar="RUN", help="What does this classifier see, before and after?", show_default=False)
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="line: along the ways between mean codes; free: by gradient, anywhere.", show_default="line"),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(parser=o.count, metavar="N", help="Steps of the search, at most: 300; 60 with --reader.", show_default=False),
    ] = None,
    realism: Annotated[
        float | None, typer.Option(metavar="P", help="The critic's probability that ends the search.", show_default="0.3")
    ] = None,
    certainty: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="The reader's probability of what is asked that ends it: 0.95; with --reader 0.9, of classes 0.85.",
            show_default=False,
        ),
    ] = None,
    lr: Annotated[float | None, typer.Option(metavar="X", help="Step of the search: 0.01; 0.05 with --reader.", show_default=False)] = None,
    realism_weight: Annotated[
        float | None,
        typer.Option(metavar="X", help="The critic's weight in the search; the reader's is 1.", show_default="0.05"),
    ] = None,
    distance_weight: Annotated[
        float | None, typer.Option(metavar="X", help="Weight of the distance from the image's code.", show_default="0")
    ] = None,
    picture_weight: Annotated[
        float | None,
        typer.Option(metavar="X", help="With --reader: first weight of the difference from the reconstruction.", show_default="50"),
    ] = None,
    look: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="What the reader looks at: the picture's code, or the bare code (default in a free search).",
            show_default=False,
        ),
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
    """Give images another attribute, or another class, and leave the rest: a row for each, itself, its reconstruction, and the edits.

    A run of latent-constraints goes from the image's code towards those that show it, until it can be seen (--fast: at once). With any
    auto-encoder a classifier of pictures leads the search (--reader RUN), and little else changes; or the mean code with the attribute less
    that without is added, from labelled data (--data celeba). A model that is told what images show, cvae say, decodes the same code under
    another label. --out writes single files, the first edit's first.
    """
    from lgcli import render
    from models import api
    from models.base import Constrains, Encodes
    from models.capabilities import pictures
    from models.capabilities.told import columns, parse_attributes, resolve
    from models.errors import UserError

    o.check_single_output(output, out, captions)
    if attributes and label:
        raise UserError("both --attributes and --label", "--label", "say it in one way")
    if out is not None and steps is not None:
        raise UserError("both --out and --steps", "--steps", "the way goes into a grid: leave one of them out")
    if steps is not None and steps < 2:
        raise UserError("a way has two ends", "--steps", "give 2 or more")
    trained = api.load(run, device=device, raw=raw)
    leader = None if reader is None else api.load(reader, device=device)
    examples = None if data is None else trained.data(data, o.root(data_root))
    asked: list[Any] = [parse_attributes([word]) for word in attributes or ()]
    known = {*trained.model.spec.classes, *(() if leader is None else leader.model.spec.classes)}
    known |= set(examples.fields["label"].names) if examples is not None and "label" in examples.fields else set()
    asked += [part for word in label or () for part in o.parts(word, word in known)]
    if not asked:
        raise UserError("nothing is asked for", "--attributes", "say what to change: --attributes smile=1, or --label 3")
    searched = leader is not None or (examples is None and isinstance(trained.model, Constrains))
    if told is not None and (label if searched else examples is not None):
        raise UserError("nobody asks what the images show in this way of editing", "--told", "leave it out")
    if data is None and reader is None and isinstance(trained.model, Encodes):  # before images are read and searched for
        for one in asked if trained.condition is not None and bool(attributes) == (trained.condition == "attributes") else ():
            _ = columns(trained.model.spec.attributes, one) if isinstance(one, dict) else resolve(trained.model, one)
    judge = _judge(classifier, asked, trained, device)
    names, originals, truth, shown = trained.gather(images, number, o.root(data_root))
    width = 1 + (steps or 1 + len(asked))
    if out is None:
        lists = len(originals) * (len(asked) if steps else 1)
        pictures.check_grid(width, trained.model.spec.size, width, lists=lists, singles=True, scale=scale, captions=captions)
    path = o.picture_path(output, f"{api.name_of(run)}-edits", force) if out is None else o.free_path(out, force, "--out")
    said: Any = None if leader is not None else truth  # the data's words need not be the reader's
    if told is not None:
        said = parse_attributes([told]) if "=" in told else told
    effort = {"search": search, "steps": iterations, "lr": lr, "realism": realism, "certainty": certainty, "look": look}
    effort |= {"realism_weight": realism_weight, "distance_weight": distance_weight, "picture_weight": picture_weight}
    how: dict[str, Any] = {"told": said, "fast": fast, "strength": strength, "data": examples, "reader": leader}
    how |= {name: given for name, given in effort.items() if given is not None}
    with render.progress() as advance:
        edits = [trained.edit(originals, one, progress=partial(advance, "searching"), **how) for one in asked]
    if out is not None:
        pictures.write_singles([one.images for one in edits], out, scale=scale)
        written = {"folder": str(out)}
    else:
        words = _captions(shown, asked, steps) if captions else None
        written = {"grid": str(pictures.write(_picture(trained, originals, edits, steps, words, scale), path))}
    _report(names, asked, edits, None if judge is None else [judge(one) for one in (originals, *(e.images for e in edits))], written, json)


def _captions(names: list[str], asked: list[Any], steps: int | None) -> Captions:
    """Above what each column shows, before what each row is."""
    from models.capabilities.pictures import Captions

    edits = [_words(one) for one in asked]
    if not steps:
        return Captions(["original", "again", *edits], names)
    before = [name if len(edits) == 1 else f"{name}: {edit}" for name in names for edit in edits]
    return Captions(["original", "again", *[""] * (steps - 2), edits[0] if len(edits) == 1 else "edit"], before)


def _words(asked: Any) -> str:
    """An edit as it was asked for."""
    return ",".join(f"{name}={given}" for name, given in asked.items()) if isinstance(asked, dict) else str(asked)


def _picture(
    trained: Trained, originals: np.ndarray, edits: list[Edited], steps: int | None, captions: Captions | None, scale: int | None
) -> np.ndarray:
    """A row for each image: itself, its reconstruction and its edits; or itself and its way to an edit, a row for each edit."""
    from models.capabilities import pictures
    from models.capabilities.edit import on_the_way

    if steps:
        ways = [on_the_way(trained, one, steps) for one in edits]
        rows = [image for n, own in enumerate(originals) for way in ways for image in (own, *way[n])]
        return pictures.grid(rows, 1 + steps, captions, scale)
    columns = [originals, on_the_way(trained, edits[0], 1)[:, 0], *(one.images for one in edits)]
    return pictures.grid([column[n] for n in range(len(originals)) for column in columns], len(columns), captions, scale)


def _judge(run: str | None, asked: list[Any], trained: Trained, device: str | None) -> Any:
    """Images -> by name, the probabilities that an independent classifier gives to what is asked for."""
    if run is None:
        return None
    import torch

    from models.config import EvaluationConfig
    from models.errors import UserError, nearest, printable
    from models.evaluation.plan import open_features

    network: Any = open_features(EvaluationConfig(features=f"classifier:{run}", device=device or "auto"))
    wanted = list(dict.fromkeys(name for one in asked for name in (one if isinstance(one, dict) else [one])))
    known = network.spec.names(network.target) or tuple(map(str, range(network.classes)))
    numbered = dict(enumerate(trained.model.spec.classes))

    columns = {}
    for name in wanted:  # a class may be named by its number in the model's data
        named = numbered.get(int(name), name) if name.isascii() and name.isdigit() and name not in known else name
        if named in known:
            columns[name] = known.index(named)
    if missing := next((name for name in wanted if name not in columns), None):
        what = f"it knows no {printable(missing)!r}"
        raise UserError(what, f"--classifier {run}", printable(nearest(missing, known)) or "give a classifier of what is asked for")

    def judge(images: np.ndarray) -> dict[str, list[float]]:
        parts = torch.from_numpy(images).split(64)
        logits = torch.cat([network.apply(network.prepare([*part.numpy()]))[1] for part in parts])
        shares = logits.sigmoid() if network.target == "attributes" else logits.softmax(1)
        return {name: shares[:, column].tolist() for name, column in columns.items()}

    return judge


def _report(names: list[str], asked: list[Any], edits: list[Edited], seen: Any, written: dict[str, str], json: bool) -> None:
    """What critics and classifier say of each edit: before and after."""
    from rich.text import Text

    from lgcli import render

    rows: list[dict[str, Any]] = []
    for number, (words, done) in enumerate(zip(asked, edits, strict=True)):
        wanted = words if isinstance(words, dict) else {words: "1"}
        for n, name in enumerate(names):
            row: dict[str, Any] = {"image": name, "edit": wanted if isinstance(words, dict) else words}
            if (said := done.verdict) is not None:
                row |= {"reached": bool(said.reached[n]), "steps": int(said.steps[n])}
                if said.realism is not None:
                    row["realism"] = said.realism[n].tolist()
                if said.read is not None and said.wanted is not None and said.asked is not None:
                    known = said.wanted.spec.names(said.wanted.kind) or [str(k) for k in range(said.read.shape[2])]
                    row["read"] = {known[k]: said.read[n, :, k].tolist() for k in said.asked[n].nonzero()[0]}
                if said.distance is not None:
                    row["distance"] = float(said.distance[n])
            if seen is not None:
                before, after = seen[0], seen[1 + number]
                shares = {key: (before[key][n], after[key][n]) for key in wanted}
                row["classifier"] = {key: [p if wanted[key] == "1" else 1 - p for p in shares[key]] for key in wanted}
            rows.append(row)
    found = {**written, "edits": rows}
    reached = [row["reached"] for row in rows if "reached" in row]
    found |= {"reached": sum(reached) / len(reached)} if reached else {}
    if reached and not all(reached):
        render.note(
            f"{len(reached) - sum(reached)} of {len(reached)} edits are not all that was asked for: the best that was found is shown"
        )
    if json:
        render.document(found)
        return
    if reached or seen is not None:
        headings = [
            key for key in ("image", "edit", "read", "realism", "distance", "classifier", "steps") if any(key in row for row in rows)
        ]
        shown = render.table(*headings)
        for row in rows:
            shown.add_row(*(Text(_cell(row, key)) for key in headings))  # a file's name may look like markup
        render.show(shown)
    print("\n".join(written.values()))


def _cell(row: dict[str, Any], key: str) -> str:
    """One fact of an edit for people."""
    value = row.get(key)
    if key == "edit":
        return _words(value)
    if isinstance(value, dict):
        return " ".join(f"{before:.2f} -> {after:.2f}" for before, after in value.values())
    if isinstance(value, list):
        return f"{value[0]:.2f} -> {value[1]:.2f}"
    if key == "steps":
        return f"{value}" if row["reached"] else f"{value}, not reached"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
