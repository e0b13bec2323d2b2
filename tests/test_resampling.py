"""Weighted metrics against scikit-learn in every resample; intervals against a known truth."""

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
    weights = metrics.clip_weights(40, 34, seed=1)
    result = metrics.macro_clip(labels, scores, weights)
    lost = 0
    for index, counts in enumerate(weights):
        present = (counts @ labels > 0) & (counts @ (1 - labels.astype(int)) > 0)
        lost += not present[4]
        for name, metric in EXACT.items():
            tags = [
                metric(labels[:, tag], scores[:, tag], sample_weight=counts)
                for tag in np.flatnonzero(present)
            ]
            assert result[name][index] == pytest.approx(np.mean(tags), abs=1e-12)
    assert lost  # a tag without positives did occur


def test_tag_areas_take_real_weights_and_more_resamples_than_are_in_memory_at_once(rng):
    labels, scores = simulated(rng)
    weights = np.concatenate([np.ones((1, 60)), rng.random((300, 60))])
    result = metrics.tag_areas(labels, scores, weights)
    plain = metrics.per_tag(labels, scores, range(6))
    for name, metric in EXACT.items():
        np.testing.assert_allclose(result[name][0], plain[name], atol=1e-12)
        for row in (1, 128, 300):
            columns = zip(labels.T, scores.T, strict=True)
            expected = [metric(*column, sample_weight=weights[row]) for column in columns]
            np.testing.assert_allclose(result[name][row], expected, atol=1e-12)


def test_weighted_metrics_equal_plain_ones_on_repeated_clips(rng):
    labels, windows = one_class_each(rng, n_clips=20)
    means, thresholds = windows.mean(axis=1), rng.uniform(0.1, 0.4, size=6)
    weights = metrics.clip_weights(20, 5, seed=0)
    micro = metrics.micro_window(labels, windows, weights)
    by_window = metrics.accuracy(labels, windows, weights)
    f1 = metrics.f1_instance(labels, means, thresholds, weights)
    for index, counts in enumerate(weights):
        clips = np.repeat(np.arange(20), counts)
        cells = np.repeat(labels[clips], 4, axis=0), windows[clips].reshape(-1, 6)
        assert by_window[index] == pytest.approx(metrics.accuracy(*cells), abs=1e-12)
        for name, area in metrics.micro_window(*cells).items():
            assert micro[name][index] == pytest.approx(area, abs=1e-12)
        plain = metrics.f1_instance(labels[clips], means[clips], thresholds)
        assert f1[index] == pytest.approx(plain, abs=1e-12)


def test_weighted_precision_equals_that_of_repeated_clips(rng):
    relevant, scores = simulated(rng, n_clips=50, n_levels=7)  # ties fall on the last place
    relevant[:, 2], relevant[:, 3], relevant[:2, 3] = 0, 0, 1
    weights = metrics.clip_weights(50, 40, 3, groups=np.arange(50) // 5)
    result = metrics.precision_at_k(relevant, scores, 8, weights)
    lost = 0
    for row, counts in zip(result, weights, strict=True):
        clips = np.repeat(np.arange(50), counts)
        np.testing.assert_allclose(row, metrics.precision_at_k(relevant[clips], scores[clips], 8))
        lost += np.isnan(row[3])
    assert lost and np.isnan(result[:, 2]).all()


def test_weighted_precision_of_known_cases():
    scores, relevant = np.array([[0.9], [0.5], [0.5], [0.1]]), np.array([[1, 0, 1, 1]]).T
    weights = np.array([[1, 1, 1, 1], [2, 1, 1, 0], [0, 2, 1, 1], [0, 0, 1, 0]])
    precise = metrics.precision_at_k(relevant, scores, 2, weights)[:, 0]
    assert precise == pytest.approx([(1 + 1 / 2) / 2, 1, (2 / 3) / 2, 1 / 2])


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
    assert (
        clustered[:, [0, 1, 3, 4]].sum(axis=1) == 4
    ).all()  # a clip without an artist is a group of its own


def test_interval_of_known_cases():
    assert metrics.interval(np.arange(201.0)) == pytest.approx((5, 195))
    assert metrics.interval(np.array([2.0, np.nan, 2.0])) == (2.0, 2.0)
    assert metrics.interval(np.arange(201.0), estimate=90.0) == pytest.approx((-5, 185))


def paired_difference(labels, scores_a, scores_b, n_resamples=200, seed=0, **options):
    """The differences of runs with (run, clip, …, tag) scores."""
    options |= {"n_resamples": n_resamples, "seed": seed}
    runs_a, runs_b = (
        [metrics.resampled(labels, run, **options) for run in runs] for runs in (scores_a, scores_b)
    )
    return metrics.difference_table(runs_a, runs_b, seed)


def test_paired_difference_is_narrower_than_unpaired_and_has_a_sign(rng):
    labels, scores = simulated(rng, n_clips=150, n_levels=1000)
    worse = scores - 0.05 * labels
    table = paired_difference(labels, [scores], [worse]).set_index("metric")
    row = table.loc["average_precision"]
    assert 0 < row["low"] < row["difference"] < row["high"]
    assert row["difference"] == pytest.approx(
        average_precision_score(labels, scores) - average_precision_score(labels, worse)
    )
    own = metrics.macro_clip(labels, scores, metrics.clip_weights(150, 200, seed=0))
    low, high = metrics.interval(own["average_precision"])
    assert row["high"] - row["low"] < 0.5 * (high - low)


def test_paired_difference_of_a_run_with_itself_is_zero(rng):
    labels, scores = simulated(rng)
    table = paired_difference(labels, [scores], [scores], n_resamples=20)
    assert (table[["difference", "low", "high"]] == 0).all(axis=None)
    assert (table["protocol"] == "macro_clip").all()


def test_paired_difference_over_seeds_is_their_mean_and_holds_their_spread(rng):
    labels, scores = simulated(rng, n_clips=150, n_levels=1000)
    runs = np.stack([scores + 0.02 * seed * labels for seed in (-1, 0, 1)])
    base = np.stack([scores] * 3)
    table = paired_difference(labels, runs, base)
    singly = [paired_difference(labels, [run], [scores]).difference for run in runs]
    np.testing.assert_allclose(table.difference, np.mean(singly, axis=0), atol=1e-12)
    assert (table.low < np.min(singly, axis=0) / 2).all()
    assert (table.high > np.max(singly, axis=0) / 2).all()
    with pytest.raises(ValueError, match="2 and 3 runs cannot be paired"):
        paired_difference(labels, runs[:2], base)


def test_paired_difference_of_a_multiclass_task_holds_the_accuracy(rng):
    labels, windows = one_class_each(rng)
    a, b = windows.mean(axis=1), windows[:, 0]
    table = paired_difference(labels, [a], [b], n_resamples=50, task="multiclass")
    row = table.set_index("metric").loc["accuracy"]
    assert row["difference"] == metrics.accuracy(labels, a) - metrics.accuracy(labels, b)
    assert row["low"] < row["difference"] < row["high"]


def intervals(labels, scores, **options):
    return metrics.mean_table([metrics.resampled(labels, scores, **options)])


def test_intervals_are_of_both_protocols(rng):
    labels, _ = simulated(rng)
    labels[:, 5] = 0
    windows = np.clip(rng.random((60, 4, 6)) + 0.2 * labels[:, None], 0, 1)
    table = intervals(labels, windows, n_resamples=50)
    columns = ["protocol", "metric", "value", "low", "high", "group_low", "group_high"]
    assert list(table.columns) == columns
    table = table.set_index(["protocol", "metric"])
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
    by_clip = intervals(labels, windows.mean(axis=1), n_resamples=50)
    assert by_clip["value"].tolist() == table.loc["macro_clip", "value"].tolist()
    macro = metrics.macro_clip(labels[:, :5], windows.mean(axis=1)[:, :5])
    assert table.loc[("macro_clip", "roc_auc"), "value"] == pytest.approx(macro["roc_auc"])
    groups = np.repeat(np.arange(6), 10)
    clustered = intervals(labels, windows, n_resamples=50, groups=groups)
    assert clustered["value"].tolist() == table["value"].tolist()
    assert clustered["low"].tolist() == table["low"].tolist()
    assert (clustered["group_low"] < clustered["value"]).all()
    assert (clustered["group_high"] > clustered["value"]).all()
    for ignored in (np.arange(60), [""] * 60, ["one"] * 60):
        alone = intervals(labels, windows, n_resamples=5, groups=ignored)
        assert alone[["group_low", "group_high"]].isna().all(axis=None)


def test_intervals_are_of_the_decisions_of_the_task(rng):
    labels, windows = one_class_each(rng)
    areas = ["roc_auc", "pr_auc"], ["roc_auc", "average_precision", "pr_auc_trapezoid"]

    def values_of(**options):
        table = intervals(labels, windows, n_resamples=50, **options)
        assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
        assert table["protocol"].is_monotonic_decreasing  # micro_window, then macro_clip
        return table.set_index(["protocol", "metric"])["value"]

    values = values_of(task="multiclass")
    assert list(values["micro_window"].index) == [*areas[0], "accuracy"]
    assert list(values["macro_clip"].index) == [*areas[1], "accuracy"]
    every_window = np.repeat(labels, 4, axis=0), windows.reshape(-1, 6)
    assert values["micro_window", "accuracy"] == metrics.accuracy(*every_window)
    assert values["macro_clip", "accuracy"] == metrics.accuracy(labels, windows.mean(axis=1))

    assert list(values_of()["macro_clip"].index) == areas[1]
    thresholds = np.full(6, 0.3)
    values = values_of(thresholds=thresholds)
    assert list(values["micro_window"].index) == [*areas[0], "f1_as_coded"]
    assert list(values["macro_clip"].index) == [*areas[1], "f1_instance"]
    micro = metrics.micro_window(*every_window)
    assert values["micro_window", "f1_as_coded"] == pytest.approx(metrics.f1_as_coded(micro))
    predicted = windows.mean(axis=1) >= 0.3
    assert values["macro_clip", "f1_instance"] == f1_score(labels, predicted, average="micro")


def test_differences_by_window_hold_those_by_clip(rng):
    labels, _ = simulated(rng)
    a, b = rng.random((2, 3, 60, 4, 6))  # three seeds, four windows
    options = {"n_resamples": 30, "seed": 5, "groups": np.arange(60) // 4}
    by_window = paired_difference(labels, a, b, **options)
    assert by_window.protocol.tolist() == 3 * ["micro_window"] + 3 * ["macro_clip"]
    assert by_window.notna().all(axis=None)
    by_clip = paired_difference(labels, a.mean(axis=2), b.mean(axis=2), 30, 5)
    columns = ["metric", "difference", "low", "high"]
    expected = by_clip[columns].reset_index(drop=True)
    assert by_window.iloc[3:][columns].reset_index(drop=True).equals(expected)
    assert by_clip[["group_low", "group_high"]].isna().all(axis=None)
    first = [
        metrics.micro_window(np.repeat(labels, 4, axis=0), r[0].reshape(-1, 6)) for r in (a, b)
    ]
    alone = paired_difference(labels, a[:1], b[:1], 5).difference
    assert alone[0] == pytest.approx(first[0]["roc_auc"] - first[1]["roc_auc"], abs=1e-12)


# Truths known by construction

N_SETS = 100  # data sets on which coverage is counted
ROC_OF = {d: norm.cdf(d / np.sqrt(2)) for d in (0.0, 1.0, 1.5, 2.0)}


@pytest.mark.parametrize("deviations", ROC_OF)
def test_gaussian_scores_have_the_theoretical_roc_area(rng, deviations):
    labels, scores = gaussian(rng, n_clips=40_000, deviations=deviations)
    area = metrics.macro_clip(labels, scores)["roc_auc"]
    assert area == pytest.approx(ROC_OF[deviations], abs=0.01)


def test_the_interval_of_a_run_covers_the_truth_at_its_level(rng):
    covered = 0
    for seed in range(N_SETS):
        labels, scores = gaussian(rng, deviations=2.0)
        weights = metrics.clip_weights(200, 200, seed)
        low, high = metrics.interval(metrics.macro_clip(labels, scores, weights)["roc_auc"])
        covered += low <= ROC_OF[2.0] <= high
    fewest, most = plausible_counts(N_SETS)
    assert fewest <= covered <= most


def test_the_interval_of_a_difference_covers_the_truth_and_excludes_zero(rng):
    truth, covered, excluded = ROC_OF[2.0] - ROC_OF[1.5], 0, 0
    for seed in range(N_SETS):
        labels, noise = gaussian(rng, deviations=0)
        a, b = (noise + 0.5 * rng.normal(size=noise.shape) for _ in range(2))
        a, b = a + 2.0 * np.sqrt(1.25) * labels, b + 1.5 * np.sqrt(1.25) * labels
        row = paired_difference(labels, [a], [b], seed=seed).set_index("metric").loc["roc_auc"]
        covered += row.low <= truth <= row.high
        excluded += row.low > 0
    fewest, most = plausible_counts(N_SETS)
    assert fewest <= covered <= most and excluded > 0.75 * N_SETS


def test_clips_that_share_an_artist_need_the_interval_by_group(rng):
    """The ten clips of an artist share their labels and most of their noise."""
    artists, by_clip, by_group = np.repeat(np.arange(60), 10), 0, 0
    for seed in range(N_SETS):
        labels, scores = gaussian(rng, n_clips=60)
        labels, scores = labels[artists], scores[artists]
        scores = np.sqrt(0.9) * (scores - 1.5 * labels) + 1.5 * labels
        scores = scores + np.sqrt(0.1) * rng.normal(size=scores.shape)
        run = metrics.resampled(labels, scores, n_resamples=200, seed=seed, groups=artists)
        low, high = metrics.interval(run["macro_clip", "roc_auc"].loc["clip"])
        by_clip += low <= ROC_OF[1.5] <= high
        low, high = metrics.interval(run["macro_clip", "roc_auc"].loc["group"])
        by_group += low <= ROC_OF[1.5] <= high
    fewest, most = plausible_counts(N_SETS)
    assert by_clip < 0.7 * N_SETS and fewest <= by_group <= most


def test_resampled_searches_equal_the_metrics_of_every_resample(rng):
    relevant, scores = simulated(rng, n_clips=40)
    relevant[:, [1, 5]] = 0  # queries that no clip answers
    kinds = np.array(["one", "one", "two", "one", "two", "none"])
    groups, rankings = np.arange(40) // 4, {"own": scores, "mirror": -scores}
    found = metrics.resampled_searches(relevant, rankings, kinds, 6, n_resamples=5, groups=groups)
    rows = found.index.get_level_values("drawn").value_counts().to_dict()
    assert rows == {"estimate": 1, "clip": 5, "group": 5}
    assert set(found.columns.get_level_values("kind")) == {"one", "two"}
    weights = [
        np.ones((1, 40), int),
        metrics.clip_weights(40, 5, 0),
        metrics.clip_weights(40, 5, 0, groups),
    ]
    for (_, row), counts in zip(found.iterrows(), np.concatenate(weights), strict=True):
        clips = np.repeat(np.arange(40), counts)
        for name, ranking in rankings.items():
            repeated = relevant[clips], ranking[clips]
            area = metrics.tag_areas(*repeated)["average_precision"][0]
            precision = metrics.precision_at_k(*repeated, 6)
            for kind in ("one", "two"):
                assert row[kind, name, "mean_average_precision"] == pytest.approx(
                    np.nanmean(area[kinds == kind])
                )
                expected = np.nanmean(precision[kinds == kind])
                assert row[kind, name, "precision_at_6"] == pytest.approx(expected)
        share = relevant[clips][:, kinds == "two"].mean()
        assert row["two", "random", "mean_average_precision"] == pytest.approx(share)


def test_resampled_means_leave_out_what_is_missing():
    values = {"a": np.array([1.0, 2.0, np.nan, 4.0]), "none": np.full(4, np.nan)}
    found = metrics.resampled_means(values, n_resamples=30, seed=1)
    assert found.loc["estimate", "a"].item() == pytest.approx(7 / 3) and found["none"].isna().all()
    for mean, counts in zip(found.loc["clip", "a"], metrics.clip_weights(4, 30, 1), strict=True):
        repeated = np.repeat(values["a"], counts)
        assert mean == pytest.approx(np.nanmean(repeated), nan_ok=True)


@pytest.mark.parametrize("truth", [0.3, 0.6])
def test_intervals_of_a_mean_cover_the_truth(rng, truth):
    covered = 0
    for seed in range(200):
        table = metrics.resampled_means(
            {("a",): rng.random(80) < truth}, n_resamples=200, seed=seed
        )
        table.columns.names = ["metric"]
        row = metrics.mean_table([table]).iloc[0]
        covered += row.low <= truth <= row.high
    low, high = plausible_counts(200, 0.94)  # a bootstrap of 80 clips is a little narrow
    assert low <= covered <= high
