"""Tables that users wrote themselves: CSV, TSV or Parquet, read as text, and paths in them."""

import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from jetatag.data._tables import check_columns, read_text_table

DELIMITERS = {".csv": ",", ".tsv": "\t"}
DELIMITER_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
PANDAS_INDEX = "__index_level_"
"""How pandas calls a nameless index among Parquet's columns."""


def read_table(
    path: Path, needed: Sequence[str], wanted: Sequence[str] | None = None, lists: str = ""
) -> pd.DataFrame:
    """A CSV, TSV or Parquet file as text.

    Of Parquet only the `wanted` columns are read (None: all), and column `lists` may hold lists of
    text, which stay lists. Raises `FileNotFoundError` for an absent file, `ValueError` for another
    format, another delimiter or an absent `needed` column.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: give `table` relative to the data folder or as an absolute "
            "path."
        )
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path, needed, wanted, lists)
    if suffix not in DELIMITERS:
        raise ValueError(f"{path} is neither .csv, .tsv nor .parquet: save the table as one.")
    _check_delimiter(path, DELIMITERS[suffix], needed[0])
    table = read_text_table(path, DELIMITERS[suffix])
    _check_absent(path, list(table), needed)
    return table


def relative_paths(paths: pd.Series, root: Path) -> pd.Series:
    """Paths as POSIX ones relative to `root`, however they were written; "" for none. Those that
    lead outside still do."""
    homes = [home.as_posix().rstrip("/") + "/" for home in (root.absolute(), root.resolve())]

    def relative(path: str) -> str:
        if "://" in path:
            return path
        path = posixpath.normpath(path.replace("\\", "/"))
        inner = [path.removeprefix(home) for home in homes if path.startswith(home)]
        return "" if path == "." else [*inner, path][0]

    return paths.map(relative)


def _read_parquet(
    path: Path, needed: Sequence[str], wanted: Sequence[str] | None, lists: str
) -> pd.DataFrame:
    from pyarrow import ArrowException, parquet  # only Parquet needs it

    try:
        file = parquet.ParquetFile(path)
        names = [name for name in file.schema_arrow.names if not name.startswith(PANDAS_INDEX)]
        chosen = [name for name in names if wanted is None or name in wanted]
        found = file.read(columns=chosen)
    except (ArrowException, OSError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as Parquet ({problem}): export it anew.") from None
    _check_absent(path, names, needed)
    if not len(found):
        raise ValueError(f"{path} has no rows: give the whole file.")
    return pd.DataFrame({name: _text(path, name, found[name], lists) for name in chosen})


def _text(path: Path, name: str, column: Any, lists: str) -> list:
    """A Parquet column (`pyarrow.ChunkedArray`) as text, missing values as "" and lists, where
    `name` is `lists`, as lists of text."""
    import pyarrow as pa

    if pa.types.is_floating(column.type):
        column = pa.array(column.to_numpy(), from_pandas=True)  # NaN is a missing value, too
    try:
        if name == lists and (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            cells = column.cast(pa.list_(pa.string())).to_pylist()
            return [[tag or "" for tag in cell or ()] for cell in cells]
        return column.cast(pa.string()).fill_null("").to_pylist()
    except pa.ArrowException:
        kind = " ".join(str(column.type).split())[:80]
        raise ValueError(
            f"{path}: column {name!r} holds {kind} where text or numbers are due: export it anew, "
            "or name other columns."
        ) from None


def _check_delimiter(path: Path, delimiter: str, name: str) -> None:
    """Refuse a table whose first line has column `name` only when cut at another sign."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = next((line for line in file if line.strip()), "")
    cells = {sign: [c.strip(' "\n') for c in header.split(sign)] for sign in DELIMITER_NAMES}
    other = [sign for sign in cells if name in cells[sign] and name not in cells[delimiter]]
    if other:
        renamed = ", or call it .tsv" if other[0] == "\t" else ""
        raise ValueError(
            f"{path} has {DELIMITER_NAMES[other[0]]} between its columns where "
            f"{DELIMITER_NAMES[delimiter]} are due: export it with those{renamed}."
        )


def _check_absent(path: Path, columns: Sequence[str], needed: Sequence[str]) -> None:
    check_columns(path, columns, ())
    absent = [name for name in needed if name not in columns]
    if absent:
        raise ValueError(
            f"{path} has no column {absent[0]!r}: name yours by path_column, tags, split_column "
            f"and group_column; it has {', '.join(map(shown, columns[:8])) or 'none'}."
        )


def shown(text: str) -> str:
    """A cell or column name as it stands in a sentence: quoted, on one line, not too long."""
    return repr(text if len(text) <= 40 else text[:40] + "…")
