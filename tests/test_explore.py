"""The explorer without a browser: ranking, comparison, settings, widgets and the figure."""

import io
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import soundfile
from nbclient import NotebookClient
from scored import finished_run, scored_run

from jetatag.apps import explorer as explore
from jetatag.apps import tagger
from jetatag.apps.explorer.maps import Maps, labels
from jetatag.apps.explorer.panel import Panel
from jetatag.apps.explorer.widgets import plain
from jetatag.evaluation import predict
from jetatag.evaluation.spaces import shared_map
from jetatag.files import write_json
from jetatag.training.run import Run

ROOT = Path(__file__).parents[1]
TAGS = ("piano", "fast", "vocal")
# Six clips: in the shared space piano points right, fast up and vocal left.
LABELS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 1]], np.uint8)
ANGLES = np.radians([0, 45, 90, 135, 180, 200])


def on_circle(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.fixture
def clips() -> explore.Clips:
    probs = np.repeat(0.1 + 0.8 * LABELS[:, None].astype(np.float32), 2, axis=1)
    probs[1, 1] = 0.1  # only the first half of the second clip is piano and fast
    landmarks = on_circle(np.radians([0, 90, 180]))
    return explore.Clips(
        tags=TAGS,
        titles=np.array([f"song {i}" for i in range(6)]),
        clip_ids=np.array(list("abcdef")),
        splits=np.array(["test"] * 6),
        labels=LABELS,
        probs=probs,
        spaces={"h with JE": on_circle(ANGLES + 1), "z": on_circle(ANGLES) + 5},
        landmarks={"h with JE": landmarks, "z": landmarks + 5},
        z_centre=np.array([5, 5], np.float32),
        z_scale=np.array([4.0, -2.0]),
        starts_s=np.tile([0.0, 3.0], (6, 1)),
        window_s=3.0,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_store, tiny_config) -> tuple[Run, Run]:
    """A run with joint embedding in one stage, and one without."""
    folder, joint = tmp_path_factory.mktemp("explored"), tiny_config.replace(method="joint")
    plain = tiny_config.replace(method="no_je", pair_loss="none")
    return scored_run(folder, joint, tiny_store, 0), scored_run(folder, plain, tiny_store, 1)


def test_clips_are_ranked_in_the_shared_space_and_by_the_classifier(clips):
    explorer = explore.Explorer(clips, {"weights": {"piano": 1.0, "fast": 0.5, "vocal": 0.0}})
    best = explorer.best(6)
    assert best["space"].tolist() == [1, 0, 2, 3, 4, 5]  # clip 1 lies between the two tags
    assert best["classifier"].tolist()[:2] == best["combined"].tolist()[:2] == [1, 0]
    explorer.change(weights={"vocal": -1.0})
    best = explorer.best(2)
    assert best["space"].tolist() == [0, 1]
    assert set(best["classifier"]) <= {0, 1, 2}
    explorer.change(weights={"vocal": 1.0})
    best = explorer.best(3)
    assert best["space"][0] == 4 and clips.labels[best["classifier"], 2].all()
    assert explorer.query() == "vocal +1.0"


def test_the_map_of_the_shared_space_is_that_of_the_tables(clips):
    space = {"z_audio": clips.spaces["z"], "z_query": clips.landmarks["z"]}
    xy, _ = shared_map({**space, "z_centre": clips.z_centre}, "pca")
    np.testing.assert_array_equal(clips.layout("z", "pca"), xy)


def test_scores_are_geometric_means_of_probabilities(clips):
    weights = {"piano": 1.0, "vocal": -0.5}
    piano, vocal = (1 / (1 + np.exp(2 - 4 * sign * np.cos(ANGLES))) for sign in (1, -1))
    in_space = (piano * (1 - vocal) ** 0.5) ** (1 / 1.5)
    assert clips.scores(weights, "space") == pytest.approx(in_space, rel=1e-5)
    piano, _, vocal = clips.mean_probs.T
    by_classifier = (piano * (1 - vocal) ** 0.5) ** (1 / 1.5)
    assert clips.scores(weights, "classifier") == pytest.approx(by_classifier, rel=1e-5)
    combined = np.sqrt(in_space * by_classifier)
    assert clips.scores(weights, "combined") == pytest.approx(combined, rel=1e-5)
    with pytest.raises(ValueError, match="jazz"):
        clips.scores({"jazz": 1.0}, "space")


def test_a_selection_is_compared_with_the_rest(clips):
    table = clips.compare([2, 3])
    assert table.index.tolist() == ["fast", "vocal", "piano"]
    assert table.clips.tolist() == [2, 1, 0]
    assert table.selected.tolist() == [1.0, 0.5, 0.0]
    assert table.rest.tolist() == [0.25, 0.5, 0.5]
    assert table.difference.tolist() == [0.75, 0.0, -0.5]
    everything, nothing = clips.compare(range(6)), clips.compare([])
    assert (everything.rest == 0).all() and (nothing.selected == 0).all()


def test_more_like_this_ranks_by_similarity_without_the_clip(clips):
    explorer = explore.Explorer(clips, {"like": "e", "weights": {"piano": 1.0}})
    best = explorer.best(5)
    assert [*best] == ["space", "classifier"]
    assert best["space"].tolist() == [5, 3, 2, 1, 0]  # by the angle between them
    assert best["classifier"][0] == 5 and 4 not in best["classifier"]
    assert explorer.query() == "more like song 4"
    table = clips.table.title[explorer.best(2)["space"]]
    assert table.tolist() == ["song 5", "song 3"]


def test_the_tags_and_figure_of_a_clip(clips):
    *_, true, predicted = clips.table.iloc[3]
    assert (true, predicted) == ("fast, vocal", "fast 0.90, vocal 0.90, piano 0.10")
    assert replace(clips, labels=LABELS * 0).table["true tags"][3] == "none"
    assert clips.numbers(["f", "gone", "a"]) == [5, 0]
    ax = clips.figure(1).axes[0]
    assert [tick.get_text() for tick in ax.get_yticklabels()][::-1] == [
        "• piano (0.50)",
        "• fast (0.50)",
        "vocal (0.10)",
    ]
    np.testing.assert_allclose(ax.collections[0].get_array()[-1], [0.9, 0.1])
    with pytest.raises(ValueError, match="audio needs a store"):
        clips.flac(0)


def test_every_layout_fills_the_same_range(clips):
    drawn = Maps(explore.Explorer(clips, {"layout": "pca"}), print, print)
    drawn.set_layout("tsne")
    for frame in drawn.frames.values():
        axes = frame.filter(like=" axis ")
        assert axes.shape[1] == 4
        np.testing.assert_allclose(axes.agg(["min", "max"]), [[-1] * 4, [1] * 4], atol=1e-6)


def test_tags_that_touch_share_a_label_of_short_lines():
    tags, places = ["male vocal", "fast", "man singing"], np.array([[0.0, 0], [1, 1], [0.01, 0]])
    for chosen, first, second in [(0, *tags[::2]), (1, *tags[::2]), (2, *tags[::-2])]:
        shared, fast, same = labels(places, tags, chosen)
        lines = [line.strip("\xa0") for line in shared.split("\n")]
        assert lines == [f"{first},", second] and fast.strip("\xa0") == "fast" and same == shared


def test_the_chosen_tag_has_the_label_that_others_make_room_for(clips):
    explorer = explore.Explorer(clips, {"layout": "pca"})
    panel = Panel(explorer)
    for tag in clips.tags[::-1]:
        panel.tag.value = tag
        for frame in panel.maps.frames.values():
            tags = frame[frame.kind == "tag"]
            first = tags.tag.str.strip("\xa0").str.startswith(tag)
            assert first.any() and (tags.importance[first] == 1).all()
            assert (tags.importance[~first] == 0).all()


def test_drawings_wait_for_the_browser_and_the_last_of_a_kind_wins(clips):
    maps = Maps(explore.Explorer(clips, {"layout": "pca"}), print, print)

    def drawn() -> list:
        *_, colours = maps.first.widget.points.T
        return [
            maps.legend.value.split("</b>")[0].removeprefix("<b>"),
            maps.first.widget.x_title,
            colours.argmax(),
        ]

    for name, darkest in (("one", 1), ("two", 2)):
        maps.set_colours(name, np.eye(9)[darkest])
    maps.set_layout("tsne")
    maps.set_colours("three", np.eye(9)[3])
    shown = [drawn()]
    for _ in range(3):
        maps.probe.drawn = maps.probe.sent
        shown.append(drawn())
    last = [plain("three"), "tsne axis 1", 3]
    assert shown == [[plain("one"), "pca axis 1", 1], [plain("three"), "pca axis 1", 3], last, last]
    assert maps.probe.drawn == maps.probe.sent


@pytest.mark.parametrize(
    ("setting", "name", "expected"),
    [
        ("split", "split", ["test"] * 6 + ["tag"] * 3),
        ("tag", "tag: fast", [0, 1, 1, 1, 0, 0, 0.5, 1, 1 / 3]),
        ("score", "score: fast", [0.1, 0.5, 0.9, 0.9, 0.1, 0.1, 0.3, 2.3 / 3, 1.1 / 3]),
    ],
)
def test_colours_of_clips_and_tags(clips, setting, name, expected):
    shown, values = explore.Explorer(clips, {"colour": setting, "tag": "fast"}).colours()
    assert shown == name and len(values) == 9
    if setting == "split":
        assert values.tolist() == expected
    else:
        assert values == pytest.approx(np.array(expected))


def test_settings_are_saved_and_restored(clips, tmp_path):
    keep = tmp_path / "explorer.json"
    first = explore.Explorer(clips, {"layout": "pca"}, keep)
    assert not keep.exists()
    first.change(weights={"fast": -0.5}, selection=["b", "c"], clip="b")
    again = explore.Explorer(clips, {"layout": "tsne", "weights": {"piano": 1.0}}, keep)
    assert again.state == first.state and again.state["clip"] == "b"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"colours": "tag"}, "unknown View setting 'colours'"),
        ({"layout": "map"}, "unknown layout 'map'"),
        ({"colour": "red"}, "unknown colour 'red'"),
        ({"tag": "jazz"}, "unknown tag 'jazz'"),
        ({"weights": {"jazz": 1.0}}, "unknown tag 'jazz'"),
        ({"weights": {"piano": 5}}, "piano must be at most 1, not 5"),
        ({"weights": {"piano": "x"}}, "piano must be of type float"),
        ({"selection": [1]}, "selection must be of type str"),
        ({"clip": None}, "clip must be of type str"),
        ({"weights": {"piano": 10**400}}, "piano must be a finite number"),
        ([], "state must be of type dict"),
        (None, "state must be of type dict"),
    ],
)
def test_invalid_settings_are_one_sentence(clips, tmp_path, state, message):
    if isinstance(state, dict):
        with pytest.raises(ValueError, match=message):
            explore.Explorer(clips, state)
    write_json(tmp_path / "kept.json", state)
    with pytest.raises(ValueError, match=rf"kept.json holds no state .*{message}.*delete it"):
        explore.Explorer(clips, keep=tmp_path / "kept.json")


def test_a_file_that_holds_no_settings_is_one_sentence(clips, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken.json holds no state .*\(Expecting"):
        explore.Explorer(clips, keep=tmp_path / "broken.json")
    with pytest.raises(ValueError, match="is a folder"):
        explore.Explorer(clips, keep=tmp_path)


def test_widgets_start_from_the_settings_and_do_not_change_them(clips):
    state = {"layout": "pca", "selection": ["a"], "clip": "b", "weights": {"piano": -0.5}}
    explorer = explore.Explorer(clips, state)
    kept = dict(explorer.state)
    panel = Panel(explorer)
    assert explorer.state == kept and panel.maps.first.widget.selection.tolist() == [0, 0]
    assert f"<b>{plain('song 1')}</b>" in panel.about.value


def test_tags_are_added_weighted_and_removed(clips):
    panel = Panel(explore.Explorer(clips, {"layout": "pca", "weights": {"piano": 1.0}}))
    panel.add_tag("vocal")
    piano, vocal = panel.slider_rows.children
    assert vocal.children[0].value == plain("vocal")
    vocal.children[1].value = -0.3
    assert panel.state.state["weights"] == {"piano": 1.0, "vocal": -0.3}
    piano.children[2].click()
    assert panel.state.state["weights"] == {"vocal": -0.3}
    assert panel.slider_rows.children == (vocal,) and "vocal -0.3" in panel.query.value


def test_every_click_plays_the_clip_and_the_player_shows_it(runs, tiny_store):
    clips = explore.Clips.read(runs[0], None, tiny_store)
    start = {"layout": "pca", "clip": str(clips.clip_ids[0]), "play_on_hover": True}
    panel = Panel(explore.Explorer(clips, start))
    maps = [one.widget for one in panel.maps.scatters.values()]
    assert panel.audio.clip["count"] == 0  # shown, not played
    turns = []
    touches = [(maps[0], "selection", 2), (maps[0], "selection", 2), (maps[1], "hovering", 4)]
    touches += [(maps[1], "selection", 2), (maps[1], "selection", 2), (maps[0], "selection", 2)]
    for touched, touch, clip in touches:
        setattr(touched, touch, clip if touch == "hovering" else [clip])
        turns.append(panel.audio.clip["count"])
        assert panel.audio.clip["flac"] == clips.flac(clip)
        assert f"<b>{plain(clips.titles[clip])}</b>" in panel.about.value
        assert panel.state.state["clip"] == clips.clip_ids[clip]
        # The figure takes a moment to draw; until then it would show another clip.
        assert (panel.figure.layout.visibility == "hidden") == (touch == "hovering")
    assert turns == sorted(set(turns))
    maps[0].hovering = 4
    panel.more_like_this()
    assert panel.state.query() == f"more like {clips.titles[4]}"


def test_clips_of_a_run_have_titles_and_audio(runs, tiny_store):
    joint, plain = runs
    clips = explore.Clips.read(joint, plain, tiny_store)
    assert list(clips.spaces) == ["h without JE", "h with JE", "z"]
    rows = tiny_store.rows("test")
    assert clips.clip_ids.tolist() == tiny_store.table.clip_id.iloc[rows].tolist()
    assert set(clips.splits) == {"test"} and clips.titles[0].startswith("song")
    audio, sample_rate = soundfile.read(io.BytesIO(clips.flac(2)), dtype="float32")
    expected = tiny_store.read([rows[2]], [0], tiny_store.lengths[rows[2]])[0]
    assert sample_rate == 16_000
    np.testing.assert_allclose(audio, expected, atol=1 / 32_768)
    assert len(explore.Clips.read(joint)) == len(rows)
    with pytest.raises(ValueError, match="give a run without joint embedding that scored the same"):
        explore.Clips.read(joint, joint)
    with pytest.raises(ValueError, match="no shared space"):
        explore.Clips.read(plain)


def test_clips_of_other_splits_are_scored_once(tmp_path, tiny_store, tiny_config):
    run = finished_run(tmp_path, tiny_config, tiny_store)
    own = tagger.load(run.folder, device="cpu", folded=False).model
    predict.predict(run, own, tiny_store, "test")
    clips = explore.Clips.read(run, None, tiny_store, ["train", "test"])
    n_test, n_train = (len(tiny_store.rows(split)) for split in ("test", "train"))
    assert clips.splits.tolist() == ["test"] * n_test + ["train"] * n_train
    kept = (run.folder / "explored.train.npz").stat().st_mtime_ns
    again = explore.Clips.read(run, None, tiny_store, ["train"])
    assert (run.folder / "explored.train.npz").stat().st_mtime_ns == kept
    predict.predict(run, own, tiny_store, "train")  # the same clips the other way
    other = explore.Clips.read(run, None, tiny_store, ["test"])
    order = other.numbers(clips.clip_ids)
    for one in (clips, again):
        np.testing.assert_allclose(one.probs, other.probs[order], atol=1e-6)
        np.testing.assert_allclose(one.spaces["z"], other.spaces["z"][order], atol=1e-5)
    with pytest.raises(ValueError, match="clips of other splits need a store"):
        explore.Clips.read(run, splits=["train"])
    with pytest.raises(ValueError, match="unknown split 'tset'"):
        explore.Clips.read(run, None, tiny_store, ["tset"])


def test_the_figure_of_a_true_tag_has_markers_and_a_star_and_no_colour_bar(clips):
    explorer = explore.Explorer(clips, {"layout": "pca", "tag": "fast"})
    figure = explorer.figure()
    n_fast = int(clips.labels[:, clips.tags.index("fast")].sum())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *(f"other clips ({len(clips) - n_fast})", f"fast ({n_fast} clips)", "tags", "fast (tag)")
    ]
    assert len(figure.axes) == len(clips.spaces)
    explorer.change(colour="score")
    assert explorer.figure().axes[-1].get_ylabel() == "score: fast"


def test_without_a_browser_the_cell_shows_a_figure(runs, tmp_path):
    source = f"""from jetatag.apps import explorer as explore
from jetatag.training.run import Run
clips = explore.Clips.read(Run.open({str(runs[0].folder)!r}))
explore.Explorer(clips, {{"layout": "pca"}})"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    client = NotebookClient(notebook, resources={"metadata": {"path": str(ROOT)}})
    outputs = client.execute().cells[0].outputs
    shown = [output for output in outputs if output.output_type != "stream"]
    assert ["image/png" in output.data for output in shown] == [True, False]
    assert shown[1].data == {"text/plain": explore.panel.PLACEHOLDER}
