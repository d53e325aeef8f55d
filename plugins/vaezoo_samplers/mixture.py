"""A sampler of latents: a Gaussian mixture with full covariances, fitted by EM."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Distribution,
    MixtureSameFamily,
    MultivariateNormal,
    TransformedDistribution,
)
from torch.distributions.transforms import ReshapeTransform

from vaezoo import LatentSpec, Options, Sampler
from vaezoo.runtime import report_progress

from .options import MixtureOptions

_TINY = 1e-12


class GaussianMixtureSampler(Sampler):
    """Σ_k weight_k · N(mean_k, covariance_k) over vectors; a standard Gaussian until it is fitted.

    Its buffers are saved with the model and have the same shapes before and after fitting.

    weights: [components]. means: [components, dim]. factors: the lower Cholesky factors of the
    covariances, [components, dim, dim].
    """

    weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(self, options: MixtureOptions, latent: LatentSpec) -> None:
        super().__init__(options, latent)
        self.shape = latent.shape
        components, dim = options.components, math.prod(latent.shape)
        self.register_buffer("weights", torch.full((components,), 1.0 / components))
        self.register_buffer("means", torch.zeros(components, dim))
        self.register_buffer("factors", torch.eye(dim).repeat(components, 1, 1))

    @property
    def is_fitted(self) -> bool:
        return bool(self.means.any())

    def distribution(self, y: Tensor | None = None) -> Distribution:
        """The mixture with its current parameters: batch shape (), event shape `latent.shape`."""
        components = MultivariateNormal(self.means, scale_tril=self.factors, validate_args=False)
        weights = Categorical(self.weights, validate_args=False)
        mixture = MixtureSameFamily(weights, components, validate_args=False)
        if len(self.shape) == 1:
            return mixture
        shaped = ReshapeTransform(mixture.event_shape, torch.Size(self.shape))
        return TransformedDistribution(mixture, shaped, validate_args=False)

    def fit(self, latents: Tensor, y: Tensor | None = None) -> None:
        self.fit_em(latents.flatten(1))

    @torch.no_grad()
    def fit_em(
        self, z: Tensor, *, ridge: float = 1e-6, tolerance: float = 1e-3, iterations: int = 200
    ) -> list[float]:
        """Fit the mixture to points by EM (Dempster et al. 1977).

        It starts from k-means++ centers (Arthur & Vassilvitskii 2007), drawn with torch's
        generator, and stops when an iteration gains less than `tolerance`.

        z: [n, dim]. ridge: a prior on the covariances, in units of the points' mean variance, that
        keeps them from being singular. Returns the mean log-likelihood (with the ridge: the
        log-posterior up to a constant) in nats per point after each iteration; it never falls.
        """
        if z.device.type != "mps":
            z = z.double()
        scatter = ridge * z.var(0, correction=0).mean().clamp(min=_TINY)
        prior = float(scatter) * len(z) / len(self.weights)
        nearest = torch.cdist(z, _kmeans_plus_plus(z, len(self.weights))).argmin(1)
        resp = nn.functional.one_hot(nearest, len(self.weights)).to(z.dtype)
        history: list[float] = []
        for iteration in range(iterations):
            report_progress("fitting the sampler, iteration", iteration, iterations)
            parameters = _m_step(z, resp, prior)
            log_joint, penalty = _e_step(z, parameters, prior)
            history.append(float(log_joint.logsumexp(1).mean()) - penalty)
            if len(history) > 1 and history[-1] - history[-2] < tolerance:
                break
            resp = log_joint.softmax(1)
        for buffer, value in zip((self.weights, self.means, self.factors), parameters, strict=True):
            buffer.copy_(value)
        return history


def single_gaussian(options: Options, latent: LatentSpec) -> GaussianMixtureSampler:
    """A mixture of one component."""
    return GaussianMixtureSampler(MixtureOptions(components=1), latent)


class _Parameters(NamedTuple):
    weights: Tensor
    means: Tensor
    factors: Tensor


def _m_step(z: Tensor, resp: Tensor, prior: float) -> _Parameters:
    """The best mixture for the responsibilities `resp`, [n, components].

    The covariance that maximises  log-likelihood − prior / 2 · trace(covariance⁻¹)  is the
    scatter around the mean plus `prior` on its diagonal, over the number of points.
    """
    # A component without points stays finite, with weight 0.
    counts = resp.sum(0)
    safe = counts.clamp(min=_TINY)
    means = resp.T @ z / safe[:, None]
    diagonal = prior * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    factors = []
    for mean, weight, count in zip(means, resp.T, safe, strict=True):
        centered = z - mean
        scatter = (centered * weight[:, None]).T @ centered
        factors.append(torch.linalg.cholesky((scatter + diagonal) / count))
    return _Parameters(counts / len(z), means, torch.stack(factors))


def _e_step(z: Tensor, parameters: _Parameters, prior: float) -> tuple[Tensor, float]:
    """log p(component, point), [n, components], and the prior's penalty in nats per point."""
    columns = []
    penalty = 0.0
    eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    for weight, mean, factor in zip(*parameters, strict=True):
        inverse = torch.linalg.solve_triangular(factor, eye, upper=False)
        squares = ((z - mean) @ inverse.T).square().sum(1)
        log_volume = factor.diagonal().log().sum() + 0.5 * z.shape[1] * math.log(2 * math.pi)
        columns.append(weight.log() - log_volume - 0.5 * squares)
        penalty += float(0.5 * prior * inverse.square().sum()) / len(z)
    return torch.stack(columns, 1), penalty


def _kmeans_plus_plus(z: Tensor, count: int) -> Tensor:
    """Centers [count, dim], each drawn by the squared distance from the nearest one before it."""
    centers = z[torch.randint(len(z), (1,), device=z.device)]
    for _ in range(count - 1):
        squares = torch.cdist(z, centers).square().amin(1)
        # _TINY: where all points are the same, any can be drawn.
        centers = torch.cat([centers, z[torch.multinomial(squares + _TINY, 1)]])
    return centers
