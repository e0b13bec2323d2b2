"""Where a run computes: device, precision and compilation."""

import os
import shutil

import torch
from torch import nn

from jetatag.config import RunConfig
from jetatag.data.memory import RUNS_PER_GPU
from jetatag.extractors.layers import compiler_is_loaded

RESERVE = 16 * 2**30  # bytes of a GPU that the store leaves free, for weights and activations


def allow_tensor_float(in_convolutions: bool) -> None:
    """Set whether convolutions on a GPU may use TensorFloat-32. Matrix products never do, whatever
    the environment or a notebook has set: filter banks, heads and losses need full precision."""
    backends = torch.backends
    onednn = (backends.mkldnn.conv, backends.mkldnn.rnn, backends.mkldnn.matmul)
    for place in (backends, backends.cudnn, backends.mkldnn, *onednn):  # the last ones win
        place.fp32_precision = "ieee"
    torch.set_float32_matmul_precision("highest")  # keeps the earlier flags in step
    torch.backends.cudnn.allow_tf32 = in_convolutions


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU if there is one. A GPU without a number is that of
    the process (`LOCAL_RANK`); counting GPUs opens none, so that no process holds memory on
    another's. Raises `ValueError` if it cannot be used."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    own = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if name == "cuda" else name
    try:
        device = torch.device(own)
        if device.type != "cuda":
            return torch.empty(0, device=device).device
        if device.index < torch.cuda.device_count():
            return device
    except (RuntimeError, AssertionError):
        pass
    raise ValueError(f"device {name!r} cannot be used here: choose cpu or auto.")


def pick_precision(name: str, device: torch.device) -> str:
    """The precision called `name`; "auto" is tf32 if `device` has it, else 32-true. Raises
    `ValueError` for tf32 where there is none."""
    has_tf32 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if name == "tf32" and not has_tf32:
        problem = f"precision 'tf32' needs an NVIDIA GPU since Ampere, and the device is {device}"
        raise ValueError(f"{problem}: choose auto or 32-true.")
    return name if name != "auto" else "tf32" if has_tf32 else "32-true"


def precision_label(config: RunConfig, device: torch.device) -> str:
    """The precision of a run on `device`, and whether it is compiled, as the record names them."""
    return pick_precision(config.precision, device) + " compiled" * config.compile


def prepare(extractor: nn.Module, config: RunConfig, device: torch.device) -> nn.Module:
    """The extractor in the memory format that suits it, compiled if the config says so."""
    if getattr(extractor, "prefers_channels_last", lambda device: False)(device):
        extractor.to(memory_format=torch.channels_last)
    if config.compile:
        on_gpu = device.type == "cuda"
        variable, programs = ("CC", ["gcc", "clang"]) if on_gpu else ("CXX", ["g++"])
        if named := os.environ.get(variable):
            programs = [named]
        if not any(map(shutil.which, programs)):
            needs = f"compile: true needs the compiler {' or '.join(programs)}"
            remedy = "install it, or set compile to false"
            raise ValueError(f"{needs} on a {device.type} device: {remedy}.")
        extractor.compile()
    return extractor


def inference_batch(config: RunConfig, device: torch.device, least: int) -> int:
    """The number of windows in an inference batch. On a CPU it is `least`, because rounding depends
    on it. On a GPU the batch fills half of the free memory, assuming that a window needs six times
    the first layer's activations, and no activation exceeds 2³¹ values."""
    if device.type != "cuda":
        return least
    values = config.width * config.crop_samples
    return max(least, min(free_memory(device) // 2 // (6 * 4 * values), 2**31 // values))


def fits(n_bytes: int, device: torch.device) -> bool:
    """Whether a GPU has room for so many bytes beside its `RESERVE`."""
    return device.type == "cuda" and n_bytes + RESERVE <= free_memory(device)


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still use of a GPU, those that torch keeps for reuse included,
    but no more than its part of a GPU that several runs share."""
    free, total = torch.cuda.mem_get_info(device)
    used, kept = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    return min(free + kept, total // int(os.environ.get(RUNS_PER_GPU, 1))) - used


def compile_seconds() -> float:
    """How long this process has compiled until now."""
    if not compiler_is_loaded():
        return 0.0
    return torch._dynamo.utils.calculate_time_spent()["total_wall_time"]


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed torch on the CPU and on `device` alone; `torch.manual_seed` seeds every accelerator,
    which takes longer than a training step on cached features."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
