"""Memory: keep freed memory, share a GPU between runs, and copy tensors to a device."""

import ctypes
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # preparing data does not need torch
    import torch

RUNS_PER_GPU = "JETATAG_RUNS_PER_GPU"
"""Environment variable with the number of runs that share the GPU of this process."""


def keep_freed_memory() -> None:
    """Let the C library (glibc; no effect elsewhere) keep freed memory: returning it and getting it
    back takes a third of the time of decoding and training."""
    mmap_threshold, trim_threshold = -3, -1  # malloc.h
    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(mmap_threshold, 2**31 - 1)
        library.mallopt(trim_threshold, 2**31 - 1)


def send(values: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """`values` on `device`, without waiting: copied through pinned memory, if CUDA."""
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def fetch(values: "torch.Tensor") -> "torch.Tensor":
    """`values` on the CPU, copied through pinned memory, if they are on a GPU."""
    if values.device.type != "cuda":
        return values
    return values.new_empty(values.shape, device="cpu", pin_memory=True).copy_(values)
