"""The radial flow (Rezende & Mohamed 2015): contracts or expands around a point."""

from __future__ import annotations

import torch
from torch import Tensor

from .flow import FlowBottleneck, positive


class RadialStep:
    """z -> z + β (z − z₀) / (α + r), r = |z − z₀| (Rezende & Mohamed 2015, equation 14).

    It is invertible if β > −α (appendix A.2): α and β are made from numbers without bounds, by
    α > 0 and 1 + β / α > 0. Zeros give α = 1 and β = 0, the identity.

    With ρ = α / (α + r) and k = 1 + β / α, distances from z₀ are scaled by 1 − ρ + kρ, and the
    derivative along the radius is 1 − ρ² + kρ²: sums of positive terms.

    center: z₀, [..., n]. raw_alpha, raw_beta: [...].
    """

    def __init__(self, center: Tensor, raw_alpha: Tensor, raw_beta: Tensor) -> None:
        self.center, self.alpha, self.k = center, positive(raw_alpha), positive(raw_beta)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The next vectors, and log |det dz'/dz|."""
        offset = z - self.center
        scale, log_det = self._scale(torch.linalg.vector_norm(offset, dim=-1), z.shape[-1])
        return self.center + scale.unsqueeze(-1) * offset, log_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors that `forward` maps to these, and the same log-determinant.

        The distance R = r (1 + β / (α + r)) is a quadratic equation in r.
        """
        offset = z - self.center
        distance = torch.linalg.vector_norm(offset, dim=-1)
        half = 0.5 * (distance - self.k * self.alpha)
        product = distance * self.alpha
        root = torch.sqrt(half.square() + product)
        # The positive root r of r² − 2 half r − product, without cancellation on either side.
        r = torch.where(half > 0, half + root, product / (root + half.abs()))
        scale, log_det = self._scale(r, z.shape[-1])
        return self.center + offset / scale.unsqueeze(-1), log_det

    def _scale(self, r: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """The factor of the distance r, and log |det| in n dimensions."""
        rho = self.alpha / (self.alpha + r)
        rest = r / (self.alpha + r)  # 1 − ρ
        scale = rest + self.k * rho
        slope = rest * (1 + rho) + self.k * rho.square()
        return scale, (n - 1) * scale.log() + slope.log()


class RadialFlowBottleneck(FlowBottleneck):
    """q(z|x) is a diagonal Gaussian after `flow_steps` radial flows; p(z) = N(0, 1).

    The encoder gives z₀, α and β of every step, as in the inference network of Rezende & Mohamed
    (2015, section 4.2).
    """

    @property
    def step_params(self) -> int:
        return self.options.num_latents + 2

    def step(self, params: Tensor) -> RadialStep:
        center, alpha, beta = params.split([self.options.num_latents, 1, 1], -1)
        return RadialStep(center, alpha.squeeze(-1), beta.squeeze(-1))
