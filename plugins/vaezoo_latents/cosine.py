"""The cosine w between a von Mises–Fisher sample and its mean direction: samples, gradients.

Its density on [−1, 1] is proportional to exp(κ w) (1 − w²)^((m−3)/2) (Wood 1994; Ulrich 1984).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_PROPOSALS = 32
"""At least two thirds are accepted, at any concentration and dimension. Once in 10^14 samples none
is accepted, and the first is used."""

_NODES = 48
"""Nodes of the quadrature: enough for six digits."""

_WINDOW = 10.0
"""Range of the quadrature, in standard deviations of the angle at its mode."""


def sample_cosine(kappa: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """A sample of w for each concentration, and 1 − w without cancellation: [...] each.

    Rejection sampling (Wood 1994) from a fixed number of proposals, so the host is not asked.
    """
    n = m - 1
    b = n / (2 * kappa + torch.sqrt(4 * kappa.square() + n**2))
    best = (1 - b) / (1 + b)
    shape = torch.full_like(kappa, 0.5 * n).expand(_PROPOSALS, *kappa.shape)
    beta = torch.distributions.Beta(shape, shape, validate_args=False).sample()
    one_minus = 2 * b * beta / (1 - (1 - b) * beta)
    cosine = 1 - one_minus
    # Computed from 1 − w, because w is near 1 where κ is large.
    gap = 2 * b / (1 + b)
    log_accept = kappa * (gap - one_minus)
    log_accept += n * (torch.log(gap + best * one_minus) - torch.log(gap * (1 + best)))
    accepted = torch.log(torch.rand_like(cosine)) <= log_accept
    first = accepted.to(torch.uint8).argmax(0, keepdim=True)
    return cosine.gather(0, first)[0], one_minus.gather(0, first)[0]


def cosine_gradient(
    cosine: Tensor, sine: Tensor, kappa: Tensor, mean_cosine: Tensor, m: int
) -> Tensor:
    """dw/dκ by implicit reparameterization: −∂F(w; κ)/∂κ over the density f(w; κ).

    cosine, sine: w and the sine of the same angle. mean_cosine: A, the mean of w. It is

        ∫ from w to 1 of (t − A) f(t) dt / f(w) = ∫ from −1 to w of (A − t) f(t) dt / f(w).

    The integral whose t stays on w's side of the mean A is used: it has no cancellation. Over the
    angle, t = cos φ, the integrand is smooth for any m ≥ 2, and vanishes a few deviations from w.
    """
    angle = torch.atan2(sine, cosine)
    inwards = cosine >= mean_cosine
    # The curvature of the angle's log-density, κ cos φ + (m − 2) log sin φ, at its mode, where
    # cos φ = κ / g.
    g = 0.5 * (m - 2 + torch.sqrt((m - 2) ** 2 + 4 * kappa.square()))
    window = _WINDOW / torch.sqrt(kappa.square() / g + g)
    width = torch.minimum(window, torch.where(inwards, angle, math.pi - angle))
    nodes, weights = _tanh_sinh(cosine)
    phi = angle + torch.where(inwards, -width, width) * nodes
    tiny = torch.finfo(phi.dtype).tiny
    # cos φ − cos θ as a product: the difference would cancel near the poles.
    by_cosine = -2 * kappa * torch.sin(0.5 * (phi + angle)) * torch.sin(0.5 * (phi - angle))
    by_sine = (m - 2) * (torch.sin(phi).clamp(min=tiny).log() - sine.clamp(min=tiny).log())
    integrand = (torch.cos(phi) - mean_cosine).abs() * torch.exp(by_cosine + by_sine)
    return sine * width * (weights * integrand).sum(0)


def _tanh_sinh(like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1] (Takahasi & Mori 1974): [n, 1, ..., 1] each."""
    reach = 3.0
    step = 2 * reach / (_NODES - 1)
    t = torch.arange(_NODES, dtype=like.dtype, device=like.device) * step - reach
    inner = 0.5 * math.pi * torch.sinh(t)
    nodes = torch.sigmoid(2 * inner)
    weights = 0.25 * math.pi * step * torch.cosh(t) / torch.cosh(inner).square()
    return nodes.view(-1, *[1] * like.dim()), weights.view(-1, *[1] * like.dim())
