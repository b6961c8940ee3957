"""Latent Constraints: what critics of codes make of an auto-encoder that is already trained.

    python docs/reproduce/constraints.py --data fashion-mnist --test fashion-mnist:test
    python docs/reproduce/constraints.py --data 'celeba[first=9000]' --test 'celeba[last=1000]' --latent 128 --batch 32 --images 120k
    python docs/reproduce/constraints.py asked --base RUN                   # the second table alone, of another auto-encoder
    python docs/reproduce/constraints.py edits                              # of `faces`, which knows who is who
    python docs/reproduce/constraints.py edits --data 'celeba[first=9000]' --test 'celeba[last=1000]' --size 64 --latent 128 --batch 32 \\
        --images 144k --codes 300k --judge-images 160k --number 64 --edited Bald,Bangs,Eyeglasses,Smiling --identities RUN

The first two print a table of realism: samples of a VAE of sigma 1 and of one of 0.1, its reconstructions, and its prior moved by a
constraint without labels; and one of what was asked for, by class or attributes: constraints of distance weight 0, 0.003 (the default) and
0.1 on the VAE of sigma 0.1, and a CVAE of the same nets and as many images; how far each moves the prior, in the posterior's deviations,
squared. Judged by a classifier trained on the same data; the VAE's reconstructions of held-out images say what its decoder can show at all.

`edits` changes each attribute of held-out portraits along the ways between mean codes, by a free search, in one pass, led by a classifier
of pictures, and by arithmetic with mean codes. Two other classifiers that took no part say whether the attribute is read as asked, and
whether the person is the one that they name in the unedited reconstruction. Of `faces` the set itself draws the same portraits with the
attribute turned round: what they see in the reconstructions of these is what a perfect edit would show through that auto-encoder. Where
the data do not say who is who, `--identities` is a classifier of other people, and the person is the one whose reconstruction, of all
portraits', is nearest in its features: stricter than a name.

Trains what is missing in `--out`; times are wall times of the training, where it took place in this call.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch

import models
from models import evaluation
from models.capabilities.ask import in_blocks
from models.config import EvaluationConfig, parse_count
from models.data.sets import faces
from models.metrics import accuracy
from models.metrics.copying import nearest
from models.metrics.features.extract import looked_at
from models.randomness import image_noise

USUAL = 0.003  # the default distance weight
WEIGHTS = (0.0, USUAL, 0.1)


def timed(run: Path, model: str, chosen: argparse.Namespace, **settings: Any) -> Path:
    start = time.monotonic()
    common.finished(run, model, chosen, **settings)
    print(f"{run}: {time.monotonic() - start:.0f} s", flush=True)
    return run


def auto_encoder(chosen: argparse.Namespace, sigma: float) -> Path:
    options = {"sigma": sigma, "latent": chosen.latent, "widths": chosen.widths}
    settings = {"images": chosen.images, "batch": chosen.batch, "options": options, **chosen.sized}
    return timed(chosen.out / f"vae-{sigma:g}", "vae", chosen, **settings)


def constrained(chosen: argparse.Namespace, base: Path, name: str, **options: Any) -> Path:
    settings = {"images": chosen.codes, "parts": {"vae": str(base)}, "options": options}
    return timed(chosen.out / name, "latent-constraints", chosen, **settings)


def realism(chosen: argparse.Namespace, features: str) -> str:
    """FID of samples and of reconstructions, and the share of the way from the prior to the reconstructions that the constraint goes."""
    wide, narrow = (auto_encoder(chosen, sigma) for sigma in (1.0, 0.1))
    moved = constrained(chosen, narrow, "realism", condition="none", distance_weight=0.0)
    wanted = ("fid", "prdc", "sharpness", "reconstruction")
    found = {run: common.measured(run, wanted, features, chosen, number=chosen.number) for run in (wide, narrow, moved)}
    lines = []
    for name, run in (("VAE, sigma 1", wide), ("VAE, sigma 0.1", narrow), ("the same, prior moved by the constraint", moved)):
        report = found[run]
        kept = report["reconstruction"]
        cells = [report["fid"]["fid"], report["prdc"]["recall"], report["sharpness"]["sharpness_ratio"], kept["fid"], kept["mse"]]
        lines.append([name, *(common.cell([value]) for value in cells)])
    before, after, best = found[narrow]["fid"]["fid"], found[moved]["fid"]["fid"], found[narrow]["reconstruction"]["fid"]
    closed = f"The constraint goes {100 * (before - after) / (before - best):.1f} % of the way from the prior to the reconstructions.\n\n"
    return common.markdown(["", "FID", "recall", "sharpness", "FID of reconstructions", "squared error"], lines) + "\n" + closed


def asked(chosen: argparse.Namespace, features: str) -> str:
    """What an independent classifier sees of what was asked for."""
    base = chosen.base or auto_encoder(chosen, 0.1)
    weights = {f"constraints, distance weight {weight:g}": weight for weight in WEIGHTS}
    runs = {
        name: constrained(chosen, base, f"asked-{weight:g}", distance_weight=weight)
        for name, weight in weights.items()
        if name not in chosen.without
    }
    if "CVAE" not in chosen.without:
        condition = models.load(next(iter(runs.values())), device="cpu").condition
        options = {"condition": condition, "widths": chosen.widths, "latent": chosen.latent}
        settings = {"images": chosen.images, "batch": chosen.batch, "options": options, **chosen.sized}
        runs["CVAE"] = timed(chosen.out / "cvae", "cvae", chosen, **settings)
    found = {name: common.measured(run, ("accuracy", "fid"), features, chosen, number=chosen.number) for name, run in runs.items()}
    some = next(iter(found.values()))["accuracy"]
    names = [name for name in some if not name.startswith("real_")]
    kept = ceiling(base, features, chosen)
    lines = [
        ["real images", *(common.cell([some[f"real_{name}"]], 4) for name in names), "", ""],
        ["their reconstructions", *(common.cell([kept[name]], 4) for name in names), "", ""],
    ]
    for name, report in found.items():
        far = "" if name == "CVAE" else common.cell([distance(runs[name])])
        lines.append([name, *(common.cell([report["accuracy"][key]], 4) for key in names), common.cell([report["fid"]["fid"]]), far])
    return common.markdown(["", *names, "FID", "moved"], lines) + "\n"


def judge_of(features: str) -> Any:
    """The classifier that `--features` would take."""
    return evaluation.plan.open_features(EvaluationConfig(features=features, device="cpu"))


def ceiling(run: Path, features: str, chosen: argparse.Namespace) -> dict[str, float]:
    """What the classifier sees of held-out images in their reconstructions: what that decoder can show at all."""
    judge, trained = judge_of(features), models.load(run, device="cpu")
    data = trained.data(chosen.test, chosen.data_root)
    index = np.arange(min(chosen.number, len(data)))
    again, _ = trained.reconstruct(data.rows("image", index))
    return accuracy.judged(looked_at(again, judge)[1], torch.from_numpy(data.rows(judge.target, index)))


def distance(run: Path, number: int = 1000) -> float:
    """How far draws of the prior are moved, on average, where they are asked in turn for what the training data show."""
    trained = models.load(run, device="cpu")
    model: Any = trained.model
    told = trained.like(trained.data(trained.header.config.data), 0).in_turn(range(number))
    noise = model._out(image_noise(0, range(number), model.noise_shape))
    assert told is not None
    with torch.no_grad():
        far = in_blocks(
            lambda code, shown: model.distance(model.move(code, **{told.kind: shown}), code), torch.device("cpu"), noise, told.values
        )
    return float(far.mean())


def drawn_edited(count: int) -> list[np.ndarray]:
    """The first test portraits of `faces` as the set draws them with each attribute turned into its opposite: no edit can be better."""
    every = faces.describe(faces.COUNTS["test"], "test")
    first = {field.name: getattr(every, field.name)[:count] for field in dataclasses.fields(every) if field.name != "chance"}
    sitting = faces.Sitting(**first, chance={name: values[:count] for name, values in every.chance.items()})
    return [
        faces.render(dataclasses.replace(sitting, attributes=sitting.attributes ^ np.eye(len(faces.ATTRIBUTES), dtype=np.uint8)[column]))
        for column in range(len(faces.ATTRIBUTES))
    ]


def edits(chosen: argparse.Namespace) -> str:
    """Each attribute of held-out portraits turned into its opposite."""
    attributes_judge = chosen.classifier or judge_run(chosen, "attributes")
    identity_judge = chosen.identities or judge_run(chosen, "identity")
    judges = {name: judge_of(f"classifier:{run}") for name, run in (("attributes", attributes_judge), ("identity", identity_judge))}
    base = chosen.base or auto_encoder(chosen, 0.1)
    leading = {"target": "attributes", "widths": (48, 96)}  # another net from another start than the judge's
    reader = timed(chosen.out / "reader", "classifier", chosen, images=chosen.judge_images, seed=7, options=leading, **chosen.sized)
    led: dict[str, Any] = {"reader": models.load(reader, device="cpu")}
    vae = models.load(base, device="cpu")
    data, examples = vae.data(chosen.test, chosen.data_root), vae.data(chosen.data, chosen.data_root)
    further = {"data": examples, "strength": 1.5}
    how: dict[str, tuple[float | None, dict[str, Any]]] = {
        "along the ways between mean codes": (USUAL, {}),
        "the same, certainty 0.99": (USUAL, {"certainty": 0.99}),
        "free search": (USUAL, {"search": "free"}),
        "one pass": (USUAL, {"fast": True}),
        "one pass, distance weight 0": (0.0, {"fast": True}),
        "led by a classifier of pictures": (None, led),
        "the same, from 1.5 times the arithmetic": (None, led | further),
        "arithmetic": (None, {"data": examples}),
        "arithmetic, 1.5 times as far": (None, further),
    }
    how = {name: way for name, way in how.items() if name not in chosen.without}
    weights = {weight for weight, _ in how.values() if weight is not None}
    ways = {w: constrained(chosen, base, f"constraints-{w:g}", condition="attributes", distance_weight=w) for w in sorted(weights)}
    trained = {w: models.load(run, device="cpu") for w, run in ways.items()}
    index = np.arange(min(chosen.number, len(data)))
    images, truth = data.rows("image", index), data.rows("attributes", index)
    names = list(data.fields["attributes"].names)
    edited = {name: names.index(name) for name in chosen.edited or names}
    again, _ = vae.reconstruct(images)

    def shown(pictures: np.ndarray) -> np.ndarray:
        return (looked_at(pictures, judges["attributes"])[1] > 0).numpy()

    def person(pictures: np.ndarray) -> np.ndarray:
        """Who each picture shows: by name, or as the number of the reconstruction that is nearest."""
        features, logits = looked_at(pictures, judges["identity"])
        return (nearest(features_again, features)[1] if chosen.identities else logits.argmax(1)).numpy()

    def score(column: int, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Of each portrait: is the attribute read as asked, is it the same person? And the share of the others that are unchanged."""
        read = shown(pictures)
        others = np.delete(read == shown_again, column, 1)
        return read[:, column] != truth[:, column], person(pictures) == who, float(others.mean())

    features_again, shown_again = looked_at(again, judges["identity"])[0], shown(again)
    who = person(again)
    right = (shown_again == truth)[:, list(edited.values())].mean()
    lines = [["not edited: reconstructions", percent(right), percent((person(images) == who).mean()), "", ""]]
    if chosen.data == "faces":
        drawn = zip(*(score(column, vae.reconstruct(true)[0]) for column, true in enumerate(drawn_edited(len(images)))))
        lines.append(["drawn as asked, by the set itself, and reconstructed", *(percent(np.mean(values)) for values in drawn), ""])
    for name, (weight, settings) in how.items():
        found, start = [], time.monotonic()
        for attribute, column in edited.items():
            wanted = [{attribute: 1 - int(value)} for value in truth[:, column]]
            done = (vae if weight is None else trained[weight]).edit(images, wanted, **settings)
            found.append(score(column, done.images))
        taken = 1000 * (time.monotonic() - start) / len(images) / len(edited)
        print(name, ", ".join(f"{a} {percent(r.mean())} / {percent(s.mean())}" for a, (r, s, _) in zip(edited, found)), flush=True)
        lines.append([name, *(percent(np.mean(values)) for values in zip(*found)), f"{taken:.0f}"])
    return common.markdown(["", "read as asked, %", "the same person, %", "the others unchanged, %", "ms an edit"], lines)


def judge_run(chosen: argparse.Namespace, target: str) -> Path:
    settings = {"images": chosen.judge_images, "options": {"target": target}, **chosen.sized}
    return timed(chosen.out / f"judge-{target}", "classifier", chosen, **settings)


def percent(share: Any) -> str:
    return f"{100 * share:.1f}"


def main() -> None:
    parser = common.arguments(__doc__, data="fashion-mnist", test="fashion-mnist:test", out="runs/constraints")
    parser.add_argument("what", nargs="?", choices=["tables", "asked", "edits"], default="tables")
    parser.add_argument("--base", type=Path, help="of `asked` and `edits`: an auto-encoder's run instead of a VAE of sigma 0.1")
    parser.add_argument("--edited", type=lambda text: text.split(","), help="of `edits`: attributes, by default all")
    parser.add_argument("--identities", type=Path, help="of `edits`: a classifier of people, where the data do not say who is who")
    parser.add_argument("--without", nargs="*", default=[], metavar="ROW", help="rows to leave out, by name (not of the table of realism)")
    parser.add_argument("--images", type=parse_count, default=200_000, help="that the auto-encoders see")
    parser.add_argument("--codes", type=parse_count, default=1_000_000, help="that the constraints see")
    parser.add_argument("--judge-images", type=parse_count, default=120_000)
    parser.add_argument("--widths", type=common.widths, default=(32, 64, 128, 256))
    parser.add_argument("--latent", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, help="of the images")
    parser.add_argument("--number", type=parse_count, default=5000, help="samples that are judged, or portraits that are edited")
    chosen = parser.parse_args()
    chosen.sized = {"size": (chosen.size, chosen.size)} if chosen.size else {}
    if chosen.what == "edits":
        text = edits(chosen)
    else:
        features = common.judge(chosen, images=chosen.judge_images, **chosen.sized)
        text = (realism(chosen, features) if chosen.what == "tables" else "") + asked(chosen, features)
    (chosen.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
