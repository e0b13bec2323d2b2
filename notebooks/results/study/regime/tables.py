"""Makes the result files of study B from its runs.

    python notebooks/results/study/regime/tables.py STORE RUNS [SCHEDULE]

points.parquet: scores of `train.N_TEST` test clips along the way, means over random seeds, and
their differences from no_je's last scores until then, with 95 % intervals. valid_points.parquet:
the same on the validation clips, of the runs that have them. probes.parquet: average
precision of the linear probe during stage 1. results.parquet: all test clips at the end, as
notebook 4 makes it. histories.parquet: losses and validation scores of every epoch. runs.csv: cost
and commit of every run. Methods that are not finished are left out. SCHEDULE is one of
`train.SCHEDULES`; the files of `paper` are written to the folder rendered beside this file, those
of another to rendered of `regime_<SCHEDULE>`. If a schedule's random seeds are `apart`, each has
its own rows in all files, and those of runs that RUNS lacks stay.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from train import EARLY_STOP, SCHEDULES, Schedule, test_rows

from jetatag import metrics
from jetatag.data.store import AudioStore
from jetatag.evaluation import results
from jetatag.files import write_json
from jetatag.joint.methods import METHODS, phases_by_epoch
from jetatag.training.run import Run
from jetatag.training.runs import listing

STOPPED = "no_je_early_stop"
Resampled = dict[int, list[pd.DataFrame]]
"""Training steps so far → the resampled table of each random seed."""


def finished(schedule: Schedule, parent: Path, seeds: Sequence[int]) -> Schedule:
    """The part of a schedule with these random seeds and the methods that are finished with all."""

    def is_finished(cell: tuple[str, str]) -> bool:
        names = [schedule.config(*cell, seed).name for seed in seeds]
        return all((parent / name / "scores.npz").is_file() for name in names)

    methods = tuple(filter(is_finished, schedule.methods))
    return schedule._replace(methods=methods, seeds=tuple(seeds))


def points_in(run_folder: Path, stage: str) -> list[Path]:
    return sorted(run_folder.glob(f"points/{stage}-*.npz"), key=epochs_so_far)


def epochs_so_far(point: Path) -> int:
    return int(point.stem.rpartition("-")[2])


def along_the_way(
    schedule: Schedule,
    store: AudioStore,
    parent: Path,
    method: str,
    pair_loss: str,
    split: str,
) -> Resampled:
    """The scores of a method's points on the clips of a split, resampled."""
    trained, key = (EARLY_STOP, "early_stop_probs") if method == STOPPED else (method, "probs")
    key, rows = (key, test_rows(store)) if split == "test" else (f"valid_{key}", store.rows(split))
    stages, settings = METHODS[trained].stages, schedule.settings
    before = sum(len(phases_by_epoch(stage, settings)) for stage in stages[:-1])
    groups, found = store.table.group.iloc[rows].to_numpy(np.str_), {}
    n_steps = -(-len(store.rows("train", settings.label_share)) // settings.batch_size)
    for seed in schedule.seeds:
        folder = parent / schedule.config(trained, pair_loss, seed).name
        for path in points_in(folder, stages[-1].name):
            arrays = np.load(path)
            if key not in arrays:
                continue
            probs = arrays[key].astype(np.float32)
            table = metrics.resampled(store.labels[rows], probs, groups=groups)
            steps = n_steps * (before + epochs_so_far(path))
            found.setdefault(steps, []).append(table)
    return found


def all_points(schedule: Schedule, store: AudioStore, parent: Path, split: str) -> pd.DataFrame:
    """Means over seeds at every point of every method, and differences from no_je."""
    cells = [*schedule.methods, (STOPPED, "none")]
    points = {cell: along_the_way(schedule, store, parent, *cell, split) for cell in cells}
    return pd.concat([pd.DataFrame(), *point_tables(points)], ignore_index=True)


def point_tables(points: dict[tuple[str, str], Resampled]) -> Iterator[pd.DataFrame]:
    reference = points[EARLY_STOP, "none"]
    for (method, pair_loss), own in points.items():
        for steps, runs in own.items():
            theirs = reference[max(until for until in reference if until <= steps)]
            tables = {"": runs, EARLY_STOP: metrics.differences(runs, theirs)}
            for minus, compared in tables.items():
                where = {"method": method, "pair_loss": pair_loss, "minus": minus, "steps": steps}
                yield metrics.mean_table(compared).assign(**where)


def probes(schedule: Schedule, parent: Path) -> pd.DataFrame:
    rows = [
        {"method": method, "pair_loss": pair_loss, "seed": seed, "epochs": epochs_so_far(path)}
        | {"average_precision": float(np.load(path)["probe_ap"])}
        for method, pair_loss in schedule.methods
        for seed in schedule.seeds
        for path in points_in(parent / schedule.config(method, pair_loss, seed).name, "stage1")
    ]
    return pd.DataFrame(rows)


def final_runs(schedule: Schedule, parent: Path, temporary: Path) -> list[Run]:
    """The runs with all their scores, those of `STOPPED` as runs of their own."""
    runs = []
    for method, pair_loss in schedule.methods:
        for seed in schedule.seeds:
            run = Run.open(parent / schedule.config(method, pair_loss, seed).name)
            runs.append(run)
            if method == EARLY_STOP:
                stopped = schedule.config(STOPPED, pair_loss, seed)
                shutil.copytree(run.folder, temporary / stopped.name)
                write_json(temporary / stopped.name / "config.json", stopped.to_dict())
                shutil.copy(run.folder / "early_stop.npz", temporary / stopped.name / "scores.npz")
                runs.append(Run.open(temporary / stopped.name))
    return runs


def all_tables(schedule: Schedule, store: AudioStore, parent: Path) -> dict[str, pd.DataFrame]:
    """The tables of a schedule whose runs are finished, by the names of their files."""
    with tempfile.TemporaryDirectory() as temporary:
        runs = final_runs(schedule, parent, Path(temporary))
        final = results.results(runs)
    trained = [run for run in runs if run.config.method != STOPPED]
    cost = listing(parent)
    cost = cost[cost.run.isin([str(run.folder) for run in trained])]
    return {
        "points": all_points(schedule, store, parent, "test"),
        "valid_points": all_points(schedule, store, parent, "valid"),
        "probes": probes(schedule, parent),
        "results": final,
        "histories": results.all_histories(trained),
        "runs": cost.assign(run=[Path(path).name for path in cost.run]),
    }


def of_one_seed(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """A table of a single random seed with the seed in every row, instead of the mean over it."""
    if "minus" in table and "seed" in table:
        table = table[(table.seed != "mean") | (table.minus != "")]
    return table.assign(seed=str(seed))


def replaced(before: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """`table`, and the rows of `before` whose methods, pair loss and seed it lacks."""
    keys = table.columns.intersection(["method", "pair_loss", "minus", "seed"]).tolist()
    new = before.set_index(keys).index.isin(table.set_index(keys).index)
    return pd.concat([before[~new], table])


def main(schedule: Schedule, store: AudioStore, parent: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for seeds in [[seed] for seed in schedule.seeds] if schedule.apart else [schedule.seeds]:
        done = finished(schedule, parent, seeds)
        if (EARLY_STOP, "none") not in done.methods:
            continue
        for name, table in all_tables(done, store, parent).items():
            if table.empty:
                continue
            path = out / (f"{name}.csv" if name == "runs" else f"{name}.parquet")
            if schedule.apart:
                table = of_one_seed(table, *seeds)
                if path.is_file():
                    read = pd.read_csv if name == "runs" else pd.read_parquet
                    table = replaced(read(path).astype({"seed": str}), table)
            if name == "runs":
                table.to_csv(path, index=False)
            else:
                table.to_parquet(path, index=False, compression="zstd", compression_level=19)


if __name__ == "__main__":
    store, parent, name = sys.argv[1], Path(sys.argv[2]), (sys.argv[3:] or ["paper"])[0]
    here = Path(__file__).parent
    folder = here if name == "paper" else here.with_name(f"{here.name}_{name}")
    main(SCHEDULES[name], AudioStore.open(store), parent, folder / "rendered")
