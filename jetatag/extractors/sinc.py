"""Music-SincNet: learned band-pass filters in front of Sample-CNN +Res+SE.

Ravanelli & Bengio, "Speaker recognition from raw waveform with SincNet", SLT 2018, in the form of
Lee & Cho 2021: 256 filters of 2501 taps, initially spaced evenly in mel.
"""

import math

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import nn
from torch.nn import functional as F

from jetatag.extractors.layers import check_sample_rate, check_width
from jetatag.extractors.sample_cnn import SampleCNNResSE
from jetatag.files import check_known

FORMS = ("as_published", "as_coded")
CODED_RATE = 22_050  # Hz: the code's filters suppose it although its audio has 16,000
LOWEST_MEL = 80.0
FIRST_LOW_EDGE_HZ, LAST_MARGIN_HZ = 30.0, 100.0
SMALLEST_EDGE_HZ = SMALLEST_BAND_HZ = 50.0
STRIDE = 3  # samples


def band_edges(n_filters: int, sample_rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Initial low and high edge of every band, (filter,) float64 in Hz each.

    The bands' centres lie evenly in mel from 80 mel to half of `sample_rate` (Hz); each band
    reaches from the centre before its own to the one behind (Lee & Cho's code).
    """
    highest_mel = 2595 * math.log10(1 + sample_rate / 2 / 700)
    centres = 700 * (10 ** (np.linspace(LOWEST_MEL, highest_mel, n_filters) / 2595) - 1)
    low, high = np.roll(centres, 1), np.roll(centres, -1)
    low[0], high[-1] = FIRST_LOW_EDGE_HZ, sample_rate / 2 - LAST_MARGIN_HZ
    return low, high


class SincFilters(nn.Module):
    """A bank of band-pass filters with learned edges, called without input: (filter, tap).

    Each is the difference of two ideal low-passes, 2f · sin(2πfn) / (2πfn), scaled by its maximum
    and shortened by a Hamming window. `as_coded` leaves the π out of the sine. The edges are
    kept in cycles a sample: low = |b1| + 50 Hz, high = low + |band| + 50 Hz.
    """

    def __init__(self, n_filters: int, n_taps: int, filter_rate: float, form: str):
        super().__init__()
        low, high = band_edges(n_filters, filter_rate)
        self.low = nn.Parameter(torch.tensor(low / filter_rate).float()[:, None])
        self.band = nn.Parameter(torch.tensor((high - low) / filter_rate).float()[:, None])
        self.smallest_edge = SMALLEST_EDGE_HZ / filter_rate
        self.smallest_band = SMALLEST_BAND_HZ / filter_rate
        self.slope = 2.0 if form == "as_published" else 2.0 / math.pi  # torch.sinc(x): sin(πx)/πx
        tap = torch.arange(n_taps, dtype=torch.float64)
        window = 0.54 - 0.46 * torch.cos(2 * math.pi * tap / n_taps)
        self.register_buffer("offset", tap - n_taps // 2, persistent=False)
        self.register_buffer("window", window, persistent=False)

    def low_pass(self, edge: torch.Tensor) -> torch.Tensor:
        """Ideal low-pass up to `edge` (filter, 1) in cycles a sample, (filter, tap)."""
        return 2 * edge * torch.sinc(self.slope * edge * self.offset)

    def forward(self) -> torch.Tensor:
        # In float64: the sine's argument goes through up to a thousand turns.
        low = self.low.double().abs() + self.smallest_edge
        high = low + self.band.double().abs() + self.smallest_band
        band_pass = self.low_pass(high) - self.low_pass(low)
        filters = band_pass / band_pass.amax(1, keepdim=True) * self.window
        return filters.to(self.low.dtype)


class SincConv(nn.Conv1d):
    """The filters and the strided convolution behind them as one FFT convolution.

    (batch, 1, sample) → (batch, width, frame) float32. Both are linear with nothing between
    them, so together they are one bank of `width` filters of n_taps + 2 taps at stride 3, exact
    up to rounding; done one after the other they would cost ten times all the rest.
    """

    def __init__(self, filters: SincFilters, width: int, padding: int):
        super().__init__(len(filters.low), width, STRIDE, stride=STRIDE)
        self.filters = filters
        self.n_zeros = padding

    def kernel(self) -> torch.Tensor:
        """The composed bank, (width, n_taps + 2)."""
        delayed = torch.einsum("oft,fn->ton", self.weight, self.filters())
        return sum(F.pad(taps, (t, STRIDE - 1 - t)) for t, taps in enumerate(delayed))

    @torch.no_grad()
    def as_convolution(self) -> nn.Conv1d:
        """The same at the present weights as one plain convolution, for what knows no FFT."""
        kernel = self.kernel()
        conv = nn.Conv1d(1, *kernel.shape, stride=STRIDE, padding=self.n_zeros)
        conv.weight.copy_(kernel[:, None])
        conv.bias.copy_(self.bias)
        return conv.requires_grad_(False)

    @torch.compiler.disable  # complex numbers are not for its code generator
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Autocast's bfloat16 would keep two to three digits, and there is no FFT in it.
        with torch.autocast(x.device.type, enabled=False):
            padded = F.pad(x.squeeze(1), (self.n_zeros, self.n_zeros))
            return strided_correlation(padded, self.kernel(), STRIDE) + self.bias[:, None]


def strided_correlation(x: torch.Tensor, kernel: torch.Tensor, stride: int) -> torch.Tensor:
    """What `F.conv1d(x[:, None], kernel[:, None], stride=stride)` gives, by FFT.

    x (batch, sample), kernel (channel, tap) → (batch, channel, frame). Sample and tap number
    stride · u + p are phase p of a signal at a `stride`-th of the rate; there the strided
    correlation is a plain one, summed over the phases: the outputs that striding would drop are
    never computed.
    """
    n_frames = (x.shape[1] - kernel.shape[1]) // stride + 1
    x_phases, kernel_phases = polyphase(x, stride), polyphase(kernel, stride)
    # Circular correlation wraps round into the outputs behind the last frame only.
    n_fft = next_fast_len(max(x_phases.shape[2], n_frames + kernel_phases.shape[2] - 1), real=True)
    x_spectrum = torch.fft.rfft(x_phases, n_fft).unsqueeze(1)
    kernel_spectrum = torch.fft.rfft(kernel_phases, n_fft).conj()
    product = sum(x_spectrum[:, :, p] * kernel_spectrum[:, p] for p in range(stride))
    return torch.fft.irfft(product, n_fft)[..., :n_frames]


def polyphase(x: torch.Tensor, stride: int) -> torch.Tensor:
    """(row, sample) → (row, phase, sample of the phase), with zeros at the end where needed."""
    return F.pad(x, (0, -x.shape[1] % stride)).unflatten(1, (-1, stride)).mT


class MusicSincNet(SampleCNNResSE):
    """Music-SincNet: waveform (batch, sample) in [-1, 1] → features (batch, 8 · `width`).

    `n_filters` band-pass filters of `n_taps` (odd) taps, then Sample-CNN +Res+SE. As published,
    the filters suppose `sample_rate` (Hz) and zeros keep the waveform's length; `as_coded` they
    suppose 22,050 Hz, their sine has no π, and the waveform is padded twice, which adds
    n_taps - 1 samples. `filter_rate` (Hz) overrides the rate that the filters suppose.
    Weights are drawn as in `SampleCNN`. Raises `ValueError` for an unknown `form`, an even
    `n_taps`, a rate that is none and, when called, for a waveform of the wrong shape or length.
    Source: Ravanelli & Bengio, SLT 2018; Lee & Cho 2021.
    """

    name = "music_sincnet"

    def __init__(
        self,
        width: int = 128,
        form: str = "as_published",
        sample_rate: int = 16_000,
        n_filters: int = 256,
        n_taps: int = 2501,
        filter_rate: int | None = None,
        generator: torch.Generator | None = None,
    ):
        check_width(width)
        check_known([form], FORMS, "form of music_sincnet")
        if not (isinstance(n_taps, int) and n_taps > 2 and n_taps % 2):
            raise ValueError(f"music_sincnet needs an odd number of taps from 3 up, not {n_taps}.")
        if not (isinstance(n_filters, int) and n_filters > 0):
            raise ValueError(f"music_sincnet needs at least 1 filter, not {n_filters}.")
        nn.Module.__init__(self)
        coded = form == "as_coded"
        if filter_rate is None:
            filter_rate = CODED_RATE if coded else sample_rate
        check_sample_rate(filter_rate)
        filters = SincFilters(n_filters, n_taps, filter_rate, form)
        padding = (n_taps - 1) * (2 if coded else 1) // 2
        self._assemble(SincConv(filters, width, padding), width, generator)
