"""The likelihood `auto`, which follows from the domain of the data."""

from __future__ import annotations

from vaezoo import DataSpec, Likelihood
from vaezoo.models.likelihoods import BernoulliLikelihood, GaussianLikelihood

from .negative_binomial import NegativeBinomialLikelihood
from .options import DispersionOptions, ScaleOptions


def auto_likelihood(options: ScaleOptions, data: DataSpec) -> Likelihood:
    """bernoulli for binary data, negative_binomial for counts, else gaussian_learned."""
    if data.domain == "binary":
        return BernoulliLikelihood(data)
    if data.domain == "count":
        return NegativeBinomialLikelihood(DispersionOptions(), data)
    return GaussianLikelihood(data, options.scale, learned=True)
