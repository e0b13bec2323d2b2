"""What one may ask a space of tags and music: one tag, two tags, a tag and not another.

A query is a row of `queries` (query, tag) int8: 1 a tag that a clip must carry, −1 one that it must
not, 0 any other. Everything here is numpy on such rows; vectors for them are `predict`'s.
"""

import numpy as np

KINDS = ("one tag", "two tags", "tag and not tag")
COMMON = 0.01
"""Share of the training clips that must answer a query of two tags, so that it can be learned."""
BARRED_SHARE = 0.25
"""How much a tag that is not wanted counts beside one that is, in the shared space. A tag is barred
where it often comes with the other, and then their directions are alike: in full, one takes the
other away. Chosen on the study's validation clips, where of 0, ¼, ⅜, ½, ⅝, ¾ and 1 it ranked best
for 7 of 8 losses and extractors. On its test clips, mean average precision of a tag without another
(Sample-CNN, three seeds) with 0, ¼ and 1: `subset_completion` 0.265, 0.271, 0.220; `subset_query`
0.263, 0.267, 0.208."""


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
    a query's values may also be weights: exponents of what they stand for."""
    probs, queries = np.asarray(probs), np.asarray(queries, np.float64)
    wanted, barred = (queries > 0).any(axis=0), (queries < 0).any(axis=0)  # other tags cost time
    yes, no = (_inside_0_1(probs[:, tags]) for tags in (wanted, barred))
    scores = np.log(yes) @ np.maximum(queries[:, wanted], 0).T
    return scores - np.log1p(-no) @ np.minimum(queries[:, barred], 0).T


def _inside_0_1(probs: np.ndarray) -> np.ndarray:
    return np.clip(probs.astype(np.float64), 1e-12, 1 - 1e-12)


def weighted_query(z_query: np.ndarray, z_centre: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A vector to rank clips by (by the cosine with z_audio − z_centre), (dim,) float32: the sum
    of the tags' directions from the centre, each by its weight: from 1, wanted, to −1, not wanted.

    `z_query` (query, dim) begins with the single tags, as `predict` keeps it; `weights` (tag,).
    Tags not wanted count by `BARRED_SHARE`. For two tags the sum ranks as well as the vector of
    their set (study, three seeds, mean average precision on the test clips: `subset_completion`
    0.136 and 0.135, `subset_query` 0.140 and 0.140).
    """
    directions = z_query[: len(weights)] - z_centre
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    directions = directions / np.maximum(length, 1e-12)  # a tag no clip carries lies in the centre
    weights = np.asarray(weights, np.float32)
    return (np.where(weights < 0, BARRED_SHARE * weights, weights) @ directions).astype(np.float32)
