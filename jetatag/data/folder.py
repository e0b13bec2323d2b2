"""Your own data → `Index`: a table that names audio files, or one folder per class.

The table is CSV (commas), TSV (tabs) or Parquet, with a column of paths and tags in one of three
forms: one column of separated tags, one 0/1 column per tag, or one column of lists.
"""

import csv
import re
import unicodedata
from ast import literal_eval
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from jetatag.data import index, tables
from jetatag.data.index import COLUMNS, Index, Task, Vocabulary, warn, warn_about
from jetatag.data.splits import grouped_split
from jetatag.files import NOT_TEXT, NOT_UTF8, Count, check_arguments

Labels = tuple[tuple[str, ...], np.ndarray]  # tags, and (clip, tag) uint8
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}
SPLIT_NAMES = dict.fromkeys(("train", "training"), "train")
SPLIT_NAMES |= dict.fromkeys(("valid", "validation", "val", "validate", "dev"), "valid")
SPLIT_NAMES |= dict.fromkeys(("test", "testing", "eval", "evaluation"), "test")
ALL = "*"
QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
BRACKETED = rf"[\[({{](?:\s|,|(?:np\.str_\()?{QUOTED}\)?)*[\])}}]"
ITEMS = rf"(?!.\[){QUOTED}(?:\s*[,;|]\s*{QUOTED})*"
LIST = re.compile(rf"\s*(?:{BRACKETED}|set\(\)|{ITEMS})\s*", re.S)
"""Tags as Python, JSON, pandas and NumPy write lists of text into a cell, or each in quotes."""
PLAIN = r"[^\[\](){}]*"
# Numbers, and missing values, as NumPy writes them between brackets.
VALUES = r"(?:nan|None|[\d.]+(?:\s+[\d.]+)+)\s*"
LIKE_A_LIST = re.compile(
    rf"\s*['\"]?(\w+\((?=[\[{{]))?[\[({{][\[({{\s]*"
    rf"((np\.str_\(|[bu])?['\"]|({PLAIN},{PLAIN}|{VALUES})[\])}}]\s*$)"
)
BRACKETS = ("()", "[]", "{}")
MAX_LABELS = 200_000_000  # bytes of the label matrix, of which there are several copies

NO_PATH = "its row names no file"
NO_SPLIT = "its row names no split"
TWO_SPLITS = "rows put this file into different splits"
NO_CLASS = "it is in no class folder"
RARE_CLASS = "its class is not among the n_tags most frequent"


def load(
    root: Path | str,
    table: Path | str | None = None,
    path_column: str = "path",
    tags: str | Sequence[str] = "tags",
    separator: str = ",",
    split_column: str | None = None,
    group_column: str | None = None,
    n_tags: Count | None = None,
    task: Task | None = None,
    peak_normalise: bool = True,
    seed: int = 0,
    name: str = "folder",
) -> Index:
    """Read `table`, or without one the class folders under `root`; no audio is opened.

    `table`: a path relative to `root`, or absolute; the audio it names must be under `root`.
    `tags`: the column of tags separated by `separator` (or of lists), or a list of 0/1 columns, or
    "*" for all other columns. `n_tags`: how many to keep, by frequency (in a multiclass set, only
    their clips are kept). `split_column` (default: "split" if present) holds `SPLIT_NAMES`; without
    it, clips are split 8:1:1 by `seed`, tags stratified, each `group_column` (default: "group" if
    present; artist, speaker, …) in one split. Columns clip_id and title are kept. Without `table`,
    files are root/<class>/…, or root/<split>/<class>/… where all folders have split names. `task`:
    "multilabel" (default for tables) or "multiclass", exactly one tag per clip (for folders).

    Rows that cannot be used are listed in `left_out`; clips without tags stay in a multilabel set.
    Raises `FileNotFoundError` or `ValueError` for a missing or malformed table, and without clips.
    """
    check_arguments(load, {"n_tags": n_tags, "task": task})
    columns = (path_column, tags, split_column, group_column)
    root, source = Path(root), Path(root, table or "")
    if table is not None:
        clips, (names, labels) = read_clips(source, root, columns, separator)
    elif columns == ("path", "tags", None, None):
        clips, (names, labels) = read_classes(root)
    else:
        problem = "path_column, tags, split_column and group_column are columns of a table"
        raise ValueError(f"{problem}: give `table`, or leave them out to use folders as classes.")
    stems = clips.path.map(lambda path: PurePosixPath(path).stem)
    for column, default in (("clip_id", clips.path), ("title", stems)):
        clips[column] = clips[column].where(clips[column].str.strip() != "", default)
    task = task or ("multiclass" if table is None else "multilabel")
    if task == "multiclass":
        n_each = pd.Series(labels.sum(axis=1, dtype=int))
        several = "it has " + n_each.astype(str) + " tags and not exactly one"
        clips["reason"] = clips.reason.mask((clips.reason == "") & (n_each != 1), several)
    clips, labels, left_out = tables.drop_unusable(source, clips, labels, clips.reason)
    if table is None or _is_one_column(tags) or n_tags is not None:
        counts = labels.sum(axis=0, dtype=int)
        order = sorted(np.flatnonzero(counts), key=lambda c: (-counts[c], names[c]))[:n_tags]
        names, labels = tuple(names[c] for c in order), labels[:, order]
    if task == "multiclass":
        rare = np.where(labels.any(axis=1), "", RARE_CLASS)
        clips, labels, dropped = tables.drop_unusable(source, clips, labels, rare)
        left_out = pd.concat([left_out, dropped], ignore_index=True)
    if len(names) < (needed := 2 if task == "multiclass" else 1):
        problem = f"{source} has {len(names)} tags, and a {task} task needs {needed}"
        raise ValueError(f"{problem}: check `tags` or the table.")
    if "split" not in clips:
        # A clip without a group is named by its path, so that the order of rows does not matter.
        groups = clips.group.where(clips.group != "", "\0" + clips.path)
        clips["split"] = grouped_split(groups, labels, SHARES, seed)
    warn_about_tags(name, names, labels)
    for reason, count in left_out.reason.value_counts().items():
        warn(f"{name}: {count:,} rows are left out, each because {reason}.")
    rest = (clips[COLUMNS], labels, left_out, peak_normalise)
    return warn_about(Index(name, root, Vocabulary(names, task), *rest))


def read_clips(
    source: Path, root: Path, columns: tuple, separator: str
) -> tuple[pd.DataFrame, Labels]:
    """A table's clips (clip_id, title and group, "" if unknown, path, reason to leave it out or "",
    and perhaps split) and labels; `columns` are those of path, tags, split and group."""
    path_column, tags, split_column, group_column = columns
    named = [] if tags == ALL else [tags] if isinstance(tags, str) else list(dict.fromkeys(tags))
    required = [path_column, *named, *filter(None, (split_column, group_column))]
    optional = None if tags == ALL else ["split", "group", "clip_id", "title"]
    given = tables.read_user_table(source, required, optional, tags if _is_one_column(tags) else "")
    # A tag may be called like one of the optional columns.
    about = given.drop(columns={*named} - {path_column, split_column, group_column})
    split_column, group_column = split_column or "split", group_column or "group"
    clips = about.reindex(columns=["clip_id", "title"], fill_value="")
    clips["path"] = tables.normalise_paths(given[path_column], root)
    clips["group"] = about[group_column].str.strip() if group_column in about else ""
    clips["reason"] = np.where(clips.path.str.strip() == "", NO_PATH, "")
    if split_column in about:
        clips["split"] = read_splits(source, about[split_column])
        n_splits = clips.path.map(clips[clips.split != ""].groupby("path").split.nunique())
        reasons = [clips.reason != "", n_splits > 1, clips.split == ""]
        clips["reason"] = np.select(reasons, [clips.reason, TWO_SPLITS, NO_SPLIT], "")
    if _is_one_column(tags):
        return clips, separated_labels(source, given[tags], separator)
    used = {path_column, split_column, group_column, "clip_id", "title"}
    named = [column for column in given if column not in used] if tags == ALL else named
    return clips, (tuple(named), tables.binary_labels(source, given[named]))


def read_splits(source: Path, column: pd.Series) -> pd.Series:
    """train, valid or test, "" for a blank cell; raises `ValueError` for other values."""
    named = column.str.strip().str.lower()
    unknown = np.flatnonzero(~named.isin(["", *SPLIT_NAMES]))
    if len(unknown):
        row, split = unknown[0] + 1, tables.shorten(column[unknown[0]])
        names = ", ".join(SPLIT_NAMES)
        raise ValueError(f"{source}: row {row} has the split {split}: call it one of {names}.")
    return named.map({"": "", **SPLIT_NAMES})


def separated_labels(source: Path, column: pd.Series, separator: str) -> Labels:
    """Labels of a column of separated tags or lists."""
    if not separator:
        raise ValueError("separator is empty: give the character between tags, such as ','.")
    lists = [split_tags(source, row, cell, separator) for row, cell in enumerate(column, 1)]
    text = "".join(cell for cell in column if isinstance(cell, str))
    if others := [sign for sign in ",;|" if sign in text and separator not in text]:
        told = f"{source}: column {column.name!r} holds {others[0]!r} but never the separator"
        warn(f"{told} {separator!r}; if it separates tags, give separator={others[0]!r}.")
    return encode(source, lists)


def split_tags(source: Path, row: int, cell: str | list[str], separator: str) -> list[str]:
    """The tags of a cell: a list, text that is written as one, or separated tags."""
    if isinstance(cell, list):
        return cell
    if LIST.fullmatch(cell):
        with suppress(ValueError, SyntaxError):  # an escape that is none
            tags = [literal_eval(tag) for tag in re.findall(QUOTED, cell, re.S)]
            # JSON writes signs beyond 16 bits as two.
            return [tag.encode("utf-16", "surrogatepass").decode("utf-16") for tag in tags]
    elif not LIKE_A_LIST.match(cell):
        tags = cell.split(separator)
        if any(tag.lstrip().startswith('"') for tag in tags):  # as the csv module writes lists
            with suppress(csv.Error, ValueError, TypeError):
                (tags,) = csv.reader(
                    [cell], delimiter=separator, skipinitialspace=True, strict=True
                )
                return tags
        is_quoted = cell.count('"') % 2 and cell.lstrip().startswith('"')
        if not is_quoted and (not is_balanced(cell) or all(map(is_balanced, tags))):
            return tags  # no separator is inside brackets
    problem = f"{source}: row {row} has the tags {tables.shorten(cell)}, which look like a list"
    raise ValueError(f"{problem}: write them separated by {separator!r}.")


def is_balanced(text: str) -> bool:
    return all(text.count(opening) == text.count(closing) for opening, closing in BRACKETS)


def encode(source: Path, lists: list[list[str]]) -> Labels:
    """Labels of one list of tags per clip; the tags are sorted."""
    tags = pd.Series(lists, dtype=object).explode().dropna().str.strip()
    tags = tags[tags != ""]
    columns, names = pd.factorize(tags, sort=True)
    if len(names) * len(lists) > MAX_LABELS:
        problem = f"{source} has {len(names):,} tags in {len(lists):,} rows, too many to learn"
        raise ValueError(f"{problem}: check the tag column and the separator, or drop rare tags.")
    labels = np.zeros((len(lists), len(names)), np.uint8)
    labels[tags.index, columns] = 1
    return tuple(names), labels


def read_classes(root: Path) -> tuple[pd.DataFrame, Labels]:
    """The audio files under `root`, in the form of `read_clips`; folders are classes."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} does not exist: give the folder that holds the audio.")
    paths, _, others = index.audio_under(root)
    if others:
        warn(f"{root}: {index.skipped_sentence(others)}")
    parts = {path: path.split("/") for path in paths if NOT_TEXT not in path}
    tops = {own[0].lower() for own in parts.values() if len(own) > 1}
    depth = 1 if tops and tops <= SPLIT_NAMES.keys() else 0
    classes = {path: own[depth] for path, own in parts.items() if len(own) > depth + 1}
    if not classes:
        remedy = "put the files of each class into a folder, or "
        remedy += "give a table of paths and tags, such as table='tags.csv'"
        raise ValueError(f"{root} has no class folders with audio in them: {remedy}.")
    clips = pd.DataFrame({"path": paths, "clip_id": "", "title": "", "group": ""})
    clips["reason"] = np.where(clips.path.isin(parts), NO_CLASS, NOT_UTF8)
    clips.loc[clips.path.isin(classes), "reason"] = ""
    if depth == 1:
        clips["split"] = [SPLIT_NAMES.get(path.split("/")[0].lower(), "") for path in paths]
    return clips, encode(root, [[classes.get(path, "")] for path in paths])


def warn_about_tags(name: str, tags: Sequence[str], labels: np.ndarray) -> None:
    """Warn about clips without tags and tags that differ only in case, spaces or Unicode form."""
    if untagged := int((~labels.any(axis=1)).sum()):
        warn(f"{name}: {untagged:,} of {len(labels):,} clips have no tag and count as negatives.")
    plain = ["".join(unicodedata.normalize("NFKC", tag).casefold().split()) for tag in tags]
    spellings = pd.Series(tags, dtype=object).map(repr).groupby(plain).agg(list)
    if several := [" and ".join(same) for same in spellings if len(same) > 1]:
        told = f"{name}: {len(several)} tags have several spellings ({', '.join(several[:5])})"
        warn(f"{told}, which count as different tags: use one of them.")


def _is_one_column(tags: str | Sequence[str]) -> bool:
    return isinstance(tags, str) and tags != ALL
