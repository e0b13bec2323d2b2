"""A GPU for each of the jobs that run side by side on one machine:
python -m jetatag.grid.gpus DEVICE COMMAND…

The command becomes this process, so the operating system lets go of its GPU when it ends, however
it ends. On a cluster nothing is offered here: its own scheduler gives each job a GPU.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

OFFERED = "JETATAG_GPUS"
"""Environment variable: the GPUs to share among jobs, by the names CUDA_VISIBLE_DEVICES takes."""


def found() -> list[str]:
    """The GPUs that torch sees, by the names that CUDA_VISIBLE_DEVICES gives them where it is set;
    asked of a process of its own, so that its memory is freed."""
    question = "import torch; print(torch.cuda.device_count())"
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True)
    count = int(answer.stdout.strip() or 0)
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def hold_one(gpus: Sequence[str]) -> str:
    """Take one of `gpus` for this process and the program it becomes; waits until one is free."""
    import fcntl  # Unix only

    folder = Path(tempfile.gettempdir()) / f"jetatag-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    names = {gpu: folder / gpu.replace("/", "-") for gpu in gpus}
    locks = {gpu: os.open(path, os.O_CREAT | os.O_RDWR) for gpu, path in names.items()}
    while True:
        for gpu, lock in locks.items():
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.set_inheritable(lock, True)
                return gpu
        time.sleep(1)


def run(device: str, *command: str) -> None:
    """Become `command`, which computes on `device` as in `RunConfig`: on a GPU of its own, which is
    the only one it sees, or where `device` names a number, on that one once it is free."""
    gpus = os.environ[OFFERED].split(",") if os.environ.get(OFFERED) else []
    kind, _, number = device.partition(":")
    wanted = gpus[int(number) :][:1] if number.isdigit() else gpus
    if wanted and kind in ("auto", "cuda"):
        held = hold_one(wanted)
        if not number:
            os.environ["CUDA_VISIBLE_DEVICES"] = held
    os.execvp(command[0], command)


if __name__ == "__main__":
    run(*sys.argv[1:])
