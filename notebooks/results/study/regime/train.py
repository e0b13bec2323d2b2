"""Trains the runs of study B, the paper's schedule unshortened, and scores them along the way.

    python notebooks/results/study/regime/train.py STORE RUNS [WORKERS [SCHEDULE [SEED...]]]

STORE is that of the preset `study`, or of MagnaTagATune for `mtat`; SCHEDULE is one of `SCHEDULES`,
by default `paper`; SEEDs are those to train of its random seeds, by default all. An interrupted
command continues. In each run's folder, `points/<stage>-<epoch>.npz` has the probabilities (clip,
window, tag) of `N_TEST` test clips and of the validation clips (`valid_…`) as float16, after every
`every` epochs of the stage that trains the classifier; earlier stages have the average precision of
a linear probe on validation clips instead.
"""

import itertools
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch

from jetatag.config import Phase, RunConfig, preset
from jetatag.data.crops import middle_starts
from jetatag.data.store import AudioStore
from jetatag.evaluation.baselines import logistic_regression
from jetatag.evaluation.predict import predict, score_clips
from jetatag.joint.heads import JointModel, build_model
from jetatag.joint.methods import METHODS
from jetatag.metrics import macro_clip
from jetatag.training.data import Audio, frozen_features
from jetatag.training.processes import launch
from jetatag.training.run import Run
from jetatag.training.train import train


class Schedule(NamedTuple):
    """Settings, (method, pair loss) pairs and random seeds of the runs, epochs from one point to
    the next, and whether the random seeds are `apart`: each takes so long that it is trained and
    tabulated alone."""

    settings: RunConfig
    methods: tuple[tuple[str, str], ...]
    seeds: tuple[int, ...]
    every: int
    apart: bool = False

    def config(self, method: str, pair_loss: str, seed: int) -> RunConfig:
        return self.settings.replace(method=method, pair_loss=pair_loss, seed=seed)

    def configs(self, seeds: Sequence[int] = ()) -> list[RunConfig]:
        cells = itertools.product(seeds or self.seeds, self.methods)
        return [self.config(*cell, seed) for seed, cell in cells]


def more_adam(phases: tuple[Phase, ...], times: int) -> tuple[Phase, ...]:
    return tuple(
        phase.model_copy(update={"epochs": phase.epochs * times})
        if phase.optimizer == "adam"
        else phase
        for phase in phases
    )


PAPER = preset(
    "paper",
    extractor="short_chunk_cnn",
    width=8,
    crop_samples=32_768,
    label_share=0.45,  # 1,010 training clips
    n_windows=8,
    device="cpu",
)
LONG = PAPER.replace(stage1=more_adam(PAPER.stage1, 15), stage2=more_adam(PAPER.stage2, 15))
"""MagnaTagATune has 15 training clips for each of these: as many steps with Adam as there."""
METHODS_OF_PAPER = (
    ("no_je", "none"),
    ("no_je_linear", "none"),
    ("je", "cosine"),
    ("joint", "subset_query"),
    ("je", "margin_as_coded"),
    ("je", "cosine_as_coded"),
    ("bce_two_stage", "none"),
    ("je_shuffled", "cosine"),
)
SCHEDULES = {
    "paper": Schedule(PAPER, METHODS_OF_PAPER, seeds=(0, 1, 2), every=20),
    "mtat": Schedule(
        preset("paper"),
        (*METHODS_OF_PAPER, ("joint_shuffled", "subset_query")),
        seeds=(0, 1, 2),
        every=20,
    ),
    "one_stage": Schedule(
        PAPER,
        (
            ("no_je_linear", "none"),
            ("joint", "subset_query"),
            ("joint_shuffled", "subset_query"),
        ),
        seeds=(0, 1, 2),
        every=200,  # at the end
    ),
    "long": Schedule(
        LONG,
        (
            ("no_je", "none"),
            ("no_je_linear", "none"),
            ("je", "cosine"),
            ("bce_two_stage", "none"),
            ("je_shuffled", "cosine"),
        ),
        seeds=(0, 1, 2),
        every=80,
        apart=True,
    ),
    "long_one_stage": Schedule(
        LONG,
        (("no_je", "none"), ("no_je_linear", "none"), ("joint", "subset_query")),
        seeds=(0, 1),
        every=80,
        apart=True,
    ),
}
N_TEST = 500
EARLY_STOP = "no_je"
"""Of this method, the weights of the best validation epoch so far are scored as well: those of
`no_je_early_stop`, which trains alike."""
BEST = "best_so_far.safetensors"


def test_rows(store: AudioStore) -> np.ndarray:
    """The fixed test clips of the points."""
    return np.sort(np.random.default_rng(0).choice(store.rows("test"), N_TEST, replace=False))


@torch.no_grad()
def score_point(
    run: Run, store: AudioStore, every: int, history: pd.DataFrame, model: JointModel
) -> None:
    """What is saved after an epoch; see the module's docstring."""
    last = history.iloc[-1]
    own = history[history.stage == last.stage]
    if run.config.method == EARLY_STOP and own.valid_average_precision.idxmax() == own.index[-1]:
        run.write_tensors(BEST, model.state_dict())
    if last.epoch % every:
        return
    model.eval()
    (run.folder / "points").mkdir(exist_ok=True)
    name = f"points/{last.stage}-{last.epoch:03d}.npz"
    if last.stage == "stage1":
        run.write_arrays(name, {"probe_ap": np.array(probe(run, store, model))})
    else:
        models = {"probs": model}
        if run.config.method == EARLY_STOP:
            models["early_stop_probs"] = best_so_far(run)
        clips = {"": test_rows(store), "valid_": store.rows("valid")}
        scores = {
            split + key: windows(run, store, scored, rows)
            for key, scored in models.items()
            for split, rows in clips.items()
        }
        run.write_arrays(name, scores)


def best_so_far(run: Run) -> JointModel:
    model = build_model(run.config, run.vocabulary, METHODS[run.config.method].head)
    model.load_state_dict(run.read_tensors(BEST))
    return model.eval()


@torch.no_grad()
def windows(run: Run, store: AudioStore, model: JointModel, rows: np.ndarray) -> np.ndarray:
    probs, *_ = score_clips(model, store, rows, run.config, launch(run.config), "point")
    return probs.astype(np.float16)


def probe(run: Run, store: AudioStore, model: JointModel) -> float:
    """Macro average precision on validation clips of a logistic regression on h."""
    config, fabric = run.config, launch(run.config)
    audio, n_samples = Audio(store, fabric.device), config.crop_samples
    splits = [store.rows("train", config.label_share, config.seed), store.rows("valid")]
    requests = [(rows, middle_starts(store.lengths[rows], n_samples)) for rows in splits]
    train_h, valid_h = (
        h.cpu().numpy()
        for h in frozen_features(model.extractor, audio, requests, n_samples, fabric)
    )
    train_labels, valid_labels = (store.labels[rows] for rows in splits)
    probs = logistic_regression(train_h, train_labels, valid_h)
    return macro_clip(valid_labels, probs)["average_precision"]


def train_one(config: RunConfig, store_folder: str, parent: str, every: int) -> str:
    torch.set_num_threads(1)
    store = AudioStore.open(store_folder)
    run = Run.start(parent, config, store)
    if not run.has("scores.npz"):
        model = train(run, store, on_epoch=partial(score_point, run, store, every))
        if config.method == EARLY_STOP:
            probs = windows(run, store, best_so_far(run), store.rows("test"))
            arrays = {**store.describe(store.rows("test")), "probs": probs}
            run.write_arrays("early_stop.npz", arrays)
        predict(run, model, store)
    return config.name


def main(store: str, parent: str, workers: str = "1", schedule: str = "paper", *seeds: str) -> None:
    context = get_context("spawn")  # a process for each run: its peak memory is its own
    planned = SCHEDULES[schedule]
    one = partial(train_one, store_folder=store, parent=parent, every=planned.every)
    with ProcessPoolExecutor(int(workers), context, max_tasks_per_child=1) as pool:
        for name in pool.map(one, planned.configs([int(seed) for seed in seeds])):
            print("finished", name, flush=True)


if __name__ == "__main__":
    Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
    main(*sys.argv[1:])
