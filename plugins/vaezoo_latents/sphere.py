"""Distributions on the unit sphere of R^m: von Mises–Fisher and uniform.

Densities are with respect to the sphere's surface, of area 2 π^(m/2) / Γ(m/2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import register_kl
from torch.nn import functional as F
from torch.types import _size

from vaezoo.models.distributions import BaseDistribution

from .bessel import log_mgf
from .cosine import cosine_gradient, sample_cosine


class SphereUniform(BaseDistribution):
    """The uniform distribution. Batch shape (), event shape (m,). like: gives device and dtype."""

    def __init__(self, m: int, like: Tensor) -> None:
        super().__init__((), (m,))
        self.like = like

    def sample(self, sample_shape: _size = ()) -> Tensor:
        noise = torch.randn(
            *sample_shape, *self.event_shape, dtype=self.like.dtype, device=self.like.device
        )
        return self.project(noise)

    def project(self, z: Tensor) -> Tensor:
        """The nearest point of the sphere: [..., m]."""
        return F.normalize(z, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The constant log-density in nats: [..., m] -> [...]."""
        return value.new_full(value.shape[:-1], -log_area(self.event_shape[0]))


class VonMisesFisher(BaseDistribution):
    """The density proportional to exp(κ μ·z), for z and μ on the unit sphere of R^m, m ≥ 2.

    loc: μ, [..., m], of length 1. concentration: κ > 0, [...].
    """

    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor) -> None:
        super().__init__(concentration.shape, loc.shape[-1:])
        self.loc, self.concentration = loc, concentration
        self.log_mass, self.mean_cosine = log_mgf(concentration, loc.shape[-1])

    @property
    def mean(self) -> Tensor:
        """A(κ) μ, which is inside the sphere."""
        return self.mean_cosine[..., None].to(self.loc.dtype) * self.loc

    @property
    def mode(self) -> Tensor:
        """μ, the mode, which is on the sphere."""
        return self.loc

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density in nats: [..., m] -> [...]."""
        # μ·z is 1 − |z − μ|² / 2, which does not cancel where κ is large and z near μ.
        half_distance = 0.5 * (value - self.loc).square().sum(-1)
        top = self.concentration - self.log_mass - log_area(self.event_shape[0])
        return (top - self.concentration * half_distance).to(value.dtype)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Samples: μ rotated by a random angle (Davidson et al. 2018, algorithm 1).

        The direction is uniform in the plane orthogonal to μ: Gaussian noise without its component
        along μ, instead of their Householder reflection.
        """
        shape = self._extended_shape(sample_shape)
        cosine, sine = self._angle(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        orthogonal = noise - (noise * self.loc).sum(-1, keepdim=True) * self.loc
        return cosine[..., None] * self.loc + sine[..., None] * F.normalize(orthogonal, dim=-1)

    def _angle(self, sample_shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the angle to μ, with gradients with respect to κ.

        They are exact implicit reparameterization gradients (Figurnov et al. 2018, section 3).
        Davidson et al. (2018, section 3.4) differentiate the accepted proposal instead, which needs
        a score-function term for the rejected ones, of higher variance.
        """
        kappa, m = self.concentration.to(self.log_mass.dtype), self.event_shape[0]
        with torch.no_grad():
            cosine, one_minus = sample_cosine(kappa.expand(sample_shape + kappa.shape), m)
            sine = torch.sqrt(one_minus * (1 + cosine))
            slope = torch.zeros_like(cosine)
        if self.concentration.requires_grad and torch.is_grad_enabled():
            with torch.no_grad():
                slope = cosine_gradient(cosine, sine, kappa, self.mean_cosine, m)
            # Zero, with the derivative with respect to κ.
            moved = slope * (kappa - kappa.detach())
            cosine, sine = cosine + moved, sine - moved * cosine / sine.clamp(min=1e-12)
        return cosine.to(self.loc.dtype), sine.to(self.loc.dtype)


@register_kl(VonMisesFisher, SphereUniform)  # type: ignore[untyped-decorator]
def _kl_to_uniform(q: VonMisesFisher, p: SphereUniform) -> Tensor:
    """KL(vMF ‖ uniform) = κ A − Λ (Davidson et al. 2018, section 3.2)."""
    rate = q.concentration * q.mean_cosine - q.log_mass
    return rate.to(q.loc.dtype)


def log_area(m: int) -> float:
    """log of the area of the unit sphere in R^m, 2 π^(m/2) / Γ(m/2)."""
    return math.log(2) + 0.5 * m * math.log(math.pi) - math.lgamma(0.5 * m)
