"""The runs of a grid, the parameters of its notebooks, and the Snakemake that executes them."""

import contextlib
import io
import itertools
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import psutil
import yaml
from papermill import inspect_notebook

from jetatag import rendered
from jetatag.config import RunConfig, preset, read_yaml
from jetatag.data import check_options, load
from jetatag.data.index import files_under
from jetatag.data.splits import check_splits
from jetatag.data.store import AudioStore
from jetatag.files import Count, atomic, check_known, check_type, lock_folder
from jetatag.grid import gpus, packaged_notebooks
from jetatag.grid.progress import follow, print_results
from jetatag.joint.methods import BASELINE, METHODS

TYPES = {kind.__name__: kind for kind in (str, int, float, bool, dict, list)}
GRID_PARAMETERS = ["trained", "datasets", "only"]
"""Parameters of the Snakefile alone: the runs to train, the parameters of each data set, and the
runs of each to use. `runs_per_gpu`, how many runs share a GPU of this machine, is the fourth."""
GRID_AXES = ("extractor", "seed", "method", "pair_loss", "classification_loss", "label_share")
"""Settings that may list several values in an entry of `trained`; the first two also for all."""
INPUTS = ("published", "expected", "schedules", "study", "regime", "regime_long")
"""What notebooks 06 and 07 read beside the runs; the study may be the grid itself."""
ODD = re.compile(r"^-|[{}<>]")  # Snakemake would read these signs of a path as its own syntax


def compared() -> list[list[str]]:
    """Notebooks 04 and 05 need a run of one method of each of these groups."""
    return [[BASELINE], [name for name, method in METHODS.items() if method.with_je]]


def reproduce(
    name: str,
    changes: Mapping[str, Any],
    data: Sequence[str] = (),
    dataset: str | None = None,
    workdir: Path | None = None,
    cores: str | None = None,
    profile: Path | None = None,
) -> tuple[int, list[str]]:
    """Execute the notebooks of preset `name` with `changes` of its parameters and print results;
    return the exit status and a sentence for each failure. Other parameters are the command's."""
    notebooks, root = Path("notebooks"), Path.cwd() if workdir else Path()
    if workdir and not (workdir / notebooks).exists():
        shutil.copytree(packaged_notebooks(), workdir / notebooks)
    if profile and not any(profile.glob("config*.yaml")):
        raise FileNotFoundError(f"{profile} holds no config.yaml: give the folder of a profile.")
    with contextlib.chdir(workdir or root):
        if not (notebooks / "Snakefile").is_file():
            raise FileNotFoundError(
                "no folder notebooks/ here: run `jetatag reproduce` at the top of a checkout of "
                "jetatag, or name a folder for a copy of the notebooks with --workdir."
            )
        params = f"params/{name}.yaml"
        values = read_yaml(packaged_notebooks() / params) | read_yaml(notebooks / params)
        values |= own_data(name, data, dataset, root) | dict(changes)
        check_parameters(values, sorted(notebooks.glob("0*.ipynb")))
        for own in by_dataset(values).values():
            check_data(own)
        with lock_folder(values["runs"]):
            status, used = run_grid(notebooks, values, cores, profile and root / profile)
        if Path(values["runs"], "results.parquet").is_file():
            print_results(Path(values["runs"]))
        log = [f"Snakemake's log is {values['runs']}/snakemake.log"] if status else []
        return status, [*failures(values, used), *log]


def parameter_types(notebook: Path | str) -> dict[str, type]:
    """Names and types in the notebook's `parameters` cell, as papermill reads them."""
    logging.getLogger("papermill").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        facts = inspect_notebook(str(notebook))
    return {name: TYPES.get(fact["inferred_type_name"], object) for name, fact in facts.items()}


def check_parameters(values: Mapping[str, Any], notebooks: Sequence[Path]) -> None:
    """Raise `ValueError` or `FileNotFoundError` for an unknown name (of which papermill only
    warns), a wrong type, an impossible run or data set, or missing inputs."""
    types = {name: kind for path in notebooks for name, kind in parameter_types(path).items()}
    types |= {"n_resamples": Count, "runs_per_gpu": Count}
    check_values(values, types)
    for name in INPUTS:
        if values[name] != values["runs"] and not Path(values[name]).exists():
            remedy = f"name another (--set {name}=…)"
            raise FileNotFoundError(f"{name} {values[name]} does not exist: {remedy}.")
    datasets = by_dataset(values).values()
    for own in datasets:
        check_values(own, types)
        check_options(own["dataset"], own.get("options", {}))
        methods = {run.method for run in trained(own).values()}
        if missing := [" or ".join(group) for group in compared() if not methods & set(group)]:
            raise ValueError(
                f"trained lacks {' and '.join(missing)}: notebooks 04 and 05 compare runs with and "
                "without joint embedding; for single runs use `jetatag train` and `jetatag report`."
            )
    cells(values)
    paths = [Path.cwd(), values["runs"], *(own["store"] for own in datasets)]
    if odd := [path for path in map(str, paths) if ODD.search(path)]:
        problem = f"{odd[0]} has a brace, angle bracket or leading hyphen, which Snakemake misreads"
        raise ValueError(f"{problem}: name another folder (--set runs=… store=…), or rename it.")


def check_values(values: Mapping[str, Any], types: Mapping[str, type]) -> None:
    """Raise `ValueError` for an unknown parameter, or another type than in the notebooks."""
    check_known(values, [*types, *GRID_PARAMETERS], "parameter")
    if chosen := [name for name in ("method", "pair_loss") if name in values]:
        example = "--set 'trained=[{method: joint, pair_loss: subset_query}, …]'"
        raise ValueError(f"{chosen[0]} is chosen run by run: list the runs instead ({example}).")
    for name in values.keys() - {*GRID_PARAMETERS, *GRID_AXES}:
        check_type(values[name], types[name], name)


def by_dataset(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The parameters of every data set by name, with its own folders under `runs` and `out`."""
    datasets = check_type(values.get("datasets") or {values["dataset"]: {}}, dict, "datasets")
    parameters = {}
    for name, own in datasets.items():
        folders = {folder: f"{values[folder]}/{name}" for folder in ("runs", "out")}
        own = check_type(own, dict, f"datasets: {name}")
        parameters[name] = {**values, "dataset": name, **own, **folders}
    return parameters


def cells(values: Mapping[str, Any]) -> dict[str, dict[str, RunConfig]]:
    """The grid: data set → run name → settings, of what `only` lists, if it is given."""
    grid = {name: trained(own) for name, own in by_dataset(values).items()}
    only = check_type(values.get("only", grid), dict, "only")
    check_known(only, grid, "data set")
    for name, runs in only.items():
        check_known(runs, grid[name], "run")
    return {name: {run: grid[name][run] for run in runs} for name, runs in only.items()}


def trained(values: Mapping[str, Any]) -> dict[str, RunConfig]:
    """The runs to train on a data set, by name: every entry of `trained`, which overrides the
    shared `settings`, once for each combination of the values that either lists. Raises
    `ValueError` for two runs of one name."""
    runs: dict[str, RunConfig] = {}
    shared = {name: values[name] for name in ("extractor", "seed", "device", "precision")}
    shared |= check_type(values["settings"], dict, "settings")
    for entry in check_type(values["trained"], Sequence[dict], "trained"):
        settings = {str(name): value for name, value in (shared | entry).items()}
        listed = [name for name in GRID_AXES if isinstance(settings.get(name), list)]
        for combination in itertools.product(*map(settings.get, listed)):
            run = preset(values["preset"], **settings | dict(zip(listed, combination, strict=True)))
            if run.name in runs:
                raise ValueError(f"trained names the run {run.name} twice: remove one.")
            runs[run.name] = run
    return runs


def run_parameters(run: RunConfig, preset_name: str) -> dict[str, Any]:
    """Parameters of notebooks 02 and 03 for a run; `settings` are those other than the preset's."""
    plain, default = (json.loads(json.dumps(c.to_dict())) for c in (run, preset(preset_name)))
    direct = ("method", "pair_loss", "extractor", "seed", "device", "precision")
    given = {name: plain.pop(name) for name in direct}
    return given | {"settings": {name: v for name, v in plain.items() if v != default[name]}}


def parameter_yaml(values: Mapping[str, Any], notebook: Path) -> str:
    """The `values` that the notebook takes, as one line of YAML."""
    known = {name: values[name] for name in parameter_types(notebook) if name in values}
    return yaml.safe_dump(known, default_flow_style=True, width=10**6).strip()


def own_data(
    name: str, data: Sequence[str], dataset: str | None, root: Path = Path()
) -> dict[str, Any]:
    """Parameters that replace those of preset `name` for the user's data sets, each given as FOLDER
    (of `dataset`) or DATASET=FOLDER, relative to `root`. The preset's tag, which is
    MagnaTagATune's, is replaced by the first of the vocabulary ("")."""
    if not data:
        if dataset is not None:
            raise ValueError(f"--dataset {dataset} needs its folder: give it with --data.")
        return {}
    pairs = [text.split("=", 1) if "=" in text else (dataset or "mtat", text) for text in data]
    datasets = {
        key: {"data": f"{root / folder}", "store": f"{root / folder}.store"}
        | ({} if key == "mtat" else {"tag": ""})
        for key, folder in pairs
    }
    if len(datasets) < len(pairs):
        raise ValueError("--data names a data set twice: give each once, as DATASET=FOLDER.")
    runs = f"runs/{name}-{'+'.join(datasets)}"
    shared = {"runs": runs, "out": runs, "options": {}, "datasets": datasets}
    shared |= {"study": runs} if name == "study" else {}
    if len(datasets) == 1:  # shared parameters, so that --set can change them
        ((key, own),) = datasets.items()
        shared |= {**own, "dataset": key, "datasets": {}}
    return shared


def check_data(values: Mapping[str, Any]) -> None:
    """Raise `ValueError` or `FileNotFoundError` for a data set that cannot be read or has too few
    clips in a split (of its store if there is one), and for a store at another sample rate than the
    runs. Notebook 01 reports what is only incomplete, and makes the built-in data set."""
    is_stored = Path(values["store"], "store.json").is_file()
    stored = AudioStore.open(values["store"]) if is_stored else None
    for run in trained(values).values():
        if stored and stored.sample_rate != run.sample_rate:
            raise ValueError(
                f"{values['store']} holds audio at {stored.sample_rate:,} Hz, but the settings say "
                f"{run.sample_rate:,}: name another store (--set store=…) or delete this one."
            )
    if values["dataset"] == "rendered":
        if values["tag"] and "tags" not in values["options"]:
            check_known([values["tag"]], rendered.TAGS, "tag")
        return
    with warnings.catch_warnings(action="ignore"):
        index = load(values["dataset"], values["data"], **values["options"])
    if values["tag"]:
        index.vocabulary.columns([values["tag"]])
    if stored:
        return check_splits(values["store"], stored.table.split, stored.labels)
    is_there = index.table.path.isin(files_under(index.audio_root)[0]).to_numpy()
    check_splits(values["data"], index.table.split[is_there], index.labels[is_there])


def run_grid(
    notebooks: Path, values: Mapping[str, Any], cores: str | None, profile: Path | None
) -> tuple[int, dict[str, list[str]]]:
    """Execute the notebooks of the grid; if some runs fail, execute those that compare runs again,
    with the others. Returns the exit status of the first attempt, and by data set the runs used."""
    params = Path(values["runs"]) / "params.yaml"
    with atomic(params) as temporary:
        temporary.write_text(yaml.safe_dump(dict(values), sort_keys=False))
    used = {name: list(runs) for name, runs in cells(values).items()}
    first = status = run_snakemake(notebooks, params, cores, profile)
    while status == 1 and (fewer := finished(values, used)) != used:
        used = fewer
        status = run_snakemake(notebooks, params, cores, profile, only=used) if used else None
    return first, used


def finished(values: Mapping[str, Any], used: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The runs of `used` that have scores, by data set. A data set is left out if no run has
    scores, or if all have but tables are missing."""
    complete = {}
    for name, runs in used.items():
        folder = Path(values["runs"], name)
        scored = [run for run in runs if (folder / run / "scores.npz").is_file()]
        tables = [folder / f"{table}.parquet" for table in ("results", "spaces")]
        if scored and (scored != runs or all(table.is_file() for table in tables)):
            complete[name] = scored
    return complete


def failures(values: Mapping[str, Any], used: Mapping[str, list[str]]) -> Iterator[str]:
    """A sentence for each run or data set of the grid that is not in `used`. It names the notebook
    of this call that failed last, or the folder if none did (a job was killed)."""
    begun = Path(values["runs"], "params.yaml").stat().st_mtime
    for name, runs in cells(values).items():
        folder = Path(values["runs"], name, "notebooks")
        for run in [run for run in runs if run not in used[name]] if name in used else [None]:
            paths = folder.glob(f"*.{run}.ipynb" if run else "*.ipynb")
            times = {path: path.stat().st_mtime for path in paths}
            executed = (path for path, time in times.items() if time >= begun)
            failed = [path for path in executed if '"exception": true' in path.read_text("utf-8")]
            place = folder if folder.is_dir() else Path(values["runs"], "snakemake.log")
            what = f"{run} on {name} did not finish"
            if not run:
                what = f"{name} did not finish; the common tables hold what it has, if any"
            yield f"{what}; see {max(failed, key=times.get, default=place)}"


def run_snakemake(
    notebooks: Path,
    params: Path,
    cores: str | None = None,
    profile: Path | None = None,
    only: Mapping[str, list[str]] | None = None,
) -> int:
    """Execute the Snakefile with the parameters in `params`, for the runs in `only`; returns its
    exit status. A `profile` says where jobs run; without one, they share this machine's GPUs.

    An interrupt (Ctrl-C, SIGTERM) stops Snakemake and its jobs, and `KeyboardInterrupt` is raised
    after they have ended. If this process is killed, Snakemake continues and keeps the lock.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(notebooks / "Snakefile")]
    command += ["--configfile", str(params), "--rerun-incomplete", "--keep-going"]
    command += ["--nolock"]  # a lock of `files.lock_folder` ends with the process that holds it
    command += ["--config", f"only={json.dumps(only)}"] if only else []
    command += ["--workflow-profile", str(profile)] if profile else []
    command += ["--cores", cores or "all"] if cores or not profile else []
    places = [] if profile else gpus.visible_gpus() * read_yaml(params).get("runs_per_gpu", 1)
    command += ["--resources", f"gpu={len(places)}"] if places else []
    environment = {"LNAME": str(os.getuid()), **os.environ}  # Snakemake fails without a name
    environment[gpus.GPUS] = ",".join(places)
    log = params.with_name("snakemake.log")
    default = signal.signal(signal.SIGTERM, terminate_children)
    with log.open("a" if only else "w") as output:
        log.touch()  # the notebooks of this call are newer
        options = {"env": environment, "stdout": output, "stderr": subprocess.STDOUT}
        snakemake = subprocess.Popen(command, close_fds=False, **options)
        try:
            return follow(snakemake, log)
        except KeyboardInterrupt:  # from Ctrl-C, which a terminal sends to all of them, or SIGTERM
            snakemake.wait()
            raise
        finally:
            signal.signal(signal.SIGTERM, default)


def terminate_children(*_: Any) -> NoReturn:
    """Send SIGTERM to all descendants of this process, Snakemake first, so that it starts no
    further job and waits for those of a cluster."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            process.terminate()
    raise KeyboardInterrupt
