"""Data sets from names and folders: parsing, classes, sizes, memory, and what is shown about them. No torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.data import folder
from models.data.dataset import DataRequest, ImageData
from models.data.images import read_header
from models.data.load import check, describe, load, parse, parse_item
from models.errors import UserError
from models.registry import SETS

REPOSITORY = Path(__file__).parents[1]
REAL = Path(os.environ.get("LGM_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
FILE_SETS = ("mnist", "fashion-mnist", "kmnist", "svhn", "cifar10", "celeba")


def write(path: Path, height: int = 6, width: int = 8, channels: int = 3, seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze()).save(path)
    return pixels


def of(path: Path, **fields: Any) -> DataRequest:
    return parse(str(path), **{"workers": 1, **fields})


# ---- names ---------------------------------------------------------------------------------------------------------------------------


def test_parse_sets_folders_and_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse("mnist") == DataRequest("mnist")
    assert parse("mnist:test", size=(32, 32)) == DataRequest("mnist", "test", size=(32, 32))
    assert parse("fashion_mnist:train").name == "fashion-mnist"
    assert str(parse("mnist:test")) == "mnist:test"
    (tmp_path / "odd:test").mkdir()
    (tmp_path / "mnist").mkdir()
    assert parse(f"{tmp_path}:test") == DataRequest(str(tmp_path), "test")
    assert parse(f"{tmp_path}/odd:test") == DataRequest(f"{tmp_path}/odd:test")  # a folder of that very name wins
    monkeypatch.chdir(tmp_path)
    assert parse("./mnist").name == "./mnist"
    assert parse("mnist").name == "mnist"


def test_parse_refuses_what_is_neither_with_the_nearest_match(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a data set nor a folder") as error:
        parse("minst")
    assert "did you mean 'mnist'?" in str(error.value)
    with pytest.raises(UserError, match="unknown split 'tset'") as error:
        parse("mnist:tset")
    assert "did you mean 'test'?" in str(error.value)
    with pytest.raises(UserError, match="no such folder"):
        parse(str(tmp_path / "nowhere"))
    (tmp_path / "x.png").write_bytes(b"x")
    with pytest.raises(UserError, match="a file, not a folder"):
        parse(str(tmp_path / "x.png"))
    for text in ("", ":", ":test", "x" * 5000, "a\0b", "../../models/zoo", "os", "__init__", "~nobody/x", "mnist.py"):
        with pytest.raises(UserError):
            parse(text)


def test_parse_item() -> None:
    assert parse_item("mnist:17") == (DataRequest("mnist"), 17)
    assert parse_item("mnist:test:0", workers=1) == (DataRequest("mnist", "test", workers=1), 0)
    for text in ("mnist", "mnist:test", "mnist:-1", "mnist:1.5", ":17", "17", "mnist:", "mnist:\u0663", "mnist:" + "9" * 40):
        with pytest.raises(UserError, match="not one image"):
            parse_item(text)
    with pytest.raises(UserError, match="neither"):
        parse_item("minst:17")


@pytest.mark.parametrize(
    ("field", "flag"),
    [
        ({"fit": "corp"}, "--fit"),
        ({"channels": "2"}, "--channels"),
        ({"size": (0, 8)}, "--size"),
        ({"size": (8, 10**6)}, "--size"),
        ({"background": (0, 0, 256)}, "--background"),
        ({"workers": -1}, "--workers"),
    ],
)
def test_requests_out_of_range_name_the_flag(field: dict[str, Any], flag: str) -> None:
    with pytest.raises(UserError, match=flag):
        parse("mnist", **field)
    with pytest.raises(UserError, match=flag):
        load(DataRequest("mnist", **field))


def test_sets_explain_themselves_without_being_imported() -> None:
    for name in FILE_SETS:
        entry = SETS.find(name)
        assert entry.summary.endswith(".")
        assert "Licence" in entry.docstring
        assert "Source" in entry.docstring


def test_no_torch_is_imported() -> None:
    names = ["models.data.load", "models.data.idx", *(f"models.data.sets.{n.replace('-', '_')}" for n in FILE_SETS)]
    code = f"import sys, {', '.join(names)}; sys.exit(any(m in sys.modules for m in ('torch', 'torchvision', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


# ---- folders -------------------------------------------------------------------------------------------------------------------------


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    cat, dog = write(tmp_path / "cat" / "1.png"), write(tmp_path / "dog" / "1.png", seed=1)
    data = load(of(tmp_path))
    assert data.classes == ("cat", "dog")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1]
    assert np.array_equal(data.images, [cat, dog])
    assert data.images.flags.c_contiguous
    assert data.name == str(tmp_path)
    assert data.files == (str(tmp_path / "cat" / "1.png"), str(tmp_path / "dog" / "1.png"))


def test_one_sub_folder_or_loose_images_make_no_classes(tmp_path: Path) -> None:
    write(tmp_path / "only" / "deep" / "1.png")
    assert load(of(tmp_path)).labels is None
    write(tmp_path / "other" / "1.png")
    write(tmp_path / "loose.png")
    data = load(of(tmp_path))
    assert len(data) == 3
    assert data.labels is None
    assert any("no classes" in note for note in data.notes)


def test_split_folders(tmp_path: Path) -> None:
    for name in ("train/a/1", "train/b/1", "train/b/2", "test/a/1", "test/b/1"):
        write(tmp_path / f"{name}.png")
    train, test = load(of(tmp_path)), load(parse(f"{tmp_path}:test", workers=1))
    assert train.classes == test.classes == ("a", "b")
    assert (len(train), len(test)) == (3, 2)
    assert any("train/" in note for note in train.notes)
    write(tmp_path / "plane" / "1.png")  # now `train` is a thing to ride, beside planes
    assert load(of(tmp_path)).classes == ("plane", "test", "train")
    with pytest.raises(UserError, match="no sub-folder 'test'") as error:
        load(parse(f"{tmp_path / 'plane'}:test"))
    assert str(tmp_path / "plane") in str(error.value)


def test_common_small_size_is_kept_others_become_64(tmp_path: Path) -> None:
    pixels = write(tmp_path / "a.png", 30, 20)
    data = load(of(tmp_path))
    assert np.array_equal(data.images[0], pixels)
    assert not data.notes
    write(tmp_path / "b.png", 40, 20)
    data = load(of(tmp_path))
    assert data.images.shape == (2, 64, 64, 3)
    assert "brought to 64x64" in data.notes[0]
    assert "--size" in data.notes[0]
    write(tmp_path / "c" / "large.png", 10, 300)
    assert load(of(tmp_path / "c", fit="pad")).images.shape == (1, 64, 64, 3)


@pytest.mark.parametrize("mode", ["crop", "pad", "stretch"])
def test_asked_size_need_not_be_square(tmp_path: Path, mode: str) -> None:
    pixels = write(tmp_path / "a.png", 20, 40)
    write(tmp_path / "b.png", 50, 30, 1)
    data = load(of(tmp_path, size=(20, 10), fit=mode, background=(9, 9, 9)))
    assert data.images.shape == (2, 20, 10, 3)
    assert data.images.dtype == np.uint8
    if mode == "crop":
        assert np.array_equal(data.images[0], pixels[:, 15:25])
    if mode == "pad":
        assert (data.images[0, :7] == 9).all()
        assert not (data.images[0, 8:12] == 9).all()


def grey_in_colour(path: Path, seed: int = 0, height: int = 6, width: int = 8) -> np.ndarray:
    """A grey image that is stored as RGB. Returns its one channel, (H, W, 1)."""
    grey = np.random.default_rng(seed).integers(0, 256, (height, width, 1), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(grey, 3, axis=2)).save(path)
    return grey


def test_grey_images_stored_in_colour_get_one_channel(tmp_path: Path) -> None:
    greys = [grey_in_colour(tmp_path / f"{i}.png", seed=i) for i in range(3)]
    write(tmp_path / "3.png", channels=1, seed=3)
    data = load(of(tmp_path))
    assert data.images.shape == (4, 6, 8, 1)
    assert data.images.flags.c_contiguous
    assert np.array_equal(data.images[:3], greys)
    [note] = data.notes
    assert note == "all images are grey, also those stored in colour (R = G = B): one channel is kept (--channels 3 keeps three)"
    report = check(of(tmp_path))
    assert (report.shape, report.notes) == ((6, 8, 1), (note,))
    assert report.modes == {"RGB": 3, "L": 1}  # what the files are
    for asked in ("1", "3"):
        data = load(of(tmp_path, channels=asked))
        assert data.images.shape == (4, 6, 8, int(asked))
        assert np.array_equal(data.images[:3, :, :, :1], greys)
        assert not data.notes
    # one pixel of colour, and all is colour
    pixels = np.repeat(greys[1], 3, axis=2)
    pixels[2, 3, 1] ^= 1
    Image.fromarray(pixels).save(tmp_path / "1.png")
    data = load(of(tmp_path))
    assert np.array_equal(data.images[1], pixels)
    [note] = data.notes
    assert note == "3 grey and 1 colour images: all become colour (--channels 1 makes all grey)"
    assert check(of(tmp_path)).notes == (note,)
    write(tmp_path / "other" / "colour.png")
    assert not load(of(tmp_path / "other")).notes


@pytest.mark.parametrize("format", ["jpg", "gif", "webp"])
def test_grey_stored_in_colour_is_seen_in_every_format(tmp_path: Path, format: str) -> None:
    for i in range(3):
        ramp = np.add.outer(np.arange(20), np.arange(30)).astype(np.uint8) * (i + 1)
        image = Image.fromarray(ramp).convert("P" if format == "gif" else "RGB")
        image.save(tmp_path / f"{i}.{format}", lossless=True)
    data = load(of(tmp_path, size=(12, 10)))
    assert data.images.shape == (3, 12, 10, 1)
    assert np.array_equal(data.images, load(of(tmp_path, size=(12, 10), channels="3")).images[..., :1])  # nothing is lost


def test_grey_stored_in_colour_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        grey_in_colour(tmp_path / f"{i}.png", seed=i)
    decoded, original = [], folder.decode_with_info
    monkeypatch.setattr(folder, "decode_with_info", lambda path, **how: decoded.append(path) or original(path, **how))
    assert load(of(tmp_path)).images.shape == (3, 6, 8, 1)
    assert len(decoded) == 3


def test_bad_files_have_no_say_in_what_is_grey(tmp_path: Path) -> None:
    """Neither one that looks like colour, nor one that looks like grey; what is left gives the same data as if they were not there."""
    for channels in (1, 3):
        root = tmp_path / f"{channels}"
        for i in range(3):
            write(root / f"{i}.png", channels=channels, seed=i)
        good = load(of(root))
        write(root / "bad.png", channels=4 - channels, seed=9)
        (root / "bad.png").write_bytes((root / "bad.png").read_bytes()[:-40])
        data = load(of(root, skip_bad=True))
        assert len(data.bad) == 1
        assert data.images.shape[3] == channels
        assert data.fingerprint() == good.fingerprint()
        assert [note for note in data.notes if "unreadable" not in note] == list(good.notes) == []
        assert check(of(root)).notes == ()


def test_result_does_not_depend_on_workers_or_repetition(tmp_path: Path) -> None:
    for i in range(70):
        write(tmp_path / f"{i % 3}" / f"{i}.png", 8 + i % 5, 9, 1 + 2 * (i % 2), seed=i)
    prints = [load(of(tmp_path, workers=w, size=(8, 8))).fingerprint() for w in (1, 1, 2, 5)]
    assert len(set(prints)) == 1


def test_large_sets_are_memory_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = tmp_path / "data", tmp_path / "cache"
    for i in range(5):
        write(root / f"{i}.png", seed=i)
    (root / "2.png").write_bytes(b"")
    plain = load(of(root, skip_bad=True))
    monkeypatch.setenv("LGM_CACHE", str(cache))
    monkeypatch.setattr(folder, "memory_bytes", lambda: 5 * 6 * 8 * 3 * 2 - 1)
    mapped = load(of(root, skip_bad=True))
    assert isinstance(mapped.images, np.memmap)
    assert not isinstance(plain.images, np.memmap)
    assert mapped.fingerprint() == plain.fingerprint()
    assert len(mapped) == 4
    assert not [path for path in cache.rglob("*") if path.is_file()]  # nothing is left behind, whatever happens next

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder.os, "posix_fallocate", full)
    with pytest.raises(UserError, match="No space left") as error:
        load(of(root, skip_bad=True))
    assert "LGM_CACHE" in str(error.value)


def test_memory_is_known() -> None:
    assert folder.memory_bytes() > 1 << 28


def test_header_agrees_with_decoding(tmp_path: Path) -> None:
    for channels in (1, 3):
        pixels = write(tmp_path / f"{channels}.png", 5, 7, channels)
        header = read_header(tmp_path / f"{channels}.png")
        assert (header.height, header.width, header.channels) == pixels.shape


# ---- what is shown -------------------------------------------------------------------------------------------------------------------


def test_describe_is_json(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png")
    write(tmp_path / "b" / "1.png")
    write(tmp_path / "b" / "2.png")
    shown = json.loads(json.dumps(describe(load(of(tmp_path))), allow_nan=False))
    assert shown["classes"] == [{"name": "a", "count": 1}, {"name": "b", "count": 2}]
    assert (shown["count"], shown["height"], shown["width"], shown["channels"]) == (3, 6, 8, 3)
    assert len(shown["fingerprint"]) == 64
    rich = ImageData(
        "x",
        np.zeros((4, 2, 2, 1), np.uint8),
        attributes=np.array([[1], [0], [0], [0]], np.uint8),
        attribute_names=("smile",),
        factors=np.array([[-1.0], [0], [0.5], [1]], np.float32),
        factor_names=("pose",),
        identities=np.array([5, 5, 7, 5]),
    )
    shown = json.loads(json.dumps(describe(rich)))
    assert shown["attributes"] == {"smile": 0.25}
    assert shown["factors"] == {"pose": [-1.0, 1.0]}
    assert shown["identities"] == 2


def test_check_reports_kinds_and_sizes(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    write(tmp_path / "b.png", 9, 7, 1)
    (tmp_path / "c.png").write_bytes(b"<html>")
    report = check(of(tmp_path))
    assert report.count == 2
    assert report.sizes == {"8x6": 1, "7x9": 1}
    assert report.modes == {"RGB": 1, "L": 1}
    assert [path for path, _ in report.bad] == [str(tmp_path / "c.png")]
    assert report.shape == (64, 64, 3)


# ---- real data -----------------------------------------------------------------------------------------------------------------------


def real(name: str) -> Path:
    if not (REAL / name).exists():
        pytest.skip(f"no {name} under {REAL} (set LGM_TEST_DATA to a folder with the real sets)")
    return REAL


def test_real_mnist_in_another_size_and_colour() -> None:
    root = real("MNIST/raw")
    data = load(parse("mnist:test", root=root, download=False))
    assert data.images.shape == (10_000, 28, 28, 1)
    assert data.labels is not None
    assert data.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert round(float(data.images.mean()), 1) == 33.8  # 0.1325 of 255, the known mean of the test part
    changed = load(parse("mnist:test", root=root, download=False, size=(14, 14), channels="3"))
    assert changed.images.shape == (10_000, 14, 14, 3)
    assert abs(float(changed.images.mean()) - 33.8) < 1


def test_real_orl_folder() -> None:
    data = load(of(real("orl") / "orl"))
    assert data.images.shape == (400, 112, 92, 1)
    assert len(data.classes) == 40
    assert not data.bad
