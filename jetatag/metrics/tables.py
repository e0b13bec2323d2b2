"""Tables that compare runs: every metric with its intervals, and differences between methods.

Resample each run once, then compare as often as needed. A *resampled* table has one column per
metric, and rows (drawn, resample): one `estimate`, in which every clip counts once, then
`n_resamples` drawn by `clip` and, with groups of several clips, as many drawn by `group`.
`n_resamples` (1000), `seed` (0) and `groups` (none), or `resamples`, are those of `clip_weights`;
with the same values, runs tested on the same clips are scored on the same resamples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jetatag.files import check_known
from jetatag.metrics._arithmetic import known_mean, rank_correlation, ratio
from jetatag.metrics._checks import check_labels, check_scores
from jetatag.metrics.scores import (
    accuracy,
    f1_as_coded,
    f1_instance,
    macro_clip,
    micro_window,
    precision_at_k,
    tag_areas,
)

BOUNDS = ["low", "high", "group_low", "group_high"]  # of intervals by clip and by group


def clip_weights(
    n_clips: int, n_resamples: int, seed: int, groups: Sequence | None = None
) -> np.ndarray:
    """Return how often each clip is drawn in each bootstrap resample, (resample, clip) int64.
    Without `groups`, clips are drawn (Efron 1979), with them whole groups, as many as there are:
    the clustered bootstrap (Field & Welsh 2007), because clips of one artist are not independent.
    `groups` (clip,) are any labels; a clip with group "" is its own group. Raises `ValueError` for
    numbers below 1, and for groups that are missing or not one per clip."""
    if n_clips < 1 or n_resamples < 1:
        raise ValueError("n_clips and n_resamples must be at least 1 to draw a resample.")
    codes = _group_codes(groups, n_clips)
    n_groups = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples)[:, codes]


def _group_codes(groups: Sequence | None, n_clips: int) -> np.ndarray:
    """The number of each clip's group, (clip,)."""
    groups = [""] * n_clips if groups is None else groups
    named = [f"\0{row}" if group == "" else group for row, group in enumerate(groups)]
    codes, _ = pd.factorize(pd.Series(named, dtype=object))
    if len(codes) != n_clips or (codes < 0).any():
        raise ValueError(f"groups must name one group for each of the {n_clips} clips.")
    return codes


def _all_weights(
    n_clips: int, n_resamples: int = 1000, seed: int = 0, groups: Sequence | None = None
) -> tuple[np.ndarray, pd.MultiIndex]:
    """(row, clip) weights and their index (drawn, resample): every clip once ("estimate"),
    `clip_weights` ("clip"), and if groups have several clips, those of whole groups ("group")."""
    weights = {"estimate": np.ones((1, n_clips), np.int64)}
    weights["clip"] = clip_weights(n_clips, n_resamples, seed)
    if 0 < _group_codes(groups, n_clips).max() < n_clips - 1:
        weights["group"] = clip_weights(n_clips, n_resamples, seed, groups)
    pairs = [(drawn, number) for drawn, w in weights.items() for number in range(len(w))]
    rows = pd.MultiIndex.from_tuples(pairs, names=["drawn", "resample"])
    return np.concatenate(list(weights.values())), rows


def interval(values: np.ndarray, estimate: float | None = None) -> tuple[float, float]:
    """Return the interval (low, high) that holds 95 % of the resampled `values`, (resample,). With
    an `estimate`, they are first shifted so that it is their mean: a clip drawn twice ranks next to
    itself, which raises the average precision of rare tags. NaN, of resamples in which nothing
    could be scored, is ignored; `ValueError` if all are NaN."""
    # `scipy.stats.bootstrap` would score the clips again for every metric, and draws no groups.
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        raise ValueError("no resample could be scored: add labelled clips.")
    shift = 0.0 if estimate is None else estimate - values.mean()
    return tuple((np.quantile(values, [(1 - 0.95) / 2, (1 + 0.95) / 2]) + shift).tolist())


def resampled(
    labels: np.ndarray,
    scores: np.ndarray,
    task: str = "multilabel",
    thresholds: np.ndarray | None = None,
    **resamples: Any,
) -> pd.DataFrame:
    """Return the resampled table of a run, with columns (protocol, metric).

    `labels` are (clip, tag) 0/1; `scores` are (clip, window, tag) probabilities in [0, 1], for both
    protocols, or (clip, tag), any finite numbers that rank, for `macro_clip` alone. The metrics are
    the areas of both protocols; of a `task` "multiclass" also `accuracy` in both, and of a
    "multilabel" one `f1_as_coded` in `micro_window` and, with `thresholds` (tag,), `f1_instance`.
    """
    check_known([task], ["multilabel", "multiclass"], "task")
    labels, scores = check_scores(labels, scores, windows=True)
    weights, rows = _all_weights(len(labels), **resamples)
    tables = {}
    if scores.ndim == 3:
        own = micro_window(labels, scores, weights)
        if task == "multiclass":
            own["accuracy"] = accuracy(labels, scores, weights)
        else:
            own["f1_as_coded"] = f1_as_coded(own)
        tables["micro_window"] = pd.DataFrame(own, rows)
        scores = scores.mean(axis=1)
    own = macro_clip(labels, scores, weights)
    if task == "multiclass":
        own["accuracy"] = accuracy(labels, scores, weights)
    elif thresholds is not None:
        own["f1_instance"] = f1_instance(labels, scores, thresholds, weights)
    tables["macro_clip"] = pd.DataFrame(own, rows)
    return pd.concat(tables, axis=1, names=["protocol", "metric"])


def resampled_per_tag(
    labels: np.ndarray, scores: np.ndarray, tags: Sequence, n_resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return the resampled table of the average precision of each of `tags` that occurs; NaN if a
    resample has no positives of the tag."""
    labels = check_labels(labels, tags)
    weights, rows = _all_weights(len(labels), n_resamples, seed)
    areas = tag_areas(labels, scores, weights)["average_precision"]
    columns = pd.MultiIndex.from_arrays([tags], names=["tag"])
    return pd.DataFrame(areas, rows, columns).loc[:, labels.any(axis=0)]


def resampled_means(by_clip: Mapping[Any, np.ndarray], **resamples: Any) -> pd.DataFrame:
    """Return the resampled table of means over clips, of name → (clip,) numbers or NaN."""
    values = np.stack(list(by_clip.values()), axis=1).astype(np.float64)
    weights, rows = _all_weights(len(values), **resamples)
    has = ~np.isnan(values)
    means = ratio(weights @ np.where(has, values, 0), weights @ has.astype(float), empty=np.nan)
    return pd.DataFrame(dict(zip(by_clip, means.T, strict=True)), rows)


def resampled_searches(
    relevant: np.ndarray,
    rankings: Mapping[str, np.ndarray],
    kinds: Sequence[str],
    k: int = 10,
    **resamples: Any,
) -> pd.DataFrame:
    """Return the resampled table, with columns (kind, ranked_by, metric), of how well each ranking
    finds the clips that match a query.
    `relevant` (clip, query) 0/1 says whether the clip matches the query; `rankings` are name →
    (clip, query), any finite numbers that rank; `kinds` are (query,) names. The metrics are means
    of average precision and `precision_at_k` over the queries of a kind that some clip of the
    resample matches. The ranking `random` is the expectation for a random order."""
    answered = check_labels(relevant).any(axis=0)
    relevant, kinds = np.asarray(relevant)[:, answered], np.asarray(kinds)[answered]
    weights, rows = _all_weights(len(relevant), **resamples)
    shares = ratio(weights @ relevant.astype(float), weights.sum(axis=1, keepdims=True))
    shares[shares == 0] = np.nan  # nothing to find
    found = {}
    for name, scores in rankings.items():
        scores = np.asarray(scores)[:, answered]
        areas = tag_areas(relevant, scores, weights)["average_precision"]
        found[name] = areas, precision_at_k(relevant, scores, k, weights)
    names = "mean_average_precision", f"precision_at_{k}"
    columns = {
        (kind, name, metric): known_mean(values[:, kinds == kind])
        for kind in dict.fromkeys(kinds)
        for name, both in {**found, "random": (shares, shares)}.items()
        for metric, values in zip(names, both, strict=True)
    }
    return pd.DataFrame(columns, rows).rename_axis(columns=["kind", "ranked_by", "metric"])


def mean_runs(runs: Sequence[pd.DataFrame], seed: int = 0) -> pd.DataFrame:
    """Return the resampled table of the mean over resampled tables with the same metrics and
    resamples (else `ValueError`), whose runs differ in their seed. The runs are also resampled,
    from `seed`, so that intervals include their spread."""
    _check_alike(runs)
    first, n_runs = runs[0], len(runs)
    shares = _all_weights(n_runs, len(first.loc["clip"]), seed + 1)[0] / n_runs  # (resample, run)
    shares = np.concatenate([shares, shares[1:]])[: len(first)]  # the same for clips and groups
    mean = np.einsum("nr,rnm->nm", shares, np.stack(runs))  # (run, row, metric)
    return pd.DataFrame(mean, first.index, first.columns)


def mean_table(runs: Sequence[pd.DataFrame], seed: int = 0) -> pd.DataFrame:
    """Return `mean_runs` with 95 % intervals, one row per metric: the column names of the resampled
    tables (such as `protocol` and `metric`), `value`, and `BOUNDS`, by group NaN without groups."""
    mean, rows = mean_runs(runs, seed), []
    for name, values in mean.items():
        row = [*name, estimate := values.loc["estimate"].item()]
        for drawn in ("clip", "group"):
            is_known = drawn in values.index
            row += interval(values.loc[drawn], estimate) if is_known else (np.nan, np.nan)
        rows.append(row)
    return pd.DataFrame(rows, columns=[*mean.columns.names, "value", *BOUNDS])


def differences(runs_a: Sequence[pd.DataFrame], runs_b: Sequence[pd.DataFrame]) -> list:
    """Return the resampled tables a − b of runs paired by their order (else `ValueError`)."""
    if len(runs_a) != len(runs_b) or not runs_a:
        problem = f"{len(runs_a)} and {len(runs_b)} runs cannot be paired"
        raise ValueError(f"{problem}: give the same seeds of both.")
    _check_alike([*runs_a, *runs_b])
    return [a - b for a, b in zip(runs_a, runs_b, strict=True)]


def difference_table(
    runs_a: Sequence[pd.DataFrame], runs_b: Sequence[pd.DataFrame], seed: int = 0
) -> pd.DataFrame:
    """Return `mean_table` of the `differences` a − b, with `difference` instead of `value`.
    Pairing removes the noise that runs tested on the same clips share. The seeds are resampled,
    too, but three show their spread only in part: if they differ much more than clips do, a 95 %
    interval covers the true difference in about 80 % of cases."""
    return mean_table(differences(runs_a, runs_b), seed).rename(columns={"value": "difference"})


def gain_trend(
    gains: pd.DataFrame, covariates: Mapping[str, np.ndarray], seed: int = 0
) -> pd.DataFrame:
    """Return how the gain of a tag depends on each covariate: Spearman's correlation over tags.
    `gains` is `mean_runs` of the `differences` of two methods' `resampled_per_tag`; `covariates`
    are name → (tag,) finite numbers, such as the frequency of each tag. Clips, seeds and, from
    `seed`, tags are resampled together; a tag without positives in a resample keeps its gain there.
    Returns one row per covariate: `covariate`, `correlation`, `low` and `high` (95 %), `n_tags`.
    The correlation is NaN for fewer than three tags and for constant values."""
    gain = gains.iloc[0]
    resampled, n_tags = gains.loc["clip"].fillna(gain).to_numpy(), len(gain)
    chosen = np.random.default_rng(seed + 2).integers(n_tags, size=resampled.shape)
    resampled = np.take_along_axis(resampled, chosen, axis=1)
    rows = []
    for name, covariate in covariates.items():
        covariate = np.asarray(covariate, dtype=np.float64)
        if covariate.shape != gain.shape or not np.isfinite(covariate).all():
            raise ValueError(f"covariate {name!r} must be finite for each of the {n_tags} tags.")
        correlation, bounds = np.nan, (np.nan, np.nan)
        if n_tags >= 3 and np.ptp(covariate) > 0:
            correlation = float(rank_correlation(gain.to_numpy(), covariate))
            bounds = interval(rank_correlation(resampled, covariate[chosen]), estimate=correlation)
        rows.append((name, correlation, *np.clip(bounds, -1, 1), n_tags))
    return pd.DataFrame(rows, columns=["covariate", "correlation", "low", "high", "n_tags"])


def _check_alike(runs: Sequence[pd.DataFrame]) -> None:
    if not runs:
        raise ValueError("there is no run to compare: give at least one.")
    for run in runs:
        if not (run.columns.equals(runs[0].columns) and run.index.equals(runs[0].index)):
            raise ValueError("the runs differ in metrics or resamples: resample all alike.")
