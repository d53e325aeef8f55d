"""The beta likelihood of values in [0, 1]."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Beta, Distribution
from torch.nn import functional as F
from torch.types import _size

from vaezoo import Likelihood
from vaezoo.models.distributions import to_float32

from .gamma import HALF_LOG_2PI, stirling_remainder
from .independent import IndependentValues

_LEVELS = 256

_LOG_PRECISION_LIMIT = math.log(0.25 * 256**2)
"""At this precision the standard deviation around a mean of ½ is one level, 1/256."""


class SqueezedBeta(IndependentValues):
    """Independent values x of which y = (255 x + ½) / 256 has a beta distribution.

    The ends 0 and 1 of the data, where a beta density is 0 or infinite, become y = 1/512 and
    511/512 (Smithson & Verkuilen 2006, section 4.1). The density is that of x, whose support is
    [-1/510, 1 + 1/510]; samples are clamped to [0, 1].

    mean: of x, in [0, 1]. precision: the sum of the beta's two parameters, above 0; 2 at a mean of
    ½ is uniform. [batch, *event] each.
    """

    def __init__(self, mean: Tensor, precision: Tensor) -> None:
        super().__init__(mean)
        self._mean = mean
        self.center = (mean * (_LEVELS - 1) + 0.5) / _LEVELS
        self.precision = precision

    @property
    def mean(self) -> Tensor:
        return self._mean

    def sample(self, sample_shape: _size = ()) -> Tensor:
        alpha, beta = self.precision * self.center, self.precision * (1 - self.center)
        with torch.no_grad():
            y = Beta(alpha, beta, validate_args=False).sample(torch.Size(sample_shape))
            return ((y * _LEVELS - 0.5) / (_LEVELS - 1)).clamp(0.0, 1.0)

    def value_log_prob(self, value: Tensor) -> Tensor:
        y = (value * (_LEVELS - 1) + 0.5) / _LEVELS
        p, center = self.precision, self.center
        alpha, beta = p * center, p * (1 - center)
        # -log B(alpha, beta) by Stirling's formula, together with the powers of y and 1 - y.
        powers = alpha * (y / center).log() + beta * ((1 - y) / (1 - center)).log()
        constant = 0.5 * (alpha.log() + beta.log() - p.log()) - HALF_LOG_2PI
        rest = stirling_remainder(p) - stirling_remainder(alpha) - stirling_remainder(beta)
        jacobian = math.log((_LEVELS - 1) / _LEVELS)
        return powers + constant + rest - y.log() - torch.log1p(-y) + jacobian


class BetaLikelihood(Likelihood):
    """Each value has a beta distribution whose mean and precision the decoder predicts.

    The mean is sigmoid(raw) of the first half of the channels; the precision is 2 exp(raw) of the
    second half while it is small, and stays below 16,384, where the standard deviation is a grey
    level. With raw values of 0 it is uniform.
    """

    normalised_on = ("unit",)

    @property
    def param_shape(self) -> tuple[int, ...]:
        return (2 * self.data.channels, *self.data.spatial_shape)

    def forward(self, params: Tensor) -> Distribution:
        raw_mean, raw_precision = to_float32(params).chunk(2, 1)
        # limit - softplus(limit - raw), moved so that raw = 0 gives a precision of 2
        start = _LOG_PRECISION_LIMIT - math.log(2)
        offset = math.log(math.expm1(start))
        log_precision = _LOG_PRECISION_LIMIT - F.softplus(offset - raw_precision.clamp(min=-10.0))
        return SqueezedBeta(torch.sigmoid(raw_mean), log_precision.exp())
