"""Every figure comes back whole: labelled axes, the data that was given, nothing left in pyplot."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text

from jetatag import figures, metrics

TAGS = ["rock", "guitar", "techno", "slow", "harp"]
RNG = np.random.default_rng(0)
LABELS = (RNG.random((40, 5)) < [0.5, 0.4, 0.3, 0.2, 0.1]).astype(np.uint8)
SPLITS = np.repeat(["test", "train", "valid"], [10, 25, 5])
POINTS = RNG.normal(size=(40, 2))


def history():
    """Two stages of four epochs, as training writes them: columns are empty out of their stage."""
    rate = [1e-4, 1e-4, 1e-3, 1e-4]
    epochs = {"epoch": [1, 2, 3, 4], "learning_rate": rate, "loss": [4.0, 3, 2, 1]}
    stage1 = pd.DataFrame({"stage": "stage1", **epochs, "pair": 0.5, "valid_gap": [0, 1, 1, 2]})
    stage2 = pd.DataFrame({"stage": "stage2", **epochs, "valid_loss": 2.0, "valid_roc_auc": 0.7})
    return pd.concat([stage1, stage2])


def results():
    scores = RNG.random((40, 3, 5))
    runs = [("je", "cosine"), ("je", "subset_query"), ("no_je", np.nan)]
    tables = [
        metrics.score_table(LABELS, scores, n_resamples=20, thresholds=np.full(5, 0.5)).assign(
            method=method, pair_loss=loss
        )
        for method, loss in runs
    ]
    return pd.concat(tables)  # with a repeated index, as concatenation leaves it


def per_tag_tables():
    return {run: metrics.per_tag(LABELS, RNG.random((40, 5)), TAGS) for run in ("no_je", "je")}


FIGURES = {
    "tag_counts": lambda: figures.tag_counts(LABELS, TAGS, SPLITS),
    "tag_correlation": lambda: figures.tag_correlation(LABELS, TAGS, "rock", n=3),
    "mel_spectrogram": lambda: figures.mel_spectrogram(RNG.normal(size=8000) / 9, 16000, "a clip"),
    "loss_curves": lambda: figures.loss_curves(history()),
    "tag_map": lambda: figures.tag_map({"h": POINTS}, LABELS[:, 0], "rock", {"h": "0.4"}),
    "shared_space": lambda: figures.shared_space(POINTS, POINTS[:5], TAGS, ["rock"], "gap 2"),
    "scores_with_intervals": lambda: figures.scores_with_intervals(results()),
    "per_tag": lambda: figures.per_tag(per_tag_tables()),
}


@pytest.fixture(params=FIGURES)
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
    for part in (*figure.axes, *figure.legends):
        box = part.get_tightbbox()  # of what is drawn: titles, labels, ticks in view
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1
        assert frame.y0 <= box.y0 and box.y1 <= frame.y1


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


def test_a_cycle_is_no_row_of_phases():
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


def test_labels_of_crowded_landmarks_do_not_overlap():
    names = [f"tag number {i}" for i in range(12)]
    crowd = RNG.normal(size=(12, 2)) * 0.05
    figure = figures.shared_space(np.vstack([POINTS, crowd]), crowd, names)
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    assert len(boxes) == 12
    assert sum(box.count_overlaps(boxes) for box in boxes) == 12  # each meets itself alone


def test_per_tag_sorts_by_the_first_run_and_counts_what_it_leaves_out():
    labels = LABELS * [1, 1, 1, 1, 0]
    table = metrics.per_tag(labels, RNG.random((40, 5)), TAGS)
    ax = figures.per_tag({"no_je": table}).axes[0]
    values = ax.lines[0].get_xdata()
    assert len(values) == 4 and (np.diff(values) >= 0).all()
    assert "1 tags without positive clips" in ax.get_xlabel()


@pytest.mark.parametrize("method", ["umap", "tsne", "pca"])
def test_layouts_are_flat_repeatable_and_take_few_points(method):
    points = RNG.normal(size=(9, 4)).astype(np.float32)
    flat = figures.layout(points, method, seed=1)
    assert flat.shape == (9, 2) and np.isfinite(flat).all()
    assert (flat == figures.layout(points, method, seed=1)).all()


def test_tsne_keeps_separate_clusters_apart():
    kind = np.repeat([0, 1], 15)
    points = 5 * np.eye(60)[kind] + 0.1 * RNG.normal(size=(30, 60))
    flat = figures.layout(points, "tsne")
    labels = np.eye(2, dtype=int)[kind]
    assert metrics.neighbour_agreement(flat - flat.mean(axis=0), labels, k=5)["agreement"] > 0.9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.layout(POINTS, "isomap"), "unknown layout method 'isomap'"),
        (lambda: figures.layout(POINTS[:4]), "n ≥ 5"),
        (lambda: figures.tag_counts(LABELS, TAGS[:4], SPLITS), r"\(clip, tag\) = \(40, 4\)"),
        (lambda: figures.tag_correlation(LABELS, TAGS, "rok"), "did you mean 'rock'"),
        (lambda: figures.mel_spectrogram(POINTS, 16000), "one mono waveform"),
        (lambda: figures.loss_curves(history().drop(columns="epoch")), "history lacks epoch"),
        (lambda: figures.loss_curves(history()[:0]), "history lacks rows"),
        (lambda: figures.tag_map({"h": POINTS[:3]}, LABELS[:, 0], "rock"), "layout 'h' must be"),
        (lambda: figures.tag_map({"h": POINTS}, LABELS[:, 0], "rock", {"g": ""}), "layout title"),
        (lambda: figures.shared_space(POINTS, POINTS, TAGS), r"\(tag, 2\) = \(5, 2\)"),
        (lambda: figures.shared_space(POINTS, POINTS[:5], TAGS, ["jazz"]), "unknown tag 'jazz'"),
        (lambda: figures.scores_with_intervals(results().drop(columns="low")), "lack low"),
        (lambda: figures.per_tag(per_tag_tables(), "f1"), "unknown metric 'f1'"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
