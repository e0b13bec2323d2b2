"""The losses as free functions on tensors, and the table of pair losses by name.

Symbols as in the paper (Lee & Cho 2021): y multi-hot tags, z_audio and z_tag unit vectors of the
shared space, shape (clip, dimension). Every function returns a scalar, the mean over the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

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


def cosine_stop_grad(z_audio: Tensor, z_tag: Tensor) -> Tensor:
    """L_pair as published with no gradient into z_tag: music follows the tags, and the tags'
    space is the autoencoder's alone.

    With that gradient it is cheaper to make all tag sets alike than to keep them, and the space
    collapses; SimSiam stops it for the same reason (Chen & He, CVPR 2021, §4.1).
    """
    return cosine(z_audio, z_tag.detach())


def cosine_variance(z_audio: Tensor, z_tag: Tensor) -> Tensor:
    """L_pair as published, and what a space that shrinks has to pay: the mean over dimensions of
    max(0, 1 − √d · deviation in the batch), for both kinds of vector.

    The variance term of VICReg (Bardes, Ponce & LeCun, ICLR 2022, eq. 1), whose unit is here that
    of d-dimensional unit vectors in all directions.
    """
    return cosine(z_audio, z_tag) + _shrinkage(z_audio) + _shrinkage(z_tag)


def _shrinkage(z: Tensor) -> Tensor:
    """How far the deviations of z (clip, dimension) are below those of a filled sphere."""
    variance = z.shape[1] * z.var(dim=0)
    return (1 - (variance + 1e-4).sqrt()).clamp(min=0).mean()


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


def subset_completion(
    z_audio: Tensor, z_query: Tensor, positive: Tensor, log_scale: Tensor, offset: Tensor
) -> Tensor:
    """`subset_query`, and the same asked of each clip's own random subset of tags: it, too, has to
    answer every query that its clip answers.

    So a part of the tags has to tell the whole, as words do in masked language models (Devlin et
    al., NAACL 2019), and tags that occur together come to lie together. Ours.
    """
    whole = positive[positive.any(dim=1)]  # what clips with tags answer; their subsets come last
    z_part = z_query[len(z_query) - len(whole) :]
    asked, answers = torch.cat([z_audio, z_part]), torch.cat([positive, whole])
    return subset_query(asked, z_query, answers, log_scale, offset)


def soft_info_nce(
    z_audio: Tensor,
    z_tag: Tensor,
    overlap: Tensor,
    log_scale: Tensor,
    offset: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of "which tag set of the batch is this clip's?" and of "which clip is this
    tag set's?", on s·cos(z_audio, z_tag), averaged.

    InfoNCE (van den Oord et al., arXiv 1807.03748, eq. 4) both ways as in CLIP (Radford et al.,
    ICML 2021), but clips that share tags are no negatives of each other: `overlap` (clip, clip),
    see `tag_overlap`, is what the answers are held against. s = exp(log_scale) is learned; an
    `offset` would not change a softmax.
    """
    logits = log_scale.exp() * F.normalize(z_audio, dim=-1) @ F.normalize(z_tag, dim=-1).T
    targets = overlap / overlap.sum(dim=1, keepdim=True)  # the overlap is symmetric, rows serve
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def tag_overlap(labels: Tensor, others: Tensor) -> Tensor:
    """(clip, other) float32: tags in common over tags of either (Jaccard), 1 for equal sets."""
    common = labels @ others.T
    either = labels.sum(1, keepdim=True) + others.sum(1) - common
    return torch.where(either > 0, common / either.clamp(min=1), 1.0)


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


def own_tag_sets(labels: Tensor, generator: torch.Generator) -> Tensor:
    """The batch's tag sets as the queries; nothing of chance in it."""
    return labels


@dataclass(frozen=True)
class PairLoss:
    """How stage 1 ties music to tags.

    `function` takes z_audio and z_tag, each clip against its own tag set; or, where there are
    `queries` (made of the batch's labels), z_audio, the queries' embeddings, the `targets` of
    clips and queries, and the learned scale and offset. `weight` stands before it in the loss.
    """

    function: Callable[..., Tensor]
    weight: float = 1.0
    queries: Callable[[Tensor, torch.Generator], Tensor] | None = None
    targets: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def asks_single_tags(self) -> bool:
        """Whether the tag encoder learns what a single tag is, and can be searched by one."""
        return self.queries is subset_queries


PAIR_LOSSES = {
    "cosine": PairLoss(cosine),
    "cosine_as_coded": PairLoss(cosine_as_coded),
    "margin_as_coded": PairLoss(margin_as_coded),
    "cosine_stop_grad": PairLoss(cosine_stop_grad),
    "cosine_variance": PairLoss(cosine_variance),
    "soft_info_nce": PairLoss(soft_info_nce, 1.0, own_tag_sets, tag_overlap),
    "subset_query": PairLoss(subset_query, 2.0, subset_queries, answers),
    "subset_completion": PairLoss(subset_completion, 4.0, subset_queries, answers),
}
