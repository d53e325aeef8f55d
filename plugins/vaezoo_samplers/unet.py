"""A small U-Net that gives the velocity of a flow on grids of one to three dimensions."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .velocity import Conditioning

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_MIN_SIZE = 4
"""A level is halved again only if its longest side is at least twice as long."""
_HEAD_DIM = 32


class UNetVelocity(nn.Module):
    """A U-Net (Ho et al. 2020) of any grid: [n, channels, *grid] at time t -> the same shape.

    Each level halves the sides, rounded up, and goes back to the exact size of the level above, so
    that a side may have any length. The lowest level has self-attention over its positions. At
    first the velocity is 0.

    width: channels of the first level; those below have twice as many. layers: residual blocks of a
    level, on each side.
    """

    def __init__(
        self, channels: int, grid: tuple[int, ...], width: int, layers: int, num_classes: int = 0
    ) -> None:
        super().__init__()
        conv, levels = _CONV[len(grid)], max(0, int(math.log2(max(grid) / _MIN_SIZE)))
        widths = [width, *[2 * width] * levels]
        self.conditioning = Conditioning(4 * width, num_classes)
        self.first = conv(channels, width, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for above, below in itertools.pairwise(widths):
            self.down.append(_Blocks(conv, above, above, layers, 4 * width))
            self.shrink.append(conv(above, below, 3, stride=2, padding=1))
            self.grow.append(conv(below, above, 3, padding=1))
            self.up.append(_Blocks(conv, 2 * above, above, layers, 4 * width))
        lowest = widths[-1]
        self.middle = _Blocks(conv, lowest, lowest, layers, 4 * width)
        self.attention = _Attention(lowest)
        self.after = _Blocks(conv, lowest, lowest, 1, 4 * width)
        self.norm = _norm(width)
        self.last = conv(width, channels, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        condition, h = self.conditioning(t, y), self.first(x)
        kept = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            h = blocks(h, condition)
            kept.append(h)
            h = shrink(h)
        h = self.after(self.attention(self.middle(h, condition)), condition)
        for blocks, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            skip = kept.pop()
            h = grow(F.interpolate(h, size=skip.shape[2:], mode="nearest"))
            h = blocks(torch.cat([h, skip], 1), condition)
        velocity: Tensor = self.last(F.silu(self.norm(h)))
        return velocity


class _Blocks(nn.Module):
    """Residual blocks one after the other."""

    def __init__(
        self, conv: type[nn.Module], channels: int, out: int, layers: int, condition: int
    ) -> None:
        super().__init__()
        sizes = [channels, *[out] * layers]
        self.layers = nn.ModuleList(
            _Block(conv, a, b, condition) for a, b in itertools.pairwise(sizes)
        )

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        for layer in self.layers:
            h = layer(h, condition)
        return h


class _Block(nn.Module):
    """Two convolutions, each after GroupNorm and SiLU, with the condition between; residual."""

    def __init__(self, conv: type[nn.Module], channels: int, out: int, condition: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([_norm(channels), _norm(out)])
        self.convs = nn.ModuleList(
            [conv(channels, out, 3, padding=1), conv(out, out, 3, padding=1)]
        )
        self.condition = nn.Linear(condition, out)
        self.skip = nn.Identity() if channels == out else conv(channels, out, 1)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        hidden = self.convs[0](F.silu(self.norms[0](h)))
        bias = self.condition(condition)
        hidden = hidden + bias.view(*bias.shape, *[1] * (h.dim() - 2))
        result: Tensor = self.skip(h) + self.convs[1](F.silu(self.norms[1](hidden)))
        return result


class _Attention(nn.Module):
    """Self-attention over the positions of the grid, residual (Vaswani et al. 2017)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, math.gcd(channels, channels // _HEAD_DIM or 1))
        self.norm = _norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, h: Tensor) -> Tensor:
        tokens = self.norm(h).flatten(2).transpose(1, 2)
        heads = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*heads.unbind(0))
        back = self.project(attended.transpose(1, 2).flatten(2))
        return h + back.transpose(1, 2).unflatten(2, h.shape[2:])


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, 8), channels)
