"""Group D of the fault list: corrupt, foreign and hostile checkpoints. Nothing is unpickled, nothing is imported by name."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import re
import resource
import shutil
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
import torch
from forgery import contents, edited, forged
from safetensors.torch import save_file
from support import newest

from models import api
from models.errors import UserError
from models.training import checkpoint, events

Runs = Callable[[str], Path]


@pytest.fixture(scope="module")
def good(straight: Runs) -> Path:
    """An intact checkpoint of a vae; not to be changed."""
    return newest(straight("vae"))


@pytest.fixture
def run(straight: Runs, tmp_path: Path) -> Path:
    """A copy of a vae's run with two checkpoints, to be damaged."""
    return Path(shutil.copytree(straight("vae"), tmp_path / "run"))


def refusal(path: Path | str, read: Callable[[Any], object] = lambda path: api.load(path, device="cpu")) -> str:
    """The message with which `lgm` refuses the file: it names the file and says what to do."""
    with pytest.raises(UserError) as caught:
        read(path)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n  fix: " in message
    assert message.isprintable() or "\n" in message
    return message


@contextmanager
def little_memory(megabytes: int = 100, seconds: float = 1.0) -> Iterator[None]:
    """The block may take no more than so much more memory, and no more than so much time."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    began = time.process_time()
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + megabytes * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.process_time() - began < seconds


def raw(header: bytes, length: int | None = None, payload: bytes = b"") -> bytes:
    """A safetensors file by hand: the header's length, the header, the tensors' bytes."""
    return struct.pack("<Q", len(header) if length is None else length) + header + payload


def tensors_of(**entries: tuple[str, list[int], tuple[int, int]]) -> bytes:
    """A safetensors header from name -> (dtype, shape, offsets)."""
    return json.dumps({name: {"dtype": d, "shape": s, "data_offsets": o} for name, (d, s, o) in entries.items()}).encode()


# ---- D1, D2: damaged files -----------------------------------------------------------------------------------------------------------


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "0 bytes": lambda data: b"",
    "4 bytes": lambda data: data[:4],
    "cut by 3": lambda data: data[:-3],
    "one byte more": lambda data: data + b"\0",
    "cut inside the header": lambda data: data[:100],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_D1_damaged_file_names_the_newest_intact_one(run: Path, damage: str) -> None:
    bad = newest(run)
    bad.write_bytes(DAMAGE[damage](bad.read_bytes()))
    message = refusal(run)
    assert "incomplete or damaged" in message
    assert str(bad) in message
    assert "use images-000000072.safetensors, the newest intact one" in message
    assert refusal(bad) == message


def test_D1_the_file_that_is_offered_instead_is_intact_itself(run: Path) -> None:
    for path in (run / "checkpoints").glob("images-*"):
        path.write_bytes(path.read_bytes()[:-3])
    assert "there is no other intact checkpoint beside it" in refusal(run)


HEADERS: dict[str, bytes] = {
    "header length 2^40": raw(b"{}", 2**40),
    "header length 2^63": raw(b"{}", 2**63),
    "not UTF-8": raw(b'{"\xff\xfe": 1}'),
    "not JSON": raw(b"this is no JSON at all"),
    "JSON, but a list": raw(b"[]"),
    "overlapping offsets": raw(tensors_of(a=("F32", [2], (0, 8)), b=("F32", [2], (4, 12))), payload=bytes(12)),
    "a hole": raw(tensors_of(a=("F32", [1], (0, 4)), b=("F32", [1], (8, 12))), payload=bytes(12)),
    "offsets beyond the end": raw(tensors_of(a=("F32", [1000], (0, 4000))), payload=bytes(12)),
    "shape overflow": raw(tensors_of(a=("F32", [2**62, 2**62], (0, 4))), payload=bytes(4)),
    "shape and offsets differ": raw(tensors_of(a=("F32", [3], (0, 4))), payload=bytes(4)),
    "unknown dtype": raw(tensors_of(a=("F99", [1], (0, 4))), payload=bytes(4)),
    "nested 10,000 deep": raw(b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_D2_malformed_header_is_refused_at_once_and_in_little_memory(tmp_path: Path, kind: str) -> None:
    bad = tmp_path / "images-000000001.safetensors"
    bad.write_bytes(HEADERS[kind])
    with little_memory(50):
        message = refusal(bad)
    assert "incomplete or damaged" in message
    assert str(bad) in message


# ---- D3: what safetensors does not notice --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_D3_flipped_bit(run: Path, where: float) -> None:
    bad = newest(run)
    data = bytearray(bad.read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    data[start + round(where * (len(data) - 1 - start))] ^= 1
    bad.write_bytes(data)
    contents(bad)  # safetensors is content
    message = refusal(run)
    assert "its sha256 digest does not match its content" in message
    assert str(bad) in message
    assert "use images-000000072.safetensors" in message


def test_D3_flipped_metadata_character(run: Path) -> None:
    bad = newest(run)
    data = bad.read_bytes()
    assert data.count(b'\\"seed\\": 0') == 1
    bad.write_bytes(data.replace(b'\\"seed\\": 0', b'\\"seed\\": 1'))
    assert contents(bad)[0]["config"].count('"seed": 1') == 1
    assert "its sha256 digest does not match its content" in refusal(run)


def test_D3_swapped_tensor_names(good: Path, tmp_path: Path) -> None:
    """Two tensors of one shape that change places leave all bytes where they are: the digest covers the names, too."""
    strings, values = contents(good)
    one, other = "model/encoder.trunk.1.weight", "model/encoder.trunk.1.bias"
    assert values[one].shape == values[other].shape
    assert not torch.equal(values[one], values[other])
    values[one], values[other] = values[other], values[one]
    save_file(values, tmp_path / "swapped.safetensors", strings)
    assert "digest" in refusal(tmp_path / "swapped.safetensors")


def test_a_forged_file_without_changes_loads(good: Path, tmp_path: Path) -> None:
    """What the other tests change is all that is wrong with their files."""
    trained = api.load(forged(good, tmp_path / "same.safetensors"), device="cpu")
    assert trained.sample(1).shape == (1, 16, 16, 1)


# ---- D4 to D6: foreign files, metadata -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"model": "vae"}, {"format": "pt", "title": "lora"}])
def test_D4_plain_safetensors(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata)
    message = refusal(path)
    assert "not an lgm checkpoint" in message
    assert str(path) in message


BAD_JSON: dict[str, str] = {
    "empty": "",
    "not JSON": "{",
    "NaN": "NaN",
    "a NaN inside": '{"model": NaN}',
    "infinity": "[Infinity]",
    "overflow to infinity": "[1e400]",
    "a list": "[]",
    "a number": "5",
    "null": "null",
    "nested lists 10,000 deep": "[" * 10_000 + "]" * 10_000,
    "nested objects 10,000 deep": '{"a":' * 10_000 + "1" + "}" * 10_000,
}


@pytest.mark.parametrize("key", ["config", "spec", "borders", "scalars", "environment", "parts"])
@pytest.mark.parametrize("kind", BAD_JSON)
def test_D5_metadata_that_are_not_what_they_should_be(good: Path, tmp_path: Path, key: str, kind: str) -> None:
    bad = forged(good, tmp_path / "bad.safetensors", lambda strings: strings.update({key: BAD_JSON[kind]}))
    for read in (lambda path: api.load(path, device="cpu"), api.describe_run):
        message = refusal(bad, read)
        assert "metadata" in message
        assert str(bad) in message


@pytest.mark.parametrize("images", ["", "many", "-5", "1e3", "NaN", "9" * 5000])
def test_D5_images_seen_that_are_no_number(good: Path, tmp_path: Path, images: str) -> None:
    bad = forged(good, tmp_path / "bad.safetensors", lambda strings: strings.update(images=images))
    assert "metadata" in refusal(bad)


@pytest.mark.parametrize(
    "key", ["config", "spec", "images", "stage", "borders", "scalars", "fingerprint", "environment", "parts", "lgm", "digest"]
)
def test_D5_missing_metadata(good: Path, tmp_path: Path, key: str) -> None:
    strings, values = contents(good)
    del strings[key]
    save_file(values, tmp_path / "bad.safetensors", strings)
    assert "its metadata cannot be read: KeyError" in refusal(tmp_path / "bad.safetensors")


def test_D5_huge_metadata(good: Path, tmp_path: Path) -> None:
    """50 MB of valid JSON under a key: refused for what it says, and no message repeats it."""
    huge = forged(good, tmp_path / "huge.safetensors", edited("config", lambda config: config.update(model="x" * 50_000_000)))
    message = refusal(forged(huge, tmp_path / "worse.safetensors", edited("config", lambda config: config.update(batch="y" * 1000))))
    assert "batch=" in message
    assert len(message) < 2000


@pytest.mark.parametrize("number", ["3", "17", "9" * 5000, "0", "-1", "", "1.0", "²", "newest"])
def test_D6_other_format(good: Path, tmp_path: Path, number: str) -> None:
    newer = forged(good, tmp_path / "newer.safetensors", lambda strings: strings.update(format=number, lgm="7.8.9"))
    message = refusal(newer)
    assert "written by lgm 7.8.9" in message
    assert str(newer) in message
    assert "fix: upgrade lgm" in message
    assert len(message) < 1000


def of_format_1(strings: dict[str, str]) -> None:
    """A header as it was before there were fields, sources and parts; an AEGAN's first stage had become its own."""
    spec = json.loads(strings["spec"])["fields"]
    names = {"classes": "label", "attributes": "attributes", "factors": "factors"}
    channels, height, width = spec["image"]["shape"]
    old = {"channels": channels, "height": height, "width": width, "identities": spec.get("identity", {}).get("count", 0)}
    strings["spec"] = json.dumps(old | {key: spec.get(field, {}).get("names", []) for key, field in names.items()})
    config = json.loads(strings["config"])
    del config["parts"], config["sources"], strings["parts"]
    strings["config"] = json.dumps(config | {"base": "/runs/gone"})
    strings["format"] = "1"


@pytest.mark.parametrize("model", ["vae", "aegan", "cvae"])
def test_D6_files_of_format_1_sample_and_resume_as_before(model: str, straight: Callable[[str], Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight(model), run)
    before = api.load(run, device="cpu").sample(3, seed=1)
    for path in support.checkpoints(run).values():
        forged(path, path, of_format_1)
    (run / "config.json").write_text(json.dumps({k: v for k, v in json.loads((run / "config.json").read_text()).items() if k != "parts"}))
    assert np.array_equal(api.load(run, device="cpu").sample(3, seed=1), before)
    support.newest(run).unlink()
    happened = support.call(support.resume, str(run))
    assert not [event.message for event in happened if isinstance(event, events.Warned) and "not" in event.message.split()]
    support.assert_same_tensors(support.newest(run), support.newest(straight(model)))


@pytest.mark.parametrize("kind", BAD_JSON)
def test_D6_a_broken_header_of_format_1(good: Path, tmp_path: Path, kind: str) -> None:
    def broken(strings: dict[str, str]) -> None:
        of_format_1(strings)
        strings["spec"] = BAD_JSON[kind]

    assert "metadata" in refusal(forged(good, tmp_path / "bad.safetensors", broken))


# ---- D7, D8: nothing runs ------------------------------------------------------------------------------------------------------------


NAMES = ["../../evil", "os", "zoo.vae", "models.zoo.vae", "", "x" * 10_240, "__init__", "vae.py", "/etc/passwd", "vae\0", "\x1b[31mvae"]


class Recorder:
    """A finder that finds nothing and notes what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        self.asked.append(name)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:20]))
def test_D7_model_names_are_looked_up_and_never_imported(good: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = forged(good, tmp_path / "bad.safetensors", lambda strings: strings.update(model=name))
    recorder = Recorder()
    monkeypatch.setattr(sys, "meta_path", [recorder, *sys.meta_path])
    monkeypatch.setattr(importlib, "import_module", lambda *args: pytest.fail(f"import_module was called with {args}"))
    message = refusal(bad)
    assert recorder.asked == []
    assert "unknown model" in message
    assert "known: " in message
    assert "vae" in message
    assert len(message) < 1000
    assert "\x1b" not in message
    assert "\0" not in message


def test_D7_the_check_above_can_fail(monkeypatch: pytest.MonkeyPatch, good: Path) -> None:
    """A good name does reach import_module, so the test above looks at the right place."""
    asked: list[str] = []
    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda name, package=None: asked.append(name) or real(name, package))
    api.load(good, device="cpu")
    assert set(asked) == {"models.zoo.vae"}


class Evil:
    """Unpickling it creates the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("name", ["evil.pt", "evil.ckpt", "evil.pth", "images-000000999.safetensors"])
@pytest.mark.parametrize("writer", ["torch", "torch-legacy", *(f"protocol-{n}" for n in range(pickle.HIGHEST_PROTOCOL + 1))])
def test_D8_pickles_are_never_unpickled(tmp_path: Path, name: str, writer: str) -> None:
    canary, bad = tmp_path / "canary", tmp_path / name
    if writer.startswith("torch"):
        torch.save({"state_dict": Evil(canary)}, bad, _use_new_zipfile_serialization=writer == "torch")
    else:
        bad.write_bytes(pickle.dumps({"state_dict": Evil(canary)}, int(writer[-1])))
    for read in (lambda path: api.load(path, device="cpu"), api.describe_run, checkpoint.read_tensors, checkpoint.shapes):
        message = refusal(bad, read)
        assert "lgm never unpickles" in message
        assert str(bad) in message
    assert not canary.exists()


def test_D8_the_canary_sings(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def test_D8_a_pickle_among_the_checkpoints_is_passed_over_on_resume(run: Path) -> None:
    canary = run / "canary"
    (run / "checkpoints" / "images-000000999.safetensors").write_bytes(pickle.dumps(Evil(canary)))
    header, _, reasons = checkpoint.newest_valid(run)
    assert header.images == 96
    assert len(reasons) == 1
    assert "never unpickles" in reasons[0]
    assert not canary.exists()


# ---- D9, D10: configurations and tensors that do not fit -----------------------------------------------------------------------------


BAD_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"nosuch": 1}, "unknown option 'nosuch'"),
    "wrong type": ({"latent": "many"}, "latent takes int"),
    "float for int": ({"latent": 4.5}, "latent takes int"),
    "true for int": ({"latent": True}, "latent takes int"),
    "huge": ({"latent": 10**9}, "latent takes int, 1 to 8192"),
    "huge width": ({"widths": [10**9]}, "widths takes a list of int, 1 to 8192"),
    "text for list": ({"widths": "4,8"}, "widths takes a list of int"),
    "nested list": ({"widths": [[4], [8]]}, "widths takes a list of int"),
    "no choice": ({"network": "../evil"}, "network takes one of: conv, mlp, wae"),
    "list for choice": ({"network": ["conv"]}, "network takes one of: conv, mlp, wae"),
    "negative": ({"lr": -1}, "lr takes float, 0 to 10"),
}


@pytest.mark.parametrize("kind", BAD_OPTIONS)
def test_D9_bad_model_option_in_the_file(good: Path, tmp_path: Path, kind: str) -> None:
    options, expected = BAD_OPTIONS[kind]
    bad = forged(good, tmp_path / "bad.safetensors", edited("config", lambda config: config["options"].update(options)))
    with little_memory():
        message = refusal(bad)
    assert expected in message
    assert next(iter(options)) in message


BAD_FIELDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown": ("config", {"nosuch": 1}, "unknown option 'nosuch'"),
    "wrong type": ("config", {"batch": "many"}, "batch takes int"),
    "huge batch": ("config", {"batch": 10**12}, "batch takes int, 1 to 1e+06"),
    "options are a list": ("config", {"options": []}, "options"),
    "fit": ("config", {"fit": "explode"}, "fit takes one of: crop, pad, stretch"),
    "unknown in spec": ("spec", {"depth": 3}, "its spec has the wrong form"),
    "no fields": ("spec", {"fields": {}}, "its spec tells of no image"),
    "fields are a list": ("spec", {"fields": []}, "its spec has the wrong form"),
    "a field is text": ("spec", {"fields": {"image": "large"}}, "its spec has the wrong form"),
    "unknown in a field": ("spec", {"fields": {"image": {"kind": "image", "shape": [1, 16, 16], "depth": 3}}}, "unknown option 'depth'"),
    "unknown kind": ("spec", {"fields": {"image": {"kind": "smell", "shape": [1, 16, 16]}}}, "kind takes one of: image, clip"),
    "huge image": ("spec", {"fields": {"image": {"kind": "image", "shape": [1, 10**9, 16]}}}, "image of shape (1, 1000000000, 16)"),
    "no width": ("spec", {"fields": {"image": {"kind": "image", "shape": [1, 16, 0]}}}, "image of shape (1, 16, 0)"),
    "seven channels": ("spec", {"fields": {"image": {"kind": "image", "shape": [7, 16, 16]}}}, "images of shape (7, 16, 16)"),
    "names are a number": ("spec", {"fields": {"label": {"kind": "number", "names": 5}}}, "names takes a list of text"),
    "more names than kinds": (
        "spec",
        {"fields": {"image": {"kind": "image", "shape": [1, 16, 16]}, "label": {"kind": "number", "names": ["a", "b"], "count": 1}}},
        "2 names for 1 kinds of label",
    ),
    "an image that is none": ("spec", {"fields": {"image": {"kind": "vector", "shape": [5]}}}, "image is a vector"),
    "a source that the model has not": (
        "spec",
        {"others": {"to": {"fields": {"image": {"kind": "image", "shape": [1, 8, 8]}}, "others": {}}}},
        "other parts or sources than the model's",
    ),
    "another source": ("spec", {"others": {"to": {"fields": {}}}}, "its spec has the wrong form"),
    "a part is text": ("parts", {"base": "runs/vae"}, "its parts cannot be read"),
    "a part of an unknown model": (
        "parts",
        {"base": {"model": "../evil", "options": {}, "spec": {"fields": {"image": {"kind": "image", "shape": [1, 8, 8]}}, "others": {}}}},
        "its parts cannot be read",
    ),
}


@pytest.mark.parametrize("kind", BAD_FIELDS)
def test_D9_bad_field_in_the_file(good: Path, tmp_path: Path, kind: str) -> None:
    key, fields, expected = BAD_FIELDS[kind]
    bad = forged(good, tmp_path / "bad.safetensors", edited(key, lambda document: document.update(fields)))
    with little_memory():
        message = refusal(bad)
    assert expected in message
    assert str(bad) in message


@pytest.mark.parametrize(("key", "field"), [("config", "model"), ("config", "data")])
def test_D9_missing_field(good: Path, tmp_path: Path, key: str, field: str) -> None:
    bad = forged(good, tmp_path / "bad.safetensors", edited(key, lambda document: document.pop(field)))
    message = refusal(bad)
    assert repr(field) in message
    assert str(bad) in message


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("config", lambda config: config["options"].update(widths=[8192, 8192])),
        ("spec", lambda spec: spec["fields"]["image"].update(shape=[1, 16384, 16384])),
    ],
    ids=["widths", "image"],
)
def test_D9_networks_larger_than_the_file_are_not_allocated(
    good: Path, tmp_path: Path, key: str, change: Callable[[dict[str, Any]], object]
) -> None:
    """Each number is within its range, but together they ask for gigabytes that the file's tensors do not have."""
    bad = forged(good, tmp_path / "bad.safetensors", edited(key, change))
    with little_memory(200):
        message = refusal(bad)
    assert "do not fit the model" in message


def test_D9_the_memory_limit_bites() -> None:
    with pytest.raises(RuntimeError, match="memory"), little_memory(100):
        torch.empty(4 * 2**30, dtype=torch.uint8)


HEAD = "model/encoder.head.weight"


def test_D10_missing_unexpected_and_misshapen_tensors_are_all_listed(good: Path, tmp_path: Path) -> None:
    def change(values: dict[str, Any]) -> None:
        del values["model/encoder.head.bias"]
        values["model/brain.weight"] = torch.zeros(2)
        values[HEAD] = values[HEAD].T.contiguous()

    bad = forged(good, tmp_path / "bad.safetensors", tensors=change)
    message = refusal(bad)
    assert "missing encoder.head.bias" in message
    assert "unexpected brain.weight" in message
    assert "shaped differently encoder.head.weight (128, 4) instead of (4, 128)" in message
    assert str(bad) in message


def test_D10_long_lists_are_cut(good: Path, tmp_path: Path) -> None:
    bad = forged(good, tmp_path / "bad.safetensors", tensors=lambda v: v.update({f"model/x{n:02d}": torch.zeros(1) for n in range(14)}))
    message = refusal(bad)
    assert re.search(r"unexpected x00, .*x09 and 4 more", message)
    assert "x10" not in message


def test_D10_shapes_are_compared_before_any_tensor_is_read(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = forged(good, tmp_path / "bad.safetensors", tensors=lambda values: values.pop(HEAD))
    monkeypatch.setattr(checkpoint, "read_tensors", lambda path: pytest.fail("the tensors were read"))
    assert "missing encoder.head.weight" in refusal(bad)
    with pytest.raises(pytest.fail.Exception):  # and the check can fail: a good file's tensors are read
        api.load(good, device="cpu")


@pytest.mark.parametrize("shape", [(7, 7), (1,), (), (4, 128, 1), (0,)])
def test_D10_moving_averages_must_fit_too(good: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    bad = forged(
        good, tmp_path / "bad.safetensors", tensors=lambda values: values.update({"average/encoder.head.weight": torch.zeros(shape)})
    )
    message = refusal(bad)
    assert "encoder.head.weight" in message
    assert f"{shape} instead of (4, 128)" in message


# ---- D11: what is no file ------------------------------------------------------------------------------------------------------------


def make_directory(path: Path) -> None:
    path.mkdir()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_dangling(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_device_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "directory": (make_directory, "no checkpoint in this folder"),
    "FIFO": (make_fifo, "not a regular file"),
    "device": (make_device_link, "not a regular file"),
    "dangling link": (make_dangling, "no such run or checkpoint"),
    "link to itself": (make_loop, "no such run or checkpoint"),
    "nothing": (lambda path: None, "no such run or checkpoint"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ODD)
def test_D11_what_is_no_file(tmp_path: Path, kind: str) -> None:
    make, expected = ODD[kind]
    path = tmp_path / "images-000000001.safetensors"
    make(path)
    for read in (lambda p: api.load(p, device="cpu"), api.describe_run):
        message = refusal(path, read)
        assert expected in message
        assert str(path) in message


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["directory", "FIFO", "device", "dangling link", "link to itself"])
def test_D11_odd_entries_among_the_checkpoints_are_passed_over(run: Path, kind: str) -> None:
    ODD[kind][0](run / "checkpoints" / "images-000000999.safetensors")
    assert api.load(run, device="cpu").header.images == 96
    assert checkpoint.newest_valid(run)[0].images == 96


@pytest.mark.timeout(20)
def test_D11_reading_functions_themselves_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for read in (checkpoint.read_header, checkpoint.read_tensors, checkpoint.shapes):
        assert "not a regular file" in refusal(tmp_path / "fifo", read)


# ---- D12, D13, D15 -------------------------------------------------------------------------------------------------------------------


def test_D12_data_that_are_gone(good: Path, tmp_path: Path) -> None:
    """Sampling needs no data; resuming names the folder that it misses."""
    gone = tmp_path / "gone"
    path = tmp_path / "run" / "checkpoints" / good.name
    forged(good, path, edited("config", lambda config: config.update(data=str(gone), images=192)))
    assert api.load(tmp_path / "run", device="cpu").sample(2).shape == (2, 16, 16, 1)
    message = refusal(tmp_path / "run", lambda run: list(api.resume(run)))
    assert "no such folder" in message
    assert str(gone) in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("prefix", ["model", "average"])
def test_D13_weights_that_are_not_finite(good: Path, tmp_path: Path, value: float, prefix: str) -> None:
    name = f"{prefix}/encoder.head.weight"
    bad = forged(good, tmp_path / "bad.safetensors", tensors=lambda values: values[name][1].fill_(value))
    message = refusal(bad)
    assert f"the tensor {name} is not finite" in message
    assert str(bad) in message


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[31mred\n\r\t", r"\x1b[31mred\n\r\t"),
        ("a" * 2**20, "a" * 60 + "..." + "a" * 60),
        ("\u202eright to left", r"\u202eright to left"),
    ],
    ids=["control", "1 MB", "direction"],
)
def test_D15_odd_tensor_names_are_escaped_and_shortened(good: Path, tmp_path: Path, name: str, shown: str) -> None:
    bad = forged(good, tmp_path / "bad.safetensors", tensors=lambda values: values.update({f"model/{name}": torch.zeros(1)}))
    message = refusal(bad)
    assert f"unexpected {shown}" in message
    assert len(message) < 1000
    assert all(line.isprintable() for line in message.split("\n"))


def test_D15_odd_names_in_the_message_about_numbers(good: Path, tmp_path: Path) -> None:
    name = "optim/\x1b[2J" + "z" * 5000
    bad = forged(good, tmp_path / "bad.safetensors", tensors=lambda values: values.update({name: torch.full((2,), float("nan"))}))
    message = refusal(bad)
    assert r"the tensor optim/\x1b[2Jzzz" in message
    assert len(message) < 1000
    assert "\x1b" not in message
