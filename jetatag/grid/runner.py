"""The grid of a preset: which runs, on which data sets, with which parameters of the notebooks, and
how Snakemake is asked to run what is missing of it."""

import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import psutil
import yaml

from jetatag.config import RunConfig, preset
from jetatag.files import atomic, check_known, check_type, read_json
from jetatag.grid import gpus

GRID_PARAMETERS = ["trained", "datasets", "only"]
"""What the Snakefile itself takes, beside the notebooks' parameters: the runs to train, data sets
with what differs between them, and, by data set, the names of the only runs to use."""
GRID_AXES = ("extractor", "seed", "method", "pair_loss", "label_share")
"""Settings of which an entry of `trained` may list several values; the first two also for all."""

READ = ("published", "schedules", "study")
"""Where notebook 06 reads what was there before; the study's tables may be the grid's own."""
COMPARED = ("je", "no_je", "no_je_linear")
"""Methods that every data set of a grid needs: the paper's two and the fair control."""
FEWEST_TESTED = 3
"""Clips: fewer have no neighbours to share tags with, and with their tags make no map."""


def parameters(notebook: Path | str) -> list[str]:
    """Names in the notebook's `parameters` cell, as papermill reads them."""
    from papermill import inspect_notebook

    with contextlib.redirect_stdout(io.StringIO()):
        return list(inspect_notebook(str(notebook)))


def check_parameters(values: Mapping[str, Any], notebooks: list[Path]) -> None:
    """Refuse (`ValueError`) nonsense before anything runs: a name that no notebook and not the
    Snakefile knows (papermill itself only warns), a data set or run that cannot be."""
    valid = {name for notebook in notebooks for name in parameters(notebook)}
    check_known(values, sorted(valid | set(GRID_PARAMETERS)), "parameter")
    from jetatag.data import check_options

    check_text(values, "runs", "out", *READ)
    check_too_few_resamples(values)
    for name in READ:
        if values[name] != values["runs"] and not Path(values[name]).exists():
            raise FileNotFoundError(
                f"{name} {values[name]} does not exist: name another (--set {name}=…)."
            )
    for own in by_dataset(values).values():
        check_known(own, sorted(valid | set(GRID_PARAMETERS)), "parameter")
        check_text(own, "data", "store", "tag", "dataset")
        check_too_few_resamples(own)
        check_options(own["dataset"], own.get("options", {}))
        check_uncompared(trained(own))
    cells(values)


def check_text(values: Mapping[str, Any], *names: str) -> None:
    """Refuse (`ValueError`) the first of `names` that is no text."""
    for name in names:
        if not isinstance(values[name], str):
            raise ValueError(f"{name} must be text, not {values[name]!r}.")


def check_too_few_resamples(values: Mapping[str, Any]) -> None:
    """Refuse (`ValueError`) what is no number of resamples."""
    if check_type(values.get("n_resamples", 1), int, "n_resamples") < 1:
        raise ValueError(f"n_resamples must be at least 1, not {values['n_resamples']}.")


def check_uncompared(runs: Mapping[str, RunConfig]) -> None:
    """Refuse (`ValueError`) runs that lack a method which notebooks 04 and 05 compare."""
    if absent := [name for name in COMPARED if name not in {run.method for run in runs.values()}]:
        raise ValueError(
            f"trained lacks {' and '.join(absent)}: notebooks 04 and 05 compare "
            f"{', '.join(COMPARED)}. Single runs have `jetatag train` and `jetatag report`."
        )


def by_dataset(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The parameters of every data set of the grid, by its name: the shared ones, what `datasets`
    says of it, and a folder of its own under `runs`."""
    several = values.get("datasets") or {values["dataset"]: {}}
    if not isinstance(several, dict) or not all(isinstance(own, dict) for own in several.values()):
        raise ValueError("datasets must name for each data set its own parameters, such as data.")
    return {
        name: {**values, "dataset": name, **own, "runs": f"{values['runs']}/{name}"}
        | {"out": f"{values['out']}/{name}"}
        for name, own in several.items()
    }


def cells(values: Mapping[str, Any]) -> dict[str, dict[str, RunConfig]]:
    """The grid: the runs of every data set, by their names; with `only`, nothing but what that
    lists."""
    whole = {name: trained(own) for name, own in by_dataset(values).items()}
    only = check_type(values.get("only", whole), dict, "only")
    check_known(only, whole, "data set")
    for name, runs in only.items():
        check_known(runs, whole[name], "run")
    return {name: {run: whole[name][run] for run in runs} for name, runs in only.items()}


def trained(values: Mapping[str, Any]) -> dict[str, RunConfig]:
    """The runs to train on a data set, by name: every entry of `trained`, once for each
    combination of the values where it, or the shared parameters, list several (`GRID_AXES`).

    An entry overrides the shared `settings`. Two runs of one name are refused (`ValueError`).
    """
    runs: dict[str, RunConfig] = {}
    shared = {name: values[name] for name in ("extractor", "seed", "device", "precision")}
    shared |= check_type(values["settings"], dict, "settings")
    for entry in check_type(values["trained"], Sequence[dict], "trained"):
        cell = {str(name): value for name, value in (shared | entry).items()}
        listed = {axis: cell[axis] for axis in GRID_AXES if isinstance(cell.get(axis), list)}
        for combination in itertools.product(*listed.values()):
            run = preset(values["preset"], **cell | dict(zip(listed, combination, strict=True)))
            if run.name in runs:
                raise ValueError(f"trained names the run {run.name} twice: leave one out.")
            runs[run.name] = run
    return runs


def run_parameters(run: RunConfig, name: str) -> dict[str, Any]:
    """A run of the grid as parameters of notebooks 02 and 03: what is otherwise than in preset
    `name` and no parameter of theirs goes into `settings`."""
    plain, usual = (json.loads(json.dumps(config.to_dict())) for config in (run, preset(name)))
    own = ("method", "pair_loss", "extractor", "seed", "device", "precision")
    given = {setting: plain.pop(setting) for setting in own}
    changed = {setting: value for setting, value in plain.items() if value != usual[setting]}
    return given | {"settings": changed}


def parameter_yaml(values: Mapping[str, Any], notebook: Path) -> str:
    """Those of `values` that the notebook takes, as one line of YAML for papermill."""
    known = {name: values[name] for name in parameters(notebook) if name in values}
    return yaml.safe_dump(known, default_flow_style=True, width=10**6).strip()


def own_data(name: str, data: list[str], dataset: str | None) -> dict[str, Any]:
    """Parameters of preset `name` for data sets of the user's, each FOLDER of `dataset` or
    DATASET=FOLDER: their results have a place of their own, and the preset's tag, which is
    MagnaTagATune's, gives way to the vocabulary's first."""
    if dataset is not None and not data:
        raise ValueError(f"where is {dataset}? Give its folder with --data.")
    if not data:
        return {}
    pairs = [text.split("=", 1) if "=" in text else (dataset or "mtat", text) for text in data]
    folders = dict(pairs)
    if len(folders) < len(pairs):
        raise ValueError("--data names a data set twice: give DATASET=FOLDER, each once.")
    runs = f"runs/{name}-{'+'.join(folders)}"
    shared = {"runs": runs, "out": runs, "options": {}, "datasets": {}}
    shared |= {"study": runs} if name == "study" else {}  # its own tables
    datasets = {
        key: {"data": folder, "store": f"{folder.rstrip('/')}.store"}
        | ({} if key == "mtat" else {"tag": ""})
        for key, folder in folders.items()
    }
    if len(datasets) == 1:  # said of all, so that --set can change it
        ((only, own),) = datasets.items()
        return shared | own | {"dataset": only}
    return shared | {"datasets": datasets}


def check_data(values: Mapping[str, Any]) -> None:
    """Refuse (`ValueError`, `FileNotFoundError`) a data set that cannot be read, before notebooks
    run; what it only lacks, notebook 01 tells, which also makes the built-in one."""
    from jetatag import rendered
    from jetatag.data import load

    if values["dataset"] == "rendered":
        if values["tag"] and "tags" not in values["options"]:
            check_known([values["tag"]], rendered.TAGS, "tag")
        return
    with warnings.catch_warnings(action="ignore"):
        index = load(values["dataset"], values["data"], **values["options"])
    if values["tag"]:
        index.vocabulary.columns([values["tag"]])
    test = index.labels[(index.table.split == "test").to_numpy() & index.labels.any(axis=1)]
    if len(test) < FEWEST_TESTED or (test == test[0]).all():
        raise ValueError(
            f"{values['data']} has {len(test)} tagged clips to test on, where notebook 05 compares "
            f"at least {FEWEST_TESTED}, not all tagged alike: add clips or give other splits."
        )


def check_store(values: Mapping[str, Any]) -> None:
    """Refuse (`ValueError`) a store that was prepared at another sample rate than the runs want."""
    facts = Path(values["store"]) / "store.json"
    held = read_json(facts).get("sample_rate") if facts.is_file() else None
    for run in trained(values).values():
        if held not in (None, run.sample_rate):
            raise ValueError(
                f"{values['store']} holds audio at {held:,} Hz and the settings say "
                f"{run.sample_rate:,}: name another store (--set store=…) or delete this one."
            )


def check_profile(profile: Path | None) -> None:
    """Refuse (`FileNotFoundError`) a folder that is no Snakemake profile."""
    if profile and not any(profile.glob("config*.yaml")):
        raise FileNotFoundError(f"{profile} holds no config.yaml: give the folder of a profile.")


def record_of(values: Mapping[str, Any]) -> Path:
    """The grid's parameters as a file beside the results; written whenever it begins to run."""
    return Path(values["runs"]) / "params.yaml"


def run_grid(
    notebooks: Path, values: Mapping[str, Any], cores: str | None, profile: Path | None
) -> tuple[int, dict[str, list[str]]]:
    """Run the grid of `values` by Snakemake, and where some of it fails, once more what needs only
    the rest. Returns the first exit status and the runs of every data set that were used."""
    params = record_of(values)
    with atomic(params) as temporary:
        temporary.write_text(yaml.safe_dump(dict(values), sort_keys=False))
    used = {name: list(runs) for name, runs in cells(values).items()}
    status = ended = run_snakemake(notebooks, params, cores, profile)
    while ended == 1 and (fewer := finished(values, used)) != used:
        used = fewer
        if not used:
            break
        ended = run_snakemake(notebooks, params, cores, profile, only=used)
    return status, used


def finished(values: Mapping[str, Any], used: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Those of the data sets and runs `used` that went well: runs that have scores, of data sets
    where any has. A data set where all have and whose tables are still not there went wrong."""
    well = {}
    for name, runs in used.items():
        folder = Path(by_dataset(values)[name]["runs"])
        scored = [run for run in runs if (folder / run / "scores.npz").is_file()]
        tables = [folder / f"{table}.parquet" for table in ("results", "spaces")]
        if scored and (scored != runs or all(table.is_file() for table in tables)):
            well[name] = scored
    return well


def failures(values: Mapping[str, Any], used: Mapping[str, list[str]]) -> Iterator[str]:
    """A sentence for every run of the grid that is not `used`, or one for a whole data set: where
    to read why."""
    begun = record_of(values).stat().st_mtime
    for name, runs in cells(values).items():
        executed = Path(by_dataset(values)[name]["runs"]) / "notebooks"
        told_in = partial(last_failed, executed, begun)
        if name not in used:
            told = told_in("*.ipynb")
            yield f"{name} did not finish: the common tables hold what it has, if any; see {told}"
            continue
        for run in runs:
            if run not in used[name]:
                told = told_in(f"0[23]_*.{run}.ipynb")
                yield f"{run} on {name} did not finish; see {told}"


def last_failed(folder: Path, begun: float, pattern: str) -> Path:
    """The notebook of `folder` executed since `begun` (s since 1970) that failed last; the folder
    itself where none did, as when a job was killed."""
    times = {path: path.stat().st_mtime for path in folder.glob(pattern)}
    executed = (path for path, time in times.items() if time >= begun)
    failed = [path for path in executed if '"exception": true' in path.read_text()]
    return max(failed, key=times.get, default=folder)


def run_snakemake(
    notebooks: Path,
    params: Path,
    cores: str | None = None,
    profile: Path | None = None,
    only: Mapping[str, list[str]] | None = None,
) -> int:
    """Run the Snakefile with the parameters of `params`, on `only` some of the grid; returns the
    exit status. A `profile` says where jobs run; without one they share this machine's GPUs."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(notebooks / "Snakefile")]
    command += ["--configfile", str(params), "--rerun-incomplete", "--keep-going"]
    command += ["--nolock"]  # `alone` holds the folder, and a killed process lets go of it
    command += ["--config", f"only={json.dumps(only)}"] if only else []
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    if profile:
        command += ["--workflow-profile", str(profile)] + (["--cores", cores] if cores else [])
    else:
        command += ["--cores", cores or "all"]
        if found := gpus.found():
            command += ["--resources", f"gpu={len(found)}"]
            environment[gpus.OFFERED] = ",".join(found)
    return run_to_its_end(command, environment)


def run_to_its_end(command: list[str], environment: Mapping[str, str]) -> int:
    """Run Snakemake and return its exit status; who stops us stops it and its jobs, and is heard
    (`KeyboardInterrupt`) once they have ended, for until then the folder is not free. Where we are
    killed, it goes on and holds the folder in our place (`files.lock_folder`)."""
    usual = signal.signal(signal.SIGTERM, end_all_below)
    snakemake = subprocess.Popen(command, env=environment, close_fds=False)
    try:
        return snakemake.wait()
    except KeyboardInterrupt:  # of Ctrl-C, which a terminal sends to all of them, or of SIGTERM
        snakemake.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, usual)


def end_all_below(*_: Any) -> NoReturn:
    """Pass SIGTERM on to every process below this one: Snakemake first, which then begins no job
    and waits for those of a cluster."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            process.terminate()
    raise KeyboardInterrupt


def find_notebooks() -> Path:
    """The folder `notebooks` of the checkout we are in."""
    if not Path("notebooks/Snakefile").is_file():
        raise FileNotFoundError(
            "no folder notebooks/ here: run `jetatag reproduce` at the top of a jetatag checkout."
        )
    return Path("notebooks")
