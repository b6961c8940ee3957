"""The same folders and the same weights, seen by lgm and by torch-fidelity: the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from inception_weights import write_weights
from PIL import Image

from models import evaluation
from models.data.dataset import DataRequest
from models.data.sources import FolderSource
from models.metrics import inception_score, kid, prdc
from models.metrics.features.extract import extract
from models.metrics.features.inception import InceptionFeatures
from models.metrics.stats.evidence import Collected, Evidence

COUNT = 12


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders of smooth colour images: the second's are brighter and vary less."""
    made = []
    for number, (low, high) in enumerate(((0, 200), (60, 256))):
        folder = tmp_path_factory.mktemp(f"side{number}")
        small = np.random.default_rng(number).integers(low, high, (COUNT, 6, 6, 3), dtype=np.uint8)
        for index, pixels in enumerate(small):
            Image.fromarray(pixels).resize((40, 40), Image.Resampling.BICUBIC).save(folder / f"{index:02}.png")
        made.append(folder)
    return made[0], made[1]


def test_fid_kid_inception_score_precision_and_recall_are_torch_fidelitys(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch_fidelity import calculate_metrics

    monkeypatch.setenv("LGM_CACHE", str(tmp_path / "cache"))
    weights = write_weights(tmp_path / "weights.pth")
    theirs = calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        feature_extractor="inception-v3-compat",
        feature_layer_prc="2048",
        feature_extractor_weights_path=str(weights),
        cuda=False,
        batch_size=COUNT,
        save_cpu_ram=True,
        cache=False,
        verbose=False,
        fid=True,
        kid=True,
        kid_subset_size=COUNT,
        kid_subsets=1,
        isc=True,
        isc_splits=2,
        samples_shuffle=False,
        prc=True,
    )
    features = InceptionFeatures(weights)
    sides = []
    for folder in folders:
        blocks = list(extract(FolderSource(DataRequest(str(folder))), features))
        sides.append(Collected(COUNT, features=torch.cat([b.features for b in blocks]), logits=torch.cat([b.logits for b in blocks])))
    # The Inception score and the precision are torch-fidelity's for input 1 as the generated side.
    evidence = Evidence(real=sides[1], generated=sides[0])
    ours = {
        **kid.measure(evidence, kid.Config(subset=COUNT)),
        **inception_score.measure(evidence, inception_score.Config(splits=2, shuffle=False)),
        **prdc.measure(evidence, prdc.Config(k=3)),
        "fid": evaluation.fid(str(folders[0]), str(folders[1]), weights=weights)["fid"],
    }
    names = {
        "fid": "frechet_inception_distance",
        "kid": "kernel_inception_distance_mean",
        "inception_score": "inception_score_mean",
        "inception_score_std": "inception_score_std",
        "precision": "precision",
        "recall": "recall",
    }
    for name, theirs_name in names.items():
        assert ours[name] == pytest.approx(theirs[theirs_name], rel=1e-4), name
    assert ours["fid"] > 0.01
    assert abs(ours["kid"]) > 1e-6
