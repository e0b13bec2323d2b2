"""The command tells what it does: help for every verb and option, mistakes, shell completion."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import jetatag
from jetatag import cli
from jetatag.config import PRESETS
from jetatag.data.audio import SHORTEST_S


def verbs():
    (choices,) = (a.choices for a in cli.build_parser()._actions if isinstance(a.choices, dict))
    return choices


def actions(parser):
    return [action for action in parser._actions if action.dest != "help"]


@pytest.mark.parametrize("name", verbs())
def test_every_verb_and_option_is_explained(name):
    verb = verbs()[name]
    assert verb.description.endswith(".") and len(verb.description) > 40
    examples = re.findall(rf"^  .*\bjetatag {name}\b", verb.epilog, flags=re.M)
    assert examples and verb.epilog.startswith("example")
    for action in actions(verb):
        assert action.help and len(action.help) > 5, action.dest
        if isinstance(action.default, int | float | str | Path) and action.default is not False:
            hidden = action.nargs == 0  # a flag says what it turns off
            assert hidden or "default" in action.help, action.dest


def test_help_says_what_one_cannot_guess():
    """Every preset, what a score is, and what becomes of short and silent files."""
    (preset,) = (a for a in actions(verbs()["reproduce"]) if a.dest == "name")
    assert all(re.search(rf"\b{name}\b", preset.help) for name in PRESETS)
    told = verbs()["search"].description
    assert "cosine" in told and "geometric mean of the probabilities p" in told
    told = verbs()["tag"].description
    assert f"{SHORTEST_S} s" in told and "silent" in told and "Ctrl-C" in told
    assert "links to folders, which are not followed" in verbs()["index"].description


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["tag", "no run", "x.wav"], "--top"),
        (["tag", "no run", "x.wav"], "--workers"),
        (["index", "no run", "music"], "--workers"),
        (["search", "no index", "--tags", "a"], "--top"),
    ],
)
def test_numbers_below_one_are_refused_before_anything_is_read(arguments, option, capsys):
    assert cli.main([*arguments, option, "0"]) == 2
    assert capsys.readouterr().err == f"jetatag: {option} must be at least 1, not 0.\n"


def test_what_the_system_refuses_is_told_without_its_number(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["render", str(tmp_path / "file"), "--clips", "30"]) == 2
    assert capsys.readouterr().err == f"jetatag: {tmp_path}/file: File exists.\n"
    assert cli.reason(OSError("the disk is gone")) == "the disk is gone"


def test_who_has_no_run_is_told_how_to_make_one(tmp_path, capsys):
    for verb in (["tag", str(tmp_path), "x.wav"], ["report", str(tmp_path)]):
        assert cli.main(verb) == 2
        assert "`jetatag reproduce`" in capsys.readouterr().err


@pytest.mark.parametrize("name", verbs())
def test_help_fits_a_terminal_and_keeps_its_examples(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    told = capsys.readouterr().out
    assert end.value.code == 0 and told.startswith(f"usage: jetatag {name}")
    assert verbs()[name].epilog in told
    assert max(map(len, told.splitlines())) <= 90


def test_the_command_lists_its_verbs_in_one_line_each(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    told = capsys.readouterr().out
    for name in verbs():
        assert re.search(rf"^    {name}\s+[a-z]", told, flags=re.M), name
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"jetatag {jetatag.__version__}\n"


def test_examples_are_commands_that_parse():
    parser = cli.build_parser()
    texts = [parser.epilog, *(verb.epilog for verb in verbs().values())]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("  ")]
    assert len(lines) > len(verbs())
    for line in lines:
        command = re.search(r"\bjetatag (.*?)(  .*|\)\".*| > .*)?$", line)[1]
        assert callable(parser.parse_args(shlex.split(command)).run)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: VERB; see jetatag --help."),
        (["serch"], "invalid choice: 'serch'"),
        (["search", "x"], "one of the arguments --tags --like is required; see jetatag search"),
        (["search", "x", "--tags", "a", "--like", "b"], "not allowed with argument"),
        (["tag", "x", "y", "--top", "many"], "invalid int value: 'many'"),
        (["reproduce", "--cores", "0"], "argument --cores: must be all or a number from 1, not 0"),
        (["reproduce", "--cores", "x"], "not x"),
        (["completion", "fish"], "choose from"),
        (["tag", "RUN", ""], "argument PATH: must not be empty; see jetatag tag --help."),
        (["index", "RUN", ""], "argument FOLDER: must not be empty"),
        (["search", "x", "--like="], "argument --like: must not be empty"),
    ],
)
def test_a_mistake_in_the_arguments_is_one_sentence(arguments, said, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    told = capsys.readouterr().err
    assert end.value.code == 2 and told.startswith("jetatag: ") and told.count("\n") == 1
    assert said in told


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_scripts_for_shells_know_every_verb(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in verbs()) and "--tags" in script


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["sea"], {"search"}),
        (["rep"], {"reproduce", "report"}),
        (["search", "x", "--t"], {"--tags", "--top"}),
        (["search", "x", "--by", "c"], {"classifier"}),
        (["search", "x", "--like", "so"], {"song.mp3"}),
        (["tag", "so"], {"song.mp3"}),
        (["train", "--config", "so"], {"song.mp3"}),
        (["reproduce", "--preset", "de"], {"demo"}),
    ],
)
def test_bash_completes(words, completed, tmp_path, capsys):
    cli.main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "song.mp3").touch()
    ask = (
        'source ./script; COMP_WORDS=(jetatag "$@"); COMP_CWORD=$#; _shtab_jetatag; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    told = subprocess.run(
        ["bash", "--norc", "-c", ask, "bash", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert told.stderr == "" and set(told.stdout.split()) == completed
