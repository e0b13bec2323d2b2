"""JupyterLab in a headless browser, driven through JupyterLab's own commands.

How long anything takes says nothing: on a busy machine, a start can take minutes, another process
can take a port that was free a moment ago, JupyterLab can report errors of its own slow start, and
widgets can be too late for anywidget (`SLOW_START`). So a state is waited for everywhere, the port
is the one that JupyterLab reports, and errors count from the moment when a notebook is ready.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from selenium import webdriver
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver import ActionChains, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).parents[1]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
TIMEOUT_S = 600  # ends what hangs; whatever is only slow, on a busy machine, is waited for
SLOW_START = "Failed to initialize model"
"""Of what anywidget 0.11 says if the code of a widget needs over 2 s to load (its `Runtime`). The
widget is drawn all the same, but drops every later message of the kernel: run the cell again."""
WINDOW = ("--headless=new", "--window-size=1500,1400", "--no-sandbox", "--mute-audio")
SWIFTSHADER = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # WebGL without a GPU
AUDIBLE = "--autoplay-policy=no-user-gesture-required"  # a script's run is no gesture
OPEN = """await window.jupyterapp.restored;
const page = await run('docmanager:open', {path});
await page.context.ready; await page.sessionContext.ready;
await page.sessionContext.session.kernel.info;"""
COMMANDS = {
    "open": OPEN,
    "run": "await run('notebook:run-all-cells');",
    "save": "await run('docmanager:save');",
    "end": "await run('kernelmenu:shutdown');",
}

FETCH = """const [address, done] = arguments, reader = new FileReader();
reader.onload = () => done(reader.result);
fetch(address).then((response) => response.blob()).then((blob) => reader.readAsDataURL(blob));"""
RECORD = """window.frames_ms = []; window.recording = true; let last = performance.now();
const frame = (now) => {
  window.frames_ms.push(now - last); last = now;
  if (window.recording) requestAnimationFrame(frame);
};
requestAnimationFrame(frame);"""


class BrowserError(RuntimeError):
    """The browser is installed but does not start, for example without libraries it needs."""


@dataclass
class Lab:
    """A browser with a JupyterLab of the notebooks in `folder`."""

    browser: webdriver.Chrome
    address: str
    folder: Path
    is_deaf: bool = False  # whether a widget began with `SLOW_START`, by the last call of `errors`

    def write(self, name: str, source: str) -> None:
        """Write a notebook of one cell."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, self.folder / f"{name}.ipynb")

    def open(self, name: str) -> None:
        """Reload the page with one notebook, and wait for its kernel."""
        self.browser.get(f"{self.address}&reset")
        self.until(lambda: self.browser.execute_script("return !!window.jupyterapp"))
        self.command("open", f"{name}.ipynb")
        self.errors()  # discard those of the page before, and of JupyterLab's own slow start

    def command(self, name: str, path: str = "") -> None:
        """Run one of `COMMANDS` and wait until it is done."""
        script = f"""const [path] = arguments, end = (failure) => window.ended = {{failure}};
        const run = (...what) => window.jupyterapp.commands.execute(...what);
        window.ended = null;
        (async () => {{ {COMMANDS[name]} }})().then(() => end(null), e => end(String(e)));"""
        self.browser.execute_script(script, path)
        failure = self.until(lambda: self.browser.execute_script("return window.ended"))["failure"]
        traceback = self.one(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']")
        assert not failure and not traceback, failure or traceback.text

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until the condition is true and return its value; saves a screenshot on timeout."""
        try:
            wait = WebDriverWait(self.browser, TIMEOUT_S, 0.1, [WebDriverException])
            return wait.until(lambda _: condition())
        except TimeoutException:
            picture = Path(tempfile.gettempdir()) / "jetatag_lab.png"
            self.browser.save_screenshot(str(picture))
            raise AssertionError(f"timed out; see {picture} for what was shown") from None

    def every(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement | None:
        return next(iter(self.every(selector)), None)

    def shown(self, selector: str) -> WebElement:
        """The first such element that is displayed; waits for it."""
        return self.until(lambda: next((e for e in self.every(selector) if e.is_displayed()), None))

    def fetched(self, element: WebElement) -> bytes:
        """The content of an element's `src`, which only its page can read."""
        url = self.browser.execute_async_script(FETCH, element.get_property("src"))
        return base64.b64decode(url.partition(",")[2])

    def mouse(self) -> ActionChains:
        return ActionChains(self.browser, duration=100)

    def frames_ms(self, move: Callable[[], None]) -> list[float]:
        """Milliseconds of each frame that the page draws during `move`."""
        self.browser.execute_script(RECORD)
        move()
        return self.browser.execute_script("window.recording = false; return window.frames_ms")

    def errors(self) -> list[str]:
        """Errors in the console since the last call, except that a widget started slowly."""
        entries = self.browser.get_log("browser")
        messages = [entry["message"] for entry in entries if entry["level"] == "SEVERE"]
        self.is_deaf = any(SLOW_START in message for message in messages)
        return [message for message in messages if SLOW_START not in message]


@contextmanager
def started(folder: Path) -> Iterator[Lab]:
    """A JupyterLab on `folder`, which also holds its settings, within the context."""
    with server(folder) as address, driven() as browser:
        yield Lab(browser, address, folder)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address, token included, of a JupyterLab on `folder`."""
    options = [f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"]
    places = jupyter_folders(folder)
    with (folder / "lab.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", *options],
            stdout=log,
            stderr=log,
            env=os.environ | places | {"PYTHONPATH": str(ROOT)},
        )
    try:
        facts = Path(places["JUPYTER_RUNTIME_DIR"], f"jpserver-{process.pid}.json")
        wait_for(facts, process, folder / "lab.log")
        told = json.loads(facts.read_text())  # the port, too: a free one may be taken meanwhile
        yield f"http://127.0.0.1:{told['port']}/lab?token={told['token']}"
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)


def jupyter_folders(folder: Path) -> dict[str, str]:
    """Environment variables so that no settings of the user are used and no news are fetched."""
    silent = folder / "settings" / "@jupyterlab" / "apputils-extension"
    silent.mkdir(parents=True)
    (silent / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    names = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"]
    names += ["JUPYTERLAB_WORKSPACES_DIR"]
    places = {name: str(folder / name.lower()) for name in names}
    return places | {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}


def wait_for(facts: Path, process: subprocess.Popen, log: Path) -> None:
    """Wait until JupyterLab has written what it says once it listens."""
    ends = time.monotonic() + TIMEOUT_S
    while not facts.is_file() or not facts.read_text().endswith("}"):
        if time.monotonic() > ends or process.poll() is not None:
            raise AssertionError(f"JupyterLab does not start: {log.read_text()[-2000:]}")
        time.sleep(0.3)


@contextmanager
def driven() -> Iterator[webdriver.Chrome]:
    """A browser that renders without a GPU."""
    options = ChromeOptions()
    options.binary_location = BROWSER
    for argument in (*WINDOW, "--disable-dev-shm-usage", *SWIFTSHADER, AUDIBLE):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        browser = webdriver.Chrome(options=options, service=ChromeService(DRIVER))
    except WebDriverException as error:
        raise BrowserError(error.msg) from None
    browser.set_script_timeout(TIMEOUT_S)
    try:
        yield browser
    finally:
        browser.quit()
