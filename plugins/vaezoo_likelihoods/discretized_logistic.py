"""The discretized logistic likelihood of 8-bit levels."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional as F
from torch.types import _size

from vaezoo import DataSpec

from .independent import IndependentValues
from .levels import LEVELS, LevelsLikelihood, to_levels
from .location_scale import LocationScaleLikelihood
from .options import LearnedScaleOptions

LOG_SCALE_RANGE = (-7.0, 7.0)
"""Limits of log-scales where values span [-1, 1]; the lower one is that of Salimans et al."""


def to_symmetric(value: Tensor, levels: int = LEVELS) -> Tensor:
    """Values in [0, 1] as the nearest levels, in [-1, 1]."""
    return to_levels(value, levels) * (2 / (levels - 1)) - 1


def level_log_prob(u: Tensor, loc: Tensor, log_scale: Tensor, levels: int = LEVELS) -> Tensor:
    """The log-probability that a logistic variable falls into the bin of a level.

    u: the level, in [-1, 1]. loc, log_scale: of the logistic in the same units. Bins have the width
    2 / (levels - 1) and are centred at the levels; the first and the last are open (Salimans et al.
    2017, equation 2). No probability is rounded to 0:
    log(σ(a) - σ(b)) = log σ(a) + log σ(-b) + log(1 - exp(b - a)).
    """
    half = 1 / (levels - 1)
    inverse = torch.exp(-log_scale)
    log_upper = F.logsigmoid((u - loc + half) * inverse)
    log_lower = F.logsigmoid((loc - u + half) * inverse)
    log_width = torch.log(-torch.expm1(-2 * half * inverse))
    first, last = u < half - 1, u > 1 - half
    zero = torch.zeros((), dtype=u.dtype, device=u.device)
    inside = torch.where(first | last, zero, log_width)
    return torch.where(last, zero, log_upper) + torch.where(first, zero, log_lower) + inside


def clamped_mean(loc: Tensor, log_scale: Tensor) -> Tensor:
    """The mean of a logistic variable that is clamped to [-1, 1].

    The mean of the levels is the midpoint rule for the integral that this is: at most half a level
    away, and much nearer unless the scale is far below a level.
    """
    scale = log_scale.exp()
    above = scale * (F.softplus((loc + 1) / scale) - F.softplus((loc - 1) / scale))
    return (above - 1).clamp(-1.0, 1.0)


def sample_levels(loc: Tensor, log_scale: Tensor, levels: int = LEVELS) -> Tensor:
    """A draw of the level, in [-1, 1], in the shape of `loc`."""
    eps = torch.finfo(loc.dtype).eps
    uniform = torch.rand_like(loc).clamp(eps, 1 - eps)
    drawn = loc + log_scale.exp() * torch.logit(uniform)
    return to_symmetric((drawn + 1) / 2, levels)


class DiscretizedLogistic(IndependentValues):
    """Independent values k / (levels - 1): logistic variables, rounded to levels.

    loc, log_scale: where values span [-1, 1]; loc is [batch, *event].
    """

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int = LEVELS) -> None:
        super().__init__(loc)
        self.loc = loc
        self.log_scale = log_scale.clamp(*LOG_SCALE_RANGE)
        self.levels = levels

    def value_log_prob(self, value: Tensor) -> Tensor:
        u = to_symmetric(value, self.levels)
        return level_log_prob(u, self.loc, self.log_scale, self.levels)

    @property
    def mean(self) -> Tensor:
        return (clamped_mean(self.loc, self.log_scale) + 1) / 2

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            loc = self.loc.expand(self.extended(sample_shape))
            return (sample_levels(loc, self.log_scale, self.levels) + 1) / 2


class DiscretizedLogisticLikelihood(LocationScaleLikelihood, LevelsLikelihood):
    """Each value is a logistic variable, rounded to one of 256 levels (Kingma et al. 2016, sec. 5).

    Its location is not squashed: (raw + 1) / 2, so that a location outside of [0, 1] gives the
    first or the last level a probability near 1. options.scale: the logistic's scale parameter,
    where values span [0, 1].
    """

    normalised_on = ("unit",)

    def __init__(self, options: LearnedScaleOptions, data: DataSpec) -> None:
        super().__init__(options, data)

    def forward(self, params: Tensor) -> Distribution:
        loc, log_scale = self.raw_and_log_scale(params)
        return DiscretizedLogistic(loc, log_scale + math.log(2))
