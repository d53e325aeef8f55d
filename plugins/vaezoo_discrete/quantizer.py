"""The interface of quantizers: modules that replace features by vectors of a finite set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_MIN_NORM = 1e-12
"""A shorter vector has no direction: it cannot be normalised."""


class Quantized(NamedTuple):
    """The output of a quantizer.

    quantized: the quantized features, with a gradient for the features (straight through),
        [batch, dim, *grid].
    indices: of the codes, int64 [batch, *grid]; of several codebooks [batch, codebooks, *grid].
    losses: named terms that a loss may add, [batch] each, summed over an example's positions; a
        statistic of the whole batch is 0-dim.
    """

    quantized: Tensor
    indices: Tensor
    losses: Mapping[str, Tensor]


class Quantizer(nn.Module, ABC):
    """Replaces each feature vector by code vectors, one of each of its codebooks.

    num_codes: the number of codes in a codebook.
    codebooks: how many codebooks there are. Indices of one codebook have no dimension for it.
    dim: the size of a feature vector, before and after quantization.
    code_dim: the size of a code vector; of several codebooks, of all their vectors together.
    ndim: the number of spatial dimensions of its codes, and of its features but for a pyramid.
    sections: of a sequence whose parts have a codebook of their own each, of `num_codes` codes: the
        numbers of positions of these parts. `codebooks` is then 1: there is one code a position.
    batch_statistics: whether a loss of it depends on the batch as a whole.

    With one codebook a code vector is the quantized feature. A quantizer of several may add its
    codes (residual quantization): then it defines `codes_to_features` and `latent`, and codes keep
    the vectors of all codebooks apart, so that `codes_to_indices` is exact.
    """

    num_codes: int
    code_dim: int
    ndim: int
    codebooks: int = 1
    sections: tuple[int, ...] = ()
    batch_statistics: bool = False

    @property
    def dim(self) -> int:
        return self.code_dim

    @abstractmethod
    def forward(self, features: Tensor) -> Quantized:
        """Quantize features, [batch, dim, *grid]."""

    @abstractmethod
    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """Code vectors of indices: int64 [..., (codebooks,) *grid] -> [..., code_dim, *grid]."""

    @abstractmethod
    def codes_to_indices(self, z: Tensor) -> Tensor:
        """Indices of the codes nearest to z: the inverse of `indices_to_codes`."""

    def codes_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """The spatial size of the codes, and of their indices, for features of size `grid`."""
        return grid

    def codes_to_features(self, codes: Tensor) -> Tensor:
        """From code vectors, [..., code_dim, *codes_grid], to features, [..., dim, *grid]."""
        return codes

    def latent(self, output: Quantized) -> Tensor:
        """An output as code vectors, [batch, code_dim, *codes_grid], with a gradient.

        `codes_to_features` of it has the value and the gradient of `output.quantized`.
        """
        return output.quantized


def straight_through(features: Tensor, codes: Tensor) -> Tensor:
    """The value of `codes` with the gradient of `features` (Bengio et al. 2013)."""
    return features + (codes - features).detach()


def rotate(features: Tensor, codes: Tensor, dim: int) -> Tensor:
    """The value of `codes`, as a rotation and scaling of `features` (Fifty et al. 2024, section 4).

    The gradient passes through  (‖q‖ / ‖e‖) R e  with R and the scale held constant. R is the
    rotation of e onto the direction of q: so the gradient keeps its angle to the code vector, and
    is multiplied by ‖q‖ / ‖e‖. Where a feature vector is 0 it passes straight through.

    dim: the dimension of the vectors.
    """
    with torch.no_grad():
        e_norm, q_norm = (x.norm(dim=dim, keepdim=True) for x in (features, codes))
        unit_e, unit_q = (F.normalize(x, dim=dim) for x in (features, codes))
        # R = I - 2 r rᵀ + 2 q̂ êᵀ with r halfway between ê and q̂ (equation 4).
        middle = F.normalize(unit_e + unit_q, dim=dim)
        no_direction = e_norm < _MIN_NORM
        middle = middle.masked_fill(no_direction, 0.0)
        scale = (q_norm / e_norm).masked_fill(no_direction, 1.0)
    along_middle = (features * middle).sum(dim, keepdim=True)
    along_e = (features * unit_e).sum(dim, keepdim=True)
    rotated = scale * (features - 2 * along_middle * middle + 2 * along_e * unit_q)
    return straight_through(rotated, codes)


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Summed over all dimensions but the batch: [batch]."""
    return (a - b).square().flatten(1).sum(1)


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Turns autocast off: in half precision the nearest code may not be found."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
