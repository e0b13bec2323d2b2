"""Makes the study's result files from its finished runs.

    python notebooks/results/study/tables.py RUNS [FOLDER] [--extractor NAME]

RUNS is the folder of the data set's runs (`runs/study/rendered` after `jetatag reproduce --preset
study`), with the baselines.npz of notebook 1; FOLDER is by default `rendered` beside this file. The
tables are those that notebooks 4 and 5 write. Runs are compared within an extractor and label share
alone, so that rows of other ones stay as they are; with NAME, only runs of this extractor are read.
Cells that lack one of the seeds 0 to 2 are left out.
"""

import shutil
from pathlib import Path

import cyclopts
import numpy as np
import pandas as pd

from jetatag.evaluation import results
from jetatag.evaluation.spaces import spaces
from jetatag.training.run import Run
from jetatag.training.runs import finished, listed

COMPARED = ["extractor", "label_share"]
"""Columns that are alike in runs that are compared."""
HEADLINE = {
    ("short_chunk_cnn", *cell)
    for cell in (
        ("no_je", "none"),
        ("no_je_linear", "none"),
        ("bce_two_stage", "none"),
        ("je", "cosine"),
        ("je", "subset_query"),
        ("joint", "subset_query"),
        ("joint_shuffled", "subset_query"),
    )
}
"""The main comparison, of which the clip scores are kept."""
MAIN = Path(__file__).parent / "rendered"
"""The folder of the main comparison."""
FIGURE2 = [f"{name}-short_chunk_cnn-seed0" for name in ("no_je_linear", "joint-subset_query")]
"""Runs whose vectors figure 2 of notebook 6 shows."""


def complete(runs: list[Run]) -> list[Run]:
    cells = results.cells(runs).values()
    return [run for seeds in cells if {0, 1, 2} <= seeds.keys() for run in seeds.values()]


def is_headline(run: Run) -> bool:
    config = run.config
    ordinary = config.label_share == 1 and config.classification_name == "bce"
    return ordinary and (config.extractor, config.method, config.pair_loss) in HEADLINE


def keep(run: Run, folder: Path) -> None:
    """The run without weights: its scores averaged over windows, its vectors if figure 2 shows
    them, both as float16."""
    folder = folder / run.config.name
    folder.mkdir(exist_ok=True)
    for file in ("config.json", "record.json"):
        shutil.copy(run.folder / file, folder)
    scores = run.read_arrays("scores.npz")
    scores["probs"] = scores["probs"].mean(axis=1, keepdims=True).astype(np.float16)
    np.savez_compressed(folder / "scores.npz", **scores)
    if run.config.name in FIGURE2:
        vectors = run.read_arrays("embeddings.npz")
        kept = {n: vectors[n].astype(np.float16) for n in ("h", "z_tag") if n in vectors}
        np.savez_compressed(folder / "embeddings.npz", **kept)


def update(path: Path, table: pd.DataFrame) -> None:
    """Write the table, after the rows that `path` has with other values in `COMPARED`."""
    if path.is_file():
        held = pd.read_parquet(path)
        new, old = (pd.MultiIndex.from_frame(each[COMPARED]) for each in (table, held))
        table = pd.concat([held[~old.isin(new)], table], ignore_index=True)
    table.to_parquet(path, index=False, compression="zstd", compression_level=19)


def update_cost(path: Path, runs: list[Run]) -> None:
    """Write time, memory and commit of the runs, beside the rows that `path` has of others."""
    table = pd.DataFrame([listed(run) | {"run": run.config.name} for run in runs])
    if path.is_file():
        held = pd.read_csv(path)
        table = pd.concat([held[~held.run.isin(table.run)], table])
    table.sort_values("run").to_csv(path, index=False)


def main(parent: Path, folder: Path = MAIN, *, extractor: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    every = finished(parent)
    runs = complete([run for run in every if extractor in ("", run.config.extractor)])
    for run in filter(is_headline, runs if folder.resolve() == MAIN else ()):
        keep(run, folder)
    update_cost(folder / "runs.csv", runs)
    gains, trends = results.gains(runs)
    tables = {"gains": gains, "trends": trends}
    tables["histories"] = results.all_histories(runs)
    tables["results"] = results.results(runs, baselines=parent / "baselines.npz")
    tables["spaces"] = spaces(runs)
    for name, table in tables.items():
        update(folder / f"{name}.parquet", table)


if __name__ == "__main__":
    cyclopts.run(main)
