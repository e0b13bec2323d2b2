"""Folders of runs: list runs, find the finished ones, and describe one in a line."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from jetatag import __version__
from jetatag.config import RunConfig
from jetatag.joint.losses import DEFAULT_LOSS
from jetatag.training.device import pick_device, precision_label
from jetatag.training.provenance import commit
from jetatag.training.run import Run


def listing(parent: Path | str) -> pd.DataFrame:
    """One row for every run anywhere under `parent`: settings, progress, cost.

    `valid_ap` is the last macro average precision on the validation split (one window per clip),
    `wall_s` and `peak_mib` are of the finished stages. A damaged run is left out with a warning;
    raises `FileNotFoundError` if there is no run.
    """
    rows = []
    for path in sorted(Path(parent).rglob("record.json")):
        try:
            rows.append(listed(Run.open(path.parent)))
        except ValueError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
        except FileNotFoundError:
            continue  # the record of something else
    if not rows:
        raise FileNotFoundError(f"no run under {parent}: train one with `jetatag train`.")
    return pd.DataFrame(rows)


def listed(run: Run) -> dict[str, Any]:
    """The row of `run` in `listing`."""
    record, history, config = run.record, run.history, run.config
    ap = history.get("valid_average_precision", pd.Series(dtype=float)).dropna()
    stages = record["stages"].values()
    # Imported stages have no precision.
    computed = [*stages, record.get("prediction", {})]
    precisions = [name for one in computed for name in one.get("precision", "").split(" + ")]
    return {
        "run": str(run.folder),
        "dataset": record["data"]["name"],
        **{name: getattr(config, name) for name in ("method", "pair_loss", "extractor", "seed")},
        "classification_loss": config.classification_name,
        "state": "scored" if run.has("scores.npz") else " + ".join(record["stages"]) or "begun",
        "epochs": len(history),
        "valid_ap": ap.iloc[-1] if len(ap) else np.nan,
        # Imported stages have neither time nor memory.
        "wall_s": sum(stage["wall_time_s"] or 0 for stage in stages),
        "peak_mib": max((stage["peak_memory_mib"] or np.nan for stage in stages), default=np.nan),
        "precision": " + ".join(dict.fromkeys(filter(None, precisions))),
        **{name: record.get("made_by", {}).get(name, "") for name in ("commit", "begun")},
    }


def finished(parent: Path | str, below: str = "*") -> list[Run]:
    """The runs in `parent` (with `below` "**": at any depth) that have scores, by name; raises
    `FileNotFoundError` if there are none."""
    folders = sorted(path.parent for path in Path(parent).glob(f"{below}/scores.npz"))
    runs = [Run.open(folder) for folder in folders if (folder / "config.json").is_file()]
    if not runs:
        raise FileNotFoundError(f"no finished run under {parent}: run `jetatag reproduce` first.")
    return runs


def pick(runs: list[Run], **settings: Any) -> Run:
    """The last of `runs` with these `settings`, each a value or a list of accepted values, the best
    last; the default classification loss is preferred. Raises `ValueError` if none fits."""
    accepted = {name: v if isinstance(v, list) else [v] for name, v in settings.items()}
    fitting = runs[::-1]
    for name, values in accepted.items():
        fitting = [run for run in fitting if getattr(run.config, name) in values]

    def preference(run: Run) -> list[int]:
        places = [values.index(getattr(run.config, name)) for name, values in accepted.items()]
        return [run.config.classification_name == DEFAULT_LOSS, *places]

    if fitting:
        return max(fitting, key=preference)
    wanted = ", ".join(f"{name} = {value}" for name, value in settings.items())
    raise ValueError(f"no run with {wanted} among {len(runs)}: train one with `jetatag train`.")


def banner(config: RunConfig) -> str:
    """One line for the top of a notebook: run, device, precision, version and commit."""
    device = pick_device(config.device)
    gpu = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    size = f"width {config.width} · {config.crop_samples:,} samples a crop"
    made_by = f"jetatag {__version__} commit {commit()}"
    return f"{config.name} · {size} · {device}{gpu} {precision_label(config, device)} · {made_by}"
