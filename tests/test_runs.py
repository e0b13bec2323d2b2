"""The run folder: its record, the list of runs, and damaged ones."""

import itertools
import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from jetatag import config
from jetatag.evaluation.predict import predict
from jetatag.training import runs
from jetatag.training.run import Run, describe_data
from jetatag.training.train import train


def test_the_record_and_the_list_of_runs(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    predict(run, train(run, tiny_store), tiny_store)
    record = run.record
    assert {"checksum", "split_checksum", "clips_by_split", "tags"} <= record["data"].keys()
    assert {"begun", "commit", "machine", "python"} <= record["made_by"].keys()
    for library in ("jetatag", "torch", "numpy", "safetensors"):
        assert record["made_by"][library] == version(library)
    for stage in record["stages"].values():
        assert stage["wall_time_s"] > 0 and stage["peak_memory_mib"] > 0
        assert (stage["processes"], stage["device"], stage["gpu"]) == (1, "cpu", "none")
    other = replace(tiny_store, table=tiny_store.table.replace({"split": {"valid": "test"}}))
    data = describe_data(other, tiny_config)
    assert {name for name, value in data.items() if value != record["data"][name]} == {
        *("split_checksum", "clips_by_split", "padded_clips")
    }
    Run.start(tmp_path, tiny_config.replace(seed=7), tiny_store)
    torn = Run.start(tmp_path / "torn", tiny_config, tiny_store)
    (torn.folder / "record.json").write_text("{}")
    imported = Run.start(tmp_path / "imported", tiny_config, tiny_store)
    costs = {"stages": {"s": {"wall_time_s": None, "peak_memory_mib": None}}}
    (imported.folder / "record.json").write_text(json.dumps(imported.record | costs))
    with pytest.warns(UserWarning, match="left out: .*is not a run's record"):
        table = runs.listing(tmp_path)
    assert table.pop("run").str.contains("imported").tolist() == [True, False, False]
    table = table[1:]
    assert table.state.tolist() == ["scored", "begun"] and table.seed.tolist() == [0, 7]
    assert table.epochs.tolist() == [6, 0] and table.valid_ap.notna().tolist() == [True, False]

    (found,) = runs.finished(tmp_path)
    assert found == run == runs.pick([found], seed=0)
    with pytest.raises(ValueError, match="no run with seed = 7 among 1"):
        runs.pick([found], seed=7)


def test_the_preferred_of_several_settings_is_picked_whatever_the_order(tiny_store, tiny_config):
    def run(method: str, seed: int = 0, **changes) -> Run:
        loss = {"pair_loss": "none"} if method == "no_je" else {}
        return Run(Path(), tiny_config.replace(method=method, seed=seed, **loss, **changes))

    joint, hill = run("joint"), run("joint", classification_loss="hill")
    others = [run("je"), run("je", seed=1), run("no_je")]
    for order in itertools.permutations([joint, hill, *others]):
        assert runs.pick(list(order), method=["je", "joint"]) is joint
        assert runs.pick(list(order), method=["joint", "je"]).config.method == "je"
    assert runs.pick(others, method=["joint", "je"]) is others[1]  # the last


def test_damaged_and_missing_runs_are_one_sentence(tiny_store, tiny_config, tmp_path):
    run = Run.start(tmp_path, tiny_config, tiny_store)
    with pytest.raises(FileNotFoundError, match="no run under"):
        runs.listing(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="is not a run folder"):
        Run.open(tmp_path)
    with pytest.raises(FileNotFoundError, match="no finished run"):
        runs.finished(tmp_path)
    (run.folder / "stage1.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="damaged"):
        train(run, tiny_store)
    run.write_tensors("stage1.safetensors", {"foreign": torch.zeros(2)})
    with pytest.raises(ValueError, match="does not fit the model"):
        train(run, tiny_store)
    for content, sentence in (
        ({"widht": 4}, "unknown RunConfig setting"),
        ([], "does not hold settings"),
    ):
        (run.folder / "config.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=sentence):
            Run.open(run.folder)


def test_the_banner_names_the_device_it_found(monkeypatch):
    settings = config.preset("smoke")
    assert settings.device == "auto" and " cpu 32-true " in runs.banner(settings)
    monkeypatch.setattr(runs, "pick_device", lambda name: torch.device("cuda:1"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert " cuda:1 (GPU 1) tf32 " in runs.banner(settings)
