"""Convolutional encoder and decoder for signals, images and volumes of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from vaezoo import DataSpec
from vaezoo.nn.scaling import level_sizes, rescaling

from .strided import StridedConv2d, StridedConvTranspose2d

CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""The convolution by the number of spatial dimensions."""
_TRANSPOSE: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 3: nn.ConvTranspose3d}
_NORM: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
"""The layers by the number of spatial dimensions."""


class ResidualBlock(nn.Module):
    """x + f(x), f two convolutions of width 3 with batch norm before each.

    He et al. 2016, equation 1. [batch, channels, *sizes] -> the same shape, with `ndim` sizes.
    """

    def __init__(self, channels: int, ndim: int = 2) -> None:
        super().__init__()
        conv, norm = CONV[ndim], _NORM[ndim]
        self.body = nn.Sequential(
            norm(channels),
            nn.LeakyReLU(),
            conv(channels, channels, 3, padding=1),
            norm(channels),
            nn.LeakyReLU(),
            conv(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ConvDown(nn.Sequential):
    """Stride-2 convolutions of width 3 with batch norm and LeakyReLU.

    [batch, *data.shape] -> [batch, hidden[-1], *level_sizes(...)[-1]]. Each level halves each
    side, rounding up. Values in [0, 1] and counts are rescaled first, real ones are not.
    residual: a residual block after each level.
    """

    def __init__(self, data: DataSpec, hidden: Sequence[int], residual: bool = False) -> None:
        layers: list[nn.Module] = rescaling(data)
        for in_channels, channels in pairwise([data.channels, *hidden]):
            convolution = (
                StridedConv2d(in_channels, channels)
                if data.ndim == 2
                else CONV[data.ndim](in_channels, channels, 3, stride=2, padding=1, bias=False)
            )
            layers += _level(convolution, channels, data.ndim, residual)
        super().__init__(*layers)


class ConvUp(nn.Sequential):
    """The mirror of ConvDown: transposed convolutions, then a last convolution of width 3.

    [batch, hidden[-1], *level_sizes(...)[-1]] -> [batch, *shape], unbounded. Each level has the
    size that it has in ConvDown, odd sizes too. residual: a residual block after each level.
    """

    def __init__(self, shape: Sequence[int], hidden: Sequence[int], residual: bool = False) -> None:
        layers: list[nn.Module] = []
        ndim = len(shape) - 1
        sizes = pairwise(reversed(level_sizes(shape, len(hidden))))
        widths = pairwise([*reversed(hidden), hidden[0]])
        for (size, out_size), (in_channels, channels) in zip(sizes, widths, strict=True):
            # Width 3 and stride 2 transposed map n to 2n - 1, and with output padding 1 to 2n.
            extra = tuple(out - (2 * n - 1) for n, out in zip(size, out_size, strict=True))
            convolution = (
                StridedConvTranspose2d(in_channels, channels, (extra[0], extra[1]))
                if ndim == 2
                else _TRANSPOSE[ndim](in_channels, channels, 3, 2, 1, extra, bias=False)
            )
            layers += _level(convolution, channels, ndim, residual)
        super().__init__(*layers, CONV[ndim](hidden[0], shape[0], 3, padding=1))


class ConvEncoder(nn.Sequential):
    """ConvDown, then flat: [batch, *data.shape] -> [batch, out_features]."""

    def __init__(self, data: DataSpec, hidden: Sequence[int], residual: bool = False) -> None:
        super().__init__(*ConvDown(data, hidden, residual), nn.Flatten())
        self.out_features = hidden[-1] * math.prod(level_sizes(data.shape, len(hidden))[-1])


class ConvDecoder(nn.Sequential):
    """A linear layer, then ConvUp: [batch, in_features] -> [batch, *shape], unbounded."""

    def __init__(
        self, in_features: int, shape: Sequence[int], hidden: Sequence[int], residual: bool = False
    ) -> None:
        smallest = (hidden[-1], *level_sizes(shape, len(hidden))[-1])
        super().__init__(
            nn.Linear(in_features, math.prod(smallest)),
            nn.Unflatten(1, smallest),
            *ConvUp(shape, hidden, residual),
        )


def _level(convolution: nn.Module, channels: int, ndim: int, residual: bool) -> list[nn.Module]:
    """The layers of one level: convolution, batch norm, LeakyReLU, and the residual block."""
    level = nn.Sequential(convolution, _NORM[ndim](channels), nn.LeakyReLU(inplace=True))
    return [level, ResidualBlock(channels, ndim)] if residual else [level]
