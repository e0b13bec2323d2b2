"""How well scores and spaces fit the tags.

Conventions
-----------
`labels` are 0/1 arrays (row, tag) with columns in the vocabulary's order; `scores` have the same
shape and rank rows: higher means more likely. Window scores are (clip, window, tag). Every public
function checks its input first and refuses it with a `ValueError` of one sentence; arithmetic is
float64. Chance enters by a seed only: same seed, same numbers.

Protocols
---------
Two protocols are in use, and their figures must never be compared with each other.

* `micro_window`, of Lee & Cho 2021 and ATOSE (Applied Sciences 13(15) 9002): every window is
  scored alone, all (window, tag) cells are pooled, and the areas are taken at 200 fixed
  thresholds. Frequent tags dominate; tag frequency alone, without audio, scores far above 0.5.
* `macro_clip`, of Won et al. 2020 ("Evaluation of CNN-based automatic music tagging models") and
  most of the field: window probabilities are averaged per clip, exact areas are taken per tag,
  then averaged over tags. Without audio the ROC area is 0.5.

Beside the areas stands what decisions are worth. A multiclass task adds `accuracy` to both
protocols. A multilabel task adds `f1_as_coded` to `micro_window`, and to `macro_clip` the
challenge's `f1_instance`, whose thresholds come from other clips (`choose_thresholds`).

Contents
--------
* Scores: `micro_window`, `macro_clip`, `per_tag`.
* Decisions: `accuracy`, `f1_as_coded`, `f1_instance`, `choose_thresholds`.
* Uncertainty: `clip_weights`, `weighted_macro`, `weighted_micro`, `weighted_accuracy`,
  `weighted_f1_instance`, `interval`, `paired_difference`, `score_table`.
* Spaces: `neighbour_agreement`, `gap`, `query_map`, `tag_correlation`.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from jetatag.config import refuse_unknown

TASKS = ("multilabel", "multiclass")

N_THRESHOLDS = 200
"""Thresholds of the micro areas: the default of Keras, used by both papers."""

CHUNK = 32
"""Resamples (or rows of a similarity matrix) held at once: bounds the memory, not the result."""


# Scores


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
    labels, scores = _checked(labels, scores)
    _refuse_unless_probabilities(scores)
    if labels.all() or not labels.any():
        raise ValueError("labels hold one class only: the areas need positive and negative cells.")
    positive, negative = _bucket_counts(labels.reshape(1, -1), scores.reshape(1, 1, -1))
    return {name: float(area[0]) for name, area in _threshold_areas(positive, negative).items()}


def macro_clip(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return the mean over tags of scikit-learn's ROC area and average precision.

    The field's protocol (Won et al. 2020): rows are clips, scores the mean over a clip's windows.
    Tags without positives cannot be scored and are left out of both means; tags without
    negatives are left out of the mean ROC area. A warning says how many; `per_tag` says which.

    Parameters
    ----------
    labels : (row, tag) 0/1
    scores : (row, tag), any finite numbers that rank

    Returns
    -------
    `{"roc_auc": …, "average_precision": …, "n_tags_scored": …}`: floats, never NaN; the last is
    the number of tags in the mean average precision.

    Raises
    ------
    ValueError
        On shapes that differ, labels other than 0 and 1, scores that are not finite, or when no
        tag can be scored.
    """
    labels, scores = _checked(labels, scores)
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
    """Return one row a tag: `tag`, `n_positive`, `roc_auc`, `average_precision`.

    Areas are scikit-learn's. Both are missing (NaN) for a tag without positives, the ROC area
    also for a tag without negatives.

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
    labels, scores = _checked(labels, scores)
    if len(tags) != labels.shape[1]:
        raise ValueError(f"{len(tags)} tag names for {labels.shape[1]} columns: give one each.")
    rows = [
        {"tag": tag, "n_positive": int(carries.sum()), **_exact_areas(carries, ranks)}
        for tag, carries, ranks in zip(tags, labels.T, scores.T, strict=True)
    ]
    return pd.DataFrame(rows)


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
    labels, scores = _checked(labels, scores)
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
    labels = _checked_labels(labels)
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
    labels, scores = _checked(labels, scores)
    order = np.argsort(-scores.astype(np.float64), axis=0)
    ranked = np.take_along_axis(scores, order, axis=0)
    hits = np.cumsum(np.take_along_axis(labels, order, axis=0), axis=0)
    said = np.arange(1, len(labels) + 1)[:, None]
    f1 = 2 * hits / (said + hits[-1])
    f1[:-1][ranked[:-1] == ranked[1:]] = -1.0  # rows of equal score are said together
    best = np.take_along_axis(ranked, f1.argmax(axis=0)[None], axis=0)[0]
    return np.where(labels.any(axis=0), best, 0.5).astype(np.float64)


# Uncertainty


def clip_weights(
    n_clips: int, n_resamples: int, seed: int, groups: Sequence | None = None
) -> np.ndarray:
    """Return how often each clip is drawn in each bootstrap resample.

    Without `groups`, `n_clips` clips are drawn with replacement (Efron 1979). With them, whole
    groups are drawn, as many as there are, and a clip counts as often as its group: the
    clustered bootstrap (Field & Welsh 2007), for clips that share an artist are not independent.

    Parameters
    ----------
    n_clips, n_resamples : positive counts
    seed : of `numpy.random.default_rng`
    groups : (clip,) any labels without missing values, for example artists

    Returns
    -------
    (resample, clip) int64 counts.

    Raises
    ------
    ValueError
        On counts below 1, or groups that are missing or not one a clip.
    """
    if n_clips < 1 or n_resamples < 1:
        raise ValueError("n_clips and n_resamples must be at least 1 to draw a resample.")
    codes = np.arange(n_clips) if groups is None else _group_codes(groups, n_clips)
    n_groups = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples)
    return drawn if groups is None else drawn[:, codes]


def weighted_macro(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return `macro_clip`'s two means for each row of clip weights.

    Exact, ties included: for each tag and resample the areas equal scikit-learn's with
    `sample_weight`. Each tag is sorted once, and its curves need to be known only where they gain
    positives. A tag that a resample leaves without positives (for ROC: or negatives) is left out
    of that resample's mean; a resample without any such tag is missing (NaN).

    Parameters
    ----------
    labels : (clip, tag) 0/1
    scores : (clip, tag), any finite numbers that rank
    weights : (resample, clip) counts, as from `clip_weights`

    Returns
    -------
    `{"roc_auc": (resample,), "average_precision": (resample,)}` float64.

    Raises
    ------
    ValueError
        As `macro_clip`, and on weights that are negative or not one a clip.
    """
    labels, scores = _checked(labels, scores)
    weights = _checked_weights(weights, len(labels))
    rankings = [_ranking(*column) for column in zip(labels.T, scores.T, strict=True)]
    areas = np.concatenate(
        [
            np.stack([_weighted_areas(drawn, *ranking) for ranking in rankings], axis=-1)
            for drawn in _chunks(weights)
        ],
        axis=1,
    )  # (2, resample, tag)
    scored = (~np.isnan(areas)).sum(axis=-1)
    roc_auc, average_precision = _ratio(np.nansum(areas, axis=-1), scored, empty=np.nan)
    return {"roc_auc": roc_auc, "average_precision": average_precision}


def weighted_micro(
    labels: np.ndarray, window_scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return `micro_window`'s two areas for each row of clip weights.

    The areas need only the number of positive and negative cells between thresholds; these are
    counted once a clip, and a resample is a weighted sum of such counts.

    Parameters
    ----------
    labels : (clip, tag) 0/1
    window_scores : (clip, window, tag) probabilities in [0, 1]
    weights : (resample, clip) counts, as from `clip_weights`

    Returns
    -------
    `{"roc_auc": (resample,), "pr_auc": (resample,)}` float64, NaN where a resample holds one
    class only.

    Raises
    ------
    ValueError
        As `micro_window`, and on weights that are negative or not one a clip.
    """
    labels, window_scores = _checked_windows(labels, window_scores)
    _refuse_unless_probabilities(window_scores)
    weights = _checked_weights(weights, len(labels))
    positive, negative = _bucket_counts(labels, window_scores).astype(np.float64)
    return _threshold_areas(weights @ positive, weights @ negative)


def weighted_accuracy(
    labels: np.ndarray, window_scores: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the `accuracy` of single windows for each row of clip weights.

    The accuracy of whole clips is that of one window a clip, the mean.

    Parameters
    ----------
    labels : (clip, class) 0/1 with one 1 a row
    window_scores : (clip, window, class), any finite numbers that rank
    weights : (resample, clip) counts, as from `clip_weights`

    Returns
    -------
    (resample,) float64, NaN where a resample is empty.

    Raises
    ------
    ValueError
        As `accuracy`, and on weights that are negative or not one a clip.
    """
    labels, window_scores = _checked_windows(labels, window_scores)
    weights = _checked_weights(weights, len(labels))
    if not (labels.sum(axis=1) == 1).all():
        raise ValueError("labels hold rows without exactly one class: accuracy is for multiclass.")
    right = (window_scores.argmax(axis=2) == labels.argmax(axis=1)[:, None]).mean(axis=1)
    return _ratio(weights @ right, weights.sum(axis=1), empty=np.nan)


def weighted_f1_instance(
    labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return `f1_instance` for each row of clip weights.

    Parameters
    ----------
    labels, scores, thresholds : as `f1_instance`
    weights : (resample, clip) counts, as from `clip_weights`

    Returns
    -------
    (resample,) float64.

    Raises
    ------
    ValueError
        As `f1_instance`, and on weights that are negative or not one a clip.
    """
    labels, scores = _checked(labels, scores)
    weights = _checked_weights(weights, len(labels))
    thresholds = np.asarray(thresholds)
    if thresholds.shape != labels.shape[1:] or not np.isfinite(thresholds).all():
        raise ValueError(
            f"thresholds {thresholds.shape} must be one finite number for each of the "
            f"{labels.shape[1]} tags: choose them with metrics.choose_thresholds."
        )
    said = scores >= thresholds
    hits, marks = (labels & said).sum(axis=1), labels.sum(axis=1) + said.sum(axis=1)
    return _ratio(2 * (weights @ hits), weights @ marks)


def interval(
    values: np.ndarray, level: float = 0.95, estimate: float | None = None
) -> tuple[float, float]:
    """Return the interval (low, high) that holds `level` of the resampled `values`.

    With an `estimate` the resampled values are first moved so that their mean is the estimate: a
    clip drawn twice ranks beside itself, which lifts the average precision of rare tags in every
    resample, and an interval should show spread, not that lift. Missing values (NaN: resamples in
    which nothing could be scored) are ignored. Raises `ValueError` for a level outside (0, 1) or
    when every value is missing.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: give a share between 0 and 1, such as 0.95.")
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        raise ValueError("no resample could be scored: the interval needs more labelled clips.")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    shift = 0.0 if estimate is None else estimate - values.mean()
    return float(low + shift), float(high + shift)


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
    labels, window_scores = _checked_windows(labels, window_scores)
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


# Spaces


def neighbour_agreement(points: np.ndarray, labels: np.ndarray, k: int = 10) -> dict[str, float]:
    """Return how far a clip's nearest neighbours share its tags, beside what chance would give.

    The agreement is the mean Jaccard similarity (shared tags over tags of either) between a clip
    and its `k` nearest others by cosine in the full space: the number that belongs beside a
    two-dimensional picture, which may show clusters that are not there. Clips without tags have
    none to share and are left out.

    Parameters
    ----------
    points : (clip, dimension)
    labels : (clip, tag) 0/1
    k : neighbours a clip

    Returns
    -------
    `{"agreement": …, "chance": …}` in [0, 1]; `chance` is the mean over all pairs of clips.

    Raises
    ------
    ValueError
        On points that are not finite or not one a clip, and when no more than `k` clips carry tags.
    """
    labels, points = _checked_labels(labels), _checked_points(points, len(labels))
    tagged = labels.any(axis=1)
    unit, tags = _unit(points[tagged]), labels[tagged].astype(np.float64)
    if not 1 <= k < len(unit):
        raise ValueError(
            f"k={k} neighbours need at least k + 1 tagged clips, but there are {len(unit)}."
        )
    size, near, anyone = tags.sum(axis=1), 0.0, 0.0
    for rows in _chunks(np.arange(len(unit))):
        shared = tags[rows] @ tags.T
        jaccard = shared / (size[rows, None] + size - shared)
        cosine = unit[rows] @ unit.T
        cosine[np.arange(len(rows)), rows] = -np.inf  # a clip is not its own neighbour
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        near += np.take_along_axis(jaccard, nearest, axis=1).sum()
        anyone += jaccard.sum() - len(rows)  # without the pairs of a clip and itself
    n_clips = len(unit)
    return {
        "agreement": float(near / (n_clips * k)),
        "chance": float(anyone / (n_clips * (n_clips - 1))),
    }


def gap(
    z_audio: np.ndarray, z_tag: np.ndarray, labels: np.ndarray | None = None
) -> dict[str, float]:
    """Return how far a clip's own tag vector stands out from those of other clips.

    `matched` is the mean cosine of `z_audio[i]` with `z_tag[i]`, `unmatched` the mean over pairs
    i ≠ j, and `gap` their difference over the standard deviation of the unmatched cosines. It is
    0 in a collapsed space (no deviation) and negative in a mirrored one. With `labels`, pairs
    that carry the same tag set are not counted as unmatched, for their tag vectors are equal.

    Parameters
    ----------
    z_audio, z_tag : (clip, dimension), row i of both from clip i
    labels : (clip, tag) 0/1, optional

    Returns
    -------
    `{"gap": …, "matched": …, "unmatched": …}`: the first in standard deviations, the rest cosines.

    Raises
    ------
    ValueError
        On shapes that differ, values that are not finite, or when no two clips differ.
    """
    z_tag = _checked_points(z_tag)
    z_audio = _checked_points(z_audio, len(z_tag))
    if z_audio.shape != z_tag.shape:
        raise ValueError(f"z_audio {z_audio.shape} and z_tag {z_tag.shape} must have one shape.")
    audio, tag, tag_sets = _unit(z_audio), _unit(z_tag), _tag_sets(len(z_tag), labels)
    matched = (audio * tag).sum(axis=1).mean()
    sums = np.zeros(3)  # of 1, x and x² over the unmatched pairs, x being cosine − matched
    for rows in _chunks(np.arange(len(audio))):
        differ = tag_sets[rows, None] != tag_sets
        x = (audio[rows] @ tag.T - matched)[differ]
        sums += len(x), x.sum(), (x**2).sum()
    if not sums[0]:
        raise ValueError("no two clips differ in their tags: the gap needs other clips to compare.")
    _, mean, square = sums / sums[0]
    deviation = np.sqrt(max(square - mean**2, 0))
    # Below 1e-6 the deviation is the rounding of float32 vectors that are all the same.
    distance = -mean / deviation if deviation > 1e-6 else 0.0
    return {"gap": float(distance), "matched": float(matched), "unmatched": float(matched + mean)}


def query_map(z_query: np.ndarray, z_audio: np.ndarray, relevant: np.ndarray) -> float:
    """Return the mean average precision of queries that rank clips by cosine in the shared space.

    The same queries ranked by a classifier score `macro_clip(relevant, scores)
    ["average_precision"]`: the two numbers compare space and classifier. Queries without a
    relevant clip are left out, with a warning.

    Parameters
    ----------
    z_query : (query, dimension)
    z_audio : (clip, dimension)
    relevant : (clip, query) 0/1, whether the clip answers the query

    Raises
    ------
    ValueError
        On shapes that do not fit, values that are not finite, or when no query has an answer.
    """
    relevant = _checked_labels(relevant)
    z_query = _checked_points(z_query, relevant.shape[1])
    z_audio = _checked_points(z_audio, len(relevant))
    if z_query.shape[1] != z_audio.shape[1]:
        raise ValueError("z_query and z_audio must lie in one space, with equal last dimensions.")
    answered = relevant.any(axis=0)
    if not answered.all():
        n_empty = int((~answered).sum())
        warnings.warn(f"{n_empty} of {len(z_query)} queries have no relevant clip.", stacklevel=2)
    table = per_tag(relevant, _unit(z_audio) @ _unit(z_query).T, range(len(z_query)))
    return _mean_over_tags(table)["average_precision"]


def tag_correlation(labels: np.ndarray) -> np.ndarray:
    """Return the Pearson correlation of every two tags over clips, (tag, tag) float64.

    The quantity of figure 3 in Lee & Cho 2021. A tag that all clips or none carry has no
    correlation; it gets 0 with the others and 1 with itself. `labels` is (clip, tag) 0/1; raises
    `ValueError` otherwise.
    """
    centred = _checked_labels(labels).astype(np.float64)
    centred -= centred.mean(axis=0)
    norm = np.linalg.norm(centred, axis=0)
    correlation = _ratio(centred.T @ centred, np.outer(norm, norm))
    np.fill_diagonal(correlation, 1.0)
    return correlation


# What is accepted


def _checked_labels(labels: np.ndarray) -> np.ndarray:
    """(row, tag) 0/1 of any dtype → bool."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or not labels.size:
        raise ValueError(f"labels have shape {labels.shape}: give a filled (row, tag) array.")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels hold values other than 0 and 1: drop rows with unknown tags.")
    return labels.astype(bool)


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = _checked_labels(labels), np.asarray(scores)
    if labels.shape != scores.shape:
        raise ValueError(
            f"labels {labels.shape} and scores {scores.shape} must have one shape (row, tag)."
        )
    _refuse_unless_finite(scores)
    return labels, scores


def _checked_windows(
    labels: np.ndarray, window_scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    labels, window_scores = _checked_labels(labels), np.asarray(window_scores)
    if window_scores.ndim != 3 or window_scores[:, 0].shape != labels.shape:
        raise ValueError(
            f"window scores {window_scores.shape} do not fit labels {labels.shape}: "
            "give (clip, window, tag) for (clip, tag)."
        )
    _refuse_unless_finite(window_scores)
    return labels, window_scores


def _refuse_unless_finite(scores: np.ndarray) -> None:
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity: look for silent clips or a diverged run.")


def _refuse_unless_probabilities(scores: np.ndarray) -> None:
    if not ((scores >= 0) & (scores <= 1)).all():  # refuses NaN as well
        raise ValueError(
            "scores must be probabilities in [0, 1]: apply the sigmoid to logits first."
        )


def _checked_weights(weights: np.ndarray, n_clips: int) -> np.ndarray:
    weights = np.asarray(weights)
    if weights.ndim != 2 or weights.shape[1] != n_clips or not (weights >= 0).all():
        raise ValueError(
            f"weights {weights.shape} must be (resample, clip) for {n_clips} clips, none negative."
        )
    return weights


def _checked_points(points: np.ndarray, n_points: int | None = None) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or n_points not in (None, len(points)):
        rows = "row" if n_points is None else n_points
        raise ValueError(f"vectors have shape {points.shape}: give ({rows}, dimension).")
    if not np.isfinite(points).all():
        raise ValueError("vectors hold NaN or infinity: look for silent clips or a diverged run.")
    return points


def _group_codes(groups: Sequence, n_clips: int) -> np.ndarray:
    codes, _ = pd.factorize(pd.Series(list(groups)))
    if len(codes) != n_clips or (codes < 0).any():
        raise ValueError(
            f"groups must name one group for each of the {n_clips} clips, none missing."
        )
    return codes


# Arithmetic


def _exact_areas(carries: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Both areas of one tag by scikit-learn, NaN where they do not exist."""
    two_classes = carries.any() and not carries.all()
    return {
        "roc_auc": float(roc_auc_score(carries, scores)) if two_classes else np.nan,
        "average_precision": (
            float(average_precision_score(carries, scores)) if carries.any() else np.nan
        ),
    }


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


def _mean_over_tags(table: pd.DataFrame) -> dict[str, float]:
    """The dict of `macro_clip` from a table of `per_tag`."""
    areas = table[["roc_auc", "average_precision"]]
    if areas.isna().all().any():
        raise ValueError("no tag has both positive and negative rows: test on more labelled clips.")
    n_scored = float(areas["average_precision"].count())
    return {**{name: float(area) for name, area in areas.mean().items()}, "n_tags_scored": n_scored}


def _ranking(carries: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, ...]:
    """Sort one tag once: what `_weighted_areas` needs besides the weights.

    Clips of equal score form one step of the curve. Only steps that gain positives add area;
    they begin and end at `steps` (2, step) in descending `order`, and at `found` (2, step) among
    the positives alone, which are the clips `positives`.
    """
    order = np.argsort(-scores, kind="stable")
    edges = np.flatnonzero(np.diff(scores[order], prepend=np.inf, append=-np.inf))
    found = np.concatenate([[0], np.cumsum(carries[order])])[edges]
    gains = np.diff(found) > 0
    steps, found = (np.stack([at[:-1][gains], at[1:][gains]]) for at in (edges, found))
    return order, order[carries[order]], steps, found


def _weighted_areas(
    weights: np.ndarray,
    order: np.ndarray,
    positives: np.ndarray,
    steps: np.ndarray,
    found: np.ndarray,
) -> np.ndarray:
    """(resample, clip) weights → (2, resample): ROC area, average precision; NaN if undefined."""
    drawn, hits = _running_sum(weights[:, order]), _running_sum(weights[:, positives])
    (drawn_before, drawn_after), (hits_before, hits_after) = drawn[:, steps.T].T, hits[:, found.T].T
    n_positive = hits[:, -1]
    n_negative = drawn[:, -1] - n_positive
    gained = hits_after - hits_before  # (step, resample)
    # A step's positives beat the negatives below them and tie with half of those in the step.
    false_alarms = (drawn_before + drawn_after - hits_before - hits_after) / 2
    beaten = (gained * (n_negative - false_alarms)).sum(axis=0)
    precise = (gained * _ratio(hits_after, drawn_after)).sum(axis=0)
    return np.stack(
        [
            _ratio(beaten, n_positive * n_negative, empty=np.nan),
            _ratio(precise, n_positive, empty=np.nan),
        ]
    )


def _bucket_counts(labels: np.ndarray, window_scores: np.ndarray) -> np.ndarray:
    """Count (2, clip, threshold) positive and negative cells between a threshold and the next.

    Keras counts a score above i/199 (never at it) as predicted at threshold i, and decides so in
    float32; threshold 0 takes every cell and threshold 1 none.
    """
    n_clips, top = len(labels), np.float32(N_THRESHOLDS - 1)
    bucket = np.ceil(window_scores.astype(np.float32) * top).astype(np.int64) - 1
    cell = np.maximum(bucket, 0) + N_THRESHOLDS * np.arange(n_clips)[:, None, None]
    carried = np.broadcast_to(labels[:, None], cell.shape)
    counts = [
        np.bincount(cell[chosen], minlength=n_clips * N_THRESHOLDS)
        for chosen in (carried, ~carried)
    ]
    return np.reshape(counts, (2, n_clips, N_THRESHOLDS))


def _threshold_areas(positive: np.ndarray, negative: np.ndarray) -> dict[str, np.ndarray]:
    """Areas of (curve, threshold) bucket counts, as `tf.keras.metrics.AUC` sums them."""
    true_pos, false_pos = (
        np.cumsum(count[:, ::-1], axis=1)[:, ::-1] for count in (positive, negative)
    )
    n_positive, n_negative = true_pos[:, 0], false_pos[:, 0]
    height = (true_pos[:, :-1] + true_pos[:, 1:]) / 2
    roc = (negative[:, :-1] * height).sum(axis=1)

    # Davis & Goadrich: between thresholds, true positives grow in proportion to predictions.
    predicted = true_pos + false_pos
    gained, here, after = positive[:, :-1], predicted[:, :-1], predicted[:, 1:]
    slope = _ratio(gained, here - after)
    intercept = true_pos[:, 1:] - slope * after
    growth = np.log(_ratio(here, after, empty=1.0))
    precise = (slope * (gained + intercept * growth)).sum(axis=1)
    return {
        "roc_auc": _ratio(roc, n_positive * n_negative, empty=np.nan),
        "pr_auc": _ratio(precise, n_positive, empty=np.nan),
    }


def _tag_sets(n_clips: int, labels: np.ndarray | None) -> np.ndarray:
    """(clip,) number of each clip's tag set; each its own where no labels are given."""
    if labels is None:
        return np.arange(n_clips)
    labels = _checked_labels(labels)
    if len(labels) != n_clips:
        raise ValueError(f"{len(labels)} label rows for {n_clips} vectors: give one a clip.")
    return np.unique(labels, axis=0, return_inverse=True)[1]


def _unit(points: np.ndarray) -> np.ndarray:
    """Rows at length 1; a zero row stays zero and so has cosine 0 with everything."""
    return _ratio(points, np.linalg.norm(points, axis=1, keepdims=True))


def _ratio(above: np.ndarray, below: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """`above / below` in float64, and `empty` where `below` is 0."""
    above, below = np.broadcast_arrays(above, below)
    return np.divide(above, below, out=np.full(above.shape, empty), where=below != 0)


def _running_sum(weights: np.ndarray) -> np.ndarray:
    """(resample, clip) → (resample, clip + 1): the sum of the first 0, 1, … clips."""
    sums = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


def _chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
