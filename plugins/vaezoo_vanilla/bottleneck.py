"""The Gaussian latent of a variational autoencoder (Kingma & Welling 2013): read this first."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution

from vaezoo import Bottleneck, GaussianOptions
from vaezoo.models.distributions import gaussian_from_params


class GaussianBottleneck(Bottleneck):
    """q(z|x) = N(mean(x), diag(variance(x))), p(z) = N(0, 1).

    The encoder gives mean and log-variance. With the ELBO as the loss this is the autoencoder of
    Kingma & Welling (2013, section 3). As a grid it is the latent of Rombach et al. (2021).
    """

    options: GaussianOptions

    def __init__(self, options: GaussianOptions, grid: tuple[int, ...] = ()) -> None:
        super().__init__(options, options.choose_grid(grid))
        self.num_params = 2 * options.num_latents
        self.latent_shape = (options.num_latents, *self.grid)

    def forward(self, params: Tensor) -> Distribution:
        return gaussian_from_params(params, logvar_range=self.options.logvar_range)
