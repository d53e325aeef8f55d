"""What the models of this package share: decoder and likelihood as the options name them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo import BaseVAE, DataSpec, NetworkOptions
from vaezoo.models.likelihoods import make_likelihood
from vaezoo.nn.networks import make_decoder


class NetworkVAE(BaseVAE):
    """A decoder from a latent vector, and the encoder that it is given; `encode` is left open."""

    options: NetworkOptions
    min_batch_size = 2  # batch norm over a 1×1 image needs two examples

    def __init__(self, options: NetworkOptions, data: DataSpec, encoder: nn.Module) -> None:
        super().__init__(options, data)
        self.latent_shape = (options.latent_dim,)
        self.encoder = encoder
        self.decoder = make_decoder(options, data, options.latent_dim)
        self.likelihood = make_likelihood(options, data)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z))
