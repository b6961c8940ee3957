"""Asymmetric training: what reaches the generator when the discriminator is made too strong?

    python docs/reproduce/asymmetric.py --data fashion-mnist --images 60k

CVAE-GAN twice, with five moves of the discriminator for each of the others': once as published, where the generator is paid for matching
means of features, once for -log D. On every checkpoint the lengths of the payments' gradients with respect to the generator's weights are
taken on the same batches (so that they can be compared on the same networks), and the FID. Beside the two stands log(1 - D), what the
generator is paid in the minimax game of the first paper on GANs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import common
import torch
from torch import Tensor

import models
from models import evaluation
from models.config import parse_count
from models.data.batches import Batches
from models.data.load import load, parse
from models.losses import fake_loss, real_loss
from models.nets.conditions import as_vector, join
from models.training import checkpoint
from models.zoo.cvae_gan import CVAEGAN, half_square, spread

POINTS, BATCHES, BATCH = 6, 20, 64


def payments(model: CVAEGAN, batches: Batches) -> dict[str, float]:
    """Payment -> the length of its gradient, the mean over some batches."""
    dice = torch.Generator().manual_seed(0)
    weights = list(model.generator.parameters())
    model.train()
    sums = {"-log D": 0.0, "log(1 - D)": 0.0, "means": 0.0, "right": 0.0}
    for number, batch in enumerate(batches.stream(0, BATCH, 0)):
        if number == BATCHES:
            break
        shown = as_vector(model.spec, label=batch.label)
        noise = torch.randn(BATCH, *model.noise_shape, generator=dice)
        fake = torch.tanh(model.generator(join(noise, shown)))
        real, seen = model.seen(batch.image).detach(), model.seen(fake)
        wanted = real.mean(0)
        on_real, on_fake = model.logit(real), model.logit(seen)
        unit = spread(batch.image) / spread(torch.cat([real, seen]))
        paid = {
            "-log D": real_loss(on_fake),
            "log(1 - D)": -fake_loss(on_fake),
            "means": model.config.mean_weight * unit * half_square((seen.mean(0) - wanted).unsqueeze(0)),
        }
        for name, loss in paid.items():
            sums[name] += length(torch.autograd.grad(loss, weights, retain_graph=True)) / BATCHES
        sums["right"] += float(((on_real > 0).float().mean() + (on_fake < 0).float().mean()) / 2) / BATCHES
    return sums


def length(gradients: tuple[Tensor, ...]) -> float:
    return float(torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt())


def trained(game: str, chosen: argparse.Namespace) -> Path:
    return common.finished(
        chosen.out / game,
        "cvae-gan",
        chosen,
        images=chosen.images,
        options={"widths": chosen.widths, "game": game, "discriminator_steps": chosen.discriminator_steps},
        save_every=chosen.images // POINTS,
        keep=POINTS + 1,
    )


def main() -> None:
    parser = common.arguments(__doc__, data="fashion-mnist", test="fashion-mnist:test", out="runs/asymmetric")
    parser.add_argument("--images", type=parse_count, default=100_000)
    parser.add_argument("--widths", type=common.widths, default=(32, 64))
    parser.add_argument("--discriminator-steps", type=int, default=5)
    chosen = parser.parse_args()
    features = common.judge(chosen)
    data = load(parse(chosen.data, root=Path(chosen.data_root) if chosen.data_root else None))
    lines = []
    for game in ("means", "ordinary"):
        run = trained(game, chosen)
        for images, file in sorted(checkpoint.numbered(run / checkpoint.FOLDER).items()):
            model = models.load(file, raw=True).model
            assert isinstance(model, CVAEGAN)
            found = payments(model, Batches(data, torch.device("cpu")))
            fid = evaluation.fid(file, chosen.test, features=features, number=5000, data_root=chosen.data_root)["fid"]
            shown = [f"{found['right']:.3f}", f"{found['-log D']:.3g}", f"{found['log(1 - D)']:.3g}", f"{found['means']:.3g}", f"{fid:.3f}"]
            lines.append([game, f"{images:,}", *shown])
            print(" ".join(lines[-1]), flush=True)
    headings = ["the generator is paid for", "images seen", "D is right", "gradient of -log D", "of log(1 - D)", "of the means", "FID"]
    text = common.markdown(headings, lines)
    (chosen.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
