"""The command `jetatag`: one function for each verb, which calls the functions of the notebooks.

cyclopts makes the parser, the help and shell completion from the signatures and docstrings here and
in `jetatag.apps.commands`. Large libraries are imported inside the verbs.
"""

import errno
import os
import re
import sys
import warnings
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.help import DefaultFormatter, PanelSpec
from rich.box import Box
from rich.filesize import decimal

from jetatag import __version__
from jetatag.apps import commands
from jetatag.apps.commands import File, FilePath, say
from jetatag.files import check_known, check_type, check_writable, use_temporary_caches
from jetatag.grid import packaged_notebooks

PRESETS = sorted(path.stem for path in (packaged_notebooks() / "params").glob("*.yaml"))
Texts = Annotated[tuple[str, ...], Parameter(consume_multiple=True, show_default=False)]
Changes = Annotated[Texts, Parameter("--set")]
Cores = Annotated[str | None, Parameter(validator=commands.check_cores)]
HELP = """Music auto-tagging with joint embeddings: train taggers, tag files, search music by tags.

```
jetatag reproduce                  # the notebooks on the built-in data
jetatag tag RUN song.mp3 album/    # the tags of files and folders
jetatag index RUN music/           # index a folder of music
jetatag search music.index --tags 'piano, slow, -vocal' --m3u quiet.m3u
```
"""

app = App(
    "jetatag",
    help=HELP,
    version=f"jetatag {__version__}",
    usage="Usage: jetatag VERB [--help]",
    group_commands="Verbs",
    help_format="markdown",
    help_formatter=DefaultFormatter(panel_spec=PanelSpec(box=Box("    \n" * 8), padding=0)),
    default_parameter=Parameter(
        negative_iterable=(), allow_repeating=True, json_list=False, json_dict=False
    ),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)


@app.command
def reproduce(
    *,
    preset: Literal[*PRESETS] = "demo",
    changes: Changes = (),
    data: Texts = (),
    dataset: str | None = None,
    workdir: File = None,
    cores: Cores = None,
    profile: File = None,
) -> int:
    """Run the notebooks of a preset.

    Prepares data, trains, evaluates and draws figures for a grid of runs. Notebooks whose results
    exist are not run again, so an interrupted command continues where it stopped.

    ```
    jetatag reproduce --preset demo
    jetatag reproduce --preset smoke --workdir trial
    jetatag reproduce --preset paper --data /data/mtat --set device=cuda seed=0
    ```

    Args:
        preset: how much to run: smoke and demo take minutes, study hours, paper
            days; fast needs a fifth of paper's computation
        changes: change parameters of notebooks/params/PRESET.yaml, such as seed=1 or
            'options={split: artist_disjoint}'
        data: folder of a data set, instead of the preset's; several as DATASET=FOLDER
        dataset: name of the data set in --data (default: mtat); `jetatag list` has the others
        workdir: folder to work in, for data, runs and a copy of the notebooks (default: the current
            folder, which must be a checkout of jetatag)
        cores: processor cores to use (default: all; with --profile, as the profile says)
        profile: folder of a Snakemake profile, which says where jobs run and how many at once, such
            as notebooks/profiles/slurm
    """
    from jetatag.grid import runner

    given = commands.parse_changes(changes)
    status, failures = runner.reproduce(preset, given, data, dataset, workdir, cores, profile)
    for sentence in failures:
        say(sentence)
    return status


@app.command
def train(*, config: FilePath, changes: Changes = (), until: str | None = None) -> None:
    """Train one run and score it, on several GPUs with torchrun.

    Trains the run that a YAML file describes and scores its test clips. An interrupted command
    continues from the last checkpoint. `jetatag list` shows the names that settings accept.

    ```
    jetatag train --config run.yaml --set seed=1
    torchrun --nproc-per-node 8 --no-python jetatag train --config run.yaml
    ```

    Args:
        config: YAML file with store, runs, preset and any settings of jetatag.config.RunConfig,
            or config.json of a run
        changes: change what the file says, such as seed=1
        until: stop after this stage, such as stage1
    """
    from jetatag.config import preset, read_yaml
    from jetatag.data.splits import can_score
    from jetatag.data.store import AudioStore
    from jetatag.evaluation import predict
    from jetatag.evaluation.results import score_table
    from jetatag.training import processes, train
    from jetatag.training.run import Run
    from jetatag.training.runs import banner

    values = {"preset": "paper", "store": None, "runs": "runs"}
    places = list(values)
    for given in (read_yaml(config), commands.parse_changes(changes)):
        settings = check_type(given.pop("settings", {}), dict, "settings")
        values |= given | settings
    if values["store"] is None:
        raise ValueError(f"{config} names no store: add the folder that notebook 01 prepared.")
    check_known(values, [*places, *preset("paper").to_dict()], "training parameter")
    name, store, parent = (check_type(values.pop(place), str, place) for place in places)
    run_config, audio = preset(name, **values), AudioStore.open(store)
    if until is None and not can_score(audio.labels[audio.rows("test")]):
        remedy = "check the split when preparing it, or only train, with --until and the last stage"
        raise ValueError(f"{store} has no test clips with different tags to score: {remedy}.")
    with processes.launch(run_config).rank_zero_first():  # the first process creates the run
        run = Run.start(parent, run_config, audio)
    if run.writes:
        print(banner(run_config))
    model = train.train(run, audio, until)
    if until is None:
        predict.predict(run, model, audio)
    if run.writes:
        print(score_table(run).round(3).to_string(index=False) if run.has("scores.npz") else "")
        print(run.folder)


for verb in commands.VERBS:
    app.command(verb)


@app.command
def runs(folder: FilePath = Path("runs"), /) -> None:
    """List all runs below a folder: settings, progress, validation scores, time and memory.

    Example: `jetatag runs runs/demo`

    Args:
        folder: where to look
    """
    from jetatag.training.runs import listing

    print(listing(folder).to_string(index=False, float_format="{:.3f}".format))


@app.command
def report(
    runs: list[FilePath], /, *, out: FilePath = Path("report.html"), store: File = None
) -> None:
    """Write one HTML page about finished runs.

    The page has tables, figures and settings, and the best and worst tagged clips to listen to. Any
    browser opens it without a server.

    Example: `jetatag report runs/demo/rendered --store data/rendered-demo.store --out demo.html`

    Args:
        runs: run folders, or folders that hold runs
        out: the page
        store: prepared data of the test clips, to listen to them
    """
    from jetatag.grid import report

    check_writable(out)
    shown, without = report.write(runs, out, store)
    if without:
        say(f"left out, because they hold no finished run: {', '.join(map(str, without))}.")
    print(f"{out}: {len(shown)} run{'s' if len(shown) > 1 else ''}, {decimal(out.stat().st_size)}")


@app.command
def render(folder: FilePath, /, *, clips: int = 1600, seconds: float = 6, seed: int = 0) -> None:
    """Write the built-in data set in MagnaTagATune's layout.

    Composes and renders tagged music. The data set is free to use and is read like MagnaTagATune.
    On one type of CPU, the same random seed gives the same data. `jetatag reproduce` does this
    itself.

    Example: `jetatag render my_data --clips 300 --seconds 6`

    Args:
        folder: where to write it
        clips: number of clips
        seconds: length of a clip
        seed: random seed
    """
    from jetatag import rendered

    rendered.write(folder, clips, seconds, seed)
    print(f"{folder}: {clips:,} clips of {seconds:g} s in MagnaTagATune's layout, with their tags")


@app.command(name="list")
def list_names() -> None:
    """List the names of losses, methods, extractors, data sets and presets.

    Example: `jetatag list`
    """
    from jetatag.data import DATASETS
    from jetatag.extractors import EXTRACTORS
    from jetatag.joint import losses, methods

    tables = {"pair_loss": losses.PAIR_LOSSES, "method": methods.METHODS}
    tables |= {"classification_loss": losses.CLASSIFICATION_LOSSES, "extractor": EXTRACTORS}
    tables |= {"dataset": DATASETS, "preset": PRESETS}
    for setting, names in tables.items():
        print(f"{setting}: {', '.join(names)}")


@app.command
def completion(shell: Literal["bash", "zsh", "fish", "powershell"], /) -> None:
    """Print the script that completes this command in a shell.

    ```
    eval "$(jetatag completion bash)"               # in ~/.bashrc
    jetatag completion zsh > ~/.zfunc/_jetatag      # a folder in $fpath
    jetatag completion fish > ~/.config/fish/completions/jetatag.fish
    ```

    Args:
        shell: which shell
    """
    print(app.generate_completion(shell=shell))


def use_utf8() -> None:
    """Start this process again in Python's UTF-8 mode if the locale has another encoding, in which
    file names and tags of other alphabets could be neither read nor printed."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, os.environ | {"PYTHONUTF8": "1"})
    for stream in (sys.stdout, sys.stderr):  # for which PYTHONIOENCODING may name another
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0; 1 if some files or runs failed; 2 for a
    mistake, with one line on standard error; 130 for Ctrl-C; 141 if nobody reads the output."""
    if arguments is None:
        use_utf8()
        warnings.showwarning = lambda message, *_, **__: say(" ".join(str(message).split()))
        arguments = sys.argv[1:]
    try:
        use_temporary_caches()
        if not arguments:
            raise ValueError("name a verb; see jetatag --help.")
        status = app(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
        return status or 0
    except CycloptsError as error:
        text = " ".join(str(error).split()).replace("...", "…").rstrip(".?")
        text = re.sub(r"[.?] ([A-Z])", lambda start: f"; {start[1].lower()}", text)
        command = " ".join(["jetatag", *(error.command_chain or [])])
        say(f"{text[:1].lower()}{text[1:]}; see {command} --help.")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        named = isinstance(error, OSError) and error.filename and error.strerror
        forbidden = named and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        remedy = ": change its permissions or name another" if forbidden else ""
        say(f"{error.filename}: {error.strerror}{remedy}." if named else error)
        return 2
    except KeyboardInterrupt:
        say("interrupted; run the same command again to continue, where possible.")
        return 130
