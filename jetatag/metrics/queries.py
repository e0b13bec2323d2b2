"""Queries of tags: one tag, two tags, one tag without another.

Queries are rows of (query, tag) int8: 1 for a wanted tag, −1 for an unwanted tag, 0 for any other.
Their vectors come from `evaluation.predict`.
"""

import numpy as np
from scipy.special import expit

from jetatag.metrics._arithmetic import unit_rows

KINDS = ("one tag", "two tags", "tag and not tag")


def choose_queries(labels: np.ndarray) -> np.ndarray:
    """Return the queries to evaluate on clips like these, (query, tag) int8. Every tag; every two
    tags that at least 1 % of the clips have together; and of these pairs, each tag without the
    other if at least 1 % remain. `labels` (clip, tag) 0/1 are those of the training split, so the
    queries do not depend on the clips that are searched."""
    labels = np.asarray(labels, dtype=np.int64)
    together, n_tags = labels.T @ labels, labels.shape[1]
    enough = max(1.0, 0.01 * len(labels))
    pairs = np.argwhere(np.triu(together >= enough, k=1))
    ordered = [(a, b) for pair in pairs for a, b in (pair, pair[::-1])]
    one = np.eye(n_tags, dtype=np.int8)
    two = one[pairs[:, 0]] + one[pairs[:, 1]]
    without = [one[a] - one[b] for a, b in ordered if together[a, a] - together[a, b] >= enough]
    return np.concatenate([one, two, np.reshape(without, (-1, n_tags))]).astype(np.int8)


def kinds(queries: np.ndarray) -> np.ndarray:
    """Return the kind of every query, (query,) str, one of `KINDS`."""
    n_wanted, excludes = (queries > 0).sum(axis=1), (queries < 0).any(axis=1)
    return np.array(KINDS)[np.where(excludes, 2, n_wanted - 1)]


def answers(labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return whether each clip of `labels` (clip, tag) 0/1 has every wanted tag of each query and
    no unwanted one, (clip, query) 0/1."""
    labels, queries = np.asarray(labels, np.int64), np.asarray(queries, np.int64)
    has_all = labels @ (queries > 0).T == (queries > 0).sum(axis=1)
    return (has_all & (labels @ (queries < 0).T == 0)).astype(np.uint8)


def query_scores(probs: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return how `probs` (clip, tag) rank clips for queries, (clip, query) float64: the logarithm
    of Π p of the wanted tags · Π (1 − p) of the unwanted ones, as if tags were independent. Other
    values than ±1 in a query are exponents."""
    probs, queries = np.asarray(probs, np.float64), np.asarray(queries, np.float64)
    wanted, excluded = (queries > 0).any(axis=0), (queries < 0).any(axis=0)  # other tags cost time
    yes, no = (np.clip(probs[:, tags], 1e-12, 1 - 1e-12) for tags in (wanted, excluded))
    scores = np.log(yes) @ np.maximum(queries[:, wanted], 0).T
    return scores - np.log1p(-no) @ np.minimum(queries[:, excluded], 0).T


def directions(z: np.ndarray, z_centre: np.ndarray) -> np.ndarray:
    """Return the unit vectors (row, dim) float64 from the centre (dim,) to the rows of z, or 0."""
    return unit_rows(np.asarray(z, np.float64) - z_centre)


def space_probs(audio: np.ndarray, tags: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the probabilities of tags in the shared space, (clip, tag) float64. `audio` (clip,
    dim) and `tags` (tag, dim) are `directions`. The logits are scale · cosine + offset, as in the
    pair loss `subset_query`, with `scale` (2,) = (scale, offset). Equal vectors get equal
    probabilities, because every cosine is computed by itself."""
    cosines = np.vecdot(audio.astype(np.float64)[:, None], tags)
    return expit(scale[0] * cosines + scale[1])
