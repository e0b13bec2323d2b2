"""How the demo's extractor was chosen: `no_je_linear` with several, on the validation clips.

    python notebooks/results/choices/extractors.py STORE RUNS > extractors.csv

STORE is that of the preset `demo`. Prints a CSV with a row per extractor: settings, the scores
after the last epoch on the middle window of each validation clip, and the commit. An interrupted
command continues.
"""

import sys

import pandas as pd
import torch

from jetatag.config import preset
from jetatag.data.store import AudioStore
from jetatag.training.run import Run
from jetatag.training.runs import listing
from jetatag.training.train import train

CROPS = {
    "short_chunk_cnn": 32_768,
    "short_chunk_cnn_res": 32_768,
    "harmonic_cnn": 73_728,
    "sample_cnn": 59_049,
}
"""The demo's crop, or the extractor's shortest."""
COLUMNS = ["extractor", "width", "crop_samples", "epoch", "seed"]


def main(store_folder: str, parent: str) -> None:
    torch.set_num_threads(1)
    store, rows = AudioStore.open(store_folder), []
    for extractor, crop_samples in CROPS.items():
        config = preset(
            "demo",
            method="no_je_linear",
            pair_loss="none",
            extractor=extractor,
            crop_samples=crop_samples,
            device="cpu",
        )
        run = Run.start(parent, config, store)
        train(run, store)
        rows.append(config.to_dict() | run.history.iloc[-1].to_dict())
    told = listing(parent).set_index("extractor").loc[list(CROPS)]
    table = pd.DataFrame(rows)[[*COLUMNS, "valid_average_precision", "valid_roc_auc"]].round(4)
    table = table.rename(columns={"epoch": "epochs"})
    print(table.assign(commit=told.commit.to_numpy()).to_csv(index=False), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
