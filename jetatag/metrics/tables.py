"""Runs side by side: every figure with its interval, and what is between two methods."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jetatag.config import refuse_unknown
from jetatag.metrics._checks import TASKS, checked_windows
from jetatag.metrics.resampling import (
    clip_weights,
    interval,
    weighted_accuracy,
    weighted_f1_instance,
    weighted_macro,
    weighted_micro,
)
from jetatag.metrics.scores import f1_as_coded


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
    by the same clips (or groups). To the areas, multiclass adds `accuracy` in both protocols,
    multilabel `f1_as_coded` in the first and, with thresholds, `f1_instance` in the second; none
    of these is a mean over tags.

    Parameters
    ----------
    labels : (clip, tag) 0/1
    window_scores : (clip, window, tag) probabilities in [0, 1]
    n_resamples, seed, groups : as `clip_weights`
    task : "multilabel" or "multiclass"
    thresholds : (tag,) as for `f1_instance`; only a multilabel task uses them

    Returns
    -------
    Columns `protocol`, `metric`, `value`, `low`, `high`, `n_clips`, `n_tags`; the last counts the
    tags that enter the figure.

    Raises
    ------
    ValueError
        As the figures and `clip_weights`, and for an unknown task.
    """
    labels, window_scores = checked_windows(labels, window_scores)
    weights = _plain_and_drawn(len(labels), n_resamples, seed, groups)
    clip_scores = window_scores.mean(axis=1)
    micro = weighted_micro(labels, window_scores, weights)
    macro = _clip_figures(labels, clip_scores, weights, task)
    if task == "multiclass":
        micro["accuracy"] = weighted_accuracy(labels, window_scores, weights)
    else:
        micro["f1_as_coded"] = f1_as_coded(micro)
        if thresholds is not None:
            macro["f1_instance"] = weighted_f1_instance(labels, clip_scores, thresholds, weights)
    carried, everywhere = labels.any(axis=0), labels.all(axis=0)
    n_scored = {
        ("macro_clip", "roc_auc"): int((carried & ~everywhere).sum()),
        ("macro_clip", "average_precision"): int(carried.sum()),
    }
    rows = []
    for protocol, figures in (("micro_window", micro), ("macro_clip", macro)):
        for metric, (value, *drawn) in figures.items():
            n_tags = n_scored.get((protocol, metric), labels.shape[1])
            bounds = np.clip(interval(drawn, estimate=value), 0, 1)  # none of them leaves [0, 1]
            rows.append((protocol, metric, value, *bounds, len(labels), n_tags))
    columns = ["protocol", "metric", "value", "low", "high", "n_clips", "n_tags"]
    return pd.DataFrame(rows, columns=columns)


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
    """Return a − b in both macro metrics, with intervals over the same resamples for both runs.

    Two runs tested on the same clips err on the same clips; pairing removes that shared noise, so
    this interval is narrower than the two runs' own intervals suggest. Both runs are averaged
    over the same tags in every resample. A multiclass task adds the difference in accuracy. With
    several seeds the difference is the mean over them, and seeds are drawn anew like clips, so
    that the interval also holds their spread, as far as so few can show it.

    Parameters
    ----------
    labels : (clip, tag) 0/1
    scores_a, scores_b : (clip, tag) or, of runs paired by seed, (run, clip, tag); any finite
        numbers that rank
    n_resamples, seed, groups : as `clip_weights`
    level : share of resamples inside the interval
    task : "multilabel" or "multiclass"

    Returns
    -------
    One row a metric (`roc_auc`, `average_precision`, for multiclass also `accuracy`): `metric`,
    `difference`, `low`, `high`.

    Raises
    ------
    ValueError
        As `macro_clip`, `clip_weights` and `interval`.
    """
    weights = _plain_and_drawn(len(labels), n_resamples, seed, groups)
    runs_a, runs_b = (np.reshape(s, (-1, *np.shape(s)[-2:])) for s in (scores_a, scores_b))
    if len(runs_a) != len(runs_b):
        raise ValueError(f"{len(runs_a)} and {len(runs_b)} runs cannot be paired by seed.")
    each_a, each_b = (
        [_clip_figures(labels, s, weights, task) for s in r] for r in (runs_a, runs_b)
    )
    runs_drawn = clip_weights(len(runs_a), n_resamples, seed + 1) / len(runs_a)
    rows = []
    for metric in each_a[0]:
        apart = np.stack([a[metric] - b[metric] for a, b in zip(each_a, each_b, strict=True)], 1)
        difference, drawn = apart[0].mean(), (apart[1:] * runs_drawn).sum(axis=1)
        rows.append((metric, difference, *interval(drawn, level, difference)))
    return pd.DataFrame(rows, columns=["metric", "difference", "low", "high"])


def _plain_and_drawn(
    n_clips: int, n_resamples: int, seed: int, groups: Sequence | None
) -> np.ndarray:
    """(1 + resample, clip): the clips as they are, for the estimate, then `clip_weights`."""
    drawn = clip_weights(n_clips, n_resamples, seed, groups)
    return np.concatenate([np.ones((1, n_clips), drawn.dtype), drawn])


def _clip_figures(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray, task: str
) -> dict[str, np.ndarray]:
    """`macro_clip`'s means and, for multiclass, the accuracy, for each row of weights."""
    refuse_unknown([task], TASKS, "task")
    figures = weighted_macro(labels, scores, weights)
    if task == "multiclass":
        figures["accuracy"] = weighted_accuracy(labels, np.asarray(scores)[:, None], weights)
    return figures
