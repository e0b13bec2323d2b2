# ruff: noqa: F401 – imported names are the public ones
"""How well scores and spaces match the tags: pure functions of arrays.

Two protocols are in use, and their scores must not be compared with each other:

* `micro_window`, of Lee & Cho 2021 and ATOSE (Applied Sciences 13(15) 9002): every window is
  scored alone, all (window, tag) cells are pooled, and the areas are taken at 200 fixed
  thresholds. Tag frequency alone, without audio, has a ROC area far above 0.5.
* `macro_clip`, of Won et al. 2020 ("Evaluation of CNN-based automatic music tagging models") and
  most of the field: window probabilities are averaged per clip, exact areas are taken per tag,
  then averaged over tags. Without audio, the ROC area is 0.5.

`labels` are 0/1 arrays (row, tag); `scores` rank rows. Invalid input raises `ValueError`.
"""

from jetatag.metrics.scores import (
    accuracy,
    calibration,
    choose_thresholds,
    f1_as_coded,
    f1_instance,
    macro_clip,
    micro_window,
    per_tag,
    precision_at_k,
    reliability,
    tag_areas,
)
from jetatag.metrics.spaces import (
    SMALL_GAP,
    effective_rank,
    gap,
    mean_energy,
    neighbour_agreement,
    tag_correlation,
    tag_semantics,
)
from jetatag.metrics.tables import (
    BOUNDS,
    clip_weights,
    difference_table,
    differences,
    gain_trend,
    interval,
    mean_runs,
    mean_table,
    resampled,
    resampled_means,
    resampled_per_tag,
    resampled_searches,
)
