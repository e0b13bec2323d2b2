"""An extractor rearranged for inference on a CPU: the same function within rounding, in less time.

Normalisations are folded into their convolutions, and sinc filters are made, once instead of at
every call. Convolutions of Sample-CNN that are pooled by 3 become `PooledConv`, with five products
where there were nine.
"""

from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from jetatag.extractors.layers import ConvNorm
from jetatag.extractors.sample_cnn import BasicBlock
from jetatag.extractors.sinc import SincConv

FEWEST_CHANNELS = 128
"""With fewer, adding takes longer than the products that are saved."""
TILES = 256
"""Tiles at once, which a core's cache can hold."""


def quicken(extractor: nn.Module) -> nn.Module:
    """Rearrange an extractor in place, for inference alone; returns it."""
    for part in list(extractor.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, ConvNorm):
                setattr(part, name, child.folded())
    for sinc in (part for part in extractor.modules() if isinstance(part, SincConv)):
        sinc.kernel = partial(torch.Tensor.detach, sinc.kernel())
    for block in (part for part in extractor.modules() if isinstance(part, BasicBlock)):
        if block.conv.in_channels >= FEWEST_CHANNELS:
            block.conv, block.pool = PooledConv(block.conv), nn.Identity()
    return extractor.eval().requires_grad_(False)


def minimal_filtering() -> tuple[torch.Tensor, ...]:
    """Matrices of F(3, 3) (Winograd, 1980; Lavin & Gray, CVPR 2016), float32: three outputs of a
    filter g of three taps on five inputs d are outputs · ((taps · g) ⊙ (inputs · d)).

    Cook and Toom's, by the points 0, 1, −1, 2 and infinity.
    """
    points = np.array([0.0, 1.0, -1.0, 2.0])

    def powers(n: int) -> np.ndarray:
        return np.vstack([np.vander(points, n, increasing=True), np.eye(n)[-1]])

    matrices = powers(3).T, powers(3), np.linalg.inv(powers(5)).T
    return tuple(torch.from_numpy(matrix).float() for matrix in matrices)


class PooledConv(nn.Module):
    """A convolution of 3 samples that keeps the length, and the maximum of every 3 outputs.

    (batch, channel, sample) → (batch, channel, sample // 3). A tile of minimal filtering is just
    what one maximum is of, so that the full-length output is never written.
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
        rows = F.pad(x.mT, (0, 0, 1, 1)).contiguous()  # channels innermost, as the last one left it
        n_tiles, n_channels = x.shape[2] // 3, x.shape[1]
        out = x.new_empty(len(x), n_tiles, len(self.bias))
        for crop, pooled in zip(rows, out, strict=True):
            for first in range(0, n_tiles, TILES):
                n = min(TILES, n_tiles - first)
                tiles = crop[3 * first :].as_strided(
                    (5, n, n_channels), (n_channels, 3 * n_channels, 1)
                )
                seen = (self.inputs @ tiles.reshape(5, -1)).view(5, n, n_channels)
                three = self.outputs @ (seen @ self.weight).view(5, -1)
                torch.amax(three.view(3, n, -1), 0, out=pooled[first : first + n])
        return out.add_(self.bias).mT
