"""Stride-2 convolutions that are computed as a matrix product where that is faster on a CPU.

Where a layer has more weights than its input has values (256 to 512 channels at 4×4 pixels),
torch's convolution spends its time on the layout of the weights. As im2col and a matrix product it
takes a third of the time. Everywhere else, and on accelerators, torch's convolution is faster.
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

    It has no bias: the batch norm that follows would remove it, and its gradient, a sum over all
    pixels, costs a tenth of a step on a CPU.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, stride=2, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not _more_weights_than_inputs(self.weight, x):
            return super().forward(x)
        size = ((x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2)
        windows = _Im2Col.apply(x.permute(0, 2, 3, 1), size)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(windows.flatten(3), weight).permute(0, 3, 1, 2)


class StridedConvTranspose2d(nn.ConvTranspose2d):
    """A 3×3 transposed convolution with stride 2: from n pixels to 2n - 1 + extra, extra 0 or 1.

    [batch, in, height, width] -> [batch, out, 2·height - 1 + extra[0], 2·width - 1 + extra[1]]. It
    has no bias, for the same reason.
    """

    def __init__(self, in_channels: int, out_channels: int, extra: Size) -> None:
        super().__init__(
            in_channels, out_channels, 3, stride=2, padding=1, output_padding=extra, bias=False
        )

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or not _more_weights_than_inputs(self.weight, x):
            return super().forward(x, output_size)
        extra = self.output_padding
        size = (2 * x.shape[2] - 1 + int(extra[0]), 2 * x.shape[3] - 1 + int(extra[1]))
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        windows = (x.permute(0, 2, 3, 1) @ weight).unflatten(3, (3, 3, -1))
        return _Col2Im.apply(windows, size).permute(0, 3, 1, 2)


def _more_weights_than_inputs(weight: Tensor, x: Tensor) -> bool:
    if torch.compiler.is_exporting():  # the exported graph is for any batch size and machine
        return False
    return x.device.type == "cpu" and x.dim() == 4 and weight.numel() > x.numel()


class _Im2Col(torch.autograd.Function):
    """The 3×3 window around every second pixel, with zeros outside the image.

    [batch, height, width, channels] -> [batch, *size, 3, 3, channels]. It and _Col2Im are linear
    and transposes of each other, so each is the other's gradient, also in higher derivatives.
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
        return _Col2Im.apply(grads[0], ctx.size), None


class _Col2Im(torch.autograd.Function):
    """The sum of overlapping windows: the transpose of _Im2Col.

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
        return _Im2Col.apply(grads[0], ctx.size), None


def _taps(
    image: Sequence[int], windows: Sequence[int]
) -> Iterator[tuple[int, int, tuple[slice, slice], tuple[slice, slice]]]:
    """For each position (i, j) in a window: which windows have it in the image, and where."""
    for i in range(3):
        rows, down = _along(i, image[0], windows[0])
        for j in range(3):
            columns, across = _along(j, image[1], windows[1])
            yield i, j, (rows, columns), (down, across)


def _along(tap: int, pixels: int, windows: int) -> tuple[slice, slice]:
    """The windows n whose pixel 2n + tap - 1 is in the image, and these pixels."""
    first = 1 if tap == 0 else 0
    end = min(windows, (pixels - tap) // 2 + 1)
    return slice(first, end), slice(2 * first + tap - 1, 2 * end + tap - 2, 2)
