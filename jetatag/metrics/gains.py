"""What the tags that gain by a method have in common."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from jetatag.metrics._arithmetic import rank_correlation
from jetatag.metrics.resampling import interval

FEWEST_TAGS = 3
"""Fewer have no trend, and their pairs no order to compare."""


def gain_trend(
    gains: pd.DataFrame, covariates: Mapping[str, np.ndarray], seed: int = 0
) -> pd.DataFrame:
    """Return how far the gain of a tag grows with each covariate: Spearman's correlation over tags.

    Clips, seeds and tags are resampled together. The noise in the gains lowers the estimate
    already; resampling clips and seeds alone would give intervals that are too narrow and hold for
    these tags only. A tag that a resample leaves without positives keeps its gain there.

    Parameters
    ----------
    gains : a row a resample, a column a tag, from `mean_runs` of `resampled_per_tag` differences
    covariates : name → (tag,) finite numbers, such as the frequency of each tag or its strongest
        correlation with another tag
    seed : of the resamples of tags

    Returns
    -------
    One row a covariate: `covariate`, `correlation`, `low`, `high` (95 %), `n_tags`.

    Raises
    ------
    ValueError
        On fewer than three tags, and on covariates that do not match or are equal for all tags.
    """
    gain, resampled = gains.to_numpy()[0], gains.loc["clip"].to_numpy()
    n_tags = len(gain)
    if n_tags < FEWEST_TAGS:
        raise ValueError(f"{n_tags} tags have positives: a trend needs at least {FEWEST_TAGS}.")
    resampled = np.where(np.isnan(resampled), gain, resampled)
    chosen = np.random.default_rng(seed + 2).integers(n_tags, size=resampled.shape)
    resampled = np.take_along_axis(resampled, chosen, axis=1)
    rows = []
    for name, covariate in covariates.items():
        covariate = _check_covariate(name, covariate, n_tags)
        correlation = float(rank_correlation(gain, covariate))
        bounds = interval(rank_correlation(resampled, covariate[chosen]), estimate=correlation)
        rows.append((name, correlation, *np.clip(bounds, -1, 1), n_tags))
    return pd.DataFrame(rows, columns=["covariate", "correlation", "low", "high", "n_tags"])


def _check_covariate(name: str, covariate: np.ndarray, n_tags: int) -> np.ndarray:
    covariate = np.asarray(covariate, dtype=np.float64)
    if covariate.shape != (n_tags,) or not np.isfinite(covariate).all():
        raise ValueError(
            f"covariate {name!r} {covariate.shape} must be one finite number for each of the "
            f"{n_tags} tags."
        )
    if np.ptp(covariate) == 0:
        raise ValueError(f"covariate {name!r} is equal for all tags: no trend can follow it.")
    return covariate
