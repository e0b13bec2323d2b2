"""Run under torchrun by test_processes.py: trains the runs configured in a JSON file on a store and
writes them to a folder (the three arguments)."""

import json
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from jetatag.config import RunConfig
from jetatag.data.store import AudioStore
from jetatag.evaluation.predict import predict
from jetatag.extractors import EXTRACTORS
from jetatag.training.processes import launch
from jetatag.training.run import Run
from jetatag.training.train import train


class Plain(nn.Module):
    """An extractor without batch normalisation: strided convolutions, then mean and maximum."""

    n_features, min_samples = 16, 1_000

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv1d(1, 8, 64, 32), nn.ReLU(), nn.Conv1d(8, 8, 8, 4), nn.ReLU())
        )

    def forward(self, waveform: Tensor) -> Tensor:
        x = self.layers(waveform.unsqueeze(1))
        return torch.cat([x.mean(2), x.amax(2)], 1)


def train_cells(cells: dict[str, RunConfig], store: AudioStore, folder: Path) -> None:
    """Train and score every run in a folder of its name."""
    for name, config in cells.items():
        with launch(config).rank_zero_first():
            run = Run.start(folder / name, config, store)
        predict(run, train(run, store), store)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    EXTRACTORS["plain"] = Plain
    cells, store, folder = map(Path, sys.argv[1:])
    configs = {n: RunConfig(**c) for n, c in json.loads(cells.read_text()).items()}
    train_cells(configs, AudioStore.open(store), folder)
