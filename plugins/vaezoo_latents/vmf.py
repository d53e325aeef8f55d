"""The hyperspherical latent (Davidson et al. 2018): on the unit sphere."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from vaezoo import Bottleneck
from vaezoo.models.distributions import to_float32

from .options import SphericalOptions
from .sphere import SphereUniform, VonMisesFisher


class SphericalBottleneck(Bottleneck):
    """q(z|x) = vMF(μ(x), κ(x)), p(z) uniform on the unit sphere (Davidson et al. 2018, section 3).

    The rate, in closed form, depends on κ alone. `latent_dim` is the dimension m of the space
    around the sphere, which itself has m − 1 dimensions.

    κ = 1 + softplus, as in the authors' code: at κ = 1 the rate is near 0 (about 1/2m nats), and
    the mean direction still has an effect.
    """

    options: SphericalOptions

    def __init__(self, options: SphericalOptions, grid: tuple[int, ...] = ()) -> None:
        super().__init__(options)
        self.num_params = options.latent_dim + 1
        self.latent_shape = (options.latent_dim,)

    def forward(self, params: Tensor) -> VonMisesFisher:
        params = to_float32(params)
        loc, raw = params[:, :-1], params[:, -1]
        return VonMisesFisher(F.normalize(loc, dim=-1), 1.0 + F.softplus(raw))

    def prior(self) -> SphereUniform:
        return SphereUniform(self.options.latent_dim, like=self._origin)
