"""Decoded images in the cache: the same set at once, as long as nothing has changed, and never a reason to fail."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
from PIL import Image

from models.data import cache, kept
from models.data import load as loading
from models.data.dataset import ImageData
from models.data.load import load, parse
from models.errors import UserError


@pytest.fixture(autouse=True)
def all_is_slow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kept, "SLOW", -1.0)
    monkeypatch.setenv("LGM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were decoded."""
    found: list[str] = []
    original = loading.load_folder
    monkeypatch.setattr(loading, "load_folder", lambda request: found.append(request.name) or original(request))
    return found


@pytest.fixture
def photos(pictures: Path, tmp_path: Path) -> Path:
    shutil.copytree(pictures, tmp_path / "photos")
    return tmp_path / "photos"


def entries() -> list[Path]:
    return [entry.path for entry in cache.entries()]


def test_the_second_time_it_is_there(photos: Path, decoded: list[str]) -> None:
    (photos / "disc" / "notes.txt").write_text("not an image")
    plain, again = (load(parse(str(photos))) for _ in range(2))
    assert decoded == [str(photos)]
    assert isinstance(again, ImageData)
    assert again.images.base is not None  # a map of the file, not a copy of it
    for key in plain.fields:
        np.testing.assert_array_equal(plain.all(key), again.all(key))
    assert dict(plain.fields) == dict(again.fields)
    attributes = ("name", "files", "root", "notes", "bad", "classes")
    assert [getattr(plain, name) for name in attributes] == [getattr(again, name) for name in attributes]
    assert again.fingerprint() == ImageData(again.name, np.array(again.images), again.labels, again.classes).fingerprint()
    again.images[0] = 7  # everybody has a copy of his own
    np.testing.assert_array_equal(load(parse(str(photos))).all("image"), plain.all("image"))


def test_it_says_what_it_is_without_reading_the_images(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = load(parse(str(photos))).fingerprint()
    monkeypatch.setattr(ImageData, "_fingerprint", property(lambda self: pytest.fail("the images were read")))
    found = load(parse(str(photos)))
    assert found.fingerprint() == known
    assert load(parse(f"{photos}[first=3]")).fingerprint() != load(parse(f"{photos}[first=4]")).fingerprint()


def test_other_pixels_have_another_fingerprint(photos: Path) -> None:
    load(parse(str(photos)))
    found = load(parse(str(photos)))
    assert isinstance(found, ImageData)
    assert found.replace(images=255 - found.images).fingerprint() != found.fingerprint()


def a_file_is_gone(photos: Path) -> None:
    next(photos.rglob("*.png")).unlink()


def a_file_is_new(photos: Path) -> None:
    support.write_pictures(photos / "other", 1, seed=5)


def a_file_has_other_bytes(photos: Path) -> None:
    """As many as before, and as old."""
    path = sorted(photos.rglob("*.png"))[0]
    times, size = path.stat(), path.stat().st_size
    content = bytearray(path.read_bytes())
    for seed in range(1000):
        Image.fromarray(np.random.default_rng(seed).integers(0, 2, (16, 16), np.uint8) * 255).save(path)
        if path.stat().st_size <= size:
            break
    path.write_bytes(path.read_bytes() + bytes(size - path.stat().st_size))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.read_bytes() != content


def a_file_is_called_otherwise(photos: Path) -> None:
    path = next(photos.rglob("*.png"))
    path.rename(path.with_name("zzz.png"))


@pytest.mark.parametrize("change", [a_file_is_gone, a_file_is_new, a_file_has_other_bytes, a_file_is_called_otherwise])
def test_what_has_changed_is_decoded_anew(change: Any, photos: Path, decoded: list[str]) -> None:
    load(parse(str(photos)))
    change(photos)
    found = load(parse(str(photos)))
    assert len(decoded) == 2
    assert isinstance(found, ImageData)
    assert list(found.files) == sorted(map(str, photos.rglob("*.png")))


def test_another_way_of_fitting_is_another_entry(photos: Path, decoded: list[str]) -> None:
    for asked in ({}, {"size": (8, 8)}, {"size": (8, 12)}, {"size": (8, 12), "fit": "stretch"}, {"channels": "3"}, {"skip_bad": True}):
        for _ in range(2):
            load(parse(str(photos), **asked))  # type: ignore[arg-type]
    assert len(decoded) == 6
    assert len(entries()) == 6


@pytest.mark.parametrize("damage", ["about.json", "images.npy", "labels.npy", "no images", "short"])
def test_a_damaged_entry_is_made_anew(damage: str, photos: Path, decoded: list[str]) -> None:
    wanted = load(parse(str(photos))).all("image")
    [entry] = entries()
    if damage == "no images":
        (entry / "images.npy").unlink()
    elif damage == "short":
        (entry / "images.npy").write_bytes((entry / "images.npy").read_bytes()[:-1])
    else:
        (entry / damage).write_bytes(b"{} hello")
    np.testing.assert_array_equal(load(parse(str(photos))).all("image"), wanted)
    assert len(decoded) == 2
    load(parse(str(photos)))
    assert len(decoded) == 2


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(photos: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*rest: Any, **more: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert len(load(parse(str(photos)))) == 20
    assert entries() == []
    assert not list((cache.cache_folder() / "decoded").glob(".making*"))
    monkeypatch.setenv("LGM_CACHE", "/proc/nowhere")
    assert len(load(parse(str(photos)))) == 20
    assert len(decoded) == 2


def test_what_was_not_used_for_longest_goes_first(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(parse(str(photos), size=(8, 8)))
    [first] = entries()
    size = cache.entries()[0].bytes
    monkeypatch.setenv("LGM_CACHE_LIMIT", str(3 * size))
    load(parse(str(photos), size=(8, 9)))
    for path, when in zip(reversed(entries()), (1000, 2000)):
        os.utime(path, (when, when))
    load(parse(str(photos), size=(8, 8)))  # used again
    load(parse(str(photos), size=(8, 10)))
    assert first in entries()
    assert sum(entry.bytes for entry in cache.entries()) <= 3 * size
    monkeypatch.setenv("LGM_CACHE_LIMIT", "10")
    load(parse(str(photos), size=(8, 11)))  # more than may ever be kept pushes nothing out
    assert first in entries()


def test_no_cache_at_all(photos: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LGM_CACHE_LIMIT", "0")
    for _ in range(2):
        load(parse(str(photos)))
    assert len(decoded) == 2
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("text", "size"), [("10", 10), ("2k", 2000), ("1.5GB", 1_500_000_000), ("3 T".replace(" ", ""), 3 * 10**12)])
def test_limits(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LGM_CACHE_LIMIT", text)
    assert cache.limit() == size


@pytest.mark.parametrize("text", ["much", "-1", "1e99", "nan", "10X"])
def test_limits_that_are_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LGM_CACHE_LIMIT", text)
    with pytest.raises(UserError, match="not a size"):
        cache.limit()


def decode_once(photos: str, folder: str, log: str) -> str:
    kept.SLOW = -1.0
    os.environ["LGM_CACHE"] = folder
    original = loading.load_folder

    def counted(request: Any) -> ImageData:
        with open(log, "a") as file:
            file.write("x")
        return original(request)

    loading.load_folder = counted
    return load(parse(photos)).fingerprint()


def test_several_processes_decode_once(photos: Path, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    log = tmp_path / "log"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: support.call(decode_once, str(photos), str(tmp_path / "shared"), str(log)), range(4)))
    assert len(set(found)) == 1
    assert log.read_text() == "x"


def test_drawn_sets_are_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from models.data.sets import glyphs

    monkeypatch.setattr(glyphs, "COUNTS", {"train": 30, "test": 10})
    one = load(parse("glyphs"))
    monkeypatch.setattr(glyphs, "generate", lambda *rest: pytest.fail("drawn again"))
    np.testing.assert_array_equal(load(parse("glyphs")).all("image"), one.all("image"))


def test_the_command(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lgcli.commands.data import cache as command

    load(parse(str(photos)))
    command(json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["decoded"]["entries"] == 1
    assert told["bytes"] == told["decoded"]["bytes"] > 20 * 16 * 16
    command()
    assert "decoded" in capsys.readouterr().out
    (cache.cache_folder() / "decoded" / ".making-x").mkdir()  # of a process that was killed
    command(clear=True, json=True)
    assert json.loads(capsys.readouterr().out) == {"freed": told["bytes"]}
    assert not list((cache.cache_folder() / "decoded").iterdir())
