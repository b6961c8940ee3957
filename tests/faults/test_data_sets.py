"""Section F of the fault list: folders and the files of named data sets. Every file is made here; nothing is fetched. No torch."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import tracemalloc
import urllib.error
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import badfiles
import numpy as np
import pytest
from badfiles import picture

from models.data import download
from models.data.dataset import DataRequest
from models.data.folder import load_folder
from models.data.idx import read_idx
from models.data.load import check, load
from models.errors import UserError


def request(name: str | Path, root: Path | None = None, **fields: Any) -> DataRequest:
    return DataRequest(name=str(name), root=root, **{"workers": 1, "download": False, **fields})


# ---- folders -------------------------------------------------------------------------------------------------------------------------


def test_F1_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder") as error:
        load_folder(request(tmp_path / "nowhere"))
    assert "nowhere" in str(error.value)
    assert "fix:" in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("files", [[], ["a.txt", "b.TXT", "c.csv", "noext"]])
def test_F1_folder_without_images_names_suffixes_found_and_accepted(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError) as error:
        load_folder(request(tmp_path))
    message = str(error.value)
    assert str(tmp_path) in message
    assert ".webp" in message
    assert (".txt (2)" in message and ".csv (1)" in message) if files else "no files at all" in message


def test_F4_classes_are_ordered_named_and_empty_ones_reported(tmp_path: Path) -> None:
    for name, count in (("b", 1), ("a10", 2), ("a9", 1), ("Z", 1)):
        (tmp_path / name / "deeper").mkdir(parents=True)
        for i in range(count):
            (tmp_path / name / "deeper" / f"{i}.png").write_bytes(badfiles.png(picture(4, 4, seed=i)))
    (tmp_path / "hollow").mkdir()
    data = load_folder(request(tmp_path))
    assert data.classes == ("Z", "a10", "a9", "b")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 1, 2, 3]
    assert any("hollow" in note for note in data.notes)


def test_F4_thousands_of_classes(tmp_path: Path) -> None:
    content = badfiles.png(picture(2, 2))
    for i in range(1500):
        (tmp_path / f"{i}").mkdir()
        (tmp_path / f"{i}" / "x.png").write_bytes(content)
    data = load_folder(request(tmp_path, size=(2, 2), channels="3"))
    assert len(data.classes) == 1500
    assert data.labels is not None
    assert data.labels.tolist() == list(range(1500))
    assert data.classes == tuple(sorted(map(str, range(1500))))


def test_F18_order_is_by_bytes(tmp_path: Path) -> None:
    for name in ("b.png", "A.png", "a.png", "B.png", "a1.png", "a10.png", "a2.png", "é.png"):
        (tmp_path / name).write_bytes(badfiles.png(picture(2, 2)))
    names = [Path(f).name for f in load_folder(request(tmp_path)).files]
    assert names == sorted(names, key=os.fsencode)
    assert len(names) in (6, 8)  # 6 where the file system knows no case


# ---- MNIST's idx files ---------------------------------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


def mnist(root: Path, folder: str = "MNIST", count: int = 12, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8) % 10
    (root / folder / "raw").mkdir(parents=True, exist_ok=True)
    (root / folder / "raw" / f"{split}-images-idx3-ubyte").write_bytes(idx(pixels))
    (root / folder / "raw" / f"{split}-labels-idx1-ubyte").write_bytes(idx(labels))
    return pixels, labels


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")])
def test_mnist_and_relatives_are_read(tmp_path: Path, name: str, folder: str) -> None:
    pixels, labels = mnist(tmp_path, folder)
    data = load(request(name, tmp_path))
    assert np.array_equal(data.images[..., 0], pixels)
    assert data.labels is not None
    assert np.array_equal(data.labels, labels)
    assert len(data.classes) == 10
    assert data.name == name
    assert data.images.flags.c_contiguous
    mnist(tmp_path, folder, 5, "t10k")
    test = load(request(name, tmp_path, split="test"))
    assert len(test) == 5
    assert test.name == f"{name}:test"
    assert check(request(name, tmp_path)).count == 12
    # the folder itself as the root, and compressed files
    for path in (tmp_path / folder / "raw").iterdir():
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert np.array_equal(load(request(name, tmp_path / folder)).images, data.images)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not an idx file"),
        (b"\x89PNG\r\n", "not an idx file"),
        (b"<html>", "not an idx file"),
        (b"\0\0\x0d\3" + bytes(12), "type 0x0d"),
        (b"\0\0\x08\1" + bytes(12), "1 dimensions"),
        (b"\0\0\x08\xff" + bytes(12), "255 dimensions"),
        (b"\0\0\x08\3\0\0", "inside its header"),
        (b"\0\0\x08\3" + struct.pack(">3i", 60000, 28, 28) + bytes(100), "more than the file holds"),
        (b"\0\0\x08\3" + struct.pack(">3i", 2**31 - 1, 2**31 - 1, 2**31 - 1), "more than the file holds"),
        (b"\0\0\x08\3" + struct.pack(">3i", -1, 28, 28) + bytes(784), "negative size"),
        (b"\0\0\x08\3" + struct.pack(">3i", 1, 28, 28) + bytes(783), "fewer bytes"),
        (b"\0\0\x08\3" + struct.pack(">3i", 1, 28, 28) + bytes(785), "more bytes"),
        (b"\0\0\x08\3" + struct.pack(">3i", 0, 28, 28), "no images"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_F14_bad_idx_files_name_the_file_and_allocate_nothing(tmp_path: Path, content: bytes, word: str, compressed: bool) -> None:
    mnist(tmp_path, count=1)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.unlink()
    path = path.with_name(path.name + (".gz" if compressed else ""))
    path.write_bytes(gzip.compress(content) if compressed else content)
    (tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(min(len(content), 0), np.uint8)))
    tracemalloc.start()
    with pytest.raises(UserError) as error:
        load(request("mnist", tmp_path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(path) in str(error.value)
    assert peak < 8 << 20
    if not (compressed and word in ("more than the file holds", "fewer bytes")):  # a small gzip file could hold that much
        assert word in str(error.value) or word == "fewer bytes"


def test_F14_damaged_gzip_wrong_labels_and_wrong_counts(tmp_path: Path) -> None:
    pixels, _ = mnist(tmp_path, count=3)
    raw = tmp_path / "MNIST" / "raw"
    bad = raw / "x.gz"
    for content in (gzip.compress(idx(pixels))[:-20], b"not gzip", gzip.compress(idx(pixels))[:40]):
        bad.write_bytes(content)
        with pytest.raises(UserError, match=r"x\.gz"):
            read_idx(bad, 3)
    labels = raw / "train-labels-idx1-ubyte"
    labels.write_bytes(idx(np.array([1, 2, 10], np.uint8)))
    with pytest.raises(UserError, match="label 10"):
        load(request("mnist", tmp_path))
    labels.write_bytes(idx(np.array([1, 2], np.uint8)))
    with pytest.raises(UserError, match="2 labels for 3 images"):
        load(request("mnist", tmp_path))


# ---- SVHN, CIFAR-10 ------------------------------------------------------------------------------------------------------------------


def test_svhn_is_read_and_label_ten_is_the_digit_zero(tmp_path: Path) -> None:
    savemat = pytest.importorskip("scipy.io").savemat
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), np.uint8)
    savemat(tmp_path / "train_32x32.mat", {"X": pixels, "y": np.array([[10], [1], [9], [10]], np.uint8)})
    data = load(request("svhn", tmp_path))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 9, 0]
    assert np.array_equal(data.images[2], pixels[..., 2])
    assert data.images.flags.c_contiguous
    for content in (b"", b"MATLAB 5.0 nonsense" * 20, (tmp_path / "train_32x32.mat").read_bytes()[:300]):
        (tmp_path / "test_32x32.mat").write_bytes(content)
        with pytest.raises(UserError, match=r"test_32x32\.mat"):
            load(request("svhn", tmp_path, split="test"))
    savemat(tmp_path / "test_32x32.mat", {"X": pixels[:, :, 0], "y": np.ones((4, 1))})
    with pytest.raises(UserError, match="expected uint8 X"):
        load(request("svhn", tmp_path, split="test"))


def cifar(root: Path, count: int = 3) -> np.ndarray:
    (root / "cifar-10-batches-bin").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    records = np.concatenate([np.arange(count, dtype=np.uint8)[:, None], pixels.transpose(0, 3, 1, 2).reshape(count, -1)], axis=1)
    for i in (1, 2):
        (root / "cifar-10-batches-bin" / f"data_batch_{i}.bin").write_bytes(records.tobytes())
    return pixels


def test_cifar10_binary_version_is_read(tmp_path: Path) -> None:
    pixels = cifar(tmp_path)
    data = load(request("cifar10", tmp_path))
    assert np.array_equal(data.images, np.concatenate([pixels, pixels]))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert "6 of 50,000" in data.notes[0]
    assert data.classes[9] == "truck"
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    for content, word in ((b"", "whole number of records"), (bytes(3072), "whole number of records"), (b"\x0a" + bytes(3072), "label 10")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=word) as error:
            load(request("cifar10", tmp_path, split="test"))
        assert str(path) in str(error.value)


def test_F15_pickled_cifar10_is_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "cifar-10-batches-py").mkdir()
    evil = f"cposix\nsystem\n(S'touch {canary}'\ntR.".encode()  # a pickle that runs a command
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(evil)
    with pytest.raises(UserError, match="never unpickles") as error:
        load(request("cifar10", tmp_path, download=True))
    assert "cifar-10-batches-bin" in str(error.value)
    assert not canary.exists()
    cifar(tmp_path)  # the binary version beside it is used
    assert len(load(request("cifar10", tmp_path))) == 6
    assert not canary.exists()


# ---- CelebA --------------------------------------------------------------------------------------------------------------------------


def celeba(root: Path, listed: int = 6, here: int = 4) -> None:
    """The lists name `listed` images, the first `here` of them exist at half size; number 3 is for validation, 4 and later for test."""
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06d}.jpg" for i in range(1, listed + 1)]
    for i, name in enumerate(names[:here]):
        face = np.full((109, 89, 3), 40 * i, np.uint8)
        face[:, :7] = face[:, -7:] = 255  # what the usual crop cuts off
        (folder / "img_align_celeba" / name).write_bytes(badfiles.jpeg(face, quality=95))
    parts = [0, 0, 1, 2, 2, 0][:listed]
    (folder / "list_eval_partition.txt").write_text("".join(f"{n} {p}\n" for n, p in zip(names, parts)))
    (folder / "identity_CelebA.txt").write_text("".join(f"{n} {100 + i}\n" for i, n in enumerate(names)))
    rows = "".join(f"{n}  {1 if i % 2 else -1} -1  1\n" for i, n in enumerate(names))
    (folder / "list_attr_celeba.txt").write_text(f"{listed}\nMale Smiling Young\n{rows}")


def test_celeba_partial_copy(tmp_path: Path) -> None:
    celeba(tmp_path)
    data = load(request("celeba", tmp_path))
    assert data.images.shape == (2, 64, 64, 3)
    assert any("2 of 162,770" in note for note in data.notes)
    assert data.attribute_names == ("Male", "Smiling", "Young")
    assert data.attributes is not None
    assert data.attributes.tolist() == [[0, 0, 1], [1, 0, 1]]
    assert data.identities is not None
    assert data.identities.tolist() == [100, 101]
    assert data.images[0, 10:50, 10:50].max() < 8
    assert data.images[0, 2:-2, 2:-2].max() < 60
    test = load(request("celeba", tmp_path, split="test", size=(32, 24), channels="1"))
    assert test.images.shape == (1, 32, 24, 1)
    assert test.identities is not None
    assert test.identities.tolist() == [103]
    assert len(load(request("celeba", tmp_path / "celeba"))) == 2


def test_celeba_bad_files_and_missing_rows(tmp_path: Path) -> None:
    celeba(tmp_path)
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba" / "000001.jpg").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"1 of 2 images") as error:
        load(request("celeba", tmp_path))
    assert "000001.jpg" in str(error.value)
    data = load(request("celeba", tmp_path, skip_bad=True))
    assert data.identities is not None
    assert data.identities.tolist() == [101]
    assert len(data.bad) == 1
    assert len(check(request("celeba", tmp_path)).bad) == 1
    (folder / "img_align_celeba" / "000004.jpg").unlink()
    with pytest.raises(UserError, match="none of this copy's 3 images is in the test part"):
        load(request("celeba", tmp_path, split="test"))
    (folder / "list_attr_celeba.txt").write_text("2\nMale Young\n000001.jpg 1\n")
    with pytest.raises(UserError, match="line 3"):
        load(request("celeba", tmp_path, skip_bad=True))
    (folder / "list_attr_celeba.txt").unlink()
    (folder / "identity_CelebA.txt").write_text("000001.jpg 7\n")
    with pytest.raises(UserError, match=r"no row for the image 000002\.jpg"):
        load(request("celeba", tmp_path, skip_bad=True))
    (folder / "identity_CelebA.txt").unlink()
    bare = load(request("celeba", tmp_path, skip_bad=True))
    assert bare.attributes is None
    assert bare.identities is None
    assert sum("no " in note for note in bare.notes) == 2
    (folder / "list_eval_partition.txt").unlink()
    with pytest.raises(UserError, match=r"list_eval_partition\.txt"):
        load(request("celeba", tmp_path))


# ---- fetching ------------------------------------------------------------------------------------------------------------------------

WANTED = {
    "mnist": "MNIST/raw/train-images-idx3-ubyte",
    "fashion-mnist": "FashionMNIST/raw/train-labels-idx1-ubyte",
    "kmnist": "KMNIST/raw/train-images-idx3-ubyte",
    "svhn": "train_32x32.mat",
    "cifar10": "cifar-10-batches-bin/data_batch_5.bin",
    "celeba": "celeba/list_eval_partition.txt",
}


def patched_download(monkeypatch: pytest.MonkeyPatch, action: Callable[..., None]) -> None:
    """Replace torchvision (which need not be installed) by an `action`."""
    sets: dict[str, Any] = {name: action for name in ("MNIST", "FashionMNIST", "KMNIST", "SVHN")}
    sets["CelebA"] = SimpleNamespace(file_list=[("id", "md5", name) for name in ("img_align_celeba.zip", "list_eval_partition.txt")])
    utils = SimpleNamespace(download_url=action, download_file_from_google_drive=action)
    modules = {"torchvision.datasets": SimpleNamespace(**sets), "torchvision.datasets.utils": utils}
    monkeypatch.setattr(download.importlib, "import_module", modules.__getitem__)


@pytest.mark.parametrize("name", WANTED)
def test_missing_set_without_network_says_which_files_go_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def offline(*args: Any, **options: Any) -> None:
        raise urllib.error.URLError("Name or service not known")

    module = __import__("models.data.load", fromlist=["SETS"]).SETS.find(name).module()
    with monkeypatch.context() as patch:
        patched_download(patch, offline)
        with pytest.raises(UserError) as error:
            module.load(request(name, tmp_path / "root", download=True))
    message = str(error.value)
    assert "Name or service not known" in message
    assert WANTED[name] in message
    assert str(tmp_path / "root") in message

    with pytest.raises(UserError, match="downloads are off") as error:
        load(request(name, tmp_path / "other"))
    assert WANTED[name] in str(error.value)
    assert not (tmp_path / "other").exists()


def test_missing_set_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fetch(root: str, **options: Any) -> None:
        calls.append(options)
        mnist(Path(root))

    from models.data.sets import mnist as mnist_set

    monkeypatch.setenv("LGM_DATA", str(tmp_path / "made"))  # the default root
    patched_download(monkeypatch, fetch)
    for _ in range(2):
        assert len(mnist_set.load(request("mnist", download=True))) == 12
    assert calls == [{"download": True, "train": True}]


def test_F13_file_with_a_wrong_hash_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(url: str, root: str, name: str, md5: str) -> None:
        (Path(root) / name).write_bytes(b"half an archive")
        raise RuntimeError("File not found or corrupted.")

    from models.data.sets import cifar10

    patched_download(monkeypatch, wrong)
    with pytest.raises(UserError, match="corrupted"):
        cifar10.load(request("cifar10", tmp_path, download=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("member", ["../evil.bin", "cifar-10-batches-bin/link", None])
def test_F8_archive_is_unpacked_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str | None) -> None:
    record = bytes(3073)

    def pack(url: str, root: str, name: str, md5: str) -> None:
        with tarfile.open(Path(root) / name, "w:gz") as tar:
            for inside in [f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)] + ([member] if member else []):
                info = tarfile.TarInfo(inside)
                info.size = len(record)
                if inside.endswith("link"):
                    info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0
                tar.addfile(info, io.BytesIO(record) if info.size else None)

    from models.data.sets import cifar10

    root = tmp_path / "root"
    patched_download(monkeypatch, pack)
    if member is None:
        assert len(cifar10.load(request("cifar10", root, download=True))) == 5
        assert [p.name for p in root.iterdir()] == ["cifar-10-batches-bin"]
    else:
        with pytest.raises(UserError, match="download failed"):
            cifar10.load(request("cifar10", root, download=True))
        assert not (root / "cifar-10-batches-bin").exists()
        assert not (tmp_path / "evil.bin").exists()
        assert not [p for p in root.iterdir() if p.name.startswith(".tmp-")]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_F8_celeba_is_unpacked_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]) -> None:
    """Interrupted in the middle of its images it looks as if they had never been there; the next call unpacks what was fetched."""
    root, fetched, unpacked = tmp_path / "root", [], []
    face = badfiles.jpeg(picture(109, 89))

    def fetch(identifier: str, folder: str, name: str, md5: str) -> None:
        path = Path(folder) / name
        path.parent.mkdir(exist_ok=True)
        if path.exists():  # its hash is right
            return
        fetched.append(name)
        if name.endswith(".txt"):
            path.write_text("".join(f"{i:06d}.jpg 0\n" for i in range(1, 6)))
            return
        with zipfile.ZipFile(path, "w") as archive:
            for inside in [f"img_align_celeba/{i:06d}.jpg" for i in range(1, 6)]:
                archive.writestr(inside, face)

    def interrupted(source: Any, target: Any, *size: Any) -> None:
        unpacked.append(target.name)
        target.write(source.read(100))
        if len(unpacked) == 3:
            raise stop("in the middle")

    from models.data.sets import celeba as celeba_set

    patched_download(monkeypatch, fetch)
    with monkeypatch.context() as patch:
        patch.setattr(zipfile.shutil, "copyfileobj", interrupted)
        with pytest.raises(UserError if stop is OSError else stop, match="in the middle"):
            celeba_set.load(request("celeba", root, download=True))
    assert len(unpacked) == 3
    assert sorted(p.name for p in (root / "celeba").iterdir()) == ["img_align_celeba.zip", "list_eval_partition.txt"]
    assert len(celeba_set.load(request("celeba", root, download=True))) == 5
    assert fetched == ["img_align_celeba.zip", "list_eval_partition.txt"]
    assert len(celeba_set.load(request("celeba", root))) == 5  # and stays


@pytest.mark.parametrize("member", ["../../evil.bin", "/evil.bin"])
def test_F8_zip_members_stay_inside(tmp_path: Path, member: str) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("images/1.jpg", b"1")
        archive.writestr(member, b"evil")
    (tmp_path / "root").mkdir()
    download.unpack_folder(tmp_path / "images.zip", "images", tmp_path / "root")
    assert [p.name for p in (tmp_path / "root").rglob("*")] == ["images", "1.jpg"]
    assert not list(tmp_path.rglob("evil.bin"))
