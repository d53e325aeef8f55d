"""The Laplace likelihood: absolute errors."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution, Laplace

from .independent import Standardized
from .location_scale import LocationScaleLikelihood


class LaplaceLikelihood(LocationScaleLikelihood):
    """Each value has the density exp(-|x - loc| / scale) / (2 scale).

    Its negative logarithm is a weighted absolute error. options.scale: the scale parameter; the
    standard deviation is √2 times it.
    """

    def forward(self, params: Tensor) -> Distribution:
        loc, scale = self.loc_and_scale(params)
        laplace = Laplace(loc, scale, validate_args=False)
        return Standardized(laplace, loc.dim() - 1, self.log_det)
