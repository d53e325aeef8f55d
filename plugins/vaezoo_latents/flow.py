"""Inverse autoregressive flow: many steps, each with a triangular Jacobian."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo.models.distributions import to_float32

from .made import MADE

_GATE = 2.0
"""What a gate starts from: with sigmoid(2) = 0.88 a step begins by changing little."""

_FAR = 1e8
"""Where the way back ends for values that the flow hardly ever makes: finite, and unlikely."""


class FlowStep(nn.Module):
    """z -> σ ⊙ z + (1 − σ) ⊙ m, with m and σ = sigmoid(s) of the coordinates before each.

    Kingma et al. (2016), equations 12 to 14. Values are [..., n], contexts [..., c].
    """

    def __init__(self, n: int, context: int, hidden: Sequence[int], reverse: bool) -> None:
        super().__init__()
        self.network = MADE(n, context, hidden, outputs=2, reverse=reverse)
        last = self.network.rest[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias[n:].add_(_GATE)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The next z, and log |det dz'/dz|: [..., n] and [...]."""
        m, s = self._m_and_s(z, context)
        # 1 − σ(s) is σ(−s), and its log-sigmoid never underflows.
        return torch.sigmoid(s) * z + torch.sigmoid(-s) * m, F.logsigmoid(s).sum(-1)

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The z that `forward` took to this one, and the same determinant: n passes, one by one."""
        found = torch.zeros_like(z)
        for place in range(1, z.shape[-1] + 1):
            m, s = self._m_and_s(found, context)
            # (z − (1 − σ) m) / σ, where 1 / σ − 1 = exp(−s)
            candidate = z + torch.exp(-s) * (z - m)
            candidate = candidate.clamp(-_FAR, _FAR)
            found = torch.where(self.network.order == place, candidate, found)
        _, s = self._m_and_s(found, context)
        return found, F.logsigmoid(s).sum(-1)

    def _m_and_s(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        m, s = to_float32(self.network(z, context)).unbind(-2)
        return m, s


class Flow(nn.Module):
    """Steps one after the other, the order of the coordinates reversed from each to the next."""

    def __init__(self, n: int, context: int, hidden: Sequence[int], steps: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            FlowStep(n, context, hidden, reverse=i % 2 == 1) for i in range(steps)
        )

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The last z and log |det| of the whole way: [..., n] and [...]."""
        log_det = z.new_zeros(z.shape[:-1])
        for step in self.steps:
            z, more = step(z, context)
            log_det = log_det + more
        return z, log_det

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The first z, and log |det| of the way from there: as `forward` told it."""
        log_det = z.new_zeros(z.shape[:-1])
        for step in reversed(self.steps):
            assert isinstance(step, FlowStep)
            z, more = step.inverse(z, context)
            log_det = log_det + more
        return z, log_det
