"""Makes the result files of study B from its runs.

    python notebooks/results/regime/tables.py STORE RUNS

points.parquet: scores of `train.N_TEST` test clips along the way, means over random seeds, and
their differences from no_je after as many steps (or its last ones, once it has ended), with 95 %
intervals. probes.parquet: average precision of the linear probe during stage 1. results.parquet:
all test clips at the end, as notebook 4 makes it. histories.parquet: losses and validation scores
of every epoch. runs.csv: cost and commit of every run. Random seeds of which a run is not finished
are left out.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from train import EARLY_STOP, EVERY, METHODS_TRAINED, SEEDS, SETTINGS, test_rows

from jetatag import metrics
from jetatag.config import RunConfig
from jetatag.data.store import AudioStore
from jetatag.evaluation import results
from jetatag.files import write_json
from jetatag.joint.methods import METHODS, phases_by_epoch
from jetatag.training.run import Run
from jetatag.training.runs import listing

STOPPED = "no_je_early_stop"
Resampled = dict[int, list[pd.DataFrame]]
"""Training steps so far → the resampled table of each random seed."""


def settings(method: str, pair_loss: str, seed: int) -> RunConfig:
    return SETTINGS.replace(method=method, pair_loss=pair_loss, seed=seed)


def finished_seeds(parent: Path) -> list[int]:
    """The random seeds of which every run is finished."""

    def is_finished(seed: int) -> bool:
        names = [settings(*cell, seed).name for cell in METHODS_TRAINED]
        return all((parent / name / "scores.npz").is_file() for name in names)

    return list(filter(is_finished, SEEDS))


def along_the_way(
    store: AudioStore, parent: Path, seeds: list[int], method: str, pair_loss: str
) -> Resampled:
    """The scores of a method's points, resampled."""
    trained, key = (EARLY_STOP, "early_stop_probs") if method == STOPPED else (method, "probs")
    stages = METHODS[trained].stages
    before = sum(len(phases_by_epoch(stage, SETTINGS)) for stage in stages[:-1])
    rows, found = test_rows(store), {}
    n_steps = -(-len(store.rows("train", SETTINGS.label_share)) // SETTINGS.batch_size)
    for seed in seeds:
        folder = parent / settings(trained, pair_loss, seed).name
        for path in sorted(folder.glob(f"points/{stages[-1].name}-*.npz")):
            probs = np.load(path)[key].astype(np.float32)
            groups = store.table.group.iloc[rows].to_numpy(np.str_)
            table = metrics.resampled(store.labels[rows], probs, groups=groups)
            steps = n_steps * (before + int(path.stem.rpartition("-")[2]))
            found.setdefault(steps, []).append(table)
    return found


def point_tables(points: dict[tuple[str, str], Resampled]) -> Iterator[pd.DataFrame]:
    """Means over seeds at every point of every method, and differences from no_je."""
    reference = points[EARLY_STOP, "none"]
    for (method, pair_loss), own in points.items():
        for steps, runs in own.items():
            theirs = reference[min(steps, max(reference))]
            tables = {"": runs, EARLY_STOP: metrics.differences(runs, theirs)}
            for minus, compared in tables.items():
                where = {"method": method, "pair_loss": pair_loss, "minus": minus, "steps": steps}
                yield metrics.mean_table(compared).assign(**where)


def probes(parent: Path, seeds: list[int]) -> pd.DataFrame:
    rows = [
        {"method": method, "pair_loss": pair_loss, "seed": seed, "epochs": epochs}
        | {"average_precision": float(np.load(path)["probe_ap"])}
        for method, pair_loss in METHODS_TRAINED
        for seed in seeds
        for epochs in range(EVERY, 1000, EVERY)
        for path in (parent / settings(method, pair_loss, seed).name / "points").glob(
            f"stage1-{epochs:03d}.npz"
        )
    ]
    return pd.DataFrame(rows)


def final_runs(parent: Path, seeds: list[int], temporary: Path) -> list[Run]:
    """The runs with all their scores, those of `STOPPED` as runs of their own."""
    runs = []
    for method, pair_loss in METHODS_TRAINED:
        for seed in seeds:
            run = Run.open(parent / settings(method, pair_loss, seed).name)
            runs.append(run)
            if method == EARLY_STOP:
                stopped = settings(STOPPED, pair_loss, seed)
                shutil.copytree(run.folder, temporary / stopped.name)
                write_json(temporary / stopped.name / "config.json", stopped.to_dict())
                shutil.copy(run.folder / "early_stop.npz", temporary / stopped.name / "scores.npz")
                runs.append(Run.open(temporary / stopped.name))
    return runs


def main(store: AudioStore, parent: Path, out: Path) -> None:
    seeds = finished_seeds(parent)
    cells = [*METHODS_TRAINED, (STOPPED, "none")]
    points = {cell: along_the_way(store, parent, seeds, *cell) for cell in cells}
    tables = {"points": pd.concat(point_tables(points), ignore_index=True)}
    tables["probes"] = probes(parent, seeds)
    with tempfile.TemporaryDirectory() as temporary:
        runs = final_runs(parent, seeds, Path(temporary))
        tables["results"] = results.results(runs)
    trained = [run for run in runs if run.config.method != STOPPED]
    tables["histories"] = results.all_histories(trained)
    out.mkdir(exist_ok=True)
    for name, table in tables.items():
        table.to_parquet(out / f"{name}.parquet", index=False)
    cost = listing(parent)
    cost = cost[cost.run.isin([str(run.folder) for run in trained])]
    cost = cost.assign(run=[Path(path).name for path in cost.run])
    cost.to_csv(out / "runs.csv", index=False)


if __name__ == "__main__":
    main(AudioStore.open(sys.argv[1]), Path(sys.argv[2]), Path(__file__).parent / "rendered")
