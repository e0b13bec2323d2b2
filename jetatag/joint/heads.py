"""Tag encoder E, tag decoder D, projection head P, classifier C, and the model of all parts.

Layers and initial values are those of the authors' code (Keras: Glorot uniform, zero biases). Like
the code, E, P and C scale to unit norm; the paper mentions layer normalisation in the autoencoder.
"""

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from jetatag.data import Vocabulary
from jetatag.extractors import BUILT_IN, EXTRACTORS, build_extractor, check_crop

SLOPE = 0.3
SHORTEST_VECTOR = 1e-12


class UnitNorm(nn.Module):
    """Scale (…, n) to length one; zero vectors stay zero, and their gradient does not explode."""

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


def encoder(n_in: int, dim: int) -> nn.Sequential:
    """E: multi-hot tags (clip, tag) → z_tag (clip, dim), unit vectors; and P, built alike: features
    h (clip, n_features) → z_audio (clip, dim)."""
    return nn.Sequential(*_two_layers(n_in, dim), UnitNorm())


def tag_decoder(dim: int, n_tags: int) -> nn.Sequential:
    """D: z_tag (clip, dim) → logits (clip, tag)."""
    return nn.Sequential(dense(dim, dim), nn.LeakyReLU(SLOPE), dense(dim, n_tags))


def classifier(n_features: int, n_tags: int) -> nn.Sequential:
    """C: features h (clip, n_features) → logits (clip, tag), the paper's two layers of 256."""
    hidden = *_two_layers(n_features, 256), UnitNorm(), nn.Dropout(0.5)
    return nn.Sequential(*hidden, dense(256, n_tags))


CLASSIFIERS = {"paper": classifier, "linear": dense}


class JointModel(nn.Module):
    """All parts of a model; the run's method decides which of them learn and when.

    `classifier` computes the final scores; `linear_head` is for a first stage that classifies;
    `query_scale` turns a cosine into a logit, for pair losses that need logits.
    """

    def __init__(
        self, extractor: nn.Module, vocabulary: Vocabulary, dim: int, head: str = "paper"
    ) -> None:
        super().__init__()
        n_tags, self.task = len(vocabulary.tags), vocabulary.task
        self.extractor = extractor
        self.projection = encoder(extractor.n_features, dim)
        self.tag_encoder = encoder(n_tags, dim)
        self.tag_decoder = tag_decoder(dim, n_tags)
        scale = {"log_scale": torch.tensor(1.6), "offset": torch.tensor(-2.0)}
        self.query_scale = nn.ParameterDict(scale)
        self.classifier = CLASSIFIERS[head](extractor.n_features, n_tags)
        self.linear_head = dense(extractor.n_features, n_tags)

    def forward(self, audio: Tensor) -> Tensor:
        """Audio (clip, sample) → probabilities (clip, tag) by extractor and classifier."""
        return self.probabilities(self.classifier(self.extractor(audio)))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (…, tag) → probabilities: sigmoid, or softmax for a multiclass task."""
        return logits.softmax(-1) if self.task == "multiclass" else logits.sigmoid()

    def reconstruct(self, z_tag: Tensor) -> Tensor:
        """Tag probabilities D(z_tag), (clip, tag)."""
        return self.probabilities(self.tag_decoder(z_tag))


def build_model(config: Any, vocabulary: Vocabulary, head: str = "paper") -> JointModel:
    """The model of a run on the CPU; its initial weights depend on `config.seed` alone.

    Raises `ValueError` if a custom extractor is not as `jetatag.extractors` requires, an option is
    invalid or crops are too short.
    """
    accepted = signature(EXTRACTORS[config.extractor]).parameters
    names = [name for name in ("width", "form", "sample_rate") if name in accepted]
    options = {name: getattr(config, name) for name in names}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        extractor = build_extractor(config.extractor, **options)
        if type(extractor) not in BUILT_IN:
            _check_contract(extractor, config.crop_samples)
        check_crop(config.extractor, config.crop_samples, extractor.min_samples)
        return JointModel(extractor, vocabulary, config.embedding_dim, head)


@torch.no_grad()
def _check_contract(extractor: nn.Module, crop_samples: int) -> None:
    """Raise `ValueError` unless a custom extractor is as `jetatag.extractors` requires."""
    sizes = [getattr(extractor, name, None) for name in ("n_features", "min_samples")]
    if not isinstance(extractor, nn.Module) or not all(isinstance(size, int) for size in sizes):
        needs = f"{extractor!r} must be a module with integers n_features and min_samples"
        raise ValueError(f"{needs}: set them in its class.")
    n_features, min_samples = sizes
    crops, training = torch.zeros(2, max(crop_samples, min_samples)), extractor.training
    h = extractor.cpu().eval()(crops)  # a function may return one left on a GPU
    extractor.train(training)
    if not isinstance(h, Tensor) or h.shape != (2, n_features):
        result = f"{type(extractor).__name__} returned {getattr(h, 'shape', type(h))} for two crops"
        raise ValueError(f"{result}: return (batch, n_features), here (2, {n_features}).")
