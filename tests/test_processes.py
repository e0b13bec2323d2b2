"""Several processes that share a run, and one that is killed again and again."""

import json
import multiprocessing
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import together
import torch

from jetatag.config import Phase, RunConfig
from jetatag.data.store import AudioStore
from jetatag.evaluation.predict import predict
from jetatag.extractors import EXTRACTORS
from jetatag.joint.heads import build_model
from jetatag.training.run import CHECKPOINT, Run
from jetatag.training.train import check_batch_size, train

PHASES = (Phase("adam", 3e-3, 2), Phase("sgd", 1e-2, 1))


# Two processes


def cells(config: RunConfig) -> dict[str, RunConfig]:
    """Runs with batches of 7 and 8 clips, which two processes cannot halve evenly."""
    plain = config.replace(extractor="plain", crop_samples=16_000, stage1=PHASES, stage2=PHASES)
    # Small steps, because so small a network amplifies rounding on so few clips.
    phases = (Phase("sgd", 1e-4, 3),)
    norm = config.replace(method="no_je_linear", pair_loss="none", stage2=phases)
    return {
        "subset_query": plain,
        "soft_info_nce": plain.replace(pair_loss="soft_info_nce"),
        "cosine": plain.replace(pair_loss="cosine"),
        "compiled": plain.replace(compile=True),
        "end_to_end": plain.replace(method="no_je", pair_loss="none"),
        "norm": norm,
        "norm_synchronised": norm.replace(sync_batch_norm=True),
        "harmonic_synchronised": norm.replace(
            sync_batch_norm=True, extractor="harmonic_cnn", crop_samples=73_728
        ),
    }


def torchrun(
    configs: dict[str, RunConfig], store: AudioStore, folder: Path, *options: str
) -> subprocess.Popen:
    """Start to train the cells under torchrun."""
    folder.mkdir(exist_ok=True)
    settings = {name: config.to_dict() for name, config in configs.items()}
    (folder / "cells.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "torch.distributed.run", *options]
    command += [together.__file__, folder / "cells.json", store.folder, folder]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.fixture(scope="module", autouse=True)
def plain_extractor() -> Iterator[None]:
    """Registers the extractor of `together`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXTRACTORS, "plain", together.Plain)
        yield


@pytest.fixture(scope="module")
def both(plain_extractor, tiny_store, tiny_config, tmp_path_factory) -> dict[str, tuple[Run, Run]]:
    """Every cell's run by one process, never compiled, and by two."""
    folder = tmp_path_factory.mktemp("processes")
    configs = cells(tiny_config)
    process = torchrun(configs, tiny_store, folder / "two", "--standalone", "--nproc-per-node=2")
    _, output = process.communicate(timeout=600)
    assert process.returncode == 0, output[-3000:]
    eager = {name: config.replace(compile=False) for name, config in configs.items()}
    with warnings.catch_warnings(action="ignore"):
        together.train_cells(eager, tiny_store, folder / "one")
    return {
        name: tuple(Run.open(folder / n / name / config.name) for n in ("one", "two"))
        for name, config in configs.items()
    }


def numbers(run: Run) -> pd.DataFrame:
    """The history without the gap, which divides by the deviation of three almost equal clips."""
    return run.history.drop(columns=["stage", "valid_gap"], errors="ignore").fillna(0.0)


BATCH_COUPLED = ["subset_query", "soft_info_nce", "cosine", "compiled", "end_to_end"]


@pytest.mark.parametrize("name", BATCH_COUPLED)
def test_two_processes_learn_what_one_does(both, name):
    one, two = both[name]
    np.testing.assert_allclose(numbers(two), numbers(one), rtol=1e-5, atol=1e-5)
    stage = one.history.stage.iloc[-1]
    weights = [run.read_tensors(f"{stage}.safetensors") for run in (one, two)]
    # Loosely, because Adam steps by the sign of gradients that are all rounding.
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-4)
    facts = two.record["stages"][stage]
    assert facts["processes"] == 2
    assert facts["precision"] == ("32-true compiled" if name == "compiled" else "32-true")


@pytest.mark.parametrize(
    ("name", "bound"), [("norm_synchronised", 1e-5), ("harmonic_synchronised", 2e-3)]
)
def test_with_synchronised_batch_norm_they_do_too(both, name, bound):
    """Harmonic-CNN's logarithm and floor amplify rounding, step by step."""
    one, two = both[name]
    np.testing.assert_allclose(two.history.loss, one.history.loss, rtol=bound)
    np.testing.assert_allclose(two.history.loss[0], one.history.loss[0], rtol=1e-5)


def test_without_it_they_differ_within_the_stated_bound(both):
    """Batch normalisation over 4 clips instead of 8."""
    one, two = both["norm"]
    difference = (two.history.loss / one.history.loss - 1).abs()
    assert 1e-4 < difference.max() < 0.1


@pytest.mark.parametrize("name", ["subset_query", "norm", "norm_synchronised"])
def test_two_processes_score_the_model_that_they_saved(both, tiny_store, tmp_path, name):
    _, two = both[name]
    shutil.copytree(two.folder, tmp_path / "copy")
    copy = Run.open(tmp_path / "copy")
    model = train(copy, tiny_store)  # it only loads
    predict(copy, model, tiny_store)
    for file in ("scores.npz", "scores.valid.npz", "embeddings.npz"):
        for array, values in two.read_arrays(file).items():
            if values.dtype == np.float32:
                np.testing.assert_allclose(copy.read_arrays(file)[array], values, atol=1e-6)


@pytest.mark.parametrize("name", ["subset_query", "norm_synchronised"])
def test_every_clip_is_scored_once_and_in_order(both, tiny_store, name):
    one, two = (run.read_arrays("scores.npz") for run in both[name])
    rows = tiny_store.rows("test")
    assert one["clip_ids"].tolist() == two["clip_ids"].tolist()
    assert two["clip_ids"].tolist() == tiny_store.table.clip_id.iloc[rows].tolist()
    np.testing.assert_allclose(two["probs"], one["probs"], atol=1e-4)
    embeddings = [run.read_arrays("embeddings.npz")["h"] for run in both[name]]
    np.testing.assert_allclose(*embeddings, atol=1e-3)


def test_two_machines_learn_what_one_does(both, tiny_store, tiny_config, tmp_path):
    """Simulated on one machine by two agents of torchrun with a process each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cell = {"subset_query": cells(tiny_config)["subset_query"]}
    shared = ("--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1")
    machines = [
        torchrun(cell, tiny_store, tmp_path, *shared, f"--master-port={port}", f"--node-rank={n}")
        for n in (0, 1)
    ]
    for machine in machines:
        _, output = machine.communicate(timeout=300)
        assert machine.returncode == 0, output[-3000:]
    one, _ = both["subset_query"]
    other = Run.open(tmp_path / "subset_query" / one.config.name)
    np.testing.assert_allclose(numbers(other), numbers(one), rtol=1e-5, atol=1e-5)
    assert {stage["processes"] for stage in other.record["stages"].values()} == {2}


def test_batches_too_small_for_the_processes_are_refused(tiny_store, tiny_config):
    config = tiny_config.replace(method="no_je", pair_loss="none", batch_size=3)
    model, two = build_model(config, tiny_store.vocabulary), SimpleNamespace(world_size=2)
    sentence = "a batch of 3 of 30 clips for 2 processes, and sample_cnn needs 2"
    with pytest.raises(ValueError, match=sentence):
        check_batch_size(model, tiny_store, config, two)


# Killed


def work(store: Path, folder: Path, config: RunConfig) -> None:
    """What the killed process does: train and predict, from the last checkpoint."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    audio = AudioStore.open(store)
    run = Run.start(folder, config, audio)
    predict(run, train(run, audio), audio)


def wait_for_checkpoints(folder: Path, process, n: int) -> None:
    """Until `n` more checkpoints were written, or the process has finished."""
    seen = None
    while n and process.is_alive():
        path = folder / CHECKPOINT
        stamp = path.stat().st_mtime_ns if path.exists() else None
        n -= stamp is not None and stamp != seen
        seen = stamp
        time.sleep(0.002)


@pytest.mark.parametrize("method", ["je", "no_je_early_stop"])
def test_killed_at_random_moments_it_ends_in_the_same_bytes(
    tiny_store, tiny_config, tmp_path, method
):
    """kill -9, ten times: within steps, between them and while files are written."""
    pair_loss = "subset_query" if method == "je" else "none"
    few, many = ((Phase("adam", 1e-3, n), Phase("adamw", 1e-3, n, "one_cycle")) for n in (1, 20))
    config = tiny_config.replace(
        method=method,
        pair_loss=pair_loss,
        stage1=few,
        stage2=many,  # its steps on kept features are quick
        stage2_crops=2,
        checkpoint_minutes=0,
    )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jetatag.evaluation.predict", "jetatag.training.train"])

    def begin(folder):
        process = context.Process(target=work, args=(tiny_store.folder, folder, config))
        process.start()
        return process

    whole = begin(tmp_path / "whole")
    whole.join()
    moments, killed_in = random.Random(0), []
    folder = tmp_path / "broken" / config.name
    for _ in range(10):
        process = begin(tmp_path / "broken")
        wait_for_checkpoints(folder, process, moments.randint(1, 3))
        time.sleep(0.05 * moments.random())
        process.kill()
        process.join()
        killed_in.append(sorted(path.stem for path in folder.glob("*.safetensors")))
        assert process.exitcode == -9, "it finished before it could be killed"
    last = begin(tmp_path / "broken")
    last.join()
    assert whole.exitcode == last.exitcode == 0
    if method == "je":
        assert len({"stage1" in files for files in killed_in}) == 2, "both stages were killed"
    one, other = Run.open(tmp_path / "whole" / config.name), Run.open(folder)
    assert one.record["stages"].keys() == other.record["stages"].keys()
    files = [f"{stage}.safetensors" for stage in one.record["stages"]]
    for file in [*files, "history.csv", "scores.npz", "scores.valid.npz", "embeddings.npz"]:
        assert (one.folder / file).read_bytes() == (folder / file).read_bytes(), file
    assert not other.has(CHECKPOINT)
