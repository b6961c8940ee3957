"""Runs on the hub: pushed to and loaded from a local stand-in for the service, by revision, with nothing executed."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
from painter import lgm

import models
from models.errors import UserError
from models.runs import push
from models.training import hub

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
Straight = Callable[[str], Path]


class Hub(ThreadingHTTPServer):
    """What lgm needs of the service: repositories as commits, each a mapping from paths to contents."""

    def __init__(self) -> None:
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Answers)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def sha(self, name: str, number: int) -> str:
        return hashlib.sha1(f"{name} {number}".encode()).hexdigest()

    def at(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        for number in reversed(range(len(self.commits.get(name, [])))):
            if revision in ("main", self.sha(name, number)):
                return self.sha(name, number), self.commits[name][number]
        return None


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *rest: Any) -> None:
        pass

    def say(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def tell(self, value: Any) -> None:
        self.say(200, json.dumps(value).encode(), Content_Type="application/json")

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            if (commit := self.server.at(found[1], found[2] or "main")) is None:
                return self.say(404, b"{}", X_Error_Code="RevisionNotFound" if found[1] in self.server.commits else "RepoNotFound")
            siblings = [{"rfilename": name} for name in commit[1]]
            return self.tell({"id": found[1], "sha": commit[0], "siblings": siblings, "private": False, "tags": [], "downloads": 0})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/.*)?", path):
            commit = self.server.at(found[1], found[2])
            assert commit is not None
            listed = [{"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for n, c in commit[1].items()]
            return self.tell(listed)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            commit = self.server.at(found[1], found[2])
            if commit is None or found[3] not in commit[1]:
                return self.say(404, b"", X_Error_Code="EntryNotFound")
            content = commit[1][found[3]]
            tag = hashlib.sha1(content).hexdigest()
            return self.say(200, content, ETag=f'"{tag}"', X_Repo_Commit=commit[0], Accept_Ranges="bytes")
        return self.say(404, b"{}")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.asked.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            self.server.commits.setdefault(name, [])
            return self.tell({"url": f"{self.server.address}/{name}", "name": name})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path.partition("?")[0]):
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]]
            return self.tell({"files": files})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path.partition("?")[0]):
            added = {}
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    added[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            before = self.server.commits[found[1]][-1] if self.server.commits[found[1]] else {}
            self.server.commits[found[1]].append({**before, **added})
            sha = self.server.sha(found[1], len(self.server.commits[found[1]]) - 1)
            return self.tell({"success": True, "commitOid": sha, "commitUrl": f"{self.server.address}/{found[1]}/commit/{sha}"})
        if self.path == "/api/validate-yaml":
            return self.tell({"errors": [], "warnings": []})
        return self.say(404, b"{}")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.chdir(tmp_path)
    yield server
    server.shutdown()


def test_pushed_and_loaded(straight: Straight, service: Hub, tmp_path: Path) -> None:
    run = straight("vae")
    result = lgm("push", run, "me/digits")
    assert result.exit_code == 0, result.output
    assert "lgm sample hf://me/digits" in result.stdout
    [commit] = service.commits["me/digits"]
    newest = support.newest(run)
    assert set(commit) == {f"checkpoints/{newest.name}", "config.json", "README.md", "samples.png"}
    assert commit[f"checkpoints/{newest.name}"] == newest.read_bytes()
    assert b"library_name: lgm" in commit["README.md"]
    assert b"![samples](samples.png)" in commit["README.md"]
    images = models.load("hf://me/digits", device="cpu").sample(3, 1)
    np.testing.assert_array_equal(images, models.load(run, device="cpu").sample(3, 1))
    sampled = lgm("sample", "hf://me/digits", "-n", 2)
    assert (sampled.exit_code, sampled.stdout.strip()) == (0, "digits-samples.png")
    assert lgm("info", "hf://me/digits").exit_code == 0
    assert lgm("evaluate", "hf://me/digits", "--metrics", "sharpness", "-n", 10).exit_code == 0
    assert json.loads(Path("digits-evaluation.json").read_text())["metrics"]["sharpness"]
    apart = lgm("fid", "hf://me/digits", run, "-n", 12, "--features", f"classifier:{straight('classifier')}")
    assert (apart.exit_code, apart.stdout.startswith("FID 0.000\n  A: digits, 12 images")) == (0, True), apart.output
    fetched = [line for line in service.asked if "/resolve/" in line and line.startswith("GET")]
    assert not [line for line in fetched if "README" in line or "samples" in line]  # only what a run consists of


@pytest.mark.parametrize("flag", ["--part", "--base"])
def test_a_run_of_the_hub_is_a_part_of_another(flag: str, straight: Straight, pictures: Path, service: Hub) -> None:
    push.push(straight("vae"), "me/vae")
    run = straight("vae")
    for base, out in (("hf://me/vae", "remote"), (str(run), "local")):
        words = [flag, f"base={base}" if flag == "--part" else base]
        done = lgm("train", "aegan", *words, "--images", 32, "--batch", 8, "--set", "hidden=8", "--out", out, "--device", "cpu")
        assert done.exit_code == 0, done.output
    support.assert_same_tensors(support.newest(Path("remote")), support.newest(Path("local")))
    assert json.loads(Path("remote/config.json").read_text())["parts"] == {"base": "hf://me/vae"}
    service.commits.clear()  # what it was built around lies in its own files
    shutil.rmtree("hub")
    images = models.load("remote", device="cpu").sample(2, 1)
    np.testing.assert_array_equal(images, models.load("local", device="cpu").sample(2, 1))
    result = lgm("train", "--resume", "remote", "--images", 64)
    assert result.exit_code == 0, result.output
    result = lgm("train", "aegan", flag, "base=hf://me/vae" if flag == "--part" else "hf://me/vae", "--out", "third")
    assert (result.exit_code, "the hub does not give it" in result.stderr, Path("third").exists()) == (2, True, False)


def test_a_revision_stays_what_it_was(straight: Straight, service: Hub) -> None:
    push.push(straight("vae"), "me/thing")
    first = service.sha("me/thing", 0)
    push.push(straight("aegan"), "me/thing", message="better")
    service.commits["me/thing"][1].pop(next(name for name in service.commits["me/thing"][0] if name.startswith("checkpoints/")), None)
    service.commits["me/thing"][1] |= {
        f"checkpoints/{support.newest(straight('aegan')).name}": support.newest(straight("aegan")).read_bytes()
    }
    assert models.load(f"hf://me/thing@{first}", device="cpu").header.model == "vae"
    assert models.load("hf://me/thing", device="cpu").header.model == "aegan"


def test_a_checkpoint_that_was_changed_on_the_way_is_refused(straight: Straight, service: Hub) -> None:
    push.push(straight("vae"), "me/digits")
    [commit] = service.commits["me/digits"]
    name = next(name for name in commit if name.startswith("checkpoints/"))
    content = bytearray(commit[name])
    content[-5] ^= 1
    commit[name] = bytes(content)
    with pytest.raises(UserError, match="digest"):
        models.load("hf://me/digits", device="cpu")


def test_what_cannot_be_had_is_said(straight: Straight, service: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, what in (
        ("hf://me/nothing", "the hub does not give it"),
        ("hf://nobody", "not the name of a run"),
        ("hf://a/../b", "not the name"),
    ):
        result = lgm("sample", name)
        assert (result.exit_code, what in result.stderr, result.stderr.count("\n")) == (2, True, 2)
    damaged = tmp_path / "damaged"
    shutil.copytree(straight("vae"), damaged)
    for path in support.checkpoints(damaged).values():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError):
        push.push(damaged, "me/damaged")
    assert "me/damaged" not in service.commits
    with pytest.raises(UserError, match="has no revision"):
        push.push(straight("vae"), "me/digits@main")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    result = lgm("push", straight("vae"), "me/digits")
    assert (result.exit_code, "pip install huggingface_hub" in result.stderr) == (2, True)
    assert hub.local(tmp_path) == tmp_path
