"""The index: which clips a data set holds, their split, group and tags. No audio is opened."""

import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from jetatag.files import as_text, check_known, is_audio

SPLITS = ("train", "valid", "test")
LEFT_OUT_COLUMNS = ["clip_id", "path", "reason"]


class DataWarning(UserWarning):
    """Something a data set lacks, or in which it differs from what is known of it, with numbers."""


@dataclass(frozen=True)
class Vocabulary:
    """The tags, in the order of every label and score column, and the task they pose."""

    tags: tuple[str, ...]
    task: Literal["multilabel", "multiclass"] = "multilabel"

    def columns(self, tags: list[str] | tuple[str, ...]) -> list[int]:
        """Positions of `tags`; an unknown tag is refused with the nearest names (`ValueError`)."""
        check_known(tags, self.tags, "tag")
        return [self.tags.index(tag) for tag in tags]


@dataclass(frozen=True)
class Index:
    """A data set as a table.

    `table` has one row a clip: clip_id (str), path (relative to `audio_root`), split (train,
    valid or test), group (such as the artist; empty where unknown) and title. `labels` is
    (clip, tag) uint8 in the same row order, columns as `vocabulary.tags`. `left_out` has one
    row for every annotated clip that is not in `table`: clip_id, path, reason. `peak_normalise`
    says whether the data set was published with every clip scaled to full scale, and
    `known_clips` how many clips a split of the official data holds, where that is known.
    """

    name: str
    audio_root: Path
    vocabulary: Vocabulary
    table: pd.DataFrame
    labels: np.ndarray
    left_out: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=LEFT_OUT_COLUMNS))
    peak_normalise: bool = True
    known_clips: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    def summary(self) -> pd.DataFrame:
        """One row a split: clips, clips of the official data where known, groups, mean tags a
        clip, and share of clips whose group also occurs in train (the overlap that a random or
        folder split hides)."""
        overlap = self.group_overlap()
        rows = []
        for split in SPLITS:
            chosen = (self.table.split == split).to_numpy()
            groups = self.table.group[chosen]
            row = {"split": split, "clips": int(chosen.sum())}
            row |= {"known": self.known_clips.get(split, pd.NA)} if self.known_clips else {}
            row["groups"] = groups[groups != ""].nunique()
            row["tags_per_clip"] = self.labels[chosen].sum(1).mean() if chosen.any() else 0.0
            row["group_in_train"] = overlap.loc[split, "train"]
            rows.append(row)
        return pd.DataFrame(rows).set_index("split")

    def group_overlap(self) -> pd.DataFrame:
        """Share of a split's clips (rows) whose group also occurs in another split (columns)."""
        groups = {split: self.table.group[self.table.split == split] for split in SPLITS}
        shares = {
            there: [groups[here].isin(set(groups[there]) - {""}).mean() for here in SPLITS]
            for there in SPLITS
        }
        return pd.DataFrame(shares, index=pd.Index(SPLITS, name="split")).fillna(0.0)


def files_under(root: Path) -> tuple[list[str], list[str]]:
    """Paths of all files under `root`, and of the links to folders, which are not followed, so
    that none leads outside or around; relative to it and sorted.

    They come by `files.as_text`.
    """
    found, links = [], []
    for folder, folders, files in os.walk(root):
        inner = f"{Path(folder).relative_to(root).as_posix()}/".removeprefix("./")
        found += [inner + file for file in files]
        links += [inner + f for f in folders if Path(folder, f).is_symlink()]
    return tuple(sorted(map(as_text, paths)) for paths in (found, links))


def audio_files(root: Path) -> list[str]:
    """Those of `files_under` that are audio by their name."""
    return [path for path in files_under(root)[0] if is_audio(path)]


def warn_about(index: Index, why: str = "") -> Index:
    """Warn (`DataWarning`), with numbers, of what `index` lacks, and return it.

    Missing audio, splits without clips, tags that no clip carries, and counts other than
    `index.known_clips`; `why` says what such a difference usually comes from.
    """
    present, links = files_under(index.audio_root)
    missing = index.table.path[~index.table.path.isin(present)]
    if len(missing):
        warn(
            f"{index.name}: {len(missing):,} of {len(index):,} audio files are not under "
            f"{index.audio_root}, the first being {missing.iloc[0]}; preparing will leave them out."
        )
    if links:
        warn(
            f"{index.name}: {len(links):,} folders under {index.audio_root} are links and not "
            f"followed: {', '.join(links[:5])}; put the folders themselves there."
        )
    counts = {split: int((index.table.split == split).sum()) for split in SPLITS}
    if empty := [split for split in SPLITS if not counts[split]]:
        warn(f"{index.name}: 0 of {len(index):,} clips are in {' and '.join(empty)}.")
    carried = index.labels.any(axis=0)
    if not carried.all():
        unused = [t for t, used in zip(index.vocabulary.tags, carried, strict=True) if not used]
        warn(
            f"{index.name}: {len(unused)} of {len(carried)} tags are never used: "
            f"{', '.join(unused)}; they cannot be learned or scored."
        )
    differing = {s: n for s, n in counts.items() if index.known_clips.get(s, n) != n}
    if differing:
        told = ", ".join(
            f"{split} {n:,} ({n - index.known_clips[split]:+,})" for split, n in differing.items()
        )
        warn(f"{index.name}: clips differ from the official data: {told}. {why}".rstrip())
    return index


def warn(sentence: str) -> None:
    """Say what a data set lacks, at the line outside this package that asked for it."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("jetatag."):
        frame, level = frame.f_back, level + 1
    warnings.warn(sentence, DataWarning, stacklevel=level)
