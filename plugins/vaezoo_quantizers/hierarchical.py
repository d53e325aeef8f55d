"""Codes on several levels, each conditioned on those above it: VQ-VAE-2 (Razavi et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from vaezoo.errors import OptionError
from vaezoo.models.distributions import to_float32
from vaezoo_discrete.bottleneck import QuantizerBottleneck
from vaezoo_discrete.quantizer import Quantized, Quantizer, no_autocast
from vaezoo_discrete.vq import VectorQuantizer, vector_quantizer
from vaezoo_networks.conv import CONV

from .options import HierarchicalVQOptions

_INNER = 2
"""The width of a residual block divided by that of its inner layer: 128 and 64 in the paper."""


class HierarchicalBottleneck(QuantizerBottleneck):
    """Features are replaced by codes on levels of falling size, each given those above it.

    The latent is the sequence of all codes, the top level first. The decoder gets the codes of all
    levels at the size of the lowest one, side by side.
    """

    def __init__(self, options: HierarchicalVQOptions, grid: tuple[int, ...]) -> None:
        if grid and max(grid) < 2 ** (options.code_levels - 1):
            raise OptionError(
                f"--code-levels {options.code_levels} halve a grid of features of "
                f"{'×'.join(map(str, grid))} {options.code_levels - 1} times: give fewer of them, "
                "or fewer levels of the network, so that its grid is larger"
            )
        quantizer = HierarchicalQuantizer(
            [
                vector_quantizer(options, options.code_dim, ndim=1)
                for _ in range(options.code_levels)
            ],
            grid,
            width=options.level_width,
            blocks=options.level_blocks,
        )
        super().__init__(options, grid, quantizer)


class HierarchicalQuantizer(Quantizer):
    """Quantizes features on levels of falling size, from the top down (Razavi et al. 2019, 3.1).

    Level 1 has the features, h₁, and each level above it half the size: hᵢ₊₁ = downᵢ(hᵢ). The top
    level is quantized by itself, a lower one given the codes eᵢ₊₁ of the level above it:

        e_L = nearest code to Wₗ h_L,        eᵢ = nearest code to Wᵢ [upᵢ(eᵢ₊₁), hᵢ]

    The quantized features are [e_L, …, e₁], each at the size of the features: an upper level is
    repeated. All layers and codes follow the decoder's gradient, which passes each level straight
    through, and by `up` from one level to the one above.

    quantizers: of the levels, the lowest first, with ndim 1 and equal size.
    grid: the size of the features, which is fixed. Each level halves it, rounding up.
    width: channels of the layers between levels. blocks: residual blocks of each down and up.

    Codes and indices of all levels are one sequence, the top level first, each row by row:
    [batch, code_dim, length] and [batch, length]. `sections` are the lengths of the levels.

    Its losses: those of the quantizers, added up.
    """

    def __init__(
        self,
        quantizers: Sequence[VectorQuantizer],
        grid: tuple[int, ...],
        *,
        width: int = 128,
        blocks: int = 2,
    ) -> None:
        super().__init__()
        if any(quantizer.ndim != 1 for quantizer in quantizers):
            raise ValueError("codes on levels need quantizers of ndim 1")
        first, count, space = quantizers[0], len(quantizers), len(grid)
        self.ndim, self.num_codes, self.code_dim = 1, first.num_codes, first.code_dim
        self.grids = [tuple(math.ceil(size / 2**level) for size in grid) for level in range(count)]
        self.sections = tuple(math.prod(size) for size in reversed(self.grids))
        self.quantizers = nn.ModuleList(quantizers)
        widths = [self.dim, *[width] * (count - 1)]
        conv = CONV[space]
        self.down = nn.ModuleList(
            nn.Sequential(conv(n, width, 3, stride=2, padding=1), *_blocks(width, blocks, space))
            for n in widths[:-1]
        )
        self.up = nn.ModuleList(
            nn.Sequential(
                conv(self.code_dim, width, 3, padding=1),
                *_blocks(width, blocks, space),
                Double(size),
                conv(width, width, 3, padding=1),
            )
            for size in self.grids[:-1]
        )
        above = [*[width] * (count - 1), 0]
        self.to_codes = nn.ModuleList(
            conv(n + more, self.code_dim, 1) for n, more in zip(widths, above, strict=True)
        )

    @property
    def dim(self) -> int:
        return self.code_dim * len(self.grids)

    def codes_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        return (sum(self.sections),)

    def forward(self, features: Tensor) -> Quantized:
        with no_autocast(features.device):
            hidden = [to_float32(features)]
            for layer in self.down:
                hidden.append(layer(hidden[-1]))
            each: list[Quantized] = []  # the top level first
            for level in self._numbers():
                x = hidden[level]
                if each:
                    above = each[-1].quantized.unflatten(2, self.grids[level + 1])
                    x = torch.cat([self.up[level](above), x], 1)
                each.append(self.quantizers[level](self.to_codes[level](x).flatten(2)))
            codes = torch.cat([output.quantized for output in each], 2)
            losses = {
                name: torch.stack([output.losses[name] for output in each]).sum(0)
                for name in each[0].losses
            }
            indices = torch.cat([output.indices for output in each], 1)
            return Quantized(self.codes_to_features(codes), indices, losses)

    def _numbers(self) -> Iterable[int]:
        """The numbers of the levels, from 0, the top level first."""
        return reversed(range(len(self.grids)))

    def _quantizer(self, level: int) -> VectorQuantizer:
        found = self.quantizers[level]
        assert isinstance(found, VectorQuantizer)
        return found

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        each = zip(self._numbers(), indices.split(self.sections, -1), strict=True)
        return torch.cat([self._quantizer(i).indices_to_codes(found) for i, found in each], -1)

    def codes_to_indices(self, z: Tensor) -> Tensor:
        each = zip(self._numbers(), z.split(self.sections, -1), strict=True)
        return torch.cat([self._quantizer(i).codes_to_indices(codes) for i, codes in each], -1)

    def codes_to_features(self, codes: Tensor) -> Tensor:
        grids = []
        for level, part in zip(self._numbers(), codes.split(self.sections, -1), strict=True):
            codes_of_level = part.unflatten(-1, self.grids[level])
            grids.append(repeat(codes_of_level, 2**level, self.grids[0]))
        return torch.cat(grids, -1 - len(self.grids[0]))

    def latent(self, output: Quantized) -> Tensor:
        parts = output.quantized.split(self.code_dim, 1)
        found = []
        for level, part in zip(self._numbers(), parts, strict=True):
            # Of values that `codes_to_features` repeats, the first has the gradient of its code.
            first = (..., *[slice(None, None, 2**level)] * len(self.grids[0]))
            found.append(part[first].flatten(2))
        return torch.cat(found, 2)


class ResidualBlock(nn.Sequential):
    """x + f(x), f ReLU, a convolution of width 3, ReLU and one of width 1, without a norm.

    van den Oord et al. (2017), section 4.1. [batch, channels, *sizes] -> the same shape.
    """

    def __init__(self, channels: int, ndim: int) -> None:
        conv, inner = CONV[ndim], max(1, channels // _INNER)
        super().__init__(
            nn.ReLU(),
            conv(channels, inner, 3, padding=1),
            nn.ReLU(),
            conv(inner, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Double(nn.Module):
    """`repeat` twice, as a layer: [..., *half of size, rounded up] -> [..., *size]."""

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return repeat(x, 2, self.size)


def repeat(x: Tensor, times: int, size: tuple[int, ...]) -> Tensor:
    """Each value `times` times along each dimension, cut to a size: [..., *size]."""
    for i, wanted in enumerate(size, -len(size)):
        x = x.repeat_interleave(times, i).narrow(i, 0, wanted)
    return x


def _blocks(width: int, blocks: int, ndim: int) -> list[nn.Module]:
    """Residual blocks, and the ReLU after the last of them."""
    return [*(ResidualBlock(width, ndim) for _ in range(blocks)), nn.ReLU()]
