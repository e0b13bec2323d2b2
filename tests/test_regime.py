"""The scripts of the study on the paper's schedule, on tiny runs."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jetatag.config import Phase
from jetatag.training.run import Run

SCRIPTS = Path(__file__).parents[1] / "notebooks" / "results" / "regime"


@pytest.fixture
def scripts(monkeypatch, tiny_config):
    """The modules train and tables, with two short methods and a point after every epoch."""
    monkeypatch.syspath_prepend(SCRIPTS)
    for name in ("train", "tables"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    train = importlib.import_module("train")
    phases = [Phase("adam", 1e-3, 2)]
    monkeypatch.setattr(train, "SETTINGS", tiny_config.replace(stage1=phases, stage2=phases))
    monkeypatch.setattr(train, "METHODS_TRAINED", (("no_je", "none"), ("je", "cosine")))
    for name, value in {"SEEDS": (0,), "EVERY": 1, "N_TEST": 5}.items():
        monkeypatch.setattr(train, name, value)
    yield train, importlib.import_module("tables")
    for name in ("train", "tables"):
        del sys.modules[name]


def test_runs_are_scored_along_the_way_and_compared(scripts, tiny_store, tmp_path):
    train, tables = scripts
    names = [train.train_one(one, str(tiny_store.folder), tmp_path) for one in train.configs()]
    tables.main(tiny_store, tmp_path, tmp_path)
    points, probes, final = (
        pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("points", "probes", "results")
    )
    steps = points[points.minus == ""].groupby("method").steps.unique().map(list).to_dict()
    n = -(-len(tiny_store.rows("train")) // train.SETTINGS.batch_size)
    assert steps == {"no_je": [n, 2 * n], "no_je_early_stop": [n, 2 * n], "je": [3 * n, 4 * n]}
    itself = points[(points.minus == "no_je") & (points.method == "no_je")]
    assert (itself.value == 0).all()
    assert probes.epochs.tolist() == [1, 2] and probes.average_precision.between(0, 1).all()
    assert {"no_je", "no_je_early_stop", "je"} <= set(final.method)
    assert set(pd.read_csv(tmp_path / "runs.csv").run) == set(names)
    run = Run.open(tmp_path / names[0])
    last = run.read_arrays("points/end_to_end-002.npz")["probs"]
    rows = np.isin(tiny_store.rows("test"), train.test_rows(tiny_store))
    whole = run.read_arrays("scores.npz")["probs"][rows]
    np.testing.assert_allclose(last, whole, atol=1e-3)  # float16
