"""Sample-CNN: a 1-D CNN that reads the waveform three samples at a time.

Lee, Park, Kim, Nam, "SampleCNN: end-to-end deep convolutional neural networks using very small
filters for music classification", Applied Sciences 8(1) 150, with the three-level features of
Lee & Cho 2021.
"""

import torch
from torch import nn
from torch.nn import functional as F

from jetatag.extractors.waveform import check_waveform, check_width

EPSILON, MOMENTUM = 1e-3, 0.01  # batch normalisation: Keras' defaults in torch's terms
BLOCK_WIDTHS = (1, 1, 2, 2, 2, 2, 2, 2, 4)  # channels of the nine blocks, in units of the width


class BatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation whose moving variance keeps the biased batch variance, as Keras' does.

    torch keeps the unbiased one, larger by n / (n - 1); the outputs in training are the same.
    """

    def __init__(self, n_channels: int):
        super().__init__(n_channels, eps=EPSILON, momentum=MOMENTUM)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        # With a momentum of 1 the two scratch tensors receive this batch's own statistics.
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        out = F.batch_norm(x, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
        n = x.numel() // self.num_features
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * ((n - 1) / n), self.momentum)
        return out


class BasicBlock(nn.Module):
    """Convolution of 3 samples, batch normalisation, ReLU, max pool of 3."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.conv = nn.Conv1d(n_in, n_out, 3, padding=1)
        self.norm = BatchNorm1d(n_out)
        self.pool = nn.MaxPool1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # ReLU is monotone: after the pool it gives the same values on a third of the samples.
        return self.pool(self.norm(self.conv(x))).relu_()


class SampleCNN(nn.Module):
    """Sample-CNN: waveform (batch, sample) in [-1, 1] → features (batch, 8 · `width`).

    Convolutions are He uniform, the dense layer is Glorot uniform, all drawn from `generator`
    (None: torch's global one), biases zero. Raises `ValueError`, when called, for a waveform of
    the wrong shape or under `min_samples`. Training mode needs two waveforms or more a batch.
    Source: Lee et al., Applied Sciences 8(1) 150; Lee & Cho 2021.
    """

    min_samples = 3**10  # the first convolution and nine poolings each divide by 3
    block = BasicBlock

    def __init__(self, width: int = 128, generator: torch.Generator | None = None):
        super().__init__()
        check_width(width)
        self.n_features = 8 * width
        self.conv = nn.Conv1d(1, width, 3, stride=3)
        self.norm = BatchNorm1d(width)
        widths = [width, *(width * times for times in BLOCK_WIDTHS)]
        self.blocks = nn.ModuleList(map(self.block, widths[:-1], widths[1:]))
        self.dense = nn.Linear(sum(widths[-3:]), self.n_features)
        self.dense_norm = BatchNorm1d(self.n_features)
        self._initialise(generator)

    def _initialise(self, generator: torch.Generator | None) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv1d | nn.Linear):
                of_three = getattr(layer, "kernel_size", None) == (3,)
                draw = nn.init.kaiming_uniform_ if of_three else nn.init.xavier_uniform_
                draw(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        check_waveform(waveform, self.min_samples, "sample_cnn")
        x = self.norm(self.conv(waveform.unsqueeze(1))).relu_()
        stages = []
        for block in self.blocks:
            x = block(x)
            stages.append(x.amax(2))
        return self.dense_norm(self.dense(torch.cat(stages[-3:], dim=1))).relu_()
