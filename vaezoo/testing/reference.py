"""The model that a loss is checked with, where the loss takes any model that has an ELBO."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo.data.spec import DataSpec
from vaezoo.models.base import BaseVAE
from vaezoo.models.distributions import gaussian_from_params
from vaezoo.models.likelihoods import make_likelihood
from vaezoo.models.options import LikelihoodOptions

_LATENTS, _WIDE = 4, 32


class ReferenceVAE(BaseVAE):
    """A Gaussian latent of four between dense layers (Kingma & Welling 2013, section 3)."""

    options: LikelihoodOptions

    def __init__(self, options: LikelihoodOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        self.latent_shape = (_LATENTS,)
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(data.numel, _WIDE), nn.Tanh(), nn.Linear(_WIDE, 2 * _LATENTS)
        )
        self.decoder = nn.Sequential(
            nn.Linear(_LATENTS, _WIDE),
            nn.Tanh(),
            nn.Linear(_WIDE, data.numel),
            nn.Unflatten(1, data.shape),
        )
        self.likelihood = make_likelihood(options, data)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return gaussian_from_params(self.encoder(x))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z))
