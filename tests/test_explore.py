"""The page of `lgm explore`: what each panel answers, and the page itself in a real browser, where there is one."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painter import lgm
from PIL import Image

import models
from models.capabilities import pictures as layouts
from models.errors import UserError
from models.runs import explore

pytest.importorskip("gradio", reason="Gradio is not installed")
Straight = Callable[[str], Path]


class Keys:
    """As WebDriver numbers them."""

    TAB, ENTER, SPACE, ARROW_LEFT, ARROW_RIGHT, ARROW_DOWN = "\ue004", "\ue007", "\ue00d", "\ue012", "\ue014", "\ue015"


@pytest.fixture
def ask(straight: Straight) -> Callable[[str], explore.Asked]:
    return lambda model: explore.Asked(models.load(straight(model), device="cpu"), str(straight(model)))


def panel(cls: type[explore.Panel], asked: explore.Asked) -> explore.Panel:
    assert cls.fits(asked)
    return cls(asked)


# ---- what panels answer --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "titles"),
    [
        ("vae", ["Sample", "Directions", "Between two", "Reconstruct", "Paint a hole"]),
        ("dcgan", ["Sample", "Project", "Paint a hole"]),
        ("cvae-gan", ["Sample", "Reconstruct", "Paint a hole", "Edit"]),
        ("ip-gan", ["Sample", "Directions", "Between two", "Reconstruct", "Paint a hole", "Mix"]),
        ("cgml", ["Paint a hole"]),
        ("classifier", []),
    ],
)
def test_a_run_has_the_panels_of_its_capabilities(model: str, titles: list[str], ask: Callable[[str], explore.Asked]) -> None:
    assert [cls.title for cls in explore.PANELS if cls.fits(ask(model))] == titles


def test_samples_and_their_command(ask: Callable[[str], explore.Asked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ask("vae")
    shown, command = panel(explore.Sample, asked).answer(4, 7, 0, None)
    np.testing.assert_array_equal(shown, layouts.grid(asked.trained.sample(4, 7)))
    monkeypatch.chdir(tmp_path)
    assert lgm(*shlex.split(command)[1:], "-o", "again.png").exit_code == 0
    np.testing.assert_array_equal(np.asarray(Image.open("again.png")), shown[..., 0])


def test_samples_show_what_was_chosen(ask: Callable[[str], explore.Asked]) -> None:
    asked = ask("cvae-gan")
    shown, command = panel(explore.Sample, asked).answer(3, 1, 0.5, "disc")
    np.testing.assert_array_equal(shown, layouts.grid(asked.trained.sample(3, 1, told="disc", truncation=0.5)))
    assert command.endswith("sample " + asked.run + " -n 3 --seed 1 --label disc --truncation 0.5")
    turn, _ = panel(explore.Sample, asked).answer(3, 1, 0, "in turn")
    np.testing.assert_array_equal(turn, layouts.grid(asked.trained.sample(3, 1)))


def test_directions_are_principal_ones(ask: Callable[[str], explore.Asked]) -> None:
    asked = ask("vae")
    found = panel(explore.Directions, asked)
    assert isinstance(found, explore.Directions)
    assert asked.data is not None
    codes = asked.trained.encode(asked.data.all("image")).numpy().astype(np.float64)
    variance = np.linalg.eigvalsh(np.cov(codes.T))[::-1]
    steps = found.steps.numpy()
    np.testing.assert_allclose((steps**2).sum(1), variance[: len(steps)], rtol=1e-3)  # of one deviation each
    start, _ = found.answer(3, *[0.0] * len(steps))
    np.testing.assert_array_equal(start, asked.trained.reconstruct(asked.item(3))[0][0])
    moved, _ = found.answer(3, 3, *[0] * (len(steps) - 1))  # whole numbers come as such
    assert not np.array_equal(start, moved)


def test_two_images(ask: Callable[[str], explore.Asked], pictures: Path) -> None:
    asked = ask("ip-gan")
    path = str(sorted(pictures.rglob("*.png"))[4])
    shown, command = panel(explore.Between, asked).answer(path, 0, None, 2, 5, "identity")
    one, other = asked.trained.images([path])[0], asked.item(2)[0]
    np.testing.assert_array_equal(shown, layouts.grid(asked.trained.interpolate(one, other, number=5, layers="identity"), 5))
    assert shlex.split(command)[3:] == [Path(path).name, f"{pictures}:2", "-n", "5", "--layers", "identity"]
    mixed, _ = panel(explore.Mix, asked).answer(path, 0, None, 2, "attributes")
    np.testing.assert_array_equal(mixed, layouts.grid(np.stack([one, other, asked.trained.mix([one], [other], "attributes")[0, 0]]), 3))


def painted(image: np.ndarray, hole: np.ndarray) -> dict[str, Any]:
    """What the editor hands over."""
    colours = image.repeat(3 // image.shape[2], 2)
    layer = np.zeros((*image.shape[:2], 4), np.uint8)
    layer[hole] = (255, 0, 255, 255)
    return {"background": np.concatenate([colours, np.full((*image.shape[:2], 1), 255, np.uint8)], 2), "layers": [layer], "composite": None}


@pytest.mark.parametrize("model", ["vae", "dcgan", "cgml"])
def test_a_painted_hole_is_filled(model: str, ask: Callable[[str], explore.Asked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ask(model)
    found = panel(explore.Fill, asked)
    assert isinstance(found, explore.Fill)
    hole = np.zeros((16, 16), bool)
    hole[4:12, 4:12] = True
    image = asked.item(1)[0]
    values = (painted(image, hole), explore.PAINTED, 2, 3)
    shown, command = found.answer(*values)
    if model == "cgml":
        filled = asked.trained.complete(image[None], hole, 2, 3)[0]
    else:
        filled = asked.trained.inpaint(image[None], hole[None], seed=3).images[-1]
    masked = np.where(hole[..., None], np.uint8(255), image)
    np.testing.assert_array_equal(shown, layouts.grid(np.concatenate([image[None], masked[None], filled]), 2 + len(filled)))
    monkeypatch.chdir(tmp_path)
    for name, picture in found.files(*values).items():
        layouts.write(picture, Path(name))
    assert lgm(*shlex.split(command)[1:], "-o", "filled.png").exit_code == 0
    large = painted(image.repeat(20, 0).repeat(20, 1), hole.repeat(20, 0).repeat(20, 1))
    np.testing.assert_array_equal(found.painted(large)[1], hole)
    for drawn, what in ((None, "no image"), (painted(image, np.zeros((16, 16), bool)), "nothing is painted over")):
        with pytest.raises(UserError, match=what):
            found.answer(drawn, explore.PAINTED, 2, 3)


def test_a_hole_without_a_hand_that_paints(ask: Callable[[str], explore.Asked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = panel(explore.Fill, ask("vae"))
    image = found.asked.item(1)[0]
    values = (painted(image, np.zeros((16, 16), bool)), "box", 1, 5)
    shown, command = found.answer(*values)
    assert list(found.files(*values)) == ["image.png"]
    monkeypatch.chdir(tmp_path)
    layouts.write(image, Path("image.png"))
    assert lgm(*shlex.split(command)[1:], "-o", "filled.png").exit_code == 0
    row = np.asarray(Image.open("filled.png"))[..., None]
    np.testing.assert_array_equal(row[:, -18:], shown[:, -18:])  # the command also shows some iterations before


def test_the_noise_of_an_image(ask: Callable[[str], explore.Asked]) -> None:
    asked = ask("dcgan")
    calls: list[int] = []
    asked.waiting = lambda done, total: calls.append(done)
    shown, command = panel(explore.Find, asked).answer(None, 2, 20)
    image = asked.item(2)
    np.testing.assert_array_equal(shown, layouts.grid(np.concatenate([image, asked.trained.project(image, steps=20).images]), 2))
    assert command.endswith(":2 --steps 20")
    assert calls == [*range(1, 21)]


def test_uploads_are_decoded_by_the_one_policy(ask: Callable[[str], explore.Asked], tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\0\0\xff\xff\0\0\xff\xff\x08\x02\0\0\0" + bytes(40))
    with pytest.raises(UserError, match="no readable image"):
        panel(explore.Again, ask("vae")).answer(str(tmp_path / "bomb.png"), 0)


def test_without_its_data_a_run_takes_uploads(straight: Straight, pictures: Path, tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(pictures, data)
    import support

    support.call(support.train, "vae", str(data), str(run), support.tiny("vae", images=16))
    shutil.rmtree(data)
    asked = explore.Asked(models.load(run, device="cpu"), str(run))
    assert not explore.Directions.fits(asked)
    with pytest.raises(UserError, match="data are not at hand"):
        panel(explore.Again, asked).answer(None, 0)
    panel(explore.Again, asked).answer(str(sorted(pictures.rglob("*.png"))[0]), 0)


def test_a_page_that_is_stopped_leaves_no_uploads(straight: Straight, tmp_path: Path) -> None:
    words = [sys.executable, "-c", "from lgcli.app import app; app()", "explore", str(straight("vae")), "--no-browser"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as page:
        assert page.stdout is not None
        assert page.stdout.readline().startswith("http://127.0.0.1:")
        assert list(tmp_path.glob("lgm-explore-*"))
        page.terminate()
        assert page.wait(60) == 128 + signal.SIGTERM
    assert not list(tmp_path.glob("lgm-explore-*"))


def test_the_command_says_what_is_missing(straight: Straight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = lgm("explore", straight("vae"), "--no-browser", "--port", port)
        assert result.exit_code == 2
        assert f"--port {port}" in result.stderr
    result = lgm("explore", straight("classifier"), "--no-browser")
    assert (result.exit_code, "nothing that a page shows" in result.stderr) == (2, True)
    assert not list(tmp_path.iterdir()), "a folder for uploads is left"
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    result = lgm("explore", straight("vae"), "--no-browser")
    assert (result.exit_code, "pip install gradio" in result.stderr) == (2, True)


# ---- what it is asked over the network -----------------------------------------------------------------------------------------------


@pytest.fixture
def address(ask: Callable[[str], explore.Asked]) -> Iterator[str]:
    explore.load_gradio()
    with explore.serving(ask("vae"), None) as found:
        yield found.rstrip("/")


def test_no_file_is_given_away(address: str, straight: Straight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("mine")
    assert address.startswith("http://127.0.0.1:")
    for path in ("/etc/hosts", tmp_path / "secret.txt", straight("vae") / "config.json", "secret.txt", "../../../../etc/hosts"):
        found = httpx.get(f"{address}/gradio_api/file={path}")
        assert found.status_code in (403, 404), path
        assert "mine" not in found.text


def test_uploads_have_a_limit(address: str) -> None:
    import httpx

    small = httpx.post(f"{address}/gradio_api/upload", files={"files": ("a.png", b"x" * 1000)})
    assert small.status_code == 200
    [path] = small.json()
    assert "lgm-explore-" in path  # where it goes when the page ends
    large = httpx.post(f"{address}/gradio_api/upload", files={"files": ("b.png", bytes(21 * 2**20))}, timeout=60)
    assert large.status_code == 413
    assert not list(Path(path).parent.parent.rglob("b.png"))


# ---- in a browser --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def browse() -> Iterator[Callable[..., Any]]:
    """Opens an address in a headless Chromium of a window's width, or skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    driver_path, browser = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    if not driver_path or not browser:
        pytest.skip("no chromium with chromedriver here")
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.service import Service

    opened: list[Any] = []

    def start(address: str, width: int = 1400) -> Any:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--window-size={width},1100"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        try:
            driver = webdriver.Chrome(options=options, service=Service(driver_path))
        except WebDriverException as error:  # a container that lets no browser start
            pytest.skip(f"chromium does not start here: {str(error).splitlines()[0]}")
        opened.append(driver)
        size = {"width": width, "height": 1100, "deviceScaleFactor": 1, "mobile": False}  # a window is never as narrow as a telephone
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get(address)
        return driver

    yield start
    for driver in opened:
        driver.quit()


@pytest.fixture
def open_page(ask: Callable[[str], explore.Asked], browse: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Opens the page of a model's run, one for all who ask for this model. The runs on pages are `asked`, by the models' names."""
    with contextlib.ExitStack() as stack:
        addresses: dict[str, str] = {}

        def start(model: str, width: int = 1400) -> Any:
            if model not in addresses:
                explore.load_gradio()
                start.asked[model] = ask(model)  # type: ignore[attr-defined]
                addresses[model] = stack.enter_context(explore.serving(start.asked[model], None))  # type: ignore[attr-defined]
            return browse(addresses[model], width)

        start.asked = {}  # type: ignore[attr-defined]
        yield start


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except Exception:  # the page is still being built
            pass
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} s")


def shown(driver: Any) -> str:
    """The address of the picture in the open tab."""
    images = [image for image in driver.find_elements("css selector", "img") if image.is_displayed()]
    return next((image.get_attribute("src") for image in images if "/file=" in (image.get_attribute("src") or "")), "")


def press(driver: Any, text: str, kind: str = "button") -> None:
    until(lambda: [b for b in driver.find_elements("css selector", kind) if b.is_displayed() and b.text == text])[0].click()


def test_the_page_in_a_browser(open_page: Callable[..., Any]) -> None:
    driver = open_page("vae")
    first = until(lambda: shown(driver))  # samples are there at once
    seed = until(lambda: driver.find_element("css selector", "input[type=number][aria-label='seed'], label input[type=number]"))
    assert seed.is_displayed()
    hosts = {
        message["params"]["request"]["url"].split("/")[2]
        for message in (json.loads(line["message"])["message"] for line in driver.get_log("performance"))
        if message["method"] == "Network.requestWillBeSent" and message["params"]["request"]["url"].startswith("http")
    }
    assert {host.partition(":")[0] for host in hosts} == {"127.0.0.1"}  # nothing is asked of anybody else
    other = open_page("vae")  # two pages on one run
    assert until(lambda: shown(other))
    press(driver, "Reconstruct")
    press(driver, "Show again")
    assert until(lambda: shown(driver) not in ("", first) and shown(driver))
    values = [box.get_attribute("value") for box in driver.find_elements("tag name", "textarea") if box.is_displayed()]
    assert any("lgm reconstruct" in value for value in values)


def test_painting_in_a_browser(open_page: Callable[..., Any]) -> None:
    from selenium.webdriver import ActionChains

    driver = open_page("vae")
    press(driver, "Paint a hole")
    canvas = until(lambda: [c for c in driver.find_elements("tag name", "canvas") if c.is_displayed() and c.size["height"] > 50])[0]
    time.sleep(1)
    actions = ActionChains(driver).move_to_element(canvas).click_and_hold()
    for step in range(8):
        actions = actions.move_by_offset(6, 5 if step % 2 else -5)
    actions.release().perform()
    time.sleep(1)
    press(driver, "Fill")
    assert until(lambda: shown(driver))
    values = [box.get_attribute("value") for box in driver.find_elements("tag name", "textarea") if box.is_displayed()]
    assert any("--mask mask.png" in value for value in values)


def command_of(driver: Any) -> str:
    """The command that stands beside the result in the open tab."""
    boxes = [box for box in driver.find_elements("tag name", "textarea") if box.is_displayed()]
    return next((box.get_attribute("value") for box in boxes if (box.get_attribute("value") or "").startswith("lgm ")), "")


@pytest.mark.parametrize(
    ("model", "tab", "button", "verb"),
    [
        ("cvae-gan", "Edit", "Change", "edit"),
        ("latent-constraints", "Edit", "Change", "edit"),
        ("cross-domain", "Translate", "Translate", "translate"),
        ("ip-gan", "Mix", "Mix", "mix"),
        ("ip-gan", "Between two", "Walk", "interpolate"),
        ("dcgan", "Project", "Search", "project"),
    ],
)
def test_panels_in_a_browser(model: str, tab: str, button: str, verb: str, open_page: Callable[..., Any]) -> None:
    driver = open_page(model)
    if model != "cross-domain":
        until(lambda: shown(driver))
    press(driver, tab, "button[role=tab]")
    if tab == "Edit":
        choose(driver)
    press(driver, button, "button.primary")
    assert f"lgm {verb} " in until(lambda: command_of(driver))
    assert until(lambda: shown(driver))


def choose(driver: Any) -> None:
    """What the edited image is to show: the first attribute, or one of the classes. A page that is still being built loses keys."""

    def chosen() -> bool:
        if boxes := [b for b in driver.find_elements("css selector", "input[type=checkbox]") if b.is_displayed()]:
            if not boxes[0].is_selected():
                boxes[0].click()
            return bool(boxes[0].is_selected())
        [field] = [b for b in driver.find_elements("css selector", "input[role=combobox], input[role=listbox]") if b.is_displayed()]
        if field.get_attribute("value") == "in turn":
            field.send_keys(Keys.ENTER, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ENTER)
        return field.get_attribute("value") not in ("", "in turn")

    until(chosen)


def test_two_pages_ask_at_the_same_time(open_page: Callable[..., Any]) -> None:
    pages = [open_page("ip-gan"), open_page("ip-gan")]
    for page in pages:
        until(lambda page=page: shown(page))
    for page, tab in zip(pages, ("Reconstruct", "Mix")):
        press(page, tab, "button[role=tab]")
    for page, button in zip(pages, ("Show again", "Mix")):
        press(page, button, "button.primary")
    assert "lgm reconstruct" in until(lambda: command_of(pages[0]))
    assert "lgm mix" in until(lambda: command_of(pages[1]))
    assert until(lambda: shown(pages[0])) != until(lambda: shown(pages[1]))


def test_a_search_ends_when_its_page_is_closed(open_page: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explore, "STEPS", 1_000)
    from models.capabilities import project

    steps: list[float] = []
    descend = project._descend

    def slow(*words: Any) -> Any:
        def advance(step: int) -> None:
            steps.append(time.monotonic())
            time.sleep(0.05)
            words[-1](step)

        return descend(*words[:-1], advance)

    monkeypatch.setattr(project, "_descend", slow)
    driver = open_page("dcgan")
    asked = open_page.asked["dcgan"]  # type: ignore[attr-defined]
    until(lambda: shown(driver))
    press(driver, "Project")
    press(driver, "Search")
    until(lambda: len(steps) > 5)
    assert asked.lock.locked()
    driver.quit()  # in the middle
    until(lambda: not asked.lock.locked(), 40)
    assert len(steps) < 990
    other = open_page("dcgan")
    assert until(lambda: shown(other))


# ---- by keyboard alone ---------------------------------------------------------------------------------------------------------------


def tab_to(driver: Any, what: Callable[[Any], Any], most: int = 60) -> Any:
    """Presses Tab until what is wanted has the focus, and shows that it has."""
    for _ in range(most):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        element = driver.switch_to.active_element
        try:
            if what(element):
                return element
        except Exception:  # it is being drawn anew
            continue
    raise AssertionError("the keyboard does not reach it")


def is_button(text: str) -> Callable[[Any], Any]:
    return lambda element: element.tag_name == "button" and element.text == text


def is_range(element: Any) -> bool:
    return element.get_attribute("type") == "range"


def test_the_page_by_keyboard_alone(open_page: Callable[..., Any]) -> None:
    driver = open_page("vae")
    first = until(lambda: shown(driver))
    until(lambda: "-n 16" in command_of(driver))
    slider = tab_to(driver, is_range)
    slider.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert slider.get_attribute("value") == "13"
    tab_to(driver, is_button("Draw")).send_keys(Keys.ENTER)
    until(lambda: "-n 13" in command_of(driver))
    assert until(lambda: shown(driver) not in ("", first) and shown(driver))

    tab_to(driver, is_button("Directions")).send_keys(Keys.SPACE)  # its sliders answer by themselves
    second = until(lambda: shown(driver))
    tab_to(driver, lambda e: is_range(e) and e.is_displayed()).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert until(lambda: shown(driver) not in ("", second) and shown(driver))

    tab_to(driver, is_button("Reconstruct")).send_keys(Keys.ENTER)
    tab_to(driver, is_button("Show again")).send_keys(Keys.SPACE)
    until(lambda: "lgm reconstruct" in command_of(driver))

    tab_to(driver, is_button("Paint a hole")).send_keys(Keys.ENTER)
    field = tab_to(driver, lambda e: e.get_attribute("role") in ("combobox", "listbox") and e.is_displayed())
    field.send_keys(Keys.ARROW_DOWN, Keys.ENTER)
    tab_to(driver, is_button("Fill")).send_keys(Keys.ENTER)
    until(lambda: "--mask box" in command_of(driver))


@pytest.mark.parametrize("width", [400, 1400])
def test_the_report_by_keyboard_alone(width: int, straight: Straight, browse: Callable[..., Any], tmp_path: Path) -> None:
    assert lgm("report", straight("vae"), "-o", tmp_path / "page.html").exit_code == 0
    driver = browse((tmp_path / "page.html").as_uri(), width)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width  # what is wide scrolls by itself
    slider = tab_to(driver, is_range)
    pictures = slider.find_elements("xpath", "..//figure")
    assert [picture.is_displayed() for picture in pictures] == [False] * (len(pictures) - 1) + [True]
    slider.send_keys(Keys.ARROW_LEFT)
    assert [picture.is_displayed() for picture in pictures] == [False] * (len(pictures) - 2) + [True, False]
    assert driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"  # one sees where one is


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_fits_a_telephone(width: int, open_page: Callable[..., Any]) -> None:
    driver = open_page("vae", width)
    until(lambda: shown(driver))
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    image = next(i for i in driver.find_elements("css selector", ".result img") if i.is_displayed())
    for button in driver.find_elements("css selector", ".result button.icon-button"):
        assert not button.is_displayed() or button.rect["y"] + button.rect["height"] <= image.rect["y"] + 4  # none stands on the picture
