"""The figure on stability: a GAN, a WGAN and a WGAN-GP on DCGAN's networks, with and without batch norm in the generator.

    pip install matplotlib
    python docs/reproduce/stability.py --data fashion-mnist --images 300k

Each of the six games sees the same number of images; the Wasserstein games, whose generators move once for five batches, at learning rates
that suit so short a run. One picture: samples at the end, the discriminator's loss or the critic's estimate of
the distance, and the FID with the features of a classifier trained on the same data, over the images seen. What lies finished in `--out`
is not trained again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import common
import numpy as np

import models
from models import evaluation
from models.capabilities import pictures
from models.config import parse_count
from models.training import checkpoint

GAMES = {  # heading -> model, learning rate, the curve's name in the log
    "GAN (DCGAN)": ("dcgan", 2e-4, "discriminator loss"),
    "WGAN": ("wgan", 1e-3, "distance"),
    "WGAN-GP": ("wgan-gp", 2e-3, "distance"),
}
POINTS = 8  # checkpoints whose FID is taken


def run_of(chosen: argparse.Namespace, game: str, norm: str) -> Path:
    model, rate, _ = GAMES[game]
    return common.finished(
        chosen.out / f"{model}-{norm}",
        model,
        chosen,
        images=chosen.images,
        batch=64,
        options={"widths": chosen.widths, "generator_norm": norm, "lr": rate},
        save_every=chosen.images // POINTS,
        keep=POINTS + 1,
    )


def fids(run: Path, features: str, chosen: argparse.Namespace) -> dict[int, float]:
    """Images seen -> FID of 10,000 samples of that checkpoint; kept in the run's `fids.json`."""
    path = run / "fids.json"
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    for images, file in sorted(checkpoint.numbered(run / checkpoint.FOLDER).items()):
        if str(images) not in known:
            found = evaluation.fid(file, chosen.test, features=features, data_root=chosen.data_root)
            known[str(images)] = found["fid"]
            path.write_text(json.dumps(known))
            print(f"{run.name}, {images:,} images: FID {found['fid']:.3f}", flush=True)
    return {int(images): value for images, value in known.items()}


def curve(run: Path, name: str) -> tuple[list[int], list[float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    found = [(line["images"], line["losses"][name]) for line in lines if name in line.get("losses", {})]
    return [images for images, _ in found], [value for _, value in found]


def draw(runs: dict[tuple[str, str], Path], scores: dict[tuple[str, str], dict[int, float]], target: Path) -> None:
    """A column for each game and norm: samples, curve, FID."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, len(runs), figsize=(3.2 * len(runs), 8.6), gridspec_kw={"height_ratios": [1.5, 1, 1]})
    highest = max(max(score.values()) for score in scores.values())
    lowest = min(min(score.values()) for score in scores.values())
    for column, ((game, norm), run) in enumerate(runs.items()):
        top, middle, bottom = axes[:, column]
        picture = pictures.grid(models.load(run).sample(36), 6)
        top.imshow(np.squeeze(picture), cmap="gray" if picture.shape[2] == 1 else None)
        top.set_axis_off()
        top.set_title(f"{game}\n{'batch norm' if norm == 'batch' else 'no batch norm'} in the generator", fontsize=10)
        middle.plot(*curve(run, GAMES[game][2]), linewidth=0.8)
        middle.set_title(GAMES[game][2], fontsize=9)
        bottom.plot(list(scores[game, norm]), list(scores[game, norm].values()), marker="o", markersize=3)
        bottom.set_yscale("log")
        bottom.set_ylim(lowest / 1.3, highest * 1.3)
        bottom.set_title("FID", fontsize=9)
        bottom.set_xlabel("images seen")
        for axis in (middle, bottom):
            axis.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
            axis.tick_params(labelsize=7)
    figure.tight_layout()
    figure.savefig(target, dpi=80)


def main() -> None:
    parser = common.arguments(__doc__, data="fashion-mnist", test="fashion-mnist:test", out="runs/stability")
    parser.add_argument("--images", type=parse_count, default=300_000)
    parser.add_argument("--widths", type=common.widths, default=(32, 64, 128, 256))
    chosen = parser.parse_args()
    features = common.judge(chosen)
    runs = {(game, norm): run_of(chosen, game, norm) for norm in ("batch", "none") for game in GAMES}
    scores = {key: fids(run, features, chosen) for key, run in runs.items()}
    draw(runs, scores, chosen.out / "stability.png")
    for (game, norm), score in scores.items():
        print(f"{game}, {norm} norm: " + ", ".join(f"{images:,}: {value:.3f}" for images, value in score.items()))
    print(chosen.out / "stability.png")


if __name__ == "__main__":
    main()
