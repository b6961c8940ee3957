"""Every line of docs/tour.md, in order, on few images: what it shows a newcomer works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from painter import lgm
from PIL import Image

TOUR = Path(__file__).parent.parent / "docs" / "tour.md"
SMALL = {"vae": "widths=4,8", "aegan": "widths=4,8", "classifier": "widths=4,8"}


def commands() -> list[list[str]]:
    blocks = re.findall(r"```\n(.*?)```", TOUR.read_text(), re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("lgm ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_every_line_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.data.sets import glyphs
    from models.runs import push

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(glyphs, "COUNTS", {"train": 300, "test": 100})
    monkeypatch.setenv("LGM_CACHE_LIMIT", "0")
    pushed: list[Any] = []
    monkeypatch.setattr(push, "push", lambda *words: pushed.append(words) or "https://hub/USER/glyphs")
    done = []
    for words in commands():
        if words[0] == "train":
            words = [word for n, word in enumerate(words) if "--images" not in words[max(n - 1, 0) : n + 1]]
            words = [*words, "--images", "256", "--set", SMALL[words[1]], "--batch", "32"]
        if words[0] == "evaluate":
            words = [*words[: words.index("-n")], "-n", "40"]
        if words[0] == "explore":
            continue  # tests/test_explore.py
        if any(word.startswith("hf://") for word in words):
            continue  # tests/test_hub.py
        result = lgm(*words)
        assert result.exit_code == 0, f"lgm {' '.join(words)}\n{result.output}"
        done.append(words[0])
    assert done.count("train") == 3
    assert {"sample", "reconstruct", "interpolate", "inpaint", "classify", "evaluate", "runs", "compare", "report", "push"} <= set(done)
    for name in ("samples", "reconstructions", "way", "filled", "mistakes", "side-by-side", "curves"):
        with Image.open(f"{name}.png") as image:
            assert image.width > 30
    assert (tmp_path / "runs" / "aegan" / "report.html").stat().st_size > 10_000
    assert [str(one) for one in pushed[0][:2]] == ["runs/aegan", "USER/glyphs"]
