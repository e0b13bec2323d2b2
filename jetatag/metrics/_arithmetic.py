"""The areas under curves, from weights and from counts, and what all figures divide by."""

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import rankdata
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

AREAS = ("roc_auc", "average_precision", "pr_auc_trapezoid")
"""The exact areas of one tag: scikit-learn's `roc_auc_score`, `average_precision_score`, and `auc`
of `precision_recall_curve`, the one that joins the curve's points by straight lines."""

N_THRESHOLDS = 200
"""Thresholds of the micro areas: the default of Keras, used by both papers."""

CHUNK = 128
"""Resamples (or rows of a similarity matrix) held at once: bounds the memory, not the result."""


def exact_areas(carries: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """The areas of one tag by scikit-learn, NaN where they do not exist."""
    areas = dict.fromkeys(AREAS, np.nan)
    if carries.any() and not carries.all():
        areas["roc_auc"] = float(roc_auc_score(carries, scores))
    if carries.any():
        precision, recall, _ = precision_recall_curve(carries, scores)
        areas["average_precision"] = float(average_precision_score(carries, scores))
        areas["pr_auc_trapezoid"] = float(auc(recall, precision))
    return areas


def steps_of(carries: np.ndarray, scores: np.ndarray) -> csr_array:
    """Sort one tag once: its clips by the steps of its curves, (3 · step + 1, clip) 0/1.

    Clips of equal score are said together, and a score that gains positives is a step: only there
    do the curves gain area. Times the clips' weights, the rows are, a third each and from the
    highest step down, the positives gained, the negatives tied with them and the negatives passed
    since the step before; the last row is the negatives below all steps.
    """
    order = np.argsort(scores)[::-1]
    ranked, hit = scores[order], carries[order]
    level = np.cumsum(np.diff(ranked, prepend=ranked[0]) != 0)
    gains = np.bincount(level, hit) > 0
    steps_above, n_steps = np.cumsum(gains) - gains, int(gains.sum())
    third = np.where(hit, 0, np.where(gains[level], 1, 2))
    row = third * n_steps + steps_above[level]
    ones, size = np.ones(len(order)), (3 * n_steps + 1, len(order))
    return csr_array((ones, (row, order)), shape=size)


def weighted_areas(weights: np.ndarray, steps: csr_array) -> np.ndarray:
    """(clip, resample) weights → (area, resample) in the order of `AREAS`; NaN if undefined."""
    counts = steps @ weights
    gained, tied, passed = counts[:-1].reshape(3, -1, weights.shape[1])  # (step, resample)
    alarms = passed + tied
    hits, false_alarms = np.cumsum(gained, axis=0), np.cumsum(alarms, axis=0)
    n_positive, n_negative = gained.sum(axis=0), alarms.sum(axis=0) + counts[-1]
    # A step's positives beat the negatives below them and tie with half of those in the step.
    beaten = (gained * (n_negative - false_alarms + tied / 2)).sum(axis=0)
    precision = ratio(hits, hits + false_alarms)
    hits_before = hits - gained
    # The curve begins at precision 1, where nothing is said.
    before = ratio(hits_before, hits_before + false_alarms - tied, empty=1.0)
    precise, sloped = (gained * precision).sum(axis=0), (gained * before).sum(axis=0)
    return np.stack(
        [
            ratio(beaten, n_positive * n_negative, empty=np.nan),
            ratio(precise, n_positive, empty=np.nan),
            ratio((precise + sloped) / 2, n_positive, empty=np.nan),
        ]
    )


def places_filled(
    relevant: np.ndarray, scores: np.ndarray, weights: np.ndarray, k: int
) -> np.ndarray:
    """How much of the first `k` places relevant clips fill, (resample,), by (clip, resample)
    weights; clips of equal score fill what is left for them in equal parts."""
    order = np.argsort(-scores, kind="stable")
    looked_at = k
    while looked_at < len(order) and weights[order[:looked_at]].sum(axis=0).min() < k:
        looked_at *= 2
    tied = np.searchsorted(-scores[order], -scores[order[:looked_at][-1]], side="right")
    first = order[:tied]
    level = np.flatnonzero(np.diff(scores[first], prepend=np.inf))
    size = np.add.reduceat(weights[first], level, axis=0)  # (level, resample)
    hits = np.add.reduceat(weights[first] * relevant[first, None], level, axis=0)
    places = np.clip(k - (np.cumsum(size, axis=0) - size), 0, size)
    return (places * ratio(hits, size)).sum(axis=0)


def bucket_counts(labels: np.ndarray, window_scores: np.ndarray) -> np.ndarray:
    """Count (2, clip, threshold) positive and negative cells between a threshold and the next.

    Keras counts a score above i/199 (never at it) as predicted at threshold i, and decides so in
    float32; threshold 0 takes every cell and threshold 1 none.
    """
    n_clips, top = len(labels), np.float32(N_THRESHOLDS - 1)
    bucket = np.ceil(window_scores.astype(np.float32) * top).astype(np.int64) - 1
    cell = np.maximum(bucket, 0) + N_THRESHOLDS * np.arange(n_clips)[:, None, None]
    carried = np.broadcast_to(labels[:, None], cell.shape)
    counts = [
        np.bincount(cell[chosen], minlength=n_clips * N_THRESHOLDS)
        for chosen in (carried, ~carried)
    ]
    return np.reshape(counts, (2, n_clips, N_THRESHOLDS))


def threshold_areas(positive: np.ndarray, negative: np.ndarray) -> dict[str, np.ndarray]:
    """Areas of (curve, threshold) bucket counts, as `tf.keras.metrics.AUC` sums them."""
    true_pos, false_pos = (
        np.cumsum(count[:, ::-1], axis=1)[:, ::-1] for count in (positive, negative)
    )
    n_positive, n_negative = true_pos[:, 0], false_pos[:, 0]
    height = (true_pos[:, :-1] + true_pos[:, 1:]) / 2
    roc = (negative[:, :-1] * height).sum(axis=1)

    # Davis & Goadrich: between thresholds, true positives grow in proportion to predictions.
    predicted = true_pos + false_pos
    gained, here, after = positive[:, :-1], predicted[:, :-1], predicted[:, 1:]
    slope = ratio(gained, here - after)
    intercept = true_pos[:, 1:] - slope * after
    growth = np.log(ratio(here, after, empty=1.0))
    precise = (slope * (gained + intercept * growth)).sum(axis=1)
    return {
        "roc_auc": ratio(roc, n_positive * n_negative, empty=np.nan),
        "pr_auc": ratio(precise, n_positive, empty=np.nan),
    }


def rank_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's, along the last axis; 0 where either is constant and so has no order."""
    x, y = (rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2 for values in (x, y))
    norm = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    return ratio((x * y).sum(axis=-1), norm)


def unit_rows(points: np.ndarray) -> np.ndarray:
    """Rows at length 1; a zero row stays zero and so has cosine 0 with everything."""
    return ratio(points, np.linalg.norm(points, axis=1, keepdims=True))


def ratio(above: np.ndarray, below: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """`above / below` in float64, and `empty` where `below` is 0."""
    above, below = np.broadcast_arrays(above, below)
    return np.divide(above, below, out=np.full(above.shape, empty), where=below != 0)


def chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
