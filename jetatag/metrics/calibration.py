"""How far probabilities can be trusted."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jetatag.metrics._checks import check_labels, check_scores


def calibration(
    labels: np.ndarray, probs: np.ndarray, tags: Sequence, n_bins: int = 10
) -> pd.DataFrame:
    """Return the calibration of each tag's probabilities.

    The expected calibration error (Naeini et al. 2015; Guo et al. 2017) is the mean, over bins and
    weighted by their rows, of |share of positives − mean probability|. Bins hold equally many rows,
    with equal probabilities in the same bin: the lowest of bins with equal width would hold nearly
    all rows of a rare tag. With few rows per bin, a perfect model has an error above 0.

    `labels` are (row, tag) 0/1, `probs` (row, tag) in [0, 1], `tags` the names of the columns;
    anything else, and fewer than one bin, raises `ValueError`. Returns one row per tag: `tag`,
    `mean_prob`, `share_positive`, `calibration_error` (expected), `brier` (mean squared error;
    Brier 1950).
    """
    labels, probs = check_scores(check_labels(labels, tags), probs, probs=True)
    probs = probs.astype(np.float64)
    edges = np.quantile(probs, _inner_shares(n_bins), axis=0)
    rows = []
    for tag, carries, prob, inner in zip(tags, labels.T, probs.T, edges.T, strict=True):
        mean_prob, share_positive, count = _curve(carries, prob, inner).to_numpy().T
        error = np.average(np.abs(share_positive - mean_prob), weights=count)
        brier = ((prob - carries) ** 2).mean()
        rows.append((tag, prob.mean(), carries.mean(), error, brier))
    columns = ["tag", "mean_prob", "share_positive", "calibration_error", "brier"]
    return pd.DataFrame(rows, columns=columns)


def reliability(labels: np.ndarray, probs: np.ndarray, n_bins: int = 10) -> pd.DataFrame:
    """Return the reliability curve of all (row, tag) cells pooled, for drawing.

    One row per bin of equal width (Guo et al. 2017) that is not empty, from low to high:
    `mean_prob`, `share_positive`, `count`.
    """
    labels, probs = check_scores(labels, probs, probs=True)
    return _curve(labels.ravel(), probs.ravel().astype(np.float64), _inner_shares(n_bins))


def _inner_shares(n_bins: int) -> np.ndarray:
    """The shares 1/n, …, (n − 1)/n at which `n_bins` bins meet."""
    if n_bins < 1:
        raise ValueError(f"n_bins is {n_bins}: a curve needs at least one bin.")
    return np.arange(1, n_bins) / n_bins


def _curve(carries: np.ndarray, probs: np.ndarray, inner: np.ndarray) -> pd.DataFrame:
    """The non-empty bins between `inner` edges; a probability at an edge belongs to the lower
    bin."""
    cells = pd.DataFrame({"mean_prob": probs, "share_positive": carries})
    bins = cells.groupby(np.searchsorted(inner, probs, side="left"))
    return bins.mean().assign(count=bins.size()).reset_index(drop=True)
