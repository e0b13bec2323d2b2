"""Runs that were tested on the same clips, their cells by name, and their table of results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os.path import commonpath
from pathlib import Path

import numpy as np
import pandas as pd

from jetatag import figures
from jetatag.evaluation import results
from jetatag.evaluation.results import Cell
from jetatag.files import read_arrays
from jetatag.training.runs import Run

MOST_SHOWN = 6
"""Cells that are drawn tag by tag, mapped and played."""


@dataclass(frozen=True)
class Evaluation:
    """Runs of the same clips: `labels` (clip, tag) 0/1, the runs of every cell by its name and
    their seed, and the table of `results.results` with that name as column `cell`."""

    clip_ids: np.ndarray
    labels: np.ndarray
    tags: list[str]
    task: str
    cells: Mapping[str, Mapping[int, Run]]
    table: pd.DataFrame

    @property
    def runs(self) -> list[tuple[str, Run]]:
        """Every run with its cell's name."""
        return [(name, run) for name, seeds in self.cells.items() for run in seeds.values()]

    @property
    def firsts(self) -> dict[str, Run]:
        """The run of every cell that stands for it where one must."""
        return {name: next(iter(seeds.values())) for name, seeds in self.cells.items()}

    @cached_property
    def shown(self) -> dict[str, Run]:
        """What is drawn and played: the first run of every cell or, of many cells, of every
        method's best."""
        if len(self.cells) <= MOST_SHOWN:
            return self.firsts
        best = {self.firsts[n].config.method: n for n in self.per_tag.mean().sort_values().index}
        return {name: run for name, run in self.firsts.items() if name in best.values()}

    @cached_property
    def per_tag(self) -> pd.DataFrame:
        """Average precision of every tag (row) and cell (column), the mean over seeds."""
        rows = self.table[(self.table.tag != "") & (self.table.metric == "average_precision")]
        means = rows.groupby(["tag", "cell"]).value.mean().unstack()
        return means.reindex(index=pd.Index(self.tags, name="tag"), columns=list(self.cells))


def evaluate(runs: Sequence[Run], n_resamples: int = 1000, seed: int = 0) -> Evaluation:
    """`results.results` of runs that were tested on the same clips, and of the baselines whose
    file lies beside one of them."""
    scores = runs[0].read_arrays("scores.npz")
    floor, tables, cells = _floor(runs, scores["labels"]), [], {}
    names = _names(grids := _grids(runs))
    for grid, own in grids.items():
        table = results.results(own, n_resamples, seed, None if tables else floor)
        whose = table[list(Cell._fields)].itertuples(index=False, name=None)
        tables.append(table.assign(cell=[names.get((grid, of), of[3]) for of in whose]))
        cells |= {names[grid, cell]: seeds for cell, seeds in results.cells(own).items()}
    tags, task = [str(tag) for tag in scores["tags"]], results.task_of(scores)
    table = pd.concat(tables, ignore_index=True)
    return Evaluation(scores["clip_ids"], scores["labels"], tags, task, cells, table)


def _floor(runs: Sequence[Run], labels: np.ndarray) -> Path | None:
    """The first file of baselines beside a run that is of these clips."""
    paths = dict.fromkeys(run.folder.parent / "baselines.npz" for run in runs)
    held = (path for path in paths if path.is_file())
    return next((p for p in held if np.array_equal(read_arrays(p).get("labels"), labels)), None)


def _grids(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """All runs as one grid or, where they cannot be told apart as one, each folder's by its
    name."""
    try:
        results.clip_scores(runs)
        results.cells(runs)
        return {"": list(runs)}
    except ValueError:
        grids: dict[str, list[Run]] = {}
        for run in runs:
            folder = run.folder.resolve().parent
            name = folder.relative_to(top_folder(runs)).as_posix()
            grids.setdefault(folder.name if name == "." else name, []).append(run)
        return grids


def top_folder(runs: Sequence[Run]) -> str:
    """The deepest folder that holds the folders of all of them."""
    return commonpath([run.folder.resolve().parent for run in runs])


def _names(grids: Mapping[str, Sequence[Run]]) -> dict[tuple[str, Cell], str]:
    """What the cells of every grid are called: method and pair loss, and of the rest what differs
    between any."""
    whose = [(grid, cell) for grid, own in grids.items() for cell in results.cells(own)]
    besides = pd.DataFrame(
        {
            "data": cell.dataset,
            "extractor": cell.extractor,
            "width": f"width {cell.width}",
            "labels": "" if cell.label_share == 1 else f"{100 * cell.label_share:g} % of labels",
            "grid": grid,
        }
        for grid, cell in whose
    )
    besides = besides.loc[:, besides.nunique() > 1].to_numpy(str)
    methods = [figures.line_name(cell.method, cell.pair_loss) for _, cell in whose]
    names = [
        ", ".join(filter(None, [method, *own]))
        for method, own in zip(methods, besides, strict=True)
    ]
    return dict(zip(whose, names, strict=True))
