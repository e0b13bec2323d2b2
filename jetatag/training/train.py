"""Training: one loop for all methods and stages (`jetatag.joint.methods`).

Crops and order depend on (seed, epoch), dropout and queries on (seed, stage, epoch, step). A killed
run continues from its last checkpoint, on a CPU to bit-identical weights. Under `torchrun`, the
processes share every batch (`jetatag.training.processes`).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from jetatag.config import RunConfig
from jetatag.data.splits import can_score
from jetatag.data.store import AudioStore
from jetatag.files import check_known
from jetatag.joint.heads import JointModel, build_model
from jetatag.joint.losses import DEFAULT_LOSS
from jetatag.joint.methods import METHODS, Stage, phases_by_epoch
from jetatag.training import device, processes
from jetatag.training.data import Audio, StageData, seed_of
from jetatag.training.optimizers import step_if_finite
from jetatag.training.progress import Progress, are_finite, event_writer
from jetatag.training.run import Run

OnEpoch = Callable[[pd.DataFrame, JointModel], None]
READ_EVERY = {"cuda": 32}
"""Steps after which losses are read, because reading them waits for the device; elsewhere 1."""


def train(
    run: Run,
    store: AudioStore,
    until: str | None = None,
    on_epoch: OnEpoch = lambda history, model: None,
) -> JointModel:
    """Train `run` through its method's stages, or up to and including stage `until`.

    Finished stages are loaded, and an interrupted one continues. `on_epoch` is called with the
    whole history and the model after every epoch. Under `torchrun` every process calls this, and
    they share the work. Returns the model. Raises `ValueError` if run and store do not fit, and
    `FloatingPointError` if a loss or weights are no longer finite.
    """
    config, stages = run.config, METHODS[run.config.method].stages
    check_trainable(run, store, until)
    model = build_model(config, run.vocabulary, METHODS[config.method].head)
    fabric = processes.launch(config)
    check_batch_size(model, store, config, fabric)
    processes.place(model, config, fabric, run.folder.parent)
    audio = Audio(store, fabric.device)
    with run.lock():
        for number, stage in enumerate(stages):
            fabric.barrier()  # all processes read what the first has written
            if run.has(f"{stage.name}.safetensors"):
                run.load_weights(stage.name, model)
            else:
                run.discard_stages([later.name for later in stages[number + 1 :]])
                facts = train_stage(model, stage, run, audio, fabric, on_epoch)
                run.finish_stage(stage.name, model.state_dict(), fabric.device, facts)
            if stage.name == until:
                break
        fabric.barrier()
    return model


def train_stage(
    model: JointModel, stage: Stage, run: Run, audio: Audio, fabric: Fabric, on_epoch: OnEpoch
) -> dict[str, Any]:
    """Train one stage from its checkpoint or its start; returns the facts for the run's record."""
    config, phases = run.config, phases_by_epoch(stage, run.config)
    name = f"{config.name} {stage.name}"
    data = StageData(model, stage, audio, config, fabric)
    progress = Progress.resume(run, stage, model, data.optimizer)
    if progress.epoch < len(phases):  # otherwise only the weights are missing
        own = device.precision_label(config, fabric.device)
        progress.precisions = [*dict.fromkeys([*progress.precisions, own])]
    stage_losses = fabric.setup_module(StageLosses(model, stage, config, fabric))
    history = read_history(run, stage, progress.epoch)
    read_every = READ_EVERY.get(fabric.device.type, 1)
    gpus = [fabric.device] if fabric.device.type == "cuda" else []  # whose random state is restored
    done = progress.epoch * data.n_clips + progress.step * data.n_clips // data.n_steps
    total, scores = len(phases) * data.n_clips, {}
    bar = tqdm(desc=name, total=total, initial=done, unit="clip", disable=not run.writes)
    with bar, event_writer(run, stage, progress) as events, torch.random.fork_rng(gpus):
        for epoch in range(progress.epoch, len(phases)):
            phase, epochs_before = phases[epoch]
            bar.set_description(f"{name} epoch {epoch + 1}/{len(phases)}", refresh=False)
            if progress.step == epochs_before == 0:  # as coded, the last optimizer may continue
                progress.optimizer = data.optimizer(phase, progress.optimizer)
            for *batch, rows in data.batches(epoch, progress.step):
                progress.set_learning_rate(phase, epochs_before + progress.step / data.n_steps)
                at = (epoch, progress.step)
                losses = train_step(stage_losses, *batch, progress.optimizer, fabric, *at)
                progress.add(losses, rows)
                is_due = progress.checkpoint_is_due(config)
                if is_due or progress.step % read_every == 0 or progress.step == data.n_steps:
                    bar.set_postfix(read_losses(progress, data) | scores, refresh=False)
                bar.update(len(rows))
                if is_due:
                    progress.save(run, stage, model)
            check_weights_are_finite(data, epoch)
            processes.broadcast_buffers(model, fabric)
            scores = fabric.broadcast(data.validate())
            means = progress.end_epoch(data.n_clips)
            row = {"stage": stage.name, "epoch": progress.epoch}
            row |= {"learning_rate": progress.learning_rate, **means, **scores}
            history = pd.concat([history, pd.DataFrame([row])], ignore_index=True)
            run.write_history(history)
            if stage.keep_best:
                progress.keep_best(scores, stage, model)
            if epochs_before + 1 == phase.epochs:
                progress.save(run, stage, model)
            bar.set_postfix(means | scores, refresh=False)
            for key in row.keys() - {"stage", "epoch"} if events else ():
                events.add_scalar(key, row[key], progress.epoch)
            if run.writes:
                progress.check_space(scores, len(phases), name)
            on_epoch(history, model)
    facts = {
        "wall_time_s": round(progress.total_seconds, 1),
        "processes": fabric.world_size,
        "precision": " + ".join(progress.precisions),
        "crops_a_clip": len(set(data.crop_epochs)),
    }
    if config.compile:
        facts["compile_s"] = round(progress.total_compile_s, 1)
    if stage.keep_best:
        model.load_state_dict(progress.best, strict=False)
        facts["best_epoch"] = progress.best_epoch
    return facts


def train_step(
    stage_losses: nn.Module,
    inputs: Tensor,
    labels: np.ndarray,
    tag_sets: np.ndarray,
    optimizer: Optimizer,
    fabric: Fabric,
    epoch: int = 0,
    step: int = 0,
) -> dict[str, Tensor]:
    """Update the weights with one batch of `StageData.batches` and return its losses. A loss that
    is not finite changes no weight. Nothing here waits for the device."""
    losses = stage_losses(inputs, labels, tag_sets, epoch, step)
    optimizer.zero_grad()
    fabric.backward(losses["loss"])
    step_if_finite(optimizer, losses["loss"])
    return {name: value.detach() for name, value in losses.items()}


class StageLosses(nn.Module):
    """The losses of a stage as one module, for `Fabric.setup_module`; only the parts of the model
    that learn require gradients.

    Each process passes its crops to the extractor; the heads, a hundredth of the work, get the
    features of the whole batch in every process: losses do not depend on the number of processes.
    """

    def __init__(self, model: JointModel, stage: Stage, config: RunConfig, fabric: Fabric) -> None:
        super().__init__()
        self.model, self.stage, self.config, self.fabric = model, stage, config, fabric
        self.model.eval()
        for name, part in model.named_children():
            part.requires_grad_(name in stage.learns)

    def forward(
        self, inputs: Tensor, labels: np.ndarray, tag_sets: np.ndarray, epoch: int, step: int
    ) -> dict[str, Tensor]:
        """Losses of the batch; the parts that learn are in training mode. Labels and tag sets come
        as arrays: several processes would move tensors to the GPU, but queries need the CPU."""
        for part in self.stage.learns:
            getattr(self.model, part).train()
        place = (self.config.seed, self.stage.name, epoch, step)
        h = inputs  # of a frozen extractor, features already
        if not self.stage.frozen:
            device.seed_everything(seed_of(*place, self.fabric.global_rank), h.device)
            h = processes.extract(self.model.extractor, h, self.fabric)
            h = processes.gather(h, len(labels), self.fabric)
        device.seed_everything(seed_of(*place, "heads"), h.device)
        generator = torch.Generator().manual_seed(seed_of(*place, "queries"))
        with torch.autocast(h.device.type, enabled=False):
            labels, tag_sets = map(torch.from_numpy, (labels, tag_sets))
            return self.stage.loss(self.model, h, labels, self.config, generator, tag_sets)


def read_history(run: Run, stage: Stage, n_epochs: int) -> pd.DataFrame:
    """The history up to epoch `n_epochs` of `stage`; raises `ValueError` if epochs are missing."""
    history = run.history
    history = history[(history.stage != stage.name) | (history.epoch <= n_epochs)]
    if history.epoch[history.stage == stage.name].tolist() != list(range(1, n_epochs + 1)):
        problem = f"{run.folder}/history.csv lacks epochs of {stage.name} before its checkpoint"
        raise ValueError(f"{problem}: restore it, or delete the run and train again.")
    return history


def read_losses(progress: Progress, data: StageData) -> dict[str, float]:
    """The losses of the last step; waits for the device. Raises `FloatingPointError` with the place
    and the clips of the first step since the last reading whose loss is not finite."""
    unread, progress.unread = progress.unread, []
    values = torch.stack([torch.stack([*losses.values()]) for *_, losses in unread]).tolist()
    for (step, rows, names), own in zip(unread, values, strict=True):
        losses = dict(zip(names, own, strict=True))
        if not np.isfinite(losses["loss"]):
            clips = ", ".join(data.store.table.clip_id.iloc[rows])
            shown = ", ".join(f"{name} {value}" for name, value in losses.items())
            place = f"{data.stage.name}, epoch {progress.epoch + 1}, step {step} of {data.n_steps}"
            remedy = "lower the learning rate, or look at these clips; the last checkpoint is kept"
            problem = f"{data.config.name}: {shown} in {place}, on the clips {clips}"
            raise FloatingPointError(f"{problem}: {remedy}.")
    return losses


def check_weights_are_finite(data: StageData, epoch: int) -> None:
    """Raise `FloatingPointError` if the epoch's last step made weights that are not finite."""
    if not are_finite(data.model, data.stage):
        problem = f"the weights are not finite in {data.stage.name} after epoch {epoch + 1}"
        raise FloatingPointError(f"{problem}: lower the learning rate; the checkpoint is kept.")


def check_batch_size(
    model: JointModel, store: AudioStore, config: RunConfig, fabric: Fabric
) -> None:
    """Raise `ValueError` if a process gets fewer crops per batch than the extractor needs."""
    needed = getattr(model.extractor, "min_batch", 1)
    n_clips = len(store.rows("train", config.label_share, config.seed))
    smallest = n_clips // -(-n_clips // config.batch_size)
    if smallest // fabric.world_size < needed:
        among = f" for {fabric.world_size} processes" if fabric.world_size > 1 else ""
        problem = f"batch_size {config.batch_size} makes a batch of {smallest} of {n_clips} clips"
        needs = f"{config.extractor} needs {needed} to learn"
        raise ValueError(f"{problem}{among}, and {needs}: choose a larger one.")


def check_trainable(run: Run, store: AudioStore, until: str | None) -> None:
    """Raise `ValueError` if run, store and `until` do not fit."""
    method, stages = run.config.method, METHODS[run.config.method].stages
    if until is not None:
        check_known([until], [stage.name for stage in stages], f"stage of method {method}")
    run.check_store(store)
    if not can_score(store.labels[store.rows("train")]):
        problem = "the store has no training clips with different tags to learn from"
        raise ValueError(f"{problem}: check the split when preparing it.")
    if store.vocabulary.task == "multiclass" and run.config.classification_name != DEFAULT_LOSS:
        problem = f"classification_loss {run.config.classification_loss!r} is for multilabel tasks"
        raise ValueError(f"{problem}, and {store.name} is multiclass: use {DEFAULT_LOSS!r}.")
    keep_best = any(stage.keep_best for stage in stages)
    if keep_best and not can_score(store.labels[store.rows("valid")]):
        needs = f"method {method!r} chooses its epoch by validation clips with different tags"
        raise ValueError(f"{needs}, and the store has none: check the split when preparing it.")
