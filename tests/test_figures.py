"""Every figure has labelled axes, shows the data given to it, and is not kept by pyplot."""

import io
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


def per_tag_tables():
    return {run: metrics.per_tag(LABELS, RNG.random((40, 5)), TAGS) for run in ("no_je", "je")}


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
    return table.rename(columns={"value": "roc_auc"}).assign(pr_auc=0.4)


def differences():
    methods = ["bce_two_stage", "je", "je_shuffled"]
    table = grid(extractor=["sample_cnn", "harmonic"], method=methods, pair_loss=LOSSES)
    table = table[(table["seed"] == 1) & ((table["method"] != "bce_two_stage") | (table.index < 3))]
    table["pair_loss"] = table["pair_loss"].where(table["method"] != "bce_two_stage")
    table = with_interval(table.assign(value=table["value"] - 0.4, metric="average_precision"))
    bounds = {"group_low": table["low"] - 0.02, "group_high": table["high"] + 0.02}
    return table.rename(columns={"value": "difference"}).assign(**bounds)


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
    return pd.DataFrame(methods).merge(steps.assign(metric="average_precision"), how="cross")


def label_shares():
    metric = ["roc_auc", "average_precision"]
    shares = grid(pair_loss=LOSSES, label_share=[0.1, 0.3, 1.0], metric=metric)
    return with_interval(shares.assign(method="je", protocol="macro_clip"))


def retrieved():
    kinds = ["one_tag", "two_tags", "tag_and_not_tag"]
    ranked = ["encoded set", "answering clips", "classifier", "combined", "random"]
    table = grid(pair_loss=LOSSES, kind=kinds, ranked_by=ranked, metric=["precision_at_10"])
    return table.assign(method="je")


def tag_spaces():
    table = grid(pair_loss=LOSSES, metric=["tag_semantics", "mean_energy"])
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
    "tag_map": lambda: figures.tag_map({"h": POINTS}, LABELS[:, 0], "rock", {"h": "0.4"}),
    "shared_space": lambda: figures.shared_space(POINTS, POINTS[:5], TAGS, ["rock"], "gap 2"),
    "scores_with_intervals": lambda: figures.scores_with_intervals(results()),
    "per_tag": lambda: figures.per_tag(per_tag_tables()),
    "tag_correlations": lambda: figures.tag_correlation(LABELS, TAGS, ["rock", "harp"], n=3),
    "published_gains": lambda: figures.published_gains(published()),
    "measured_gains": lambda: figures.measured_gains(gains()),
    "ablation": lambda: figures.ablation(differences()),
    "gain_per_tag": lambda: figures.gain_per_tag(tag_gains(), tag_trends()),
    "calibration": lambda: figures.calibration(*calibrations()),
    "label_curves": lambda: figures.label_curves(label_shares()),
    "label_curves of one metric": lambda: figures.label_curves(
        label_shares().query("metric == 'roc_auc'")
    ),
    "gains_by_steps": lambda: figures.gains_by_steps(gains_on_the_way()),
    "retrieval": lambda: figures.retrieval(retrieved()),
    "retrieval of one kind": lambda: figures.retrieval(retrieved().query("kind == 'one_tag'")),
    "semantics": lambda: figures.semantics(tag_spaces(), RELEASED),
    "curves_by_method": lambda: figures.curves_by_method(histories()),
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


def test_no_entry_of_a_legend_differs_by_colour_alone(figure):
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    for legend in legends:
        lines = [entry for entry in legend.legend_handles if isinstance(entry, Line2D)]
        forms = [
            (line.get_marker(), line.get_linestyle(), str(line.get_markerfacecolor()) == "white")
            for line in lines
        ]
        assert len(set(forms)) == len(forms)


def test_many_lines_stay_distinct_without_colour():
    looks = _style.looks(map(str, range(44))).values()
    assert len({(look["marker"], look["linestyle"]) for look in looks}) == 44


@pytest.mark.parametrize("name", ["tag_correlation", "loss_curves", "label_curves"])
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
    axes = figures.scores_with_intervals(table).axes
    assert [ax.get_xlabel() for ax in axes] == [
        *("ROC-AUC", "PR-AUC", "F1 as coded"),
        *("ROC-AUC", "average precision", "PR-AUC (trapezoid)", "instance-based F1 (micro)"),
    ]
    tops = [ax.get_subplotspec().rowspan.start for ax in axes]
    assert tops == [0, 0, 0, 1, 1, 1, 1]
    best = table.query("metric == 'f1_instance'")["value"]
    assert [line.get_xdata()[0] for line in axes[-1].lines] == best.tolist()
    fewer = figures.scores_with_intervals(table.query("metric != 'f1_instance'")).axes
    assert len(fewer) == 6


def leader_length(text):
    """Length of the line from a label to its point, in inches."""
    path = text.arrow_patch.get_transform().transform_path(text.arrow_patch.get_path())
    return np.linalg.norm(path.vertices[-1] - path.vertices[0]) / text.figure.dpi


def crowded(names):
    """A shared space with tags on a grid, 12 typographic points apart, in the middle of it."""
    grid = np.stack(np.meshgrid(range(10), range(len(names) // 10)), axis=-1).reshape(-1, 2)
    figure = figures.shared_space(np.array([[-15, -20], [25, 20]]), grid, names)
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


def test_tags_that_touch_share_one_label_but_for_stressed_ones():
    tag_xy = np.array([[0, 0], [0.001, 0], [0, 0.001], [1, 1], [0.001, 0.001]])
    tags = ["vocal", "vocals", "voice", "piano", "singing"]
    figure = figures.shared_space(POINTS, tag_xy, tags, ["singing"])
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown[0] == "singing" and sorted(shown[1:]) == ["piano", "vocal, vocals, voice"]
    collapsed = figures.shared_space(POINTS, np.zeros((20, 2)), [f"tag {i}" for i in range(20)])
    (text,) = collapsed.axes[0].texts
    expected = "tag 0, tag 1, tag 2, tag 3, tag 4, 15 more"
    assert " ".join(text.get_text().split()) == expected


def test_per_tag_sorts_by_the_first_run_and_counts_what_it_leaves_out():
    labels = LABELS * [1, 1, 1, 1, 0]
    table = metrics.per_tag(labels, RNG.random((40, 5)), TAGS)
    ax = figures.per_tag({"no_je": table}).axes[0]
    values = ax.lines[0].get_xdata()
    assert len(values) == 4 and (np.diff(values) >= 0).all()
    assert "1 tags without positive clips" in ax.get_xlabel()


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


def test_measured_gains_show_means_seeds_and_intervals_of_both_methods():
    table = gains()
    roc, pr = figures.measured_gains(table).axes
    assert row_names(roc) == ["sample_cnn", "harmonic\n(not in the paper)"]
    assert [roc.get_xlabel(), pr.get_xlabel()] == ["ROC-AUC", "PR-AUC"]
    for ax, metric in ((roc, "roc_auc"), (pr, "pr_auc")):
        shown = table[table["metric"] == metric]
        means = shown.groupby(["extractor", "method"])["value"].mean()
        for line in (line for line in ax.lines if line.get_marker() == "o"):
            method = "no_je" if line.get_markerfacecolor() == "white" else "je"
            extractor = ["harmonic", "sample_cnn"][round(line.get_ydata()[0])]
            assert line.get_xdata()[0] == pytest.approx(means.pop((extractor, method)))
        assert means.empty
        assert sorted(x for x, _ in marks(ax, "|")) == sorted(shown["value"])
        lows = shown.groupby(["extractor", "method"])["low"].mean()
        assert sorted(low for low, _ in whiskers(ax)) == pytest.approx(sorted(lows))
    named = figures.measured_gains(table.assign(protocol="macro_clip")).axes[0]
    assert named.get_xlabel() == "ROC-AUC, macro_clip"
    alone = figures.measured_gains(table.query("seed == 0"))
    assert not marks(alone.axes[0], "|")
    assert "one seed" not in [text.get_text() for text in alone.legends[0].get_texts()]


def test_published_gains_give_each_source_its_shape_and_no_whisker():
    table = published()
    roc, pr = figures.published_gains(table).axes
    for source, marker in (("paper", "o"), ("log", "s")):
        expected = table.loc[table["source"] == source, "roc_auc"]
        assert sorted(x for x, _ in marks(roc, marker)) == sorted(expected)
    assert not whiskers(roc) and pr.get_xlabel() == "PR-AUC, micro_window (published)"


def test_ablation_separates_pair_losses_from_controls():
    table = differences()
    figure = figures.ablation(table, reference="no_je_linear")
    axes = dict(zip(("sample_cnn", "harmonic"), figure.axes, strict=True))
    rows = [
        *("pair losses", "je · cosine", "je · subset_query"),
        *("controls", "bce_two_stage", "je_shuffled · cosine", "je_shuffled · subset_query"),
    ]
    assert row_names(figure.axes[0]) == rows
    for extractor, ax in axes.items():
        assert ax.get_title() == extractor
        assert ax.get_xlabel() == "average precision,\ndifference from no_je_linear"
        assert any(list(line.get_xdata()) == [0, 0] for line in ax.lines)
        drawn = {rows[::-1][round(y)]: x for x, y in marks(ax, "o") + marks(ax, "s")}
        shown = table[table["extractor"] == extractor]
        lines = map(_style.line_name, shown["method"], shown["pair_loss"])
        assert drawn == dict(zip(lines, shown["difference"], strict=True))
        bounds = shown[["group_low", "group_high"]].to_numpy().ravel()
        assert sorted(x for x, _ in marks(ax, "|")) == sorted(bounds)
    plain = figures.ablation(
        table.query("method == 'je'").drop(columns=["group_low", "group_high"])
    )
    assert row_names(plain.axes[0]) == rows[:3] and not marks(plain.axes[0], "|")


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


def test_label_curves_are_means_over_seeds_at_the_labelled_shares():
    figure = figures.label_curves(label_shares().query("pair_loss == 'cosine'"))
    roc, ap = figure.axes
    assert ap.get_ylabel() == "average precision, macro_clip"
    assert [text.get_text() for text in roc.get_xticklabels()] == ["10 %", "30 %", "100 %"]
    curve = roc.containers[0].lines[0]
    assert curve.get_xdata() == pytest.approx([0.1, 0.3, 1])
    assert curve.get_ydata() == pytest.approx([0.30, 0.34, 0.38])
    (bars,) = roc.containers[0].lines[2]
    ends = [tuple(segment[:, 1]) for segment in bars.get_segments()]
    assert np.array(ends) == pytest.approx(np.array([(0.29, 0.31), (0.33, 0.35), (0.37, 0.39)]))


def test_gains_by_steps_have_a_panel_for_each_method():
    figure = figures.gains_by_steps(gains_on_the_way())
    assert [ax.get_title() for ax in figure.axes] == ["je · cosine", "no_je_linear"]
    curve, zero = figure.axes[0].lines
    assert curve.get_xydata() == pytest.approx(np.array([(2, 0.1), (4, 0.2), (6, 0.3)]))
    (band,) = figure.axes[0].collections
    assert band.get_datalim(figure.axes[0].transData).intervaly == pytest.approx([0.05, 0.35])
    assert set(zero.get_ydata()) == {0}


def test_retrieval_shows_each_ranking_by_its_own_marker():
    table = retrieved()
    figure = figures.retrieval(table)
    assert row_names(figure.axes[0]) == ["je · cosine", "je · subset_query"]
    assert [ax.get_title() for ax in figure.axes] == ["one tag", "two tags", "tag and not tag"]
    for ax, kind in zip(figure.axes, table["kind"].unique(), strict=True):
        shown = table[table["kind"] == kind]
        for ranking, marker in zip(table["ranked_by"].unique(), "o^sDx", strict=True):
            means = shown[shown["ranked_by"] == ranking].groupby("pair_loss")["value"].mean()
            drawn = {LOSSES[::-1][round(y)]: x for x, y in marks(ax, marker)}
            assert drawn == pytest.approx(means.to_dict())
        assert sorted(x for x, _ in marks(ax, "|")) == sorted(shown["value"])


def test_retrieval_draws_a_given_mean_with_its_interval_and_no_differences():
    seeds = retrieved().assign(low=np.nan, high=np.nan)
    seeds = seeds[seeds["kind"] == "one_tag"].astype({"seed": str})
    mean = seeds.drop_duplicates(["pair_loss", "ranked_by"]).assign(seed="mean", value=0.9)
    mean = mean.assign(low=0.8, high=0.95)
    difference = mean.assign(ranked_by="encoded set − classifier", value=-0.5)
    (ax,) = figures.retrieval(pd.concat([seeds, mean, difference])).axes
    for marker in "o^sDx":
        assert [x for x, _ in marks(ax, marker)] == [0.9, 0.9]
    assert sorted(x for x, _ in marks(ax, "|")) == sorted(seeds["value"])
    assert whiskers(ax) == [(0.8, 0.95)] * 10


def test_semantics_show_both_measures_and_the_references():
    table = tag_spaces()
    figure = figures.semantics(table, RELEASED)
    assert row_names(figure.axes[0]) == [f"je · {loss}" for loss in LOSSES]
    both = pd.concat([table, table.assign(method="joint_shuffled")])  # a row of their own
    assert len(row_names(figures.semantics(both).axes[0])) == 2 * len(LOSSES)
    drawn = table.groupby(["metric", "pair_loss"])["value"].mean()
    for ax, metric in zip(figure.axes, ("tag_semantics", "mean_energy"), strict=True):
        expected = [(drawn[metric, loss], 1 - row) for row, loss in enumerate(LOSSES)]
        assert marks(ax, "o") == [pytest.approx(point) for point in expected]
        assert len(marks(ax, "|")) == 6
    lines = [
        [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"]
        for ax in figure.axes
    ]
    assert lines == [[0.03], [0.91]]
    assert figure.axes[1].get_xlabel() == "share of energy in the mean"


def test_curves_by_method_are_means_with_the_range_of_seeds():
    figure = figures.curves_by_method(histories())
    assert [ax.get_title() for ax in figure.axes] == ["stage 2: classifier", "end to end"]
    assert figure.axes[0].get_ylabel() == "average precision, validation"
    for ax in figure.axes:
        (line,), (shade,) = ax.lines, ax.collections
        assert line.get_ydata() == pytest.approx(np.arange(1, 9) / 10 + 0.01)
        edge = shade.get_paths()[0].vertices[:, 1]
        assert (edge.min(), edge.max()) == pytest.approx((0.1, 0.82))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["je · cosine", "no_je", "lowest to highest seed"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.tag_counts(LABELS, TAGS[:4], SPLITS), r"\(clip, tag\) = \(40, 4\)"),
        (lambda: figures.tag_correlation(LABELS, TAGS, "rok"), "did you mean 'rock'"),
        (lambda: figures.mel_spectrogram(POINTS, 16000), "one mono waveform"),
        (lambda: figures.loss_curves(history().drop(columns="epoch")), "lack epoch: train a run"),
        (lambda: figures.loss_curves(history()[:0]), "the epochs lack rows"),
        (lambda: figures.tag_map({"h": POINTS[:3]}, LABELS[:, 0], "rock"), "layout 'h' must be"),
        (lambda: figures.tag_map({"h": POINTS}, LABELS[:, 0], "rock", {"g": ""}), "layout title"),
        (lambda: figures.shared_space(POINTS, POINTS, TAGS), r"\(tag, 2\) = \(5, 2\)"),
        (lambda: figures.shared_space(POINTS, POINTS[:5], TAGS, ["jazz"]), "unknown tag 'jazz'"),
        (lambda: figures.scores_with_intervals(results().drop(columns="low")), "results lack low"),
        (lambda: figures.measured_gains(gains().drop(columns="low")), "gains lack low: give rows"),
        (lambda: figures.measured_gains(gains().assign(method="ej")), "unknown method"),
        (lambda: figures.measured_gains(gains().replace("je", "no_je_linear")), "choose one"),
        (lambda: figures.ablation(differences()[:0]), "differences lack rows: give rows with"),
        (lambda: figures.gain_per_tag(tag_gains().assign(frequency=40)), r"must be in \(0, 1\]"),
        (lambda: figures.gain_per_tag(tag_gains(), tag_trends("tag")), "unknown panel 'tag'"),
        (lambda: figures.gain_per_tag(tag_gains().assign(difference=np.nan)), "per tag lack rows"),
        (lambda: figures.gain_per_tag(pd.concat([tag_gains()] * 2)), "rows of several comparisons"),
        (lambda: figures.gain_per_tag(tag_gains(), pd.concat([tag_trends()] * 2)), "of several co"),
        (lambda: figures.calibration({"je": reliability()}, {}), "errors per tag of je lack tag"),
        (lambda: figures.calibration({"je": errors()}, {"je": errors()}), "bins of je lack mean_"),
        (lambda: figures.calibration({}, {}), "give at least one run"),
        (lambda: figures.label_curves(label_shares().assign(label_share=30)), "label_share must"),
        (lambda: figures.retrieval(retrieved().assign(ranked_by="randon")), "mean 'random'"),
        (lambda: figures.semantics(tag_spaces(), {"a": {"rank": 1}}), "unknown measure 'rank'"),
        (lambda: figures.curves_by_method(histories(), "loss"), "the runs lack loss: give rows"),
        (lambda: figures.curves_by_method(histories()[:24]), "with valid_average_precision lack r"),
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
    assert len(makers) == 20 and all(hasattr(maker, "__wrapped__") for maker in makers)


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
        "no font on this machine has the signs 日本音"
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
    drawn = figures.tag_map({"map": points}, is_silence, "_silence_")
    assert drawn.legends[0].texts[0].get_text() == "\N{ZERO WIDTH SPACE}_silence_"
    names = np.where(is_silence, "_a", "b")
    drawn = figures.maps({"map": np.vstack([points, [[0, 0]]])}, ["tag"], names, "kind")
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
