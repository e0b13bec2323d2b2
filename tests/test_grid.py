"""The grid: its runs, data sets and parameters, the resources asked of a cluster, the progress."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import snakemake.cli
import yaml

from jetatag.config import PRESETS, preset
from jetatag.grid import progress, runner

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
PARAMS = ROOT / "notebooks" / "params"


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def values_of(name, **changes):
    return yaml.safe_load((PARAMS / f"{name}.yaml").read_text()) | changes


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_grid(name):
    runner.check_parameters(values_of(name), NOTEBOOKS)


def test_a_grid_needs_the_methods_that_notebooks_compare():
    cells = (cell for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells)
    sources = "".join(cell.source for cell in cells if cell.cell_type == "code")
    (baseline,), with_je = runner.compared()
    picked = re.findall(r"pick\(found, method=(\[.*?\]|\w+)", sources)
    without = f'["{baseline}", "no_je_linear"]'
    assert picked == ["with_je", without, "with_je", "without"]
    assert sources.count("with_je = [name for name, method in METHODS.items() if method") == 2
    assert f"without, extractor = {without}" in sources and {"je", "joint"} <= {*with_je}
    no_je, joint = {"method": "no_je", "pair_loss": "none"}, {"method": "joint"}
    lacks = f"trained lacks {' or '.join(with_je)}: notebooks 04 and 05"
    with pytest.raises(ValueError, match=lacks):
        runner.check_parameters(values_of("demo", trained=[no_je]), NOTEBOOKS)
    with pytest.raises(ValueError, match="trained lacks no_je: notebooks 04 and 05"):
        runner.check_parameters(values_of("demo", trained=[joint]), NOTEBOOKS)
    runner.check_parameters(values_of("demo", trained=[no_je, joint]), NOTEBOOKS)


@pytest.mark.parametrize("name", ["method", "pair_loss"])
def test_a_setting_that_the_list_of_runs_decides_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is chosen run by run: list the runs instead"):
        runner.check_parameters(values_of("demo", **{name: "none"}), NOTEBOOKS)


def test_the_papers_grid_has_every_cell():
    runs = runner.trained(values_of("paper")).values()
    cells = {(run.extractor, run.method, run.pair_loss) for run in runs}
    added = {"short_chunk_cnn", "short_chunk_cnn_res"}  # beside the paper's six
    extractors = {run.extractor for run in runs} - added
    for extractor in added:
        assert {(extractor, "joint", "subset_query"), (extractor, "no_je_linear", "none")} <= cells
    assert len(extractors) == 6 and {run.seed for run in runs} == {0, 1, 2}
    for extractor in extractors:
        for pair_loss in ("cosine", "cosine_as_coded", "margin_as_coded", "subset_query"):
            assert (extractor, "je", pair_loss) in cells
        for method in ("no_je", "no_je_linear", "bce_two_stage"):
            assert (extractor, method, "none") in cells
    guide = (ROOT / "docs/howto/train.md").read_text()
    assert len(runs) == int(re.search(r"paper.yaml` has (\d+) runs", guide).group(1))
    assert all(run.width == 128 and run.crop_samples in (59_049, 80_000) for run in runs)


def test_listed_values_become_one_run_each():
    entry = {"method": ["no_je", "no_je_linear"], "pair_loss": "none", "label_share": [0.5, 1.0]}
    runs = runner.trained(values_of("demo", trained=[entry], seed=[3, 4]))
    assert list(runs)[:2] == ["no_je-short_chunk_cnn-labels50-seed3", "no_je-short_chunk_cnn-seed3"]
    assert len(runs) == 2 * 2 * 2 and {run.seed for run in runs.values()} == {3, 4}
    own = runner.trained(values_of("demo", trained=[{**entry, "seed": 7, "width": 5}], seed=[3, 4]))
    assert {(run.seed, run.width) for run in own.values()} == {(7, 5)}
    with pytest.raises(ValueError, match="names the run no_je-short_chunk_cnn-seed0 twice"):
        runner.trained(values_of("demo", trained=[{"method": "no_je", "pair_loss": "none"}] * 2))


def test_the_parameters_of_a_run_rebuild_it():
    for name, run in runner.trained(values_of("study")).items():
        parameters = runner.run_parameters(run, "study")
        again = preset("study", **parameters.pop("settings") | parameters)
        assert again == run and again.name == name
    assert "width" not in runner.run_parameters(preset("study"), "study")["settings"]


def test_data_sets_share_parameters_that_they_do_not_set():
    own = runner.own_data("paper", ["mtat=/data/mtat", "dcase2017=/data/dcase/"], None)
    values = values_of("paper") | own
    by_dataset = runner.by_dataset(values)
    assert by_dataset["mtat"]["tag"] == "techno" and by_dataset["dcase2017"]["tag"] == ""
    assert by_dataset["dcase2017"]["store"] == "/data/dcase.store"
    assert by_dataset["mtat"]["runs"] == "runs/paper-mtat+dcase2017/mtat"
    assert by_dataset["mtat"]["preset"] == by_dataset["dcase2017"]["preset"] == "paper"
    (only,) = runner.by_dataset(values_of("demo")).values()
    assert only["dataset"] == "rendered" and only["runs"] == "runs/demo/rendered"
    assert runner.own_data("study", ["/data/mtat"], None)["study"] == "runs/study-mtat"
    with pytest.raises(ValueError, match="names a data set twice"):
        runner.own_data("paper", ["a", "mtat=b"], None)
    with pytest.raises(ValueError, match="datasets: mtat must be of type dict, not '/data'"):
        runner.by_dataset(values_of("demo", datasets={"mtat": "/data"}))


@pytest.fixture
def dry_run(tmp_path, capfd):
    """What Snakemake would do for the grid of preset paper with changed parameters."""

    def plan(*options, **changes):
        params = tmp_path / "params.yaml"
        places = {"runs": str(tmp_path / "runs"), "out": str(tmp_path / "runs")}
        params.write_text(yaml.safe_dump(values_of("paper", **places, **changes)))
        command = ["--snakefile", "notebooks/Snakefile", "--configfile", str(params)]
        with pytest.raises(SystemExit) as done:
            snakemake.cli.main([*command, "--dry-run", "--nolock", *options])
        printed = capfd.readouterr()
        assert done.value.code == 0, printed.err[-2000:]
        return printed.out + printed.err

    return plan


def test_each_training_asks_the_cluster_for_one_gpu(tmp_path, dry_run):
    datasets = {
        name: {"data": f"/data/{name}", "store": str(tmp_path / name)}
        for name in ("mtat", "speech_commands")
    }
    fewer = {"datasets": datasets, "extractor": "sample_cnn", "seed": 0}
    plan = dry_run("--workflow-profile", "notebooks/profiles/slurm", **fewer)
    n_runs = len(runner.trained(values_of("paper", **fewer)))
    counts = dict(line.split() for line in plan.splitlines() if len(line.split()) == 2)
    assert int(counts["train_stage2"]) == 2 * n_runs and counts["evaluate"] == "2"
    assert counts["prepare_mtat"] == counts["prepare_speech_commands"] == "1"
    jobs = [job for job in plan.split("rule ") if job.startswith("train_stage")]
    assert jobs and all("gpu=1" in job and "runtime=2880" in job for job in jobs)
    assert not any("gpu=" in job for job in plan.split("rule ") if job.startswith("evaluate"))


def two_data_sets(tmp_path):
    places = {"runs": str(tmp_path / "runs"), "out": str(tmp_path / "runs"), "preset": "demo"}
    datasets = {
        name: {"data": "/data", "store": str(tmp_path / name)} for name in ("mtat", "dcase2017")
    }
    return values_of("demo", **places, datasets=datasets)


def test_only_limits_the_runs_of_one_data_set(tmp_path, dry_run):
    values = two_data_sets(tmp_path)
    first, *others = runner.cells(values)["mtat"]
    params = {name: values[name] for name in ("datasets", "trained", "extractor", "seed")}
    plan = dry_run("--config", f'only={{"mtat": {json.dumps(others)}}}', **params)
    assert f"mtat/{first}/scores.npz" not in plan and f"mtat/{others[0]}/scores.npz" in plan
    assert "prepare_dcase2017" not in plan and "dcase2017/results" not in plan
    plan = dry_run(**params)
    assert f"mtat/{first}/scores.npz" in plan and f"dcase2017/{first}/scores.npz" in plan
    with pytest.raises(ValueError, match="unknown run 'no_such'"):
        runner.cells(values | {"only": {"mtat": ["no_such"]}})
    with pytest.raises(ValueError, match="unknown data set 'rendered'"):
        runner.cells(values | {"only": {"rendered": []}})


def test_a_deleted_store_is_prepared_again(tmp_path, dry_run):
    store, runs = tmp_path / "store", tmp_path / "runs" / "mtat"
    for path in (store / ".prepared", runs / "baselines.npz"):
        path.parent.mkdir(parents=True)
        path.touch()
    assert "rule prepare_mtat:" not in dry_run(store=str(store))
    shutil.rmtree(store)
    assert "rule prepare_mtat:" in dry_run(store=str(store))


def write_finished(folder, runs, tables=("results", "spaces")):
    for file in [f"{run}/scores.npz" for run in runs] + [f"{table}.parquet" for table in tables]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


def test_runs_without_scores_and_data_sets_without_tables_are_dropped(tmp_path):
    values = two_data_sets(tmp_path)
    used = {name: list(runs) for name, runs in runner.cells(values).items()}
    others = used["mtat"][1:]
    assert runner.finished(values, used) == {}
    write_finished(tmp_path / "runs" / "mtat", others, tables=())
    fewer = runner.finished(values, used)
    assert fewer == {"mtat": others}  # tables are still to be made of these
    assert runner.finished(values, fewer) == {}  # making the tables failed
    write_finished(tmp_path / "runs" / "mtat", ())
    assert runner.finished(values, fewer) == fewer
    write_finished(tmp_path / "runs" / "dcase2017", used["dcase2017"])
    assert runner.finished(values, used) == {"mtat": others, "dcase2017": used["dcase2017"]}


def test_each_failure_names_the_notebook_with_the_error(tmp_path):
    values = two_data_sets(tmp_path)
    first, *others = runner.cells(values)["mtat"]
    executed = tmp_path / "runs" / "mtat" / "notebooks"
    executed.mkdir(parents=True)
    params = tmp_path / "runs" / "params.yaml"
    params.touch()
    for stage in ("02_train_stage1", "03_train_stage2"):
        (executed / f"{stage}.{others[0]}.ipynb").write_text('{"exception": true}')
    failed = executed / f"02_train_stage1.{first}.ipynb"
    failed.write_text('{"metadata": {"papermill": {"exception": true}}}')
    (executed / f"03_train_stage2.{first}.ipynb").write_text('{"exception": false}')
    assert list(runner.failures(values, {"mtat": others})) == [
        f"{first} on mtat did not finish; see {failed}",
        "dcase2017 did not finish; the common tables hold what it has, if any; see "
        f"{tmp_path / 'runs' / 'snakemake.log'}",
    ]
    os.utime(failed, (0, params.stat().st_mtime - 1))  # it failed before this grid began
    assert f"{first} on mtat did not finish; see {executed}" in runner.failures(
        values, {"mtat": others}
    )


def test_jobs_on_the_cpu_ask_for_no_gpu(dry_run):
    plan = dry_run("--printshellcmds", device="cpu", seed=0, extractor="sample_cnn")
    jobs = [job for job in plan.split("rule ") if job.startswith("train_stage")]
    assert jobs and all(" -m jetatag.grid.gpus cpu env" in job for job in jobs)
    assert not any("gpu=1" in job for job in jobs)


def write_executed(path, duration=None, exception=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"start_time": "now", "duration": duration, "exception": exception}
    path.write_text(json.dumps({"metadata": {"papermill": facts}}))


class Snakemake:
    """Stands for a process that ends after `actions`, one for each time it is asked."""

    def __init__(self, *actions):
        self.actions = list(actions)

    def poll(self):
        return self.actions.pop(0)() if self.actions else 1


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_one_line_for_each_notebook(terminal, tmp_path, capsys, monkeypatch):
    """Two notebooks: one is half way, then done; the other fails. An older one is not mentioned."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(progress, "POLL_S", 0.2)
    run, older = (tmp_path / "mtat" / "notebooks" / f"{name}.ipynb" for name in ("02_a.r-0.5", "o"))
    write_executed(older, 1.0)
    os.utime(older, (0, 0))
    log = tmp_path / "snakemake.log"
    log.write_text("Job stats:\nall   1\ntotal   3\n")
    bar = "Executing Cell 1---\nold: 9%|x\nExecuting Cell 2---\n\rstage1:  50%|█████     | 5/10"

    def half():
        write_executed(run)
        run.with_suffix(".log").write_bytes(bar.encode() + b"\xe2\x96")  # half a character

    snakemake = Snakemake(
        half,
        lambda: write_executed(run, 83.4),
        lambda: write_executed(tmp_path / "notebooks" / "06_b.ipynb", 2.0, True),
    )
    assert progress.follow(snakemake, log) == 1
    output = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", capsys.readouterr().err)
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", output) if "/2  0:" in line]
    assert lines == [
        "  1/2  0:01:23  02_a              mtat      r-0.5",
        "  2/2  0:00:02  06_b  failed",
    ]
    assert ("02_a              mtat      r-0.5  stage1" in output) == terminal
    assert terminal or len(output.splitlines()) == 2


def test_tables_fit_a_terminal(tmp_path, capsys):
    """The study's committed table: many methods, pair losses, shares of labels and extractors."""
    shutil.copy(ROOT / "notebooks/results/study/rendered/results.parquet", tmp_path)
    progress.print_results(tmp_path)
    output = capsys.readouterr().out
    assert "Paired differences" in output and "subset_query" in output
    tables = output.partition("\ntables ")[0]
    assert len(tables.splitlines()) > 50 and max(map(len, tables.splitlines())) <= 100


def test_a_finished_notebook_that_is_written_again_is_told_once(tmp_path, capfd):
    log, notebook = tmp_path / "snakemake.log", tmp_path / "notebooks" / "05_embeddings.ipynb"
    notebook.parent.mkdir()
    log.write_text("total 3\n")
    ended = {"duration": 1.0, "exception": None, "start_time": "12:00"}
    text = json.dumps({"metadata": {"papermill": ended}})
    wait = f"import pathlib, time; [(pathlib.Path({str(notebook)!r}).write_text({text!r})"
    wait += ", time.sleep(1.5)) for _ in range(2)]"
    assert progress.follow(subprocess.Popen([sys.executable, "-c", wait]), log) == 0
    assert capfd.readouterr().err == "  1/2  0:00:01  05_embeddings\n"
