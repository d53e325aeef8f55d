"""Bottleneck, the interface of what lies between encoder and decoder: posterior and prior."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo.models.distributions import standard_normal
from vaezoo.options import Options


class Codebook(Protocol):
    """What a bottleneck with codes offers to a prior over them.

    A latent is a grid of code vectors, [code_dim, *grid]. At each position it has one code of each
    codebook. Indices are [*grid], and [codebooks, *grid] if there are several codebooks. A sequence
    (of the scales of a pyramid, say) is a grid of one dimension.

    num_codes: the number of codes in a codebook. codebooks: the number of codebooks. code_dim: the
    size of a code vector; of several codebooks, of all their vectors together.
    """

    num_codes: int
    code_dim: int
    codebooks: int

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """Code vectors of indices: int64 [..., (codebooks,) *grid] -> [..., code_dim, *grid]."""

    def codes_to_indices(self, z: Tensor) -> Tensor:
        """Indices of the codes nearest to z: the inverse of `indices_to_codes`."""


class Bottleneck(nn.Module, ABC):
    """The family of the posterior q(z|x), and the prior p(z).

    A subclass sets `num_params` and `latent_shape`, and defines `forward`.

    num_params: the values (of a vector) or channels (of a grid) that it needs from the encoder.
    latent_shape: the shape of a latent, the event shape of posterior and prior.
    grid: () for one vector, else the spatial size of the grid of features that it works on.
    out_features: the values or channels that the decoder gets; by default latent_shape[0].
    """

    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of vaezoo.testing that fail for a good reason: name -> the reason."""

    num_params: int
    latent_shape: tuple[int, ...]

    def __init__(self, options: Options, grid: tuple[int, ...] = ()) -> None:
        """Options of the bottleneck. grid: the network's `latent_grid`, () if it has none.

        A bottleneck of one vector, whatever the network, sets `self.grid = ()`.
        """
        super().__init__()
        self.options = options
        self.grid = grid
        self._origin: Tensor
        self.register_buffer("_origin", torch.zeros(()), persistent=False)

    @property
    def out_features(self) -> int:
        return self.latent_shape[0]

    @property
    def codebook(self) -> Codebook | None:
        """Its codes, for a prior over them; None where the latents are no codes."""
        return None

    @abstractmethod
    def forward(self, params: Tensor) -> Distribution:
        """The posterior: [batch, num_params, *grid] -> event shape `latent_shape`."""

    def prior(self) -> Distribution:
        """The prior p(z), batch shape (): a standard Gaussian, unless a subclass has another."""
        return standard_normal(self._origin, self.latent_shape)

    def decoder_input(self, z: Tensor) -> Tensor:
        """What the decoder gets: [batch, *latent_shape] -> [batch, out_features, *grid]."""
        return z

    def on_train_step(self, step: Tensor) -> None:
        """A hook before each training step; step: see `BaseVAE.on_train_step`."""
        return
