"""The Bernoulli likelihood of binary data."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Bernoulli, Distribution

from vaezoo import Likelihood
from vaezoo.models.distributions import independent, to_float32


class BernoulliLikelihood(Likelihood):
    """Each value is 1 with probability sigmoid(params) (Kingma & Welling 2013, appendix C.1).

    On grey values in (0, 1) this is the usual cross-entropy, not a normalised likelihood.
    """

    normalised_on = ("binary",)

    def forward(self, params: Tensor) -> Distribution:
        logits = to_float32(params)
        return independent(Bernoulli(logits=logits, validate_args=False), logits.dim() - 1)
