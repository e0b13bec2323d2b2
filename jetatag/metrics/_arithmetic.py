"""Areas under curves from weights and counts, and small shared arithmetic."""

import math

import numpy as np
from scipy.sparse import csr_array

AREAS = ("roc_auc", "average_precision", "pr_auc_trapezoid")
N_THRESHOLDS = 200  # of the micro areas: the default of Keras, used by both papers
CHUNK = 128  # resamples, or rows of a similarity matrix, in memory at once


def curve_steps(carries: np.ndarray, scores: np.ndarray) -> csr_array:
    """Sort the clips of one tag once; scikit-learn would sort for every resample, 540 times slower.
    Each score of positives is a step, since only there the areas grow. The result, a
    (3 · step + 1, clip) 0/1 matrix, times the clips' weights gives, from the highest step down, the
    positives of each step, then the negatives with the same score, then the negatives since the
    step before; the last row gives the negatives below all steps."""
    order = np.argsort(scores)[::-1]
    ranked, hit = scores[order], carries[order]
    level = np.cumsum(np.diff(ranked, prepend=ranked[0]) != 0)
    gains = np.bincount(level, hit) > 0
    steps_above, n_steps = np.cumsum(gains) - gains, int(gains.sum())
    third = np.where(hit, 0, np.where(gains[level], 1, 2))
    row = third * n_steps + steps_above[level]
    return csr_array((np.ones(len(order)), (row, order)), shape=(3 * n_steps + 1, len(order)))


def weighted_areas(weights: np.ndarray, steps: csr_array) -> np.ndarray:
    """(clip, resample) weights → (area, resample) in the order of `AREAS`; NaN if undefined."""
    counts = steps @ weights
    gained, tied, passed = counts[:-1].reshape(3, -1, weights.shape[1])  # (step, resample)
    alarms = passed + tied
    hits, false_alarms = np.cumsum(gained, axis=0), np.cumsum(alarms, axis=0)
    n_positive, n_negative = gained.sum(axis=0), alarms.sum(axis=0) + counts[-1]
    # The positives of a step beat the negatives below them and tie with half of those beside them.
    beaten = (gained * (n_negative - false_alarms + tied / 2)).sum(axis=0)
    precision = ratio(hits, hits + false_alarms)
    # The curve begins at precision 1, where nothing is predicted.
    before = ratio(hits - gained, hits - gained + false_alarms - tied, empty=1.0)
    stepped, sloped = (gained * precision).sum(axis=0), (gained * before).sum(axis=0)
    roc = ratio(beaten, n_positive * n_negative, empty=np.nan)
    return np.stack([roc, *ratio([stepped, (stepped + sloped) / 2], n_positive, empty=np.nan)])


def hits_at_k(relevant: np.ndarray, scores: np.ndarray, weights: np.ndarray, k: int) -> np.ndarray:
    """How many of the first `k` places hold relevant clips, (resample,), for (clip, resample)
    weights; clips with equal scores share the remaining places equally. scikit-learn has no
    precision at k."""
    order = np.argsort(-scores, kind="stable")
    n_read = k
    while n_read < len(order) and weights[order[:n_read]].sum(axis=0).min() < k:
        n_read *= 2
    tied = np.searchsorted(-scores[order], -scores[order[:n_read][-1]], side="right")
    first = order[:tied]
    level = np.flatnonzero(np.diff(scores[first], prepend=np.inf))
    size = np.add.reduceat(weights[first], level, axis=0)  # (level, resample)
    hits = np.add.reduceat(weights[first] * relevant[first, None], level, axis=0)
    places = np.clip(k - (np.cumsum(size, axis=0) - size), 0, size)
    return (places * ratio(hits, size)).sum(axis=0)


def threshold_areas(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """ROC and PR area, (2, resample), of all cells of (row, window, tag) labels and scores, as in
    `tf.keras.metrics.AUC`, but for all resamples at once; `weights` (resample, row). Keras counts a
    score strictly above i/199, in float32, as predicted at threshold i; all cells pass the first
    threshold and none the last."""
    bucket = np.ceil(scores.astype(np.float32) * np.float32(N_THRESHOLDS - 1)).astype(np.int64) - 1
    shape = (len(labels), N_THRESHOLDS)
    cell = np.maximum(bucket, 0) + N_THRESHOLDS * np.arange(len(labels))[:, None, None]
    counts = [np.bincount(cell[chosen], minlength=math.prod(shape)) for chosen in (labels, ~labels)]
    # Positive and negative cells between one threshold and the next, (2, resample, threshold):
    counts = weights @ np.reshape(counts, (2, *shape)).astype(np.float64)
    gained, passed = counts[:, :, :-1]
    true_pos, false_pos = np.cumsum(counts[:, :, ::-1], axis=2)[:, :, ::-1]
    n_positive, n_negative = true_pos[:, 0], false_pos[:, 0]
    roc = (passed * ((true_pos[:, :-1] + true_pos[:, 1:]) / 2)).sum(axis=1)
    # Davis & Goadrich: between thresholds, true positives grow in proportion to predictions.
    here, after = (true_pos + false_pos)[:, :-1], (true_pos + false_pos)[:, 1:]
    slope = ratio(gained, here - after)
    intercept = true_pos[:, 1:] - slope * after
    pr = (slope * (gained + intercept * np.log(ratio(here, after, empty=1.0)))).sum(axis=1)
    return ratio([roc, pr], [n_positive * n_negative, n_positive], empty=np.nan)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row (SciPy has it since 1.17 only), 0 if one is constant."""
    from scipy.stats import rankdata  # loading it takes longer than the rest of SciPy

    x, y = (rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2 for values in (x, y))
    norm = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    return ratio((x * y).sum(axis=-1), norm)


def unit_rows(points: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; a zero row stays zero, so its cosine is 0 with every row."""
    return ratio(points, np.linalg.norm(points, axis=1, keepdims=True))


def ratio(above: np.ndarray, below: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """`above / below` in float64, and `empty` where `below` is 0."""
    above, below = np.broadcast_arrays(above, below)
    return np.divide(above, below, out=np.full(above.shape, empty), where=below != 0)


def known_mean(values: np.ndarray) -> np.ndarray:
    """(resample, tag) → (resample,) means of the values that are not NaN; NaN where all are."""
    return ratio(np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1), empty=np.nan)


def chunks(rows: np.ndarray) -> list[np.ndarray]:
    return np.split(rows, range(CHUNK, len(rows), CHUNK))
