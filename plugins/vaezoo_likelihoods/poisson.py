"""The Poisson likelihood of counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from vaezoo import DataSpec, Likelihood, Options
from vaezoo.models.distributions import to_float32

from .gamma import HALF_LOG_2PI, deviance, stirling_remainder
from .independent import IndependentValues


class Poisson(IndependentValues):
    """Independent counts with given means, exact in float32 for large counts too.

    log_rate: the logarithm of the mean, [batch, *event].
    """

    def __init__(self, log_rate: Tensor) -> None:
        super().__init__(log_rate)
        self.log_rate = log_rate

    def value_log_prob(self, value: Tensor) -> Tensor:
        x = value.clamp(min=1.0)
        log_x = x.log()
        constant = 0.5 * log_x + HALF_LOG_2PI + stirling_remainder(x)
        positive = -deviance(x, self.log_rate - log_x) - constant
        return torch.where(value < 0.5, -self.log_rate.exp(), positive)

    @property
    def mean(self) -> Tensor:
        return self.log_rate.exp()

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            return torch.poisson(self.mean.expand(self.extended(sample_shape)))


class CountLikelihood(Likelihood):
    """Base of likelihoods of counts: the decoder gives the logarithm of a mean."""

    normalised_on = ("count",)
    is_discrete = True

    def __init__(self, options: Options, data: DataSpec) -> None:
        super().__init__(options, data)
        largest = 0.0 if data.statistics is None else data.statistics.maximum
        self.log_mean_range = (-15.0, max(15.0, 1 + math.log1p(largest)))
        """Limits that only keep means from 0 and from infinity."""

    def log_mean(self, raw: Tensor) -> Tensor:
        """The logarithm of the mean within limits, in float32."""
        return to_float32(raw).clamp(*self.log_mean_range)


class PoissonLikelihood(CountLikelihood):
    """Each value is a count with mean exp(raw); its variance is its mean."""

    def forward(self, params: Tensor) -> Distribution:
        return Poisson(self.log_mean(params))
