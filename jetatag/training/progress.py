"""Progress of a stage: its checkpoint, and TensorBoard event files."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from jetatag.config import Phase, RunConfig
from jetatag.joint import methods
from jetatag.joint.methods import SELECTION_METRIC, Stage, phases_by_epoch
from jetatag.training.device import compile_seconds
from jetatag.training.optimizers import learning_rate
from jetatag.training.run import Run


@dataclass
class Progress:
    """Progress of one stage. Seeds are derived from it, so no random state is stored."""

    epoch: int = 0  # finished epochs
    step: int = 0  # finished steps of the current epoch
    learning_rate: float = 0.0  # of the last step
    seconds: float = 0.0  # training time before this process
    compile_s: float = 0.0  # compiling before this process
    loss_sums: dict[str, Tensor] = field(default_factory=dict)  # over the current epoch's clips
    precisions: list[str] = field(default_factory=list)  # in which this stage was computed
    best: dict[str, Tensor] = field(default_factory=dict)  # weights after the best epoch
    best_epoch: int = 0
    best_score: float = -math.inf
    optimizer: Optimizer | None = None

    def __post_init__(self) -> None:
        self.started = self.saved = time.monotonic()
        self.compiled_before = compile_seconds()
        self.unread: list[tuple[int, np.ndarray, dict[str, Tensor]]] = []
        self.space = ""  # the state of the shared space that was warned of last

    @property
    def total_seconds(self) -> float:
        """Training time, including the time before interruptions."""
        return self.seconds + time.monotonic() - self.started

    @property
    def total_compile_s(self) -> float:
        """Seconds of compiling, including those before interruptions."""
        return self.compile_s + compile_seconds() - self.compiled_before

    def set_learning_rate(self, phase: Phase, epochs_done: float) -> None:
        """Set the next step's learning rate, `epochs_done` into the phase."""
        self.learning_rate = learning_rate(phase, epochs_done / phase.epochs)
        self.optimizer.param_groups[0]["lr"] = self.learning_rate

    def checkpoint_is_due(self, config: RunConfig) -> bool:
        return time.monotonic() - self.saved >= 60 * config.checkpoint_minutes

    def add(self, losses: dict[str, Tensor], rows: np.ndarray) -> None:
        """Count a step on the clips in `rows` of the store."""
        self.step += 1
        self.unread.append((self.step, rows, losses))
        for name, value in losses.items():
            self.loss_sums[name] = self.loss_sums.get(name, 0) + value * len(rows)

    def end_epoch(self, n_clips: int) -> dict[str, float]:
        """Count an epoch; returns its losses, averaged over the clips."""
        means = {name: float(total) / n_clips for name, total in self.loss_sums.items()}
        self.epoch, self.step, self.loss_sums = self.epoch + 1, 0, {}
        return means

    def keep_best(self, scores: dict[str, float], stage: Stage, model: nn.Module) -> None:
        """Copy the weights if the epoch that just ended is the best so far."""
        if scores[SELECTION_METRIC] > self.best_score:
            self.best_epoch, self.best_score = self.epoch, scores[SELECTION_METRIC]
            self.best = {name: value.clone() for name, value in trained_state(model, stage).items()}

    def check_space(self, scores: dict[str, float], n_epochs: int, where: str) -> None:
        """Warn if the shared space has collapsed or is mirrored, unless the stage is in an early
        epoch or the state is the same as before."""
        if self.epoch >= methods.EARLY_EPOCHS or self.epoch == n_epochs:
            before, self.space = self.space, methods.space_status(scores)
            if self.space != before:
                methods.warn_about_space(scores, f"{where}, epoch {self.epoch}:")

    def save(self, run: Run, stage: Stage, model: nn.Module) -> None:
        """Write the checkpoint, unless weights are not finite: in that case, the last checkpoint is
        kept, and the next loss stops the run."""
        if not are_finite(model, stage):
            return
        state = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "optimizer"}
        parts = {"model": trained_state(model, stage), "optimizer": self.optimizer.state_dict()}
        progress = state | {"seconds": self.total_seconds, "compile_s": self.total_compile_s}
        run.write_checkpoint({"stage": stage.name, "progress": progress, **parts})
        self.saved = time.monotonic()

    @classmethod
    def resume(cls, run: Run, stage: Stage, model: nn.Module, build: Callable) -> Self:
        """Load the stage's checkpoint into `model`, if there is one; `build` makes the optimizer of
        a phase. Raises `ValueError` for weights of another model."""
        state = run.read_checkpoint()
        if state.get("stage") != stage.name:
            return cls()
        saved, current = state["model"], trained_state(model, stage)
        if {n: v.shape for n, v in saved.items()} != {n: v.shape for n, v in current.items()}:
            problem = f"the checkpoint in {run.folder} has other layers than the model"
            raise ValueError(f"{problem}: register the former extractor, or delete the checkpoint.")
        model.load_state_dict(saved, strict=False)  # the other parts do not change in this stage
        progress = cls(**state["progress"])
        epoch = progress.epoch if progress.step else progress.epoch - 1
        progress.optimizer = build(phases_by_epoch(stage, run.config)[epoch][0])
        progress.optimizer.load_state_dict(state["optimizer"])
        for p, moments in progress.optimizer.state.items():
            for name, value in moments.items():
                if value.shape == p.shape:  # in the layout of `p`, which other devices may change
                    moments[name] = torch.empty_like(p).copy_(value)
        return progress


def trained_state(model: nn.Module, stage: Stage) -> dict[str, Tensor]:
    """Weights and statistics of the parts that the stage changes."""
    return {k: v for k, v in model.state_dict().items() if k.split(".")[0] in stage.learns}


def are_finite(model: nn.Module, stage: Stage) -> bool:
    """Whether all values of `trained_state` are finite."""
    finite = [value.isfinite().all() for value in trained_state(model, stage).values()]
    return bool(torch.stack(finite).all())


def event_writer(run: Run, stage: Stage, at: Progress) -> AbstractContextManager:
    """TensorBoard's `SummaryWriter`, which discards events of epochs that are trained again, or
    None if the config asks for none; of several processes, only the first writes."""
    if not (run.config.tensorboard and run.writes):
        return nullcontext()
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        needs = "tensorboard: true needs its package: pip install 'jetatag[tensorboard]'"
        raise ValueError(f"{needs}, or set tensorboard to false.") from None
    return SummaryWriter(run.folder / "tensorboard" / stage.name, purge_step=at.epoch + 1)


def throttled(action: Callable[..., None], share: float = 0.05) -> Callable[..., None]:
    """`action`, skipped whenever it has taken more than `share` of the time so far: drawing curves
    takes a second, but an epoch on cached features only a tenth of a second."""
    started, spent = time.monotonic(), 0.0

    def throttled_action(*arguments: object) -> None:
        nonlocal spent
        now = time.monotonic()
        if spent <= share * (now - started):
            action(*arguments)
            spent += time.monotonic() - now

    return throttled_action
