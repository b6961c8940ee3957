"""The table of conditional models: does a sample show what was asked for, and does the model know more than one image of it?

    python docs/reproduce/conditional.py --data mnist --test mnist:test
    python docs/reproduce/conditional.py --data fashion-mnist --test fashion-mnist:test --seeds 0,1,2
    python docs/reproduce/conditional.py --data ORL --test ORL --size 64 --images 60k --widths 32,64,128,256 --number 2000

CVAE, CGAN and CVAE-GAN on the same networks and the same number of images; real images above them. Judged by a classifier of lgm that was
trained on the same data: how often it sees the class that was asked for, the inception score of its answers, the FID of its features, and
the mean distance of two samples of one class relative to the real images' (a model that knows one image a class is near 0 there). Trains
what is missing in `--out`, and prints the table as Markdown with the mean and the deviation over the seeds.
"""

from __future__ import annotations

from typing import Any

import common

from models.config import parse_count

METRICS = ("accuracy", "inception-score", "fid", "prdc", "diversity", "class-diversity")
COLUMNS = {  # heading -> (metric, value, the same of real images)
    "top-1 %": ("accuracy", "top1", "real_top1"),
    "inception score": ("inception-score", "inception_score", "real_inception_score"),
    "FID": ("fid", "fid", ""),
    "precision": ("prdc", "precision", ""),
    "recall": ("prdc", "recall", ""),
    "diversity within a class": ("class-diversity", "class_diversity_ratio", ""),
}
MODELS = {"CVAE": "cvae", "CGAN": "cgan", "CVAE-GAN": "cvae-gan"}


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    def cell(reports: list[dict[str, Any]], metric: str, value: str) -> str:
        return common.cell([(100 if metric == "accuracy" else 1) * report[metric][value] for report in reports], 4) if value else ""

    some = next(iter(found.values()))[:1]
    seen = "_seen" if "real_top1_seen" in some[0]["accuracy"] else ""
    first = "real images, from which the classifier has learned" if seen else "real images"
    lines = [[first, *(cell(some, metric, real + seen * (metric == "accuracy")) for metric, _, real in COLUMNS.values())]]
    lines += [[name, *(cell(reports, metric, value) for metric, value, _ in COLUMNS.values())] for name, reports in found.items()]
    return common.markdown(["", *COLUMNS], lines)


def main() -> None:
    parser = common.arguments(__doc__, data="fashion-mnist", test="fashion-mnist:test", out="runs/conditional")
    parser.add_argument("--seeds", type=common.seeds, default=[0])
    parser.add_argument("--images", type=parse_count, default=300_000)
    parser.add_argument("--widths", type=common.widths, default=(64, 128))
    parser.add_argument("--size", default=None, help="of the images in a folder")
    parser.add_argument("--number", type=parse_count, default=10_000, help="samples that are judged")
    chosen = parser.parse_args()
    sized = {"size": (int(chosen.size), int(chosen.size))} if chosen.size else {}
    features = common.judge(chosen, **sized)
    found: dict[str, list[dict[str, Any]]] = {}
    for name, model in MODELS.items():
        found[name] = []
        for seed in chosen.seeds:
            settings = {"seed": seed, "images": chosen.images, "options": {"widths": chosen.widths}, **sized}
            run = common.finished(chosen.out / f"{model}-{seed}", model, chosen, **settings)
            found[name].append(common.measured(run, METRICS, features, chosen, number=chosen.number))
    text = table(found)
    (chosen.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
