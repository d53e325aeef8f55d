"""The networks `conv` and `resnet`: strided convolutions, with residual blocks if wanted."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import nn

from vaezoo import DataSpec, Network
from vaezoo.nn.scaling import level_sizes

from .conv import CONV, ConvDecoder, ConvDown, ConvEncoder, ConvUp, ResidualBlock
from .options import MAX_GRID, ConvOptions


class ConvNetwork(Network):
    """Stride-2 convolutions of width 3 with batch norm and LeakyReLU; the decoder is the mirror.

    For a vector all features of the last level go through a linear layer. For a grid, a
    convolution of width 1 chooses its channels (van den Oord et al. 2017, section 4.1).
    """

    residual: ClassVar[bool] = False
    options: ConvOptions

    def __init__(self, options: ConvOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        self.hidden = options.hidden or (32, 64, 128, 256, 512)
        levels = max(1, math.ceil(math.log2(max(data.shape[1:]) / MAX_GRID)))
        self.grid_hidden = options.hidden or tuple(32 * 2**level for level in range(levels))
        self.latent_grid = level_sizes(data.shape, len(self.grid_hidden))[-1]

    def encoder(self, out_features: int) -> nn.Module:
        body = ConvEncoder(self.data, self.hidden, self.residual)
        return nn.Sequential(body, nn.Linear(body.out_features, out_features))

    def decoder(self, in_features: int, out_shape: tuple[int, ...]) -> nn.Module:
        return ConvDecoder(in_features, out_shape, self.hidden, self.residual)

    def grid_encoder(self, channels: int) -> nn.Module:
        return nn.Sequential(
            ConvDown(self.data, self.grid_hidden, self.residual),
            CONV[self.data.ndim](self.grid_hidden[-1], channels, 1),
        )

    def grid_decoder(self, channels: int, out_shape: tuple[int, ...]) -> nn.Module:
        width = self.grid_hidden[-1]
        return nn.Sequential(
            CONV[self.data.ndim](channels, width, 3, padding=1),
            ResidualBlock(width, self.data.ndim) if self.residual else nn.LeakyReLU(),
            ConvUp(out_shape, self.grid_hidden, self.residual),
        )


class ResNetwork(ConvNetwork):
    """ConvNetwork with a residual block after each level (He et al. 2016)."""

    residual = True
