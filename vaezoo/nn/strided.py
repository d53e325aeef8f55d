"""The two convolutions that change the resolution, each also as one matrix product.

Where a layer's weights outweigh its maps (256 to 512 channels at 4×4 pixels), a CPU's convolution
spends its time on repacking the weights: as a product over the 3×3 windows of the maps it takes a
third. Everywhere else, and on accelerators, the library's convolution is the faster one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Size = tuple[int, int]


class StridedConv2d(nn.Conv2d):
    """A 3×3 convolution with stride 2: [batch, in, height, width] to half of both, rounded up.

    It has no bias: the batch norm that follows would take it away again, and its gradient, a sum
    over all pixels, cost a tenth of a CPU step.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, stride=2, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not _weights_outweigh(self.weight, x):
            return super().forward(x)
        size = ((x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2)
        windows = _Windows.apply(x.permute(0, 2, 3, 1), size)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(windows.flatten(3), weight).permute(0, 3, 1, 2)


class StridedConvTranspose2d(nn.ConvTranspose2d):
    """A 3×3 transposed convolution with stride 2: from n pixels to 2n - 1 + extra, extra 0 or 1.

    It has no bias, for the same reason.
    """

    def __init__(self, in_channels: int, out_channels: int, extra: Size) -> None:
        super().__init__(
            in_channels, out_channels, 3, stride=2, padding=1, output_padding=extra, bias=False
        )

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or not _weights_outweigh(self.weight, x):
            return super().forward(x, output_size)
        extra = self.output_padding
        size = (2 * x.shape[2] - 1 + int(extra[0]), 2 * x.shape[3] - 1 + int(extra[1]))
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        windows = (x.permute(0, 2, 3, 1) @ weight).unflatten(3, (3, 3, -1))
        y: Tensor = _Overlaid.apply(windows, size)
        return y.permute(0, 3, 1, 2)


def _weights_outweigh(weight: Tensor, x: Tensor) -> bool:
    if torch.compiler.is_exporting():  # a graph for batches of any size, on any machine
        return False
    return x.device.type == "cpu" and x.dim() == 4 and weight.numel() > x.numel()


class _Windows(torch.autograd.Function):
    """The 3×3 window around every second pixel, zeros outside of the image.

    [batch, height, width, channels] -> [batch, *size, 3, 3, channels]. It and _Overlaid are linear
    and each other's transpose, hence each other's gradient, as often as it is taken.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: Size) -> Tensor:
        ctx.size = (x.shape[1], x.shape[2])
        windows = x.new_zeros(x.shape[0], *size, 3, 3, x.shape[3])
        for i, j, there, here in _taps(ctx.size, size):
            windows[:, *there, i, j] = x[:, *here]
        return windows

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Overlaid.apply(grads[0], ctx.size), None


class _Overlaid(torch.autograd.Function):
    """Windows laid over one another and added up where they meet: the transpose of _Windows.

    [batch, height, width, 3, 3, channels] -> [batch, *size, channels].
    """

    @staticmethod
    def forward(ctx: Any, windows: Tensor, size: Size) -> Tensor:
        ctx.size = (windows.shape[1], windows.shape[2])
        x = windows.new_zeros(windows.shape[0], *size, windows.shape[5])
        for i, j, there, here in _taps(size, ctx.size):
            x[:, *here] += windows[:, *there, i, j]
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Windows.apply(grads[0], ctx.size), None


def _taps(
    image: Sequence[int], windows: Sequence[int]
) -> Iterator[tuple[int, int, tuple[slice, slice], tuple[slice, slice]]]:
    """For each place (i, j) in a window: which windows have it inside the image, and where."""
    for i in range(3):
        rows, down = _along(i, image[0], windows[0])
        for j in range(3):
            columns, across = _along(j, image[1], windows[1])
            yield i, j, (rows, columns), (down, across)


def _along(tap: int, pixels: int, windows: int) -> tuple[slice, slice]:
    """Windows n whose pixel 2n + tap - 1 is in the image, and those pixels."""
    first = 1 if tap == 0 else 0
    count = min(windows, (pixels - tap) // 2 + 1) - first
    start = 2 * first + tap - 1
    return slice(first, first + count), slice(start, start + 2 * count - 1, 2)
