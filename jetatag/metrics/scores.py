"""Metrics of scores: both protocols, each tag, decisions, and how far to trust probabilities.

`labels` are (clip, tag) 0/1 and `scores` (clip, tag), or (clip, window, tag) if a function says so.
Optional `weights` (resample, clip) from `clip_weights` say how often each clip counts: the result
is then (resample,), NaN where nothing can be scored, and a float without them. Shapes that do not
match, other labels, scores that are not finite and negative weights raise `ValueError`.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from jetatag.metrics import _arithmetic as arithmetic
from jetatag.metrics._checks import check_labels, check_scores, check_weights

TENTHS = np.arange(1, 10) / 10  # at which the bins of calibration meet
Weights = np.ndarray | None
Values = float | np.ndarray  # (resample,) with weights
Areas = dict[str, float] | dict[str, np.ndarray]  # by name, likewise


def micro_window(labels: np.ndarray, scores: np.ndarray, weights: Weights = None) -> Areas:
    """Return `{"roc_auc": …, "pr_auc": …}`, the areas under the curves of all (window, tag) cells.

    The protocol of Lee & Cho 2021: `tf.keras.metrics.AUC` with its defaults, thresholds 0, 1/199,
    …, 1, trapezoids for ROC and the interpolation of Davis & Goadrich 2006 for PR. With low
    probabilities, they are far below the exact areas: scores below 1/199 count alike.
    `scores` are (clip, window, tag) probabilities in [0, 1], or (row, tag) with one row per window.
    Without weights, labels of only one class raise `ValueError`.
    """
    labels, scores = check_scores(labels, scores, windows=True, probs=True)
    scores = scores.reshape(len(labels), -1, labels.shape[1])
    cells = np.broadcast_to(labels[:, None], scores.shape), scores
    roc, pr = arithmetic.threshold_areas(*cells, check_weights(weights, len(labels)))
    if weights is None and np.isnan(roc[0]):
        raise ValueError("labels hold one class only: areas need positive and negative cells.")
    return {"roc_auc": _for_weights(roc, weights), "pr_auc": _for_weights(pr, weights)}


def macro_clip(labels: np.ndarray, scores: np.ndarray, weights: Weights = None) -> Areas:
    """Return `{"roc_auc": …, "average_precision": …, "pr_auc_trapezoid": …}`, means over tags.

    The field's protocol (Won et al. 2020), with scikit-learn's areas: `pr_auc_trapezoid` is `auc`
    of its `precision_recall_curve` and too high. Tags without positives are left out of all means,
    tags without negatives of the mean ROC area. `scores` (clip, tag) are any finite numbers that
    rank, such as means over a clip's windows. Without weights, also `n_tags_scored`, the number of
    tags in the means of the PR areas, a warning if some are left out, and `ValueError` if all are.
    """
    areas = tag_areas(labels, scores, weights)
    means = {name: arithmetic.known_mean(values) for name, values in areas.items()}
    if weights is not None:
        return means
    left_out = np.isnan(areas["roc_auc"][0])
    if left_out.all():
        raise ValueError("no tag has both positive and negative rows: test on more labelled clips.")
    if left_out.any():
        lost = f"{left_out.sum()} of {len(left_out)} tags lack positive or negative rows"
        told = f"{lost} and were left out of the mean; metrics.per_tag names them."
        warnings.warn(told, stacklevel=2)
    means["n_tags_scored"] = (~np.isnan(areas["average_precision"])).sum(axis=1)
    return {name: float(mean[0]) for name, mean in means.items()}


def tag_areas(
    labels: np.ndarray, scores: np.ndarray, weights: Weights = None
) -> dict[str, np.ndarray]:
    """Return the areas of `macro_clip` for each tag, (resample, tag) float64 each; one row without
    weights. NaN if a resample has no positives (for ROC, or no negatives) of the tag."""
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
    """Return the share of windows, or rows, whose highest score (the first in a tie) is that of
    their class, which Lee & Cho 2021 report for the windows of Speech Commands. `labels` (clip,
    class) hold a single 1 per row, `scores` are (clip, window, class) or (row, class)."""
    labels, scores = check_scores(labels, scores, windows=True)
    if not (labels.sum(axis=1) == 1).all():
        raise ValueError("labels hold rows without exactly one class: accuracy is for multiclass.")
    once = check_weights(weights, len(labels))
    by_window = scores.reshape(len(labels), -1, labels.shape[1])
    right = (by_window.argmax(axis=2) == labels.argmax(axis=1)[:, None]).mean(axis=1)
    return _for_weights(arithmetic.ratio(once @ right, once.sum(axis=1), empty=np.nan), weights)


def f1_as_coded(areas: Mapping[str, float]) -> float:
    """Return the harmonic mean of `micro_window`'s `areas`, no F-score. ATOSE's code (Applied
    Sciences 13(15) 9002) calls it F1 and reports it for DCASE 2017, which uses `f1_instance`."""
    roc_auc, pr_auc = areas["roc_auc"], areas["pr_auc"]
    return 2 * roc_auc * pr_auc / (roc_auc + pr_auc)


def f1_instance(
    labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, weights: Weights = None
) -> Values:
    """Return the F-score of all (clip, tag) decisions pooled: scikit-learn's `average="micro"`.
    The evaluator of DCASE 2017 task 4 A (Mesaros et al. 2017) names this "micro average or instance
    based" and ranks by it. `scores` are means over a clip's windows. A tag is predicted at or above
    its threshold; `thresholds` (tag,) come from `choose_thresholds` on other clips, those of the
    validation split. It is 0 if there are no tags and none is predicted."""
    labels, scores = check_scores(labels, scores)
    once, thresholds = check_weights(weights, len(labels)), np.asarray(thresholds)
    if thresholds.shape != labels.shape[1:] or not np.isfinite(thresholds).all():
        needs = f"one finite number for each of the {labels.shape[1]} tags"
        raise ValueError(f"thresholds must be {needs}: choose them with metrics.choose_thresholds.")
    predicted = scores >= thresholds
    hits = (labels & predicted).sum(axis=1)
    marks = labels.sum(axis=1) + predicted.sum(axis=1)
    return _for_weights(arithmetic.ratio(2 * (once @ hits), once @ marks), weights)


def choose_thresholds(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return for each tag the threshold with the highest F-score, the highest in a tie, (tag,)
    float64; 0.5 for a tag without positives. Use the validation split, never rows to be scored."""
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
    """Return the precision of each query at rank `k` ≥ 1, (query,) or (resample, query) float64;
    NaN if no clip is relevant. `relevant` (clip, query) 0/1 says whether the clip matches the
    query, `scores` rank the clips. A clip with weight 2 fills two places. Clips tied at the last
    place fill it with their average relevance; places that a resample cannot fill count as
    misses."""
    relevant, scores = check_scores(relevant, scores)
    if k < 1:
        raise ValueError(f"precision needs k of at least 1, not {k}.")
    once = np.ascontiguousarray(check_weights(weights, len(relevant)).T, dtype=np.float64)
    columns = zip(relevant.T, scores.T.astype(np.float64), strict=True)
    hits = np.stack([arithmetic.hits_at_k(*column, once, k) for column in columns], axis=1)
    return _for_weights(np.where(once.T @ relevant > 0, hits / k, np.nan), weights)


def calibration(labels: np.ndarray, probs: np.ndarray, tags: Sequence) -> pd.DataFrame:
    """Return the calibration of each tag's probabilities, one row per tag.

    Columns: `tag`, `mean_prob`, `share_positive`, `brier` (mean squared error; Brier 1950) and the
    expected `calibration_error` (Naeini et al. 2015; Guo et al. 2017): the mean, over bins and
    weighted by their rows, of |share of positives − mean probability|. Ten bins hold equally many
    rows, equal probabilities in one bin; with few rows, a perfect model has an error above 0.
    `labels` are (row, tag) 0/1, `probs` (row, tag) in [0, 1] (else `ValueError`), `tags` the names.
    """
    labels, probs = check_scores(check_labels(labels, tags), probs, probs=True)
    probs, rows = probs.astype(np.float64), []
    edges = np.quantile(probs, TENTHS, axis=0)
    for tag, carries, prob, inner in zip(tags, labels.T, probs.T, edges.T, strict=True):
        bins = _reliability(carries, prob, inner)
        error = (bins["share_positive"] - bins["mean_prob"]).abs()
        row = {"tag": tag, "mean_prob": prob.mean(), "share_positive": carries.mean()}
        row["calibration_error"] = np.average(error, weights=bins["count"])
        rows.append({**row, "brier": ((prob - carries) ** 2).mean()})
    return pd.DataFrame(rows)


def reliability(labels: np.ndarray, probs: np.ndarray) -> pd.DataFrame:
    """Return the reliability curve of all (row, tag) cells pooled: `mean_prob`, `share_positive`
    and `count` of those of ten bins of equal width (Guo et al. 2017) that are not empty, from low
    to high. `labels` and `probs` are those of `calibration`."""
    labels, probs = check_scores(labels, probs, probs=True)
    return _reliability(labels.ravel(), probs.ravel().astype(np.float64), TENTHS)


def _reliability(carries: np.ndarray, probs: np.ndarray, inner: np.ndarray) -> pd.DataFrame:
    """The non-empty bins between `inner` edges; a probability at an edge is in the lower bin. Has
    the counts that scikit-learn's `calibration_curve` lacks."""
    cells = pd.DataFrame({"mean_prob": probs, "share_positive": carries})
    bins = cells.groupby(np.searchsorted(inner, probs, side="left"))
    return bins.mean().assign(count=bins.size()).reset_index(drop=True)


def _for_weights(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """The values of all resamples, or without weights the only one."""
    if weights is not None:
        return values
    return values[0] if values.ndim > 1 else float(values[0])
