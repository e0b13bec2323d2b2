"""How the extractor of the preset `demo`, extractor and learning rate of `fast`, and the weights of
pair losses were chosen, and what other learning rates do in the study.

    python notebooks/results/choices/presets.py demo STORE RUNS > extractors.csv
    python notebooks/results/choices/presets.py fast STORE RUNS > fast.csv
    python notebooks/results/choices/presets.py weights STORE RUNS > weights.csv
    python notebooks/results/choices/presets.py rates STORE RUNS > rates.csv

STORE is that of the preset `demo`, or of `study` for the others. Prints a CSV with a row per
candidate: settings, the scores after the last epoch on the middle window of each validation clip,
and the commit. An interrupted command continues.
"""

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pandas as pd
import torch

from jetatag.config import Phase, RunConfig, preset
from jetatag.data.store import AudioStore
from jetatag.training.run import Run
from jetatag.training.train import train

CROPS = {
    "short_chunk_cnn": 32_768,
    "short_chunk_cnn_res": 32_768,
    "harmonic_cnn": 73_728,
    "sample_cnn": 59_049,
}
"""The demo's crop, or the extractor's shortest."""
COLUMNS = ["extractor", "width", "crop_samples", "learning_rate", "epochs", "seed"]
RATES = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2)
WEIGHTS = (0.25, 0.5, 1.0, 2.0)
WEIGHED = ("subset_query", "subset_completion", "soft_info_nce", "cosine_stop_grad")


def demo() -> Iterator[RunConfig]:
    alike = {"method": "no_je_linear", "pair_loss": "none", "device": "cpu"}
    for extractor, crop_samples in CROPS.items():
        yield preset("demo", extractor=extractor, crop_samples=crop_samples, **alike)


def fast() -> Iterator[RunConfig]:
    """Narrow, with short crops: at full width, a run takes a day on two cores."""
    small = preset("fast", width=16, crop_samples=32_768, device="cpu")
    for extractor in ("short_chunk_cnn", "short_chunk_cnn_res"):
        for rate in (1e-3, 3e-3):
            cycle = Phase("adamw", rate, small.stage2[0].epochs, "one_cycle")
            yield small.replace(extractor=extractor, crop_samples=32_768, stage2=(cycle,))


def weights() -> Iterator[RunConfig]:
    for pair_loss, weight in product(WEIGHED, WEIGHTS):
        alike = {"method": "joint", "pair_loss": pair_loss, "device": "cpu"}
        yield preset("study", pair_weight=weight, **alike)


def rates() -> Iterator[RunConfig]:
    for method, pair_loss in (("no_je", "none"), ("no_je_linear", "none"), ("je", "cosine")):
        alike = preset("study", method=method, pair_loss=pair_loss, device="cpu")
        for rate in RATES:
            cycle = Phase("adamw", rate, alike.stage2[0].epochs, "one_cycle")
            yield alike.replace(stage1=(cycle,), stage2=(cycle,))


def row(config: RunConfig, store: AudioStore, parent: Path) -> dict:
    (phase,) = config.stage2
    weight = "" if config.pair_weight is None else f"-{config.pair_weight:g}"
    run = Run.start(parent / f"{phase.learning_rate:g}{weight}", config, store)
    train(run, store)
    last = run.history.iloc[-1]
    commits = {stage["commit"] for stage in run.record["stages"].values()}
    found = {"learning_rate": phase.learning_rate, "epochs": int(last.epoch)}
    found["valid_average_precision"] = round(last.valid_average_precision, 4)
    found["valid_roc_auc"] = round(last.valid_roc_auc, 4)
    return {**config.to_dict(), **found, "commit": " ".join(sorted(commits))}


def main(name: str, store_folder: str, parent: str) -> None:
    torch.set_num_threads(1)
    store = AudioStore.open(store_folder)
    candidates = {"demo": demo, "fast": fast, "weights": weights, "rates": rates}[name]()
    table = pd.DataFrame([row(config, store, Path(parent)) for config in candidates])
    added = {"weights": ["pair_loss", "pair_weight"], "rates": ["method", "pair_loss"]}
    columns = [*added.get(name, []), *COLUMNS]
    scores = ["valid_average_precision", "valid_roc_auc", "commit"]
    print(table[[*columns, *scores]].to_csv(index=False), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
