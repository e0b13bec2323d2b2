"""How far a space of vectors knows the tags."""

import warnings

import numpy as np

from jetatag.metrics._arithmetic import chunks, ratio, unit_rows
from jetatag.metrics._checks import checked_labels, checked_points
from jetatag.metrics.scores import mean_over_tags, per_tag


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
    labels, points = checked_labels(labels), checked_points(points, len(labels))
    tagged = labels.any(axis=1)
    unit, tags = unit_rows(points[tagged]), labels[tagged].astype(np.float64)
    if not 1 <= k < len(unit):
        raise ValueError(
            f"k={k} neighbours need at least k + 1 tagged clips, but there are {len(unit)}."
        )
    size, near, anyone = tags.sum(axis=1), 0.0, 0.0
    for rows in chunks(np.arange(len(unit))):
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
    z_tag = checked_points(z_tag)
    z_audio = checked_points(z_audio, len(z_tag))
    if z_audio.shape != z_tag.shape:
        raise ValueError(f"z_audio {z_audio.shape} and z_tag {z_tag.shape} must have one shape.")
    audio, tag, tag_sets = unit_rows(z_audio), unit_rows(z_tag), _tag_sets(len(z_tag), labels)
    matched = (audio * tag).sum(axis=1).mean()
    sums = np.zeros(3)  # of 1, x and x² over the unmatched pairs, x being cosine − matched
    for rows in chunks(np.arange(len(audio))):
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
    relevant = checked_labels(relevant)
    z_query = checked_points(z_query, relevant.shape[1])
    z_audio = checked_points(z_audio, len(relevant))
    if z_query.shape[1] != z_audio.shape[1]:
        raise ValueError("z_query and z_audio must lie in one space, with equal last dimensions.")
    answered = relevant.any(axis=0)
    if not answered.all():
        n_empty = int((~answered).sum())
        warnings.warn(f"{n_empty} of {len(z_query)} queries have no relevant clip.", stacklevel=2)
    table = per_tag(relevant, unit_rows(z_audio) @ unit_rows(z_query).T, range(len(z_query)))
    return mean_over_tags(table)["average_precision"]


def tag_correlation(labels: np.ndarray) -> np.ndarray:
    """Return the Pearson correlation of every two tags over clips, (tag, tag) float64.

    The quantity of figure 3 in Lee & Cho 2021. A tag that all clips or none carry has no
    correlation; it gets 0 with the others and 1 with itself. `labels` is (clip, tag) 0/1; raises
    `ValueError` otherwise.
    """
    centred = checked_labels(labels).astype(np.float64)
    centred -= centred.mean(axis=0)
    norm = np.linalg.norm(centred, axis=0)
    correlation = ratio(centred.T @ centred, np.outer(norm, norm))
    np.fill_diagonal(correlation, 1.0)
    return correlation


def _tag_sets(n_clips: int, labels: np.ndarray | None) -> np.ndarray:
    """(clip,) number of each clip's tag set; each its own where no labels are given."""
    if labels is None:
        return np.arange(n_clips)
    labels = checked_labels(labels)
    if len(labels) != n_clips:
        raise ValueError(f"{len(labels)} label rows for {n_clips} vectors: give one a clip.")
    return np.unique(labels, axis=0, return_inverse=True)[1]
