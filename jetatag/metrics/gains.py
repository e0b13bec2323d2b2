"""Where a gain comes from: which tags gain, and what the tags that gain have in common."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from jetatag.metrics._arithmetic import rank_correlation
from jetatag.metrics._checks import check_named, checked_labels
from jetatag.metrics.resampling import draws, interval, run_shares, weighted_per_tag

FEWEST_TAGS = 3
"""Fewer have no trend, and their pairs no order to compare."""


def resampled_per_tag(
    labels: np.ndarray, scores: np.ndarray, n_resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """Return each tag's average precision on the clips as they are and on every resample.

    What gains are made of, from runs resampled once for all comparisons they enter.

    Parameters
    ----------
    labels : (clip, tag) 0/1
    scores : (clip, tag), any finite numbers that rank
    n_resamples, seed : as `clip_weights`

    Returns
    -------
    (1 + resample, tag) float64, NaN where a resample leaves the tag no positives.

    Raises
    ------
    ValueError
        As `weighted_per_tag`.
    """
    weights, _ = draws(len(labels), n_resamples, seed)
    return weighted_per_tag(labels, scores, weights)["average_precision"]


def resampled_gains(
    runs_a: Sequence[np.ndarray], runs_b: Sequence[np.ndarray], seed: int = 0
) -> np.ndarray:
    """Return each tag's difference a − b, (1 + resample, tag), the mean over runs paired by seed.

    Clips and seeds are drawn as by `paired_difference`, whose macro difference is the mean of
    these.

    Parameters
    ----------
    runs_a, runs_b : of `resampled_per_tag`, paired by their order, of the same draws
    seed : of the draws of pairs

    Raises
    ------
    ValueError
        On other numbers of runs, and on runs of other draws or tags.
    """
    a, b = np.asarray(runs_a), np.asarray(runs_b)
    if a.ndim != 3 or a.shape != b.shape:
        raise ValueError(
            f"runs {a.shape} and {b.shape} cannot be paired by seed: give both as (run, resample, "
            "tag), resampled alike."
        )
    return np.einsum("nr,rnt->nt", run_shares(len(a), a.shape[1] - 1, seed), a - b)


def gain_by_tag(labels: np.ndarray, gains: np.ndarray, tags: Sequence) -> pd.DataFrame:
    """Return each tag's gain in average precision with its interval.

    The intervals are each tag's own: of 50 tags that gain nothing, two or three will seem to gain
    or lose.

    Parameters
    ----------
    labels : (clip, tag) 0/1
    gains : (1 + resample, tag) of `resampled_gains`
    tags : names of the columns, in order

    Returns
    -------
    One row a tag: `tag`, `n_positive`, `difference`, `low`, `high` (95 %); the last three are NaN
    for a tag without positives.

    Raises
    ------
    ValueError
        On labels that are not 0/1, gains that do not fit them and missing names.
    """
    labels = checked_labels(labels)
    check_named(tags, labels)
    gains = _checked_gains(gains, labels)
    rows = []
    for tag, n_positive, (gain, *drawn) in zip(tags, labels.sum(axis=0), gains.T, strict=True):
        bounds = interval(drawn, estimate=gain) if n_positive else (np.nan, np.nan)
        rows.append((tag, n_positive, gain, *bounds))
    return pd.DataFrame(rows, columns=["tag", "n_positive", "difference", "low", "high"])


def gain_trend(
    labels: np.ndarray, gains: np.ndarray, covariates: Mapping[str, np.ndarray], seed: int = 0
) -> pd.DataFrame:
    """Return how far the tags that gain more by a over b are those with more of each covariate.

    The Spearman correlation, over tags, of `gain_by_tag`'s differences with the covariate. In
    every resample clips and seeds are drawn anew, and tags as well: the noise in the tags' gains
    is part of the estimate already, and clips and seeds alone would give intervals that are too
    narrow and speak of these very tags only. A tag that a resample leaves without positives
    keeps its gain there.

    Parameters
    ----------
    labels, gains : as `gain_by_tag`
    covariates : name → (tag,) finite numbers, such as the tags' frequency in training or their
        strongest correlation with another tag
    seed : of the draws of tags

    Returns
    -------
    One row a covariate: `covariate`, `correlation`, `low`, `high` (95 %), `n_tags`; tags without
    positives are left out.

    Raises
    ------
    ValueError
        As `gain_by_tag`, on covariates that do not fit or are equal for all tags, and when fewer
        than three tags have positives.
    """
    labels = checked_labels(labels)
    scored = labels.any(axis=0)
    n_tags = int(scored.sum())
    if n_tags < FEWEST_TAGS:
        raise ValueError(f"{n_tags} tags have positives: a trend needs at least {FEWEST_TAGS}.")
    values = {
        name: _checked_covariate(name, covariate, scored) for name, covariate in covariates.items()
    }
    gain, *resampled = _checked_gains(gains, labels)[:, scored]
    resampled = np.where(np.isnan(resampled), gain, resampled)
    drawn = np.random.default_rng(seed + 2).integers(n_tags, size=resampled.shape)
    resampled = np.take_along_axis(resampled, drawn, axis=1)
    rows = []
    for name, covariate in values.items():
        correlation = float(rank_correlation(gain, covariate))
        bounds = interval(rank_correlation(resampled, covariate[drawn]), estimate=correlation)
        rows.append((name, correlation, *np.clip(bounds, -1, 1), n_tags))
    return pd.DataFrame(rows, columns=["covariate", "correlation", "low", "high", "n_tags"])


def _checked_gains(gains: np.ndarray, labels: np.ndarray) -> np.ndarray:
    gains = np.asarray(gains, dtype=np.float64)
    if gains.ndim != 2 or gains.shape[1] != labels.shape[1] or len(gains) < 2:
        raise ValueError(
            f"gains {gains.shape} must be (1 + resample, tag) of {labels.shape[1]} tags, as from "
            "metrics.resampled_gains."
        )
    return gains


def _checked_covariate(name: str, covariate: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """(tag,) → its values at the tags that are scored, as float64."""
    covariate = np.asarray(covariate, dtype=np.float64)
    if covariate.shape != scored.shape or not np.isfinite(covariate).all():
        raise ValueError(
            f"covariate {name!r} {covariate.shape} must be one finite number for each of the "
            f"{len(scored)} tags."
        )
    if np.ptp(covariate[scored]) == 0:
        raise ValueError(f"covariate {name!r} is equal for all tags: no trend can follow it.")
    return covariate[scored]
