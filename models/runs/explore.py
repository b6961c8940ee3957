"""The page of `lgm explore`: what a run can be asked, to be tried with sliders and a brush. Made with Gradio, the extra `explore`.

Each panel is a class: whether a run has it, what stands in it, and what its button does. What comes from a browser is decoded by the one
decode policy and is nowhere kept; every result stands beside the command that makes it again. One question is answered at a time, and a
search for somebody who has left ends at its next step.
"""

from __future__ import annotations

import os
import shlex
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from models.base import Completes, Constrains, Encodes, Mixes, Samples, Translates
from models.capabilities import masks, pictures
from models.capabilities.ask import images_from
from models.capabilities.told import has_to_tell
from models.errors import LgmError, UserError, printable

if TYPE_CHECKING:
    from models.capabilities.trained import Trained
    from models.data.items import Items

DIRECTIONS = 8  # principal directions of the codes that have a slider
EXAMPLES = 512  # images whose codes these are found from
STEPS = 300  # of a projection, as `lgm project` has them
LARGE = 320  # pixels that a small picture is enlarged to, about
UPLOAD = "20mb"
PAINTED = "as painted"

Waiting = Callable[[int, int], None]  # called with steps done and steps in all

gr: Any = None  # gradio, once it was asked for: importing it takes seconds


def load_gradio() -> None:
    """Import Gradio, so that it sends nothing anywhere. Raises UserError where it is not installed."""
    global gr
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ImportError as error:
        raise UserError("the page is made with Gradio, which is not installed", "lgm explore", "pip install gradio") from error
    gr = gradio


class Left(Exception):
    """The page that asked is open no longer."""


class Asked:
    """A run on the page: its model, images of its data where they are at hand, and how its name is written in a command.

    `waiting` is what a search has to call: it tells the page how far it is, and raises `Left` where nobody waits for the answer.
    """

    def __init__(self, trained: Trained, run: str, data_root: str | None = None) -> None:
        self.trained, self.run, self.lock = trained, run, threading.Lock()
        self.waiting: Waiting = lambda done, total: None
        self.left: set[str] = set()  # sessions of pages that were closed
        self.data: Items | None = None
        with suppress(LgmError):  # they are not at hand
            self.data = trained.data(trained.header.config.data, data_root)

    def command(self, verb: str, *words: object) -> str:
        return shlex.join(["lgm", verb, self.run, *map(str, words)])

    def item(self, number: int) -> np.ndarray:
        """An image of the run's data, (1, H, W, C)."""
        if self.data is None:
            raise UserError("the run's data are not at hand", self.trained.header.config.data, "upload an image")
        return self.data.rows("image", np.array([int(number) % len(self.data)]))

    def image(self, path: str | None, number: float) -> tuple[np.ndarray, str]:
        """What was uploaded, or an image of the data: (1, H, W, C), and what a command calls it."""
        if path:
            return self.trained.images([path]), os.path.basename(path)
        found = self.item(int(number))
        return found, f"{self.trained.header.config.data}:{int(number) % len(self.data or [0])}"


class Panel:
    """One tab of the page."""

    title: ClassVar[str]
    button: ClassVar[str] = "Show"
    live: ClassVar[bool] = False  # answers as soon as something changes

    def __init__(self, asked: Asked) -> None:
        self.asked = asked

    @classmethod
    def fits(cls, asked: Asked) -> bool:
        raise NotImplementedError

    def inputs(self) -> list[Any]:
        """What stands in it, made inside of the page."""
        raise NotImplementedError

    def answer(self, *values: Any) -> tuple[np.ndarray, str]:
        """A picture uint8 (H, W, C) for what was entered, and the command that makes it."""
        raise NotImplementedError

    def files(self, *values: Any) -> dict[str, np.ndarray]:
        """What the command needs and nobody has as a file: name -> uint8 (H, W, C)."""
        return {}

    # what several have

    def told_input(self) -> Any:
        """What a conditional model is asked to show."""
        spec, condition = self.asked.trained.model.spec, self.asked.trained.condition
        if condition == "attributes":
            return gr.CheckboxGroup(list(spec.attributes), label="attributes")
        if condition is None:
            return gr.State(None)
        names = list(spec.classes) if condition == "label" else [str(n) for n in range(spec.identities)]
        return gr.Dropdown(["in turn", *names], value="in turn", label=condition)

    def told(self, value: Any) -> tuple[Any, list[str]]:
        """What was chosen, as a verb takes it, and as words of a command."""
        condition, spec = self.asked.trained.condition, self.asked.trained.model.spec
        if condition is None or value in (None, "in turn"):
            return None, []
        if condition == "attributes":
            wanted = {name: int(name in value) for name in spec.attributes}
            return wanted, ["--attributes", ",".join(f"{name}={flag}" for name, flag in wanted.items())]
        return (value if condition == "label" else int(value)), ["--label", value]

    def picture_input(self, label: str = "an image of yours") -> list[Any]:
        """A file, or the number of an image of the run's data."""
        number = gr.Number(0, label="or number in the run's data", precision=0, minimum=0, visible=self.asked.data is not None)
        return [gr.Image(type="filepath", label=label, sources=["upload", "clipboard"], height=220), number]


class Sample(Panel):
    title, button = "Sample", "Draw"

    @classmethod
    def fits(cls, asked: Asked) -> bool:
        return isinstance(asked.trained.model, Samples) and _can(asked.trained.require_samples)

    def inputs(self) -> list[Any]:
        return [
            gr.Slider(1, 64, 16, step=1, label="how many"),
            gr.Number(0, label="seed", precision=0, minimum=0),
            gr.Slider(0, 3, 0, step=0.05, label="truncation (0: none)"),
            self.told_input(),
        ]

    def answer(self, *values: Any) -> tuple[np.ndarray, str]:
        count, seed, truncation, chosen = values
        told, words = self.told(chosen)
        images = self.asked.trained.sample(int(count), int(seed), told=told, truncation=truncation or None)
        more = ["--truncation", truncation] if truncation else []
        return pictures.grid(images), self.asked.command("sample", "-n", int(count), "--seed", int(seed), *words, *more)


class Directions(Panel):
    """Sliders along the principal directions of the codes of the run's data, in their standard deviations."""

    title, live = "Directions", True

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        trained = asked.trained
        assert asked.data is not None
        some = np.linspace(0, len(asked.data) - 1, min(EXAMPLES, len(asked.data))).astype(np.int64)
        found = trained.encode(asked.data.rows("image", some))
        codes, self.shape = found.flatten(1), found.shape[1:]
        self.start = lru_cache(maxsize=8)(lambda number: trained.encode(asked.item(number)).flatten(1)[0])
        self.mean = codes.mean(0)
        _, lengths, directions = torch.linalg.svd(codes - self.mean, full_matrices=False)
        count = min(DIRECTIONS, len(lengths))
        self.steps = directions[:count] * (lengths[:count] / max(len(codes) - 1, 1) ** 0.5).unsqueeze(1)

    @classmethod
    def fits(cls, asked: Asked) -> bool:
        model = asked.trained.model
        plain = isinstance(model, Encodes) and hasattr(model, "decode") and not has_to_tell(model, "encode", "decode")
        return plain and asked.data is not None

    def inputs(self) -> list[Any]:
        start = gr.Number(-1, label="begin at this image of the data (-1: the mean)", precision=0, minimum=-1)
        return [start, *(gr.Slider(-3, 3, 0, step=0.1, label=f"direction {n + 1}") for n in range(len(self.steps)))]

    def answer(self, *values: Any) -> tuple[np.ndarray, str]:
        start, *sliders = values
        begin = self.mean if start < 0 else self.start(int(start))
        code = begin + torch.tensor(sliders, dtype=torch.float32) @ self.steps
        image = images_from(self.asked.trained.model, code.reshape(1, *self.shape), "code", None)
        return np.asarray(image[0]), "the sliders have no command; `trained.encode` and the model's `decode` do this in Python"


def _decodes(trained: Trained) -> bool:
    """Whether a model shows again what it was shown, by an encoder and a decoder that need not be told what that is."""
    model = trained.model
    return isinstance(model, Encodes) and hasattr(model, "decode") and _tellable(trained, "encode", "decode")


def _finds(trained: Trained) -> bool:
    """Whether a model has no encoder, and the noise of an image can be searched."""
    model = trained.model
    able = isinstance(model, Samples) and not isinstance(model, Encodes) and _can(trained.require_samples)
    return able and _tellable(trained, "sample")


class Between(Panel):
    title, button = "Between two", "Walk"

    @classmethod
    def fits(cls, asked: Asked) -> bool:
        model = asked.trained.model
        return isinstance(model, Encodes) and hasattr(model, "decode") and not has_to_tell(model, "encode", "decode")

    def inputs(self) -> list[Any]:
        model = self.asked.trained.model
        layers = list(model.layer_groups) if isinstance(model, Mixes) else []
        choice = gr.Dropdown(["all", *layers], value="all", label="what changes", visible=bool(layers))
        return [*self.picture_input("from"), *self.picture_input("to"), gr.Slider(3, 16, 8, step=1, label="images"), choice]

    def answer(self, *values: Any) -> tuple[np.ndarray, str]:
        first, a, second, b, number, layers = values
        if a == b and not (first or second):
            b = a + 1
        (one, name), (other, its_name) = self.asked.image(first, a), self.asked.image(second, b)
        chosen = None if layers in (None, "all") else layers
        images = self.asked.trained.interpolate(one[0], other[0], number=int(number), layers=chosen)
        more = ["--layers", chosen] if chosen else []
        return pictures.grid(images, len(images)), self.asked.command("interpolate", name, its_name, "-n", int(number), *more)


class Again(Panel):
    title, button = "Reconstruct", "Show again"

    @classmethod
    def fits(cls, asked: Asked) -> bool:
        return _decodes(asked.trained)

    def inputs(self) -> list[Any]:
        return self.picture_input()

    def answer(self, *values: Any) -> tuple[np.ndarray, str]:
        image, name = self.asked.image(*values)
        again, _ = self.asked.trained.reconstruct(image)
        return pictures.grid(np.concatenate([image, again]), 2), self.asked.command("reconstruct", name)


class Find(Panel):
    title, button = "Project", "Search"

    @classmethod
    def fits(cls, asked: Asked) -> bool:
        return _finds(asked.trained)

    def inputs(self) -> list[Any]:
        return [*self.picture_input(), gr.Slider(10, 1000, STEPS, step=10, label="steps")]

    def answer(self, *values: Any) -> tuple[np.ndarray, str]:
        path, number, steps = values
        image, name = self.asked.image(path, number)
        found = self.asked.trained.project(image, steps=int(steps), progress=self.asked.waiting).images
        return pictures.grid(np.concatenate([image, found]), 2), self.asked.command("project", name, "--steps", int(steps))


class Fill(Panel):
    """Paint a hole, and have it filled."""

    title, button = "Paint a hole", "Fill"

    @classmethod
    def fits(cls, asked: Asked) -> bool:
        return isinstance(asked.trained.model, Completes) or _decodes(asked.trained) or _finds(asked.trained)

    def inputs(self) -> list[Any]:
        start = _enlarged(self.asked.item(0)[0]) if self.asked.data is not None else None
        brush = gr.Brush(default_size=24, colors=["#ff00ff"], color_mode="fixed")
        label = "paint over what is to be filled"
        editor = gr.ImageEditor(
            value=start, type="numpy", image_mode="RGBA", label=label, brush=brush, layers=False, sources=["upload"], transforms=[]
        )
        several = isinstance(self.asked.trained.model, Completes)
        count = gr.Slider(1, 8, 4, step=1, label="answers", visible=several)
        kind = gr.Dropdown([PAINTED, *masks.KINDS], value=PAINTED, label="the hole")  # the others need no hand that paints
        return [editor, kind, count, gr.Number(0, label="seed", precision=0, minimum=0)]

    def answer(self, *values: Any) -> tuple[np.ndarray, str]:
        drawn, kind, count, seed = values
        image, hole = self.holed(drawn, kind, int(seed))
        trained = self.asked.trained
        if isinstance(trained.model, Completes):
            found, words = trained.complete(image[None], hole, int(count), int(seed))[0], ["--variants", int(count)]
        else:
            found, words = trained.inpaint(image[None], hole[None], seed=int(seed), progress=self.asked.waiting).images[-1], []
        masked = np.where(hole[..., None], np.uint8(255), image)
        shown = pictures.grid(np.concatenate([image[None], masked[None], found]), 2 + len(found))
        mask = "mask.png" if kind == PAINTED else kind
        return shown, self.asked.command("inpaint", "image.png", "--mask", mask, "--seed", int(seed), *words)

    def files(self, *values: Any) -> dict[str, np.ndarray]:
        drawn, kind, _, seed = values
        image, hole = self.holed(drawn, kind, int(seed))
        return {"image.png": image} | ({"mask.png": hole[..., None].astype(np.uint8) * 255} if kind == PAINTED else {})

    def holed(self, drawn: Any, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The editor's picture in the model's shape, and its hole: (H, W, C) uint8 and (H, W) bool."""
        if drawn is None or drawn["background"] is None:
            raise UserError("no image", self.title, "upload one")
        if kind != PAINTED:
            image = self.fitted(drawn["background"][..., :3])
            return image, masks.of_images(kind, 1, image.shape[:2], seed)[0]
        return self.painted(drawn)

    def painted(self, drawn: Any) -> tuple[np.ndarray, np.ndarray]:
        """The same where the hole is what was painted over."""
        background = drawn["background"]
        strokes = np.zeros(background.shape[:2], np.uint8)
        for layer in drawn["layers"]:
            strokes = np.maximum(strokes, layer[..., 3])
        hole = self.fitted(strokes[..., None].repeat(3, 2), False)[..., 0] > 127
        if not hole.any():
            raise UserError("nothing is painted over", self.title, "paint over what is to be filled")
        return self.fitted(background[..., :3]), hole

    def fitted(self, image: np.ndarray, in_colour: bool = True) -> np.ndarray:
        """A picture of the editor in the model's size, and, if it is one, in its channels."""
        from models.data.images import fit, to_channels

        spec, config = self.asked.trained.model.spec, self.asked.trained.header.config
        found = fit(np.ascontiguousarray(image), spec.size, config.fit, background=config.background)
        return to_channels(found, spec.channels) if in_colour else found


class Edit(Panel):
    title, button = "Edit", "Change"

    @classmethod
    def fits(cls, asked: Asked) -> bool:
        trained = asked.trained
        able = isinstance(trained.model, Constrains) or (isinstance(trained.model, Encodes) and has_to_tell(trained.model, "decode"))
        return able and trained.condition is not None

    def inputs(self) -> list[Any]:
        return [*self.picture_input(), self.told_input()]

    def answer(self, *values: Any) -> tuple[np.ndarray, str]:
        path, number, chosen = values
        wanted, words = self.told(chosen)
        if wanted is None:
            raise UserError("nothing is asked for", "Edit", "choose what the image is to show")
        image, name = self.asked.image(path, number)
        found = self.asked.trained.edit(image, wanted, progress=self.asked.waiting).images
        return pictures.grid(np.concatenate([image, found]), 2), self.asked.command("edit", name, *words)


class Translate(Panel):
    title, button = "Translate", "Translate"

    @classmethod
    def fits(cls, asked: Asked) -> bool:
        return isinstance(asked.trained.model, Translates) and isinstance(getattr(asked.trained.model, "translation_noise", None), tuple)

    def inputs(self) -> list[Any]:
        return [*self.picture_input(), gr.Slider(1, 8, 4, step=1, label="answers"), gr.Number(0, label="seed", precision=0, minimum=0)]

    def answer(self, *values: Any) -> tuple[np.ndarray, str]:
        path, number, count, seed = values
        image, name = self.asked.image(path, number)
        found = self.asked.trained.translate(image, int(count), int(seed))[0]
        alike = pictures.alike(image, found)
        command = self.asked.command("translate", name, "--variants", int(count), "--seed", int(seed))
        return pictures.grid(np.concatenate(alike), 1 + len(found)), command


class Mix(Panel):
    title, button = "Mix", "Mix"

    @classmethod
    def fits(cls, asked: Asked) -> bool:
        return isinstance(asked.trained.model, Mixes) and isinstance(asked.trained.model, Encodes)

    def inputs(self) -> list[Any]:
        groups = list(self.asked.trained.model.layer_groups)  # type: ignore[arg-type]
        choice = gr.Dropdown(groups, value=groups[0], label="what the second decides")
        return [*self.picture_input("the first"), *self.picture_input("the second"), choice]

    def answer(self, *values: Any) -> tuple[np.ndarray, str]:
        first, a, second, b, layers = values
        (one, name), (other, its_name) = self.asked.image(first, a), self.asked.image(second, b)
        made = self.asked.trained.mix([one[0]], [other[0]], layers)[0]
        shown = pictures.grid(np.concatenate([one, other, made]), 3)
        return shown, self.asked.command("mix", name, "--with", its_name, "--layers", layers)


PANELS: tuple[type[Panel], ...] = (Sample, Directions, Between, Again, Find, Fill, Edit, Translate, Mix)


def _can(ask: Callable[[], None]) -> bool:
    try:
        ask()
    except LgmError:
        return False
    return True


def _tellable(trained: Trained, *capabilities: str) -> bool:
    """Whether a model needs not be told what an image shows, or says so itself."""
    return not has_to_tell(trained.model, *capabilities) or trained.classifies


def panels_of(asked: Asked) -> Iterator[Panel]:
    """Those that a run has."""
    for cls in PANELS:
        if cls.fits(asked):
            yield cls(asked)


def page(asked: Asked) -> Any:
    """The page, to be launched. Raises UserError for a run that can be asked nothing of this."""
    found = list(panels_of(asked))
    if not found:
        raise UserError("this run can be asked nothing that a page shows", asked.run, "see lgm info")
    header = asked.trained.header
    name = printable(os.path.basename(os.path.normpath(asked.run)))
    with gr.Blocks(title=name, analytics_enabled=False) as made:
        gr.Markdown(f"# {_plain(name)}\n{_plain(header.model)}, {header.images:,} images seen of {_plain(header.config.data)}")
        for panel in found:
            with gr.Tab(panel.title), gr.Row():
                with gr.Column():
                    inputs = panel.inputs()
                    button = gr.Button(panel.button, variant="primary")
                with gr.Column():
                    buttons = ["download", "fullscreen"]
                    picture = gr.Image(
                        label=panel.title, show_label=False, format="png", interactive=False, buttons=buttons, elem_classes="result"
                    )
                    command = gr.Textbox(label="the same from the command line", interactive=False, lines=2)
                    files = gr.File(label="its files", file_count="multiple", interactive=False, visible=False)
            answer = _answering(asked, panel)
            button.click(answer, inputs, [picture, command, files], api_name=False)
            if panel.live:
                for one in inputs:
                    one.change(
                        answer, inputs, [picture, command, files], api_name=False, show_progress="hidden", trigger_mode="always_last"
                    )
            if isinstance(panel, (Sample, Directions)):
                made.load(answer, inputs, [picture, command, files], api_name=False)
        made.unload(_leaving(asked))
    return made


def _answering(asked: Asked, panel: Panel) -> Callable[..., Sequence[Any]]:
    def answer(request: gr.Request, shown: Any = gr.Progress(), *values: Any) -> Sequence[Any]:  # noqa: B008
        def waiting(done: int, total: int) -> None:
            if request.session_hash in asked.left:
                raise Left
            if done % 10 == 0:
                shown((done, total))

        try:
            with asked.lock:
                waiting(1, 1)  # it may have been closed while another question was answered
                asked.waiting = waiting
                picture, command = panel.answer(*values)
                files = panel.files(*values)
        except LgmError as error:
            raise gr.Error(f"{error.what}: {error.where}. {error.fix}", print_exception=False) from error
        except Left as error:
            raise gr.Error("the page was closed", print_exception=False) from error
        folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"])) if files else Path()
        written = [str(pictures.write(image, folder / name)) for name, image in files.items()]
        return _enlarged(picture), command, gr.update(value=written or None, visible=bool(written))

    return answer


def _leaving(asked: Asked) -> Callable[..., None]:
    def left(request: gr.Request) -> None:
        asked.left.add(request.session_hash)

    return left


def _enlarged(picture: np.ndarray) -> np.ndarray:
    """A small picture larger, each pixel a square; grey in three channels."""
    times = LARGE // min(picture.shape[:2]) if max(picture.shape[:2]) < 3 * LARGE else 1
    return pictures.enlarged(picture, times).repeat(3 // picture.shape[2], 2)


def _plain(text: object) -> str:
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#" else letter for letter in printable(text))


_CSS = """
.result .image-container { padding-top: 2.2rem; }
input[type=range]::-webkit-slider-thumb { border: 1px solid #6b7280; }
input[type=range]::-moz-range-thumb { border: 1px solid #6b7280; }
"""  # the buttons stand above a picture and not on it; a slider is seen on white as well


@contextmanager
def serving(asked: Asked, port: int | None, browser: bool = False) -> Iterator[str]:
    """Serve the page on 127.0.0.1 while the block lasts; yields its address. Raises UserError where the port is taken."""
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])  # none that is fetched
    with tempfile.TemporaryDirectory(prefix="lgm-explore-", ignore_cleanup_errors=True) as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        made = page(asked)
        try:
            try:
                _, address, _ = made.queue(default_concurrency_limit=2).launch(
                    server_name="127.0.0.1",
                    server_port=port,
                    share=False,
                    inbrowser=browser,
                    quiet=True,
                    prevent_thread_lock=True,
                    max_file_size=UPLOAD,
                    theme=theme,
                    css=_CSS,
                    footer_links=[],
                )
            except OSError as error:
                what = f"the page cannot be served ({printable(error, 120)})"
                raise UserError(what, f"--port {port}" if port else "127.0.0.1", "give another --port") from error
            yield str(address)
        finally:
            made.close(verbose=False)
