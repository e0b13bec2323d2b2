"""Splits by chance that keep groups whole and every tag's share alike."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd


def grouped_split(
    groups: Sequence[str], labels: np.ndarray, shares: Mapping[str, float], seed: int
) -> np.ndarray:
    """A split name for every clip, (clip,) str: no group crosses, shares near `shares`.

    groups : (clip,) str, an empty one stands for a clip of its own; labels : (clip, tag) 0/1;
    shares : split name → share of the clips, summing to 1. Large groups are placed before small
    ones, with chance among those of similar size, each where the clips and the tags it brings are
    missed most, in the manner of iterative stratification (Sechidis et al., ECML 2011). No split
    stays empty where there are groups enough.
    """
    if seed < 0:
        raise ValueError(f"seed must not be negative, as {seed} is: give 0 or more.")
    names, wanted = list(shares), np.array(list(shares.values()))
    groups = np.asarray(groups, dtype=object)
    alone = np.array([f"\0{row}" for row in range(len(groups))], dtype=object)
    members, _ = pd.factorize(np.where(groups == "", alone, groups), sort=True)
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
    _fill_empty(place, brings[:, 0], target[:, 0])
    return np.array(names)[place[members]]


def _fill_empty(place: np.ndarray, sizes: np.ndarray, wanted: np.ndarray) -> None:
    """Give each split of `place` (group,) that has no group the one whose size is nearest its
    wanted size, from a split with several: few large groups may all be missed most in train."""
    for split in range(len(wanted)):
        several = np.flatnonzero(np.bincount(place, minlength=len(wanted))[place] > 1)
        if len(several) and not (place == split).any():
            place[several[np.abs(sizes[several] - wanted[split]).argmin()]] = split
