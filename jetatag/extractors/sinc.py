"""Music-SincNet: learned band-pass filters in front of Sample-CNN +Res+SE.

Ravanelli & Bengio, "Speaker recognition from raw waveform with SincNet", SLT 2018, as in Lee & Cho
2021: 256 filters of 2501 taps, initially spaced evenly in mel.
"""

import math
from functools import partial

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import nn
from torch.nn import functional as F

from jetatag.extractors.layers import Form, SampleRate, eager_float32
from jetatag.extractors.sample_cnn import SampleCNNResSE
from jetatag.files import Count

CODED_RATE = 22_050  # Hz: assumed by the code's filters although its audio is at 16,000
LOWEST_MEL = 80.0
FIRST_LOW_EDGE_HZ, LAST_MARGIN_HZ = 30.0, 100.0
SMALLEST_HZ = 50.0  # of the lowest edge and of a band
STRIDE = 3  # samples


def band_edges(n_filters: int, sample_rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Initial low and high edges of the bands, (filter,) float64 in Hz: from the previous centre to
    the next, with centres evenly spaced in mel up to half of `sample_rate` (Lee & Cho's code)."""
    highest_mel = 2595 * math.log10(1 + sample_rate / 2 / 700)
    centres = 700 * (10 ** (np.linspace(LOWEST_MEL, highest_mel, n_filters) / 2595) - 1)
    low, high = np.roll(centres, 1), np.roll(centres, -1)
    low[0], high[-1] = FIRST_LOW_EDGE_HZ, sample_rate / 2 - LAST_MARGIN_HZ
    return low, high


class SincFilters(nn.Module):
    """A bank of band-pass filters with learned edges; calling it gives (filter, tap).

    Each is the difference of two ideal low-passes, 2f · sin(2πfn) / (2πfn), scaled by its maximum
    and windowed (Hamming). `as_coded` omits the π in the sine.
    """

    def __init__(self, n_filters: int, n_taps: int, filter_rate: float, form: Form):
        super().__init__()
        low, high = band_edges(n_filters, filter_rate)
        self.low = nn.Parameter(torch.tensor(low / filter_rate).float()[:, None])
        self.band = nn.Parameter(torch.tensor((high - low) / filter_rate).float()[:, None])
        self.smallest = SMALLEST_HZ / filter_rate
        self.slope = 2.0 if form == "as_published" else 2.0 / math.pi  # torch.sinc(x): sin(πx)/πx
        tap = torch.arange(n_taps, dtype=torch.float64)
        window = 0.54 - 0.46 * torch.cos(2 * math.pi * tap / n_taps)
        self.register_buffer("offset", tap - n_taps // 2, persistent=False)
        self.register_buffer("window", window, persistent=False)

    def forward(self) -> torch.Tensor:
        # In float64, because the sine's argument exceeds a thousand periods.
        low = self.low.double().abs() + self.smallest
        high = low + self.band.double().abs() + self.smallest
        passed = [2 * f * torch.sinc(self.slope * f * self.offset) for f in (low, high)]
        band_pass = passed[1] - passed[0]
        filters = band_pass / band_pass.amax(1, keepdim=True) * self.window
        return filters.to(self.low.dtype)


class SincConv(nn.Conv1d):
    """The filters and the strided convolution after them as one convolution by FFT, (batch, 1,
    sample) → (batch, width, frame) float32: one bank of `width` filters with n_taps + 2 taps at
    stride 3. Separately, they would cost ten times as much as the rest of the network."""

    def __init__(self, filters: SincFilters, width: int, padding: int):
        super().__init__(len(filters.low), width, STRIDE, stride=STRIDE)
        self.filters = filters
        self.n_zeros = padding

    def kernel(self) -> torch.Tensor:
        """The composed bank, (width, n_taps + 2)."""
        delayed = torch.einsum("oft,fn->ton", self.weight, self.filters())
        return sum(F.pad(taps, (t, STRIDE - 1 - t)) for t, taps in enumerate(delayed))

    def keep_kernel(self) -> None:
        """Compute the bank once, at the current weights, for inference only."""
        self.kernel = partial(torch.Tensor.detach, self.kernel())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting():  # FFTs need complex numbers, which ONNX lacks
            return F.conv1d(x, self.kernel()[:, None], self.bias, STRIDE, self.n_zeros)
        padded = F.pad(x.squeeze(1), (self.n_zeros, self.n_zeros))
        return strided_correlation(padded, self.kernel(), STRIDE) + self.bias[:, None]


def strided_correlation(x: torch.Tensor, kernel: torch.Tensor, stride: int) -> torch.Tensor:
    """`F.conv1d(x[:, None], kernel[:, None], stride=stride)` by FFT: x (batch, sample), kernel
    (channel, tap) → (batch, channel, frame). Samples and taps at stride · u + p form phase p; the
    strided correlation is the sum of the phases' plain correlations."""
    n_frames = (x.shape[1] - kernel.shape[1]) // stride + 1
    phases = [F.pad(rows, (0, -rows.shape[1] % stride)) for rows in (x, kernel)]
    x, kernel = (rows.unflatten(1, (-1, stride)).mT for rows in phases)  # (row, phase, sample)
    # Circular correlation wraps around only into outputs after the last frame.
    n_fft = next_fast_len(max(x.shape[2], n_frames + kernel.shape[2] - 1), real=True)
    x_spectrum = torch.fft.rfft(x, n_fft).unsqueeze(1)
    kernel_spectrum = torch.fft.rfft(kernel, n_fft).conj()
    product = sum(x_spectrum[:, :, p] * kernel_spectrum[:, p] for p in range(stride))
    return torch.fft.irfft(product, n_fft)[..., :n_frames]


class MusicSincNet(SampleCNNResSE):
    """Music-SincNet: waveform (batch, sample) in [-1, 1] → features (batch, 8 · `width`).

    `n_filters` band-pass filters of `n_taps` (odd) taps, then Sample-CNN +Res+SE. With
    `as_published`, the filters assume `sample_rate` (Hz) and padding keeps the length. With
    `as_coded`, they assume 22,050 Hz, their sine has no π, and the waveform is padded twice, which
    adds n_taps - 1 samples. `filter_rate` (Hz) overrides the rate that the filters assume. Raises
    `ValueError` for even `n_taps`.
    """

    def __init__(
        self,
        width: Count = 128,
        form: Form = "as_published",
        sample_rate: SampleRate = 16_000,
        n_filters: Count = 256,
        n_taps: int = 2501,
        filter_rate: SampleRate | None = None,
        generator: torch.Generator | None = None,
    ):
        if n_taps < 3 or n_taps % 2 == 0:
            raise ValueError(f"n_taps must be an odd number of at least 3, not {n_taps}.")
        coded = form == "as_coded"
        filter_rate = filter_rate or (CODED_RATE if coded else sample_rate)
        filters = SincFilters(n_filters, n_taps, filter_rate, form)
        padding = (n_taps - 1) * (2 if coded else 1) // 2
        super().__init__(width, generator, SincConv(filters, width, padding))

    @eager_float32
    def front_end(self, waveform: torch.Tensor) -> torch.Tensor:
        return super().front_end(waveform)
