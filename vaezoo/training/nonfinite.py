"""Non-finite losses, gradients and weights: detect, skip, stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

LIMIT = 20.0
"""How far skipped steps may run ahead of their allowance."""
ALLOWANCE = 0.05
"""Of the steps, those that may be skipped for ever: one in twenty."""


class Guard:
    """Decides on the device whether a step counts.

    An optimizer is told by its `found_inf`, which fused kernels heed: nothing of its parameters and
    state moves. What the forward pass moved (statistics of batch norm, codebooks) is put back.

    skipped: how many steps were left out, int64. ahead: how far those are ahead of their allowance:
    each adds 1, every other step takes ALLOWANCE away. furthest: the most that was since it was
    last asked for. All are 0-dim tensors on the device.
    """

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        self._buffers = [buffer for module in modules for buffer in module.buffers()]
        self._before = [buffer.clone() for buffer in self._buffers]
        self._bad = torch.zeros((), device=device)
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        self.ahead = torch.zeros((), device=device)
        self.furthest = torch.zeros((), device=device)

    def begin(self) -> None:
        """Before the forward pass of a step."""
        self._bad.zero_()
        for before, buffer in zip(self._before, self._buffers, strict=True):
            before.copy_(buffer)

    def check_grads(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
    ) -> None:
        """Before an optimizer's step: whether it may move these parameters."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        found = (~torch.isfinite(norm)).float().to(self._bad.device)
        optimizer.found_inf = found  # type: ignore[attr-defined]
        self._bad.copy_(torch.maximum(self._bad, found))

    def end(self) -> None:
        """After the last phase of a step."""
        for before, buffer in zip(self._before, self._buffers, strict=True):
            buffer.copy_(torch.where(self._bad > 0, before, buffer))
        self.skipped += self._bad.to(torch.int64)
        self.ahead.add_(torch.where(self._bad > 0, 1.0, -ALLOWANCE)).clamp_(min=0.0)
        self.furthest.copy_(torch.maximum(self.furthest, self.ahead))

    def read(self) -> tuple[int, bool]:
        """How many steps were left out, and whether those are too many. Waits for the device."""
        skipped, furthest = torch.stack([self.skipped.double(), self.furthest.double()]).tolist()
        self.furthest.copy_(self.ahead)
        return int(skipped), furthest > LIMIT

    def saved(self) -> dict[str, Tensor]:
        return {"skipped": self.skipped, "ahead": self.ahead, "furthest": self.furthest}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        for name, tensor in self.saved().items():
            tensor.copy_(saved[name])
