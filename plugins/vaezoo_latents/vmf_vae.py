"""A variational autoencoder whose latents are points of a sphere."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from vaezoo import DataSpec
from vaezoo.models.distributions import to_float32
from vaezoo.nn.networks import make_encoder

from .base import NetworkVAE
from .options import SphericalOptions
from .sphere import SphereUniform, VonMisesFisher


class SphericalVAE(NetworkVAE):
    """q(z|x) = vMF(μ(x), κ(x)) and p(z) uniform on the unit sphere (Davidson et al. 2018).

    A uniform prior has no centre that posteriors are drawn to: the rate, in closed form, depends on
    the concentration alone. `latent_dim` is that of the space around the sphere, m, so the sphere
    itself has m − 1 dimensions.

    The concentration is 1 + softplus, as in the authors' code: its rate is hardly above 0 (about
    1/2m nats), and the mean direction never stops mattering.
    """

    options: SphericalOptions

    def __init__(self, options: SphericalOptions, data: DataSpec) -> None:
        super().__init__(options, data, make_encoder(options, data, options.latent_dim + 1))

    def encode(self, x: Tensor, y: Tensor | None = None) -> VonMisesFisher:
        features = to_float32(self.encoder(x))
        loc, raw = features[:, :-1], features[:, -1]
        return VonMisesFisher(F.normalize(loc, dim=-1), 1.0 + F.softplus(raw))

    def prior(self, y: Tensor | None = None) -> SphereUniform:
        return SphereUniform(self.options.latent_dim, like=super().prior().mean)
