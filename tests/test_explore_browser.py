"""The explorer in a real JupyterLab, touched as a user touches it, in a real browser.

The tests walk on from one another in one notebook; each can be run alone.
"""

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread
from scored import scored_run

pytest.importorskip("selenium", reason="selenium drives the browser")
from lab import BROWSER, DRIVER, NoBrowser, started
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.support.ui import Select

from jetatag import explore
from jetatag.explore.maps import CAMERA
from jetatag.files import read_json

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)"
)
OUTPUT = ".jp-OutputArea "
PICTURE = OUTPUT + ".jp-RenderedImage img"
WALK = """from jetatag import explore
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
def lab(tmp_path_factory):
    try:
        with started(tmp_path_factory.mktemp("lab")) as lab:
            yield lab
    except NoBrowser as error:
        pytest.skip(f"the browser does not start: {error}")


@pytest.fixture(scope="module")
def explored(lab, tiny_store, tiny_config):
    """The clips of a run with joint embedding and one without, in a notebook that was run."""
    run = scored_run(lab.folder, tiny_config, tiny_store, 0)
    plain = replace(tiny_config, method="no_je", pair_loss="none")
    plain = scored_run(lab.folder, plain, tiny_store, 1)
    places = {"store": tiny_store.folder, "run": run.folder, "plain": plain.folder}
    lab.write("walk", WALK.format(**{name: str(place) for name, place in places.items()}))
    opened_and_run(lab, "walk")
    assert not lab.errors()
    return explore.Clips.read(run, plain, tiny_store)


@pytest.fixture
def walk(lab, explored):
    """What a test does, the browser's console does not complain of."""
    lab.errors()
    yield lab
    assert not lab.errors()


def test_every_clip_is_drawn_where_the_layout_puts_it(walk, explored):
    assert_drawn(walk, explored, "pca")
    layouts = Select(walk.shown(OUTPUT + "select:not([size])"))
    layouts.select_by_visible_text("t-SNE")  # UMAP compiles for as long as a test may take
    walk.until(lambda: kept(walk)["layout"] == "tsne")
    assert_drawn(walk, explored, "tsne")


def test_a_click_plays_and_shows_the_clip(walk, explored):
    points, lonely = lonely_points(walk, explored)
    point_at(walk, points[lonely[0]]).click().perform()
    walk.until(lambda: plays(walk))
    clip = explored.clip_ids[lonely[0]]
    walk.until(lambda: (kept(walk)["clip"], kept(walk)["selection"]) == (clip, [clip]))
    walk.until(lambda: told_of(walk) == explored.titles[lonely[0]])
    taggram = walk.shown(OUTPUT + ".widget-image")
    walk.until(lambda: int(taggram.get_property("naturalWidth")) > 300)


def test_hovering_tells_of_a_clip_and_plays_it_where_wanted(walk, explored):
    points, lonely = lonely_points(walk, explored)
    walk.shown(OUTPUT + "input[type=checkbox]").click()
    walk.until(lambda: kept(walk)["play_on_hover"])
    point_at(walk, points[lonely[1]]).perform()
    walk.until(lambda: told_of(walk) == explored.titles[lonely[1]] and plays(walk))
    assert explored.true_tags(lonely[1]) in walk.shown(OUTPUT).text
    walk.shown(OUTPUT + "input[type=checkbox]").click()


def test_a_slider_ranks_by_what_it_says(walk, explored):
    slide(walk, -1.0)
    walk.until(lambda: rankings(walk) == expected(explored, {"weights": {"low": -1.0}}))
    assert kept(walk)["weights"] == {"low": -1.0}
    slide(walk, 1.0)
    walk.until(lambda: rankings(walk) == expected(explored, {"weights": {"low": 1.0}}))


def test_more_like_this_ranks_by_the_clip(walk, explored):
    choice = Select(walk.every(OUTPUT + "select[size]")[0])
    choice.select_by_index(3)  # the third best
    walk.until(lambda: plays(walk))
    walk.shown(OUTPUT + "button:has(.fa-search)").click()
    walk.until(lambda: kept(walk)["like"])
    walk.until(lambda: rankings(walk) == expected(explored, {"like": kept(walk)["like"]}))


def test_a_lasso_lists_what_it_catches_and_compares_its_tags(walk, explored):
    lasso_all(walk)
    n = len(explored)
    walk.until(lambda: f"{n} of {n} clips selected" in walk.shown(OUTPUT).text)
    assert set(kept(walk)["selection"]) == set(explored.clip_ids)
    compared = walk.shown(OUTPUT + "table").text
    assert all(f"{tag} {carried}" in compared for tag, carried in carriers(explored).items())


def test_what_is_set_outlives_the_page_and_the_kernel(lab, explored):
    slide(lab, -1.0)
    lab.until(lambda: kept(lab)["weights"] == {"low": -1.0})
    left, shown = kept(lab), rankings(lab)
    lab.command("save")
    lab.open("walk")  # its kernel lives, and so do the widgets
    lab.until(lambda: len(maps_of(lab)) == 3 and rankings(lab) == shown)
    lab.command("end")
    lab.open("walk")
    lab.until(lambda: lab.shown(PICTURE).size["width"] > 500)
    lab.errors()  # that the saved widgets have no kernel
    opened_and_run(lab, "walk")
    lab.until(lambda: rankings(lab) == shown and not lab.one(PICTURE).is_displayed())
    assert kept(lab) == left and lab.shown(OUTPUT + ".widget-readout").text == "−1.0"


def test_twenty_thousand_clips_are_drawn_and_ranked(lab):
    lab.write("walk", MANY)  # for the kernel that has all imported
    opened_and_run(lab, "walk")
    canvas = maps_of(lab)[0]
    lab.until(lambda: (pixels(canvas).min(axis=2) < 0.95).mean() > 0.05)
    seen, ranked = pixels(canvas), rankings(lab)
    pan_and_zoom(lab, canvas)
    lab.until(lambda: (pixels(canvas) != seen).any())
    slide(lab, -1.0)
    lab.until(lambda: rankings(lab) != ranked)
    assert not lab.errors()


def opened_and_run(lab, name: str) -> None:
    lab.open(name)
    lab.command("run")
    lab.until(lambda: len(maps_of(lab)) == 3)


def kept(lab) -> dict:
    return read_json(lab.folder / "explorer.json")


def maps_of(lab) -> list:
    """The canvas of each map, on which points are drawn and clicked."""
    places = {
        (canvas.location["x"], canvas.location["y"]): canvas for canvas in lab.every("canvas")
    }
    return [canvas for canvas in places.values() if canvas.size["height"] > 100]


def assert_drawn(lab, clips: explore.Clips, layout: str) -> None:
    for canvas, space in zip(maps_of(lab), clips.spaces, strict=True):
        points = placed(clips.layout(space, layout), canvas)[: len(clips)]
        lab.until(lambda: drawn(canvas, points).all())  # noqa: B023


def pixels(canvas) -> np.ndarray:
    return imread(io.BytesIO(canvas.screenshot_as_png))[..., :3]


def placed(layout: np.ndarray, canvas) -> np.ndarray:
    """Where a map draws the points of a layout, in pixels from its centre, (point, 2)."""
    low, high = layout.min(axis=0), layout.max(axis=0)
    unit = 2 * (layout - low) / (high - low) - 1
    return unit * [1, -1] * canvas.size["height"] / 2 / CAMERA


def drawn(canvas, points: np.ndarray) -> np.ndarray:
    """Whether there is anything but background where each point should be, (point,) bool."""
    ink = pixels(canvas).min(axis=2) < 0.95
    centre = np.array(ink.shape[::-1]) / 2
    places = np.rint(points + centre).astype(int)[:, ::-1]
    around = [ink[row - 2 : row + 3, column - 2 : column + 3] for row, column in places]
    return np.array([cells.any() for cells in around])


def lonely_points(lab, clips: explore.Clips) -> tuple[np.ndarray, np.ndarray]:
    """Where the first map draws the clips, (clip, 2), and the clips, the farthest from all other
    points first."""
    points = placed(clips.layout(next(iter(clips.spaces)), kept(lab)["layout"]), maps_of(lab)[0])
    apart = np.linalg.norm(points[:, None] - points, axis=2) + 1e6 * np.eye(len(points))
    return points, np.argsort(-apart.min(axis=1)[: len(clips)])


def point_at(lab, place: np.ndarray):
    """The hand over a point of the first map; from aside, for a map wants to see it come."""
    canvas, (x, y) = maps_of(lab)[0], map(int, place)
    hand = lab.hand().move_to_element_with_offset(canvas, x + 8, y + 8)
    return hand.move_to_element_with_offset(canvas, x, y).pause(0.5)


def told_of(lab) -> str:
    """The title of the clip in the player."""
    return lab.shown(OUTPUT + ".widget-html b:has(~ br)").text


def plays(lab) -> bool:
    heard = (
        "const a = document.querySelector('audio'); return !!a && !a.paused && a.currentTime > 0"
    )
    return lab.browser.execute_script(heard)


def slide(lab, weight: float) -> None:
    """Drag the first slider to one of its ends."""
    handle = lab.shown(OUTPUT + ".noUi-handle")
    lab.hand().drag_and_drop_by_offset(handle, int(400 * weight), 0).perform()


def rankings(lab) -> list[list[str]]:
    """The lines of the clips that rank best, in the shared space and by the classifier."""
    every = lab.every(OUTPUT + "select[size]")[:2]
    return [[option.text for option in Select(each).options[1:]] for each in every]


def expected(clips: explore.Clips, state: dict) -> list[list[str]]:
    best = explore.Explorer(clips, state).best(len(clips))
    told = [[f"{clips.titles[clip]} · {clips.true_tags(clip)}" for clip in order] for order in best]
    return [[f"{place}. {line}" for place, line in enumerate(lines, 1)] for lines in told]


def lasso_all(lab) -> None:
    """Draw around all of the first map."""
    lab.shown(OUTPUT + "button[title='Activate lasso selection']").click()
    canvas = maps_of(lab)[0]
    side = min(canvas.size.values()) // 2 - 4
    corners = [(-side, -side), (side, -side), (side, side), (-side, side), (-side, -side)]
    hand = lab.hand().move_to_element_with_offset(canvas, *corners[0])
    hand.click_and_hold().pause(0.3)  # or else it begins somewhere on the way
    for corner in corners[1:]:
        hand.move_to_element_with_offset(canvas, *corner).pause(0.3)
    hand.release().perform()


def pan_and_zoom(lab, canvas, n_steps: int = 4) -> None:
    """There and back, then nearer."""
    hand = lab.hand().move_to_element(canvas).click_and_hold()
    for step in [(4, 2)] * n_steps + [(-4, -1)] * n_steps:
        hand.move_by_offset(*step)
    hand.release()
    for _ in range(n_steps):
        hand.scroll_from_origin(ScrollOrigin.from_element(canvas), 0, -60).pause(0.1)
    hand.perform()


def carriers(clips: explore.Clips) -> dict[str, int]:
    return dict(zip(clips.tags, clips.labels.sum(axis=0).tolist(), strict=True))
