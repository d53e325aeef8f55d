"""An autoencoder whose encoder answers with a point, and what its samples are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import BaseVAE, Batch, DataSpec
from vaezoo.models.distributions import Delta, to_float32
from vaezoo.models.likelihoods import make_likelihood
from vaezoo.nn.networks import make_decoder, make_encoder

from .mixture import GaussianMixture
from .options import AutoencoderOptions


class Autoencoder(BaseVAE):
    """q(z|x) is a point, p(x|z) as chosen; the latents go where reconstruction wants them.

    Trained to reconstruct, this is the autoencoder of Hinton & Salakhutdinov (2006), and nothing
    tells where its latents lie. A draw from a standard Gaussian falls mostly where the decoder has
    never been, and decodes to nothing that was ever seen: an autoencoder reconstructs better than
    a VAE of its size and does not generate. Fit a density to the latents after training
    (`--sampler gaussian`, better `mixture`) and the same decoder draws recognisable images; what is
    still wrong with them is what the density misses. Ghosh et al. (2019) call this ex-post density
    estimation, and smooth the decoder so that little is missed (`rae`). A VAE pays for its samples
    during training instead: its rate is the price of latents that fit the prior.

    There is no rate and hence no ELBO: the numbers that compare are those of reconstructions.
    """

    options: AutoencoderOptions
    min_batch_size = 2  # batch norm over a 1×1 image needs two examples

    def __init__(self, options: AutoencoderOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        self.latent_shape = (options.latent_dim,)
        self.encoder = make_encoder(options, data, options.latent_dim)
        self.decoder = make_decoder(options, data, options.latent_dim)
        self.likelihood = make_likelihood(options, data)
        self.sampler = None
        if options.sampler != "standard_normal":
            components = options.components if options.sampler == "mixture" else 1
            self.sampler = GaussianMixture(components, options.latent_dim)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return Delta(to_float32(self.encoder(x)))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z))

    def prior(self, y: Tensor | None = None) -> Distribution:
        """What samples are drawn from: fitted after training, until then a standard Gaussian."""
        return super().prior(y) if self.sampler is None else self.sampler.distribution()

    @torch.no_grad()
    def fit_prior(self, batches: Callable[[], Iterable[Batch]]) -> None:
        if self.sampler is None:
            return
        training = self.training
        self.eval()  # the latents of the finished encoder, whatever batch they are in
        latents = torch.cat([self.encode(batch.x).mean for batch in batches()])
        self.train(training)
        self.sampler.fit(latents)
