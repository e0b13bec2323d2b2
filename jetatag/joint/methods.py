"""Methods as data: which parts learn in which stage, with which loss and validation scores.

The paper's methods (Lee & Cho 2021, §3–4) are `je`, joint embedding and then a classifier on the
frozen extractor, and `no_je`, extractor and classifier end to end. `joint` is our form of `je` in
one stage, and `je_linear` has a linear head in the second. The others are controls, which
separate the differences between these.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from jetatag import metrics
from jetatag.data.memory import send
from jetatag.joint import losses
from jetatag.joint.heads import JointModel

SELECTION_METRIC = "valid_average_precision"  # selects the epoch of a stage that keeps its best
EARLY_EPOCHS = 5  # epochs of a stage before the shared space is judged
COLLAPSED_COSINE = 0.98  # mean between clips and other clips' tags in a collapsed shared space
EXPLANATIONS = {
    "mirrored": "is mirrored: clips lie farther from their own tags than from others', so maps "
    "and searches in it are inverted",
    "collapsed": "has collapsed: it hardly separates clips; train longer (with subset_query, fewer "
    "epochs are enough)",
}


class SpaceWarning(UserWarning):
    """The shared space has collapsed or is mirrored."""


def joint_loss(
    model: JointModel,
    h: Tensor,
    labels: Tensor,
    config: Any,
    generator: torch.Generator,
    tag_sets: Tensor | None = None,
) -> dict[str, Tensor]:
    """Stage 1: weighted L_AE + L_pair on features h (clip, n_features) and labels (clip, tag),
    which `tag_sets` of other clips replace in controls; both are on the CPU, where queries are
    drawn."""
    cpu_labels = labels if tag_sets is None else tag_sets
    labels = send(cpu_labels, h.device)
    pair_loss, scale = losses.PAIR_LOSSES[config.pair_loss], model.query_scale
    z_audio, z_tag = model.projection(h), model.tag_encoder(labels)
    parts = (z_audio, z_tag, labels, model.tag_encoder, scale.log_scale, scale.offset)
    pair = pair_loss.function(losses.PairBatch(*parts, generator, cpu_labels))
    reconstruction = losses.reconstruction(labels, model.reconstruct(z_tag))
    pair_weight = pair_loss.weight if config.pair_weight is None else config.pair_weight
    total = config.reconstruction_weight * reconstruction + pair_weight * pair
    return {"loss": total, "reconstruction": reconstruction, "pair": pair}


def classification_loss(
    model: JointModel, h: Tensor, labels: Tensor, config: Any, *_: Any, head: str = "classifier"
) -> dict[str, Tensor]:
    """Stage 2 and end-to-end training: L_C of the part `head` on features h (clip, n_features): the
    configured loss, or categorical cross-entropy for a multiclass task."""
    logits, labels = getattr(model, head)(h), send(labels, h.device)
    if model.task == "multiclass":
        return {"loss": F.cross_entropy(logits, labels)}
    loss = losses.CLASSIFICATION_LOSSES[config.classification_loss]
    return {"loss": loss(logits, labels, **config.classification_parameters)}


def one_stage_loss(
    model: JointModel, h: Tensor, labels: Tensor, config: Any, *others: Any
) -> dict[str, Tensor]:
    """One-stage training: L_C on the labels plus `joint_loss`, with its arguments."""
    classification = classification_loss(model, h, labels, config)["loss"]
    parts = joint_loss(model, h, labels, config, *others)
    total = classification + parts["loss"]
    return {**parts, "loss": total, "classification": classification}


def joint_scores(model: JointModel, h: Tensor, labels: Tensor) -> dict[str, float]:
    """Validation of stage 1: whether clips lie near their own tags, and how well D decodes."""
    z_tag, truth = model.tag_encoder(labels), labels.cpu().numpy()
    space = metrics.gap(model.projection(h).cpu().numpy(), z_tag.cpu().numpy(), truth)
    decoded = _macro_scores(truth, model.reconstruct(z_tag).cpu().numpy())
    return {
        "valid_gap": space["gap"],
        "valid_matched_cosine": space["matched"],
        "valid_unmatched_cosine": space["unmatched"],
        "valid_autoencoder_ap": decoded["average_precision"],
    }


def classification_scores(
    model: JointModel, h: Tensor, labels: Tensor, head: str = "classifier"
) -> dict[str, float]:
    """Macro scores on one window per clip, and the accuracy of a multiclass task."""
    probs = model.probabilities(getattr(model, head)(h)).cpu().numpy()
    truth = labels.cpu().numpy()
    scores = _macro_scores(truth, probs)
    if model.task == "multiclass":
        scores["accuracy"] = metrics.accuracy(truth, probs)
    return {f"valid_{name}": value for name, value in scores.items()}


def one_stage_scores(model: JointModel, h: Tensor, labels: Tensor) -> dict[str, float]:
    """`classification_scores` and `joint_scores`."""
    return classification_scores(model, h, labels) | joint_scores(model, h, labels)


def _macro_scores(labels: np.ndarray, probs: np.ndarray) -> dict[str, float]:
    """ROC-AUC and average precision of `metrics.macro_clip`, but NaN if no tag can be scored."""
    areas = metrics.macro_clip(labels, probs, np.ones((1, len(labels))))
    return {name: float(areas[name][0]) for name in ("roc_auc", "average_precision")}


def space_status(scores: dict[str, float]) -> str:
    """State of the shared space, from `joint_scores`: "mirrored", "collapsed" or ""."""
    if "valid_gap" not in scores:
        return ""
    if scores["valid_gap"] < -metrics.SMALL_GAP:
        return "mirrored"
    alike = scores["valid_unmatched_cosine"] > COLLAPSED_COSINE
    return "collapsed" if alike or scores["valid_gap"] < metrics.SMALL_GAP else ""


def warn_about_space(scores: dict[str, float], where: str) -> None:
    """Issue a `SpaceWarning` if the shared space is mirrored or has collapsed."""
    if state := space_status(scores):
        message = (
            f"{where} the shared space {EXPLANATIONS[state]} (gap {scores['valid_gap']:.2f} "
            f"standard deviations; mean cosine {scores['valid_matched_cosine']:.2f} to a clip's "
            f"own tags and {scores['valid_unmatched_cosine']:.2f} to others')."
        )
        # Without a source line, because notebooks should not store a path.
        warnings.warn_explicit(message, SpaceWarning, "jetatag.training.train", 0)


@dataclass(frozen=True)
class Stage:
    """What learns, with which loss and validation scores.

    `learns` are the parts of `JointModel` whose weights change, `schedule` is the config's field
    with the phases. `keep_best` keeps the weights of the best validation epoch instead of the last;
    `shuffled` gives the autoencoder and the pair loss other training clips' tag sets.
    """

    name: str
    loss: Callable[..., dict[str, Tensor]]
    scores: Callable[..., dict[str, float]]
    learns: tuple[str, ...]
    schedule: str
    keep_best: bool = False
    shuffled: bool = False

    @property
    def frozen(self) -> bool:
        """Whether the extractor is fixed and in inference mode."""
        return "extractor" not in self.learns


@dataclass(frozen=True)
class Method:
    """An entry of `METHODS`: its stages in order, a description, the classifier head, and whether
    it is a reference: a baseline or control that results tables compare the others with."""

    stages: tuple[Stage, ...]
    description: str
    head: str = "paper"
    is_reference: bool = False

    @property
    def is_joint(self) -> bool:
        """Whether it learns the shared space, so that it needs a pair loss."""
        return any("projection" in stage.learns for stage in self.stages)

    @property
    def with_je(self) -> bool:
        """Whether it is a form of joint embedding, not a control."""
        return self.is_joint and not self.is_reference


JOINT = ("extractor", "projection", "tag_encoder", "tag_decoder", "query_scale")
STAGE1 = Stage("stage1", joint_loss, joint_scores, JOINT, "stage1")
BCE = [partial(f, head="linear_head") for f in (classification_loss, classification_scores)]
STAGE1_BCE = Stage("stage1", *BCE, ("extractor", "linear_head"), "stage1")
STAGE2 = Stage("stage2", classification_loss, classification_scores, ("classifier",), "stage2")
END_TO_END = replace(STAGE2, name="end_to_end", learns=("extractor", "classifier"))
ONE_STAGE = Stage("one_stage", one_stage_loss, one_stage_scores, (*JOINT, "classifier"), "stage2")
Reference = partial(Method, is_reference=True)
METHODS = {
    "je": Method((STAGE1, STAGE2), "stage 1 jointly, stage 2 on the frozen extractor"),
    "je_linear": Method((STAGE1, STAGE2), "je with one linear layer in stage 2", head="linear"),
    "joint": Method((ONE_STAGE,), "je in one stage with one linear layer", head="linear"),
    "no_je": Reference((END_TO_END,), "end to end with the paper's classifier"),
    "no_je_linear": Reference((END_TO_END,), "end to end with one linear layer", head="linear"),
    "no_je_early_stop": Method((replace(END_TO_END, keep_best=True),), "the best epoch of no_je"),
    "bce_two_stage": Reference((STAGE1_BCE, STAGE2), "two stages, cross-entropy in both"),
    "je_shuffled": Reference((replace(STAGE1, shuffled=True), STAGE2), "je with other clips' tags"),
    "joint_shuffled": Reference(
        (replace(ONE_STAGE, shuffled=True),),
        "joint with other clips' tags for the shared space only",
        head="linear",
    ),
}
"""Methods by name, the only place where a method is defined."""
BASELINE = "no_je"  # the paper's method without joint embedding


def phases_by_epoch(stage: Stage, config: Any) -> list[tuple[Any, int]]:
    """For every epoch of the stage, its phase and its number of earlier epochs in that phase."""
    return [(p, epoch) for p in getattr(config, stage.schedule) for epoch in range(p.epochs)]


def adam_epochs_before(stage: Stage, config: Any) -> int:
    """Epochs with Adam in earlier stages; as coded, all stages share one Adam object."""
    stages = METHODS[config.method].stages
    earlier = [p for s in stages[: stages.index(stage)] for p, _ in phases_by_epoch(s, config)]
    return sum(phase.optimizer == "adam" for phase in earlier)


def crop_epochs(stage: Stage, config: Any) -> list[int]:
    """The epoch whose crops each epoch uses: its own, or with `stage2_crops` = K one of the first
    K, whose frozen features are cached."""
    n_epochs = len(phases_by_epoch(stage, config))
    n_cached = (stage.frozen and config.stage2_crops) or n_epochs
    return [epoch % n_cached for epoch in range(n_epochs)]
