"""The hyperspherical VAE (Davidson et al. 2018): latents on the unit sphere."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from vaezoo import DataSpec, VectorVAE
from vaezoo.models.distributions import to_float32
from vaezoo.nn.networks import make_encoder

from .options import SphericalOptions
from .sphere import SphereUniform, VonMisesFisher


class SphericalVAE(VectorVAE):
    """q(z|x) = vMF(μ(x), κ(x)), p(z) uniform on the unit sphere (Davidson et al. 2018, section 3).

    The rate, in closed form, depends on κ alone. `latent_dim` is the dimension m of the space
    around the sphere, which itself has m − 1 dimensions.

    κ = 1 + softplus, as in the authors' code: at κ = 1 the rate is near 0 (about 1/2m nats), and
    the mean direction still has an effect.
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
