"""Identities: whose face, and everything else, in mixtures of two images; people who were seen in training, and people who were not.

    python docs/reproduce/identities.py                                     # the portraits' people 0 to 89 are seen, 90 to 99 are not
    python docs/reproduce/identities.py --weights 0.01,0.1,1                # lambda
    python docs/reproduce/identities.py --target subject --weights 0.1      # as the paper compares a mixture's features

Trains two classifiers, of all people and of attributes, that judge; then IP-GAN on the seen people. For each lambda: the swap table, and
how well pose and light of the mixture can be read, by a small network that learns both from real training images: the correlation with
those of the image that they were taken from; how far a face that looks aside is turned to the front by a frontal one; and the FID of people
who were seen, with all else drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from torch import nn

import models
from models import evaluation
from models.capabilities.pictures import enlarged, grid, write
from models.capabilities.trained import Trained
from models.data.batches import to_float
from models.data.items import Items

SEEN, UNSEEN = "[identity=0-89]", "[identity=90-99]"
QUIET = {"sample_every": 10**9, "save_every": 10**9}


def main() -> None:
    parser = common.arguments(__doc__, data="faces", test="faces:test", out="runs/identities")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--images", type=int, default=200_000, help="that each IP-GAN sees")
    parser.add_argument("--judge-images", type=int, default=150_000)
    parser.add_argument("--weights", default="0.01", help="lambdas, with commas between")
    parser.add_argument("--batch", type=int, help="of IP-GAN")
    parser.add_argument("--kl-weight", type=float, help="of IP-GAN's code of all else")
    parser.add_argument("--target", choices=["mixture", "subject"], help="of IP-GAN's classifier's features")
    chosen = parser.parse_args()
    sized = {"size": (chosen.size, chosen.size), **QUIET}
    judges = {
        target: common.finished(
            chosen.out / f"judge-{target}", "classifier", chosen, images=chosen.judge_images, options={"target": target}, **sized
        )
        for target in ("identity", "attributes")
    }
    whole, chosen.data = chosen.data, f"{chosen.data}{SEEN}"
    rows = []
    for weight in chosen.weights.split(","):
        asked = {"other_weight": float(weight), "kl_weight": chosen.kl_weight, "target": chosen.target}
        options = {name: value for name, value in asked.items() if value is not None}
        settings = sized | {"images": chosen.images, "batch": chosen.batch, "options": options}
        run = common.finished(chosen.out / f"ip-gan-{weight}", "ip-gan", chosen, **settings)
        trained = models.load(run)
        looks = {"features": f"classifier:{judges['attributes']}", "data_root": chosen.data_root}
        fid = evaluation.evaluate(run, data=f"{chosen.test}{SEEN}", metrics=["fid"], number=5000, **looks)["metrics"]["fid"]["fid"]
        print(f"lambda {weight}: FID of seen people, all else drawn: {fid:.3g}")
        reader = _reader(trained.data(whole, chosen.data_root))
        for name, people in (("seen", SEEN), ("unseen", UNSEEN)):
            test = f"{chosen.test}{people}"
            found = {key: value for target in judges for key, value in _swaps(run, test, judges[target], chosen).items()}
            held_out = trained.data(test, chosen.data_root)
            told = reader(trained, held_out)
            keys = ("auc", "auc_again", "auc_real", "auc_other", "top1", "top1_again", "top1_real", "top1_other")
            keys += ("attributes", "attributes_again", "attributes_subject")
            rows.append([f"lambda {weight}, {name}", *(f"{found[key]:.3f}" for key in keys), *(f"{value:.2f}" for value in told)])
            turned = [f"{before:.2f} to {after:.2f}" for before, after, _ in reader.turn(trained, held_out)]
            print(f"lambda {weight}, {name}: turned to the front, mean |pose| from {', '.join(turned)}")
            _picture(trained, held_out, chosen.out / f"mix-{weight}-{name}.png")
    headings = ["people", "AUC", "again", "real", "floor", "top 1", "again", "real", "floor", "attributes", "again", "floor"]
    print(common.markdown([*headings, "pose r", "again", "light r", "again"], rows))


def _swaps(run: Path, test: str, judge: Path, chosen: Any) -> dict[str, float]:
    settings = {"metrics": ["swap"], "features": f"classifier:{judge}", "number": 1000, "data_root": chosen.data_root}
    return dict(evaluation.evaluate(run, data=test, **settings)["metrics"]["swap"])


def _reader(real: Items) -> Any:
    """Reads pose and light: correlations with the truth, in mixtures and in reconstructions of the images that they are taken from.

    A small network that learns both from the training images; on real ones that it has not seen its correlations are 0.98 and 0.99.
    """
    torch.manual_seed(0)
    images, truth = to_float(torch.from_numpy(real.all("image"))), torch.from_numpy(real.all("factors")).float()
    widths = [(images.shape[1], 32), (32, 64), (64, 64)]
    layers = [layer for a, b in widths for layer in (nn.Conv2d(a, b, 3, 2, 1), nn.ReLU())]
    net = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(128), nn.ReLU(), nn.Linear(128, truth.shape[1]))
    net(images[:2])
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(12):
        for some in torch.randperm(len(images)).split(128):
            loss = (net(images[some]) - truth[some]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def factors(seen: np.ndarray) -> np.ndarray:
        return np.asarray(net(to_float(torch.from_numpy(seen))).double())

    def read(trained: Trained, data: Items) -> list[float]:
        dice = np.random.default_rng(0)
        subjects = dice.permutation(len(data))[:1000]
        others = dice.permutation(subjects)
        told = data.rows("factors", others)
        made = np.stack([trained.mix([a], [b])[0, 0] for a, b in zip(data.rows("image", subjects), data.rows("image", others))])
        again, _ = trained.reconstruct(data.rows("image", others))
        seen = [factors(images) for images in (made, again)]
        return [float(np.corrcoef(one[:, n], told[:, n])[0, 1]) for n in (0, 1) for one in seen]

    def turn(trained: Trained, data: Items) -> list[list[float]]:
        """Frontalisation of images turned aside by up to a third, two thirds, all: mean |pose| before, after, and of the frontal ones."""
        dice, pose = np.random.default_rng(0), data.rows("factors", np.arange(len(data)))[:, 0]
        frontal, rows = np.flatnonzero(abs(pose) < 0.12), []
        for low in (0.0, 1 / 3, 2 / 3):
            sides = np.flatnonzero((abs(pose) >= low) & (abs(pose) < low + 1 / 3 + 1e-6))[:300]
            front = frontal[dice.integers(0, len(frontal), len(sides))]
            made = np.stack([trained.mix([a], [b])[0, 0] for a, b in zip(data.rows("image", sides), data.rows("image", front))])
            shown = (data.rows("image", sides), made, data.rows("image", front))
            rows.append([float(abs(factors(np.asarray(images))[:, 0]).mean()) for images in shown])
        return rows

    read.turn = turn  # type: ignore[attr-defined]
    return read


def _picture(trained: Trained, data: Items, path: Path) -> None:
    """Rows: who; columns: all else. The images themselves stand above and at the left."""
    who, how = data.rows("image", np.arange(6)), data.rows("image", np.arange(10, 17))
    made = trained.mix(list(who), list(how))
    blank = np.full_like(who[:1], 255)
    lines = [np.concatenate([blank, how]), *(np.concatenate([own[None], line]) for own, line in zip(who, made))]
    picture = grid(np.concatenate(lines), 1 + len(how))
    write(enlarged(picture, 3), path)
    print(path)


if __name__ == "__main__":
    main()
