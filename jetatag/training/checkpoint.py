"""Where the training of a stage stands: kept on disk now and then, and seen while it runs."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from jetatag.config import Phase, RunConfig
from jetatag.joint.methods import BEST, Stage, phases_by_epoch
from jetatag.training.optimizers import learning_rate
from jetatag.training.runs import Run

KEPT_NUMBERS = ("epoch", "step", "rate", "seconds", "best_epoch", "best_score")


@dataclass
class Standing:
    """How far a stage has come: whole epochs, steps of the one under way and the sums of its
    losses over clips, the optimizer and the last step's learning rate, the best epoch so far, and
    the seconds before this process.

    Chance needs no place here: it follows from seed, epoch and step.
    """

    epoch: int = 0
    step: int = 0
    rate: float = 0.0
    seconds: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    optimizer: Optimizer | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    best_score: float = -math.inf

    def __post_init__(self) -> None:
        self.begun = self.written = time.monotonic()

    def set_rate(self, phase: Phase, epochs_done: float) -> None:
        """The learning rate for the next step, `epochs_done` into the phase."""
        self.rate = learning_rate(phase, epochs_done / phase.epochs)
        self.optimizer.param_groups[0]["lr"] = self.rate

    def add(self, terms: dict[str, Tensor], n_clips: int) -> None:
        """Count one step's losses."""
        self.step += 1
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0) + value * n_clips

    def end_epoch(self, n_clips: int) -> dict[str, float]:
        """Begin the next epoch; returns every loss of this one, averaged over its clips."""
        means = {name: float(total) / n_clips for name, total in self.sums.items()}
        self.epoch, self.step, self.sums = self.epoch + 1, 0, {}
        return means

    def keep_best(self, scores: dict[str, float], stage: Stage, model: nn.Module) -> None:
        """Remember the weights of the epoch that just ended, if it is the best so far."""
        if scores[BEST] > self.best_score:
            self.best_epoch, self.best_score = self.epoch, scores[BEST]
            self.best = {name: value.clone() for name, value in learnt(model, stage).items()}

    def is_due(self, config: RunConfig) -> bool:
        """Whether a checkpoint is due."""
        return time.monotonic() - self.written >= 60 * config.checkpoint_minutes

    def total_seconds(self) -> float:
        """Training time, that before interruptions included."""
        return self.seconds + time.monotonic() - self.begun

    def save(self, run: Run, stage: Stage, model: nn.Module) -> None:
        """Write the checkpoint: everything that the stage changes.

        Not with weights that are no numbers any more: the next loss will stop the run, and what
        was good is kept.
        """
        parts = {"model": learnt(model, stage), "best": self.best}
        if not are_numbers(parts["model"]):
            return
        parts["optimizer"] = {
            f"{i}.{name}": value
            for i, state in self.optimizer.state_dict()["state"].items()
            for name, value in state.items()
            if value is not None
        }
        numbers = {name: getattr(self, name) for name in KEPT_NUMBERS}
        numbers |= {"seconds": self.total_seconds()}
        numbers |= {"sums": {name: float(total) for name, total in self.sums.items()}}
        tensors = {f"{kind}.{name}": v for kind, part in parts.items() for name, v in part.items()}
        run.write_checkpoint(tensors, {"stage": stage.name, **numbers})
        self.written = time.monotonic()

    @classmethod
    def resume(
        cls,
        run: Run,
        stage: Stage,
        model: nn.Module,
        build: Callable[[Phase], Optimizer],
        device: torch.device,
    ) -> "Standing":
        """Load the stage's checkpoint into `model`, if there is one; `build` makes the optimizer
        of a phase, which goes on."""
        tensors, notes = run.read_checkpoint() or ({}, {})
        if notes.pop("stage", None) != stage.name:
            return cls()
        parts: dict[str, dict] = {"model": {}, "best": {}, "optimizer": {}}
        for name, value in tensors.items():
            kind, _, inner = name.partition(".")
            parts[kind][inner] = value
        shapes = [
            {name: value.shape for name, value in part.items()}
            for part in (parts["model"], learnt(model, stage))
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"the checkpoint under {run.folder} holds other layers than the model: give the "
                "extractor that it was trained with, or delete it to begin the stage anew."
            )
        model.load_state_dict(parts["model"], strict=False)  # the rest is as the stage found it
        sums = {name: torch.tensor(s, device=device) for name, s in notes.pop("sums").items()}
        at = cls(**notes, sums=sums, best=parts["best"])
        under_way = at.epoch if at.step else at.epoch - 1
        at.optimizer = build(phases_by_epoch(stage, run.config)[under_way][0])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            i, _, key = name.partition(".")
            state.setdefault(int(i), {})[key] = value
        at.optimizer.load_state_dict({**at.optimizer.state_dict(), "state": state})
        return at


def seldom(action: Callable[..., None], share: float = 0.05) -> Callable[..., None]:
    """`action`, which then acts only where it has cost at most `share` of the time so far: drawing
    curves takes a second, and an epoch of kept features a tenth of one."""
    begun, spent = time.monotonic(), 0.0

    def now_and_then(*given: object) -> None:
        nonlocal spent
        now = time.monotonic()
        if spent <= share * (now - begun):
            action(*given)
            spent += time.monotonic() - now

    return now_and_then


def learnt(model: nn.Module, stage: Stage) -> dict[str, Tensor]:
    """Weights and statistics of the parts that the stage changes."""
    return {k: v for k, v in model.state_dict().items() if k.split(".")[0] in stage.learns}


def are_numbers(weights: dict[str, Tensor]) -> bool:
    """Whether all are finite."""
    return all(bool(value.isfinite().all()) for value in weights.values())


class Log:
    """The progress line, and TensorBoard's event files where they are wanted; of several
    processes the first one's."""

    def __init__(self, run: Run, stage: Stage, at: Standing, n_clips: int, n_steps: int) -> None:
        self.n_epochs = len(phases_by_epoch(stage, run.config))
        self.name, self.scores = f"{run.config.name} {stage.name}", {}
        self.bar = tqdm(
            desc=self.name,
            total=self.n_epochs * n_clips,
            initial=at.epoch * n_clips + at.step * n_clips // n_steps,
            unit="clip",
            disable=not run.writes,
        )
        self.events = run.event_writer(stage.name, at.epoch) if run.config.tensorboard else None

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()
        if self.events:
            self.events.close()

    def step(self, epoch: int, terms: dict[str, Tensor], n_clips: int) -> None:
        """Count a step; now and then show its losses beside the last validation scores."""
        if self.bar.update(n_clips):
            name = f"{self.name} epoch {epoch + 1}/{self.n_epochs}"
            shown = {name: f"{float(value):.4f}" for name, value in terms.items()}
            self.bar.set_description(name, refresh=False)
            self.bar.set_postfix(shown | self.scores)

    def epoch(self, done: int, row: dict[str, float]) -> None:
        """Take over an epoch's losses and scores."""
        self.scores = {k: f"{v:.3f}" for k, v in row.items() if k.startswith("valid_")}
        self.bar.set_postfix(self.scores, refresh=False)
        for name, value in row.items() if self.events else ():
            self.events.add_scalar(name, value, done)
