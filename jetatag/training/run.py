"""The run folder: settings, record, weights and results of one trained model.

`config.json`: settings; `record.json`: data, versions, machine, time and memory; `history.csv`: one
row per epoch; `<stage>.safetensors`: weights after a stage; `checkpoint.pt`: the stage in training;
`scores.npz` and `embeddings.npz`: predictions on the test split, `scores.valid.npz` on the
validation split. Opening a run executes no code: checkpoints are read as `weights_only`.
"""

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from jetatag import files
from jetatag.config import RunConfig
from jetatag.data import Vocabulary
from jetatag.data.store import AudioStore
from jetatag.training.provenance import commit, peak_memory_mib, provenance

RUNTIME_SETTINGS = ("device", "precision", "compile", "checkpoint_minutes", "tensorboard")
"""Settings of where a run computes and what else it writes; they may change when it is resumed."""
CHECKPOINT = "checkpoint.pt"
PREDICTIONS = ("scores.npz", "scores.valid.npz", "embeddings.npz")


@dataclass(frozen=True)
class Run:
    """One trained model's folder and settings. Of several processes that train it together, the
    first writes, and in the others the writing methods do nothing."""

    folder: Path
    config: RunConfig
    writes: bool = field(default_factory=lambda: int(os.environ.get("RANK", 0)) == 0)

    @classmethod
    def start(cls, parent: Path | str, config: RunConfig, store: AudioStore) -> "Run":
        """Open the run of this config under `parent`, or create it. Raises `ValueError` if the run
        there was started with other settings or other data."""
        run = cls(Path(parent) / config.name, config)
        begun = run.has("history.csv") or run.has(CHECKPOINT) or [*run.folder.glob("*.safetensors")]
        if begun and run.has("config.json"):
            run._check_same(store)
        elif run.writes:
            run.begin(describe_data(store, config))
        return run

    def begin(self, data: Mapping[str, Any], **facts: Any) -> None:
        """Write the settings of a new run, and its record of `data` and `facts`."""
        made_by = {"begun": datetime.now(UTC).isoformat(timespec="seconds"), **provenance()}
        record = {"data": data, "made_by": made_by, "stages": {}, **facts}
        files.write_json(self.folder / "record.json", record)
        files.write_json(self.folder / "config.json", self.config.to_dict())

    def _check_same(self, store: AudioStore) -> None:
        begun, now = Run.open(self.folder), self.config.to_dict()
        for name, value in begun.config.to_dict().items():
            if name not in RUNTIME_SETTINGS and value != now[name]:
                problem = f"{self.folder} was started with {name} = {value!r}, not {now[name]!r}"
                raise ValueError(f"{problem}: delete it or choose another runs folder.")
        if begun.record["data"]["checksum"] != store.checksum:
            raise ValueError(f"{self.folder} has other data: choose another runs folder.")

    @classmethod
    def open(cls, folder: Path | str) -> "Run":
        """Open an existing run; raises `FileNotFoundError` or `ValueError` if it is not one."""
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} is not a run folder: run `jetatag reproduce` first.")
        values = files.read_json(folder / "config.json")
        if not isinstance(values, dict):
            raise ValueError(f"{folder}/config.json does not hold settings: delete the run.")
        return cls(folder, RunConfig(**values))

    def has(self, file: str) -> bool:
        """Whether `file` is in the run's folder."""
        return (self.folder / file).is_file()

    def lock(self) -> AbstractContextManager[None]:
        """Lock the folder; raises `ValueError` if another process trains this run."""
        return files.lock_folder(self.folder) if self.writes else nullcontext()

    @property
    def record(self) -> dict[str, Any]:
        """Data, versions, commit, machine, and each finished stage's time and memory."""
        record = files.read_json(path := self.folder / "record.json")
        if not isinstance(record, dict) or not {"data", "stages"} <= record.keys():
            raise ValueError(f"{path} is not a run's record: delete the run and train again.")
        return record

    @property
    def vocabulary(self) -> Vocabulary:
        """The tags that the run was trained on, in the order of its scores."""
        data = self.record["data"]
        return Vocabulary(tuple(data["tags"]), data["task"])

    @property
    def identity(self) -> str:
        """Checksum of what determines the weights: the data and the settings that differ from their
        defaults, so that a new setting leaves it unchanged."""
        changes, data = self.config.changes(), self.record["data"]
        settings = {name: v for name, v in changes.items() if name not in RUNTIME_SETTINGS}
        text = json.dumps([settings, data["checksum"], data["tags"]], sort_keys=True)
        return files.checksum(text.encode())

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch: stage, epoch, learning_rate, losses, validation scores."""
        path, kinds = self.folder / "history.csv", {"stage": str, "epoch": int}
        if not path.is_file():
            return pd.DataFrame(columns=[*kinds]).astype(kinds)
        with files.reading(path, "delete the run and train again"):
            return pd.read_csv(path).astype(kinds)

    def write_history(self, history: pd.DataFrame) -> None:
        """Replace the history."""
        if self.writes:
            with files.atomic(self.folder / "history.csv") as temporary:
                history.to_csv(temporary, index=False)

    def check_store(self, store: AudioStore) -> None:
        """Raise `ValueError` if the store's sample rate or tags are not the run's."""
        theirs, ours = store.sample_rate, self.config.sample_rate
        if theirs != ours:
            problem = f"the store is at {theirs} Hz, but the run needs {ours}"
            raise ValueError(f"{problem}: prepare a store at that rate.")
        if store.vocabulary != self.vocabulary:
            problem = f"the store's tags are not those of {self.folder} in the same order"
            remedy = "prepare a store with those, or import weights with --store"
            raise ValueError(f"{problem}: {remedy}.")

    def finish_stage(
        self, stage: str, weights: Mapping[str, Tensor], device: torch.device, facts: Mapping
    ) -> None:
        """Record a stage's `facts`, memory and device, write its weights, delete the checkpoint."""
        if self.writes:
            record = self.record
            record["stages"][stage] = {
                **facts,
                "peak_memory_mib": round(peak_memory_mib()),
                "device": str(device),
                "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "none",
                "commit": commit(),
            }
            files.write_json(self.folder / "record.json", record)
            self.write_tensors(f"{stage}.safetensors", weights)
            (self.folder / CHECKPOINT).unlink(missing_ok=True)

    def discard_stages(self, stages: list[str]) -> None:
        """Delete weights, history and predictions of `stages`, so that they are trained again."""
        if self.writes:
            for file in (*(f"{stage}.safetensors" for stage in stages), *PREDICTIONS):
                (self.folder / file).unlink(missing_ok=True)
            history, record = self.history, self.record
            self.write_history(history[~history.stage.isin(stages)])
            kept = {name: facts for name, facts in record["stages"].items() if name not in stages}
            files.write_json(self.folder / "record.json", {**record, "stages": kept})

    def write_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write tensors (with their strides), numbers and text in nested dicts."""
        if self.writes:
            with files.atomic(self.folder / CHECKPOINT) as temporary:
                torch.save({"run": self.identity, **state}, temporary)

    def read_checkpoint(self) -> dict[str, Any]:
        """The last checkpoint on the CPU, or {}; `ValueError` if it is damaged or another run's."""
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return {}
        with files.reading(path, "delete it and train again"):
            state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or state.get("run") != self.identity:
            problem = f"{path} was written with other settings or data"
            raise ValueError(f"{problem}: delete it to begin the stage again.")
        return state

    def write_tensors(self, file: str, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors as safetensors, atomically."""
        if self.writes:
            # Copies, because safetensors refuses weights that two layers share.
            whole = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
            with files.atomic(self.folder / file) as temporary:
                temporary.write_bytes(save(whole))  # `save_file` would forbid others to read it

    def read_tensors(self, file: str) -> dict[str, Tensor]:
        """Read safetensors to the CPU; raises `ValueError` for a damaged file."""
        with files.reading(self.folder / file, "delete it and train again"):
            return load_file(self.folder / file)

    def load_weights(self, stage: str, model: torch.nn.Module) -> None:
        """Copy the weights after `stage` into `model`; raises `ValueError` if they do not fit."""
        file = f"{stage}.safetensors"
        try:
            model.load_state_dict(self.read_tensors(file))
        except RuntimeError:
            problem = f"{self.folder / file} does not fit the model of its config.json"
            raise ValueError(f"{problem}: delete the run and train again.") from None

    def write_arrays(self, file: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write named arrays as a compressed npz."""
        if self.writes:
            files.write_arrays(self.folder / file, arrays)

    def read_arrays(self, file: str) -> dict[str, np.ndarray]:
        """Read the named arrays of an npz."""
        return files.read_arrays(self.folder / file)


def describe_data(store: AudioStore, config: RunConfig) -> dict[str, Any]:
    """What the record says of the data."""
    padded, splits = store.lengths < config.crop_samples, store.table[["clip_id", "split"]]
    return {
        "name": store.name,
        "checksum": store.checksum,
        "split_checksum": files.checksum(splits.to_csv(index=False).encode()),
        "peak_normalise": store.peak_normalise,
        "clips_by_split": store.table.split.value_counts().to_dict(),
        "padded_clips": store.table.split[padded].value_counts().to_dict(),
        "tags": list(store.vocabulary.tags),
        "task": store.vocabulary.task,
    }
