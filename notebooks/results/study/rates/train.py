"""Trains the paper's methods of the study again, each with the learning rate that suits it best.

    python notebooks/results/study/rates/train.py STORE RUNS [SEED...]

STORE is that of the preset `study`; SEEDs are by default 0, 1 and 2. The rates are those of
`notebooks/results/choices/rates.csv` with the highest average precision on validation clips. An
interrupted command continues.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from jetatag.config import Phase, RunConfig, preset
from jetatag.data.store import AudioStore
from jetatag.evaluation.predict import predict
from jetatag.training.run import Run
from jetatag.training.train import train

TRIED = Path(__file__).parents[2] / "choices" / "rates.csv"


def configs(seed: int) -> Iterator[RunConfig]:
    table = pd.read_csv(TRIED, keep_default_na=False).query("method in ('no_je', 'je')")
    for _, tried in table.groupby(["method", "pair_loss"], sort=False):
        best = tried.loc[tried.valid_average_precision.idxmax()]
        cycle = Phase("adamw", float(best.learning_rate), int(best.epochs), "one_cycle")
        names = {"method": best.method, "pair_loss": best.pair_loss}
        yield preset("study", **names, stage1=(cycle,), stage2=(cycle,), seed=seed, device="cpu")


def main(store_folder: str, parent: str, *seeds: str) -> None:
    torch.set_num_threads(1)
    store = AudioStore.open(store_folder)
    for seed in seeds or "012":
        for config in configs(int(seed)):
            run = Run.start(parent, config, store)
            if not run.has("scores.npz"):
                predict(run, train(run, store), store)
            print("finished", config.name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
