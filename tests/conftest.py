"""Fixtures for all tests. Nothing here imports torch: a test of the data layer should not wait for it."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: results depend on it, and cores are shared
os.environ["LGM_CACHE"] = tempfile.mkdtemp(prefix="lgm-test-cache-")  # not the user's; in it `faces` are drawn once a session
atexit.register(shutil.rmtree, os.environ["LGM_CACHE"], ignore_errors=True)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and their children, ignore it otherwise
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

pytest.register_assert_rewrite("ranks", "support", "painter", "formulas")

import support  # noqa: E402


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets: $LGM_TEST_DATA, or ../shared/data; the test is skipped where there is none."""
    folder = Path(os.environ.get("LGM_TEST_DATA") or HERE.parent.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder} (LGM_TEST_DATA names another folder)")
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 20 grey 16x16 PNGs in two classes, `cross` and `disc`. Do not change it: all tests of a session share it."""
    return support.write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two folders of images of other sizes, channels and numbers, `here` and `there`, and runs of a tiny VAE on them, `near` and `far`."""
    root = tmp_path_factory.mktemp("places")
    found = {"here": support.write_pictures(root / "here"), "there": support.write_pictures(root / "there", 13, 12, colour=True)}
    for name, run in (("here", "near"), ("there", "far")):
        found[run] = root / run
        support.call(support.train, "vae", str(found[name]), str(root / run), support.tiny("vae", images=16))
    return found


@pytest.fixture(scope="session")
def straight(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Model name -> a finished tiny run (`support.tiny`) with checkpoints at 24, 48, 72 and 96 images. Copy it to change it."""
    made: dict[str, Path] = {}

    def run(model: str) -> Path:
        if model not in made:
            made[model] = tmp_path_factory.mktemp("straight") / model
            support.call(support.train, model, str(pictures), str(made[model]), support.tiny(model, keep=9))
        return made[model]

    return run


@pytest.fixture
def paint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Makes a painter (tests/painter.py) that is found under any run's name, in a working folder of the test's own."""
    from painter import painter

    from models import api

    monkeypatch.chdir(tmp_path)

    def make(*kind: Any, **spec: Any) -> Any:
        trained = painter(*kind, **spec)
        monkeypatch.setattr(api, "load", lambda run, **more: trained)
        return trained

    return make
