"""Training: one loop for all methods and stages (`jetatag.joint.methods`).

Crops and order come from (seed, epoch), dropout and queries from (seed, stage, epoch, step), so a
run that was killed goes on from its last checkpoint, on a CPU to the same weights bit by bit.
Under `torchrun` the processes share every batch (`jetatag.training.device`).
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from jetatag.config import Phase, RunConfig
from jetatag.data.crops import Crops, batches, middle_starts
from jetatag.data.store import AudioStore
from jetatag.joint.heads import JointModel, build_model
from jetatag.joint.methods import (
    EARLY,
    METHODS,
    Stage,
    adam_epochs_before,
    kept_epochs,
    phases_by_epoch,
    state_of_space,
    warn_of_space,
)
from jetatag.training.checkpoint import Log, Standing, are_numbers, learnt
from jetatag.training.device import (
    agree_on_buffers,
    extract,
    gather,
    launch,
    own_share,
    place,
    seed_everything,
    shares,
)
from jetatag.training.features import check_store_fits, frozen_features
from jetatag.training.optimizers import build_optimizer
from jetatag.training.runs import Run


def train(
    run: Run,
    store: AudioStore,
    until: str | None = None,
    on_epoch: Callable[[pd.DataFrame], None] | None = None,
    extractor: nn.Module | None = None,
) -> JointModel:
    """Train `run` through its method's stages, or as far as stage `until`; returns the model.

    Finished stages are loaded, an interrupted one goes on. `on_epoch` is called with the whole
    history after each epoch. `extractor` is the module of a run whose extractor is "own", see
    `jetatag.extractors`. Under `torchrun` every process calls this, and they share the work.
    Raises `ValueError` where run and store do not fit, and `FloatingPointError` where a loss is
    no number any more, or weights are none.
    """
    config = run.config
    _check_mismatch(run, store, until)
    method = METHODS[config.method]
    model = build_model(config, run.vocabulary, method.head, extractor)
    fabric = launch(config)
    _check_small_batches(model, store, config, fabric)
    place(model, config, fabric)
    with run.lock():
        for number, stage in enumerate(method.stages):
            fabric.barrier()  # what the first process wrote, all read
            if run.has(f"{stage.name}.safetensors"):
                run.load_weights(stage.name, model)
            else:
                run.forget([later.name for later in method.stages[number + 1 :]])
                at = train_stage(
                    model, stage, run, store, fabric, on_epoch or (lambda history: None)
                )
                facts = facts_of(stage, at, config, fabric)
                run.finish_stage(stage.name, model.state_dict(), fabric.device, facts)
            if stage.name == until:
                break
        fabric.barrier()
    return model


def train_stage(
    model: JointModel,
    stage: Stage,
    run: Run,
    store: AudioStore,
    fabric: Fabric,
    on_epoch: Callable[[pd.DataFrame], None],
) -> Standing:
    """The loop: for every epoch of the schedule take each clip once, step, score, and now and then
    write a checkpoint. Returns where it ended."""
    config, schedule = run.config, phases_by_epoch(stage, run.config)
    data = StageData(model, stage, store, config, fabric)
    at = Standing.resume(run, stage, model, data.optimizer, fabric.device)
    stage_losses = StageLosses.of(model, stage, config, fabric)
    history, space = _history_until(run, stage, at), ""
    with Log(run, stage, at, data.n_clips, data.n_steps) as log, preserve_rng_state(fabric):
        for epoch in range(at.epoch, len(schedule)):
            phase, earlier = schedule[epoch]
            if at.step == earlier == 0:  # as coded, the last phase's optimizer may go on
                at.optimizer = data.optimizer(phase, at.optimizer)
            for inputs, labels, rows in data.steps(epoch, at.step):
                at.set_rate(phase, earlier + at.step / data.n_steps)
                terms = train_step(
                    stage_losses, inputs, labels, at.optimizer, fabric, epoch, at.step
                )
                data.check_loss_is_finite(terms, epoch, at.step, rows)
                at.add(terms, len(rows))
                log.step(epoch, terms, len(rows))
                if at.is_due(config):
                    at.save(run, stage, model)
            data.check_weights_are_finite(epoch)
            agree_on_buffers(model, fabric)
            scores = fabric.broadcast(data.validate())
            row = {"learning_rate": at.rate, **at.end_epoch(data.n_clips), **scores}
            history = _with_row(history, {"stage": stage.name, "epoch": at.epoch, **row})
            run.write_history(history)
            if stage.keeps == "best":
                at.keep_best(scores, stage, model)
            if earlier + 1 == phase.epochs:
                at.save(run, stage, model)
            if at.epoch >= EARLY or at.epoch == len(schedule):
                before, space = space, state_of_space(scores)
                if run.writes and space != before:
                    warn_of_space(scores, f"{config.name}, {stage.name}, epoch {at.epoch}:")
            log.epoch(at.epoch, row)
            on_epoch(history)
    if stage.keeps == "best":
        model.load_state_dict(at.best, strict=False)
    return at


def train_step(
    stage_losses: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    fabric: Fabric,
    epoch: int = 0,
    step: int = 0,
) -> dict[str, Tensor]:
    """One update from this process's crops (clip, sample), or from all features (clip, n_features)
    where the extractor is frozen, and the whole batch's labels (clip, tag); returns the losses.

    A loss that is no number changes no weight.
    """
    terms = stage_losses(inputs, labels.to(fabric.device), epoch, step)
    if terms["loss"].isfinite():
        optimizer.zero_grad()
        fabric.backward(terms["loss"])
        optimizer.step()
    return {name: value.detach() for name, value in terms.items()}


class StageLosses(nn.Module):
    """A stage's losses as one module, which Fabric places and several processes share.

    Each gives its crops to the extractor; the heads, a hundredth of the work, see the features of
    the whole batch in every process, so that no loss needs to know of processes.
    """

    def __init__(self, model: JointModel, stage: Stage, config: RunConfig, fabric: Fabric) -> None:
        super().__init__()
        self.model, self.stage, self.config, self.fabric = model, stage, config, fabric

    @classmethod
    def of(cls, model: JointModel, stage: Stage, config: RunConfig, fabric: Fabric) -> nn.Module:
        """The module ready for `train_step`: only what learns has gradients and is in training
        mode, the rest is as in inference."""
        model.eval()
        for name, part in model.named_children():
            part.requires_grad_(name in stage.learns)
        return fabric.setup_module(cls(model, stage, config, fabric))

    def forward(self, inputs: Tensor, labels: Tensor, epoch: int, step: int) -> dict[str, Tensor]:
        """Losses of the batch; inputs as in `train_step`."""
        for part in self.stage.learns:
            getattr(self.model, part).train()
        where = (self.config.seed, self.stage.name, epoch, step)
        h = inputs.to(self.fabric.device)
        if not self.stage.frozen:
            seed_everything(chance(*where, self.fabric.global_rank), h.device)
            h = gather(extract(self.model, h, self.fabric), len(labels), self.fabric)
        seed_everything(chance(*where, "heads"), h.device)
        generator = torch.Generator().manual_seed(chance(*where, "queries"))
        with torch.autocast(h.device.type, enabled=False):
            return self.stage.loss(self.model, h, labels, self.config, generator)


def preserve_rng_state(fabric: Fabric) -> AbstractContextManager[None]:
    """Leave torch's own state of chance as it was."""
    return torch.random.fork_rng([fabric.device] if fabric.device.type == "cuda" else [])


def chance(*where: object) -> int:
    """A seed for one thing at one place: dropout of a process, or queries, at one step."""
    return zlib.crc32(" ".join(map(str, where)).encode())


# What a stage reads


@dataclass
class StageData:
    """Crops of audio or the frozen extractor's features of those crops, and their labels."""

    model: JointModel
    stage: Stage
    store: AudioStore
    config: RunConfig
    fabric: Fabric
    kept: dict[int, tuple[Tensor, set[int]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        config = self.config
        self.rows = self.store.rows("train", config.label_share, config.seed)
        self.valid_rows = self.store.rows("valid")
        self.n_clips = len(self.rows)
        self.n_steps = -(-self.n_clips // config.batch_size)
        self.crops_of = kept_epochs(self.stage, config)
        self.valid_h: Tensor | None = None
        self.labels = self.store.labels[self.rows]
        if self.stage.shuffled:
            rng = np.random.default_rng(chance(config.seed, "shuffled tags"))
            self.labels = rng.permutation(self.labels)

    def optimizer(self, phase: Phase, previous: Optimizer | None = None) -> Optimizer:
        """The optimizer of `phase` for what learns."""
        parameters = [
            p for part in self.stage.learns for p in getattr(self.model, part).parameters()
        ]
        adam_steps = self.n_steps * adam_epochs_before(self.stage, self.config)
        return build_optimizer(self.config, phase, parameters, previous, adam_steps)

    def steps(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
        """The steps of `epoch` from its step `first` on: this process's share of the crops, or all
        features where the extractor is frozen, the labels, and the clips' rows."""
        config, crops = self.config, self.crops(self.crops_of[epoch])
        order = batches(self.n_clips, config.batch_size, config.seed, epoch, config.shuffle)
        for batch in order[first:]:
            labels = torch.from_numpy(self.labels[batch]).float()
            if self.stage.frozen:
                inputs = self.features(crops, batch)
            else:
                inputs = crops.take(batch[own_share(len(batch), self.fabric)])
            yield inputs, labels, self.rows[batch]

    def crops(self, epoch: int) -> Crops:
        """The epoch's crop of every training clip."""
        config = self.config
        return Crops(self.store, self.rows, config.crop_samples, config.seed, epoch)

    @torch.no_grad()
    def features(self, crops: Crops, positions: list[int]) -> Tensor:
        """h (clip, n_features) of the crops at `positions` by the frozen extractor; where epochs
        come back to these crops, each goes through it once and its features are kept."""
        if self.crops_of.count(crops.epoch) == 1:
            return self.extract_crops(crops, positions)
        if crops.epoch not in self.kept:
            shape = (self.n_clips, self.model.extractor.n_features)
            self.kept[crops.epoch] = torch.empty(shape, device=self.fabric.device), set()
        kept, heard = self.kept[crops.epoch]
        size = self.config.batch_size
        for block in {position // size for position in positions} - heard:
            # By blocks of neighbours: a rounding must not depend on where training went on.
            block_positions = list(range(self.n_clips)[block * size : (block + 1) * size])
            kept[block_positions] = self.extract_crops(crops, block_positions)
            heard.add(block)
        return kept[positions]

    def extract_crops(self, crops: Crops, positions: list[int]) -> Tensor:
        own = positions[own_share(len(positions), self.fabric)]
        h = torch.empty(0, self.model.extractor.n_features, device=self.fabric.device)
        if own:
            h = extract(self.model, crops.take(own), self.fabric)
        return gather(h, len(positions), self.fabric)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The stage's scores on the middle window of every validation clip."""
        labels = self.store.labels[self.valid_rows]
        if not _can_score(labels):
            return {}
        self.model.eval()
        if self.valid_h is None or not self.stage.frozen:
            starts = middle_starts(self.store.lengths[self.valid_rows], self.config.crop_samples)
            self.valid_h = frozen_features(
                self.model, self.store, self.valid_rows, starts, self.config, self.fabric
            )
        truth = torch.from_numpy(labels).float().to(self.fabric.device)
        scores = self.stage.scores(self.model, self.valid_h, truth)
        return {name: value for name, value in scores.items() if np.isfinite(value)}

    def check_loss_is_finite(
        self, terms: dict[str, Tensor], epoch: int, step: int, rows: np.ndarray
    ) -> None:
        """Stop (`FloatingPointError`) at a loss that is no number, naming where and on which
        clips."""
        if not terms["loss"].isfinite():
            clips = ", ".join(self.store.table.clip_id.iloc[rows])
            told = ", ".join(f"{name} {float(value)}" for name, value in terms.items())
            raise FloatingPointError(
                f"{self.config.name}: {told} in {self.stage.name}, epoch {epoch + 1}, step "
                f"{step + 1} of {self.n_steps}, on the clips {clips}: lower the learning rate, or "
                "look at these clips; the last checkpoint is kept."
            )

    def check_weights_are_finite(self, epoch: int) -> None:
        """Stop (`FloatingPointError`) where the epoch's last step left weights that are no numbers,
        as an infinite gradient does, before they are scored or kept."""
        if not are_numbers(learnt(self.model, self.stage)):
            raise FloatingPointError(
                f"{self.config.name}: weights that are no numbers in {self.stage.name} after epoch "
                f"{epoch + 1}: lower the learning rate; the last checkpoint is kept."
            )


def _can_score(labels: np.ndarray) -> bool:
    """Whether there are clips of different tags; clips that all have the same show nothing."""
    return len(np.unique(labels, axis=0)) > 1


def facts_of(stage: Stage, at: Standing, config: RunConfig, fabric: Fabric) -> dict[str, Any]:
    """What the run's record says of a stage, beside its memory and place."""
    best = {"best_epoch": at.best_epoch} if stage.keeps == "best" else {}
    return {
        "wall_time_s": round(at.total_seconds(), 1),
        "processes": fabric.world_size,
        "crops_a_clip": len(set(kept_epochs(stage, config))),
        **best,
    }


def _history_until(run: Run, stage: Stage, at: Standing) -> pd.DataFrame:
    """The history as far as the checkpoint goes on from it; refused (`ValueError`) where it lacks
    epochs."""
    history = run.history
    history = history[(history.stage != stage.name) | (history.epoch <= at.epoch)]
    if history.epoch[history.stage == stage.name].tolist() != list(range(1, at.epoch + 1)):
        raise ValueError(
            f"{run.folder}/history.csv lacks epochs of {stage.name} that its checkpoint has seen: "
            "bring it back, or delete the run and train again."
        )
    return history


def _with_row(history: pd.DataFrame, row: dict[str, Any]) -> pd.DataFrame:
    return pd.concat([history, pd.DataFrame([row])], ignore_index=True)


# What cannot be trained


def _check_small_batches(
    model: JointModel, store: AudioStore, config: RunConfig, fabric: Fabric
) -> None:
    """Refuse (`ValueError`) batches with fewer crops than the extractor can learn from."""
    needed = getattr(model.extractor, "min_batch", 1)
    n_clips = len(store.rows("train", config.label_share, config.seed))
    smallest = min(map(len, batches(n_clips, config.batch_size, config.seed, 0, False)))
    share = min(part.stop - part.start for part in shares(smallest, fabric))
    if share < needed:
        among = f" for {fabric.world_size} processes" if fabric.world_size > 1 else ""
        raise ValueError(
            f"batch_size {config.batch_size} makes a batch of {smallest} of {n_clips} clips"
            f"{among}, and {config.extractor} needs {needed} to learn: choose a larger one."
        )


def _check_mismatch(run: Run, store: AudioStore, until: str | None) -> None:
    config = run.config
    method = METHODS[config.method]
    stages = [stage.name for stage in method.stages]
    if until is not None and until not in stages:
        raise ValueError(
            f"method {config.method!r} has no stage {until!r}: its stages are {', '.join(stages)}."
        )
    check_store_fits(run, store)
    if not len(store.rows("train")):
        raise ValueError("the store has no training clips: check the split at preparing.")
    keeps_best = any(stage.keeps == "best" for stage in method.stages)
    if keeps_best and not _can_score(store.labels[store.rows("valid")]):
        raise ValueError(
            f"method {config.method!r} chooses its epoch by validation clips, and the store has "
            "none of different tags: check the split at preparing."
        )
