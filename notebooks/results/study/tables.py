"""Makes the study's result files from its finished runs.

    python notebooks/results/study/tables.py RUNS

RUNS is the folder of the data set's runs (`runs/study/rendered` after `jetatag reproduce --preset
study`), with the baselines.npz of notebook 1. The tables are those that notebooks 4 and 5 write.
Cells that lack one of the seeds 0 to 2 are left out.
"""

import shutil
import sys
from pathlib import Path

import numpy as np

from jetatag.evaluation import results
from jetatag.evaluation.spaces import spaces
from jetatag.training.run import Run
from jetatag.training.runs import finished, listing

HEADLINE = {
    ("short_chunk_cnn", *cell)
    for cell in (
        ("no_je", "none"),
        ("no_je_linear", "none"),
        ("bce_two_stage", "none"),
        ("je", "cosine"),
        ("je", "subset_query"),
        ("je_linear", "subset_query"),
        ("joint", "subset_query"),
        ("joint_shuffled", "subset_query"),
    )
}
"""The main comparison, of which the clip scores are kept."""
FIGURE2 = ("no_je_linear", "joint-subset_query")
"""Runs (short-chunk CNN, seed 0) whose vectors figure 2 of notebook 6 shows."""


def complete(runs: list[Run]) -> list[Run]:
    cells = results.cells(runs).values()
    return [run for seeds in cells if {0, 1, 2} <= seeds.keys() for run in seeds.values()]


def is_headline(run: Run) -> bool:
    config = run.config
    ordinary = config.label_share == 1 and config.classification_name == "bce"
    return ordinary and (config.extractor, config.method, config.pair_loss) in HEADLINE


def keep_scores(runs: list[Run], folder: Path) -> None:
    """The clips once, and the probabilities of each run, the mean over windows, as float16."""
    clips = runs[0].read_arrays("scores.npz")
    names = ("labels", "clip_ids", "groups", "tags")
    np.savez_compressed(folder / "clips.npz", **{name: clips[name] for name in names})
    for run in runs:
        probs = run.read_arrays("scores.npz")["probs"].mean(1).astype(np.float16)
        (folder / run.config.name).mkdir(exist_ok=True)
        np.savez_compressed(folder / run.config.name / "clip_scores.npz", probs=probs)
        shutil.copy(run.folder / "record.json", folder / run.config.name)


def keep_vectors(runs: list[Run], folder: Path) -> None:
    for run in runs:
        if run.config.name in [f"{name}-short_chunk_cnn-seed0" for name in FIGURE2]:
            arrays = run.read_arrays("embeddings.npz")
            kept = {n: arrays[n].astype(np.float16) for n in ("h", "z_tag") if n in arrays}
            np.savez_compressed(folder / run.config.name / "vectors.npz", **kept)


def main(parent: Path) -> None:
    folder = Path(__file__).parent / "rendered"
    runs = complete(finished(parent))
    keep_scores([run for run in runs if is_headline(run)], folder)
    keep_vectors(runs, folder)
    cost = listing(parent)
    cost[cost.run.isin([str(run.folder) for run in runs])].assign(
        run=lambda table: table.run.map(lambda path: Path(path).name)
    ).to_csv(folder / "runs.csv", index=False)
    results.all_histories(runs).to_parquet(folder / "histories.parquet", index=False)
    gains, trends = results.gains(runs)
    tables = {"gains": gains, "trends": trends}
    tables["results"] = results.results(runs, baselines=parent / "baselines.npz")
    tables["spaces"] = spaces(runs)
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
