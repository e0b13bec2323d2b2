"""Bootstrap resamples of the clips, and intervals from them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def clip_weights(
    n_clips: int, n_resamples: int, seed: int, groups: Sequence | None = None
) -> np.ndarray:
    """Return how often each clip is drawn in each bootstrap resample, (resample, clip) int64.

    Without `groups`, `n_clips` clips are drawn with replacement (Efron 1979). With them, whole
    groups are drawn, as many as there are: the clustered bootstrap (Field & Welsh 2007), because
    clips of one artist are not independent. `groups` (clip,) are any labels, for example artists; a
    clip with group "" is its own group. Raises `ValueError` for numbers below 1, and for groups
    that are missing or not one per clip.
    """
    if n_clips < 1 or n_resamples < 1:
        raise ValueError("n_clips and n_resamples must be at least 1 to draw a resample.")
    codes = _group_codes(groups, n_clips)
    n_groups = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples)[:, codes]


def _group_codes(groups: Sequence | None, n_clips: int) -> np.ndarray:
    """The number of each clip's group, (clip,)."""
    groups = pd.Series([""] * n_clips if groups is None else list(groups), dtype=object)
    alone = groups == ""
    groups[alone] = [("alone", row) for row in np.flatnonzero(alone)]
    codes, _ = pd.factorize(groups)
    if len(codes) != n_clips or (codes < 0).any():
        raise ValueError(f"groups must name one group for each of the {n_clips} clips.")
    return codes


def all_weights(
    n_clips: int, n_resamples: int = 1000, seed: int = 0, groups: Sequence | None = None
) -> tuple[np.ndarray, pd.MultiIndex]:
    """Return (row, clip) weights and their index (drawn, resample): every clip once ("estimate"),
    `clip_weights` ("clip"), and if groups have several clips, those of whole groups ("group")."""
    weights = {"estimate": np.ones((1, n_clips), np.int64)}
    weights["clip"] = clip_weights(n_clips, n_resamples, seed)
    if 0 < _group_codes(groups, n_clips).max() < n_clips - 1:
        weights["group"] = clip_weights(n_clips, n_resamples, seed, groups)
    pairs = [(drawn, number) for drawn, w in weights.items() for number in range(len(w))]
    rows = pd.MultiIndex.from_tuples(pairs, names=["drawn", "resample"])
    return np.concatenate(list(weights.values())), rows


def interval(values: np.ndarray, estimate: float | None = None) -> tuple[float, float]:
    """Return the interval (low, high) that holds 95 % of the resampled `values`, (resample,).

    With an `estimate`, the values are first shifted so that their mean is the estimate: a clip
    drawn twice ranks next to itself, which raises the average precision of rare tags in every
    resample. NaN, of resamples in which nothing could be scored, is ignored; `ValueError` if all
    are NaN. `scipy.stats.bootstrap` scores the clips again for every metric, and draws no groups.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        raise ValueError("no resample could be scored: the interval needs more labelled clips.")
    shift = 0.0 if estimate is None else estimate - values.mean()
    return tuple((np.quantile(values, [(1 - 0.95) / 2, (1 + 0.95) / 2]) + shift).tolist())
