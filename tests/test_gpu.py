"""`gpu.py`, the proof on a GPU, runs on a CPU with nothing installed but what training needs."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import gpu
import pytest
import torch

from jetatag.extractors import EXTRACTORS

NOT_NEEDED = ["anywidget", "av", "cyclopts", "ipywidgets", "jscatter", "jupyterlab", "librosa"]
NOT_NEEDED += ["matplotlib", "midirenderer", "nbconvert", "papermill", "pretty_midi", "snakemake"]
NOT_NEEDED += ["soundfile", "soxr", "torchaudio", "umap"]
WITHOUT = f"""
import runpy, sys

class Absent:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in {NOT_NEEDED}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent)
sys.path.insert(0, {str(Path(gpu.__file__).parent)!r})
sys.argv = ["gpu.py", "--device", "cpu"]
runpy.run_path({gpu.__file__!r}, run_name="__main__")
"""


def test_all_parts_pass_on_a_cpu(tmp_path):
    compiled = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=tmp_path,
        env={**os.environ, **compiled},
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["machine"]["card"].startswith("cpu ")
    assert {"driver", "torch", "numpy", "commit"} <= report["machine"].keys()
    assert len(report["correct"]) == 2 * len(EXTRACTORS) + len(EXTRACTORS) + 2 + 2 + 3
    assert all(row["ok"] for row in report["correct"].values())
    assert [row["compiled"] for row in report["speed"].values()] == [False, False, True]
    (measured,) = report["epoch"].values()
    assert all(
        measured[f"{stage}_{what}"] > 0 for stage in ("stage1", "stage2") for what in ("s", "busy")
    )
    taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert taken < 160  # 40 seconds of two cores, or more where other programs run


def test_it_goes_on_where_it_stopped_and_tells_failures(tmp_path, monkeypatch):
    size, path, done = gpu.Size(torch.device("cpu"), tmp_path), tmp_path / "gpu.json", []

    def item(key, ok):
        return key, lambda: done.append(key) or {"ok": ok}

    outcomes = {"a": True, "b": False, "c": True}
    monkeypatch.setitem(gpu.PARTS, "correct", lambda size: [item(*i) for i in outcomes.items()])
    path.write_text(json.dumps({"machine": {}, "correct": {"a": {"ok": True}}}))
    assert gpu.run_part("correct", size, path) == 0
    assert done == ["b", "c"]  # what failed is repeated
    assert gpu.run_part("correct", size, path) == 0
    assert done == ["b", "c", "b"]
    monkeypatch.setattr(gpu, "BEGIN_S", -1)
    assert gpu.run_part("correct", size, path) == 1  # is left
    assert done == ["b", "c", "b"]
    rows = json.loads(path.read_text())["correct"]
    assert [row["ok"] for row in rows.values()] == [True, False, True]


def test_an_item_that_does_not_end_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setitem(gpu.PARTS, "correct", lambda size: [("slow", lambda: time.sleep(60))])
    monkeypatch.setattr(gpu, "END_S", 0.2)
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"machine": {}}))
    assert gpu.run_part("correct", gpu.Size(torch.device("cpu"), tmp_path), path) == 0
    row = json.loads(path.read_text())["correct"]["slow"]
    assert not row["ok"] and row["error"] == "TimeoutError: part correct has taken 0.2 seconds"


def test_a_wrong_number_is_a_failed_comparison(tmp_path, monkeypatch):
    size = gpu.Size(torch.device("cpu"), tmp_path)
    assert gpu.agrees(size, "sample_cnn", "32-true")["ok"]
    right = gpu.extract
    monkeypatch.setattr(gpu, "extract", lambda *parts: 1.001 * right(*parts))
    row = gpu.agrees(size, "sample_cnn", "32-true")
    assert not row["ok"] and row["features"] == pytest.approx(1e-3, rel=0.1)


@pytest.mark.parametrize("factor", [0.0, -1.0, 3.0])
def test_wrong_gradients_in_bfloat16_are_a_failed_comparison(tmp_path, monkeypatch, factor):
    size = gpu.Size(torch.device("cpu"), tmp_path)
    assert gpu.agrees(size, "harmonic_cnn", "bf16-mixed")["ok"]
    right = gpu.pulled

    def wrong(*parts):
        h, gradients = right(*parts)
        return [h, factor * gradients]

    monkeypatch.setattr(gpu, "pulled", wrong)
    assert not gpu.agrees(size, "harmonic_cnn", "bf16-mixed")["ok"]


@pytest.mark.parametrize("lost", ["weights", "optimizer"])
def test_a_resumption_that_loses_something_is_a_failed_comparison(tmp_path, monkeypatch, lost):
    size = gpu.Size(torch.device("cpu"), tmp_path)
    assert gpu.resumes(size, "32-true")["ok"]
    loser = {"weights": torch.nn.Module, "optimizer": torch.optim.Optimizer}[lost]
    monkeypatch.setattr(loser, "load_state_dict", lambda self, state, *_, **__: None)
    other = gpu.Size(torch.device("cpu"), tmp_path / "again")
    other.folder.mkdir()
    assert not gpu.resumes(other, "32-true")["ok"]
