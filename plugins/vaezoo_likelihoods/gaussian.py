"""The likelihoods `gaussian` and `gaussian_learned`."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution, Normal

from vaezoo import DataSpec, Likelihood
from vaezoo.models.likelihoods import GaussianLikelihood

from .independent import Standardized
from .location_scale import LocationScaleLikelihood
from .options import LearnedScaleOptions, ScaleOptions


class GaussianScalesLikelihood(LocationScaleLikelihood):
    """Each value is Gaussian, with a scale of its own.

    options.scale: standard deviation at the beginning, in units of the [0, 1] range or of
    standardised values. With a scale for each pixel, it is the sigma-VAE's per-pixel variant
    (Rybkin et al. 2020, section 3).
    """

    def forward(self, params: Tensor) -> Distribution:
        mean, scale = self.loc_and_scale(params)
        normal = Normal(mean, scale, validate_args=False)
        return Standardized(normal, mean.dim() - 1, self.log_det)


def gaussian(options: ScaleOptions, data: DataSpec) -> Likelihood:
    """A Gaussian likelihood with a fixed scale."""
    return GaussianLikelihood(data, options.scale, learned=False)


def gaussian_learned(options: LearnedScaleOptions, data: DataSpec) -> Likelihood:
    """A Gaussian likelihood with one learned scale, or with one for each value."""
    if options.scale_mode == "shared":
        return GaussianLikelihood(data, options.scale, learned=True)
    return GaussianScalesLikelihood(options, data)
