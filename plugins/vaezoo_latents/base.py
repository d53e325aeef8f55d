"""What the models of this package share: networks and likelihood as the options name them."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution

from vaezoo import BaseVAE, DataSpec, NetworkOptions
from vaezoo.likelihoods import make_likelihood
from vaezoo.nn import make_decoder, make_encoder


class NetworkVAE(BaseVAE):
    """An encoder to `features` numbers, a decoder from a latent vector; `encode` is left open."""

    options: NetworkOptions
    min_batch_size = 2  # batch norm over a 1×1 image needs two examples

    def __init__(self, options: NetworkOptions, data: DataSpec, features: int) -> None:
        super().__init__(options, data)
        self.latent_shape = (options.latent_dim,)
        self.encoder = make_encoder(options, data, features)
        self.decoder = make_decoder(options, data, options.latent_dim)
        self.likelihood = make_likelihood(options, data)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z))
