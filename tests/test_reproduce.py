"""The notebooks through Snakemake and papermill, as `make reproduce` runs them."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from layouts import RATE, tone, write_mtat, write_wav
from snakemake.cli import parse_args

from jetatag import cli
from jetatag.data.store import AudioStore
from jetatag.files import lock_folder, read_arrays, write_arrays
from jetatag.grid import runner

ROOT = Path(__file__).parents[1]
TRAINED = "[{method: je, pair_loss: subset_query}, {method: no_je, pair_loss: none}, "
TRAINED += "{method: no_je_linear, pair_loss: none}]"


MISTAKES = ["sed=1", "tag=[", "runs=3", "dataset=mtta", "extractor=foo", "settings={seed: x}"]
MISTAKES += ["trained=5", "trained=[5]", "settings=5", "datasets=5", "tag=nosuchtag"]
MISTAKES += ["n_resamples=0", "n_resamples=x", "published=/nonexist.csv", "study=/nonexist"]


def command_of(folder: Path, *changes: str) -> list[str]:
    places = [f"{name}={folder / name}" for name in ("data", "store", "runs")]
    settings = ["extractor=sample_cnn", f"trained={TRAINED}", f"out={folder / 'runs'}"]
    return ["reproduce", "--preset", "smoke", "--set", *places, *settings, *changes]


def small_study(folder: Path) -> str:
    """The parameter that names the study's results with 100 of its clips, drawn in no time."""
    shutil.copytree(ROOT / "notebooks" / "results" / "study", folder)
    for path in folder.rglob("*.npz"):
        arrays = read_arrays(path)
        write_arrays(path, {k: a[:100] if a.ndim else a for k, a in arrays.items()})
    return f"study={folder}"


def reproduce(folder: Path, *changes: str) -> int:
    return cli.main(command_of(folder, *changes))


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_from_nothing_to_results_and_maps(installed, tmp_path):
    """By an installed package, in a folder of the user's choice."""
    command = [str(installed), *command_of(tmp_path, small_study(tmp_path / "study"))]
    command += ["--workdir", str(tmp_path / "work")]
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run(command, **options)
    assert done.returncode == 0 and "results.csv" in done.stdout, done.stderr
    assert "Paired differences" in done.stdout
    runs = tmp_path / "runs"
    lines = done.stderr.splitlines()
    assert [line.split()[0] for line in lines] == [f"{i}/9" for i in range(1, 10)]
    assert all(re.fullmatch(r" +\d/9  0:\d\d:\d\d  0[1-7]_.*", line) for line in lines)
    tables = done.stdout.partition("\ntables ")[0].splitlines()
    assert max(map(len, tables)) <= 100
    logs = {path.stem: path.read_text() for path in runs.rglob("notebooks/*.log")}
    assert len(logs) == 9 and any("clip/s" in text for text in logs.values())
    table = pd.read_csv(runs / "results.csv", keep_default_na=False)
    whole = table[(table.tag == "") & (table.minus == "") & (table.seed == "0")]
    assert set(whole.method) == {"je", "no_je", "no_je_linear"}
    assert set(whole.protocol) == {"micro_window", "macro_clip"}
    assert len(whole) == 3 * 7 and whole.value.astype(float).between(0, 1).all()
    assert set(table[table.seed == ""].method) == {"tag_frequency", "log_mel_logistic"}
    assert len(pd.read_parquet(runs / "results.parquet")) == len(table)
    assert len(pd.read_csv(runs / "runs.csv")) == 3
    executed = sorted(runs.rglob("notebooks/*.ipynb"))
    assert len(executed) == 1 + 1 + 1 + 3 + 3
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
    done = subprocess.run(command, **options)
    assert done.returncode == 0 and done.stderr == ""  # everything is there: nothing runs again
    after = {path: path.stat().st_mtime_ns for path in runs.rglob("*.*") if path.is_file()}
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert changed <= {"params.yaml", "snakemake.log"}

    with lock_folder(runs):
        done = subprocess.run(command, **options)
    assert done.returncode == 2 and "another process is at work" in done.stderr


def write_classes(root: Path, n_clips: int) -> Path:
    for number in range(n_clips):
        name, pitch = ("low", 200) if number % 2 else ("high", 2000)
        write_wav(root / name / f"{number}.wav", tone(pitch, 1.0), RATE)
    return root


def write_damaged_run(run: Path) -> None:
    run.mkdir(parents=True)
    (run / "config.json").write_text("not JSON")
    (run / "history.csv").write_text("")


def test_a_failure_leaves_the_other_runs_and_data_sets_complete(tmp_path, capfd):
    """Three small data sets: a run of the second fails, and of the third, no validation clip can be
    read, so that nothing is trained; a second call says so at once."""
    music, unread = write_mtat(tmp_path / "music"), tmp_path / "unread"
    write_classes(tmp_path / "classes", 40)
    for split in ("train", "valid", "test"):
        write_classes(unread / split, 16)
    for path in unread.glob("valid/*/*.wav"):
        path.write_text("no audio")
    datasets = {"mtat": music, "folder": tmp_path / "classes", "unread": unread}
    own = {name: {"data": str(data), "tag": ""} for name, data in datasets.items()}
    own = {name: given | {"store": f"{given['data']}.store"} for name, given in own.items()}
    own["unread"] |= {"dataset": "folder"}
    runs, failed = tmp_path / "runs", "no_je_early_stop-sample_cnn-seed0"
    write_damaged_run(runs / "folder" / failed)
    plain = {"method": "no_je", "pair_loss": "none"}
    two = [{"method": "joint", "pair_loss": "subset_query"}, plain]
    own["folder"]["trained"] = [*two, plain | {"method": "no_je_early_stop"}]
    changes = [f"datasets={json.dumps(own)}", "settings={sample_rate: 8000}"]
    changes += [f"trained={json.dumps(two)}", small_study(tmp_path / "study")]
    assert reproduce(tmp_path, *changes) == 1
    printed = capfd.readouterr()
    sentences = [line for line in printed.err.splitlines() if line.startswith("jetatag: ")]
    executed = runs / "folder" / "notebooks" / f"03_train_stage2.{failed}.ipynb"
    assert sentences == [
        f"jetatag: {failed} on folder did not finish; see {executed}",
        "jetatag: unread did not finish; the common tables hold what it has, if any; see "
        f"{runs / 'unread' / 'notebooks' / '01_prepare_data.ipynb'}",
        f"jetatag: Snakemake's log is {runs / 'snakemake.log'}",
    ]
    assert "config.json is damaged" in executed.read_text()
    assert "Paired differences" in printed.out
    refusal = f"{unread}.store has 0 valid clips, where the notebooks need at least 2 with diff"
    assert refusal in (runs / "unread" / "notebooks" / "01_prepare_data.ipynb").read_text()
    assert {path.name for path in (runs / "unread").iterdir()} == {"notebooks"}
    assert f"03_train_stage2   folder    {failed}  failed\n" in printed.err
    table = pd.read_parquet(runs / "results.parquet").query("seed == '0' and minus == ''")
    methods = {name: set(rows.method) for name, rows in table.groupby("dataset")}
    assert methods == {key: {"joint", "no_je"} for key in ("mtat", "folder")}
    drawn = {path.stem for path in (runs / "folder" / "figures").glob("*.png")}
    assert {"figure2_umap", "figure2_tsne", "shared_space"} <= drawn  # even of four clips
    facts = json.loads((tmp_path / "classes.store" / "store.json").read_text())
    assert facts["sample_rate"] == 8_000
    assert reproduce(tmp_path, *changes) == 2
    assert refusal in capfd.readouterr().err


def test_a_failure_after_the_store_was_built_leaves_it_complete(tmp_path):
    write_mtat(tmp_path / "data")
    obstacle = tmp_path / "runs" / "mtat" / "figures" / "spectrogram.png"
    obstacle.mkdir(parents=True)  # a folder where the notebook writes a figure
    assert reproduce(tmp_path, "dataset=mtat", "tag=''") == 1
    executed = tmp_path / "runs" / "mtat" / "notebooks" / "01_prepare_data.ipynb"
    assert "IsADirectoryError" in executed.read_text()
    assert AudioStore.open(tmp_path / "store").damaged() == []


def wait_for(condition, patience_s=60):
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_termination_ends_the_jobs_and_unlocks_the_folder(tmp_path):
    write_mtat(tmp_path / "data")
    command = [sys.executable, "-c", "import sys; from jetatag import cli; sys.exit(cli.main())"]
    command += command_of(tmp_path, "dataset=mtat", "tag=''")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        log = tmp_path / "runs" / "mtat" / "notebooks" / "01_prepare_data.log"
        wait_for(lambda: log.is_file() and "Executing Cell" in log.read_text())
        below = psutil.Process(running.pid).children(recursive=True)
        assert any("papermill" in process.cmdline() for process in below)
        running.terminate()
        error = running.communicate()[1]
    assert running.returncode == 130 and error.startswith("jetatag: interrupted; ")
    assert not psutil.wait_procs(below, timeout=60)[1]
    with lock_folder(tmp_path / "runs"):
        assert not (tmp_path / "runs" / "results.csv").exists()


def test_snakemake_keeps_the_lock_if_the_command_is_killed(tmp_path):
    (tmp_path / "Snakefile").write_text("rule all:\n    shell: 'touch begun; sleep 30'\n")
    program = (
        "from pathlib import Path\nfrom jetatag import files\nfrom jetatag.grid import runner\n"
    )
    program += "with files.lock_folder('.'):\n"
    program += "    runner.run_snakemake(Path(), Path('params.yaml'))"
    (tmp_path / "params.yaml").write_text("runs: here\n")
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path) as running:
        wait_for((tmp_path / "begun").exists)
        below = psutil.Process(running.pid).children(recursive=True)
        running.kill()
        running.wait()
        with pytest.raises(ValueError, match="another process is at work"), lock_folder(tmp_path):
            pass
    for process in below:
        process.kill()
    assert not psutil.wait_procs(below, timeout=60)[1]
    with lock_folder(tmp_path):
        pass


def test_a_mistake_is_one_sentence_before_anything_runs(tmp_path, capfd, tiny_store):
    few, data = write_classes(tmp_path / "few", 20), write_mtat(tmp_path / "mtat")
    rate = [f"store={tiny_store.folder}", "settings={sample_rate: 8000}"]
    for arguments, sentence in (
        (["--set", "seed"], "is not a name=value pair"),
        (["--dataset", "folder"], "give it with --data"),
        (["--data", "nowhere"], "annotations_final.csv does not exist"),
        (["--data", str(data), "--set", "options={split: ful}"], "unknown split 'ful'"),
        (["--data", str(data), "--set", "tag=techno"], "unknown tag 'techno'"),
        (["--data", f"folder={data}", "--set", "options={table: x.csv}"], "x.csv"),
        (["--data", str(data), "--dataset", "mtta"], "unknown data set 'mtta'"),
        (["--data", f"folder={few}"], "has 2 tagged test clips"),
        (["--profile", str(tmp_path)], "holds no config.yaml"),
        (command_of(tmp_path, *rate)[3:], "at 16,000 Hz, but the settings say 8,000: name another"),
        *((command_of(tmp_path, change)[3:], "") for change in MISTAKES),
    ):
        assert cli.main(["reproduce", "--preset", "smoke", *arguments]) == 2, arguments
        error = capfd.readouterr().err
        assert sentence in error and error.count("\n") == 1, (arguments, error)
    assert not (tmp_path / "runs").exists() and not list(tmp_path.glob("*.store"))


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ("tag=no", """not False (to give text, quote it: 'tag="…"')"""),
        ("tag=null", """not None (to give text, quote it: 'tag="…"')"""),
        ("options={tags: 7}", """quote it: 'tags="…"'"""),
    ],
)
def test_set_tag_no_hints_at_quoting(change, hint, tmp_path, capfd):
    assert reproduce(tmp_path, change) == 2
    error = capfd.readouterr().err
    assert hint in error and error.count("\n") == 1 and not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["my {music}", "a}b", "<results>", "-x"])
@pytest.mark.parametrize("parameter", ["runs", "store"])
def test_a_folder_with_braces_and_other_signs_is_refused(parameter, name, tmp_path, capfd):
    assert reproduce(tmp_path, f"{parameter}={name}") == 2
    error = capfd.readouterr().err
    assert f"{name} has a brace, angle bracket or leading hyphen, which Snakemake" in error
    assert error.count("\n") == 1 and not [*tmp_path.iterdir()]


def jobs_of(runs: Path) -> list[str]:
    return (runs / "snakemake.log").read_text().split("rule ")


@pytest.mark.parametrize(
    ("situation", "sentence"),
    [
        ("no training clips", "has 0 train clips, where the notebooks need at least 8"),
        ("one training clip", "has 1 train clips"),
        (
            "one tag for all clips",
            "has 20 train clips, where the notebooks need at least 8 with diff",
        ),
        ("no validation clips", "has 0 valid clips, where the notebooks need at least 2 with diff"),
        ("no audio of validation", "has 0 valid clips"),
        ("no validation clip with tags", "has 10 valid clips, where the notebooks need at least 2"),
        ("no test clips", "has 0 tagged test clips, where the notebooks need at least 3"),
        ("no test clip with tags", "has 0 tagged test clips"),
        ("a tag only in test", None),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_it_trains(tmp_path, situation, sentence):
    rows = [
        (split, f"{split}{n}.wav", "ab"[n % 2])
        for split in ("train", "valid", "test")
        for n in range(20 if split == "train" else 10)
    ]
    table = pd.DataFrame(rows, columns=["split", "path", "tags"])
    for path in table.path:
        (tmp_path / path).touch()
    split = {"training": "train", "validation": "valid", "test": "test"}
    split = next((split[word] for word in split if word in situation), "train")
    own = table.split == split
    if "with tags" in situation:
        table.loc[own, "tags"] = ""
    elif "audio" in situation:
        for path in table.path[own]:
            (tmp_path / path).unlink()
    elif "one tag" in situation:
        table["tags"] = "a"
    elif "only in" in situation:
        table.loc[own & (table.tags == "a"), "tags"] = "rare"
    else:
        table = table[~own | (table.path == "train0.wav") & situation.startswith("one")]
    table.to_csv(tmp_path / "tags.csv", index=False)
    values = yaml.safe_load((ROOT / "notebooks" / "params" / "smoke.yaml").read_text())
    values |= {"dataset": "folder", "data": str(tmp_path), "options": {"table": "tags.csv"}}
    values |= {"store": str(tmp_path / "store"), "tag": ""}
    if sentence is None:
        return runner.check_data(values)
    with pytest.raises(ValueError, match=f"{sentence}.* add clips or change the splits"):
        runner.check_data(values)


def test_a_profile_says_where_jobs_run_and_how_many(tmp_path):
    """All of the command except the jobs: the profile asks for a dry run."""
    (tmp_path / "config.yaml").write_text("cores: 3\ndry-run: true\n")
    places = [f"{name}={tmp_path / name}" for name in ("data", "store", "runs", "out")]
    command = ["reproduce", "--preset", "smoke", "--profile", str(tmp_path), "--cores", "2"]
    assert cli.main([*command, "--set", *places]) == 0
    jobs = jobs_of(tmp_path / "runs")
    (preparing,) = {job for job in jobs if job.startswith("prepare_rendered:")}
    assert "threads: 2" in preparing  # the command line overrides the profile
    assert not list(tmp_path.rglob("*.ipynb"))


def test_the_documented_command_for_a_cluster_asks_for_what_its_profile_says(tmp_path, monkeypatch):
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
    trainings = [job for job in jobs_of(tmp_path / "runs") if job.startswith("train_stage")]
    asked = ["runtime=2880", "gpu=1", "mem_mb=32000", "cpus_per_task=8"]
    assert len([job for job in trainings if job.startswith("train_stage2")]) == 186
    assert all(all(f" {one}" in job for one in asked) for job in trainings)
    profile = ["--workflow-profile", command[command.index("--profile") + 1]]
    _, understood = parse_args(["--snakefile", "notebooks/Snakefile", *profile])
    assert (understood.executor, understood.jobs, understood.retries) == ("slurm", 64, 1)
    assert not list(tmp_path.rglob("*.ipynb"))


def test_outside_a_checkout_a_working_folder_is_asked_for(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["reproduce", "--preset", "smoke"]) == 2
    error = capfd.readouterr().err
    assert "name a folder for a copy of the notebooks with --workdir" in error
    assert error.count("\n") == 1


def test_a_working_folder_gets_notebooks_once_and_keeps_its_own(tmp_path, capfd, monkeypatch):
    """Paths of options are those of the user, paths of parameters start at the folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text("cores: 1\ndry-run: true\n")
    write_mtat(tmp_path / "mtat")
    command = ["reproduce", "--preset", "demo", "--workdir", "work", "--data", "mtat"]
    command += ["--profile", "profile", "--set", "tag=''"]
    assert cli.main(command) == 0
    notebooks, runs = tmp_path / "work" / "notebooks", tmp_path / "work" / "runs" / "demo-mtat"
    params = yaml.safe_load((runs / "params.yaml").read_text())
    assert params["data"] == str(tmp_path / "mtat")
    assert any(job.startswith("prepare_mtat") for job in jobs_of(runs))
    assert (notebooks / "06_paper_results.ipynb").is_file() and Path.cwd() == tmp_path
    (notebooks / "params" / "demo.yaml").write_text("preset: mine\n")
    assert cli.main(command) == 2 and "unknown preset 'mine'" in capfd.readouterr().err
    assert (notebooks / "params" / "demo.yaml").read_text() == "preset: mine\n"


def test_render_writes_a_data_set(tmp_path):
    folder = str(tmp_path / "music")
    assert cli.main(["render", folder, "--clips", "2", "--seconds", "1"]) == 0
    assert (tmp_path / "music" / "annotations_final.csv").is_file()
    assert cli.main(["render", folder, "--clips", "3", "--seconds", "1"]) == 2
