"""A convolutional variational autoencoder (Kingma & Welling 2013): the model to read first."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution

from vaezoo import DataSpec, VectorVAE
from vaezoo.models.distributions import gaussian_from_params
from vaezoo.nn.networks import make_encoder

from .plugin import VanillaOptions


class VanillaVAE(VectorVAE):
    """q(z|x) = N(mean(x), diag(variance(x))), p(z) = N(0, 1), p(x|z) by the likelihood option.

    With the ELBO as its loss it is the autoencoder of Kingma & Welling (2013, section 3), with
    convolutional networks.
    """

    options: VanillaOptions

    def __init__(self, options: VanillaOptions, data: DataSpec) -> None:
        # The encoder gives mean and log-variance.
        super().__init__(options, data, make_encoder(options, data, 2 * options.latent_dim))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return gaussian_from_params(self.encoder(x), logvar_range=self.options.logvar_range)
