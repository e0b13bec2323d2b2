"""The six notebooks through Snakemake and papermill, as `make reproduce` runs them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
from layouts import RATE, tone, write_mtat, write_wav
from snakemake.cli import parse_args

from jetatag import cli
from jetatag.data.store import AudioStore
from jetatag.files import lock_folder

ROOT = Path(__file__).parents[1]
TRAINED = "[{method: je, pair_loss: subset_query}, {method: no_je, pair_loss: none}, "
TRAINED += "{method: no_je_linear, pair_loss: none}]"


def command_of(folder: Path, *changes: str) -> list[str]:
    places = [f"{name}={folder / name}" for name in ("data", "store", "runs")]
    settings = ["extractor=sample_cnn", f"trained={TRAINED}", f"out={folder / 'runs'}"]
    return ["reproduce", "--preset", "smoke", "--set", *places, *settings, *changes]


def reproduce(folder: Path, *changes: str) -> int:
    return cli.main(command_of(folder, *changes))


@pytest.fixture(autouse=True)
def at_the_top(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_from_nothing_to_results_and_maps(tmp_path, capfd):
    assert reproduce(tmp_path) == 0
    told = capfd.readouterr()
    assert "Paired differences" in told.out and "results.csv" in told.out
    assert "clip/s" in told.err + told.out  # progress
    runs = tmp_path / "runs"
    table = pd.read_csv(runs / "results.csv", keep_default_na=False)
    whole = table[(table.tag == "") & (table.minus == "") & (table.seed == "0")]
    assert set(whole.method) == {"je", "no_je", "no_je_linear"}
    assert set(whole.protocol) == {"micro_window", "macro_clip"}
    assert len(whole) == 3 * 7 and whole.value.astype(float).between(0, 1).all()
    assert set(table[table.seed == ""].method) == {"tag_frequency", "log_mel_logistic"}
    assert len(pd.read_parquet(runs / "results.parquet")) == len(table)
    assert len(pd.read_csv(runs / "runs.csv")) == 3
    executed = sorted(runs.rglob("notebooks/*.ipynb"))
    assert len(executed) == 1 + 1 + 3 + 3
    for path in executed:
        cells = json.loads(path.read_text())["cells"]
        assert all(c["execution_count"] for c in cells if c["cell_type"] == "code")
    for suffix in (".png", ".pdf"):
        figures = {path.stem for path in runs.rglob(f"figures/*{suffix}")}
        drawn = {"shared_space", "figure2_umap", "figure2_tsne", "table1", "table1_published"}
        drawn |= {"scores", "ablation", "gain_per_tag", "calibration", "retrieval", "semantics"}
        assert drawn <= figures
    store = json.loads((tmp_path / "store" / "store.json").read_text())
    left_out = pd.read_csv(tmp_path / "store" / "report.csv")
    assert store["annotated_clips"] == 96 == store["stored_clips"] + len(left_out)

    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*.*") if path.is_file()}
    assert reproduce(tmp_path) == 0  # everything is there: nothing runs again
    after = {path: path.stat().st_mtime_ns for path in runs.rglob("*.*") if path.is_file()}
    assert {p for p in after if before.get(p) != after[p]} <= {runs / "params.yaml"}

    with lock_folder(runs):
        assert reproduce(tmp_path) == 2
    assert "another process is at work" in capfd.readouterr().err


def write_classes(root: Path, n_clips: int) -> Path:
    for number in range(n_clips):
        name, pitch = ("low", 200) if number % 2 else ("high", 2000)
        write_wav(root / name / f"{number}.wav", tone(pitch, 1.0), RATE)
    return root


def damage(run: Path) -> None:
    run.mkdir(parents=True)
    (run / "config.json").write_text("no settings")
    (run / "history.csv").write_text("")


def test_what_fails_on_one_data_set_leaves_its_notebook_and_the_others_whole(tmp_path, capfd):
    """Three small data sets: of one a run fails, and one cannot be prepared."""
    music, lost = write_mtat(tmp_path / "music"), tmp_path / "lost"
    write_classes(tmp_path / "classes", 40)
    for number in range(40):
        (lost / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (lost / "ab"[number % 2] / f"{number}.wav").write_text("no sound")
    datasets = {"mtat": music, "folder": tmp_path / "classes", "lost": lost}
    own = {name: {"data": str(data), "tag": ""} for name, data in datasets.items()}
    own = {name: told | {"store": f"{told['data']}.store"} for name, told in own.items()}
    own["lost"] |= {"dataset": "folder"}
    runs, gone = tmp_path / "runs", "no_je_early_stop-sample_cnn-seed0"
    damage(runs / "folder" / gone)
    changes = [f"trained={TRAINED[:-1]}, {{method: no_je_early_stop, pair_loss: none}}]"]
    changes += [f"datasets={json.dumps(own)}", "settings={sample_rate: 8000}"]
    assert reproduce(tmp_path, *changes) == 1
    told = capfd.readouterr()
    sentences = [line for line in told.err.splitlines() if line.startswith("jetatag: ")]
    executed = runs / "folder" / "notebooks" / f"03_train_stage2.{gone}.ipynb"
    assert sentences == [
        f"jetatag: {gone} on folder did not finish; see {executed}",
        "jetatag: lost did not finish: the common tables hold what it has, if any; see "
        f"{runs / 'lost' / 'notebooks' / '01_prepare_data.ipynb'}",
    ]
    assert "is not valid JSON" in executed.read_text() and "Paired differences" in told.out
    table = pd.read_parquet(runs / "results.parquet").query("seed == '0' and minus == ''")
    methods = {name: set(rows.method) for name, rows in table.groupby("dataset")}
    both = {"je", "no_je", "no_je_linear"}
    assert methods == {"mtat": both | {"no_je_early_stop"}, "folder": both}
    embeddings = (runs / "folder" / "notebooks" / "05_embeddings.ipynb").read_text()
    assert embeddings.count("figure 2 needs 5 test clips, not 4: prepare more") == 2
    facts = json.loads((tmp_path / "classes.store" / "store.json").read_text())
    assert facts["sample_rate"] == 8_000
    assert (runs / "folder" / "figures" / "shared_space.png").is_file()


def test_what_fails_after_the_store_was_built_leaves_it_whole(tmp_path):
    write_mtat(tmp_path / "data")
    in_the_way = tmp_path / "runs" / "mtat" / "my_music.csv"
    in_the_way.mkdir(parents=True)  # where the notebook writes a file
    assert reproduce(tmp_path, "dataset=mtat", "tag=''") == 1
    executed = tmp_path / "runs" / "mtat" / "notebooks" / "01_prepare_data.ipynb"
    assert "IsADirectoryError" in executed.read_text()
    assert AudioStore.open(tmp_path / "store").damaged() == []


def test_who_terminates_the_command_ends_its_jobs_and_the_folder_is_free(tmp_path):
    write_mtat(tmp_path / "data")
    command = [sys.executable, "-c", "import sys; from jetatag import cli; sys.exit(cli.main())"]
    command += command_of(tmp_path, "dataset=mtat", "tag=''")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        next(line for line in running.stderr if "Executing Cell" in line)
        below = psutil.Process(running.pid).children(recursive=True)
        assert any("papermill" in process.name() for process in below)
        running.terminate()
        running.communicate()
    assert running.returncode == 130
    assert not psutil.wait_procs(below, timeout=60)[1]
    with lock_folder(tmp_path / "runs"):
        assert not (tmp_path / "runs" / "results.csv").exists()


def test_killed_it_leaves_the_folder_to_what_it_began(tmp_path):
    waiting = [sys.executable, "-c", "print('begun', flush=True); input()"]
    program = "import os; from jetatag import files; from jetatag.grid import runner as grid\n"
    program += f"with files.lock_folder({str(tmp_path)!r}):\n"
    program += f"    grid.run_to_its_end({waiting!r}, os.environ)"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as running:
        assert running.stdout.readline() == b"begun\n"
        below = psutil.Process(running.pid).children()
        running.kill()
        running.wait()
        with pytest.raises(ValueError, match="another process is at work"), lock_folder(tmp_path):
            pass
    assert len(below) == 1 and not psutil.wait_procs(below, timeout=60)[1]
    with lock_folder(tmp_path):
        pass


def test_a_mistake_is_one_sentence_before_anything_runs(tmp_path, capfd):
    assert reproduce(tmp_path, "sed=1") == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert cli.main(["reproduce", "--set", "seed"]) == 2
    assert "is no name=value pair" in capfd.readouterr().err
    changes = ["tag=[", "runs=3", "dataset=mtta", "extractor=foo", "settings={seed: x}"]
    changes += ["trained=5", "trained=[5]", "settings=5", "datasets=5", "tag=nosuchtag"]
    changes += ["n_resamples=0", "n_resamples=x", "published=/nonexist.csv", "study=/nonexist"]
    for change in changes:
        assert reproduce(tmp_path, change) == 2, change
        assert capfd.readouterr().err.count("\n") == 1, change
    assert not (tmp_path / "runs").exists()


def test_too_few_clips_are_refused_before_anything_runs(tmp_path, capfd):
    few = str(write_classes(tmp_path / "few", 20))
    command = ["reproduce", "--preset", "smoke", "--dataset", "folder", "--data", few]
    assert cli.main([*command, "--set", f"store={tmp_path / 'store'}"]) == 2
    told = capfd.readouterr().err
    assert "has 2 tagged clips to test on" in told and told.count("\n") == 1


def test_data_that_cannot_be_read_is_one_sentence_before_anything_runs(tmp_path, capfd):
    data = write_mtat(tmp_path / "mtat")
    for arguments, sentence in {
        ("--dataset", "folder"): "Give its folder with --data",
        ("--data", "nowhere"): "annotations_final.csv does not exist",
        ("--data", str(data), "--set", "options={split: ful}"): "unknown split 'ful'",
        ("--data", str(data), "--set", "tag=techno"): "unknown tag 'techno'",
        ("--data", str(data), "--dataset", "folder", "--set", "options={table: x.csv}"): "x.csv",
        ("--data", str(data), "--dataset", "mtta"): "unknown data set 'mtta'",
    }.items():
        assert cli.main(["reproduce", "--preset", "smoke", *arguments]) == 2, arguments
        told = capfd.readouterr().err
        assert sentence in told and told.count("\n") == 1, told
    assert not (tmp_path / "mtat.store").exists()


def test_a_store_of_another_sample_rate_is_one_sentence_before_anything_runs(
    tmp_path, capfd, tiny_store
):
    change = f"store={tiny_store.folder}", "settings={sample_rate: 8000}"
    assert reproduce(tmp_path, *change) == 2
    told = capfd.readouterr().err
    assert "holds audio at 16,000 Hz and the settings say 8,000: name another" in told
    assert told.count("\n") == 1 and not (tmp_path / "runs").exists()


def test_a_profile_says_where_jobs_run_and_how_many(tmp_path, capfd):
    """The whole way of the command but for the jobs themselves: the profile asks for a dry run."""
    (tmp_path / "config.yaml").write_text("cores: 3\ndry-run: true\n")
    places = [f"{name}={tmp_path / name}" for name in ("data", "store", "runs", "out")]
    command = ["reproduce", "--preset", "smoke", "--profile", str(tmp_path), "--cores", "2"]
    assert cli.main([*command, "--set", *places]) == 0
    told = capfd.readouterr()
    (preparing,) = {job for job in jobs_of(told) if job.startswith("prepare_rendered:")}
    assert "threads: 2" in preparing  # what the command line says goes before the profile
    assert not list(tmp_path.rglob("*.ipynb"))


def jobs_of(told) -> list[str]:
    return (told.out + told.err).split("rule ")


def test_the_documented_command_for_a_cluster_asks_for_what_its_profile_says(
    tmp_path, capfd, monkeypatch
):
    """A profile for all of Snakemake makes a dry run of it."""
    (tmp_path / "config.yaml").write_text("dry-run: true\n")
    monkeypatch.setenv("SNAKEMAKE_PROFILE", str(tmp_path))
    guide = (ROOT / "docs/howto/cluster.md").read_text()
    (line,) = re.findall(r"^\$ jetatag (reproduce .*--profile .*)$", guide, re.MULTILINE)
    command = line.replace("/data/mtat", str(write_mtat(tmp_path / "mtat"))).split()
    places = [f"{name}={tmp_path / name}" for name in ("store", "runs", "out")]
    at = command.index("--set") + 1
    command[at:at] = [*places, "tag=''"]  # its few tags lack techno
    assert cli.main(command) == 0
    trainings = [job for job in jobs_of(capfd.readouterr()) if job.startswith("train_stage")]
    asked = ["runtime=2880", "gpu=1", "mem_mb=16000", "cpus_per_task=8"]
    assert len([job for job in trainings if job.startswith("train_stage2")]) == 144
    assert all(all(f" {one}" in job for one in asked) for job in trainings)
    profile = ["--workflow-profile", command[command.index("--profile") + 1]]
    _, understood = parse_args(["--snakefile", "notebooks/Snakefile", *profile])
    assert (understood.executor, understood.jobs, understood.retries) == ("slurm", 64, 1)
    assert not list(tmp_path.rglob("*.ipynb"))


def test_a_folder_that_is_no_profile_is_one_sentence(tmp_path, capfd):
    assert cli.main(["reproduce", "--preset", "smoke", "--profile", str(tmp_path)]) == 2
    told = capfd.readouterr().err
    assert "holds no config.yaml" in told and told.count("\n") == 1


def test_render_writes_a_data_set(tmp_path):
    folder = str(tmp_path / "music")
    assert cli.main(["render", folder, "--clips", "2", "--seconds", "1"]) == 0
    assert (tmp_path / "music" / "annotations_final.csv").is_file()
    assert cli.main(["render", folder, "--clips", "3", "--seconds", "1"]) == 2
