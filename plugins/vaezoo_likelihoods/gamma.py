"""Logarithms of gamma functions without the cancellation of large terms.

log Γ(10⁶) is 10⁷, which float32 holds to within 1. Differences of such numbers are computed from
Stirling's formula instead, of which only the remainder is needed (Loader 2000, "Fast and accurate
computation of binomial probabilities").
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

_LARGE = 8.0


def stirling_remainder(x: Tensor) -> Tensor:
    """log Γ(x) - (x - ½) log x + x - ½ log 2π for x > 0; it falls from infinity to 0."""
    small, large = x.clamp(max=_LARGE), x.clamp(min=_LARGE)
    exact = torch.lgamma(small) - (small - 0.5) * small.log() + small - HALF_LOG_2PI
    inverse = 1 / large.square()
    series = (1 / 12 - (1 / 360 - (1 / 1260 - inverse / 1680) * inverse) * inverse) / large
    return torch.where(x < _LARGE, exact, series)


def deviance(x: Tensor, log_ratio: Tensor) -> Tensor:
    """m - x - x log(m / x), which is never below 0. log_ratio: log(m / x). x > 0."""
    return x * (torch.expm1(log_ratio) - log_ratio)
