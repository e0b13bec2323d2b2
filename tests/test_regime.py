"""The scripts of the study on the paper's schedule, on tiny runs."""

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jetatag.config import Phase
from jetatag.training.run import Run

SCRIPTS = Path(__file__).parents[1] / "notebooks" / "results" / "study" / "regime"


@pytest.fixture
def scripts(monkeypatch, tiny_config):
    """The modules train and tables, and a schedule of two short methods with a point after every
    epoch."""
    monkeypatch.syspath_prepend(SCRIPTS)
    for name in ("train", "tables"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    train = importlib.import_module("train")
    phases = [Phase("adam", 1e-3, 2)]
    monkeypatch.setattr(train, "N_TEST", 5)
    settings = tiny_config.replace(stage1=phases, stage2=phases)
    schedule = train.Schedule(settings, (("no_je", "none"), ("je", "cosine")), (0,), every=1)
    yield schedule, train, importlib.import_module("tables")
    for name in ("train", "tables"):
        del sys.modules[name]


def test_runs_are_scored_along_the_way_and_compared(scripts, tiny_store, tmp_path):
    schedule, train, tables = scripts
    store = str(tiny_store.folder)
    names = [train.train_one(one, store, tmp_path, every=1) for one in schedule.configs()]
    tables.main(schedule, tiny_store, tmp_path, tmp_path)
    points, valid, probes, final = (
        pd.read_parquet(tmp_path / f"{name}.parquet")
        for name in ("points", "valid_points", "probes", "results")
    )
    columns = ["protocol", "metric", "method", "minus", "steps"]
    assert valid[columns].equals(points[columns])
    steps = points[points.minus == ""].groupby("method").steps.unique().map(list).to_dict()
    n = -(-len(tiny_store.rows("train")) // schedule.settings.batch_size)
    assert steps == {"no_je": [n, 2 * n], "no_je_early_stop": [n, 2 * n], "je": [3 * n, 4 * n]}
    itself = points[(points.minus == "no_je") & (points.method == "no_je")]
    assert (itself.value == 0).all()
    assert probes.epochs.tolist() == [1, 2] and probes.average_precision.between(0, 1).all()
    assert {"no_je", "no_je_early_stop", "je"} <= set(final.method)
    assert set(pd.read_csv(tmp_path / "runs.csv").run) == set(names)
    run = Run.open(tmp_path / names[0])
    last = run.read_arrays("points/end_to_end-002.npz")
    assert last["valid_probs"].shape == (len(tiny_store.rows("valid")), *last["probs"].shape[1:])
    rows = np.isin(tiny_store.rows("test"), train.test_rows(tiny_store))
    whole = run.read_arrays("scores.npz")["probs"][rows]
    np.testing.assert_allclose(last["probs"], whole, atol=1e-3)  # float16


def test_tables_of_a_seed_alone_keep_the_rows_of_runs_that_are_gone(scripts, tiny_store, tmp_path):
    schedule, train, tables = scripts
    names = [
        train.train_one(one, str(tiny_store.folder), tmp_path, every=1)
        for one in schedule.configs()
    ]

    def written() -> dict[str, pd.DataFrame]:
        tables.main(schedule._replace(apart=True), tiny_store, tmp_path, tmp_path)
        read = {
            name: pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("points", "results")
        }
        return {name: t.sort_values(list(t), ignore_index=True) for name, t in read.items()}

    both = written()
    shutil.rmtree(tmp_path / names[1])
    for name, table in written().items():
        pd.testing.assert_frame_equal(table, both[name])
    assert set(pd.read_csv(tmp_path / "runs.csv").run) == set(names)


def test_the_long_schedule_has_more_epochs_with_adam_alone(scripts):
    _, train, _ = scripts
    epochs = {
        name: {
            kind: sum(p.epochs for p in schedule.settings.stage2 if p.optimizer == kind)
            for kind in ("adam", "sgd")
        }
        for name, schedule in train.SCHEDULES.items()
    }
    paper = {"adam": 60, "sgd": 140}
    long = {"adam": 900, "sgd": 140}
    shorter = dict.fromkeys(["paper", "mtat", "one_stage"], paper)
    assert epochs == shorter | dict.fromkeys(["long", "long_one_stage"], long)
