"""The table of latent priors: one encoder and decoder, and eight ways to sample it.

    python docs/reproduce/latent_priors.py --data fashion-mnist --test fashion-mnist:test --seeds 0,1,2
    python docs/reproduce/latent_priors.py --data 'celeba[first=9000]' --test 'celeba[last=1000]' --images 144k --codes 256k --batch 32 \\
        --widths 32,64,128,256 --latent 128

Trains what is missing in `--out` (a finished run is kept, a stopped one goes on), evaluates every run with the features of a classifier
trained on the same data, and prints the table as Markdown with the mean and the deviation over the seeds. All encoders and decoders see
the same number of images; of the sharpened AEGAN's, `--sharpen` of them in its last stage. The latent GAN and the flows then see `--codes`
cached codes, without encoding an image again. The flow, the fitted Gaussian and the floor (the reconstructions) use the plain AEGAN's own
auto-encoder. A VAE of smaller sigma, on the first seed only, tells whether the other one is a straw man.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import common

from models.config import parse_count

METRICS = ("fid", "kid", "prdc", "diversity", "sharpness", "reconstruction")
COLUMNS = {  # heading -> (metric, value)
    "FID": ("fid", "fid"),
    "KID x 1000": ("kid", "kid"),
    "precision": ("prdc", "precision"),
    "recall": ("prdc", "recall"),
    "diversity": ("diversity", "diversity_ratio"),
    "sharpness": ("sharpness", "sharpness_ratio"),
    "squared error": ("reconstruction", "mse"),
}
HINT = "VAE, sigma 0.3"  # the row of one seed


def rows(images: int, codes: int, sharpen: float) -> dict[str, dict[str, Any]]:
    """Name -> how to train it: `model`, `images`, `options`, and `base` where it takes another row's auto-encoder."""
    total = images + codes
    plain = {"prior": "gan", "share": images / total, "sharpen": 0.0}
    sharp = {"prior": "flow", "share": (1 - sharpen) * images / total, "sharpen": sharpen * images / total}
    return {
        "VAE, sigma 1": {"model": "vae", "images": images, "options": {"sigma": 1.0}},
        HINT: {"model": "vae", "images": images, "options": {"sigma": 0.3}},
        "WAE-MMD": {"model": "wae", "images": images, "options": {"penalty": "mmd", "penalty_weight": 1000.0}},
        "WAE-GAN": {"model": "wae", "images": images},
        "AEGAN": {"model": "aegan", "images": total, "options": plain},
        "AEGAN, flow": {"model": "aegan", "images": codes, "options": {"prior": "flow"}, "base": "AEGAN"},
        "AEGAN, flow, sharpened": {"model": "aegan", "images": total, "options": sharp},
        "fitted Gaussian": {"model": "aegan", "images": 1, "options": {"prior": "gaussian"}, "base": "AEGAN"},
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


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        [f"reconstructions of {name}", common.cell([one["reconstruction"]["fid"] for one in found[name]]), *[""] * (len(COLUMNS) - 1)]
        for name in ("AEGAN", "AEGAN, flow, sharpened")
    ]
    for name, reports in found.items():
        cells = []
        for heading, (metric, value) in COLUMNS.items():
            factor = 1000 if heading.startswith("KID") else 1
            cells.append(common.cell([factor * report[metric][value] for report in reports]))
        lines.append([name, *cells])
    return common.markdown(["", *COLUMNS], lines)


def ratios(found: dict[str, list[dict[str, Any]]]) -> str:
    fid = {name: statistics.mean(report["fid"]["fid"] for report in reports) for name, reports in found.items()}
    vae = min(value for name, value in fid.items() if name.startswith("VAE"))
    best = min(value for name, value in fid.items() if name.startswith("AEGAN"))
    return f"The best FID(AEGAN) is {best / vae:.2f} of the better VAE's and {best / fid['WAE-GAN']:.2f} of WAE-GAN's."


def main() -> None:
    parser = common.arguments(__doc__, data="fashion-mnist", test="fashion-mnist:test", out="runs/latent-priors")
    parser.add_argument("--seeds", type=common.seeds, default=[0, 1, 2])
    parser.add_argument("--images", type=parse_count, default=600_000, help="that each encoder and decoder sees")
    parser.add_argument("--codes", type=parse_count, default=1_200_000, help="that the latent GAN sees")
    parser.add_argument("--sharpen", type=float, default=0.55, help="share of the images that the sharpened decoder sees in its last stage")
    parser.add_argument("--widths", type=common.widths, default=None)
    parser.add_argument("--latent", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    chosen = parser.parse_args()
    features = common.judge(chosen)
    found: dict[str, list[dict[str, Any]]] = {}
    for name, how in rows(chosen.images, chosen.codes, chosen.sharpen).items():
        these = chosen.seeds[:1] if name == HINT else chosen.seeds
        runs = [trained(name, how, seed, chosen) for seed in these]
        found[name] = [common.measured(run, METRICS, features, chosen) for run in runs]
    text = f"{table(found)}\n{ratios(found)}\n"
    (chosen.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
