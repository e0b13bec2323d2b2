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
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7  # of Keras' Adam
RISE = 0.3  # share of the steps of a one-cycle phase in which the learning rate rises
FIRST_RATE, LAST_RATE = 1 / 25, 1e-4  # relative to its largest
PUBLISHED = {
    "adam": partial(Adam, fused=True),
    "adamw": partial(AdamW, fused=True),
    "sgd": partial(SGD, momentum=MOMENTUM, nesterov=True, fused=True),
}


class KerasOptimizer(Optimizer):
    """Base of the update rules of Keras 2. Like torch's fused optimizers, `step` changes nothing if
    `found_inf` is 1, decided on the device, so that nobody waits for it."""

    MOMENTS: tuple[str, ...] = ()
    _step_supports_amp_scaling, found_inf = True, torch.zeros(())

    def __init__(self, parameters: Iterable[Tensor], lr: float, steps_done: int = 0):
        super().__init__(parameters, {"lr": lr, "steps": steps_done})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update."""
        (group,) = self.param_groups
        group["steps"] += 1
        for p in (p for p in group["params"] if p.grad is not None):
            moments = self.state[p]
            for name in self.MOMENTS:
                moments.setdefault(name, torch.zeros_like(p))
            changing = [p, *moments.values()]
            before = [tensor.clone() for tensor in changing]
            self.update(p, group["lr"], group["steps"], **moments)
            for tensor, value in zip(changing, before, strict=True):
                tensor.copy_(torch.where(self.found_inf > 0, value, tensor))


class KerasAdam(KerasOptimizer):
    """Adam as in Keras 2: p ← p − η √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + 1e-7) (Kingma & Ba,
    ICLR 2015, end of section 2, with "epsilon hat"); `steps_done` is the t of earlier stages."""

    MOMENTS = ("m", "v")

    def update(self, p: Tensor, lr: float, t: int, m: Tensor, v: Tensor) -> None:
        """Change `p` and its moments by its gradient."""
        root = (1 - BETA_2**t) ** 0.5
        m.lerp_(p.grad, 1 - BETA_1)
        v.mul_(BETA_2).addcmul_(p.grad, p.grad, value=1 - BETA_2)
        p.addcdiv_(m, (v.sqrt() / root).add_(EPSILON / root), value=-lr / (1 - BETA_1**t))


class KerasSGD(KerasOptimizer):
    """Nesterov SGD as in Keras 2: u ← μ u − η g, p ← p + μ u − η g, with μ = 0.9. torch keeps the
    learning rate η out of the velocity u, which differs once η changes."""

    MOMENTS = ("velocity",)

    def update(self, p: Tensor, lr: float, t: int, velocity: Tensor) -> None:
        """Change `p` and its velocity by its gradient."""
        velocity.mul_(MOMENTUM).sub_(p.grad, alpha=lr)
        p.add_(velocity, alpha=MOMENTUM).sub_(p.grad, alpha=lr)


def step_if_finite(optimizer: Optimizer, loss: Tensor) -> None:
    """One update, but none if `loss` is not finite. Those of `build_optimizer` decide so on the
    device; for others, this waits for the loss."""
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
    lr = phase.learning_rate
    if config.optimizer_form == "as_published":
        return PUBLISHED[phase.optimizer](parameters, lr=lr)
    kind = KerasAdam if phase.optimizer == "adam" else KerasSGD
    if isinstance(previous, kind):
        previous.param_groups[0]["lr"] = lr
        return previous
    return kind(parameters, lr, steps_done)
