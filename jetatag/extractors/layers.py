"""What the extractors have in common: the check at their door and their repeated layers."""

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

EPSILON, MOMENTUM = 1e-3, 0.01  # batch normalisation: Keras' defaults in torch's terms


def check_width(width: int) -> None:
    """Refuse a number of channels that is not a whole number of at least 1 (`ValueError`)."""
    if not isinstance(width, int) or width < 1:
        raise ValueError(
            f"The width of an extractor is a whole number of at least 1, not {width!r}: "
            "the paper's is 128."
        )


def check_sample_rate(sample_rate: float) -> None:
    """Refuse a sample rate in Hz under 1,000 (`ValueError`): there is no music in it."""
    if not isinstance(sample_rate, int | float) or not sample_rate >= 1_000:
        raise ValueError(
            f"A sample rate is a number of at least 1,000 Hz, not {sample_rate!r}: the paper's "
            "is 16,000."
        )


def check_waveform(waveform: torch.Tensor, extractor: nn.Module) -> None:
    """Refuse anything but a (batch, sample) tensor of the extractor's dtype, long enough for it.

    In training the batch must have `extractor.min_batch` rows, too. Raises `ValueError` with one
    sentence that names the extractor, what it got and the remedy.
    """
    dtype = next(extractor.parameters()).dtype
    if not isinstance(waveform, torch.Tensor) or waveform.ndim != 2 or waveform.dtype != dtype:
        got = f"{getattr(waveform, 'dtype', type(waveform))} of {getattr(waveform, 'shape', '')}"
        raise ValueError(
            f"{extractor.name} takes a {dtype} tensor of shape (batch, sample), not {got}: mix "
            "down to mono, scale to [-1, 1] and give one row per crop."
        )
    if waveform.shape[1] < extractor.min_samples:
        raise ValueError(
            f"{extractor.name} needs at least {extractor.min_samples:,} samples, not "
            f"{waveform.shape[1]:,}: take longer crops or pad them with silence."
        )
    if waveform.shape[0] < (extractor.min_batch if extractor.training else 1):
        raise ValueError(
            f"{extractor.name} needs {extractor.min_batch} waveforms or more in training and one "
            f"in inference, not {waveform.shape[0]}: batch normalisation compares them."
        )


class BatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation whose moving variance keeps the biased batch variance, as Keras' does.

    torch keeps the unbiased one, larger by n / (n - 1); the outputs in training are the same.
    """

    synchronised = False

    def __init__(self, n_channels: int):
        super().__init__(n_channels, eps=EPSILON, momentum=MOMENTUM)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        if self.synchronised:
            return _over_processes(self, x, biased=True)
        # With a momentum of 1 the two scratch tensors receive this batch's own statistics.
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        out = F.batch_norm(x, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
        n = x.numel() // self.num_features
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * ((n - 1) / n), self.momentum)
        return out


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation whose moving variance keeps the unbiased one, as Keras' 2-D layers do."""

    synchronised = False

    def __init__(self, n_channels: int):
        super().__init__(n_channels, eps=EPSILON, momentum=MOMENTUM)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not (self.training and self.synchronised):
            return super().forward(x)
        self.num_batches_tracked += 1
        return _over_processes(self, x, biased=False)


def synchronise(extractor: nn.Module, n_processes: int) -> None:
    """Let the batch normalisations of `extractor` take in the rows of all processes in training,
    so that several with a part of the batch each learn as one with the whole of it.

    Raises `ValueError` for layers that cannot, in an extractor of one's own.
    """
    for layer in extractor.modules():
        if isinstance(layer, BatchNorm1d | BatchNorm2d):
            layer.synchronised = n_processes > 1
        elif isinstance(layer, _BatchNorm):
            raise ValueError(
                f"sync_batch_norm knows the normalisations of jetatag.extractors.layers, not "
                f"{type(layer).__module__}.{type(layer).__name__}: use those, or set it to false."
            )


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, own: torch.Tensor) -> torch.Tensor:
        total = own.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return _Sum.forward(ctx, gradient)


def _over_processes(norm: BatchNorm1d | BatchNorm2d, x: torch.Tensor, biased: bool) -> torch.Tensor:
    """Batch normalisation of (batch, channel, …) by the statistics of all processes' rows.

    torch's `SyncBatchNorm` wants a GPU and knows no biased variance. The mean comes first and
    the variance about it after: one pass of sums and squares would lose digits.
    """
    axes, shape = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
    own = x.float()
    n = _Sum.apply(torch.tensor(own.numel() / own.shape[1], device=x.device))
    mean = _Sum.apply(own.sum(axes)) / n
    centred = own - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(axes)) / n
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        kept = variance if biased else variance * n / (n - 1)
        norm.running_var.lerp_(kept, norm.momentum)
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return (centred * scale.view(shape) + norm.bias.view(shape)).to(x.dtype)


class ConvNorm(nn.Module):
    """A convolution and its batch normalisation; in inference both are one convolution.

    There the normalisation is a fixed scale and offset a channel, which move into the kernel and
    the bias: one pass over the activations less.
    """

    def __init__(self, conv: nn.Module, norm: nn.Module):
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return self.norm(self.conv(x))
        return functional_call(self.conv, self._folded(), x)

    def _folded(self) -> dict[str, torch.Tensor]:
        scale = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
        return {
            "weight": self.conv.weight * scale.reshape(-1, *[1] * (self.conv.weight.ndim - 1)),
            "bias": (self.conv.bias - self.norm.running_mean) * scale + self.norm.bias,
        }

    def folded(self) -> nn.Module:
        """The one convolution, at the present weights; this module is spent."""
        with torch.no_grad():
            for name, values in self._folded().items():
                getattr(self.conv, name).copy_(values)
        return self.conv


def conv_norm_1d(n_in: int, n_out: int, size: int = 3) -> ConvNorm:
    """A 1-D convolution over `size` samples that keeps the length, and its normalisation."""
    return ConvNorm(nn.Conv1d(n_in, n_out, size, padding=size // 2), BatchNorm1d(n_out))


def conv_norm_2d(n_in: int, n_out: int) -> ConvNorm:
    """A 3×3 convolution that keeps the size, and its normalisation."""
    return ConvNorm(nn.Conv2d(n_in, n_out, 3, padding=1), BatchNorm2d(n_out))
