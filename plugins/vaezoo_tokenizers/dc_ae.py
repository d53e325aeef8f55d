"""The encoder and the decoder of DC-AE, the deep compression autoencoder (Chen et al. 2024).

Their submodules have the names that diffusers gives to the same layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from .efficientvit import ChannelRMSNorm, EfficientViTBlock

Downsampling = Literal["pixel_unshuffle", "conv"]
Upsampling = Literal["pixel_shuffle", "interpolate"]


@dataclass(frozen=True)
class DCAEStructure:
    """What encoder and decoder have in common.

    hidden: channels of each level, from the full size. attention_levels: levels of EfficientViT
    blocks; the others have residual blocks. head_dim, attention_scales: of LinearAttention.
    downsample, upsample: see DownSample and UpSample.
    """

    hidden: tuple[int, ...]
    attention_levels: tuple[int, ...] = ()
    head_dim: int = 32
    attention_scales: tuple[int, ...] = ()
    downsample: Downsampling = "pixel_unshuffle"
    upsample: Upsampling = "pixel_shuffle"

    @property
    def factor(self) -> int:
        """The size of the examples divided by that of the grid."""
        return 2 ** (len(self.hidden) - 1)

    def blocks(self, level: int, count: int, *, batch_norm: bool = False) -> list[nn.Module]:
        """The blocks of a level."""
        width = self.hidden[level]
        if level in self.attention_levels:
            return [
                EfficientViTBlock(width, self.head_dim, self.attention_scales) for _ in range(count)
            ]
        return [ResidualBlock(width, batch_norm=batch_norm) for _ in range(count)]


def to_channels(x: Tensor, channels: int) -> Tensor:
    """Fewer channels by means of neighbouring ones, more by copies: [batch, n, ...] -> channels.

    Chen et al. (2024), section 3.2: equal groups where one number divides the other. In general
    output i is the mean of the inputs from ⌊i · n / channels⌋ up to ⌈(i + 1) · n / channels⌉.
    """
    n = x.shape[1]
    if n % channels == 0:
        return x.unflatten(1, (channels, n // channels)).mean(2)
    if channels % n == 0:
        return x.repeat_interleave(channels // n, 1)
    return F.adaptive_avg_pool1d(x.flatten(2).mT, channels).mT.unflatten(2, x.shape[2:])


class ResidualBlock(nn.Module):
    """x + norm(f(x)), f a convolution of width 3, SiLU and another: [batch, channels, h, w].

    batch_norm: batch norm in place of RMS norm, and ReLU in place of SiLU.
    """

    def __init__(self, channels: int, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.nonlinearity: nn.Module = nn.ReLU() if batch_norm else nn.SiLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels) if batch_norm else ChannelRMSNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.conv2(self.nonlinearity(self.conv1(x))))


class DownSample(nn.Module):
    """Half the size: [batch, in_channels, h, w] -> [batch, out_channels, h/2, w/2].

    pixel_unshuffle: a convolution of width 3 whose values are moved from space to channels; conv:
    one with stride 2. shortcut: it learns the residual of the input moved from space to channels,
    whose neighbouring channels are averaged (Chen et al. 2024, figure 4).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kind: Downsampling, *, shortcut: bool = True
    ) -> None:
        super().__init__()
        self.out_channels, self.shortcut = out_channels, shortcut
        self.unshuffle = kind == "pixel_unshuffle"
        self.conv = (
            nn.Conv2d(in_channels, out_channels // 4, 3, padding=1)
            if self.unshuffle
            else nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = F.pixel_unshuffle(y, 2) if self.unshuffle else y
        if self.shortcut:
            y = y + to_channels(F.pixel_unshuffle(x, 2), self.out_channels)
        return y


class UpSample(nn.Module):
    """Twice the size: [batch, in_channels, h, w] -> [batch, out_channels, 2h, 2w].

    pixel_shuffle: a convolution of width 3 whose channels are moved to space; interpolate: one of
    each value four times. shortcut: it learns the residual of the input, whose channels are copied
    and moved to space (Chen et al. 2024, figure 4).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kind: Upsampling, *, shortcut: bool = True
    ) -> None:
        super().__init__()
        self.out_channels, self.shortcut = out_channels, shortcut
        self.shuffle = kind == "pixel_shuffle"
        channels = 4 * out_channels if self.shuffle else out_channels
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.shuffle:
            y = F.pixel_shuffle(self.conv(x), 2)
        else:
            y = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        if self.shortcut:
            y = y + F.pixel_shuffle(to_channels(x, 4 * self.out_channels), 2)
        return y


class DCAEEncoder(nn.Module):
    """From examples to features: [batch, channels, h, w] -> [batch, out_channels, h/f, w/f].

    layers: blocks of each level; only the first may be 0, and then the first layer halves the size.
    rescale: the first layers, without weights: from [0, 1] to [-1, 1]. The last convolution learns
    the residual of the features, whose neighbouring channels are averaged.
    """

    def __init__(
        self,
        structure: DCAEStructure,
        channels: int,
        out_channels: int,
        layers: Sequence[int],
        *,
        rescale: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        hidden, kind = structure.hidden, structure.downsample
        self.out_channels = out_channels
        self.rescale = nn.Sequential(*rescale)
        self.conv_in: nn.Module = (
            nn.Conv2d(channels, hidden[0], 3, padding=1)
            if layers[0]
            else DownSample(channels, hidden[1], kind, shortcut=False)
        )
        blocks = []
        for level, count in enumerate(layers):
            found = structure.blocks(level, count)
            if count and level + 1 < len(hidden):
                found.append(DownSample(hidden[level], hidden[level + 1], kind))
            blocks.append(nn.Sequential(*found))
        self.down_blocks = nn.Sequential(*blocks)
        self.conv_out = nn.Conv2d(hidden[-1], out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.down_blocks(self.conv_in(self.rescale(x)))
        return self.conv_out(h) + to_channels(h, self.out_channels)


class DCAEDecoder(nn.Module):
    """From features to examples: [batch, in_channels, h, w] -> [batch, channels, h·f, w·f].

    layers: blocks of each level; only the first may be 0, and then the last layer doubles the size.
    batch_norm_levels: levels whose residual blocks have batch norm and ReLU. The first convolution
    learns the residual of the features, whose channels are copied.
    """

    def __init__(
        self,
        structure: DCAEStructure,
        in_channels: int,
        channels: int,
        layers: Sequence[int],
        *,
        batch_norm_levels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        hidden, kind = structure.hidden, structure.upsample
        self.conv_in = nn.Conv2d(in_channels, hidden[-1], 3, padding=1)
        blocks = []
        for level, count in enumerate(layers):
            found = structure.blocks(level, count, batch_norm=level in batch_norm_levels)
            if count and level + 1 < len(hidden):
                found.insert(0, UpSample(hidden[level + 1], hidden[level], kind))
            blocks.append(nn.Sequential(*found))
        self.up_blocks = nn.ModuleList(blocks)  # from the full size
        last = hidden[0 if layers[0] else 1]
        self.norm_out = ChannelRMSNorm(last)
        self.conv_out: nn.Module = (
            nn.Conv2d(last, channels, 3, padding=1)
            if layers[0]
            else UpSample(last, channels, kind, shortcut=False)
        )

    def forward(self, z: Tensor) -> Tensor:
        h = self.conv_in(z)
        h = h + to_channels(z, h.shape[1])
        for block in reversed(self.up_blocks):
            h = block(h)
        return self.conv_out(F.relu(self.norm_out(h)))
