"""Extractors: waveform in, features out, one file a family.

Every extractor is an `nn.Module` with one contract:

- in: `waveform`, (batch, sample) float32 in [-1, 1], at least `min_samples` samples long;
- out: features, (batch, n_features) float32, with `n_features` = 8 · width (the paper's 1024 at
  width 128).

Any module that keeps this contract and carries `n_features` and `min_samples` can take their
place: the object itself joins a run.

    class Loudness(nn.Module):
        n_features, min_samples = 16, 16_000

        def __init__(self):
            super().__init__()
            self.dense = nn.Linear(1, self.n_features)

        def forward(self, waveform):
            return self.dense(waveform.square().mean(1, keepdim=True)).relu()

    run = Run.start("runs", preset("smoke", extractor="own"), store)
    predict(run, train(run, store, extractor=Loudness()), store)

Its weights are the starting point and learn in place; a later `train` of the same run, which goes
on or loads what is finished, is given a module of the same shape again.
"""

import inspect
from typing import Any

from torch import nn

from jetatag.checks import check_known
from jetatag.extractors.harmonic import HarmonicCNN
from jetatag.extractors.sample_cnn import (
    SampleCNN,
    SampleCNNRes,
    SampleCNNResSE,
    SampleCNNSE,
)
from jetatag.extractors.short_chunk import ShortChunkCNN, ShortChunkCNNRes
from jetatag.extractors.sinc import MusicSincNet

EXTRACTORS: dict[str, type[nn.Module]] = {
    "harmonic_cnn": HarmonicCNN,
    "music_sincnet": MusicSincNet,
    "sample_cnn": SampleCNN,
    "sample_cnn_se": SampleCNNSE,
    "sample_cnn_res": SampleCNNRes,
    "sample_cnn_res_se": SampleCNNResSE,
    "short_chunk_cnn": ShortChunkCNN,
    "short_chunk_cnn_res": ShortChunkCNNRes,
}


def build_extractor(name: str, **options: Any) -> nn.Module:
    """Build the extractor called `name`, freshly initialised.

    `options` are the keyword arguments of its class: for all of them `width` (channels of the
    first block) and `generator` (`torch.Generator` that draws the weights), for `harmonic_cnn` and
    `music_sincnet` also `form` and `sample_rate` (Hz), for the short-chunk CNNs also `sample_rate`,
    and for `music_sincnet` those of its filters.
    Raises `ValueError` for an unknown name, option or value.
    """
    check_known([name], EXTRACTORS, "extractor")
    valid_options = inspect.signature(EXTRACTORS[name]).parameters
    check_known(options, valid_options, f"option of {name}")
    return EXTRACTORS[name](**options)
