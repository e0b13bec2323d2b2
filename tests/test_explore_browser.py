"""The explorer in a real JupyterLab, driven as a user does, in a real browser without a window."""

import io
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from urllib.request import Request, urlopen

import nbformat
import numpy as np
import pytest
from matplotlib.image import imread
from scored import scored_run

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
from selenium.common.exceptions import TimeoutException, WebDriverException  # noqa: E402
from selenium.webdriver import ActionChains, ChromeOptions, ChromeService  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

from jetatag import explore  # noqa: E402
from jetatag.explore.maps import CAMERA  # noqa: E402
from jetatag.runs import Run  # noqa: E402

ROOT = Path(__file__).parents[1]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)"
)
SWIFTSHADER = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # WebGL without a GPU
PATIENCE_S = 60
PICTURE = ".jp-OutputArea .jp-RenderedImage img"
READY = ".jp-Notebook-ExecutionIndicator[data-status='idle']"
CELL = """from jetatag import explore
from jetatag.runs import Run
from jetatag.store import AudioStore

store = AudioStore.open({store!r})
clips = explore.Clips.read(Run.open({run!r}), Run.open({plain!r}), store)
state = {{"layout": "pca", "weights": {{"low": 1.0}}}}
explorer = explore.Explorer(clips, state, keep="explorer.json")
explorer"""
MANY = """import numpy as np
from jetatag import explore

rng, tags = np.random.default_rng(0), tuple(f"tag {i}" for i in range(50))
n, spaces = 20_000, ["h without JE", "h with JE", "z"]
clips = explore.Clips(
    tags=tags, titles=np.array([f"clip {i}" for i in range(n)]),
    clip_ids=np.arange(n).astype(str), splits=np.full(n, "test"),
    labels=(rng.random((n, 50)) < 0.1).astype(np.uint8), probs=rng.random((n, 1, 50)),
    spaces={name: rng.normal(size=(n, 128)).astype(np.float32) for name in spaces},
    landmarks={name: rng.normal(size=(50, 128)).astype(np.float32) for name in spaces},
    z_centre=np.zeros(128, np.float32), starts_s=np.zeros((n, 1)), window_s=3.0)
explorer = explore.Explorer(clips, {"layout": "pca", "weights": {"tag 7": 1.0}})
explorer"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory, tiny_store, tiny_config):
    """A JupyterLab of its own, with a run and a notebook on it: (address, token, its folder)."""
    folder = tmp_path_factory.mktemp("lab")
    run = scored_run(folder, tiny_config, tiny_store, 0)
    plain = replace(tiny_config, method="no_je", pair_loss="none")
    plain = scored_run(folder, plain, tiny_store, 1)
    places = {"store": tiny_store.folder, "run": run.folder, "plain": plain.folder}
    cell = CELL.format(**{name: str(place) for name, place in places.items()})
    for name, source in {"walk": cell, "many": MANY}.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, folder / f"{name}.ipynb")
    silent = folder / "settings" / "@jupyterlab" / "apputils-extension"
    silent.mkdir(parents=True)
    (silent / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, address = secrets.token_hex(8), f"http://127.0.0.1:{port}"
    options = [f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"]
    options += [f"--IdentityProvider.token={token}"]
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", *options],
            stdout=log,
            stderr=log,
            env=os.environ | own_places(folder) | {"PYTHONPATH": str(ROOT)},
        )
        try:
            yield address, token, folder
        finally:
            server.terminate()
            server.wait(30)


def own_places(folder: Path) -> dict[str, str]:
    """Nothing of the user's is read or written."""
    names = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"]
    places = {name: str(folder / name.lower()) for name in names}
    return places | {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }


@pytest.fixture(scope="module")
def browser():
    options = ChromeOptions()
    options.binary_location = BROWSER
    window = ("--headless=new", "--window-size=1500,1400", "--no-sandbox", "--mute-audio")
    for argument in (*window, "--disable-dev-shm-usage", *SWIFTSHADER):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driven = webdriver.Chrome(options=options, service=ChromeService(DRIVER))
    yield driven
    driven.quit()


@pytest.fixture
def notebook(lab, browser):
    """Opens a notebook, and may run its cell until the maps are there."""
    address, token, _ = lab

    def opened(name: str, run: bool = True) -> None:
        until(browser, lambda _: answers(f"{address}/api/status?token={token}"))
        browser.get(f"{address}/lab/tree/{name}.ipynb?token={token}&reset")
        until(browser, lambda _: one(browser, READY))
        if run:
            until(browser, lambda _: alive(browser), every_s=6)

    return opened


def answers(url: str) -> bool:
    try:
        return urlopen(url).status == 200
    except OSError:
        return False


def press(browser, held: str, key: str) -> None:
    ActionChains(browser).key_down(held).send_keys(key).key_up(held).perform()


def until(browser, condition, every_s: float = 0.5):
    """What the condition gives once it holds; else what is seen is left in a picture."""
    try:
        return WebDriverWait(browser, PATIENCE_S, every_s, [WebDriverException]).until(condition)
    except TimeoutException:
        picture = Path(tempfile.gettempdir()) / "explorer_as_last_seen.png"
        browser.save_screenshot(str(picture))
        raise AssertionError(f"waited in vain; see {picture} for what is shown") from None


def one(browser, selector: str):
    return next(iter(browser.find_elements(By.CSS_SELECTOR, selector)), None)


def alive(browser) -> bool:
    """Whether the maps are there; else run the cell, for a kernel that only just starts may have
    missed it, unless it runs."""
    refuse_traceback(browser)
    if len(maps_of(browser)) == 3:
        return True
    if one(browser, READY) and one(browser, ".jp-InputPrompt").text != "[*]:":
        one(browser, ".jp-CodeCell .cm-content").click()
        press(browser, Keys.SHIFT, Keys.ENTER)
    return False


def refuse_traceback(browser) -> None:
    told = one(browser, ".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']")
    assert told is None, told.text


def maps_of(browser) -> list:
    """The canvas of each map, on which points are drawn and clicked."""
    found = browser.find_elements(By.CSS_SELECTOR, ".jp-OutputArea canvas")
    places = {(canvas.location["x"], canvas.location["y"]): canvas for canvas in found}
    return list(places.values())


def pixels(canvas) -> np.ndarray:
    return imread(io.BytesIO(canvas.screenshot_as_png))[..., :3]


def placed(layout: np.ndarray, canvas) -> np.ndarray:
    """Where a map draws the points of a layout, in pixels from its centre, (point, 2)."""
    low, high = layout.min(axis=0), layout.max(axis=0)
    unit = 2 * (layout - low) / (high - low) - 1
    return unit * [1, -1] * canvas.size["height"] / 2 / CAMERA


def lists(browser) -> list[list[str]]:
    """The lines of each list of clips."""
    found = browser.find_elements(By.CSS_SELECTOR, ".jp-OutputArea select[size]")
    return [[option.text for option in Select(each).options] for each in found]


def audio(browser) -> dict:
    script = """const heard = document.querySelector('.jp-OutputArea audio');
    return heard && {time: heard.currentTime, paused: heard.paused, length: heard.duration};"""
    return browser.execute_script(script) or {"time": 0.0, "paused": True, "length": 0.0}


def errors(browser) -> list[str]:
    """What the console tells, but for widgets whose kernel is gone."""
    told = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    return [entry["message"] for entry in told if "model not found" not in entry["message"]]


def test_a_walk_through_the_maps(lab, browser, notebook, tiny_store):
    """Draws, plays at a click, compares what a lasso catches, ranks as a slider says, and shows
    the same again after the notebook was saved and its kernel is gone."""
    address, token, folder = lab
    notebook("walk")
    canvas = maps_of(browser)[0]
    run, plain = (Run.open(folder / name) for name in run_names(folder))
    clips = explore.Clips.read(run, plain, tiny_store)
    points = placed(clips.layout("h without JE", "pca"), canvas)[: len(clips)]
    until(browser, lambda _: drawn(canvas, points).mean() > 0.9)
    assert audio(browser)["paused"]
    lonely = int(np.argmax(np.linalg.norm(points, axis=1)))
    pointer = ActionChains(browser).move_to_element_with_offset(canvas, *map(int, points[lonely]))
    pointer.pause(0.5).click().perform()
    until(browser, lambda _: audio(browser)["time"] > 0.1 and not audio(browser)["paused"])
    kept = kept_state(folder)
    assert kept["clip"] == clips.clip_ids[lonely] and kept["selection"] == [kept["clip"]]
    by_click = one(browser, ".jp-OutputArea .widget-image")
    until(browser, lambda _: int(by_click.get_property("naturalWidth")) > 300)  # the taggram

    lasso_all(browser, canvas)
    until(browser, lambda _: f"{len(clips)} of {len(clips)} clips selected" in browser.page_source)
    assert len(kept_state(folder)["selection"]) == len(clips)
    before = lists(browser)[:2]
    handle = one(browser, ".jp-OutputArea .noUi-handle")
    ActionChains(browser).drag_and_drop_by_offset(handle, -400, 0).perform()
    until(browser, lambda _: lists(browser)[:2] != before)
    assert kept_state(folder)["weights"] == {"low": -1.0}
    assert [lines[1:] for lines in lists(browser)[:2]] == expected_lists(clips, {"low": -1.0})

    assert not errors(browser)

    left, shown = kept_state(folder), lists(browser)[:2]
    press(browser, Keys.CONTROL, "s")
    until(browser, lambda _: "image/png" in (folder / "walk.ipynb").read_text())
    for session in json.load(urlopen(f"{address}/api/sessions?token={token}")):
        urlopen(Request(f"{address}/api/sessions/{session['id']}?token={token}", method="DELETE"))
    notebook("walk", run=False)
    picture = one(browser, PICTURE)
    until(browser, lambda _: picture.is_displayed() and picture.size["width"] > 500)
    notebook("walk")
    until(browser, lambda _: lists(browser)[:2] == shown)
    assert kept_state(folder) == left
    assert one(browser, ".jp-OutputArea .widget-readout").text == "−1.0"
    assert not one(browser, PICTURE).is_displayed()
    assert not errors(browser)


def test_twenty_thousand_points_are_drawn_and_ranked(browser, notebook):
    notebook("many")
    canvas = maps_of(browser)[0]
    until(browser, lambda _: (pixels(canvas).min(axis=2) < 0.95).mean() > 0.05)
    before = lists(browser)
    handle = one(browser, ".jp-OutputArea .noUi-handle")
    ActionChains(browser).drag_and_drop_by_offset(handle, -400, 0).perform()
    until(browser, lambda _: len(lists(browser)) and lists(browser) != before)
    assert not errors(browser)


def run_names(folder: Path) -> list[str]:
    """The run with joint embedding and the one without."""
    return sorted(path.parent.name for path in folder.glob("*/embeddings.npz"))


def drawn(canvas, points: np.ndarray) -> np.ndarray:
    """Whether there is anything but background where each point should be, (point,) bool."""
    ink = pixels(canvas).min(axis=2) < 0.95
    centre = np.array(ink.shape[::-1]) / 2
    places = np.rint(points + centre).astype(int)[:, ::-1]
    around = [ink[row - 2 : row + 3, column - 2 : column + 3] for row, column in places]
    return np.array([cells.any() for cells in around])


def lasso_all(browser, canvas) -> None:
    one(browser, ".jp-OutputArea button[title='Activate lasso selection']").click()
    side = min(canvas.size.values()) // 2 - 4
    corners = [(-side, -side), (side, -side), (side, side), (-side, side), (-side, -side)]
    actions = ActionChains(browser).move_to_element_with_offset(canvas, *corners[0])
    actions.click_and_hold().pause(0.3)  # or else it begins somewhere on the way
    for corner in corners[1:]:
        actions.move_to_element_with_offset(canvas, *corner).pause(0.3)
    actions.release().perform()


def kept_state(folder: Path) -> dict:
    return json.loads((folder / "explorer.json").read_text())


def expected_lists(clips: explore.Clips, weights: dict[str, float]) -> list[list[str]]:
    best = explore.Explorer(clips, {"weights": weights}).best(len(clips))
    told = [[f"{clips.titles[clip]} · {clips.true_tags(clip)}" for clip in order] for order in best]
    return [[f"{place}. {line}" for place, line in enumerate(lines, 1)] for lines in told]
