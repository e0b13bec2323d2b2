"""Tables of results from the saved scores of many runs.

A *cell* is what is compared: extractor, method, losses and share of clips on one data set; its
runs differ in their seed. Tables are long, as `jetatag.evaluation.reading` describes; it reads them
by `summary`, `differences`, `by_tag` and `verdicts`, or by `select` if a figure needs the numbers.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from jetatag import metrics
from jetatag.config import method_name
from jetatag.evaluation.reading import (  # noqa: F401 – the tables made here are read by these
    BASELINES,
    by_tag,
    differences,
    gather_tables,
    select,
    summary,
    verdicts,
    write_table,
)
from jetatag.files import read_arrays
from jetatag.joint.losses import DEFAULT_LOSS
from jetatag.joint.methods import METHODS
from jetatag.metrics import BOUNDS, resampled_per_tag
from jetatag.training.run import RUNTIME_SETTINGS, Run


class Cell(NamedTuple):
    """What is compared; the fields are columns of the tables."""

    dataset: str
    extractor: str
    width: int
    method: str
    pair_loss: str
    label_share: float
    classification_loss: str = DEFAULT_LOSS

    @property
    def method_name(self) -> str:
        """Method and losses, as in the names of runs."""
        return method_name(self.method, self.pair_loss, self.classification_loss)


ByCell = dict[Cell, dict[int, pd.DataFrame]]  # of each seed, the resampled table


def score_table(run: Run, n_resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Return the metrics of one run in both protocols with 95 % intervals, one row per metric.
    Columns: those of `metrics.mean_table`, `n_clips`, and `n_tags` that occur."""
    saved = saved_scores(run)
    resampled = metrics.resampled(**saved, n_resamples=n_resamples, seed=seed)
    table, labels = metrics.mean_table([resampled], seed), saved["labels"]
    table[BOUNDS] = table[BOUNDS].clip(0, 1)
    return table.assign(n_clips=len(labels), n_tags=int(labels.any(axis=0).sum()))


def saved_scores(run: Run) -> dict[str, Any]:
    """Return the run's window scores and the other arguments of `metrics.resampled`. A multilabel
    task, as of files that name none, has thresholds if validation scores were saved."""
    scores = run.read_arrays("scores.npz")
    saved = {"labels": scores["labels"], "scores": scores["probs"], "groups": scores.get("groups")}
    saved |= {"task": str(scores.get("task", "multilabel")), "thresholds": None}
    if saved["task"] == "multilabel" and run.has("scores.valid.npz"):
        valid = run.read_arrays("scores.valid.npz")
        saved["thresholds"] = metrics.choose_thresholds(valid["labels"], valid["probs"].mean(1))
    return saved


def by_test(runs: Iterable[Run]) -> list[list[Run]]:
    """Return the runs in lists with the same test clips, labels and tags, in the order given.
    Raises `ValueError` for scores that lack these."""
    found: dict[tuple, list[Run]] = {}
    for run in runs:
        scores = run.read_arrays("scores.npz")
        if absent := {"clip_ids", "labels", "tags", "probs"} - scores.keys():
            lacks = f"{run.folder}/scores.npz lacks {', '.join(sorted(absent))}"
            raise ValueError(f"{lacks}: score the run again.")
        names = tuple(scores["clip_ids"].tolist()), tuple(scores["tags"].tolist())
        found.setdefault((*names, scores["labels"].astype(bool).tobytes()), []).append(run)
    return list(found.values())


def clip_scores(runs: Sequence[Run]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return the mean probability over windows by run name, (clip, tag) each, with the labels and
    tags. Raises `ValueError` for runs with other test clips or tags, and for equal names."""
    _, *others = by_test(runs)
    if others:
        name = others[0][0].config.name
        raise ValueError(f"{name} was tested on other clips or tags: compare runs of one store.")
    arrays = {run.config.name: run.read_arrays("scores.npz") for run in runs}
    if len(arrays) < len(runs):
        raise ValueError("some of the runs share a name: compare the runs of one folder.")
    probs = {name: own["probs"].mean(1) for name, own in arrays.items()}
    first = arrays[runs[0].config.name]
    return probs, first["labels"], first["tags"]


def cell_of(run: Run) -> Cell:
    settings = (getattr(run.config, name) for name in Cell._fields[1:-1])
    return Cell(run.record["data"]["name"], *settings, run.config.classification_name)


def cells(runs: Iterable[Run]) -> dict[Cell, dict[int, Run]]:
    """Return the runs of every cell by their seed. Raises `ValueError` for two runs with one seed
    and for runs of a cell that differ in more than the seed."""
    found: dict[Cell, dict[int, Run]] = {}
    for run in runs:
        seeds = found.setdefault(cell_of(run), {})
        other = next(iter(seeds.values()), run)
        own, theirs = (
            each.config.to_dict() | {"data": each.record["data"].get("checksum")}
            for each in (run, other)
        )
        may_differ = ("seed", *RUNTIME_SETTINGS)
        differing = [name for name in own if own[name] != theirs[name] and name not in may_differ]
        if differing or run.config.seed in seeds:
            problem = f"{other.folder} and {run.folder} are runs of one method but differ in"
            names = ", ".join(differing) or "nothing"
            raise ValueError(f"{problem} {names}: keep and compare them in separate folders.")
        seeds[run.config.seed] = run
    return {cell: dict(sorted(seeds.items())) for cell, seeds in found.items()}


def results(
    runs: Sequence[Run], n_resamples: int = 1000, seed: int = 0, baselines: Path | str | None = None
) -> pd.DataFrame:
    """Return the table of an evaluation: every run, the mean of every cell over its seeds, the
    differences from the reference methods, every tag, and optionally the baselines and the
    differences from the logistic regression.

    Columns: those of `Cell`, `seed`, `tag`, `minus`, `protocol`, `metric`, `value`, 95 % intervals
    by clip (`low`, `high`) and by group (`group_low`, `group_high`; missing if every clip is its
    own group, as all four for tags), `n_clips`, and `n_tags` that occur. Means and differences also
    resample the seeds; differences are paired over clips and seeds. `baselines` is notebook 01's
    baselines.npz for the same test clips (else `ValueError`), with one window per clip.
    """
    probs, labels, tags = clip_scores(runs)
    options = {"n_resamples": n_resamples, "seed": seed}
    resampled = _by_cell(runs, lambda run: metrics.resampled(**saved_scores(run), **options))
    rows = []
    for cell, seeds in resampled.items():
        rows += [with_cell(metrics.mean_table([own], seed), cell, n) for n, own in seeds.items()]
    for cell, seeds in resampled.items():
        rows.append(with_cell(metrics.mean_table(list(seeds.values()), seed), cell))
    for cell, minus, own, theirs in compared(resampled):
        table = metrics.mean_table(metrics.differences(own, theirs), seed)
        rows.append(with_cell(table, cell, minus=minus))
    for run in runs:
        areas = metrics.per_tag(labels, probs[run.config.name], tags).drop(columns="n_positive")
        areas = areas.melt("tag", var_name="metric").assign(protocol="macro_clip")
        rows.append(with_cell(areas, cell_of(run), run.config.seed))
    if baselines is not None:
        rows += _baseline_rows(runs[0], baselines, resampled, options)
    table = pd.concat(rows, ignore_index=True)
    table = within_bounds(table, table["minus"] == "")
    return table.assign(n_clips=len(labels), n_tags=int(labels.any(axis=0).sum()))


def _by_cell(runs: Sequence[Run], resample: Callable[[Run], pd.DataFrame]) -> ByCell:
    return {
        cell: {number: resample(run) for number, run in seeds.items()}
        for cell, seeds in tqdm(cells(runs).items(), "resample", unit="cell")
    }


def compared(by_cell: ByCell) -> Iterator[tuple[Cell, str, list, list]]:
    """Every cell with each reference method on the same data, extractor and labels: the cell, the
    reference's `method_name`, and the values of both for the seeds that both have."""
    losses = {"method": "", "pair_loss": "", "classification_loss": ""}
    for (cell, own), (other, theirs) in itertools.product(by_cell.items(), repeat=2):
        seeds = sorted(own.keys() & theirs.keys())
        alike = cell._replace(**losses) == other._replace(**losses)
        if alike and seeds and cell != other and METHODS[other.method].is_reference:
            yield cell, other.method_name, [own[n] for n in seeds], [theirs[n] for n in seeds]


def with_cell(table: pd.DataFrame, cell: Cell, seed: Any = "mean", minus: str = "") -> pd.DataFrame:
    """The table with the columns that identify its rows in front."""
    front = {**cell._asdict(), "seed": str(seed), "tag": "", "minus": minus}
    front = {name: value for name, value in front.items() if name not in table}
    return table.assign(**front)[[*front, *table.columns]]


def within_bounds(table: pd.DataFrame, is_score: pd.Series) -> pd.DataFrame:
    """The table with the intervals of scores limited to [0, 1]."""
    table.loc[is_score, BOUNDS] = table.loc[is_score, BOUNDS].clip(0, 1)
    return table


def _baseline_rows(run: Run, path: Path | str, resampled: ByCell, options: dict) -> list:
    """Rows of the baselines, and the differences of cells with all clips from `BASELINES[0]`."""
    scores, tested = read_arrays(path), saved_scores(run)
    if not np.array_equal(scores["labels"], tested["labels"]):
        raise ValueError(f"{path} has other test clips than the runs: run notebook 01 again.")
    rows, seed = [], options["seed"]
    options = {**options, "groups": tested["groups"], "task": tested["task"]}
    for name in BASELINES:
        own = {"thresholds": scores.get(f"{name}.thresholds"), **options}
        table = metrics.resampled(scores["labels"], scores[name][:, None], **own)
        cell = Cell(run.record["data"]["name"], "", 0, name, "none", 1.0)
        rows.append(with_cell(metrics.mean_table([table], seed), cell, seed=""))
        for other, seeds in resampled.items():
            if name == BASELINES[0] and other.label_share == 1:
                apart = [own - table.reindex(columns=own.columns) for own in seeds.values()]
                apart = [each.dropna(axis="columns", how="all") for each in apart]
                rows.append(with_cell(metrics.mean_table(apart, seed), other, minus=name))
    return rows


def all_histories(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the training histories of all runs with the columns of `Cell` and `seed`, and losses
    and scores as float32."""
    tables = [with_cell(run.history, cell_of(run), run.config.seed) for run in runs]
    table = pd.concat(tables, ignore_index=True).drop(columns=["tag", "minus"])
    measured = table.select_dtypes("float64").columns.difference(Cell._fields)
    return table.astype(dict.fromkeys(measured, np.float32))


def gains(
    runs: Sequence[Run], n_resamples: int = 1000, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return which tags gain by each method, and whether frequent or correlated tags gain.
    Two long tables with the columns of `Cell` and `minus`: for every tag the `difference` in
    average precision from the reference with its interval, its `frequency` and its strongest
    `correlation` with another tag, both on the test clips; and for these two the rank correlation
    with the gains (`metrics.gain_trend`). Each interval is for one tag: of 50 that gain nothing,
    two or three will seem to gain or lose. Raises `ValueError` without two methods to compare."""
    probs, labels, tags = clip_scores(runs)
    strongest = (metrics.tag_correlation(labels) - np.eye(len(tags))).max(axis=0)
    known = {"frequency": labels.mean(axis=0), "correlation": strongest}
    covariates = {name: values[labels.any(axis=0)] for name, values in known.items()}
    resampled = _by_cell(
        runs, lambda run: resampled_per_tag(labels, probs[run.config.name], tags, n_resamples, seed)
    )
    every_tag = pd.DataFrame({"tag": tags, "n_positive": labels.sum(0, np.int64), **known})
    tables, trends = [], []
    for cell, minus, own, theirs in compared(resampled):
        table = every_tag.merge(metrics.difference_table(own, theirs, seed), "left", on="tag")
        table = table[["tag", "n_positive", "difference", "low", "high", *known]]
        tables.append(with_cell(table, cell, minus=minus))
        gain = metrics.mean_runs(metrics.differences(own, theirs), seed)
        trends.append(with_cell(metrics.gain_trend(gain, covariates, seed), cell, minus=minus))
    if not tables:
        raise ValueError("no two methods to compare: train a reference with equal settings.")
    return pd.concat(tables, ignore_index=True), pd.concat(trends, ignore_index=True)
