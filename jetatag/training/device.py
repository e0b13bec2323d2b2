"""Where a run computes: its device, its precision, and the processes that share its work.

Lightning Fabric carries all three. Alone or under `torchrun` the program is the same: each process
gives its share of a batch to the extractor, and `gather` brings the features of all together, so
that losses, also those that compare the clips of a batch, and scores are of the whole batch.
"""

import logging
import os
import shutil
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision, Precision
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from jetatag.config import RunConfig
from jetatag.data.memory import keep_freed_memory
from jetatag.extractors.layers import synchronise


class AutocastAlone(MixedPrecision):
    """Fabric's mixed precision but for rounding what comes in: a waveform has 16 bits, and bfloat16
    keeps 8 of them. Autocast rounds where it pays."""

    def convert_input(self, data: Any) -> Any:
        return data


PRECISIONS = {
    "32-true": lambda device: Precision(),
    "bf16-mixed": lambda device: AutocastAlone("bf16-mixed", device),
}


def launch(config: RunConfig) -> Fabric:
    """Join the processes of this run, which `torchrun` names in the environment; without it this
    one is alone. Raises `ValueError` for a device that cannot be used or shared."""
    device = pick_device(config.device)
    world, here = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if device.type == "cuda" and here > torch.cuda.device_count():
        raise ValueError(
            f"{here} processes share {torch.cuda.device_count()} GPU(s): give torchrun "
            "--nproc-per-node as many as there are, or choose device cpu."
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    alone = [device.index or 0] if device.type == "cuda" else 1
    fabric = Fabric(
        accelerator=device.type,
        devices=here if world > 1 else alone,
        num_nodes=world // here,
        # Every step runs the same operations; some pair losses leave parts out, always the same.
        strategy=DDPStrategy(static_graph=True) if world > 1 else "auto",
        plugins=PRECISIONS[config.precision](device.type),
    )
    fabric.launch()
    return fabric


def pick_device(name: str) -> torch.device:
    """ "auto" → the GPU where there is one; an unusable device is refused (`ValueError`)."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        raise ValueError(f"device {name!r} cannot be used here: choose cpu or auto.") from None


def place(model: nn.Module, config: RunConfig, fabric: Fabric) -> None:
    """Move the model to its device and make its extractor ready to be fast there.

    Precision "bf16-mixed" compiles it, and on a GPU puts the channels of its kernels innermost.
    """
    model.to(fabric.device)
    if fabric.device.type == "cpu":
        keep_freed_memory()
    if config.sync_batch_norm:
        synchronise(model.extractor, fabric.world_size)
    if config.precision == "bf16-mixed":
        if fabric.device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
            raise ValueError(
                "precision 'bf16-mixed' compiles the extractor, for which a CPU needs a C++ "
                "compiler: install g++ or choose '32-true'."
            )
        if fabric.device.type == "cuda":
            model.extractor.to(memory_format=torch.channels_last)
        model.extractor.compile()


def extract(model: nn.Module, audio: Tensor, fabric: Fabric) -> Tensor:
    """h (clip, n_features) float32 of audio (clip, sample), at the run's precision.

    Only the extractor runs in bfloat16: nearly all the work is there, and losses and norms keep
    their digits.
    """
    with fabric.autocast():
        return model.extractor(audio.to(fabric.device)).float()


def seed_everything(seed: int, device: torch.device) -> None:
    """Where torch's chance on the CPU and on `device` starts from; `torch.manual_seed` asks every
    kind of accelerator, which takes longer than a step on kept features."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def agree_on_buffers(model: nn.Module, fabric: Fabric) -> None:
    """Take over the first process's moving statistics: each has gathered those of its own crops,
    and what is scored and saved shall be one model."""
    for buffer in model.buffers() if fabric.world_size > 1 else ():
        torch.distributed.broadcast(buffer, 0)


def shares(n_rows: int, fabric: Fabric) -> list[slice]:
    """Which of `n_rows` rows each process takes, in order; sizes equal within one."""
    ends = np.linspace(0, n_rows, fabric.world_size + 1).astype(int).tolist()
    return [slice(a, b) for a, b in pairwise(ends)]


def own_share(n_rows: int, fabric: Fabric) -> slice:
    """Which of `n_rows` rows this process takes."""
    return shares(n_rows, fabric)[fabric.global_rank]


def gather(own: Tensor, n_rows: int, fabric: Fabric) -> Tensor:
    """The rows of all processes (n_rows, …), of each one's `own_share`; gradients pass through."""
    return own if fabric.world_size == 1 else _Gather.apply(own, n_rows, fabric)


class _Gather(torch.autograd.Function):
    """Every process computes the same loss of all rows. Back come its own rows' gradients, times
    the number of processes, because DDP will take the mean over them where the sum is meant."""

    @staticmethod
    def forward(ctx, own: Tensor, n_rows: int, fabric: Fabric) -> Tensor:
        parts = shares(n_rows, fabric)
        ctx.share, ctx.world_size = parts[fabric.global_rank], fabric.world_size
        sizes = [part.stop - part.start for part in parts]
        padded = own.new_zeros(max(sizes), *own.shape[1:])  # gathering wants equal shapes
        padded[: len(own)] = own
        every = [torch.empty_like(padded) for _ in parts]
        torch.distributed.all_gather(every, padded)
        return torch.cat([rows[:size] for rows, size in zip(every, sizes, strict=True)])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.world_size * gradient[ctx.share], None, None
