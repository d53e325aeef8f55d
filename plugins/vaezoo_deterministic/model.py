"""A deterministic autoencoder, and the density that its samples are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import Batch, DataSpec, VectorVAE
from vaezoo.models.distributions import Delta, to_float32
from vaezoo.nn.networks import make_encoder

from .mixture import GaussianMixtureSampler
from .options import AutoencoderOptions


class Autoencoder(VectorVAE):
    """q(z|x) is a point mass, p(x|z) is the likelihood of the options.

    Trained to reconstruct, this is the autoencoder of Hinton & Salakhutdinov (2006). Nothing
    constrains the distribution of its latents: the decoder was trained on hardly any sample of a
    standard Gaussian, and decodes it to noise. So an autoencoder reconstructs better than a VAE of
    the same size, and does not generate. With a density fitted to the latents after training
    (`--sampler gaussian`, better `mixture`) the same decoder generates recognisable images. Ghosh
    et al. (2019) call this ex-post density estimation, and use a smooth decoder (`rae`).

    It has no rate and hence no ELBO: compare it by its reconstructions.
    """

    options: AutoencoderOptions

    def __init__(self, options: AutoencoderOptions, data: DataSpec) -> None:
        super().__init__(options, data, make_encoder(options, data, options.latent_dim))
        self.sampler = None
        if options.sampler != "standard_normal":
            components = options.components if options.sampler == "mixture" else 1
            self.sampler = GaussianMixtureSampler(components, options.latent_dim)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return Delta(to_float32(self.encoder(x)))

    def prior(self, y: Tensor | None = None) -> Distribution:
        """The distribution to draw samples from: a standard Gaussian until a sampler is fitted."""
        return super().prior(y) if self.sampler is None else self.sampler.distribution()

    @property
    def prior_is_fitted(self) -> bool:
        return self.sampler is None or bool(self.sampler.means.any())

    @torch.no_grad()
    def fit_prior(self, batches: Callable[[], Iterable[Batch]]) -> None:
        if self.sampler is None:
            return
        training = self.training
        self.eval()  # the latents of the trained encoder, which do not depend on the batch
        latents = torch.cat([self.encode(batch.x).mean for batch in batches()])
        self.train(training)
        self.sampler.fit(latents)
