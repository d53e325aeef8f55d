"""Finite scalar quantisation: each channel rounded to a few values (Mentzer et al. 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaezoo import DataSpec
from vaezoo.errors import OptionError
from vaezoo.models.distributions import to_float32

from .codes import CodePosterior
from .grid import GridVAE
from .options import MOST_CODES, FSQOptions
from .quantiser import Quantiser

_SLACK = 1e-3
"""How much farther than its outermost values a channel may come, so that it reaches them."""


class FSQVAE(GridVAE):
    """A few channels, each bounded and rounded: the codebook is their grid, and nothing learns it.

    No codebook, no commitment: the objective is the negative ELBO alone.
    """

    options: FSQOptions

    def __init__(self, options: FSQOptions, data: DataSpec) -> None:
        codes = math.prod(options.levels)
        if codes > MOST_CODES:
            raise OptionError(f"--levels make {codes:,} codes, and {MOST_CODES:,} are the most")
        super().__init__(options, data, ScalarQuantiser(options.levels))


class ScalarQuantiser(Quantiser):
    """Rounds channel i to one of levels[i] whole numbers around 0 (section 3.1).

    The vectors are these numbers divided by levels[i] // 2, so that they lie in [-1, 1]. A code is
    its channels' numbers in mixed radix, the first the lowest.
    """

    levels: Tensor
    middle: Tensor
    radix: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.size, self.width = math.prod(levels), len(levels)
        for name, values in {
            "levels": levels,
            "middle": [count // 2 for count in levels],
            "radix": [math.prod(levels[:i]) for i in range(len(levels))],
        }.items():
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, features: Tensor) -> CodePosterior:
        bounded = self.bound(features)
        embedded = bounded.round() / self.middle
        # Straight through the rounding, not through the bound.
        return CodePosterior(bounded / self.middle, embedded, self.codes_of(embedded), self)

    def bound(self, features: Tensor) -> Tensor:
        """Between the outermost whole numbers of each channel: [..., width, rows, columns].

        An even number of values has none in the middle: they run from -n/2 to n/2 - 1, and tanh
        is moved by a half, with 0 kept at 0.
        """
        reach = (self.levels - 1) * (1 + _SLACK) / 2
        offset = 0.5 * (self.levels % 2 == 0)
        shift = torch.atanh(offset / reach)
        return torch.tanh(to_float32(features) + shift) * reach - offset

    def embed(self, codes: Tensor) -> Tensor:
        numbers = codes.unsqueeze(-3) // self.radix % self.levels - self.middle
        return numbers / self.middle

    def codes_of(self, z: Tensor) -> Tensor:
        numbers = (z * self.middle).round().long() + self.middle
        return (numbers.clamp(min=0).minimum(self.levels - 1) * self.radix).sum(-3)
