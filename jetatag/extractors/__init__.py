"""Extractors: networks from waveform to features, one file per family.

An extractor is an `nn.Module` from a waveform (batch, sample) float32 in [-1, 1] to features
(batch, n_features) float32; the built-in ones raise `ValueError` for what `layers.check_waveform`
refuses. It has the attributes `n_features` (the paper's: 8 · width) and `min_samples`, and
optionally `min_batch`, the smallest batch of a training step (default 1), `paper_crop`, the default
crop in samples (default 59,049), and `prefers_channels_last(device)`, whether training on a
`torch.device` is faster with that memory format (default no). To use your own, add its class to the
table, or a function that builds it, for example with pretrained weights. `paper_crop` and
`min_samples` are read from the entry, so a function may have them, too.
"""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from jetatag.extractors.harmonic import HarmonicCNN
from jetatag.extractors.sample_cnn import SampleCNN, SampleCNNRes, SampleCNNResSE, SampleCNNSE
from jetatag.extractors.short_chunk import ShortChunkCNN, ShortChunkCNNRes
from jetatag.extractors.sinc import MusicSincNet
from jetatag.files import check_arguments, check_known

EXTRACTORS: dict[str, Callable[..., nn.Module]] = {
    "harmonic_cnn": HarmonicCNN,
    "music_sincnet": MusicSincNet,
    "sample_cnn": SampleCNN,
    "sample_cnn_se": SampleCNNSE,
    "sample_cnn_res": SampleCNNRes,
    "sample_cnn_res_se": SampleCNNResSE,
    "short_chunk_cnn": ShortChunkCNN,  # not in the paper
    "short_chunk_cnn_res": ShortChunkCNNRes,  # not in the paper
}
"""Name → class or function, the only place where an extractor's name is defined."""
BUILT_IN = frozenset(EXTRACTORS.values())


def build_extractor(name: str, **options: Any) -> nn.Module:
    """Build the extractor called `name` with fresh weights. `options` are those of its class: for
    the built-in ones `width` (channels of the first block), `generator` (`torch.Generator` for the
    weights) and what the class documents. Raises `ValueError` for an unknown name, option or value.
    """
    check_known([name], EXTRACTORS, "extractor")
    check_known(options, inspect.signature(EXTRACTORS[name]).parameters, f"option of {name}")
    build = EXTRACTORS[name]
    check_arguments(build.__init__ if isinstance(build, type) else build, options)
    return build(**options)


def paper_crop(name: str) -> int:
    """Samples of a crop in Lee & Cho 2021 (16 kHz); 59,049 for extractors that are not theirs."""
    return getattr(EXTRACTORS.get(name), "paper_crop", 3**10)


def min_samples(name: str) -> int:
    """Shortest crop of an extractor, in samples; 1 for one that states it only when built."""
    return getattr(EXTRACTORS.get(name), "min_samples", 1)


def check_crop(name: str, crop_samples: int, shortest: int) -> None:
    """Raise `ValueError` if crops are shorter than the extractor called `name` needs."""
    if crop_samples < shortest:
        needs = f"{name} needs at least {shortest:,} samples"
        raise ValueError(f"{needs}, and crop_samples is {crop_samples:,}: raise it.")
