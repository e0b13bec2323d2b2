"""What is seen of training while it runs: a progress bar and TensorBoard event files."""

import time
from collections.abc import Callable
from typing import Any

from torch import Tensor
from tqdm import tqdm

from jetatag.joint.methods import EARLY, Stage, phases_by_epoch, state_of_space, warn_of_space
from jetatag.training.checkpoint import Progress
from jetatag.training.run import Run


class Log:
    """The progress bar, and event files if the config asks for them; of several processes only the
    first shows and writes."""

    def __init__(self, run: Run, stage: Stage, at: Progress, n_clips: int, n_steps: int) -> None:
        self.n_epochs = len(phases_by_epoch(stage, run.config))
        self.name, self.scores, self.space = f"{run.config.name} {stage.name}", {}, ""
        self.bar = tqdm(
            desc=self.name,
            total=self.n_epochs * n_clips,
            initial=at.epoch * n_clips + at.step * n_clips // n_steps,
            unit="clip",
            disable=not run.writes,
        )
        self.events = None
        if run.config.tensorboard and run.writes:
            self.events = event_writer(run, stage.name, at.epoch)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()
        if self.events:
            self.events.close()

    def step(self, epoch: int, losses: dict[str, Tensor], n_clips: int) -> None:
        """Advance the bar; when it is redrawn, show losses beside the last validation scores."""
        if self.bar.update(n_clips):
            name = f"{self.name} epoch {epoch + 1}/{self.n_epochs}"
            shown = {name: f"{float(value):.4f}" for name, value in losses.items()}
            self.bar.set_description(name, refresh=False)
            self.bar.set_postfix(shown | self.scores)

    def epoch(self, number: int, row: dict[str, float]) -> None:
        """Show an epoch's scores, write its row as events, and warn if the shared space is bad."""
        self.scores = {k: f"{v:.3f}" for k, v in row.items() if k.startswith("valid_")}
        self.bar.set_postfix(self.scores, refresh=False)
        for name, value in row.items() if self.events else ():
            self.events.add_scalar(name, value, number)
        if number >= EARLY or number == self.n_epochs:
            before, self.space = self.space, state_of_space(row)
            if self.space != before and not self.bar.disable:
                warn_of_space(row, f"{self.name}, epoch {number}:")


def event_writer(run: Run, stage: str, n_epochs: int) -> Any:
    """A TensorBoard `SummaryWriter` that replaces events after the first `n_epochs`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "tensorboard event files need its package: pip install 'jetatag[tensorboard]', or set "
            "tensorboard to false."
        ) from None
    return SummaryWriter(run.folder / "tensorboard" / stage, purge_step=n_epochs + 1)


def throttled(action: Callable[..., None], share: float = 0.05) -> Callable[..., None]:
    """`action`, skipped whenever it has taken more than `share` of the time so far: drawing curves
    takes a second, an epoch on cached features a tenth of one."""
    started, spent = time.monotonic(), 0.0

    def throttled_action(*arguments: object) -> None:
        nonlocal spent
        now = time.monotonic()
        if spent <= share * (now - started):
            action(*arguments)
            spent += time.monotonic() - now

    return throttled_action
