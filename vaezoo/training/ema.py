"""An exponential moving average of the weights of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vaezoo.distributed.fsdp import local_part


class WeightAverages:
    """The averages of a model's trained parameters and of batch norm's running statistics.

    At step t, from 0, the average moves towards the weights by max(1 - decay, 9 / (10 + t)): short
    runs are not dominated by the initial weights. Other buffers are not averaged: codebooks that
    follow moving averages, counters and schedules are used as they are.

    averages: by name in the model's state_dict.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        running = {
            f"{path}.{name}".lstrip(".")
            for path, layer in model.named_modules()
            if isinstance(layer, _BatchNorm)
            for name in ("running_mean", "running_var")
        }
        self._weights: dict[str, Tensor] = {
            name: value.detach()
            for name, value in model.state_dict(keep_vars=True).items()
            if value.requires_grad or name in running
        }
        self.averages = {name: value.clone() for name, value in self._weights.items()}

    @torch.no_grad()
    def update(self, step: Tensor, skipped: Tensor | None) -> None:
        """Call this after a step. step: its number, 0-dim. skipped: 1 if it was skipped, else 0."""
        weight = (9.0 / (step + 10.0)).clamp(min=1.0 - self.decay)
        if skipped is not None:
            weight = weight * (1.0 - skipped)
        for name, average in self.averages.items():
            own, value = local_part(average), local_part(self._weights[name])
            own.lerp_(value, weight.to(own.dtype))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averages in the body, in the memory of its weights."""
        before = {name: value.clone() for name, value in self._weights.items()}
        self._copy(self.averages)
        try:
            yield
        finally:
            self._copy(before)

    @torch.no_grad()
    def _copy(self, values: dict[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            local_part(weight).copy_(local_part(values[name]))
