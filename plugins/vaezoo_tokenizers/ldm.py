"""The encoder and the decoder of latent diffusion (Rombach et al. 2022; Esser et al. 2021).

Their submodules have the names that diffusers gives to the same layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6
"""Added to the variance in each GroupNorm; torch's own default is 1e-5."""

_FUSED_FROM = 2048
"""Positions from which attention is computed by a fused kernel, without the matrix of weights."""


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    """A GroupNorm with the constant of latent diffusion."""
    return nn.GroupNorm(groups, channels, eps=EPS)


class ResidualBlock(nn.Module):
    """x + f(x), f twice GroupNorm, SiLU and a 3×3 convolution.

    [batch, in_channels, h, w] -> [batch, out_channels, h, w]. Where the numbers of channels differ,
    a convolution of width 1 maps x.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels, groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    """x + self-attention of GroupNorm(x) over all positions, with one head.

    [batch, channels, h, w] -> the same shape. The weights are softmax(q·k / √channels).
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = group_norm(channels, groups)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        positions = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.to_q(positions), self.to_k(positions), self.to_v(positions)
        if positions.shape[1] >= _FUSED_FROM:
            found = F.scaled_dot_product_attention(q, k, v)
        else:  # as fast where it is small, and gradient penalties differentiate it twice
            found = (q @ k.mT / math.sqrt(q.shape[2])).softmax(2) @ v
        return x + self.to_out(found).mT.reshape(x.shape)


class Downsample(nn.Module):
    """A 3×3 convolution with stride 2, after one row and column of zeros below and on the right.

    [batch, channels, h, w] -> [batch, channels, h/2, w/2], h and w even.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Each value four times, then a 3×3 convolution: [batch, channels, h, w] -> 2h and 2w."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The residual blocks of one size, each with attention after it if wanted."""

    def __init__(
        self, in_channels: int, channels: int, layers: int, groups: int, attention: bool
    ) -> None:
        super().__init__()
        widths = [in_channels, *[channels] * (layers - 1)]
        self.resnets = nn.ModuleList(ResidualBlock(width, channels, groups) for width in widths)
        self.attentions = nn.ModuleList(
            Attention(channels, groups) for _ in range(layers if attention else 0)
        )

    def forward(self, x: Tensor) -> Tensor:
        for number, block in enumerate(self.resnets):
            x = block(x)
            if self.attentions:
                x = self.attentions[number](x)
        return x


class DownLevel(Level):
    """A Level, then Downsample unless it is the last: [batch, in_channels, h, w] -> the next."""

    def __init__(
        self, widths: tuple[int, int], layers: int, groups: int, attention: bool, is_last: bool
    ) -> None:
        super().__init__(*widths, layers, groups, attention)
        self.downsamplers = nn.Sequential(*[] if is_last else [Downsample(widths[1])])

    def forward(self, x: Tensor) -> Tensor:
        return self.downsamplers(super().forward(x))


class UpLevel(Level):
    """A Level, then Upsample unless it is the last: [batch, in_channels, h, w] -> the next."""

    def __init__(
        self, widths: tuple[int, int], layers: int, groups: int, attention: bool, is_last: bool
    ) -> None:
        super().__init__(*widths, layers, groups, attention)
        self.upsamplers = nn.Sequential(*[] if is_last else [Upsample(widths[1])])

    def forward(self, x: Tensor) -> Tensor:
        return self.upsamplers(super().forward(x))


class MidBlock(nn.Module):
    """Two residual blocks at the lowest size, with attention between them if wanted."""

    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels, groups) for _ in range(2))
        self.attentions = nn.Sequential(*[Attention(channels, groups)] if attention else [])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions(self.resnets[0](x)))


class Structure:
    """What encoder and decoder have in common.

    hidden: channels of each level, from the full size. layers: residual blocks of each level.
    groups: of each GroupNorm. attention_levels: levels with attention after each block.
    """

    def __init__(
        self,
        hidden: Sequence[int],
        layers: int,
        groups: int,
        attention: bool = True,
        attention_levels: Sequence[int] = (),
    ) -> None:
        self.hidden, self.layers, self.groups = tuple(hidden), layers, groups
        self.attention, self.attention_levels = attention, tuple(attention_levels)

    @property
    def factor(self) -> int:
        """The size of the examples divided by that of the grid."""
        return 2 ** (len(self.hidden) - 1)


class LDMEncoder(nn.Module):
    """From examples to features: [batch, channels, h, w] -> [batch, out_channels, h/f, w/f].

    rescale: the first layers, without weights: from [0, 1] to [-1, 1]. quant_conv: whether a
    convolution of width 1 follows. quant_width: the channels that it gets; None: out_channels.
    """

    def __init__(
        self,
        structure: Structure,
        channels: int,
        out_channels: int,
        *,
        rescale: Sequence[nn.Module] = (),
        quant_conv: bool = True,
        quant_width: int | None = None,
    ) -> None:
        super().__init__()
        hidden, groups, last = structure.hidden, structure.groups, len(structure.hidden) - 1
        self.rescale = nn.Sequential(*rescale)
        self.conv_in = nn.Conv2d(channels, hidden[0], 3, padding=1)
        self.down_blocks = nn.Sequential(
            *(
                DownLevel(
                    (hidden[max(0, n - 1)], width),
                    structure.layers,
                    groups,
                    n in structure.attention_levels,
                    n == last,
                )
                for n, width in enumerate(hidden)
            )
        )
        self.mid_block = MidBlock(hidden[-1], groups, structure.attention)
        self.conv_norm_out = group_norm(hidden[-1], groups)
        width = quant_width or out_channels
        self.conv_out = nn.Conv2d(hidden[-1], width, 3, padding=1)
        self.quant_conv: nn.Module = nn.Identity()
        if quant_conv:
            self.quant_conv = nn.Conv2d(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.mid_block(self.down_blocks(self.conv_in(self.rescale(x))))
        return self.quant_conv(self.conv_out(F.silu(self.conv_norm_out(h))))


class LDMDecoder(nn.Module):
    """From features to examples: [batch, in_channels, h, w] -> [batch, channels, h·f, w·f].

    The mirror of the encoder, with one residual block more at each level. post_quant_conv: whether
    a convolution of width 1 comes first. quant_width: the channels that it gives; None:
    in_channels.
    """

    def __init__(
        self,
        structure: Structure,
        in_channels: int,
        channels: int,
        *,
        post_quant_conv: bool = True,
        quant_width: int | None = None,
    ) -> None:
        super().__init__()
        hidden, groups = structure.hidden, structure.groups
        self.post_quant_conv: nn.Module = nn.Identity()
        width = quant_width or in_channels
        if post_quant_conv:
            self.post_quant_conv = nn.Conv2d(in_channels, width, 1)
        self.conv_in = nn.Conv2d(width, hidden[-1], 3, padding=1)
        self.mid_block = MidBlock(hidden[-1], groups, structure.attention)
        self.up_blocks = nn.Sequential(
            *(
                UpLevel(
                    (hidden[min(n + 1, len(hidden) - 1)], hidden[n]),
                    structure.layers + 1,
                    groups,
                    n in structure.attention_levels,
                    n == 0,
                )
                for n in reversed(range(len(hidden)))
            )
        )
        self.conv_norm_out = group_norm(hidden[0], groups)
        self.conv_out = nn.Conv2d(hidden[0], channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.up_blocks(self.mid_block(self.conv_in(self.post_quant_conv(z))))
        return self.conv_out(F.silu(self.conv_norm_out(h)))
