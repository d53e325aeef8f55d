"""StepGuard skips a training step whose loss or gradient is not finite, or too large."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaezoo.distributed import all_reduce
from vaezoo.distributed.fsdp import all_finite, local_part

MAX_EXCESS = 20.0
"""The largest number of skipped steps above the allowed rate."""
ALLOWED_RATE = 0.05
"""The fraction of steps that may always be skipped."""


class StepGuard(nn.Module):
    """Skips a step on the device if its loss or a value of a gradient is not finite, or too large.

    skip_nonfinite: whether to skip what is not finite. max_norm: a step is skipped if the norm of
    a phase's gradient is finite and above it; None: no norm is too large.

    Parameters and the state of the optimizer stay as they are: a fused optimizer does that by its
    `found_inf`; for others copies are restored, as for buffers that the forward pass changed (batch
    norm, codebooks).

    All counts are 0-dim tensors on the device. bad: 1 if this step is skipped, else 0. skipped: the
    number of skipped steps, int64. excess: how many more were skipped than ALLOWED_RATE allows; at
    least 0. max_excess: its maximum since the last `read`.
    """

    skipped: Tensor
    excess: Tensor
    max_excess: Tensor

    def __init__(
        self,
        modules: Sequence[nn.Module],
        device: torch.device,
        *,
        skip_nonfinite: bool = True,
        max_norm: float | None = None,
    ) -> None:
        super().__init__()
        self.skip_nonfinite, self.max_norm = skip_nonfinite, max_norm
        self._watched = [buffer for module in modules for buffer in module.buffers()]
        self._before = [buffer.clone() for buffer in self._watched]
        self.bad = torch.zeros((), device=device)
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("excess", torch.zeros((), device=device))
        self.register_buffer("max_excess", torch.zeros((), device=device))

    @property
    def reason(self) -> str:
        """Why steps are skipped, in words."""
        reasons = ["their loss or gradient was not finite"] if self.skip_nonfinite else []
        if self.max_norm is not None:
            reasons.append(f"the norm of their gradient was above {self.max_norm:g}")
        return ", or ".join(reasons)

    def begin(self) -> None:
        """Call this before the forward pass of a step."""
        self.bad.zero_()
        for before, buffer in zip(self._before, self._watched, strict=True):
            before.copy_(buffer)

    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor, norm: Tensor | None) -> None:
        """Take the optimizer's step, unless it must be skipped.

        norm: of the gradients, before they were clipped; None: without --skip-grad-norm.
        """
        found = self._check(optimizer, loss, norm)
        self.bad.copy_(torch.maximum(self.bad, found))
        if optimizer.defaults.get("fused"):
            optimizer.found_inf = found  # type: ignore[attr-defined]
            optimizer.step()
            return
        before = {name: tensor.clone() for name, tensor in _tensors_of(optimizer).items()}
        optimizer.step()
        for name, tensor in _tensors_of(optimizer).items():
            # What an optimizer creates at its first step is 0 before it.
            value = before[name] if name in before else torch.zeros_like(tensor)
            tensor.copy_(torch.where((found > 0).to(tensor.device), value, tensor))

    def _check(self, optimizer: torch.optim.Optimizer, loss: Tensor, norm: Tensor | None) -> Tensor:
        """1.0 if the step must be skipped, in all processes, if in one; 0-dim."""
        found = torch.zeros_like(self.bad)
        if self.skip_nonfinite:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            gradients = [p.grad for p in parameters if p.grad is not None]
            found = (~all_finite([loss, *gradients])).float()
        if self.max_norm is not None and norm is not None:
            found = torch.maximum(found, (norm.isfinite() & (norm > self.max_norm)).float())
        return all_reduce(found).clamp(max=1.0)

    def end(self) -> None:
        """Call this after the last phase of a step."""
        for before, buffer in zip(self._before, self._watched, strict=True):
            buffer.copy_(torch.where(self.bad > 0, before, buffer))
        self.skipped += self.bad.to(torch.int64)
        self.excess.add_(torch.where(self.bad > 0, 1.0, -ALLOWED_RATE)).clamp_(min=0.0)
        self.max_excess.copy_(torch.maximum(self.max_excess, self.excess))

    def read(self) -> tuple[int, bool]:
        """The number of skipped steps, and whether they are too many. Waits for the device."""
        counts = torch.stack([self.skipped.double(), self.max_excess.double()]).tolist()
        self.max_excess.copy_(self.excess)
        return int(counts[0]), counts[1] > MAX_EXCESS


def _tensors_of(optimizer: torch.optim.Optimizer) -> dict[tuple[Tensor, str], Tensor]:
    """The parameters and the state of an optimizer; of sharded tensors, this process's part."""
    found = {(p, ""): p for group in optimizer.param_groups for p in group["params"]}
    for parameter, kept in optimizer.state.items():
        found |= {(parameter, name): value for name, value in kept.items()}
    return {name: local_part(tensor) for name, tensor in found.items()}
