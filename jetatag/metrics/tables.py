"""Runs side by side: every figure with its intervals, and what is between two methods.

Resampling is dear and a run's own, differences are cheap: `resampled` once for each run, then
`difference_table` for as many comparisons as one likes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jetatag.files import check_known
from jetatag.metrics._arithmetic import ratio
from jetatag.metrics._checks import TASKS, checked, checked_windows
from jetatag.metrics.resampling import (
    draws,
    interval,
    run_shares,
    weighted_accuracy,
    weighted_f1_instance,
    weighted_macro,
    weighted_micro,
    weighted_per_tag,
    weighted_precision,
)
from jetatag.metrics.scores import f1_as_coded

BOUNDS = ["low", "high", "group_low", "group_high"]
"""The columns of both intervals: clips drawn, groups drawn."""


def resampled(
    labels: np.ndarray,
    scores: np.ndarray,
    n_resamples: int = 1000,
    seed: int = 0,
    groups: Sequence | None = None,
    task: str = "multilabel",
    thresholds: np.ndarray | None = None,
) -> pd.DataFrame:
    """Return a run's figures on the clips as they are and on every resample of them.

    All intervals of a run, and of its differences to others, are made of this. Runs of the same
    clips that are resampled with the same `n_resamples`, `seed` and `groups` meet the same draws.

    Parameters
    ----------
    labels : (clip, tag) 0/1
    scores : (clip, window, tag) probabilities in [0, 1], for both protocols, `macro_clip` on the
        mean over windows; or (clip, tag), any finite numbers that rank, for `macro_clip` alone
    n_resamples, seed, groups : as `clip_weights`; groups that hold one clip each, or one group
        that holds them all, say nothing beyond the clips and are not drawn
    task : "multilabel" or "multiclass"
    thresholds : (tag,) as for `f1_instance`; only a multilabel task uses them

    Returns
    -------
    Columns (protocol, metric). Rows (drawn, resample): one `estimate`, then `n_resamples` drawn by
    `clip` and, with groups, as many drawn by `group`.

    Raises
    ------
    ValueError
        As the figures and `clip_weights`, and for an unknown task.
    """
    check_known([task], TASKS, "task")
    windowed = np.ndim(scores) == 3
    labels, scores = (checked_windows if windowed else checked)(labels, scores)
    weights, rows = draws(len(labels), n_resamples, seed, groups)
    figures = {}
    if windowed:
        figures["micro_window"] = _window_figures(labels, scores, weights, task)
        scores = scores.mean(axis=1)
    figures["macro_clip"] = _clip_figures(labels, scores, weights, task, thresholds)
    columns = {(of, metric): v for of, found in figures.items() for metric, v in found.items()}
    return pd.DataFrame(columns, rows).rename_axis(columns=["protocol", "metric"])


def resampled_means(
    by_clip: Mapping[Any, np.ndarray],
    n_resamples: int = 1000,
    seed: int = 0,
    groups: Sequence | None = None,
) -> pd.DataFrame:
    """Return the mean over clips of each of `by_clip`, on the clips as they are and resampled.

    Of neighbours (`agreement_by_clip`), the clips that ask are drawn and those that are found stay:
    a clip that is drawn twice would be its own nearest neighbour.

    Parameters
    ----------
    by_clip : name → (clip,) numbers, NaN for clips that have none
    n_resamples, seed, groups : as `resampled`

    Returns
    -------
    As `resampled`, a column a name; NaN where a resample holds no clip that has a number.

    Raises
    ------
    ValueError
        As `clip_weights`.
    """
    values = np.stack(list(by_clip.values()), axis=1).astype(np.float64)
    weights, rows = draws(len(values), n_resamples, seed, groups)
    has = ~np.isnan(values)
    means = ratio(weights @ np.where(has, values, 0), weights @ has.astype(float), empty=np.nan)
    return pd.DataFrame(dict(zip(by_clip, means.T, strict=True)), rows)


def resampled_searches(
    relevant: np.ndarray,
    rankings: Mapping[str, np.ndarray],
    kinds: Sequence[str],
    n_resamples: int = 1000,
    seed: int = 0,
    groups: Sequence | None = None,
    k: int = 10,
) -> pd.DataFrame:
    """Return how well each ranking finds what is asked, on the clips as they are and resampled.

    Means over the queries of a kind that a clip of the resample answers: `map`, of the average
    precision, and the precision in the first `k` places (`rank_table`). Beside the rankings stands
    `random`, what chance gives in both: the share of clips that answer.

    Parameters
    ----------
    relevant : (clip, query) 0/1, whether the clip answers the query
    rankings : name → (clip, query), any finite numbers that rank
    kinds : (query,) names; kinds of which no query has an answer are left out
    n_resamples, seed, groups : as `resampled`
    k : places counted for the precision

    Returns
    -------
    As `resampled`; columns (kind, ranked_by, metric).

    Raises
    ------
    ValueError
        As `weighted_per_tag` and `clip_weights`.
    """
    answered = np.asarray(relevant).any(axis=0)
    relevant, kinds = np.asarray(relevant)[:, answered], np.asarray(kinds)[answered]
    weights, rows = draws(len(relevant), n_resamples, seed, groups)
    shares = ratio(weights @ relevant.astype(float), weights.sum(axis=1, keepdims=True))
    shares[shares == 0] = np.nan  # nothing to find
    found = {}
    for name, scores in rankings.items():
        scores = np.asarray(scores)[:, answered]
        areas = weighted_per_tag(relevant, scores, weights)["average_precision"]
        found[name] = areas, weighted_precision(relevant, scores, weights, k)
    columns = {
        (kind, name, metric): _known_mean(values[:, kinds == kind])
        for kind in dict.fromkeys(kinds)
        for name, both in {**found, "random": (shares, shares)}.items()
        for metric, values in zip(("map", f"precision_at_{k}"), both, strict=True)
    }
    return pd.DataFrame(columns, rows).rename_axis(columns=["kind", "ranked_by", "metric"])


def _known_mean(values: np.ndarray) -> np.ndarray:
    """(resample, query) → (resample,) means of what is not missing."""
    return ratio(np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1), empty=np.nan)


def score_table(
    labels: np.ndarray,
    window_scores: np.ndarray,
    n_resamples: int = 1000,
    seed: int = 0,
    groups: Sequence | None = None,
    task: str = "multilabel",
    thresholds: np.ndarray | None = None,
) -> pd.DataFrame:
    """Return both protocols of one run side by side, with 95 % intervals, one row a figure.

    `micro_window` scores the windows alone, `macro_clip` their mean per clip; both are resampled
    by the same clips and the same groups. To the areas, multiclass adds `accuracy` in both
    protocols, multilabel `f1_as_coded` in the first and, with thresholds, `f1_instance` in the
    second; none of these is a mean over tags.

    Parameters
    ----------
    labels : (clip, tag) 0/1
    window_scores : (clip, window, tag) probabilities in [0, 1]
    n_resamples, seed, groups, task, thresholds : as `resampled`

    Returns
    -------
    Columns `protocol`, `metric`, `value`, `low`, `high` (clips drawn), `group_low`, `group_high`
    (groups drawn; NaN where `resampled` draws none), `n_clips`, `n_tags`; the last counts the tags
    that enter the figure.

    Raises
    ------
    ValueError
        As `resampled`.
    """
    labels, window_scores = checked_windows(labels, window_scores)
    figures = resampled(labels, window_scores, n_resamples, seed, groups, task, thresholds)
    carried, everywhere = labels.any(axis=0), labels.all(axis=0)
    n_scored = {
        ("macro_clip", "roc_auc"): int((carried & ~everywhere).sum()),
        ("macro_clip", "average_precision"): int(carried.sum()),
        ("macro_clip", "pr_auc_trapezoid"): int(carried.sum()),
    }
    table = _with_intervals(figures)
    table[BOUNDS] = table[BOUNDS].clip(0, 1)  # no figure leaves [0, 1]
    return table.assign(
        n_clips=len(labels), n_tags=[n_scored.get(of, labels.shape[1]) for of in figures.columns]
    )


def difference_table(
    runs_a: Sequence[pd.DataFrame],
    runs_b: Sequence[pd.DataFrame],
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return the mean of a − b over pairs of `resampled` runs in every figure, with intervals.

    What `paired_difference` returns, from runs resampled once for all comparisons they enter.

    Parameters
    ----------
    runs_a, runs_b : frames of `resampled`, paired by their order, of the same draws
    seed : of the draws of pairs
    level : share of resamples inside the intervals

    Raises
    ------
    ValueError
        On other numbers of runs, and on runs whose figures or draws differ.
    """
    if len(runs_a) != len(runs_b) or not runs_a:
        raise ValueError(f"{len(runs_a)} and {len(runs_b)} runs cannot be paired by seed.")
    _check_unlike([*runs_a, *runs_b])
    apart = [a - b for a, b in zip(runs_a, runs_b, strict=True)]
    return mean_table(apart, seed, level).rename(columns={"value": "difference"})


def mean_table(runs: Sequence[pd.DataFrame], seed: int = 0, level: float = 0.95) -> pd.DataFrame:
    """Return the mean over `resampled` runs of one method in every figure, with intervals.

    Runs, which differ in their seed, are drawn anew like clips; of a single run the intervals hold
    the sampling of clips alone.

    Parameters
    ----------
    runs : frames of `resampled`, of the same draws
    seed : of the draws of runs
    level : share of resamples inside the intervals

    Returns
    -------
    One row a figure: what the frames' columns name (of `resampled`: `protocol` and `metric`), then
    `value`, `low`, `high`, `group_low`, `group_high`.

    Raises
    ------
    ValueError
        Without a run, and on runs whose figures or draws differ.
    """
    _check_unlike(runs)
    first = runs[0]
    shares = run_shares(len(runs), len(first.loc["clip"]), seed)
    shares = np.concatenate([shares, shares[1:]])[: len(first)]  # drawn by group as by clip
    mean = np.einsum("nr,rnf->nf", shares, np.stack(runs))  # (run, row, figure)
    return _with_intervals(pd.DataFrame(mean, first.index, first.columns), level)


def paired_difference(
    labels: np.ndarray,
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    n_resamples: int = 1000,
    seed: int = 0,
    groups: Sequence | None = None,
    level: float = 0.95,
    task: str = "multilabel",
) -> pd.DataFrame:
    """Return a − b in every figure, with intervals over the same resamples for both runs.

    Two runs tested on the same clips err on the same clips; pairing removes that shared noise, so
    this interval is narrower than the two runs' own intervals suggest. Both runs are averaged
    over the same tags in every resample. A multiclass task adds the difference in accuracy. With
    several seeds the difference is the mean over them, and seeds are drawn anew like clips, so
    that the interval also holds their spread, as far as so few can show it: where three seeds
    differ by far more than clips do, a 95 % interval covers the truth four times in five.

    Parameters
    ----------
    labels : (clip, tag) 0/1
    scores_a, scores_b : (run, clip, window, tag) probabilities of runs paired by seed, for both
        protocols; or (run, clip, tag), or of a single run (clip, tag), any finite numbers that
        rank, for `macro_clip` alone
    n_resamples, seed, groups, task : as `resampled`
    level : share of resamples inside the intervals

    Returns
    -------
    One row a figure: `protocol`, `metric`, `difference`, `low`, `high` (clips drawn), `group_low`,
    `group_high` (groups drawn; NaN where `resampled` draws none).

    Raises
    ------
    ValueError
        As `resampled`, `difference_table` and `interval`.
    """
    runs_a, runs_b = (s if np.ndim(s) > 2 else [s] for s in (scores_a, scores_b))
    if len(runs_a) != len(runs_b):
        raise ValueError(f"{len(runs_a)} and {len(runs_b)} runs cannot be paired by seed.")
    a, b = (
        [resampled(labels, run, n_resamples, seed, groups, task) for run in runs]
        for runs in (runs_a, runs_b)
    )
    return difference_table(a, b, seed, level)


def _check_unlike(runs: Sequence[pd.DataFrame]) -> None:
    if not runs:
        raise ValueError("no run to compare: give at least one.")
    first, *others = runs
    if any(not (f.columns.equals(first.columns) and f.index.equals(first.index)) for f in others):
        raise ValueError(
            "the runs hold other figures or draws: resample all alike, with windows or without."
        )


def _window_figures(
    labels: np.ndarray, window_scores: np.ndarray, weights: np.ndarray, task: str
) -> dict[str, np.ndarray]:
    """`micro_window`'s areas and what its task's decisions are worth, for each row of weights."""
    areas = weighted_micro(labels, window_scores, weights)
    if task == "multiclass":
        return {**areas, "accuracy": weighted_accuracy(labels, window_scores, weights)}
    return {**areas, "f1_as_coded": f1_as_coded(areas)}


def _clip_figures(
    labels: np.ndarray,
    scores: np.ndarray,
    weights: np.ndarray,
    task: str,
    thresholds: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """`macro_clip`'s means and what its task's decisions are worth, for each row of weights."""
    figures = weighted_macro(labels, scores, weights)
    if task == "multiclass":
        figures["accuracy"] = weighted_accuracy(labels, scores[:, None], weights)
    elif thresholds is not None:
        figures["f1_instance"] = weighted_f1_instance(labels, scores, thresholds, weights)
    return figures


def _with_intervals(figures: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """One row a column of `resampled`: what it is of, its estimate, both intervals."""
    rows = []
    for figure, values in figures.items():
        estimate = values.loc["estimate"].item()
        by_clip = interval(values.loc["clip"], level, estimate)
        by_group = (np.nan, np.nan)
        if "group" in values.index:
            by_group = interval(values.loc["group"], level, estimate)
        rows.append((*figure, estimate, *by_clip, *by_group))
    return pd.DataFrame(rows, columns=[*figures.columns.names, "value", *BOUNDS])
