"""The package installed from its wheel, far from the checkout: every verb works, or says what it
needs. `test_reproduce` runs all notebooks of such an installation."""

import json
import os
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from layouts import RATE, tone, write_wav

from jetatag import cli

ROOT = Path(__file__).parents[1]
VERBS = {name for name in cli.app if not name.startswith("-")}


def test_the_wheel_holds_the_package_and_the_notebooks(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {path.relative_to(ROOT) for path in (ROOT / "jetatag").rglob("*") if path.is_file()}
    files = {str(path) for path in files if "__pycache__" not in path.parts}
    notebooks = [path for path in (ROOT / "notebooks").rglob("*") if path.is_file()]
    kept = {path.relative_to(ROOT) for path in notebooks if ".ipynb_checkpoints" not in path.parts}
    assert names >= files | {f"jetatag/{path}" for path in kept}
    assert {name.split("/")[0] for name in names} == {"jetatag", "jetatag-0.1.0.dist-info"}


@pytest.fixture
def run_verb(installed, tmp_path):
    """Runs a verb in an empty folder; returns exit status, output and errors."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "VIRTUAL_ENV": ""}

    def run(*arguments):
        command = [str(argument) for argument in (installed, *arguments)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout, done.stderr

    run.environment = environment
    return run


def run_all(run_verb, commands):
    """Check that each verb prints its text; the text of an error is one line with exit status 2."""
    for command, text in commands.items():
        status, output, error = run_verb(*command)
        if text.startswith("jetatag: "):
            assert (status, error.count("\n")) == (2, 1) and error.startswith(text), command
        else:
            assert status == 0 and text in output, (command, error)


def test_every_verb_works_or_says_what_it_needs(
    run_verb, installed, tiny_store, tiny_config, tmp_path
):
    settings = json.loads(json.dumps(tiny_config.to_dict())) | {"method": "no_je"}
    settings |= {"pair_loss": "none", "store": str(tiny_store.folder)}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    write_wav(tmp_path / "music" / "a.wav", tone(440, 4.0), RATE)
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text("dry-run: true\n")
    (tmp_path / "tags.txt").write_text("a\nb\n")
    trained = "runs/no_je-sample_cnn-seed0"
    in_order = {
        ("train", "--config", "run.yaml"): trained,
        ("runs",): "no_je",
        ("tag", trained, "music/a.wav"): "music/a.wav: ",
        ("index", trained, "music"): "music.index: ",
        ("search", "music.index", "--tags", "-low"): "music/a.wav",
        ("export", trained, "shared", "--no-onnx"): "shared/README.md: ",
        ("push", "shared", "someone/tagger"): "jetatag: shared cannot be pushed to someone/tagger",
    }
    others = {
        ("completion", "bash"): "complete -F",
        ("list",): "subset_query",
        ("render", "rendered", "--clips", "2", "--seconds", "1"): "2 clips of 1 s",
        ("reproduce", "--preset", "smoke", "--workdir", "work", "--profile", "profile"): "",
        ("reproduce", "--preset", "smoke"): "jetatag: no folder notebooks/ here: run",
        ("report", "music"): "jetatag: no finished run under music: run `jetatag reproduce`",
        ("import-original", "saved", "--tags", "tags.txt"): "jetatag: ",
    }
    assert {verb for verb, *_ in [*in_order, *others]} == VERBS
    with ThreadPoolExecutor() as pool:  # two groups at the same time
        groups = [pool.submit(run_all, run_verb, group) for group in (in_order, others)]
    assert [group.result() for group in groups] == [None, None]
    log = (tmp_path / "work" / "runs" / "smoke" / "snakemake.log").read_text()
    assert str(tmp_path / "work" / "notebooks" / "01_prepare_data.ipynb") in log
    program = "import jetatag.grid; print(jetatag.__file__, jetatag.grid.packaged_notebooks())"
    python = [installed.with_name("python"), "-c", program]
    places = subprocess.check_output(python, text=True, cwd=tmp_path, env=run_verb.environment)
    for place in places.split():
        assert Path(place).is_relative_to(installed.parents[1])
