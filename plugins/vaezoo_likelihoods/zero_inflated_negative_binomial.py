"""The zero-inflated negative binomial likelihood: counts with more zeros than it explains."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional as F
from torch.types import _size

from .independent import IndependentValues
from .negative_binomial import NegativeBinomial, NegativeBinomialLikelihood


class ZeroInflatedNegativeBinomial(IndependentValues):
    """Independent counts that are 0 with probability π, else negative binomial.

    counts: the negative binomial distribution. zero_logits: log(π / (1 - π)), [batch, *event].
    """

    def __init__(self, counts: NegativeBinomial, zero_logits: Tensor) -> None:
        super().__init__(counts.log_mean)
        self.counts = counts
        self.zero_logits = zero_logits

    def value_log_prob(self, value: Tensor) -> Tensor:
        counted = F.logsigmoid(-self.zero_logits) + self.counts.value_log_prob(value)
        zero = torch.logaddexp(F.logsigmoid(self.zero_logits), counted)
        return torch.where(value < 0.5, zero, counted)

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(-self.zero_logits) * self.counts.mean

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            counts = self.counts.sample(sample_shape)
            return counts * (torch.rand_like(counts) >= torch.sigmoid(self.zero_logits))


class ZeroInflatedNegativeBinomialLikelihood(NegativeBinomialLikelihood):
    """Each value is 0 with a predicted probability, else a count of a negative binomial.

    Lopez et al. 2018, equations 5 and 6. The decoder gives the logarithm of the negative binomial's
    mean, then the logit of the probability of an extra zero.
    """

    parts_of_mean = 2

    def forward(self, params: Tensor) -> Distribution:
        return ZeroInflatedNegativeBinomial(*self.split(params))
