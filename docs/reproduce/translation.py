"""The tables of translation: does what comes out show what it should, in all its variety, and does it keep anything else of its source?

    python docs/reproduce/translation.py digits --seeds 0,1,2    # MNIST 0-4 -> 5-9
    python docs/reproduce/translation.py numbers                 # house numbers 1-4 -> MNIST 6-9
    python docs/reproduce/translation.py garments                # MNIST -> Fashion-MNIST, all ten classes
    python docs/reproduce/translation.py faces                   # partners have the same attributes, and may be anybody
    python docs/reproduce/translation.py unpaired                # glyphs -> street, --pairs none: nobody says which class is which
    python docs/reproduce/translation.py noise                   # digits, with more and less of a pull to the noise

Both directions each. Held-out images are translated, each with a noise of its own, and judged by a classifier of the domain that they
come to: how often it sees the class that belongs to the source's; the FID of its features against that domain's test images of these
classes; the mean distance of two translations of one class, and of eight translations of one image, relative to that of two real images
of a class. Beside it what needs no translator: real images, the target auto-encoder's reconstructions of them, the nearest neighbour's
way (name the source's class, take a random training image of its partner, reconstruct that), a CVAE asked for the class, and a plain
regression of codes. Then what else of a source its translation shows: the mutual information of simple measures of style, within a class,
above that of shuffled pairs.

Trains what is missing in `--out` (VAEs, classifiers and CVAEs are shared by the tasks), and writes tables and pictures there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from styles import FACES, STYLES, information
from torch import Tensor, nn

import models
from models.capabilities import pictures
from models.capabilities.ask import device_of, evaluating, images_from, in_blocks
from models.capabilities.sample import draw
from models.capabilities.told import Told
from models.capabilities.translate import picture
from models.config import parse_assignments, parse_count
from models.data.batches import to_float, to_uint8
from models.data.items import Items
from models.metrics.accuracy import top1
from models.metrics.class_diversity import within
from models.metrics.features.classifier import ClassifierFeatures
from models.metrics.stats.frechet import frechet_distance
from models.metrics.stats.moments import Moments
from models.nets.mlp import mlp
from models.randomness import image_noise, numpy_generator, some
from models.registry import model_class

LIMIT = 5_000  # held-out images that are looked at, of each side
VARIANTS = 8  # translations of one image
SHOWN = 200  # images of which that many are made


@dataclass(frozen=True)
class Task:
    """What is translated. `classes` pairs those of the two sides; None: equal ones, where `by` is the label."""

    here: str
    there: str
    classes: Mapping[int, int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    by: str = "label"  # what the judges tell, and the rows are right about

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(f"{a}={b}" for a, b in (self.classes or {}).items())


TASKS = {
    "digits": Task("mnist", "mnist", {k: k + 5 for k in range(5)}),
    "numbers": Task("street", "mnist", {k: k + 5 for k in range(1, 5)}),
    "garments": Task("mnist", "fashion-mnist", {k: k for k in range(10)}),
    "faces": Task("faces", "faces", options={"pairs": "attributes"}, by="attributes"),
    "unpaired": Task("glyphs", "street", options={"pairs": "none"}),
}
TASKS["noise"] = TASKS["digits"]
WEIGHTS = (0.0, 0.03, 0.3, 1.0, 3.0)  # of the pull to the noise
VAES: dict[str, dict[str, Any]] = {"fashion-mnist": {"sigma": 0.1}}  # options of auto-encoders: fabric is finer than strokes
SIZES = {"faces": (32, 32)}  # of images that are not taken as they are


class Domain:
    """A data set with its auto-encoder, and a classifier that has seen no test image."""

    def __init__(self, name: str, by: str, chosen: argparse.Namespace) -> None:
        self.name, self.by, self.chosen = name, by, chosen
        self.on = argparse.Namespace(**{**vars(chosen), "data": name})
        self.sized = {"size": SIZES[name]} if name in SIZES else {}
        settings = {"images": chosen.vae_images, "options": VAES.get(name, {}), **self.sized}
        self.vae_run = common.finished(chosen.out / f"vae-{name}", "vae", self.on, **settings)
        run = chosen.out / f"classifier-{name}"
        options = {"target": by} if by != "label" else {}
        common.finished(run, "classifier", self.on, images=chosen.judge_images, options=options, **self.sized)
        self.vae, judge = models.load(self.vae_run), models.load(run)
        self.judge = ClassifierFeatures(judge.model, f"classifier:{run}")
        self.train, self.test = self.vae.data(name, chosen.data_root), self.vae.data(f"{name}:test", chosen.data_root)

    @cached_property
    def cvae(self) -> models.api.Trained:
        run = self.chosen.out / f"cvae-{self.name}"
        return models.load(common.finished(run, "cvae", self.on, images=self.chosen.cvae_images, **self.sized))

    def shown(self, data: Items) -> np.ndarray:
        """What the items show: classes (N,) or attributes (N, A)."""
        return data.all(self.by).astype(np.int64)

    def of_classes(self, data: Items, classes: Sequence[int], limit: int) -> np.ndarray:
        """Positions of at most `limit` items of these classes; of any, where the task knows no classes."""
        index = np.arange(len(data)) if self.by != "label" else np.flatnonzero(np.isin(self.shown(data), classes))
        return index[some(limit, len(index), 0, "translation", data.name)]

    def look(self, images: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features and logits of uint8 images (N, H, W, C)."""
        blocks = [self.judge.apply(self.judge.prepare(list(images[n : n + 32]))) for n in range(0, len(images), 32)]
        return torch.cat([features for features, _ in blocks]), torch.cat([logits for _, logits in blocks])

    def again(self, images: np.ndarray) -> np.ndarray:
        """Through encoder and decoder."""
        return np.asarray(self.vae.reconstruct(images)[0])


@dataclass(frozen=True)
class Judged:
    """How a set of images does: the share that shows what it should, FID, and distances relative to those of real images of a class."""

    right: float
    fid: float
    apart: float  # of two of a class, in the judge's features
    pixels: float  # of two of a class
    several: float | None = None  # of two made from one image, in pixels
    images: np.ndarray | None = None


class Direction:
    """From one domain to another: the sources, what their translations should show, and the real images that they are compared with."""

    def __init__(self, source: Domain, target: Domain, classes: Mapping[int, int], chosen: argparse.Namespace) -> None:
        self.source, self.target, self.chosen = source, target, chosen
        index = source.of_classes(source.test, list(classes), chosen.number)
        real = target.of_classes(target.test, list(classes.values()), chosen.number)
        index = np.tile(index, max(1, len(real) // len(index)))  # an FID of few images is larger by itself
        self.images = source.test.rows("image", index)
        shown = source.shown(source.test)[index]
        self.wanted = torch.from_numpy(np.array([classes[k] for k in shown]) if classes else shown)
        self.real = target.test.rows("image", real)
        self.real_shown = torch.from_numpy(target.shown(target.test)[real])
        self.classes = classes
        features, _ = target.look(self.real)
        self.moments = _moments(features)
        self.unit = _apart(features, self.real_shown)
        self.pixel_unit = _apart(_pixels(self.real), self.real_shown)

    def judged(self, images: np.ndarray, wanted: Tensor, several: np.ndarray | None = None) -> Judged:
        features, logits = self.target.look(images)
        of_one = None
        if several is not None:  # (N, VARIANTS, H, W, C)
            of_one = float(np.mean([_apart(_pixels(some), torch.zeros(len(some))) for some in several])) / self.pixel_unit
        apart, pixels = _apart(features, wanted) / self.unit, _apart(_pixels(images), wanted) / self.pixel_unit
        fid = frechet_distance(self.moments, _moments(features))
        return Judged(self.right(logits, wanted), fid, apart, pixels, of_one, images)

    def right(self, logits: Tensor, wanted: Tensor) -> float:
        """The share of images of the class, or of attributes that are as they should be."""
        return top1(logits, wanted)["top1"] if wanted.ndim == 1 else float(((logits > 0) == (wanted > 0)).double().mean())

    # --- rows of the table ---

    def real_row(self) -> Judged:
        """Training images of the same classes."""
        index = self.target.of_classes(self.target.train, list(self.classes.values()), len(self.real))
        return self.judged(self.target.train.rows("image", index), torch.from_numpy(self.target.shown(self.target.train)[index]))

    def reconstructed(self) -> Judged:
        return self.judged(self.target.again(self.real), self.real_shown)

    def retrieved(self) -> Judged:
        """Name the source's class, take a random training image of the partner, reconstruct it."""
        _, logits = self.source.look(self.images)
        allowed = torch.tensor(sorted(self.classes))
        named = allowed[logits[:, allowed].argmax(1)].numpy()
        shown, dice = self.target.shown(self.target.train), numpy_generator(0, "retrieved")
        of = {b: np.flatnonzero(shown == b) for b in self.classes.values()}
        index = np.array([dice.choice(of[self.classes[int(k)]]) for k in named])
        return self.judged(self.target.again(self.target.train.rows("image", index)), self.wanted)

    def asked(self) -> Judged:
        """A CVAE asked for the right class."""
        trained = self.target.cvae
        told = Told("label", trained.model.spec, self.wanted)
        return self.judged(np.concatenate(list(draw(trained.model, len(self.wanted), 0, examples=told))), self.wanted)

    def regressed(self) -> tuple[Judged, float]:
        """A net paid for the distance to a partner's code; and how far its answers are from the class's mean, in class deviations."""
        here, there = (
            domain.of_classes(domain.train, list(classes), 20_000)
            for domain, classes in ((self.source, self.classes), (self.target, self.classes.values()))
        )
        codes = self.source.vae.encode(self.source.train.rows("image", here))
        its = self.target.vae.encode(self.target.train.rows("image", there))
        kinds = np.array([self.classes[k] for k in self.source.shown(self.source.train)[here]])
        partners = self.target.shown(self.target.train)[there]
        torch.manual_seed(0)
        net, centre, spread = mlp([codes.shape[1], 512, 512, its.shape[1]]), codes.mean(0), codes.std(0)
        optimizer, dice = torch.optim.Adam(net.parameters(), 1e-3), numpy_generator(0, "regressed")
        of = {k: np.flatnonzero(partners == k) for k in np.unique(partners)}
        for _ in range(2_000):
            item = dice.integers(len(codes), size=256)
            partner = np.array([dice.choice(of[k]) for k in kinds[item]])
            loss = nn.functional.mse_loss(net((codes[item] - centre) / spread), its[partner])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            made = net((self.source.vae.encode(self.images) - centre) / spread)
        means = torch.stack([its[of[int(k)]].mean(0) for k in self.wanted])
        deviations = torch.stack([its[of[int(k)]].std(0) for k in self.wanted])
        off = float(((made - means) / deviations).square().mean().sqrt())
        return self.judged(images_from(self.target.vae.model, made, "code"), self.wanted), off

    def translated(self, trained: models.api.Trained, back: bool) -> Judged:
        model: Any = trained.model
        way = model.translate_back if back else model.translate
        real = to_float(torch.from_numpy(self.images))
        noise = image_noise(0, range(len(real)), model.return_noise if back else model.translation_noise, "translation")
        with evaluating(model):
            made = to_uint8(in_blocks(way, device_of(model), real, noise)).numpy()
        several = trained.translate(self.images[: self.chosen.shown], VARIANTS, back=back)
        return self.judged(made, self.wanted, several)


def _moments(features: Tensor) -> Moments:
    found = Moments(features.shape[1])
    found.add(features)
    return found


def _pixels(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).flatten(1).float() / 255


def _apart(points: Tensor, shown: Tensor) -> float:
    """The mean distance of two of a class, or of two with the same attributes."""
    found = within(points, shown if shown.ndim == 1 else torch.unique(shown, dim=0, return_inverse=True)[1])
    assert found is not None
    return found


# --- what else is kept of a source ---


def styles(way: Direction, made: np.ndarray, measures: Mapping[str, Callable[[np.ndarray], np.ndarray]]) -> list[list[str]]:
    """For each measure: what a translation tells of its source, and what the source's own reconstruction does."""
    groups = way.wanted.numpy() if way.wanted.ndim == 1 else np.zeros(len(made), int)
    again, rows = way.source.again(way.images), []
    for name, measure in measures.items():
        kept, error = information(measure(way.images), measure(made), groups)
        most, _ = information(measure(way.images), measure(again), groups)
        rows.append([name, f"{kept:.3f} ± {error:.3f}", f"{most:.2f}"])
    return rows


# --- tables ---


def trained(task: Task, here: Domain, there: Domain, seed: int, chosen: argparse.Namespace, **options: Any) -> models.api.Trained:
    """The translator of a task."""
    said = "".join(f"-{key}={value}" for key, value in options.items())
    options = {**task.options, **({"map": task.words} if task.words else {}), **chosen.set, **options}
    settings = {"seed": seed, "options": options, "parts": {"from": str(here.vae_run), "to": str(there.vae_run)}, **here.sized}
    settings |= {"images": chosen.images} if chosen.images else {}
    settings |= {"preset": chosen.preset, "precision": "fp32"}
    data = argparse.Namespace(**{**vars(chosen), "data": None})
    return models.load(common.finished(chosen.out / f"{chosen.task}{chosen.name}{said}-{seed}", "cross-domain", data, **settings))


def row(name: str, found: Sequence[Judged]) -> list[str]:
    several = [one.several for one in found if one.several is not None]
    cells = [common.cell([100 * one.right for one in found]), common.cell([one.fid for one in found])]
    cells += [common.cell([one.apart for one in found]), common.cell([one.pixels for one in found])]
    return [name, *cells, common.cell(several) if several else ""]


HEADINGS = ("", "right, %", "FID", "distance in a class, features", "pixels", "of one image's translations, pixels")


def compare(task: Task, way: Direction, runs: Sequence[models.api.Trained], back: bool, chosen: argparse.Namespace) -> str:
    """The table of one direction, and what of the sources is kept."""
    paired = task.options.get("pairs", "label") == "label"
    lines = [row("real images", [way.real_row()]), row("reconstructions of real images", [way.reconstructed()])]
    if way.wanted.ndim == 1:
        lines.append(row("class named, a random training image of its partner, reconstructed", [way.retrieved()]))
        if chosen.cvae_images:
            lines.append(row(f"CVAE ({chosen.cvae_images:,} images), asked for the class", [way.asked()]))
    said = ""
    if paired:
        regressed, off = way.regressed()
        lines.append(row("regression of codes", [regressed]))
        said = f"The regression's codes are {off:.2f} class deviations from the class's mean code.\n\n"
    found = [way.translated(run, back) for run in runs]
    lines.append(row("**translations**", found))
    made = found[0].images
    assert made is not None
    kept = styles(way, made, FACES if way.wanted.ndim > 1 else STYLES)
    first, place = _one_of_each(way), chosen.out / f"{chosen.task}{chosen.name}-{'back' if back else 'there'}.png"
    pictures.write(picture(way.images[first], runs[0].translate(way.images[first], VARIANTS, back=back)), place)
    title = f"{way.source.name} -> {way.target.name}, {len(way.images):,} images"
    return (
        f"{title}\n\n{common.markdown(HEADINGS, lines)}\n{said}"
        f"{common.markdown(('style', 'nats that a translation tells of its source', 'its reconstruction'), kept)}\n"
    )


def _one_of_each(way: Direction) -> np.ndarray:
    """The first source of each class; the first ten where there are no classes."""
    if way.wanted.ndim > 1:
        return np.arange(10)
    return np.array([int(np.flatnonzero(way.wanted.numpy() == k)[0]) for k in way.classes.values()])


def noise_table(task: Task, ways: Sequence[Direction], here: Domain, there: Domain, chosen: argparse.Namespace) -> str:
    """The same translator with other weights of the pull to the noise."""
    lines = []
    for weight in WEIGHTS:
        run = trained(task, here, there, chosen.seeds[0], chosen, noise_weight=weight)
        for way, back in zip(ways, (False, True)):
            lines.append([f"{weight:g}", "back" if back else "there", *row("", [way.translated(run, back)])[1:]])
    return common.markdown(("noise_weight", "direction", *HEADINGS[1:]), lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--here", help="the first data set, instead of the task's own: svhn for street, say")
    parser.add_argument("--seeds", type=common.seeds, default=[0])
    parser.add_argument("--preset", default="default", help="of the translator")
    parser.add_argument("--images", type=parse_count, help="of the translator, instead of the preset's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="options of the translator")
    parser.add_argument("--vae-images", type=parse_count, default=None, help="of the auto-encoders, instead of the preset's")
    parser.add_argument("--cvae-images", type=parse_count, default=300_000, help="0: without a CVAE")
    parser.add_argument("--judge-images", type=parse_count, default=240_000)
    parser.add_argument("--number", type=parse_count, default=LIMIT, help="held-out images that are looked at")
    parser.add_argument("--shown", type=parse_count, default=SHOWN, help="images that are translated several times")
    parser.add_argument("--precision", default="bf16", help="of the training of all but the translator")
    parser.add_argument("--data-root")
    parser.add_argument("--out", type=Path, default=Path("runs/translation"))
    chosen = parser.parse_args()
    words = [*([chosen.here] if chosen.here else []), *chosen.set, *([chosen.preset] if chosen.preset != "default" else [])]
    chosen.name = "".join(f"-{word}" for word in words)  # no two kinds of runs share a folder
    chosen.out.mkdir(parents=True, exist_ok=True)
    task = TASKS[chosen.task]
    chosen.set = parse_assignments(model_class("cross-domain").Config, chosen.set)
    here = Domain(chosen.here or task.here, task.by, chosen)
    there = here if task.there == here.name else Domain(task.there, task.by, chosen)
    classes = dict(task.classes) if task.classes else {k: k for k in range(10)} if task.by == "label" else {}
    ways = Direction(here, there, classes, chosen), Direction(there, here, {b: a for a, b in classes.items()}, chosen)
    if chosen.task == "noise":
        text = noise_table(task, ways, here, there, chosen)
    else:
        runs = [trained(task, here, there, seed, chosen) for seed in chosen.seeds]
        text = "\n".join(compare(task, way, runs, back, chosen) for way, back in zip(ways, (False, True)))
    (chosen.out / f"{chosen.task}{chosen.name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
