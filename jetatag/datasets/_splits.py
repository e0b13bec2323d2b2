"""Splits by chance that keep groups whole and every tag's share alike."""

from collections.abc import Mapping, Sequence

import numpy as np


def grouped_split(
    groups: Sequence[str], labels: np.ndarray, shares: Mapping[str, float], seed: int
) -> np.ndarray:
    """A split name for every clip, (clip,) str: no group crosses, shares near `shares`.

    groups : (clip,) str, an empty one stands for a clip of its own; labels : (clip, tag) 0/1;
    shares : split name → share of the clips, summing to 1. Large groups are placed before small
    ones, with chance among those of similar size, each where the clips and the tags it brings are
    missed most, in the manner of iterative stratification (Sechidis et al., ECML 2011).
    """
    names, wanted = list(shares), np.array(list(shares.values()))
    groups = np.asarray(groups, dtype=object)
    alone = np.array([f"\0{row}" for row in range(len(groups))], dtype=object)
    _, members = np.unique(np.where(groups == "", alone, groups).astype(str), return_inverse=True)
    brings = np.zeros((members.max(initial=-1) + 1, 1 + labels.shape[1]))
    np.add.at(brings, members, np.column_stack([np.ones(len(labels)), labels]))
    brings /= np.maximum(brings.sum(axis=0), 1)  # of everything there is of a tag
    brings[:, 0] *= labels.shape[1]  # the number of clips counts as much as all tags together
    sizes = brings.sum(axis=1) * np.random.default_rng(seed).uniform(0.5, 1, len(brings))
    held = np.zeros((len(names), brings.shape[1]))
    whole = np.where(np.arange(brings.shape[1]) == 0, labels.shape[1], 1.0)
    target = wanted[:, None] * whole
    place = np.zeros(len(brings), int)
    for group in np.argsort(-sizes):
        cost = ((2 * (held - target) + brings[group]) * brings[group] / target).sum(axis=1)
        place[group] = int(cost.argmin())
        held[place[group]] += brings[group]
    return np.array(names)[place[members]]
