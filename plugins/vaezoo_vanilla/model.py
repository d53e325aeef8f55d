"""A convolutional variational autoencoder (Kingma & Welling 2013): the one to read and to copy."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution

from vaezoo import BaseVAE, DataSpec
from vaezoo.models.distributions import gaussian_from_params
from vaezoo.models.likelihoods import make_likelihood
from vaezoo.nn import make_decoder, make_encoder

from .plugin import VanillaOptions


class VanillaVAE(BaseVAE):
    """q(z|x) = N(mean(x), diag(variance(x))), p(z) = N(0, 1), p(x|z) as chosen.

    Trained with the ELBO it is the autoencoder of Kingma & Welling (2013, section 3), with
    convolutions for its networks.
    """

    options: VanillaOptions
    min_batch_size = 2  # batch norm over a 1×1 image needs two examples

    def __init__(self, options: VanillaOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        self.latent_shape = (options.latent_dim,)

        # Two linear heads in one: mean and log-variance of the posterior.
        self.encoder = make_encoder(options, data, 2 * options.latent_dim)
        self.decoder = make_decoder(options, data, options.latent_dim)
        self.likelihood = make_likelihood(options, data)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return gaussian_from_params(self.encoder(x), logvar_range=self.options.logvar_range)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z))
