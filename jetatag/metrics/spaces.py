"""How well a space of vectors represents the tags.

Vectors are finite (row, dimension), `labels` (clip, tag) 0/1; anything else raises `ValueError`.
"""

import numpy as np
from scipy.special import entr

from jetatag.metrics._arithmetic import chunks, rank_correlation, ratio, unit_rows
from jetatag.metrics._checks import check_labels, check_points


def neighbour_agreement(
    points: np.ndarray, labels: np.ndarray, k: int = 10
) -> dict[str, np.ndarray]:
    """Return `{"agreement": (clip,), "chance": (clip,)}`: the mean Jaccard similarity of a clip's
    tags with those of the `k` clips nearest to it by cosine, and with those of all others. NaN for
    clips without tags, which do not count as neighbours either; k + 1 clips must carry tags."""
    points = check_points(points)
    labels = _labels_of(points, labels)
    tagged = labels.any(axis=1)
    unit, tags = unit_rows(points[tagged]), labels[tagged].astype(np.float64)
    if not 1 <= k < len(unit):
        raise ValueError(f"k={k} neighbours need {k + 1} tagged clips, not {len(unit)}: change k.")
    size, places = tags.sum(axis=1), np.flatnonzero(tagged)
    agreement, chance = np.full((2, len(labels)), np.nan)
    for rows in chunks(np.arange(len(unit))):
        shared = tags[rows] @ tags.T
        jaccard = shared / (size[rows, None] + size - shared)
        cosine = unit[rows] @ unit.T
        cosine[np.arange(len(rows)), rows] = -np.inf  # a clip is not its own neighbour
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        agreement[places[rows]] = np.take_along_axis(jaccard, nearest, axis=1).mean(axis=1)
        chance[places[rows]] = (jaccard.sum(axis=1) - 1) / (len(unit) - 1)
    return {"agreement": agreement, "chance": chance}


SMALL_GAP = 0.25  # standard deviations; a space with a gap below its negative is mirrored


def gap(
    z_audio: np.ndarray, z_tag: np.ndarray, labels: np.ndarray | None = None
) -> dict[str, float]:
    """Return how far a clip's own tag vector stands out from those of other clips.
    Returns `{"gap": …, "matched": …, "unmatched": …}`: `matched` is the mean cosine of `z_audio[i]`
    with `z_tag[i]`, `unmatched` the mean over pairs i ≠ j (with `labels`, of different tag sets),
    and `gap` their difference in standard deviations of the unmatched cosines: 0 in a collapsed
    space (no deviation), negative in a mirrored one."""
    z_audio, z_tag = check_points(z_audio), check_points(z_tag)
    if z_audio.shape != z_tag.shape:
        raise ValueError(f"z_audio {z_audio.shape} and z_tag {z_tag.shape} must have one shape.")
    labels = _labels_of(z_tag, np.eye(len(z_tag)) if labels is None else labels)
    tag_sets = np.unique(labels, axis=0, return_inverse=True)[1]
    audio, tag = unit_rows(z_audio), unit_rows(z_tag)
    matched = (audio * tag).sum(axis=1).mean()
    sums = np.zeros(3)  # of 1, x and x² over the unmatched pairs, x being cosine − matched
    for rows in chunks(np.arange(len(audio))):
        differ = tag_sets[rows, None] != tag_sets
        x = (audio[rows] @ tag.T - matched)[differ]
        sums += len(x), x.sum(), (x**2).sum()
    if not sums[0]:
        raise ValueError("no two clips differ in their tags: add clips with other tags.")
    _, mean, square = sums / sums[0]
    deviation = np.sqrt(max(square - mean**2, 0))
    # Below 1e-6 the deviation is the rounding of float32 vectors that are all the same.
    distance = -mean / deviation if deviation > 1e-6 else 0.0
    return {"gap": float(distance), "matched": float(matched), "unmatched": float(matched + mean)}


def tag_correlation(labels: np.ndarray) -> np.ndarray:
    """Return the Pearson correlation of each pair of tags over clips, (tag, tag) float64, as in
    figure 3 of Lee & Cho 2021. A tag that all clips or none have gets 0 with others, not NaN."""
    centred = check_labels(labels).astype(np.float64)
    centred -= centred.mean(axis=0)
    norm = np.linalg.norm(centred, axis=0)
    correlation = ratio(centred.T @ centred, np.outer(norm, norm))
    np.fill_diagonal(correlation, 1.0)
    return correlation


def tag_semantics(z_single: np.ndarray, correlation: np.ndarray) -> float:
    """Return how well distances between tags in the space reflect which tags occur together. The
    Spearman correlation, over all pairs of tags, between the cosine of their vectors `z_single`
    (tag, dimension), after subtracting the mean over tags, and their `correlation` (tag, tag) by
    `tag_correlation`. It is 0 if all vectors are the same, NaN for fewer than three tags."""
    unit, correlation = unit_rows(_centred(check_points(z_single))), check_points(correlation)
    n_tags = len(unit)
    if correlation.shape != (n_tags, n_tags):
        raise ValueError(f"correlation {correlation.shape} must be (tag, tag) of {n_tags} tags.")
    if n_tags < 3:
        return np.nan
    pairs = np.triu_indices(n_tags, 1)
    return float(rank_correlation((unit @ unit.T)[pairs], correlation[pairs]))


def mean_energy(z: np.ndarray) -> float:
    """Return the share of the vectors' energy that lies in their mean, |mean z|² / mean |z|²: 0 for
    vectors centred on the origin, 1 if all are the same."""
    z = check_points(z)
    return float(ratio((z.mean(axis=0) ** 2).sum(), (z**2).sum() / len(z)))


def effective_rank(z: np.ndarray) -> float:
    """Return how many directions the centred vectors fill (Roy & Vetterli, EUSIPCO 2007). The
    exponential of the entropy of their singular values, normalised to sum to 1: the rank if all
    non-zero values are equal, less if few dominate, and 0 if all vectors are the same."""
    singular = np.linalg.svd(_centred(check_points(z)), compute_uv=False)
    if not singular.any():
        return 0.0
    return float(np.exp(entr(singular / singular.sum()).sum()))


def _centred(z: np.ndarray) -> np.ndarray:
    """The vectors minus their mean; exactly 0 if they differ only by float32 rounding."""
    centred = z - z.mean(axis=0)
    return centred if np.abs(centred).max() > 1e-6 * np.abs(z).max() else np.zeros_like(z)


def _labels_of(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    labels = check_labels(labels)
    if len(labels) != len(points):
        raise ValueError(f"{len(labels)} label rows for {len(points)} vectors: give one per clip.")
    return labels
