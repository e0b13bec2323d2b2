"""MagnaTagATune (Law et al., ISMIR 2009): the official folder → `Index`.

The folder holds `annotations_final.csv`, `clip_info_final.csv` and `mp3/<0-9a-f>/….mp3`. The
usual 12:1:3 split goes by sub-folder: 0–b train, c valid, d–f test.
"""

import csv
import warnings
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from jetatag.config import refuse_unknown
from jetatag.datasets.index import LEFT_OUT_COLUMNS, Index, Vocabulary

SPLIT_OF_FOLDER = (
    dict.fromkeys("0123456789ab", "train") | {"c": "valid"} | dict.fromkeys("def", "test")
)
N_TOP_TAGS = 50


def load(
    root: Path | str, split: str = "cleaned", tags: str | list[str] = "top50", name: str = "mtat"
) -> Index:
    """Read the annotations under `root`; no audio is opened.

    `split`: "cleaned" drops clips without any of the chosen tags (15,247 / 1,529 / 4,332 clips
    once the three 0-byte files are left out at preparing), "full" keeps them. `tags`: "top50",
    the fifty most frequent of the file, or a list of names. Missing annotations raise
    `FileNotFoundError`; a malformed file, unknown split or unknown tag `ValueError`, each in
    one sentence.
    """
    refuse_unknown([split], SPLITS, "split")
    annotations = read_annotations(Path(root) / "annotations_final.csv")
    vocabulary = Vocabulary(choose_tags(annotations, tags))
    table = annotations[["clip_id", "path"]].copy()
    table["split"] = table.path.map(lambda path: SPLIT_OF_FOLDER[PurePosixPath(path).parts[0]])
    table = table.merge(read_clip_info(Path(root) / "clip_info_final.csv"), "left", on="clip_id")
    table[["group", "title"]] = table[["group", "title"]].fillna("")
    labels = annotations[list(vocabulary.tags)].to_numpy(np.uint8)
    keep = SPLITS[split](labels)
    left_out = table.loc[~keep, ["clip_id", "path"]].assign(reason=UNTAGGED)
    return Index(
        name=name,
        audio_root=Path(root) / "mp3",
        vocabulary=vocabulary,
        table=table[keep].reset_index(drop=True),
        labels=labels[keep],
        left_out=left_out.reset_index(drop=True)[LEFT_OUT_COLUMNS],
    )


UNTAGGED = "none of the chosen tags (split 'cleaned'; split 'full' keeps such clips)"
SPLITS = {
    "cleaned": lambda labels: labels.any(axis=1),
    "full": lambda labels: np.ones(len(labels), bool),
}


def read_annotations(path: Path) -> pd.DataFrame:
    """The annotations as clip_id (str), one 0/1 column a tag, and path (relative to mp3/)."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: give the folder that holds MagnaTagATune's "
            "annotations_final.csv, clip_info_final.csv and mp3/."
        )
    table = _read_tsv(path, required=("clip_id", "mp3_path")).rename(columns={"mp3_path": "path"})
    tags = table.columns.difference(["clip_id", "path"], sort=False)
    bad = ~table[tags].isin(["0", "1"]).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{path}: the row of clip {table.clip_id[bad].iloc[0]} holds a label that is neither "
            "0 nor 1: correct or remove it."
        )
    folders = table.path.map(lambda value: PurePosixPath(value).parts[:1])
    bad = ~folders.map(lambda parts: bool(parts) and parts[0] in SPLIT_OF_FOLDER)
    if bad.any():
        raise ValueError(
            f"{path}: mp3_path {table.path[bad].iloc[0]!r} does not begin with a folder 0–f, "
            "which decides the split: correct or remove the row."
        )
    if table.clip_id.duplicated().any():
        twice = table.clip_id[table.clip_id.duplicated()].iloc[0]
        raise ValueError(f"{path}: clip {twice} stands in two rows: remove one of them.")
    table[tags] = table[tags].astype(np.uint8)
    return table


def read_clip_info(path: Path) -> pd.DataFrame:
    """clip_id, group (the artist) and title; without the file both stay empty, with a warning."""
    if not path.is_file():
        warnings.warn(
            f"{path} does not exist: clips have no artist, so group overlap is unknown.",
            stacklevel=3,
        )
        return pd.DataFrame(columns=["clip_id", "group", "title"], dtype=str)
    table = _read_tsv(path, required=("clip_id", "artist", "title"))
    table = table.rename(columns={"artist": "group"})[["clip_id", "group", "title"]]
    return table.drop_duplicates("clip_id")


def choose_tags(annotations: pd.DataFrame, tags: str | list[str]) -> tuple[str, ...]:
    """Tag names by rank of their count (ties by name), or the listed ones if all are known."""
    counts = annotations.drop(columns=["clip_id", "path"]).sum()
    if isinstance(tags, str):
        refuse_unknown([tags], ["top50"], "tag list")
        ranked = sorted(counts.index, key=lambda tag: (-int(counts[tag]), tag))
        return tuple(ranked[:N_TOP_TAGS])
    refuse_unknown(tags, counts.index, "tag")
    return tuple(tags)


def _read_tsv(path: Path, required: tuple[str, ...]) -> pd.DataFrame:
    """Tab-separated text as strings, or one sentence about what is wrong with it."""
    try:
        table = pd.read_csv(
            path, sep="\t", dtype=str, keep_default_na=False, quoting=csv.QUOTE_MINIMAL
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a tab-separated table ({error}).") from None
    missing = [column for column in required if column not in table]
    if missing:
        raise ValueError(
            f"{path} has no column {missing[0]!r}: it must be tab separated with the columns "
            f"{', '.join(required)}."
        )
    return table
