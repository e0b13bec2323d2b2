"""The run folder: what one trained model was told, did and became.

`config.json` the settings, `record.json` data, versions, machine, time and memory, `history.csv`
one row an epoch, `checkpoint.safetensors` where training stands, `<stage>.safetensors` the
weights after each stage, `scores.npz` and `embeddings.npz` what the model says of the test split,
`scores.valid.npz` what it says of the validation split.
Weights are safetensors and the rest JSON, CSV and plain arrays: opening a run executes nothing.
"""

import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from jetatag.config import RunConfig
from jetatag.data import Vocabulary
from jetatag.data.store import AudioStore
from jetatag.files import (
    atomic,
    checksum,
    lock_folder,
    read_arrays,
    read_json,
    write_arrays,
    write_json,
)

PLACE_SETTINGS = ("device", "precision", "checkpoint_minutes", "tensorboard")
"""Settings that say where a run computes and what it writes beside its results; they may change
when it goes on."""
CHECKPOINT = "checkpoint.safetensors"
PREDICTIONS = ["scores.npz", "scores.valid.npz", "embeddings.npz"]
LIBRARIES = (
    *("jetatag", "torch", "torchaudio", "lightning-fabric", "numpy", "pandas", "scikit-learn"),
    *("librosa", "soundfile", "safetensors", "umap-learn"),
)


@dataclass(frozen=True)
class Run:
    """One trained model's folder and settings.

    Of several processes that train it together only the first writes; for the others, what would
    write does nothing.
    """

    folder: Path
    config: RunConfig
    writes: bool = field(default_factory=lambda: int(os.environ.get("RANK", 0)) == 0)

    @classmethod
    def start(cls, parent: Path | str, config: RunConfig, store: AudioStore) -> "Run":
        """Open the run of this config under `parent`, or begin it.

        A folder of the same name that was trained with other settings or other data is refused
        (`ValueError`), naming the difference.
        """
        folder = Path(parent) / config.name
        padded = store.lengths < config.crop_samples
        data = {
            "name": store.name,
            "checksum": store.checksum,
            "split_checksum": split_checksum(store),
            "peak_normalise": store.peak_normalise,
            "clips_by_split": store.table.split.value_counts().to_dict(),
            "padded_clips": store.table.split[padded].value_counts().to_dict(),
            "tags": list(store.vocabulary.tags),
            "task": store.vocabulary.task,
        }
        if (folder / "config.json").is_file() and _has_begun(folder):
            begun = cls.open(folder)
            _check_difference(folder, begun.config, config)
            if begun.record["data"]["checksum"] != store.checksum:
                raise ValueError(f"{folder} was begun on other data: choose another runs folder.")
            return cls(folder, config)
        made_by = {"begun": datetime.now(UTC).isoformat(timespec="seconds"), **provenance()}
        run = cls(folder, config)
        if run.writes:
            write_json(folder / "record.json", {"data": data, "made_by": made_by, "stages": {}})
            write_json(folder / "config.json", config.to_dict())
        return run

    @classmethod
    def open(cls, folder: Path | str) -> "Run":
        """Open an existing run; a folder without one is refused in one sentence."""
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{folder} is no run folder: make one with `jetatag reproduce` or notebooks 02 "
                "and 03."
            )
        values = read_json(folder / "config.json")
        if not isinstance(values, dict):
            raise ValueError(f"{folder}/config.json holds no settings: delete the run.")
        return cls(folder, RunConfig.from_dict(values))

    @property
    def record(self) -> dict[str, Any]:
        """Data, versions, commit, machine, and each finished stage's time and memory."""
        record = read_json(self.folder / "record.json")
        if not isinstance(record, dict) or not {"data", "stages"} <= record.keys():
            raise ValueError(
                f"{self.folder}/record.json is not a run's record: delete the run and train again."
            )
        return record

    @property
    def vocabulary(self) -> Vocabulary:
        """The tags this run was trained on, in score order."""
        data = self.record["data"]
        return Vocabulary(tuple(data["tags"]), data["task"])

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch: stage, epoch, learning_rate, losses, validation scores."""
        path = self.folder / "history.csv"
        if not path.is_file():
            return pd.DataFrame({"stage": [], "epoch": []})
        try:
            history = pd.read_csv(path)
            return history.astype({"stage": str, "epoch": int})
        except (ValueError, KeyError):
            raise ValueError(f"{path} is damaged: delete the run and train again.") from None

    def write_history(self, history: pd.DataFrame) -> None:
        """Replace the history."""
        if not self.writes:
            return
        with atomic(self.folder / "history.csv") as temporary:
            history.to_csv(temporary, index=False)

    def finish_stage(
        self, stage: str, weights: Mapping[str, Tensor], device: torch.device, facts: Mapping
    ) -> None:
        """Note a stage's time, memory, place and other `facts`, keep its weights, and drop the
        checkpoint."""
        if not self.writes:
            return
        record = self.record
        record["stages"][stage] = {
            **facts,
            "peak_memory_mib": round(peak_memory_mib()),
            "device": str(device),
            "precision": self.config.precision,
            "commit": commit(),
        }
        write_json(self.folder / "record.json", record)
        self.write_tensors(f"{stage}.safetensors", weights)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)

    def forget(self, stages: list[str]) -> None:
        """Drop what was made of `stages` (weights, history, scores): they must be trained anew."""
        if not self.writes:
            return
        for file in [f"{stage}.safetensors" for stage in stages] + PREDICTIONS:
            (self.folder / file).unlink(missing_ok=True)
        history, record = self.history, self.record
        self.write_history(history[~history.stage.isin(stages)])
        kept = {name: facts for name, facts in record["stages"].items() if name not in stages}
        write_json(self.folder / "record.json", {**record, "stages": kept})

    def write_checkpoint(self, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
        """Keep where training stands: tensors, and notes that JSON can hold."""
        told = {"run": self.identity, "notes": json.dumps(notes)}
        self.write_tensors(CHECKPOINT, tensors, told)

    def read_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and notes of `write_checkpoint`, None where there is none; a torn one and one of
        another run are refused (`ValueError`)."""
        if not self.has(CHECKPOINT):
            return None
        tensors, told = self.read_tensors(CHECKPOINT)
        if told.get("run") != self.identity or "notes" not in told:
            raise ValueError(
                f"{self.folder / CHECKPOINT} is not of this run's settings and data: delete it to "
                "begin the stage anew, or bring back the one that belongs here."
            )
        return tensors, json.loads(told["notes"])

    @property
    def identity(self) -> str:
        """Checksum of what decides the weights: settings and data."""
        settings = {k: v for k, v in self.config.to_dict().items() if k not in PLACE_SETTINGS}
        data = self.record["data"]
        told = [settings, data["checksum"], data["tags"]]
        return checksum(json.dumps(told, sort_keys=True).encode())

    def event_writer(self, stage: str, epochs_done: int) -> Any:
        """A TensorBoard `SummaryWriter` on the stage's folder under `tensorboard`, which forgets
        what an interrupted run wrote beyond `epochs_done`; None for processes that do not write."""
        if not self.writes:
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError(
                "tensorboard event files need its package: pip install 'jetatag[tensorboard]', or "
                "set tensorboard to false."
            ) from None
        return SummaryWriter(self.folder / "tensorboard" / stage, purge_step=epochs_done + 1)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the run's folder against other trainings of it (`ValueError`)."""
        return lock_folder(self.folder) if self.writes else nullcontext()

    def has(self, file: str) -> bool:
        """Whether the run already holds `file`."""
        return (self.folder / file).is_file()

    def write_tensors(
        self, file: str, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None
    ) -> None:
        """Write tensors and text notes as safetensors, atomically."""
        if not self.writes:
            return
        with atomic(self.folder / file) as temporary:
            # Copies, because weights that two layers share may not be saved as such.
            whole = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
            temporary.write_bytes(save(whole, notes))  # for `save_file` shuts all others out

    def read_tensors(self, file: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors (on the CPU) and notes; a torn or foreign file is refused (`ValueError`)."""
        try:
            with safe_open(self.folder / file, "pt") as opened:
                names = opened.keys()
                return {name: opened.get_tensor(name) for name in names}, opened.metadata() or {}
        except SafetensorError as error:
            raise ValueError(
                f"{self.folder / file} is damaged ({error}): delete it and train again."
            ) from None

    def load_weights(self, stage: str, model: torch.nn.Module) -> None:
        """Copy the weights after `stage` into `model`; refuses weights of another shape."""
        try:
            model.load_state_dict(self.read_tensors(f"{stage}.safetensors")[0])
        except RuntimeError:
            raise ValueError(
                f"{self.folder}/{stage}.safetensors does not fit the model of its config.json: "
                "delete the run and train again."
            ) from None

    def write_arrays(self, file: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write named arrays into the run's folder, as a compressed npz."""
        if not self.writes:
            return
        write_arrays(self.folder / file, arrays)

    def read_arrays(self, file: str) -> dict[str, np.ndarray]:
        """Read the named arrays of one of the run's npz files."""
        return read_arrays(self.folder / file)


def listing(parent: Path | str) -> pd.DataFrame:
    """One row for every run anywhere under `parent`: what it is, how far it came, what it took.

    `valid_ap` is the last macro average precision on the validation split (one window a clip),
    `wall_s` and `peak_mib` are of the finished stages. A damaged run is left out with a warning;
    no run at all is refused in one sentence.
    """
    folders = sorted(path.parent for path in Path(parent).rglob("config.json"))
    rows = []
    for folder in (folder for folder in folders if (folder / "record.json").is_file()):
        try:
            rows.append(listed(Run.open(folder)))
        except ValueError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
    if not rows:
        raise FileNotFoundError(f"no run under {parent}: train one with `jetatag train`.")
    return pd.DataFrame(rows)


def listed(run: Run) -> dict[str, Any]:
    """A run's row of `listing`."""
    record, history, config = run.record, run.history, run.config
    ap = history.get("valid_average_precision", pd.Series(dtype=float)).dropna()
    stages = record["stages"].values()
    return {
        "run": str(run.folder),
        "dataset": record["data"]["name"],
        "method": config.method,
        "pair_loss": config.pair_loss,
        "extractor": config.extractor,
        "seed": config.seed,
        "state": "scored" if run.has("scores.npz") else " + ".join(record["stages"]) or "begun",
        "epochs": len(history),
        "valid_ap": ap.iloc[-1] if len(ap) else np.nan,
        # Imported stages have neither.
        "wall_s": sum(stage["wall_time_s"] or 0 for stage in stages),
        "peak_mib": max((stage["peak_memory_mib"] or np.nan for stage in stages), default=np.nan),
        "commit": record.get("made_by", {}).get("commit", ""),
        "begun": record.get("made_by", {}).get("begun", ""),
    }


def finished(parent: Path | str, below: str = "*") -> list[Run]:
    """Every run in `parent` (with `below` "**": at it or anywhere under it) that has scores, by
    name; none is refused in one sentence."""
    folders = sorted(path.parent for path in Path(parent).glob(f"{below}/scores.npz"))
    runs = [Run.open(folder) for folder in folders if (folder / "config.json").is_file()]
    if not runs:
        raise FileNotFoundError(
            f"no finished run under {parent}: run `jetatag reproduce`, `jetatag train` or "
            "notebooks 02 and 03 first."
        )
    return runs


def pick(runs: list[Run], **settings: Any) -> Run:
    """The last of `runs` whose config has `settings`; none is refused in one sentence."""
    for run in reversed(runs):
        if all(getattr(run.config, name) == value for name, value in settings.items()):
            return run
    wanted = ", ".join(f"{name} = {value}" for name, value in settings.items())
    raise ValueError(
        f"no run with {wanted} among {len(runs)}: train one with `jetatag reproduce` or notebooks "
        "02 and 03."
    )


def split_checksum(store: AudioStore) -> str:
    """Names which clip belongs to which split."""
    return checksum(store.table[["clip_id", "split"]].to_csv(index=False).encode())


def provenance() -> dict[str, Any]:
    """Versions, commit and machine, for the record."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
        "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def commit() -> str:
    """The package's git commit, with + when files differ from it; unknown outside a checkout."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    here = Path(__file__).parent
    try:
        told = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip()


def peak_memory_mib() -> float:
    """Largest memory of this process so far, in MiB: the GPU's where one is used."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _has_begun(folder: Path) -> bool:
    """Whether anything was trained here that other settings would contradict."""
    return any(folder.glob("*.safetensors")) or (folder / "history.csv").is_file()


def _check_difference(folder: Path, begun: RunConfig, wanted: RunConfig) -> None:
    for name, value in begun.to_dict().items():
        if name not in PLACE_SETTINGS and value != wanted.to_dict()[name]:
            raise ValueError(
                f"{folder} was begun with {name} = {value!r}, not {wanted.to_dict()[name]!r}: "
                "delete it or choose another runs folder."
            )


def banner(config: RunConfig) -> str:
    """One line for the head of a notebook: what runs, where, from which commit."""
    where = "cuda" if config.device == "auto" and torch.cuda.is_available() else config.device
    return (
        f"{config.name} · width {config.width} · {config.crop_samples:,} samples a crop · "
        f"{where} {config.precision} · jetatag {importlib.metadata.version('jetatag')} "
        f"commit {commit()}"
    )
