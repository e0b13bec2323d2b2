"""Weighted figures against scikit-learn resample by resample; intervals against a known truth."""

import numpy as np
import pytest
from scipy.stats import norm
from simulated import gaussian, one_class_each, plausible_counts, simulated
from sklearn.metrics import (
    auc,
    average_precision_score,
    f1_score,
    precision_recall_curve,
    roc_auc_score,
)

from jetatag import metrics


def trapezoid_area(labels, scores, sample_weight=None):
    precision, recall, _ = precision_recall_curve(labels, scores, sample_weight=sample_weight)
    return auc(recall, precision)


EXACT = {
    "roc_auc": roc_auc_score,
    "average_precision": average_precision_score,
    "pr_auc_trapezoid": trapezoid_area,
}


def test_weighted_macro_equals_scikit_learn_on_every_resample(rng):
    labels, scores = simulated(rng, n_clips=40)
    scores[:, 2] = 0.5
    labels[:, 3], labels[:, 4], labels[:3, 4] = 0, 0, 1  # never scored, and sometimes scored
    weights = metrics.clip_weights(40, 34, seed=1)  # more than one chunk
    result = metrics.weighted_macro(labels, scores, weights)
    lost = 0
    for index, drawn in enumerate(weights):
        present = (drawn @ labels > 0) & (drawn @ (1 - labels.astype(int)) > 0)
        lost += not present[4]
        for name, metric in EXACT.items():
            tags = [
                metric(labels[:, tag], scores[:, tag], sample_weight=drawn)
                for tag in np.flatnonzero(present)
            ]
            assert result[name][index] == pytest.approx(np.mean(tags), abs=1e-12)
    assert lost  # the case of a tag that loses its positives did occur


def test_weighted_macro_takes_real_weights_and_unit_weights(rng):
    labels, scores = simulated(rng)
    weights = np.stack([np.ones(60), rng.random(60)])
    result = metrics.weighted_per_tag(labels, scores, weights)
    plain = metrics.per_tag(labels, scores, range(6))
    for name, metric in EXACT.items():
        np.testing.assert_allclose(result[name][0], plain[name], atol=1e-12)
        columns = zip(labels.T, scores.T, strict=True)
        expected = [metric(*column, sample_weight=weights[1]) for column in columns]
        np.testing.assert_allclose(result[name][1], expected, atol=1e-12)


def test_whole_numbers_rank_like_any_scores(rng):
    labels, scores = simulated(rng)
    once = np.ones((1, 60))
    plain = metrics.weighted_macro(labels, scores, once)
    assert metrics.weighted_macro(labels, (scores * 20).astype(np.uint8), once) == plain


def test_the_trapezoid_begins_at_precision_one_whatever_the_highest_score_holds():
    best_is_wrong, best_is_right = [[0.9], [0.5], [0.1]], [[0.5], [0.9], [0.1]]
    labels = np.array([[0], [1], [1]])
    for scores, by_hand in (
        (best_is_wrong, (0 + 1 / 2 + 1 / 2 + 2 / 3) / 4),
        (best_is_right, 19 / 24),
    ):
        area = metrics.macro_clip(labels, np.array(scores))["pr_auc_trapezoid"]
        assert area == pytest.approx(by_hand, abs=1e-12)


def test_weighted_micro_equals_micro_window_on_repeated_clips(rng):
    labels, _ = simulated(rng, n_clips=20)
    windows = rng.random((20, 3, 6)).astype(np.float32)
    weights = metrics.clip_weights(20, 5, seed=0)
    result = metrics.weighted_micro(labels, windows, weights)
    for index, drawn in enumerate(weights):
        clips = np.repeat(np.arange(20), drawn)
        repeated = metrics.micro_window(
            np.repeat(labels[clips], 3, axis=0), windows[clips].reshape(-1, 6)
        )
        for name, area in repeated.items():
            assert result[name][index] == pytest.approx(area, abs=1e-12)


def test_weighted_decisions_equal_the_plain_ones_on_repeated_clips(rng):
    labels, windows = one_class_each(rng, n_clips=20)
    means, thresholds = windows.mean(axis=1), rng.uniform(0.1, 0.4, size=6)
    weights = metrics.clip_weights(20, 5, seed=0)
    by_window = metrics.weighted_accuracy(labels, windows, weights)
    pooled = metrics.weighted_f1_instance(labels, means, thresholds, weights)
    for index, drawn in enumerate(weights):
        clips = np.repeat(np.arange(20), drawn)
        cells = np.repeat(labels[clips], 4, axis=0), windows[clips].reshape(-1, 6)
        assert by_window[index] == pytest.approx(metrics.accuracy(*cells), abs=1e-12)
        plain = metrics.f1_instance(labels[clips], means[clips], thresholds)
        assert pooled[index] == pytest.approx(plain, abs=1e-12)


def test_clip_weights_draw_clips_or_whole_groups():
    weights = metrics.clip_weights(50, 200, seed=3)
    assert weights.shape == (200, 50) and (weights.sum(axis=1) == 50).all()
    assert (weights == metrics.clip_weights(50, 200, seed=3)).all()
    assert (weights != metrics.clip_weights(50, 200, seed=4)).any()
    artists = np.array(["a", "b", "c", "a", "c"])
    clustered = metrics.clip_weights(5, 100, seed=0, groups=artists)
    assert (clustered[:, 0] == clustered[:, 3]).all() and (clustered[:, 2] == clustered[:, 4]).all()
    assert (clustered[:, :3].sum(axis=1) == 3).all()
    clustered = metrics.clip_weights(5, 100, seed=0, groups=["", "b", "b", "", ""])
    assert (clustered[:, 1] == clustered[:, 2]).all() and (clustered[:, 0] != clustered[:, 3]).any()
    assert (clustered[:, [0, 1, 3, 4]].sum(axis=1) == 4).all()  # who has no artist stands alone


def test_interval_known_case():
    assert metrics.interval(np.arange(101.0), level=0.9) == pytest.approx((5, 95))
    assert metrics.interval(np.array([2.0, np.nan, 2.0])) == (2.0, 2.0)
    moved = metrics.interval(np.arange(101.0), level=0.9, estimate=40.0)
    assert moved == pytest.approx((-5, 85))


def test_paired_difference_is_narrower_than_unpaired_and_has_a_sign(rng):
    labels, scores = simulated(rng, n_clips=150, n_levels=1000)
    worse = scores - 0.05 * labels
    table = metrics.paired_difference(labels, scores, worse, n_resamples=200).set_index("metric")
    row = table.loc["average_precision"]
    assert 0 < row["low"] < row["difference"] < row["high"]
    assert row["difference"] == pytest.approx(
        average_precision_score(labels, scores) - average_precision_score(labels, worse)
    )
    drawn = metrics.weighted_macro(labels, scores, metrics.clip_weights(150, 200, seed=0))
    low, high = metrics.interval(drawn["average_precision"])
    assert row["high"] - row["low"] < 0.5 * (high - low)


def test_paired_difference_of_a_run_with_itself_is_zero(rng):
    labels, scores = simulated(rng)
    table = metrics.paired_difference(labels, scores, scores, n_resamples=20)
    assert (table[["difference", "low", "high"]] == 0).all(axis=None)
    assert (table["protocol"] == "macro_clip").all()


def test_paired_difference_over_seeds_is_their_mean_and_holds_their_spread(rng):
    labels, scores = simulated(rng, n_clips=150, n_levels=1000)
    runs = np.stack([scores + 0.02 * seed * labels for seed in (-1, 0, 1)])
    base = np.stack([scores] * 3)
    table = metrics.paired_difference(labels, runs, base, n_resamples=200)
    singly = [
        metrics.paired_difference(labels, run, scores, n_resamples=200).difference for run in runs
    ]
    np.testing.assert_allclose(table.difference, np.mean(singly, axis=0), atol=1e-12)
    assert (table.low < np.min(singly, axis=0) / 2).all()
    assert (table.high > np.max(singly, axis=0) / 2).all()
    one = metrics.paired_difference(labels, runs[:1], base[:1], n_resamples=50)
    alone = metrics.paired_difference(labels, runs[0], scores, n_resamples=50)
    np.testing.assert_array_equal(one.difference, alone.difference)
    with pytest.raises(ValueError, match="2 and 3 runs cannot be paired by seed"):
        metrics.paired_difference(labels, runs[:2], base)


def test_paired_difference_of_a_multiclass_task_holds_the_accuracy(rng):
    labels, windows = one_class_each(rng)
    a, b = windows.mean(axis=1), windows[:, 0]
    table = metrics.paired_difference(labels, a, b, n_resamples=50, task="multiclass")
    row = table.set_index("metric").loc["accuracy"]
    assert row["difference"] == metrics.accuracy(labels, a) - metrics.accuracy(labels, b)
    assert row["low"] < row["difference"] < row["high"]


def test_score_table_holds_both_protocols(rng):
    labels, _ = simulated(rng)
    labels[:, 5] = 0
    windows = np.clip(rng.random((60, 4, 6)) + 0.2 * labels[:, None], 0, 1)
    table = metrics.score_table(labels, windows, n_resamples=50)
    assert list(table.columns) == [
        *("protocol", "metric", "value", "low", "high"),
        *("group_low", "group_high", "n_clips", "n_tags"),
    ]
    table = table.set_index(["protocol", "metric"])
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
    macro = metrics.macro_clip(labels[:, :5], windows.mean(axis=1)[:, :5])
    assert table.loc[("macro_clip", "roc_auc"), "value"] == pytest.approx(macro["roc_auc"])
    assert table["n_tags"].tolist() == [6, 6, 6, 5, 5, 5] and (table["n_clips"] == 60).all()
    groups = np.repeat(np.arange(6), 10)
    clustered = metrics.score_table(labels, windows, n_resamples=50, groups=groups)
    assert clustered["value"].tolist() == table["value"].tolist()
    assert clustered["low"].tolist() == table["low"].tolist()
    assert (clustered["group_low"] < clustered["value"]).all()
    assert (clustered["group_high"] > clustered["value"]).all()
    for nothing_new in (np.arange(60), [""] * 60, ["one"] * 60):
        alone = metrics.score_table(labels, windows, n_resamples=5, groups=nothing_new)
        assert alone[["group_low", "group_high"]].isna().all(axis=None)


def test_score_table_holds_the_decisions_of_its_task(rng):
    labels, windows = one_class_each(rng)
    areas = ["roc_auc", "pr_auc"], ["roc_auc", "average_precision", "pr_auc_trapezoid"]

    def figures(**options):
        table = metrics.score_table(labels, windows, n_resamples=50, **options)
        assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
        assert (table["n_tags"] == 6).all()
        assert table["protocol"].is_monotonic_decreasing  # micro_window, then macro_clip
        return table.set_index(["protocol", "metric"])["value"]

    values = figures(task="multiclass")
    assert list(values["micro_window"].index) == [*areas[0], "accuracy"]
    assert list(values["macro_clip"].index) == [*areas[1], "accuracy"]
    every_window = np.repeat(labels, 4, axis=0), windows.reshape(-1, 6)
    assert values["micro_window", "accuracy"] == metrics.accuracy(*every_window)
    assert values["macro_clip", "accuracy"] == metrics.accuracy(labels, windows.mean(axis=1))

    assert list(figures()["macro_clip"].index) == areas[1]
    thresholds = np.full(6, 0.3)
    values = figures(thresholds=thresholds)
    assert list(values["micro_window"].index) == [*areas[0], "f1_as_coded"]
    assert list(values["macro_clip"].index) == [*areas[1], "f1_instance"]
    micro = metrics.micro_window(*every_window)
    assert values["micro_window", "f1_as_coded"] == pytest.approx(metrics.f1_as_coded(micro))
    said = windows.mean(axis=1) >= 0.3
    assert values["macro_clip", "f1_instance"] == f1_score(labels, said, average="micro")


def test_runs_resampled_once_give_the_same_differences(rng):
    labels, _ = simulated(rng)
    a, b = rng.random((2, 3, 60, 4, 6))  # three seeds, four windows
    drawn = {"n_resamples": 30, "seed": 5, "groups": np.arange(60) // 4}
    at_once = metrics.paired_difference(labels, a, b, **drawn)
    each_a, each_b = ([metrics.resampled(labels, run, **drawn) for run in runs] for runs in (a, b))
    assert at_once.equals(metrics.difference_table(each_a, each_b, seed=5))
    assert at_once.protocol.tolist() == 3 * ["micro_window"] + 3 * ["macro_clip"]
    assert at_once.notna().all(axis=None)
    by_clip = metrics.paired_difference(labels, a.mean(axis=2), b.mean(axis=2), 30, 5)
    columns = ["metric", "difference", "low", "high"]
    expected = by_clip[columns].reset_index(drop=True)
    assert at_once.iloc[3:][columns].reset_index(drop=True).equals(expected)
    assert by_clip[["group_low", "group_high"]].isna().all(axis=None)
    first = [
        metrics.micro_window(np.repeat(labels, 4, axis=0), r[0].reshape(-1, 6)) for r in (a, b)
    ]
    alone = metrics.paired_difference(labels, a[:1], b[:1], 5).difference
    assert alone[0] == pytest.approx(first[0]["roc_auc"] - first[1]["roc_auc"], abs=1e-12)


# Truths known by construction

N_SETS = 100  # data sets a covered truth is counted over
ROC_OF = {d: norm.cdf(d / np.sqrt(2)) for d in (0.0, 1.0, 1.5, 2.0)}


@pytest.mark.parametrize("deviations", ROC_OF)
def test_gaussian_scores_have_the_roc_area_that_theory_gives_them(rng, deviations):
    labels, scores = gaussian(rng, n_clips=40_000, deviations=deviations)
    area = metrics.macro_clip(labels, scores)["roc_auc"]
    assert area == pytest.approx(ROC_OF[deviations], abs=0.01)


def test_the_interval_of_a_run_covers_the_truth_as_often_as_it_says(rng):
    covered = 0
    for seed in range(N_SETS):
        labels, scores = gaussian(rng, deviations=2.0)
        weights = metrics.clip_weights(200, 200, seed)
        low, high = metrics.interval(metrics.weighted_macro(labels, scores, weights)["roc_auc"])
        covered += low <= ROC_OF[2.0] <= high
    fewest, most = plausible_counts(N_SETS)
    assert fewest <= covered <= most


def test_the_interval_of_a_difference_covers_the_true_one_and_sees_that_it_is_not_zero(rng):
    truth, covered, seen = ROC_OF[2.0] - ROC_OF[1.5], 0, 0
    for seed in range(N_SETS):
        labels, noise = gaussian(rng, deviations=0)
        a, b = (noise + 0.5 * rng.normal(size=noise.shape) for _ in range(2))
        a, b = a + 2.0 * np.sqrt(1.25) * labels, b + 1.5 * np.sqrt(1.25) * labels
        row = metrics.paired_difference(labels, a, b, 200, seed).set_index("metric").loc["roc_auc"]
        covered += row.low <= truth <= row.high
        seen += row.low > 0
    fewest, most = plausible_counts(N_SETS)
    assert fewest <= covered <= most and seen > 0.75 * N_SETS


def test_clips_that_share_an_artist_need_the_interval_by_group(rng):
    """Ten clips an artist have one label and most of their noise in common."""
    artists, by_clip, by_group = np.repeat(np.arange(60), 10), 0, 0
    for seed in range(N_SETS):
        labels, scores = gaussian(rng, n_clips=60)
        labels, scores = labels[artists], scores[artists]
        scores = np.sqrt(0.9) * (scores - 1.5 * labels) + 1.5 * labels
        scores = scores + np.sqrt(0.1) * rng.normal(size=scores.shape)
        run = metrics.resampled(labels, scores, 200, seed, artists)["macro_clip", "roc_auc"]
        low, high = metrics.interval(run.loc["clip"])
        by_clip += low <= ROC_OF[1.5] <= high
        low, high = metrics.interval(run.loc["group"])
        by_group += low <= ROC_OF[1.5] <= high
    fewest, most = plausible_counts(N_SETS)
    assert by_clip < 0.7 * N_SETS and fewest <= by_group <= most


def test_weighted_precision_is_that_of_clips_drawn_again_and_again(rng):
    """A resample written out, clip by clip; few levels, so that ties fall on the last place."""
    relevant, scores = simulated(rng, n_clips=50, n_levels=7)
    relevant[:, 2], relevant[:, 3], relevant[:2, 3] = 0, 0, 1
    weights = metrics.clip_weights(50, 40, 3, groups=np.arange(50) // 5)
    result = metrics.weighted_precision(relevant, scores, weights, k=8)
    lost = 0
    for row, drawn in zip(result, weights, strict=True):
        written = np.repeat(np.arange(50), drawn)
        expected = metrics.rank_table(scores[written], relevant[written], k=8).precision_at_8
        np.testing.assert_allclose(row, expected)
        lost += np.isnan(row[3])
    assert lost and np.isnan(result[:, 2]).all()


def test_weighted_precision_by_hand():
    scores, relevant = np.array([[0.9], [0.5], [0.5], [0.1]]), np.array([[1, 0, 1, 1]]).T
    weights = np.array([[1, 1, 1, 1], [2, 1, 1, 0], [0, 2, 1, 1], [0, 0, 1, 0]])
    precise = metrics.weighted_precision(relevant, scores, weights, k=2)[:, 0]
    assert precise == pytest.approx([(1 + 1 / 2) / 2, 1, (2 / 3) / 2, 1 / 2])
    with pytest.raises(ValueError, match="1 place at least"):
        metrics.weighted_precision(relevant, scores, weights, k=0)


def test_resampled_searches_are_rank_tables_of_every_resample(rng):
    relevant, scores = simulated(rng, n_clips=40)
    relevant[:, 1] = 0  # asks for what no clip is
    kinds = np.array(["one", "one", "two", "one", "two", "none"])
    relevant[:, 5] = 0
    found = metrics.resampled_searches(
        relevant, {"own": scores, "mirror": -scores}, kinds, 5, groups=np.arange(40) // 4, k=6
    )
    assert found.index.get_level_values("drawn").value_counts().to_dict() == {
        "estimate": 1,
        "clip": 5,
        "group": 5,
    }
    assert set(found.columns.get_level_values("kind")) == {"one", "two"}
    weights = np.concatenate(
        [
            np.ones((1, 40), int),
            metrics.clip_weights(40, 5, 0),
            metrics.clip_weights(40, 5, 0, np.arange(40) // 4),
        ]
    )
    for (_, row), drawn in zip(found.iterrows(), weights, strict=True):
        written = np.repeat(np.arange(40), drawn)
        for name, sign in (("own", 1), ("mirror", -1)):
            table = metrics.rank_table(sign * scores[written], relevant[written], k=6)
            for kind in ("one", "two"):
                own = table[kinds == kind].mean()
                assert row[kind, name, "map"] == pytest.approx(own.average_precision)
                assert row[kind, name, "precision_at_6"] == pytest.approx(own.precision_at_6)
        share = relevant[written][:, kinds == "two"].mean()
        assert row["two", "random", "map"] == pytest.approx(share)


def test_resampled_means_leave_out_what_is_missing():
    values = {"a": np.array([1.0, 2.0, np.nan, 4.0]), "none": np.full(4, np.nan)}
    found = metrics.resampled_means(values, n_resamples=30, seed=1)
    assert found.loc["estimate", "a"].item() == pytest.approx(7 / 3) and found["none"].isna().all()
    for (_, mean), drawn in zip(
        found.loc["clip", "a"].items(), metrics.clip_weights(4, 30, 1), strict=True
    ):
        written = np.repeat(values["a"], drawn)
        assert mean == pytest.approx(np.nanmean(written), nan_ok=True)


@pytest.mark.parametrize("truth", [0.3, 0.6])
def test_intervals_of_a_mean_hold_the_truth(rng, truth):
    held = 0
    for seed in range(200):
        drawn = metrics.resampled_means({("a",): rng.random(80) < truth}, 200, seed)
        drawn.columns.names = ["metric"]
        row = metrics.mean_table([drawn]).iloc[0]
        held += row.low <= truth <= row.high
    low, high = plausible_counts(200, 0.94)  # a bootstrap of 80 clips is a little narrow
    assert low <= held <= high
