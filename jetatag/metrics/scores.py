"""Metrics of scores: both protocols, each tag, and decisions.

`labels` are (clip, tag) 0/1 and `scores` (clip, tag), or (clip, window, tag) if a function says so.
Optional `weights` (resample, clip) say how often each clip counts in each bootstrap resample
(`clip_weights`): the result is then an array with one value per resample, NaN where nothing can be
scored. Without them, every clip counts once and the result is a float. Shapes that do not match,
labels other than 0 and 1, scores that are not finite and negative weights raise `ValueError`.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from jetatag.metrics import _arithmetic as arithmetic
from jetatag.metrics._checks import check_labels, check_scores, check_weights

Weights = np.ndarray | None
Values = float | np.ndarray  # (resample,) with weights
Areas = dict[str, float] | dict[str, np.ndarray]  # by name, likewise


def micro_window(labels: np.ndarray, scores: np.ndarray, weights: Weights = None) -> Areas:
    """Return the areas under the ROC and PR curves of all (window, tag) cells, at 200 thresholds.

    The protocol of Lee & Cho 2021: every window is scored alone, and the areas are those of
    `tf.keras.metrics.AUC` with its defaults: thresholds 0, 1/199, …, 1, trapezoids for ROC and
    the interpolation of Davis & Goadrich 2006 for PR. All scores below 1/199 fall into one bucket,
    so the areas of a model with low probabilities are far below the exact ones.

    `scores` are (clip, window, tag) probabilities in [0, 1], or (row, tag) with one row per window.
    Returns `{"roc_auc": …, "pr_auc": …}`, both in [0, 1]. Without weights, labels of only one class
    raise `ValueError`.
    """
    labels, scores = check_scores(labels, scores, windows=True, probs=True)
    if scores.ndim == 3:
        labels = np.broadcast_to(labels[:, None], scores.shape)
    n_rows = 1 if weights is None else len(labels)
    cells = labels.reshape(n_rows, -1), scores.reshape(n_rows, -1)
    counts = check_weights(weights, n_rows) @ arithmetic.bucket_counts(*cells)
    areas = arithmetic.threshold_areas(counts)
    if weights is not None:
        return areas
    if np.isnan(areas["roc_auc"][0]):
        raise ValueError("labels hold one class only: the areas need positive and negative cells.")
    return {name: float(values[0]) for name, values in areas.items()}


def macro_clip(labels: np.ndarray, scores: np.ndarray, weights: Weights = None) -> Areas:
    """Return the means over tags of scikit-learn's ROC area and of both its PR areas.

    The field's protocol (Won et al. 2020): rows are clips, scores the mean over a clip's windows.
    Average precision sums the precision at each gain of recall; `pr_auc_trapezoid` joins the points
    of the curve by lines, like `auc` of `precision_recall_curve`, and is too high. Tags without
    positives are left out of all means, tags without negatives of the mean ROC area.

    `scores` (clip, tag) are any finite numbers that rank. Returns `{"roc_auc": …,
    "average_precision": …, "pr_auc_trapezoid": …}`, and without weights `n_tags_scored`, the number
    of tags in the means of the PR areas. Without weights, a warning says how many tags are left
    out, and `ValueError` is raised if no tag can be scored.
    """
    areas = tag_areas(labels, scores, weights)
    means = {name: arithmetic.known_mean(values) for name, values in areas.items()}
    if weights is not None:
        return means
    if np.isnan(means["roc_auc"][0]):
        raise ValueError("no tag has both positive and negative rows: test on more labelled clips.")
    left_out = np.isnan(areas["roc_auc"][0])
    if left_out.any():
        warnings.warn(
            f"{left_out.sum()} of {len(left_out)} tags lack positive or negative rows and were "
            "left out of the mean; metrics.per_tag names them.",
            stacklevel=2,
        )
    n_scored = float((~np.isnan(areas["average_precision"][0])).sum())
    return {**{name: float(mean[0]) for name, mean in means.items()}, "n_tags_scored": n_scored}


def tag_areas(
    labels: np.ndarray, scores: np.ndarray, weights: Weights = None
) -> dict[str, np.ndarray]:
    """Return the areas of `macro_clip` for each tag, (resample, tag) float64 each.

    They equal scikit-learn's with `sample_weight`, including ties. NaN if a resample has no
    positives (for ROC, or no negatives) of the tag. Without weights, there is one row.
    """
    labels, scores = check_scores(labels, scores)
    weights = check_weights(weights, len(labels))
    tags = [arithmetic.curve_steps(*column) for column in zip(labels.T, scores.T, strict=True)]
    areas = []  # of a chunk, each (area, resample, tag)
    for part in arithmetic.chunks(weights):
        part = np.ascontiguousarray(part.T, dtype=np.float64)
        areas.append(np.stack([arithmetic.weighted_areas(part, steps) for steps in tags], axis=-1))
    return dict(zip(arithmetic.AREAS, np.concatenate(areas, axis=1), strict=True))


def per_tag(labels: np.ndarray, scores: np.ndarray, tags: Sequence) -> pd.DataFrame:
    """Return one row per tag: `tag` from the names `tags`, `n_positive`, and the areas of
    `macro_clip`, NaN where they do not exist."""
    areas = {name: values[0] for name, values in tag_areas(labels, scores).items()}
    labels = check_labels(labels, tags)
    return pd.DataFrame({"tag": tags, "n_positive": labels.sum(axis=0), **areas})


def accuracy(labels: np.ndarray, scores: np.ndarray, weights: Weights = None) -> Values:
    """Return the share of windows, or rows, whose highest score is that of their class.

    `labels` (clip, class) hold a single 1 per row, `scores` are (clip, window, class) or (row,
    class). Lee & Cho 2021 report it for the single windows of Speech Commands. Of equal scores, the
    first column counts as the highest.
    """
    labels, scores = check_scores(labels, scores, windows=True)
    if not (labels.sum(axis=1) == 1).all():
        raise ValueError("labels hold rows without exactly one class: accuracy is for multiclass.")
    once = check_weights(weights, len(labels))
    by_window = scores.reshape(len(labels), -1, labels.shape[1])
    right = (by_window.argmax(axis=2) == labels.argmax(axis=1)[:, None]).mean(axis=1)
    return _for_weights(arithmetic.ratio(once @ right, once.sum(axis=1), empty=np.nan), weights)


def f1_as_coded(areas: Mapping[str, float]) -> float:
    """Return the harmonic mean of `micro_window`'s two areas, which is not an F-score.

    The code of ATOSE (Applied Sciences 13(15) 9002) calls it F1 and reports it for DCASE 2017; the
    measure of that challenge is `f1_instance`. `areas` holds `roc_auc` and `pr_auc`: numbers, or
    arrays of one shape.
    """
    roc_auc, pr_auc = areas["roc_auc"], areas["pr_auc"]
    return 2 * roc_auc * pr_auc / (roc_auc + pr_auc)


def f1_instance(
    labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, weights: Weights = None
) -> Values:
    """Return the F-score of all (clip, tag) decisions pooled: scikit-learn's `average="micro"`.

    A tag is predicted where the score is at or above the tag's threshold. Hits, false alarms and
    misses are summed over all clips and tags, then F = 2 hits / (2 hits + false alarms + misses).
    The evaluator of DCASE 2017 task 4 A (Mesaros et al. 2017) names this "micro average or
    instance based" and ranks by it; it is not the mean over clips of each clip's own F-score
    (`average="samples"`). It is 0 if there are no tags and none is predicted.

    `scores` are means over a clip's windows; `thresholds` (tag,) come from `choose_thresholds` on
    other clips, those of the validation split.
    """
    labels, scores = check_scores(labels, scores)
    once, thresholds = check_weights(weights, len(labels)), np.asarray(thresholds)
    if thresholds.shape != labels.shape[1:] or not np.isfinite(thresholds).all():
        raise ValueError(
            f"thresholds {thresholds.shape} must be one finite number for each of the "
            f"{labels.shape[1]} tags: choose them with metrics.choose_thresholds."
        )
    predicted = scores >= thresholds
    hits = (labels & predicted).sum(axis=1)
    marks = labels.sum(axis=1) + predicted.sum(axis=1)
    return _for_weights(arithmetic.ratio(2 * (once @ hits), once @ marks), weights)


def choose_thresholds(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return for each tag the threshold with the highest F-score on these rows, (tag,) float64.

    Every distinct score is tried. Of equally good thresholds, the highest is chosen, which predicts
    the tag least often; a tag without positives gets 0.5. Use the validation split, never the rows
    to be scored.
    """
    labels, scores = check_scores(labels, scores)
    order = np.argsort(-scores.astype(np.float64), axis=0)
    ranked = np.take_along_axis(scores, order, axis=0)
    hits = np.cumsum(np.take_along_axis(labels, order, axis=0), axis=0)
    n_predicted = np.arange(1, len(labels) + 1)[:, None]
    f1 = 2 * hits / (n_predicted + hits[-1])
    f1[:-1][ranked[:-1] == ranked[1:]] = -1.0  # rows with equal scores pass a threshold together
    best = np.take_along_axis(ranked, f1.argmax(axis=0)[None], axis=0)[0]
    return np.where(labels.any(axis=0), best, 0.5).astype(np.float64)


def precision_at_k(
    relevant: np.ndarray, scores: np.ndarray, k: int = 10, weights: Weights = None
) -> np.ndarray:
    """Return the precision of each query in its first `k` ≥ 1 places, (query,) or (resample, query)
    float64; NaN if no clip is relevant.

    `relevant` (clip, query) 0/1 says whether the clip matches the query, `scores` rank the clips. A
    clip with weight 2 fills two places. Clips tied at the last place fill the remaining places with
    their average relevance, the mean over all their orders; places that a resample cannot fill
    count as misses.
    """
    relevant, scores = check_scores(relevant, scores)
    if k < 1:
        raise ValueError(f"precision needs k of at least 1, not {k}.")
    once = np.ascontiguousarray(check_weights(weights, len(relevant)).T, dtype=np.float64)
    columns = zip(relevant.T, scores.T.astype(np.float64), strict=True)
    hits = np.stack([arithmetic.hits_at_k(*column, once, k) for column in columns], axis=1)
    return _for_weights(np.where(once.T @ relevant > 0, hits / k, np.nan), weights)


def _for_weights(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """The values of all resamples, or without weights the only one."""
    if weights is not None:
        return values
    return values[0] if values.ndim > 1 else float(values[0])
