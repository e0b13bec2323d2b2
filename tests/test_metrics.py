"""Scores and decisions against recorded Keras values and scikit-learn; errors on bad input."""

from pathlib import Path
from statistics import harmonic_mean

import numpy as np
import pandas as pd
import pytest
from simulated import one_class_each, simulated
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    roc_auc_score,
)

from jetatag import metrics

REFERENCE = Path(__file__).parents[1] / ".." / "shared" / "reference" / "metrics.npz"


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


def test_micro_window_of_known_cases():
    labels = np.array([[1, 0], [0, 1]])
    assert metrics.micro_window(labels, labels.astype(float)) == {"roc_auc": 1.0, "pr_auc": 1.0}
    assert metrics.micro_window(labels, np.full((2, 2), 0.3))["roc_auc"] == 0.5
    # Scores between two thresholds count as equal, however well they rank.
    assert metrics.micro_window(labels, 1e-3 + 1e-3 * labels)["roc_auc"] == 0.5


def test_micro_window_pools_windows_and_tags_in_any_order(rng):
    labels, _ = simulated(rng)
    windows = rng.random((60, 3, 6)).astype(np.float32)
    cells, pooled = np.repeat(labels, 3, axis=0).reshape(-1, 1), windows.reshape(-1, 1)
    shuffle = rng.permutation(len(cells))
    shuffled = metrics.micro_window(cells[shuffle], pooled[shuffle].astype(np.float64))
    assert shuffled == pytest.approx(metrics.micro_window(labels, windows), abs=1e-12)


def test_macro_clip_equals_scikit_learn_with_ties(rng):
    labels, scores = simulated(rng)
    result = metrics.macro_clip(labels, scores)
    assert result["roc_auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert result["average_precision"] == pytest.approx(
        average_precision_score(labels, scores), abs=1e-12
    )
    assert result["n_tags_scored"] == 6 and all(type(value) is float for value in result.values())
    assert metrics.macro_clip(labels, (scores * 20).astype(np.uint8)) == result  # any numbers rank


def test_tags_that_cannot_be_scored_are_counted_and_left_out(rng):
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


def test_the_trapezoid_begins_at_precision_one_whatever_the_highest_score_is():
    labels = np.array([[0], [1], [1]])
    for scores, expected in (
        ([[0.9], [0.5], [0.1]], (0 + 1 / 2 + 1 / 2 + 2 / 3) / 4),
        ([[0.5], [0.9], [0.1]], 19 / 24),
    ):
        area = metrics.macro_clip(labels, np.array(scores))["pr_auc_trapezoid"]
        assert area == pytest.approx(expected, abs=1e-12)


# Decisions


def test_accuracy_equals_scikit_learn_and_takes_the_first_of_equal_scores(rng):
    labels, windows = one_class_each(rng)
    truth, predicted = labels.argmax(axis=1), windows[:, 0].argmax(axis=1)
    assert metrics.accuracy(labels, windows[:, 0]) == accuracy_score(truth, predicted)
    assert 0.2 < metrics.accuracy(labels, windows[:, 0]) < 0.9
    assert metrics.accuracy(np.eye(2, dtype=int), np.full((2, 2), 0.5)) == 0.5


def test_instance_based_f1_is_scikit_learns_micro_average_and_not_its_samples(rng):
    labels, scores = simulated(rng)
    thresholds = np.linspace(0.3, 0.8, 6)
    thresholds[0] = scores[0, 0]  # a score at its threshold counts
    predicted = scores >= thresholds
    value = metrics.f1_instance(labels, scores, thresholds)
    assert value == pytest.approx(f1_score(labels, predicted, average="micro"), abs=1e-12)
    samples = f1_score(labels, predicted, average="samples", zero_division=0)
    assert abs(value - samples) > 0.01
    assert metrics.f1_instance(labels * 0, scores, np.full(6, 2.0)) == 0


def test_thresholds_have_the_best_f1_and_are_the_highest_of_equals(rng):
    labels, scores = simulated(rng, n_levels=8)
    scores[:, 1] = 0.5  # all rows or none
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


def test_precision_at_k_is_the_mean_over_orders_of_tied_clips(rng):
    relevant, scores = simulated(rng, n_levels=6)
    relevant[:, 2] = 0
    precision = metrics.precision_at_k(relevant, scores)
    assert np.isnan(precision).tolist() == [query == 2 for query in range(6)]
    orders = [rng.permutation(60) for _ in range(2000)]
    for query in (0, 1, 3, 4, 5):
        found = [
            relevant[order, query][np.argsort(-scores[order, query], kind="stable")[:10]].mean()
            for order in orders
        ]
        assert precision[query] == pytest.approx(np.mean(found), abs=0.01)
    shuffled = metrics.precision_at_k(relevant[orders[0]], scores[orders[0]])
    np.testing.assert_array_equal(shuffled, precision)


def test_precision_at_k_of_known_cases():
    scores, relevant = np.array([[9], [5], [5], [5], [0]]), np.array([[0, 1, 1, 0, 1]]).T
    for dtype in (float, np.uint8):
        precise = [
            metrics.precision_at_k(relevant, scores.astype(dtype), k)[0] for k in (1, 2, 3, 4, 5)
        ]
        assert precise == pytest.approx([0, (2 / 3) / 2, (4 / 3) / 3, 2 / 4, 3 / 5])


# Calibration


def test_true_probabilities_are_calibrated_and_others_are_off_by_their_error(rng):
    probs = np.stack([rng.uniform(0, 0.1, 50_000), rng.random(50_000) * 0.8], axis=1)
    labels = rng.random(probs.shape) < probs
    table = metrics.calibration(labels, probs, ["rare", "common"])
    assert table.tag.tolist() == ["rare", "common"]
    assert (table.calibration_error < 0.01).all()
    np.testing.assert_allclose(table.mean_prob, probs.mean(axis=0))
    np.testing.assert_allclose(table.share_positive, labels.mean(axis=0))
    np.testing.assert_allclose(table.brier, (probs * (1 - probs)).mean(axis=0), atol=0.005)
    too_high = metrics.calibration(labels, probs + 0.2, ["rare", "common"])
    np.testing.assert_allclose(too_high.calibration_error, 0.2, atol=0.01)


def test_calibration_keeps_equal_probabilities_together_in_any_order():
    labels, probs = np.array([[1, 0, 1, 0, 1, 1]]).T, np.array([[0.2, 0.2, 0.2, 0.2, 0.6, 0.9]]).T
    (row,) = metrics.calibration(labels, probs, ["rock"]).to_dict("records")
    assert row["calibration_error"] == pytest.approx((4 * 0.3 + 0.4 + 0.1) / 6)
    assert row["brier"] == pytest.approx(brier_score_loss(labels[:, 0], probs[:, 0]))
    turned = metrics.calibration(labels[::-1], probs[::-1], ["rock"])
    assert turned.calibration_error[0] == pytest.approx(row["calibration_error"])


def test_the_reliability_curve_is_that_of_scikit_learn_with_counts(rng):
    labels, _ = simulated(rng)
    probs = rng.random(labels.shape) ** 2
    curve = metrics.reliability(labels, probs)
    share, mean = calibration_curve(labels.ravel(), probs.ravel(), n_bins=10)
    np.testing.assert_allclose(curve.share_positive, share)
    np.testing.assert_allclose(curve.mean_prob, mean)
    assert curve["count"].sum() == labels.size
    few = metrics.reliability(labels[:2, :1], [[0.1], [0.9]])
    assert few["count"].tolist() == [1, 1] and few.mean_prob.tolist() == [0.1, 0.9]


# Errors

LABELS, SCORES = np.array([[1, 0], [0, 1]]), np.array([[0.9, 0.1], [0.2, 0.8]])
ONCE = np.ones((1, 2))
BOTH = SCORES, SCORES[:, None]  # of clips, and of their windows
GAINS = pd.DataFrame(np.eye(5, 4), pd.MultiIndex.from_product([["clip"], range(5)]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.micro_window(LABELS, SCORES[:1]), "do not match labels"),
        (lambda: metrics.micro_window(LABELS, SCORES[None]), r"\(row, window, tag\) scores"),
        (lambda: metrics.micro_window(LABELS, SCORES * 3), "apply the sigmoid"),
        (lambda: metrics.micro_window(LABELS, SCORES[:, None] - 1, ONCE), "apply the sigmoid"),
        (lambda: metrics.micro_window(LABELS * 0, SCORES), "one class only"),
        (lambda: metrics.macro_clip(LABELS * 255, SCORES), "other than 0 and 1"),
        (lambda: metrics.macro_clip(LABELS[:0], SCORES[:0]), "non-empty"),
        (lambda: metrics.macro_clip(LABELS, SCORES * np.nan), "NaN or infinity"),
        (lambda: metrics.macro_clip(LABELS, SCORES[:, None]), r"give \(row, tag\) scores"),
        (lambda: metrics.macro_clip(LABELS * 0, SCORES), "no tag has both"),
        (lambda: metrics.macro_clip(LABELS, SCORES, np.ones((1, 3))), "for 2 rows"),
        (lambda: metrics.macro_clip(LABELS, SCORES, -ONCE), "none negative"),
        (lambda: metrics.per_tag(LABELS, SCORES, ["rock"]), "1 tag names for 2 columns"),
        (lambda: metrics.clip_weights(2, 0, seed=0), "at least 1"),
        (lambda: metrics.clip_weights(2, 5, seed=0, groups=["a", None]), "each of the 2 clips"),
        (lambda: metrics.clip_weights(2, 5, seed=0, groups=["a"]), "each of the 2 clips"),
        (lambda: metrics.accuracy(LABELS | 1, SCORES), "without exactly one class"),
        (lambda: metrics.accuracy(LABELS, SCORES * np.nan), "NaN or infinity"),
        (lambda: metrics.f1_instance(LABELS, SCORES, [0.5]), "each of the 2 tags"),
        (lambda: metrics.f1_instance(LABELS, SCORES, [0.5, np.nan]), "choose them with"),
        (lambda: metrics.choose_thresholds(LABELS, SCORES[:1]), "do not match labels"),
        (lambda: metrics.precision_at_k(LABELS, SCORES, 0), "k of at least 1"),
        (lambda: metrics.resampled(LABELS, SCORES[:, None], task="multitag"), "unknown task"),
        (lambda: metrics.mean_table([metrics.resampled(LABELS * 0, SCORES)]), "labelled clips"),
        (lambda: metrics.mean_table([]), "give at least one"),
        (lambda: metrics.difference_table([], []), "0 and 0 runs"),
        (lambda: metrics.differences(*([metrics.resampled(LABELS, s)] for s in BOTH)), "alike"),
        (lambda: metrics.calibration(LABELS, SCORES * 2, "ab"), "apply the sigmoid"),
        (lambda: metrics.calibration(LABELS, SCORES, "a"), "1 tag names for 2 columns"),
        (lambda: metrics.resampled_per_tag(LABELS, SCORES, "a"), "1 tag names for 2 columns"),
        (lambda: metrics.gain_trend(GAINS, {"a": [1, 2]}), "each of the 4 tags"),
        (lambda: metrics.interval(np.array([np.nan])), "no resample could be scored"),
        (lambda: metrics.neighbour_agreement(SCORES, LABELS, k=2), "k=2 neighbours"),
        (lambda: metrics.neighbour_agreement(SCORES[:1], LABELS), "give one per clip"),
        (lambda: metrics.gap(SCORES, SCORES[:, :1]), "must have one shape"),
        (lambda: metrics.gap(SCORES, SCORES * np.inf), "NaN or infinity"),
        (lambda: metrics.gap(SCORES, SCORES, LABELS[:1]), "give one per clip"),
        (lambda: metrics.gap(SCORES, SCORES, LABELS[[0, 0]]), "no two clips differ"),
        (lambda: metrics.tag_correlation(np.array([1, 0])), "give a non-empty"),
        (lambda: metrics.tag_semantics(SCORES, np.eye(3)), "of 2 tags"),
        (lambda: metrics.tag_semantics(SCORES, np.ones((2, 3))), "of 2 tags"),
        (lambda: metrics.mean_energy(SCORES * np.nan), "NaN or infinity"),
        (lambda: metrics.mean_energy(SCORES[0]), r"give \(row, dimension\)"),
    ],
)
def test_bad_input_raises_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
