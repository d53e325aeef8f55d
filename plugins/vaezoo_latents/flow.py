"""Inverse autoregressive flow (Kingma et al. 2016): steps with a triangular Jacobian."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo.models.distributions import to_float32

from .made import MADE

_GATE_BIAS = 2.0
"""The initial gate is sigmoid(2) = 0.88, so a step changes little at first."""

_MAX_INVERSE = 1e8
"""Bound of inverted values, so that values that the flow hardly ever gives stay finite."""


class FlowStep(nn.Module):
    """z -> σ ⊙ z + (1 − σ) ⊙ m; m and σ = sigmoid(s) depend on the coordinates before each one.

    Kingma et al. (2016), equations 12 to 14. Values are [..., n], contexts [..., c].
    """

    def __init__(self, n: int, context: int, hidden: Sequence[int], reverse: bool) -> None:
        super().__init__()
        self.network = MADE(n, context, hidden, outputs=2, reverse=reverse)
        last = self.network.rest[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias[n:].add_(_GATE_BIAS)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The next z, [..., n], and log |det dz'/dz|, [...]."""
        m, s = self._m_and_s(z, context)
        # 1 − σ(s) is σ(−s), and its log-sigmoid never underflows.
        return torch.sigmoid(s) * z + torch.sigmoid(-s) * m, F.logsigmoid(s).sum(-1)

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The z that `forward` maps to this one, and the same determinant, in n passes."""
        found = torch.zeros_like(z)
        for i in range(1, z.shape[-1] + 1):
            m, s = self._m_and_s(found, context)
            # (z − (1 − σ) m) / σ, where 1 / σ − 1 = exp(−s)
            candidate = z + torch.exp(-s) * (z - m)
            candidate = candidate.clamp(-_MAX_INVERSE, _MAX_INVERSE)
            found = torch.where(self.network.order == i, candidate, found)
        _, s = self._m_and_s(found, context)
        return found, F.logsigmoid(s).sum(-1)

    def _m_and_s(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        m, s = to_float32(self.network(z, context)).unbind(-2)
        return m, s


class Flow(nn.Module):
    """A sequence of steps; the order of the coordinates is reversed from each to the next."""

    def __init__(self, n: int, context: int, hidden: Sequence[int], steps: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            FlowStep(n, context, hidden, reverse=i % 2 == 1) for i in range(steps)
        )

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The last z, [..., n], and log |det| of all steps, [...]."""
        log_det = z.new_zeros(z.shape[:-1])
        for step in self.steps:
            z, step_log_det = step(z, context)
            log_det = log_det + step_log_det
        return z, log_det

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The first z, and log |det| of the forward direction."""
        log_det = z.new_zeros(z.shape[:-1])
        for step in reversed(self.steps):
            assert isinstance(step, FlowStep)
            z, step_log_det = step.inverse(z, context)
            log_det = log_det + step_log_det
        return z, log_det
