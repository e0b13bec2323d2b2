"""One run's scores against the labels: both protocols, each tag, and decisions."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from jetatag.metrics._arithmetic import AREAS, bucket_counts, exact_areas, threshold_areas
from jetatag.metrics._checks import (
    check_named,
    check_probabilities,
    checked,
    checked_labels,
)
from jetatag.metrics.resampling import weighted_accuracy, weighted_f1_instance


def micro_window(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return the areas under the ROC and PR curves of all (row, tag) cells, at 200 thresholds.

    The protocol of Lee & Cho 2021: rows are single windows, and the areas are those of
    `tf.keras.metrics.AUC` with its defaults: thresholds 0, 1/199, …, 1, trapezoids for ROC and
    the interpolation of Davis & Goadrich 2006 for PR. Scores below 1/199 all fall into one
    bucket, so the areas of an unconfident model are far below the exact ones.

    Parameters
    ----------
    labels : (row, tag) 0/1
    scores : (row, tag) probabilities in [0, 1]

    Returns
    -------
    `{"roc_auc": …, "pr_auc": …}`, both in [0, 1].

    Raises
    ------
    ValueError
        On shapes that differ, labels other than 0 and 1, scores outside [0, 1], or cells of one
        class only.
    """
    labels, scores = checked(labels, scores)
    check_probabilities(scores)
    if labels.all() or not labels.any():
        raise ValueError("labels hold one class only: the areas need positive and negative cells.")
    positive, negative = bucket_counts(labels.reshape(1, -1), scores.reshape(1, 1, -1))
    return {name: float(area[0]) for name, area in threshold_areas(positive, negative).items()}


def macro_clip(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return the means over tags of scikit-learn's ROC area and both its PR areas.

    The field's protocol (Won et al. 2020): rows are clips, scores the mean over a clip's windows.
    Average precision sums the precision at each gain of recall; `pr_auc_trapezoid` joins the
    curve's points by lines, as `auc` of `precision_recall_curve`, which flatters. Tags without
    positives cannot be scored and are left out of all means; tags without negatives are left out
    of the mean ROC area. A warning says how many; `per_tag` says which.

    Parameters
    ----------
    labels : (row, tag) 0/1
    scores : (row, tag), any finite numbers that rank

    Returns
    -------
    `{"roc_auc": …, "average_precision": …, "pr_auc_trapezoid": …, "n_tags_scored": …}`: floats,
    never NaN; the last is the number of tags in the means of the PR areas.

    Raises
    ------
    ValueError
        On shapes that differ, labels other than 0 and 1, scores that are not finite, or when no
        tag can be scored.
    """
    labels, scores = checked(labels, scores)
    table = per_tag(labels, scores, range(labels.shape[1]))
    means = _mean_over_tags(table)
    n_left_out = int(table["roc_auc"].isna().sum())
    if n_left_out:
        warnings.warn(
            f"{n_left_out} of {len(table)} tags lack positive or negative rows "
            "and were left out of the mean; metrics.per_tag names them.",
            stacklevel=2,
        )
    return means


def per_tag(labels: np.ndarray, scores: np.ndarray, tags: Sequence) -> pd.DataFrame:
    """Return one row a tag: `tag`, `n_positive`, and the areas of `macro_clip`.

    Areas are scikit-learn's. All are missing (NaN) for a tag without positives, the ROC area also
    for a tag without negatives.

    Parameters
    ----------
    labels : (row, tag) 0/1
    scores : (row, tag), any finite numbers that rank
    tags : names of the columns, in order

    Raises
    ------
    ValueError
        As `macro_clip`, and when the number of names is not the number of columns.
    """
    labels, scores = checked(labels, scores)
    check_named(tags, labels)
    rows = [
        {"tag": tag, "n_positive": int(carries.sum()), **exact_areas(carries, ranks)}
        for tag, carries, ranks in zip(tags, labels.T, scores.T, strict=True)
    ]
    return pd.DataFrame(rows)


def _mean_over_tags(table: pd.DataFrame) -> dict[str, float]:
    """The dict of `macro_clip` from a table of `per_tag`."""
    areas = table[list(AREAS)]
    if areas.isna().all().any():
        raise ValueError("no tag has both positive and negative rows: test on more labelled clips.")
    n_scored = float(areas["average_precision"].count())
    return {**{name: float(area) for name, area in areas.mean().items()}, "n_tags_scored": n_scored}


# Decisions


def accuracy(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the share of rows whose highest score is that of their class.

    For multiclass tasks, as Lee & Cho 2021 report it for Speech Commands, where rows are single
    windows. Of equal scores the first column counts as the highest.

    Parameters
    ----------
    labels : (row, class) 0/1 with one 1 a row
    scores : (row, class), any finite numbers that rank

    Raises
    ------
    ValueError
        On shapes that differ, scores that are not finite, or rows without exactly one class.
    """
    labels, scores = checked(labels, scores)
    return float(weighted_accuracy(labels, scores[:, None], np.ones((1, len(labels))))[0])


def f1_as_coded(areas: Mapping[str, float]) -> float:
    """Return the harmonic mean of `micro_window`'s two areas, which is no F-score.

    The authors' code of ATOSE (Applied Sciences 13(15) 9002) calls it F1 and reports it for
    DCASE 2017; `f1_instance` is that challenge's own figure. `areas` holds `roc_auc` and
    `pr_auc`: numbers, or arrays of one shape.
    """
    roc_auc, pr_auc = areas["roc_auc"], areas["pr_auc"]
    return 2 * roc_auc * pr_auc / (roc_auc + pr_auc)


def f1_instance(labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray) -> float:
    """Return the F-score of all (clip, tag) decisions pooled: scikit-learn's `average="micro"`.

    A tag is said of a clip whose score is at or above the tag's threshold. Hits, false alarms and
    misses are summed over all clips and tags, then F = 2 hits / (2 hits + false alarms + misses).
    The evaluator of DCASE 2017 task 4 A (Mesaros et al. 2017) names this "micro average or
    instance based" and ranks by it; it is not the mean over clips of each clip's own F-score
    (`average="samples"`). It is 0 where no tag is carried and none said.

    Parameters
    ----------
    labels : (clip, tag) 0/1
    scores : (clip, tag), means over a clip's windows
    thresholds : (tag,) from `choose_thresholds` on other clips, those of the validation split

    Raises
    ------
    ValueError
        On shapes that do not fit, labels other than 0 and 1, or numbers that are not finite.
    """
    labels = checked_labels(labels)
    return float(weighted_f1_instance(labels, scores, thresholds, np.ones((1, len(labels))))[0])


def choose_thresholds(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return for each tag the threshold that maximises the tag's own F-score on these rows.

    Exact: every distinct score is tried. Of equally good thresholds it is the highest, which
    says the tag least often. A tag without positives gets 0.5, for nothing speaks for another.
    Give it the validation split, never the rows that are to be scored.

    Parameters
    ----------
    labels : (row, tag) 0/1
    scores : (row, tag), any finite numbers that rank

    Returns
    -------
    (tag,) float64; a score at or above its tag's threshold says the tag.

    Raises
    ------
    ValueError
        On shapes that differ, labels other than 0 and 1, or scores that are not finite.
    """
    labels, scores = checked(labels, scores)
    order = np.argsort(-scores.astype(np.float64), axis=0)
    ranked = np.take_along_axis(scores, order, axis=0)
    hits = np.cumsum(np.take_along_axis(labels, order, axis=0), axis=0)
    said = np.arange(1, len(labels) + 1)[:, None]
    f1 = 2 * hits / (said + hits[-1])
    f1[:-1][ranked[:-1] == ranked[1:]] = -1.0  # rows of equal score are said together
    best = np.take_along_axis(ranked, f1.argmax(axis=0)[None], axis=0)[0]
    return np.where(labels.any(axis=0), best, 0.5).astype(np.float64)


# Calibration


def calibration(
    labels: np.ndarray, probs: np.ndarray, tags: Sequence, n_bins: int = 10
) -> pd.DataFrame:
    """Return how far each tag's probabilities can be taken at their word.

    The expected calibration error (Naeini et al. 2015; Guo et al. 2017) is the mean, over bins and
    weighted by their rows, of |share of positives − mean probability|. Bins hold equally many
    rows, equal probabilities together: most tags are rare, and of bins of equal width the lowest
    would hold nearly all rows. A perfect tag's error is not 0 but what chance leaves in bins of
    so few rows.

    Parameters
    ----------
    labels : (row, tag) 0/1
    probs : (row, tag) in [0, 1]
    tags : names of the columns, in order
    n_bins : bins a tag; fewer where probabilities are equal

    Returns
    -------
    One row a tag: `tag`, `mean_prob`, `share_positive`, `calibration_error` (expected), `brier`
    (mean squared error; Brier 1950).

    Raises
    ------
    ValueError
        On shapes that do not fit, labels other than 0 and 1, probabilities outside [0, 1], or
        fewer than one bin.
    """
    labels, probs = _checked_probs(labels, probs, n_bins)
    check_named(tags, labels)
    edges = np.quantile(probs, np.arange(1, n_bins) / n_bins, axis=0)
    rows = []
    for tag, carries, prob, inner in zip(tags, labels.T, probs.T, edges.T, strict=True):
        mean_prob, share_positive, count = _reliability(carries, prob, inner).to_numpy().T
        error = np.average(np.abs(share_positive - mean_prob), weights=count)
        brier = ((prob - carries) ** 2).mean()
        rows.append((tag, prob.mean(), carries.mean(), error, brier))
    columns = ["tag", "mean_prob", "share_positive", "calibration_error", "brier"]
    return pd.DataFrame(rows, columns=columns)


def reliability(labels: np.ndarray, probs: np.ndarray, n_bins: int = 10) -> pd.DataFrame:
    """Return the reliability curve of all (row, tag) cells pooled, for drawing.

    Bins are of equal width, as in Guo et al. 2017, so that the curve reaches from 0 to 1;
    `count` says which of its points stand on few cells, and empty bins are left out.

    Parameters
    ----------
    labels, probs, n_bins : as `calibration`

    Returns
    -------
    One row a bin, from low to high: `mean_prob`, `share_positive`, `count`.

    Raises
    ------
    ValueError
        As `calibration`.
    """
    labels, probs = _checked_probs(labels, probs, n_bins)
    return _reliability(labels.ravel(), probs.ravel(), np.arange(1, n_bins) / n_bins)


def _checked_probs(
    labels: np.ndarray, probs: np.ndarray, n_bins: int
) -> tuple[np.ndarray, np.ndarray]:
    labels, probs = checked(labels, probs)
    check_probabilities(probs)
    if n_bins < 1:
        raise ValueError(f"n_bins is {n_bins}: a curve needs at least one bin.")
    return labels, probs.astype(np.float64)


def _reliability(carries: np.ndarray, probs: np.ndarray, inner: np.ndarray) -> pd.DataFrame:
    """The filled ones of the bins between `inner` edges; a probability at an edge lies below it."""
    cells = pd.DataFrame({"prob": probs, "carries": carries})
    bins = cells.groupby(np.searchsorted(inner, probs, side="left"))
    curve = bins.agg(
        mean_prob=("prob", "mean"), share_positive=("carries", "mean"), count=("prob", "size")
    )
    return curve.reset_index(drop=True)
