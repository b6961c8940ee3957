"""Runs on a shelf, side by side, as curves, as a page, as a card: read from their folders, also while somebody trains there."""

from __future__ import annotations

import fcntl
import html.parser
import json
import re
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support
from painter import done, lgm, refused
from PIL import Image
from typer.testing import CliRunner

from lgcli.app import app
from models.errors import UserError
from models.runs import compare, curves, history, report
from models.runs.shelf import chosen, shelf

Straight = Callable[[str], Path]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.fixture
def runs(straight: Straight, tmp_path: Path) -> Path:
    """Three runs, one of them deeper, one stopped half-way, one with an evaluation."""
    root = tmp_path / "runs"
    shutil.copytree(straight("vae"), root / "vae")
    shutil.copytree(straight("vae"), root / "deep" / "er" / "vae-2")
    shutil.copytree(straight("aegan"), root / "aegan")
    for images, path in support.checkpoints(root / "deep" / "er" / "vae-2").items():
        if images > 48:
            path.unlink()
    found = {
        "metrics": {"fid": {"fid": 12.5}, "swap": {"auc": 0.75, "top1": None}},
        "recipe": {"seed": 0, "features": {"name": "x"}},
        "data": "d",
    }
    (root / "aegan" / history.EVALUATION).write_text(json.dumps(found))
    return root


# ---- the shelf -----------------------------------------------------------------------------------------------------------------------


def test_what_lies_on_the_shelf(runs: Path) -> None:
    (runs / "notes").mkdir()
    (runs / "notes" / "x.txt").write_text("no run")
    found = {run.name: run for run in shelf(runs)}
    assert list(found) == ["aegan", "deep/er/vae-2", "vae"]
    assert [(run.model, run.images, run.of, run.state) for run in found.values()] == [
        ("aegan", 96, 96, "finished"),
        ("vae", 48, 96, "stopped"),
        ("vae", 96, 96, "finished"),
    ]
    assert found["aegan"].metrics == {"fid": 12.5, "swap.auc": 0.75}
    assert set(found["vae"].losses) >= {"KL", "autoencoder loss"}
    for run in found.values():
        files = [path.stat().st_size for path in run.path.rglob("*") if path.is_file()]
        assert run.bytes == sum(files)
        assert run.checkpoints == sum(path.stat().st_size for path in (run.path / "checkpoints").glob("*.safetensors"))
    assert [run.name for run in shelf(runs / "vae")] == ["vae"]


def test_states(runs: Path) -> None:
    with open(runs / "vae" / "run.lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write("host here, pid 7\n")
        lock.flush()
        assert [(run.state, run.note) for run in shelf(runs / "vae")] == [("running", "host here, pid 7")]
    newest = support.newest(runs / "aegan")
    newest.write_bytes(newest.read_bytes()[:-1])
    (runs / "deep" / "er" / "vae-2" / "config.json").write_text("{")
    (runs / "new" / "checkpoints").mkdir(parents=True)
    (runs / "new" / "config.json").write_text((runs / "vae" / "config.json").read_text())
    found = {run.name: (run.state, run.note) for run in shelf(runs)}
    assert found["aegan"] == ("damaged", f"{newest.name} is incomplete")
    assert found["deep/er/vae-2"][0] == "damaged"
    assert found["new"] == ("new", "")
    assert found["vae"] == ("finished", "")
    for text in ("[]", '{"model": 3}', '{"model": "vae"}', ""):
        (runs / "vae" / "config.json").write_text(text)
        assert {run.name: run.state for run in shelf(runs)}["vae"] == "damaged"


def test_torn_lines_are_left_out(runs: Path) -> None:
    with open(runs / "vae" / "log.jsonl", "a") as file:
        file.write('{"images": 500, "losses": {"KL"')
    assert max(history.curves(runs / "vae")["KL"].images) == 96
    assert history.last_line(runs / "vae")["images"] == 96
    (runs / "vae" / "evaluation.json").write_text("[")
    assert history.metrics(runs / "vae") == {}
    lines = [b"\xff\xfe", b"[]", b"3", b'{"images": true, "losses": 3}', b'{"images": 5, "losses": {"a": "x", "b": 1}}']
    (runs / "vae" / "log.jsonl").write_bytes(b"\n".join(lines))
    assert history.curves(runs / "vae") == {"b": history.Curve([5], [1.0])}


def test_chosen_and_sorted(runs: Path) -> None:
    found = shelf(runs)
    assert [run.name for run in chosen(found, model="aegan")] == ["aegan"]
    assert chosen(found, data="nowhere") == []
    assert [run.name for run in chosen(found, sort="images")][-1] == "deep/er/vae-2"
    assert next(iter(chosen(found, sort="fid"))).name == "aegan"
    with pytest.raises(UserError, match="no run has 'fidd'"):
        chosen(found, sort="fidd")
    with pytest.raises(UserError, match="no such folder"):
        shelf(runs / "nowhere")


def test_a_thousand_runs(runs: Path) -> None:
    for n in range(1000):
        run = runs / "many" / f"run-{n}"
        (run / "checkpoints").mkdir(parents=True)
        for name in ("config.json", "log.jsonl"):
            shutil.copy(runs / "vae" / name, run / name)
        (run / "checkpoints" / "images-000000096.safetensors").hardlink_to(support.newest(runs / "vae"))
    started = time.monotonic()
    assert len(shelf(runs)) == 1003
    assert time.monotonic() - started < 20  # two seconds where nothing else runs; this only tells a wrong order of growth


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_the_terminal(width: int, runs: Path, here: Path) -> None:
    result = CliRunner(env={"COLUMNS": str(width), "TERM": "dumb"}).invoke(app, ["runs", str(runs)])
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= width
    assert "deep/er/vae-2" in result.stdout
    assert "stopped" in result.stdout
    assert "3 runs" in result.stdout
    assert ("losses" in result.stdout) == (width >= 120)


def test_the_table_as_json(runs: Path, here: Path) -> None:
    shown, _ = done("runs", runs, "--sort", "fid")
    assert [run["name"] for run in shown["runs"]] == ["aegan", "deep/er/vae-2", "vae"]
    assert shown["runs"][0]["metrics"]["fid"] == 12.5
    assert "no such folder" in refused("runs", runs / "nowhere")


# ---- side by side --------------------------------------------------------------------------------------------------------------------


def test_what_differs(runs: Path, here: Path) -> None:
    found = compare.compare(compare.named([runs / "vae", runs / "aegan"]))
    assert found.runs == ("vae", "aegan")
    assert found.configurations["model"] == ["vae", "aegan"]
    assert "seed" not in found.configurations
    assert found.configurations["prior"] == [None, "gan"]
    assert found.metrics == {"fid": [None, 12.5], "swap.auc": [None, 0.75]}
    assert set(compare.named([runs / "vae", here / ".." / runs / "deep" / "er" / "vae-2"])) == {"vae", "vae-2"}
    with pytest.raises(UserError, match="twice"):
        compare.named([runs / "vae", runs / "vae"])
    with pytest.raises(UserError, match="no run"):
        compare.named([runs / "vae", runs])


def test_many_runs_on_a_narrow_terminal_are_compared_one_below_the_other(runs: Path, here: Path) -> None:
    words = ["compare", *(str(runs / name) for name in ("vae", "aegan", "deep/er/vae-2"))]
    wide, narrow = (CliRunner(env={"COLUMNS": str(width), "TERM": "dumb"}).invoke(app, words).stdout for width in (120, 40))
    assert re.search(r"^prior +- +gan +- *$", wide, re.M)
    assert re.search(r"^prior +vae +- *\n +aegan +gan *\n +vae-2 +- *$", narrow, re.M)
    assert max(map(len, narrow.splitlines())) <= 40


def test_samples_of_the_same_noise_side_by_side(runs: Path, here: Path) -> None:
    import models

    shown, _ = done("compare", runs / "vae", runs / "aegan", "-n", 3, "--seed", 5, "-o", "c.png", "--curves", "k.png")
    picture = np.asarray(Image.open("c.png"))
    label, side, gap = compare.LABEL, 64, 2
    assert picture.shape == (2 * (label + side + 2 * gap), 3 * (side + gap) + gap)
    for row, name in enumerate(("vae", "aegan")):
        wanted = models.load(runs / name, device="cpu").sample(3, 5)[..., 0].repeat(4, 1).repeat(4, 2)
        for column in range(3):
            top, left = row * (label + side + 2 * gap) + label + gap, column * (side + gap) + gap
            np.testing.assert_array_equal(picture[top : top + side, left : left + side], wanted[column])
    assert shown["curves"] == "k.png"
    assert Image.open("k.png").width > 300


def test_pictures_of_a_comparison_are_two_files_or_none(runs: Path, here: Path) -> None:
    both = ("compare", runs / "vae", runs / "aegan", "-n", 2)
    assert "two pictures of one name: --curves c.png" in refused(*both, "-o", "c.png", "--curves", "./c.png")
    assert "pictures are written as PNG: --curves k.svg" in refused(*both, "--curves", "k.svg")
    assert "nope" in refused(*both, "-o", "c.png", "--device", "nope")
    assert "more than the limit" in refused("compare", runs / "vae", runs / "aegan", "-n", 9999, "--scale", 16, "-o", "c.png")
    (here / "torn").mkdir()
    shutil.copytree(runs / "vae", here / "torn/vae")
    (here / "torn/vae/config.json").write_text('{"model": "vae", "data": "here", "lr": NaN}')
    result = lgm("compare", here / "torn/vae", runs / "aegan", "--json")
    assert (result.exit_code, "no JSON (NaN is no number of JSON)" in result.stderr) == (2, True), result.stderr


def test_comparing_takes_two(runs: Path, here: Path) -> None:
    assert "name two or more" in refused("compare", runs / "vae")
    assert "something lies there already" in refused_with(here, "compare", runs / "vae", runs / "aegan", "-o", "c.png")


def refused_with(here: Path, *words: object) -> str:
    Path("c.png").write_text("mine")
    result = lgm(*words)
    assert result.exit_code == 2
    assert Path("c.png").read_text() == "mine"
    return result.stderr


# ---- curves --------------------------------------------------------------------------------------------------------------------------


def test_curves_are_those_of_the_log(runs: Path) -> None:
    logged = [line for line in support.log(runs / "vae") if "losses" in line]
    found = history.curves(runs / "vae")["KL"]
    assert found.images == [line["images"] for line in logged]
    assert found.values == [line["losses"]["KL"] for line in logged]


def test_a_finished_training_leaves_its_curves(pictures: Path, here: Path) -> None:
    result = lgm(*support.arguments("vae", pictures, here / "run"))
    assert result.exit_code == 0, result.output
    with Image.open(here / "run" / "curves.png") as image:
        assert image.width > 300


def test_without_matplotlib(runs: Path, pictures: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert not curves.available()
    assert "pip install matplotlib" in refused("compare", runs / "vae", runs / "aegan", "--curves", "k.png")
    assert lgm(*support.arguments("vae", pictures, here / "run")).exit_code == 0
    assert not (here / "run" / "curves.png").exists()
    assert "matplotlib" in report.page(report.gather(runs / "vae"))


# ---- a page and a card ---------------------------------------------------------------------------------------------------------------


class Seen(html.parser.HTMLParser):
    """What a page holds: tags with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_everything_and_asks_for_nothing(runs: Path, here: Path) -> None:
    shown, _ = done("report", runs / "aegan", "-o", "page.html")
    assert shown == {"file": "page.html", "missing": []}
    text = Path("page.html").read_text()
    seen = Seen(text)
    sources = [attributes.get("src") for tag, attributes in seen.tags if tag in ("img", "script", "iframe", "link")]
    assert all(source is None or source.startswith("data:image/png;base64,") for source in sources)
    assert all(attributes["alt"] for tag, attributes in seen.tags if tag == "img")
    assert not [a for tag, a in seen.tags if tag == "a" or ("href" in a and not str(a["href"]).startswith("#"))]
    grids = history.grids(runs / "aegan")
    assert len([tag for tag, _ in seen.tags if tag == "figure"]) == sum(map(len, grids.values()))
    sliders = [tag for tag, a in seen.tags if tag == "input" and a.get("type") == "range"]
    assert len(sliders) == sum(len(found) > 1 for found in grids.values())
    assert len([a for tag, a in seen.tags if tag == "figure" and "hidden" not in a]) == len(grids)
    for word in ("aegan", "96 of 96", "12.5", "swap", "16x16, grey", f"lgm train --resume {runs / 'aegan'}", "sharpen", "<svg"):
        assert word in (text if word.startswith("<") else seen.text), word
    first, _ = done("report", runs / "aegan")
    assert first["file"] == str(runs / "aegan" / "report.html")
    assert done("report", runs / "aegan")[0] == first  # that of its own folder is made anew


def test_hostile_names_stay_text(runs: Path, here: Path) -> None:
    evil = "<script>alert(1)</script>"
    (runs / "vae" / "evaluation.json").write_text(json.dumps({"metrics": {evil: {evil: evil, "a": 1.5}}, "recipe": {evil: evil}}))
    facts = report.gather(runs / "vae")
    facts.config |= {"data": evil, evil: evil}
    facts.missing.append(evil)
    assert evil not in report.page(facts)
    assert report.page(facts).count("<script>") == 1
    facts.config["data"] = f"```{evil}"
    prose = report.card(facts).split("```")[::2]
    assert len(prose) == 4
    assert not any("<script>" in text for text in prose)


def test_a_run_without_grids_or_checkpoints(runs: Path, here: Path) -> None:
    shutil.rmtree(runs / "vae" / "samples")
    done("report", runs / "vae", "-o", "page.html")
    shutil.rmtree(runs / "vae" / "checkpoints")
    Path("page.html").unlink()
    assert "nothing has been saved yet" in refused("report", runs / "vae", "-o", "page.html")
    assert "written as .html" in refused("report", runs / "vae", "-o", "page.txt")
    assert "both -o and --card" in refused("report", runs / "vae", "-o", "page.html", "--card", "x.md")


@pytest.mark.parametrize("model", ["vae", "aegan"])
def test_the_command_trains_the_same_run_again(model: str, straight: Straight, here: Path) -> None:
    run = straight(model)
    words = shlex.split(report.reproduce(history.config(run)))
    assert words[:2] == ["lgm", "train"]
    result = lgm(*words[1:], "--out", "again", "--sample-every", 40, "--log-every", 16)
    assert result.exit_code == 0, result.output
    support.assert_same_tensors(support.newest(run), support.newest(Path("again")))


def test_the_card(runs: Path, here: Path) -> None:
    done("report", runs / "aegan", "--card", "README.md")
    text = Path("README.md").read_text()
    assert text.startswith("---\nlibrary_name: lgm\n")
    for line in ("| fid | 12.5 |", "| swap.auc | 0.75 |", "- images seen: 96 of 96", 'trained = lgm.load("aegan")'):
        assert line in text
    assert "Nothing yet." in report.card(report.gather(runs / "vae"))
