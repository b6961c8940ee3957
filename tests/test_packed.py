"""Packed sets: the same images and labels as what was packed, wherever a command takes data; and other people's shards."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
from PIL import Image

from models.data.dataset import ImageData
from models.data.items import Field, Items
from models.data.load import check, describe, load, parse, parse_item, source_to_pack
from models.data.packed import manifest, write
from models.data.packed.read import Packed
from models.errors import UserError


def packed(data: str | Items, out: Path, raw: bool = False, shard: int = 3000, **asked: Any) -> Path:
    source = write.of_items(data, raw) if isinstance(data, Items) else source_to_pack(parse(data, **asked), raw)
    write.pack(source, out, shard)
    return out


def same(one: Items, other: Items) -> None:
    assert dict(one.fields) == dict(other.fields)
    assert len(one) == len(other)
    for key in one.fields:
        np.testing.assert_array_equal(one.all(key), other.all(key), key)
        backwards = np.arange(len(one))[::-2]
        np.testing.assert_array_equal(one.rows(key, backwards), other.rows(key, backwards), key)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos of several sizes and formats in two classes."""
    dice = np.random.default_rng(0)
    for n in range(9):
        path = tmp_path / "photos" / ("cat", "dog")[n % 2] / f"{n}.{('png', 'jpg', 'webp')[n % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dice.integers(0, 256, (10 + n, 14, 3), np.uint8)).save(path)
    return tmp_path / "photos"


# ---- the same set --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
def test_a_folder(raw: bool, pictures: Path, tmp_path: Path) -> None:
    found = load(parse(str(packed(str(pictures), tmp_path / "packed", raw))))
    assert isinstance(found, Packed)
    assert len(found.manifest.shards) > 3
    same(load(parse(str(pictures))), found)


def test_files_keep_their_bytes_and_fit_as_those_of_the_folder_do(photos: Path, tmp_path: Path) -> None:
    out = packed(str(photos), tmp_path / "packed")
    asked: list[dict[str, Any]] = [{}, {"size": (8, 12)}, {"size": (16, 16), "fit": "pad", "background": (9, 8, 7)}, {"channels": "1"}]
    for request in asked:
        same(load(parse(str(photos), **request)), load(parse(str(out), **request)))
    notes = [load(parse(str(place))).notes for place in (photos, out)]
    assert notes[0] == notes[1]  # what became of the sizes
    members = [member for shard in sorted(out.glob("*.tar")) for member in tarfile.open(shard) if not member.name.endswith(".cls")]
    assert [Path(member.name).suffix for member in members[:3]] == [".png", ".webp", ".jpg"]  # 0 and 2 and 4 are cats
    first = tarfile.open(out / "shard-000000.tar").extractfile(members[0])
    assert first is not None
    assert first.read() == (photos / "cat" / "0.png").read_bytes()


def test_grey_images_in_colour_become_one_channel(tmp_path: Path) -> None:
    for n in range(4):
        grey = np.random.default_rng(n).integers(0, 256, (8, 8, 1), np.uint8).repeat(3, 2)
        (tmp_path / "grey").mkdir(exist_ok=True)
        Image.fromarray(grey).save(tmp_path / "grey" / f"{n}.png")
    for raw in (False, True):
        found = load(parse(str(packed(str(tmp_path / "grey"), tmp_path / f"packed-{raw}", raw))))
        assert found.fields["image"].shape == (1, 8, 8)
        same(load(parse(str(tmp_path / "grey"))), found)


@pytest.mark.parametrize("raw", [False, True])
def test_all_kinds_of_fields(raw: bool, tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    words = ("", "a", "b")
    data = ImageData(
        "all",
        dice.integers(0, 256, (11, 6, 7, 3), np.uint8),
        labels=dice.integers(0, 3, 11),
        classes=("x", "y", "z"),
        attributes=dice.integers(0, 2, (11, 2)).astype(np.uint8),
        attribute_names=("hat", "beard"),
        factors=dice.uniform(-1, 1, (11, 2)).astype(np.float32),
        factor_names=("pose", "light"),
        identities=dice.integers(0, 5, 11),
        more={
            "caption": (Field("tokens", (3,), words, 3), dice.integers(0, 3, (11, 3))),
            "film": (Field("clip", (2, 3, 4, 5)), dice.integers(0, 256, (11, 2, 4, 5, 3)).astype(np.uint8)),
        },
    )
    found = load(parse(str(packed(data, tmp_path / "packed", raw))))
    same(data, found)
    shard = tarfile.open(tmp_path / "packed" / "shard-000000.tar")
    text = shard.extractfile("000000000.json")
    assert text is not None
    told = json.loads(text.read())
    assert told["attributes"] == {"hat": int(data.attributes[0, 0]), "beard": int(data.attributes[0, 1])}  # type: ignore[index]
    assert told["identity"] == int(data.identities[0])  # type: ignore[index]


def test_pairs(pictures: Path, tmp_path: Path) -> None:
    for rule in ("grey", "small:2", "masked"):
        pairs = load(parse(f"{pictures}[input={rule}]", channels="3"))
        found = load(parse(str(packed(pairs, tmp_path / rule.replace(":", "-")))))
        same(pairs, found)
    with pytest.raises(UserError, match="pairs are not resized"):
        load(parse(str(tmp_path / "small-2"), size=(4, 4)))


def test_clauses_and_splits(pictures: Path, tmp_path: Path) -> None:
    out = packed(str(pictures), tmp_path / "set" / "train")
    packed(str(pictures), tmp_path / "set" / "test", True)
    for text in ("{}[label=disc]", "{}[first=7]", "{}[label=disc;last=3]", "{}+{}", "{}[input=small:2]", "{0}[first=3]+{0}[label=cross]"):
        plain, mine = (load(parse(text.format(place, place))) for place in (pictures, out))
        same(plain, mine)
        assert mine.pieces is not None
    same(load(parse(str(pictures))), load(parse(str(tmp_path / "set"))))
    same(load(parse(str(pictures))), load(parse(f"{tmp_path / 'set'}:test")))
    with pytest.raises(UserError, match="no sub-folder 'test'"):
        load(parse(f"{out}:test"))


def test_pairs_side_by_side(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / "wide").mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (10, 20, 3), np.uint8)).save(tmp_path / "wide" / f"{n}.png")
    out = packed(str(tmp_path / "wide"), tmp_path / "packed")
    for asked in ({}, {"size": (6, 6)}):
        same(load(parse(f"{tmp_path / 'wide'}[input=left]", **asked)), load(parse(f"{out}[input=left]", **asked)))  # type: ignore[arg-type]


def test_a_table_of_labels(pictures: Path, tmp_path: Path) -> None:
    names = [str(path.relative_to(pictures)) for path in sorted(pictures.rglob("*.png"))]
    table = tmp_path / "labels.csv"
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows([("file", "label", "hat"), *((name, n % 3, n % 2) for n, name in enumerate(names))])
    out = packed(str(pictures), tmp_path / "packed")
    same(load(parse(f"{pictures}[labels={table}]")), load(parse(f"{out}[labels={table}]")))
    assert load(parse(f"{out}[labels={table}]")).fingerprint() != load(parse(str(out))).fingerprint()
    same(load(parse(f"{pictures}[labels={table}]")), load(parse(str(packed(f"{pictures}[labels={table}]", tmp_path / "labelled")))))
    same(load(parse(f"{pictures}[labels={table}]")), load(parse(f"{tmp_path / 'labelled'}[labels={table}]")))
    kept = tarfile.open(tmp_path / "labelled" / "shard-000000.tar").extractfile("000000000.png")
    assert kept is not None
    assert kept.read() == sorted(pictures.rglob("*.png"))[0].read_bytes()
    named = packed(load(parse(str(pictures))), tmp_path / "named")  # decoded, and yet their names are known
    same(load(parse(f"{pictures}[labels={table}]")), load(parse(f"{named}[labels={table}]")))
    with pytest.raises(UserError, match="have no names"):
        load(parse(f"{packed(support.image_data(6), tmp_path / 'nameless')}[labels={table}]"))


def test_the_fingerprint_is_of_content_and_shape(pictures: Path, tmp_path: Path) -> None:
    one, other = (packed(str(pictures), tmp_path / name) for name in ("one", "other"))
    assert load(parse(str(one))).fingerprint() == load(parse(str(other))).fingerprint()
    assert load(parse(str(one), size=(8, 8))).fingerprint() != load(parse(str(one))).fingerprint()
    changed = packed(f"{pictures}[first=19]", tmp_path / "changed")
    assert load(parse(str(changed))).fingerprint() != load(parse(str(one))).fingerprint()


def test_it_reads_no_image_to_say_what_it_is(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = packed(str(pictures), tmp_path / "packed")
    monkeypatch.setattr(Packed, "_pixels", lambda *rest: pytest.fail("an image was read"))
    shown = describe(load(parse(str(out))))
    assert shown["count"] == 20
    assert {one["name"]: one["count"] for one in shown["classes"]} == {"cross": 10, "disc": 10}


def test_it_is_a_webdataset(pictures: Path, tmp_path: Path) -> None:
    """Members of an item stand together and share what is before the first dot; nothing in a shard needs lgm."""
    out = packed(str(pictures), tmp_path / "packed")
    data, items = load(parse(str(pictures))), []
    for shard in sorted(out.glob("*.tar")):
        with tarfile.open(shard) as tar:
            names = [member.name for member in tar]
            assert [name.split(".")[0] for name in names[::2]] == [name.split(".")[0] for name in names[1::2]]
            for image, label in zip(names[::2], names[1::2]):
                pixels = np.asarray(Image.open(io.BytesIO(tar.extractfile(image).read())))  # type: ignore[union-attr]
                items.append((pixels, int(tar.extractfile(label).read())))  # type: ignore[union-attr]
    np.testing.assert_array_equal(np.stack([pixels for pixels, _ in items])[..., None], data.all("image"))
    assert [label for _, label in items] == data.all("label").tolist()


def test_several_threads_read_at_once(pictures: Path, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    found = load(parse(str(packed(str(pictures), tmp_path / "packed", True, 1))))
    whole = load(parse(str(pictures))).all("image")
    with ThreadPoolExecutor(8) as pool:
        for n, image in enumerate(pool.map(lambda n: found.rows("image", np.array([n % 20])), range(400))):
            np.testing.assert_array_equal(image[0], whole[n % 20])


# ---- other people's shards -----------------------------------------------------------------------------------------------------------


def write_shard(path: Path, members: dict[str, bytes], format: int = tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def png(seed: int, size: tuple[int, int] = (6, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def foreign(folder: Path, format: int = tarfile.GNU_FORMAT) -> Path:
    for n in range(2):
        members = {}
        for item in range(3):
            key = f"./some folder/{'long' * 30 if item == 2 else ''}{n}{item}"
            members |= {
                f"{key}.png": png(10 * n + item),
                f"{key}.cls": str(item * 5).encode(),
                f"{key}.txt": b"a dog",
                f"{key}.json": b"{}",
            }
        write_shard(folder / f"part-{n}.tar", {"README": b"hello", **members}, format)
    return folder


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_without_an_index(format: int, tmp_path: Path) -> None:
    folder = foreign(tmp_path / "shards", format)
    before = support.contents(folder)
    data = load(parse(str(folder)))
    assert dict(data.fields) == {
        "image": Field("image", (3, 6, 8)),
        "label": Field("number", names=("0", "5", "10"), count=3),
        "caption": Field("tokens", (2,), ("", "a", "dog"), 3),
    }
    wanted = [np.asarray(Image.open(io.BytesIO(png(10 * n + item)))) for n in range(2) for item in range(3)]
    np.testing.assert_array_equal(data.all("image"), np.stack(wanted))
    assert data.all("label").tolist() == [0, 1, 2] * 2
    assert support.contents(folder) == before  # nothing is written to them
    single = load(parse(str(folder / "part-1.tar")))
    np.testing.assert_array_equal(single.all("image"), np.stack(wanted[3:]))
    assert str(parse(f"{folder / 'part-1.tar'}[first=1]")) == f"{folder / 'part-1.tar'}[first=1]"


def test_the_index_is_made_once_and_anew_when_a_shard_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.data.packed import foreign as module

    made: list[str] = []
    original = module._items
    monkeypatch.setattr(module, "_items", lambda path, *rest: made.append(path.name) or original(path, *rest))
    folder = foreign(tmp_path / "shards")
    prints = [load(parse(str(folder))).fingerprint() for _ in range(2)]
    assert made == ["part-0.tar", "part-1.tar"]
    write_shard(folder / "part-1.tar", {"x.png": png(77), "x.cls": b"0", "x.txt": b"cat"})
    changed = load(parse(str(folder)))
    assert len(made) == 4
    assert len(changed) == 4
    assert changed.fingerprint() not in prints


def test_pairs_and_arrays_of_others(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    array = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    np.save(buffer, array)
    write_shard(
        tmp_path / "a.tar",
        {"1.npy": buffer.getvalue(), "1.target.png": png(1, (8, 8)), "2.npy": buffer.getvalue(), "2.target.png": png(2, (8, 8))},
    )
    data = load(parse(str(tmp_path / "a.tar")))
    np.testing.assert_array_equal(data.all("image"), np.stack([array] * 2))
    assert data.fields["target"].shape == (3, 8, 8)


BAD: list[tuple[str, Any, str]] = [
    ("no tar", b"hello" * 500, "no readable tar file"),
    ("no images", {"1.txt": b"hello"}, "no images in these shards"),
    (
        "a pickle",
        {"1.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }" + b" " * 60 + b"\n"},
        "cannot be used",
    ),
    ("not an image", {"1.png": b"hello"}, "cannot be used"),
]


@pytest.mark.parametrize(("content", "message"), [(c, m) for _, c, m in BAD], ids=[name for name, _, _ in BAD])
def test_bad_shards_of_others(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.tar"
    if isinstance(content, dict):
        write_shard(path, content)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        load(parse(str(path)))
    assert "bad.tar" in str(error.value) or str(tmp_path) in str(error.value)


def test_bad_images_of_others_are_left_out(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", {"1.png": png(1), "2.png": b"hello", "3.png": png(3)})
    with pytest.raises(UserError, match=r"a\.tar: 2"):
        load(parse(str(tmp_path / "a.tar")))
    found = load(parse(str(tmp_path / "a.tar"), skip_bad=True))
    assert len(found) == 2
    assert any("1 unreadable" in note for note in found.notes)


def test_a_folder_of_images_beside_an_archive_stays_one(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "set")
    write_shard(tmp_path / "set" / "download.tar", {"1.png": png(1)})
    assert isinstance(load(parse(str(tmp_path / "set"))), ImageData)


# ---- wherever a command takes data ---------------------------------------------------------------------------------------------------


def test_items_by_number(pictures: Path, tmp_path: Path) -> None:
    out = packed(str(pictures), tmp_path / "packed")
    request, index = parse_item(f"{out}:17")
    np.testing.assert_array_equal(load(request).rows("image", np.array([index])), load(parse(str(pictures))).rows("image", np.array([17])))


def test_sides_of_a_distance_keep_their_sizes(photos: Path, tmp_path: Path) -> None:
    from models.data.sources import FolderSource, PackedSource

    found = load(parse(str(packed(str(photos), tmp_path / "packed"))))
    assert isinstance(found, Packed)
    for one, other in zip(FolderSource(parse(str(photos))).load(0, 9), PackedSource(found).load(0, 9), strict=True):
        np.testing.assert_array_equal(one, other)


def test_check_says_that_all_is_well(pictures: Path, tmp_path: Path) -> None:
    for raw in (False, True):
        report = check(parse(str(packed(str(pictures), tmp_path / f"packed-{raw}", raw))))
        assert (report.count, report.bad, report.shape, report.classes) == (20, (), (16, 16, 1), ("cross", "disc"))


def test_the_manifest_says_what_it_was(pictures: Path, tmp_path: Path) -> None:
    out = packed(str(pictures), tmp_path / "packed")
    text = (out / manifest.NAME).read_text()
    found = manifest.Manifest.from_json(text, out)
    assert found.to_json() == text
    assert found.count == 20


# ---- what should not be taken for something else ------------------------------------------------------------------------------------


def test_one_tar_file_has_no_test_split(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "x.tar", {"1.png": png(1), "2.png": png(2)})
    with pytest.raises(UserError, match="one tar file has no splits"):
        load(parse(f"{path}:test"))


def test_the_same_shards_are_not_held_out(pictures: Path, tmp_path: Path) -> None:
    from models.training.sources import _made_from

    one, other = (load(parse(str(packed(str(pictures), tmp_path / name)))) for name in ("one", "other"))
    assert _made_from(one) == _made_from(other)
    half = load(parse(f"{tmp_path / 'one'}[first=3]+{pictures}"))
    assert not _made_from(half).isdisjoint(_made_from(one))
    different = load(parse(str(packed(f"{pictures}[first=1]", tmp_path / "different"))))
    assert _made_from(different).isdisjoint(_made_from(one))


@pytest.mark.parametrize("cut", ["a header", "between", "behind", "within a header"])
def test_a_damaged_archive_is_not_taken_for_a_short_one(cut: str, tmp_path: Path) -> None:
    path = write_shard(tmp_path / "x.tar", {f"{n}.png": png(n) for n in range(6)})
    with tarfile.open(path) as tar:
        third = tar.getmembers()[3]
    data = bytearray(path.read_bytes())
    if cut == "a header":
        data[third.offset + 150] ^= 1
    else:
        del data[{"between": third.offset, "behind": third.offset_data, "within a header": third.offset + 100}[cut] :]
    path.write_bytes(data)
    with pytest.raises(UserError, match="no readable tar file"):
        load(parse(str(path)))


def test_members_that_do_not_count(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(7, np.float32))
    members = {"1.npy": buffer.getvalue(), "1.png": png(1), "1.embedding.npy": buffer.getvalue(), "1.seg.png": b"bad", "1.cls": b"cat"}
    data = load(parse(str(write_shard(tmp_path / "x.tar", members))))
    assert dict(data.fields) == {"image": Field("image", (3, 6, 8)), "label": Field("number", names=("cat",), count=1)}


def test_a_cut_image_is_found_while_the_index_is_made(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "x.tar", {"1.png": png(1), "2.png": png(2)[:-40], "3.png": png(3)})
    with pytest.raises(UserError, match=r"x\.tar: 2"):
        load(parse(str(path)))
    assert len(load(parse(str(path), skip_bad=True)).all("image")) == 2
    assert [where for where, _ in check(parse(str(path))).bad] == [f"{path}: 2"]


def test_what_is_too_long_for_a_crop_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for n, size in enumerate([(20, 20), (5, 400)]):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / "data" / f"{n}.png")
    out = packed(str(tmp_path / "data"), tmp_path / "packed")
    with pytest.raises(UserError, match="too long for a crop"):
        load(parse(str(out)))
    assert load(parse(str(out), fit="pad")).all("image").shape == (2, 64, 64, 1)


HEADERS = [
    b"{'descr': (",
    b"-" * 9000,
    b"{'descr': '|O', 'fortran_order': False, 'shape': (1, 1), }",
    b"{'descr': '|u1', 'fortran_order': False, 'shape': (True,4,3), }",
]


@pytest.mark.parametrize("header", HEADERS, ids=range(4))
def test_hostile_arrays(header: bytes, tmp_path: Path) -> None:
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    path = write_shard(tmp_path / "x.tar", {"1.npy": start + bytes(12)})
    with pytest.raises(UserError, match="not an array of uint8"):
        load(parse(str(path)))


def test_hostile_archives(tmp_path: Path) -> None:
    longs = io.BytesIO()
    for _ in range(3000):  # headers that announce a long name, one behind the other
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1
        longs.write(info.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0"))
    (tmp_path / "long.tar").write_bytes(longs.getvalue())
    with pytest.raises(UserError, match=r"no readable tar file|no images"):
        load(parse(str(tmp_path / "long.tar")))


def test_splits_beside_a_readme(pictures: Path, tmp_path: Path) -> None:
    packed(str(pictures), tmp_path / "big" / "train")
    (tmp_path / "big" / "README.md").write_text("hello")
    same(load(parse(str(pictures))), load(parse(str(tmp_path / "big"))))


def test_a_folder_with_a_manifest_of_its_own_stays_one(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "set")
    (tmp_path / "set" / "manifest.json").write_text('{"name": "my page"}')
    write_shard(tmp_path / "set" / "download.tar", {"1.png": png(1)})
    assert isinstance(load(parse(str(tmp_path / "set"))), ImageData)


def test_shards_with_a_manifest_of_others(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "shards")
    (folder / "manifest.json").write_text('{"made by": "somebody"}')
    assert len(load(parse(str(folder)))) == 6


def test_it_is_packed_to_where_a_link_leads(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    packed(str(pictures), tmp_path / "link")
    assert len(load(parse(str(tmp_path / "there")))) == 20
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    packed(str(pictures), Path("."))
    assert len(load(parse(str(tmp_path / "here")))) == 20
    with pytest.raises(UserError, match="shards of 0 bytes"):
        packed(str(pictures), tmp_path / "none", shard=0)
