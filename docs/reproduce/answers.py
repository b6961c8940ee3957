"""Several answers to one question: cGML's toy and its experiments on MNIST, faces, house numbers and facades, against regression, a GAN
and a VAE.

    python docs/reproduce/answers.py toy                            # two branches: the share of starts on each, and how near they come
    python docs/reproduce/answers.py mnist                          # corrupted answers, two modes, half a digit missing
    python docs/reproduce/answers.py faces                          # CelebA, 9,000 faces and 1,000 held out: a hole, and colours
    python docs/reproduce/answers.py street                         # house numbers: a hole, and colours
    python docs/reproduce/answers.py facades                        # label maps to photographs

Every experiment trains what is missing in `--out`, prints its tables, and writes its pictures there. All models of a table have the same
networks, see the same images as often, and answer the same questions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from PIL import Image, ImageDraw

import models
from models import evaluation
from models.capabilities import masks
from models.capabilities.ask import device_of, evaluating, in_blocks
from models.capabilities.pictures import alike, enlarged, grid, write
from models.capabilities.trained import Trained
from models.data.batches import to_float
from models.data.images import atomic_file
from models.data.load import load, parse
from models.training.sources import paired

RIVALS = ("cgml", "regression", "pix2pix", "image-cvae")
QUIET = {"sample_every": 10**9, "save_every": 10**9}
STEPS = (0, 1, 2, 5, 10, 20, 50)


# ---- the paper's toy -------------------------------------------------------------------------------------------------------------------


def toy(chosen: Any) -> None:
    """x from U(0, 1), y = s (x, x^2, x^3), s = 1 or -1: pictures of one pixel. Errors are shares of the distance of the two branches."""
    inputs, targets = _toy_pairs(chosen.out / "toy-data")
    data = f"{inputs}[target={targets}]"
    nets = {"task": "pairs", "network": "mlp", "widths": (64, 64)}
    walking = {"hidden": (64, 64), "latent": 2, "iterations": 20, "rate": 30.0, "judge_weight": 0.0}  # as the paper's
    runs = {
        "cgml": ("cgml", {**nets, **walking}),
        "cgml, Z not told the time": ("cgml", {**nets, **walking, "walk": "timeless", "rate": 3.0, "longest": 1e6}),
        "regression": ("regression", {**nets, "error": "squared"}),
        "image-cvae": ("image-cvae", {**nets, "latent": 2, "sigma": 0.1}),
    }
    places, rows = np.linspace(0.1, 1, 10), []
    for name, (model, options) in runs.items():
        run = common.finished(
            chosen.out / f"toy-{name.replace(' ', '-').replace(',', '')}",
            model,
            _with(chosen, data=data),
            images=chosen.images or 150_000,
            batch=chosen.batch,
            options=options,
            average_images=2000,
            precision="fp32",
            **QUIET,
        )
        trained = models.load(run)
        shown = np.round(places * 255).astype(np.uint8).reshape(-1, 1, 1, 1)
        for steps in (0, 1, 20, 50) if model == "cgml" else (None,):
            made = trained.translate(shown, 300, iterations=steps)[:, :, 0, 0] / 127.5 - 1  # (places, starts, 3)
            branch = np.stack([places, places**2, places**3], 1)[:, None]
            apart = np.stack([np.linalg.norm(made - side * branch, axis=2) for side in (1, -1)])
            share = (apart[0] < apart[1]).mean(1)
            error = apart.min(0).mean(1) / np.linalg.norm(2 * branch[:, 0], axis=1)
            label = name if steps is None else f"{name}, {steps} steps"
            rows.append([label, *(f"{share[n]:.2f} / {error[n]:.3f}" for n in (0, 2, 4, 6, 8))])
        _scatter(trained, chosen.out / f"toy-{model}-{'timeless' if 'time' in name else 'starts'}.png")
    headings = ["share of starts on the upper branch / error", *(f"x = {places[n]:.1f}" for n in (0, 2, 4, 6, 8))]
    print(common.markdown(headings, rows))


def _toy_pairs(folder: Path, count: int = 4000) -> tuple[Path, Path]:
    inputs, targets = folder / "x", folder / "y"
    if not inputs.is_dir():
        dice = np.random.default_rng(0)
        for path in (inputs, targets):
            path.mkdir(parents=True)
        for number in range(count):
            x, side = dice.random(), dice.choice([-1, 1])
            y = side * np.array([x, x**2, x**3])
            Image.fromarray(np.full((1, 1), round(x * 255), np.uint8)).save(inputs / f"{number:05}.png")
            Image.fromarray(np.round((y + 1) * 127.5).astype(np.uint8)[None, None]).save(targets / f"{number:05}.png")
    return inputs, targets


def _scatter(trained: Trained, path: Path, side: int = 360) -> None:
    """x to the right, the last number of y upwards: the answers of 60 starts at every place, before (grey) and after Z's walk (red)."""
    places = np.arange(4, 256, 4, dtype=np.uint8)
    picture = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(picture)
    walks = hasattr(trained.model, "explorer")
    for steps, colour in ((0, "#bbbbbb"), (None, "#cc2222")) if walks else ((None, "#cc2222"),):
        made = trained.translate(places.reshape(-1, 1, 1, 1), 60, iterations=steps)[:, :, 0, 0, 0]
        for x, its in zip(places, made):
            for y in its:
                across, down = int(x) * side / 256, side - int(y) * side / 256
                pen.ellipse([across - 1.5, down - 1.5, across + 1.5, down + 1.5], fill=colour)
    with atomic_file(path) as file:
        picture.save(file, "PNG")


# ---- MNIST -----------------------------------------------------------------------------------------------------------------------------

BLOCK = np.s_[4:15, 4:21]  # of the input, grey: what is asked
BAR = np.s_[8:12, 6:17]  # white in three tenths of the answers of the second experiment


def mnist(chosen: Any) -> None:
    train = load(parse("mnist", root=Path(chosen.data_root) if chosen.data_root else None))
    test = load(parse("mnist:test", root=Path(chosen.data_root) if chosen.data_root else None))
    digits, labels = test.rows("image", np.arange(500)), test.all("label")[:500]
    judging = common.judge(_with(chosen, data="mnist"), images=300_000, precision="fp32", **QUIET).partition(":")[2]
    judge = models.load(judging).model

    def read(images: np.ndarray) -> np.ndarray:
        with evaluating(judge):
            return in_blocks(judge.classify, device_of(judge), to_float(torch.from_numpy(images))).argmax(1).numpy()

    count, rows = 20_000, []
    for kind in ("clean", "corrupted", "bar"):
        data = _sides(chosen.out / f"mnist-{kind}", train.rows("image", np.arange(count)), kind)
        for model in ("cgml", "regression"):
            options = {"task": "pairs"} | ({"judge_weight": 0.0} if model == "cgml" else {})  # as the paper's
            trained = models.load(_trained(chosen, model, f"{data}[input=left]", options, f"mnist-{kind}-{model}", 40_000))
            made = trained.translate(_asked(digits), 20)  # (500, 20, 28, 28, 1)
            first = made[:, 0]
            found = {
                "accuracy": float((read(first) == labels).mean()),
                "error": float(((first / 255 - digits / 255) ** 2).mean()),
                "block": float((((first / 255 - digits / 255) ** 2)[(slice(None), *BLOCK)]).mean()),
                "bars": float((made[(slice(None), slice(None), *BAR)].mean((2, 3, 4)) > 150).mean()),
                "real bars": float((digits[(slice(None), *BAR)].mean((1, 2, 3)) > 150).mean()),
            }
            rows.append([kind, model, *(f"{value:.4g}" for value in found.values())])
            if kind == "bar" and model == "cgml":
                drawn = (made[(slice(None), slice(None), *BAR)].mean((2, 3, 4)) > 150).astype(float)
                print(f"bars: {_explained(drawn):.0%} of what differs between starts is the start's own, whatever the input")
            _write(chosen.out / f"mnist-{kind}-{model}.png", [_asked(digits[:8]), *made[:8, :8].swapaxes(0, 1), digits[:8]])
    real = float((read(digits) == labels).mean())
    print(common.markdown(["answers", "model", "accuracy", "error", "error in the block", "bars drawn", "bars in digits"], rows))
    print(f"the classifier is right on {real:.1%} of the digits themselves")
    _half(chosen, digits)


def _asked(digits: np.ndarray) -> np.ndarray:
    made = digits.copy()
    made[(slice(None), *BLOCK)] = 127
    return made


def _sides(folder: Path, digits: np.ndarray, kind: str) -> Path:
    """Pictures of question and answer side by side. A fifth of the corrupted have another digit's upper half, three tenths a white bar."""
    if folder.is_dir():
        return folder
    folder.mkdir(parents=True)
    dice, answers = np.random.default_rng(1), digits.copy()
    if kind == "corrupted":
        chosen = dice.permutation(len(digits))[: len(digits) // 5]
        answers[chosen, :14] = digits[dice.permutation(len(digits))[: len(chosen)], :14]
    if kind == "bar":
        chosen = dice.permutation(len(digits))[: 3 * len(digits) // 10]
        answers[(chosen, *BAR)] = 255
    for number, sides in enumerate(zip(_asked(digits)[..., 0], answers[..., 0])):
        Image.fromarray(np.concatenate(sides, 1)).save(folder / f"{number:05}.png")
    return folder


def _half(chosen: Any, digits: np.ndarray) -> None:
    """Half of each digit is missing: how many classes the completions show, and how good they are."""
    rows, columns = [], []
    for model in RIVALS:
        trained = models.load(_trained(chosen, model, "mnist", {"task": "inpaint", "mask": "half"}, f"mnist-half-{model}", 80_000))
        if model == "cgml":
            print(_convergence(trained, digits[:200]))
        found = _measured(chosen, f"mnist-half-{model}", "mnist:test", 1000)
        rows.append([model, *_cells(found), f"{found['classes']:.2f}"])
        columns.append(trained.complete(digits[:12], "half", 4))
    print(common.markdown(["half a digit missing", *HEADINGS, "classes of 10"], rows))
    holes = masks.draw("half", 0, range(12), (28, 28))
    hidden = np.where(holes[..., None], np.uint8(128), digits[:12])
    _write(chosen.out / "mnist-half.png", [digits[:12], hidden, *(one for made in columns for one in made.swapaxes(0, 1))])


def _convergence(trained: Trained, images: np.ndarray) -> str:
    """Errors in the holes after so many steps of Z."""
    holes = masks.draw("half", 0, range(len(images)), images.shape[1:3])
    weight, rows = holes[:, None, ..., None] / holes.sum((1, 2))[:, None, None, None, None], []
    for steps in STEPS:
        made = trained.complete(images, holes, 10, iterations=steps) / 255
        errors = ((made - images[:, None] / 255) ** 2 * weight).sum((2, 3, 4))
        apart = 20 / 9 * ((made - made.mean(1, keepdims=True)) ** 2 * weight).sum((2, 3, 4)).mean()
        rows.append([str(steps), f"{errors.mean():.4f}", f"{errors.min(1).mean():.4f}", f"{apart:.4f}"])
    return common.markdown(["steps of Z", "error of one", "of the best of 10", "distance of two"], rows)


# ---- faces, house numbers and facades ----------------------------------------------------------------------------------------------------

ASKED = {"hole": {"task": "inpaint", "mask": "center"}, "colours": {"task": "colourise"}}
FACES = "celeba[first=9000]"
JUDGED = {"size": (32, 32), "images": 100_000, "precision": "fp32", **QUIET}  # how the classifiers that look are trained


def faces(chosen: Any) -> None:
    _judge_of_faces(chosen)
    for name, options in ASKED.items():
        _rivals(chosen, name, FACES, "celeba[last=1000]", options, 100_000, (32, 32))


def street(chosen: Any) -> None:
    common.judge(_with(chosen, data="street"), **JUDGED)
    for name, options in ASKED.items():
        _rivals(chosen, name, "street", "street:test", options, 40_000, (32, 32))


def facades(chosen: Any) -> None:
    """Facades have no labels: the classifier of faces looks, shared with that experiment."""
    chosen = _with(chosen, classifier=chosen.classifier or chosen.out.with_name("faces") / "classifier")
    _judge_of_faces(chosen)
    root = Path(chosen.data_root or ".") / "facades"
    pairs = f"{root}[input=right]", f"{root}:test[input=right]"
    _rivals(chosen, "facades", *pairs, {"task": "pairs"}, 30_000, (64, 64))


def _judge_of_faces(chosen: Any) -> None:
    common.judge(_with(chosen, data=FACES), options={"target": "attributes"}, **JUDGED)


def _rivals(chosen: Any, name: str, data: str, test: str, options: dict[str, Any], images: int, size: tuple[int, int]) -> None:
    rows, columns = [], []
    for model in RIVALS:
        run = _trained(chosen, model, data, options, f"{name}-{model}", images, size=size)
        trained = models.load(run)
        asked = trained.data(paired(test, type(trained.model).pairs_by(trained.model.config)), chosen.data_root)
        found = _measured(chosen, f"{name}-{model}", asked.name, 1000)
        rows.append([model, *_cells(found)])
        shown = asked.rows("image", np.arange(8))
        if options["task"] == "inpaint":
            made, wanted = trained.complete(shown, "center", 4), shown
            shown = shown.copy()
            shown[:, size[0] // 4 : -size[0] // 4, size[1] // 4 : -size[1] // 4] = 128
        else:
            made, wanted = trained.translate(shown, 4), asked.rows("target", np.arange(8))
        columns += list(made.swapaxes(0, 1))[: 1 if model == "regression" else 4]
        if model == "cgml":
            print(f"{name}: {_hues(trained, asked):.0%} of what differs between starts is the start's own, whatever the input")
    print(common.markdown([name, *HEADINGS], rows))
    _write(chosen.out / f"{name}.png", [wanted, shown, *columns])


def _hues(trained: Trained, asked: Any) -> float:
    """Of the mean colours of answers to 100 questions from 50 starts, how much of what differs within a question is the start's own."""
    shown = asked.rows("image", np.arange(100))
    made = trained.complete(shown, "center", 50) if hasattr(trained.model, "holes") else trained.translate(shown, 50)
    return _explained(made.astype(float).mean((2, 3)))


def _explained(values: np.ndarray) -> float:
    """Of the variance of (questions, starts, ...) within each question, the share that starts have in common over all questions."""
    within = values - values.mean(1, keepdims=True)
    return float((within.mean(0) ** 2).mean() / max((within**2).mean(), 1e-12))


# ---- what they share -------------------------------------------------------------------------------------------------------------------

HEADINGS = ("error", "best of 10", "distance of two", "in features", "FID")


def _trained(chosen: Any, model: str, data: str, options: dict[str, Any], name: str, images: int, **more: Any) -> Path:
    settings = {"images": chosen.images or images, "batch": chosen.batch, "options": options, "average_images": 5000, "precision": "fp32"}
    return common.finished(chosen.out / name, model, _with(chosen, data=data), **settings, **QUIET, **more)


def _measured(chosen: Any, name: str, test: str, count: int) -> dict[str, float]:
    """The metric `answers`, kept beside the run."""
    path = chosen.out / name / "answers-to-own-noises.json"  # an older one, "answers.json", has one noise for all questions
    if not path.exists():
        features = f"classifier:{chosen.classifier or chosen.out / 'classifier'}"
        settings = {"metrics": ["answers"], "features": features, "number": count, "data_root": chosen.data_root}
        found = evaluation.evaluate(chosen.out / name, data=test, **settings)
        path.write_text(json.dumps(found["metrics"]["answers"]))
    return dict(json.loads(path.read_text()))


def _cells(found: dict[str, float]) -> list[str]:
    return [f"{found[key]:.4f}" for key in ("mse", "best_mse", "distance")] + [f"{found[key]:.3g}" for key in ("feature_distance", "fid")]


def _with(chosen: Any, **changes: Any) -> Any:
    return argparse.Namespace(**{**vars(chosen), **changes})


def _write(path: Path, columns: list[np.ndarray]) -> None:
    """Columns of images (N, H, W, C), a row for each: one picture, enlarged to be seen."""
    images = alike(*columns)
    picture = grid(np.stack(images, 1).reshape(-1, *images[0].shape[1:]), len(images))
    write(enlarged(picture, 1200 // picture.shape[1]), path)
    print(path)


EXPERIMENTS = {"toy": toy, "mnist": mnist, "faces": faces, "street": street, "facades": facades}


def main() -> None:
    parser = common.arguments(__doc__, data="", test="", out="runs/answers")
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--images", type=int, help="that each model sees, instead of the experiment's own number")
    parser.add_argument("--batch", type=int, default=16, help="of all models")
    chosen = parser.parse_args()
    chosen.out = chosen.out / chosen.experiment
    EXPERIMENTS[chosen.experiment](chosen)


if __name__ == "__main__":
    main()
