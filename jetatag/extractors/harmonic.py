"""Harmonic-CNN: a harmonic spectrogram and a small 2-D CNN.

Won, Chun, Nieto, Serra, "Data-driven harmonic filters for audio representation learning",
ICASSP 2020, in Lee & Cho 2021's variant with 1024 features.
"""

import math
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from jetatag.extractors import layers
from jetatag.files import Count

N_FFT, HOP_LENGTH = 512, 256  # samples
N_HARMONICS = 6
LOWEST_NOTE = 24  # MIDI number of C1, the centre of the first level
LEVELS_PER_SEMITONE = 2
BANDWIDTH_SLOPE, BANDWIDTH_OFFSET_HZ = 0.1079, 24.7  # bandwidth = (slope · f + offset) / Q
SMALLEST_ENERGY = 1e-5  # keeps the logarithm finite: -50 dB
DYNAMIC_RANGE_DB = 80.0
MIN_CHANNELS_LAST = 64  # of the first convolution; narrower networks keep torch's layout


def filter_centres(sample_rate: float, form: layers.Form = "as_published") -> torch.Tensor:
    """Centre frequency of every filter, (harmonic, level) float64 in Hz.

    Two levels per semitone from C1 to the note whose highest harmonic reaches half of `sample_rate`
    (Hz): 128 at 16 kHz (Won et al., ICASSP 2020). `as_coded` (Lee & Cho's TensorFlow code) reshapes
    the same numbers as (level, harmonic), which scatters the harmonics over the channels.
    """
    highest_note = round(69 + 12 * math.log2(sample_rate / (2 * N_HARMONICS) / 440))
    n_levels = max(0, highest_note - LOWEST_NOTE) * LEVELS_PER_SEMITONE
    notes = LOWEST_NOTE + torch.arange(n_levels, dtype=torch.float64) / LEVELS_PER_SEMITONE
    levels = 440 * 2 ** ((notes - 69) / 12)
    centres = torch.outer(torch.arange(1, N_HARMONICS + 1, dtype=torch.float64), levels)
    return centres if form == "as_published" else centres.reshape(-1, N_HARMONICS).T


class HarmonicSTFT(nn.Module):
    """Level in dB at the harmonics: (batch, sample) → (batch, harmonic, level, frame) float32.

    Triangular filters around the harmonics weight the magnitude spectrogram, one frame every 256
    samples; their common Q is learned. A filter between two bins stays empty, as in the original.
    """

    def __init__(self, sample_rate: float, form: layers.Form):
        super().__init__()
        self.quality = nn.Parameter(torch.ones(1))
        centres = filter_centres(sample_rate, form)
        bins = torch.linspace(0, sample_rate / 2, N_FFT // 2 + 1, dtype=torch.float64)
        bandwidths = BANDWIDTH_SLOPE * centres + BANDWIDTH_OFFSET_HZ  # at Q = 1
        distances = 2 * (bins - centres[..., None]).abs() / bandwidths[..., None]
        self.register_buffer("distances", distances.float(), persistent=False)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

    def magnitude(self, waveform: torch.Tensor) -> torch.Tensor:
        """Magnitude spectrogram, (batch, bin, frame), padded with zeros only at the start."""
        padded = F.pad(waveform, (N_FFT - HOP_LENGTH, 0))
        options = {"window": self.window, "center": False, "return_complex": True}
        return torch.stft(padded, N_FFT, HOP_LENGTH, **options).abs()

    def filter_bank(self) -> torch.Tensor:
        """The filters at the current Q, (harmonic, level, bin)."""
        return (1 - self.quality * self.distances).clamp(min=0)

    @layers.eager_float32
    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        filters = self.filter_bank()
        energy = self.magnitude(waveform).mT @ filters.flatten(0, 1).T
        peak = energy.amax((1, 2), keepdim=True)
        floor = (peak * 10 ** (-DYNAMIC_RANGE_DB / 10)).clamp(min=SMALLEST_ENERGY)
        level_db = 10 * energy.clamp(min=floor).log10()
        return level_db.mT.unflatten(1, filters.shape[:2])


class HarmonicCNN(nn.Module):
    """Harmonic-CNN: waveform (batch, sample) in [-1, 1] → features (batch, 8 · `width`).

    `sample_rate` (Hz) and `form` place the filters (`filter_centres`). Raises `ValueError` for a
    `sample_rate` with fewer than 128 levels.
    """

    min_samples = 288 * HOP_LENGTH  # the poolings divide the frames by 2^5 · 3^2
    paper_crop = 80_000

    def __init__(
        self,
        width: Count = 128,
        form: layers.Form = "as_published",
        sample_rate: layers.SampleRate = 16_000,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.n_features = 8 * width
        self.front_end = HarmonicSTFT(sample_rate, form)
        if (n_levels := self.front_end.distances.shape[1]) < 128:
            needs = f"harmonic_cnn needs 128 levels, {sample_rate:,} Hz give {n_levels}"
            raise ValueError(f"{needs}: resample the audio to 16,000 Hz or more.")
        self.front_norm = layers.BatchNorm2d(N_HARMONICS)
        plain = partial(layers.ConvBlock, nn.Conv2d)
        residual = partial(layers.ResidualBlock, nn.Conv2d)
        self.blocks = nn.Sequential(
            plain(N_HARMONICS, width, nn.MaxPool2d(2)),
            residual(width, width, nn.MaxPool2d(2)),
            residual(width, width, nn.MaxPool2d(2)),
            plain(width, 2 * width, nn.MaxPool2d(2)),
            residual(2 * width, 2 * width, nn.MaxPool2d(2)),
            residual(2 * width, 2 * width, nn.MaxPool2d((2, 3))),  # (levels, frames)
            plain(2 * width, 4 * width, nn.MaxPool2d((2, 3))),
        )
        layers.initialise(self, generator)

    def prefers_channels_last(self, device: torch.device) -> bool:
        """Whether its weights should have the channels innermost for training on `device`: on a
        GPU, and on a CPU with AVX-512, where wide networks train in 0.8 of the time."""
        wide = self.n_features >= 8 * MIN_CHANNELS_LAST
        has_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
        return device.type == "cuda" or (device.type == "cpu" and wide and has_avx512)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        layers.check_waveform(waveform, self)
        x = self.front_norm(self.front_end(waveform))
        # Convolutions are faster with the channels innermost, except in training where the weights
        # are not: their gradients then take three times as long.
        if not self.training or self.blocks[0].conv.conv.weight.stride(1) == 1:
            x = x.contiguous(memory_format=torch.channels_last)
        return layers.last_maxima(self.blocks, x)
