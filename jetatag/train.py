"""Training: methods as data, one loop.

A method is a list of stages; a stage says which parts learn, by which loss, on which schedule
(Lee & Cho 2021, §3–4). Crops and order come from (seed, epoch), dropout and queries from (seed,
stage, epoch), so a run that was interrupted goes on from its last whole epoch, on a CPU to the
same weights bit by bit.
"""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from jetatag import losses, metrics
from jetatag.config import Phase, RunConfig
from jetatag.crops import Crops, batches, middle_starts
from jetatag.heads import JointModel, build_model
from jetatag.optimizers import build_optimizer
from jetatag.predict import extract, frozen_features, place, refuse_other_store
from jetatag.runs import Run
from jetatag.store import AudioStore


def joint_loss(
    model: JointModel, h: Tensor, labels: Tensor, config: RunConfig, generator: torch.Generator
) -> dict[str, Tensor]:
    """Stage 1: L_AE + weight · L_pair, of h (clip, n_features) and labels (clip, tag)."""
    z_audio, z_tag = model.projection(h), model.tag_encoder(labels)
    pair_loss = losses.PAIR_LOSSES[config.pair_loss]
    if pair_loss.against == "queries":
        queries = losses.subset_queries(labels, generator)
        scale = model.query_scale
        pair = pair_loss.function(
            z_audio,
            model.tag_encoder(queries),
            losses.answers(labels, queries),
            scale.log_scale,
            scale.offset,
        )
    else:
        pair = pair_loss.function(z_audio, z_tag)
    reconstruction = losses.reconstruction(labels, model.reconstruct(z_tag))
    total = reconstruction + pair_loss.weight * pair
    return {"loss": total, "reconstruction": reconstruction, "pair": pair}


def classification_loss(
    model: JointModel, h: Tensor, labels: Tensor, config: RunConfig, generator: torch.Generator
) -> dict[str, Tensor]:
    """Stage 2 and end-to-end training: L_C from features h (clip, n_features)."""
    return {"loss": losses.classification(model.classifier(h), labels, model.task)}


def joint_scores(model: JointModel, h: Tensor, labels: Tensor) -> dict[str, float]:
    """What to watch in stage 1: does a clip lie near its own tags, and does the autoencoder
    still know them?"""
    z_tag = model.tag_encoder(labels)
    truth = labels.cpu().numpy()
    space = metrics.gap(model.projection(h).cpu().numpy(), z_tag.cpu().numpy(), truth)
    decoded = _mean_over_tags(truth, model.reconstruct(z_tag).cpu().numpy())
    return {
        "valid_gap": space["gap"],
        "valid_matched_cosine": space["matched"],
        "valid_autoencoder_ap": decoded["average_precision"],
    }


def classification_scores(model: JointModel, h: Tensor, labels: Tensor) -> dict[str, float]:
    """Macro scores of one window a clip, and for a multiclass task the accuracy."""
    probs, truth = model.probabilities(model.classifier(h)).cpu().numpy(), labels.cpu().numpy()
    scores = _mean_over_tags(truth, probs)
    if model.task == "multiclass":
        scores["accuracy"] = metrics.accuracy(truth, probs)
    return {f"valid_{name}": value for name, value in scores.items()}


def _mean_over_tags(labels: np.ndarray, probs: np.ndarray) -> dict[str, float]:
    """`metrics.macro_clip`'s areas in a hundredth of its time, which at every epoch of kept
    features would cost more than the training; tags that the split lacks are left out."""
    areas = metrics.weighted_macro(labels, probs, np.ones((1, len(labels))))
    return {name: float(area) for name, (area,) in areas.items()}


@dataclass(frozen=True)
class Stage:
    """What learns, by which loss, watched by which scores, on which of the config's schedules."""

    name: str
    loss: Callable[..., dict[str, Tensor]]
    scores: Callable[..., dict[str, float]]
    learns: tuple[str, ...]
    schedule: str

    @property
    def frozen(self) -> bool:
        """Whether the extractor stays as it is, in inference mode."""
        return "extractor" not in self.learns


@dataclass(frozen=True)
class Method:
    """The stages in order, and which classifier head the model carries."""

    stages: tuple[Stage, ...]
    head: str = "paper"


JOINT = ("extractor", "projection", "tag_encoder", "tag_decoder", "query_scale")
STAGE1 = Stage("stage1", joint_loss, joint_scores, JOINT, "stage1")
STAGE2 = Stage("stage2", classification_loss, classification_scores, ("classifier",), "stage2")
END_TO_END = Stage(
    "end_to_end",
    classification_loss,
    classification_scores,
    ("extractor", "classifier"),
    "stage2",
)
METHODS = {
    "je": Method((STAGE1, STAGE2)),
    "no_je": Method((END_TO_END,)),
    "no_je_linear": Method((END_TO_END,), head="linear"),
}


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
    `jetatag.extractors`. Raises `ValueError` where run and store do not fit.
    """
    config = run.config
    _refuse_mismatch(run, store, until)
    method = METHODS[config.method]
    model = build_model(config, run.vocabulary, method.head, extractor)
    _refuse_small_batches(model, store, config)
    device = place(model, config)
    for number, stage in enumerate(method.stages):
        if run.has(f"{stage.name}.safetensors"):
            run.load_weights(stage.name, model)
        else:
            run.forget([later.name for later in method.stages[number + 1 :]])
            seconds = train_stage(model, stage, run, store, on_epoch or (lambda history: None))
            crops_a_clip = len(set(kept_epochs(stage, config)))
            run.finish_stage(stage.name, model.state_dict(), seconds, device, crops_a_clip)
        if stage.name == until:
            break
    return model


def train_stage(
    model: JointModel,
    stage: Stage,
    run: Run,
    store: AudioStore,
    on_epoch: Callable[[pd.DataFrame], None],
) -> float:
    """The loop: for every epoch of the schedule take each clip once, step, score, checkpoint.

    Returns the seconds it took, those before an interruption included.
    """
    config = run.config
    data = StageData(model, stage, store, config)
    parameters = [p for part in stage.learns for p in getattr(model, part).parameters()]
    schedule = phases_by_epoch(stage, config)
    adam_steps = data.n_steps * adam_epochs_before(stage, config)
    first, seconds, optimizer = resume(run, stage, model, parameters, adam_steps)
    begun = time.perf_counter() - seconds
    history = run.history
    history = history[(history.stage != stage.name) | (history.epoch <= first)]
    bar = tqdm(desc=f"{config.name} {stage.name}", total=len(schedule), initial=first, unit="epoch")
    for epoch in range(first, len(schedule)):
        if epoch == 0 or schedule[epoch] is not schedule[epoch - 1]:
            optimizer = build_optimizer(config, schedule[epoch], parameters, optimizer, adam_steps)
        means = train_epoch(model, stage, data, optimizer, epoch)
        row = {
            "stage": stage.name,
            "epoch": epoch + 1,
            "learning_rate": schedule[epoch].learning_rate,
        }
        history = pd.concat([history, pd.DataFrame([{**row, **means, **data.validate()}])])
        run.write_history(history)
        seconds = time.perf_counter() - begun
        save_checkpoint(run, stage, model, optimizer, epoch + 1, seconds)
        on_epoch(history)
        bar.set_postfix({name: f"{value:.4f}" for name, value in means.items()}, refresh=False)
        bar.update()
    bar.close()
    return seconds


def phases_by_epoch(stage: Stage, config: RunConfig) -> list[Phase]:
    """The phase that every epoch of the stage belongs to."""
    return [phase for phase in getattr(config, stage.schedule) for _ in range(phase.epochs)]


def adam_epochs_before(stage: Stage, config: RunConfig) -> int:
    """How many epochs Adam has seen in earlier stages; as coded it goes on counting."""
    stages = METHODS[config.method].stages
    earlier = [p for s in stages[: stages.index(stage)] for p in phases_by_epoch(s, config)]
    return sum(phase.optimizer == "adam" for phase in earlier)


def kept_epochs(stage: Stage, config: RunConfig) -> list[int]:
    """Which epoch's crops each epoch takes: its own, or with `stage2_crops` = K those of one of
    the first K, whose frozen features are kept."""
    n_epochs = len(phases_by_epoch(stage, config))
    n_kept = (stage.frozen and config.stage2_crops) or n_epochs
    return [epoch % n_kept for epoch in range(n_epochs)]


def train_epoch(
    model: JointModel, stage: Stage, data: "StageData", optimizer: Optimizer, epoch: int
) -> dict[str, float]:
    """One pass over the training clips; returns the mean of every loss over the clips."""
    config, device = data.config, data.device
    model.eval()
    for part in stage.learns:
        getattr(model, part).train()
    sums: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(chance(config.seed, stage.name, epoch))
        generator = torch.Generator().manual_seed(chance(config.seed, stage.name, epoch))
        for inputs, labels in data.steps(epoch):
            labels = labels.to(device)
            terms = train_step(model, stage, inputs, labels, optimizer, config, generator)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach() * len(labels)
    return {name: float(total) / data.n_clips for name, total in sums.items()}


def train_step(
    model: JointModel,
    stage: Stage,
    inputs: Tensor,
    labels: Tensor,
    optimizer: Optimizer,
    config: RunConfig,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """One update from crops (clip, sample), or from features (clip, n_features) where the
    extractor is frozen; returns the losses."""
    h = inputs.to(labels.device) if stage.frozen else extract(model, inputs, config.precision)
    terms = stage.loss(model, h, labels, config, generator)
    optimizer.zero_grad()
    terms["loss"].backward()
    optimizer.step()
    return terms


def chance(seed: int, stage: str, epoch: int) -> int:
    """Where an epoch's dropout and queries start from."""
    return zlib.crc32(f"{seed} {stage} {epoch}".encode())


@dataclass
class StageData:
    """What a stage reads: crops of audio, or the frozen extractor's features of those crops."""

    model: JointModel
    stage: Stage
    store: AudioStore
    config: RunConfig
    kept: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = next(self.model.parameters()).device
        self.rows = self.store.rows("train")
        self.n_clips = len(self.rows)
        self.n_steps = -(-self.n_clips // self.config.batch_size)
        self.crops_of = kept_epochs(self.stage, self.config)
        self.valid_rows = self.store.rows("valid")
        self.valid_h: Tensor | None = None

    def steps(self, epoch: int):
        """(inputs, labels) of every training step of `epoch`."""
        config = self.config
        order = batches(self.n_clips, config.batch_size, config.seed, epoch, config.shuffle)
        inputs = self.features(epoch) if self.stage.frozen else self.crops(epoch)
        loader = DataLoader(inputs, batch_sampler=order, collate_fn=_as_is)
        for positions, batch in zip(order, loader, strict=True):
            yield batch, torch.from_numpy(self.store.labels[self.rows[positions]]).float()

    def crops(self, epoch: int) -> Crops:
        """The epoch's crop of every training clip."""
        config = self.config
        return Crops(self.store, self.rows, config.crop_samples, config.seed, epoch)

    def features(self, epoch: int) -> "Features":
        """The epoch's crops through the frozen extractor, once for each crop that is kept."""
        config = self.config
        epoch = self.crops_of[epoch]
        if epoch not in self.kept:
            starts = self.crops(epoch).starts
            if not config.stage2_crops:
                self.kept.clear()
            self.kept[epoch] = frozen_features(self.model, self.store, self.rows, starts, config)
        return Features(self.kept[epoch])

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The stage's scores on the middle window of every validation clip."""
        if len(np.unique(self.store.labels[self.valid_rows], axis=0)) < 2:
            return {}  # clips that all have the same tags show nothing
        self.model.eval()
        if self.valid_h is None or not self.stage.frozen:
            starts = middle_starts(self.store.lengths[self.valid_rows], self.config.crop_samples)
            self.valid_h = frozen_features(
                self.model, self.store, self.valid_rows, starts, self.config
            )
        labels = torch.from_numpy(self.store.labels[self.valid_rows]).float().to(self.device)
        scores = self.stage.scores(self.model, self.valid_h, labels)
        return {name: value for name, value in scores.items() if np.isfinite(value)}


@dataclass(frozen=True)
class Features(Dataset):
    """Kept features (clip, n_features) as a dataset of whole batches."""

    h: Tensor

    def __len__(self) -> int:
        return len(self.h)

    def __getitems__(self, positions: list[int]) -> Tensor:
        return self.h[positions]


def _as_is(batch: Tensor) -> Tensor:
    return batch


def save_checkpoint(
    run: Run,
    stage: Stage,
    model: JointModel,
    optimizer: Optimizer,
    epochs_done: int,
    seconds: float,
) -> None:
    """Keep everything that the stage changes, in one safetensors file."""
    learnt = ((k, v) for k, v in model.state_dict().items() if k.split(".")[0] in stage.learns)
    tensors = {f"model.{name}": value for name, value in learnt}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{key}": v for key, v in state.items() if v is not None}
    notes = {"stage": stage.name, "epochs_done": str(epochs_done), "seconds": str(seconds)}
    run.write_tensors("checkpoint.safetensors", tensors, notes)


def resume(
    run: Run, stage: Stage, model: JointModel, parameters: list[Tensor], adam_steps: int
) -> tuple[int, float, Optimizer | None]:
    """Load the stage's checkpoint, if any; returns epochs done, seconds spent, and the optimizer
    to go on with."""
    if not run.has("checkpoint.safetensors"):
        return 0, 0.0, None
    tensors, notes = run.read_tensors("checkpoint.safetensors")
    if notes.get("stage") != stage.name:
        return 0, 0.0, None
    epochs_done = int(notes["epochs_done"])
    learnt = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    model.load_state_dict(learnt, strict=False)  # the other parts are as the stage found them
    phase = phases_by_epoch(stage, run.config)[epochs_done - 1]
    optimizer = build_optimizer(run.config, phase, parameters, steps_done=adam_steps)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".", 2)
            state.setdefault(int(i), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return epochs_done, float(notes["seconds"]), optimizer


def _refuse_small_batches(model: JointModel, store: AudioStore, config: RunConfig) -> None:
    """Refuse (`ValueError`) batches with fewer crops than the extractor can learn from."""
    needed = getattr(model.extractor, "min_batch", 1)
    n_clips = len(store.rows("train"))
    smallest = min(map(len, batches(n_clips, config.batch_size, config.seed, 0, False)))
    if smallest < needed:
        raise ValueError(
            f"batch_size {config.batch_size} makes a batch of {smallest} of {n_clips} clips, and "
            f"{config.extractor} needs {needed} to learn: choose a larger one."
        )


def _refuse_mismatch(run: Run, store: AudioStore, until: str | None) -> None:
    config = run.config
    stages = [stage.name for stage in METHODS[config.method].stages]
    if until is not None and until not in stages:
        raise ValueError(
            f"method {config.method!r} has no stage {until!r}: its stages are {', '.join(stages)}."
        )
    refuse_other_store(run, store)
    if not len(store.rows("train")):
        raise ValueError("the store has no training clips: check the split at preparing.")
