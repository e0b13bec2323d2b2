"""Figures for each of many weightings of the clips, and the intervals that come of them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jetatag.metrics._arithmetic import (
    AREAS,
    bucket_counts,
    chunks,
    places_filled,
    ratio,
    steps_of,
    threshold_areas,
    weighted_areas,
)
from jetatag.metrics._checks import (
    check_probabilities,
    checked,
    checked_weights,
    checked_windows,
    group_codes,
)


def clip_weights(
    n_clips: int, n_resamples: int, seed: int, groups: Sequence | None = None
) -> np.ndarray:
    """Return how often each clip is drawn in each bootstrap resample.

    Without `groups`, `n_clips` clips are drawn with replacement (Efron 1979). With them, whole
    groups are drawn, as many as there are, and a clip counts as often as its group: the
    clustered bootstrap (Field & Welsh 2007), for clips that share an artist are not independent.

    Parameters
    ----------
    n_clips, n_resamples : positive counts
    seed : of `numpy.random.default_rng`
    groups : (clip,) any labels without missing values, for example artists; an empty one stands
        for a clip of its own

    Returns
    -------
    (resample, clip) int64 counts.

    Raises
    ------
    ValueError
        On counts below 1, or groups that are missing or not one a clip.
    """
    if n_clips < 1 or n_resamples < 1:
        raise ValueError("n_clips and n_resamples must be at least 1 to draw a resample.")
    codes = np.arange(n_clips) if groups is None else group_codes(groups, n_clips)
    n_groups = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples)
    return drawn if groups is None else drawn[:, codes]


def draws(
    n_clips: int, n_resamples: int, seed: int, groups: Sequence | None = None
) -> tuple[np.ndarray, pd.MultiIndex]:
    """(row, clip) weights, the clips as they are above those of `clip_weights`, and for each row
    how it is drawn and its number."""
    drawn = {
        "estimate": np.ones((1, n_clips), np.int64),
        "clip": clip_weights(n_clips, n_resamples, seed),
    }
    if groups is not None and 1 < group_codes(groups, n_clips).max() + 1 < n_clips:
        drawn["group"] = clip_weights(n_clips, n_resamples, seed, groups)
    how = np.repeat(list(drawn), [len(weights) for weights in drawn.values()])
    number = np.concatenate([np.arange(len(weights)) for weights in drawn.values()])
    rows = pd.MultiIndex.from_arrays([how, number], names=["drawn", "resample"])
    return np.concatenate(list(drawn.values())), rows


def run_shares(n_runs: int, n_resamples: int, seed: int) -> np.ndarray:
    """(1 + resample, run) shares of each run in a mean: all alike, then as they are drawn beside
    `clip_weights` of the same seed."""
    return draws(n_runs, n_resamples, seed + 1)[0] / n_runs


def weighted_per_tag(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return `per_tag`'s areas for each row of clip weights.

    Exact, ties included: they equal scikit-learn's with `sample_weight`. Each tag is sorted once;
    what a resample then needs are sums of its weights between the steps of the curves.

    Parameters
    ----------
    labels : (clip, tag) 0/1
    scores : (clip, tag), any finite numbers that rank
    weights : (resample, clip) counts, as from `clip_weights`

    Returns
    -------
    `{"roc_auc": …, "average_precision": …, "pr_auc_trapezoid": …}`, each (resample, tag) float64;
    NaN where the resample leaves the tag no positives (for ROC: or no negatives).

    Raises
    ------
    ValueError
        As `macro_clip`, and on weights that are negative or not one a clip.
    """
    labels, scores = checked(labels, scores)
    weights = checked_weights(weights, len(labels))
    tags = [steps_of(*column) for column in zip(labels.T, scores.T, strict=True)]
    areas = []  # of a chunk, each (area, resample, tag)
    for drawn in chunks(weights):
        drawn = np.ascontiguousarray(drawn.T, dtype=np.float64)
        areas.append(np.stack([weighted_areas(drawn, steps) for steps in tags], axis=-1))
    return dict(zip(AREAS, np.concatenate(areas, axis=1), strict=True))


def weighted_macro(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return `macro_clip`'s means over tags for each row of clip weights.

    A tag that a resample leaves without positives (for ROC: or negatives) is left out of that
    resample's mean; a resample without any such tag is missing (NaN).

    Parameters
    ----------
    labels, scores, weights : as `weighted_per_tag`

    Returns
    -------
    `{"roc_auc": …, "average_precision": …, "pr_auc_trapezoid": …}`, each (resample,) float64.

    Raises
    ------
    ValueError
        As `weighted_per_tag`.
    """
    means = {}
    for name, areas in weighted_per_tag(labels, scores, weights).items():
        n_scored = (~np.isnan(areas)).sum(axis=1)
        means[name] = ratio(np.nansum(areas, axis=1), n_scored, empty=np.nan)
    return means


def weighted_precision(
    relevant: np.ndarray, scores: np.ndarray, weights: np.ndarray, k: int = 10
) -> np.ndarray:
    """Return each query's precision in its first `k` places for each row of clip weights.

    A clip that is drawn twice fills two places. Of clips tied at the last place as many places are
    filled with their average relevance, which is the mean over all orders of them; places that a
    resample cannot fill count as misses.

    Parameters
    ----------
    relevant : (clip, query) 0/1, whether the clip answers the query
    scores : (clip, query), any finite numbers that rank
    weights : (resample, clip) counts, as from `clip_weights`
    k : places, 1 at least

    Returns
    -------
    (resample, query) float64, NaN where the resample holds no relevant clip.

    Raises
    ------
    ValueError
        As `weighted_per_tag`, and for k below 1.
    """
    relevant, scores = checked(relevant, scores)
    weights = checked_weights(weights, len(relevant))
    if k < 1:
        raise ValueError(f"precision needs 1 place at least, not {k}.")
    drawn = np.ascontiguousarray(weights.T, dtype=np.float64)
    columns = zip(relevant.T, scores.T, strict=True)
    found = np.stack([places_filled(*column, drawn, k) for column in columns], axis=1)
    return np.where(weights @ relevant.astype(np.float64) > 0, found / k, np.nan)


def weighted_micro(
    labels: np.ndarray, window_scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return `micro_window`'s two areas for each row of clip weights.

    The areas need only the number of positive and negative cells between thresholds; these are
    counted once a clip, and a resample is a weighted sum of such counts.

    Parameters
    ----------
    labels : (clip, tag) 0/1
    window_scores : (clip, window, tag) probabilities in [0, 1]
    weights : (resample, clip) counts, as from `clip_weights`

    Returns
    -------
    `{"roc_auc": (resample,), "pr_auc": (resample,)}` float64, NaN where a resample holds one
    class only.

    Raises
    ------
    ValueError
        As `micro_window`, and on weights that are negative or not one a clip.
    """
    labels, window_scores = checked_windows(labels, window_scores)
    check_probabilities(window_scores)
    weights = checked_weights(weights, len(labels))
    positive, negative = bucket_counts(labels, window_scores).astype(np.float64)
    return threshold_areas(weights @ positive, weights @ negative)


def weighted_accuracy(
    labels: np.ndarray, window_scores: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the `accuracy` of single windows for each row of clip weights.

    The accuracy of whole clips is that of one window a clip, the mean.

    Parameters
    ----------
    labels : (clip, class) 0/1 with one 1 a row
    window_scores : (clip, window, class), any finite numbers that rank
    weights : (resample, clip) counts, as from `clip_weights`

    Returns
    -------
    (resample,) float64, NaN where a resample is empty.

    Raises
    ------
    ValueError
        As `accuracy`, and on weights that are negative or not one a clip.
    """
    labels, window_scores = checked_windows(labels, window_scores)
    weights = checked_weights(weights, len(labels))
    if not (labels.sum(axis=1) == 1).all():
        raise ValueError("labels hold rows without exactly one class: accuracy is for multiclass.")
    right = (window_scores.argmax(axis=2) == labels.argmax(axis=1)[:, None]).mean(axis=1)
    return ratio(weights @ right, weights.sum(axis=1), empty=np.nan)


def weighted_f1_instance(
    labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return `f1_instance` for each row of clip weights.

    Parameters
    ----------
    labels, scores, thresholds : as `f1_instance`
    weights : (resample, clip) counts, as from `clip_weights`

    Returns
    -------
    (resample,) float64.

    Raises
    ------
    ValueError
        As `f1_instance`, and on weights that are negative or not one a clip.
    """
    labels, scores = checked(labels, scores)
    weights = checked_weights(weights, len(labels))
    thresholds = np.asarray(thresholds)
    if thresholds.shape != labels.shape[1:] or not np.isfinite(thresholds).all():
        raise ValueError(
            f"thresholds {thresholds.shape} must be one finite number for each of the "
            f"{labels.shape[1]} tags: choose them with metrics.choose_thresholds."
        )
    said = scores >= thresholds
    hits, marks = (labels & said).sum(axis=1), labels.sum(axis=1) + said.sum(axis=1)
    return ratio(2 * (weights @ hits), weights @ marks)


def interval(
    values: np.ndarray, level: float = 0.95, estimate: float | None = None
) -> tuple[float, float]:
    """Return the interval (low, high) that holds `level` of the resampled `values`.

    With an `estimate` the resampled values are first moved so that their mean is the estimate: a
    clip drawn twice ranks beside itself, which lifts the average precision of rare tags in every
    resample, and an interval should show spread, not that lift. Missing values (NaN: resamples in
    which nothing could be scored) are ignored. Raises `ValueError` for a level outside (0, 1) or
    when every value is missing.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: give a share between 0 and 1, such as 0.95.")
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        raise ValueError("no resample could be scored: the interval needs more labelled clips.")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    shift = 0.0 if estimate is None else estimate - values.mean()
    return float(low + shift), float(high + shift)
