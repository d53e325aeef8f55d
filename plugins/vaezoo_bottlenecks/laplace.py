"""Laplace posterior and prior: most latents are near their location, a few are far from it."""

from __future__ import annotations

import math

from torch import Tensor
from torch.distributions import Distribution, Laplace

from vaezoo.models.distributions import independent

from .latent import LocationScaleBottleneck


class LaplaceBottleneck(LocationScaleBottleneck):
    """q(z|x) = Laplace(mean(x), scale(x)), p(z) = Laplace(0, 1/√2), independent over the latents.

    The prior has variance 1, as the standard Gaussian: so weights of losses, `--logvar-range` and
    `--temperature` mean the same for both. Another scale would be the same model, as the decoder
    can undo it. The encoder gives log-variances; the scale is the standard deviation over √2.

    The KL is in closed form. The prior is a sparse one (Olshausen & Field 1996, equation 5).
    """

    def distribution(self, mean: Tensor, std: Tensor) -> Distribution:
        laplace = Laplace(mean, std / math.sqrt(2), validate_args=False)
        return independent(laplace, len(self.latent_shape))
