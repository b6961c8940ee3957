"""A run as one page to open, and as a model card: the same facts, read from its folder.

The page holds everything that it shows and asks nothing of any network. Curves need matplotlib; without it, the page says so.
"""

from __future__ import annotations

import base64
import datetime
import html
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from models import api
from models.capabilities import pictures
from models.config import RunConfig, as_assignments, fields_of, flags_of, to_json
from models.data.images import atomic_file, png_bytes
from models.errors import LgmError, UserError, printable
from models.registry import MODELS, model_class
from models.runs import curves, history
from models.training import checkpoint

EXAMPLES = 24  # of the data
MOST_GRIDS = 24  # of each kind
_KINDS = {"sample": "samples of the same noises", "reconstruction": "images above, what the model makes of them below"}
_SAID = ("model", "data", "sources", "parts", "options", "preset", "device", "data_root", "compile", "workers", "sample_every", "log_every")


@dataclass
class Facts:
    """What is known of a run."""

    run: Path
    config: dict[str, Any]
    about: str  # of the model, one line
    images: int  # seen
    environment: dict[str, Any]
    lgm: str
    fingerprint: str
    shape: tuple[int, ...]  # of an image, (channels, height, width)
    parameters: int
    evaluation: dict[str, Any] | None
    examples: np.ndarray | None  # of its data, (N, H, W, C)
    missing: list[str] = field(default_factory=list)  # what could not be shown, and why


def gather(run: Path, data_root: str | None = None) -> Facts:
    """Everything that a page or a card says. Raises UserError where it is no run, or one without anything saved."""
    if not history.is_run(run):
        raise UserError("no run", run, "name the folder that `lgm train` wrote")
    if not history.checkpoints(run):
        raise UserError("nothing has been saved yet", run, "let it train for a while")
    header = checkpoint.of_newest(run, checkpoint.read_header)
    config = json.loads(to_json(header.config))  # what stands in the checkpoint counts, not the record for people
    missing: list[str] = []
    shapes = checkpoint.part(checkpoint.shapes(Path(str(header.path))), "model")
    return Facts(
        run=run,
        config=config,
        about=MODELS.find(header.model).summary,
        images=header.images,
        environment=dict(header.environment),
        lgm=header.lgm,
        fingerprint=header.fingerprint,
        shape=tuple(header.spec.shape),
        parameters=int(sum(np.prod(shape, dtype=object) for shape in shapes.values())),
        evaluation=history.evaluation(run),
        examples=_examples(run, config, data_root, missing),
        missing=missing,
    )


def _examples(run: Path, config: Mapping[str, Any], data_root: str | None, missing: list[str]) -> np.ndarray | None:
    """Some images of the run's data, as the model takes them; None where they are not at hand."""
    try:
        trained = api.load(run, device="cpu")
        found = trained.data(config["data"], data_root)
        return found.rows("image", np.linspace(0, len(found) - 1, min(EXAMPLES, len(found))).astype(np.int64))
    except (LgmError, KeyError) as error:
        missing.append(f"examples of the data: {printable(error.what if isinstance(error, LgmError) else error)}")
        return None


def reproduce(config: Mapping[str, Any]) -> str:
    """The command that trains the same run again."""
    words = ["lgm", "train", config["model"]]
    sources = {"": config["data"], **(config.get("sources") or {})}
    words += [word for name, text in sources.items() for word in ("--data", f"{name}={text}" if name else text)]
    words += [word for name, run in (config.get("parts") or {}).items() for word in ("--part", f"{name}={run}")]
    cls = model_class(config["model"])
    preset = config.get("preset", "default")
    words += [] if preset == "default" else ["--preset", preset]
    usual = {f.name: f.default for f in fields(cls.Config)} | dict(cls.presets[preset].options if preset in cls.presets else {})
    asked = {name: value for name, value in (config.get("options") or {}).items() if _plain(value) != _plain(usual.get(name))}
    words += [word for text in as_assignments(asked) for word in ("--set", text)]
    annotations = fields_of(RunConfig)
    for one in fields(RunConfig):
        default = one.default if one.default is not MISSING else None
        value = config.get(one.name)
        if one.name in _SAID or value is None or _plain(value) == _plain(default):
            continue
        flag = flags_of(one.name, annotations[one.name])[0].split("/")[0]
        words += [flag] if value is True else [flag, _flag(one.name, value)]
    return shlex.join(map(str, words))


def _flag(name: str, value: Any) -> str:
    if name == "size":
        return f"{value[1]}x{value[0]}"
    if name == "background":
        return "#" + "".join(f"{part:02x}" for part in value)
    return str(value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


# --- the page ---------------------------------------------------------------------------------------------------------------------------


def write(facts: Facts, path: Path) -> Path:
    """The page, one file. Raises UserError where it cannot be written."""
    with atomic_file(path) as file:
        file.write(page(facts).encode("utf-8"))
    return path


def page(facts: Facts) -> str:
    config = facts.config
    of = config.get("images") or facts.images
    told = {
        "model": f"{config['model']}: {facts.about}",
        "data": config["data"],
        "images seen": f"{facts.images:,} of {of:,}",
        "an image": f"{facts.shape[2]}x{facts.shape[1]}, {'colour' if facts.shape[0] == 3 else 'grey'}",
        "parameters": f"{facts.parameters:,}",
        "written by": f"lgm {facts.lgm}",
    }
    parts = [_table(told, "What it is")]
    commands = {"go on": f"lgm train --resume {shlex.quote(str(facts.run))}", "train it again": reproduce(config)}
    parts.append(
        _section("Commands", "".join(f"<p>{_text(name)}</p><pre tabindex=0>{_command(line)}</pre>" for name, line in commands.items()))
    )
    if facts.examples is not None:
        picture = pictures.grid(facts.examples, 12)
        parts.append(_section("The data", _image(png_bytes(picture), f"{len(facts.examples)} images that it is trained on")))
    for number, (kind, found) in enumerate(history.grids(facts.run).items()):
        parts.append(_slider(kind, _some(found), number))
    parts.append(_section("Curves", _curves(facts)))
    if facts.evaluation is not None:
        parts.append(_section("Evaluation", _measures(facts.evaluation)))
    else:
        parts.append(_section("Evaluation", f"<p>Not measured yet: <code>lgm evaluate {_text(shlex.quote(str(facts.run)))}</code></p>"))
    parts.append(_table({key: _said(value) for key, value in sorted(config.items())}, "Configuration"))
    parts.append(_table({**facts.environment, "data fingerprint": facts.fingerprint}, "Environment"))
    if facts.missing:
        parts.append(_section("Not shown", "".join(f"<p>{_text(one)}</p>" for one in facts.missing)))
    made = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    title = _text(api.name_of(facts.run))
    return _PAGE.substitute(title=title, made=made, body="\n".join(parts))


def _text(value: object) -> str:
    return html.escape(printable(value, 2000))


def _command(line: str) -> str:
    """A command whose words are not torn at their hyphens where it takes several lines."""
    return " ".join(f"<span>{_text(word)}</span>" for word in line.split(" "))


def _section(title: str, body: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{body}</section>"


def _table(rows: Mapping[str, Any], title: str) -> str:
    cells = "".join(f"<tr><th scope=row>{_text(key)}</th><td>{_text(value)}</td></tr>" for key, value in rows.items())
    return _section(title, f"<div class=wide tabindex=0><table>{cells}</table></div>")


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_said(one)}" for key, one in value.items()) or "-"
    return ",".join(map(str, value)) if isinstance(value, list) else "-" if value is None else str(value)


def _image(data: bytes, about: str) -> str:
    return f'<img alt="{_text(about)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def _some(found: Mapping[int, Path]) -> dict[int, bytes]:
    """At most MOST_GRIDS of the pictures, the last one among them; one that is being replaced is left out."""
    keys = list(found)
    kept = [keys[n] for n in sorted({round(n) for n in np.linspace(0, len(keys) - 1, min(MOST_GRIDS, len(keys)))})]
    read: dict[int, bytes] = {}
    for images in kept:
        try:
            read[images] = found[images].read_bytes()
        except OSError:
            continue
    return read


def _slider(kind: str, grids: Mapping[int, bytes], number: int) -> str:
    """Pictures of one kind over time, one of which is shown; without scripts, the last."""
    if not grids:
        return ""
    last = len(grids) - 1
    shown = "".join(
        f"<figure{'' if n == last else ' hidden'}>{_image(data, f'{kind} after {images} images')}"
        f"<figcaption>{images:,} images</figcaption></figure>"
        for n, (images, data) in enumerate(grids.items())
    )
    label = f"grid-{number}"
    slider = f'<label for="{label}">earlier or later</label><input id="{label}" type=range min=0 max={last} value={last}>' if last else ""
    return _section(f"{kind.capitalize()}s", f"<p>{_text(_KINDS.get(kind, ''))}</p><div class=slides>{slider}{shown}</div>")


def _curves(facts: Facts) -> str:
    try:
        return f"<div class=wide tabindex=0>{curves.svg({api.name_of(facts.run): facts.run})}</div>"
    except UserError as error:
        return f"<p>{_text(error.what)}: {_text(error.fix)}</p>"


def _measures(evaluation: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{_text(metric)}</th><td>{_text(name)}</td><td class=number>{_text(_number(value))}</td></tr>"
        for metric, values in evaluation["metrics"].items()
        if isinstance(values, Mapping)
        for name, value in values.items()
    )
    said = [f"against {evaluation[key]}" for key in ("data",) if evaluation.get(key)]
    said += [f"{key} {_said(value)}" for key, value in evaluation.get("recipe", {}).items()]
    return f"<div class=wide tabindex=0><table>{rows}</table></div><p>{_text('; '.join(said))}</p>"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)


_PAGE = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))


# --- the card ---------------------------------------------------------------------------------------------------------------------------


def card(facts: Facts) -> str:
    """A model card in the form of the Hugging Face hub: README.md."""
    config, name = facts.config, api.name_of(facts.run)
    lines = [
        "---",
        "library_name: lgm",
        "tags:",
        "- image-generation",
        f"- {config['model']}",
        "---",
        "",
        f"# {_mark(name)}",
        "",
        facts.about,
        "",
    ]
    of = config.get("images") or facts.images
    lines += _list(
        {
            "model": f"`{config['model']}`",
            "trained on": f"`{_mark(config['data'])}`",
            "images seen": f"{facts.images:,} of {of:,}",
            "images": f"{facts.shape[2]}x{facts.shape[1]}, {'colour' if facts.shape[0] == 3 else 'grey'}",
            "parameters": f"{facts.parameters:,}",
            "seed": config.get("seed"),
            "precision": config.get("precision"),
        }
    )
    lines += ["", "## Use", "", "```", f"lgm sample {shlex.quote(name)} -n 16", "```", "", "```python", "import lgcli as lgm", ""]
    lines += [f"trained = lgm.load({json.dumps(name, ensure_ascii=False)})", "images = trained.sample(16, seed=1)", "```", ""]
    lines += ["The weights are one safetensors file, which describes itself; nothing is ever unpickled.", "", "## Measured", ""]
    if facts.evaluation is None:
        lines += ["Nothing yet."]
    else:
        rows = history.metrics(facts.run)
        lines += ["| metric | value |", "|---|---|", *(f"| {_mark(key)} | {value:.4g} |" for key, value in rows.items()), ""]
        recipe = facts.evaluation.get("recipe", {})
        lines += ["Recipe: " + "; ".join(f"{_mark(key)} {_mark(_said(value))}" for key, value in recipe.items())]
    lines += ["", "## Made by", "", "```", printable(reproduce(config), 4000).replace("```", "` ` `"), "```", ""]
    lines += _list({"lgm": facts.lgm, **facts.environment, "data fingerprint": facts.fingerprint})
    return "\n".join(lines) + "\n"


def _list(rows: Mapping[str, Any]) -> Sequence[str]:
    return [f"- {_mark(key)}: {value if str(value).startswith('`') else _mark(value)}" for key, value in rows.items() if value is not None]


def _mark(value: object) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|" else letter for letter in printable(value, 2000))
