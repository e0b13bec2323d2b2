"""MagnaTagATune (Law et al., ISMIR 2009): the official folder → `Index`.

The folder holds `annotations_final.csv`, `clip_info_final.csv` and `mp3/<0-9a-f>/….mp3`; the
first is enough for an index. The usual 12:1:3 split goes by sub-folder: 0–b train, c valid, d–f
test.
"""

import posixpath
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from jetatag.data._splits import grouped_split
from jetatag.data._tables import check_blank, read_text_table, sift
from jetatag.data.index import Index, Vocabulary, warn, warn_about
from jetatag.files import check_known

FOLDERS = {"train": "0123456789ab", "valid": "c", "test": "def"}
"""The usual 12:1:3 split, by sub-folder."""
SHARES = {"train": 12 / 16, "valid": 1 / 16, "test": 3 / 16}
SPLITS = ("cleaned", "full", "artist_disjoint")
TAG_LISTS = ("top50", "merged")
N_TOP_TAGS = 50
KNOWN_CLIPS = {
    "full": {"train": 18_709, "valid": 1_825, "test": 5_329},
    "cleaned": {"train": 15_247, "valid": 1_529, "test": 4_332},
}
"""Clips of the official data, of which "cleaned" counts those that carry one of the 50 top tags."""

WHY = (
    "Usual reasons: annotations that are not whole, or tags and splits of another list (one public "
    "list counts 15,244 training clips, because it also drops those under 29.1 s)."
)
UNREADABLE = {
    "6/norine_braun-now_and_zen-08-gently-117-146.mp3",
    "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
    "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien_xiveme_ordre_"
    "couperin-88-117.mp3",
}
"""Files of 0 bytes in the official archive (clips 35644, 55753, 57881)."""

SYNONYMS = {
    "beat": ("beats",),
    "chant": ("chanting",),
    "choir": ("choral",),
    "classical": ("clasical", "classic"),
    "drums": ("drum",),
    "electronic": ("electro", "electronica", "electric"),
    "fast": ("fast beat", "quick"),
    "female": (
        *("female singer", "female singing", "female vocal", "female vocals", "female voice"),
        *("woman", "woman singing", "women"),
    ),
    "flute": ("flutes",),
    "guitar": ("guitars",),
    "hard": ("hard rock",),
    "harpsichord": ("harpsicord",),
    "heavy": ("heavy metal", "metal"),
    "horn": ("horns",),
    "indian": ("india",),
    "jazz": ("jazzy",),
    "male": (
        *("male singer", "male vocal", "male vocals", "male voice"),
        *("man", "man singing", "men"),
    ),
    "no beat": ("no drums",),
    "no vocals": (
        *("no singer", "no singing", "no vocal", "no voice", "no voices"),
        "instrumental",
    ),
    "opera": ("operatic",),
    "orchestra": ("orchestral",),
    "quiet": ("silence",),
    "space": ("spacey",),
    "strings": ("string",),
    "synth": ("synthesizer",),
    "violin": ("violins",),
    "vocals": ("vocal", "voice", "voices", "singing", "singer"),
    "weird": ("strange",),
}
"""Tags of the 188 that mean the same, under the name they are merged into: the groups proposed by
K. Choi (github.com/keunwoochoi/magnatagatune-list), with singing counted among the vocals."""


def load(
    root: Path | str,
    split: str = "cleaned",
    tags: str | Sequence[str] = "top50",
    seed: int = 0,
    folders: dict | None = None,
    name: str = "mtat",
) -> Index:
    """Read the annotations under `root`; no audio is opened.

    `split`: "cleaned", by folder without clips that carry none of the chosen tags (15,247 /
    1,529 / 4,332); "full" keeps those (18,709 / 1,825 / 5,329 with the three files of 0 bytes);
    "artist_disjoint" deals the cleaned clips anew, by `seed` and near 12:1:3, so that no artist
    crosses. `tags`: "top50", the fifty most frequent of the file; "merged", the fifty most
    frequent after merging `SYNONYMS`; or a list of names. `folders`: which sub-folders make the
    splits, such as {"train": "01", "valid": "2", "test": "3"}; without it the usual ones,
    `FOLDERS`. Missing clip information or audio is a `DataWarning`; missing annotations raise
    `FileNotFoundError`, a malformed file, unknown split, folder or tag `ValueError`, each in one
    sentence.
    """
    check_known([split], SPLITS, "split")
    split_of_folder = by_folder(FOLDERS if folders is None else folders)
    if folders is not None and split == "artist_disjoint":
        raise ValueError("split 'artist_disjoint' deals the clips anew: leave out folders.")
    given = read_annotations(Path(root) / "annotations_final.csv")
    vocabulary, labels = choose_tags(given.drop(columns=["clip_id", "path"]), tags)
    table = given[["clip_id", "path"]].copy()
    table["split"] = table.path.map(lambda path: split_of_folder.get(_folder(path), ""))
    table = with_clip_info(table, Path(root) / "clip_info_final.csv")
    table, labels, left_out = sift(table, labels, _reasons(table, labels, split))
    if split == "artist_disjoint":
        table["split"] = grouped_split(table.group, labels, SHARES, seed)
    usual = split == "full" or (split == "cleaned" and tags == "top50")
    official = name == "mtat" and folders is None and usual
    n_known = sum(KNOWN_CLIPS["cleaned"].values())
    if (name, split, tags) == ("mtat", "artist_disjoint", "top50") and len(table) != n_known:
        warn(f"mtat: {len(table):,} clips ({len(table) - n_known:+,} to the official data). {WHY}")
    index = Index(
        name=name,
        audio_root=Path(root) / "mp3",
        vocabulary=vocabulary,
        table=table,
        labels=labels,
        left_out=left_out,
        known_clips=KNOWN_CLIPS[split] if official else {},
    )
    return warn_about(index, WHY)


def by_folder(folders: dict) -> dict[str, str]:
    """The split of every sub-folder, from the folders of every split, such as {"test": "def"}."""
    check_known(folders, FOLDERS, "split")
    split_of_folder = {folder: split for split, named in folders.items() for folder in str(named)}
    known = "".join(FOLDERS.values())
    check_known(split_of_folder, known, "folder")
    if len(split_of_folder) < sum(len(str(named)) for named in folders.values()):
        raise ValueError(f"folders {folders} give one folder to two splits: name each once.")
    return split_of_folder


def read_annotations(path: Path) -> pd.DataFrame:
    """The annotations as clip_id (str), path (relative to mp3/), and one uint8 column a tag."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: give the folder that holds MagnaTagATune's "
            "annotations_final.csv, clip_info_final.csv and mp3/."
        )
    table = read_text_table(path, "\t", required=("clip_id", "mp3_path"))
    if "path" in table:
        raise ValueError(f"{path} has a tag column 'path', which names a file here: rename it.")
    table = table.rename(columns={"mp3_path": "path"})
    table["path"] = table.path.map(posixpath.normpath)  # one file, one name, one split
    check_blank(path, table.clip_id)
    labels = table.drop(columns=["clip_id", "path"])
    if labels.columns.empty:
        raise ValueError(f"{path} has no tag columns: give the official file.")
    bad = ~labels.isin(["0", "1"]).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{path}: the row of clip {table.clip_id[bad].iloc[0]!r} holds a label that is neither "
            "0 nor 1: correct or remove it."
        )
    return pd.concat([table[["clip_id", "path"]], labels.eq("1").astype(np.uint8)], axis=1)


def with_clip_info(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """`table` with group (the artist) and title; clips of which the file says nothing, or all
    where there is none, have their artist told by the audio's name and no title, with a warning."""
    info = pd.DataFrame(columns=["clip_id", "artist", "title"], dtype=str)
    if path.is_file():
        info = read_text_table(path, "\t", required=("clip_id", "artist", "title"))
    info = info.rename(columns={"artist": "group"})[["clip_id", "group", "title"]]
    table = table.merge(info.drop_duplicates("clip_id"), "left")
    unnamed = table.group.fillna("").str.strip() == ""
    if unnamed.any():
        table["group"] = _artists_by_file(table, unnamed)
        lacking = "lacks clips" if path.is_file() else "does not exist"
        warn(
            f"{path} {lacking}: {table.group[unnamed].nunique():,} artists of {unnamed.sum():,} "
            "clips are taken from the file names."
        )
    return table.assign(title=table.title.fillna(""))


def _artists_by_file(table: pd.DataFrame, unnamed: pd.Series) -> pd.Series:
    """The clips' artists; an unnamed clip's is whom most named clips with such a file name are by,
    so that no artist has two names, and the file's own only where there is no such clip."""
    by_file = table.path.map(lambda path: PurePosixPath(path).name.partition("-")[0])
    named = table.group[~unnamed].groupby(by_file[~unnamed]).agg(lambda names: names.mode()[0])
    return table.group.mask(unnamed, by_file.map(lambda artist: named.get(artist, artist)))


def choose_tags(given: pd.DataFrame, tags: str | Sequence[str]) -> tuple[Vocabulary, np.ndarray]:
    """The vocabulary of a tag list and its labels (clip, tag) uint8; tags go by their names.

    Named lists are ranked by count, ties by name.
    """
    if not isinstance(tags, str):
        check_known(tags, given.columns, "tag")
        if not tags or len(set(tags)) < len(tags):
            raise ValueError(f"tags must name at least one tag, each once, not {list(tags)}.")
        return Vocabulary(tuple(tags)), given[list(tags)].to_numpy(np.uint8)
    check_known([tags], TAG_LISTS, "tag list")
    labels = merge_synonyms(given) if tags == "merged" else given
    counts = labels.sum()
    ranked = sorted(labels, key=lambda tag: (-int(counts[tag]), tag))[:N_TOP_TAGS]
    return Vocabulary(tuple(ranked)), labels[ranked].to_numpy(np.uint8)


def merge_synonyms(labels: pd.DataFrame) -> pd.DataFrame:
    """One column for each group of `SYNONYMS`: 1 where a clip carries any of its tags."""
    name_of = {other: name for name, others in SYNONYMS.items() for other in others}
    merged = [name_of.get(tag, tag) for tag in labels]
    return labels.T.groupby(merged, sort=False).max().T


UNTAGGED = "none of the chosen tags (split 'full' keeps such clips)"
STRAY = "its path does not begin with a folder 0–f, which decides the split"
EMPTY = "0 bytes in the official archive"


def _reasons(table: pd.DataFrame, labels: np.ndarray, split: str) -> np.ndarray:
    """Why the split leaves a row out, empty for the rows it keeps."""
    why = np.full(len(table), "", dtype=object)
    if split != "full":
        why[~labels.any(axis=1)] = UNTAGGED
        why[table.path.isin(UNREADABLE)] = EMPTY
    why[table.split == ""] = STRAY
    return why


def _folder(path: str) -> str:
    return path.split("/")[0]
