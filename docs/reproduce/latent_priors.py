"""The table of latent priors: one encoder and decoder, and nine ways to sample it.

    python docs/reproduce/latent_priors.py --data fashion-mnist --test fashion-mnist:test --seeds 0,1,2
    python docs/reproduce/latent_priors.py --data 'celeba[first=9000]' --test 'celeba[last=1000]' --images 144k --codes 256k --batch 32 \\
        --widths 32,64,128,256 --latent 128

Trains what is missing in `--out` (a finished run is kept, a stopped one goes on), evaluates every run with the features of a classifier
trained on the same data, and prints the table as Markdown with the mean and the deviation over the seeds. All encoders and decoders see
the same number of images; of the sharpened AEGANs', `--sharpen` of them in its last stage. Latent GANs and flows then see `--codes`
cached codes, without encoding an image again. The flow, the fitted Gaussian and the floor (the reconstructions) use the plain AEGAN's own
auto-encoder. A VAE of larger sigma, and with `--longer` a VAE and a WAE-GAN of as much time as the sharpened AEGAN takes, are of the first
seed only. `--other-judge` adds the FID in the features of a second classifier. `neighbours.png`: samples of the sharpened AEGAN, and below
each the training image that is nearest in the judge's features.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import common
import numpy as np

import models
from models import evaluation
from models.capabilities import pictures
from models.config import EvaluationConfig, parse_count
from models.metrics.copying import nearest
from models.metrics.features.extract import looked_at

METRICS = ("fid", "kid", "prdc", "diversity", "sharpness", "reconstruction", "copying")
COLUMNS = {  # heading -> (metric, value)
    "FID": ("fid", "fid"),
    "KID x 1000": ("kid", "kid"),
    "precision": ("prdc", "precision"),
    "recall": ("prdc", "recall"),
    "diversity": ("diversity", "diversity_ratio"),
    "sharpness": ("sharpness", "sharpness_ratio"),
    "copying": ("copying", "copying"),
    "squared error": ("reconstruction", "mse"),
}
OTHER = "FID, other judge"
ONCE = ("VAE, sigma 1", "VAE, as long", "WAE-GAN, as long")  # rows of one seed
SHARPENED = "AEGAN, flow, sharpened"
SHOWN = 12  # samples beside their nearest training images


def rows(images: int, codes: int, sharpen: float, longer: int) -> dict[str, dict[str, Any]]:
    """Name -> how to train it: `model`, `images`, `options`, and `base` where it takes another row's auto-encoder."""
    total = images + codes
    plain = {"prior": "gan", "share": images / total, "sharpen": 0.0}
    sharp = {"prior": "flow", "share": (1 - sharpen) * images / total, "sharpen": sharpen * images / total}
    more = {
        "VAE, as long": {"model": "vae", "images": longer, "options": {"sigma": 0.3}},
        "WAE-GAN, as long": {"model": "wae", "images": longer},
    }
    return {
        "VAE, sigma 1": {"model": "vae", "images": images, "options": {"sigma": 1.0}},
        "VAE, sigma 0.3": {"model": "vae", "images": images, "options": {"sigma": 0.3}},
        "WAE-MMD": {"model": "wae", "images": images, "options": {"penalty": "mmd", "penalty_weight": 1000.0}},
        "WAE-GAN": {"model": "wae", "images": images},
        "AEGAN": {"model": "aegan", "images": total, "options": plain},
        "AEGAN, flow": {"model": "aegan", "images": codes, "options": {"prior": "flow"}, "base": "AEGAN"},
        SHARPENED: {"model": "aegan", "images": total, "options": sharp},
        "AEGAN, latent GAN, sharpened": {"model": "aegan", "images": total, "options": sharp | {"prior": "gan"}},
        "fitted Gaussian": {"model": "aegan", "images": 1, "options": {"prior": "gaussian"}, "base": "AEGAN"},
        **(more if longer else {}),
    }


def trained(name: str, how: dict[str, Any], seed: int, chosen: argparse.Namespace) -> Path:
    settings: dict[str, Any] = {"seed": seed, "images": how["images"]}
    options = dict(how.get("options", {}))
    if base := how.get("base"):
        settings["parts"] = {"base": str(place(chosen.out, base, seed))}
    else:
        options |= {"latent": chosen.latent, **({"widths": chosen.widths} if chosen.widths else {})}
        settings["batch"] = chosen.batch
    return common.finished(place(chosen.out, name, seed), how["model"], chosen, options=options, **settings)


def place(out: Path, name: str, seed: int) -> Path:
    return out / f"{name.lower().replace(',', '').replace(' ', '-')}-{seed}"


def table(found: dict[str, list[dict[str, Any]]], others: dict[str, list[dict[str, Any]]]) -> str:
    lines = []
    for name in (name for name in ("AEGAN", SHARPENED) if name in found):
        here, there = ([one["reconstruction"]["fid"] for one in reports[name]] if name in reports else [] for reports in (found, others))
        lines.append([f"reconstructions of {name}", common.cell(here), *([common.cell(there)] if there else [])])
    for name, reports in found.items():
        cells = []
        for heading, (metric, value) in COLUMNS.items():
            factor = 1000 if heading.startswith("KID") else 1
            cells.append(common.cell([factor * report[metric][value] for report in reports]))
        if name in others:
            cells.insert(1, common.cell([report["fid"]["fid"] for report in others[name]]))
        lines.append([name, *cells])
    headings = list(COLUMNS)
    if others:
        headings.insert(1, OTHER)
    return common.markdown(["", *headings], [line + [""] * (len(headings) + 1 - len(line)) for line in lines])


def ratios(found: dict[str, list[dict[str, Any]]], judge: str) -> str:
    fid = {name: statistics.mean(report["fid"]["fid"] for report in reports) for name, reports in found.items() if "long" not in name}
    best = {
        kind: min((value for name, value in fid.items() if name.startswith(kind)), default=None) for kind in ("AEGAN", "VAE", "WAE-GAN")
    }
    aegan, vae, wae = best.values()
    if not (aegan and vae and wae):
        return ""
    return f"{judge}: the best FID(AEGAN) is {aegan / vae:.2f} of the better VAE's and {aegan / wae:.2f} of WAE-GAN's.\n"


def show_neighbours(run: Path, features: str, chosen: argparse.Namespace) -> None:
    """Samples, and below each the training image that is nearest in the judge's features."""
    trained, judge = models.load(run), evaluation.plan.open_features(EvaluationConfig(features=features))
    learned = trained.data(chosen.data, chosen.data_root).all("image")
    samples = np.asarray(trained.sample(SHOWN))
    _, which = nearest(looked_at(learned, judge)[0], looked_at(samples, judge)[0])
    pictures.write(pictures.pairs(samples, learned[which.numpy()]), chosen.out / "neighbours.png")


def main() -> None:
    parser = common.arguments(__doc__, data="fashion-mnist", test="fashion-mnist:test", out="runs/latent-priors")
    parser.add_argument("--seeds", type=common.seeds, default=[0, 1, 2])
    parser.add_argument("--images", type=parse_count, default=600_000, help="that each encoder and decoder sees")
    parser.add_argument("--codes", type=parse_count, default=1_200_000, help="that the latent GAN and the flows see")
    parser.add_argument("--sharpen", type=float, default=0.55, help="share of the images that the sharpened decoder sees in its last stage")
    parser.add_argument("--longer", type=parse_count, default=0, help="images of a VAE and a WAE-GAN that are trained longer; 0: none")
    parser.add_argument("--without", nargs="*", default=[], metavar="ROW", help="rows to leave out, by name")
    parser.add_argument("--other-judge", type=Path, help="a run of `lgm train classifier`, for the FID in other features")
    parser.add_argument("--widths", type=common.widths, default=None)
    parser.add_argument("--latent", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    chosen = parser.parse_args()
    features, other = common.judge(chosen), f"classifier:{chosen.other_judge}"
    found: dict[str, list[dict[str, Any]]] = {}
    others: dict[str, list[dict[str, Any]]] = {}
    wanted = rows(chosen.images, chosen.codes, chosen.sharpen, chosen.longer)
    for name, how in ((name, how) for name, how in wanted.items() if name not in chosen.without):
        these = chosen.seeds[:1] if name in ONCE else chosen.seeds
        runs = [trained(name, how, seed, chosen) for seed in these]
        found[name] = [common.measured(run, METRICS, features, chosen) for run in runs]
        if chosen.other_judge:
            others[name] = [common.measured(run, ("fid", "reconstruction"), other, chosen, report="evaluation-other.json") for run in runs]
    if SHARPENED in found:
        show_neighbours(place(chosen.out, SHARPENED, chosen.seeds[0]), features, chosen)
    text = f"{table(found, others)}\n{ratios(found, 'judge')}{ratios(others, 'other judge') if others else ''}"
    (chosen.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
