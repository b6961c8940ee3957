"""Identities: whose face, and everything else, in mixtures of two images; people who were seen in training, and people who were not.

    python docs/reproduce/identities.py --weights 0.1                       # the portraits' people 0 to 89 are seen, 90 to 99 are not
    python docs/reproduce/identities.py --weights 0.01,0.1,1                # lambda

Trains two classifiers, of all people and of attributes, that judge; then IP-GAN on the seen people. For each lambda: the swap table, and
how well pose and light of the mixture can be read (by ridge regression on the attribute classifier's features, fitted to real training
images): the correlation with those of the image that they were taken from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common
import numpy as np
import torch

import models
from models import evaluation
from models.capabilities.ask import device_of, evaluating, in_blocks
from models.capabilities.pictures import grid, write
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
    parser.add_argument("--weights", default="0.1", help="lambdas, with commas between")
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
        options = {"other_weight": float(weight)}
        run = common.finished(chosen.out / f"ip-gan-{weight}", "ip-gan", chosen, images=chosen.images, batch=64, options=options, **sized)
        trained = models.load(run)
        reader = _reader(judges["attributes"], trained.data(whole, chosen.data_root))
        for name, people in (("seen", SEEN), ("unseen", UNSEEN)):
            test = f"{chosen.test}{people}"
            found = {key: value for target in judges for key, value in _swaps(run, test, judges[target], chosen).items()}
            held_out = trained.data(test, chosen.data_root)
            told = reader(trained, held_out)
            keys = ("auc", "auc_again", "auc_real", "auc_other", "top1", "top1_again", "top1_real", "top1_other")
            keys += ("attributes", "attributes_again", "attributes_subject")
            rows.append([f"lambda {weight}, {name}", *(f"{found[key]:.3f}" for key in keys), *(f"{value:.2f}" for value in told)])
            _picture(trained, held_out, chosen.out / f"mix-{weight}-{name}.png")
    headings = ["people", "AUC", "again", "real", "floor", "top 1", "again", "real", "floor", "attributes", "again", "floor"]
    print(common.markdown([*headings, "pose r", "again", "light r", "again"], rows))


def _swaps(run: Path, test: str, judge: Path, chosen: Any) -> dict[str, float]:
    settings = {"metrics": ["swap"], "features": f"classifier:{judge}", "number": 1000, "data_root": chosen.data_root}
    return dict(evaluation.evaluate(run, data=test, **settings)["metrics"]["swap"])


def _reader(judge: Path, real: Items) -> Any:
    """Reads pose and light: correlations with the truth, in mixtures and in reconstructions of the images that they are taken from."""
    looking = models.load(judge).model

    def features(images: np.ndarray) -> np.ndarray:
        with evaluating(looking):
            found = in_blocks(looking.features, device_of(looking), to_float(torch.from_numpy(images))).double().numpy()
        return np.concatenate([found, np.ones((len(found), 1))], 1)

    some = np.arange(min(4000, len(real)))
    known, truth = features(real.rows("image", some)), real.rows("factors", some)
    solved = np.linalg.solve(known.T @ known + 1e-2 * len(known) * np.eye(known.shape[1]), known.T @ truth)

    def read(trained: Trained, data: Items) -> list[float]:
        dice = np.random.default_rng(0)
        subjects = dice.permutation(len(data))[:1000]
        others = dice.permutation(subjects)
        told = data.rows("factors", others)
        made = np.stack([trained.mix([a], [b])[0, 0] for a, b in zip(data.rows("image", subjects), data.rows("image", others))])
        again, _ = trained.reconstruct(data.rows("image", others))
        seen = [features(images) @ solved for images in (made, again)]
        return [float(np.corrcoef(one[:, n], told[:, n])[0, 1]) for n in (0, 1) for one in seen]

    return read


def _picture(trained: Trained, data: Items, path: Path) -> None:
    """Rows: who; columns: all else. The images themselves stand above and at the left."""
    who, how = data.rows("image", np.arange(6)), data.rows("image", np.arange(10, 17))
    made = trained.mix(list(who), list(how))
    blank = np.full_like(who[:1], 255)
    lines = [np.concatenate([blank, how]), *(np.concatenate([own[None], line]) for own, line in zip(who, made))]
    picture = grid(np.concatenate(lines), 1 + len(how))
    write(picture.repeat(3, 0).repeat(3, 1), path)
    print(path)


if __name__ == "__main__":
    main()
