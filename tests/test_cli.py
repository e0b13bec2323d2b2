"""The command: help for every verb and option, mistakes in one sentence, shell completion."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest

import jetatag
from jetatag import cli
from jetatag.config import PRESETS
from jetatag.data.audio import SHORTEST_S

VERBS = {name: cli.app[name] for name in cli.app if not name.startswith("-")}
EXAMPLE = re.compile(r"^ *(?:Example: `|.*\(|torchrun .*)?(jetatag [^`#)>\n]*)", re.MULTILINE)


def options(name):
    return list(VERBS[name].assemble_argument_collection(parse_docstring=True))


def help_of(capsys, *verb):
    assert cli.main([*verb, "--help"]) == 0
    return capsys.readouterr().out


def help_text(capsys, verb):
    """The help of a verb as one line."""
    return " ".join(help_of(capsys, verb).split())


def test_the_verbs_are_these():
    verbs = "completion export import-original index list push render report reproduce runs search"
    assert sorted(VERBS) == [*verbs.split(), "tag", "train"]


@pytest.mark.parametrize("name", VERBS)
def test_help_explains_every_option_and_fits_a_terminal(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    text = help_of(capsys, name)
    assert text.startswith(f"Usage: jetatag {name}") and f"jetatag {name}" in text[20:]
    assert max(map(len, text.splitlines())) <= 90
    assert not re.search(r"[│╭─\x1b]", text)
    for option in options(name):
        assert option.parameter.help and len(option.parameter.help) > 5, option.name


def test_help_says_what_one_cannot_guess(capsys):
    """Every preset, what a score is, and what happens to short and silent files."""
    preset = next(option for option in options("reproduce") if option.name == "--preset")
    assert all(re.search(rf"\b{name}\b", preset.parameter.help) for name in PRESETS)
    assert sorted(PRESETS) == sorted(cli.PRESETS)
    text = help_text(capsys, "search")
    assert "cosine" in text and "geometric mean of the probabilities p" in text
    text = help_text(capsys, "tag")
    assert f"{SHORTEST_S} s" in text and "silent" in text and "Ctrl-C" in text
    assert "links to folders, which are not" in help_text(capsys, "index")


def test_the_command_lists_its_verbs_and_version(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = help_of(capsys)
    for name in VERBS:
        assert re.search(rf"^ {name}\s+[A-Z]", text, flags=re.MULTILINE), name
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"jetatag {jetatag.__version__}\n"


def test_examples_are_commands_that_parse():
    texts = {name: verb.help for name, verb in VERBS.items()} | {"": cli.HELP}
    examples = {name: EXAMPLE.findall(text) for name, text in texts.items()}
    assert all(any(name in line for line in lines) for name, lines in examples.items())
    for line in [line for lines in examples.values() for line in lines]:
        given = shlex.split(line)[1:]
        verb, *_ = cli.app.parse_args(given, exit_on_error=False, print_error=False)
        assert verb.__module__ in ("jetatag.cli", "jetatag.apps.commands")


def test_help_and_completion_import_no_torch():
    program = "import sys; from jetatag.cli import main; main(sys.argv[1:]); "
    program += "sys.exit(bool({'torch', 'pandas', 'matplotlib'} & set(sys.modules)))"
    for arguments in (["--help"], ["train", "--help"], ["completion", "bash"]):
        command = [sys.executable, "-c", program, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def test_the_names_of_the_registries_are_listed(capsys):
    assert cli.main(["list"]) == 0
    lines = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    names = {"pair_loss", "method", "classification_loss", "extractor", "dataset", "preset"}
    assert lines.keys() == names
    assert "subset_query" in lines["pair_loss"].split(", ") and "smoke" in lines["preset"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name a verb; see jetatag --help."),
        (["serch"], 'unknown command "serch"; did you mean "search"; '),
        (["search", "x"], "give either --tags or --like; see jetatag search --help."),
        (["search", "x", "--tags", "a", "--like", "b"], "give either --tags or --like; see"),
        (["tag", "x", "y", "--top", "many"], 'for --top: unable to convert "many" into int; see'),
        (["tag", "x", "y", "--top", "0"], 'value "0" for --top; must be >= 1; see'),
        (["tag", "x", "y", "--workers", "0"], "--workers; must be >= 1; see"),
        (["index", "x", "y", "--workers", "-1"], "--workers; must be >= 1; see"),
        (["search", "x", "--tags", "a", "--top", "0"], "--top; must be >= 1; see"),
        (["tag", "x", "y", "--tpo", "1"], "unknown option: --tpo; did you mean --top; see"),
        (["tag", "x"], 'command "tag" parameter PATHS requires an argument; see jetatag tag'),
        (["reproduce", "--cores", "0"], "--cores; it must be all or at least 1; see"),
        (["reproduce", "--cores", "x"], 'invalid value "x" for --cores; it must be all or a'),
        (["reproduce", "--preset", "demos"], 'did you mean "demo"; see jetatag reproduce --help.'),
        (["reproduce", "--set", "runs=my #1"], """YAML reads only 'my'; quote it: 'runs="…"'."""),
        (["completion", "tcsh"], 'choose from: "bash", "zsh", "fish", "powershell"; see'),
        (["tag", "RUN", ""], 'for PATHS: unable to convert "" into Path; see jetatag tag --help.'),
        (["index", "RUN", ""], "a path must not be empty; see jetatag index --help."),
        (["search", "x", "--like="], "invalid value for --like: a path must not be empty; see"),
    ],
)
def test_a_mistake_in_the_arguments_is_one_sentence(arguments, sentence, capsys):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("jetatag: ") and error.count("\n") == 1 and error.endswith(".\n")
    assert sentence in error


def test_odd_file_names_are_taken_as_they_are(capsys):
    """JSON, an argument file or an option: no part of a name decides that it is one."""
    names = ["[live].mp3", "{x}.wav", "@a.wav", "a=b.wav"]
    _, bound, _ = cli.app.parse_args(["tag", "RUN", *names, "--", "-x.wav"])
    assert list(map(str, bound.args[1])) == [*names, "-x.wav"]


def test_errors_of_the_system_are_told_without_their_number(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["render", str(tmp_path / "file"), "--clips", "30"]) == 2
    assert capsys.readouterr().err == f"jetatag: {tmp_path}/file: File exists.\n"


def test_a_warning_is_one_line_without_its_place_in_the_code(tmp_path):
    program = "import sys; from jetatag.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "import-original", tmp_path, "--tags", "mtat"]
    done = subprocess.run(command, capture_output=True, text=True)
    first, second = done.stderr.splitlines()
    assert re.fullmatch(r"jetatag: public lists differ .* give annotations_final\.csv\.", first)
    assert done.returncode == 2 and second.startswith(f"jetatag: {tmp_path} has no SavedModel")


def test_without_a_run_the_command_that_makes_one_is_named(tmp_path, capsys):
    for verb in (["tag", str(tmp_path), "x.wav"], ["report", str(tmp_path)]):
        assert cli.main(verb) == 2
        assert re.search("`jetatag (reproduce|train)", capsys.readouterr().err)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_scripts_know_every_verb(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in VERBS) and "tags" in script


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["sea"], {"search"}),
        (["rep"], {"reproduce", "report"}),
        (["search", "x", "--t"], {"--tags", "--top"}),
        (["search", "x", "--by", "c"], {"classifier", "combined"}),
        (["search", "x", "--like", "so"], {"song.mp3"}),
        (["tag", "RUN", "so"], {"song.mp3"}),
        (["train", "--config", "so"], {"song.mp3"}),
        (["reproduce", "--preset", "de"], {"demo"}),
    ],
)
def test_bash_completes(words, completed, tmp_path, capsys):
    cli.main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "song.mp3").touch()
    program = (
        'source ./script; COMP_WORDS=(jetatag "$@"); COMP_CWORD=$#; _jetatag; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = ["bash", "--norc", "-c", program, "bash", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == "" and set(done.stdout.split()) == completed
