"""The explorer in JupyterLab, used like a user in a real browser.

The tests share one notebook, but each can be run alone.
"""

import io
import itertools

import numpy as np
import pytest
from IPython.core.pylabtools import print_figure
from matplotlib.image import imread
from scored import scored_run

pytest.importorskip("selenium", reason="selenium drives the browser")
from lab import BROWSER, DRIVER, BrowserError, started
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.support.ui import Select

from jetatag.apps import explorer as explore
from jetatag.apps.explorer.maps import CAMERA
from jetatag.files import read_json

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)"
)
OUTPUT = ".jp-OutputArea "
LAYOUTS = {"t-SNE": "tsne", "UMAP": "umap", "first principal axes": "pca"}
TOOLTIP = "[style*='pointer-events: none'][style*='border-radius']"
IS_SEEN = """const [element] = arguments, own = element.getBoundingClientRect();
const [left, right, top, bottom] = [own.left + 4, own.right - 4, own.top + 4, own.bottom - 4];
element.style.pointerEvents = "auto";  // or else no point is its
const corners = [[left, top], [right, top], [left, bottom], [right, bottom]];
const seen = corners.map(([x, y]) => element.contains(document.elementFromPoint(x, y)));
element.style.pointerEvents = "none";
return seen.every(Boolean);"""
PICTURE = OUTPUT + ".jp-RenderedImage img"
NOTEBOOK = """from jetatag.apps import explorer as explore
from jetatag.training.run import Run
from jetatag.data.store import AudioStore

store = AudioStore.open({store!r})
clips = explore.Clips.read(Run.open({run!r}), Run.open({plain!r}), store)
state = {{"layout": "pca", "weights": {{"low": 1.0}}}}
explorer = explore.Explorer(clips, state, keep="explorer.json")
explorer"""
MANY = """import numpy as np
from jetatag.apps import explorer as explore

rng, tags = np.random.default_rng(0), tuple(f"tag {i}" for i in range(50))
n, spaces = 20_000, ["h without JE", "h with JE", "z"]
clips = explore.Clips(
    tags=tags, titles=np.array([f"clip {i}" for i in range(n)]),
    clip_ids=np.arange(n).astype(str), splits=np.full(n, "test"),
    labels=(rng.random((n, 50)) < 0.1).astype(np.uint8), probs=rng.random((n, 1, 50)),
    spaces={name: rng.normal(size=(n, 128)).astype(np.float32) for name in spaces},
    landmarks={name: rng.normal(size=(50, 128)).astype(np.float32) for name in spaces},
    z_centre=np.zeros(128, np.float32), z_scale=np.array([4.0, -2.0]),
    starts_s=np.zeros((n, 1)), window_s=3.0)
explorer = explore.Explorer(clips, {"layout": "pca", "weights": {"tag 7": 1.0}})
explorer"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    try:
        with started(tmp_path_factory.mktemp("lab")) as lab:
            yield lab
    except BrowserError as error:
        pytest.skip(f"the browser does not start: {error}")


@pytest.fixture(scope="module")
def explored(lab, tiny_store, tiny_config):
    """Clips of a run with joint embedding and one without, shown in a notebook."""
    run = scored_run(lab.folder, tiny_config, tiny_store, 0)
    plain = tiny_config.replace(method="no_je", pair_loss="none")
    plain = scored_run(lab.folder, plain, tiny_store, 1)
    places = {"store": tiny_store.folder, "run": run.folder, "plain": plain.folder}
    lab.write("page", NOTEBOOK.format(**{name: str(place) for name, place in places.items()}))
    lab.until(lambda: opened_and_heard(lab, "page") or lab.command("end"))
    return explore.Clips.read(run, plain, tiny_store)


@pytest.fixture
def page(lab, explored):
    """The notebook; the browser's console must stay free of errors during a test."""
    lab.errors()
    yield lab
    assert not lab.errors()


def test_every_clip_and_tag_is_drawn_at_its_place_in_the_layout(page, explored):
    for name, layout in LAYOUTS.items():
        choose(page, "layout", name)
        page.until(lambda: kept(page)["layout"] == layout)  # noqa: B023
        for number, space in enumerate(explored.spaces):
            points = placed(explored.layout(space, layout), maps_of(page)[number])
            page.until(lambda: drawn(page, number, points).all())  # noqa: B023
            page.until(lambda: labelled(page, number, points[len(explored) :]).all())  # noqa: B023


def test_colours_follow_the_settings(page, explored):
    tag = explored.tags[1]
    carried, probs = explored.labels[:, 1], explored.mean_probs[:, 1]
    choose(page, "colour by", "score of a tag")
    choose(page, "of the tag", tag)  # while the first is being drawn
    assert_coloured(page, explored, probs)
    choose(page, "colour by", "fit to the query")
    slide(page, -1.0)
    assert_coloured(page, explored, explored.scores({"low": -1.0}, "space"))
    slide(page, 1.0)
    assert_coloured(page, explored, explored.scores({"low": 1.0}, "space"))
    choose(page, "colour by", "true tag")
    assert_coloured(page, explored, carried)
    choose(page, "colour by", "split")
    page.until(lambda: "split tag test" in page.shown(OUTPUT).text)
    page.until(lambda: np.ptp(darkness(page, explored, 0)) < 0.1)


def test_hovering_shows_a_tooltip_and_plays_the_clip_if_wanted(page, explored):
    clip = lonely_clips(page, explored)[1]
    silence(page)
    page.shown(OUTPUT + "input[type=checkbox]").click()
    page.until(lambda: kept(page)["play_on_hover"])
    point_at(page, explored, clip)
    page.until(lambda: shown_title(page) == explored.titles[clip] and plays(page))
    tooltip = page.shown(TOOLTIP)
    texts = explored.table.iloc[clip, 1:]
    page.until(lambda: all(text in tooltip.text for text in texts))
    page.shown(OUTPUT + "input[type=checkbox]").click()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_tooltips_are_completely_visible(page, explored, number):
    """Of the clips nearest to the four edges of a map."""
    size, places = maps_of(page)[number].size, where(page, explored, number)[: len(explored)]
    for clip in {end(places[:, axis]) for end in (np.argmin, np.argmax) for axis in (0, 1)}:
        point_at(page, explored, clip, number)
        page.until(lambda: page.browser.execute_script(IS_SEEN, page.shown(TOOLTIP)))
    assert maps_of(page)[number].size == size  # no scroll bar appeared


def test_a_click_plays_and_shows_the_clip(page, explored):
    clip = lonely_clips(page, explored)[0]
    silence(page)
    click(page, explored, clip)
    page.until(lambda: plays(page))
    clip_id = explored.clip_ids[clip]
    page.until(lambda: (kept(page)["clip"], kept(page)["selection"]) == (clip_id, [clip_id]))
    page.until(lambda: shown_title(page) == explored.titles[clip])
    assert page.fetched(page.one("audio")) == explored.flac(clip)
    picture = print_figure(explored.figure(clip), dpi=100, bbox_inches=None)
    page.until(lambda: page.fetched(page.shown(OUTPUT + ".widget-image")) == picture)
    for number in range(3):  # again
        silence(page)
        click(page, explored, clip, number)
        page.until(lambda: plays(page))


@pytest.mark.parametrize("number", [1, 2])
def test_the_maps_are_linked(page, explored, number):
    clip = lonely_clips(page, explored, number)[number]
    before = [around(page, explored, other, clip) for other in range(3)]
    click(page, explored, clip, number)
    page.until(lambda: kept(page)["selection"] == [explored.clip_ids[clip]])
    for other in range(3):
        page.until(lambda: (around(page, explored, other, clip) != before[other]).any())  # noqa: B023


def test_a_slider_changes_the_ranking(page, explored):
    slide(page, -1.0)
    page.until(lambda: rankings(page) == expected(explored, {"weights": {"low": -1.0}}))
    assert kept(page)["weights"] == {"low": -1.0}
    slide(page, 1.0)
    page.until(lambda: rankings(page) == expected(explored, {"weights": {"low": 1.0}}))


def test_more_like_this_ranks_by_similarity_to_the_clip(page, explored):
    silence(page)
    choice = Select(page.every(OUTPUT + "select[size]")[0])
    choice.select_by_index(3)  # the third best
    page.until(lambda: plays(page))
    page.shown(OUTPUT + "button:has(.fa-search)").click()
    page.until(lambda: kept(page)["like"])
    page.until(lambda: rankings(page) == expected(explored, {"like": kept(page)["like"]}))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_lasso_lists_the_clips_and_compares_their_tags(page, explored, number):
    clip, n = lonely_clips(page, explored)[0], len(explored)
    click(page, explored, clip)
    page.until(lambda: kept(page)["selection"] == [explored.clip_ids[clip]])
    page.shown(OUTPUT)
    lassos = page.every(OUTPUT + "button[title='Activate lasso selection']")
    lassos[number].click()

    def all_are_selected() -> bool:  # on a busy machine, a map may miss a corner
        lasso_all(page, number)
        return f"{n} of {n} clips selected" in page.shown(OUTPUT).text

    page.until(all_are_selected)
    assert set(kept(page)["selection"]) == set(explored.clip_ids)
    compared = page.shown(OUTPUT + "table").text
    assert all(f"{tag} {carried}" in compared for tag, carried in carriers(explored).items())


def test_settings_survive_a_reload_and_a_new_kernel(lab, explored):
    slide(lab, -1.0)
    lab.until(lambda: kept(lab)["weights"] == {"low": -1.0})
    left, shown = kept(lab), rankings(lab)
    lab.command("save")
    lab.open("page")  # its kernel lives, and so do the widgets
    lab.until(lambda: len(maps_of(lab)) == 3 and rankings(lab) == shown)
    lab.command("end")
    lab.open("page")
    lab.until(lambda: lab.shown(PICTURE).size["width"] > 500)
    lab.command("run")  # the console complains that the saved widgets have no kernel
    lab.until(lambda: rankings(lab) == shown and not lab.one(PICTURE).is_displayed())
    assert kept(lab) == left and lab.shown(OUTPUT + ".widget-readout").text == "−1.0"


def test_twenty_thousand_clips_are_drawn_and_ranked(lab):
    lab.write("page", MANY)  # the kernel has imported everything already
    opened_and_run(lab, "page")
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


def opened_and_heard(lab, name: str) -> bool:
    """Whether the widgets of a notebook that was opened and run hear their kernel: on a busy
    machine, they may begin too slowly for that (`SLOW_START`). Open it anew in this case."""
    opened_and_run(lab, name)
    lab.until(lambda: lab.one("audio"))  # all widgets are drawn
    assert not lab.errors()
    return not lab.is_deaf


def kept(lab) -> dict:
    return read_json(lab.folder / "explorer.json")


def maps_of(lab) -> list:
    """The canvas of each map, on which points are drawn and clicked."""
    places = {
        (canvas.location["x"], canvas.location["y"]): canvas for canvas in lab.every("canvas")
    }
    return [canvas for canvas in places.values() if canvas.size["height"] > 100]


def choose(lab, what: str, option: str) -> None:
    """Choose an option of the dropdown called `what`."""
    lists = {each.text.split("\n")[0]: each for each in lab.every(OUTPUT + ".widget-dropdown")}
    Select(lists[what].find_element("css selector", "select")).select_by_visible_text(option)


def pixels(canvas) -> np.ndarray:
    return imread(io.BytesIO(canvas.screenshot_as_png))[..., :3]


def placed(layout: np.ndarray, canvas) -> np.ndarray:
    """Where a map draws the points of a layout, in pixels from its centre, (point, 2)."""
    low, high = layout.min(axis=0), layout.max(axis=0)
    unit = 2 * (layout - low) / (high - low) - 1
    return unit * [1, -1] * canvas.size["height"] / 2 / CAMERA


def cut(lab, number: int, points: np.ndarray, above: int = 2, beside: int = 2) -> np.ndarray:
    """Brightness of a map from 0 to 1 about each of the points, (point, row, column)."""
    seen = pixels(maps_of(lab)[number]).mean(axis=2)
    centre = np.array(seen.shape[::-1]) / 2
    places = np.rint(points + centre).astype(int)[:, ::-1] + max(above, beside)
    seen = np.pad(seen, max(above, beside), constant_values=1)
    rows, columns = np.mgrid[-above : min(above, 2) + 1, -beside : beside + 1]
    return seen[places[:, 0, None, None] + rows, places[:, 1, None, None] + columns]


def drawn(lab, number: int, points: np.ndarray) -> np.ndarray:
    """Whether something is drawn at each point, (point,) bool."""
    return (cut(lab, number, points) < 0.95).any(axis=(1, 2))


def labelled(lab, number: int, points: np.ndarray) -> np.ndarray:
    """Whether there is text right above each of the points, (point,) bool."""
    above = cut(lab, number, points, above=20, beside=12)[:, :15]  # of the point itself, nothing
    return (above < 0.6).any(axis=(1, 2))


def where(lab, clips: explore.Clips, number: int) -> np.ndarray:
    """Where one of the maps draws every clip and tag."""
    layout = clips.layout(list(clips.spaces)[number], kept(lab)["layout"])
    return placed(layout, maps_of(lab)[number])


def around(lab, clips: explore.Clips, number: int, clip: int) -> np.ndarray:
    """The pixels around a clip."""
    return cut(lab, number, where(lab, clips, number)[[clip]], above=8, beside=8)


def lonely_clips(lab, clips: explore.Clips, number: int = 0) -> np.ndarray:
    """The clips, on one of the maps, the farthest from all other points first."""
    points = where(lab, clips, number)
    apart = np.linalg.norm(points[:, None] - points, axis=2) + 1e6 * np.eye(len(points))
    return np.argsort(-apart.min(axis=1)[: len(clips)])


def darkness(lab, clips: explore.Clips, number: int) -> np.ndarray:
    """How dark one of the maps draws each clip, (clip,)."""
    points = where(lab, clips, number)[: len(clips)]
    return 1 - cut(lab, number, points, above=0, beside=0)[:, 0, 0]


def assert_coloured(lab, clips: explore.Clips, values: np.ndarray) -> None:
    """The larger its value, the darker is a clip, in every map."""
    for number in range(3):
        lab.until(lambda: np.corrcoef(darkness(lab, clips, number), values)[0, 1] > 0.9)  # noqa: B023


def point_at(lab, clips: explore.Clips, clip: int, number: int = 0) -> None:
    """Move the mouse to a clip of a map, and a little on it until the map has seen it there."""
    x, y = map(int, where(lab, clips, number)[clip])
    offsets = itertools.chain([8], itertools.cycle([0, 1]))

    def is_seen() -> bool:
        canvas = maps_of(lab)[number]
        lab.mouse().move_to_element_with_offset(canvas, x + next(offsets), y).perform()
        tooltips = [each.text for each in lab.every(TOOLTIP) if each.is_displayed()]
        return any(clips.titles[clip] in text for text in tooltips)

    lab.until(is_seen)


def click(lab, clips: explore.Clips, clip: int, number: int = 0) -> None:
    point_at(lab, clips, clip, number)
    lab.mouse().click().perform()


def shown_title(lab) -> str:
    """The title of the clip in the player."""
    return lab.shown(OUTPUT + ".widget-html b:has(~ br)").text


def plays(lab) -> bool:
    """Whether the clip plays, or has already ended: on a busy machine, 2 s pass between looks."""
    return lab.browser.execute_script(
        "const a = document.querySelector('audio');"
        "return !!a && a.currentTime > 0 && (a.ended || !a.paused)"
    )


def silence(lab) -> None:
    """Stop what plays, so that only a new start counts."""
    lab.browser.execute_script(
        "const a = document.querySelector('audio'); if (a) { a.pause(); a.currentTime = 0; }"
    )


def slide(lab, weight: float) -> None:
    """Drag the first slider to one of its ends."""
    handle = lab.shown(OUTPUT + ".noUi-handle")
    lab.mouse().drag_and_drop_by_offset(handle, int(400 * weight), 0).perform()


def rankings(lab) -> list[list[str]]:
    """The lines of the clips that rank best, by each of what ranks."""
    every = [each for each in lab.every(OUTPUT + "select[size]")[:3] if each.is_displayed()]
    return [[option.text for option in Select(each).options[1:]] for each in every]


def expected(clips: explore.Clips, state: dict) -> list[list[str]]:
    best = explore.Explorer(clips, state).best(len(clips)).values()
    tags = clips.table["true tags"]
    every = [[f"{clips.titles[clip]} · {tags[clip]}" for clip in order] for order in best]
    return [[f"{place}. {line}" for place, line in enumerate(lines, 1)] for lines in every]


def lasso_all(lab, number: int) -> None:
    """Draw around all of one of the maps, each line in steps."""
    canvas = maps_of(lab)[number]
    side = min(canvas.size.values()) // 2 - 4
    corners = [(-side, -side), (side, -side), (side, side), (-side, side), (-side, -side)]
    mouse = lab.mouse().move_to_element_with_offset(canvas, *corners[0])
    mouse.click_and_hold()
    for corner in corners[1:]:
        mouse.move_to_element_with_offset(canvas, *corner)
    mouse.release().perform()


def pan_and_zoom(lab, canvas, n_steps: int = 4) -> None:
    """Drag the map there and back, then zoom in."""
    mouse = lab.mouse().move_to_element(canvas).click_and_hold()
    for step in [(4, 2)] * n_steps + [(-4, -1)] * n_steps:
        mouse.move_by_offset(*step)
    mouse.release()
    for _ in range(n_steps):
        mouse.scroll_from_origin(ScrollOrigin.from_element(canvas), 0, -60)
    mouse.perform()


def carriers(clips: explore.Clips) -> dict[str, int]:
    return dict(zip(clips.tags, clips.labels.sum(axis=0).tolist(), strict=True))
