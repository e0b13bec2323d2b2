"""Short-chunk CNN: a mel spectrogram processed by seven small 2-D blocks, plain or residual.

Won, Ferraro, Bogdanov, Serra, "Evaluation of CNN-based automatic music tagging models", SMC 2020.
Modules are named as in the authors' code (sota-music-tagging-models), so that its checkpoints load.
"""

from functools import partial
from itertools import pairwise

import torch
from torch import nn

from jetatag.extractors import layers
from jetatag.files import Count

N_FFT, HOP_LENGTH, N_BANDS = 512, 256, 128  # the first two in samples
batch_norm = partial(layers.BatchNorm2d, eps=1e-5, momentum=0.1)  # torch's defaults, as published
WIDTHS = (1, 1, 2, 2, 2, 2, 4)  # channels of the seven blocks, in units of the width


class ConvBlock(nn.Module):
    """3×3 convolution, batch normalisation, ReLU, max pool of 2."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.bn = batch_norm(n_out)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # ReLU is monotone: after the pool it gives the same result on fewer values.
        return self.pool(self.bn(self.conv(x))).relu_()


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, added to a shortcut convolution; both branches have stride 2; ReLU."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.conv_1 = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1)
        self.bn_1 = batch_norm(n_out)
        self.conv_2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.bn_2 = batch_norm(n_out)
        self.conv_3 = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1)
        self.bn_3 = batch_norm(n_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.bn_2(self.conv_2(self.bn_1(self.conv_1(x)).relu_()))
        return residual.add_(self.bn_3(self.conv_3(x))).relu_()


class ShortChunkCNN(nn.Module):
    """Short-chunk CNN: waveform (batch, sample) in [-1, 1] → features (batch, 8 · `width`).

    The second half of the features is the input of the published head. `sample_rate` (Hz) places
    the mel bands. Weights are torch's default, drawn from `generator` (None: torch's global one).
    Public checkpoints load with `strict=False`, except for their head and mel buffers.
    """

    min_samples = 127 * HOP_LENGTH  # 128 frames, which seven poolings halve
    block: type[nn.Module] = ConvBlock

    def __init__(
        self,
        width: Count = 128,
        sample_rate: layers.SampleRate = 16_000,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.n_features = 8 * width
        highest = min(8_000, sample_rate / 2)  # Hz; the lowest band has no bin, as published
        self.mel_db = layers.LogMel(sample_rate, N_FFT, HOP_LENGTH, N_BANDS, highest)
        self.spec_bn = batch_norm(1)
        widths = [1, *(times * width for times in WIDTHS)]
        for number, pair in enumerate(pairwise(widths), start=1):
            self.add_module(f"layer{number}", self.block(*pair))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                limit = layer.weight[0].numel() ** -0.5
                nn.init.uniform_(layer.weight, -limit, limit, generator=generator)
                nn.init.uniform_(layer.bias, -limit, limit, generator=generator)
        self.to(memory_format=torch.channels_last)  # training on a CPU 1.1 to 1.6 times as fast

    @layers.eager_float32
    def front_end(self, waveform: torch.Tensor) -> torch.Tensor:
        """Mel spectrogram in dB, (batch, 1, band, frame), one frame every 256 samples."""
        return self.mel_db(waveform).unsqueeze(1)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        layers.check_waveform(waveform, self)
        blocks = [block for name, block in self.named_children() if name.startswith("layer")]
        return layers.last_maxima(blocks, self.spec_bn(self.front_end(waveform)))


class ShortChunkCNNRes(ShortChunkCNN):
    """Short-chunk CNN with residual blocks; training needs two crops or more."""

    block = ResidualBlock
    min_batch = 2  # below 129 frames the last normalisation sees one value a crop
    min_samples = N_FFT // 2 + 1  # the shortest with edges to reflect: strides of 2 round up
