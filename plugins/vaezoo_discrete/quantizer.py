"""The interface of quantizers: modules that replace features by vectors of a finite set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn


class Quantized(NamedTuple):
    """The output of a quantizer.

    quantized: the code vectors, with the gradient of the features (straight through),
        [batch, code_dim, *grid].
    indices: of the codes, int64 [batch, *grid].
    losses: named terms that a loss may add, [batch] each, summed over an example's positions.
    """

    quantized: Tensor
    indices: Tensor
    losses: Mapping[str, Tensor]


class Quantizer(nn.Module, ABC):
    """Maps each feature vector to one of `num_codes` code vectors of size `code_dim`.

    ndim: the number of spatial dimensions of its features.
    """

    num_codes: int
    code_dim: int
    ndim: int

    @abstractmethod
    def forward(self, features: Tensor) -> Quantized:
        """Quantize features, [batch, code_dim, *grid]."""

    @abstractmethod
    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """Code vectors of indices: int64 [..., *grid] -> [..., code_dim, *grid]."""

    @abstractmethod
    def codes_to_indices(self, z: Tensor) -> Tensor:
        """Indices of the codes nearest to z: the inverse of `indices_to_codes`."""


def straight_through(features: Tensor, codes: Tensor) -> Tensor:
    """The value of `codes` with the gradient of `features` (Bengio et al. 2013)."""
    return features + (codes - features).detach()
