"""The losses: reconstruction L_AE, and by name classification L_C and pair losses L_pair.

Symbols are those of the paper (Lee & Cho 2021): y are multi-hot tags, z_audio and z_tag unit
vectors in the shared space. Every loss is a scalar, the mean over the batch. A pair loss
(`PAIR_LOSSES`) takes a `PairBatch`, a classification loss (`CLASSIFICATION_LOSSES`) logits and y.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from jetatag.data.memory import send
from jetatag.files import check_arguments, check_known


def reconstruction(labels: Tensor, probs: Tensor) -> Tensor:
    """L_AE: mean squared error between y and D(E(y)), both (clip, tag)."""
    return F.mse_loss(probs, labels)


NonNegative = Annotated[float, Field(ge=0)]


def bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, the paper's L_C."""
    return F.binary_cross_entropy_with_logits(logits, labels)


def asymmetric(
    logits: Tensor,
    labels: Tensor,
    gamma_positive: NonNegative = 0.0,
    gamma_negative: NonNegative = 4.0,
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.05,
) -> Tensor:
    """Asymmetric loss (Ridnik et al., ICCV 2021, eq. 7), for data with missing labels.

    With p the probability and p_s = max(p − shift, 0), the loss of a present tag is
    −(1 − p)^gamma_positive · log p, and of an absent one −p_s^gamma_negative · log(1 − p_s). An
    absent tag with a low p has less weight than in cross-entropy, or none. The defaults are the
    paper's (§4.1), except that the mean over clips and tags replaces its sum.
    """
    probs = logits.sigmoid()
    shifted = (probs - shift).clamp(min=1e-8)
    # exp(γ · log(1 − p)) is (1 − p)^γ with a finite gradient where 1 − p rounds to 0.
    present = (gamma_positive * F.logsigmoid(-logits)).exp() * F.logsigmoid(logits)
    absent = shifted**gamma_negative * torch.log((1 - shifted).clamp(min=1e-8))
    return -(labels * present + (1 - labels) * absent).mean()


def hill(
    logits: Tensor,
    labels: Tensor,
    peak: Annotated[float, Field(ge=1)] = 1.5,
    margin: NonNegative = 1.0,
    gamma: NonNegative = 2.0,
) -> Tensor:
    """Hill loss (Zhang et al., arXiv 2112.07368, §3.2), for data with missing labels.

    The loss of an absent tag with probability p is (peak − p)·p². Its slope decreases where p is so
    high that the label is probably missing. The loss of a present tag is −(1 − p_m)^gamma · log p_m
    (focal margin loss), with p_m the probability of the logit minus `margin`. The defaults are the
    paper's, except that the mean over clips and tags replaces its sum.
    """
    probs, lowered = logits.sigmoid(), logits - margin
    present = -(gamma * F.logsigmoid(-lowered)).exp() * F.logsigmoid(lowered)
    absent = (peak - probs) * probs.square()
    return (labels * present + (1 - labels) * absent).mean()


CLASSIFICATION_LOSSES = {"bce": bce, "asymmetric": asymmetric, "hill": hill}
"""Losses of multilabel classification by name. Their parameters after logits and labels (clip, tag)
are settings: numbers with annotated ranges and defaults."""
DEFAULT_LOSS = "bce"  # the names of runs and methods leave it out


def without_defaults(name: str, parameters: Mapping[str, float]) -> dict[str, float]:
    """The parameters of a classification loss that differ from its defaults. Raises `ValueError`
    for an unknown parameter and for a value out of range."""
    function = CLASSIFICATION_LOSSES[name]
    known = dict([*signature(function).parameters.items()][2:])
    if parameters and not known:
        raise ValueError(f"{name} has no parameters: leave classification_parameters empty.")
    check_known(parameters, known, f"parameter of {name}")
    check_arguments(function, parameters)
    return {key: value for key, value in parameters.items() if value != known[key].default}


@dataclass(frozen=True)
class PairBatch:
    """The input of a pair loss in a training step.

    z_audio = P(h) and z_tag = E(y) are (clip, dim), unit vectors, labels y (clip, tag) float32 0/1;
    `encoder` is E for other tag sets, (set, tag) → (set, dim). `log_scale` and `offset` are learned
    and turn cosines into logits. `generator` gives random numbers on the CPU, where `cpu_labels`
    are the same labels, so that drawing queries does not wait for the device.
    """

    z_audio: Tensor
    z_tag: Tensor
    labels: Tensor
    encoder: Callable[[Tensor], Tensor]
    log_scale: Tensor
    offset: Tensor
    generator: torch.Generator
    cpu_labels: Tensor

    def logits(self, z_audio: Tensor, z_tag: Tensor) -> Tensor:
        """exp(log_scale) · cosine of every pair, (clip, set)."""
        return self.log_scale.exp() * F.normalize(z_audio, dim=-1) @ F.normalize(z_tag, dim=-1).T

    def queries(self) -> Tensor:
        """`subset_queries` of the batch, on its device."""
        return send(subset_queries(self.cpu_labels, self.generator), self.labels.device)


@dataclass(frozen=True)
class PairLoss:
    """An entry of `PAIR_LOSSES`: the function, its default weight beside L_AE, whether the tag
    encoder also learns single tags and small sets, so that searches can encode them, and whether
    its minimum is mirrored: clips lie farther from their own tags than from others'."""

    function: Callable[[PairBatch], Tensor]
    weight: float = 1.0
    searchable_by_tags: bool = False
    mirrored: bool = False


def cosine(batch: PairBatch) -> Tensor:
    """L_pair as published: (1 − cos(z_a, z_t)) + (1 − cos(1 − z_a, 1 − z_t))."""
    return 2 - _cosines(batch.z_audio, batch.z_tag)


def cosine_as_coded(batch: PairBatch) -> Tensor:
    """L_pair as the 2021 code computes it: 1 − (−cos), twice, because Keras' CosineSimilarity
    loss is minus the cosine; minimising it pushes z_audio away from z_tag."""
    return 2 + _cosines(batch.z_audio, batch.z_tag)


def _cosines(z_audio: Tensor, z_tag: Tensor) -> Tensor:
    """cos(z_a, z_t) + cos(1 − z_a, 1 − z_t), averaged over clips."""
    same = F.cosine_similarity(z_audio, z_tag, dim=-1)
    complement = F.cosine_similarity(1 - z_audio, 1 - z_tag, dim=-1)
    return (same + complement).mean()


def margin_as_coded(batch: PairBatch) -> Tensor:
    """The pair loss of the later code (ATOSE, Applied Sciences 13(15) 9002):
    mean of z_t·z_a² + (1 − z_t)·max(0.4 − z_a, 0)², element by element.

    For a fixed z_t, its optimum is mirrored (z_a ∝ 1 − z_t); it is here to reproduce that code.
    """
    pull = batch.z_tag * batch.z_audio.square()
    push = (1 - batch.z_tag) * (0.4 - batch.z_audio).clamp(min=0).square()
    return (pull + push).mean()


def cosine_stop_grad(batch: PairBatch) -> Tensor:
    """L_pair as published without its gradient into z_tag: only the autoencoder trains the tag
    encoder.

    With that gradient, making all tag vectors alike costs less than keeping them apart, and the
    space collapses; SimSiam stops the gradient for the same reason (Chen & He, CVPR 2021, §4.1).
    """
    return 2 - _cosines(batch.z_audio, batch.z_tag.detach())


def soft_info_nce(batch: PairBatch) -> Tensor:
    """Cross-entropy of "which tag set of the batch belongs to this clip?" and of "which clip
    belongs to this tag set?", averaged, on exp(log_scale)·cos(z_audio, z_tag).

    InfoNCE (van den Oord et al., arXiv 1807.03748, eq. 4) in both directions as in CLIP (Radford
    et al., ICML 2021), but with the clips' `tag_overlap` as soft targets, so that clips that
    share tags are not negatives of each other.
    """
    # E runs again, although z_tag holds the same: sharing it would change the gradient's rounding.
    logits = batch.logits(batch.z_audio, batch.encoder(batch.labels))
    overlap = tag_overlap(batch.labels)
    targets = overlap / overlap.sum(dim=1, keepdim=True)  # symmetric: rows serve both directions
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def subset_query(batch: PairBatch) -> Tensor:
    """Binary cross-entropy on exp(log_scale)·cos(z_audio, z_query) + offset: does the clip carry
    every tag of the query? The queries are single tags and random subsets (`subset_queries`).

    Introduced by this package. Unlike L_pair as published, positive and negative queries keep the
    space from collapsing and make it searchable by single tags and small sets.
    """
    queries = batch.queries()
    logits = batch.logits(batch.z_audio, batch.encoder(queries)) + batch.offset
    return query_loss(logits, answers(batch.labels, queries), nonempty(queries))


def subset_completion(batch: PairBatch) -> Tensor:
    """`subset_query`, where a random subset of each clip's tags must answer the queries as well.

    Introduced by this package. Part of the tags predicts the whole set, as in masked language
    models (Devlin et al., NAACL 2019), so tags that occur together come to lie together.
    """
    queries = batch.queries()
    targets, z_query = answers(batch.labels, queries), batch.encoder(queries)
    n_tags = batch.labels.shape[1]  # the queries after them are the clips' subsets
    logits = batch.logits(torch.cat([batch.z_audio, z_query[n_tags:]]), z_query) + batch.offset
    counts = nonempty(queries)
    rows = torch.cat([torch.ones_like(counts[n_tags:]), counts[n_tags:]])
    return query_loss(logits, torch.cat([targets, targets]), rows.unsqueeze(1) * counts)


PAIR_LOSSES = {
    "cosine": PairLoss(cosine),
    "cosine_as_coded": PairLoss(cosine_as_coded, mirrored=True),
    "margin_as_coded": PairLoss(margin_as_coded, mirrored=True),
    "cosine_stop_grad": PairLoss(cosine_stop_grad, weight=0.5),
    "soft_info_nce": PairLoss(soft_info_nce, weight=0.5),
    "subset_query": PairLoss(subset_query, weight=0.5, searchable_by_tags=True),
    "subset_completion": PairLoss(subset_completion, searchable_by_tags=True),
}
"""Pair losses by name."""


def subset_queries(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Queries for a batch, (tag + clip, tag) 0/1 on the CPU, like the arguments: every single tag,
    then for each clip a random subset of one to three of its tags, empty if it has none."""
    keys = torch.rand(labels.shape, generator=generator) * labels
    size = torch.randint(1, 4, (len(labels), 1), generator=generator)
    rank = keys.argsort(dim=1, descending=True).argsort(dim=1)
    return torch.cat([torch.eye(labels.shape[1]), labels.float() * (rank < size)])


def nonempty(queries: Tensor) -> Tensor:
    """(query,) float32: 1 where a query has tags. Others are masked, to keep a batch's shape."""
    return queries.amax(dim=1)


def query_loss(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Mean binary cross-entropy over (row, query) where `mask`, (query,) or (row, query), is 1."""
    mask = mask.expand_as(logits)
    loss = F.binary_cross_entropy_with_logits(logits, targets, mask, reduction="sum")
    return loss / mask.sum()


def answers(labels: Tensor, queries: Tensor) -> Tensor:
    """(clip, query) float32: 1 where the clip carries every tag of the query."""
    return (labels @ queries.T == queries.sum(dim=1)).float()


def tag_overlap(labels: Tensor) -> Tensor:
    """(clip, clip) float32: common tags over tags of either clip (Jaccard), 1 for equal sets."""
    common, n_tags = labels @ labels.T, labels.sum(1)
    either = n_tags[:, None] + n_tags - common
    return torch.where(either > 0, common / either.clamp(min=1), 1.0)
