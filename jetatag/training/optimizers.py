"""Optimizers of torch, or with the update rules of the original's Keras.

Keras 2 differs from torch in three ways: Adam adds its epsilon to the uncorrected second moment,
SGD's velocity includes the learning rate, and an optimizer continues from phase to phase, Adam even
from stage 1 into stage 2. Own code because torch's classes cannot be configured to do so.
"""

import math
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from jetatag.config import Phase, RunConfig

MOMENTUM = 0.9
RISE = 0.3  # share of the steps of a one-cycle phase in which the learning rate rises
FIRST_RATE, LAST_RATE = 1 / 25, 1e-4  # relative to its largest
PUBLISHED = {
    "adam": partial(Adam, fused=True),
    "adamw": partial(AdamW, fused=True),
    "sgd": partial(SGD, momentum=MOMENTUM, nesterov=True, fused=True),
}


class KerasAdam(Adam):
    """Adam as in Keras 2: p ← p − η √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + 1e-7) (Kingma & Ba,
    ICLR 2015, end of section 2, with "epsilon hat"); `steps_done` is the t of earlier stages."""

    EPSILON = 1e-7

    def __init__(self, parameters: Iterable[Tensor], lr: float, steps_done: int = 0):
        super().__init__(parameters, lr=lr)
        for p in self.param_groups[0]["params"]:
            self.state[p] = {
                "step": torch.tensor(float(steps_done)),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }

    def step(self, closure: None = None) -> None:
        """One update; torch divides √v by the root below before adding epsilon."""
        (group,) = self.param_groups
        t = max(self.state[p]["step"].item() for p in group["params"]) + 1
        group["eps"] = self.EPSILON / (1 - group["betas"][1] ** t) ** 0.5
        super().step(closure)


class KerasSGD(Optimizer):
    """Nesterov SGD as in Keras 2: u ← μ u − η g, p ← p + μ u − η g, with μ = 0.9. torch keeps the
    learning rate η out of the velocity u, which differs once η changes."""

    def __init__(self, parameters: Iterable[Tensor], lr: float):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update."""
        (group,) = self.param_groups
        for p in (p for p in group["params"] if p.grad is not None):
            velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
            velocity.mul_(MOMENTUM).sub_(p.grad, alpha=group["lr"])
            p.add_(velocity, alpha=MOMENTUM).sub_(p.grad, alpha=group["lr"])


def learning_rate(phase: Phase, progress: float) -> float:
    """The learning rate after a share `progress` (0 … 1) of the phase's steps.

    One cycle is that of torch's `OneCycleLR` (Smith & Topin, arXiv 1708.07120), but without a state
    that a checkpoint would have to keep.
    """
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
    lr = phase.learning_rate
    if config.optimizer_form == "as_published":
        return PUBLISHED[phase.optimizer](parameters, lr=lr)
    kind = KerasAdam if phase.optimizer == "adam" else KerasSGD
    if isinstance(previous, kind):
        previous.param_groups[0]["lr"] = lr
        return previous
    return KerasAdam(parameters, lr, steps_done) if kind is KerasAdam else KerasSGD(parameters, lr)
