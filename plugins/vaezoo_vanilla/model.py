"""A convolutional variational autoencoder (Kingma & Welling 2013): the one to read and to copy."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo import BaseVAE, DataSpec
from vaezoo.distributions import diagonal_normal_from
from vaezoo.likelihoods import make_likelihood
from vaezoo.nn import ConvDecoder, ConvEncoder

from .plugin import VanillaOptions


class VanillaVAE(BaseVAE):
    """q(z|x) = N(mean(x), diag(variance(x))), p(z) = N(0, 1), p(x|z) as chosen.

    Trained with the ELBO it is the autoencoder of Kingma & Welling (2013, section 3), with
    convolutions for its networks.
    """

    min_batch_size = 2  # batch norm over a 1×1 image needs two examples

    def __init__(self, options: VanillaOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        self.latent_shape = (options.latent_dim,)

        body = ConvEncoder(data.shape, options.hidden)
        heads = nn.Linear(body.out_features, 2 * options.latent_dim)  # mean and log-variance
        self.encoder = nn.Sequential(body, heads)
        self.decoder = ConvDecoder(options.latent_dim, data.shape, options.hidden, body.sizes)
        self.likelihood = make_likelihood(options, data)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return diagonal_normal_from(self.encoder(x))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z))
