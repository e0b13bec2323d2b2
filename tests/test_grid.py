"""The grid: which runs, on which data, with which parameters, and what a cluster is asked for."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jetatag import grid
from jetatag.config import PRESETS, preset

ROOT = Path(__file__).parents[1]
PARAMS = ROOT / "notebooks" / "params"


@pytest.fixture(autouse=True)
def at_the_top(monkeypatch):
    monkeypatch.chdir(ROOT)


def values_of(name, **changes):
    return yaml.safe_load((PARAMS / f"{name}.yaml").read_text()) | changes


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_grid(name):
    values = values_of(name)
    grid.check_parameters(values, sorted((ROOT / "notebooks").glob("0*.ipynb")))
    assert {"je", "no_je", "no_je_linear"} <= {run.method for run in grid.trained(values).values()}


def test_the_papers_grid_is_whole():
    runs = grid.trained(values_of("paper")).values()
    cells = {(run.extractor, run.method, run.pair_loss) for run in runs}
    extractors = {run.extractor for run in runs}
    assert len(extractors) == 6 and {run.seed for run in runs} == {0, 1, 2}
    for extractor in extractors:
        for method, pair_loss in (("je", "cosine"), ("je", "cosine_as_coded"), ("no_je", "none")):
            assert (extractor, method, pair_loss) in cells
    assert all(run.width == 128 and run.crop_samples in (59_049, 80_000) for run in runs)


def test_entries_that_list_values_stand_for_each_of_them():
    entry = {"method": ["no_je", "no_je_linear"], "pair_loss": "none", "label_share": [0.5, 1.0]}
    runs = grid.trained(values_of("demo", trained=[entry], seed=[3, 4]))
    assert list(runs)[:2] == ["no_je-sample_cnn-labels50-seed3", "no_je-sample_cnn-seed3"]
    assert len(runs) == 2 * 2 * 2 and {run.seed for run in runs.values()} == {3, 4}
    own = grid.trained(values_of("demo", trained=[{**entry, "seed": 7, "width": 5}], seed=[3, 4]))
    assert {(run.seed, run.width) for run in own.values()} == {(7, 5)}
    with pytest.raises(ValueError, match="names the run no_je-sample_cnn-seed0 twice"):
        grid.trained(values_of("demo", trained=[{"method": "no_je", "pair_loss": "none"}] * 2))


def test_a_runs_parameters_say_what_it_is():
    for name, run in grid.trained(values_of("study")).items():
        told = grid.run_parameters(run, "study")
        again = preset("study", **told.pop("settings") | told)
        assert again == run and again.name == name
    assert "width" not in grid.run_parameters(preset("study"), "study")["settings"]


def test_several_data_sets_share_what_they_do_not_say():
    own = grid.own_data("paper", ["mtat=/data/mtat", "dcase2017=/data/dcase/"], None)
    values = values_of("paper") | own
    by_dataset = grid.by_dataset(values)
    assert by_dataset["mtat"]["tag"] == "techno" and by_dataset["dcase2017"]["tag"] == ""
    assert by_dataset["dcase2017"]["store"] == "/data/dcase.store"
    assert by_dataset["mtat"]["runs"] == "runs/paper-mtat+dcase2017/mtat"
    assert by_dataset["mtat"]["preset"] == by_dataset["dcase2017"]["preset"] == "paper"
    (only,) = grid.by_dataset(values_of("demo")).values()
    assert only["dataset"] == "rendered" and only["runs"] == "runs/demo/rendered"
    with pytest.raises(ValueError, match="names a data set twice"):
        grid.own_data("paper", ["a", "mtat=b"], None)
    with pytest.raises(ValueError, match="must name for each data set its own parameters"):
        grid.by_dataset(values_of("demo", datasets={"mtat": "/data"}))


def dry_run(tmp_path, *options, **changes):
    params = tmp_path / "params.yaml"
    places = {"runs": str(tmp_path / "runs"), "out": str(tmp_path / "runs")}
    params.write_text(yaml.safe_dump(values_of("paper", **places, **changes)))
    command = [sys.executable, "-m", "snakemake", "--snakefile", "notebooks/Snakefile"]
    command += ["--configfile", str(params), "--dry-run", "--nolock", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


def test_a_cluster_is_asked_for_a_gpu_a_training(tmp_path):
    datasets = {
        name: {"data": f"/data/{name}", "store": str(tmp_path / name)}
        for name in ("mtat", "speech_commands")
    }
    told = dry_run(tmp_path, "--workflow-profile", "notebooks/profiles/slurm", datasets=datasets)
    n_runs = len(grid.trained(values_of("paper")))
    counts = dict(line.split() for line in told.splitlines() if len(line.split()) == 2)
    assert int(counts["train_stage2"]) == 2 * n_runs and counts["evaluate"] == "2"
    assert counts["prepare_mtat"] == counts["prepare_speech_commands"] == "1"
    jobs = [job for job in told.split("rule ") if job.startswith("train_stage")]
    assert jobs and all("gpu=1" in job and "runtime=2880" in job for job in jobs)
    assert not any("gpu=" in job for job in told.split("rule ") if job.startswith("evaluate"))


def test_a_run_left_out_leaves_the_others(tmp_path):
    gone = "no_je-harmonic_cnn-seed0"
    scores = f"mtat/{gone}/scores.npz"
    assert scores in dry_run(tmp_path)
    assert scores not in dry_run(tmp_path, "--config", f'without=["{gone}"]')
