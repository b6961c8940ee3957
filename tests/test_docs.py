"""The documentation does not lie: its code runs, its generated page is current, its links lead somewhere."""

from __future__ import annotations

import html
import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import toys

from models.api import resume
from models.registry import MODELS

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted([*DOCS.glob("*.md"), DOCS.parent / "README.md"])


def test_models_page_is_what_its_script_writes() -> None:
    spec = importlib.util.spec_from_file_location("build_models", DOCS / "build_models.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert (DOCS / "models.md").read_text() == script.page(), "run: python docs/build_models.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_example_on_metrics_runs(
    tmp_path: Path, straight: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Python of docs/metrics.md, on tiny runs under the names that it uses."""
    [code] = re.findall(r"```python\n(.*?)```", (DOCS / "metrics.md").read_text(), re.S)
    for model in ("vae", "classifier"):
        shutil.copytree(straight(model), tmp_path / "runs" / f"{model}-glyphs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LGM_CACHE", str(tmp_path / "cache"))
    exec(code, {})
    first, second = capsys.readouterr().out.splitlines()
    assert float(first.split()[0]) > 0
    assert "'name': 'classifier'" in first
    assert 0 <= float(second.split()[1]) <= 1


def test_the_example_of_rules_runs(
    tmp_path: Path, straight: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Python of docs/editing.md, on a tiny run under the name that it uses."""
    [code] = re.findall(r"```python\n(.*?)```", (DOCS / "editing.md").read_text(), re.S)
    shutil.copytree(straight("vae"), tmp_path / "runs" / "vae-glyphs")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    for line in capsys.readouterr().out.splitlines():
        values = re.fullmatch(r"\(2, 16, 16, 1\) \[\[(.+), (.+)\], \[(.+), (.+)\]\] \[(True|False), (True|False)\]", line)
        assert values, line
        before, after, other, then = map(float, values.groups()[:4])
        assert after > before or before > 0
        assert then > other or other > 0


def test_every_metric_is_on_its_page() -> None:
    from models.registry import METRICS

    text = (DOCS / "metrics.md").read_text()
    for name in METRICS.entries():
        assert f"* **`{name}`**" in text, name


def test_the_worked_example_of_adding_a_model_trains_and_samples(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code block of docs/adding-a-model.md, saved as a zoo file of its own, is found by name, trains, resumes, and samples."""
    import models
    from models import registry, zoo

    code = re.search(r"```python\n(.*?)```", (DOCS / "adding-a-model.md").read_text(), re.S)
    assert code
    (tmp_path / "least_squares_gan.py").write_text(code[1])
    monkeypatch.setattr(registry.MODELS, "folder", tmp_path)
    monkeypatch.setattr(zoo, "__path__", [str(tmp_path), *zoo.__path__])
    entry = registry.MODELS.find("least-squares-gan")
    assert entry.summary.startswith("Least-squares GAN")
    assert [(o.name, o.help) for o in entry.options()][1] == ("latent", "dimensions of the noise")
    settings = {"batch": 8, "device": "cpu", "options": {"widths": (16,), "latent": 4}}
    trained = models.train("least-squares-gan", data=str(pictures), images=64, out=tmp_path / "run", **settings)
    assert trained.sample(3, seed=1).shape == (3, 16, 16, 1)
    assert [type(e).__name__ for e in resume(tmp_path / "run")][-1] == "Finished"
    options = (tmp_path / "run" / "config.json").read_text()
    assert '"widths": [16]' in options
    assert "requires_grad_(" not in code[1]
    assert ".backward(" not in code[1]


def test_the_worked_example_of_two_sources_and_a_part(places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second code block of docs/adding-a-model.md learns to paint what shows the same class elsewhere."""
    import numpy as np
    import torch

    import models
    from models.data.batches import to_float
    from models.data.load import load, parse

    _, code = re.findall(r"```python\n(.*?)```", (DOCS / "adding-a-model.md").read_text(), re.S)
    (tmp_path / "worked").mkdir()
    (tmp_path / "worked" / "__init__.py").touch()
    (tmp_path / "worked" / "counterpart.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = {"batch": 8, "device": "cpu", "options": {"widths": (32,), "lr": 0.01}, "images": 1600, "parts": {"painter": places["far"]}}
    with toys.found(tmp_path / "worked", "worked"):
        entry = MODELS.find("counterpart")
        assert entry.sources() == ("here", "there")
        assert entry.parts() == {"painter": "an auto-encoder of the images to paint"}
        trained = models.train("counterpart", {"here": str(places["here"])}, out=tmp_path / "run", **settings)
        assert [type(e).__name__ for e in resume(tmp_path / "run")][-1] == "Finished"
    here, there = (load(parse(str(places[name]))) for name in ("here", "there"))
    with torch.no_grad():
        made = to_float(torch.from_numpy(trained.translate(here.all("image"), count=1)[:, 0]))
        codes = trained.model.painter.encode(to_float(torch.from_numpy(there.all("image"))))  # type: ignore[union-attr,operator]
        read = trained.model.reader(to_float(torch.from_numpy(here.all("image"))))  # type: ignore[operator]
    assert made.shape == (20, 3, 12, 16)
    centres = torch.stack([codes[there.all("label") == kind].mean(0) for kind in (0, 1)])
    nearest = torch.cdist(read, centres).argmin(1).numpy()
    assert (nearest == here.all("label")).mean() >= 0.9
    assert np.isfinite(made.numpy()).all()


def test_the_terminal_of_the_readme_is_what_its_script_draws(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands are the script's, and it asks for nothing from elsewhere; the script draws what commands print."""
    spec = importlib.util.spec_from_file_location("recording", DOCS / "reproduce" / "recording.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def words(svg: str) -> str:
        return html.unescape(re.sub(r"<[^>]*>", "", svg)).replace("\xa0", " ")

    kept = script.PICTURE.read_text()
    assert len(kept) < 60_000
    assert set(re.findall(r"https?://[^\"') ]+", kept)) <= {"http://www.w3.org/2000/svg", "https://www.textualize.io"}
    assert all(command in words(kept) for command in script.COMMANDS)
    monkeypatch.chdir(tmp_path)
    drawn = script.drawn(["lgm runs .", f"lgm data info '{pictures}'"])
    assert "no runs in ." in words(drawn)
    assert "count: 20" in words(drawn)
    with pytest.raises(RuntimeError, match="no such folder"):
        script.drawn(["lgm runs nowhere"])
