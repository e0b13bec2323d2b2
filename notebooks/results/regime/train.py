"""Trains the runs of study B, the paper's schedule unshortened, and scores them along the way.

    python notebooks/results/regime/train.py STORE RUNS [WORKERS]

STORE is that of the preset `study`. An interrupted command continues. In each run's folder,
`points/<stage>-<epoch>.npz` has the probabilities (clip, window, tag) of `N_TEST` test clips as
float16, after every `EVERY` epochs of the stage that trains the classifier; earlier stages have the
average precision of a linear probe on validation clips instead.
"""

import itertools
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch

from jetatag.config import RunConfig, preset
from jetatag.data.crops import middle_starts
from jetatag.data.store import AudioStore
from jetatag.evaluation.baselines import logistic_regression
from jetatag.evaluation.predict import describe, predict, score_clips
from jetatag.joint.heads import JointModel, build_model
from jetatag.joint.methods import METHODS
from jetatag.metrics import macro_clip
from jetatag.training.audio import Audio
from jetatag.training.data import frozen_features
from jetatag.training.device import launch
from jetatag.training.run import Run
from jetatag.training.train import train

SETTINGS = preset(
    "paper",
    extractor="short_chunk_cnn",
    width=8,
    crop_samples=32_768,
    label_share=0.45,  # 1,010 training clips
    n_windows=8,
    device="cpu",
)
METHODS_TRAINED = (
    ("no_je", "none"),
    ("no_je_linear", "none"),
    ("je", "cosine"),
    ("joint", "subset_query"),
    ("je", "margin_as_coded"),
    ("je", "cosine_as_coded"),
    ("bce_two_stage", "none"),
    ("je_shuffled", "cosine"),
)
SEEDS = (0, 1, 2)
EVERY, N_TEST = 20, 500
EARLY_STOP = "no_je"
"""Of this method, the weights of the best validation epoch so far are scored as well: those of
`no_je_early_stop`, which trains alike."""
BEST = "best_so_far.safetensors"


def configs() -> list[RunConfig]:
    return [
        SETTINGS.replace(method=method, pair_loss=pair_loss, seed=seed)
        for seed, (method, pair_loss) in itertools.product(SEEDS, METHODS_TRAINED)
    ]


def test_rows(store: AudioStore) -> np.ndarray:
    """The fixed test clips of the points."""
    return np.sort(np.random.default_rng(0).choice(store.rows("test"), N_TEST, replace=False))


@torch.no_grad()
def score_point(run: Run, store: AudioStore, history: pd.DataFrame, model: JointModel) -> None:
    """What is saved after an epoch; see the module's docstring."""
    last = history.iloc[-1]
    own = history[history.stage == last.stage]
    if run.config.method == EARLY_STOP and own.valid_average_precision.idxmax() == own.index[-1]:
        run.write_tensors(BEST, model.state_dict())
    if last.epoch % EVERY:
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
        rows = test_rows(store)
        run.write_arrays(name, {key: windows(run, store, m, rows) for key, m in models.items()})


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
        h.numpy() for h in frozen_features(model.extractor, audio, requests, n_samples, fabric)
    )
    train_labels, valid_labels = (store.labels[rows] for rows in splits)
    probs = logistic_regression(train_h, train_labels, valid_h)
    return macro_clip(valid_labels, probs)["average_precision"]


def train_one(config: RunConfig, store_folder: str, parent: str) -> str:
    torch.set_num_threads(1)
    store = AudioStore.open(store_folder)
    run = Run.start(parent, config, store)
    if not run.has("scores.npz"):
        model = train(run, store, on_epoch=partial(score_point, run, store))
        if config.method == EARLY_STOP:
            probs = windows(run, store, best_so_far(run), store.rows("test"))
            arrays = {**describe(store, store.rows("test")), "probs": probs}
            run.write_arrays("early_stop.npz", arrays)
        predict(run, model, store)
    return config.name


def main(store: str, parent: str, workers: str = "1") -> None:
    context = get_context("spawn")  # a process for each run: its peak memory is its own
    with ProcessPoolExecutor(int(workers), context, max_tasks_per_child=1) as pool:
        for name in pool.map(
            train_one, configs(), itertools.repeat(store), itertools.repeat(parent)
        ):
            print("finished", name, flush=True)


if __name__ == "__main__":
    Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
    main(*sys.argv[1:])
