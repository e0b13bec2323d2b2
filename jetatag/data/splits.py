"""Random splits that keep groups together and tags stratified, and what splits must hold."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

FEWEST = {"train": 8, "valid": 2, "test": 3}  # clips, in test only those with tags


def check_splits(source: object, splits: pd.Series, labels: np.ndarray) -> None:
    """Raise `ValueError` if a split of `source` has too few clips for the notebooks, or only clips
    with equal tags. `splits` are (clip,), `labels` (clip, tag)."""
    for split, needed in FEWEST.items():
        own = labels[(splits == split).to_numpy()]
        own, kind = (own[own.any(axis=1)], "tagged ") if split == "test" else (own, "")
        if len(own) < needed or not can_score(own):
            raise ValueError(
                f"{source} has {len(own)} {kind}{split} clips, where the notebooks need at least "
                f"{needed} with different tags: add clips or change the splits."
            )


def can_score(labels: np.ndarray) -> bool:
    """Whether there are clips with different tags, (clip, tag)."""
    return len(np.unique(labels, axis=0)) > 1


def grouped_split(
    groups: Sequence[str], labels: np.ndarray, shares: Mapping[str, float], seed: int
) -> np.ndarray:
    """Assign every clip to a split: (clip,) str; each group lies in one split.

    `groups` is (clip,) str, "" for a clip without a group; `labels` (clip, tag) 0/1; `shares` maps
    splits to their share of the clips. Groups are placed from large to small, shuffled among
    similar sizes, each into the split that lacks its clips and tags most: iterative stratification
    (Sechidis et al., ECML 2011), which scikit-learn does not offer with groups and several labels.
    Every split gets a group if there are enough.
    """
    if seed < 0:
        raise ValueError(f"seed must not be negative, as {seed} is: give 0 or more.")
    named = [group or f"\0{row}" for row, group in enumerate(groups)]
    members, _ = pd.factorize(np.array(named, dtype=object), sort=True)
    # A group's share of all clips (counting as much as all tags together) and of each tag's clips.
    portion = np.zeros((members.max(initial=-1) + 1, 1 + labels.shape[1]))
    np.add.at(portion, members, np.column_stack([np.ones(len(labels)), labels]))
    weights = np.array([labels.shape[1]] + [1.0] * labels.shape[1])
    portion = portion / np.maximum(portion.sum(axis=0), 1) * weights
    target = np.array(list(shares.values()))[:, None] * weights
    held = np.zeros_like(target)
    sizes = portion.sum(axis=1) * np.random.default_rng(seed).uniform(0.5, 1, len(portion))
    split = np.zeros(len(portion), int)
    for group in np.argsort(-sizes):
        cost = ((2 * (held - target) + portion[group]) * portion[group] / target).sum(axis=1)
        split[group] = int(cost.argmin())
        held[split[group]] += portion[group]
    for empty in sorted(set(range(len(shares))) - set(split)):  # a few large groups can leave some
        movable = np.flatnonzero(np.bincount(split, minlength=len(shares))[split] > 1)
        if len(movable):
            split[movable[np.abs(portion[movable, 0] - target[empty, 0]).argmin()]] = empty
    return np.array(list(shares))[split[members]]
