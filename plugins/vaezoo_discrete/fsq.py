"""FSQ: finite scalar quantization, each channel rounded to a few values (Mentzer et al. 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaezoo.errors import OptionError
from vaezoo.models.distributions import to_float32

from .bottleneck import QuantizerBottleneck
from .options import MAX_CODES, FSQOptions
from .quantizer import Quantized, Quantizer, straight_through

_EPS = 1e-3
"""The bound is wider than the outermost values by this fraction, so that features reach them."""


class FSQBottleneck(QuantizerBottleneck):
    """Channels that are bounded and rounded (Mentzer et al. 2023).

    The codebook is the fixed grid of the rounded values. There is no codebook or commitment loss:
    the loss is the negative ELBO.
    """

    def __init__(self, options: FSQOptions, grid: tuple[int, ...]) -> None:
        num_codes = math.prod(options.levels)
        if num_codes > MAX_CODES:
            raise OptionError(f"--levels make {num_codes:,} codes, and {MAX_CODES:,} are the most")
        super().__init__(options, grid, ScalarQuantizer(options.levels, ndim=len(grid)))


class ScalarQuantizer(Quantizer):
    """Rounds channel i to one of levels[i] integers around 0 (Mentzer et al. 2023, section 3.1).

    A code vector is these integers divided by levels[i] // 2, so it is in [-1, 1]. Its index is the
    channels' digits in mixed radix, the first channel the least significant.
    """

    levels: Tensor
    middle: Tensor
    radix: Tensor

    def __init__(self, levels: tuple[int, ...], *, ndim: int = 2) -> None:
        super().__init__()
        self.ndim = ndim
        self.num_codes, self.code_dim = math.prod(levels), len(levels)
        self.counts = levels
        for name, values in {
            "levels": levels,
            "middle": [count // 2 for count in levels],
            "radix": [math.prod(levels[:i]) for i in range(len(levels))],
        }.items():
            self.register_buffer(name, torch.tensor(values).view(-1, *[1] * ndim), persistent=False)

    def forward(self, features: Tensor) -> Quantized:
        bounded = self.bound(features)
        rounded = bounded.detach().round()
        indices = self._indices(rounded)
        bounded = bounded / self.middle
        # The gradient passes straight through the rounding, but not through the bound.
        quantized = straight_through(bounded, rounded.div_(self.middle))
        return Quantized(quantized, indices, {})

    def bound(self, features: Tensor) -> Tensor:
        """Features limited to the range of each channel's integers: [..., code_dim, *grid].

        An even count n has no middle value: its integers are -n/2 to n/2 - 1. So the tanh is
        shifted by a half, and 0 stays at 0.
        """
        reach = (self.levels - 1) * (1 + _EPS) / 2
        offset = 0.5 * (self.levels % 2 == 0)
        shift = torch.atanh(offset / reach)
        return torch.tanh(to_float32(features) + shift) * reach - offset

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        digits = indices.unsqueeze(-1 - self.ndim) // self.radix % self.levels
        return (digits - self.middle) / self.middle

    def codes_to_indices(self, z: Tensor) -> Tensor:
        return self._indices((z * self.middle).round())

    def _indices(self, rounded: Tensor) -> Tensor:
        """Indices of integers around 0, limited to those that there are; one channel at a time."""
        channels = reversed(rounded.unbind(-1 - self.ndim))
        index = torch.zeros_like(rounded.select(-1 - self.ndim, 0), dtype=torch.int64)
        for count, channel in zip(reversed(self.counts), channels, strict=True):
            index = index.mul_(count).add_((channel.long() + count // 2).clamp_(0, count - 1))
        return index
