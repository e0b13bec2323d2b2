"""Tag encoder E, tag decoder D, projection head P, classifier C, and the model they make.

Layers and initial values as in the authors' code (Keras: Glorot uniform, zero biases); the unit
norm at the end of E, P and inside C stands where the paper names layer normalisation.
"""

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from jetatag.data import Vocabulary
from jetatag.extractors import EXTRACTORS, build_extractor

SLOPE = 0.3
SHORTEST_VECTOR = 1e-12
CLASSIFIER_SIZE = 256


class UnitNorm(nn.Module):
    """Scale (…, n) to length one; a zero vector stays zero instead of becoming NaN.

    Its divisor is then 1 and not a tiny number, which would blow its gradient up instead.
    """

    def forward(self, x: Tensor) -> Tensor:
        norm = x.norm(dim=-1, keepdim=True)
        return x / torch.where(norm > SHORTEST_VECTOR, norm, 1.0)


def dense(n_in: int, n_out: int) -> nn.Linear:
    """A fully connected layer with Keras' initial values."""
    layer = nn.Linear(n_in, n_out)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _two_layers(n_in: int, n: int) -> list[nn.Module]:
    return [dense(n_in, n), nn.LeakyReLU(SLOPE), dense(n, n), nn.LeakyReLU(SLOPE)]


def tag_encoder(n_tags: int, dim: int) -> nn.Sequential:
    """E: multi-hot tags (clip, tag) → z_tag (clip, dim), unit vectors."""
    return nn.Sequential(*_two_layers(n_tags, dim), UnitNorm())


def projection_head(n_features: int, dim: int) -> nn.Sequential:
    """P: features h (clip, n_features) → z_audio (clip, dim), unit vectors."""
    return nn.Sequential(*_two_layers(n_features, dim), UnitNorm())


def tag_decoder(dim: int, n_tags: int) -> nn.Sequential:
    """D: z_tag (clip, dim) → logits (clip, tag)."""
    return nn.Sequential(dense(dim, dim), nn.LeakyReLU(SLOPE), dense(dim, n_tags))


def classifier(n_features: int, n_tags: int) -> nn.Sequential:
    """C: features h (clip, n_features) → logits (clip, tag), the paper's two layers of 256."""
    n = CLASSIFIER_SIZE
    return nn.Sequential(*_two_layers(n_features, n), UnitNorm(), nn.Dropout(0.5), dense(n, n_tags))


class QueryScale(nn.Module):
    """Learned scale and offset from a cosine to a logit, for `losses.subset_query`."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1.6))
        self.offset = nn.Parameter(torch.tensor(-2.0))


CLASSIFIERS = {"paper": classifier, "linear": dense}


class JointModel(nn.Module):
    """All parts of one run; a method decides which of them learn and when.

    Audio is (clip, sample) float32 in [-1, 1], labels (clip, tag) float 0/1. `classifier` makes
    the scores; `linear_head` is for a first stage that classifies, too.
    """

    def __init__(
        self, extractor: nn.Module, vocabulary: Vocabulary, dim: int, head: str = "paper"
    ) -> None:
        super().__init__()
        n_tags, self.task = len(vocabulary.tags), vocabulary.task
        self.extractor = extractor
        self.projection = projection_head(extractor.n_features, dim)
        self.tag_encoder = tag_encoder(n_tags, dim)
        self.tag_decoder = tag_decoder(dim, n_tags)
        self.query_scale = QueryScale()
        self.classifier = CLASSIFIERS[head](extractor.n_features, n_tags)
        self.linear_head = dense(extractor.n_features, n_tags)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (…, tag) → probabilities: each tag for itself, or one of all (multiclass)."""
        return logits.softmax(-1) if self.task == "multiclass" else logits.sigmoid()

    def reconstruct(self, z_tag: Tensor) -> Tensor:
        """Tag probabilities D(z_tag), (clip, tag)."""
        return self.probabilities(self.tag_decoder(z_tag))


def build_model(
    config: Any,
    vocabulary: Vocabulary,
    head: str = "paper",
    own_extractor: nn.Module | None = None,
) -> JointModel:
    """The model of a run on the CPU; its initial weights depend on `config.seed` alone.

    With extractor "own" the module given is taken as it is. Raises `ValueError` where the
    extractor refuses an option, needs longer crops, or does not keep the extractors' contract.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        extractor = _extractor(config, own_extractor)
        if config.crop_samples < extractor.min_samples:
            raise ValueError(
                f"{config.extractor} needs at least {extractor.min_samples:,} samples, and "
                f"crop_samples is {config.crop_samples:,}: raise it."
            )
        return JointModel(extractor, vocabulary, config.embedding_dim, head)


def _extractor(config: Any, own: nn.Module | None) -> nn.Module:
    if (config.extractor == "own") != (own is not None):
        raise ValueError(
            "an extractor of your own needs both: extractor 'own' in the settings and the module "
            f"itself; extractor is {config.extractor!r}, and {'no' if own is None else 'a'} "
            "module came."
        )
    if own is not None:
        _check_contract(own, config.crop_samples)
        return own
    # Only some know filters in Hz or differ in form: the others are coded as published.
    options = {"form": config.form, "sample_rate": config.sample_rate}
    takes = signature(EXTRACTORS[config.extractor]).parameters
    options = {name: value for name, value in options.items() if name in takes}
    return build_extractor(config.extractor, width=config.width, **options)


@torch.no_grad()
def _check_contract(own: nn.Module, crop_samples: int) -> None:
    """Refuse an extractor that cannot say or keep what `jetatag.extractors` asks of it."""
    sizes = [getattr(own, name, None) for name in ("n_features", "min_samples")]
    if not isinstance(own, nn.Module) or not all(isinstance(size, int) for size in sizes):
        raise ValueError(
            f"{own!r} must be a module that carries n_features and min_samples as whole numbers: "
            "build it, and set them in its __init__."
        )
    crops, training = torch.zeros(2, max(crop_samples, own.min_samples)), own.training
    h = own.cpu().eval()(crops)  # an earlier stage may have left it on a GPU
    own.train(training)
    if not isinstance(h, Tensor) or h.shape != (2, own.n_features):
        raise ValueError(
            f"{type(own).__name__} made {getattr(h, 'shape', type(h))} of two crops: return one "
            f"tensor (batch, n_features), here (2, {own.n_features})."
        )
