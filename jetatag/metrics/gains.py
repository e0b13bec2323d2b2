"""Where a gain comes from: which tags gain, and what the tags that gain have in common."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from jetatag.metrics._arithmetic import rank_correlation
from jetatag.metrics._checks import checked_labels, refuse_unless_named
from jetatag.metrics.resampling import clip_weights, interval, run_shares, weighted_per_tag

FEWEST_TAGS = 3
"""Fewer have no trend."""


def gain_by_tag(
    labels: np.ndarray,
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    tags: Sequence,
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return each tag's difference a − b in average precision, the mean over runs paired by seed.

    Clips and seeds are drawn as by `paired_difference`, whose macro difference is the mean of
    these. The intervals are each tag's own: of 50 tags that gain nothing, two or three will seem
    to gain or lose.

    Parameters
    ----------
    labels : (clip, tag) 0/1
    scores_a, scores_b : (run, clip, tag) of runs paired by seed, any finite numbers that rank
    tags : names of the columns, in order
    n_resamples, seed : as `clip_weights`

    Returns
    -------
    One row a tag: `tag`, `n_positive`, `difference`, `low`, `high` (95 %); the last three are NaN
    for a tag without positives.

    Raises
    ------
    ValueError
        As `weighted_per_tag`, on stacks that cannot be paired and on missing names.
    """
    labels = checked_labels(labels)
    refuse_unless_named(tags, labels)
    gains = _gains(labels, scores_a, scores_b, n_resamples, seed)
    rows = []
    for tag, n_positive, (gain, *drawn) in zip(tags, labels.sum(axis=0), gains.T, strict=True):
        bounds = interval(drawn, estimate=gain) if n_positive else (np.nan, np.nan)
        rows.append((tag, n_positive, gain, *bounds))
    return pd.DataFrame(rows, columns=["tag", "n_positive", "difference", "low", "high"])


def gain_trend(
    labels: np.ndarray,
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    covariates: Mapping[str, np.ndarray],
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how far the tags that gain more by a over b are those with more of each covariate.

    The Spearman correlation, over tags, of `gain_by_tag`'s differences with the covariate. In
    every resample clips and seeds are drawn anew, and tags as well: the noise in the tags' gains
    is part of the estimate already, and clips and seeds alone would give intervals that are too
    narrow and speak of these very tags only. A tag that a resample leaves without positives
    keeps its gain there.

    Parameters
    ----------
    labels, scores_a, scores_b, n_resamples, seed : as `gain_by_tag`
    covariates : name → (tag,) finite numbers, such as the tags' frequency in training or their
        strongest correlation with another tag

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
    gain, *resampled = _gains(labels, scores_a, scores_b, n_resamples, seed)[:, scored]
    resampled = np.where(np.isnan(resampled), gain, resampled)
    drawn = np.random.default_rng(seed + 2).integers(n_tags, size=resampled.shape)
    resampled = np.take_along_axis(resampled, drawn, axis=1)
    rows = []
    for name, covariate in values.items():
        correlation = float(rank_correlation(gain, covariate))
        bounds = interval(rank_correlation(resampled, covariate[drawn]), estimate=correlation)
        rows.append((name, correlation, *np.clip(bounds, -1, 1), n_tags))
    return pd.DataFrame(rows, columns=["covariate", "correlation", "low", "high", "n_tags"])


def _gains(
    labels: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray, n_resamples: int, seed: int
) -> np.ndarray:
    """(1 + resample, tag) mean differences in average precision, the first on the clips as they
    are."""
    if np.ndim(scores_a) != 3 or np.shape(scores_a) != np.shape(scores_b):
        raise ValueError(
            f"scores {np.shape(scores_a)} and {np.shape(scores_b)} cannot be paired by seed: "
            "give both as (run, clip, tag)."
        )
    clips = clip_weights(len(labels), n_resamples, seed)
    weights = np.concatenate([np.ones_like(clips[:1]), clips])
    a, b = (
        np.stack([weighted_per_tag(labels, run, weights)["average_precision"] for run in runs])
        for runs in (scores_a, scores_b)
    )
    return np.einsum("nr,rnt->nt", run_shares(len(a), n_resamples, seed), a - b)


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
