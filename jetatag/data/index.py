"""The index: the clips of a data set with their split, group and tags. No audio is opened."""

import os
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from jetatag.data.audio import holds_audio
from jetatag.files import as_path, as_text, check_known, has_audio_suffix

SPLITS = ("train", "valid", "test")
Task = Literal["multilabel", "multiclass"]
COLUMNS = ["clip_id", "path", "split", "group", "title"]
LEFT_OUT_COLUMNS = ["clip_id", "path", "reason"]
NOT_AUDIO = "hidden, or with neither a suffix nor a header of audio"


class DataWarning(UserWarning):
    """A data set is incomplete or differs from the published one."""


@dataclass(frozen=True)
class Vocabulary:
    """The tags, in the order of all label and score columns, and the task."""

    tags: tuple[str, ...]
    task: Task = "multilabel"

    def columns(self, tags: Sequence[str]) -> list[int]:
        """Positions of `tags`; raises `ValueError` for an unknown one."""
        check_known(tags, self.tags, "tag")
        return [self.tags.index(tag) for tag in tags]


@dataclass(frozen=True)
class Index:
    """A data set as a table.

    `table` has one row per clip: clip_id (str), path (relative to `audio_root`), split (train,
    valid or test), group (such as the artist; "" if unknown) and title. `labels` is (clip, tag)
    uint8, as `table` and `vocabulary.tags`. `left_out` has the other annotated clips: clip_id,
    path, reason. `peak_normalise`: whether the clips are published at full scale. `known_clips`:
    the official number of clips, by split or by splits, as in "train and valid".
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
        """One row per split: clips, clips of the official data if known, groups, mean number of
        tags per clip, and the share of clips whose group also occurs in train."""
        clips = self.table.assign(group=self.table.group.replace("", None), tags=self.labels.sum(1))
        columns = {"clips": ("path", "size"), "groups": ("group", "nunique")}
        by_split = clips.groupby("split").agg(**columns, tags_per_clip=("tags", "mean"))
        rows = by_split.reindex(pd.Index(SPLITS, name="split"), fill_value=0)
        if any(split in self.known_clips for split in SPLITS):
            rows.insert(1, "known", pd.Series(self.known_clips, dtype="Int64"))
        return rows.assign(group_in_train=self.group_overlap().train)

    def group_overlap(self) -> pd.DataFrame:
        """Share of a split's clips (rows) whose group also occurs in another split (columns)."""
        split, group = self.table.split, self.table.group.replace("", None)
        found = {there: group.isin(group[split == there].dropna()) for there in SPLITS}
        shares = pd.DataFrame(found).groupby(split).mean()
        return shares.reindex(pd.Index(SPLITS, name="split"), fill_value=0.0)


def files_under(root: Path) -> tuple[list[str], list[str]]:
    """Files under `root`, and links to folders, which are not followed; sorted, as by `as_text`."""
    found, links = [], []
    for folder, folders, files in os.walk(root):
        inner = f"{Path(folder).relative_to(root).as_posix()}/".removeprefix("./")
        found += [inner + file for file in files]
        links += [inner + name for name in folders if Path(folder, name).is_symlink()]
    return sorted(map(as_text, found)), sorted(map(as_text, links))


def audio_under(root: Path) -> tuple[list[str], list[str], list[str]]:
    """Three lists of paths under `root`: audio files, known by their suffix or content; links to
    folders, which are not followed; and skipped files, for `skipped_sentence`. Hidden files are not
    used: those with a suffix of audio are skipped, others are not listed."""
    files, links = files_under(root)
    audio, skipped = [], []
    for path in files:
        named, hidden = has_audio_suffix(path), "/." in f"/{path}"
        if not hidden and (named or holds_audio(root / as_path(path))):
            audio.append(path)
        elif named or not hidden:
            skipped.append(path)
    return audio, links, skipped


def skipped_sentence(paths: Sequence[Path | str]) -> str:
    """One sentence about files that were skipped: how many of each suffix, and the first two."""
    suffixes = [Path(path).suffix.lower() or "without suffix" for path in paths]
    listed = []
    for suffix, n in Counter(suffixes).most_common():
        own = [str(path) for path, its in zip(paths, suffixes, strict=True) if its == suffix]
        listed.append(f"{n:,} {suffix} ({', '.join(own[:2] + ['…'] * (n > 2))})")
    return f"files skipped ({NOT_AUDIO}): {', '.join(listed)}."


def warn_about(index: Index, reasons: str = "") -> Index:
    """Warn (`DataWarning`) about missing audio, links, empty splits, unused tags, and numbers of
    clips other than `known_clips` with the usual `reasons`; returns `index`."""
    name, root, n_clips, tags = index.name, index.audio_root, len(index), index.vocabulary.tags
    present, links = files_under(root)
    if len(missing := index.table.path[~index.table.path.isin(present)]):
        told = f"{name}: {len(missing):,} of {n_clips:,} audio files are not under {root}"
        warn(f"{told}, for example {missing.iloc[0]}; preparing will leave them out.")
    if links:
        told = f"{name}: {len(links):,} folders under {root} are links and not followed"
        warn(f"{told}: {', '.join(links[:5])}; put the folders themselves there.")
    counts = index.table.split.value_counts().reindex(SPLITS, fill_value=0)
    if empty := [split for split in SPLITS if not counts[split]]:
        warn(f"{name}: 0 of {n_clips:,} clips are in {' and '.join(empty)}.")
    if unused := [tags[column] for column in np.flatnonzero(~index.labels.any(axis=0))]:
        told = f"{name}: {len(unused)} of {len(tags)} tags are never used: {', '.join(unused)}"
        warn(f"{told}; they cannot be learned or scored.")
    known = pd.Series(index.known_clips, dtype=int)
    off = pd.Series({splits: counts[splits.split(" and ")].sum() for splits in known.index}) - known
    if told := [f"{splits} {known[splits] + n:,} ({n:+,})" for splits, n in off.items() if n]:
        warn(f"{name}: clip counts differ from the official data: {', '.join(told)}. {reasons}")
    return index


def warn(sentence: str) -> None:
    """Issue a `DataWarning` at the line outside this package that called it."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("jetatag."):
        frame, level = frame.f_back, level + 1
    warnings.warn(sentence, DataWarning, stacklevel=level)
