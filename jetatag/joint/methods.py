"""Methods as data: which parts learn, in which stage, by which loss, watched by which scores.

The paper's two (Lee & Cho 2021, §3–4): `je`, joint embedding and then a classifier on the frozen
extractor, and `no_je`, extractor and classifier end to end. The others are controls, each of which
takes one of the differences between these two away.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from jetatag import metrics
from jetatag.joint import losses
from jetatag.joint.heads import JointModel

BEST = "valid_average_precision"
"""The score by which a stage that keeps its best epoch chooses it."""
EARLY = 5
"""Epochs of a stage in which a shared space may still be finding its shape."""
SMALL_GAP, ALL_ALIKE = 0.25, 0.98
"""A shared space within this gap (deviations), or with a mean cosine of strangers above this, tells
no clips apart."""


class SpaceWarning(UserWarning):
    """A shared space that collapsed or is mirrored, with its numbers."""


# What a stage minimises and watches


def joint_loss(
    model: JointModel, h: Tensor, labels: Tensor, config: Any, generator: torch.Generator
) -> dict[str, Tensor]:
    """Stage 1: L_AE + weight · L_pair, of h (clip, n_features) and labels (clip, tag)."""
    z_audio, z_tag = model.projection(h), model.tag_encoder(labels)
    pair_loss, scale = losses.PAIR_LOSSES[config.pair_loss], model.query_scale
    if pair_loss.queries is None:
        pair = pair_loss.function(z_audio, z_tag)
    else:
        queries = pair_loss.queries(labels, generator)
        targets, z_query = pair_loss.targets(labels, queries), model.tag_encoder(queries)
        pair = pair_loss.function(z_audio, z_query, targets, scale.log_scale, scale.offset)
    reconstruction = losses.reconstruction(labels, model.reconstruct(z_tag))
    total = reconstruction + pair_loss.weight * pair
    return {"loss": total, "reconstruction": reconstruction, "pair": pair}


def classification_loss(
    model: JointModel,
    h: Tensor,
    labels: Tensor,
    config: Any,
    generator: torch.Generator,
    head: str = "classifier",
) -> dict[str, Tensor]:
    """Stage 2 and end-to-end training: L_C of the part `head` on features h (clip, n_features)."""
    return {"loss": losses.classification(getattr(model, head)(h), labels, model.task)}


def joint_scores(model: JointModel, h: Tensor, labels: Tensor) -> dict[str, float]:
    """What to watch in stage 1: does a clip lie near its own tags and not near others', and does
    the autoencoder still know them?"""
    z_tag = model.tag_encoder(labels)
    truth = labels.cpu().numpy()
    space = metrics.gap(model.projection(h).cpu().numpy(), z_tag.cpu().numpy(), truth)
    decoded = _mean_over_tags(truth, model.reconstruct(z_tag).cpu().numpy())
    return {
        "valid_gap": space["gap"],
        "valid_matched_cosine": space["matched"],
        "valid_unmatched_cosine": space["unmatched"],
        "valid_autoencoder_ap": decoded["average_precision"],
    }


def classification_scores(
    model: JointModel, h: Tensor, labels: Tensor, head: str = "classifier"
) -> dict[str, float]:
    """Macro scores of one window a clip, and for a multiclass task the accuracy."""
    probs = model.probabilities(getattr(model, head)(h)).cpu().numpy()
    truth = labels.cpu().numpy()
    scores = _mean_over_tags(truth, probs)
    if model.task == "multiclass":
        scores["accuracy"] = metrics.accuracy(truth, probs)
    return {f"valid_{name}": value for name, value in scores.items()}


def _mean_over_tags(labels: np.ndarray, probs: np.ndarray) -> dict[str, float]:
    """Two of `metrics.macro_clip`'s areas in a hundredth of its time, which at every epoch of kept
    features would cost more than the training; tags that the split lacks are left out."""
    areas = metrics.macro_clip(labels, probs, np.ones((1, len(labels))))
    return {name: float(areas[name][0]) for name in ("roc_auc", "average_precision")}


def state_of_space(scores: dict[str, float]) -> str:
    """What `joint_scores` say of the shared space: "mirrored", "collapsed", or nothing."""
    if "valid_gap" not in scores:
        return ""
    if scores["valid_gap"] < -SMALL_GAP:
        return "mirrored"
    alike = scores["valid_unmatched_cosine"] > ALL_ALIKE
    return "collapsed" if alike or scores["valid_gap"] < SMALL_GAP else ""


def warn_of_space(scores: dict[str, float], where: str) -> None:
    """Warn (`SpaceWarning`) of a shared space in which clips do not lie by their own tags."""
    state = state_of_space(scores)
    what = {
        "mirrored": "is mirrored: clips lie away from their own tags, so that maps and searches in "
        "it have the wrong sign",
        "collapsed": "has collapsed: it hardly tells clips apart; train longer, or choose a pair "
        "loss that forbids it, such as subset_query",
    }
    if state:
        told = (
            f"{where} the shared space {what[state]} (gap {scores['valid_gap']:.2f} deviations; "
            f"mean cosine {scores['valid_matched_cosine']:.2f} to a clip's own tags and "
            f"{scores['valid_unmatched_cosine']:.2f} to others')."
        )
        # No line of code is the cause, and a notebook should not store the path of one.
        warnings.warn_explicit(told, SpaceWarning, "jetatag.training.train", 0)


# Methods


@dataclass(frozen=True)
class Stage:
    """What learns, by which loss, watched by which scores, on which of the config's schedules.

    `keeps` says whether the weights of the last or of the best validation epoch remain; with
    `shuffled` the training clips' tag sets are permuted among them.
    """

    name: str
    loss: Callable[..., dict[str, Tensor]]
    scores: Callable[..., dict[str, float]]
    learns: tuple[str, ...]
    schedule: str
    keeps: Literal["last", "best"] = "last"
    shuffled: bool = False

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
STAGE1_BCE = Stage(
    "stage1",
    partial(classification_loss, head="linear_head"),
    partial(classification_scores, head="linear_head"),
    ("extractor", "linear_head"),
    "stage1",
)
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
    "no_je_early_stop": Method((replace(END_TO_END, keeps="best"),)),
    "bce_two_stage": Method((STAGE1_BCE, STAGE2)),
    "je_shuffled": Method((replace(STAGE1, shuffled=True), STAGE2)),
}


# The schedule


def phases_by_epoch(stage: Stage, config: Any) -> list[tuple[Any, int]]:
    """For every epoch of the stage its phase, and how many of the phase's epochs lie before it."""
    return [(p, epoch) for p in getattr(config, stage.schedule) for epoch in range(p.epochs)]


def adam_epochs_before(stage: Stage, config: Any) -> int:
    """How many epochs Adam has seen in earlier stages; as coded it goes on counting."""
    stages = METHODS[config.method].stages
    earlier = [p for s in stages[: stages.index(stage)] for p, _ in phases_by_epoch(s, config)]
    return sum(phase.optimizer == "adam" for phase in earlier)


def kept_epochs(stage: Stage, config: Any) -> list[int]:
    """Which epoch's crops each epoch takes: its own, or with `stage2_crops` = K those of one of
    the first K, whose frozen features are kept."""
    n_epochs = len(phases_by_epoch(stage, config))
    n_kept = (stage.frozen and config.stage2_crops) or n_epochs
    return [epoch % n_kept for epoch in range(n_epochs)]
