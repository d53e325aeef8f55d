"""Bernoulli and Gaussian likelihoods, and the choice between them by the data's domain."""

from __future__ import annotations

from vaezoo import DataSpec, Likelihood, Options
from vaezoo.models.likelihoods import BernoulliLikelihood, GaussianLikelihood

from .options import ScaleOptions


def bernoulli(options: Options, data: DataSpec) -> Likelihood:
    """A Bernoulli likelihood."""
    return BernoulliLikelihood(data)


def gaussian(options: ScaleOptions, data: DataSpec) -> Likelihood:
    """A Gaussian likelihood of a fixed scale."""
    return GaussianLikelihood(data, options.scale, learned=False)


def gaussian_learned(options: ScaleOptions, data: DataSpec) -> Likelihood:
    """A Gaussian likelihood of one learned scale."""
    return GaussianLikelihood(data, options.scale, learned=True)


def by_domain(options: ScaleOptions, data: DataSpec) -> Likelihood:
    """A Bernoulli likelihood for binary data, else a Gaussian one of a learned scale."""
    return bernoulli(options, data) if data.domain == "binary" else gaussian_learned(options, data)
