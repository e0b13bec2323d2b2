"""Scores against recorded Keras values and scikit-learn, resamples one by one, spaces by hand."""

from pathlib import Path
from statistics import harmonic_mean

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    auc,
    average_precision_score,
    f1_score,
    precision_recall_curve,
    roc_auc_score,
)

from jetatag import metrics

REFERENCE = Path(__file__).parents[1] / ".." / "shared" / "reference" / "metrics.npz"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def simulated(rng, n_clips=60, n_tags=6, n_levels=20):
    """Labels and informative scores in [0, 1]; few levels, so ties across both classes."""
    labels = (rng.random((n_clips, n_tags)) < 0.25).astype(np.uint8)
    scores = np.round((rng.random(labels.shape) + 0.6 * labels) / 1.6 * n_levels) / n_levels
    return labels, scores.astype(np.float32)


def one_class_each(rng, n_clips=60, n_windows=4, n_classes=6):
    """Labels of one class a clip, and softmax scores of windows that often find it."""
    kind = rng.integers(n_classes, size=n_clips)
    labels = np.eye(n_classes, dtype=np.uint8)[kind]
    raised = np.exp(rng.normal(size=(n_clips, n_windows, n_classes)) + labels[:, None])
    return labels, raised / raised.sum(axis=2, keepdims=True)


# Scores


@pytest.mark.parametrize("case", ["imbalanced", "small_ties", "tiny_probs"])
def test_both_protocols_equal_the_recorded_reference(case):
    if not REFERENCE.exists():
        pytest.skip(f"no recorded reference values at {REFERENCE}")
    saved = np.load(REFERENCE)
    labels, scores = saved[f"{case}_labels"], saved[f"{case}_preds"]
    micro, macro = metrics.micro_window(labels, scores), metrics.macro_clip(labels, scores)
    assert micro["roc_auc"] == pytest.approx(saved[f"{case}_keras_roc"], abs=1e-6)
    assert micro["pr_auc"] == pytest.approx(saved[f"{case}_keras_pr"], abs=1e-6)
    assert macro["roc_auc"] == pytest.approx(saved[f"{case}_sk_macro_roc"], abs=1e-12)
    assert macro["average_precision"] == pytest.approx(saved[f"{case}_sk_macro_ap"], abs=1e-12)


def test_micro_window_known_cases():
    labels = np.array([[1, 0], [0, 1]])
    assert metrics.micro_window(labels, labels.astype(float)) == {"roc_auc": 1.0, "pr_auc": 1.0}
    assert metrics.micro_window(labels, np.full((2, 2), 0.3))["roc_auc"] == 0.5
    # Scores between two thresholds are not told apart, however well they rank.
    assert metrics.micro_window(labels, 1e-3 + 1e-3 * labels)["roc_auc"] == 0.5


def test_micro_window_pools_cells_in_any_order(rng):
    labels, scores = simulated(rng)
    shuffle = rng.permutation(labels.size)
    pooled = metrics.micro_window(
        labels.reshape(-1, 1)[shuffle], scores.reshape(-1, 1)[shuffle].astype(np.float64)
    )
    assert pooled == pytest.approx(metrics.micro_window(labels, scores), abs=1e-12)


def test_macro_clip_equals_scikit_learn_with_ties(rng):
    labels, scores = simulated(rng)
    result = metrics.macro_clip(labels, scores)
    assert result["roc_auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert result["average_precision"] == pytest.approx(
        average_precision_score(labels, scores), abs=1e-12
    )
    assert result["n_tags_scored"] == 6 and all(type(value) is float for value in result.values())


def test_tags_that_cannot_be_scored_are_reported_and_left_out(rng):
    labels, scores = simulated(rng)
    labels[:, 1], labels[:, 4] = 0, 1
    scores[:, 0] = 0.5
    with pytest.warns(UserWarning, match="2 of 6 tags lack positive or negative rows"):
        result = metrics.macro_clip(labels, scores)
    roc, has_positives = [0, 2, 3, 5], [0, 2, 3, 4, 5]
    assert result["roc_auc"] == pytest.approx(roc_auc_score(labels[:, roc], scores[:, roc]))
    assert result["average_precision"] == pytest.approx(
        average_precision_score(labels[:, has_positives], scores[:, has_positives])
    )
    assert result["n_tags_scored"] == 5
    table = metrics.per_tag(labels, scores, list("abcdef")).set_index("tag")
    assert table.index[table["roc_auc"].isna()].tolist() == ["b", "e"]
    assert table.index[table["average_precision"].isna()].tolist() == ["b"]
    assert table["n_positive"].tolist() == labels.sum(axis=0).tolist()
    assert table.loc["a", "roc_auc"] == 0.5  # a constant score ranks nothing


# Decisions


def test_accuracy_equals_scikit_learn_and_takes_the_first_of_equal_scores(rng):
    labels, windows = one_class_each(rng)
    right, guessed = labels.argmax(axis=1), windows[:, 0].argmax(axis=1)
    assert metrics.accuracy(labels, windows[:, 0]) == accuracy_score(right, guessed)
    assert 0.2 < metrics.accuracy(labels, windows[:, 0]) < 0.9
    assert metrics.accuracy(np.eye(2, dtype=int), np.full((2, 2), 0.5)) == 0.5


def test_instance_based_f1_is_scikit_learns_micro_and_not_its_samples(rng):
    labels, scores = simulated(rng)
    thresholds = np.linspace(0.3, 0.8, 6)
    thresholds[0] = scores[0, 0]  # a score at its threshold counts
    said = scores >= thresholds
    value = metrics.f1_instance(labels, scores, thresholds)
    assert value == pytest.approx(f1_score(labels, said, average="micro"), abs=1e-12)
    samples = f1_score(labels, said, average="samples", zero_division=0)
    assert abs(value - samples) > 0.01
    assert metrics.f1_instance(labels * 0, scores, np.full(6, 2.0)) == 0


def test_thresholds_are_the_best_of_all_distinct_scores_and_the_highest_of_those(rng):
    labels, scores = simulated(rng, n_levels=8)
    scores[:, 1] = 0.5  # every row said or none
    labels[:, 2] = 0
    chosen = metrics.choose_thresholds(labels, scores)
    assert chosen.shape == (6,) and chosen.dtype == np.float64 and chosen[2] == 0.5
    for tag in (0, 1, 3, 4, 5):
        tried = np.unique(scores[:, tag])
        f1 = [f1_score(labels[:, tag], scores[:, tag] >= level) for level in tried]
        assert chosen[tag] == tried[np.flatnonzero(np.isclose(f1, np.max(f1)))[-1]]
    labels, scores = np.array([[1, 1, 0, 0]]).T, np.array([[0.9, 0.4, 0.4, 0.4]]).T
    assert metrics.choose_thresholds(labels[:3], scores[:3]) == [0.4]
    assert metrics.choose_thresholds(labels, scores) == [0.9]  # 2/3 either way


def test_f1_as_coded_is_the_harmonic_mean_of_the_two_areas(rng):
    areas = metrics.micro_window(*simulated(rng))
    assert metrics.f1_as_coded(areas) == pytest.approx(harmonic_mean(areas.values()), abs=1e-12)


# Uncertainty


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
    weights = metrics.clip_weights(40, 40, seed=1)  # more than one chunk
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


def test_the_interval_covers_the_true_value(rng):
    """Gaussian scores two deviations apart have ROC area Φ(√2) by construction."""
    truth, covered = 0.92135, 0
    for seed in range(40):
        labels = (rng.random((150, 1)) < 0.3).astype(np.uint8)
        scores = rng.normal(2.0 * labels)
        weights = metrics.clip_weights(150, 200, seed=seed)
        low, high = metrics.interval(metrics.weighted_macro(labels, scores, weights)["roc_auc"])
        covered += low <= truth <= high
    assert 33 <= covered <= 40


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


# Spaces


def test_neighbour_agreement_of_separate_and_of_shuffled_clusters(rng):
    kind = np.repeat([0, 1], 12)
    labels = np.eye(2, dtype=np.uint8)[kind]
    points = np.array([[1.0, 0.0], [0.0, 1.0]])[kind] + 0.05 * rng.normal(size=(24, 2))
    result = metrics.neighbour_agreement(points, labels, k=5)
    assert result == pytest.approx({"agreement": 1.0, "chance": 11 / 23})
    shuffled = metrics.neighbour_agreement(points, rng.permutation(labels), k=11)
    assert shuffled["agreement"] < 0.7 and shuffled["chance"] == pytest.approx(11 / 23)


def test_neighbour_agreement_is_jaccard_by_cosine_without_untagged_clips():
    points = np.array([[1.0, 0.0], [9.0, 0.1], [0.0, 1.0], [1.0, 0.0]])
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]])
    result = metrics.neighbour_agreement(points, labels, k=1)
    assert result["agreement"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert result["chance"] == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)


def test_gap_of_matched_mirrored_and_collapsed_spaces():
    z = np.eye(4)
    aligned = metrics.gap(z + 0.1 * z[::-1], z)
    assert aligned["matched"] == pytest.approx(1 / np.hypot(1, 0.1))
    assert aligned["unmatched"] == pytest.approx(4 * 0.1 / np.hypot(1, 0.1) / 12)
    assert aligned["gap"] > 3
    assert metrics.gap(-z + 0.1 * z[::-1], z)["gap"] < -3
    collapsed = np.full((4, 8), 0.3, dtype=np.float32)
    assert metrics.gap(collapsed, collapsed)["gap"] == 0


def test_gap_of_more_clips_than_are_held_at_once(rng):
    labels, _ = simulated(rng, n_clips=100, n_tags=3)  # many clips share a tag set
    z_audio, z_tag = rng.normal(size=(2, 100, 8))
    unit_audio, unit_tag = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z_audio, z_tag))
    cosine = unit_audio @ unit_tag.T
    unmatched = cosine[(labels[:, None] != labels).any(axis=2)]
    matched = np.diag(cosine).mean()
    expected = (matched - unmatched.mean()) / unmatched.std()
    result = metrics.gap(z_audio, z_tag, labels)
    assert list(result.values()) == pytest.approx([expected, matched, unmatched.mean()], abs=1e-12)


def test_gap_does_not_count_clips_with_the_same_tags_as_others():
    labels = np.array([[1, 0], [1, 0], [0, 1]])
    z = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert metrics.gap(z, z)["unmatched"] == pytest.approx(1 / 3)
    assert metrics.gap(z, z, labels)["unmatched"] == 0


def test_query_map_known_case():
    z_audio = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    relevant = np.array([[1, 0], [0, 1], [0, 1]])
    assert metrics.query_map(np.array([[2.0, 0.0], [0.0, 1.0]]), z_audio, relevant) == 1.0
    assert metrics.query_map(-z_audio[[0, 2]], z_audio, relevant) == pytest.approx(
        (1 / 3 + (1 / 2 + 2 / 3) / 2) / 2
    )
    with pytest.warns(UserWarning, match="1 of 2 queries have no relevant clip"):
        metrics.query_map(z_audio[:2], z_audio, relevant * [1, 0])


def test_tag_correlation_is_pearson_and_never_missing(rng):
    labels, _ = simulated(rng)
    expected = np.corrcoef(labels.T)
    assert metrics.tag_correlation(labels) == pytest.approx(expected, abs=1e-12)
    labels[:, 0] = 0
    correlation = metrics.tag_correlation(labels)
    assert correlation[0, 0] == 1 and not correlation[0, 1:].any()


# Refusals

LABELS, SCORES = np.array([[1, 0], [0, 1]]), np.array([[0.9, 0.1], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.micro_window(LABELS, SCORES[:1]), "must have one shape"),
        (lambda: metrics.micro_window(LABELS, SCORES * 3), "apply the sigmoid"),
        (lambda: metrics.micro_window(LABELS * 0, SCORES), "one class only"),
        (lambda: metrics.macro_clip(LABELS * 255, SCORES), "other than 0 and 1"),
        (lambda: metrics.macro_clip(LABELS[:0], SCORES[:0]), "filled"),
        (lambda: metrics.macro_clip(LABELS, SCORES * np.nan), "NaN or infinity"),
        (lambda: metrics.macro_clip(LABELS * 0, SCORES), "no tag has both"),
        (lambda: metrics.per_tag(LABELS, SCORES, ["rock"]), "1 tag names for 2 columns"),
        (lambda: metrics.clip_weights(2, 0, seed=0), "at least 1"),
        (lambda: metrics.clip_weights(2, 5, seed=0, groups=["a", None]), "none missing"),
        (lambda: metrics.clip_weights(2, 5, seed=0, groups=["a"]), "each of the 2 clips"),
        (lambda: metrics.weighted_macro(LABELS, SCORES, np.ones((1, 3))), "for 2 clips"),
        (lambda: metrics.weighted_micro(LABELS, SCORES, np.ones((1, 2))), "clip, window, tag"),
        (lambda: metrics.weighted_micro(LABELS, SCORES[:, None] - 1, np.ones((1, 2))), "sigmoid"),
        (lambda: metrics.accuracy(LABELS | 1, SCORES), "without exactly one class"),
        (lambda: metrics.accuracy(LABELS, SCORES * np.nan), "NaN or infinity"),
        (lambda: metrics.f1_instance(LABELS, SCORES, [0.5]), "each of the 2 tags"),
        (lambda: metrics.f1_instance(LABELS, SCORES, [0.5, np.nan]), "choose them with"),
        (lambda: metrics.choose_thresholds(LABELS, SCORES[:1]), "must have one shape"),
        (lambda: metrics.score_table(LABELS, SCORES[:, None], 5, task="multitag"), "unknown task"),
        (lambda: metrics.score_table(LABELS * 0, SCORES[:, None], 5), "needs more labelled clips"),
        (lambda: metrics.interval(np.array([np.nan])), "no resample could be scored"),
        (lambda: metrics.interval(np.arange(3), level=95), "between 0 and 1"),
        (lambda: metrics.neighbour_agreement(SCORES, LABELS, k=2), "k=2 neighbours"),
        (lambda: metrics.neighbour_agreement(SCORES[:1], LABELS), r"give \(2, dimension\)"),
        (lambda: metrics.gap(SCORES, SCORES[:, :1]), "must have one shape"),
        (lambda: metrics.gap(SCORES, SCORES * np.inf), "NaN or infinity"),
        (lambda: metrics.gap(SCORES, SCORES, LABELS[:1]), "give one a clip"),
        (lambda: metrics.gap(SCORES, SCORES, LABELS[[0, 0]]), "no two clips differ"),
        (lambda: metrics.query_map(SCORES[:, :1], SCORES, LABELS), "one space"),
        (lambda: metrics.tag_correlation(np.array([1, 0])), "give a filled"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
