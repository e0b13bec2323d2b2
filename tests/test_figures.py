"""Every figure has labelled axes, shows the data given to it, and is not kept by pyplot."""

import io
import itertools
import re
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, fontManager
from matplotlib.lines import Line2D
from matplotlib.text import Text

from jetatag import figures, files, metrics
from jetatag.figures import _style

TAGS = ["rock", "guitar", "techno", "slow", "harp"]
RNG = np.random.default_rng(0)
LABELS = (RNG.random((40, 5)) < [0.5, 0.4, 0.3, 0.2, 0.1]).astype(np.uint8)
SPLITS = np.repeat(["test", "train", "valid"], [10, 25, 5])
POINTS = RNG.normal(size=(40, 2))
CARRIERS = LABELS[:, 0] == 1
LANDMARKS = np.concatenate([POINTS, POINTS[:5]])  # five tags after the clips


def history():
    """Two stages of four epochs, as training writes them: columns are empty outside their stage."""
    rate = [1e-4, 1e-4, 1e-3, 1e-4]
    epochs = {"epoch": [1, 2, 3, 4], "learning_rate": rate, "loss": [4.0, 3, 2, 1]}
    stage1 = pd.DataFrame({"stage": "stage1", **epochs, "pair": 0.5, "valid_gap": [0, 1, 1, 2]})
    stage2 = pd.DataFrame({"stage": "stage2", **epochs, "valid_loss": 2.0, "valid_roc_auc": 0.7})
    return pd.concat([stage1, stage2])


def results():
    thresholds = np.full(5, 0.5)
    run = metrics.resampled(LABELS, RNG.random((40, 3, 5)), thresholds=thresholds, n_resamples=20)
    runs = [("je", "cosine"), ("je", "subset_query"), ("no_je", np.nan)]
    tables = [
        metrics.mean_table([run]).assign(method=method, pair_loss=loss) for method, loss in runs
    ]
    return pd.concat(tables)  # with a repeated index, as concatenation leaves it


LOSSES = ["cosine", "subset_query"]
SEEDS = pd.DataFrame({"seed": [0, 1, 2]})


def grid(**columns):
    """Every combination of the given values, three seeds each, with a value from 0.30 upwards."""
    table = pd.MultiIndex.from_product(columns.values(), names=columns).to_frame(index=False)
    table["value"] = 0.3 + 0.02 * np.arange(len(table))
    table = table.merge(SEEDS, how="cross")
    table["value"] += 0.003 * (table["seed"] - 1)  # the mean over seeds stays
    return table


def with_interval(table, width=0.01):
    return table.assign(low=table["value"] - width, high=table["value"] + width)


def gains():
    return with_interval(
        grid(
            extractor=["sample_cnn", "harmonic"],
            method=["no_je", "je"],
            metric=["roc_auc", "pr_auc"],
        )
    )


def published():
    table = grid(source=["paper", "log"], extractor=["a", "b"], method=["no_je", "je"])
    table = table[table["seed"] == 1].drop(columns="seed")
    table = table.rename(columns={"value": "roc_auc"}).assign(pr_auc=0.4)
    return table.melt(["source", "extractor", "method"], ["roc_auc", "pr_auc"], "metric")


def differences():
    methods = ["bce_two_stage", "je", "je_shuffled"]
    table = grid(extractor=["sample_cnn", "harmonic"], method=methods, pair_loss=LOSSES)
    table = table[(table["seed"] == 1) & ((table["method"] != "bce_two_stage") | (table.index < 3))]
    table["pair_loss"] = table["pair_loss"].where(table["method"] != "bce_two_stage")
    table = table.assign(value=table["value"] - 0.4, metric="average_precision")
    table = with_interval(table.assign(seed="mean", minus="no_je_linear"))
    bounds = {"group_low": table["low"] - 0.02, "group_high": table["high"] + 0.02}
    table = table.rename(columns={"value": "difference"}).assign(**bounds)
    is_joint = table["method"] == "je"
    return {"joint embedding": table[is_joint], "controls": table[~is_joint]}


def tag_gains():
    tags = [f"tag number {i}" for i in range(30)]
    gain = RNG.normal(size=30) / 20
    table = pd.DataFrame({"tag": tags, "difference": gain, "low": gain - 0.03, "high": gain + 0.03})
    return table.assign(frequency=RNG.uniform(0.01, 0.3, 30), correlation=RNG.uniform(0, 0.4, 30))


def tag_trends(*covariates):
    covariates = covariates or ("frequency", "correlation")
    return pd.DataFrame({"covariate": covariates, "correlation": 0.3, "low": -0.1, "high": 0.6})


def reliability(*, bend=1.0):
    prob = np.linspace(0.05, 0.95, 10)
    count = [*range(900, 0, -100), 0]
    return pd.DataFrame({"mean_prob": prob, "share_positive": prob**bend, "count": count})


def errors():
    return pd.DataFrame(
        {"tag": [f"tag {i}" for i in range(20)], "calibration_error": RNG.random(20) / 5}
    )


def calibrations():
    runs = {"je": (reliability(), errors()), "no_je": (reliability(bend=2), errors())}
    return tuple({name: run[part] for name, run in runs.items()} for part in (0, 1))


def gains_on_the_way():
    steps = pd.DataFrame({"steps": [4000, 2000, 6000], "difference": [0.2, 0.1, 0.3]})
    steps = steps.assign(low=steps.difference - 0.05, high=steps.difference + 0.05)
    methods = {"method": ["je", "no_je_linear"], "pair_loss": ["cosine", "none"]}
    steps = steps.assign(metric="average_precision", minus="no_je")
    return pd.DataFrame(methods).merge(steps, how="cross")


def label_shares():
    shares = grid(pair_loss=LOSSES, label_share=[0.1, 0.3, 1.0], metric=["average_precision"])
    return with_interval(shares.assign(method="je", protocol="macro_clip"))


def retrieved():
    kinds = ["one_tag", "two_tags", "tag_and_not_tag"]
    ranked = ["encoded set", "answering clips", "classifier", "combined", "random"]
    table = grid(pair_loss=LOSSES, kind=kinds, ranked_by=ranked, metric=["precision_at_10"])
    return table.assign(method="je")


def tag_spaces():
    table = grid(pair_loss=LOSSES, metric=["tag_semantics", "mean_energy", "gap"])
    return table.assign(method="je", space="shared")


RELEASED = {"released weights": {"tag_semantics": 0.03, "mean_energy": 0.91}}


def histories():
    stages = [("je", "cosine", "stage1"), ("je", "cosine", "stage2"), ("no_je", None, "end_to_end")]
    runs = pd.DataFrame(stages, columns=["method", "pair_loss", "stage"])
    table = runs.merge(SEEDS, how="cross").merge(pd.DataFrame({"epoch": range(1, 9)}), how="cross")
    score = table["epoch"] / 10 + table["seed"] / 100
    return table.assign(valid_average_precision=score.where(table["stage"] != "stage1"))


FIGURES = {
    "tag_counts": lambda: figures.tag_counts(LABELS, TAGS, SPLITS),
    "tag_correlation": lambda: figures.tag_correlation(LABELS, TAGS, "rock", n=3),
    "mel_spectrogram": lambda: figures.mel_spectrogram(RNG.normal(size=8000) / 9, 16000, "a clip"),
    "loss_curves": lambda: figures.loss_curves(history()),
    "maps of a tag": lambda: figures.maps({"h": POINTS}, CARRIERS, "rock", notes={"h": "0.4"}),
    "map of clips and tags": lambda: figures.maps({"": LANDMARKS}, CARRIERS, "rock", TAGS),
    "maps of numbers": lambda: figures.maps({"h": POINTS}, np.arange(40), "fit"),
    "maps of names": lambda: figures.maps({"h": LANDMARKS}, SPLITS, "split", TAGS),
    "dots of protocols": lambda: figures.dots(results(), panel_rows="protocol"),
    "tag_correlations": lambda: figures.tag_correlation(LABELS, TAGS, ["rock", "harp"], n=3),
    "dots of sources": lambda: figures.dots(
        published(), panel_rows="source", rows="extractor", marks="method"
    ),
    "dots of extractors": lambda: figures.dots(gains(), rows="extractor", marks="method"),
    "dots of differences": lambda: figures.dots(differences(), panels="extractor"),
    "dots of searches": lambda: figures.dots(retrieved(), panels="kind", marks="ranked_by"),
    "dots with references": lambda: figures.dots(tag_spaces(), references=RELEASED),
    "gain_per_tag": lambda: figures.gain_per_tag(tag_gains(), tag_trends()),
    "calibration": lambda: figures.calibration(*calibrations()),
    "curves of epochs": lambda: figures.curves(
        histories(), "epoch", "valid_average_precision", panels="stage"
    ),
    "curves of label shares": lambda: figures.curves(label_shares(), "label_share"),
    "curves of differences": lambda: figures.curves(
        gains_on_the_way(), "steps", "difference", panels="line", lines=""
    ),
}


@pytest.fixture(scope="module", params=FIGURES)
def figure(request):
    return FIGURES[request.param]()


def test_every_figure_has_labelled_axes_and_leaves_pyplot_empty(figure, tmp_path):
    assert isinstance(figure, Figure) and not plt.get_fignums()
    pictures = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert pictures
    for ax in pictures:
        shares_x = any(other is not ax for other in ax.get_shared_x_axes().get_siblings(ax))
        shares_y = any(other is not ax for other in ax.get_shared_y_axes().get_siblings(ax))
        assert ax.get_xlabel() or shares_x
        assert ax.get_ylabel() or shares_y
    figure.savefig(tmp_path / "figure.png", dpi=40)
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_no_text_is_cut_off(figure):
    figure.draw_without_rendering()
    frame = figure.bbox.padded(1)
    for part in (*figure.axes, *figure.legends, *figure.texts):
        box = part.get_tightbbox()  # of what is drawn: titles, labels, ticks in view
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1
        assert frame.y0 <= box.y0 and box.y1 <= frame.y1


WHISKERS = {"95 % interval by clip", "95 % interval by group"}
"""The only entries that differ by width: the first is thick and grey, the second thin and black."""


def test_no_entry_of_a_legend_differs_by_colour_alone(figure):
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    for legend in legends:
        lines = [entry for entry in legend.legend_handles if isinstance(entry, Line2D)]
        forms = [
            (
                line.get_marker(),
                line.get_linestyle(),
                line.get_linewidth() if line.get_label() in WHISKERS else None,
                str(line.get_markerfacecolor()) == "white",
            )
            for line in lines
        ]
        assert len(set(forms)) == len(forms)


def test_many_lines_stay_distinct_without_colour():
    looks = _style.line_styles(map(str, range(44))).values()
    assert len({(look["marker"], look["linestyle"]) for look in looks}) == 44


@pytest.mark.parametrize("name", ["tag_correlation", "loss_curves", "curves of epochs"])
def test_a_saved_figure_is_a_picture_and_a_vector_of_the_same_bytes_each_time(name, tmp_path):
    figure = FIGURES[name]()
    paths = [files.save_figure(figure, tmp_path / folder, "a figure") for folder in "ab"]
    assert paths[0] == tmp_path / "a" / "a figure.png"
    for suffix, magic in ((".png", b"\x89PNG"), (".pdf", b"%PDF")):
        first, second = (path.with_suffix(suffix).read_bytes() for path in paths)
        assert first == second and first.startswith(magic) and b"CreationDate" not in first
    assert sorted(path.name for path in paths[0].parent.iterdir()) == [
        "a figure.pdf",
        "a figure.png",
    ]


def test_tag_counts_stack_the_splits_in_order_of_use():
    ax = figures.tag_counts(LABELS, TAGS, SPLITS).axes[0]
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["train (25 clips)", "valid (5 clips)", "test (10 clips)"]
    ends = [
        max(bar.get_x() + bar.get_width() for bar in row)
        for row in zip(*ax.containers, strict=True)
    ]
    assert ends == sorted(LABELS.sum(axis=0))


def test_tag_correlation_prints_the_nearest_tags_numbers():
    labels = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0]])
    ax = figures.tag_correlation(labels, ["a", "b", "c"], "a", n=1).axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a", "b"]
    expected = f"{np.corrcoef(labels.T)[0, 1]:.2f}".lstrip("0")
    assert [text.get_text() for text in ax.texts] == ["1.00", expected, expected, "1.00"]
    *panels, colorbar = figures.tag_correlation(labels, list("abc"), ["c", "a"], n=1).axes
    assert [ax.get_title() for ax in panels] == [f"{tag} and its nearest tags" for tag in "ca"]
    assert [text.get_text() for text in panels[1].texts] == [text.get_text() for text in ax.texts]
    assert colorbar.get_ylabel() == "Pearson correlation"


def test_a_learning_rate_cycle_has_no_phase_marks():
    rates = np.linspace(1, 0, 8)
    cycle = pd.DataFrame({"stage": "stage1", "epoch": range(1, 9), "learning_rate": rates})
    (axes,) = figures.loss_curves(cycle.assign(loss=1.0)).axes
    assert len(axes.lines) == 1
    phases = cycle.assign(loss=1.0, learning_rate=[1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])
    (axes,) = figures.loss_curves(phases).axes
    assert [line.get_xdata()[0] for line in axes.lines[1:]] == [3.5, 6.5]


def test_loss_curves_give_each_stage_its_own_quantities_and_mark_the_phases():
    axes = figures.loss_curves(history()).axes
    assert [ax.get_ylabel() for ax in axes] == ["loss", "pair", "gap", "loss", "ROC-AUC"]
    curves = [line for line in axes[3].lines if line.get_label() in ("training", "validation")]
    assert [line.get_label() for line in curves] == ["training", "validation"]
    marks = [line.get_xdata()[0] for line in axes[0].lines if line.get_linestyle() == ":"]
    assert marks == [2.5, 3.5]


def test_each_protocol_has_its_own_row_of_intervals():
    table = results()
    axes = figures.dots(table, panel_rows="protocol").axes
    assert [" ".join(ax.get_xlabel().split()) for ax in axes] == [
        *(f"{metric}, micro_window" for metric in ("ROC-AUC", "PR-AUC", "F1 as coded")),
        *(f"{metric}, macro_clip" for metric in ("ROC-AUC", "average precision")),
        *("PR-AUC (trapezoid), macro_clip", "instance-based F1 (micro), macro_clip"),
    ]
    tops = [ax.get_subplotspec().rowspan.start for ax in axes]
    assert tops == [0, 0, 0, 1, 1, 1, 1]
    best = table.query("metric == 'f1_instance'")
    assert [x for x, _ in marks(axes[-1], "o")] == best["value"].tolist()
    bounds = best[["low", "high"]].dropna().to_numpy()
    np.testing.assert_allclose(sorted(whiskers(axes[-1])), sorted(bounds.tolist()))
    fewer = table.query("metric != 'f1_instance'")
    assert len(figures.dots(fewer, panel_rows="protocol").axes) == 6


def leader_length(text):
    """Length of the line from a label to its point, in inches."""
    path = text.arrow_patch.get_transform().transform_path(text.arrow_patch.get_path())
    return np.linalg.norm(path.vertices[-1] - path.vertices[0]) / text.figure.dpi


def crowded(names):
    """A shared space with tags on a grid, 12 typographic points apart, in the middle of it."""
    grid = np.stack(np.meshgrid(range(10), range(len(names) // 10)), axis=-1).reshape(-1, 2)
    clips = np.array([[-15, -20], [25, 20]])
    figure = figures.maps({"": np.concatenate([clips, grid])}, np.array([True, False]), "", names)
    figure.draw_without_rendering()
    return figure


def test_labels_of_crowded_landmarks_do_not_overlap_and_stay_near():
    figure = crowded([f"tag number {i}" for i in range(30)])
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    assert len(boxes) == 30
    assert sum(box.count_overlaps(boxes) for box in boxes) == 30  # each meets itself alone
    shorter = figure.get_size_inches().min()
    assert max(map(leader_length, figure.axes[0].texts)) <= 0.2 * shorter


def test_labels_stay_near_even_where_there_is_no_room():
    figure = crowded([f"a tag of many words, number {i}" for i in range(60)])
    texts = figure.axes[0].texts
    assert len(texts) == 60
    assert max(map(leader_length, texts)) <= 0.2 * figure.get_size_inches().min()


def test_labels_side_by_side_have_a_space_and_leave_room_for_the_star():
    figure = crowded([f"tag {i}" for i in range(20)])
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    for one, other in itertools.combinations(boxes, 2):
        if one.y0 < other.y1 and other.y0 < one.y1:
            gap = max(one.x0, other.x0) - min(one.x1, other.x1)
            assert gap * 72 / figure.dpi > 5.9
    star = np.concatenate([POINTS, [[0, 0], [0.15, 0]]])
    figure = figures.maps({"": star}, CARRIERS, "rock", ["rock", "harp"])
    figure.draw_without_rendering()
    ax, radius = figure.axes[0], 7 * figure.dpi / 72
    middle = ax.transData.transform([0, 0])
    for text in ax.texts:
        low, high = Text.get_window_extent(text).get_points()
        assert (np.maximum(low - middle, middle - high) > radius).any()


def test_landmarks_are_hollow_and_above_clips_and_notes_add_height():
    figure = figures.maps({"": LANDMARKS}, CARRIERS, "rock", TAGS)
    _, own, landmarks, star = figure.axes[0].collections
    assert star.get_zorder() > landmarks.get_zorder() > own.get_zorder()
    assert not len(landmarks.get_facecolor()) and not len(star.get_facecolor())
    noted = figures.maps({"": LANDMARKS}, CARRIERS, "rock", TAGS, {"": "a note " * 30})
    assert noted.get_figheight() > figure.get_figheight()


def test_tags_that_touch_share_one_label_but_for_stressed_ones():
    tag_xy = np.array([[0, 0], [0.001, 0], [0, 0.001], [1, 1], [0.001, 0.001]])
    tags = ["vocal", "vocals", "voice", "piano", "singing"]
    figure = figures.maps({"": np.concatenate([POINTS, tag_xy])}, CARRIERS, "singing", tags)
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown[0] == "singing" and sorted(shown[1:]) == ["piano", "vocal, vocals, voice"]
    alike, tags = np.concatenate([POINTS, np.zeros((20, 2))]), [f"tag {i}" for i in range(20)]
    collapsed = figures.maps({"": alike}, CARRIERS, "", tags)
    (text,) = collapsed.axes[0].texts
    expected = "tag 0, tag 1, tag 2, tag 3, tag 4, 15 more"
    assert " ".join(text.get_text().split()) == expected


def test_maps_tell_the_clips_of_a_tag_and_the_landmark_of_the_tag_by_their_shape():
    figure = figures.maps({"a": LANDMARKS, "b": LANDMARKS}, CARRIERS, "rock", TAGS, {"b": "0.4"})
    for ax in figure.axes:
        other, own, landmarks, star = (each.get_offsets() for each in ax.collections)
        np.testing.assert_array_equal(other, POINTS[~CARRIERS])
        np.testing.assert_array_equal(own, POINTS[CARRIERS])
        np.testing.assert_array_equal(landmarks, LANDMARKS[41:])
        np.testing.assert_array_equal(star, LANDMARKS[40:41])
        shapes = [len(each.get_paths()[0].vertices) for each in ax.collections]
        assert len(set(shapes)) == 4
        (bold,) = [text for text in ax.texts if text.get_fontweight() == "bold"]
        assert bold.get_text() == "rock"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *(f"other clips ({(~CARRIERS).sum()})", f"rock ({CARRIERS.sum()} clips)"),
        *("tags", "rock (tag)"),
    ]
    assert [ax.get_xlabel() for ax in figure.axes] == ["layout axis 1", "layout axis 1\n0.4"]


def marks(ax, marker):
    """(x, y) of every point drawn with `marker`, in order of drawing."""
    return [
        tuple(xy) for line in ax.lines if line.get_marker() == marker for xy in line.get_xydata()
    ]


def row_names(ax):
    """Names of the rows from the top down."""
    return [text.get_text() for text in ax.get_yticklabels()][::-1]


def whiskers(ax):
    """(left, right) of every horizontal whisker."""
    return [tuple(path[:, 0]) for lines in ax.collections for path in lines.get_segments()]


def test_dots_show_means_seeds_and_intervals_of_both_methods():
    table = gains()
    roc, pr = figures.dots(table, rows="extractor", marks="method").axes
    assert row_names(roc) == ["sample_cnn", "harmonic\n(not in the paper)"]
    assert [roc.get_xlabel(), pr.get_xlabel()] == ["ROC-AUC", "PR-AUC"]
    for ax, metric in ((roc, "roc_auc"), (pr, "pr_auc")):
        shown = table[table["metric"] == metric]
        means = shown.groupby(["extractor", "method"])["value"].mean()
        for method, marker in (("no_je", "o"), ("je", "s")):
            drawn = {["harmonic", "sample_cnn"][round(y)]: x for x, y in marks(ax, marker)}
            assert drawn == pytest.approx(means.xs(method, level="method").to_dict())
        assert sorted(x for x, _ in marks(ax, "|")) == sorted(shown["value"])
        lows = shown.groupby(["extractor", "method"])["low"].mean()
        assert sorted(low for low, _ in whiskers(ax)) == pytest.approx(sorted(lows))
    named = figures.dots(table.assign(protocol="macro_clip"), rows="extractor", marks="method")
    assert named.axes[0].get_xlabel() == "ROC-AUC, macro_clip"
    alone = figures.dots(table.query("seed == 0"), rows="extractor", marks="method")
    assert not marks(alone.axes[0], "|")
    names = [text.get_text() for text in alone.legends[0].get_texts()]
    assert names == ["no_je", "je", "95 % interval"]


def test_dots_are_one_for_rows_that_differ_in_more_than_the_seed():
    """A mean over networks or settings would look like one over seeds."""
    table = gains().query("metric == 'roc_auc' and method == 'je'")
    (ax,) = figures.dots(table).axes
    expected = table.groupby("extractor")["value"].mean()
    assert sorted(x for x, _ in marks(ax, "o")) == pytest.approx(sorted(expected))


def test_panels_without_intervals_have_titles_and_no_whisker():
    table = published()
    figure = figures.dots(table, panel_rows="source", rows="extractor", marks="method")
    assert [ax.get_title() for ax in figure.axes] == ["paper", "paper", "log", "log"]
    parts = itertools.product(("paper", "log"), ("roc_auc", "pr_auc"))
    for ax, (source, metric) in zip(figure.axes, parts, strict=True):
        shown = table[(table["source"] == source) & (table["metric"] == metric)]
        drawn = marks(ax, "o") + marks(ax, "s")
        assert sorted(x for x, _ in drawn) == sorted(shown["value"]) and not whiskers(ax)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["no_je", "je"]


def test_differences_have_headings_a_line_at_zero_and_two_intervals():
    groups = differences()
    figure = figures.dots(groups, panels="extractor")
    axes = dict(zip(("sample_cnn", "harmonic"), figure.axes, strict=True))
    rows = [
        *("joint embedding", "je · cosine", "je · subset_query"),
        *("controls", "bce_two_stage", "je_shuffled · cosine", "je_shuffled · subset_query"),
    ]
    assert row_names(figure.axes[0]) == rows
    bold = [text for text in figure.axes[0].get_yticklabels() if text.get_fontweight() == "bold"]
    assert {text.get_text() for text in bold} == set(groups)
    table = pd.concat(groups)
    for extractor, ax in axes.items():
        assert ax.get_title() == extractor
        assert ax.get_xlabel() == "average precision,\ndifference from no_je_linear"
        assert any(list(line.get_xdata()) == [0, 0] for line in ax.lines)
        drawn = {rows[::-1][round(y)]: x for x, y in marks(ax, "o")}
        shown = table[table["extractor"] == extractor]
        lines = map(_style.line_name, shown["method"], shown["pair_loss"])
        assert drawn == dict(zip(lines, shown["difference"], strict=True))
        bounds = [["low", "high"], ["group_low", "group_high"]]
        ends = [tuple(row) for pair in bounds for row in shown[pair].to_numpy()]
        np.testing.assert_allclose(sorted(whiskers(ax)), sorted(ends))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["95 % interval by clip", "95 % interval by group"]


def test_headings_with_a_row_of_the_same_name_draw_it_twice():
    table = gains().query("metric == 'roc_auc' and extractor == 'harmonic'")
    higher = table.assign(value=table["value"] + 0.1)
    (ax,) = figures.dots({"low": table, "high": higher}).axes
    assert row_names(ax) == ["low", "no_je", "je", "high", "no_je", "je"]
    means = [part.groupby("method", sort=False)["value"].mean() for part in (table, higher)]
    expected = {4: means[0]["no_je"], 3: means[0]["je"], 1: means[1]["no_je"], 0: means[1]["je"]}
    assert {y: x for x, y in marks(ax, "o")} == pytest.approx(expected)
    bold = [text.get_fontweight() == "bold" for text in ax.get_yticklabels()][::-1]
    assert bold == [True, False, False] * 2


def test_dots_without_intervals_have_no_legend():
    table = published().query("source == 'paper' and method == 'je'")
    figure = figures.dots(table.assign(low=np.nan, high=np.nan), rows="extractor")
    assert not figure.legends and len(figure.axes) == 2
    assert not figures.dots(table, rows="extractor").legends


def test_panels_of_one_metric_below_one_another_have_the_same_axis():
    figure = figures.dots(published(), panel_rows="source", rows="extractor", marks="method")
    table = published()
    for above, below, metric in zip(
        *np.reshape(figure.axes, (2, 2)), ("roc_auc", "pr_auc"), strict=True
    ):
        low, high = above.get_xlim()
        assert below.get_xlim() == (low, high)
        assert table["value"][table["metric"] == metric].between(low, high).all()
    axes = figures.dots(results(), panel_rows="protocol").axes
    assert axes[0].get_xlim() != axes[3].get_xlim()  # of different protocols


def test_gain_per_tag_names_the_extremes_at_their_points_and_leaves_out_missing_gains():
    table = tag_gains()
    table.loc[4, ["difference", "low", "high"]] = np.nan
    figure = figures.gain_per_tag(table.assign(minus="no_je"), tag_trends("correlation"))
    ranked = table.dropna().sort_values("difference")
    extreme = pd.concat([ranked[:3], ranked[-3:]]).set_index("tag")
    for ax, column in zip(figure.axes, ("frequency", "correlation"), strict=True):
        assert {text.get_text(): text.xy for text in ax.texts} == {
            tag: (row[column], row["difference"]) for tag, row in extreme.iterrows()
        }
        assert sorted(marks(ax, "D")) == sorted(text.xy for text in ax.texts)
        assert len(marks(ax, "o")) == len(ranked) - 6
        figure.draw_without_rendering()
        boxes = [Text.get_window_extent(text) for text in ax.texts]
        assert sum(box.count_overlaps(boxes) for box in boxes) == 6  # each meets itself alone
    assert figure.axes[0].get_xscale() == "log"
    expected = "correlation with other tags\nrank correlation +0.30 [-0.10, +0.60]"
    assert figure.axes[1].get_xlabel() == expected
    assert figure.axes[0].get_ylabel().startswith("gain over no_je")


def test_calibration_shows_full_bins_their_counts_and_the_worst_tags():
    curves, per_tag = calibrations()
    figure = figures.calibration(curves, per_tag)
    above, errors, below = figure.axes
    diagonal, *lines = above.lines
    assert (diagonal.get_xdata() == diagonal.get_ydata()).all()
    for line, (name, curve) in zip(lines, curves.items(), strict=True):
        full = curve[curve["count"] > 0]
        assert line.get_label() == name and len(full) == 9
        assert line.get_xdata() == pytest.approx(full["mean_prob"].to_numpy())
        assert line.get_ydata() == pytest.approx(full["share_positive"].to_numpy())
    heights = [bar.get_height() for bars in below.containers for bar in bars]
    assert heights == [*range(900, 0, -100)] * 2
    for line, table in zip(errors.lines, per_tag.values(), strict=True):
        assert line.get_ydata() == pytest.approx(sorted(table["calibration_error"]))
    worst = per_tag["je"].nlargest(3, "calibration_error").set_index("tag")["calibration_error"]
    assert {text.get_text(): text.xy[1] for text in errors.texts} == worst.to_dict()


def shade(collection):
    """x → (lowest, highest) of a band."""
    x, y = collection.get_paths()[0].vertices.T
    return {place: (y[x == place].min(), y[x == place].max()) for place in np.unique(x)}


def test_curves_are_means_over_seeds_in_their_mean_intervals():
    figure = figures.curves(label_shares().query("pair_loss == 'cosine'"), "label_share")
    (ax,) = figure.axes
    assert ax.get_ylabel() == "average precision, macro_clip"
    assert ax.get_xlabel() == "share of labelled clips used"
    (curve,), (bars,) = ax.lines, ax.collections
    expected = {0.1: 0.30, 0.3: 0.32, 1.0: 0.34}
    assert dict(curve.get_xydata()) == pytest.approx(expected)
    for (place, low), (_, high) in bars.get_segments():
        assert (low, high) == pytest.approx((expected[place] - 0.01, expected[place] + 0.01))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["je · cosine", "95 % interval"]


def test_lines_by_label_share_are_beside_one_another_with_the_shares_as_ticks():
    (ax,) = figures.curves(label_shares(), "label_share").axes
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["10 %", "30 %", "100 %"]
    first, second = (line.get_xdata() for line in ax.lines)
    np.testing.assert_allclose(np.sqrt(first * second), [0.1, 0.3, 1.0])
    assert (second / first > 1.05).all()
    for line, bars in zip(ax.lines, ax.collections, strict=True):
        assert [bar[0, 0] for bar in bars.get_segments()] == line.get_xdata().tolist()


def test_tables_of_single_seeds_without_intervals_are_drawn_from_lowest_to_highest():
    table = histories().assign(low=np.nan, high=np.nan)
    figure = figures.curves(table, "epoch", "valid_average_precision", panels="stage")
    (band,) = figure.axes[0].collections
    assert shade(band)[8] == pytest.approx((0.8, 0.82))
    assert figure.legends[0].get_texts()[-1].get_text() == "lowest to highest seed"


def test_panels_are_in_the_order_of_the_table_even_if_its_first_rows_lack_the_score():
    table = histories().assign(score=1.0)
    is_first = (table["method"] == "je") & (table["stage"] == "stage1")
    late = table[is_first].assign(method="je_linear")
    table = pd.concat([table.assign(score=table["score"].where(~is_first)), late])
    titles = [ax.get_title() for ax in figures.curves(table, "epoch", "score", "stage").axes]
    assert titles == ["stage 1: extractor", "stage 2: classifier", "end to end"]


def test_labels_of_both_axes_have_one_size():
    for ax in figures.curves(histories(), "epoch", "valid_average_precision", "stage").axes[:1]:
        assert ax.xaxis.label.get_size() == ax.yaxis.label.get_size()


def test_curves_of_differences_have_a_line_at_zero_and_one_for_each_seed():
    table = gains_on_the_way()
    figure = figures.curves(table, "steps", "difference", panels="line", lines="")
    assert [ax.get_title() for ax in figure.axes] == ["je · cosine", "no_je_linear"]
    assert figure.axes[0].get_ylabel() == "average precision,\ndifference from no_je"
    curve, zero = figure.axes[0].lines
    assert curve.get_xydata() == pytest.approx(np.array([(2000, 0.1), (4000, 0.2), (6000, 0.3)]))
    (band,) = figure.axes[0].collections
    assert shade(band)[4000] == pytest.approx((0.15, 0.25))
    assert set(zero.get_ydata()) == {0}
    seeds = pd.concat([table.assign(seed=seed) for seed in "01"])
    figure = figures.curves(seeds, "steps", "difference", panels="line", lines="seed")
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["seed 0", "seed 1", "95 % interval"]


def test_curves_of_histories_span_the_seeds():
    figure = figures.curves(histories(), "epoch", "valid_average_precision", panels="stage")
    assert [ax.get_title() for ax in figure.axes] == ["stage 2: classifier", "end to end"]
    assert figure.axes[0].get_ylabel() == "average precision, validation"
    for ax in figure.axes:
        (line,), (band,) = ax.lines, ax.collections
        assert line.get_ydata() == pytest.approx(np.arange(1, 9) / 10 + 0.01)
        assert shade(band)[8] == pytest.approx((0.8, 0.82))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["je · cosine", "no_je", "lowest to highest seed"]


def test_each_mark_of_a_row_has_its_own_marker():
    table = retrieved()
    figure = figures.dots(table, panels="kind", marks="ranked_by")
    assert row_names(figure.axes[0]) == ["je · cosine", "je · subset_query"]
    assert [ax.get_title() for ax in figure.axes] == table["kind"].unique().tolist()
    for ax, kind in zip(figure.axes, table["kind"].unique(), strict=True):
        shown = table[table["kind"] == kind]
        for ranking, marker in zip(table["ranked_by"].unique(), "^soDx", strict=True):
            means = shown[shown["ranked_by"] == ranking].groupby("pair_loss")["value"].mean()
            drawn = {LOSSES[::-1][round(y)]: x for x, y in marks(ax, marker)}
            assert drawn == pytest.approx(means.to_dict())
        assert sorted(x for x, _ in marks(ax, "|")) == sorted(shown["value"])


def test_a_given_mean_is_drawn_with_its_interval():
    seeds = retrieved().assign(low=np.nan, high=np.nan)
    seeds = seeds[seeds["kind"] == "one_tag"].astype({"seed": str})
    mean = seeds.drop_duplicates(["pair_loss", "ranked_by"]).assign(seed="mean", value=0.9)
    mean = mean.assign(low=0.8, high=0.95)
    (ax,) = figures.dots(pd.concat([seeds, mean]), panels="kind", marks="ranked_by").axes
    for marker in "^soDx":
        assert [x for x, _ in marks(ax, marker)] == [0.9, 0.9]
    assert sorted(x for x, _ in marks(ax, "|")) == sorted(seeds["value"])
    assert whiskers(ax) == [(0.8, 0.95)] * 10


def test_references_are_lines_in_the_panels_of_their_metrics():
    figure = figures.dots(tag_spaces(), references=RELEASED)
    assert row_names(figure.axes[0]) == [f"je · {loss}" for loss in LOSSES]
    lines = [
        [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"]
        for ax in figure.axes
    ]
    assert lines == [[0.03], [0.91], []]
    assert figure.axes[1].get_xlabel() == "share of energy in the mean"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["one seed", "released weights"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.tag_counts(LABELS, TAGS[:4], SPLITS), r"\(clip, tag\) = \(40, 4\)"),
        (lambda: figures.tag_correlation(LABELS, TAGS, "rok"), "did you mean 'rock'"),
        (lambda: figures.mel_spectrogram(POINTS, 16000), "one mono waveform"),
        (lambda: figures.maps({"h": POINTS[:3], "z": POINTS}, CARRIERS, "a"), "layout 'z' must be"),
        (lambda: figures.maps({"h": POINTS}, CARRIERS, "a", notes={"g": ""}), "layout title"),
        (lambda: figures.maps({}, CARRIERS, "a"), "there are no maps to draw"),
        (lambda: figures.loss_curves(history()[:0]), "no rows to draw: the history is empty"),
        (lambda: figures.dots(results()[:0]), "there are no rows to draw: the table is empty"),
        (lambda: figures.dots({}), "there are no rows to draw"),
        (lambda: figures.dots({"a": results()[:0], "b": results()[:0]}), "there are no rows"),
        (lambda: figures.dots(gains().drop(columns="method")), "unknown column 'method'"),
        (lambda: figures.dots(gains().drop(columns="value")), "unknown column 'value'"),
        (lambda: figures.dots(gains(), "metrics"), "'metrics' .did you mean 'metric'"),
        (lambda: figures.dots(gains(), panel_rows="protocol"), "unknown column 'protocol'"),
        (lambda: figures.dots(gains(), rows="network"), "unknown column 'network'"),
        (lambda: figures.dots(gains(), marks="kind"), "unknown column 'kind'"),
        (lambda: figures.curves(histories(), "epochs", "epoch", "stage"), "column 'epochs'"),
        (lambda: figures.curves(histories(), "epoch", "epoch"), "unknown column 'metric'"),
        (lambda: figures.curves(histories(), "epoch", "epoch", "stage", "loss"), "column 'loss'"),
        (lambda: figures.curves(histories()[:0], "epoch"), "the table is empty"),
        (lambda: figures.curves(histories(), "epoch", "valid_gap", "stage"), "lacks valid_gap"),
        (
            lambda: figures.curves(histories().assign(gap=np.nan), "epoch", "gap", "stage"),
            "there are no rows to draw: every gap is missing",
        ),
        (lambda: figures.dots(results()), r"several of protocol \(macro_clip, micro_window\)"),
        (lambda: figures.dots(results(), panels="protocol"), "several of metric"),
        (lambda: figures.curves(gains(), "seed"), r"several of metric \(pr_auc, roc_auc\)"),
        (
            lambda: figures.gain_per_tag(pd.concat([tag_gains()] * 2), tag_trends()),
            "rows of several comparisons",
        ),
        (
            lambda: figures.gain_per_tag(tag_gains(), pd.concat([tag_trends()] * 2)),
            "rows of several comparisons",
        ),
        (lambda: figures.gain_per_tag(tag_gains(), tag_trends("tag")), "unknown panel 'tag'"),
    ],
)
def test_bad_input_raises_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Text and settings of users

ODD = ("Ba$$in", "a_$x^$", "A$AP & Ke$ha", r"\$ {b} %")


def odd_taggram(tags=ODD):
    probs = np.linspace(0.9, 0.1, len(tags))[None]
    return figures.taggram(probs, np.array([0.0, 1.0]), tags)


def png(figure):
    figure.savefig(picture := io.BytesIO(), dpi=50)
    return picture.getvalue()


def test_dollars_in_tags_are_drawn_as_they_are_in_every_format(tmp_path):
    figure = odd_taggram()
    figure.draw_without_rendering()
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text().rsplit(" (", 1)[0] for label in labels] == [*reversed(ODD)]
    escaped = Text(0, 0, r"A\$AP & Ke\$ha (0.37)", fontsize=8, figure=figure)
    assert labels[1].get_window_extent().width == pytest.approx(escaped.get_window_extent().width)
    for kind in ("png", "pdf", "svg"):
        figure.savefig(tmp_path / f"figure.{kind}")  # as a formula, some cannot be drawn


def test_dollars_in_tables_of_notebooks_are_shown_as_they_are():
    """All notebooks import figures, which marks tables for MathJax to leave alone."""
    html = pd.DataFrame({"tag": ["A$AP & Ke$ha"]})._repr_html_()
    assert 'class="dataframe tex2jax_ignore mathjax_ignore"' in html
    assert "<td>A$AP &amp; Ke$ha</td>" in html
    notebooks = sorted((Path(__file__).parents[1] / "notebooks").glob("0*.ipynb"))
    imports = re.compile(r"from jetatag import (\w+, )*figures")
    assert len(notebooks) == 7 and all(imports.search(path.read_text()) for path in notebooks)


def test_the_settings_of_a_users_matplotlibrc_change_no_figure():
    plain = png(odd_taggram())
    settings = {"text.usetex": True, "font.family": "serif", "axes.facecolor": "black"}
    with plt.rc_context(settings | {"savefig.bbox": "tight", "font.size": 30}):
        assert png(odd_taggram()) == plain and plt.rcParams["text.usetex"]
    with plt.rc_context({"figure.dpi": 37}):
        assert odd_taggram().dpi == 37  # the resolution stays the user's
    drawn = [each for each in vars(figures).values() if getattr(each, "__annotations__", None)]
    makers = [each for each in drawn if each.__annotations__.get("return") is Figure]
    assert len(makers) == 10 and all(hasattr(maker, "__wrapped__") for maker in makers)


def test_japanese_tags_are_drawn_in_a_font_of_the_machine_and_told_once_without_one(
    tmp_path, monkeypatch
):
    shipped = [font for font in fontManager.ttflist if matplotlib.get_data_path() in font.fname]
    assert any(font.name.startswith("Last") for font in shipped)  # it draws boxes for all signs
    gone = FontEntry(fname=str(tmp_path / "gone.ttf"), name="Gone")
    monkeypatch.setattr(fontManager, "ttflist", [*shipped, gone])
    monkeypatch.setattr(_style, "_warned", [])
    _style._other_fonts.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        boxes, again = (png(odd_taggram(("日本", "音"))) for _ in range(2))
        png(odd_taggram(("楽", "音")))  # as of the next file of a folder
    assert [str(each.message).partition(",")[0] for each in caught] == [
        "no font on this machine has the characters 日本音"
    ]
    assert boxes == again
    fontManager.addfont(written_font(tmp_path / "signs.ttf", "日本音"))
    _style._other_fonts.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert png(odd_taggram(("日本", "音"))) != boxes
        assert _style.fonts_for("a日\n") == ["DejaVu Sans", "Test Signs"]
    _style._other_fonts.cache_clear()


def test_tags_that_begin_with_an_underscore_are_in_legends():
    points, is_silence = np.random.default_rng(0).random((6, 2)), np.arange(6) < 3
    drawn = figures.maps({"map": points}, is_silence, "_silence_")
    assert drawn.legends[0].texts[1].get_text() == "\N{ZERO WIDTH SPACE}_silence_ (3 clips)"
    names = np.where(is_silence, "_a", "b")
    drawn = figures.maps({"map": np.vstack([points, [[0, 0]]])}, names, "kind", ["tag"])
    assert "_a" in {text.get_text().strip("\u200b") for text in drawn.legends[0].texts}


def written_font(path, signs):
    """A font that draws each sign as the same triangle."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((400, 800))
    pen.lineTo((800, 0))
    pen.closePath()
    names = [f"sign{number}" for number in range(len(signs))]
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap(dict(zip(map(ord, signs), names, strict=True)))
    builder.setupGlyf(dict.fromkeys([".notdef", *names], pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names], (900, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Test Signs", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path
