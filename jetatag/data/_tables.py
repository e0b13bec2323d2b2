"""Reading other people's tables: text as it stands, each problem named, no row lost unsaid."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pandas as pd

from jetatag.data.index import LEFT_OUT_COLUMNS

END = "end"
"""Put below a table, it is read as a row only if every quote above is closed."""


def read_text_table(
    path: Path, delimiter: str, required: Sequence[str] = (), header: Sequence[str] = ()
) -> pd.DataFrame:
    """A delimited UTF-8 text file as strings; `header` names the columns of a file without one.

    A byte-order mark, line ends of any system and empty lines do not matter. Raises `ValueError`
    of one sentence for anything else that is not a table with the `required` columns.
    """
    try:
        text = path.read_text("utf-8-sig")
        *rows, last = csv.reader(io.StringIO(f"{text}\n{END}"), delimiter=delimiter)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    except csv.Error as error:
        raise ValueError(f"{path} is no table ({error}): correct or export it anew.") from None
    if last != [END]:  # the rest of the file would be one cell
        raise ValueError(f"{path}: a quote is opened and never closed: close or remove it.")
    rows = [row for row in rows if any(row)]
    columns, rows = (list(header), rows) if header else (rows[0] if rows else [], rows[1:])
    check_columns(path, columns, required, delimiter)
    if header[1:] and rows and max(map(len, rows)) == 1:  # another delimiter, and no names to miss
        check_columns(path, rows[0], header, delimiter)
    ragged = [number for number, row in enumerate(rows, 1) if len(row) != len(columns)]
    if ragged:
        fields = len(rows[ragged[0] - 1])
        raise ValueError(
            f"{path}: row {ragged[0]} has {fields} fields and not {len(columns)}: quote what "
            "holds the delimiter, or correct or remove the row."
        )
    if not rows:
        raise ValueError(f"{path} has no rows: give the whole file.")
    return pd.DataFrame(rows, columns=columns, dtype=str)


def check_columns(
    path: Path, columns: Sequence[str], required: Sequence[str], delimiter: str = ""
) -> None:
    """Refuse (`ValueError`) a table that lacks a required column or has one name twice."""
    missing = [name for name in required if name not in columns]
    if missing:
        named = {"\t": "tab separated, ", ",": "comma separated, "}.get(delimiter, "")
        raise ValueError(
            f"{path} has no column {missing[0]!r}: it must be a table, {named}with the columns "
            f"{', '.join(required)}; it has {', '.join(map(repr, columns[:8])) or 'none'}."
        )
    twice = [name for name in columns if list(columns).count(name) > 1]
    if twice:
        raise ValueError(f"{path} has two columns {twice[0]!r}: rename or remove one.")


def check_blank(path: Path, values: pd.Series) -> None:
    """Refuse (`ValueError`) a column, such as the clip ids, in which a row says nothing."""
    blank = values.str.strip() == ""
    if blank.any():
        row = int(np.flatnonzero(blank)[0]) + 1
        raise ValueError(f"{path}: row {row} has no {values.name}: correct or remove it.")


def leaves_folder(path: str) -> bool:
    """Whether a relative path, read literally, is absolute or climbs out of its folder."""
    depth = 0
    for part in PurePosixPath(path.replace("\\", "/")).parts:
        depth += {"..": -1}.get(part, 1)
        if depth < 0 or part in ("/", "//"):
            return True
    return bool(PureWindowsPath(path).drive) or "://" in path or "\0" in path


OUTSIDE = "its path leads outside the data folder"
TWICE = "an earlier row says the same of this file"
CONTRADICTED = "rows give this file different labels"
TWO_GROUPS = "rows give this file different groups"
SAME_ID = "rows give this clip id to different files"


def sift(
    table: pd.DataFrame, labels: np.ndarray, reasons: Sequence[str] = ()
) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """Part the rows that can be used from those left out: (table, labels, left out).

    `table` has clip_id, path and perhaps group ("" for unknown), `labels` (row, tag) a row each;
    `reasons` gives one a row, empty for a row to keep. Rows whose path leaves the folder go; of
    rows that say the same of a file the first stays (the first to name the group, if any does);
    rows that contradict each other all go.
    """
    why = np.array(list(reasons) or [""] * len(table), dtype=object)
    why[table.path.map(leaves_folder).to_numpy(bool) & (why == "")] = OUTSIDE
    rows = pd.DataFrame({"path": table.path.to_numpy(), "id": table.clip_id.to_numpy()})
    rows["labels"] = [row.tobytes() for row in labels]
    rows["group"] = [group or None for group in table.get("group", [""] * len(table))]
    checks = {
        CONTRADICTED: lambda rows: rows.groupby("path")["labels"].transform("nunique") > 1,
        TWO_GROUPS: lambda rows: rows.groupby("path")["group"].transform("nunique") > 1,
        TWICE: lambda rows: rows.sort_values("group", kind="stable").path.duplicated().sort_index(),
        SAME_ID: lambda rows: rows.id.duplicated(keep=False),
    }
    for reason, found in checks.items():  # each among the rows that are still to be used
        usable = rows[why == ""]
        why[usable.index[found(usable).to_numpy(bool)]] = reason
    keep = why == ""
    left_out = table.loc[~keep, ["clip_id", "path"]].assign(reason=why[~keep])
    return (
        table[keep].reset_index(drop=True),
        labels[keep],
        left_out.reset_index(drop=True)[LEFT_OUT_COLUMNS],
    )
