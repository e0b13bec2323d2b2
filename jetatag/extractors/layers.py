"""Layers and input checks that the extractors share; batch normalisation follows Keras."""

import math
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

EPSILON, MOMENTUM = 1e-3, 0.01  # of batch normalisation: Keras' defaults in torch's terms
Form = Literal["as_published", "as_coded"]
SampleRate = Annotated[float, Field(ge=1_000)]  # Hz


def check_waveform(waveform: torch.Tensor, extractor: nn.Module) -> None:
    """Raise `ValueError` unless `waveform` is (batch, sample), long enough, of the right dtype."""
    name, dtype = type(extractor).__name__, next(extractor.parameters()).dtype
    if not isinstance(waveform, torch.Tensor) or waveform.ndim != 2 or waveform.dtype != dtype:
        got = f"{getattr(waveform, 'dtype', type(waveform))} of {getattr(waveform, 'shape', '')}"
        remedy = "mix down to mono, scale to [-1, 1] and give one row per crop"
        problem = f"{name} takes a {dtype} tensor of shape (batch, sample), not {got}"
        raise ValueError(f"{problem}: {remedy}.")
    samples = waveform.shape[1]
    if samples < extractor.min_samples:
        needs = f"{name} needs at least {extractor.min_samples:,} samples, not {samples:,}"
        raise ValueError(f"{needs}: take longer crops or pad them with silence.")


def eager_float32(method: Callable) -> Callable:
    """Decorate a method of a waveform so that it runs in float32 and is not compiled.

    bfloat16 has no FFT and too few digits for spectra, and torch's compiler does not support
    complex numbers. What follows is compiled once for all batch sizes.
    """

    @wraps(method)
    def in_float32(module: nn.Module, waveform: torch.Tensor) -> torch.Tensor:
        with torch.autocast(waveform.device.type, enabled=False):
            out = method(module, waveform)
        if compiler_is_loaded():
            torch._dynamo.maybe_mark_dynamic(out, 0)
        return out

    # `torch.compiler.disable` would load the compiler now; this loads it at the first call.
    not_compiled = torch._disable_dynamo(in_float32)

    @wraps(method)
    def called(module: nn.Module, waveform: torch.Tensor) -> torch.Tensor:
        run = not_compiled if compiler_is_loaded() else in_float32
        return run(module, waveform)

    return called


def compiler_is_loaded() -> bool:
    """Whether something may be compiled; loading torch's compiler takes as long as torch itself."""
    return "torch._dynamo" in sys.modules


class LogMel(nn.Module):
    """Mel spectrogram in dB: (…, sample) → (…, band, frame), frames centred on the samples.

    `n_bands` triangles from 0 to `f_max` Hz on the HTK scale weight the power spectrum, floored at
    -100 dB: torchaudio's `MelSpectrogram` and `AmplitudeToDB` to the last bit, without torchaudio.
    """

    def __init__(self, rate: float, n_fft: int, hop_length: int, n_bands: int, f_max: float):
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        bins = torch.linspace(0, rate // 2, n_fft // 2 + 1)
        mels = torch.linspace(0, 2595 * math.log10(1 + f_max / 700), n_bands + 2)
        edges = 700 * (10 ** (mels / 2595) - 1)
        slopes = edges - bins[:, None]
        falling, rising = -slopes[:, :-2] / edges[:-1].diff(), slopes[:, 2:] / edges[1:].diff()
        self.register_buffer("filters", falling.minimum(rising).clamp(min=0), persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        size = self.n_fft, self.hop_length
        spectrum = torch.stft(waveform, *size, window=self.window, return_complex=True)
        mel = (spectrum.abs().pow(2).mT @ self.filters).mT
        return 10 * mel.clamp(min=1e-10).log10()


def last_maxima(blocks: Iterable[nn.Module], x: torch.Tensor) -> torch.Tensor:
    """The features of Lee & Cho 2021: each channel's maximum after the last three of `blocks`."""
    *earlier, third_last, second_last, last = blocks
    for block in earlier:
        x = block(x)
    maxima = []
    for block in (third_last, second_last, last):
        x = block(x)
        maxima.append(x.amax(tuple(range(2, x.ndim))))
    return torch.cat(maxima, dim=1)


class _KerasNorm:
    """Batch normalisation with Keras' constants and, if `biased`, the moving variance of its 1-D
    layers, which average the biased variance where torch averages the unbiased one."""

    biased, synchronised = False, False

    def __init__(self, n_channels: int, eps: float = EPSILON, momentum: float = MOMENTUM):
        super().__init__(n_channels, eps, momentum)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.synchronised:
            return self._over_processes(x)
        if not (self.training and self.biased):
            return super().forward(x)
        # With a momentum of 1 the two scratch tensors receive this batch's own statistics.
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        out = F.batch_norm(x, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
        n = x.numel() // self.num_features
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * ((n - 1) / n), self.momentum)
        return out

    def _over_processes(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (batch, channel, …) by the statistics of all processes. Own code because
        torch's `SyncBatchNorm` needs a GPU and has no biased variance."""
        from torch.distributed.nn.functional import all_reduce

        axes, shape = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
        own = x.float()
        n = all_reduce(torch.full((), own.numel() / own.shape[1], device=x.device))
        mean = all_reduce(own.sum(axes)) / n
        centred = own - mean.view(shape)
        variance = all_reduce(centred.square().sum(axes)) / n  # a sum of squares is less precise
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            average = variance if self.biased else variance * n / (n - 1)
            self.running_var.lerp_(average, self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


class BatchNorm1d(_KerasNorm, nn.BatchNorm1d):
    """As in Keras' 1-D layers."""

    biased = True


class BatchNorm2d(_KerasNorm, nn.BatchNorm2d):
    """As in Keras' 2-D layers."""


def synchronise(extractor: nn.Module, n_processes: int) -> None:
    """Make batch normalisation in training use the crops of all processes; raises `ValueError` for
    layers of another class in a custom extractor."""
    for layer in extractor.modules():
        if isinstance(layer, _KerasNorm):
            layer.synchronised = n_processes > 1
        elif isinstance(layer, _BatchNorm):
            name = f"{type(layer).__module__}.{type(layer).__name__}"
            needs = "sync_batch_norm supports the layers of jetatag.extractors.layers"
            raise ValueError(f"{needs}, not {name}: use those, or set it to false.")


class ConvNorm(nn.Module):
    """A convolution and its batch normalisation, which inference folds into the kernel and bias to
    save a pass over the activations. The convolution's bias does not learn."""

    def __init__(self, conv: nn.Conv1d | nn.Conv2d):
        super().__init__()
        norm = BatchNorm1d if isinstance(conv, nn.Conv1d) else BatchNorm2d
        self.conv, self.norm = conv, norm(conv.out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            # Normalisation cancels a preceding bias, so its gradient is only rounding error, and
            # computing it would take a pass over the activations.
            fixed = {"bias": self.conv.bias.detach()}
            return self.norm(functional_call(self.conv, fixed, x))
        return functional_call(self.conv, self._folded_weights(), x)

    def _folded_weights(self) -> dict[str, torch.Tensor]:
        scale = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
        return {
            "weight": self.conv.weight * scale.reshape(-1, *[1] * (self.conv.weight.ndim - 1)),
            "bias": (self.conv.bias - self.norm.running_mean) * scale + self.norm.bias,
        }

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """The convolution with the normalisation folded in, in place of this module."""
        for name, values in self._folded_weights().items():
            getattr(self.conv, name).copy_(values)
        return self.conv


class ConvBlock(nn.Module):
    """Convolution (`conv`) with kernel size 3, batch normalisation, ReLU, `pool`. A layer that
    weights the channels may replace `excite`."""

    def __init__(self, conv: type, n_in: int, n_out: int, pool: nn.Module):
        super().__init__()
        self.conv, self.pool = ConvNorm(conv(n_in, n_out, 3, padding=1)), pool
        self.excite = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # ReLU is monotone: after the pool it gives the same result on fewer values.
        return self.excite(self.pool(self.conv(x)).relu_())


class ResidualBlock(nn.Module):
    """Two such convolutions with dropout between, added to a shortcut; ReLU, `pool`. The shortcut
    is the input, with a convolution of kernel size 1 if the width changes."""

    def __init__(self, conv: type, n_in: int, n_out: int, pool: nn.Module, dropout: float = 0):
        super().__init__()
        self.shortcut = ConvNorm(conv(n_in, n_out, 1)) if n_in != n_out else nn.Identity()
        self.conv_1 = ConvNorm(conv(n_in, n_out, 3, padding=1))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv_2 = ConvNorm(conv(n_out, n_out, 3, padding=1))
        self.pool, self.excite = pool, nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.excite(self.conv_2(self.dropout(self.conv_1(x).relu_())))
        return self.pool(residual.add_(self.shortcut(x))).relu_()


def fold(extractor: nn.Module, onednn: bool = False) -> nn.Module:
    """Compute folded weights and sinc filters once, in place, for inference only, and return the
    extractor; its features stay the same to the last bit. With `onednn`, for inference on a CPU in
    float32, networks that can keep oneDNN's memory layout do so: the same up to rounding."""
    for path, part in list(extractor.named_modules()):
        if isinstance(part, ConvNorm):
            extractor.set_submodule(path, part.folded())
        elif hasattr(part, "keep_kernel"):  # after the fold of the module that holds it
            part.keep_kernel()
    if onednn and torch.backends.mkldnn.is_available() and hasattr(extractor, "keep_onednn_layout"):
        extractor.keep_onednn_layout()
    return extractor.eval().requires_grad_(False)


def initialise(extractor: nn.Module, generator: torch.Generator | None) -> None:
    """The original's initial weights, drawn from `generator` (None: torch's global one): Glorot
    uniform, He uniform for 1-D convolutions of 3 samples, zero biases."""
    for layer in extractor.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            he = isinstance(layer, nn.Conv1d) and layer.kernel_size == (3,)
            draw = nn.init.kaiming_uniform_ if he else nn.init.xavier_uniform_
            draw(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
