"""How far a space of vectors knows the tags."""

import warnings

import numpy as np
import pandas as pd
from scipy.special import entr

from jetatag.metrics._arithmetic import chunks, rank_correlation, ratio, unit_rows
from jetatag.metrics._checks import checked, checked_labels, checked_points
from jetatag.metrics.resampling import weighted_per_tag, weighted_precision


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
    by_clip = agreement_by_clip(points, labels, k)
    return {name: float(np.nanmean(values)) for name, values in by_clip.items()}


def agreement_by_clip(points: np.ndarray, labels: np.ndarray, k: int = 10) -> dict[str, np.ndarray]:
    """Return the parts whose mean is `neighbour_agreement`, one a clip: `{"agreement": (clip,),
    "chance": (clip,)}`, NaN for clips without tags. Takes and raises the same."""
    labels, points = checked_labels(labels), checked_points(points, len(labels))
    tagged = labels.any(axis=1)
    unit, tags = unit_rows(points[tagged]), labels[tagged].astype(np.float64)
    if not 1 <= k < len(unit):
        raise ValueError(
            f"k={k} neighbours need at least k + 1 tagged clips, but there are {len(unit)}."
        )
    size, near, anyone = tags.sum(axis=1), [], []
    for rows in chunks(np.arange(len(unit))):
        shared = tags[rows] @ tags.T
        jaccard = shared / (size[rows, None] + size - shared)
        cosine = unit[rows] @ unit.T
        cosine[np.arange(len(rows)), rows] = -np.inf  # a clip is not its own neighbour
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        near.append(np.take_along_axis(jaccard, nearest, axis=1).mean(axis=1))
        anyone.append((jaccard.sum(axis=1) - 1) / (len(unit) - 1))  # others alone
    by_clip = np.full((2, len(labels)), np.nan)
    by_clip[:, tagged] = np.concatenate(near), np.concatenate(anyone)
    return dict(zip(("agreement", "chance"), by_clip, strict=True))


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
    if not answered.any():
        raise ValueError("no query has a relevant clip: ask for tags that the clips carry.")
    if not answered.all():
        n_empty = int((~answered).sum())
        warnings.warn(f"{n_empty} of {len(z_query)} queries have no relevant clip.", stacklevel=2)
    scores = unit_rows(z_audio) @ unit_rows(z_query).T
    return float(_average_precision(relevant[:, answered], scores[:, answered]).mean())


def rank_table(scores: np.ndarray, relevant: np.ndarray, k: int = 10) -> pd.DataFrame:
    """Return how well each query ranks the clips that answer it.

    Clips of equal score count in no order: for average precision they are found together, as by
    scikit-learn, and of those tied at place `k` as many places are filled with their average
    relevance, which is the mean precision over all orders of them.

    Parameters
    ----------
    scores : (clip, query), any finite numbers that rank, by a space or by a classifier
    relevant : (clip, query) 0/1, whether the clip answers the query
    k : places counted for the precision

    Returns
    -------
    One row a query: `n_relevant`, `average_precision` and, for k = 10, `precision_at_10`; the last
    two are NaN for a query without a relevant clip.

    Raises
    ------
    ValueError
        On shapes that differ, values that are not finite, or fewer than `k` clips.
    """
    relevant, scores = checked(relevant, scores)
    if not 1 <= k <= len(scores):
        raise ValueError(f"precision at {k} needs at least {max(k, 1)} clips, not {len(scores)}.")
    once = np.ones((1, len(scores)))
    return pd.DataFrame(
        {
            "n_relevant": relevant.sum(axis=0),
            "average_precision": _average_precision(relevant, scores),
            f"precision_at_{k}": weighted_precision(relevant, scores, once, k)[0],
        }
    )


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


def tag_semantics(z_single: np.ndarray, correlation: np.ndarray) -> float:
    """Return how far tags that go together lie together in the space.

    The Spearman correlation, over all pairs of tags, between the cosine of their vectors, the mean
    over tags removed, and the correlation of their labels. 1 where the space orders pairs as the
    labels do; about 0 where it knows nothing of them, and 0 where all vectors are one.

    Parameters
    ----------
    z_single : (tag, dimension), the embedding of each tag alone
    correlation : (tag, tag) as from `tag_correlation`; only what is above the diagonal is read

    Raises
    ------
    ValueError
        On shapes that do not fit, values that are not finite, or fewer than three tags.
    """
    z_single = checked_points(z_single)
    n_tags = len(z_single)
    correlation = checked_points(correlation, n_tags)
    if n_tags < 3 or correlation.shape[1] != n_tags:
        raise ValueError(
            f"{z_single.shape} vectors and correlation {correlation.shape} must be of the same "
            "tags, three at least."
        )
    pairs = np.triu_indices(n_tags, 1)
    unit = unit_rows(_centred(z_single))
    return float(rank_correlation((unit @ unit.T)[pairs], correlation[pairs]))


def mean_energy(z: np.ndarray) -> float:
    """Return the share of the vectors' energy that lies in their mean, |mean z|² / mean |z|².

    0 for vectors about the origin, 1 for vectors that are all the same; of independent directions
    about 1 over the number of rows. `z` is (row, dimension); raises `ValueError` otherwise and for
    values that are not finite.
    """
    z = checked_points(z)
    return float(ratio((z.mean(axis=0) ** 2).sum(), (z**2).sum() / len(z)))


def effective_rank(z: np.ndarray) -> float:
    """Return how many directions the centred vectors fill (Roy & Vetterli, EUSIPCO 2007).

    The exponential of the entropy of their singular values, normalised to sum 1: the rank where
    all non-zero ones are equal, less where few dominate, 0 where all vectors are the same. `z` is
    (row, dimension); raises `ValueError` otherwise and for values that are not finite.
    """
    singular = np.linalg.svd(_centred(checked_points(z)), compute_uv=False)
    if not singular.any():
        return 0.0
    share = singular / singular.sum()
    return float(np.exp(entr(share).sum()))


def _average_precision(relevant: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(query,) on the clips as they are; NaN where none is relevant."""
    once = np.ones((1, len(relevant)))
    return weighted_per_tag(relevant, scores, once)["average_precision"][0]


def _centred(z: np.ndarray) -> np.ndarray:
    """The vectors without their mean; exactly 0 where they differ by no more than the rounding of
    float32."""
    centred = z - z.mean(axis=0)
    return centred if np.abs(centred).max() > 1e-6 * np.abs(z).max() else np.zeros_like(z)


def _tag_sets(n_clips: int, labels: np.ndarray | None) -> np.ndarray:
    """(clip,) number of each clip's tag set; each its own where no labels are given."""
    if labels is None:
        return np.arange(n_clips)
    labels = checked_labels(labels)
    if len(labels) != n_clips:
        raise ValueError(f"{len(labels)} label rows for {n_clips} vectors: give one a clip.")
    return np.unique(labels, axis=0, return_inverse=True)[1]
