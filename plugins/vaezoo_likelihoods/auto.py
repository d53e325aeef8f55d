"""The likelihood that follows from the domain of the data."""

from __future__ import annotations

from vaezoo import DataSpec, Likelihood

from .bernoulli import BernoulliLikelihood
from .gaussian import GaussianLikelihood
from .negative_binomial import NegativeBinomialLikelihood
from .part_options import DispersionOptions, LearnedScaleOptions, ScaleOptions


def auto_likelihood(options: ScaleOptions, data: DataSpec) -> Likelihood:
    """bernoulli for binary data, negative_binomial for counts, else gaussian_learned."""
    if data.domain == "binary":
        return BernoulliLikelihood(options, data)
    if data.domain == "count":
        return NegativeBinomialLikelihood(DispersionOptions(), data)
    return GaussianLikelihood(LearnedScaleOptions(scale=options.scale), data)
