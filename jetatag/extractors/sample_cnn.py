"""Sample-CNN: a 1-D CNN on the waveform, three samples at a time, and its variants.

Lee, Park, Kim, Nam, "SampleCNN: end-to-end deep convolutional neural networks using very small
filters for music classification", Applied Sciences 8(1) 150; the variants +SE, +Res and +Res+SE
are Kim, Lee, Nam, "Sample-level CNN architectures for music auto-tagging using raw waveforms",
ICASSP 2018.
"""

from functools import partial
from itertools import pairwise

import torch
from torch import nn

from jetatag.extractors import layers
from jetatag.files import Count

BLOCK_WIDTHS = (1, 1, 2, 2, 2, 2, 2, 2, 4)  # channels of the nine blocks, in units of the width
EXCITATION_RATIO = 16
DROPOUT = 0.2


class Excitation(nn.Module):
    """Weight every channel of (batch, channel, sample) by a function of all channels' means:
    squeeze and excitation, but with a hidden layer 16 times wider, as in the original."""

    def __init__(self, n_channels: int):
        super().__init__()
        self.widen = nn.Linear(n_channels, EXCITATION_RATIO * n_channels)
        self.narrow = nn.Linear(EXCITATION_RATIO * n_channels, n_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.narrow(self.widen(x.mean(2)).relu()).sigmoid()
        return x * weight.unsqueeze(2)


class OneDNNConv(nn.Module):
    """`conv` for inference in oneDNN's memory layout, (batch, channel, 1, sample)."""

    def __init__(self, conv: nn.Conv1d):
        super().__init__()
        self.stride, self.padding = (1, *conv.stride), (0, *conv.padding)
        self.weight = conv.weight.detach().unsqueeze(2).to_mkldnn()
        self.bias = conv.bias.detach().to_mkldnn()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if x.is_mkldnn else x.unsqueeze(2).to_mkldnn()
        return torch.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class FromOneDNN(nn.Module):
    """Back to torch's layout, (batch, channel, sample)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.to_dense().squeeze(2)


class SampleCNN(nn.Module):
    """Sample-CNN (Lee et al., Applied Sciences 8(1) 150): waveform (batch, sample) in [-1, 1] →
    features (batch, 8 · `width`). `first` replaces the first convolution."""

    min_samples = paper_crop = 3**10  # the first convolution and nine poolings divide by 3 each
    min_batch = 2  # the last batch normalisation sees one value a waveform and feature
    residual = excited = False

    def __init__(
        self,
        width: Count = 128,
        generator: torch.Generator | None = None,
        first: nn.Module | None = None,
    ):
        super().__init__()
        self.n_features = 8 * width
        self.first = layers.ConvNorm(first or nn.Conv1d(1, width, 3, stride=3))
        widths = [width, *(width * times for times in BLOCK_WIDTHS)]
        residual = partial(layers.ResidualBlock, dropout=DROPOUT)
        block = residual if self.residual else layers.ConvBlock
        self.blocks = nn.ModuleList()
        for n_in, n_out in pairwise(widths):
            self.blocks.append(block(nn.Conv1d, n_in, n_out, nn.MaxPool1d(3)))
            if self.excited:
                self.blocks[-1].excite = Excitation(n_out)
        self.dense = nn.Linear(sum(widths[-3:]), self.n_features)
        self.dense_norm = layers.BatchNorm1d(self.n_features)
        layers.initialise(self, generator)

    def front_end(self, waveform: torch.Tensor) -> torch.Tensor:
        """The first layer's output, (batch, `width`, sample)."""
        return self.first(waveform.unsqueeze(1)).relu_()

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        layers.check_waveform(waveform, self)
        maxima = layers.last_maxima(self.blocks, self.front_end(waveform))
        return self.dense_norm(self.dense(maxima)).relu_()

    def keep_onednn_layout(self) -> None:
        """Keep the activations of all but the last three blocks of a folded network in oneDNN's
        layout, for inference on a CPU only: to copy them to that layout and back takes a fifth of
        the time. The network can then be neither copied nor pickled."""
        if self.excited:
            return  # oneDNN has no operation for the excitation
        earlier, last_three = self.blocks[:-3], self.blocks[-3:]
        for block in (self, *earlier):
            for name, layer in list(block.named_children()):
                if isinstance(layer, nn.Conv1d):
                    block.add_module(name, OneDNNConv(layer))
                elif isinstance(layer, nn.MaxPool1d):
                    block.add_module(name, nn.MaxPool2d((1, layer.kernel_size)))
        self.blocks = nn.ModuleList([nn.Sequential(*earlier, FromOneDNN()), *last_three])


class SampleCNNSE(SampleCNN):
    """Sample-CNN +SE (Kim et al., ICASSP 2018)."""

    excited = True


class SampleCNNRes(SampleCNN):
    """Sample-CNN +Res (Kim et al., ICASSP 2018)."""

    residual = True


class SampleCNNResSE(SampleCNN):
    """Sample-CNN +Res+SE (Kim et al., ICASSP 2018)."""

    residual = excited = True
