"""Reads Keras 2 SavedModels: their weights, and their outputs for noise. TensorFlow runs this file
as a script in its own process, because its compiler and torch's crash in one.
"""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

QUIET_CPU = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
QUIET_CPU |= {"TF_ENABLE_ONEDNN_OPTS": "0"}  # with it, TensorFlow 2.21 crashes in Harmonic-CNN
OPEN_SIZE = 80_000  # samples for a model saved without a length, as Harmonic-CNN may be


@dataclass(frozen=True)
class SavedModel:
    """Names and arrays in the order of the Keras model's `weights`; `inputs` uniform in [-1, 1),
    (row, n_in) float32, and the model's `outputs` in inference mode, (row, n_out) float32."""

    names: list[str]
    arrays: list[np.ndarray]
    inputs: np.ndarray
    outputs: np.ndarray


def read(folder: Path, parts: Sequence[str]) -> dict[str, SavedModel]:
    """The SavedModels in the sub-folders `parts` of `folder`. Raises `ImportError` without
    TensorFlow, `ChildProcessError` if it crashes or is killed, and `ValueError` for a SavedModel
    that is damaged or was not saved by Keras 2."""
    if importlib.util.find_spec("tensorflow") is None:
        problem = "SavedModels need TensorFlow, which is missing"
        raise ImportError(f"{problem}: pip install 'jetatag[tensorflow]'.")
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-P", __file__, str(folder), scratch, *parts]
        done = subprocess.run(command, env=os.environ | QUIET_CPU, capture_output=True)
        if done.returncode < 0:
            number = signal.Signals(-done.returncode)
            remedy = "free memory" if number == signal.SIGKILL else "try another version"
            problem = f"TensorFlow was killed by {number.name} while it read {folder}"
            raise ChildProcessError(f"{problem}: {remedy}.")
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            reason = said[-1] if said else f"exit status {done.returncode}"
            raise ValueError(f"TensorFlow cannot read {folder} ({reason}): get it again.")
        saved = {}
        for part in parts:
            with np.load(Path(scratch) / f"{part}.npz", allow_pickle=False) as file:
                names = file["names"].tolist()
                arrays = [file[f"arr_{i}"] for i in range(len(names))]
                saved[part] = SavedModel(names, arrays, file["inputs"], file["outputs"])
    return saved


def convert(folder: Path, out: Path) -> None:
    """Load a SavedModel with TensorFlow and write it as an npz."""
    import tensorflow

    loaded = tensorflow.saved_model.load(str(folder))
    served = loaded.signatures["serving_default"]
    ((name, spec),) = served.structured_input_signature[1].items()
    shape = [spec.shape[0] or 2, *(size or OPEN_SIZE for size in spec.shape[1:])]
    noise = np.random.default_rng(0).uniform(-1, 1, shape)
    inputs = tensorflow.cast(noise, spec.dtype)
    (outputs,) = served(**{name: inputs}).values()
    np.savez(
        out,
        *[variable.numpy() for variable in loaded.variables],
        names=[variable.name for variable in loaded.variables],
        inputs=inputs.numpy().reshape(len(noise), -1).astype(np.float32),
        outputs=outputs.numpy(),
    )


if __name__ == "__main__":
    folder, scratch, *parts = sys.argv[1:]
    for part in parts:
        try:
            convert(Path(folder) / part, Path(scratch) / f"{part}.npz")
        except Exception as error:  # of many kinds
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
            sys.exit(f"{part} is not a complete SavedModel of Keras 2 ({problem})")
