"""The processes that share a run: one, or those of `torchrun`, by Lightning Fabric.

Each process passes its share of a batch to the extractor, and `gather` collects all features for
losses and scores.
"""

import copy
import logging
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision, Precision
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from jetatag.config import RunConfig
from jetatag.data.memory import keep_freed_memory
from jetatag.extractors import BUILT_IN
from jetatag.extractors.layers import fold, synchronise
from jetatag.training.device import allow_tensor_float, pick_device, pick_precision, prepare


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


def folded(extractor: nn.Module, config: RunConfig, fabric: Fabric) -> nn.Module:
    """A built-in extractor for inference, as it is now: a copy with folded weights and, up to
    rounding, the same features. Others are returned as they are, in inference mode."""
    if type(extractor) not in BUILT_IN:
        return extractor.eval()
    eager = config.precision != "bf16-mixed" and not config.compile
    onednn = eager and fabric.device.type == "cpu"
    return prepare(fold(copy.deepcopy(extractor), onednn), config, fabric.device)


def extract(extractor: nn.Module, audio: Tensor, fabric: Fabric) -> Tensor:
    """h (clip, n_features) float32 of audio (clip, sample). Only the extractor runs at the config's
    precision: it does nearly all the work, and losses and norms need full precision."""
    if extractor._compiled_call_impl:
        if len(audio) == 1 and not extractor.training:
            # For a single row, torch would compile another graph.
            return extract(extractor, audio.repeat(2, 1), fabric)[:1]
        torch._dynamo.maybe_mark_dynamic(audio, 0)  # one compiled graph for all batch sizes
    with fabric.autocast():
        return extractor(audio).float()


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
