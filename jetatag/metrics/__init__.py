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
* `scores`, one run against the labels: both protocols, each tag, decisions, calibration.
* `resampling`, the same figures for many weightings of the clips, and intervals.
* `tables`, runs side by side with intervals, and what is between two methods.
* `gains`, which tags gain, and what they have in common.
* `spaces`, how far a space of vectors knows the tags.
"""

from jetatag.metrics._checks import TASKS
from jetatag.metrics.gains import (
    gain_by_tag,
    gain_trend,
    resampled_gains,
    resampled_per_tag,
)
from jetatag.metrics.resampling import (
    clip_weights,
    interval,
    weighted_accuracy,
    weighted_f1_instance,
    weighted_macro,
    weighted_micro,
    weighted_per_tag,
    weighted_precision,
)
from jetatag.metrics.scores import (
    accuracy,
    calibration,
    choose_thresholds,
    f1_as_coded,
    f1_instance,
    macro_clip,
    micro_window,
    per_tag,
    reliability,
)
from jetatag.metrics.spaces import (
    agreement_by_clip,
    effective_rank,
    gap,
    mean_energy,
    neighbour_agreement,
    query_map,
    rank_table,
    tag_correlation,
    tag_semantics,
)
from jetatag.metrics.tables import (
    difference_table,
    mean_table,
    paired_difference,
    resampled,
    resampled_means,
    resampled_searches,
    score_table,
)

__all__ = [
    "TASKS",
    "accuracy",
    "agreement_by_clip",
    "calibration",
    "choose_thresholds",
    "clip_weights",
    "difference_table",
    "effective_rank",
    "f1_as_coded",
    "f1_instance",
    "gain_by_tag",
    "gain_trend",
    "gap",
    "interval",
    "macro_clip",
    "mean_energy",
    "mean_table",
    "micro_window",
    "neighbour_agreement",
    "paired_difference",
    "per_tag",
    "query_map",
    "rank_table",
    "reliability",
    "resampled",
    "resampled_gains",
    "resampled_means",
    "resampled_per_tag",
    "resampled_searches",
    "score_table",
    "tag_correlation",
    "tag_semantics",
    "weighted_accuracy",
    "weighted_f1_instance",
    "weighted_macro",
    "weighted_micro",
    "weighted_per_tag",
    "weighted_precision",
]
