"""Minimal filtering for the tagger on a CPU without AVX-512: the same function up to rounding.

Convolutions that are pooled by 3 take five products instead of nine, with which one core tags a
quarter more clips per second. With AVX-512, torch's own convolutions are faster. Own code because
no library has it.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from jetatag.extractors.layers import fold, has_avx512
from jetatag.extractors.sample_cnn import BasicBlock

MIN_CHANNELS = 128  # with fewer, the additions take longer than the products saved
TILES = 256  # processed at once, so that they fit a core's cache


def optimise_for_inference(extractor: nn.Module) -> nn.Module:
    """Fold and restructure an extractor in place, for inference on this CPU only; returns it."""
    for part in list(fold(extractor).modules()):
        wide = isinstance(part, BasicBlock) and part.conv.in_channels >= MIN_CHANNELS
        if wide and not has_avx512():
            part.conv, part.pool = PooledConv(part.conv), nn.Identity()
    return extractor


def minimal_filtering() -> tuple[torch.Tensor, ...]:
    """Matrices of F(3, 3) (Winograd, 1980; Lavin & Gray, CVPR 2016), float32: three outputs of a
    filter g of three taps on five inputs d are outputs · ((taps · g) ⊙ (inputs · d)).

    By the Toom–Cook construction at the points 0, 1, −1, 2 and infinity.
    """
    points = np.array([0.0, 1.0, -1.0, 2.0])

    def powers(n: int) -> np.ndarray:
        return np.vstack([np.vander(points, n, increasing=True), np.eye(n)[-1]])

    matrices = powers(3).T, powers(3), np.linalg.inv(powers(5)).T
    return tuple(torch.from_numpy(matrix).float() for matrix in matrices)


class PooledConv(nn.Module):
    """A convolution of 3 samples that keeps the length, followed by a max pool of 3.

    (batch, channel, sample) → (batch, channel, sample // 3). The three outputs of a tile of minimal
    filtering are pooled together, so the full-length output is never stored.
    """

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        outputs, taps, inputs = minimal_filtering()
        self.register_buffer("outputs", outputs)
        self.register_buffer("inputs", inputs)
        weight = torch.einsum("kt,oct->kco", taps, conv.weight.detach())
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("bias", conv.bias.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = F.pad(x.mT, (0, 0, 1, 1)).contiguous()  # channels innermost
        n_tiles, n_channels = x.shape[2] // 3, x.shape[1]
        out = x.new_empty(len(x), n_tiles, len(self.bias))
        for crop, pooled in zip(rows, out, strict=True):
            for first in range(0, n_tiles, TILES):
                n = min(TILES, n_tiles - first)
                shape, strides = (5, n, n_channels), (n_channels, 3 * n_channels, 1)
                tiles = crop[3 * first :].as_strided(shape, strides)
                transformed = (self.inputs @ tiles.reshape(5, -1)).view(shape)
                three = self.outputs @ (transformed @ self.weight).view(5, -1)
                torch.amax(three.view(3, n, -1), 0, out=pooled[first : first + n])
        return out.add_(self.bias).mT
