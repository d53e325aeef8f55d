"""The likelihood `bernoulli`, of binary data."""

from __future__ import annotations

from vaezoo import DataSpec, Likelihood, Options
from vaezoo.models.likelihoods import BernoulliLikelihood


def bernoulli(options: Options, data: DataSpec) -> Likelihood:
    """Each value is 0 or 1 (Kingma & Welling 2013, appendix C.1)."""
    return BernoulliLikelihood(data)
