"""What the SavedModels of Keras 2 hold: their weights, and what they answer to noise.

TensorFlow reads them in a process of its own, in which this file runs as a script: its compiler
and that of torch crash when one process loads both.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

QUIET_CPU = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
N_ROWS = 2
OPEN_SIZE = 80_000  # samples for a model that was saved without a length, as Harmonic-CNN may be


@dataclass(frozen=True)
class SavedModel:
    """The weights' names and arrays in the order of the Keras model's `weights`, and rows of
    uniform noise in [-1, 1), (row, n_in) float32, with the outputs of the model in inference
    mode, (row, n_out) float32."""

    names: list[str]
    arrays: list[np.ndarray]
    inputs: np.ndarray
    outputs: np.ndarray

    @classmethod
    def open(cls, path: Path) -> "SavedModel":
        """Read what `write` wrote."""
        with np.load(path, allow_pickle=False) as kept:
            names = kept["names"].tolist()
            arrays = [kept[f"arr_{i}"] for i in range(len(names))]
            return cls(names, arrays, kept["inputs"], kept["outputs"])


def read(folder: Path, parts: Sequence[str]) -> dict[str, SavedModel]:
    """The SavedModels in the sub-folders `parts` of `folder`.

    Raises `ImportError` where TensorFlow is not installed, `ValueError` for a SavedModel that is
    torn, of another make or without weights.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            "TensorFlow is missing, which SavedModels need: pip install 'jetatag[tensorflow]'."
        )
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-P", __file__, str(folder), scratch, *parts]
        done = subprocess.run(
            command, env={**os.environ, **QUIET_CPU}, capture_output=True, text=True
        )
        if done.returncode:
            told = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise ValueError(f"TensorFlow cannot read {folder}: {told[-1]}")
        return {part: SavedModel.open(Path(scratch) / f"{part}.npz") for part in parts}


def write(tensorflow: ModuleType, folder: Path, out: Path) -> None:
    """Load one SavedModel by TensorFlow and write it as the npz `out`, for `SavedModel.open`."""
    loaded = tensorflow.saved_model.load(str(folder))
    served = loaded.signatures["serving_default"]
    ((name, spec),) = served.structured_input_signature[1].items()
    shape = [spec.shape[0] or N_ROWS, *(size or OPEN_SIZE for size in spec.shape[1:])]
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


def main(folder: str, out: str, *parts: str) -> None:
    """Write every part; the first that cannot be read ends the process with one line."""
    import tensorflow

    for part in parts:
        try:
            write(tensorflow, Path(folder) / part, Path(out) / f"{part}.npz")
        except Exception as error:  # TensorFlow raises of every kind, and one line has to do
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
            sys.exit(f"{part} is no whole SavedModel of Keras 2 ({problem}), get it again.")


if __name__ == "__main__":
    main(*sys.argv[1:])
