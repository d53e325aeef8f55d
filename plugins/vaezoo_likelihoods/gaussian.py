"""Gaussian likelihoods with a fixed or a learned scale."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution, Normal

from vaezoo.models.distributions import IsotropicNormal

from .independent import Standardized
from .location_scale import LocationScaleLikelihood


class GaussianLikelihood(LocationScaleLikelihood):
    """Each value is Gaussian around a mean in [0, 1], or any mean for real data.

    options.scale: standard deviation in units of the [0, 1] range or of standardised values.
    Fixed, it makes a weighted mean squared error; learned, it is the sigma-VAE (Rybkin et al.
    2020, section 3.2).
    """

    def forward(self, params: Tensor) -> Distribution:
        mean, scale = self.loc_and_scale(params)
        if self.scale_mode == "shared":
            return IsotropicNormal(mean, scale, mean.dim() - 1, self.log_det)
        normal = Normal(mean, scale, validate_args=False)
        return Standardized(normal, mean.dim() - 1, self.log_det)
