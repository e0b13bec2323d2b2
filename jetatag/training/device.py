"""Where a run computes: device, precision, and the processes that share its work.

Lightning Fabric handles all three, with one process or under `torchrun`. Each process passes its
share of a batch to the extractor, and `gather` collects all features for losses and scores.
"""

import copy
import logging
import os
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision, Precision
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from jetatag.config import RunConfig
from jetatag.data.memory import SHARED_BY, keep_freed_memory
from jetatag.extractors import BUILT_IN
from jetatag.extractors.layers import fold, synchronise

RESERVE = 16 * 2**30  # bytes of a GPU that the store leaves free, for weights and activations


class AutocastOnly(MixedPrecision):
    """Fabric's mixed precision without rounding the inputs: bfloat16 keeps 8 bits of a waveform."""

    def convert_input(self, data: Any) -> Any:
        return data


def launch(config: RunConfig) -> Fabric:
    """Join the processes that `torchrun` describes in the environment; without it, there is one.
    Raises `ValueError` for a device that cannot be used or shared or lacks the precision."""
    world, here = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if config.device in ("auto", "cuda") and 0 < (n_gpus := torch.cuda.device_count()) < here:
        problem = f"{here} processes share {n_gpus} GPU(s)"
        raise ValueError(f"{problem}: lower torchrun's --nproc-per-node, or choose device cpu.")
    if config.device.startswith("cuda:") and world > 1:
        problem = f"device {config.device!r} is one GPU for {world} processes"
        raise ValueError(f"{problem}: choose cuda, so that each takes its own.")
    device = pick_device(config.device)
    precision = pick_precision(config.precision, device)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    allow_tensor_float(precision == "tf32")
    mixed = AutocastOnly(precision, device.type) if precision == "bf16-mixed" else Precision()
    alone = [device.index] if device.type == "cuda" else 1
    fabric = Fabric(
        accelerator=device.type,
        devices=here if world > 1 else alone,
        num_nodes=world // here,
        # Every step runs the same operations; parts that a pair loss leaves out stay the same.
        strategy=DDPStrategy(static_graph=True) if world > 1 else "auto",
        plugins=mixed,
    )
    fabric.launch()
    return fabric


def allow_tensor_float(in_convolutions: bool) -> None:
    """Whether convolutions on a GPU may use TensorFloat-32. Matrix products never do, whatever the
    environment or a notebook has set: filter banks, heads and losses need full precision."""
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


def computes_in(config: RunConfig, device: torch.device) -> str:
    """The precision of a run on `device`, and whether it is compiled, as the record names them."""
    return pick_precision(config.precision, device) + " compiled" * config.compile


def place(model: nn.Module, config: RunConfig, fabric: Fabric, runs: Path | None = None) -> None:
    """Move the model to its device and prepare its extractor; compiled code is kept beside `runs`.
    Raises `ValueError` without the compiler that the config asks for."""
    if runs and config.compile:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(runs.resolve() / ".compiled"))
    model.to(fabric.device)
    if fabric.device.type == "cpu":
        keep_freed_memory()
    if config.sync_batch_norm:
        synchronise(model.extractor, fabric.world_size)
    prepare(model.extractor, config, fabric.device)


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


def folded(extractor: nn.Module, config: RunConfig, fabric: Fabric) -> nn.Module:
    """A built-in extractor for inference, as it is now: a copy with folded weights and, up to
    rounding, the same features. Others are returned as they are, in inference mode."""
    if type(extractor) not in BUILT_IN:
        return extractor.eval()
    eager = config.precision != "bf16-mixed" and not config.compile
    onednn = eager and fabric.device.type == "cpu"
    return prepare(fold(copy.deepcopy(extractor), onednn), config, fabric.device)


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
    return min(free + kept, total // int(os.environ.get(SHARED_BY, 1))) - used


def compile_seconds() -> float:
    """How long this process has compiled until now."""
    return torch._dynamo.utils.calculate_time_spent()["total_wall_time"]


def extract(extractor: nn.Module, audio: Tensor, fabric: Fabric) -> Tensor:
    """h (clip, n_features) float32 of audio (clip, sample). Only the extractor runs at the config's
    precision: it does nearly all the work, and losses and norms need full precision."""
    if len(audio) == 1 and not extractor.training and extractor._compiled_call_impl:
        # For a single row, torch would compile another graph.
        return extract(extractor, audio.repeat(2, 1), fabric)[:1]
    torch._dynamo.maybe_mark_dynamic(audio, 0)  # one compiled graph for all batch sizes
    with fabric.autocast():
        return extractor(audio).float()


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed torch on the CPU and on `device` alone; `torch.manual_seed` seeds every accelerator,
    which takes longer than a training step on cached features."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def broadcast_buffers(model: nn.Module, fabric: Fabric) -> None:
    """Copy the first process's moving statistics to all; each has updated them with its crops."""
    for buffer in model.buffers() if fabric.world_size > 1 else ():
        torch.distributed.broadcast(buffer, 0)


def shares(n_rows: int, fabric: Fabric) -> list[slice]:
    """Which of `n_rows` rows each process takes, in order; sizes differ by at most one."""
    ends = [n_rows * rank // fabric.world_size for rank in range(fabric.world_size + 1)]
    return [slice(a, b) for a, b in pairwise(ends)]


def own_share(n_rows: int, fabric: Fabric) -> slice:
    """Which of `n_rows` rows this process takes."""
    return shares(n_rows, fabric)[fabric.global_rank]


def gather(own: Tensor, n_rows: int, fabric: Fabric) -> Tensor:
    """The rows (n_rows, …) of all processes' `own_share`. Gradients pass through: every process
    computes the same loss of all rows, and DDP averages their gradients."""
    if fabric.world_size == 1:
        return own
    sizes = [share.stop - share.start for share in shares(n_rows, fabric)]
    padded = torch.cat([own, own.new_zeros(max(sizes) - len(own), *own.shape[1:])])
    every = fabric.all_gather(padded, sync_grads=own.requires_grad)
    return torch.cat([rows[:size] for rows, size in zip(every, sizes, strict=True)])
