"""The command `jetatag`: short verbs over the same functions that the notebooks call.

Large libraries are imported where they are used: `reproduce` waits for the notebooks for minutes
and should not hold their memory meanwhile.
"""

import argparse
import dataclasses
import logging
import sys
from pathlib import Path
from typing import Any

import yaml

from jetatag import grid
from jetatag.config import PRESETS, RunConfig, checked, preset, read_yaml, refuse_unknown
from jetatag.files import alone


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
    notebooks = grid.find_notebooks()
    grid.check_profile(profile)
    values = read_yaml(notebooks / "params" / f"{name}.yaml")
    values |= grid.own_data(name, data, dataset)
    values |= dict(_change(text) for text in changes)
    grid.check_parameters(values, sorted(notebooks.glob("0*.ipynb")))
    for own in grid.by_dataset(values).values():
        if own["dataset"] != "rendered":  # which notebook 01 makes
            grid.check_data(own)
        grid.check_store(own)
    with alone(values["runs"]):
        status, used = grid.run_grid(notebooks, values, cores, profile)
    for sentence in grid.failures(values, used):
        print(f"jetatag: {sentence}", file=sys.stderr)
    if (Path(values["runs"]) / "results.parquet").is_file():
        show_results(Path(values["runs"]))
    return status


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
        more = checked(given.pop("settings", {}), dict, "settings")
        values |= given | more
    if values["store"] is None:
        raise ValueError(f"{path} names no store: add the folder that notebook 01 prepared.")
    settings = [field.name for field in dataclasses.fields(RunConfig)]
    refuse_unknown(values, [*places, *settings], "training parameter")
    name, store, runs = (checked(values.pop(place), str, place) for place in places)
    config = preset(name, **values)

    from jetatag import compute, predict, train
    from jetatag.results import score_table
    from jetatag.runs import Run, banner
    from jetatag.store import AudioStore

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


def list_runs(folder: Path) -> int:
    """Print one line for every run under `folder`; returns the exit status."""
    from jetatag.runs import listing

    print(listing(folder).to_string(index=False, float_format="{:.3f}".format))
    return 0


def report_runs(runs: list[Path], out: Path, store: Path | None) -> int:
    """Write the HTML page of the runs under `runs` and say where it is; returns the exit status."""
    from jetatag import report

    n_runs = len(report.write(runs, out, store))
    print(f"{out}: {n_runs} run{'s' if n_runs > 1 else ''}, {out.stat().st_size / 1e6:.1f} MB")
    return 0


def render(folder: Path, clips: int, seconds: float, seed: int) -> int:
    """Write the built-in data set; returns the exit status."""
    from jetatag.datasets import rendered

    rendered.write(folder, clips, seconds, seed)
    return 0


def import_original(
    folder: Path, tags: Path, store: Path | None, runs: Path, pair_loss: str
) -> int:
    """Make a run of the authors' SavedModels and say what it is; returns the exit status."""
    from jetatag import original
    from jetatag.store import AudioStore

    names = original.read_tags(tags)
    prepared = AudioStore.open(store) if store else None
    run = original.import_original(folder, runs, names, prepared, pair_loss)
    config, imported = run.config, run.record["imported"]
    difference = max(imported["largest_difference"].values())
    print(f"{run.folder}: {config.method}, {config.extractor}, {len(names)} tags")
    print(f"answers as {imported['from']} does, to within {difference:.0e} of the largest output")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The verbs and their options; `run` is what to call with them."""
    parser = argparse.ArgumentParser(
        "jetatag", description="Music auto-tagging with joint embeddings."
    )
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("reproduce", help="run the six notebooks of a preset")
    verb.set_defaults(run=reproduce)
    verb.add_argument(
        "--preset",
        default="demo",
        choices=list(PRESETS),
        dest="name",
        help="how much: smoke takes minutes, demo (the default) a quarter of an hour, study hours, "
        "paper days",
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
        "--cores", help="processor cores to use (default: all; with --profile what that says)"
    )
    verb.add_argument(
        "--profile",
        type=Path,
        help="folder of a Snakemake profile, which says where jobs run and how many at once, "
        "such as notebooks/profiles/slurm",
    )
    verb = verbs.add_parser(
        "train",
        help="train one run and score it; under torchrun on several GPUs",
        epilog="Several GPUs: "
        "torchrun --nproc-per-node 8 --no-python jetatag train --config run.yaml",
    )
    verb.set_defaults(run=train_run)
    verb.add_argument(
        "--config",
        type=Path,
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
    verb.add_argument("--until", help="stop after this stage, such as stage1")
    verb = verbs.add_parser("runs", help="list the runs of a folder")
    verb.set_defaults(run=list_runs)
    verb.add_argument(
        "folder", type=Path, nargs="?", default="runs", help="%(default)s if not given"
    )
    verb = verbs.add_parser(
        "report", help="write one HTML page of runs, to be read without a server"
    )
    verb.set_defaults(run=report_runs)
    verb.add_argument("runs", type=Path, nargs="+", help="run folders, or folders that hold runs")
    verb.add_argument("--out", type=Path, default="report.html", help="default: %(default)s")
    verb.add_argument("--store", type=Path, help="prepared data of the test clips, to hear them")
    verb = verbs.add_parser("render", help="write the built-in data set in MagnaTagATune's layout")
    verb.set_defaults(run=render)
    verb.add_argument("folder", type=Path)
    verb.add_argument("--clips", type=int, default=1200)
    verb.add_argument("--seconds", type=float, default=10.0, help="length of a clip")
    verb.add_argument("--seed", type=int, default=0)
    verb = verbs.add_parser("import-original", help="make a run of the authors' SavedModels")
    verb.set_defaults(run=import_original)
    verb.add_argument("folder", type=Path, help="holds encoder/, classifier/ and the rest")
    verb.add_argument(
        "--tags",
        type=Path,
        required=True,
        help="the model's tags in its order: one a line, or tags.npy",
    )
    verb.add_argument("--store", type=Path, help="prepared data of the same tags")
    verb.add_argument("--runs", type=Path, default="runs/original", help="%(default)s if not given")
    verb.add_argument(
        "--pair-loss",
        default="margin_as_coded",
        choices=["margin_as_coded", "cosine_as_coded"],
        help="what a joint embedding was trained with (default: %(default)s)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry point; a user's mistake is one sentence on standard error and exit status 2."""
    logging.getLogger("papermill").setLevel(logging.ERROR)
    given = vars(build_parser().parse_args(arguments))
    try:
        return given.pop("run")(**given)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"jetatag: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jetatag: stopped; the same command goes on from here.", file=sys.stderr)
        return 130
