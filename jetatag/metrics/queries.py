"""Queries of tags: one tag, two tags, one tag without another.

Queries are rows of (query, tag) int8: 1 for a wanted tag, −1 for an unwanted tag, 0 for any other.
Their vectors come from `evaluation.predict`.
"""

import numpy as np

from jetatag.metrics._arithmetic import unit_rows

KINDS = ("one tag", "two tags", "tag and not tag")
COMMON = 0.01
"""Smallest share of training clips that match a query of two tags, so that it can be learned."""
EXCLUDED_WEIGHT = 0.25
"""Weight of an unwanted tag relative to a wanted one, in the shared space. Tags that occur together
have similar directions, so an unwanted tag subtracted in full would cancel the wanted one. Chosen
on the study's validation clips, where of 0, ¼, ⅜, ½, ⅝, ¾ and 1 it ranked best for 7 of 8 losses
and extractors. Mean average precision of "tag and not tag" on its test clips (Sample-CNN, three
seeds) with 0, ¼ and 1: `subset_completion` 0.265, 0.271, 0.220; `subset_query` 0.263, 0.267,
0.208."""


def choose_queries(labels: np.ndarray) -> np.ndarray:
    """Return the queries to evaluate on clips like these, (query, tag) int8.

    Every tag; every two tags that at least 1 % of the clips have together; and of these pairs, each
    tag without the other if as many clips remain. `labels` (clip, tag) 0/1 are those of the
    training split, so the queries do not depend on the clips that are searched.
    """
    labels = np.asarray(labels, dtype=np.int64)
    together, n_tags = labels.T @ labels, labels.shape[1]
    enough = max(1.0, COMMON * len(labels))
    pairs = np.argwhere(np.triu(together >= enough, k=1))
    ordered = [(a, b) for pair in pairs for a, b in (pair, pair[::-1])]
    ordered = [(a, b) for a, b in ordered if together[a, a] - together[a, b] >= enough]
    one = np.eye(n_tags, dtype=np.int8)
    two = one[pairs[:, 0]] + one[pairs[:, 1]]
    without = [one[a] - one[b] for a, b in ordered]
    return np.concatenate([one, two, np.reshape(without, (-1, n_tags))]).astype(np.int8)


def kinds(queries: np.ndarray) -> np.ndarray:
    """Return the kind of every query, (query,) str, one of `KINDS`."""
    n_wanted, excludes = (queries > 0).sum(axis=1), (queries < 0).any(axis=1)
    return np.array(KINDS)[np.where(excludes, 2, n_wanted - 1)]


def answers(labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return which clips match which query, (clip, query) 0/1: those with every wanted tag and no
    unwanted one. `labels` (clip, tag) 0/1."""
    labels, queries = np.asarray(labels, np.int64), np.asarray(queries, np.int64)
    has_all = labels @ (queries > 0).T == (queries > 0).sum(axis=1)
    return (has_all & (labels @ (queries < 0).T == 0)).astype(np.uint8)


def classifier_scores(probs: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return how a classifier ranks clips for queries, (clip, query) float64.

    The logarithm of Π p of the wanted tags · Π (1 − p) of the unwanted ones, as if tags were
    independent. `probs` (clip, tag); other values than ±1 in a query are exponents.
    """
    probs, queries = np.asarray(probs), np.asarray(queries, np.float64)
    wanted, excluded = (queries > 0).any(axis=0), (queries < 0).any(axis=0)  # other tags cost time
    yes, no = (
        np.clip(probs[:, tags].astype(np.float64), 1e-12, 1 - 1e-12) for tags in (wanted, excluded)
    )
    scores = np.log(yes) @ np.maximum(queries[:, wanted], 0).T
    return scores - np.log1p(-no) @ np.minimum(queries[:, excluded], 0).T


def weighted_query(z_query: np.ndarray, z_centre: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return a vector (dim,) float32 whose cosine with z_audio − z_centre ranks clips.

    It is the sum of the tags' unit directions from the centre, times their weights from 1 (wanted)
    to −1 (unwanted, multiplied by `EXCLUDED_WEIGHT`). `z_query` (query, dim) begins with the single
    tags, as `predict` saves it; `weights` (tag,). For two tags the sum ranks as well as the vector
    of their set (study, three seeds, mean average precision on the test clips: `subset_completion`
    0.136 and 0.135, `subset_query` 0.140 and 0.140).
    """
    directions = unit_rows(z_query[: len(weights)] - z_centre)  # 0 for a tag that no clip carries
    weights = np.asarray(weights)
    weights = np.where(weights < 0, EXCLUDED_WEIGHT * weights, weights)
    return (weights @ directions).astype(np.float32)
