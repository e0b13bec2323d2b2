"""Input validation of the metrics, with one sentence and a remedy for invalid input."""

from collections.abc import Sequence

import numpy as np


def check_labels(labels: np.ndarray, tags: Sequence | None = None) -> np.ndarray:
    """Return (row, tag) 0/1 labels of any dtype, of the columns `tags`, as bool."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or not labels.size:
        raise ValueError(f"labels have shape {labels.shape}: give a non-empty (row, tag) array.")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels hold values other than 0 and 1: drop rows with unknown tags.")
    if tags is not None and len(tags) != labels.shape[1]:
        raise ValueError(f"{len(tags)} tag names for {labels.shape[1]} columns: give one each.")
    return labels.astype(bool)


def check_scores(
    labels: np.ndarray, scores: np.ndarray, windows: bool = False, probs: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (row, tag) bool and scores (row, tag) or, with `windows`, (row, window, tag);
    with `probs` the scores must lie in [0, 1]."""
    labels, scores = check_labels(labels), np.asarray(scores)
    rows = scores[:, 0] if windows and scores.ndim == 3 else scores
    if rows.shape != labels.shape:
        allowed = "(row, tag) or (row, window, tag)" if windows else "(row, tag)"
        problem = f"scores {scores.shape} do not match labels {labels.shape}"
        raise ValueError(f"{problem}: give {allowed} scores for (row, tag) labels.")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity: look for silent clips or a diverged run.")
    if probs and not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("scores must be probabilities in [0, 1]: apply the sigmoid to logits.")
    return labels, scores


def check_weights(weights: np.ndarray | None, n_rows: int) -> np.ndarray:
    """Return (resample, row) weights; None means that every row counts once."""
    if weights is None:
        return np.ones((1, n_rows))
    weights = np.asarray(weights)
    if weights.ndim != 2 or weights.shape[1] != n_rows or not (weights >= 0).all():
        raise ValueError(f"weights must be (resample, row) for {n_rows} rows, none negative.")
    return weights


def check_points(points: np.ndarray) -> np.ndarray:
    """Return finite (row, dimension) vectors as float64."""
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2:
        raise ValueError(f"vectors have shape {points.shape}: give (row, dimension).")
    if not np.isfinite(points).all():
        raise ValueError("vectors hold NaN or infinity: look for silent clips or a diverged run.")
    return points
