"""The continuous Bernoulli likelihood of values in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from vaezoo import Likelihood
from vaezoo.models.distributions import to_float32

from .independent import IndependentValues

_SERIES = 0.5
"""Below this |logit| / 2, functions with a removable singularity at 0 are computed as series."""


class ContinuousBernoulli(IndependentValues):
    """Independent values in [0, 1] with density C(λ) λ^x (1 - λ)^(1 - x).

    Loaiza-Ganem & Cunningham 2019, equations 5 to 8. In terms of the logit η = log(λ / (1 - λ)) the
    density is exp(ηx - A(η)), A(η) = log((exp(η) - 1) / η); nothing is singular at λ = ½.

    logits: η, [batch, *event].
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits)
        self.logits = logits

    def value_log_prob(self, value: Tensor) -> Tensor:
        # A(η) = η/2 + log(sinh(η/2) / (η/2))
        return self.logits * (value - 0.5) - _log_sinhc(self.logits / 2)

    @property
    def mean(self) -> Tensor:
        """A'(η), the mean, which is not λ."""
        return (0.5 + 0.5 * _langevin(self.logits / 2)).clamp(0.0, 1.0)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Samples by the inverse of the distribution function."""
        with torch.no_grad():
            size = self.logits.abs()
            u = torch.rand(self.extended(sample_shape), dtype=size.dtype, device=size.device)
            # For a logit of -size; the sample for +size is its mirror image.
            safe = size.clamp(min=1e-3)
            exact = -torch.log1p(u * torch.expm1(-safe)) / safe
            low = torch.where(size < 1e-3, u - 0.5 * size * u * (1 - u), exact)
            return torch.where(self.logits > 0, 1 - low, low).clamp(0.0, 1.0)


def _log_sinhc(half: Tensor) -> Tensor:
    """log(sinh(h) / h), an even function."""
    h = half.abs()
    safe = h.clamp(min=_SERIES)
    exact = safe + torch.log1p(-torch.exp(-2 * safe)) - torch.log(2 * safe)
    s = half.clamp(-_SERIES, _SERIES).square()
    series = s * (1 / 6 - s * (1 / 180 - s * (1 / 2835 - s * (1 / 37800 - s / 467775))))
    return torch.where(h < _SERIES, series, exact)


def _langevin(half: Tensor) -> Tensor:
    """coth(h) - 1/h, an odd function."""
    h = half.abs()
    safe = h.clamp(min=_SERIES)
    exact = half.sign() * (1 / torch.tanh(safe) - 1 / safe)
    small = half.clamp(-_SERIES, _SERIES)
    s = small.square()
    last = 1 / 4725 - s * (2 / 93555 - s * 1382 / 638512875)
    series = small * (1 / 3 - s * (1 / 45 - s * (2 / 945 - s * last)))
    return torch.where(h < _SERIES, series, exact)


class ContinuousBernoulliLikelihood(Likelihood):
    """Each value has a continuous Bernoulli distribution with the decoder's output as its logit.

    It is normalised on [0, 1], which a Bernoulli is not (Loaiza-Ganem & Cunningham 2019).
    """

    normalised_on = ("unit",)

    def forward(self, params: Tensor) -> Distribution:
        return ContinuousBernoulli(to_float32(params))
