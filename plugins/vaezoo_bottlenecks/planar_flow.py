"""The planar flow (Rezende & Mohamed 2015): stretches along one direction across a hyperplane."""

from __future__ import annotations

import torch
from torch import Tensor

from .flow import FlowBottleneck, positive

_NEWTON_STEPS = 60
"""Enough for float64: a step takes a third away at least, and near the root nearly all."""
_TINY = 1e-12


class PlanarStep:
    """z -> z + û tanh(w·z + b) (Rezende & Mohamed 2015, equations 10 to 12).

    It is invertible if w·û > −1. Appendix A.1 makes û from u, so that w·û = m(w·u) with a function
    m above −1. Here m is a softplus moved so that m(0) = 0: then u = 0 is the identity, and û stays
    bounded as w goes to 0.

    u, w: [..., n]. b: [...].
    """

    def __init__(self, u: Tensor, w: Tensor, b: Tensor) -> None:
        product = (w * u).sum(-1)
        self.slope = positive(product)
        """1 + w·û, the derivative across the hyperplane."""
        # Where w is 0, w·û is 0 whatever is added.
        along = w / w.square().sum(-1, keepdim=True).clamp(min=_TINY)
        self.u = u + (self.slope - 1 - product).unsqueeze(-1) * along
        self.w, self.b = w, b

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The next vectors, and log |det dz'/dz|."""
        a = (z * self.w).sum(-1) + self.b
        return z + self.u * torch.tanh(a).unsqueeze(-1), self._log_det(a)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors that `forward` maps to these, and the same log-determinant."""
        a = solve_tanh(self.slope - 1, (z * self.w).sum(-1) + self.b)
        return z - self.u * torch.tanh(a).unsqueeze(-1), self._log_det(a)

    def _log_det(self, a: Tensor) -> Tensor:
        """log(1 + tanh'(a) w·û), equation 12."""
        return torch.log(_slope(a, self.slope))


def solve_tanh(t: Tensor, c: Tensor) -> Tensor:
    """The a at which a + t tanh(a) = c, for t > −1: [...]. It can be differentiated.

    The function is odd; for a ≥ 0 it is concave if t ≥ 0, convex if not. Newton's method from the
    side where the tangent does not pass the root goes to it without fail.
    """
    with torch.no_grad():
        goal = c.abs()
        # tanh(a) ≤ a and tanh(a) ≤ 1: lower bounds of the root if t ≥ 0, upper bounds if not.
        bounds = goal / (1 + t), goal - t
        a = torch.where(t >= 0, torch.maximum(*bounds), torch.minimum(*bounds))
        for _ in range(_NEWTON_STEPS):
            a = a - _residual(a, t, goal)
        a = a.copysign(c)
    # One step more, with the gradients of the implicit function.
    return a - _residual(a, t, c)


def _residual(a: Tensor, t: Tensor, c: Tensor) -> Tensor:
    """Newton's step: the distance from c over the slope."""
    return (a + t * torch.tanh(a) - c) / _slope(a, 1 + t)


def _slope(a: Tensor, at_zero: Tensor) -> Tensor:
    """The derivative of a + t tanh(a), 1 + t tanh'(a), as a sum of positive terms.

    at_zero: 1 + t.
    """
    bend = 4 * torch.sigmoid(2 * a) * torch.sigmoid(-2 * a)  # tanh', with all its digits
    return torch.tanh(a).square() + bend * at_zero


class PlanarFlowBottleneck(FlowBottleneck):
    """q(z|x) is a diagonal Gaussian after `flow_steps` planar flows; p(z) = N(0, 1).

    The encoder gives û, w and b of every step, as in the inference network of Rezende & Mohamed
    (2015, section 4.2).
    """

    @property
    def step_params(self) -> int:
        return 2 * self.options.num_latents + 1

    def step(self, params: Tensor) -> PlanarStep:
        n = self.options.num_latents
        u, w, b = params.split([n, n, 1], -1)
        return PlanarStep(u, w, b.squeeze(-1))
