"""Extractors: waveform in, features out, one file a family.

Every extractor is an `nn.Module` with one contract:

- in: `waveform`, (batch, sample) float32 in [-1, 1], at least `min_samples` samples long;
- out: features, (batch, n_features) float32, with `n_features` = 8 · width (the paper's 1024 at
  width 128).

Any module that keeps this contract and carries `n_features` and `min_samples` can take their place.
"""

import inspect
from typing import Any

from torch import nn

from jetatag.config import refuse_unknown
from jetatag.extractors.harmonic import HarmonicCNN
from jetatag.extractors.sample_cnn import (
    SampleCNN,
    SampleCNNRes,
    SampleCNNResSE,
    SampleCNNSE,
)
from jetatag.extractors.sinc import MusicSincNet

EXTRACTORS: dict[str, type[nn.Module]] = {
    "harmonic_cnn": HarmonicCNN,
    "music_sincnet": MusicSincNet,
    "sample_cnn": SampleCNN,
    "sample_cnn_se": SampleCNNSE,
    "sample_cnn_res": SampleCNNRes,
    "sample_cnn_res_se": SampleCNNResSE,
}


def build_extractor(name: str, **options: Any) -> nn.Module:
    """Build the extractor called `name`, freshly initialised.

    `options` are the keyword arguments of its class: `width` (channels of the first block) and
    `generator` (`torch.Generator` that draws the weights) for all of them; `form` and
    `sample_rate` (Hz) for `harmonic_cnn` and `music_sincnet`, and the filters of the latter. Raises `ValueError` for an unknown name, option or value.
    """
    refuse_unknown([name], EXTRACTORS, "extractor")
    valid_options = inspect.signature(EXTRACTORS[name]).parameters
    refuse_unknown(options, valid_options, f"option of {name}")
    return EXTRACTORS[name](**options)
