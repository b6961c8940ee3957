"""What can happen to a packed set, while it is made, while it lies there, and while a run reads it; from a folder and from a store."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import support
from fsspec.implementations.local import LocalFileSystem
from ranks import finished, together
from test_ranks import assert_identical, train

from models.data import cache
from models.data.items import Field
from models.data.load import check, load, parse, source_to_pack
from models.data.packed import manifest, stores, write
from models.data.packed.manifest import Manifest, Shard
from models.errors import UserError


def packed(data: Path, out: Path, raw: bool = True, shard: int = 1) -> Path:
    """With an item in each shard, unless it is said otherwise."""
    write.pack(source_to_pack(parse(str(data)), raw), out, shard)
    return out


@pytest.fixture
def out(pictures: Path, tmp_path: Path) -> Path:
    return packed(pictures, tmp_path / "packed")


# ---- while it is made ----------------------------------------------------------------------------------------------------------------


def pack_slowly(data: str, out: str, ready: str) -> None:
    def wait(done: int, total: int) -> None:
        Path(ready).write_text("")
        time.sleep(300)

    write._BLOCK = 4
    write.pack(source_to_pack(parse(data), True), Path(out), 1, wait)


def test_killed_while_packing(pictures: Path, tmp_path: Path) -> None:
    out, ready = tmp_path / "place" / "packed", tmp_path / "ready"
    child = support.start(pack_slowly, str(pictures), str(out), str(ready))
    support.wait_for(ready.exists, what="the packing")
    with pytest.raises(UserError, match="another process packs to this place"):
        packed(pictures, out)
    assert not out.exists()
    os.kill(child.pid, signal.SIGKILL)
    assert support.exit_code(child) == support.KILLED
    assert not out.exists()
    assert len(load(parse(str(packed(pictures, out))))) == 20
    assert [path.name for path in out.parent.iterdir()] == ["packed"]


@pytest.mark.parametrize("failing", ["a shard", "the manifest"])
def test_a_full_disk_while_packing(failing: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*rest: Any, **more: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    if failing == "a shard":
        monkeypatch.setattr(write._Hashed, "write", full)
    else:
        monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="No space left"):
        packed(pictures, tmp_path / "place" / "packed")
    assert list((tmp_path / "place").iterdir()) == []


def test_bad_images_stop_it_or_are_left_out(pictures: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(pictures, data)
    bad = sorted(data.rglob("*.png"))[3]
    bad.write_bytes(bad.read_bytes()[:60])
    for raw in (False, True):
        with pytest.raises(UserError, match="1 of 20 images cannot be used") as error:
            packed(data, tmp_path / "packed", raw)
        assert bad.name in str(error.value)
        assert not (tmp_path / "packed").exists()
        write.pack(source_to_pack(parse(str(data), skip_bad=True), raw), tmp_path / f"left-{raw}")
        found = load(parse(str(tmp_path / f"left-{raw}")))
        np.testing.assert_array_equal(found.all("image"), load(parse(str(data), skip_bad=True)).all("image"))
        assert any("1 unreadable" in note for note in found.notes)


def test_nothing_is_replaced(pictures: Path, out: Path) -> None:
    before = support.contents(out)
    with pytest.raises(UserError, match="something lies there already"):
        packed(pictures, out)
    assert support.contents(out) == before


# ---- while it lies there -------------------------------------------------------------------------------------------------------------


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_truncated_or_missing_shard_is_named_at_once(out: Path) -> None:
    shard = out / "shard-000007.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="shard is damaged") as error:
        load(parse(str(out)))
    assert error.value.where == str(shard)
    shard.unlink()
    with pytest.raises(UserError, match="No such file") as error:
        load(parse(str(out)))
    assert error.value.where == str(shard)


@pytest.mark.parametrize("raw", [False, True])
def test_a_changed_byte_is_found_with_its_member(raw: bool, pictures: Path, tmp_path: Path) -> None:
    out = packed(pictures, tmp_path / "packed", raw, 10_000)
    data = load(parse(str(out)))
    offset, length, _ = data._index(1).at["image"][2].tolist()  # type: ignore[attr-defined]
    flipped(out / "shard-000001.tar", offset + length - 20)
    report = check(parse(str(out)))
    third = sorted(pictures.rglob("*.png"))[data.first_of(1) + 2].relative_to(pictures)  # type: ignore[attr-defined]
    assert report.bad[0] == (f"{out}/shard-000001.tar: {third}", "its bytes have changed")
    assert report.bad[1][0] == f"{out}/shard-000001.tar"
    assert len(report.bad) == 2
    assert report.count == 19


def test_a_changed_byte_between_images_is_found(out: Path) -> None:
    flipped(out / "shard-000002.tar", 120)  # in the header of a member
    [(where, reason)] = check(parse(str(out))).bad
    assert where == f"{out}/shard-000002.tar"
    assert "none of an image's" in reason


def test_a_changed_index_or_manifest_is_refused(out: Path) -> None:
    flipped(out / "shard-000003.safetensors", -3)
    data = load(parse(str(out)))
    with pytest.raises(UserError, match="index is damaged"):
        data.rows("image", np.array([3]))
    assert check(parse(str(out))).bad == ((f"{out}/shard-000003.tar", "the index is damaged: its sha256 is not the manifest's"),)
    path = out / manifest.NAME
    for change in ({"digest": "0"}, {"format": 99}, {"shards": [{}]}, {"fields": {}}, {"pictures": 3}):
        good = path.read_text()
        path.write_text(json.dumps({**json.loads(good), **change}))
        with pytest.raises(UserError, match=r"manifest|packed in format"):
            load(parse(str(out)))
        path.write_text(good)
    path.write_text("{")
    with pytest.raises(UserError, match="no JSON"):
        load(parse(str(out)))


def test_hostile_names_and_places_are_refused(out: Path, tmp_path: Path) -> None:
    good = json.loads((out / manifest.NAME).read_text())
    for name in ("../secret.tar", "/etc/passwd.tar", "secret", "a\0.tar", 7):
        shards = [{**good["shards"][0], "name": name}, *good["shards"][1:]]
        with pytest.raises(UserError, match=r"the name of a shard|a text was expected"):
            Manifest.from_json(json.dumps({**good, "shards": shards}), "here")
    shard, fields = Shard("a.tar", 2, 100, "", ""), {"image": Field("image"), "label": Field("number", names=("a", "b"), count=2)}
    at, labels = np.array([[0, 50, 0], [50, 50, 0]]), np.array([0, 1])
    one = np.array([[1, 0, 0]])
    bad_at = [at + one, at - one, at[:1], at.astype(np.int32), np.array([[2**62, 2**62, 0]] * 2)]
    bad_labels = [labels + 1, labels - 1, labels[:1], labels.astype(np.float32)]
    manifest.Index.from_bytes(manifest.Index({"image": at}, {"label": labels}).to_bytes(), shard, fields, "here")
    for places, values in [*((one, labels) for one in bad_at), *((at, one) for one in bad_labels)]:
        with pytest.raises(UserError, match="does not fit"):
            manifest.Index.from_bytes(manifest.Index({"image": places}, {"label": values}).to_bytes(), shard, fields, "here")
    with pytest.raises(UserError, match="damaged"):
        manifest.Index.from_bytes(b"\x80\x04hello", shard, fields, "here")


HOSTILE: list[tuple[str, Any]] = [
    *(("shards", [{"count": count}]) for count in (1.0, -1, 0, True, 2**40)),
    *(("shards", [{"sha256": text}]) for text in ("/abs/victim", "../../x", "A" * 64, 3)),
    *(("fields", {"image": {"kind": kind}}) for kind in ("number", "clip", "other")),
    *(("fields", {"label": {"kind": "vector", "shape": shape}}) for shape in ([], [-1], [0], [2**60], [2, 2])),
    ("fields", {"label": {"names": ["a"]}}),
    *(("pictures", {"image": {"sizes": sizes}}) for sizes in ([], [[0, 0, 5]], [[2**30, 2**30, 1]], [[1, 2]], 5)),
    ("pictures", {"image": {"channels": 2}}),
    ("pictures", {"other": {"sizes": [[1, 1, 1]], "grey": 0, "channels": 1}}),
    ("notes", [3]),
    ("bad", [["one"]]),
]


@pytest.mark.parametrize(("key", "change"), HOSTILE, ids=str)
def test_hostile_manifests_are_refused(key: str, change: Any, out: Path) -> None:
    good = json.loads((out / manifest.NAME).read_text())
    value = good[key]
    if isinstance(change, list) and value and isinstance(value[0], dict):
        value = [{**value[0], **change[0]}, *value[1:]]
    elif isinstance(change, dict):
        value = {**value, **{name: {**value.get(name, {}), **one} for name, one in change.items()}}
    else:
        value = change
    with pytest.raises(UserError, match="damaged") as error:
        Manifest.from_json(json.dumps({**good, key: value}), "here")
    assert "digest" not in error.value.what  # that of a hostile one would be right


# ---- while a run reads it ------------------------------------------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {"save_every": 8, "keep": 99}  # 20 items: an epoch's border is at 40 and 80, a window's at 16


@pytest.mark.parametrize("images", [8, 16, 24, 40, 56, 80])
@pytest.mark.parametrize("workers", [0, 2])
def test_kill_and_resume_is_the_straight_run(images: int, workers: int, out: Path, tmp_path: Path) -> None:
    run, straight, settings = tmp_path / "run", tmp_path / "straight", support.tiny("vae", **SETTINGS)
    support.call(support.train, "vae", str(out), str(straight), settings)
    child = support.start(support.train_and_die, images, "vae", str(out), str(run), {**settings, "workers": workers})
    assert support.exit_code(child) == support.KILLED
    if not support.checkpoints(run):
        support.call(support.train, "vae", str(out), str(run), settings)
    else:
        support.call(support.resume, str(run), {})
    support.assert_same_run(straight, run)


def test_the_order_is_the_same_through_the_cache(out: Path, tmp_path: Path) -> None:
    for name, data in (("near", str(out)), ("far", f"file://{out}")):
        support.call(support.train, "vae", data, str(tmp_path / name), support.tiny("vae"))
    support.assert_same_tensors(support.newest(tmp_path / "near"), support.newest(tmp_path / "far"))


def test_two_ranks_read_other_shards_and_stay_identical(out: Path, tmp_path: Path) -> None:
    run, states = tmp_path / "run", [tmp_path / f"state-{rank}" for rank in range(2)]
    settings = support.tiny("vae", **SETTINGS)
    finished(together(tmp_path, run, train, *[("vae", str(out), str(run), settings, state) for state in states]))
    assert_identical(states)
    again = tmp_path / "again"  # killed at an epoch's border, which is another one for each rank
    shutil.copytree(run, again)
    for images, path in support.checkpoints(again).items():
        if images > 40:
            path.unlink()
    finished(together(tmp_path, again, resume_rank, (str(again),)))
    support.assert_same_tensors(support.newest(run), support.newest(again))


def resume_rank(run: str) -> None:
    support.resume(run)


def train_and_lose(images: int, data: str, run: str, settings: Any, rank: str) -> None:
    """The command line, where the shards vanish after a step (on one rank)."""

    def lose(trainer: Any) -> None:
        from models.data.packed import read

        def gone(*rest: Any) -> Any:
            raise OSError(errno.ENOENT, "No such file or directory")

        if os.environ.get("RANK", "0") == rank:
            read._preadv = gone

    with support.after_step(images, lose):
        support.cli(support.arguments("vae", Path(data), Path(run), **settings))


@pytest.mark.parametrize("images", [24, 40])  # at 40 the images of a grid are asked for first
def test_data_that_vanish_stop_the_run_with_its_state_saved(images: int, out: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, text = support.run(train_and_lose, images, str(out), str(run), {"save_every": 1000}, "0")
    assert code == 2, text
    assert "the shard cannot be read (No such file or directory)" in text
    stopped = images + 8  # that step's images were there already
    assert f"stopped at {stopped} of 96 images, saved" in text
    assert f"lgm train --resume {run}" in text
    assert list(support.checkpoints(run)) == [stopped]
    support.call(support.resume, str(run), {})
    support.call(support.train, "vae", str(out), str(tmp_path / "straight"), support.tiny("vae", save_every=1000))
    support.assert_same_tensors(support.newest(run), support.newest(tmp_path / "straight"))


def test_data_that_vanish_behind_the_last_step_cost_nothing(out: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, text = support.run(train_and_lose, 96, str(out), str(run), {"save_every": 1000}, "0")
    assert code == 0, text
    assert "the shard cannot be read" in text  # for the last grid
    assert list(support.checkpoints(run)) == [96]


def test_data_that_vanish_between_two_stages(out: Path, tmp_path: Path) -> None:
    """The codes of all images are taken at the border; what the first stage has learned is kept."""
    run = tmp_path / "run"
    code, text = support.run(lose_at_the_border, str(out), str(run))
    assert code == 2, text
    assert "stopped at 48 of 96 images, saved" in text
    assert list(support.checkpoints(run)) == [48]
    support.call(support.resume, str(run), {})
    support.call(support.train, "aegan", str(out), str(tmp_path / "straight"), support.tiny("aegan", save_every=1000))
    support.assert_same_tensors(support.newest(run), support.newest(tmp_path / "straight"))


def lose_at_the_border(data: str, run: str) -> None:
    def lose(trainer: Any) -> None:
        from models.data.packed import read

        def gone(*rest: Any) -> Any:
            raise OSError(errno.ENOENT, "No such file or directory")

        read._preadv = gone

    with support.after_step(48, lose):
        support.cli(support.arguments("aegan", Path(data), Path(run), save_every=1000, sample_every=1000))


def test_data_that_vanish_for_one_rank_stop_both(out: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = (24, str(out), str(run), {"save_every": 1000}, "1")
    (first, told), (second, error) = together(tmp_path, None, train_and_lose, arguments, arguments)
    assert (first, second) == (1, 2), (told, error)
    assert "another rank cannot read its data" in told
    assert "the shard cannot be read" in error
    assert list(support.checkpoints(run)) == [32]


def test_data_that_are_not_there_at_the_start_leave_nothing(out: Path, tmp_path: Path) -> None:
    code, text = support.run(lost_from_the_start, str(out), str(tmp_path / "run"))
    assert code == 2, text
    assert "saved" not in text
    assert not (tmp_path / "run").exists()


def lost_from_the_start(data: str, run: str) -> None:
    from models.data.packed import read

    def gone(*rest: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    read._preadv = gone
    support.cli(support.arguments("vae", Path(data), Path(run)))


# ---- stores --------------------------------------------------------------------------------------------------------------------------


class Moody(LocalFileSystem):
    """A store of this machine's files whose answers `mood` spoils."""

    protocol = "moody"
    cachable = False
    mood: Callable[[str, Any], Any] = staticmethod(lambda path, file: file)
    opened: list[str] = []

    def open(self, path: str, mode: str = "rb", **rest: Any) -> Any:
        Moody.opened.append(path)
        return Moody.mood(path, super().open(path, mode, **rest))


@pytest.fixture
def moody(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    fsspec.register_implementation("moody", Moody, clobber=True)
    monkeypatch.setattr(Moody, "mood", staticmethod(lambda path, file: file))
    monkeypatch.setattr(Moody, "opened", [])
    monkeypatch.setattr(stores, "PAUSE", 0.01)
    monkeypatch.setenv("LGM_CACHE", str(tmp_path / "cache"))
    return f"moody://{out}"


def test_a_stores_shard_that_was_replaced_is_fetched_anew(moody: str, out: Path, tmp_path: Path) -> None:
    """By one of the same length, of a set without a manifest."""
    for path in [*out.glob("*.json"), *out.glob("*.safetensors")]:
        path.unlink()
    before = load(parse(moody))
    first = before.all("image")
    assert len(shards(tmp_path)) == 20  # each was fetched once, and lies here once
    one, other = (out / f"shard-{n:06d}.tar" for n in (0, 1))
    content = other.read_bytes()
    one.write_bytes(content)
    now = load(parse(moody)).all("image")
    np.testing.assert_array_equal(now[0], first[1])
    np.testing.assert_array_equal(now[1:], first[1:])


def test_an_index_is_kept_while_shards_come_and_go(moody: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in [*out.glob("*.json"), *out.glob("*.safetensors")]:
        path.unlink()
    monkeypatch.setenv("LGM_CACHE_LIMIT", str(3 * (out / "shard-000000.tar").stat().st_size))
    data = load(parse(moody))
    data._index.cache_clear()  # type: ignore[attr-defined]
    for _ in range(2):
        assert len(data.all("image")) == 20


def test_a_cached_shard_that_was_cut_is_fetched_anew(moody: str, out: Path, tmp_path: Path) -> None:
    wanted = load(parse(moody)).all("image")
    for path in shards(tmp_path):
        path.write_bytes(path.read_bytes()[:-1])
    np.testing.assert_array_equal(load(parse(moody)).all("image"), wanted)


def test_splits_in_a_store(moody: str, pictures: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    shutil.copytree(out, tmp_path / "big" / "train")
    shutil.copytree(out, tmp_path / "big" / "test")
    for text in (f"moody://{tmp_path}/big", f"moody://{tmp_path}/big:test"):
        assert load(parse(text)).fingerprint() == load(parse(moody)).fingerprint()


def test_an_index_that_never_comes(moody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LGM_STORE_TIMEOUT", "0.2")
    data = load(parse(moody))
    monkeypatch.setattr(Moody, "cat_file", lambda *rest, **more: time.sleep(5), raising=False)
    with pytest.raises(UserError, match=r"sent nothing for 0\.2 seconds"):
        data.rows("image", np.array([3]))
    monkeypatch.setenv("LGM_STORE_TIMEOUT", "soon")
    with pytest.raises(UserError, match="not a number of seconds"):
        load(parse(moody))


def shards(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache" / "shards").glob("*") if not path.name.startswith(".lock")]


def test_a_store_is_the_folder(moody: str, out: Path, tmp_path: Path) -> None:
    far, near = load(parse(moody)), load(parse(str(out)))
    assert far.fingerprint() == near.fingerprint()
    assert shards(tmp_path) == []  # nothing is fetched to say what it is
    np.testing.assert_array_equal(far.all("image"), near.all("image"))
    assert len(shards(tmp_path)) == 20
    before = len(Moody.opened)
    np.testing.assert_array_equal(load(parse(moody)).all("image"), near.all("image"))
    assert not [path for path in Moody.opened[before:] if path.endswith(".tar")]  # they lie here now
    np.testing.assert_array_equal(load(parse(f"{moody}[label=disc]")).all("image"), near.all("image")[near.all("label") == 1])


def test_other_peoples_shards_in_a_store(moody: str, out: Path) -> None:
    for path in [*out.glob("*.json"), *out.glob("*.safetensors")]:
        path.unlink()
    found = load(parse(moody))
    assert len(found) == 20
    assert found.fields["label"].names == ("0", "1")
    np.testing.assert_array_equal(found.all("image"), load(parse(str(out))).all("image"))


def test_what_is_expected_is_fetched_ahead(moody: str, tmp_path: Path) -> None:
    load(parse(moody)).expect(np.array([3, 5]))
    support.wait_for(lambda: len(shards(tmp_path)) == 2, what="two shards")


def test_a_store_that_fails_now_and_then(moody: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = dict.fromkeys((f"{out}/shard-{n:06d}.tar" for n in range(20)), 2)

    def mood(path: str, file: Any) -> Any:
        if failures.get(path, 0):
            failures[path] -= 1
            raise ConnectionResetError("the line was cut")
        return file

    monkeypatch.setattr(Moody, "mood", staticmethod(mood))
    np.testing.assert_array_equal(load(parse(moody)).all("image"), load(parse(str(out))).all("image"))
    assert set(failures.values()) == {0}


class Short:
    """A file that ends early, or has other bytes."""

    def __init__(self, file: Any, spoil: Callable[[bytes], bytes]) -> None:
        self.file, self.spoil = file, spoil

    def read(self, size: int) -> bytes:
        return self.spoil(self.file.read(size))

    def __enter__(self) -> Short:
        return self

    def __exit__(self, *rest: Any) -> None:
        self.file.close()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(lambda data: data[:-1], "bytes came"), (lambda data: data[:-1] + b"x" if data else data, "sha256")],
    ids=["short", "other"],
)
def test_a_store_that_sends_something_else(
    spoil: Callable[[bytes], bytes], message: str, moody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Moody, "mood", staticmethod(lambda path, file: Short(file, spoil) if path.endswith("3.tar") else file))
    data = load(parse(moody))
    assert data.rows("image", np.array([4])).shape == (1, 16, 16, 1)
    with pytest.raises(UserError, match=message) as error:
        data.rows("image", np.array([3]))
    assert "shard-000003.tar" in error.value.where
    assert len(shards(tmp_path)) == 1  # nothing half-fetched
    assert len([path for path in Moody.opened if path.endswith("3.tar")]) == stores.ATTEMPTS


def test_a_store_that_does_not_answer(moody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LGM_STORE_TIMEOUT", "0.2")
    monkeypatch.setattr(Moody, "mood", staticmethod(lambda path, file: time.sleep(3) if path.endswith(".tar") else file))
    data, started = load(parse(moody)), time.monotonic()
    with pytest.raises(UserError, match=r"sent nothing for 0\.2 seconds"):
        data.rows("image", np.array([3]))
    assert time.monotonic() - started < 2.5


def test_a_full_cache_disk(moody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    data = load(parse(moody))
    monkeypatch.setattr(cache, "making", full)
    with pytest.raises(UserError, match=r"cannot be kept \(No space left") as error:
        data.rows("image", np.array([3]))
    assert "LGM_CACHE" in error.value.fix
    assert len([path for path in Moody.opened if path.endswith(".tar")]) <= 1  # asking again would not help


def test_the_cache_is_bounded(moody: str, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = (out / "shard-000000.tar").stat().st_size
    monkeypatch.setenv("LGM_CACHE_LIMIT", str(4 * one))
    near = load(parse(str(out))).all("image")
    data = load(parse(moody))
    for _ in range(2):  # what was pushed out is fetched again
        for n in range(20):
            np.testing.assert_array_equal(data.rows("image", np.array([n]))[0], near[n])
            assert len(shards(tmp_path)) <= 4
    monkeypatch.setenv("LGM_CACHE_LIMIT", str(one - 1))
    with pytest.raises(UserError, match="more than the cache may keep"):
        load(parse(moody)).rows("image", np.array([1]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere://bucket/x", "pip install"),
        ("nowhere://bucket/[x", "not the address of a store|neither a data set"),
        ("moody:///no/such/place", "no such file"),
    ],
)
def test_stores_that_are_not_there(text: str, message: str, moody: str) -> None:
    with pytest.raises(UserError, match=message):
        load(parse(text))
