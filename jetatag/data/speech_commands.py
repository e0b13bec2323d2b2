"""Speech Commands v0.02 (Warden, arXiv 1804.03209): the official folder → `Index`.

The folder holds `<word>/<speaker>_nohash_<n>.wav`, one spoken word of one second a file, and two
lists of such paths, `validation_list.txt` and `testing_list.txt`: what neither names is train.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from jetatag.data._tables import OUTSIDE, leaves_folder, read_text_table, sift
from jetatag.data.index import Index, Vocabulary, audio_files, warn, warn_about

WORDS = (
    *("backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward"),
    *("four", "go", "happy", "house", "learn", "left", "marvin", "nine", "no", "off", "on", "one"),
    *("right", "seven", "sheila", "six", "stop", "three", "tree", "two", "up", "visual", "wow"),
    *("yes", "zero"),
)
LISTS = {"test": "testing_list.txt", "valid": "validation_list.txt"}
NOISE_FOLDER = "_background_noise_"
KNOWN_CLIPS = {"train": 84_843, "valid": 9_981, "test": 11_005}
WHY = "Usual reasons: version 0.01 of the data (30 words), or an archive unpacked in part."
NO_WORD = "it is not WORD/FILE with one of the 35 words"
IN_BOTH = "testing_list.txt names it too, and there it stays"


def load(root: Path | str, name: str = "speech_commands") -> Index:
    """Read the two lists and the folders' file names under `root`; no audio is opened.

    A multiclass task: each clip is one of the 35 words, grouped by speaker. Background noise is
    no word and not in the index. Files in other folders and missing audio are a `DataWarning`, so
    that the lists alone give valid and test; a list line that names no word's file is left out.
    A missing list raises `FileNotFoundError`, a malformed one `ValueError`, in one sentence.
    """
    listed = read_lists(Path(root))
    table = pd.concat([listed, unlisted(Path(root), set(listed.path))], ignore_index=True)
    words = table.path.str.partition("/")[0].to_numpy()
    labels = (words[:, None] == np.array(WORDS)).astype(np.uint8)
    table["clip_id"] = table.path
    table["group"] = table.path.map(speaker)
    table["title"] = ""
    table, labels, left_out = sift(table, labels, _reasons(table))
    index = Index(
        name=name,
        audio_root=Path(root),
        vocabulary=Vocabulary(WORDS, "multiclass"),
        table=table[["clip_id", "path", "split", "group", "title"]],
        labels=labels,
        left_out=left_out,
        peak_normalise=False,
        known_clips=KNOWN_CLIPS,
    )
    return warn_about(index, WHY)


def read_lists(root: Path) -> pd.DataFrame:
    """path and split of every line of both lists; both are needed, because what they do not name
    is trained on."""
    for file in LISTS.values():
        if not (root / file).is_file():
            raise FileNotFoundError(
                f"{root / file} does not exist, and without it held-out clips would be trained on: "
                "give the folder that holds Speech Commands' word folders and both lists."
            )
    lists = [
        read_text_table(root / file, "\t", header=("path",)).assign(split=split)
        for split, file in LISTS.items()
    ]
    table = pd.concat(lists, ignore_index=True)
    return table.assign(path=table.path.str.strip())


def unlisted(root: Path, listed: set[str]) -> pd.DataFrame:
    """path and split of the training clips: files of the words' folders that no list names."""
    files = [path for path in audio_files(root) if not path.startswith(f"{NOISE_FOLDER}/")]
    strays = [path for path in files if not names_a_clip(path)]
    if strays:
        folders = sorted({str(Path(path).parent) for path in strays})
        warn(
            f"{len(strays):,} audio files under {root} are not used, because their folders are "
            f"none of the 35 words: {', '.join(folders[:5])}{', …' if folders[5:] else ''}."
        )
    paths = [path for path in files if names_a_clip(path) and path not in listed]
    return pd.DataFrame({"path": paths, "split": "train"}, dtype=str)


def names_a_clip(path: str) -> bool:
    """Whether a relative path is a file in the folder of one of the words."""
    word, _, file = path.partition("/")
    return word in WORDS and file.strip(".") != "" and "/" not in file and "\0" not in file


def speaker(path: str) -> str:
    """Who speaks: the file's name before _nohash_."""
    return path.rpartition("/")[2].partition("_nohash_")[0]


def _reasons(table: pd.DataFrame) -> np.ndarray:
    """Why a row is left out, empty for those that stay."""
    why = np.full(len(table), "", dtype=object)
    tested = set(table.path[table.split == "test"])
    why[(table.split == "valid") & table.path.isin(tested)] = IN_BOTH
    why[~table.path.map(names_a_clip)] = NO_WORD
    why[table.path.map(leaves_folder)] = OUTSIDE
    return why
