"""Mixing: what of a face the coarse, the middle and the fine layers of a Style-ALAE decide.

    python docs/reproduce/mixing.py runs/style-alae-faces --data faces --test faces:test

Trains a classifier of the data's attributes at the run's size in `--out`, and reads with it held-out images, their reconstructions, and
mixtures of pairs of them. For each group of layers: of the attributes in which the two reconstructions of a pair differ, how many follow
the one whose layers these are. All layers would be 100 %, none 0 %. `colour` is the mean colour of the picture: how far the mixture's lies
along the way from the one's to the other's. The first line says how many attributes of an image its reconstruction keeps, in the
classifier's eyes, and how many it would keep if it were another image's.
"""

from __future__ import annotations

import common
import numpy as np
import torch

import models
from models.capabilities.ask import device_of, evaluating, in_blocks
from models.capabilities.mix import mixed
from models.data.batches import to_float


def main() -> None:
    parser = common.arguments(__doc__, data="faces", test="faces:test", out="runs/mixing")
    parser.add_argument("run")
    parser.add_argument("--images", type=int, default=100_000, help="that train the classifier")
    parser.add_argument("--pairs", type=int, default=500)
    chosen = parser.parse_args()
    trained = models.load(chosen.run)
    size = trained.model.spec.size
    settings = {"images": chosen.images, "size": size, "options": {"target": "attributes"}}
    judging = chosen.classifier or chosen.out / f"classifier-{size[1]}x{size[0]}"
    judge = models.load(common.finished(judging, "classifier", chosen, **settings)).model

    def read(images: np.ndarray) -> np.ndarray:
        """What the classifier says of images (N, H, W, C): (N, attributes), true where it sees one."""
        with evaluating(judge):
            return (in_blocks(judge.classify, device_of(judge), to_float(torch.from_numpy(images))) > 0).numpy()

    items = trained.data(chosen.test, chosen.data_root)
    count = min(2 * chosen.pairs, len(items) // 2 * 2)
    images = items.rows("image", np.arange(count))
    names = items.fields["attributes"].names
    again, _ = trained.reconstruct(images)
    said, kept = read(images), read(again)
    own, foreign = _share(said == kept), _share(said == np.roll(kept, 1, 0))
    print(f"{count} images: the reconstruction keeps {own} of the attributes, another's {foreign}")
    rows = []
    codes = trained.encode(images)
    of_one, of_other = kept[::2], kept[1::2]
    for group, layers in trained.model.layer_groups.items():
        made = mixed(trained.model, codes[::2], codes[1::2], layers)
        follows, differ = read(made) == of_other, of_one != of_other
        each = [_share(follows[:, n][differ[:, n]]) for n in range(len(names))]
        colour = _share_of_way(made, again[::2], again[1::2])
        rows.append([group, _share(follows[differ]), *each, f"{colour:.0%}"])
    print(common.markdown(["layers", "all", *names, "colour"], rows))


def _share(true: np.ndarray) -> str:
    return f"{true.mean():.1%}" if true.size else "-"


def _share_of_way(made: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """How far mean colours lie on the way from the one's to the other's: least squares over all pairs and channels."""
    found, start, end = (images.reshape(len(images), -1, images.shape[3]).mean(1) for images in (made, one, other))
    return float(((found - start) * (end - start)).sum() / ((end - start) ** 2).sum())


if __name__ == "__main__":
    main()
