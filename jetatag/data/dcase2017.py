"""DCASE 2017 task 4, sounds for smart cars (Mesaros et al., DCASE 2017): official folder → `Index`.

The folder holds three lists, `groundtruth_weak_label_{training,testing,evaluation}_set.csv`, and a
folder of WAV files for each. As in Lee & Cho 2021, the training and testing lists are for training,
except for a tenth of each class for validation, and the evaluation list is the test.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from jetatag.data.index import COLUMNS, Index, Vocabulary, warn, warn_about
from jetatag.data.splits import grouped_split
from jetatag.data.tables import check_filled, drop_unusable, normalise_paths, read_text_table
from jetatag.files import check_known

CLASSES = (
    *("Train horn", "Air horn, truck horn", "Car alarm", "Reversing beeps", "Ambulance (siren)"),
    *("Police car (siren)", "Fire engine, fire truck (siren)", "Civil defense siren", "Screaming"),
    *("Bicycle", "Skateboard", "Car", "Car passing by", "Bus", "Truck", "Motorcycle", "Train"),
)
FOLDERS = {  # list → folder of its audio; later lists were verified more carefully
    "training": "unbalanced_train_segments_training_set_audio_formatted_and_segmented_downloads",
    "testing": "unbalanced_train_segments_testing_set_audio_formatted_and_segmented_downloads",
    "evaluation": "evaluation_set_formatted_audio_segments",
}
FILE_NAME = r"[\w-]+_\d+\.\d+_\d+\.\d+\.wav"
SHARES = {"train": 0.9, "valid": 0.1}
KNOWN_CLIPS = {"train and valid": 51_172 + 488, "test": 1_103}  # by the task's repository
DIFFERENCES = "Usual reasons: incomplete lists, or clips left out (see the index's left_out)."
NOT_A_CLIP = "its name is not VIDEO_START_END.wav, which tells its video"
LATER_LIST = "a later list holds the same clip, and keeps it, so that it is in one split"


def load(root: Path | str, seed: int = 0, name: str = "dcase2017") -> Index:
    """Read the three lists under `root`; no audio is opened.

    `seed` chooses the tenth of every class for validation; no video is in both train and valid. A
    clip in two lists stays in the later one. Warns (`DataWarning`) about a missing list. Raises
    `FileNotFoundError` if all are missing, `ValueError` for a malformed list or an unknown class.
    """
    root = Path(root)
    rows = read_lists(root)
    files = rows.groupby(["list", "file"], sort=False)
    labels = np.zeros((files.ngroups, len(CLASSES)), np.uint8)
    labels[files.ngroup(), rows.label.map(CLASSES.index)] = 1
    table = rows.drop_duplicates(["list", "file"], ignore_index=True)
    table["clip_id"] = table.file.str.removesuffix(".wav")
    # The organisers put a Y before each name, because many begin with a hyphen.
    table["path"] = table.list.map(FOLDERS) + "/Y" + table.file
    table["split"] = np.where(table.list == "evaluation", "test", "")
    table["group"] = table.file.str.rsplit("_", n=2).str[0]
    table["title"] = ""
    odd = [~table.file.str.fullmatch(FILE_NAME), table.file.duplicated(keep="last")]
    why = np.select(odd, [NOT_A_CLIP, LATER_LIST], "")
    table, labels, left_out = drop_unusable(root, table[COLUMNS], labels, why)
    training = (table.split != "test").to_numpy()
    split = grouped_split(table.group[training], labels[training], SHARES, seed)
    table.loc[training, "split"] = split
    facts = {"peak_normalise": False, "known_clips": KNOWN_CLIPS}
    index = Index(name, root, Vocabulary(CLASSES), table, labels, left_out, **facts)
    return warn_about(index, DIFFERENCES)


def read_lists(root: Path) -> pd.DataFrame:
    """One row per label: file (relative to its list's folder), start, end, label and list."""
    paths = {name: root / f"groundtruth_weak_label_{name}_set.csv" for name in FOLDERS}
    if not any(path.is_file() for path in paths.values()):
        problem = f"{paths['training']} does not exist, nor does another list of DCASE 2017 task 4"
        raise FileNotFoundError(f"{problem}: give the folder that holds them.")
    tables = []
    for name, path in paths.items():
        if not path.is_file():
            warn(f"{path} does not exist: the index lacks its clips.")
            continue
        rows = read_text_table(path, "\t", header=("file", "start", "end", "label"))
        rows = rows.apply(lambda column: column.str.strip())
        if rows.file[0].lower() in ("file", "filename"):
            rows = rows[1:].reset_index(drop=True)
        if rows.empty:
            raise ValueError(f"{path} has only a header: use the complete list.")
        check_filled(path, rows.file)
        check_filled(path, rows.label)
        check_known(rows.label.unique(), CLASSES, f"class in {path}")
        files = normalise_paths(rows.file, root / FOLDERS[name])
        if files.str.startswith("Y").all():  # as on disk
            files = files.str[1:]
        if not files.str.fullmatch(FILE_NAME).any():
            problem = f"{path} names no clip, so a video could be in two splits"
            raise ValueError(f"{problem}: write names like VIDEO_30.000_40.000.wav.")
        tables.append(rows.assign(file=files, list=name))
    return pd.concat(tables, ignore_index=True)
