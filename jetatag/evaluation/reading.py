"""Short tables of text, numbers and verdicts from long tables of results.

A long table, of `results`, `spaces` or `gains`, has one row per value. Its `seed` is a number,
"mean" over the seeds of a cell, or empty for baselines; `tag` is empty for the mean over tags;
`minus` is the method subtracted, empty for scores. `where` chooses rows by column=value, or by
column=[values] in the order wanted; those that are not in the table raise `ValueError`.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jetatag.extractors import EXTRACTORS
from jetatag.files import atomic, check_known

pd.options.display.html.use_mathjax = False  # notebooks show the text of tables as it is
KEYS = ("dataset", "extractor", "width", "method", "pair_loss", "classification_loss", "labels")
KEYS += ("minus", "space", "ranked_by", "tag", "covariate", "kind", "seed", "protocol", "metric")
MINUS = " − "  # in `ranked_by`, "a − b" is the difference between two rankings
HEADLINES = {"macro_clip": ["average_precision", "roc_auc"], "micro_window": ["roc_auc", "pr_auc"]}
BOUNDS = ["low", "high"]
BASELINES = ("log_mel_logistic", "tag_frequency")  # scores without a network


def select(table: pd.DataFrame, rows: str = "mean", **where: Any) -> pd.DataFrame:
    """Return rows of a long table as numbers: `rows` is "mean", over seeds, with the baselines;
    "seed", single runs; "score", both of them; "difference", from a reference or between two
    rankings, in a column `difference`, of single seeds if `where` names them; or "tag"."""
    columns = ("minus", "tag", "seed", "ranked_by")
    minus, tag, seed, ranked_by = (table.get(c, pd.Series("", table.index)) for c in columns)
    is_difference = (minus != "") | ranked_by.str.contains(MINUS)
    is_score, is_seed = ~is_difference & (tag == ""), seed.str.isdigit()
    masks = {"mean": is_score & ~is_seed, "seed": is_score & is_seed, "score": is_score}
    is_chosen = is_difference if "seed" in where else is_difference & ~is_seed
    masks |= {"difference": is_chosen, "tag": tag != ""}
    check_known([rows], masks, "kind of rows")
    chosen = table[masks[rows]]
    if rows == "mean" and "space" in table:  # metrics of spaces without intervals have no means
        keys = [name for name in KEYS if name in table and name != "seed"] + ["label_share"]
        means = table[masks["seed"]].groupby(keys, as_index=False, sort=False)["value"].mean()
        chosen = pd.concat([chosen, means.assign(seed="mean")]).drop_duplicates(keys)
    if rows == "difference":
        if chosen.empty:
            raise ValueError("no two methods to compare: train a reference with equal settings.")
        chosen = chosen.rename(columns={"value": "difference"})
    return _narrow(chosen, where)


def summary(
    table: pd.DataFrame,
    columns: str = "metric",
    digits: int = 3,
    rows: str = "mean",
    **where: Any,
) -> pd.DataFrame:
    """Return the means over seeds as text, "0.372 [0.323, 0.423]", one row per cell, without
    settings that are the same in all `rows` (of `select`).
    `columns` names the column of `table` whose values become columns, such as "kind" of query; the
    95 % intervals are by clip. Unless `where` names others, `protocol` is "macro_clip" and `metric`
    the two main ones of the protocol."""
    if "protocol" in table:
        protocol = where.setdefault("protocol", "macro_clip")
        shown = [HEADLINES.get(name, []) for name in np.atleast_1d(protocol)]
        where = {"protocol": protocol, "metric": [*dict.fromkeys(itertools.chain(*shown))], **where}
    chosen = select(table, rows, **where)
    columns = "covariate" if columns == "metric" and "covariate" in chosen else columns
    columns = "labels" if columns == "label_share" else columns
    labels = [f"{100 * share:g} %" for share in chosen["label_share"]]
    chosen = chosen.assign(text=_texts(chosen, digits), labels=labels)
    check_known([columns], chosen.columns, "column")
    keys = _varying(chosen, columns)
    chosen = chosen.replace({"extractor": {"": "–"}})
    first = [name for name in ("dataset", "extractor") if name in keys]
    chosen = chosen.sort_values(first, kind="stable") if first else chosen
    wide = chosen.set_index([*keys, columns])["text"].unstack(columns, sort=False).fillna("")
    return wide.rename_axis(index={"classification_loss": "class_loss"})  # a line has 100 columns


def differences(table: pd.DataFrame, columns: str = "metric", **options: Any) -> pd.DataFrame:
    """Return differences, paired over clips and seeds, as `summary`: "+0.099 [+0.054, +0.143]".
    Name the reference, `minus="no_je_linear"`, or show all as columns, `columns="minus"`. For
    spaces, these are rankings minus the classifier's; for trends, rank correlations of gains."""
    return summary(table, columns, rows="difference", **options)


def by_tag(table: pd.DataFrame, metric: str = "average_precision", **where: Any) -> pd.DataFrame:
    """Return one row per tag and one column per cell with the mean over seeds, highest mean first;
    for `gains`, the differences."""
    rows = select(table, "tag", **({"metric": metric} if "metric" in table else {}), **where)
    keys = _varying(rows, "tag", "metric", "seed", "protocol")
    wide = rows.groupby(["tag", *keys], sort=False)[_value(rows)].mean().unstack(keys)
    return wide.loc[wide.mean(axis=1).sort_values(ascending=False, kind="stable").index]


def verdicts(
    expected: pd.DataFrame, tables: Mapping[str, pd.DataFrame], columns: str = "extractor"
) -> pd.DataFrame:
    """Return whether expectations held, such as "confirmed: -0.081 [-0.091, -0.070]": "confirmed"
    if the whole interval is from `at_least` to `at_most`, "refuted" if all of it lies outside, else
    "open"; a value without an interval counts as its own. Each row of `expected` is an
    `expectation` about one of the `tables` (of `select`) and the values that choose its rows, as in
    notebooks/expected.csv; `columns` become columns. What no row measures is left out. Raises
    `ValueError` for an expectation that several rows measure."""
    expected, found = expected.fillna({"at_least": -np.inf, "at_most": np.inf}), []
    for _, one in expected.iterrows():
        rows = one.dropna().to_frame().T.infer_objects().merge(tables[one["table"]])
        low, high = (rows[name].fillna(rows[_value(rows)]) for name in BOUNDS)
        inside = (low >= rows["at_least"]) & (high <= rows["at_most"])
        outside = (high < rows["at_least"]) | (low > rows["at_most"])
        held = np.select([inside, outside], ["confirmed", "refuted"], "open")
        found.append(rows.assign(text=[*map("{}: {}".format, held, _texts(rows, 3))]))
    rows = pd.concat(found)
    keys = ["expectation", *(["seed"] if rows["seed"].nunique() > 1 else []), columns]
    if (several := rows.duplicated(keys)).any():
        one = rows["expectation"][several].iloc[0]
        raise ValueError(f"several rows measure {one!r}: choose one by more columns.")
    return rows.set_index(keys)["text"].unstack(columns, sort=False)


def gather_tables(parent: Path | str, name: str) -> pd.DataFrame:
    """Return the tables `name`.parquet of all data sets under `parent`, one below the other; raises
    `FileNotFoundError` if there is none."""
    paths = sorted(Path(parent).glob(f"*/{name}.parquet"))
    if not paths:
        raise FileNotFoundError(f"no {name}.parquet under {parent}: run notebooks 04 and 05 first.")
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)


def write_table(table: pd.DataFrame, folder: Path | str, name: str) -> None:
    """Write `table` as `name`.csv for people and `name`.parquet for programs, each atomically."""
    for suffix, write in {"csv": table.to_csv, "parquet": table.to_parquet}.items():
        with atomic(Path(folder) / f"{name}.{suffix}") as temporary:
            write(temporary, index=False)


def extractor_label(name: str) -> str:
    """Return `name`, marked if the paper (Lee & Cho 2021) did not use this extractor."""
    is_in_paper = hasattr(EXTRACTORS.get(name), "paper_crop")  # which only those it used state
    return name if is_in_paper else f"{name} (not in the paper)"


def _narrow(table: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
    check_known(where, table.columns, "column")
    for name, wanted in where.items():
        parts = {str(one): table[table[name] == one] for one in np.atleast_1d(wanted)}
        absent = [one for one, part in parts.items() if part.empty]
        check_known(absent, table[name].drop_duplicates().astype(str), name)
        table = pd.concat(parts.values())
    return table


def _varying(rows: pd.DataFrame, *besides: str) -> list[str]:
    """`method` and the other keys in which the rows of runs differ."""
    rows = rows[rows["extractor"] != ""] if (rows["extractor"] != "").any() else rows
    keys = [name for name in KEYS if name in rows and name not in besides]
    return [name for name in keys if name == "method" or rows[name].nunique() > 1]


def _value(rows: pd.DataFrame) -> str:
    return next(name for name in ("value", "difference", "correlation") if name in rows)


def _texts(rows: pd.DataFrame, digits: int) -> list[str]:
    form = f"{'' if _value(rows) == 'value' else '+'}.{digits}f"
    return [
        f"{value:{form}}" if np.isnan(low) else f"{value:{form}} [{low:{form}}, {high:{form}}]"
        for value, low, high in rows[[_value(rows), *BOUNDS]].to_numpy(float)
    ]
