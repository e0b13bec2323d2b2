"""Software, machine and memory for a run's record."""

import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import psutil
import torch

from jetatag import __version__


def provenance() -> dict[str, Any]:
    """Versions of Python, jetatag and the libraries it requires, git commit and machine."""
    libraries = {}
    with suppress(PackageNotFoundError):  # as when it runs without being installed
        entries = [entry for entry in requires("jetatag") or [] if "extra ==" not in entry]
        names = (re.match(r"[\w.-]+", entry)[0] for entry in entries)
        libraries = {name: version(name) for name in names}
    return {
        "python": platform.python_version(),
        "jetatag": __version__,
        **libraries,
        "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def commit() -> str:
    """The package's git commit, with + if files differ from it; "unknown" outside a checkout."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    here = {"cwd": Path(__file__).parent, "stderr": subprocess.DEVNULL, "text": True}
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.check_output(command, **here).strip()
    return "unknown"


def peak_memory_mib() -> float:
    """Peak memory in MiB: of the GPU if this process has used one, else of the process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**20
    import resource  # Unix only; psutil has no peak there

    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
