"""The losses as free functions on tensors, and the table of pair losses by name.

Symbols as in the paper (Lee & Cho 2021): y multi-hot tags, z_audio and z_tag unit vectors of the
shared space, shape (clip, dimension). Every function returns a scalar, the mean over the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

MARGIN = 0.4


def reconstruction(labels: Tensor, probs: Tensor) -> Tensor:
    """L_AE: mean squared error between y and D(E(y)), both (clip, tag)."""
    return F.mse_loss(probs, labels)


def classification(logits: Tensor, labels: Tensor, task: str = "multilabel") -> Tensor:
    """L_C on logits (clip, tag): binary cross-entropy, or categorical for a multiclass task."""
    if task == "multiclass":
        return F.cross_entropy(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels)


def cosine(z_audio: Tensor, z_tag: Tensor) -> Tensor:
    """L_pair as published: (1 − cos(z_a, z_t)) + (1 − cos(1 − z_a, 1 − z_t))."""
    return 2 - _cosines(z_audio, z_tag)


def cosine_as_coded(z_audio: Tensor, z_tag: Tensor) -> Tensor:
    """L_pair as the 2021 code computes it: 1 − (−cos), twice, because Keras' CosineSimilarity
    loss is minus the cosine; minimising it pushes z_audio away from z_tag."""
    return 2 + _cosines(z_audio, z_tag)


def _cosines(z_audio: Tensor, z_tag: Tensor) -> Tensor:
    """cos(z_a, z_t) + cos(1 − z_a, 1 − z_t), averaged over clips."""
    same = F.cosine_similarity(z_audio, z_tag, dim=-1)
    complement = F.cosine_similarity(1 - z_audio, 1 - z_tag, dim=-1)
    return (same + complement).mean()


def margin_as_coded(z_audio: Tensor, z_tag: Tensor) -> Tensor:
    """The pair loss of the later code (ATOSE, Applied Sciences 13(15) 9002):
    mean of z_t·z_a² + (1 − z_t)·max(0.4 − z_a, 0)², element by element.

    For a fixed z_t its optimum is mirrored (z_a ∝ 1 − z_t); it is kept to reproduce that code.
    """
    pull = z_tag * z_audio.square()
    push = (1 - z_tag) * (MARGIN - z_audio).clamp(min=0).square()
    return (pull + push).mean()


def subset_query(
    z_audio: Tensor, z_query: Tensor, positive: Tensor, log_scale: Tensor, offset: Tensor
) -> Tensor:
    """Binary cross-entropy on s·cos(z_audio, z_query) + b: does the clip answer the query?

    z_query (query, dimension) embeds tag subsets (`subset_queries`), positive (clip, query) is 1
    where the clip carries every tag of the query (`answers`); s = exp(log_scale) and b = offset
    are learned. Ours: asking both ways keeps the space from collapsing, which L_pair as
    published does not, and makes single tags and small sets searchable.
    """
    logits = log_scale.exp() * F.normalize(z_audio, dim=-1) @ F.normalize(z_query, dim=-1).T
    return F.binary_cross_entropy_with_logits(logits + offset, positive)


def subset_queries(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Queries for a batch, (query, tag) 0/1 like `labels`: every single tag, and for each clip
    with tags one random subset of one to three of its own. `generator` lives on the CPU."""
    labels = labels.float()
    keys = torch.rand(labels.shape, generator=generator).to(labels.device) * labels
    size = torch.randint(1, 4, (len(labels), 1), generator=generator).to(labels.device)
    rank = keys.argsort(dim=1, descending=True).argsort(dim=1)
    subsets = labels * (rank < size)
    return torch.cat([torch.eye(labels.shape[1], device=labels.device), subsets[labels.any(1)]])


def answers(labels: Tensor, queries: Tensor) -> Tensor:
    """(clip, query) float32: 1 where the clip carries every tag of the query."""
    return (labels @ queries.T == queries.sum(dim=1)).float()


@dataclass(frozen=True)
class PairLoss:
    """How stage 1 ties music to tags: the function, what each clip is held against (its own tag
    set's embedding, or a batch of queries), and its weight beside the reconstruction."""

    function: Callable[..., Tensor]
    against: Literal["own_tags", "queries"]
    weight: float


PAIR_LOSSES = {
    "cosine": PairLoss(cosine, "own_tags", 1.0),
    "cosine_as_coded": PairLoss(cosine_as_coded, "own_tags", 1.0),
    "margin_as_coded": PairLoss(margin_as_coded, "own_tags", 1.0),
    "subset_query": PairLoss(subset_query, "queries", 2.0),
}
