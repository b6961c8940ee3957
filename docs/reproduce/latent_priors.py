"""The table of latent priors: one encoder and decoder, and six ways to sample it.

    python docs/reproduce/latent_priors.py --data fashion-mnist --test fashion-mnist:test --seeds 0,1,2
    python docs/reproduce/latent_priors.py --data celeba --test celeba --images 250k --codes 1M --widths 64,128,256,512

Trains what is missing in `--out` (a finished run is kept, a stopped one goes on), evaluates every run with the features of a classifier
trained on the same data, and prints the table as Markdown with the mean and the deviation over the seeds. VAE, WAE-MMD, WAE-GAN and
the auto-encoder below AEGAN see the same number of images; the latent GAN then sees `--codes` cached codes, without encoding an image
again. The fitted Gaussian and the floor (the reconstructions) use AEGAN's own auto-encoder. A VAE of smaller sigma, on the first seed
only, tells whether the other one is a straw man.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import models
from models import api, evaluation
from models.config import parse_count
from models.training import checkpoint

METRICS = ("fid", "kid", "prdc", "diversity", "sharpness", "reconstruction")
COLUMNS = {  # heading -> (metric, value)
    "FID": ("fid", "fid"),
    "KID x 1000": ("kid", "kid"),
    "precision": ("prdc", "precision"),
    "recall": ("prdc", "recall"),
    "diversity": ("diversity", "diversity_ratio"),
    "sharpness": ("sharpness", "sharpness_ratio"),
}


def rows(images: int, codes: int) -> dict[str, dict[str, Any]]:
    """Name -> how to train it: `model`, `images`, `options`, and `base` where it takes another row's auto-encoder."""
    return {
        "VAE, sigma 1": {"model": "vae", "images": images},
        "WAE-MMD": {"model": "wae", "images": images, "options": {"penalty": "mmd", "penalty_weight": 1000.0}},
        "WAE-GAN": {"model": "wae", "images": images},
        "AEGAN": {"model": "aegan", "images": images + codes, "options": {"share": images / (images + codes)}},
        "fitted Gaussian": {"model": "aegan", "images": 1, "options": {"prior": "gaussian"}, "base": "AEGAN"},
        "VAE, sigma 0.3": {"model": "vae", "images": images, "options": {"sigma": 0.3}},
    }


def trained(name: str, how: dict[str, Any], seed: int, arguments: argparse.Namespace) -> Path:
    """The finished run of a row and a seed, training what is missing of it."""
    run = place(arguments.out, name, seed)
    settings: dict[str, Any] = {"seed": seed, "precision": arguments.precision, "data_root": arguments.data_root}
    options = dict(how.get("options", {}))
    if base := how.get("base"):
        settings["base"] = str(place(arguments.out, base, seed))
    elif arguments.widths:
        options["widths"] = arguments.widths
    if checkpoint.numbered(run / checkpoint.FOLDER):
        for _ in api.resume(run):  # nothing is left to do where it is finished
            pass
    else:
        print(f"training {run}", flush=True)
        models.train(how["model"], arguments.data, out=run, images=how["images"], options=options, **settings)
    return run


def place(out: Path, name: str, seed: int) -> Path:
    return out / f"{name.lower().replace(',', '').replace(' ', '-')}-{seed}"


def judge(arguments: argparse.Namespace) -> str:
    run = arguments.classifier or arguments.out / "classifier"
    if not checkpoint.numbered(run / checkpoint.FOLDER):
        print(f"training {run}", flush=True)
        models.train("classifier", arguments.data, out=run, precision=arguments.precision, data_root=arguments.data_root)
    return f"classifier:{run}"


def measured(run: Path, features: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The run's `evaluation.json`, made where it is missing or of other features."""
    path = run / evaluation.REPORT
    if path.exists():
        found = json.loads(path.read_text())
        if set(METRICS) <= set(found["metrics"]) and found.get("features asked for") == features:
            return found
    found = evaluation.evaluate(run, data=arguments.test, metrics=METRICS, features=features, data_root=arguments.data_root)
    evaluation.write_report(found | {"features asked for": features}, run)
    return found


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a row for each prior, the mean over the seeds and, for more than one, the deviation."""
    lines = [f"| | {' | '.join(COLUMNS)} | squared error |", f"|---|{'---|' * (len(COLUMNS) + 1)}"]
    floor = [report["metrics"]["reconstruction"]["fid"] for report in found["AEGAN"]]
    lines.append(f"| reconstructions, the floor | {mean_of(floor)} |{' |' * len(COLUMNS)}")
    for name, reports in found.items():
        cells = []
        for heading, (metric, value) in COLUMNS.items():
            factor = 1000 if heading.startswith("KID") else 1
            cells.append(mean_of([factor * report["metrics"][metric][value] for report in reports]))
        cells.append(mean_of([report["metrics"]["reconstruction"]["mse"] for report in reports]))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def mean_of(values: list[float]) -> str:
    text = f"{statistics.mean(values):.3g}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.2g}"


def ratios(found: dict[str, list[dict[str, Any]]]) -> str:
    fid = {name: statistics.mean(report["metrics"]["fid"]["fid"] for report in reports) for name, reports in found.items()}
    vae = min(value for name, value in fid.items() if name.startswith("VAE"))
    return f"FID(AEGAN) is {fid['AEGAN'] / vae:.2f} of the better VAE's and {fid['AEGAN'] / fid['WAE-GAN']:.2f} of WAE-GAN's."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--test", default="fashion-mnist:test", help="what the samples are compared with")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--images", type=parse_count, default=1_200_000, help="that each encoder and decoder sees")
    parser.add_argument("--codes", type=parse_count, default=1_200_000, help="that the latent GAN sees")
    parser.add_argument("--widths", type=lambda text: tuple(int(width) for width in text.split(",")), default=None)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--classifier", type=Path, help="a run of `lgm train classifier`; trained in --out where it is left out")
    parser.add_argument("--data-root")
    parser.add_argument("--out", type=Path, default=Path("runs/latent-priors"))
    arguments = parser.parse_args()
    features = judge(arguments)
    found: dict[str, list[dict[str, Any]]] = {}
    for name, how in rows(arguments.images, arguments.codes).items():
        seeds = arguments.seeds[:1] if name == "VAE, sigma 0.3" else arguments.seeds
        found[name] = [measured(trained(name, how, seed, arguments), features, arguments) for seed in seeds]
    text = f"{table(found)}\n\n{ratios(found)}\n"
    (arguments.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
