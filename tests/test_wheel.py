"""The package installed from its wheel, far from the checkout: every verb works, or says what it
needs. `test_reproduce` runs all notebooks of such an installation."""

import json
import os
import subprocess
import zipfile
from pathlib import Path

import yaml
from layouts import RATE, tone, write_wav

from jetatag import cli

ROOT = Path(__file__).parents[1]
VERBS = {name for name in cli.app if not name.startswith("-")}
IN_ONE_PROCESS = """import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
import jetatag.grid
from jetatag import cli

def run(arguments):
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        return cli.main(arguments), out.getvalue(), err.getvalue()

places = jetatag.__file__, str(jetatag.grid.packaged_notebooks())
print(json.dumps([places, [run(arguments) for arguments in json.load(sys.stdin)]]))"""


def test_the_wheel_holds_the_package_and_the_notebooks(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {path.relative_to(ROOT) for path in (ROOT / "jetatag").rglob("*") if path.is_file()}
    files = {str(path) for path in files if "__pycache__" not in path.parts}
    notebooks = [path for path in (ROOT / "notebooks").rglob("*") if path.is_file()]
    kept = {path.relative_to(ROOT) for path in notebooks if ".ipynb_checkpoints" not in path.parts}
    assert names >= files | {f"jetatag/{path}" for path in kept}
    assert {name.split("/")[0] for name in names} == {"jetatag", "jetatag-0.1.0.dist-info"}


def test_every_verb_works_or_says_what_it_needs(installed, tiny_store, tiny_config, tmp_path):
    """In an empty folder; the text of an error is one line, and the exit status 2."""
    settings = json.loads(json.dumps(tiny_config.to_dict())) | {"method": "no_je"}
    settings |= {"pair_loss": "none", "store": str(tiny_store.folder)}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    write_wav(tmp_path / "music" / "a.wav", tone(440, 4.0), RATE)
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text("dry-run: true\n")
    (tmp_path / "tags.txt").write_text("a\nb\n")
    trained = "runs/no_je-sample_cnn-seed0"
    expected = {
        ("train", "--config", "run.yaml"): trained,
        ("runs",): "no_je",
        ("tag", trained, "music/a.wav"): "music/a.wav: ",
        ("index", trained, "music"): "music.index: ",
        ("search", "music.index", "--tags", "-low"): "music/a.wav",
        ("export", trained, "shared", "--no-onnx"): "shared/README.md: ",
        ("push", "shared", "someone/tagger"): "jetatag: shared cannot be pushed to someone/tagger",
        ("completion", "bash"): "complete -F",
        ("list",): "subset_query",
        ("render", "rendered", "--clips", "2", "--seconds", "1"): "2 clips of 1 s",
        ("reproduce", "--preset", "smoke", "--workdir", "work", "--profile", "profile"): "",
        ("reproduce", "--preset", "smoke"): "jetatag: no folder notebooks/ here: run",
        ("report", "music"): "jetatag: no finished run under music: run `jetatag reproduce`",
        ("import-original", "saved", "--tags", "tags.txt"): "jetatag: ",
    }
    assert {verb for verb, *_ in expected} == VERBS
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "VIRTUAL_ENV": ""}
    options = {"cwd": tmp_path, "env": environment, "text": True}
    command = [installed.with_name("python"), "-c", IN_ONE_PROCESS]
    printed = subprocess.check_output(command, input=json.dumps(list(expected)), **options)
    places, done = json.loads(printed.splitlines()[-1])
    assert all(Path(place).is_relative_to(installed.parents[1]) for place in places)
    for (command, text), (status, output, error) in zip(expected.items(), done, strict=True):
        if text.startswith("jetatag: "):
            assert (status, error.count("\n")) == (2, 1) and error.startswith(text), command
        else:
            assert status in (0, None) and text in output, (command, error)
    log = (tmp_path / "work" / "runs" / "smoke" / "snakemake.log").read_text()
    assert str(tmp_path / "work" / "notebooks" / "01_prepare_data.ipynb") in log
    assert subprocess.check_output([installed, "--version"], **options).startswith("jetatag ")
