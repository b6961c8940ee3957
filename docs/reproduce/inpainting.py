"""Iterated inpainting: does x <- M x' + (1 - M) x get better with every round?

    python docs/reproduce/inpainting.py RUN --test mnist:test --classifier runs/classifier-mnist

Holes of every kind in test images, filled by a run of a model that encodes and decodes: the mean squared error inside the hole, and how
often an independent classifier still names the completed image right, after 1, 5 and 10 iterations. A conditional model is told the true
class in one half of the table; in the other, its own classifier has to find it. The last lines are the projection on a model's noise, for
models without encoder. One picture is written for each kind of hole.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import common
import numpy as np
import torch

import models
from models import api
from models.capabilities import masks
from models.capabilities.ask import evaluating, in_blocks
from models.capabilities.inpaint import picture
from models.capabilities.pictures import write
from models.config import parse_count
from models.data.batches import to_float
from models.data.load import load, parse

SHOWN = (1, 5, 10)


def share_right(judge: api.Trained, images: np.ndarray, labels: np.ndarray) -> float:
    """How often the classifier names uint8 images (N, H, W, C) by their labels (N,)."""
    with evaluating(judge.model):
        logits = in_blocks(judge.model.classify, judge.device, to_float(torch.from_numpy(images)))  # type: ignore[arg-type]
    return float((logits.argmax(1).numpy() == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--test", default="mnist:test")
    parser.add_argument("--classifier", type=Path, required=True)
    parser.add_argument("--number", type=parse_count, default=1000, help="test images")
    parser.add_argument("--data-root")
    parser.add_argument("--out", type=Path, default=Path("runs/inpainting"))
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    trained, judge = models.load(chosen.run), models.load(chosen.classifier)
    data = load(parse(chosen.test, root=Path(chosen.data_root) if chosen.data_root else None))
    originals, labels = data.images[: chosen.number], data.labels[: chosen.number]  # type: ignore[index]
    told = {"the true class": labels, "its own classifier": None} if trained.condition else {"nothing": None}
    lines = [["", "", "whole images", "", f"{100 * share_right(judge, originals, labels):.1f}"]]
    for kind in masks.KINDS:
        holes = masks.draw(kind, 0, range(len(originals)), originals.shape[1:3])
        for source, says in told.items():
            found = trained.inpaint(originals, holes, iterations=SHOWN[-1], told=says)
            for n in SHOWN:
                right = 100 * share_right(judge, found.images[n - 1], labels)
                lines.append([kind, source, str(n), f"{found.error[n - 1].mean():.4f}", f"{right:.1f}"])
            place = chosen.out / f"{chosen.run.name}-{kind}-{'untold' if says is None else 'told'}.png"
            write(picture(originals[:12], holes[:12], [found.images[n - 1, :12] for n in SHOWN]), place)
    text = common.markdown(["hole", "told by", "iterations", "squared error in the hole", "named right, %"], lines)
    (chosen.out / f"{chosen.run.name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
