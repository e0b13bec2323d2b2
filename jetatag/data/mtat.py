"""MagnaTagATune (Law et al., ISMIR 2009): the official folder → `Index`.

The folder holds `annotations_final.csv`, `clip_info_final.csv` and `mp3/<0-9a-f>/….mp3`; an index
needs only the first. The usual 12:1:3 split is by sub-folder: 0–b train, c valid, d–f test.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import yaml

from jetatag.data import tables
from jetatag.data.index import Index, Vocabulary, warn, warn_about
from jetatag.data.splits import grouped_split
from jetatag.files import check_known

FOLDERS = {"train": "0123456789ab", "valid": "c", "test": "def"}
SHARES = {"train": 12 / 16, "valid": 1 / 16, "test": 3 / 16}
N_TOP_TAGS = 50
KNOWN_CLIPS = {
    "cleaned": {"train": 15_247, "valid": 1_529, "test": 4_332},  # with one of the 50 top tags
    "full": {"train": 18_709, "valid": 1_825, "test": 5_329},
}
KNOWN_CLIPS["artist_disjoint"] = {" and ".join(SHARES): sum(KNOWN_CLIPS["cleaned"].values())}
DIFFERENCES = (
    "Usual reasons: incomplete annotations, or another list of tags and splits (one public list "
    "has 15,244 training clips, because it also drops those shorter than 29.1 s)."
)
EMPTY_FILES = {  # 0 bytes in the official archive: clips 35644, 55753 and 57881
    "6/norine_braun-now_and_zen-08-gently-117-146.mp3",
    "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
    "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien_xiveme_ordre_"
    "couperin-88-117.mp3",
}
SYNONYMS = yaml.safe_load(Path(__file__).with_name("synonyms.yaml").read_text("utf-8"))
"""Lists of synonyms, by the tag that they are merged into."""

UNTAGGED = "none of the chosen tags (split 'full' keeps such clips)"
NO_SPLIT = "its path does not begin with a folder 0–f, which decides the split"
EMPTY = "0 bytes in the official archive"


def load(
    root: Path | str,
    split: str = "cleaned",
    tags: str | Sequence[str] = "top50",
    seed: int = 0,
    folders: dict | None = None,
    name: str = "mtat",
) -> Index:
    """Read the annotations under `root`; no audio is opened.

    `split`, with the numbers of clips in `KNOWN_CLIPS`: "cleaned", by folder and without clips that
    carry none of the chosen tags; "full", by folder, three clips being empty files;
    "artist_disjoint", the cleaned clips split at random by `seed`, about 12:1:3, with every artist
    in one split. `tags`: "top50", the fifty most frequent; "merged", the fifty most frequent after
    merging `SYNONYMS`; or a list of names. `folders`: the sub-folders of each split, such as
    {"train": "01", "valid": "2", "test": "3"}. Warns (`DataWarning`) about missing clip information
    or audio. Raises `FileNotFoundError` without annotations, `ValueError` for a malformed file.
    """
    check_known([split], KNOWN_CLIPS, "split")
    split_of = split_by_folder(FOLDERS if folders is None else folders)
    if folders is not None and split == "artist_disjoint":
        raise ValueError("split 'artist_disjoint' does not go by folders: leave out folders.")
    source, audio_root = Path(root, "annotations_final.csv"), Path(root, "mp3")
    table, given = read_annotations(source, audio_root)
    vocabulary, labels = choose_tags(given, tags)
    table["split"] = table.path.str.partition("/")[0].map(split_of).fillna("")
    table = with_clip_info(table, Path(root, "clip_info_final.csv"))
    why = {NO_SPLIT: table.split == ""}
    if split != "full":
        why |= {EMPTY: table.path.isin(EMPTY_FILES), UNTAGGED: ~labels.any(axis=1)}
    why = np.select([*why.values()], [*why], "")
    table, labels, left_out = tables.drop_unusable(source, table, labels, why)
    if split == "artist_disjoint":
        table["split"] = grouped_split(table.group, labels, SHARES, seed)
    official = name == "mtat" and folders is None and (split == "full" or tags == "top50")
    known = KNOWN_CLIPS[split] if official else {}
    index = Index(name, audio_root, vocabulary, table, labels, left_out, known_clips=known)
    return warn_about(index, DIFFERENCES)


def split_by_folder(folders: dict) -> dict[str, str]:
    """The split of every sub-folder, from {"test": "def", …}."""
    check_known(folders, FOLDERS, "split")
    split_of = {folder: split for split, named in folders.items() for folder in str(named)}
    check_known(split_of, "".join(FOLDERS.values()), "folder")
    if len(split_of) < sum(len(str(named)) for named in folders.values()):
        raise ValueError(f"folders {folders} put one folder into two splits: name each once.")
    return split_of


def read_annotations(path: Path, audio_root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """clip_id and path (relative to `audio_root`), both str, and labels, a uint8 column per tag."""
    if not path.is_file():
        remedy = "give the folder that holds MagnaTagATune's tables and mp3/"
        raise FileNotFoundError(f"{path} does not exist: {remedy}.")
    rows = tables.read_text_table(path, "\t", required=("clip_id", "mp3_path"))
    tables.check_filled(path, rows.clip_id)
    given = rows.drop(columns=["clip_id", "mp3_path"])
    labels = pd.DataFrame(tables.binary_labels(path, given), columns=given.columns)
    paths = tables.normalise_paths(rows.mp3_path, audio_root)
    return pd.DataFrame({"clip_id": rows.clip_id, "path": paths}), labels


def with_clip_info(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """`table` with group (the artist, if need be from the file name, with a warning) and title."""
    columns = ["clip_id", "artist", "title"]
    info = pd.DataFrame(columns=columns, dtype=str)
    if path.is_file():
        info = tables.read_text_table(path, "\t", required=columns)[columns]
    info = info.drop_duplicates("clip_id").rename(columns={"artist": "group"})
    table = table.merge(info, "left").fillna({"group": "", "title": ""})
    unnamed = table.group.str.strip() == ""
    if unnamed.any():
        # An artist must not get two names: the one that clips with the same file name have, if any.
        by_file = table.path.map(lambda path: PurePosixPath(path).name.partition("-")[0])
        named = table.group[~unnamed].groupby(by_file[~unnamed]).agg(lambda names: names.mode()[0])
        artists = by_file.map(lambda artist: named.get(artist, artist))
        table["group"] = table.group.mask(unnamed, artists)
        state = f"{path} {'lacks clips' if path.is_file() else 'does not exist'}"
        taken = f"{table.group[unnamed].nunique():,} artists of {unnamed.sum():,} clips"
        warn(f"{state}: {taken} are taken from the file names.")
    return table


def choose_tags(given: pd.DataFrame, tags: str | Sequence[str]) -> tuple[Vocabulary, np.ndarray]:
    """The vocabulary of a tag list, and its labels; tags of equal count are alphabetical."""
    if not isinstance(tags, str):
        check_known(tags, given.columns, "tag")
        if not tags or len(set(tags)) < len(tags):
            raise ValueError(f"tags must name at least one tag, each once, not {list(tags)}.")
        return Vocabulary(tuple(tags)), given[list(tags)].to_numpy(np.uint8)
    check_known([tags], ("top50", "merged"), "tag list")
    labels = merge_synonyms(given) if tags == "merged" else given
    counts = labels.sum().sort_index().sort_values(ascending=False, kind="stable")
    ranked = counts.index[:N_TOP_TAGS]
    return Vocabulary(tuple(ranked)), labels[ranked].to_numpy(np.uint8)


def merge_synonyms(labels: pd.DataFrame) -> pd.DataFrame:
    """One column for each group of `SYNONYMS`: 1 for a clip with any of its tags."""
    name_of = {tag: name for name, tags in SYNONYMS.items() for tag in tags}
    merged = [name_of.get(tag, tag) for tag in labels]
    return labels.T.groupby(merged, sort=False).max().T
