"""The cosine w between a von Mises–Fisher draw and its mean direction, and how it moves with κ.

Its density on [−1, 1] is in proportion to exp(κ w) (1 − w²)^((m−3)/2) (Wood 1994; Ulrich 1984).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_PROPOSALS = 32
"""Two thirds of them are accepted at worst, whatever the concentration and the dimension. That none
is happens once in 10^14 draws, and the first then stands."""

_NODES = 48
"""Of the quadrature: more than enough for six digits."""

_WINDOW = 10.0
"""How far the quadrature reaches, in standard deviations of the angle at its likeliest value."""


def draw_cosine(kappa: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """A draw of w for each concentration, by Wood's rejection: w, and 1 − w with all its digits.

    From a fixed number of proposals at once: nothing waits for the first that is accepted.
    """
    n = m - 1
    b = n / (2 * kappa + torch.sqrt(4 * kappa.square() + n**2))
    best = (1 - b) / (1 + b)
    shape = torch.full_like(kappa, 0.5 * n).expand(_PROPOSALS, *kappa.shape)
    beta = torch.distributions.Beta(shape, shape, validate_args=False).sample()
    below_one = 2 * b * beta / (1 - (1 - b) * beta)
    cosine = 1 - below_one
    # Where κ is large, both are near 1: by what is missing to it.
    gap = 2 * b / (1 + b)
    log_accept = kappa * (gap - below_one)
    log_accept += n * (torch.log(gap + best * below_one) - torch.log(gap * (1 + best)))
    accepted = torch.log(torch.rand_like(cosine)) <= log_accept
    first = accepted.to(torch.uint8).argmax(0, keepdim=True)
    return cosine.gather(0, first)[0], below_one.gather(0, first)[0]


def quantile_slope(
    cosine: Tensor, sine: Tensor, kappa: Tensor, mean_cosine: Tensor, m: int
) -> Tensor:
    """dw/dκ of the cosine w at a fixed quantile: −∂F(w; κ)/∂κ over the density f(w; κ).

    cosine, sine: w and the sine of the same angle. mean_cosine: A, the mean of w. That is

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
    by_cosine = -2 * kappa * torch.sin(0.5 * (phi + angle)) * torch.sin(0.5 * (phi - angle))
    by_sine = (m - 2) * (torch.sin(phi).clamp(min=tiny).log() - sine.clamp(min=tiny).log())
    integrand = (torch.cos(phi) - mean_cosine).abs() * torch.exp(by_cosine + by_sine)
    return sine * width * (weights * integrand).sum(0)


def _tanh_sinh(like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1] (Takahasi & Mori 1974): [n, 1, ..., 1] to stand before `like`."""
    reach = 3.0
    step = 2 * reach / (_NODES - 1)
    t = torch.arange(_NODES, dtype=like.dtype, device=like.device) * step - reach
    inner = 0.5 * math.pi * torch.sinh(t)
    nodes = torch.sigmoid(2 * inner)
    weights = 0.25 * math.pi * step * torch.cosh(t) / torch.cosh(inner).square()
    return nodes.view(-1, *[1] * like.dim()), weights.view(-1, *[1] * like.dim())
