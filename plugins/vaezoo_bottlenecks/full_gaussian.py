"""A Gaussian posterior with full covariance, by a Cholesky factor."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, register_kl
from torch.types import _size

from vaezoo.models.distributions import to_float32

from .latent import LatentBottleneck, VectorDistribution
from .options import FullGaussianOptions

_LARGEST = 1e4
"""Bound of the numbers below the diagonal, so that no value is a function of the others."""


class FullGaussian(VectorDistribution):
    """A Gaussian with full covariance over the n values at each position of a grid, or over all.

    Positions are independent. loc: the means, [batch, *grid, n]. scale_tril: Cholesky factors of
    the covariances, [batch, *grid, n, n], lower triangular with a positive diagonal.
    """

    def __init__(self, loc: Tensor, scale_tril: Tensor) -> None:
        super().__init__(loc.shape)
        self.loc, self.scale_tril = loc, scale_tril
        self.half_log_det = scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @property
    def mean(self) -> Tensor:
        return self.to_latent(self.loc)

    @property
    def variance(self) -> Tensor:
        return self.to_latent(self.scale_tril.square().sum(-1))

    @property
    def covariance_matrix(self) -> Tensor:
        """Of the flattened latent: [batch, latents, latents]; 0 between two positions."""
        with _no_autocast(self.loc.device):
            blocks = self.scale_tril @ self.scale_tril.mT
        blocks = blocks.reshape(len(blocks), -1, *blocks.shape[-2:])
        positions = torch.eye(blocks.shape[1], dtype=blocks.dtype, device=blocks.device)
        # [batch, value, position, value, position]: the order of a flattened latent.
        return torch.einsum("bpij,pq->bipjq", blocks, positions).flatten(3).flatten(1, 2)

    def draw(self, sample_shape: _size) -> tuple[Tensor, Tensor]:
        shape = torch.Size(sample_shape) + self.loc.shape
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        with _no_autocast(self.loc.device):
            moved = (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
        constant = 0.5 * shape[-1] * math.log(2 * math.pi)
        return self.loc + moved, -0.5 * noise.square().sum(-1) - self.half_log_det - constant

    def density(self, vectors: Tensor) -> Tensor:
        with _no_autocast(self.loc.device):
            normal = MultivariateNormal(self.loc, scale_tril=self.scale_tril, validate_args=False)
            return normal.log_prob(vectors)


@register_kl(FullGaussian, Independent)  # type: ignore[untyped-decorator]
def _kl_to_diagonal(q: FullGaussian, p: Independent[Normal]) -> Tensor:
    """To a diagonal Gaussian: ½ Σ ((Σ_ii + (μ_i − m_i)²) / s_i² − 1 + 2 log s_i) − log det L."""
    if not isinstance(p.base_dist, Normal):
        raise NotImplementedError
    square = (q.variance + (q.mean - p.mean).square()) / p.variance
    terms = 0.5 * (square - 1) + p.stddev.log()
    return terms.flatten(1).sum(1) - q.sum_over_grid(q.half_log_det)


class FullGaussianBottleneck(LatentBottleneck):
    """q(z|x) = N(mean(x), L(x) L(x)ᵀ), p(z) = N(0, 1) (Kingma & Welling 2019, section 2.5.1).

    The encoder gives means, log-variances and the numbers below the diagonal of a unit triangular
    matrix. Its rows are scaled to length 1, which makes it the factor of a correlation matrix, and
    then by the standard deviations. So `--logvar-range` limits the variances themselves, as for a
    diagonal Gaussian, and the rate starts near that of a diagonal one. (In the paper, the numbers
    are added below a diagonal of standard deviations: the same family.)

    On a grid the values of a position are correlated, positions are not.
    """

    options: FullGaussianOptions

    def __init__(self, options: FullGaussianOptions, grid: tuple[int, ...] = ()) -> None:
        super().__init__(options, grid)
        n = options.num_latents
        self.num_params = 2 * n + n * (n - 1) // 2
        row, column = torch.tril_indices(n, n, -1)
        self.below: Tensor
        self.register_buffer("below", n * row + column, persistent=False)

    def forward(self, params: Tensor) -> FullGaussian:
        n = self.options.num_latents
        loc, std = self.mean_and_std(params[:, : 2 * n])
        raw = to_float32(params[:, 2 * n :]).movedim(1, -1).clamp(-_LARGEST, _LARGEST)
        zeros = raw.new_zeros(*raw.shape[:-1], n * n)
        lower = zeros.index_copy(-1, self.below, raw).unflatten(-1, (n, n))
        unit = lower + torch.eye(n, dtype=lower.dtype, device=lower.device)
        length = torch.sqrt(1 + lower.square().sum(-1))
        scale = std.movedim(1, -1) / length
        return FullGaussian(loc.movedim(1, -1), scale.unsqueeze(-1) * unit)


def _no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Turns autocast off: it computes matrix products in half precision."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
