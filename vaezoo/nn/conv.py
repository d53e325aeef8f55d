"""Convolutional encoder and decoder for images of any size, with residual blocks if wanted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from vaezoo.nn.strided import StridedConv2d, StridedConvTranspose2d


class ResidualBlock(nn.Module):
    """x + f(x), f two 3×3 convolutions with batch norm before each (He et al. 2016, equation 1).

    [batch, channels, height, width] -> the same shape.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ConvDown(nn.Sequential):
    """Stride-2 3×3 convolutions with batch norm and LeakyReLU.

    [batch, channels, height, width] in [0, 1] -> [batch, hidden[-1], *level_sizes(...)[-1]]. Each
    level halves the image, rounding up. residual: a residual block after each level.
    """

    def __init__(self, shape: Sequence[int], hidden: Sequence[int], residual: bool = False) -> None:
        layers: list[nn.Module] = [Rescale()]
        for in_channels, channels in pairwise([shape[0], *hidden]):
            layers += _level(StridedConv2d(in_channels, channels), channels, residual)
        super().__init__(*layers)


class ConvUp(nn.Sequential):
    """The mirror of ConvDown: transposed convolutions, then a last 3×3 convolution.

    [batch, hidden[-1], *level_sizes(...)[-1]] -> [batch, *shape], unbounded. Each level has the
    size that it has in ConvDown, odd sizes too. residual: a residual block after each level.
    """

    def __init__(self, shape: Sequence[int], hidden: Sequence[int], residual: bool = False) -> None:
        layers: list[nn.Module] = []
        sizes = pairwise(reversed(level_sizes(shape, len(hidden))))
        widths = pairwise([*reversed(hidden), hidden[0]])
        for (size, out_size), (in_channels, channels) in zip(sizes, widths, strict=True):
            # A 3×3 stride-2 transposed convolution maps n to 2n - 1, and with padding 1 to 2n.
            padding = (out_size[0] - (2 * size[0] - 1), out_size[1] - (2 * size[1] - 1))
            convolution = StridedConvTranspose2d(in_channels, channels, padding)
            layers += _level(convolution, channels, residual)
        super().__init__(*layers, nn.Conv2d(hidden[0], shape[0], 3, padding=1))


class ConvEncoder(nn.Sequential):
    """ConvDown, then flat: [batch, *shape] in [0, 1] -> [batch, out_features]."""

    def __init__(self, shape: Sequence[int], hidden: Sequence[int], residual: bool = False) -> None:
        super().__init__(*ConvDown(shape, hidden, residual), nn.Flatten())
        height, width = level_sizes(shape, len(hidden))[-1]
        self.out_features = hidden[-1] * height * width


class ConvDecoder(nn.Sequential):
    """A linear layer, then ConvUp: [batch, in_features] -> [batch, *shape], unbounded."""

    def __init__(
        self, in_features: int, shape: Sequence[int], hidden: Sequence[int], residual: bool = False
    ) -> None:
        smallest = (hidden[-1], *level_sizes(shape, len(hidden))[-1])
        super().__init__(
            nn.Linear(in_features, smallest[0] * smallest[1] * smallest[2]),
            nn.Unflatten(1, smallest),
            *ConvUp(shape, hidden, residual),
        )


def level_sizes(shape: Sequence[int], levels: int) -> list[tuple[int, int]]:
    """Height and width of the image and of each level below it: halves, rounded up."""
    return [(-(-shape[1] // 2**n), -(-shape[2] // 2**n)) for n in range(levels + 1)]


class Rescale(nn.Module):
    """Values from [0, 1] to [-1, 1], of any shape."""

    def forward(self, x: Tensor) -> Tensor:
        return 2.0 * x - 1.0


def _level(convolution: nn.Module, channels: int, residual: bool) -> list[nn.Module]:
    """The layers of one level: convolution, batch norm, LeakyReLU, and the residual block."""
    level = nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.LeakyReLU(inplace=True))
    return [level, ResidualBlock(channels)] if residual else [level]
