"""The command `jetatag`: short verbs over the same functions that the notebooks call.

Large libraries are imported where they are used: `reproduce` waits for the notebooks for minutes
and should not hold their memory meanwhile.
"""

import argparse
import dataclasses
import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from jetatag import __version__
from jetatag.checks import check_known, check_type
from jetatag.config import PRESETS, RunConfig, preset, read_yaml
from jetatag.files import check_writable, lock_folder, printable
from jetatag.grid import runner


def say(sentence: object) -> None:
    """Tell something on one line of standard error."""
    print(f"jetatag: {printable(str(sentence))}", file=sys.stderr)


def reason(error: Exception) -> str:
    """What went wrong, as a sentence; of a file without the system's number."""
    named = isinstance(error, OSError) and error.filename and error.strerror
    return f"{error.filename}: {error.strerror}." if named else str(error)


def reproduce(
    name: str,
    changes: list[str],
    cores: str | None,
    data: list[str],
    dataset: str | None,
    profile: Path | None,
) -> int:
    """Run the six notebooks over the grid of preset `name` by Snakemake, then print the results.

    `data` are folders to use instead of the preset's, one of `dataset` or several named
    dataset=folder; `changes` are name=value pairs over `notebooks/params/<name>.yaml`; with a
    Snakemake `profile`, such as a cluster's, its jobs run where that says. Only what is missing
    runs. Where runs fail, each data set's tables are made of those it has. Returns the exit status.
    """
    notebooks = runner.find_notebooks()
    runner.check_profile(profile)
    values = read_yaml(notebooks / "params" / f"{name}.yaml")
    values |= runner.own_data(name, data, dataset)
    values |= dict(_change(text) for text in changes)
    runner.check_parameters(values, sorted(notebooks.glob("0*.ipynb")))
    for own in runner.by_dataset(values).values():
        runner.check_data(own)
        runner.check_store(own)
    with lock_folder(values["runs"]):
        status, used = runner.run_grid(notebooks, values, cores, profile)
    for sentence in runner.failures(values, used):
        say(sentence)
    if (Path(values["runs"]) / "results.parquet").is_file():
        show_results(Path(values["runs"]))
    return status


def a_path(text: str) -> Path:
    """A path that names something; argparse refuses the empty text, which Path takes for here."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def n_cores(text: str) -> str:
    """A number of cores as Snakemake takes it; argparse refuses any other text."""
    if text != "all" and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be all or a number from 1, not {text}")
    return text


def show_results(folder: Path) -> None:
    """Print scores and differences of `folder`'s results table and where everything lies."""
    import pandas as pd

    table = pd.read_parquet(folder / "results.parquet")
    table["score"] = [
        f"{v:.3f} [{a:.3f}, {b:.3f}]" for v, a, b in table[["value", "low", "high"]].to_numpy()
    ]
    table = table[(table.tag == "") & table.seed.isin(["mean", ""])]
    cell = ["dataset", "extractor", "label_share", "method", "pair_loss"]
    scores, apart = table[table.minus == ""], table[table.minus != ""]
    wide = scores.pivot(index=cell, columns=["protocol", "metric"], values="score")
    print(f"\nScores on the test split, mean over seeds, 95 % interval\n{wide.to_string()}")
    apart = apart[apart.protocol == "macro_clip"]
    wide = apart.pivot(index=[*cell, "minus"], columns="metric", values="score")
    print(f"\nPaired differences, macro_clip\n{wide.to_string()}")
    print(f"\ntables     {folder}/results.csv, .parquet, {folder}/*/*.csv")
    print(f"figures    {folder}/*/figures/*.png, .pdf\nnotebooks  {folder}/*/notebooks/*.ipynb")


def _change(text: str) -> tuple[str, Any]:
    """The name and the value, read as YAML, of one name=value."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is no name=value pair: write for example seed=1.")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        raise ValueError(f"{text!r}: the value is not valid YAML; put quotes around it.") from None


def train_run(path: Path, changes: list[str], until: str | None) -> int:
    """Train the run that the YAML file `path` describes, by the parameters of notebooks 02 and 03,
    which call the same functions; score the test split and print it. Returns the exit status.

    Under `torchrun` every process does this, and they share the work.
    """
    places = {"preset": "paper", "store": None, "runs": "runs"}
    values = dict(places)
    for given in (read_yaml(path), dict(_change(text) for text in changes)):  # the latter wins
        more = check_type(given.pop("settings", {}), dict, "settings")
        values |= given | more
    if values["store"] is None:
        raise ValueError(f"{path} names no store: add the folder that notebook 01 prepared.")
    settings = [field.name for field in dataclasses.fields(RunConfig)]
    check_known(values, [*places, *settings], "training parameter")
    name, store, runs = (check_type(values.pop(place), str, place) for place in places)
    config = preset(name, **values)

    from jetatag.data.store import AudioStore
    from jetatag.evaluation import predict
    from jetatag.evaluation.results import score_table
    from jetatag.training import device as compute
    from jetatag.training import train
    from jetatag.training.runs import Run, banner

    audio = AudioStore.open(store)
    with compute.launch(config).rank_zero_first():  # the first begins the run, the others join it
        run = Run.start(runs, config, audio)
    if run.writes:
        print(banner(config))
    model = train.train(run, audio, until)
    if until is None:
        predict.predict(run, model, audio)
    if run.writes:
        print(score_table(run).round(3).to_string(index=False) if run.has("scores.npz") else "")
        print(run.folder)
    return 0


def check_below_one(**numbers: int | None) -> None:
    """Refuse (`ValueError`) options that count something and say less than 1."""
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"--{name} must be at least 1, not {number}.")


def tag(
    model: str,
    paths: list[Path],
    top: int,
    workers: int | None,
    device: str,
    **outputs: Path | None,
) -> int:
    """Print the most probable tags of every file and write `outputs`, as `tagging.TagWriter` names
    them; returns the exit status, 1 where a file could not be read and 130 for Ctrl-C."""
    from jetatag.apps import tagger, tagging
    from jetatag.data.audio import quiet_decoder

    check_below_one(top=top, workers=workers)
    loaded, (files, links, skipped) = tagger.load(model, device), tagging.find_audio(paths)
    done, status = tagging.TagWriter(files, loaded.vocabulary, top, **outputs), 0
    print(loaded, file=sys.stderr)
    if links:
        say(f"links to folders are not followed, name them too: {', '.join(map(str, links))}.")
    if skipped:
        say(tagging.skipped_sentence(skipped))
    try:
        with done, quiet_decoder(), tagging.AudioProgress(files) as bar:
            for path, reading in loaded.predict_files(files, workers, bar.update):
                bar.write(tag_line(done.add(path, reading), top))
                sys.stdout.flush()  # who reads it in a pipe need not wait, or is gone
                bar.close_file(path, reading)
    except KeyboardInterrupt:
        status = 130
    finally:
        if len(done.rows) < len(files):
            say(f"stopped: {done}.")
    if n_bad := sum(row["error"] != "" for row in done.rows):
        say(f"{n_bad} of {len(done.rows)} files could not be read.")
    return status or int(n_bad > 0)


def tag_line(row: Mapping[str, Any], top: int) -> str:
    """A file on one line: its most probable tags, or what is wrong with it."""
    from jetatag.apps.tagging import as_json

    told = list(as_json(row)["tags"].items())[:top]
    tags = " · ".join(f"{tag} {prob:.2f}" for tag, prob in told)
    return printable(f"{row['path']}: {row['error'] and 'error: '}{row['error'] or tags}")


def index(model: str, music: Path, out: Path | None, workers: int | None, device: str) -> int:
    """Build or extend an index of a folder of music and say what was done; returns the exit
    status."""
    from jetatag.apps import indexing, tagger
    from jetatag.apps.tagging import skipped_sentence

    check_below_one(workers=workers)
    made = indexing.build(tagger.load(model, device), music, out, workers)
    print(f"{shown(made.folder)}: {made}")
    skipped = made.report.path[made.report.reason == indexing.SUFFIX]
    if len(skipped):
        say(skipped_sentence(list(skipped)))
    if len(made.report):
        print(f"what was left out and why: {shown(made.folder / 'report.csv')}")
    return 0


def search(
    folder: Path,
    tags: str | None,
    like: Path | None,
    top: int,
    by: str | None,
    model: str | None,
    m3u: Path | None,
    json: Path | None,
) -> int:
    """Print what an index holds nearest to tags or to a file, and write playlists; returns the exit
    status."""
    from jetatag.apps.search import Index, parse_tags, write_hits, write_m3u

    check_below_one(top=top)
    opened = Index.open(folder)
    check_writable(*filter(None, (m3u, json)), read=[*filter(None, [like]), *folder.rglob("*")])
    if tags is not None:
        hits = opened.tags(parse_tags(tags, opened.facts.tags), top, by)
    elif by is None:
        hits = opened.like(like, top, model)
    else:
        raise ValueError("--by is for --tags: files are alike by what the network hears in them.")
    for hit in hits.itertuples():
        print(hit_line(hit))
    for path, write in ((m3u, write_m3u), (json, write_hits)):
        if path:
            write(hits, path)
    return 0


def hit_line(hit: Any) -> str:
    """A file that was found on one line: rank, score, path (title) and its most probable tags."""
    told = " · ".join(f"{tag} {prob:.2f}" for tag, prob in hit.tags.items())
    title = f" ({hit.title})" if hit.title else ""
    return printable(f"{hit.rank:>3}  {hit.score:.3f}  {shown(Path(hit.path))}{title}  {told}")


def shown(path: Path) -> str:
    """A path as text, from the working folder if it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def export(model: str, out: Path, onnx: bool) -> int:
    """Write a finished run as a folder to give away; returns the exit status."""
    from jetatag.apps import export as share

    for path in sorted(share.export(model, out, onnx).iterdir()):
        print(f"{path}: {size_of(path)}")
    return 0


def size_of(path: Path) -> str:
    """How large a file is, in a unit that suits it."""
    n_bytes = path.stat().st_size
    return f"{n_bytes / 1e6:,.1f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.1f} kB"


def push(folder: Path, name: str, private: bool) -> int:
    """Upload an exported model to the Hugging Face Hub; returns the exit status."""
    from jetatag.apps import export as share

    print(share.push(folder, name, private))
    return 0


def list_runs(folder: Path) -> int:
    """Print one line for every run under `folder`; returns the exit status."""
    from jetatag.training.runs import listing

    print(listing(folder).to_string(index=False, float_format="{:.3f}".format))
    return 0


def report_runs(runs: list[Path], out: Path, store: Path | None) -> int:
    """Write the HTML page of the runs under `runs` and say where it is; returns the exit status."""
    from jetatag.grid import report

    check_writable(out)
    shown_runs, without = report.write(runs, out, store)
    if without:
        say(f"left out, for they hold no finished run: {', '.join(map(str, without))}.")
    several = "s" if len(shown_runs) > 1 else ""
    print(f"{out}: {len(shown_runs)} run{several}, {size_of(out)}")
    return 0


def render(folder: Path, clips: int, seconds: float, seed: int) -> int:
    """Write the built-in data set; returns the exit status."""
    from jetatag import rendered

    rendered.write(folder, clips, seconds, seed)
    print(f"{folder}: {clips:,} clips of {seconds:g} s in MagnaTagATune's layout, with their tags")
    return 0


def import_original(
    folder: Path, tags: Path, store: Path | None, runs: Path, pair_loss: str
) -> int:
    """Make a run of the authors' SavedModels and say what it is; returns the exit status."""
    from jetatag.data.store import AudioStore
    from jetatag.original import importing as original

    names = original.read_tags(tags)
    prepared = AudioStore.open(store) if store else None
    run = original.import_original(folder, runs, names, prepared, pair_loss)
    config, imported = run.config, run.record["imported"]
    difference = max(imported["largest_difference"].values())
    print(f"{run.folder}: {config.method}, {config.extractor}, {len(names)} tags")
    print(f"answers as {imported['from']} does, to within {difference:.0e} of the largest output")
    return 0


def completion(shell: str) -> int:
    """Print the script by which a shell completes the command; returns the exit status."""
    import shtab

    def complete_paths(parser: argparse.ArgumentParser) -> None:
        for action in parser._actions:  # argparse has no other way to them, and shtab goes it, too
            if action.type is a_path or action.metavar in ("RUN", "FOLDER"):
                action.complete = shtab.FILE
            if isinstance(action.choices, dict):
                for verb in action.choices.values():
                    complete_paths(verb)

    parser = build_parser()
    complete_paths(parser)
    print(shtab.complete(parser, shell))
    return 0


class Help(argparse.HelpFormatter):
    """Fills a text line by line, so that examples keep theirs."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = super()._fill_text
        lines = text.splitlines()
        return "\n".join(t if t.startswith(" ") else filled(t, width, indent) for t in lines)


class Parser(argparse.ArgumentParser):
    """A parser, and its verbs', with such help, which tells a mistake in one sentence."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, formatter_class=Help, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Takes what stands behind --tags for tags, also where it begins with a minus."""
        args = list(sys.argv[1:] if args is None else args)
        for i in range(len(args) - 2, -1, -1):
            if args[i] == "--tags" and re.match("-[^-]", args[i + 1]):
                args[i : i + 2] = [f"--tags={args[i + 1]}"]
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"jetatag: {message}; see {self.prog} --help.\n")


def build_parser() -> argparse.ArgumentParser:
    """The verbs and their options; `run` is what to call with them."""
    parser = Parser(
        "jetatag",
        description="Music auto-tagging with joint embeddings: train taggers, tag files, search "
        "music by tags. What each verb takes is told by: jetatag VERB --help",
        epilog="examples:\n"
        "  jetatag reproduce                     the six notebooks on the built-in data\n"
        "  jetatag tag RUN song.mp3 album/       the tags of files and folders\n"
        "  jetatag index RUN music/              index a folder of music\n"
        "  jetatag search music.index --tags 'piano, slow, -vocal' --m3u quiet.m3u",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    verb = verbs.add_parser(
        "reproduce",
        help="run the six notebooks of a preset",
        description="Prepare data, train, evaluate and draw, by the six notebooks over a grid of "
        "runs, each once: what is there already stays, and after a stop it goes on. Run it at the "
        "top of a checkout.",
        epilog="examples:\n"
        "  jetatag reproduce --preset demo\n"
        "  jetatag reproduce --preset paper --data /data/mtat --set device=cuda seed=0",
    )
    verb.set_defaults(run=reproduce)
    verb.add_argument(
        "--preset",
        default="demo",
        choices=list(PRESETS),
        dest="name",
        help="how much: smoke takes minutes, demo (the default) a quarter of an hour, study hours, "
        "paper days, fast a fifth of paper's computing",
    )
    verb.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        dest="changes",
        help="change parameters of notebooks/params/<preset>.yaml, such as seed=1 or "
        "'options={split: artist_disjoint}'",
    )
    verb.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="folder of a data set, instead of the preset's; several as DATASET=FOLDER",
    )
    verb.add_argument(
        "--dataset",
        help="what --data holds: mtat (the default), dcase2017, speech_commands or folder",
    )
    verb.add_argument(
        "--cores",
        metavar="N",
        type=n_cores,
        help="processor cores to use (default: all; with --profile what that says)",
    )
    verb.add_argument(
        "--profile",
        metavar="FOLDER",
        type=a_path,
        help="folder of a Snakemake profile, which says where jobs run and how many at once, "
        "such as notebooks/profiles/slurm",
    )
    verb = verbs.add_parser(
        "train",
        help="train one run and score it; under torchrun on several GPUs",
        description="Train the run that a YAML file describes and score its test clips. Stopped, "
        "it goes on from its last checkpoint.",
        epilog="examples:\n"
        "  jetatag train --config run.yaml --set seed=1\n"
        "  torchrun --nproc-per-node 8 --no-python jetatag train --config run.yaml",
    )
    verb.set_defaults(run=train_run)
    verb.add_argument(
        "--config",
        metavar="FILE",
        type=a_path,
        required=True,
        dest="path",
        help="YAML with store, runs, preset and any setting of jetatag.config.RunConfig",
    )
    verb.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        dest="changes",
        help="change what the file says, such as seed=1",
    )
    verb.add_argument("--until", metavar="STAGE", help="stop after this stage, such as stage1")
    verb = verbs.add_parser(
        "tag",
        help="tag audio files by a finished run",
        description="Print each file's most probable tags. Every second of it is heard, at any "
        "sample rate, number of channels and length from 0.1 s; of one shorter than the run's "
        "window, what is missing is silence. A file that cannot be read, or in which there is "
        "nothing to hear (shorter, or silent all through), is told in its place, and the exit "
        "status is then 1. Ctrl-C leaves what was tagged.",
        epilog="examples:\n"
        "  jetatag tag RUN song.mp3 --top 10 --taggram song.png\n"
        "  jetatag tag RUN album/ --csv album.csv",
    )
    verb.set_defaults(run=tag)
    verb.add_argument(
        "model", metavar="RUN", help="run folder, exported folder, or hf://owner/name"
    )
    verb.add_argument(
        "paths", metavar="PATH", type=a_path, nargs="+", help="audio files or folders"
    )
    verb.add_argument(
        "--top", metavar="N", type=int, default=5, help="tags to show (default: %(default)s)"
    )
    for name in ("csv", "json", "parquet"):
        verb.add_argument(
            f"--{name}", type=a_path, metavar="FILE", help=f"write all probabilities as {name}"
        )
    verb.add_argument(
        "--taggram",
        type=a_path,
        metavar="PNG",
        help="draw the tags over time (.png, .pdf or .svg); of several files into a folder",
    )
    verb.add_argument(
        "--embeddings",
        type=a_path,
        metavar="NPZ",
        help="write probabilities, features and shared-space vectors of every window",
    )
    verb.add_argument(
        "--workers", metavar="N", type=int, help="files to decode at once (default: one a core)"
    )
    verb.add_argument("--device", default="auto", help="auto (the default), cpu, cuda, …")
    verb = verbs.add_parser(
        "index",
        help="index a folder of music by a finished run, to search it",
        description="Read all audio under a folder and keep what the run says of it. Run again, it "
        "reads only files that are new or changed, and goes on where it was stopped. Files that "
        "cannot be read are left out and named, with the reason, in the index's report.csv; so are "
        "links to folders, which are not followed.",
        epilog="example:\n  jetatag index RUN music/",
    )
    verb.set_defaults(run=index)
    verb.add_argument(
        "model", metavar="RUN", help="run folder, exported folder, or hf://owner/name"
    )
    verb.add_argument("music", metavar="FOLDER", type=a_path, help="holds the audio files")
    verb.add_argument(
        "--out", metavar="INDEX", type=a_path, help="folder of the index (default: FOLDER.index)"
    )
    verb.add_argument(
        "--workers", metavar="N", type=int, help="files to decode at once (default: one a core)"
    )
    verb.add_argument("--device", default="auto", help="auto (the default), cpu, cuda, …")
    verb = verbs.add_parser(
        "search",
        help="search an index by tags or by a file",
        description="List the files of an index that answer tags, or that sound most like a file: "
        "rank, score, path, title, most probable tags. The score is at most 1: in the shared "
        "space, and with --like, the cosine between what is asked and the file (1 the same "
        "direction, 0 nothing in common); by the classifier, the geometric mean of the "
        "probabilities p of the tags wanted and 1 - p of those that are not, each by its weight.",
        epilog="examples:\n"
        "  jetatag search music.index --tags 'piano, slow, -vocal' --top 20\n"
        "  jetatag search music.index --like song.mp3 --m3u more.m3u",
    )
    verb.set_defaults(run=search)
    verb.add_argument("folder", metavar="INDEX", type=a_path, help="what jetatag index made")
    asked = verb.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "--tags",
        metavar="TAGS",
        help="tags wanted, with − before those that are not and a weight behind a colon, such as "
        "'piano, slow:0.5, -vocal'",
    )
    asked.add_argument("--like", metavar="FILE", type=a_path, help="an audio file")
    verb.add_argument(
        "--top", metavar="N", type=int, default=20, help="files to list (default: %(default)s)"
    )
    verb.add_argument(
        "--by",
        choices=["space", "classifier"],
        help="rank by the shared space of tags and music (the default where the run has one), or "
        "by the classifier's probabilities",
    )
    verb.add_argument(
        "--run",
        dest="model",
        metavar="RUN",
        help="the run that made the index, where it was moved; only --like needs it, for a file "
        "that the index does not hold",
    )
    verb.add_argument("--m3u", metavar="FILE", type=a_path, help="write the list as a playlist")
    verb.add_argument("--json", metavar="FILE", type=a_path, help="write the list as JSON")
    verb = verbs.add_parser(
        "export",
        help="write a finished run as a folder to give away: weights, model card, ONNX",
        description="Write what a finished run is to others: its weights, settings and tags, a "
        "model card with its scores, and ONNX. jetatag.load and every RUN here take the folder.",
        epilog="example:\n  jetatag export RUN my-tagger",
    )
    verb.set_defaults(run=export)
    verb.add_argument("model", metavar="RUN", help="run folder")
    verb.add_argument("out", metavar="DIR", type=a_path, help="new folder")
    verb.add_argument(
        "--no-onnx", action="store_false", dest="onnx", help="without model.onnx and its libraries"
    )
    verb = verbs.add_parser(
        "push",
        help="upload an exported model to the Hugging Face Hub",
        description="Upload what jetatag export wrote to the Hugging Face Hub, as who is logged in "
        "there (hf auth login). Everyone's RUN is then hf://OWNER/NAME.",
        epilog="example:\n  jetatag push my-tagger ann/my-tagger --private",
    )
    verb.set_defaults(run=push)
    verb.add_argument("folder", metavar="DIR", type=a_path, help="what jetatag export wrote")
    verb.add_argument(
        "name", metavar="OWNER/NAME", help="the model there; made where there is none"
    )
    verb.add_argument("--private", action="store_true", help="make it a private one")
    verb = verbs.add_parser(
        "runs",
        help="list the runs of a folder",
        description="List every run anywhere under a folder: what it is, how far it came, how it "
        "does on the validation clips, and what it took.",
        epilog="example:\n  jetatag runs runs/demo",
    )
    verb.set_defaults(run=list_runs)
    verb.add_argument(
        "folder",
        metavar="FOLDER",
        type=a_path,
        nargs="?",
        default="runs",
        help="where to look (default: %(default)s)",
    )
    verb = verbs.add_parser(
        "report",
        help="write one HTML page of runs, to be read without a server",
        description="Write tables, figures and settings of finished runs as one page that opens "
        "anywhere, with the clips they tag best and worst to hear.",
        epilog="example:\n"
        "  jetatag report runs/demo/rendered --store data/rendered-demo.store --out demo.html",
    )
    verb.set_defaults(run=report_runs)
    verb.add_argument(
        "runs",
        metavar="RUNS",
        type=a_path,
        nargs="+",
        help="run folders, or folders that hold runs",
    )
    verb.add_argument(
        "--out",
        metavar="FILE",
        type=a_path,
        default="report.html",
        help="the page (default: %(default)s)",
    )
    verb.add_argument(
        "--store",
        metavar="FOLDER",
        type=a_path,
        help="prepared data of the test clips, to hear them",
    )
    verb = verbs.add_parser(
        "render",
        help="write the built-in data set in MagnaTagATune's layout",
        description="Compose and render tagged music: free to use, the same for the same seed, and "
        "read like MagnaTagATune. `jetatag reproduce` does this by itself.",
        epilog="example:\n  jetatag render my_data --clips 300 --seconds 6",
    )
    verb.set_defaults(run=render)
    verb.add_argument("folder", metavar="FOLDER", type=a_path, help="where to write it")
    verb.add_argument(
        "--clips", metavar="N", type=int, default=1200, help="how many (default: %(default)s)"
    )
    verb.add_argument(
        "--seconds",
        metavar="S",
        type=float,
        default=10.0,
        help="length of a clip (default: %(default)s)",
    )
    verb.add_argument(
        "--seed",
        metavar="N",
        type=int,
        default=0,
        help="start of all chance (default: %(default)s)",
    )
    verb = verbs.add_parser(
        "import-original",
        help="make a run of the authors' SavedModels",
        description="Read the TensorFlow SavedModels of the original code as a run, which can then "
        "tag, be evaluated and be exported like any other. This takes TensorFlow: pip install "
        "'jetatag[tensorflow]'.",
        epilog="example:\n  jetatag import-original saved_models --tags tags.npy",
    )
    verb.set_defaults(run=import_original)
    verb.add_argument(
        "folder", metavar="FOLDER", type=a_path, help="holds encoder/, classifier/ and the rest"
    )
    verb.add_argument(
        "--tags",
        metavar="FILE",
        type=a_path,
        required=True,
        help="the model's tags in its order: one a line, or tags.npy",
    )
    verb.add_argument(
        "--store", metavar="FOLDER", type=a_path, help="prepared data of the same tags"
    )
    verb.add_argument(
        "--runs",
        metavar="FOLDER",
        type=a_path,
        default="runs/original",
        help="where the run goes (default: %(default)s)",
    )
    verb.add_argument(
        "--pair-loss",
        default="margin_as_coded",
        choices=["margin_as_coded", "cosine_as_coded"],
        help="what a joint embedding was trained with (default: %(default)s)",
    )
    verb = verbs.add_parser(
        "completion",
        help="print what completes this command in a shell",
        description="Print the script by which a shell completes verbs, options and files.",
        epilog="examples:\n"
        '  eval "$(jetatag completion bash)"                        bash, in ~/.bashrc\n'
        "  jetatag completion zsh > ~/.zfunc/_jetatag               zsh, a folder in $fpath\n"
        "  jetatag completion tcsh > ~/.jetatag.csh                 tcsh, sourced in ~/.tcshrc",
    )
    verb.set_defaults(run=completion)
    verb.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="which shell")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry point; a user's mistake is one sentence on standard error and exit status 2."""
    logging.getLogger("papermill").setLevel(logging.ERROR)
    given = vars(build_parser().parse_args(arguments))
    try:
        status = given.pop("run")(**given)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # who read it has enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        say(reason(error))
        return 2
    except KeyboardInterrupt:
        say("stopped; what goes on, goes on by the same command.")
        return 130
