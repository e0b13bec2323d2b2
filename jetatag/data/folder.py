"""Anyone's own data → `Index`: a table that names audio files, or one folder a class.

The table is CSV (comma), TSV (tab) or Parquet, with a path column and tags in one of three forms:
one column of separated tags, one 0/1 column a tag, or, in Parquet, one column of lists.
"""

import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from jetatag.data._splits import grouped_split
from jetatag.data._tables import sift
from jetatag.data._user_tables import read_table, relative_paths, shown
from jetatag.data.index import Index, Vocabulary, files_under, warn, warn_about
from jetatag.files import NOT_TEXT, NOT_UTF8, check_known, is_audio

TASKS = ("multilabel", "multiclass")
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}
SPLIT_NAMES = (
    dict.fromkeys(("train", "training"), "train")
    | dict.fromkeys(("valid", "validation", "val", "validate", "dev"), "valid")
    | dict.fromkeys(("test", "testing", "eval", "evaluation"), "test")
)
USUAL_COLUMNS = ("split", "group", "clip_id", "title")
EVERY = "*"
COLUMNS = ["clip_id", "path", "split", "group", "title"]
MOST_LABELS = 200_000_000  # bytes, held several times over

NO_PATH = "its row names no file"
NO_SPLIT = "its row names no split"
TWO_SPLITS = "rows put this file into different splits"
NO_CLASS = "it lies in no class folder"
RARE_CLASS = "its class is none of the n_tags most frequent"
HIDDEN = "it is hidden (a name that begins with a dot)"


def load(
    root: Path | str,
    table: Path | str | None = None,
    path_column: str = "path",
    tags: str | Sequence[str] = "tags",
    separator: str = ",",
    split_column: str | None = None,
    group_column: str | None = None,
    n_tags: int | None = None,
    task: str | None = None,
    peak_normalise: bool = True,
    seed: int = 0,
    name: str = "folder",
) -> Index:
    """Read `table`, or the class folders under `root` where there is none; no audio is opened.

    `table` is relative to `root` or an absolute path anywhere; the audio must lie in `root`, and
    paths are relative to it (absolute ones inside are made so; backslashes are read as slashes).
    `tags`: the column of tags parted by `separator` (or of lists), a list of 0/1 columns, or "*",
    every column not used otherwise; of them the `n_tags` most frequent (a multiclass set leaves the
    clips of the others out). `split_column` ("split" where there is one) holds train, valid or
    test, or `SPLIT_NAMES`; without it clips are dealt 8:1:1 by `seed`, tags stratified, so that no
    `group_column` ("group" where there is one: artist, speaker, …) crosses. Columns clip_id and
    title are kept. Without `table` the files of root/<class>/… are one class a folder, or of
    root/<split>/<class>/… where all folders are named like splits. `task` is "multilabel" for
    tables and "multiclass" (exactly one tag a clip) for folders unless said otherwise.

    A row that cannot be used is in `left_out`; clips without tags stay in a multilabel set.
    Raises `FileNotFoundError` or `ValueError`, each one sentence, for a table that is absent or
    malformed, unknown columns and splits, labels that are not 0/1, and data without usable clips.
    """
    check_known([] if task is None else [task], TASKS, "task")
    if n_tags is not None and n_tags < 1:
        raise ValueError(f"n_tags must be at least 1, not {n_tags}.")
    columns = (path_column, tags, split_column, group_column)
    if table is None:
        _check_columns_without_table(columns)
        source, (clips, tag_names, labels) = Path(root), read_classes(Path(root))
    else:
        source = Path(root) / table
        clips, tag_names, labels = read_clips(source, Path(root), *columns, separator)
    task = task or ("multiclass" if table is None else "multilabel")
    clips, labels, left_out = sift(clips, labels, _reasons(clips, labels, task))
    _check_none_usable(source, clips, left_out)
    if table is None or _is_one_column(tags) or n_tags is not None:
        tag_names, labels = by_count(tag_names, labels, n_tags)
    if task == "multiclass":
        clips, labels, rare = sift(clips, labels, np.where(labels.any(axis=1), "", RARE_CLASS))
        left_out = pd.concat([left_out, rare], ignore_index=True)
    _check_too_few_tags(source, tag_names, task)
    if "split" not in clips:
        # A clip alone goes by its path, so that the order of the rows does not matter.
        groups = clips.group.where(clips.group != "", "\0" + clips.path)
        clips["split"] = grouped_split(groups, labels, SHARES, seed)
    warn_about_tags(name, tag_names, labels)
    for reason, count in left_out.reason.value_counts().items():
        warn(f"{name}: {count:,} rows are left out: {reason}.")
    index = Index(
        name=name,
        audio_root=Path(root),
        vocabulary=Vocabulary(tag_names, task),
        table=clips[COLUMNS],
        labels=labels,
        left_out=left_out,
        peak_normalise=peak_normalise,
    )
    return warn_about(index)


def read_clips(
    source: Path,
    root: Path,
    path_column: str,
    tags: str | Sequence[str],
    split_column: str | None,
    group_column: str | None,
    separator: str,
) -> tuple[pd.DataFrame, tuple[str, ...], np.ndarray]:
    """A table's rows as clips (clip_id, path, group, title, reason and, where given, split), the
    tags' names and labels (row, tag) uint8."""
    named = [] if tags == EVERY else [tags] if isinstance(tags, str) else list(dict.fromkeys(tags))
    needed = [path_column, *named, *filter(None, (split_column, group_column))]
    wanted = None if tags == EVERY else [*needed, *USUAL_COLUMNS]
    given = read_table(source, needed, wanted, lists=tags if _is_one_column(tags) else "")
    split_column, group_column = split_column or "split", group_column or "group"
    clips = pd.DataFrame({"path": relative_paths(given[path_column], root)})
    clips["clip_id"] = _filled(given, "clip_id", clips.path)
    clips["title"] = _filled(given, "title", clips.path.map(_title))
    clips["group"] = given[group_column].str.strip() if group_column in given else ""
    clips["reason"] = np.where(clips.path.str.strip() == "", NO_PATH, "")
    if split_column in given:
        clips["split"] = read_splits(source, given[split_column])
        clips["reason"] = _split_reasons(clips)
    if _is_one_column(tags):
        return clips, *separated_labels(source, given[tags], separator)
    others = {path_column, split_column, group_column, "clip_id", "title"}
    if tags == EVERY:
        named = [column for column in given if column not in others]
    return clips, *column_labels(source, given[named])


def read_splits(source: Path, column: pd.Series) -> pd.Series:
    """Split names by `SPLIT_NAMES`, in any case; blank ones stay blank, others are refused."""
    named = column.str.strip().str.lower()
    unknown = np.flatnonzero(~named.isin(["", *SPLIT_NAMES]))
    if len(unknown):
        raise ValueError(
            f"{source}: row {unknown[0] + 1} has the split {shown(column.iloc[unknown[0]])}: call "
            f"it one of {', '.join(SPLIT_NAMES)}."
        )
    return named.map({"": "", **SPLIT_NAMES})


def separated_labels(
    source: Path, column: pd.Series, separator: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """Tags and labels of a column of tags; blanks around tags, empty and equal ones vanish."""
    if not separator:
        raise ValueError("separator is empty: give the sign between tags, such as ','.")
    lists = [
        [tag.strip() for tag in (cell if isinstance(cell, list) else cell.split(separator))]
        for cell in column
    ]
    text = "".join(cell for cell in column if isinstance(cell, str))
    others = [sign for sign in ",;|" if sign in text and separator not in text]
    if others:
        warn(
            f"{source}: column {column.name!r} holds {others[0]!r} but never the separator "
            f"{separator!r}; if it parts tags, give separator={others[0]!r}."
        )
    return encode(source, lists)


def encode(source: Path, lists: list[list[str]]) -> tuple[tuple[str, ...], np.ndarray]:
    """Lists of tags, one a clip, as sorted names and labels (clip, tag) uint8."""
    tags = sorted({tag for clip in lists for tag in clip} - {""})
    if len(tags) * len(lists) > MOST_LABELS:
        raise ValueError(
            f"{source} holds {len(tags):,} different tags in {len(lists):,} rows, too many to "
            "learn: check the tag column and the separator, or drop rare tags."
        )
    column = {tag: number for number, tag in enumerate(tags)}
    labels = np.zeros((len(lists), len(tags)), np.uint8)
    for row, clip in zip(labels, lists, strict=True):
        row[[column[tag] for tag in clip if tag]] = 1
    return tuple(tags), labels


MEANS = dict.fromkeys(("0", "0.0", "false"), 0) | dict.fromkeys(("1", "1.0", "true"), 1)


def column_labels(source: Path, given: pd.DataFrame) -> tuple[tuple[str, ...], np.ndarray]:
    """Tags and labels of one 0/1 column a tag; any other value is refused (`ValueError`)."""
    if given.columns.empty:
        raise ValueError(f"{source} has no tag columns: name them in `tags`.")
    labels = np.empty(given.shape, np.uint8)
    for number, tag in enumerate(given):
        codes, values = pd.factorize(given[tag])
        means = np.array([MEANS.get(value.strip().lower(), 2) for value in values], np.uint8)
        labels[:, number] = means[codes]
        bad = np.flatnonzero(labels[:, number] == 2)
        if len(bad):
            raise ValueError(
                f"{source}: row {bad[0] + 1} holds {shown(given[tag].iloc[bad[0]])} in column "
                f"{tag!r}, which is neither 0 nor 1: correct it, or name the tag columns in `tags`."
            )
    return tuple(given), labels


def by_count(
    tags: tuple[str, ...], labels: np.ndarray, n_tags: int | None = None
) -> tuple[tuple[str, ...], np.ndarray]:
    """The tags that some clip carries, or the first `n_tags` of them, the most frequent first and
    ties by name."""
    counts = labels.sum(axis=0, dtype=np.int64)
    order = sorted(np.flatnonzero(counts), key=lambda column: (-counts[column], tags[column]))
    order = order[:n_tags]
    return tuple(tags[column] for column in order), labels[:, order]


def read_classes(root: Path) -> tuple[pd.DataFrame, tuple[str, ...], np.ndarray]:
    """The audio files under `root` as clips, their classes and labels (clip, class) uint8."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} does not exist: give the folder that holds the audio.")
    files, _ = files_under(root)
    _warn_about_others(root, [path for path in files if not is_audio(path)])
    audio = [path for path in files if is_audio(path)]
    clips = pd.DataFrame({"path": audio, "reason": ""}, dtype=object)
    parts = clips.path.str.split("/")
    clips.loc[clips.path.str.contains(NOT_TEXT), "reason"] = NOT_UTF8
    clips.loc[("/" + clips.path).str.contains("/.", regex=False), "reason"] = HIDDEN
    tops = parts[(parts.str.len() > 1) & (clips.reason == "")].str[0].str.lower()
    named_like_splits = len(tops) > 0 and tops.isin(SPLIT_NAMES).all()
    depth = 1 if named_like_splits else 0
    clips.loc[(parts.str.len() < depth + 2) & (clips.reason == ""), "reason"] = NO_CLASS
    usable = clips.reason == ""
    if not usable.any():
        raise ValueError(
            f"{root} has no class folders with audio in them: put the files of each class into a "
            "folder, or give a table of paths and tags, such as table='tags.csv'."
        )
    if named_like_splits:
        clips["split"] = parts.str[0].str.lower().map(SPLIT_NAMES).where(usable, "")
    clips = clips.assign(clip_id=clips.path, title=clips.path.map(_title), group="")
    classes = parts.str[depth].where(usable, "")
    return clips, *encode(root, [[name] for name in classes])


def warn_about_tags(name: str, tags: Sequence[str], labels: np.ndarray) -> None:
    """Warn, with numbers, of clips without tags and of tags that differ in writing only."""
    untagged = int((~labels.any(axis=1)).sum())
    if untagged:
        warn(
            f"{name}: {untagged:,} of {len(labels):,} clips carry no tag and count as having none."
        )
    alike: dict[str, list[str]] = {}
    for tag in tags:
        plain = unicodedata.normalize("NFKC", tag).casefold()
        alike.setdefault("".join(plain.split()), []).append(tag)
    twins = [" and ".join(map(repr, same)) for same in alike.values() if len(same) > 1]
    if twins:
        warn(
            f"{name}: {len(twins)} tags are written in several ways ({', '.join(twins[:5])}) and "
            "count as different tags: write them alike."
        )


def _warn_about_others(root: Path, others: list[str]) -> None:
    shown_others = [path for path in others if "/." not in f"/{path}"]
    if shown_others:
        suffixes = sorted({PurePosixPath(path).suffix or "no suffix" for path in shown_others})
        warn(
            f"{len(shown_others):,} files under {root} are no audio by their names and not used: "
            f"{', '.join(suffixes[:5])}."
        )


def _check_columns_without_table(columns: tuple) -> None:
    if columns != ("path", "tags", None, None):
        raise ValueError(
            "path_column, tags, split_column and group_column are columns of a table: give "
            "`table`, or leave them out to take folders as classes."
        )


def _check_none_usable(source: Path, clips: pd.DataFrame, left_out: pd.DataFrame) -> None:
    if clips.empty:
        raise ValueError(
            f"{source}: none of {len(left_out):,} rows can be used, the first because "
            f"{left_out.reason.iloc[0]}: correct them."
        )


def _check_too_few_tags(source: Path, tags: Sequence[str], task: str) -> None:
    if len(tags) < (2 if task == "multiclass" else 1):
        due = "two classes" if task == "multiclass" else "one tag"
        raise ValueError(
            f"{source} has {len(tags)} tags where at least {due} must be told apart: check `tags`, "
            "or give a table of paths and tags."
        )


def _reasons(clips: pd.DataFrame, labels: np.ndarray, task: str) -> np.ndarray:
    """Why a row is left out, "" for those to keep: its own reason, or not exactly one class."""
    why = clips.reason.to_numpy(object)
    n_tags = labels.sum(axis=1, dtype=np.int64)
    if task == "multiclass":
        for row in np.flatnonzero((n_tags != 1) & (why == "")):
            why[row] = f"it carries {n_tags[row]} tags and not exactly one"
    return why


def _split_reasons(clips: pd.DataFrame) -> np.ndarray:
    """The rows' reasons with those that concern the split."""
    told = clips[clips.split != ""].groupby("path")["split"].nunique()
    reasons = [clips.path.map(told) > 1, clips.split == ""]
    return np.where(
        clips.reason != "", clips.reason, np.select(reasons, [TWO_SPLITS, NO_SPLIT], "")
    )


def _filled(given: pd.DataFrame, name: str, otherwise: pd.Series) -> pd.Series:
    """A column of `given`, or `otherwise` where it is blank or absent."""
    if name not in given:
        return otherwise
    return given[name].where(given[name].str.strip() != "", otherwise)


def _is_one_column(tags: str | Sequence[str]) -> bool:
    return isinstance(tags, str) and tags != EVERY


def _title(path: str) -> str:
    return PurePosixPath(path).stem
