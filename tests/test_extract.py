"""Sides of a comparison and the pass over them: order, overlap, sharing, and what becomes of images that cannot be used."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults import badfiles
from faults.badfiles import encoded, picture
from PIL import Image
from torch import Tensor

from models.data.dataset import DataRequest, ImageData
from models.data.sources import FolderSource, ItemSource
from models.errors import UserError
from models.metrics.features.base import Features, Source
from models.metrics.features.extract import extract

BAD = badfiles.bad_files()


class Means:
    """Features that can be checked by hand: each channel's mean; the logits are height and width."""

    name, digest, dimensions, classes = "means", "0" * 64, 3, 2

    def recipe(self) -> dict[str, Any]:
        return {"name": self.name}

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        rows = [[*np.broadcast_to(i.mean(axis=(0, 1)), 3), *i.shape[:2]] for i in images]
        return torch.tensor(np.array(rows), dtype=torch.float32)

    def apply(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        return batch[:, :3], batch[:, 3:]


class Numbers:
    """`count` images of one pixel, image i of value i. Remembers who asked for which, and in which order."""

    def __init__(self, count: int = 10, parallel: bool = True) -> None:
        self.name, self.parallel, self.count = "numbers", parallel, count
        self.calls: list[tuple[int, int, str]] = []

    def __len__(self) -> int:
        return self.count

    def load(self, start: int, stop: int) -> list[np.ndarray]:
        self.calls.append((start, stop, threading.current_thread().name))
        return [np.full((1, 1, 1), i, np.uint8) for i in range(start, stop)]


def values(source: Source, features: Features | None = None, **options: Any) -> Tensor:
    """The features of the whole pass."""
    return torch.cat([block.features for block in extract(source, features or Means(), **options)])


def folder(root: Path, **contents: bytes) -> FolderSource:
    """The given files (`name__png=...` is name.png) as a source."""
    for name, content in contents.items():
        (root / name.replace("__", ".")).write_bytes(content)
    return FolderSource(DataRequest(str(root)))


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Twelve images of as many sizes, grey, coloured, with alpha and in sub-folders."""
    for number in range(12):
        path = tmp_path / ("even" if number % 2 == 0 else ".") / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        image = Image.fromarray(picture(5 + number, 20 - number, 1 if number % 3 == 0 else 3, seed=number))
        (image.convert("RGBA") if number % 4 == 1 else image).save(path)
    return tmp_path


# ---- the pass ------------------------------------------------------------------------------------------------------------------------


def test_blocks_come_in_order_with_their_images() -> None:
    blocks = list(extract(Numbers(10), Means(), batch=4, workers=3))
    assert [len(b.images) for b in blocks] == [4, 4, 2]
    assert torch.cat([b.features[:, 0] for b in blocks]).tolist() == list(range(10))
    for block in blocks:
        assert [int(i[0, 0, 0]) for i in block.images] == block.features[:, 0].tolist()
        assert block.features.shape[1:] == (3,)
        assert block.logits.shape[1:] == (2,)


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (3, 4), (64, 2)])
def test_I3_batch_and_workers_change_nothing(mixed: Path, batch: int, workers: int, parallel: bool) -> None:
    source = FolderSource(DataRequest(str(mixed)))
    source.parallel = parallel
    assert torch.equal(values(source, batch=batch, workers=workers), values(source, batch=5, workers=1))


def test_a_source_that_is_not_parallel_is_loaded_in_order_by_the_consumer() -> None:
    source = Numbers(10, parallel=False)
    assert values(source, batch=2, workers=4)[:, 0].tolist() == list(range(10))
    assert source.calls == [(i, i + 2, threading.current_thread().name) for i in range(0, 10, 2)]


@pytest.mark.parametrize("parallel", [True, False])
def test_the_next_batch_is_prepared_while_the_network_works(parallel: bool) -> None:
    prepared = [threading.Event() for _ in range(3)]

    class Watchful(Means):
        def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
            prepared[int(images[0][0, 0, 0])].set()
            return super().prepare(images)

        def apply(self, batch: Tensor) -> tuple[Tensor, Tensor]:
            after = int(batch[0, 0]) + 1
            assert after == len(prepared) or prepared[after].wait(20)  # never, if the pass prepared one batch at a time
            return super().apply(batch)

    assert len(values(Numbers(3, parallel), Watchful(), batch=1, workers=1)) == 3


def test_the_workers_do_not_run_far_ahead() -> None:
    source = Numbers(100)
    blocks = extract(source, Means(), batch=2, workers=2)
    for done in range(1, 6):
        next(blocks)
        assert len(source.calls) <= done + 2
    blocks.close()  # type: ignore[attr-defined]
    assert len(source.calls) <= 8
    assert not [t for t in threading.enumerate() if t.name.startswith("lgm-extract")]


@pytest.mark.parametrize(("count", "world"), [(10, 1), (10, 3), (10, 10), (2, 4)])
def test_ranks_share_the_images_and_keep_their_order(count: int, world: int) -> None:
    shares = [torch.cat([torch.empty(0, 3), *(b.features for b in extract(Numbers(count), Means(), 2, 2, r, world))]) for r in range(world)]
    assert torch.cat(shares)[:, 0].tolist() == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_errors_of_the_network_come_through_as_they_are() -> None:
    class Broken(Means):
        def apply(self, batch: Tensor) -> tuple[Tensor, Tensor]:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        values(Numbers(10), Broken(), batch=2)
    assert not [t for t in threading.enumerate() if t.name.startswith("lgm-extract")]


def test_settings_out_of_range_are_refused_at_once() -> None:
    with pytest.raises(UserError, match="--batch"):
        extract(Numbers(), Means(), batch=0)
    with pytest.raises(UserError, match="--workers"):
        extract(Numbers(), Means(), workers=-1)
    with pytest.raises(UserError, match="0 images to look at: nothing"):
        extract(ItemSource(ImageData("nothing", np.zeros((0, 4, 4, 3), np.uint8))), Means())


# ---- folders and arrays --------------------------------------------------------------------------------------------------------------


def test_I8_a_folder_gives_every_image_in_its_own_size_and_mode(mixed: Path) -> None:
    source = FolderSource(DataRequest(str(mixed)))
    assert source.name == str(mixed)
    assert len(source) == 12
    for path, image in zip(source.paths, source.load(0, 99)):
        number = int(Path(path).stem)
        grey = number % 3 == 0 and number % 4 != 1
        assert image.shape == (5 + number, 20 - number, 1 if grey else 3)
        right = picture(5 + number, 20 - number, 1 if number % 3 == 0 else 3, seed=number)
        assert np.array_equal(image, np.broadcast_to(right.reshape(*right.shape[:2], -1), image.shape))


def test_a_split_of_a_folder(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        (tmp_path / split).mkdir()
        for number in range(count):
            (tmp_path / split / f"{number}.png").write_bytes(badfiles.png())
    assert len(FolderSource(DataRequest(str(tmp_path), split="test"))) == 2


def test_the_images_of_a_data_set() -> None:
    images = np.arange(5 * 4 * 3 * 3, dtype=np.uint8).reshape(5, 4, 3, 3)
    source = ItemSource(ImageData("samples", images))
    assert np.array_equal(np.stack(list(source.load(1, 3))), images[1:3])
    assert torch.allclose(values(source, batch=2), torch.from_numpy(images).float().mean((1, 2)))
    for wrong in (images[0], images.astype(np.float32), images[..., :2]):
        with pytest.raises(ValueError, match="uint8"):
            ImageData("wrong", wrong)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"no images in this folder; suffixes found: \.txt"):
        FolderSource(DataRequest(str(tmp_path)))
    with pytest.raises(UserError, match="no such folder"):
        FolderSource(DataRequest(str(tmp_path / "nowhere")))


def test_I7_a_fingerprint_is_of_the_content_alone(tmp_path: Path) -> None:
    source = folder(tmp_path, a__png=badfiles.png(), b__png=badfiles.png(picture(8, 8)))
    before = source.fingerprint()
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    assert FolderSource(DataRequest(str(tmp_path))).fingerprint() == before
    assert FolderSource(DataRequest(str(tmp_path), background=(0, 0, 0))).fingerprint() != before
    (tmp_path / "c.png").write_bytes(badfiles.png(picture(8, 8, seed=1)))
    assert FolderSource(DataRequest(str(tmp_path))).fingerprint() != before
    images = np.stack([picture(8, 8, seed=n) for n in range(3)])
    assert ItemSource(ImageData("a", images)).fingerprint() == ItemSource(ImageData("b", images.copy())).fingerprint()
    assert ItemSource(ImageData("a", images)).fingerprint() != ItemSource(ImageData("a", images[::-1])).fingerprint()
    with pytest.raises(UserError, match=r"b\.png"):  # which the first listing still has
        source.fingerprint()


# ---- images that cannot be used ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD)
def test_E1_E2_E5_E11_E13_a_bad_image_stops_the_pass_with_its_path_and_reason(tmp_path: Path, name: str) -> None:
    content, word = BAD[name]
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(badfiles.png(picture(8, 8)))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        values(FolderSource(DataRequest(str(tmp_path))), batch=1, workers=2)
    assert error.value.where == str(tmp_path / name)
    assert word in error.value.what
    assert "--skip-bad" in error.value.fix
    assert not [t for t in threading.enumerate() if t.name.startswith("lgm-extract")]


def test_E1_the_first_bad_image_is_named_whichever_thread_met_it_first(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02d}.png").write_bytes(b"" if number in (7, 8, 15) else badfiles.png())
    seen: list[int] = []

    def blocks() -> Iterator[int]:
        for block in extract(FolderSource(DataRequest(str(tmp_path))), Means(), batch=1, workers=4):
            yield len(block.images)

    with pytest.raises(UserError, match=r"07\.png"):
        seen.extend(blocks())
    source = FolderSource(DataRequest(str(tmp_path)))
    (tmp_path / "07.png").unlink()  # after the listing
    with pytest.raises(UserError, match=r"no such file\): .*07\.png"):
        values(source)


def test_E1_skip_bad_leaves_them_out_and_lists_them(tmp_path: Path) -> None:
    good = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(good):
        path.write_bytes(badfiles.png(picture(8, 8, seed=number)))
    alone = values(FolderSource(DataRequest(str(tmp_path))))
    for name, (content, _) in BAD.items():
        (tmp_path / name).write_bytes(content)
    source = FolderSource(DataRequest(str(tmp_path), skip_bad=True))
    assert len(source) == len(BAD) + 4
    assert not source.bad
    for batch in (1, 7, 64):  # blocks that are empty, partly filled, and all in one
        assert torch.equal(values(source, batch=batch, workers=3), alone)
        assert [path for path, _ in source.bad] == [p for p in source.paths if Path(p) not in good]
    for path, reason in source.bad:
        assert BAD[Path(path).name][1] in reason


def test_E1_where_all_are_bad_there_is_nothing_to_skip_to(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"<html>")
    with pytest.raises(UserError, match="0 of 2 images can be used") as error:
        values(FolderSource(DataRequest(str(tmp_path), skip_bad=True)), batch=1)
    assert str(tmp_path / "b.png") in str(error.value)


def test_E3_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    source = folder(tmp_path, a__png=badfiles.grey16_png(ramp), b__tif=encoded(ramp, "TIFF"))
    means = values(source)
    assert (means - 127.5).abs().max() < 0.5
    assert np.array_equal(source.load(0, 1)[0][:, :, 0], np.round(ramp / 257))


def test_E7_transparency_lies_on_white_or_on_what_was_asked_for(tmp_path: Path) -> None:
    hidden = encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG")
    half = encoded(Image.new("LA", (4, 4), (0, 128)), "PNG")
    assert values(folder(tmp_path, a__png=hidden, b__png=half)).tolist() == [[255] * 3, [127] * 3]
    black = FolderSource(DataRequest(str(tmp_path), background=(0, 0, 0)))
    assert values(black).tolist() == [[0] * 3, [0] * 3]
