"""Markdown tables of the demo, the paper and the notebooks, computed from `notebooks/results`.

`study.py` and `speed.py` use the same helpers. Functions that return text are tables that pages can
show (`generated.py`); `readme.py` writes some of them into the README.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import nbformat
import pandas as pd

from jetatag.joint.losses import PAIR_LOSSES
from jetatag.joint.methods import METHODS
from jetatag.original import RELEASED

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
RESULTS = NOTEBOOKS / "results"
LOSSES = ["method", "pair_loss", "classification_loss"]
"""Columns that name a method in the tables of one extractor."""


# Reading and formatting


@cache
def read_table(name: str) -> pd.DataFrame:
    """A result table by its path under `RESULTS`, without suffix."""
    path = RESULTS / name
    if path.with_suffix(".parquet").is_file():
        return pd.read_parquet(path.with_suffix(".parquet"))
    return pd.read_csv(path.with_suffix(".csv"))


def read_digits(name: str) -> pd.DataFrame:
    """A CSV file by its path under `RESULTS`, with the digits that stand in it."""
    return pd.read_csv(RESULTS / f"{name}.csv", dtype=str, keep_default_na=False)


def means(
    preset: str,
    table: str = "results",
    label_share: float = 1,
    seeds: Sequence[str] = ("mean", ""),
) -> pd.DataFrame:
    """The means over seeds (or the rows of some `seeds`), by default on all labels, without a
    shared space first."""
    rows = read_table(f"{preset}/rendered/{table}")
    rows = rows[rows.seed.isin(seeds) & (rows.label_share == label_share)]
    rows = rows[rows.tag == ""] if "tag" in rows else rows
    methods = sorted(METHODS, key=lambda name: METHODS[name].is_joint)
    order = [
        rows.method.map(_position(methods)),
        rows.pair_loss.map(_position(["none", *PAIR_LOSSES])),
    ]
    return rows.assign(_method=order[0], _loss=order[1]).sort_values(["_method", "_loss"])


def _position(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def as_interval(row: pd.Series, digits: int = 3, sign: bool = False) -> str:
    """A value with its 95 % interval, which stays on one line: 0.366 [0.329, 0.408]."""
    value, low, high = (as_number(row[name], digits, sign) for name in ("value", "low", "high"))
    return f"{value} [{low},\u00a0{high}]"


def as_number(value: float, digits: int = 3, sign: bool = False) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def as_markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def as_code(name: str) -> str:
    return "–" if name == "none" else f"`{name}`"


def method_name(row: pd.Series) -> str:
    """A method with its losses, as code."""
    names = [row.method, row.pair_loss, row.classification_loss]
    return " ".join(f"`{name}`" for name in names if name not in ("none", "bce"))


def one_row(table: pd.DataFrame, **wanted: object) -> pd.Series:
    """The only row with these values; `LookupError` where there is none or more than one."""
    chosen = table[(table[list(wanted)] == list(wanted.values())).all(axis=1)]
    if len(chosen) != 1:
        raise LookupError(f"{len(chosen)} rows with {wanted}")
    return chosen.iloc[0]


def method_rows(table: pd.DataFrame) -> pd.DataFrame:
    """One row for every method with its losses, in order."""
    return table[LOSSES].drop_duplicates()


def of_method(table: pd.DataFrame, cell: tuple) -> pd.DataFrame:
    """The rows of one of `method_rows`."""
    return table[(table[LOSSES] == [getattr(cell, name) for name in LOSSES]).all(axis=1)]


# Notebooks


def notebooks(folder: str = "") -> str:
    """One line for every notebook, from its first cell; `folder` goes before the links."""
    rows = []
    for path in sorted(NOTEBOOKS.glob("0*.ipynb")):
        first = nbformat.read(path, 4).cells[0].source
        title = re.search(r"^# (.*)$", first, re.M)[1]
        question = re.search(r"\*\*Question:?\*\*:?\s*(.*?)(?:\n\*\*|\n\n|$)", first, re.S)[1]
        question = re.split(r"(?<=\?)\s", " ".join(question.split()))[0]
        question = question[0].upper() + question[1:]
        rows.append([f"[{title}]({folder}{path.name})", question])
    return as_markdown(["notebook", "question"], rows)


# Choices


def choices(name: str) -> str:
    """The settings that were tried, with their scores on validation clips."""
    table = read_digits(f"choices/{name}").replace("", "–")
    header = [column.replace("_", " ") for column in table.columns]
    return as_markdown(header, table.itertuples(index=False))


# The demo


def demo_data() -> str:
    """The number of clips with tags in each split, from the record of a run."""
    record = min((RESULTS / "demo/rendered").glob("*/record.json"))
    clips = json.loads(record.read_text())["data"]["clips_by_split"]
    splits = {"train": "training clips", "valid": "validation clips", "test": "test clips"}
    return as_markdown(list(splits.values()), [[clips[split] for split in splits]])


def demo_scores() -> str:
    """Both protocols of every method of the demo, and what is reached without a network."""
    table = means("demo")
    table = table[table.minus == ""]
    shown = {
        "macro_clip ROC-AUC": ("macro_clip", "roc_auc"),
        "macro_clip AP": ("macro_clip", "average_precision"),
        "micro_window ROC-AUC": ("micro_window", "roc_auc"),
        "micro_window PR-AUC": ("micro_window", "pr_auc"),
    }
    rows = []
    for cell in method_rows(table).itertuples():
        own = table[(table.method == cell.method) & (table.pair_loss == cell.pair_loss)]
        scores = [
            as_interval(one_row(own, protocol=protocol, metric=metric))
            for protocol, metric in shown.values()
        ]
        rows.append([method_name(cell), *scores])
    return as_markdown(["method", *shown], rows)


def demo_differences() -> str:
    """Paired differences between the methods of the demo, and whether they are resolved."""
    table = means("demo")
    table = table[(table.minus != "") & (table.protocol == "macro_clip")]
    table = table[table.method != "no_je"]  # the mirror image of another row
    rows = []
    for _, own in table.groupby(["method", "pair_loss", "minus"], sort=False):
        scores = [one_row(own, metric=metric) for metric in ("roc_auc", "average_precision")]
        shown = [as_interval(score, sign=True) for score in scores]
        first = own.iloc[0]
        rows.append([method_name(first), as_code(first.minus), *shown, _direction(scores[1])])
    return as_markdown(["method", "minus", "ROC-AUC", "AP", "AP is"], rows)


def _direction(row: pd.Series) -> str:
    """What an interval says of a difference."""
    return "higher" if row.low > 0 else "lower" if row.high < 0 else "not resolved"


def demo_space() -> str:
    """How the shared spaces of the demo separate clips, and how well they are searched."""
    table = read_table("demo/rendered/spaces")
    rows = []
    for method, pair_loss in (("je", "cosine"), ("joint", "subset_query")):
        own = table[(table.pair_loss == pair_loss) & (table.method == method)]
        single, mean = own[own.seed == "0"], own[own.seed == "mean"]
        facts = [one_row(single, metric=metric).value for metric in ("gap", "unmatched")]
        shown = [as_number(fact, 2, sign=True) for fact in facts]
        rankings = ("encoded set", "answering clips", "classifier")
        found = [
            as_interval(
                one_row(mean, kind="one tag", ranked_by=by, metric="mean_average_precision")
            )
            for by in rankings
        ]
        rows.append([f"`{method}` `{pair_loss}`", *shown, *found])
    header = ["method", "gap", "cosine to other clips' tags", "mAP by encoded tag"]
    return as_markdown([*header, "mAP by answering clips", "mAP by classifier"], rows)


def tag_frequency() -> str:
    """What each protocol gives for the demo's tag frequencies."""
    table = means("demo")
    table = table[(table.method == "tag_frequency") & ~table.metric.str.startswith("f1")]
    shown = zip(table.metric, table.protocol, strict=True)
    header = [f"`{metric}`, `{protocol}`" for metric, protocol in shown]
    return as_markdown(header, [list(map(as_number, table.value))])


def esc10_scores() -> str:
    """Scores on ESC-10, means over random seeds."""
    table = read_table("esc10/results")
    table = table[(table.protocol == "macro_clip") & (table.tag == "") & (table.minus == "")]
    table = table[table.seed.isin(["mean", ""])]
    rows = []
    for cell in method_rows(table).itertuples():
        own = of_method(table, cell)
        scores = [one_row(own, metric=metric) for metric in ("accuracy", "average_precision")]
        rows.append([method_name(cell), *map(as_interval, scores)])
    return as_markdown(["method", "accuracy", "AP"], rows)


def esc10_space() -> str:
    """Searches of ESC-10 for one tag with `joint`, and its worst map, over seeds and layouts."""
    table = read_table("esc10/spaces").query("method == 'joint'")
    found = table[(table.seed == "mean") & (table.metric == "mean_average_precision")]
    rankings = {"space": "encoded set", "classifier": "classifier", "both": "combined"}
    shown = [as_interval(one_row(found, kind="one tag", ranked_by=by)) for by in rankings.values()]
    worst = table[table.seed != "mean"].groupby("metric").value.min()
    shown += [as_number(worst[metric], 2) for metric in ("map_mixing", "map_precision_at_10")]
    maps = ["map mixing", "map precision"]
    return as_markdown([*(f"mAP by {name}" for name in rankings), *maps], [shown])


def machines() -> str:
    """The demo's scores on machines of different CPU types."""
    table = read_table("demo/machines")
    names = list(dict.fromkeys(table.machine))
    names_of_metrics = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "average_precision": "AP"}
    rows = []
    for cell in method_rows(table).itertuples():
        own = of_method(table, cell)
        for (protocol, metric), each in own.groupby(["protocol", "metric"], sort=False):
            values = each.set_index("machine").value[names]
            spread = values.max() - values.min()
            score = f"{protocol} {names_of_metrics[metric]}"
            rows.append([method_name(cell), score, *map(as_number, values), as_number(spread)])
    return as_markdown(["method", "score", *names, "spread"], rows)


# The paper


def published() -> str:
    """The published scores on MagnaTagATune (micro_window), without and with joint embedding."""
    table = pd.read_csv(NOTEBOOKS / "published.csv")
    rows = []
    for extractor in dict.fromkeys(table.extractor):
        cells = []
        for source in dict.fromkeys(table.source):
            for method in ("no_je", "je"):
                row = one_row(table, extractor=extractor, source=source, method=method)
                cells.append(f"{row.roc_auc:.4f} / {row.pr_auc:.4f}")
        rows.append([f"`{extractor}`", *cells])
    header = ["extractor"]
    header += [
        f"{source}, `{method}`"
        for source in dict.fromkeys(table.source)
        for method in ("no_je", "je")
    ]
    return as_markdown(header, rows)


def published_elsewhere() -> str:
    """The published scores on other data sets, without and with joint embedding."""
    table = pd.read_csv(NOTEBOOKS / "published_elsewhere.csv")
    cells = table.no_je.map("{:.4f}".format) + " / " + table.je.map("{:.4f}".format)
    columns = table.data + ", " + table.metric
    wide = cells.groupby([table.extractor, columns], sort=False).first().unstack()
    rows = [[f"`{extractor}`", *own] for extractor, own in wide.iterrows()]
    return as_markdown(["extractor", *wide.columns], rows)


def released() -> str:
    """What the shared space of the released weights knows."""
    values = [f"{RELEASED[name]:g}" for name in RELEASED]
    return as_markdown(["mean squared error", "energy in the mean", "tag semantics"], [values])
