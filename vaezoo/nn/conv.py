"""Strided convolutions down, transposed convolutions up, for images of any size."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vaezoo.nn.resnet import ResidualBlock
from vaezoo.nn.strided import StridedConv2d, StridedConvTranspose2d


class ConvDown(nn.Sequential):
    """Stride-2 3×3 convolutions with batch norm and LeakyReLU.

    [batch, channels, height, width] in [0, 1] -> [batch, hidden[-1], *level_sizes(...)[-1]]. Each
    level halves the image, rounding up. residual: a residual block after each level.
    """

    def __init__(self, shape: Sequence[int], hidden: Sequence[int], residual: bool = False) -> None:
        channels = shape[0]
        levels: list[nn.Module] = [Rescale()]
        for wide in hidden:
            levels.append(_level(StridedConv2d(channels, wide), wide))
            if residual:
                levels.append(ResidualBlock(wide))
            channels = wide
        super().__init__(*levels)


class ConvUp(nn.Sequential):
    """The way down mirrored: transposed convolutions, then a last 3×3 convolution.

    [batch, hidden[-1], *level_sizes(...)[-1]] -> [batch, *shape], unbounded. Each level comes back
    to the size that it had on the way down, odd ones too. residual: a block after each level.
    """

    def __init__(self, shape: Sequence[int], hidden: Sequence[int], residual: bool = False) -> None:
        levels: list[nn.Module] = []
        up = list(reversed(level_sizes(shape, len(hidden))))
        widths = [*reversed(hidden), hidden[0]]
        for i, wide in enumerate(widths[1:]):
            # A 3×3 stride-2 transposed convolution makes 2n - 1 of n, and 2n with one of padding.
            (height, width), (to_height, to_width) = up[i], up[i + 1]
            extra = (to_height - (2 * height - 1), to_width - (2 * width - 1))
            levels.append(_level(StridedConvTranspose2d(widths[i], wide, extra), wide))
            if residual:
                levels.append(ResidualBlock(wide))
        super().__init__(*levels, nn.Conv2d(hidden[0], shape[0], 3, padding=1))


class ConvEncoder(nn.Sequential):
    """The way down, then flat: [batch, *shape] in [0, 1] -> [batch, out_features]."""

    def __init__(self, shape: Sequence[int], hidden: Sequence[int], residual: bool = False) -> None:
        super().__init__(*ConvDown(shape, hidden, residual), nn.Flatten())
        height, width = level_sizes(shape, len(hidden))[-1]
        self.out_features = hidden[-1] * height * width


class ConvDecoder(nn.Sequential):
    """A linear layer, then the way up: [batch, in_features] -> [batch, *shape], unbounded."""

    def __init__(
        self,
        in_features: int,
        shape: Sequence[int],
        hidden: Sequence[int],
        residual: bool = False,
    ) -> None:
        smallest = (hidden[-1], *level_sizes(shape, len(hidden))[-1])
        super().__init__(
            nn.Linear(in_features, smallest[0] * smallest[1] * smallest[2]),
            nn.Unflatten(1, smallest),
            *ConvUp(shape, hidden, residual),
        )


def level_sizes(shape: Sequence[int], levels: int) -> list[tuple[int, int]]:
    """Height and width of the image and of each level below it: halves, rounded up."""
    sizes = [(shape[1], shape[2])]
    for _ in range(levels):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


class Rescale(nn.Module):
    """Images from [0, 1] to [-1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return 2.0 * x - 1.0


def _level(convolution: nn.Module, wide: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(wide), nn.LeakyReLU(inplace=True))
