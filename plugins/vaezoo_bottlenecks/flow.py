"""A Gaussian posterior that is moved by steps of an invertible flow (Rezende & Mohamed 2015)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor
from torch.distributions import Normal
from torch.nn import functional as F
from torch.types import _size

from vaezoo.models.distributions import to_float32

from .latent import LatentBottleneck, VectorDistribution
from .options import FlowOptions

_SMALLEST_SLOPE = 1e-3
"""No derivative of a step is smaller, so that float32 is enough to invert it."""
_SHIFT = math.log(math.e - 1)


class FlowStep(Protocol):
    """An invertible map of vectors [..., n], with parameters of its own for each of them."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The next vectors, [..., n], and log |det dz'/dz|, [...]."""

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors that `forward` maps to these, and log |det| of the forward direction."""


class FlowPosterior(VectorDistribution):
    """The distribution of f_K(...f_1(z_0)) for a diagonal Gaussian z_0.

    The log-density is that of z_0 minus the log-determinants (Rezende & Mohamed 2015, equation 7).
    For the last sample it is known from sampling; any other value is inverted. Mean and variance
    have no closed form; `mode` is the flow of the Gaussian's mean.

    loc, scale: of z_0, [batch, *grid, n] each. steps: f_1 to f_K.
    """

    def __init__(self, loc: Tensor, scale: Tensor, steps: Sequence[FlowStep]) -> None:
        super().__init__(loc.shape)
        self.base, self.steps = Normal(loc, scale, validate_args=False), steps

    @property
    def mode(self) -> Tensor:
        z = self.base.loc
        for step in self.steps:
            z, _ = step.forward(z)
        return self.to_latent(z)

    def draw(self, sample_shape: _size) -> tuple[Tensor, Tensor]:
        z = self.base.rsample(sample_shape)
        log_density = self.base.log_prob(z).sum(-1)
        for step in self.steps:
            z, log_det = step.forward(z)
            log_density = log_density - log_det
        return z, log_density

    def density(self, vectors: Tensor) -> Tensor:
        log_dets = vectors.new_zeros(vectors.shape[:-1])
        for step in reversed(self.steps):
            vectors, log_det = step.inverse(vectors)
            log_dets = log_dets + log_det
        return self.base.log_prob(vectors).sum(-1) - log_dets


class FlowBottleneck(LatentBottleneck):
    """q(z|x) is a flow whose parameters the encoder gives for each example; p(z) = N(0, 1).

    On a grid, each position has a flow of its own over its channels. The KL has no closed form:
    the rate is its single-sample estimate (Rezende & Mohamed 2015, equation 15).
    """

    options: FlowOptions

    def __init__(self, options: FlowOptions, grid: tuple[int, ...] = ()) -> None:
        super().__init__(options, grid)
        self.num_params = 2 * options.num_latents + options.flow_steps * self.step_params

    @property
    @abstractmethod
    def step_params(self) -> int:
        """How many numbers a step takes for each vector."""

    @abstractmethod
    def step(self, params: Tensor) -> FlowStep:
        """A step. params: [batch, *grid, step_params]; zeros make it the identity."""

    def forward(self, params: Tensor) -> FlowPosterior:
        n = 2 * self.options.num_latents
        loc, scale = (x.movedim(1, -1) for x in self.mean_and_std(params[:, :n]))
        of_steps = to_float32(params[:, n:]).movedim(1, -1)
        parts = of_steps.split(self.step_params, -1) if self.options.flow_steps else ()
        return FlowPosterior(loc, scale, [self.step(part) for part in parts])


def positive(raw: Tensor) -> Tensor:
    """A softplus that is 1 at 0, and nowhere below the smallest slope of a step."""
    return _SMALLEST_SLOPE + (1 - _SMALLEST_SLOPE) * F.softplus(raw + _SHIFT)
