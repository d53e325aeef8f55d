"""What the bottlenecks share: a latent vector, or one at each position of a grid."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from vaezoo import Bottleneck, GaussianOptions
from vaezoo.models.distributions import BaseDistribution, to_float32


class LatentBottleneck(Bottleneck):
    """A bottleneck of `latent_dim` values, or of as many channels on the network's grid.

    OptionError for `--latent-grid` with a network that has no grid.
    """

    options: GaussianOptions

    def __init__(self, options: GaussianOptions, grid: tuple[int, ...] = ()) -> None:
        super().__init__(options, options.choose_grid(grid))
        self.latent_shape = (options.num_latents, *self.grid)

    def mean_and_std(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation from means and log-variances, the two halves of dim 1."""
        loc, raw = to_float32(params).chunk(2, 1)
        return loc, torch.exp(0.5 * raw.clamp(*self.options.logvar_range))


class LocationScaleBottleneck(LatentBottleneck):
    """Independent values of one family with a location and a scale, as posterior and as prior.

    The encoder gives means and log-variances. The prior has mean 0 and variance 1.
    """

    def __init__(self, options: GaussianOptions, grid: tuple[int, ...] = ()) -> None:
        super().__init__(options, grid)
        self.num_params = 2 * options.num_latents

    @abstractmethod
    def distribution(self, mean: Tensor, std: Tensor) -> Distribution:
        """The family with this mean and standard deviation, [..., *latent_shape]."""

    def forward(self, params: Tensor) -> Distribution:
        return self.distribution(*self.mean_and_std(params))

    def prior(self) -> Distribution:
        zeros = self._origin.expand(self.latent_shape)
        return self.distribution(zeros, torch.ones_like(zeros))


class VectorDistribution(BaseDistribution):
    """Independent random vectors of n values, one at each position of a grid, or only one.

    A subclass works on vectors: [..., *grid, n]. Latents are [..., n, *grid], with the values as
    channels, as the decoder takes them. The log-density of the last sample is known from sampling:
    `log_prob` returns it for this tensor without any inversion, with gradients.

    shape: (batch, *grid, n), of the vectors.
    """

    has_rsample = True

    def __init__(self, shape: torch.Size) -> None:
        batch, *grid, n = shape
        super().__init__((batch,), (n, *grid))
        self._last_sample: tuple[Tensor, Tensor] | None = None

    @abstractmethod
    def draw(self, sample_shape: _size) -> tuple[Tensor, Tensor]:
        """Vectors, [*sample_shape, batch, *grid, n], and the log-density of each."""

    @abstractmethod
    def density(self, vectors: Tensor) -> Tensor:
        """The log-density of any vectors: [..., batch, *grid, n] -> [..., batch, *grid]."""

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        vectors, log_density = self.draw(sample_shape)
        z = self.to_latent(vectors)
        self._last_sample = z, self.sum_over_grid(log_density)
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density in nats, a sum over the grid: [..., n, *grid] -> [...]."""
        if self._last_sample is not None and value is self._last_sample[0]:
            return self._last_sample[1]
        return self.sum_over_grid(self.density(value.movedim(-len(self.event_shape), -1)))

    def to_latent(self, vectors: Tensor) -> Tensor:
        """[..., *grid, n] -> [..., n, *grid]."""
        return vectors.movedim(-1, -len(self.event_shape))

    def sum_over_grid(self, values: Tensor) -> Tensor:
        """[..., *grid] -> [...]."""
        grid_dims = len(self.event_shape) - 1
        return values.flatten(-grid_dims).sum(-1) if grid_dims else values
