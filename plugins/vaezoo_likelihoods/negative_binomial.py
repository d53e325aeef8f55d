"""The negative binomial likelihood of counts whose variance is larger than their mean."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.types import _size

from vaezoo import DataSpec
from vaezoo.models.distributions import to_float32

from .gamma import HALF_LOG_2PI, deviance, stirling_remainder
from .independent import IndependentValues
from .options import DispersionOptions
from .poisson import CountLikelihood

_LOG_THETA_RANGE = (-10.0, 15.0)
"""Limits of log θ; at the upper one the distribution is a Poisson distribution."""


class NegativeBinomial(IndependentValues):
    """Independent counts with a mean μ and a variance of μ + μ² / θ.

    It is a Poisson distribution whose rate has a gamma distribution with shape θ. Exact in float32
    for large counts and for a large θ too.

    log_mean: log μ, [batch, *event]. log_theta: the logarithm of the inverse dispersion θ,
        broadcast against it.
    """

    def __init__(self, log_mean: Tensor, log_theta: Tensor) -> None:
        super().__init__(log_mean)
        self.log_mean = log_mean
        self.log_theta = log_theta.clamp(*_LOG_THETA_RANGE)

    def value_log_prob(self, value: Tensor) -> Tensor:
        mean, theta = self.log_mean.exp(), self.log_theta.exp()
        none = -theta * torch.log1p(mean / theta)
        x = value.clamp(min=1.0)
        log_x, total = x.log(), x + theta
        # log((x + θ) / (μ + θ)), without cancellation where the two are nearly equal
        change = (x - mean) / (mean + theta)
        near = torch.log1p(change.clamp(-0.5, 0.5))
        far = total.log() - (mean + theta).log()
        log_ratio = torch.where(change.abs() < 0.5, near, far)
        deviances = deviance(theta, log_ratio) + deviance(x, self.log_mean - log_x + log_ratio)
        rest = stirling_remainder(total) - stirling_remainder(theta) - stirling_remainder(x)
        constant = 0.5 * (self.log_theta - total.log() - log_x) - HALF_LOG_2PI
        return torch.where(value < 0.5, none, rest + constant - deviances)

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp()

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            shape = self.extended(sample_shape)
            theta = self.log_theta.exp().expand(shape)
            return torch.poisson(torch._standard_gamma(theta) / theta * self.mean)


class NegativeBinomialLikelihood(CountLikelihood):
    """Each value is a count with mean exp(raw) and an inverse dispersion θ.

    As for gene expression (Lopez et al. 2018, equation 5), without size factors: the mean is of
    the counts as they are. A learned θ starts at 1. If the decoder predicts it, log θ is the last
    part of the channels.
    """

    parts_of_mean: ClassVar[int] = 1
    """How many parameters it has for each value besides θ."""
    log_theta: nn.Parameter | None

    def __init__(self, options: DispersionOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        self.log_theta = None
        if options.dispersion_mode != "predicted":
            shape = data.shape if options.dispersion_mode == "per_value" else ()
            self.log_theta = nn.Parameter(torch.zeros(shape))

    @property
    def param_shape(self) -> tuple[int, ...]:
        parts = self.parts_of_mean + (self.log_theta is None)
        return (parts * self.data.channels, *self.data.spatial_shape)

    def split(self, params: Tensor) -> tuple[NegativeBinomial, Tensor]:
        """The negative binomial, and what is left of the channels in front of a predicted θ."""
        channels = self.data.channels
        params = to_float32(params)
        raw, rest = params[:, :channels], params[:, channels:]
        log_theta = rest[:, -channels:] if self.log_theta is None else self.log_theta
        return NegativeBinomial(self.log_mean(raw), log_theta), rest[:, :channels]

    def forward(self, params: Tensor) -> Distribution:
        return self.split(params)[0]
