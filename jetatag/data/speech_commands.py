"""Speech Commands v0.02 (Warden, arXiv 1804.03209): the official folder → `Index`.

The folder holds `<word>/<speaker>_nohash_<n>.wav`, one second with one word each, and two lists of
such paths, `validation_list.txt` and `testing_list.txt`; files in neither list are for training.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from jetatag.data.index import COLUMNS, Index, Vocabulary, audio_under, warn, warn_about
from jetatag.data.tables import drop_unusable, normalise_paths, read_text_table, shorten

WORDS = (
    *("backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward"),
    *("four", "go", "happy", "house", "learn", "left", "marvin", "nine", "no", "off", "on", "one"),
    *("right", "seven", "sheila", "six", "stop", "three", "tree", "two", "up", "visual", "wow"),
    *("yes", "zero"),
)
LISTS = {"test": "testing_list.txt", "valid": "validation_list.txt"}
KNOWN_CLIPS = {"train": 84_843, "valid": 9_981, "test": 11_005}
DIFFERENCES = "Usual reasons: version 0.01 of the data (30 words), or an incomplete archive."
NO_WORD = "it is not WORD/FILE with one of the 35 words"
IN_BOTH = "testing_list.txt lists it, too, and keeps it"


def load(root: Path | str, name: str = "speech_commands") -> Index:
    """Read the two lists and the file names under `root`; no audio is opened.

    A multiclass task: each clip is one of the 35 words; its group is the speaker. Background noise
    is not used. Warns (`DataWarning`) about files in other folders, missing audio and lines that
    name no file of a word; with the lists alone, there are only valid and test. Raises
    `FileNotFoundError` for a missing list, `ValueError` for one that matches none of the files.
    """
    root = Path(root)
    files = [path for path in audio_under(root)[0] if not path.startswith("_background_noise_/")]
    table = read_lists(root, [path for path in files if is_clip(path)])
    if strays := [path for path in files if not is_clip(path)]:
        folders = ", ".join(sorted({str(Path(path).parent) for path in strays})[:5])
        problem = f"{len(strays):,} audio files under {root} are not used"
        warn(f"{problem}, because their folders are none of the 35 words: {folders}.")
    words = table.path.str.partition("/")[0].to_numpy()
    labels = (words[:, None] == np.array(WORDS)).astype(np.uint8)
    speakers = table.path.str.rpartition("/")[2].str.partition("_nohash_")[0]
    table = table.assign(clip_id=table.path, group=speakers, title="")[COLUMNS]
    in_both = (table.split == "valid") & table.path.isin(table.path[table.split == "test"])
    why = np.select([~table.path.map(is_clip), in_both], [NO_WORD, IN_BOTH], "")
    table, labels, left_out = drop_unusable(root, table, labels, why)
    facts = {"peak_normalise": False, "known_clips": KNOWN_CLIPS}
    index = Index(name, root, Vocabulary(WORDS, "multiclass"), table, labels, left_out, **facts)
    return warn_about(index, DIFFERENCES)


def read_lists(root: Path, clips: list[str]) -> pd.DataFrame:
    """path and split of every line of both lists, and of the `clips` in neither list: these are for
    training, so a missing or differently written list would leak held-out clips."""
    tables = []
    for split, file in LISTS.items():
        path = root / file
        if not path.is_file():
            problem = f"{path} does not exist, and without it held-out clips would be trained on"
            remedy = "give the folder that holds Speech Commands' word folders and both lists"
            raise FileNotFoundError(f"{problem}: {remedy}.")
        lines = read_text_table(path, "\t", header=("path",)).path.str.strip()
        paths = normalise_paths(lines, root)
        strange = lines[~paths.map(is_clip)].tolist()
        if not paths.isin(clips).any() and (clips or len(strange) == len(lines)):
            problem = f"{path} names no clip, so held-out clips would be trained on"
            remedy = f"write lines like yes/0a7c2a8d_nohash_0.wav, not {shorten(lines[0])}"
            raise ValueError(f"{problem}: {remedy}.")
        if strange:
            told = f"{len(strange):,} of {len(lines):,} lines name no clip ({shorten(strange[0])})"
            warn(f"{path}: {told}; if they mean held-out clips, these are in train.")
        tables.append(pd.DataFrame({"path": paths, "split": split}))
    unlisted = sorted(set(clips).difference(*(table.path for table in tables)))
    tables.append(pd.DataFrame({"path": unlisted, "split": "train"}, dtype=str))
    return pd.concat(tables, ignore_index=True)


def is_clip(path: str) -> bool:
    word, _, file = path.partition("/")
    return word in WORDS and file.strip(".") != "" and "/" not in file and "\0" not in file
