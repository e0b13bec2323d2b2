"""The verbs in any locale, for users who may not write everywhere, and beside folders that nobody
may change."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from jetatag import cli
from jetatag.apps.search import Index
from jetatag.config import Phase
from jetatag.data.store import AudioStore
from jetatag.files import CACHES, use_temporary_caches
from jetatag.grid.report import NOTEBOOKS

RATE = 16_000
LATIN_1 = "en_US.ISO-8859-1"
LOCALES = {
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin-1": {"LC_ALL": LATIN_1, "PYTHONIOENCODING": "latin-1"},
}
VERBS = """import json, sys
from jetatag import cli
from jetatag.data import folder, store

verbs, data, out = sys.argv[1:]
if data:
    store.build(folder.load(data, "tags.csv"), out)  # a library cannot change the mode
cli.use_utf8()
print(sys.flags.utf8_mode)
print([cli.main(verb) for verb in json.loads(verbs)])
"""


def write_noise(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, RATE), RATE)


def write_settings(path, config, **places):
    """The YAML file of a run of one epoch in one stage."""
    phases = (Phase("adam", 1e-3, 1),)
    config = config.replace(method="joint", stage1=phases, stage2=phases, n_windows=1)
    settings = json.loads(json.dumps(config.to_dict()))
    places = {name: str(place) for name, place in places.items()}
    path.write_text(yaml.safe_dump(settings | places, allow_unicode=True), "utf-8")


def write_executed_notebooks(runs, text):
    """Notebooks as if they were executed on runs that end within the hour."""
    (runs / "notebooks").mkdir(parents=True)
    for name in NOTEBOOKS:
        output = nbformat.v4.new_output("stream", name="stdout", text=text)
        cell = nbformat.v4.new_code_cell("x", outputs=[output])
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), runs / "notebooks" / name)
        os.utime(runs / "notebooks" / name, (time.time() + 3600,) * 2)


def call(verbs, environment, data="", out="", before=()):
    """Call verbs in a process of their own, started by the command `before`."""
    given = json.dumps([[*map(str, verb)] for verb in verbs], ensure_ascii=False)
    command = [*before, sys.executable, "-c", VERBS, given, data, out]
    return subprocess.run(command, env=environment, capture_output=True)


@pytest.mark.parametrize("locale", LOCALES)
def test_greek_and_japanese_names_and_tags_are_read_in_any_locale(locale, tiny_config, tmp_path):
    """A store, a run, tags, an index, a page and an export are the same as under UTF-8."""
    if locale == "latin-1":
        (tmp_path / "locales").mkdir()
        make = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", tmp_path / "locales" / LATIN_1]
        if not shutil.which("localedef") or subprocess.run(make, capture_output=True).returncode:
            pytest.skip("this system cannot make a Latin-1 locale")
    music, data, runs = (tmp_path / name for name in ("music", "δεδομένα", "τρεξίματα"))
    found = {"Ελλάς/ä.wav", "音楽/歌.wav"}
    for seed, name in enumerate(sorted(found)):
        write_noise(music / name, seed)
    splits = ["train"] * 8 + ["valid"] * 4 + ["test"] * 4
    clips = [(f"音{n}.wav", split, ("歌", "ä")[n % 2]) for n, split in enumerate(splits)]
    for seed, (path, *_) in enumerate(clips):
        write_noise(data / path, seed)
    pd.DataFrame(clips, columns=["path", "split", "tags"]).to_csv(data / "tags.csv", index=False)
    out = data.with_name("αποθήκη")
    write_settings(tmp_path / "ρυθμίσεις.yaml", tiny_config, store=out, runs=runs)
    write_executed_notebooks(runs, "歌 λ")
    run = runs / "joint-subset_query-sample_cnn-seed0"
    verbs = [["train", "--config", tmp_path / "ρυθμίσεις.yaml"], ["runs", runs]]
    verbs += [["report", runs, "--store", out, "--out", tmp_path / "σελίδα.html"]]
    verbs += [["export", run, tmp_path / "εξαγωγή", "--no-onnx"]]
    verbs += [["tag", tmp_path / "εξαγωγή", music, "--csv", tmp_path / "tags.csv"]]
    verbs += [["index", run, music], ["search", f"{music}.index", "--tags", "歌"]]
    verbs += [["search", f"{music}.index", "--like", music / "音楽" / "歌.wav"]]
    environment = os.environ | LOCALES[locale] | {"LOCPATH": str(tmp_path / "locales")}
    done = call(verbs, environment, data, out)
    text = done.stdout.decode("latin-1" if locale == "latin-1" else "utf-8")
    assert text.startswith("1\n") and text.endswith(f"{[0] * len(verbs)}\n"), done.stderr.decode()
    shown = "歌".encode("latin-1", "backslashreplace").decode() if locale == "latin-1" else "歌"
    assert text.count(f"/{shown}.wav") == 2 and text.count("/ä.wav") == 3
    assert f"{shown} 0." in text and "ä 0." in text
    assert set(AudioStore.open(out).table.path) == {path for path, *_ in clips}
    assert set(AudioStore.open(out).vocabulary.tags) == {"歌", "ä"}
    page = (tmp_path / "σελίδα.html").read_text("utf-8")
    assert page.count("歌 λ") == 2 and "音15" in page
    assert "歌" in (tmp_path / "εξαγωγή" / "README.md").read_text("utf-8")
    table = pd.read_csv(tmp_path / "tags.csv")
    assert set(table.path) == {str(music / name) for name in found} and table["歌"].notna().all()
    assert set(Index.open(f"{music}.index").table["path"].to_pylist()) == found


WITHOUT_RIGHTS = {
    "the owner": ["--bounding-set", "-dac_override,-dac_read_search"],
    "a user without a name and a home": [
        *("--reuid", "54321", "--regid", "54321", "--clear-groups"),
        *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
    ],
}
"""Options of setpriv with which root may write no more than others; the second reads everything,
because the tests' folders, and perhaps Python's, are open to root alone."""


def without_rights(user):
    """The command that starts another as `user`; none is needed by one who is not root."""
    if os.geteuid():
        return [] if user == "the owner" else pytest.skip("only root can become another user")
    before = ["setpriv", *WITHOUT_RIGHTS[user]]
    if not shutil.which("setpriv") or subprocess.run([*before, "true"]).returncode:
        pytest.skip("this system cannot give up the rights of root")
    return before


@pytest.mark.parametrize("user", WITHOUT_RIGHTS)
def test_the_verbs_as_a_user_without_rights(user, tiny_store, tiny_config, tmp_path):
    """All is written into the only folder that is open, or refused in a sentence."""
    before, mine, theirs = without_rights(user), tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir()
    mine.chmod(0o777)  # whatever the umask is
    for seed, name in enumerate("ab"):
        write_noise(theirs / "music" / f"{name}.wav", seed)
    (theirs / "music" / "b.wav").chmod(0)
    for folder in (theirs / "music", theirs):
        folder.chmod(0o555)
    write_settings(tmp_path / "a.yaml", tiny_config, store=tiny_store.folder, runs=mine / "runs")
    write_executed_notebooks(mine / "runs", "")
    (mine / "runs").chmod(0o777)
    run = mine / "runs" / "joint-subset_query-sample_cnn-seed0"
    train, tag = ["train", "--config", tmp_path / "a.yaml"], ["tag", run, theirs / "music"]
    search, index = ["search", mine / "i", "--tags", "low"], ["index", run, theirs / "music"]
    denied, change = "(Permission denied): name another", "Permission denied: change its perm"
    calls = [
        (train, 0, ""),
        ([*train, "--set", f"runs={theirs / 'runs'}"], 2, f"{theirs / 'runs'}: {change}"),
        ([*tag, "--csv", mine / "t.csv"], int(user == "the owner"), ""),
        ([*tag, "--csv", theirs / "t.csv"], 2, f"{theirs / 't.csv'} cannot be written {denied}."),
        (index, 2, f"music.index/index.arrow cannot be written {denied} folder with --out."),
        ([*index, "--out", mine / "i"], 0, ""),
        (search, 0, ""),
        ([*search, "--m3u", theirs / "x.m3u"], 2, f"x.m3u cannot be written {denied}."),
        (["report", mine / "runs", "--out", mine / "page.html"], 0, ""),
        (["report", mine / "runs", "--out", theirs / "x.html"], 2, "x.html cannot be written"),
        (["export", run, mine / "exported", "--no-onnx"], 0, ""),
        (["export", run, theirs / "x"], 2, f"x/config.json cannot be written {denied}."),
        (["render", theirs / "rendered"], 2, f"{theirs / 'rendered'}: {change}"),
        (["reproduce", "--workdir", theirs / "work"], 2, f"{theirs / 'work'}: {change}"),
        (["reproduce", "--workdir", mine / "work", "--profile", mine / "profile"], 0, ""),
    ]
    (mine / "profile").mkdir()
    (mine / "profile" / "config.yaml").write_text("cores: 1\ndry-run: true\n")
    hidden = ("HOME", "USER", "LOGNAME", *CACHES)
    environment = {name: text for name, text in os.environ.items() if name not in hidden}
    environment |= {"TMPDIR": str(mine)} | ({"HOME": str(theirs)} if user == "the owner" else {})
    done = call([verb for verb, *_ in calls], environment, before=before)
    errors = done.stderr.decode()
    assert done.stdout.decode().endswith(f"{[status for _, status, _ in calls]}\n"), errors
    told = [line for line in errors.splitlines() if line.startswith("jetatag: ")]
    refusals = [sentence for _, status, sentence in calls if status == 2]
    unread = ["1 of 2 files could not be read."] * (user == "the owner")
    assert len(told) == len(unread + refusals) and "Traceback" not in errors
    assert all(any(sentence in line for line in told) for sentence in unread + refusals)
    reasons = pd.read_csv(mine / "t.csv", keep_default_na=False).error.tolist()
    denied = "unreadable audio (Permission denied); check its name, links and permissions"
    assert reasons == ["", denied if unread else ""]
    assert {path.name for path in theirs.iterdir()} == {"music"}
    kept = {path.name for path in mine.glob("[!.]*")}
    kept -= {"profile", "work"}
    assert kept == {"runs", "t.csv", "i", "page.html", "exported"}  # and no caches
    assert "train_stage1" in (mine / "work" / "runs" / "demo" / "snakemake.log").read_text()


def test_the_verbs_from_another_working_folder(
    tiny_store, tiny_config, tmp_path, monkeypatch, capsys
):
    """Relative paths start where the user is."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    write_noise(tmp_path / "music" / "a.wav", 0)
    store = os.path.relpath(tiny_store.folder)
    write_settings(tmp_path / "a.yaml", tiny_config, store=store, runs="../runs")
    run, found = "../runs/joint-subset_query-sample_cnn-seed0", "a.wav"
    for command in (
        ["train", "--config", "../a.yaml"],
        ["tag", run, "../music", "--csv", "tags.csv"],
        ["index", run, "../music", "--out", "found.index"],
        ["search", "found.index", "--tags", "low", "--m3u", "found.m3u"],
        ["search", "found.index", "--like", "../music/a.wav"],
        ["export", run, "exported", "--no-onnx"],
        ["tag", "exported", "../music/a.wav"],
        ["runs", "../runs"],
    ):
        assert cli.main(command) == 0, capsys.readouterr().err
    assert found in (tmp_path / "elsewhere" / "found.m3u").read_text()
    written = {path.name for path in Path().iterdir()}
    assert written == {"tags.csv", "found.index", "found.m3u", "exported"}


def test_an_index_beside_a_read_only_folder_says_that_out_helps(run, tmp_path):
    """Its default place is beside the music."""
    music = tmp_path / "theirs" / "music"
    write_noise(music / "a.wav", 0)
    music.parent.chmod(0o555)
    done = call([["index", run.folder, music]], os.environ, before=without_rights("the owner"))
    problem = f"jetatag: {music}.index/index.arrow cannot be written (Permission denied)"
    assert done.stderr.decode() == f"{problem}: name another folder with --out.\n"
    assert done.stdout.decode().endswith("[2]\n") and [*music.parent.iterdir()] == [music]


CACHED = """import os, sys
from jetatag import cli

assert cli.main(["--version"]) == 0
import huggingface_hub.constants
import matplotlib
import numba

# A function of a file whose folder nobody can write, as of site-packages.
exec(compile("@numba.njit(cache=True)\\ndef double(x): return 2 * x", "/proc/version", "exec"))
assert double(2) == 4
print(os.environ["XDG_CACHE_HOME"], matplotlib.get_cachedir(), huggingface_hub.constants.HF_HOME)
print(os.environ.get("MPLCONFIGDIR", "as ever"), os.environ.get("IPYTHONDIR", "as ever"))
"""


@pytest.mark.parametrize(
    ("closed", "n_kept"),
    [
        ("a home that does not exist", 0),
        ("the folder .cache alone", 2),
        ("the folder that XDG_CACHE_HOME names", 2),
    ],
)
def test_caches_that_cannot_be_written_are_led_to_a_temporary_folder(closed, n_kept, tmp_path):
    """Of maps (numba), Snakemake, figures and the Hub; the folder is removed at the end."""
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    temporary.mkdir()
    (home / ".cache").mkdir(parents=True)
    (home / ".cache").chmod(0o555)
    environment = {name: text for name, text in os.environ.items() if name not in CACHES}
    environment = {n: t for n, t in environment.items() if n not in ("NUMBA_CACHE_DIR", "HF_HOME")}
    environment |= {"HOME": "/proc/nowhere" if n_kept == 0 else str(home)}
    if "XDG" in closed:
        (home / ".cache").rename(tmp_path / "named")
        environment["XDG_CACHE_HOME"] = str(tmp_path / "named" / "within")
    command = [*without_rights("the owner"), sys.executable, "-c", CACHED]
    environment["TMPDIR"] = str(temporary)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert not done.returncode and not done.stderr, done.stderr
    *_, caches, others = done.stdout.splitlines()
    assert caches.count(str(temporary)) == 3 and others.count("as ever") == n_kept
    assert others.count(str(temporary)) == 2 - n_kept and not [*temporary.iterdir()]
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_machine_without_a_temporary_folder_is_told_in_a_sentence(monkeypatch, capsys):
    def fail(**options):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.mkdtemp", fail)
    monkeypatch.setattr("os.access", lambda *_: False)
    use_temporary_caches.cache_clear()
    assert cli.main(["--version"]) == 2
    use_temporary_caches.cache_clear()
    told = capsys.readouterr().err
    assert told.startswith("jetatag: ") and "No usable temporary" in told and told.count("\n") == 1


def test_a_place_that_cannot_be_written_is_one_sentence_with_a_remedy(run, tmp_path, capsys):
    sys_folder, music = "/sys/no folder", tmp_path / "music"
    write_noise(music / "a.wav", 0)
    assert cli.main(["index", str(run.folder), str(music), "--out", sys_folder]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"jetatag: {sys_folder}/index.arrow cannot be written (")
    assert told.endswith("): name another folder with --out.\n") and told.count("\n") == 1
    assert cli.main(["render", sys_folder]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"jetatag: {sys_folder}") and told.count("\n") == 1
    assert told.endswith(": change its permissions or name another.\n")
