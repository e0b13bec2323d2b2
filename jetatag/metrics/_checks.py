"""What the figures accept: shapes, values, and one sentence for what they do not."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

TASKS = ("multilabel", "multiclass")


def checked_labels(labels: np.ndarray) -> np.ndarray:
    """(row, tag) 0/1 of any dtype → bool."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or not labels.size:
        raise ValueError(f"labels have shape {labels.shape}: give a filled (row, tag) array.")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels hold values other than 0 and 1: drop rows with unknown tags.")
    return labels.astype(bool)


def checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = checked_labels(labels), np.asarray(scores)
    if labels.shape != scores.shape:
        raise ValueError(
            f"labels {labels.shape} and scores {scores.shape} must have one shape (row, tag)."
        )
    check_finite(scores)
    return labels, scores


def checked_windows(labels: np.ndarray, window_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, window_scores = checked_labels(labels), np.asarray(window_scores)
    if window_scores.ndim != 3 or window_scores[:, 0].shape != labels.shape:
        raise ValueError(
            f"window scores {window_scores.shape} do not fit labels {labels.shape}: "
            "give (clip, window, tag) for (clip, tag)."
        )
    check_finite(window_scores)
    return labels, window_scores


def check_named(tags: Sequence, labels: np.ndarray) -> None:
    if len(tags) != labels.shape[1]:
        raise ValueError(f"{len(tags)} tag names for {labels.shape[1]} columns: give one each.")


def check_finite(scores: np.ndarray) -> None:
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity: look for silent clips or a diverged run.")


def check_probabilities(scores: np.ndarray) -> None:
    if not ((scores >= 0) & (scores <= 1)).all():  # refuses NaN as well
        raise ValueError(
            "scores must be probabilities in [0, 1]: apply the sigmoid to logits first."
        )


def checked_weights(weights: np.ndarray, n_clips: int) -> np.ndarray:
    weights = np.asarray(weights)
    if weights.ndim != 2 or weights.shape[1] != n_clips or not (weights >= 0).all():
        raise ValueError(
            f"weights {weights.shape} must be (resample, clip) for {n_clips} clips, none negative."
        )
    return weights


def checked_points(points: np.ndarray, n_points: int | None = None) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or n_points not in (None, len(points)):
        rows = "row" if n_points is None else n_points
        raise ValueError(f"vectors have shape {points.shape}: give ({rows}, dimension).")
    if not np.isfinite(points).all():
        raise ValueError("vectors hold NaN or infinity: look for silent clips or a diverged run.")
    return points


def group_codes(groups: Sequence, n_clips: int) -> np.ndarray:
    """(clip,) number of each clip's group; a clip whose group is "" is one of its own."""
    groups = pd.Series(list(groups), dtype=object)
    alone = groups == ""
    groups[alone] = [("alone", row) for row in np.flatnonzero(alone)]
    codes, _ = pd.factorize(groups)
    if len(codes) != n_clips or (codes < 0).any():
        raise ValueError(
            f"groups must name one group for each of the {n_clips} clips, none missing."
        )
    return codes
