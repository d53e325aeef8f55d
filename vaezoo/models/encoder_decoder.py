"""The generic VAE: encoder network, posterior, decoder network, likelihood."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.modules.batchnorm import _BatchNorm

from vaezoo.data.spec import DataSpec
from vaezoo.models.base import BaseVAE
from vaezoo.models.likelihoods import make_likelihood
from vaezoo.models.options import LikelihoodOptions, NetworkOptions
from vaezoo.nn.networks import make_decoder


class EncoderDecoderVAE(BaseVAE):
    """A VAE of one encoder, one decoder and the options' likelihood; a subclass defines `encode`.

    encoder: [batch, *data.shape] -> parameters of the posterior. decoder: [batch, *latent_shape]
    -> [batch, *data.shape], what the likelihood takes.
    """

    options: LikelihoodOptions

    def __init__(
        self,
        options: LikelihoodOptions,
        data: DataSpec,
        *,
        latent_shape: tuple[int, ...],
        encoder: nn.Module,
        decoder: nn.Module,
    ) -> None:
        super().__init__(options, data)
        self.latent_shape = latent_shape
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = make_likelihood(options, data)
        if any(isinstance(layer, _BatchNorm) for layer in self.modules()):
            self.min_batch_size = max(2, self.min_batch_size)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z))


class VectorVAE(EncoderDecoderVAE):
    """An EncoderDecoderVAE with a vector latent, and the decoder that the options name."""

    options: NetworkOptions

    def __init__(self, options: NetworkOptions, data: DataSpec, encoder: nn.Module) -> None:
        n = options.latent_dim
        decoder = make_decoder(options, data, n)
        super().__init__(options, data, latent_shape=(n,), encoder=encoder, decoder=decoder)
