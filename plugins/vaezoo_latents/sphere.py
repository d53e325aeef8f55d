"""Distributions on the unit sphere of R^m: von Mises–Fisher, and uniform.

Densities are by the sphere's own surface, of area 2 π^(m/2) / Γ(m/2).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, register_kl
from torch.nn import functional as F
from torch.types import _size

from .bessel import log_generating

_ONE = torch.Size()

_PROPOSALS = 32
"""Of each, two thirds or more are accepted whatever the concentration and the dimension: that none
of them is happens once in 10^14 draws, and the first then stands."""


class SphereUniform(Distribution):
    """The uniform distribution. Batch shape (), event shape (m,). like: gives device and type."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, m: int, like: Tensor) -> None:
        super().__init__(torch.Size(), torch.Size((m,)), validate_args=False)
        self.like = like

    def sample(self, sample_shape: _size = _ONE) -> Tensor:
        noise = torch.randn(
            *sample_shape, *self.event_shape, dtype=self.like.dtype, device=self.like.device
        )
        return F.normalize(noise, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats: the same everywhere."""
        return value.new_full(value.shape[:-1], -_log_area(self.event_shape[0]))


class VonMisesFisher(Distribution):
    """Density in proportion to exp(κ μ·z), for z and μ on the unit sphere of R^m, m ≥ 2.

    loc: μ, [..., m], of length 1. concentration: κ > 0, [...].
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor) -> None:
        super().__init__(concentration.shape, loc.shape[-1:], validate_args=False)
        self.loc, self.concentration = loc, concentration
        self.log_mass, self.mean_cosine = log_generating(concentration, loc.shape[-1])

    @property
    def mean(self) -> Tensor:
        """A(κ) μ: inside the sphere."""
        return self.mean_cosine[..., None].to(self.loc.dtype) * self.loc

    @property
    def center(self) -> Tensor:
        """μ: the point of the sphere around which the density is."""
        return self.loc

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats: [...]."""
        # μ·z is 1 − |z − μ|² / 2, which keeps its digits where κ is large and z near μ.
        from_top = 0.5 * (value - self.loc).square().sum(-1)
        top = self.concentration - self.log_mass - _log_area(self.event_shape[0])
        return (top - self.concentration * from_top).to(value.dtype)

    def rsample(self, sample_shape: _size = _ONE) -> Tensor:
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

        The cosine is drawn by Wood's (1994) rejection, from a fixed number of proposals at once.
        Its derivative is the exact one of the quantile function (Figurnov et al. 2018, section 3),
        so that the gradient is that of the accepted draws as they are. Davidson et al. (2018,
        section 3.4) differentiate the proposal instead, which needs a correction for what was
        rejected: a score-function term of higher variance.
        """
        kappa, m = self.concentration.to(self.log_mass.dtype), self.event_shape[0]
        with torch.no_grad():
            cosine, below_one = _wood(kappa.expand(sample_shape + kappa.shape), m)
            sine = torch.sqrt(below_one * (1 + cosine))
            slope = torch.zeros_like(cosine)
        if self.concentration.requires_grad and torch.is_grad_enabled():
            with torch.no_grad():
                slope = _quantile_slope(cosine, sine, kappa, self.mean_cosine, m)
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


def _wood(kappa: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """A cosine to the mean direction, and 1 minus it with all its digits: [...] each."""
    n = m - 1
    b = n / (2 * kappa + torch.sqrt(4 * kappa.square() + n**2))
    best = (1 - b) / (1 + b)
    shape = torch.full_like(kappa, 0.5 * n).expand(_PROPOSALS, *kappa.shape)
    beta = torch.distributions.Beta(shape, shape, validate_args=False).sample()
    below_one = 2 * b * beta / (1 - (1 - b) * beta)
    cosine = 1 - below_one
    # 1 − best·cosine and 1 − best² at their smallest are small: by what is left of 1.
    gap = 2 * b / (1 + b)
    log_accept = kappa * (cosine - best) + n * (
        torch.log(gap + best * below_one) - torch.log(gap * (1 + best))
    )
    accepted = torch.log(torch.rand_like(cosine)) <= log_accept
    # The first of those accepted.
    first = accepted.to(torch.uint8).argmax(0, keepdim=True)
    return cosine.gather(0, first)[0], below_one.gather(0, first)[0]


_QUADRATURE = 48
_WINDOW = 10.0
"""In standard deviations of the angle around where its density is highest."""


def _quantile_slope(
    cosine: Tensor, sine: Tensor, kappa: Tensor, mean_cosine: Tensor, m: int
) -> Tensor:
    """dw/dκ of the cosine w at a fixed quantile: −∂F(w; κ)/∂κ over the density f(w; κ).

    With f in proportion to exp(κ w) (1 − w²)^((m−3)/2) that is

        ∫ from w to 1 of (t − A) f(t) dt / f(w) = ∫ from −1 to w of (A − t) f(t) dt / f(w).

    Of the two the one in which t stays on w's side of the mean A: nothing cancels. Over the angle,
    t = cos φ, the integrand is smooth for any m ≥ 2, and gone a few deviations away from w.
    """
    angle = torch.atan2(sine, cosine)
    inwards = cosine >= mean_cosine
    # The logarithm of the angle's density, κ cos φ + (m − 2) log sin φ, has this curvature at its
    # top, where cos φ = κ / g.
    g = 0.5 * (m - 2 + torch.sqrt((m - 2) ** 2 + 4 * kappa.square()))
    window = _WINDOW / torch.sqrt(kappa.square() / g + g)
    width = torch.minimum(window, torch.where(inwards, angle, math.pi - angle))
    nodes, weights = _tanh_sinh(cosine)
    phi = angle + torch.where(inwards, -width, width) * nodes
    tiny = torch.finfo(phi.dtype).tiny
    # cos φ − cos θ as a product: of the difference nothing would be left near the poles.
    log_ratio = -2 * kappa * torch.sin(0.5 * (phi + angle)) * torch.sin(0.5 * (phi - angle)) + (
        m - 2
    ) * (torch.sin(phi).clamp(min=tiny).log() - sine.clamp(min=tiny).log())
    integrand = (torch.cos(phi) - mean_cosine).abs() * torch.exp(log_ratio)
    return sine * width * (weights * integrand).sum(0)


def _tanh_sinh(like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1] (Takahasi & Mori 1974): [n, 1, ..., 1] to stand before `like`."""
    reach = 3.0
    step = 2 * reach / (_QUADRATURE - 1)
    t = torch.arange(_QUADRATURE, dtype=like.dtype, device=like.device) * step - reach
    inner = 0.5 * math.pi * torch.sinh(t)
    nodes = torch.sigmoid(2 * inner)
    weights = 0.25 * math.pi * step * torch.cosh(t) / torch.cosh(inner).square()
    return nodes.view(-1, *[1] * like.dim()), weights.view(-1, *[1] * like.dim())
