"""DCASE 2017 task 4, sounds for smart cars (Mesaros et al., DCASE 2017): the official folder →
`Index`.

The folder holds three lists, `groundtruth_weak_label_{training,testing,evaluation}_set.csv`, and a
folder of ten-second WAV files for each. Following Lee & Cho 2021, the training and testing lists
are trained on, but for a tenth of each class for validation, and the evaluation list is the test.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from jetatag.data._splits import grouped_split
from jetatag.data._tables import check_blank, read_text_table
from jetatag.data.index import LEFT_OUT_COLUMNS, Index, Vocabulary, warn, warn_about
from jetatag.files import check_known

CLASSES = (
    *("Train horn", "Air horn, truck horn", "Car alarm", "Reversing beeps", "Ambulance (siren)"),
    *("Police car (siren)", "Fire engine, fire truck (siren)", "Civil defense siren", "Screaming"),
    *("Bicycle", "Skateboard", "Car", "Car passing by", "Bus", "Truck", "Motorcycle", "Train"),
)
"""Warning sounds, then vehicles, in the order of the task's list."""

FOLDERS = {
    "training": "unbalanced_train_segments_training_set_audio_formatted_and_segmented_downloads",
    "testing": "unbalanced_train_segments_testing_set_audio_formatted_and_segmented_downloads",
    "evaluation": "evaluation_set_formatted_audio_segments",
}
"""Where the audio of each list lies; a list further down was checked with more care."""

WITHOUT = {
    "training": "train and valid are dealt from the testing list alone (officially 488 clips)",
    "testing": "train and valid lack its clips (officially 488)",
    "evaluation": "there is nothing to test on",
}
COLUMNS = ("file", "start", "end", "label")
HEADS = ("file", "filename")
FILE_NAME = r"[\w-]+_\d+\.\d+_\d+\.\d+\.wav"
SHARES = {"train": 0.9, "valid": 0.1}
KNOWN_TO_TRAIN_ON = 51_172 + 488
KNOWN_CLIPS = {"test": 1_103}
"""Clips of the official lists (the task's repository and the winners' of 2017). How many of the
first fall to validation depends on the seed."""

WHY = "Usual reasons: lists that are not whole, or clips left out (see the index's left_out)."
NOT_A_CLIP = "its name is not VIDEO_START_END.wav, which says of which video it is"
LATER_LIST = "a later list holds the same clip: it stays there, so that no split knows another's"


def load(root: Path | str, seed: int = 0, name: str = "dcase2017") -> Index:
    """Read the three lists under `root`; no audio is opened.

    Clips go by video, so that no video is in both train and valid; `seed` decides which tenth of
    every class is valid. A clip in two lists stays in the later one only. A list that is missing
    is a `DataWarning`; all missing raise `FileNotFoundError`, a malformed list or a label that is
    none of the 17 classes `ValueError`, each in one sentence.
    """
    rows = read_lists(Path(root))
    files = rows.groupby(["list", "file"], sort=False)
    labels = np.zeros((files.ngroups, len(CLASSES)), np.uint8)
    labels[files.ngroup(), rows.label.map(CLASSES.index)] = 1
    clips = rows.drop_duplicates(["list", "file"], ignore_index=True)
    why, table = _reasons(clips), clip_table(clips)
    left_out = table.assign(reason=why).loc[why != "", LEFT_OUT_COLUMNS].reset_index(drop=True)
    table, labels = table[why == ""].reset_index(drop=True), labels[why == ""]
    learning = (table.split != "test").to_numpy()
    table.loc[learning, "split"] = grouped_split(
        table.group[learning], labels[learning], SHARES, seed
    )
    if differing := int(learning.sum()) - KNOWN_TO_TRAIN_ON:
        warn(
            f"{name}: train and valid hold {learning.sum():,} clips together ({differing:+,} to "
            f"the official {KNOWN_TO_TRAIN_ON:,}). {WHY}"
        )
    index = Index(
        name=name,
        audio_root=Path(root),
        vocabulary=Vocabulary(CLASSES),
        table=table,
        labels=labels,
        left_out=left_out,
        peak_normalise=False,
        known_clips=KNOWN_CLIPS,
    )
    return warn_about(index, WHY)


def read_lists(root: Path) -> pd.DataFrame:
    """Every row of the lists that are there: list, file, start, end, label (all str)."""
    paths = {which: root / f"groundtruth_weak_label_{which}_set.csv" for which in FOLDERS}
    missing = [which for which, path in paths.items() if not path.is_file()]
    if len(missing) == len(paths):
        raise FileNotFoundError(
            f"{paths['training']} does not exist: give the folder that holds the three lists "
            "groundtruth_weak_label_{training,testing,evaluation}_set.csv of DCASE 2017 task 4."
        )
    for which in missing:
        warn(f"{paths[which]} does not exist: {WITHOUT[which]}.")
    there = [which for which in paths if which not in missing]
    return pd.concat([read_list(paths[w]).assign(list=w) for w in there], ignore_index=True)


def read_list(path: Path) -> pd.DataFrame:
    """One list as file, start, end, label: a row for each label of a file. Officially it has no
    header; one that was added is skipped."""
    rows = read_text_table(path, "\t", header=COLUMNS).apply(lambda column: column.str.strip())
    if rows.file[0].lower() in HEADS:
        rows = rows[1:].reset_index(drop=True)
    if rows.empty:
        raise ValueError(f"{path} has no rows but a header: give the whole list.")
    for column in ("file", "label"):
        check_blank(path, rows[column])
    check_known(rows.label.unique(), CLASSES, f"class in {path}")
    return rows


def clip_table(clips: pd.DataFrame) -> pd.DataFrame:
    """The index's columns of clips given as list and file; split is test or still open."""
    return pd.DataFrame(
        {
            "clip_id": clips.file.str.removesuffix(".wav"),
            # The organisers put a Y before each name, because many begin with a hyphen.
            "path": clips.list.map(FOLDERS) + "/Y" + clips.file,
            "split": np.where(clips.list == "evaluation", "test", ""),
            "group": clips.file.str.rsplit("_", n=2).str[0],
            "title": "",
        }
    )


def _reasons(clips: pd.DataFrame) -> np.ndarray:
    """Why a clip is left out, empty for those that stay."""
    why = np.full(len(clips), "", dtype=object)
    why[clips.file.duplicated(keep="last")] = LATER_LIST
    why[~clips.file.str.fullmatch(FILE_NAME)] = NOT_A_CLIP
    return why
