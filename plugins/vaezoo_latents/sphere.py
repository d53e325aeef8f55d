"""Distributions on the unit sphere of R^m: von Mises–Fisher, and uniform.

Densities are by the sphere's own surface, of area 2 π^(m/2) / Γ(m/2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import register_kl
from torch.nn import functional as F
from torch.types import _size

from vaezoo.models.distributions import BaseDistribution

from .bessel import log_generating
from .cosine import draw_cosine, quantile_slope


class SphereUniform(BaseDistribution):
    """The uniform distribution. Batch shape (), event shape (m,). like: gives device and type."""

    def __init__(self, m: int, like: Tensor) -> None:
        super().__init__((), (m,))
        self.like = like

    def sample(self, sample_shape: _size = ()) -> Tensor:
        noise = torch.randn(
            *sample_shape, *self.event_shape, dtype=self.like.dtype, device=self.like.device
        )
        return self.project(noise)

    def project(self, z: Tensor) -> Tensor:
        """The point of the sphere that is nearest to z, [..., m]."""
        return F.normalize(z, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats: the same everywhere."""
        return value.new_full(value.shape[:-1], -_log_area(self.event_shape[0]))


class VonMisesFisher(BaseDistribution):
    """Density in proportion to exp(κ μ·z), for z and μ on the unit sphere of R^m, m ≥ 2.

    loc: μ, [..., m], of length 1. concentration: κ > 0, [...].
    """

    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor) -> None:
        super().__init__(concentration.shape, loc.shape[-1:])
        self.loc, self.concentration = loc, concentration
        self.log_mass, self.mean_cosine = log_generating(concentration, loc.shape[-1])

    @property
    def mean(self) -> Tensor:
        """A(κ) μ: inside the sphere."""
        return self.mean_cosine[..., None].to(self.loc.dtype) * self.loc

    @property
    def mode(self) -> Tensor:
        """μ: the point of the sphere around which the density is."""
        return self.loc

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats: [...]."""
        # μ·z is 1 − |z − μ|² / 2, which keeps its digits where κ is large and z near μ.
        from_top = 0.5 * (value - self.loc).square().sum(-1)
        top = self.concentration - self.log_mass - _log_area(self.event_shape[0])
        return (top - self.concentration * from_top).to(value.dtype)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """μ turned by a random angle in a random direction (Davidson et al. 2018, algorithm 1).

        The direction is uniform in the plane that stands on μ: Gaussian noise less its part along
        μ, in place of their Householder reflection.
        """
        shape = self._extended_shape(sample_shape)
        cosine, sine = self._angle(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        across = noise - (noise * self.loc).sum(-1, keepdim=True) * self.loc
        return cosine[..., None] * self.loc + sine[..., None] * F.normalize(across, dim=-1)

    def _angle(self, sample_shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the angle to μ, with gradients by the concentration.

        They are those of the quantile function, which is the draw's own derivative, exactly
        (Figurnov et al. 2018, section 3). Davidson et al. (2018, section 3.4) differentiate the
        proposal that was accepted instead, which needs a correction for those that were not: a
        score-function term, of higher variance.
        """
        kappa, m = self.concentration.to(self.log_mass.dtype), self.event_shape[0]
        with torch.no_grad():
            cosine, below_one = draw_cosine(kappa.expand(sample_shape + kappa.shape), m)
            sine = torch.sqrt(below_one * (1 + cosine))
            slope = torch.zeros_like(cosine)
        if self.concentration.requires_grad and torch.is_grad_enabled():
            with torch.no_grad():
                slope = quantile_slope(cosine, sine, kappa, self.mean_cosine, m)
            # 0, with the derivative by κ.
            moved = slope * (kappa - kappa.detach())
            cosine, sine = cosine + moved, sine - moved * cosine / sine.clamp(min=1e-12)
        return cosine.to(self.loc.dtype), sine.to(self.loc.dtype)


@register_kl(VonMisesFisher, SphereUniform)  # type: ignore[untyped-decorator]
def _kl_to_uniform(q: VonMisesFisher, p: SphereUniform) -> Tensor:
    """Davidson et al. (2018, section 3.2): E log q is κ A − Λ against the uniform density."""
    rate = q.concentration * q.mean_cosine - q.log_mass
    return rate.to(q.loc.dtype)


def _log_area(m: int) -> float:
    return math.log(2) + 0.5 * m * math.log(math.pi) - math.lgamma(0.5 * m)
