"""The index: which clips a data set holds, their split, group and tags. No audio is opened."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from jetatag.config import refuse_unknown

SPLITS = ("train", "valid", "test")
LEFT_OUT_COLUMNS = ["clip_id", "path", "reason"]


@dataclass(frozen=True)
class Vocabulary:
    """The tags, in the order of every label and score column, and the task they pose."""

    tags: tuple[str, ...]
    task: Literal["multilabel", "multiclass"] = "multilabel"

    def columns(self, tags: list[str] | tuple[str, ...]) -> list[int]:
        """Positions of `tags`; an unknown tag is refused with the nearest names (`ValueError`)."""
        refuse_unknown(tags, self.tags, "tag")
        return [self.tags.index(tag) for tag in tags]


@dataclass(frozen=True)
class Index:
    """A data set as a table.

    `table` has one row a clip: clip_id (str), path (relative to `audio_root`), split (train,
    valid or test), group (such as the artist; empty where unknown) and title. `labels` is
    (clip, tag) uint8 in the same row order, columns as `vocabulary.tags`. `left_out` has one
    row for every annotated clip that is not in `table`: clip_id, path, reason.
    """

    name: str
    audio_root: Path
    vocabulary: Vocabulary
    table: pd.DataFrame
    labels: np.ndarray
    left_out: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=LEFT_OUT_COLUMNS))

    def __len__(self) -> int:
        return len(self.table)

    def summary(self) -> pd.DataFrame:
        """One row a split: clips, groups, mean tags a clip, and share of clips whose group also
        occurs in train (the overlap that a random or folder split hides)."""
        train_groups = set(self.table.group[self.table.split == "train"]) - {""}
        rows = []
        for split in SPLITS:
            chosen = (self.table.split == split).to_numpy()
            groups = self.table.group[chosen]
            rows.append(
                {
                    "split": split,
                    "clips": int(chosen.sum()),
                    "groups": groups[groups != ""].nunique(),
                    "tags_per_clip": self.labels[chosen].sum(1).mean() if chosen.any() else 0.0,
                    "group_in_train": groups.isin(train_groups).mean() if chosen.any() else 0.0,
                }
            )
        return pd.DataFrame(rows).set_index("split")
