"""The areas under curves, from weights and from counts, and what all figures divide by."""

from collections.abc import Iterator

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

N_THRESHOLDS = 200
"""Thresholds of the micro areas: the default of Keras, used by both papers."""

CHUNK = 32
"""Resamples (or rows of a similarity matrix) held at once: bounds the memory, not the result."""


def exact_areas(carries: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Both areas of one tag by scikit-learn, NaN where they do not exist."""
    two_classes = carries.any() and not carries.all()
    return {
        "roc_auc": float(roc_auc_score(carries, scores)) if two_classes else np.nan,
        "average_precision": (
            float(average_precision_score(carries, scores)) if carries.any() else np.nan
        ),
    }


def ranking(carries: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, ...]:
    """Sort one tag once: what `weighted_areas` needs besides the weights.

    Clips of equal score form one step of the curve. Only steps that gain positives add area;
    they begin and end at `steps` (2, step) in descending `order`, and at `found` (2, step) among
    the positives alone, which are the clips `positives`.
    """
    order = np.argsort(-scores, kind="stable")
    edges = np.flatnonzero(np.diff(scores[order], prepend=np.inf, append=-np.inf))
    found = np.concatenate([[0], np.cumsum(carries[order])])[edges]
    gains = np.diff(found) > 0
    steps, found = (np.stack([at[:-1][gains], at[1:][gains]]) for at in (edges, found))
    return order, order[carries[order]], steps, found


def weighted_areas(
    weights: np.ndarray,
    order: np.ndarray,
    positives: np.ndarray,
    steps: np.ndarray,
    found: np.ndarray,
) -> np.ndarray:
    """(resample, clip) weights → (2, resample): ROC area, average precision; NaN if undefined."""
    drawn, hits = running_sum(weights[:, order]), running_sum(weights[:, positives])
    (drawn_before, drawn_after), (hits_before, hits_after) = drawn[:, steps.T].T, hits[:, found.T].T
    n_positive = hits[:, -1]
    n_negative = drawn[:, -1] - n_positive
    gained = hits_after - hits_before  # (step, resample)
    # A step's positives beat the negatives below them and tie with half of those in the step.
    false_alarms = (drawn_before + drawn_after - hits_before - hits_after) / 2
    beaten = (gained * (n_negative - false_alarms)).sum(axis=0)
    precise = (gained * ratio(hits_after, drawn_after)).sum(axis=0)
    return np.stack(
        [
            ratio(beaten, n_positive * n_negative, empty=np.nan),
            ratio(precise, n_positive, empty=np.nan),
        ]
    )


def running_sum(weights: np.ndarray) -> np.ndarray:
    """(resample, clip) → (resample, clip + 1): the sum of the first 0, 1, … clips."""
    sums = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


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


def unit_rows(points: np.ndarray) -> np.ndarray:
    """Rows at length 1; a zero row stays zero and so has cosine 0 with everything."""
    return ratio(points, np.linalg.norm(points, axis=1, keepdims=True))


def ratio(above: np.ndarray, below: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """`above / below` in float64, and `empty` where `below` is 0."""
    above, below = np.broadcast_arrays(above, below)
    return np.divide(above, below, out=np.full(above.shape, empty), where=below != 0)


def chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
