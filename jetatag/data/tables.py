"""Annotation tables: read as text, paths normalised, unusable rows separated with a reason."""

import csv
import io
import os
import posixpath
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd

from jetatag.data.index import LEFT_OUT_COLUMNS
from jetatag.files import composed

END = "end"  # appended as a last line: a row of its own unless a quote is still open
SEPARATORS = {",": "commas", "\t": "tabs"}
OUTSIDE = "its path leads outside the data folder"
DUPLICATE = "an earlier row says the same about this file"
CONTRADICTION = "rows give this file different labels"
TWO_GROUPS = "rows give this file different groups"
SAME_ID = "rows give this clip id to different files"


def read_text_table(
    path: Path,
    separator: str,
    required: Sequence[str] = (),
    header: Sequence[str] = (),
    remedy: str = "use the official file",
) -> pd.DataFrame:
    """Read delimited UTF-8 text as strings; `header` names the columns of a file without a header.
    Raises `ValueError` for anything but a table with the `required` columns, and for rows of
    another length, which pandas might fill. Byte-order mark, blank lines and line ends do not
    matter."""
    try:
        text = path.read_text("utf-8-sig")
        *rows, last = csv.reader(io.StringIO(f"{text}\n{END}"), delimiter=separator)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    except csv.Error as error:
        raise ValueError(f"{path} is not a table ({error}): correct or export it again.") from None
    if last != [END]:  # the rest of the file would become one cell
        raise ValueError(f"{path} opens a quote and never closes it: close or remove it.")
    rows, sign = [row for row in rows if any(row)], SEPARATORS[separator]
    columns, rows = (list(header), rows) if header else (rows[0] if rows else [], rows[1:])
    _check_columns(path, columns, required, f"{remedy} (columns separated by {sign})")
    for number, row in enumerate(rows, 1):
        if len(row) != len(columns):
            problem = f"{path}: row {number} has {len(row)} fields separated by {sign}"
            remedy = "correct it, or quote fields that contain the separator"
            raise ValueError(f"{problem} and not {len(columns)}: {remedy}.")
    if not rows:
        raise ValueError(f"{path} has no rows: use the complete file.")
    return pd.DataFrame(rows, columns=columns, dtype=str)


def read_user_table(
    path: Path, required: Sequence[str], optional: Sequence[str] | None, lists: str
) -> pd.DataFrame:
    """Read a CSV, TSV or Parquet file as text, missing values as "". From Parquet, only the
    `required` and `optional` columns are read (None: all); lists in the column `lists` stay."""
    remedy = "name your columns by path_column, tags, split_column and group_column"
    suffix = path.suffix.lower()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give `table` relative to the data folder.")
    if suffix in (".csv", ".tsv"):
        return read_text_table(path, "," if suffix == ".csv" else "\t", required, remedy=remedy)
    if suffix != ".parquet":
        raise ValueError(f"{path} is neither .csv, .tsv nor .parquet: save the table as one.")
    from pyarrow import ArrowException, parquet  # loaded for Parquet alone

    try:
        file = parquet.ParquetFile(path)
        # pandas writes an unnamed index as a column of this name
        names = [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]
        _check_columns(path, names, required, remedy)
        wanted = names if optional is None else {*required, *optional}
        found = file.read(columns=[name for name in names if name in wanted])
        table = {name: _text(found[name], name == lists) for name in found.column_names}
    except (ArrowException, OSError) as error:
        problem = f"is not Parquet with text and numbers ({' '.join(str(error).split())[:120]})"
        raise ValueError(f"{path} {problem}: export it again.") from None
    if not len(found):
        raise ValueError(f"{path} has no rows: use the complete file.")
    return pd.DataFrame(table)


def _text(column: Any, may_be_lists: bool) -> list:
    """A pyarrow column as text, or as lists of text, missing values as ""."""
    import pyarrow as pa

    is_lists = may_be_lists and pa.types.is_nested(column.type)
    kind = pa.list_(pa.string()) if is_lists else pa.string()
    if pa.types.is_floating(column.type):
        column = pa.array(column.to_numpy(), from_pandas=True)  # NaN is a missing value, too
    return [cell or "" for cell in column.cast(kind).to_pylist()]


def _check_columns(path: Path, columns: list[str], required: Sequence[str], remedy: str) -> None:
    if missing := [name for name in required if name not in columns]:
        found = ", ".join(map(shorten, columns[:8])) or "none"
        raise ValueError(f"{path} has no column {missing[0]!r}: {remedy}; it has {found}.")
    if repeated := [name for name in columns if columns.count(name) > 1]:
        raise ValueError(f"{path} has two columns {repeated[0]!r}: rename or remove one.")


def check_filled(path: Path, column: pd.Series) -> None:
    """Raise `ValueError` if a cell is blank."""
    blank = np.flatnonzero(column.str.strip() == "")
    if len(blank):
        raise ValueError(f"{path}: row {blank[0] + 1} has no {column.name}: correct or remove it.")


def shorten(text: str) -> str:
    """A cell or column name for an error message: quoted, on one line, not too long."""
    return repr(text if len(text) <= 40 else text[:40] + "…")


def normalise_paths(paths: pd.Series, root: Path) -> pd.Series:
    """Paths relative to `root` in POSIX form, "" for none, each part in the Unicode form (NFC or
    NFD) that it has on disk. Paths that lead outside are left to `leaves_folder`."""
    homes = [root.absolute().as_posix(), root.resolve().as_posix()]
    homes = [composed(posixpath.join(home, "")) for home in homes]

    def normalise(path: str) -> str:
        if "://" in path:
            return path
        path = posixpath.normpath(path.replace("\\", "/"))
        whole = composed(path)
        inner = [whole.removeprefix(home) for home in homes if whole.startswith(home)]
        path = "" if path == "." else [*inner, path][0]
        if path.isascii() or leaves_folder(path):
            return path
        place = root
        for part in path.split("/"):
            forms = part, unicodedata.normalize("NFD", part), composed(part)
            place /= next((form for form in forms if os.path.lexists(place / form)), part)
        return place.relative_to(root).as_posix() if os.path.lexists(place) else composed(path)

    return paths.map(normalise)


def leaves_folder(path: str) -> bool:
    """Whether a normalised path leads out of its folder, or is absolute on some system or a URL."""
    first = posixpath.normpath(path.replace("\\", "/")).partition("/")[0]
    on_windows = PureWindowsPath(path).drive != ""
    return first in ("", "..") or on_windows or "://" in path or "\0" in path


def binary_labels(path: Path, given: pd.DataFrame) -> np.ndarray:
    """(row, column) uint8 of text; raises `ValueError` unless all are 0, 1, true or false."""
    if given.columns.empty:
        remedy = "name them in `tags`, or use the official file"
        raise ValueError(f"{path} has no tag columns: {remedy}.")
    labels = np.empty(given.shape, np.uint8)
    for number, tag in enumerate(given):
        codes, texts = pd.factorize(given[tag])
        texts = pd.Series(texts).str.strip().str.lower().replace({"false": "0", "true": "1"})
        values = pd.to_numeric(texts, errors="coerce").to_numpy()[codes]
        bad = np.flatnonzero(~np.isin(values, [0, 1]))
        if len(bad):
            place = f"{path}: row {bad[0] + 1} has {shorten(given[tag][bad[0]])} in column {tag!r}"
            remedy = "correct it, or name the tag columns in `tags`"
            raise ValueError(f"{place}, which is neither 0 nor 1: {remedy}.")
        labels[:, number] = values
    return labels


def drop_unusable(
    source: Path, table: pd.DataFrame, labels: np.ndarray, reasons: Sequence[str]
) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """Separate the rows of `source` that can be used from the others: (table, labels, left out).

    `table` has clip_id, path and perhaps group ("" if unknown), `reasons` one per row, "" to keep
    it. Rows that contradict each other are all left out; of rows that agree about a file, the first
    is kept, if possible one with a group. Raises `ValueError` if no row can be used.
    """
    why = np.array(reasons, dtype=object)
    why[table.path.map(leaves_folder).to_numpy(bool)] = OUTSIDE
    rows = table.reset_index(drop=True).assign(labels=[row.tobytes() for row in labels])
    rows["group"] = [group or None for group in table.get("group", [""] * len(table))]
    checks = {
        CONTRADICTION: lambda rows: rows.groupby("path")["labels"].transform("nunique") > 1,
        TWO_GROUPS: lambda rows: rows.groupby("path")["group"].transform("nunique") > 1,
        DUPLICATE: lambda r: r.sort_values("group", kind="stable").path.duplicated().sort_index(),
        SAME_ID: lambda rows: rows.clip_id.duplicated(keep=False),
    }
    for reason, found in checks.items():  # each among the rows that no earlier check left out
        usable = rows[why == ""]
        why[usable.index[found(usable).to_numpy(bool)]] = reason
    keep = why == ""
    if not keep.any():
        first = f", the first ({shorten(table.path.iloc[0])}) because {why[0]}" if len(why) else ""
        raise ValueError(f"{source}: none of {len(why):,} rows can be used{first}: correct them.")
    left_out = table.assign(reason=why).loc[~keep, LEFT_OUT_COLUMNS]
    return table[keep].reset_index(drop=True), labels[keep], left_out.reset_index(drop=True)
