"""One GPU for each job that runs at the same time on a machine:
python -m jetatag.grid.gpus DEVICE COMMAND…

Snakemake counts GPUs as a resource but does not say which one is free; a lock for each does. The
command replaces this process, so the operating system frees its GPU however it ends. On a cluster,
the scheduler gives each job a GPU instead.
"""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import lock_descriptor

from jetatag.data.memory import RUNS_PER_GPU

GPUS = "JETATAG_GPUS"
"""Environment variable with the GPUs that jobs share, named as in CUDA_VISIBLE_DEVICES; a GPU that
takes several jobs at a time is listed several times."""


def visible_gpus() -> list[str]:
    """The GPUs that torch sees, named as in CUDA_VISIBLE_DEVICES if that is set."""
    import torch  # not at the top: a job that waits for a GPU does without

    count, names = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = [str(number) for number in range(count)]
    return [name.strip() for name in names.split(",")][:count] if names else numbers


def wait_for_one(gpus: Sequence[str]) -> str:
    """Wait until one of `gpus` is free; lock it for this process and the program it becomes."""
    folder = Path(tempfile.gettempdir()) / f"jetatag-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    names = [f"{gpu.replace('/', '-')}.{gpus[:n].count(gpu)}" for n, gpu in enumerate(gpus)]
    locks = [os.open(folder / name, os.O_CREAT | os.O_RDWR) for name in names]
    while True:
        for gpu, lock in zip(gpus, locks, strict=True):
            if lock_descriptor(lock, blocking=False):
                os.set_inheritable(lock, True)
                return gpu
        time.sleep(1)


def run(device: str, *command: str) -> None:
    """Wait for a free GPU, then become `command`, which computes on `device` as in `RunConfig`. For
    "auto" and "cuda" it sees only that GPU; "cuda:1" waits for the GPU of that number."""
    gpus = list(filter(None, os.environ.get(GPUS, "").split(",")))
    kind, _, number = device.partition(":")
    if number.isdigit():
        chosen = [*dict.fromkeys(gpus)][int(number) :][:1]
        gpus = [gpu for gpu in gpus if gpu in chosen]
    if gpus and kind in ("auto", "cuda"):
        gpu = wait_for_one(gpus)
        if not number:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        os.environ[RUNS_PER_GPU] = str(gpus.count(gpu))
    os.execvp(command[0], command)


if __name__ == "__main__":
    run(*sys.argv[1:])
