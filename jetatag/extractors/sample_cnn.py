"""Sample-CNN: a 1-D CNN that reads the waveform three samples at a time, and its variants.

Lee, Park, Kim, Nam, "SampleCNN: end-to-end deep convolutional neural networks using very small
filters for music classification", Applied Sciences 8(1) 150; the variants with excitation (+SE),
residual blocks (+Res) and both are Kim, Lee, Nam, "Sample-level CNN architectures for music
auto-tagging using raw waveforms", ICASSP 2018. The three-level features are Lee & Cho 2021's.
"""

import torch
from torch import nn

from jetatag.extractors.layers import (
    BatchNorm1d,
    ConvNorm,
    check_waveform,
    check_width,
    conv_norm_1d,
)

BLOCK_WIDTHS = (1, 1, 2, 2, 2, 2, 2, 2, 4)  # channels of the nine blocks, in units of the width
EXCITATION_RATIO = 16
DROPOUT = 0.2


class Excitation(nn.Module):
    """Weigh every channel of (batch, channel, sample) by what the whole crop holds.

    Called squeeze-and-excitation, but its hidden layer is 16 times wider, as in the original.
    """

    def __init__(self, n_channels: int):
        super().__init__()
        self.widen = nn.Linear(n_channels, EXCITATION_RATIO * n_channels)
        self.narrow = nn.Linear(EXCITATION_RATIO * n_channels, n_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.narrow(self.widen(x.mean(2)).relu()).sigmoid()
        return x * weight.unsqueeze(2)


class BasicBlock(nn.Module):
    """Convolution of 3 samples, batch normalisation, ReLU, max pool of 3."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.conv = conv_norm_1d(n_in, n_out)
        self.pool = nn.MaxPool1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # ReLU is monotone: after the pool it gives the same values on a third of the samples.
        return self.pool(self.conv(x)).relu_()


class SEBlock(BasicBlock):
    """The basic block, its output excited."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__(n_in, n_out)
        self.excite = Excitation(n_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.excite(super().forward(x))


class ResBlock(nn.Module):
    """Two convolutions with dropout between, added to a shortcut; ReLU, max pool of 3.

    The shortcut is the input, through a convolution of one sample where the width changes.
    """

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.shortcut = conv_norm_1d(n_in, n_out, size=1) if n_in != n_out else nn.Identity()
        self.conv_1 = conv_norm_1d(n_in, n_out)
        self.dropout = nn.Dropout(DROPOUT)
        self.conv_2 = conv_norm_1d(n_out, n_out)
        self.pool = nn.MaxPool1d(3)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """What the block adds to its shortcut."""
        return self.conv_2(self.dropout(self.conv_1(x).relu_()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.branch(x) + self.shortcut(x)).relu_()


class ResSEBlock(ResBlock):
    """The residual block, its branch excited before the sum."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__(n_in, n_out)
        self.excite = Excitation(n_out)

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        return self.excite(super().branch(x))


class SampleCNN(nn.Module):
    """Sample-CNN: waveform (batch, sample) in [-1, 1] → features (batch, 8 · `width`).

    Convolutions are He uniform, shortcuts and dense layers Glorot uniform, all drawn from
    `generator` (None: torch's global one), biases zero. Raises `ValueError`, when called, for a
    waveform of the wrong shape or under `min_samples`. Training mode needs two waveforms or more
    a batch. Source: Lee et al., Applied Sciences 8(1) 150; Lee & Cho 2021.
    """

    name = "sample_cnn"
    min_samples = 3**10  # the first convolution and nine poolings each divide by 3
    min_batch = 2  # in training: the last normalisation sees one value a clip and feature
    block: type[nn.Module] = BasicBlock

    def __init__(self, width: int = 128, generator: torch.Generator | None = None):
        check_width(width)
        super().__init__()
        self._assemble(nn.Conv1d(1, width, 3, stride=3), width, generator)

    def _assemble(self, first: nn.Conv1d, width: int, generator: torch.Generator | None) -> None:
        self.n_features = 8 * width
        self.first = ConvNorm(first, BatchNorm1d(width))
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
        check_waveform(waveform, self)
        x = self.first(waveform.unsqueeze(1)).relu_()
        stages = []
        for block in self.blocks:
            x = block(x)
            stages.append(x.amax(2))
        return self.dense_norm(self.dense(torch.cat(stages[-3:], dim=1))).relu_()


class SampleCNNSE(SampleCNN):
    """Sample-CNN with excited blocks (Kim et al., ICASSP 2018)."""

    name, block = "sample_cnn_se", SEBlock


class SampleCNNRes(SampleCNN):
    """Sample-CNN with residual blocks (Kim et al., ICASSP 2018)."""

    name, block = "sample_cnn_res", ResBlock


class SampleCNNResSE(SampleCNN):
    """Sample-CNN with excited residual blocks (Kim et al., ICASSP 2018)."""

    name, block = "sample_cnn_res_se", ResSEBlock
