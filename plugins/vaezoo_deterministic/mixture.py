"""A Gaussian mixture with full covariances, fitted to points by EM."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, MultivariateNormal

_TINY = 1e-12


class GaussianMixture(nn.Module):
    """Σ_k weight_k · N(mean_k, covariance_k) over vectors.

    Its buffers have the same shapes before and after fitting, and are saved with the weights of
    the model that it belongs to. Until it is fitted it is a standard Gaussian.

    weights: [components]. means: [components, dim]. factors: the lower Cholesky factors of the
    covariances, [components, dim, dim].
    """

    weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(self, components: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.full((components,), 1.0 / components))
        self.register_buffer("means", torch.zeros(components, dim))
        self.register_buffer("factors", torch.eye(dim).repeat(components, 1, 1))

    def distribution(self) -> Distribution:
        """The mixture as it stands: no batch shape, event shape [dim]."""
        parts = MultivariateNormal(self.means, scale_tril=self.factors, validate_args=False)
        which = Categorical(self.weights, validate_args=False)
        return MixtureSameFamily(which, parts, validate_args=False)

    @torch.no_grad()
    def fit(
        self, z: Tensor, *, ridge: float = 1e-6, tolerance: float = 1e-3, iterations: int = 200
    ) -> list[float]:
        """Fit the mixture to points by EM (Dempster et al. 1977), and tell how it went.

        Starts from the nearest of seeds that lie far apart (k-means++, Arthur & Vassilvitskii
        2007), drawn by torch's generator. Each iteration maximises exactly, so the log-likelihood
        never falls.

        z: [n, dim]. ridge: keeps covariances away from singular ones by a prior on them, in units
        of the points' mean variance; with it, what never falls is the posterior. It stops when an
        iteration gains less than `tolerance`. Returns the mean log-likelihood (with the ridge:
        the log-posterior up to a constant) in nats a point after each iteration.
        """
        if z.device.type != "mps":
            z = z.double()
        scatter = ridge * z.var(0, correction=0).mean().clamp(min=_TINY)
        prior = float(scatter) * len(z) / len(self.weights)
        shares = _nearest(z, _far_apart(z, len(self.weights)))
        history: list[float] = []
        for _ in range(iterations):
            parameters = _maximise(z, shares, prior)
            log_joint, penalty = _expect(z, parameters, prior)
            history.append(float(log_joint.logsumexp(1).mean()) - penalty)
            if len(history) > 1 and history[-1] - history[-2] < tolerance:
                break
            shares = log_joint.softmax(1)
        for buffer, value in zip((self.weights, self.means, self.factors), parameters, strict=True):
            buffer.copy_(value)
        return history


class _Parameters(NamedTuple):
    weights: Tensor
    means: Tensor
    factors: Tensor


def _maximise(z: Tensor, shares: Tensor, prior: float) -> _Parameters:
    """The best mixture for points that belong to its components by `shares`, [n, components].

    The covariance that maximises  log-likelihood − prior / 2 · trace(covariance⁻¹)  is the
    scatter around the mean plus `prior` on its diagonal, over the number of points.
    """
    # A component that has lost every point stays finite, at weight 0.
    counts = shares.sum(0)
    safe = counts.clamp(min=_TINY)
    means = shares.T @ z / safe[:, None]
    diagonal = prior * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    factors = []
    for mean, share, count in zip(means, shares.T, safe, strict=True):
        away = z - mean
        scatter = (away * share[:, None]).T @ away
        factors.append(torch.linalg.cholesky((scatter + diagonal) / count))
    return _Parameters(counts / len(z), means, torch.stack(factors))


def _expect(z: Tensor, parameters: _Parameters, prior: float) -> tuple[Tensor, float]:
    """log p(component, point), [n, components], and the prior's penalty in nats a point."""
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


def _far_apart(z: Tensor, count: int) -> Tensor:
    """Points to start from, [count, dim]: each drawn by its squared distance from those before."""
    seeds = z[torch.randint(len(z), (1,), device=z.device)]
    for _ in range(count - 1):
        away = torch.cdist(z, seeds).square().amin(1)
        # Where all points are the same, any will do.
        seeds = torch.cat([seeds, z[torch.multinomial(away + _TINY, 1)]])
    return seeds


def _nearest(z: Tensor, seeds: Tensor) -> Tensor:
    """Each point's share in the components, [n, components]: all of it in that of the nearest."""
    nearest = torch.cdist(z, seeds).argmin(1)
    return nn.functional.one_hot(nearest, len(seeds)).to(z.dtype)
