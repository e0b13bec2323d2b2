"""What one may ask a space of tags and music: one tag, two tags, a tag and not another.

A query is a row of `queries` (query, tag) int8: 1 a tag that a clip must carry, −1 one that it must
not, 0 any other. Everything here is numpy on such rows; vectors for them are `predict`'s.
"""

import numpy as np

KINDS = ("one tag", "two tags", "tag and not tag")
COMMON = 0.01
"""Share of the training clips that must answer a query of two tags, so that it can be learned."""


def choose_queries(labels: np.ndarray) -> np.ndarray:
    """The queries worth asking of clips like these, (query, tag) int8.

    Every tag; every two tags that at least 1 % of the clips carry together; and of these pairs
    each tag without the other, where that leaves as many: tags that occur together are those
    which a search has to tell apart. `labels` (clip, tag) 0/1 are the training split's, so that
    what is asked does not depend on the clips that are searched.
    """
    labels = np.asarray(labels, dtype=np.int64)
    together, n_tags = labels.T @ labels, labels.shape[1]
    enough = max(1.0, COMMON * len(labels))
    pairs = np.argwhere(np.triu(together >= enough, k=1))
    apart = [(a, b) for pair in pairs for a, b in (pair, pair[::-1])]
    apart = [(a, b) for a, b in apart if together[a, a] - together[a, b] >= enough]
    one = np.eye(n_tags, dtype=np.int8)
    two = one[pairs[:, 0]] + one[pairs[:, 1]]
    without = [one[a] - one[b] for a, b in apart]
    return np.concatenate([one, two, np.reshape(without, (-1, n_tags))]).astype(np.int8)


def kinds(queries: np.ndarray) -> np.ndarray:
    """The kind of every query, (query,) str, one of `KINDS`."""
    wanted, barred = (queries > 0).sum(axis=1), (queries < 0).any(axis=1)
    return np.array(KINDS)[np.where(barred, 2, wanted - 1)]


def answers(labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Whether a clip answers a query, (clip, query) 0/1: it carries every tag that is wanted and
    none that is barred. `labels` (clip, tag) 0/1."""
    labels, queries = np.asarray(labels, np.int64), np.asarray(queries, np.int64)
    has_all = labels @ (queries > 0).T == (queries > 0).sum(axis=1)
    return (has_all & (labels @ (queries < 0).T == 0)).astype(np.uint8)


def classifier_scores(probs: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """How a classifier ranks clips for queries, (clip, query) float64: the logarithm of Π p of the
    tags wanted · Π (1 − p) of those barred, as if tags were independent. `probs` (clip, tag);
    `queries` may weigh their tags (from 1 to −1): each factor is then raised to its weight."""
    probs = np.clip(np.asarray(probs, np.float64), 1e-12, 1 - 1e-12)
    wanted, barred = np.maximum(queries, 0), np.maximum(-queries, 0)
    return np.log(probs) @ wanted.T + np.log1p(-probs) @ barred.T


def weighted_query(z_query: np.ndarray, z_centre: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A vector to rank clips by (by the cosine with z_audio − z_centre), (dim,) float32: the sum
    of the tags' directions from the centre, each by its weight: from 1, wanted, to −1, not wanted.

    `z_query` (query, dim) begins with the single tags, as `predict` keeps it; `weights` (tag,).
    """
    directions = z_query[: len(weights)] - z_centre
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    directions = directions / np.maximum(length, 1e-12)  # a tag no clip carries lies in the centre
    return (np.asarray(weights, np.float32) @ directions).astype(np.float32)
