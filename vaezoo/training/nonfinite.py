"""Skip training steps whose gradients are not finite, without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

MAX_EXCESS = 20.0
"""The largest number of skipped steps above the allowed rate."""
ALLOWED_RATE = 0.05
"""The fraction of steps that may always be skipped."""


class NonFiniteGuard(nn.Module):
    """Skips a step on the device if a gradient is not finite.

    It sets the optimizer's `found_inf`: a fused optimizer then leaves its parameters and its state
    as they are. Buffers that the forward pass changed (batch norm, codebooks) are restored.

    All counts are 0-dim tensors on the device. skipped: the number of skipped steps, int64.
    excess: how many more were skipped than ALLOWED_RATE allows; at least 0. max_excess: its maximum
    since the last `read`.
    """

    skipped: Tensor
    excess: Tensor
    max_excess: Tensor

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        super().__init__()
        self._watched = [buffer for module in modules for buffer in module.buffers()]
        self._before = [buffer.clone() for buffer in self._watched]
        self._bad = torch.zeros((), device=device)
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("excess", torch.zeros((), device=device))
        self.register_buffer("max_excess", torch.zeros((), device=device))

    def begin(self) -> None:
        """Call this before the forward pass of a step."""
        self._bad.zero_()
        for before, buffer in zip(self._before, self._watched, strict=True):
            before.copy_(buffer)

    def check_grads(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
    ) -> None:
        """Call this before an optimizer's step: it makes the step a no-op if it must be skipped."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        found = (~torch.isfinite(norm)).float().to(self._bad.device)
        optimizer.found_inf = found  # type: ignore[attr-defined]
        self._bad.copy_(torch.maximum(self._bad, found))

    def end(self) -> None:
        """Call this after the last phase of a step."""
        for before, buffer in zip(self._before, self._watched, strict=True):
            buffer.copy_(torch.where(self._bad > 0, before, buffer))
        self.skipped += self._bad.to(torch.int64)
        self.excess.add_(torch.where(self._bad > 0, 1.0, -ALLOWED_RATE)).clamp_(min=0.0)
        self.max_excess.copy_(torch.maximum(self.max_excess, self.excess))

    def read(self) -> tuple[int, bool]:
        """The number of skipped steps, and whether they are too many. Waits for the device."""
        counts = torch.stack([self.skipped.double(), self.max_excess.double()]).tolist()
        self.max_excess.copy_(self.excess)
        return int(counts[0]), counts[1] > MAX_EXCESS
