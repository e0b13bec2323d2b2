"""Optimizers of torch, or with the update rules of the original's Keras.

Keras 2 differs from torch in three ways: Adam adds its epsilon to the uncorrected second moment,
SGD's velocity includes the learning rate, and optimizers outlive their phase, Adam even its stage.
"""

import math
from functools import partial

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from jetatag.config import Phase, RunConfig

MOMENTUM = 0.9
EPSILON = 1e-7  # of Keras' Adam
RISE = 0.3  # share of the steps of a one-cycle phase in which the learning rate rises
FIRST_RATE, LAST_RATE = 1 / 25, 1e-4  # relative to its largest
PUBLISHED = {
    "adam": partial(Adam, fused=True),
    "adamw": partial(AdamW, fused=True),
    "sgd": partial(SGD, momentum=MOMENTUM, nesterov=True, fused=True),
}


class KerasAdam(Adam):
    """Adam as in Keras 2: p ← p − η √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + 1e-7) (Kingma & Ba,
    ICLR 2015, end of section 2, with "epsilon hat"), which is torch's with an epsilon of
    1e-7 / √(1 − β₂ᵗ). `steps_done` is the t of earlier stages."""

    def __init__(self, parameters: list[Tensor], lr: float, steps_done: int = 0):
        super().__init__(parameters, lr=lr, fused=True)
        self.param_groups[0]["steps"] = steps_done
        for p in parameters:
            moments = {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
            self.state[p] = {"step": torch.tensor(float(steps_done), device=p.device), **moments}

    def step(self, closure: None = None) -> None:
        """One update."""
        (group,) = self.param_groups
        group["steps"] += 1
        group["eps"] = EPSILON / (1 - group["betas"][1] ** group["steps"]) ** 0.5
        super().step()


def step_if_finite(optimizer: Optimizer, loss: Tensor) -> None:
    """One update, unless `loss` is not finite. Optimizers of `build_optimizer` check it on the
    device; others wait for the loss."""
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.found_inf = (~loss.detach().isfinite()).float()
        optimizer.step()
    elif loss.isfinite():
        optimizer.step()


def learning_rate(phase: Phase, progress: float) -> float:
    """The learning rate after a share `progress` (0 … 1) of the phase's steps. One cycle is that of
    torch's `OneCycleLR` (Smith & Topin, arXiv 1708.07120), but without a state to checkpoint."""
    if phase.shape == "constant":
        return phase.learning_rate
    rising = progress < RISE
    part = progress / RISE if rising else (progress - RISE) / (1 - RISE)
    start, end = (FIRST_RATE, 1.0) if rising else (1.0, LAST_RATE)
    return phase.learning_rate * (end + (start - end) * (1 + math.cos(math.pi * part)) / 2)


def build_optimizer(
    config: RunConfig,
    phase: Phase,
    parameters: list[Tensor],
    previous: Optimizer | None = None,
    steps_done: int = 0,
) -> Optimizer:
    """The optimizer of `phase` (Lee & Cho 2021, §4).

    As published, every phase starts a new one. As coded, the one of the `previous` phase continues
    if it is of the same kind, and Adam continues to count from the `steps_done` in earlier stages.
    """
    lr, is_coded = phase.learning_rate, config.optimizer_form == "as_coded"
    if is_coded and isinstance(previous, Adam if phase.optimizer == "adam" else SGD):
        (group,) = previous.param_groups
        for state in previous.state.values():
            if "momentum_buffer" in state:  # times the learning rate, it is Keras' velocity
                state["momentum_buffer"].mul_(group["lr"] / lr)
        group["lr"] = lr
        return previous
    if is_coded and phase.optimizer == "adam":
        return KerasAdam(parameters, lr, steps_done)
    return PUBLISHED[phase.optimizer](parameters, lr=lr)
